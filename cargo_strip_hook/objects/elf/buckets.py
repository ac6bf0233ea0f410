"""Which sections may become one, and what linkers read out of a section's name.

Sources: gABI "Special Sections"; the default linker scripts of GNU ld (text prefixes, init arrays).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cargo_strip_hook.objects.arrays import unique
from cargo_strip_hook.objects.elf import layouts as elf
from cargo_strip_hook.objects.elf.file import ElfUnit, section_name
from cargo_strip_hook.objects.elf.unwind import is_cie
from cargo_strip_hook.objects.model import (
    Array,
    AtomFlag,
    Bucket,
    ElementSet,
    Granularity,
    Int32,
    Program,
    Unit,
)

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
_PERSONALITY = b".personality"
_INITIALISERS = (b".init_array", b".fini_array", b".preinit_array", b".ctors", b".dtors")

# Flags of the input that mean nothing in the output: groups are gone, links are written anew.
_FAR_APART = 1 << 16  # bytes: an alignment above this would fill a joined section with padding
_CLEARED = elf.SHF_GROUP | elf.SHF_INFO_LINK


@dataclass(frozen=True, slots=True)
class SectionKind:
    """Name, type, flags and entry size of an output section; `link` is the atom it is linked to.

    `apart`: never joined with another. `bare`: code without an unwind index, where code has one;
    it is not joined with code that has, or a linker would take that one's entries for it.
    `element_align`: bytes, of the elements of a section that linkers merge.
    """

    name: bytes
    type: int
    flags: int
    entsize: int
    link: int = -1
    apart: bool = False
    bare: bool = False
    element_align: int = 0


def kind_of_name(name: bytes) -> bytes:
    """What of a section's name is kept: `.text.foo` is `.text`, `.init_array.5` stays.

    `.gnu.linkonce.t.foo` is `.text`: of two files with that name a linker would drop one.
    """
    if name.startswith(b".gnu.linkonce."):
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


def find_sets(units: Sequence[Unit], undefined: Sequence[bytes]) -> list[ElementSet]:
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
        ElementSet(
            name,
            b"__start_" + name,
            b"__stop_" + name,
            np.array(elements[name], np.int32),
            align[name],
        )
        for name in wanted
        if elements[name] and is_c_identifier(name)
    ]


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[Bucket, ...]]:
    """The bucket of each atom of `live`, and the buckets, in order of first appearance."""
    order: dict[tuple[object, ...], int] = {}
    buckets: list[Bucket] = []
    out = np.zeros(len(live), np.int32)
    units = program.unit_of(live)
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]])
    of_set = _sets_of_atoms(program)
    personalities = _personalities(program)
    elements = program.atoms["flags"][live] & AtomFlag.ELEMENT != 0
    known: dict[bytes, bytes] = {}
    for first, end in zip(borders.tolist(), [*borders[1:].tolist(), len(live)], strict=True):
        unit = program.units[int(units[first])]
        native: ElfUnit = unit.native
        sections = program.atoms["section"][live[first:end]]
        if unit.index < 0:
            keys = _synthetic_keys(live[first:end].tolist(), of_set)
        else:
            atoms, is_element = live[first:end].tolist(), elements[first:end].tolist()
            keys = _keys(program, native, sections, atoms, is_element, of_set, known)
        for i, key in enumerate(keys, start=first):
            if personalities and int(live[i]) in personalities and key[0] != "set":
                assert isinstance(key[0], bytes)
                key = (key[0] + _PERSONALITY, *key[1:])
            number = order.get(key)
            if number is None:
                number = order[key] = len(buckets)
                buckets.append(_bucket(program, key))
            out[i] = number
    for number in unique(out[elements]).tolist():
        buckets[number] = replace(buckets[number], identity=partial(_identities, program))
    return out, tuple(buckets)


def _identities(program: Program, atoms: Int32) -> list[Hashable | None]:
    """What makes two elements the same to a linker: kind of section, alignment and contents."""
    found: list[Hashable | None] = []
    rows = program.atoms[atoms]
    for unit_number, row in zip(program.unit_of(atoms).tolist(), rows.tolist(), strict=True):
        section, flags, offset, size, align = row
        if not flags & AtomFlag.ELEMENT:
            found.append(None)
            continue
        unit = program.units[unit_number]
        header = unit.native.sections[section]
        start = int(header["offset"]) + offset
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
    for number, element_set in enumerate(program.sets):
        for atom in (
            *element_set.elements.tolist(),
            element_set.start_atom,
            element_set.stop_atom,
        ):
            found[atom] = number
    return found


def _synthetic_keys(atoms: list[int], of_set: dict[int, int]) -> list[tuple[object, ...]]:
    bss = (b".bss", elf.SHT_NOBITS, elf.SHF_WRITE | elf.SHF_ALLOC, 0)
    return [("set", of_set[a]) if a in of_set else bss for a in atoms]


def _keys(
    program: Program,
    native: ElfUnit,
    sections: Array,
    atoms: list[int],
    elements: list[bool],
    of_set: dict[int, int],
    known: dict[bytes, bytes],
) -> list[tuple[object, ...]]:
    """What the sections have to agree in; `known`: kinds of name by a name's first 16 bytes."""
    headers = native.sections[sections]
    cleared = _CLEARED if native.machine.strings else _CLEARED | elf.SHF_MERGE | elf.SHF_STRINGS
    flags = (headers["flags"].astype(np.int64) & ~cleared).tolist()
    types, entsizes = headers["type"].tolist(), headers["entsize"].tolist()
    aligns = np.maximum(headers["align"].astype(np.int64), 1).tolist()
    joined = program.granularity is not Granularity.SECTION
    apart, bare = _peculiar(native, sections, headers)
    keys: list[tuple[object, ...]] = []
    for i, head in enumerate(native.names16[sections].tolist()):
        if of_set and atoms[i] in of_set:
            keys.append(("set", of_set[atoms[i]]))
            continue
        name = known.get(head)
        if name is None:
            full = section_name(native, int(sections[i]))
            name = kind_of_name(full)
            # the first 16 bytes decide for every prefix but the longest, `.gcc_except_table`
            if name is not full and len(name) < 16:
                known[head] = name
        flag = flags[i]
        if joined and name == _COLD:
            name = _CODE
        if joined and elements[i]:  # equal ones are one already: plain data from here on
            flag &= ~(elf.SHF_MERGE | elf.SHF_STRINGS)
        if flag & elf.SHF_LINK_ORDER:
            link = int(native.section_atom[int(headers["link"][i])])
            keys.append((name, types[i], flag, entsizes[i], link + _base(program, atoms[i])))
        else:
            entsize = entsizes[i] if flag & elf.SHF_MERGE else 0
            if flag & elf.SHF_MERGE:
                # elements of one size and alignment only, and no padding between them
                odd = not flag & elf.SHF_STRINGS and (not entsize or entsize % aligns[i] != 0)
                keys.append((name, types[i], flag, entsize, -1, odd, False, aligns[i]))
            elif aligns[i] > _FAR_APART:
                keys.append((name, types[i], flag, entsize, -1, True, bare[i]))
            elif apart[i] or bare[i]:
                keys.append((name, types[i], flag, entsize, -1, apart[i], bare[i]))
            else:
                keys.append((name, types[i], flag, entsize))
    return keys


