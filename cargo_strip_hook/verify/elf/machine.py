"""What the relocation types of each processor are to the checker.

Sources: x86-64 psABI 1.0, table 4.9; AAELF64, "Relocation types"; i386 psABI, table A.1; AAELF32,
"Relocation"; EHABI32, section 5; ELF ABI s390x Supplement 1.6, "Relocation"; RISC-V ELF psABI 1.0,
section 8.4; ELF for the LoongArch Architecture, "Relocations"; 64-Bit ELF V2 ABI 1.5, section 3.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[Any]

TYPES = 1024  # all types of the processors here are below


class Use(IntEnum):
    """What a relocation takes from its symbol."""

    UNKNOWN = 0  # the symbol and the addend stay, but for a section's own symbol
    LOCATION = 1  # the address S + A: another symbol with another addend may say the same
    SYMBOL = 2  # something made for the symbol (GOT entry, TLS descriptor, size)
    NOTHING = 3


class Value(IntEnum):
    """How S + A - P is stored where a linker wrote it itself."""

    NEVER = 0  # cannot be known before the final link
    REL8 = 1
    REL16 = 2
    REL32 = 3
    REL64 = 4
    BRANCH26 = 5  # AArch64: words, bits 0 to 25
    BRANCH19 = 6  # words, bits 5 to 23
    BRANCH14 = 7  # words, bits 5 to 18
    ADR21 = 8  # bytes, bits 29 to 30 and 5 to 23
    HALVES16 = 9  # s390: counts halfwords
    HALVES32 = 10


class Addend(IntEnum):
    """Where a relocation without an addend of its own (SHT_REL) has it, with its sign."""

    NONE = 0  # in parts of an instruction: it is not read, and the contents must stay
    BITS8 = 1
    BITS16 = 2
    BITS32 = 3
    LOW31 = 4  # the topmost bit of 32 is not the addend's


ADDEND_WIDTH = {Addend.BITS8: 1, Addend.BITS16: 2, Addend.BITS32: 4, Addend.LOW31: 4}
VALUE_WIDTH = {
    Value.REL8: 1,
    Value.REL16: 2,
    Value.REL32: 4,
    Value.REL64: 8,
    Value.BRANCH26: 4,
    Value.BRANCH19: 4,
    Value.BRANCH14: 4,
    Value.ADR21: 4,
    Value.HALVES16: 2,
    Value.HALVES32: 4,
}


@dataclass(frozen=True, eq=False)
class Machine:
    """Tables over relocation types: width of the field in bytes, `Use`, `Value`, `Addend`.

    `got` marks x86-64's loads through the GOT that may become direct (psABI, B.2), `branch` a
    branch that may lose its PLT, in favour of `pc32`.
    """

    width: Table
    use: Table
    value: Table
    got: Table
    addend: Table
    pc32: int = -1
    branch: int = -1
    order: str = "<"  # byte order that `value` and `got` are for
    # symbols that say more than a place: section + addend cannot stand for them
    function_bit: int = 0  # of a function's value: the instruction set, not the address
    entry_bits: int = 0  # of st_other: where branches enter
    moving_code: bool = False  # linkers delete bytes of code, and move symbols accordingly
    keeps_none: bool = False  # R_*_NONE asks for an undefined symbol
    index: int = 0  # section type of unwind indices, which have the order of the code
    attributes: int = 0  # section type of build attributes


def _machine(
    location: dict[int, Iterable[int]],
    symbol: dict[int, Iterable[int]],
    value: dict[int, Value],
    *,
    other: dict[int, Iterable[int]] | None = None,
    got: Iterable[int] = (),
    addend: dict[Addend, Iterable[int]] | None = None,
    **facts: Any,
) -> Machine:
    """The tables, from types by the width of their field in bytes; `other` are `Use.UNKNOWN`."""
    widths, uses = np.ones(TYPES, np.int64), np.zeros(TYPES, np.uint8)
    values, gots = np.zeros(TYPES, np.uint8), np.zeros(TYPES, np.bool_)
    addends = np.zeros(TYPES, np.uint8)
    for table, use in ((location, Use.LOCATION), (symbol, Use.SYMBOL), (other or {}, Use.UNKNOWN)):
        for width, numbers in table.items():
            for number in numbers:
                widths[number], uses[number] = width, use
    uses[0], widths[0] = Use.NOTHING, 0
    for number, how in value.items():
        values[number] = how
    for number in got:
        gots[number] = True
    for part, numbers in (addend or {}).items():
        for number in numbers:
            addends[number] = part
    return Machine(widths, uses, values, gots, addends, **facts)


_X86_64 = _machine(
    {8: (1, 17, 18, 24, 25, 29, 31), 4: (2, 4, 10, 11, 21, 23, 26), 2: (12, 13), 1: (14, 15)},
    {
        8: (16, 27, 28, 30, 33, 36),
        4: (3, 9, 19, 20, 22, 32, 34, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51),
        0: (35,),
    },
    {2: Value.REL32, 4: Value.REL32, 13: Value.REL16, 15: Value.REL8, 24: Value.REL64},
    got=(9, 41, 42),
    pc32=2,
    branch=4,
)

_AARCH64 = _machine(
    {
        8: (257, 260),
        4: (258, 261, 314, *range(263, 294), 299, *range(544, 560), 570, 571, 572, 573),
        2: (259, 262),
    },
    {
        8: (307,),
        4: (308, *range(300, 307), *range(309, 314), 315, *range(512, 544), *range(560, 570)),
    },
    {
        260: Value.REL64,
        261: Value.REL32,
        262: Value.REL16,
        273: Value.BRANCH19,
        274: Value.ADR21,
        279: Value.BRANCH14,
        280: Value.BRANCH19,
        282: Value.BRANCH26,
        283: Value.BRANCH26,
        314: Value.REL32,
    },
)

_I386_WORDS = (3, *range(14, 20), *range(32, 42), 43)
_I386 = _machine(
    {4: (1, 2, 4, 9, 10), 2: (20, 21), 1: (22, 23)},
    {4: _I386_WORDS, 0: ()},
    {2: Value.REL32, 4: Value.REL32},
    branch=4,
    pc32=2,
    addend={
        Addend.BITS32: (1, 2, 4, 9, 10, *_I386_WORDS),
        Addend.BITS16: (20, 21),
        Addend.BITS8: (22, 23),
    },
)

_PPC64 = _machine(
    {
        8: (38, 44),
        4: (1, 26),
        2: (3, 4, 5, 6, 47, 48, 49, 50, 56, 57, 63, 64, 249, 250, 251, 252),
    },
    {},
    {},
    other={4: (10, 11, 12, 13, 116)},
    entry_bits=0xE0,  # STO_PPC64_LOCAL_MASK
)

_S390 = _machine(
    {8: (22, 23), 4: (4, 5, 19, 20), 2: (3, 16, 17, 18), 1: (1,)},
    {},
    {
        5: Value.REL32,
        17: Value.HALVES16,
        18: Value.HALVES16,
        19: Value.HALVES32,
        20: Value.HALVES32,
        23: Value.REL64,
    },
    other={4: (7, 26, 51, 54)},
    order=">",
)

_ARM = _machine(
    {4: (2, 3, 24, 38, 42)},
    {},
    {},
    other={4: (10, 26, 28, 29, 30, *range(43, 51), 96, *range(104, 109)), 2: (102, 103)},
    addend={Addend.BITS32: (2, 3, 24, 38), Addend.LOW31: (42,)},
    function_bit=1,  # Thumb
    keeps_none=True,  # of the personality routine that a compact index entry uses
    index=0x70000001,  # SHT_ARM_EXIDX
    attributes=0x70000003,  # SHT_ARM_ATTRIBUTES
)

_RISCV = _machine(
    {8: (2, 36), 4: (1, 23, 26, 27, 28, 35, 56, 57), 2: (34, 55), 1: (33, 54)},
    {},
    {},
    other={
        0: (60, 61),
        8: (18, 19, 40),
        4: (16, 17, 20, 21, 22, 24, 25, 29, 30, 31, 39),
        2: (38, 44, 45),
    },
    moving_code=True,
    attributes=0x70000003,  # SHT_RISCV_ATTRIBUTES
)

_LOONGARCH = _machine(
    {8: (2, 109), 4: (1, 71, 72, 99, 103)},
    {},
    {},
    other={
        8: (51, 56, 110),
        4: (50, 55, *range(64, 71), *range(73, 99)),
        3: (49, 54),
        2: (48, 53),
        0: (107, 108),
    },
    moving_code=True,
)

_UNKNOWN = _machine({}, {}, {})
# e_machine -> tables. Source: gABI, "e_machine".
_MACHINES = {
    3: _I386,
    21: _PPC64,
    22: _S390,
    40: _ARM,
    62: _X86_64,
    183: _AARCH64,
    243: _RISCV,
    258: _LOONGARCH,
}


def machine(number: int, order: str) -> Machine:
    """The tables for an e_machine value; without knowledge only positions and types count."""
    found = _MACHINES.get(number, _UNKNOWN)
    if found.order != order:
        # instructions may have another byte order than data: nothing is settled
        never = np.zeros(TYPES, np.uint8)
        found = replace(found, order=order, value=never, got=never.astype(np.bool_))
    return found
