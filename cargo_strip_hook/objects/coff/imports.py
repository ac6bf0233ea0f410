"""Members of import libraries: they stay members of their own, as linkers and loaders want them.

Source: Microsoft, "PE Format", "Import Library Format" (the short form); the long form are objects
with `.idata$` sections, as `dlltool` and rustc for MinGW write them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.objects.coff import layouts as coff
from cargo_strip_hook.objects.coff.file import CoffFile
from cargo_strip_hook.objects.model import Companion, Input
from cargo_strip_hook.objects.sniff import sniff

_IMPORT_CODE = 0


def companions(inputs: Sequence[Input]) -> list[Companion]:
    """Those of `inputs` that belong to import libraries. Raises `ObjectError`."""
    found = []
    for item in inputs:
        if sniff(bytes(item.data[:20])) == "coff-import":
            found.append(_short(item))
        elif b".idata$" in bytes(item.data[:1024]):  # its sections are few, and come first
            file = CoffFile(item.name, item.data)
            if any(n.startswith(b".idata$") for n in file.names):
                found.append(_long(item, file))
    return found


def _short(item: Input) -> Companion:
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
    descriptor = b"__IMPORT_DESCRIPTOR_" + library.rpartition(b".")[0]
    return Companion(item.index, defines, (descriptor,))


def _long(item: Input, f: CoffFile) -> Companion:
    f.check_symbols()
    primary = f.primary
    rows = f.symbols[primary]
    external = rows["class"] == coff.CLASS_EXTERNAL
    undefined = external & (rows["section"] == coff.SYM_UNDEFINED) & (rows["value"] == 0)
    # an undefined symbol of the class SECTION asks for the descriptor's part in that section
    defines = f.symbol_names(primary[np.flatnonzero(external & ~undefined)])
    needs = f.symbol_names(primary[np.flatnonzero(undefined)])
    return Companion(item.index, tuple(defines), tuple(needs))
