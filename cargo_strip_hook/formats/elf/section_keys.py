"""Which sections may become one, and what linkers read out of a section's name.

Sources: gABI "Special Sections"; the default linker scripts of GNU ld (text prefixes, init arrays).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import elf_unit, section_name
from cargo_strip_hook.formats.elf.groups import kept_groups
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.arrays import isin, join, unique
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Granularity,
    Int32,
    Layout,
    LinkerSet,
    Program,
    SectionKey,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.section_keys import linker_sets, number_keys, sets_of_atoms
from cargo_strip_hook.link.unwind import is_cie

# Longest first: the part of a name that tells a linker where a section belongs.
_PREFIXES = (
    b".text.unlikely",
    b".text.startup",
    b".text.hot",
    b".text.exit",
    b".text",
    b".rodata",
    b".data.rel.ro",
    b".data",
    b".bss.rel.ro",
    b".bss",
    b".tdata",
    b".tbss",
    b".gcc_except_table",
    b".ltext",
    b".lrodata",
    b".ldata",
    b".lbss",
    b".ARM.exidx",
    b".ARM.extab",
    b".srodata",
    b".sdata",
    b".sbss",
)
# GNU ld's default linker script
_LINKONCE = {
    b"t": b".text",
    b"r": b".rodata",
    b"d": b".data",
    b"b": b".bss",
    b"s": b".sdata",
    b"sb": b".sbss",
    b"td": b".tdata",
    b"tb": b".tbss",
    b"lt": b".ltext",
    b"lr": b".lrodata",
    b"l": b".ldata",
    b"lb": b".lbss",
    b"e": b".gcc_except_table",
}
_CODE, _COLD = b".text", b".text.unlikely"
_LONGEST = b".gcc_except_table"  # of the prefixes: 16 bytes do not tell it from others
_ONCE = b".gnu.linkonce."
_PERSONALITY = b".personality"
_INITIALISERS = (b".init_array", b".fini_array", b".preinit_array", b".ctors", b".dtors")

# Flags of the input that mean nothing in the output: groups are gone, links are written anew.
_FAR_APART = 1 << 16  # bytes: an alignment above this would fill a joined section with padding
_CLEARED = elf.SHF_GROUP | elf.SHF_INFO_LINK
_MERGED = elf.SHF_MERGE | elf.SHF_STRINGS


class SectionKind(NamedTuple):
    """Name, type, flags and entry size of an output section; `link` is the atom it is linked to.

    `no_merge`: never joined with another. `bare`: code without an unwind index, where code has one;
    it is not joined with code that has, or a linker would take that one's entries for it.
    `element_align`: bytes, of the elements of a section that linkers merge. `group` and
    `linker_set`: the numbers of the kept group and the linker set, -1 for none.
    """

    name: bytes
    type: int
    flags: int
    entsize: int = 0
    link: int = -1
    no_merge: bool = False
    bare: bool = False
    element_align: int = 0
    group: int = -1
    linker_set: int = -1


def section_kinds(layout: Layout) -> list[SectionKind]:
    """What each section of a layout is."""
    return cast("list[SectionKind]", layout.descriptors)


class _Facts(NamedTuple):
    """What decides about an atom."""

    head: bytes  # the first 16 bytes of its section's name
    tail: int  # the two behind them where they matter
    type: int
    flags: int
    entsize: int
    align: int
    element: bool  # of a section that linkers merge
    no_merge: bool
    bare: bool
    synthetic: bool
    alone: bool  # what is decided for each such atom by itself


def kind_of_name(name: bytes) -> bytes:
    """What of a section's name is kept: `.text.foo` is `.text`, `.init_array.5` stays.

    `.gnu.linkonce.t.foo` is `.text`: of two files with that name a linker would drop one.
    """
    if name.startswith(_ONCE):
        letter = name.split(b".", 4)[3]
        return _LINKONCE.get(letter, b"." + letter)
    for prefix in _PREFIXES:
        if name == prefix or name.startswith(prefix + b"."):
            return prefix
    return name


def is_initialiser(name: bytes) -> bool:
    return name.startswith(_INITIALISERS)


def is_c_identifier(name: bytes) -> bool:
    """Whether a linker would define `__start_` and `__stop_` symbols for the section."""
    text = name.decode("latin-1")
    return text.isidentifier() and text.isascii()


def find_sets(units: Sequence[Unit], undefined: Sequence[bytes]) -> list[LinkerSet]:
    """The sections behind undefined `__start_X`/`__stop_X`, in the order of the input."""
    ends = (n.split(b"_", 3)[3] for n in undefined if n.startswith((b"__start_", b"__stop_")))
    wanted = {
        n: (n, b"__start_" + n, b"__stop_" + n) for n in sorted({*ends}) if is_c_identifier(n)
    }

    def elements(unit: Unit) -> Iterator[tuple[bytes, Int32]]:
        native = elf_unit(unit)
        for section in np.flatnonzero(native.section_atom >= 0).tolist():
            head = bytes(native.names16[section])
            if head and not head.startswith(b".") and any(n.startswith(head) for n in wanted):
                yield section_name(native, section), native.section_atom[section : section + 1]

    return linker_sets(units, wanted, elements)


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
    """The number of each `live` atom's section key, and the keys, in order of first appearance."""
    of_set = sets_of_atoms(program)
    set_kinds = [_set_kind(program, number) for number in range(len(program.sets))]
    personalities = _personalities(program)
    special = _special_commons(program)
    is_element = program.atoms["flags"][live] & AtomFlag.ELEMENT != 0
    grouped = {a: n for n, g in enumerate(kept_groups(program, live)) for a in g.atoms}
    alone = isin(live, np.array([*of_set, *personalities, *grouped], np.int32))
    columns = _facts(program, live, is_element, alone)

    def key(row: int) -> tuple[SectionKind, bool]:
        atom = int(live[row])
        if atom in of_set:
            return set_kinds[of_set[atom]], False
        facts = _Facts(**{name: column[row].item() for name, column in columns.items()})
        if facts.synthetic:
            name, more = special.get(atom, (b".bss", 0))
            flags = elf.SHF_WRITE | elf.SHF_ALLOC | more
            return SectionKind(name, elf.SHT_NOBITS, flags), False
        kind, shared = _kind(program, atom, facts, personality=atom in personalities)
        if atom in grouped:
            return kind._replace(group=grouped[atom]), False
        return kind, shared

    numbers, kinds = number_keys(list(columns.values()), key)
    merged = {
        number
        for number, kind in enumerate(kinds)
        if kind.flags & (elf.SHF_ALLOC | elf.SHF_MERGE) == elf.SHF_MERGE
    }
    merged.update(unique(numbers[is_element]).tolist())
    identities = partial(_identities, program)
    return numbers, tuple(
        SectionKey(
            kind,
            single=bool(kind.flags & elf.SHF_LINK_ORDER) or kind.no_merge or kind.group >= 0,
            whole=_is_whole(kind),
            identity=identities if number in merged else None,
        )
        for number, kind in enumerate(kinds)
    )


