"""What relocations mean, one small table for each architecture.

Sources: x86-64 psABI 1.0, section 4.4 and 4.5 (GOT relaxations); AAELF64, "Relocation".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cargo_strip_hook.objects.model import Bool


class Field(IntEnum):
    """How the value of a pc-relative relocation is stored, where we may store it ourselves."""

    NONE = 0
    REL32 = 1  # S + A - P in 32 bits
    REL64 = 2
    A64_BRANCH26 = 3  # in words, bits 0..25
    A64_BRANCH19 = 4  # in words, bits 5..23
    A64_BRANCH14 = 5  # in words, bits 5..18


class Relaxation(IntEnum):
    """A load through the GOT that can address its target directly."""

    NONE = 0
    X86_64_GOT = 1


@dataclass(frozen=True)
class Machine:
    """One e_machine value.

    `direct`: relocation types for which a local symbol and section + addend mean the same.
    `fields`: pc-relative types and how to store their value. `branch_limit`: bytes that a section
    may have so that a linker can still insert thunks around it (None: any size).
    """

    number: int
    name: str
    absolute64: int
    absolute32: int
    direct: frozenset[int]
    fields: dict[int, Field]
    relaxations: dict[int, Relaxation]
    pc32: int
    padding: bytes  # what stands between functions: traps
    mapping_symbols: bool  # $x/$d symbols tell code from data and must stay
    branch_limit: int | None
    and_property: int | None  # the GNU property that is the AND of all inputs

    @cached_property
    def direct_types(self) -> Bool:
        """bool[4096]: whether a relocation type is in `direct`."""
        table = np.zeros(4096, np.bool_)
        table[sorted(self.direct)] = True
        return table

    @cached_property
    def field_types(self) -> npt.NDArray[np.uint8]:
        """uint8[4096] of `Field`."""
        table = np.zeros(4096, np.uint8)
        for number, kind in self.fields.items():
            table[number] = kind
        return table

    @cached_property
    def relaxation_types(self) -> npt.NDArray[np.uint8]:
        """uint8[4096] of `Relaxation`."""
        table = np.zeros(4096, np.uint8)
        for number, kind in self.relaxations.items():
            table[number] = kind
        return table


X86_64 = Machine(
    number=62,
    name="x86_64",
    absolute64=1,
    absolute32=10,
    # 64, PC32, PLT32, 32, 32S, 16, PC16, 8, PC8, PC64
    direct=frozenset({1, 2, 4, 10, 11, 12, 13, 14, 15, 24}),
    fields={2: Field.REL32, 4: Field.REL32, 24: Field.REL64},
    # GOTPCREL, GOTPCRELX, REX_GOTPCRELX
    relaxations={9: Relaxation.X86_64_GOT, 41: Relaxation.X86_64_GOT, 42: Relaxation.X86_64_GOT},
    pc32=2,
    padding=b"\xcc",
    mapping_symbols=False,
    branch_limit=None,
    and_property=0xC0000002,
)

AARCH64 = Machine(
    number=183,
    name="aarch64",
    absolute64=257,
    absolute32=258,
    direct=frozenset(
        {
            *range(257, 270),  # ABS64..ABS16, PREL64..PREL16, MOVW_UABS_G0..G2_NC
            *range(
                270, 279
            ),  # MOVW, LD_PREL_LO19, ADR_PREL_LO21, ADR_PREL_PG_HI21(_NC), ADD, LDST8
            279,  # TSTBR14
            280,  # CONDBR19
            282,  # JUMP26
            283,  # CALL26
            *range(284, 287),  # LDST16/32/64_ABS_LO12_NC
            299,  # LDST128_ABS_LO12_NC
            *range(287, 294),  # MOVW_PREL_G0..G3
            314,  # PLT32
        }
    ),
    fields={
        260: Field.REL64,
        261: Field.REL32,
        279: Field.A64_BRANCH14,
        280: Field.A64_BRANCH19,
        282: Field.A64_BRANCH26,
        283: Field.A64_BRANCH26,
    },
    relaxations={},
    pc32=261,
    padding=b"\0",
    mapping_symbols=True,
    branch_limit=96 << 20,  # 128 MiB branches, less a margin for the linker's thunks
    and_property=0xC0000000,
)

MACHINES = {m.number: m for m in (X86_64, AARCH64)}
