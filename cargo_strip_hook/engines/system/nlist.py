"""Small changes in place to what Apple's tools wrote: sizes and offsets stay the same.

Sources: mach-o/loader.h, mach-o/nlist.h; ar(5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cargo_strip_hook.archive.model import HEADER_SIZE, MAGIC
from cargo_strip_hook.core.errors import ArchiveError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.commands import read_commands
from cargo_strip_hook.link.reading import InputFile
from cargo_strip_hook.link.strings import string_at


@dataclass(frozen=True, slots=True)
class Seen:
    """External names of an object (sorted), and counts of its sections and local symbols."""

    defined: tuple[str, ...]
    undefined: tuple[str, ...]
    sections: int
    locals: int
    marked: bool


def finish(data: bytearray, routines: Sequence[bytes], marker: tuple[str, str]) -> Seen:
    """Make `routines` private weak definitions, and the marker's section one that is not loaded.

    A linked image does not export such a definition, and its libraries share one. Changes `data`
    in place. Raises `ObjectError` for a damaged object.
    """
    commands = read_commands(InputFile("linked.o", memoryview(data)))
    symbols, sections = commands.symbols, commands.sections  # views of `data`: writing is allowed
    kind = symbols["type"] & mo.N_TYPE
    external = (symbols["type"] & mo.N_EXT != 0) & (symbols["type"] & mo.N_STAB == 0)
    common = external & (kind == mo.N_UNDF) & (symbols["value"] != 0)
    defined = external & ((kind != mo.N_UNDF) | common)
    row_of: dict[bytes, int] = {}
    for row in np.flatnonzero(external).tolist():
        row_of[string_at(commands.strings, int(symbols["strx"][row]))] = row
    for name in routines:
        row = row_of.get(name, -1)
        if row >= 0 and kind[row] == mo.N_SECT:
            symbols["type"][row] |= mo.N_PEXT
            symbols["desc"][row] |= mo.N_WEAK_DEF
    segment, section = (word.encode() for word in marker)
    marked = (sections["segname"] == segment) & (sections["sectname"] == section)
    sections["flags"][marked] |= mo.S_ATTR_DEBUG
    names = {row: name.decode("utf-8", "surrogateescape") for name, row in row_of.items()}
    return Seen(
        tuple(sorted(names[r] for r in np.flatnonzero(defined).tolist())),
        tuple(sorted(names[r] for r in np.flatnonzero(external & ~defined).tolist())),
        len(sections),
        int((~external).sum()),
        bool(marked.sum() == 1),
    )


def show(data: bytearray, names: Sequence[bytes]) -> None:
    """Clear N_PEXT of the symbols `names`, in place: ld does not export private external symbols.

    Raises `ObjectError` for a damaged object.
    """
    if not any(name in data for name in names):
        return
    commands = read_commands(InputFile("member", memoryview(data)))
    kind = commands.symbols["type"]
    for row in np.flatnonzero((kind & mo.N_PEXT != 0) & (kind & mo.N_STAB == 0)).tolist():
        if string_at(commands.strings, int(commands.symbols["strx"][row])) in names:
            kind[row] &= ~mo.N_PEXT & 0xFF


def make_anonymous(archive: Path) -> None:
    """Set time and owner of each member to 0, and its mode to 644.

    Raises `ArchiveError` where the file is no archive.
    """
    data = bytearray(archive.read_bytes())
    offset = len(MAGIC)
    while offset < len(data):
        digits = bytes(data[offset + 48 : offset + 58]).strip()
        if data[: len(MAGIC)] != MAGIC or not digits.isdigit():
            raise ArchiveError("libtool wrote no archive", path=archive.name, offset=offset)
        data[offset + 16 : offset + 48] = b"%-12d%-6d%-6d%-8b" % (0, 0, 0, b"644")
        size = int(digits)
        offset += HEADER_SIZE + size + (size & 1)
    archive.write_bytes(data)
