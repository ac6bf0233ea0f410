"""z/Architecture, 64 bits. Source: ELF ABI s390x Supplement 1.6, "Relocation"."""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.fields import Field

MACHINE = Machine(
    number=22,
    name="s390",
    order=">",
    # 8, 16, 32, PC32, PC16, PC16DBL, PLT16DBL, PC32DBL, PLT32DBL, 64, PC64
    direct=frozenset({1, 3, 4, 5, 16, 17, 18, 19, 20, 22, 23}),
    relative={
        5: Field.BITS32,
        17: Field.HALVES16,
        18: Field.HALVES16,
        19: Field.HALVES32,
        20: Field.HALVES32,
        23: Field.BITS64,
    },
    absolute={4: 4, 22: 8},
    pc32=5,
    padding=b"\x07",  # nopr
)
