"""Which atoms may become one section, and which of them stay subsections of their own.

Sources: mach-o/loader.h; ld64.lld (`InputFiles.cpp`, `UnwindInfoSection.cpp`: an LSDA has to begin
its subsection); LLVM LangRef for `section$start$` symbols as ld64 defines them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.marks import cold_atoms, resolvers
from cargo_strip_hook.formats.macho.reader import MachoUnit
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Int32,
    LinkerSet,
    Program,
    SectionKey,
    SpecialIndex,
    Unit,
)

_MERGED_TYPES = (mo.S_REGULAR, mo.S_COALESCED, mo.S_ZEROFILL)
_SINGLE_PREFIXES = (b"__objc_", b"__swift", b"__cfstring", b"__gcc_except_tab", b"__thread")
# where all must agree for the output to say so; the others are the OR of all
_AND_ATTRIBUTES = mo.S_ATTR_NO_DEAD_STRIP | mo.S_ATTR_LIVE_SUPPORT
_COMMON = (b"__DATA", b"__common", mo.S_ZEROFILL)

SET_SUFFIX = b"$set"


@dataclass(frozen=True, slots=True)
class SectionKind:
    """Names, type and attributes of an output section. `set` ones end with a symbol of ours."""

    segment: bytes
    section: bytes
    type: int
    attributes: int
    set: bool = False


def find_sets(units: Sequence[Unit], undefined: Sequence[bytes]) -> list[LinkerSet]:
    """The sections behind undefined `section$start$SEG$sect`/`section$end$…` symbols."""
    wanted: dict[tuple[bytes, bytes], bytes] = {}
    for name in undefined:
        words = name.split(b"$")
        if len(words) == 4 and words[0] == b"section" and words[1] in (b"start", b"end"):
            wanted[words[2], words[3]] = b"$".join(words[2:])
    elements: dict[tuple[bytes, bytes], list[Array]] = {key: [] for key in wanted}
    base = 0
    for unit in units:
        native: MachoUnit = unit.native
        for number, pair in enumerate(native.names):
            if pair in elements:
                elements[pair].append(base + np.flatnonzero(unit.atoms["section"] == number))
        base += len(unit.atoms)
    sets = []
    for key in sorted(wanted):
        atoms = np.concatenate([np.zeros(0, np.int64), *elements[key]]).astype(np.int32)
        name = wanted[key]
        if len(atoms):
            align = _largest(units, atoms)
            start, stop = b"section$start$" + name, b"section$end$" + name
            sets.append(LinkerSet(name, start, stop, atoms, align))
    return sets


def _largest(units: Sequence[Unit], atoms: Int32) -> int:
    aligns = np.concatenate([u.atoms["align"] for u in units])
    return int(aligns[atoms].max())


def personalities(program: Program, live: Bool) -> Int32:
    """The personality routines that live unwind records use and that are defined here.

    A reference by address is one to the name at that address.
    """
    separate = program.atoms["flags"] & AtomFlag.SEPARATE != 0
    rows = program.relocations
    rows = rows[live[rows["atom"]] & separate[rows["atom"]]]
    compact = program.atoms["size"][rows["atom"]] == mo.COMPACT_UNWIND_SIZE
    native = rows["type"] & 0xF
    # a compact-unwind entry has it at 16; in a CIE it is the only relocation
    wanted = (compact & (rows["offset"] == 16) & (native == 0)) | (native != 0)
    wanted &= rows["type"] < mo.PC_RELATIVE
    rows = rows[wanted]
    definition = unique(program.definition[rows["symbol"]])
    symbols = program.symbols
    found = definition[symbols["atom"][definition] >= 0]
    named = []
    for row in found.tolist():
        if symbols["binding"][row]:
            named.append(row)
            continue
        same = (symbols["atom"] == symbols["atom"][row]) & (symbols["binding"] != 0)
        at = np.flatnonzero(same & (symbols["value"] == symbols["value"][row]))
        named += program.definition[at[:1]].tolist()
    return unique(np.array(named, np.int32))


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
    """The bucket of each atom of `live`, and the buckets, in order of first appearance."""
    alive = np.zeros(len(program.atoms), np.bool_)
    alive[live] = True
    alive |= program.atoms["flags"] & AtomFlag.SEPARATE != 0
    alone = np.zeros(len(program.atoms), np.bool_)
    for symbol in (*program.exported, *personalities(program, alive).tolist()):
        atom = int(program.symbols["atom"][symbol])
        if atom >= 0:
            alone[atom] = True
    alone[program.symbols["atom"][resolvers(program)]] = True
    cold = cold_atoms(program)
    of_set = {
        atom: number
        for number, one in enumerate(program.sets)
        for atom in (*one.elements.tolist(), one.start_atom, one.stop_atom)
    }
    attributes: dict[tuple[bytes, bytes, int], int] = {}
    order: dict[tuple[object, ...], int] = {}
    out = np.zeros(len(live), np.int32)
    units = program.unit_of(live)
    sections = program.atoms["section"][live]
    borders = np.flatnonzero(
        np.r_[True, (units[1:] != units[:-1]) | (sections[1:] != sections[:-1])]
        if len(live)
        else []
    ).tolist()
    for first, end in zip(borders, [*borders[1:], len(live)], strict=True):
        native: MachoUnit = program.units[int(units[first])].native
        kind, single = _COMMON, False
        if sections[first] >= 0:
            kind, single = _kind(native, int(sections[first]), attributes)
        else:
            attributes.setdefault(kind, 0)
        for i in range(first, end):
            atom = int(live[i])
            key: tuple[object, ...] = (kind, single or bool(alone[atom]), bool(cold[atom]))
            if of_set and atom in of_set:
                key = ("set", of_set[atom])
            out[i] = order.setdefault(key, len(order))
    return out, tuple(_bucket(program, key, attributes) for key in order)


def _kind(
    native: MachoUnit, section: int, attributes: dict[tuple[bytes, bytes, int], int]
) -> tuple[tuple[bytes, bytes, int], bool]:
    """(segment, section and type; whether its atoms stay apart); notes the attributes."""
    flags = int(native.sections["flags"][section])
    segment, name = native.names[section]
    kind = flags & mo.SECTION_TYPE
    if kind == mo.S_NON_LAZY_SYMBOL_POINTERS:
        # a pointer with a relocation of its own says the same without the indirect table
        segment, name, kind = b"__DATA", b"__data", mo.S_REGULAR
    key = (segment, name, kind)
    new = flags & ~mo.SECTION_TYPE & 0xFFFFFFFF
    old = attributes.get(key, new)
    attributes[key] = ((old | new) & ~_AND_ATTRIBUTES) | (old & new & _AND_ATTRIBUTES)
    return key, kind not in _MERGED_TYPES or name.startswith(_SINGLE_PREFIXES)


def _bucket(
    program: Program,
    key: tuple[object, ...],
    attributes: dict[tuple[bytes, bytes, int], int],
) -> SectionKey:
    if key[0] == "set":
        assert isinstance(key[1], int)
        return SectionKey(_set_kind(program, program.sets[key[1]]), whole=True)
    place = cast("tuple[bytes, bytes, int]", key[0])
    descriptor = SectionKind(*place, attributes[place])
    whole = place[2] in mo.INITIALISER_TYPES
    return SectionKey(descriptor, single=bool(key[1]) and not whole, whole=whole)


def _set_kind(program: Program, one: LinkerSet) -> SectionKind:
    """A section of a name for which no other library's symbols stand."""
    segment, name = one.name.split(b"$")
    kind, attributes = mo.S_REGULAR, 0
    for atom in one.elements.tolist():
        native: MachoUnit = program.units[int(program.unit_of(np.array([atom]))[0])].native
        attributes |= int(native.sections["flags"][int(program.atoms["section"][atom])])
    attributes &= ~mo.SECTION_TYPE & ~_AND_ATTRIBUTES & 0xFFFFFFFF
    return SectionKind(segment, name[: 16 - len(SET_SUFFIX)] + SET_SUFFIX, kind, attributes, True)


def kept_symbols(program: Program, live: Bool) -> tuple[Bool, Int32]:
    """(the symbols that stay external, those of them that only do so as personality routines)."""
    kept = np.zeros(len(program.symbols), np.bool_)
    kept[sorted(program.exported)] = True
    extra = personalities(program, live)
    extra = extra[~kept[extra]]
    kept[extra] = True
    kept &= program.symbols["atom"] != SpecialIndex.UNDEFINED
    return kept, extra
