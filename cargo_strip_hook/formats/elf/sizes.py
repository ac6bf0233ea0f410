"""What the bytes of an ELF object are for, section by section.

Source: gABI, "Sections" (types and flags); the names are those of `.eh_frame` and
`.gcc_except_table` (LSB, "Exception Frames"; GCC), `.debug_*` (DWARF) and LLVM's bitcode.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.link.model import SIZE, Array, Contents, Unit

_UNWIND = (b".eh_frame", b".gcc_except_tab", b".ARM.exidx", b".ARM.extab")
_BY_TYPE = {
    elf.SHT_RELA: Contents.RELOCATIONS,
    elf.SHT_REL: Contents.RELOCATIONS,
    elf.SHT_RELR: Contents.RELOCATIONS,
    elf.SHT_CREL: Contents.RELOCATIONS,
    elf.SHT_LLVM_CREL: Contents.RELOCATIONS,
    elf.SHT_SYMTAB: Contents.SYMBOLS,
    elf.SHT_STRTAB: Contents.SYMBOLS,
    elf.SHT_SYMTAB_SHNDX: Contents.SYMBOLS,
}


def sizes(unit: Unit) -> Array:
    """SIZE of each section."""
    native = elf_unit(unit)
    types, flags = native.sections["type"], native.sections["flags"]
    names = native.names16
    rows = np.zeros(len(types), SIZE)
    kind = rows["kind"]
    kind[:] = Contents.OTHER
    for number, contents in _BY_TYPE.items():
        kind[types == number] = contents
    loaded = flags & elf.SHF_ALLOC != 0
    for begin in (b".debug_", b".zdebug_"):
        kind[~loaded & np.char.startswith(names, begin)] = Contents.DEBUG
    kind[~loaded & ((names == b".llvmbc") | (names == b".llvmcmd"))] = Contents.BITCODE
    kind[loaded] = Contents.CONSTANTS
    kind[loaded & (flags & elf.SHF_WRITE != 0)] = Contents.DATA
    kind[loaded & (flags & elf.SHF_EXECINSTR != 0)] = Contents.CODE
    for begin in _UNWIND:
        kind[loaded & np.char.startswith(names, begin)] = Contents.UNWIND
    empty = types == elf.SHT_NOBITS
    kind[loaded & empty] = Contents.ZEROS
    rows["size"][loaded] = native.sections["size"][loaded]
    rows["stored"][~empty] = native.sections["size"][~empty]
    rows["stored"][types == elf.SHT_NULL] = 0
    return rows
