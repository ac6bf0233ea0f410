"""Members of import libraries: they stay members of their own, as linkers and loaders want them.

Source: Microsoft, "PE Format", "Import Library Format" (the short form); the long form are objects
with `.idata$` sections, as `dlltool` and rustc for MinGW write them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.file import CoffFile
from cargo_strip_hook.formats.sniff import sniff
from cargo_strip_hook.link.model import ImportMember, Input

_IMPORT_CODE = 0


def import_members(inputs: Sequence[Input]) -> list[ImportMember]:
    """Those of `inputs` that belong to import libraries. Raises `ObjectError`."""
    members = []
    for item in inputs:
        if sniff(bytes(item.data[:20])) == "coff-import":
            members.append(_short(item))
        elif b".idata$" in bytes(item.data[:1024]):  # its sections are few, and come first
            file = CoffFile(item.name, item.data)
            if any(n.startswith(b".idata$") for n in file.names):
                members.append(_long(item, file))
    return members


def _short(item: Input) -> ImportMember:
    """One symbol of a DLL. A linker makes the rest of the table, or takes it from the library."""
    if len(item.data) < coff.IMPORT_HEADER.size:
        raise ObjectError("the import is too short for its header", member=item.name, offset=0)
    *_, machine, _, size, _, kind = coff.IMPORT_HEADER.unpack_from(item.data)
    if machine in (coff.ARM64EC, coff.ARM64X):
        raise ObjectError(
            "this is an ARM64EC import, which is not supported", member=item.name, offset=6
        )
    start = coff.IMPORT_HEADER.size
    words = bytes(item.data[start : start + size]).split(b"\0")
    if start + size > len(item.data) or len(words) < 3 or not words[0] or not words[1]:
        raise ObjectError("the import names no symbol of a library", member=item.name, offset=start)
    symbol, library = words[:2]
    pointer = b"__imp_" + symbol
    defines = (pointer, symbol) if kind & 3 == _IMPORT_CODE else (pointer,)
    needs = {b"__IMPORT_DESCRIPTOR_" + stem: None for stem in _stems(library)}
    return ImportMember(item.index, defines, tuple(needs))


def _stems(library: bytes) -> list[bytes]:
    """What the descriptor of a library may be called by: its name without the extension, if any.

    Of a path it is the last part: by `/` and `\\` on Windows, by `/` elsewhere. Source: LLVM's
    `COFFImportFile.cpp`, `sys::path::stem`.
    """
    names = (library, library.rpartition(b"/")[2], re.split(rb"[/\\]", library)[-1])
    return [name.rpartition(b".")[0] or name for name in names]


def _long(item: Input, f: CoffFile) -> ImportMember:
    f.check_symbols()
    primary = f.primary
    rows = f.symbols[primary]
    external = rows["class"] == coff.CLASS_EXTERNAL
    undefined = external & (rows["section"] == coff.SYM_UNDEFINED) & (rows["value"] == 0)
    # an undefined symbol of the class SECTION asks for the descriptor's part in that section
    defines = f.symbol_names(primary[np.flatnonzero(external & ~undefined)])
    needs = f.symbol_names(primary[np.flatnonzero(undefined)])
    return ImportMember(item.index, tuple(defines), tuple(needs))
