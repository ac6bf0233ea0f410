"""Which sections may become one, and what linkers read out of a section's name.

Sources: gABI "Special Sections"; the default linker scripts of GNU ld (text prefixes, init arrays).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import ElfUnit, section_name
from cargo_strip_hook.formats.elf.groups import kept_groups
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.arrays import alike, isin, join, unique
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Granularity,
    Int32,
    LinkerSet,
    Program,
    SectionKey,
    SpecialIndex,
    Unit,
)
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
_ONCE = b".gnu.linkonce."
_PERSONALITY = b".personality"
_INITIALISERS = (b".init_array", b".fini_array", b".preinit_array", b".ctors", b".dtors")

# Flags of the input that mean nothing in the output: groups are gone, links are written anew.
_FAR_APART = 1 << 16  # bytes: an alignment above this would fill a joined section with padding
_CLEARED = elf.SHF_GROUP | elf.SHF_INFO_LINK
_MERGED = elf.SHF_MERGE | elf.SHF_STRINGS

# What the sections of a bucket have in common: the fields of a `SectionKind`, or "set" and the
# number of an element set.
_Key = tuple[object, ...]


class _Alike(IntEnum):
    """Which sections with the same first 16 bytes of their name and the same facts are alike."""

    NONE = 0  # not even those
    TAIL = 1  # those with the same two bytes behind
    HEAD = 2  # all of them


@dataclass(frozen=True, slots=True)
class SectionKind:
    """Name, type, flags and entry size of an output section; `link` is the atom it is linked to.

    `apart`: never joined with another. `bare`: code without an unwind index, where code has one;
    it is not joined with code that has, or a linker would take that one's entries for it.
    `element_align`: bytes, of the elements of a section that linkers merge. `group`: the number of
    the kept group, -1 for none.
    """

    name: bytes
    type: int
    flags: int
    entsize: int
    link: int = -1
    apart: bool = False
    bare: bool = False
    element_align: int = 0
    group: int = -1


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
    wanted = sorted(
        {n.split(b"_", 3)[3] for n in undefined if n.startswith((b"__start_", b"__stop_"))}
    )
    if not wanted:
        return []
    elements: dict[bytes, list[int]] = {name: [] for name in wanted}
    align: dict[bytes, int] = dict.fromkeys(wanted, 1)
    base = 0
    for unit in units:
        native: ElfUnit = unit.native
        for section in np.flatnonzero(native.section_atom >= 0).tolist():
            head = bytes(native.names16[section])
            if not head or head.startswith(b".") or not any(n.startswith(head) for n in wanted):
                continue
            name = section_name(native, section)
            if name in elements:
                atom = int(native.section_atom[section])
                elements[name].append(base + atom)
                align[name] = max(align[name], int(unit.atoms["align"][atom]))
        base += len(unit.atoms)
    return [
        LinkerSet(
            name,
            b"__start_" + name,
            b"__stop_" + name,
            np.array(elements[name], np.int32),
            align[name],
        )
        for name in wanted
        if elements[name] and is_c_identifier(name)
    ]


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
    """The bucket of each atom of `live`, and the buckets, in order of first appearance."""
    of_set = _sets_of_atoms(program)
    personalities = _personalities(program)
    special = _special_commons(program)
    elements = program.atoms["flags"][live] & AtomFlag.ELEMENT != 0
    grouped = {a: n for n, g in enumerate(kept_groups(program, live)) for a in g.atoms}
    alone = isin(live, np.array([*of_set, *personalities, *grouped], np.int32))
    facts = _facts(program, live, elements, alone)
    group, first = alike(facts)
    keys: dict[int, _Key] = {}  # by the position in `live` of the first that has it

    def key(at: int) -> _Alike:
        row = tuple(column[at].item() for column in facts)
        atom = int(live[at])
        keys[at], how_far = _key(program, atom, row, of_set, personalities, special)
        if atom in grouped:
            kind = SectionKind(*keys[at])  # type: ignore[arg-type]
            keys[at] = astuple(replace(kind, group=grouped[atom]))
            return _Alike.NONE
        return how_far

    extent = np.array([key(at) for at in first.tolist()], np.int8)[group]
    shared = extent == _Alike.HEAD
    source = np.where(shared, first[group], np.arange(len(live)))
    for at in np.flatnonzero(extent == _Alike.NONE).tolist():
        key(at)
    rest = np.flatnonzero(extent == _Alike.TAIL)
    seen: dict[tuple[int, bytes], int] = {}
    for at, unit, number in zip(
        rest.tolist(), program.unit_of(live[rest]).tolist(), group[rest].tolist(), strict=True
    ):
        native: ElfUnit = program.units[unit].native
        start = int(native.sections["name"][program.atoms["section"][live[at]]]) + 16
        tail = bytes(native.strings[start : start + 2])
        if (number, tail) in seen:
            source[at] = seen[number, tail]
        elif key(at) is _Alike.TAIL:
            seen[number, tail] = at
    order: dict[_Key, int] = {}
    section_keys: list[SectionKey] = []
    numbers = np.zeros(len(live), np.int32)
    for at in sorted(keys):
        known = order.get(keys[at])
        if known is None:
            known = order[keys[at]] = len(section_keys)
            section_keys.append(_bucket(program, keys[at]))
        numbers[at] = known
    out = numbers[source]
    merged = [
        n
        for n, b in enumerate(section_keys)
        if b.descriptor.flags & (elf.SHF_ALLOC | elf.SHF_MERGE) == elf.SHF_MERGE
    ]
    for number in (*unique(out[elements]).tolist(), *merged):
        section_keys[number] = replace(section_keys[number], identity=partial(_identities, program))
    return out, tuple(section_keys)


def _identities(program: Program, atoms: Int32) -> list[Hashable | None]:
    """What makes two elements the same to a linker: kind of section, alignment and contents."""
    found: list[Hashable | None] = []
    rows = program.atoms[atoms]
    relocated = np.zeros(len(atoms), np.bool_)
    if (rows["flags"] & AtomFlag.ASIDE != 0).any():
        relocated = isin(atoms, program.relocations["atom"])
    for unit_number, row, fixed in zip(
        program.unit_of(atoms).tolist(), rows.tolist(), (~relocated).tolist(), strict=True
    ):
        section, flags, _, size, align, start = row
        if not (flags & AtomFlag.ELEMENT or (flags & AtomFlag.ASIDE and fixed)):
            found.append(None)
            continue
        unit = program.units[unit_number]
        header = unit.native.sections[section]
        kind = int(header["flags"]) & elf.SHF_STRINGS, int(header["entsize"])
        found.append((*kind, align, bytes(unit.data[start : start + size])))
    return found


def _personalities(program: Program) -> frozenset[int]:
    """The atoms that CIEs refer to.

    gold does not follow `.eh_frame` when it collects garbage: it keeps sections whose names begin
    with `.text` or `.data` and contain `personality` (object.cc, is_section_name_included).
    """
    rows = program.relocations[is_cie(program)[program.relocations["atom"]]]
    targets = program.symbols["atom"][program.definition[rows["symbol"]]]
    return frozenset(targets[targets >= 0].tolist())


def _sets_of_atoms(program: Program) -> dict[int, int]:
    found: dict[int, int] = {}
    for number, linker_set in enumerate(program.sets):
        for atom in (
            *linker_set.elements.tolist(),
            linker_set.start_atom,
            linker_set.stop_atom,
        ):
            found[atom] = number
    return found


def _facts(program: Program, live: Int32, elements: Bool, alone: Bool) -> list[Array]:
    """What decides for each atom: columns of what `_key` takes apart.

    The first 16 bytes of the section's name, its type, flags, entry size and alignment; whether
    the atom is an element, and `apart` and `bare` of a `SectionKind`; whether it is none of the
    input's; whether it is one of a set or a personality.
    """
    units = program.unit_of(live)
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]).tolist() if len(live) else []
    first = program.units[0].native
    machine: Machine = first.machine
    header_parts = [np.zeros(0, first.records.section)]
    name_parts = [np.zeros(0, "S16")]
    where = program.atoms["section"][live]
    bare = np.zeros(len(live), np.bool_)
    made = np.zeros(len(live), np.bool_)
    for begin, end in zip(borders, [*borders[1:], len(live)], strict=True):
        unit = program.units[int(units[begin])]
        native: ElfUnit = unit.native
        if unit.index < 0:
            made[begin:end] = True
            header_parts.append(np.zeros(end - begin, first.records.section))
            name_parts.append(np.zeros(end - begin, "S16"))
            continue
        sections = where[begin:end]
        header_parts.append(native.sections[sections])
        name_parts.append(native.names16[sections])
        if machine.index_type:
            indexed = native.sections["link"][native.sections["type"] == machine.index_type]
            bare[begin:end] = ~isin(sections, indexed)
    headers, names = join(header_parts), np.concatenate(name_parts)
    code = headers["flags"] & elf.SHF_EXECINSTR != 0
    apart = np.zeros(len(live), np.bool_)
    if machine.code_align is not None:
        apart = code & (headers["align"] > machine.code_align)
    told = [names, *(headers[field] for field in ("type", "flags", "entsize", "align"))]
    return [*told, elements, apart, bare & code, made, alone]


def _key(
    program: Program,
    atom: int,
    facts: tuple[Any, ...],
    of_set: Mapping[int, int],
    personalities: frozenset[int],
    special: Mapping[int, tuple[bytes, int]],
) -> tuple[_Key, _Alike]:
    """What all atoms of its bucket agree in, and which of the same `facts` are among them."""
    _, kind, flags, entsize, align, element, apart, bare, made, alone = facts
    if atom in of_set:
        return ("set", of_set[atom]), _Alike.NONE
    if made:
        name, more = special.get(atom, (b".bss", 0))
        return (name, elf.SHT_NOBITS, elf.SHF_WRITE | elf.SHF_ALLOC | more, 0), _Alike.NONE
    number = _unit_of(program, atom)
    native: ElfUnit = program.units[number].native
    section = int(program.atoms["section"][atom])
    full = section_name(native, section)
    if not flags & elf.SHF_ALLOC:
        return _key_aside(program, number, section, full), _Alike.NONE
    # of two files with a section `.gnu.linkonce.t.f` a linker would drop one
    whole = program.granularity is Granularity.SECTION and not full.startswith(_ONCE)
    name = full if whole else kind_of_name(full)
    extent = _Alike.NONE
    if not alone and name is not full:
        # the first 16 bytes decide for every prefix but the longest, `.gcc_except_table`
        extent = _Alike.HEAD if len(name) < 16 else _Alike.TAIL
    flags &= ~(_CLEARED if native.machine.strings else _CLEARED | _MERGED)
    if program.granularity is not Granularity.SECTION:
        if name == _COLD:
            name = _CODE
        if element:  # equal ones are one already: plain data from here on
            flags &= ~_MERGED
    if atom in personalities and not (whole and _PERSONALITY[1:] in name):
        name += _PERSONALITY
    align = max(align, 1)
    if flags & elf.SHF_LINK_ORDER:
        link = int(native.section_atom[int(native.sections["link"][section])])
        base = int(program.atom_base[number])
        return (name, kind, flags, entsize, link + base), _Alike.NONE
    if flags & elf.SHF_MERGE:
        # elements of one size and alignment only, and no padding between them
        odd = not flags & elf.SHF_STRINGS and (not entsize or entsize % align != 0)
        return (name, kind, flags, entsize, -1, odd, False, align), extent
    if align > _FAR_APART or apart or bare:
        return (name, kind, flags, 0, -1, apart or align > _FAR_APART, bare), extent
    return (name, kind, flags, 0), extent


def _special_commons(program: Program) -> dict[int, tuple[bytes, int]]:
    """Name and further flags of the section of each common that is no plain data, by its atom."""
    found: dict[int, tuple[bytes, int]] = {}
    symbols = program.symbols
    for number in np.flatnonzero(symbols["atom"] == SpecialIndex.COMMON).tolist():
        home = int(np.searchsorted(program.symbol_base, number, side="right")) - 1
        unit = program.units[home].native
        atom = int(symbols["atom"][program.definition[number]])
        if symbols["kind"][number] == elf.STT_TLS:
            found[atom] = b".tbss", elf.SHF_TLS
        elif unit.shndx[number - int(program.symbol_base[home])] == elf.SHN_X86_64_LCOMMON:
            found[atom] = b".lbss", elf.SHF_X86_64_LARGE
    return found


def _key_aside(program: Program, number: int, section: int, name: bytes) -> _Key:
    """The same for what is never loaded: one section of a name, as linkers make it.

    What is linked to another section stays with that one's; compressed ones cannot be joined.
    """
    native: ElfUnit = program.units[number].native
    header = native.sections[section]
    kind, flags, entsize = int(header["type"]), int(header["flags"]), int(header["entsize"])
    flags &= ~_CLEARED
    if flags & elf.SHF_LINK_ORDER:
        atom = int(native.section_atom[int(header["link"])])
        return (name, kind, flags, entsize, atom + int(program.atom_base[number]) * (atom >= 0))
    return (name, kind, flags, entsize, -1, bool(flags & elf.SHF_COMPRESSED))


def _unit_of(program: Program, atom: int) -> int:
    return int(program.unit_of(np.array([atom]))[0])


def _bucket(program: Program, key: _Key) -> SectionKey:
    if key[0] == "set":
        assert isinstance(key[1], int)
        return SectionKey(_set_kind(program, program.sets[key[1]]), whole=True)
    kind = SectionKind(*key)  # type: ignore[arg-type]
    if kind.flags & elf.SHF_LINK_ORDER or kind.apart or kind.group >= 0:
        return SectionKey(kind, single=True)
    return SectionKey(kind, whole=is_initialiser(kind.name) or not kind.flags & elf.SHF_ALLOC)


def _set_kind(program: Program, linker_set: LinkerSet) -> SectionKind:
    """One section for a set, under a name for which no linker defines symbols."""
    kind = SectionKind(linker_set.name + b".private", elf.SHT_NOBITS, elf.SHF_ALLOC, 0)
    for atom in linker_set.elements.tolist():
        unit = program.units[_unit_of(program, atom)]
        header = unit.native.sections[int(program.atoms["section"][atom])]
        flags = int(header["flags"]) & (elf.SHF_WRITE | elf.SHF_EXECINSTR | elf.SHF_GNU_RETAIN)
        kind = replace(
            kind,
            flags=kind.flags | flags,
            type=elf.SHT_NOBITS
            if kind.type == int(header["type"]) == elf.SHT_NOBITS
            else elf.SHT_PROGBITS,
        )
    return kind
