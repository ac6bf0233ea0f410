"""Arm, 32 bits. Sources: AAELF32, "Relocation" and "Mapping symbols"; EHABI32; relocations are REL.

Branches and MOVW/MOVT keep their symbols: the branch's form depends on the instruction set of its
target, and the addend of a MOVT has 16 bits.
"""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.fields import Field

MACHINE = Machine(
    number=40,
    name="arm",
    # ABS32, REL32, GOTOFF32, TARGET1, PREL31
    direct=frozenset({2, 3, 24, 38, 42}),
    absolute={2: 4},
    pc32=3,
    padding=b"\xd4",  # undefined in both instruction sets
    mapping=b"atd",
    branch_limit=12 << 20,  # Thumb's 16 MiB, less a margin for the linker's thunks
    rel=True,
    implicit={
        2: Field.BITS32,
        3: Field.BITS32,
        24: Field.BITS32,
        38: Field.BITS32,
        42: Field.LOW31,
    },
    thumb=True,
    keeps_none=True,  # names the personality routine that a compact index entry needs
    strings=False,  # because of the addend of MOVT
    index_type=0x70000001,  # SHT_ARM_EXIDX
    attributes=0x70000003,  # SHT_ARM_ATTRIBUTES
)
