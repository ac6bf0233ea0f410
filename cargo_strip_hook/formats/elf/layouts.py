"""Record layouts and constants of ELF, one table for each class and byte order.

Source: System V gABI, chapters 4 (object files) and the GNU extensions of the Linux Base
Specification; processor values from the psABI of each architecture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# e_type, e_ident
ET_REL = 1
ELFOSABI_GNU = 3

# special section indices
SHN_X86_64_LCOMMON = 0xFF02
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF

# sh_type
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOTE, SHT_NOBITS, SHT_REL = 7, 8, 9
SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY, SHT_GROUP, SHT_SYMTAB_SHNDX = 14, 15, 16, 17, 18
SHT_RELR, SHT_CREL, SHT_LLVM_CREL = 19, 20, 0x40000014
COMPACT = (SHT_CREL, SHT_LLVM_CREL)  # the number that is proposed, and the one that LLVM writes
SHT_ANDROID_REL, SHT_ANDROID_RELA = 0x60000001, 0x60000002
SHT_LLVM_ADDRSIG = 0x6FFF4C03
SHT_LLVM_CALL_GRAPH_OLD, SHT_LLVM_CALL_GRAPH, SHT_LLVM_LTO = 0x6FFF4C02, 0x6FFF4C09, 0x6FFF4C0C
SHT_GNU_ATTRIBUTES = 0x6FFFFFF5
SHT_X86_64_UNWIND = 0x70000001
SHT_PROCESSOR_ATTRIBUTES = 0x70000003  # of Arm, AArch64 and RISC-V

# sh_flags
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 0x1, 0x2, 0x4
SHF_MERGE, SHF_STRINGS, SHF_INFO_LINK, SHF_LINK_ORDER = 0x10, 0x20, 0x40, 0x80
SHF_GROUP, SHF_TLS, SHF_COMPRESSED = 0x200, 0x400, 0x800
SHF_GNU_RETAIN, SHF_EXCLUDE = 0x200000, 0x80000000
SHF_X86_64_LARGE = 0x10000000

GRP_COMDAT = 1
ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD = 1, 2

# symbols
STB_LOCAL, STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE = 0, 1, 2, 10
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = 0, 1, 2, 3, 4
STT_COMMON, STT_TLS, STT_GNU_IFUNC = 5, 6, 10


# What instrumented code tells the profile runtime, one for a program: hidden, in COMDAT groups.
# llvm/ProfileData/InstrProf.h
PROFILE_SECTION = b"__llvm_prf_cnts\0"
PROFILE_SYMBOLS = (
    b"__llvm_profile_raw_version",
    b"__llvm_profile_filename",
    b"__llvm_profile_counter_bias",
    b"__llvm_profile_bitmap_bias",
)


@dataclass(frozen=True, slots=True)
class Records:
    """The record layouts of one class (32 or 64 bits) and byte order (``<`` or ``>``)."""

    bits: int
    order: str
    header: struct.Struct
    section: np.dtype[np.void]
    symbol: np.dtype[np.void]
    rela: np.dtype[np.void]
    rel: np.dtype[np.void]
    word: np.dtype[np.unsignedinteger]

    @property
    def size(self) -> int:
        """Bytes of a word: addresses, and what tables are aligned to."""
        return self.bits // 8

    @property
    def symbol_shift(self) -> int:
        """How far the symbol index lies to the left in r_info."""
        return 32 if self.bits == 64 else 8

    @property
    def type_mask(self) -> int:
        return 0xFFFFFFFF if self.bits == 64 else 0xFF


@lru_cache(maxsize=4)
def records(bits: int, order: str) -> Records:
    """The layouts for a class and byte order. Source: gABI figures 4-3, 4-8, 4-16 and 4-22."""
    word, signed, half, byte = f"{order}u{bits // 8}", f"{order}i{bits // 8}", f"{order}u2", "u1"
    w32 = f"{order}u4"
    section = np.dtype(
        [
            ("name", w32),
            ("type", w32),
            ("flags", word),
            ("addr", word),
            ("offset", word),
            ("size", word),
            ("link", w32),
            ("info", w32),
            ("align", word),
            ("entsize", word),
        ]
    )
    if bits == 64:
        symbol = [
            ("name", w32),
            ("info", byte),
            ("other", byte),
            ("shndx", half),
            ("value", word),
            ("size", word),
        ]
    else:
        symbol = [
            ("name", w32),
            ("value", word),
            ("size", word),
            ("info", byte),
            ("other", byte),
            ("shndx", half),
        ]
    rel = [("offset", word), ("info", word)]
    return Records(
        bits,
        order,
        struct.Struct(f"{order}16sHHI{'QQQ' if bits == 64 else 'III'}IHHHHHH"),
        section,
        np.dtype(symbol),
        np.dtype([*rel, ("addend", signed)]),
        np.dtype(rel),
        np.dtype(word),
    )
