"""Reads ELF relocatable objects into the common model.

An atom is an allocated section; `.eh_frame` is taken apart into its records (CIEs and FDEs), each
an atom that lives with its function, and sections of strings and constants into their elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.elf import aside as beside
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.elements import Elements, find_elements
from cargo_strip_hook.formats.elf.file import ElfFiles, ElfUnit, Symbols
from cargo_strip_hook.formats.elf.groupinput import find_groups
from cargo_strip_hook.formats.elf.section_keys import is_c_identifier
from cargo_strip_hook.link.arrays import begins, isin, ramps, rows_of, unique
from cargo_strip_hook.link.frames import PC_BEGIN, FrameRecords, FrameRules, read_records
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    SYMBOL,
    Array,
    AtomFlag,
    Binding,
    Bool,
    Input,
    Int32,
    Int64,
    Reach,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.reading import by_file, per_file
from cargo_strip_hook.link.strings import string_at

_RELOCATIONS = np.array((elf.SHT_RELA, elf.SHT_REL, *elf.COMPACT))
_UNREAD_RELOCATIONS = np.array(
    (
        elf.SHT_RELR,
        elf.SHT_ANDROID_REL,
        elf.SHT_ANDROID_RELA,
    )
)
# Sections that hold tables of symbols for the linker, never contents of a program.
_DROPPED_TYPES = np.array((elf.SHT_GROUP, elf.SHT_LLVM_ADDRSIG))
_ROOT_TYPES = np.array((elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY))
_DEBUG_TYPES = np.array((elf.SHT_PROGBITS, elf.SHT_X86_64_UNWIND))
_COMMON = np.array((elf.SHN_COMMON, elf.SHN_X86_64_LCOMMON))
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


def read(inputs: Sequence[Input]) -> list[Unit]:
    """Read ELF objects. Raises `ObjectError` naming the member and the offset."""
    units: list[Unit] = []
    batch: list[Input] = []
    for item in inputs:
        if batch and not _alike(batch[0].data, item.data):
            units += _read(ElfFiles(batch))
            batch = []
        batch.append(item)
    if batch:
        units += _read(ElfFiles(batch))
    return units


def _alike(one: memoryview, other: memoryview) -> bool:
    """Whether two files can be read together: in one buffer, of one class, order and machine."""
    return (
        one.obj is other.obj
        and min(len(one), len(other)) >= 20
        and (one[4:6], one[18:20]) == (other[4:6], other[18:20])
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Roles:
    """What sections are for: a bool for each section, numbered through.

    `allocated` become atoms; of these are `aside` the ones that are never loaded, and `eh_frame`
    the ones whose records become the atoms.
    """

    allocated: Bool
    aside: Bool
    eh_frame: Bool


@dataclass(frozen=True, slots=True, eq=False)
class _SectionAtoms:
    """The atoms that are sections or elements of them, in the order of the sections.

    `section` (numbered through) and `number` (counted in its file) of each; `counts`: how many
    each file has. `of_section`: for each section its first atom, -1 where it has none.
    """

    section: Int64
    number: Int32
    counts: Int64
    of_section: Int32


@dataclass(frozen=True, slots=True, eq=False)
class _FrameAtoms:
    """The atoms that are records of `.eh_frame`; in each file they follow the other atoms.

    `owner` (the file) and `number` (counted in its file) of each of `records`; `counts`: how many
    each file has. `relocations`: rows of the relocations that apply to them, and `holder` the
    record of each; `functions`: those of them by which FDEs name their functions. `fde` and `cie`
    are records: each FDE and its CIE.
    """

    records: FrameRecords
    owner: Int64
    number: Int32
    counts: Int64
    relocations: Int64
    holder: Int64
    functions: Int64
    fde: Int64
    cie: Int64


def _read(f: ElfFiles) -> list[Unit]:
    """Read files of one kind, each into a unit. Raises `ObjectError` for the first bad one."""
    roles = _roles(f)
    table = f.symbols()
    tables, applies_to = _relocation_sections(f)
    _refuse(f, table)
    relocated = np.zeros(len(f.sections), np.bool_)
    relocated[applies_to] = True
    wanted = tables[roles.allocated[applies_to]]
    relocations, section = f.relocations(wanted, np.diff(table.first))
    compressed = roles.aside & (f.section_flags & elf.SHF_COMPRESSED != 0) & relocated
    f.check(compressed, f.owner, "a compressed section that is no debug information is relocated")
    elements = find_elements(f, table, relocated, relocations, section)
    whole = _section_atoms(f, roles, elements)
    symbols, symbol_first, shndx = _symbols(f, table, whole.of_section, elements)
    frames = _frame_atoms(f, roles, whole, relocations["offset"], section)

    relocations["symbol"][elements.reference] = elements.reference_symbol
    relocations["addend"][elements.reference] = elements.reference_addend
    relocations["atom"] = whole.of_section[section]
    weak = roles.aside & (f.section_flags & elf.SHF_GNU_RETAIN == 0)
    relocations["reach"][weak[section]] = Reach.NONE
    relocations["atom"][frames.relocations] = frames.number[frames.holder]
    relocations["offset"][frames.relocations] -= frames.records.start[frames.holder]
    relocations["reach"][frames.functions] = Reach.REVERSE

    atom_first = begins(whole.counts + frames.counts)
    atoms = _atoms(f, roles, whole, elements, frames, atom_first)
    roots = _profile_roots(f, table, symbols["atom"], symbol_first, atom_first)
    atoms["flags"][roots] |= np.uint32(AtomFlag.ROOT)
    edges = _edges(f, whole.of_section, frames)
    natives = _natives(f, whole.of_section, per_file(shndx, symbol_first))
    groups = find_groups(f, table, whole.of_section)
    tables_of_files = zip(
        f.inputs,
        per_file(atoms, atom_first),
        per_file(symbols, symbol_first),
        table.first_global,
        table.names,
        by_file(relocations, f.owner[section], len(f.inputs)),
        edges,
        map(tuple, groups),
        natives,
        table.strings,
        strict=True,
    )
    return [Unit(item.index, item.name, item.data, *parts) for item, *parts in tables_of_files]


def _roles(f: ElfFiles) -> _Roles:
    """Find out what each section is for."""
    allocated = (f.section_flags & elf.SHF_ALLOC != 0) & ~isin(f.types, _DROPPED_TYPES)
    allocated &= ~f.named(b".note.gnu.proper")
    aside = beside.find(f)
    allocated |= aside
    eh_frame = allocated & ~aside & f.named(b".eh_frame\0") & (f.types != elf.SHT_NOBITS)
    return _Roles(allocated, aside, eh_frame)


def _relocation_sections(f: ElfFiles) -> tuple[Int64, Int64]:
    """(sections that hold relocations, the section that each applies to), numbered through."""
    tables = np.flatnonzero(isin(f.types, _RELOCATIONS))
    owner = f.owner[tables]
    info = f.sections["info"][tables].astype(np.int64)
    bad = info >= np.diff(f.first)[owner]
    f.check(bad, owner, "a relocation section applies to no section")
    return tables, f.first[owner] + info


def _section_atoms(f: ElfFiles, roles: _Roles, elements: Elements) -> _SectionAtoms:
    """Number the atoms of each file that are sections, or elements of sections."""
    atoms_in = np.ones(len(f.sections), np.int64)
    atoms_in[elements.section] = 0
    np.add.at(atoms_in, elements.section, 1)
    section = np.flatnonzero(roles.allocated & ~roles.eh_frame)
    section = np.repeat(section, atoms_in[section])
    counts = np.bincount(f.owner[section], minlength=len(f.inputs))
    number = ramps(np.zeros_like(counts), counts, 1).astype(np.int32)
    of_section = np.full(len(f.sections), -1, np.int32)
    of_section[section[::-1]] = number[::-1]  # of several the first
    return _SectionAtoms(section, number, counts, of_section)


def _frame_atoms(
    f: ElfFiles, roles: _Roles, whole: _SectionAtoms, offsets: Int64, section: Int64
) -> _FrameAtoms:
    """Take all `.eh_frame` sections apart and number their records behind the other atoms.

    `offsets` and `section`: where each relocation applies. Raises `ObjectError` for records that
    are damaged.
    """

    def damaged(number: int, what: str, offset: int) -> ObjectError:
        return f.fail(int(f.owner[number]), what, offset)

    rules = FrameRules(order=f.r.order, unit=4)
    eh = np.flatnonzero(roles.eh_frame)
    records = read_records(f.octets, eh, f.start, f.sections["size"], rules, damaged)
    mine = np.flatnonzero(roles.eh_frame[section])
    offset = offsets[mine]
    holder = records.holding(section[mine], offset)
    what = ".eh_frame is damaged: a relocation is in no record"
    f.check(holder < 0, f.owner[section[mine]], what, np.zeros_like(mine))
    named = (records.pointer[holder] != 0) & (offset - records.start[holder] == PC_BEGIN)
    owner = f.owner[records.section]
    fde, cie = records.fdes()
    what = ".eh_frame is damaged: an FDE has no CIE"
    f.check(cie < 0, owner[fde], what, np.zeros_like(fde))
    counts = np.bincount(owner, minlength=len(f.inputs))
    number = ramps(whole.counts, counts, 1).astype(np.int32)
    return _FrameAtoms(records, owner, number, counts, mine, holder, mine[named], fde, cie)


def _atoms(
    f: ElfFiles,
    roles: _Roles,
    whole: _SectionAtoms,
    elements: Elements,
    frames: _FrameAtoms,
    first: Int64,
) -> Array:
    """The ATOM rows of all files; `first` is where those of each file begin, and the total."""
    atoms = np.zeros(int(first[-1]), ATOM)
    owner = f.owner[whole.section]
    rows = first[owner] + whole.number
    atoms["section"][rows] = whole.section - f.first[owner]
    atoms["size"][rows] = f.sections["size"][whole.section]
    atoms["align"][rows] = np.maximum(f.sections["align"][whole.section].astype(np.int64), 1)
    atoms["flags"][rows] = _atom_flags(f, roles.aside, whole.of_section)[whole.section]
    rows = rows[isin(whole.section, elements.section)]
    atoms["offset"][rows], atoms["size"][rows] = elements.offset, elements.size
    atoms["flags"][rows] |= np.uint32(AtomFlag.ELEMENT)
    rows = first[frames.owner] + frames.number
    atoms["section"][rows] = frames.records.section - f.first[frames.owner]
    atoms["offset"][rows], atoms["size"][rows] = frames.records.start, frames.records.size
    atoms["align"][rows] = 4
    atoms["flags"][rows] = AtomFlag.SEPARATE
    section = np.repeat(f.first[:-1], np.diff(first)) + atoms["section"]
    begin = np.where(f.types == elf.SHT_NOBITS, -1, f.sections["offset"].astype(np.int64))[section]
    atoms["contents"] = np.where(begin >= 0, begin + atoms["offset"], -1)
    return atoms


def _edges(f: ElfFiles, section_atom: Int32, frames: _FrameAtoms) -> list[Array]:
    """Each file's EDGE rows: what a section is linked to, and from each FDE to its CIE."""
    linked, linked_owner = _link_order(f, section_atom)
    to_cie = rows_of(
        EDGE,
        len(frames.fde),
        source=frames.number[frames.fde],
        target=frames.number[frames.cie],
    )
    owner = np.concatenate([linked_owner, frames.owner[frames.fde]])
    return by_file(np.concatenate([linked, to_cie]), owner, len(f.inputs))


