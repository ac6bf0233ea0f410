"""LoongArch. Source: ELF for the LoongArch Architecture, "Relocations" and "Linker relaxation".

Linkers delete bytes of code, so only places outside of code are addressed as section + addend.
"""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine

MACHINE = Machine(
    number=258,
    name="loongarch",
    # 32, 64, PCALA_HI20, PCALA_LO12, 32_PCREL, PCREL20_S2, 64_PCREL
    direct=frozenset({1, 2, 71, 72, 99, 103, 109}),
    absolute={1: 4, 2: 8},
    pc32=99,
    branch_limit=96 << 20,  # 128 MiB branches, less a margin for the linker's thunks
    code_align=4,
)
