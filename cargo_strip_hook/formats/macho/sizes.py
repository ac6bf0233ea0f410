"""What the bytes of a Mach-O object are for, section by section.

Source: mach-o/loader.h (section types and attributes); the names are those of
`__compact_unwind`, `__eh_frame`, `__gcc_except_tab` and LLVM's bitcode.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.reader import macho_unit
from cargo_strip_hook.link.model import SIZE, Array, Contents, Unit

_UNWIND = (b"__eh_frame", b"__gcc_except_tab", b"__compact_unwind")
_CONSTANT = (b"__TEXT", b"__DATA_CONST")
_CONSTANT_NAMES = (b"__const", b"__cfstring")  # of __DATA, which linkers put into __DATA_CONST


def sizes(unit: Unit) -> Array:
    """SIZE of each section, then of relocations and of symbols with their names."""
    native = macho_unit(unit)
    sections = native.sections
    segments, names = sections["segname"], sections["sectname"]
    count = len(sections)
    rows = np.zeros(count + 2, SIZE)
    kind = rows["kind"][:count]
    kind[:] = Contents.DATA
    for segment in _CONSTANT:
        kind[segments == segment] = Contents.CONSTANTS
    for name in _CONSTANT_NAMES:
        kind[names == name] = Contents.CONSTANTS
    code = mo.S_ATTR_PURE_INSTRUCTIONS | mo.S_ATTR_SOME_INSTRUCTIONS
    kind[sections["flags"] & code != 0] = Contents.CODE
    for name in _UNWIND:
        kind[names == name] = Contents.UNWIND
    types = sections["flags"] & mo.SECTION_TYPE
    empty = np.zeros(count, np.bool_)
    for number in mo.ZEROFILL_TYPES:
        empty |= types == number
    kind[empty] = Contents.ZEROS
    kind[segments == mo.DEBUG_SEGMENT] = Contents.DEBUG
    kind[names == mo.MARKER_SECTION] = Contents.OTHER
    kind[segments == b"__LLVM"] = Contents.BITCODE
    loaded = kind <= Contents.UNWIND
    rows["size"][:count][loaded] = sections["size"][loaded]
    rows["stored"][:count][~empty] = sections["size"][~empty]
    rows["kind"][count:] = Contents.RELOCATIONS, Contents.SYMBOLS
    rows["stored"][count] = 8 * int(sections["nreloc"].sum())
    rows["stored"][count + 1] = 16 * len(native.numbers) + len(unit.strings)
    return rows
