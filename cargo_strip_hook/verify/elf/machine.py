"""What the relocation types of each processor are to the checker.

Sources: x86-64 psABI 1.0, table 4.9; AAELF64, "Relocation types"; i386 psABI, table A.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cargo_strip_hook.verify.elf.read import Array

TYPES = 1024  # all types of the processors here are below


class Use(IntEnum):
    """What a relocation takes from its symbol."""

    UNKNOWN = 0  # compared as DIRECT
    PLACE = 1  # the address S + A: another symbol with another addend may say the same
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


VALUE_WIDTH = {
    Value.REL8: 1,
    Value.REL16: 2,
    Value.REL32: 4,
    Value.REL64: 8,
    Value.BRANCH26: 4,
    Value.BRANCH19: 4,
    Value.BRANCH14: 4,
    Value.ADR21: 4,
}


@dataclass(frozen=True)
class Machine:
    """Tables over relocation types: width of the field in bytes, `Use`, `Value`, GOT loads.

    `got` marks x86-64's loads through the GOT that may become direct (psABI, B.2), `branch` a
    branch that may lose its PLT, in favour of `pc32`.
    """

    width: Array
    use: Array
    value: Array
    got: Array
    pc32: int = -1
    branch: int = -1


def _machine(
    place: dict[int, Iterable[int]],
    symbol: dict[int, Iterable[int]],
    value: dict[int, Value],
    got: Iterable[int] = (),
    pc32: int = -1,
    branch: int = -1,
) -> Machine:
    widths, uses = np.ones(TYPES, np.int64), np.zeros(TYPES, np.uint8)
    values, gots = np.zeros(TYPES, np.uint8), np.zeros(TYPES, np.bool_)
    for table, use in ((place, Use.PLACE), (symbol, Use.SYMBOL)):
        for width, numbers in table.items():
            for number in numbers:
                widths[number], uses[number] = width, use
    uses[0], widths[0] = Use.NOTHING, 0
    for number, how in value.items():
        values[number] = how
    for number in got:
        gots[number] = True
    return Machine(widths, uses, values, gots, pc32, branch)


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

_I386 = _machine(
    {4: (1, 2, 4, 9, 10), 2: (20, 21), 1: (22, 23)},
    {4: (3, 15, 16, 17, 18, 19, 37, 38, 39, 40, 41, 43), 0: ()},
    {2: Value.REL32},
    branch=4,
    pc32=2,
)

_UNKNOWN = _machine({}, {}, {})


def machine(number: int) -> Machine:
    """The tables for an e_machine value; without knowledge only positions and types count."""
    return {62: _X86_64, 183: _AARCH64, 3: _I386}.get(number, _UNKNOWN)