def _is_whole(kind: SectionKind) -> bool:
    if kind.flags & elf.SHF_LINK_ORDER or kind.no_merge or kind.group >= 0:
        return False
    return kind.linker_set >= 0 or is_initialiser(kind.name) or not kind.flags & elf.SHF_ALLOC


def _identities(program: Program, atoms: Int32) -> list[Hashable | None]:
    """What makes two elements the same to a linker: kind of section, alignment and contents."""
    identities: list[Hashable | None] = []
    rows = program.atoms[atoms]
    relocated = np.zeros(len(atoms), np.bool_)
    if (rows["flags"] & AtomFlag.ASIDE != 0).any():
        relocated = isin(atoms, program.relocations["atom"])
    for unit_number, row, fixed in zip(
        program.unit_of(atoms).tolist(), rows.tolist(), (~relocated).tolist(), strict=True
    ):
        section, flags, _, size, align, start = row
        if not (flags & AtomFlag.ELEMENT or (flags & AtomFlag.ASIDE and fixed)):
            identities.append(None)
            continue
        unit = program.units[unit_number]
        header = elf_unit(unit).sections[section]
        kind = int(header["flags"]) & elf.SHF_STRINGS, int(header["entsize"])
        identities.append((*kind, align, bytes(unit.data[start : start + size])))
    return identities


def _personalities(program: Program) -> frozenset[int]:
    """The atoms that CIEs refer to.

    gold does not follow `.eh_frame` when it collects garbage: it keeps sections whose names begin
    with `.text` or `.data` and contain `personality` (object.cc, is_section_name_included).
    """
    rows = program.relocations[is_cie(program)[program.relocations["atom"]]]
    targets = program.symbols["atom"][program.definition[rows["symbol"]]]
    return frozenset(targets[targets >= 0].tolist())


def _facts(program: Program, live: Int32, is_element: Bool, alone: Bool) -> dict[str, Array]:
    """Columns of the `_Facts` of all `live` atoms, by the names of the fields."""
    units = program.unit_of(live)
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]).tolist() if len(live) else []
    first = elf_unit(program.units[0])
    machine: Machine = first.machine
    header_tables = [np.zeros(0, first.records.section)]
    name_tables = [np.zeros(0, "S16")]
    tail = np.zeros(len(live), np.uint16)
    where = program.atoms["section"][live]
    bare = np.zeros(len(live), np.bool_)
    synthetic = np.zeros(len(live), np.bool_)
    for begin, end in zip(borders, [*borders[1:], len(live)], strict=True):
        unit = program.units[int(units[begin])]
        native = elf_unit(unit)
        if unit.index < 0:
            synthetic[begin:end] = True
            header_tables.append(np.zeros(end - begin, first.records.section))
            name_tables.append(np.zeros(end - begin, "S16"))
            continue
        sections = where[begin:end]
        header_tables.append(native.sections[sections])
        names16 = native.names16[sections]
        name_tables.append(names16)
        for row in np.flatnonzero(names16 == _LONGEST[:16]).tolist():
            start = int(native.sections["name"][sections[row]]) + 16
            tail[begin + row] = int.from_bytes(native.strings[start : start + 2], "little")
        if machine.index_type:
            indexed = native.sections["link"][native.sections["type"] == machine.index_type]
            bare[begin:end] = ~isin(sections, indexed)
    headers, names = join(header_tables), np.concatenate(name_tables)
    code = headers["flags"] & elf.SHF_EXECINSTR != 0
    no_merge = np.zeros(len(live), np.bool_)
    if machine.code_align is not None:
        no_merge = code & (headers["align"] > machine.code_align)
    return {
        "head": names,
        "tail": tail,
        "type": headers["type"],
        "flags": headers["flags"],
        "entsize": headers["entsize"],
        "align": headers["align"],
        "element": is_element,
        "no_merge": no_merge,
        "bare": bare & code,
        "synthetic": synthetic,
        "alone": alone,
    }


