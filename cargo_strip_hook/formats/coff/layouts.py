"""Constants and records of COFF object files.

Source: Microsoft, "PE Format" (COFF file header, section table, relocations, symbol table, import
library format); `/bigobj` files as LLVM's `BinaryFormat/COFF.h` has them. The names are theirs.
"""

from __future__ import annotations

import struct

import numpy as np

I386, AMD64, ARM64 = 0x14C, 0x8664, 0xAA64
ARM64EC, ARM64X = 0xA641, 0xA64E

SCN_CNT_CODE = 0x00000020
SCN_CNT_INITIALIZED_DATA = 0x00000040
SCN_CNT_UNINITIALIZED_DATA = 0x00000080
SCN_LNK_INFO = 0x00000200
SCN_LNK_REMOVE = 0x00000800
SCN_LNK_COMDAT = 0x00001000
SCN_ALIGN_1BYTES = 0x00100000
SCN_ALIGN_MASK = 0x00F00000
SCN_ALIGN_SHIFT = 20
SCN_LNK_NRELOC_OVFL = 0x01000000
SCN_MEM_DISCARDABLE = 0x02000000
SCN_MEM_EXECUTE = 0x20000000
SCN_MEM_READ = 0x40000000
SCN_MEM_WRITE = 0x80000000

RDATA = SCN_CNT_INITIALIZED_DATA | SCN_MEM_READ
BSS = SCN_CNT_UNINITIALIZED_DATA | SCN_MEM_READ | SCN_MEM_WRITE
DEBUG = SCN_CNT_INITIALIZED_DATA | SCN_MEM_DISCARDABLE | SCN_MEM_READ | SCN_ALIGN_1BYTES
# what of the characteristics is about one file, not about what the section is
SCN_OF_FILE = SCN_ALIGN_MASK | SCN_LNK_COMDAT | SCN_LNK_NRELOC_OVFL
DEFAULT_ALIGN = 16  # bytes, where the characteristics name none
MOST_ALIGN = 8192

COMDAT_NODUPLICATES = 1
COMDAT_ANY = 2
COMDAT_SAME_SIZE = 3
COMDAT_EXACT_MATCH = 4
COMDAT_ASSOCIATIVE = 5
COMDAT_LARGEST = 6

SHORT_NAME = 8  # bytes: a longer name is in the string table
SYM_UNDEFINED, SYM_ABSOLUTE, SYM_DEBUG = 0, -1, -2
CLASS_EXTERNAL = 2
CLASS_STATIC = 3
CLASS_WEAK_EXTERNAL = 105
TYPE_FUNCTION = 0x20

WEAK_SEARCH_LIBRARY = 2

# bits of @feat.00: LLVM's `COFF::Feat00Flags`
FEAT_SAFE_SEH, FEAT_GUARD_CF, FEAT_GUARD_EHCONT = 0x1, 0x800, 0x4000

MOST_SECTIONS = 0xFEFF  # of a file that is not `/bigobj`
MOST_RELOCATIONS = 0xFFFF  # of a section header; more are counted by the first relocation

# machine, sections, time, symbol table, symbols, size of the optional header, characteristics
HEADER = struct.Struct("<HHIIIHH")
# sig1, sig2, version, machine, time, class, size, flags, metadata size and offset, sections,
# symbol table, symbols
BIG_HEADER = struct.Struct("<HHHHI16sIIIIIII")
BIG_CLASS = bytes.fromhex("c7a1bad1eebaa94baf20faf66aa4dcb8")
# sig1, sig2, version, machine, time, size of the data, ordinal or hint, type and name type
IMPORT_HEADER = struct.Struct("<HHHHIIHH")

SECTION = np.dtype(
    [
        ("name", "S8"),
        ("virtual_size", "<u4"),
        ("address", "<u4"),
        ("size", "<u4"),
        ("offset", "<u4"),
        ("relocations", "<u4"),
        ("lines", "<u4"),
        ("relocation_count", "<u2"),
        ("line_count", "<u2"),
        ("flags", "<u4"),
    ]
)
RELOCATION = np.dtype([("address", "<u4"), ("symbol", "<u4"), ("type", "<u2")])


def _symbol(section: str) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("name", "V8"),
            ("value", "<u4"),
            ("section", section),
            ("type", "<u2"),
            ("class", "<u1"),
            ("aux", "<u1"),
        ]
    )


SYMBOL, BIG_SYMBOL = _symbol("<i2"), _symbol("<i4")
SECTION_AUX = np.dtype(
    [
        ("size", "<u4"),
        ("relocations", "<u2"),
        ("lines", "<u2"),
        ("checksum", "<u4"),
        ("number", "<u2"),
        ("selection", "<u1"),
        ("unused", "<u1"),
        ("number_high", "<u2"),
    ]
)
WEAK_AUX = np.dtype([("tag", "<u4"), ("search", "<u4"), ("unused", "V10")])
