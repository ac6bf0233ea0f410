"""Sections that are never loaded, and no debug information: notes to linkers and tools.

A final link or a tool may use them, so `strip -g` and `ld -r` keep them: coverage maps, probes,
warnings, names of libraries to link with. Left out is what would be wrong in a joined object, or
is of no use without a compiler: intermediate code, command lines, lists of symbols by number.
Sources: gABI, "Sections"; llvm/BinaryFormat/ELF.h, SHT_LLVM_*; bfd/elf.c (what is debugging);
GCC's lto-section-names.h.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import ElfFiles
from cargo_strip_hook.link.model import Bool, Int32

_TABLES = (
    elf.SHT_NULL,
    elf.SHT_SYMTAB,
    elf.SHT_STRTAB,
    elf.SHT_RELA,
    elf.SHT_REL,
    elf.SHT_GROUP,
    elf.SHT_SYMTAB_SHNDX,
    elf.SHT_RELR,
    *elf.COMPACT,
    elf.SHT_ANDROID_REL,
    elf.SHT_ANDROID_RELA,
)
# written anew from those of all members, or stale without the symbols that they number
_OTHERS = (
    elf.SHT_GNU_ATTRIBUTES,
    elf.SHT_PROCESSOR_ATTRIBUTES,
    elf.SHT_LLVM_ADDRSIG,
    elf.SHT_LLVM_CALL_GRAPH_OLD,
    elf.SHT_LLVM_CALL_GRAPH,
    elf.SHT_LLVM_LTO,
)
# beginnings of names; a zero byte ends a whole one
_DEBUG = (b".debug", b".zdebug", b".stab", b".line\0", b".gdb_index\0", b".gnu.linkonce.wi")
_DROPPED = (
    *_DEBUG,
    b".llvmbc\0",
    b".llvmcmd\0",
    b".llvm.lto\0",
    b".gnu.lto_",
    b".gnu.debuglto_",
    b".note.GNU-stack\0",
    b".cargo-strip-hoo",
)


def find(f: ElfFiles) -> Bool:
    """bool for each section: whether it is one of these."""
    aside: Bool = f.section_flags & elf.SHF_ALLOC == 0
    for kind in (*_TABLES, *_OTHERS):
        aside &= f.types != kind
    if aside.any():
        for name in _DROPPED:
            aside &= ~f.named(name)
    return aside


def followers(f: ElfFiles, aside: Bool, section_atom: Int32) -> Bool:
    """Which of them live where their file does: those that nothing else decides of.

    What is retained is a root. What is linked to a section, or in a group with one that is loaded,
    lives with that one.
    """
    following: Bool = aside & (f.section_flags & elf.SHF_GNU_RETAIN == 0)
    linked = np.flatnonzero(following & (f.section_flags & elf.SHF_LINK_ORDER != 0))
    if len(linked):
        to = f.first[f.owner[linked]] + f.sections["link"][linked].astype(np.int64)
        following[linked[section_atom[np.minimum(to, len(following) - 1)] >= 0]] = False
    if (following & (f.section_flags & elf.SHF_GROUP != 0)).any():
        for i in np.flatnonzero(f.types == elf.SHT_GROUP).tolist():
            first, end = (int(f.first[int(f.owner[i]) + n]) for n in (0, 1))
            size = int(f.sections["size"][i]) // 4
            members = first + np.frombuffer(f.contents(i), f"{f.r.order}u4", size)[1:].astype(int)
            members = members[members < end]  # others are refused where groups are read
            if (~aside[members] & (section_atom[members] >= 0)).any():
                following[members] = False
    return following


__all__ = ["find", "followers"]