def _natives(f: ElfFiles, section_atom: Int32, shndx: Sequence[Array]) -> list[ElfUnit]:
    """What only this format knows of each file; `shndx`: `ElfUnit.shndx` of each."""
    debug = np.flatnonzero(
        # sections of split debug information (`.dwo`) are not for linkers
        (f.section_flags & (elf.SHF_ALLOC | elf.SHF_EXCLUDE) == 0)
        & isin(f.types, _DEBUG_TYPES)
        & (f.named(b".debug_") | f.named(b".zdebug_"))
    )
    owner = f.owner[debug]
    debug_of = by_file(debug - f.first[owner], owner, len(f.inputs))
    sections_of, names_of = per_file(f.sections, f.first), per_file(f.names16, f.first)
    section_atom_of = per_file(section_atom, f.first)
    return [
        ElfUnit(
            f.r,
            f.machine,
            header.identity,
            header.flags,
            sections_of[file],
            names_of[file],
            f.strings[file],
            section_atom_of[file],
            shndx[file],
            tuple(debug_of[file].tolist()),
        )
        for file, header in enumerate(f.headers)
    ]


def _refuse(f: ElfFiles, table: Symbols) -> None:
    """Raise `ObjectError` for files that hold something that nobody reads here."""
    compact = np.flatnonzero(isin(f.types, _UNREAD_RELOCATIONS))
    if len(compact):
        file = int(f.owner[compact[0]])
        raise f.files[file].fail(
            "relocations in a packed form (RELR or Android's) are not supported",
            f.headers_at(file),
            "they belong into finished programs: compile without an option for them",
        )
    for file in unique(f.owner[f.named(b".gnu.lto_")]).tolist():
        if b"__gnu_lto_slim" in table.names[file]:
            raise f.files[file].fail(
                "this member holds GCC's intermediate code only, no machine code",
                0,
                "compile it with `-ffat-lto-objects` or without `-flto`",
            )