def _peculiar(native: ElfUnit, sections: Array, headers: Array) -> tuple[list[bool], list[bool]]:
    """(`apart`, `bare` of `SectionKind`) for each of `sections`."""
    machine = native.machine
    none = [False] * len(sections)
    if machine.code_align is None and not machine.index_type:
        return none, none
    code = headers["flags"] & elf.SHF_EXECINSTR != 0
    apart, bare = none, none
    if machine.code_align is not None:
        apart = (code & (headers["align"] > machine.code_align)).tolist()
    if machine.index_type:
        indexed = native.sections["link"][native.sections["type"] == machine.index_type]
        bare = (code & ~np.isin(sections, indexed)).tolist()
    return apart, bare


def _base(program: Program, atom: int) -> int:
    return int(program.atom_base[int(program.unit_of(np.array([atom]))[0])])


def _bucket(program: Program, key: tuple[object, ...]) -> Bucket:
    if key[0] == "set":
        assert isinstance(key[1], int)
        return Bucket(_set_kind(program, program.sets[key[1]]), whole=True)
    kind = SectionKind(*key)  # type: ignore[arg-type]
    if kind.flags & elf.SHF_LINK_ORDER or kind.apart:
        return Bucket(kind, single=True)
    return Bucket(kind, whole=is_initialiser(kind.name))


def _set_kind(program: Program, element_set: ElementSet) -> SectionKind:
    """One section for a set, under a name for which no linker defines symbols."""
    kind = SectionKind(element_set.name + b".private", elf.SHT_NOBITS, elf.SHF_ALLOC, 0)
    for atom in element_set.elements.tolist():
        unit = program.units[int(program.unit_of(np.array([atom]))[0])]
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
