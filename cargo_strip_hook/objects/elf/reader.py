"""Reads one ELF relocatable object into the common model.

An atom is an allocated section; `.eh_frame` is taken apart into its records (CIEs and FDEs), each
an atom that lives with its function.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.objects.elf import layouts as elf
from cargo_strip_hook.objects.elf.file import ElfFile, ElfUnit, section_name
from cargo_strip_hook.objects.elf.unwind import split_eh_frame
from cargo_strip_hook.objects.model import (
    ATOM,
    EDGE,
    SYMBOL,
    Array,
    AtomFlag,
    Binding,
    Bool,
    Group,
    Int32,
    Place,
    Unit,
)
from cargo_strip_hook.objects.strings import string_at

_UNREAD_RELOCATIONS = (
    elf.SHT_RELR,
    elf.SHT_CREL,
    elf.SHT_LLVM_CREL,
    elf.SHT_ANDROID_REL,
    elf.SHT_ANDROID_RELA,
)
# Sections that hold tables of symbols for the linker, never contents of a program.
_DROPPED_TYPES = (elf.SHT_GROUP, elf.SHT_LLVM_ADDRSIG)
# beginnings of names; a zero byte ends a whole one
_ROOT_NAMES = (
    b".ctors",
    b".dtors",
    b".init\0",
    b".fini\0",
    b".jcr\0",
    b".init_array\0",
    b".fini_array\0",
    b".preinit_array\0",
    b".init_array.",
    b".fini_array.",
)
# by the two bytes after the dot: most files have no such section, and need no closer look
_MAY_BE_ROOT = np.zeros(1 << 16, np.bool_)
_MAY_BE_ROOT[[int.from_bytes(name[1:3], "little") for name in _ROOT_NAMES]] = True

_BINDINGS = np.full(16, Binding.GLOBAL, np.uint8)
_BINDINGS[elf.STB_LOCAL] = Binding.LOCAL
_BINDINGS[elf.STB_WEAK] = Binding.WEAK
_BINDINGS[elf.STB_GNU_UNIQUE] = Binding.UNIQUE


def read(index: int, name: str, data: memoryview) -> Unit:
    """Read an ELF object. Raises `ObjectError` naming the member and the offset."""
    f = ElfFile(name, data)
    sections, types, flags = f.sections, f.types, f.section_flags
    allocated = (flags & elf.SHF_ALLOC != 0) & ~_among(types, _DROPPED_TYPES)
    allocated &= ~f.named(b".note.gnu.proper")
    eh_frame = allocated & f.named(b".eh_frame\0") & (types != elf.SHT_NOBITS)
    is_atom = allocated & ~eh_frame
    atom_sections = np.flatnonzero(is_atom)
    section_atom = np.full(len(sections), -1, np.int32)
    section_atom[atom_sections] = np.arange(len(atom_sections))

    atoms = np.zeros(len(atom_sections), ATOM)
    atoms["section"] = atom_sections
    atoms["size"] = sections["size"][atom_sections]
    atoms["align"] = np.maximum(sections["align"][atom_sections].astype(np.int64), 1)
    atoms["flags"] = _atom_flags(f)[atom_sections]

    table, shndx, first, names, symbol_strings = f.symbols()
    symbols = _symbols(
        table, shndx, f.reserved if len(table) > 1 else np.zeros(1, bool), section_atom
    )

    is_rel = (types == elf.SHT_RELA) | (types == elf.SHT_REL)
    info = sections["info"]
    if (is_rel & (info >= len(sections))).any():
        raise f.fail("a relocation section applies to no section", f.shoff)
    if _among(types, _UNREAD_RELOCATIONS).any():
        raise ObjectError(
            "relocations in a compact form (CREL, RELR or Android's) are not supported",
            member=name,
            offset=f.shoff,
            help="compile without them, for example without `-Wa,--crel`",
        )
    if b"__gnu_lto_slim" in names and f.named(b".gnu.lto_").any():
        raise ObjectError(
            "this member holds GCC's intermediate code only, no machine code",
            member=name,
            offset=0,
            help="compile it with `-ffat-lto-objects` or without `-flto`",
        )
    wanted = np.flatnonzero(is_rel & allocated[np.where(is_rel, info, 0)])
    relocations = f.relocations(wanted, len(symbols))

    edges = [_link_order(f, section_atom)]
    of_section = relocations["atom"].copy()
    relocations["atom"] = section_atom[of_section]
    for eh in np.flatnonzero(eh_frame).tolist():
        inside = of_section == eh
        split = split_eh_frame(f.contents(eh), f.r.order, relocations[inside], len(atoms), f.fail)
        relocations[inside] = split.relocations
        records = np.zeros(len(split.offsets), ATOM)
        records["section"] = eh
        records["offset"], records["size"] = split.offsets, split.sizes
        records["align"] = 4
        records["flags"] = AtomFlag.SEPARATE
        atoms = np.concatenate([atoms, records])
        edges.append(split.edges)

    debug = np.flatnonzero(
        (flags & elf.SHF_ALLOC == 0)
        & _among(types, (elf.SHT_PROGBITS, elf.SHT_X86_64_UNWIND))
        & (f.named(b".debug_") | f.named(b".gdb_index"))
    )
    native = ElfUnit(
        f.r,
        f.machine,
        f.osabi,
        f.flags,
        sections,
        f.names16,
        f.strings,
        symbol_strings,
        section_atom,
        shndx,
        tuple(debug.tolist()),
    )
    return Unit(
        index,
        name,
        data,
        atoms,
        symbols,
        first,
        names,
        relocations,
        np.concatenate(edges),
        _groups(f, table, shndx, native),
        native,
    )


def _among(values: Array, wanted: Iterable[int]) -> Bool:
    """Which values are among a few: `np.isin` takes far longer to find out how to do it."""
    found = np.zeros(len(values), np.bool_)
    for value in wanted:
        found |= values == value
    return found


def _atom_flags(f: ElfFile) -> Array:
    """AtomFlag of every section: what lives of itself, what linkers merge, unwind indices."""
    types, flags = f.types, f.section_flags
    root = (flags & elf.SHF_GNU_RETAIN != 0) | (types == elf.SHT_NOTE)
    root |= _among(types, (elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY))
    # the same as sections of plain contents, as older compilers and assembly write them
    if _MAY_BE_ROOT[(f.name_words[:, 0] >> np.uint64(8)) & np.uint64(0xFFFF)].any():
        for name in _ROOT_NAMES:
            root |= f.named(name)
    out = np.where(root, AtomFlag.ROOT, 0).astype(np.uint32)
    if f.machine.strings:
        out[flags & elf.SHF_MERGE != 0] |= np.uint32(AtomFlag.MERGEABLE)
    if f.machine.index_type:
        out[types == f.machine.index_type] |= np.uint32(AtomFlag.SEPARATE | AtomFlag.ORDERED)
    return out


def _symbols(table: Array, shndx: Int32, reserved: Bool, section_atom: Int32) -> Array:
    symbols = np.zeros(len(table), SYMBOL)
    inside = ~reserved & (shndx > 0)
    atom = np.full(len(table), Place.UNDEFINED, np.int32)
    atom[inside] = section_atom[shndx[inside]]
    atom[inside & (atom == -1)] = Place.ELSEWHERE
    atom[reserved & (shndx == elf.SHN_ABS)] = Place.ABSOLUTE
    atom[reserved & _among(shndx, (elf.SHN_COMMON, elf.SHN_X86_64_LCOMMON))] = Place.COMMON
    symbols["atom"] = atom
    symbols["kind"] = table["info"] & 0xF
    symbols["binding"] = _BINDINGS[table["info"] >> 4]
    symbols["visibility"] = table["other"] & 3
    symbols["native"] = table["other"]
    symbols["value"] = table["value"]
    symbols["size"] = table["size"]
    symbols["name"] = table["name"]
    return symbols


def _link_order(f: ElfFile, section_atom: Int32) -> Array:
    """A section with SHF_LINK_ORDER lives if the section that it describes does."""
    ordered = np.flatnonzero((f.section_flags & elf.SHF_LINK_ORDER != 0) & (section_atom >= 0))
    if not len(ordered):
        return np.zeros(0, EDGE)
    linked = f.sections["link"][ordered].astype(np.int64)
    if (linked >= len(f.sections)).any():
        raise f.fail("a section is linked to no section", f.shoff)
    edges = np.zeros(len(ordered), EDGE)
    edges["source"], edges["target"] = section_atom[linked], section_atom[ordered]
    return edges[edges["source"] >= 0]


def _groups(f: ElfFile, table: Array, shndx: Int32, native: ElfUnit) -> tuple[Group, ...]:
    """COMDAT and plain groups; old `.gnu.linkonce.` sections are groups of one.

    Source: gABI, "Section Groups".
    """
    groups: list[Group] = []
    for i in np.flatnonzero(f.types == elf.SHT_GROUP).tolist():
        offset = int(f.sections["offset"][i])
        words = np.frombuffer(f.contents(i), f"{f.r.order}u4", int(f.sections["size"][i]) // 4)
        symbol = int(f.sections["info"][i])
        if len(words) == 0 or symbol >= len(table) or (words[1:] >= len(f.sections)).any():
            raise f.fail("a section group is damaged", offset)
        if table["info"][symbol] & 0xF == elf.STT_SECTION:
            signature = section_name(native, int(shndx[symbol]))
        else:
            signature = string_at(native.symbol_strings, int(table["name"][symbol]))
        members = native.section_atom[words[1:]]
        members = members[members >= 0]
        groups.append(Group(signature, tuple(members.tolist()), bool(words[0] & elf.GRP_COMDAT)))
    for i in np.flatnonzero(f.named(b".gnu.linkonce")).tolist():
        if native.section_atom[i] >= 0:
            groups.append(
                Group(section_name(native, i), (int(native.section_atom[i]),), comdat=True)
            )
    return tuple(groups)


__all__ = ["read"]