def _atom_flags(f: ElfFiles, aside: Bool, section_atom: Int32) -> Array:
    """AtomFlag of every section: what lives of itself, what linkers merge, unwind indices."""
    types, flags = f.types, f.section_flags
    root = (flags & elf.SHF_GNU_RETAIN != 0) | ((types == elf.SHT_NOTE) & ~aside)
    root |= isin(types, _ROOT_TYPES)
    # the same as sections of plain contents, as older compilers and assembly write them
    if _MAY_BE_ROOT[(f.name_words[:, 0] >> np.uint64(8)) & np.uint64(0xFFFF)].any():
        for name in _ROOT_NAMES:
            root |= f.named(name) & ~aside
    out = np.where(root, AtomFlag.ROOT, 0).astype(np.uint32)
    out[_listed(f)] |= np.uint32(AtomFlag.LISTED)
    if f.machine.strings:
        out[flags & elf.SHF_MERGE != 0] |= np.uint32(AtomFlag.MERGEABLE)
    out[f.named(b".text.unlikely\0") | f.named(b".text.unlikely.")] |= np.uint32(AtomFlag.COLD)
    if f.machine.index_type:
        out[types == f.machine.index_type] |= np.uint32(AtomFlag.SEPARATE | AtomFlag.ORDERED)
    if aside.any():
        out[aside] |= np.uint32(AtomFlag.ASIDE)
        out[beside.followers(f, aside, section_atom)] |= np.uint32(AtomFlag.FOLLOWS)
    return out


