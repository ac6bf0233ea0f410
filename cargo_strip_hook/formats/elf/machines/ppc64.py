"""64-bit Power, ELFv2. Source: Power Architecture 64-Bit ELF V2 ABI 1.5, sections 3.4 and 3.5.

Branches keep their symbols: they go to the local entry point, which only the symbol knows.
"""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine

MACHINE = Machine(
    number=21,
    name="ppc64",
    direct=frozenset(
        {
            1,  # ADDR32
            *(3, 4, 5, 6),  # ADDR16, ADDR16_LO, ADDR16_HI, ADDR16_HA
            26,  # REL32
            38,  # ADDR64
            44,  # REL64
            *(47, 48, 49, 50),  # TOC16, TOC16_LO, TOC16_HI, TOC16_HA
            *(56, 57),  # ADDR16_DS, ADDR16_LO_DS
            *(63, 64),  # TOC16_DS, TOC16_LO_DS
            *(249, 250, 251, 252),  # REL16, REL16_LO, REL16_HI, REL16_HA
        }
    ),
    absolute={1: 4, 38: 8},
    pc32=26,
    padding=b"\x08\x00\xe0\x7f",  # trap
    branch_limit=24 << 20,  # 32 MiB branches, less a margin for the linker's stubs
    entry_bits=0xE0,  # STO_PPC64_LOCAL_MASK
    optional_flags=0x3,  # EF_PPC64_ABI
    refused_flags=0x1,  # ELFv1, whose functions are descriptors
    refused_section=b".opd",  # which these descriptors are in
)
