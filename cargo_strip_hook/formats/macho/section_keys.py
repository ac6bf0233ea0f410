"""Which atoms may become one section, and which of them stay subsections of their own.

Sources: mach-o/loader.h; ld64.lld (`InputFiles.cpp`, `UnwindInfoSection.cpp`: an LSDA has to begin
its subsection); LLVM LangRef for `section$start$` symbols as ld64 defines them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.marks import cold_atoms, resolvers
from cargo_strip_hook.formats.macho.reader import MachoUnit, macho_unit
from cargo_strip_hook.link import symbols
from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import (
    AtomFlag,
    Bool,
    Int32,
    Int64,
    LinkerSet,
    Program,
    SectionKey,
    Unit,
)
from cargo_strip_hook.link.section_keys import linker_sets, number_keys, sets_of_atoms

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


class _Key(NamedTuple):
    """What sections have in common that become one; those of a linker set, its number alone."""

    segment: bytes = b""
    section: bytes = b""
    type: int = 0
    single: bool = False
    cold: bool = False
    linker_set: int = -1


def find_sets(units: Sequence[Unit], undefined: Sequence[bytes]) -> list[LinkerSet]:
    """The sections behind undefined `section$start$SEG$sect`/`section$end$…` symbols."""
    wanted: dict[tuple[bytes, bytes], bytes] = {}
    for name in undefined:
        words = name.split(b"$")
        if len(words) == 4 and words[0] == b"section" and words[1] in (b"start", b"end"):
            wanted[words[2], words[3]] = b"$".join(words[2:])
    ends = {
        key: (name, b"section$start$" + name, b"section$end$" + name)
        for key, name in sorted(wanted.items())
    }

    def elements(unit: Unit) -> Iterator[tuple[tuple[bytes, bytes], Int64]]:
        native = macho_unit(unit)
        for number, pair in enumerate(native.names):
            if pair in ends:
                yield pair, np.flatnonzero(unit.atoms["section"] == number)

    return linker_sets(units, ends, elements)


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
    atom, binding = program.symbols["atom"], program.symbols["binding"]
    value = program.symbols["value"]
    named = []
    for row in definition[atom[definition] >= 0].tolist():
        if binding[row]:
            named.append(row)
            continue
        same = (atom == atom[row]) & (binding != 0) & (value == value[row])
        named += program.definition[np.flatnonzero(same)[:1]].tolist()
    return unique(np.array(named, np.int32))


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
    """The number of each `live` atom's section key, and the keys, in order of first appearance."""
    alive = np.zeros(len(program.atoms), np.bool_)
    alive[live] = True
    alive |= program.atoms["flags"] & AtomFlag.SEPARATE != 0
    alone = np.zeros(len(program.atoms), np.bool_)
    # what only objects of the same set refer to may be an alternate entry
    stay = {*program.exported, *personalities(program, alive).tolist()} - program.given
    homes = program.symbols["atom"][np.array(sorted(stay), np.int64)]
    alone[homes[homes >= 0]] = True
    alone[program.symbols["atom"][resolvers(program)]] = True
    of_set = sets_of_atoms(program)
    attributes: dict[tuple[bytes, bytes, int], int] = {}
    units, sections = program.unit_of(live), program.atoms["section"][live]
    in_set = np.full(len(live), -1, np.int32)
    members = np.flatnonzero(isin(live, np.array(list(of_set), np.int32)))
    in_set[members] = [of_set[atom] for atom in live[members].tolist()]
    cold = cold_atoms(program)[live]
    columns = [units, sections, alone[live], cold, in_set]

    def key(row: int) -> tuple[_Key, bool]:
        section = int(sections[row])
        kind, single = _COMMON, False
        if section >= 0:
            kind, single = _kind(macho_unit(program.units[int(units[row])]), section, attributes)
        else:
            attributes.setdefault(kind, 0)
        if in_set[row] >= 0:
            return _Key(linker_set=int(in_set[row])), True
        return _Key(*kind, single or bool(alone[live[row]]), bool(cold[row])), True

    numbers, keys = number_keys(columns, key)
    return numbers, tuple(_section_key(program, key, attributes) for key in keys)


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


def _section_key(
    program: Program, key: _Key, attributes: dict[tuple[bytes, bytes, int], int]
) -> SectionKey:
    if key.linker_set >= 0:
        return SectionKey(_set_kind(program, program.sets[key.linker_set]), whole=True)
    common = (key.segment, key.section, key.type)
    kind = SectionKind(*common, attributes[common])
    whole = key.type in mo.INITIALISER_TYPES
    return SectionKey(kind, single=key.single and not whole, whole=whole)


def _set_kind(program: Program, one: LinkerSet) -> SectionKind:
    """A section of a name for which no other library's symbols stand."""
    segment, name = one.name.split(b"$")
    kind, attributes = mo.S_REGULAR, 0
    homes = program.unit_of(one.elements).tolist()
    sections = program.atoms["section"][one.elements].tolist()
    for home, section in zip(homes, sections, strict=True):
        attributes |= int(macho_unit(program.units[home]).sections["flags"][section])
    attributes &= ~mo.SECTION_TYPE & ~_AND_ATTRIBUTES & 0xFFFFFFFF
    return SectionKind(segment, name[: 16 - len(SET_SUFFIX)] + SET_SUFFIX, kind, attributes, True)


def kept_symbols(program: Program, live: Bool) -> tuple[Bool, Int32]:
    """(the symbols that stay external, those of them that only do so as personality routines)."""
    routines = personalities(program, live)
    extra = routines[~isin(routines, np.array(list(program.exported), np.int64))]
    return symbols.kept_symbols(program, extra.tolist()), extra
