"""Constants and records of Mach-O files; 64-bit little endian only.

Sources: Apple's mach-o/loader.h, mach-o/nlist.h, mach-o/reloc.h, mach-o/x86_64/reloc.h and
mach-o/arm64/reloc.h; the names here are theirs.
"""

from __future__ import annotations

import numpy as np

MH_MAGIC_64 = 0xFEEDFACF
MH_OBJECT = 1
MH_SUBSECTIONS_VIA_SYMBOLS = 0x2000

CPU_TYPE_X86_64 = 0x01000007
CPU_TYPE_ARM64 = 0x0100000C
CPU_SUBTYPE_MASK = 0xFF000000
CPU_SUBTYPE_ARM64E = 2

LC_SYMTAB = 0x2
LC_DYSYMTAB = 0xB
LC_SEGMENT_64 = 0x19
LC_VERSION_MIN_MACOSX = 0x24
LC_DATA_IN_CODE = 0x29
LC_LINKER_OPTION = 0x2D
LC_BUILD_VERSION = 0x32

SECTION_TYPE = 0xFF
S_REGULAR = 0x0
S_ZEROFILL = 0x1
S_CSTRING_LITERALS = 0x2
S_4BYTE_LITERALS = 0x3
S_8BYTE_LITERALS = 0x4
S_LITERAL_POINTERS = 0x5
S_NON_LAZY_SYMBOL_POINTERS = 0x6
S_LAZY_SYMBOL_POINTERS = 0x7
S_SYMBOL_STUBS = 0x8
S_MOD_INIT_FUNC_POINTERS = 0x9
S_MOD_TERM_FUNC_POINTERS = 0xA
S_COALESCED = 0xB
S_GB_ZEROFILL = 0xC
S_INTERPOSING = 0xD
S_16BYTE_LITERALS = 0xE
S_THREAD_LOCAL_ZEROFILL = 0x12
S_THREAD_LOCAL_INIT_FUNCTION_POINTERS = 0x15
S_INIT_FUNC_OFFSETS = 0x16

S_ATTR_PURE_INSTRUCTIONS = 0x80000000
S_ATTR_NO_TOC = 0x40000000
S_ATTR_STRIP_STATIC_SYMS = 0x20000000
S_ATTR_NO_DEAD_STRIP = 0x10000000
S_ATTR_LIVE_SUPPORT = 0x08000000
S_ATTR_DEBUG = 0x02000000
S_ATTR_SOME_INSTRUCTIONS = 0x00000400

ZEROFILL_TYPES = (S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL)
INITIALISER_TYPES = (
    S_MOD_INIT_FUNC_POINTERS,
    S_MOD_TERM_FUNC_POINTERS,
    S_THREAD_LOCAL_INIT_FUNCTION_POINTERS,
    S_INIT_FUNC_OFFSETS,
)
# bytes of an element; strings have no fixed size
LITERAL_SIZES = {
    S_4BYTE_LITERALS: 4,
    S_8BYTE_LITERALS: 8,
    S_16BYTE_LITERALS: 16,
    S_LITERAL_POINTERS: 8,
}

N_STAB = 0xE0
N_PEXT = 0x10
N_TYPE = 0x0E
N_EXT = 0x01
N_UNDF, N_ABS, N_INDR, N_SECT = 0x0, 0x2, 0xA, 0xE

REFERENCED_DYNAMICALLY = 0x0010
N_NO_DEAD_STRIP = 0x0020
N_WEAK_REF = 0x0040  # of an undefined symbol
N_WEAK_DEF = 0x0080  # of a definition
N_SYMBOL_RESOLVER = 0x0100
N_ALT_ENTRY = 0x0200
N_COLD_FUNC = 0x0400

INDIRECT_SYMBOL_LOCAL = 0x80000000
INDIRECT_SYMBOL_ABS = 0x40000000

# the same number for both processors
UNSIGNED = 0

X86_64_SIGNED = 1
X86_64_BRANCH = 2
X86_64_SUBTRACTOR = 5
# what stands between the field and the end of the instruction, bytes
X86_64_TRAILING = {6: 1, 7: 2, 8: 4}

ARM64_SUBTRACTOR = 1
ARM64_BRANCH26 = 2
ARM64_ADDEND = 10

# Relocation types of the model: r_type | r_pcrel << 4 | r_length << 5, and this one of ours:
# the distance from the field (8 bytes) to its target, as FDEs have it.
PC_RELATIVE = 0x100
PC_RELATIVE_4 = 0x101

HEADER = np.dtype(
    [
        ("magic", "<u4"),
        ("cputype", "<u4"),
        ("cpusubtype", "<u4"),
        ("filetype", "<u4"),
        ("ncmds", "<u4"),
        ("sizeofcmds", "<u4"),
        ("flags", "<u4"),
        ("reserved", "<u4"),
    ]
)
SEGMENT = np.dtype(
    [
        ("cmd", "<u4"),
        ("cmdsize", "<u4"),
        ("segname", "S16"),
        ("vmaddr", "<u8"),
        ("vmsize", "<u8"),
        ("fileoff", "<u8"),
        ("filesize", "<u8"),
        ("maxprot", "<u4"),
        ("initprot", "<u4"),
        ("nsects", "<u4"),
        ("flags", "<u4"),
    ]
)
SECTION = np.dtype(
    [
        ("sectname", "S16"),
        ("segname", "S16"),
        ("addr", "<u8"),
        ("size", "<u8"),
        ("offset", "<u4"),
        ("align", "<u4"),
        ("reloff", "<u4"),
        ("nreloc", "<u4"),
        ("flags", "<u4"),
        ("reserved1", "<u4"),
        ("reserved2", "<u4"),
        ("reserved3", "<u4"),
    ]
)
NLIST = np.dtype(
    [("strx", "<u4"), ("type", "<u1"), ("sect", "<u1"), ("desc", "<u2"), ("value", "<u8")]
)
RELOC = np.dtype([("address", "<i4"), ("info", "<u4")])
DATA_IN_CODE = np.dtype([("offset", "<u4"), ("length", "<u2"), ("kind", "<u2")])

COMPACT_UNWIND_SIZE = 32  # function 8, length 4, encoding 4, personality 8, LSDA 8
MAX_SECTIONS = 255

DEBUG_SEGMENT = b"__DWARF"
MARKER_SECTION = b"__strip_hook"
