"""AArch64. Source: AAELF64, "Relocation codes" and "Mapping symbols"."""

from __future__ import annotations

from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.fields import Field

MACHINE = Machine(
    number=183,
    name="aarch64",
    direct=frozenset(
        {
            # ABS64..ABS16, PREL64..PREL16, MOVW_UABS_G0..G3, MOVW_SABS, LD_PREL_LO19,
            # ADR_PREL_LO21, ADR_PREL_PG_HI21(_NC), ADD_ABS_LO12_NC, LDST8_ABS_LO12_NC
            *range(257, 279),
            *(279, 280, 282, 283),  # TSTBR14, CONDBR19, JUMP26, CALL26
            *range(284, 287),  # LDST16/32/64_ABS_LO12_NC
            *range(287, 294),  # MOVW_PREL_G0..G3
            299,  # LDST128_ABS_LO12_NC
            314,  # PLT32
        }
    ),
    relative={
        260: Field.BITS64,  # PREL64
        261: Field.BITS32,  # PREL32
        279: Field.A64_BRANCH14,
        280: Field.A64_BRANCH19,
        282: Field.A64_BRANCH26,
        283: Field.A64_BRANCH26,
    },
    absolute={257: 8, 258: 4},
    # ADR_PREL_PG_HI21(_NC), ADD_ABS_LO12_NC, LDST8/16/32/64/128_ABS_LO12_NC
    addressing=frozenset({*range(275, 279), *range(284, 287), 299}),
    pc32=261,
    mapping=b"xd",
    branch_limit=96 << 20,  # 128 MiB branches, less a margin for the linker's thunks
    and_property=0xC0000000,  # GNU_PROPERTY_AARCH64_FEATURE_1_AND
)
