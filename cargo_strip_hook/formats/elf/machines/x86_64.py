"""x86-64, x32 too. Source: x86-64 psABI 1.0, sections 4.4 and B.2 (GOT relaxations)."""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine, Relaxation
from cargo_strip_hook.link.fields import Field

MACHINE = Machine(
    number=62,
    name="x86_64",
    # 64, PC32, PLT32, 32, 32S, 16, PC16, 8, PC8, PC64
    direct=frozenset({1, 2, 4, 10, 11, 12, 13, 14, 15, 24}),
    # PC32, PLT32, PC64
    relative={2: Field.BITS32, 4: Field.BITS32, 24: Field.BITS64},
    absolute={1: 8, 10: 4},
    # GOTPCREL, GOTPCRELX, REX_GOTPCRELX
    relaxations={9: Relaxation.X86_64_GOT, 41: Relaxation.X86_64_GOT, 42: Relaxation.X86_64_GOT},
    pc32=2,
    padding=b"\xcc",  # int3
    and_property=0xC0000002,  # GNU_PROPERTY_X86_FEATURE_1_AND
    or_properties=range(0xC0008000, 0xC0010000),
    or_and_properties=range(0xC0010000, 0xC0018000),
)