def _listed(f: ElfFiles) -> Array:
    """Numbers of the sections that a program's `__start_X` and `__stop_X` may be around.

    Linkers keep them whole, unless asked otherwise (ld's manual, "-z start-stop-gc"). Not code,
    which programs do not go through, and not what lives with something else.
    """
    others = elf.SHF_EXECINSTR | elf.SHF_LINK_ORDER
    listed = f.section_flags & (elf.SHF_ALLOC | others) == elf.SHF_ALLOC
    listed &= ~f.named(b"__llvm_prf_")  # counters live with their functions
    first = f.name_words[:, 0] & np.uint64(0xFF)
    rows = np.flatnonzero(listed & (first != ord(".")) & (first != 0))
    strings, names = (f.strings[file] for file in f.owner[rows].tolist()), f.sections["name"][rows]
    called = (string_at(s, offset) for s, offset in zip(strings, names.tolist(), strict=True))
    return rows[np.fromiter(map(is_c_identifier, called), np.bool_, len(rows))]


def _profile_roots(
    f: ElfFiles, table: Symbols, symbol_atom: Int32, symbol_first: Int64, atom_first: Int64
) -> Int64:
    """Rows of the atoms that tell the profile runtime of a file's counters: nothing refers to them.

    `symbol_atom`: the atom of each symbol; `symbol_first`, `atom_first`: where the symbols and
    the atoms of each file begin.
    """
    roots: list[int] = []
    for file in unique(f.owner[f.named(elf.PROFILE_SECTION)]).tolist():
        begin = int(symbol_first[file]) + table.first_global[file]
        for number, name in enumerate(table.names[file]):
            if name in elf.PROFILE_SYMBOLS:
                atom = int(symbol_atom[begin + number])
                if atom >= 0:
                    roots.append(int(atom_first[file]) + atom)
    return np.array(roots, np.int64)