def _kind(
    program: Program, atom: int, facts: _Facts, *, personality: bool
) -> tuple[SectionKind, bool]:
    """The kind of an atom's section, and whether that of all with the same `facts` is the same."""
    number = int(program.unit_of(np.array([atom]))[0])
    native = elf_unit(program.units[number])
    section = int(program.atoms["section"][atom])
    full = section_name(native, section)
    if not facts.flags & elf.SHF_ALLOC:
        return _kind_aside(program, number, section, full), False
    # of two files with a section `.gnu.linkonce.t.f` a linker would drop one
    whole = program.granularity is Granularity.SECTION and not full.startswith(_ONCE)
    name = full if whole else kind_of_name(full)
    shared = not facts.alone and name is not full
    flags = facts.flags & ~(_CLEARED if native.machine.strings else _CLEARED | _MERGED)
    if program.granularity is not Granularity.SECTION:
        if name == _COLD:
            name = _CODE
        if facts.element:  # equal ones are one already: plain data from here on
            flags &= ~_MERGED
    if personality and not (whole and _PERSONALITY[1:] in name):
        name += _PERSONALITY
    align = max(facts.align, 1)
    kind = SectionKind(name, facts.type, flags)
    if flags & elf.SHF_LINK_ORDER:
        link = int(native.section_atom[int(native.sections["link"][section])])
        base = int(program.atom_base[number])
        return kind._replace(entsize=facts.entsize, link=link + base), False
    if flags & elf.SHF_MERGE:
        # elements of one size and alignment only, and no padding between them
        odd = not flags & elf.SHF_STRINGS and (not facts.entsize or facts.entsize % align != 0)
        return kind._replace(entsize=facts.entsize, no_merge=odd, element_align=align), shared
    if align > _FAR_APART or facts.no_merge or facts.bare:
        return kind._replace(no_merge=facts.no_merge or align > _FAR_APART, bare=facts.bare), shared
    return kind, shared


def _special_commons(program: Program) -> dict[int, tuple[bytes, int]]:
    """Name and further flags of the section of each common that is no plain data, by its atom."""
    sections: dict[int, tuple[bytes, int]] = {}
    symbols = program.symbols
    for number in np.flatnonzero(symbols["atom"] == SpecialIndex.COMMON).tolist():
        home = int(np.searchsorted(program.symbol_base, number, side="right")) - 1
        unit = elf_unit(program.units[home])
        atom = int(symbols["atom"][program.definition[number]])
        if symbols["kind"][number] == elf.STT_TLS:
            sections[atom] = b".tbss", elf.SHF_TLS
        elif unit.shndx[number - int(program.symbol_base[home])] == elf.SHN_X86_64_LCOMMON:
            sections[atom] = b".lbss", elf.SHF_X86_64_LARGE
    return sections


def _kind_aside(program: Program, number: int, section: int, name: bytes) -> SectionKind:
    """The same for what is never loaded: one section of a name, as linkers make it.

    What is linked to another section stays with that one's; compressed ones cannot be joined.
    """
    native = elf_unit(program.units[number])
    header = native.sections[section]
    kind, flags, entsize = int(header["type"]), int(header["flags"]), int(header["entsize"])
    flags &= ~_CLEARED
    if flags & elf.SHF_LINK_ORDER:
        atom = int(native.section_atom[int(header["link"])])
        link = atom + int(program.atom_base[number]) * (atom >= 0)
        return SectionKind(name, kind, flags, entsize, link)
    return SectionKind(name, kind, flags, entsize, no_merge=bool(flags & elf.SHF_COMPRESSED))


def _set_kind(program: Program, number: int) -> SectionKind:
    """One section for a set, under a name for which no linker defines symbols."""
    elements = program.sets[number].elements
    homes = program.unit_of(elements).tolist()
    sections = program.atoms["section"][elements].tolist()
    headers = [
        elf_unit(program.units[home]).sections[section]
        for home, section in zip(homes, sections, strict=True)
    ]
    flags = elf.SHF_ALLOC
    for header in headers:
        flags |= int(header["flags"]) & (elf.SHF_WRITE | elf.SHF_EXECINSTR | elf.SHF_GNU_RETAIN)
    empty = all(header["type"] == elf.SHT_NOBITS for header in headers)
    kind = elf.SHT_NOBITS if empty else elf.SHT_PROGBITS
    return SectionKind(program.sets[number].name + b".private", kind, flags, linker_set=number)
