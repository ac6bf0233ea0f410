"""RISC-V. Source: RISC-V ELF psABI 1.0, sections 8.4 (relocations) and 8.5 (relaxation).

Linkers delete bytes of code, so only places outside of code are addressed as section + addend.
SUB8 to SUB64 never are: GNU ld 2.40 adds their addend where it should subtract it (measured).
"""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine

MACHINE = Machine(
    number=243,
    name="riscv",
    # 32, 64, PCREL_HI20, HI20, LO12_I, LO12_S, ADD8..64, SET8..32, 32_PCREL
    direct=frozenset({1, 2, 23, 26, 27, 28, *range(33, 37), 54, 55, 56, 57}),
    absolute={1: 4, 2: 8},
    pc32=57,
    mapping=b"xd",
    and_property=0xC0000000,  # GNU_PROPERTY_RISCV_FEATURE_1_AND
    code_align=2,  # with compressed instructions; without them code is not merged
    attributes=0x70000003,  # SHT_RISCV_ATTRIBUTES
    joined_flags=0x1 | 0x10,  # EF_RISCV_RVC, EF_RISCV_TSO
)
