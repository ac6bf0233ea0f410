"""i386 and later. Source: i386 psABI 1.1, section 4.4; relocations are REL."""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.fields import Field

MACHINE = Machine(
    number=3,
    name="i386",
    direct=frozenset({1, 2, 4, 9, 20, 21, 22, 23}),
    relative={2: Field.BITS32, 4: Field.BITS32},
    absolute={1: 4},
    pc32=2,
    padding=b"\xcc",  # int3
    and_property=0xC0000002,  # GNU_PROPERTY_X86_FEATURE_1_AND
    or_properties=range(0xC0008000, 0xC0010000),
    or_and_properties=range(0xC0010000, 0xC0018000),
    rel=True,
    implicit={
        1: Field.BITS32,  # 32
        2: Field.BITS32,  # PC32
        4: Field.BITS32,  # PLT32
        9: Field.BITS32,  # GOTOFF
        20: Field.BITS16,  # 16
        21: Field.BITS16,  # PC16
        22: Field.BITS8,  # 8
        23: Field.BITS8,  # PC8
    },
    # GOT32, GOTPC, TLS_TPOFF to TLS_LDM, TLS_LDO_32 to TLS_DESC, GOT32X
    words=frozenset({3, 10, *range(14, 20), *range(32, 40), 41, 43}),
)