def _symbols(
    f: ElfFiles, table: Symbols, section_atom: Int32, elements: Elements
) -> tuple[Array, Array, Int32]:
    """(symbols, the first one of each file, `ElfUnit.shndx`): of files and synthetic."""
    symbols = _file_symbols(f, table, section_atom)
    if not len(elements.section):
        return symbols, table.first, table.shndx
    position = (np.arange(len(elements.section)) - elements.first()).astype(np.int32)
    symbols["atom"][elements.symbol] += position[elements.holder]
    symbols["value"][elements.symbol] -= elements.offset[elements.holder]
    home = elements.section[elements.synthetic]
    synthetic = rows_of(SYMBOL, len(home), atom=section_atom[home] + position[elements.synthetic])
    behind = table.first[f.owner[home] + 1]
    counts = np.bincount(f.owner[home], minlength=len(f.inputs))
    first = table.first + begins(counts)
    return np.insert(symbols, behind, synthetic), first, np.insert(table.shndx, behind, 0)


def _file_symbols(f: ElfFiles, table: Symbols, section_atom: Int32) -> Array:
    rows, shndx, reserved = table.table, table.shndx, table.reserved
    inside = ~reserved & (shndx > 0)
    atom = np.full(len(rows), SpecialIndex.UNDEFINED, np.int32)
    atom[inside] = section_atom[f.first[table.owner[inside]] + shndx[inside]]
    atom[inside & (atom == -1)] = SpecialIndex.ELSEWHERE
    atom[reserved & (shndx == elf.SHN_ABS)] = SpecialIndex.ABSOLUTE
    atom[reserved & isin(shndx, _COMMON)] = SpecialIndex.COMMON
    return rows_of(
        SYMBOL,
        len(rows),
        atom=atom,
        kind=rows["info"] & 0xF,
        binding=_BINDINGS[rows["info"] >> 4],
        visibility=rows["other"] & 3,
        native=rows["other"],
        **{name: rows[name] for name in ("value", "size", "name")},
    )


def _link_order(f: ElfFiles, section_atom: Int32) -> tuple[Array, Array]:
    """(edges, the file of each): a section with SHF_LINK_ORDER lives if what it describes does."""
    ordered = np.flatnonzero((f.section_flags & elf.SHF_LINK_ORDER != 0) & (section_atom >= 0))
    owner = f.owner[ordered]
    linked = f.sections["link"][ordered].astype(np.int64)
    f.check(linked >= np.diff(f.first)[owner], owner, "a section is linked to no section")
    source = section_atom[f.first[owner] + linked]
    edges = rows_of(EDGE, len(ordered), source=source, target=section_atom[ordered])
    kept = source >= 0
    return edges[kept], owner[kept]


__all__ = ["read"]
