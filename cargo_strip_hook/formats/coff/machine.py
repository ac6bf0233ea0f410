"""What a processor decides: its relocations.

Source: Microsoft, "PE Format", "Type Indicators"; how addends are applied: LLVM's lld,
`COFF/Chunks.cpp` (`applyRelX64`, `applyRelX86`, `applyRelARM64`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array

TYPES = 32  # relocation types are below


class Mode(IntEnum):
    """What a relocation can say besides its symbol."""

    UNKNOWN = 0
    NOTHING = 1  # *_ABSOLUTE: ignored
    ADDS = 2  # the field holds an addend of its full width
    SECTION = 3  # the number of the symbol's section: the field adds nothing that we change
    EXACT = 4  # no room for an addend: a symbol stands at exactly the location


@dataclass(frozen=True, slots=True)
class Machine:
    """One processor. Arrays are indexed by relocation type, TYPES long.

    `distance`: how the distance within one section is stored, which counts from `trailing` bytes
    behind the field's start; `adds`: how the addend is.
    """

    number: int
    bits: int
    width: Array  # bytes of the field
    mode: Array
    distance: Array  # of `Field`
    trailing: Array
    adds: Array  # of `Field`
    pointer: int  # the type of a plain address
    relative: int  # and of one of 32 bits that counts from the image
    entry: int  # bytes of an entry of `.pdata`, 0 for none
    padding: bytes  # what stands between functions
    branch_limit: int = 1 << 31  # bytes of a section that branches can span


_Row = tuple[int, Mode, Field, int]  # width, mode, distance, trailing


def _columns(rows: dict[int, _Row]) -> tuple[Array, Array, Array, Array, Array]:
    """(width, mode, distance, trailing, adds) of a processor's relocation types: int64, by type."""
    columns = np.zeros((4, TYPES), np.int64)
    for kind, row in rows.items():
        columns[:, kind] = row
    width, mode, distance, trailing = columns
    adds = np.where(width == 8, Field.BITS64, Field.BITS32)
    return width, mode, distance, trailing, np.where(mode == Mode.ADDS, adds, Field.NONE)


_NOTHING = (0, Mode.NOTHING, Field.NONE, 0)
_ADDS32 = (4, Mode.ADDS, Field.NONE, 0)
_ADDS64 = (8, Mode.ADDS, Field.NONE, 0)
_SECTION = (2, Mode.SECTION, Field.NONE, 0)
_EXACT = (4, Mode.EXACT, Field.NONE, 0)


def _rel32(trailing: int) -> _Row:
    return 4, Mode.ADDS, Field.BITS32, trailing


_MACHINES = {
    coff.AMD64: Machine(
        coff.AMD64,
        64,
        *_columns(
            {
                0x0: _NOTHING,
                0x1: _ADDS64,  # ADDR64
                0x2: _ADDS32,  # ADDR32
                0x3: _ADDS32,  # ADDR32NB
                **{0x4 + n: _rel32(4 + n) for n in range(6)},  # REL32 … REL32_5
                0xA: _SECTION,
                0xB: _ADDS32,  # SECREL
                0xC: (1, Mode.EXACT, Field.NONE, 0),  # SECREL7
            }
        ),
        pointer=0x1,
        relative=0x3,
        entry=12,
        padding=b"\xcc",
    ),
    coff.I386: Machine(
        coff.I386,
        32,
        *_columns(
            {
                0x0: _NOTHING,
                0x1: (2, Mode.EXACT, Field.NONE, 0),  # DIR16
                0x2: (2, Mode.EXACT, Field.NONE, 0),  # REL16
                0x6: _ADDS32,  # DIR32
                0x7: _ADDS32,  # DIR32NB
                0xA: _SECTION,
                0xB: _ADDS32,  # SECREL
                0xD: (1, Mode.EXACT, Field.NONE, 0),  # SECREL7
                0x14: _rel32(4),
            }
        ),
        pointer=0x6,
        relative=0x7,
        entry=0,
        padding=b"\xcc",
    ),
    coff.ARM64: Machine(
        coff.ARM64,
        64,
        *_columns(
            {
                0x0: _NOTHING,
                0x1: _ADDS32,  # ADDR32
                0x2: _ADDS32,  # ADDR32NB
                0x3: (4, Mode.EXACT, Field.A64_BRANCH26, 0),
                0x4: _EXACT,  # PAGEBASE_REL21
                0x5: _EXACT,  # REL21
                0x6: _EXACT,  # PAGEOFFSET_12A
                0x7: _EXACT,  # PAGEOFFSET_12L
                0x8: _ADDS32,  # SECREL
                0x9: _EXACT,  # SECREL_LOW12A
                0xA: _EXACT,  # SECREL_HIGH12A
                0xB: _EXACT,  # SECREL_LOW12L
                0xD: _SECTION,
                0xE: _ADDS64,  # ADDR64
                0xF: (4, Mode.EXACT, Field.A64_BRANCH19, 0),
                0x10: (4, Mode.EXACT, Field.A64_BRANCH14, 0),
                0x11: _rel32(4),
            }
        ),
        pointer=0xE,
        relative=0x2,
        entry=8,
        padding=b"\0",
        branch_limit=96 << 20,
    ),
}


def machine(number: int) -> Machine | None:
    """The processor of a file header's Machine, None for one that is not supported."""
    return _MACHINES.get(number)
