"""CodeView of live units: one table of types, one of files, and symbols beside their functions.

What describes a section that linkers may drop goes into a `.debug$S` that is associated to it; the
rest, and the tables, into one that always stays. Linkers take one `.debug$T`, one table of strings
and one of files' checksums from an object. Sources: those of `cvtypes` and `cvsymbols`; LLVM's
lld, `COFF/PDB.cpp` (`DebugSHandler`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cargo_strip_hook.formats.coff import cvsymbols as cv
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.addresses import Placed
from cargo_strip_hook.formats.coff.cvtypes import FIRST, SIGNATURE, Types, UnknownError, u32
from cargo_strip_hook.formats.coff.debug import (
    REFERENCE,
    TARGET,
    Debug,
    referring,
    rewritten,
    store,
    targets,
)
from cargo_strip_hook.formats.coff.file import CoffFile
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.formats.coff.reader import KIND_FUNCTION, coff_unit
from cargo_strip_hook.link.addresses import STEP
from cargo_strip_hook.link.arrays import join, rows_of
from cargo_strip_hook.link.model import LINK_MAP, Array, Bool, Int64, Program
from cargo_strip_hook.link.strings import StringTable

_SYMBOLS, _TYPES, _PRECOMPILED = b".debug$S", b".debug$T", b".debug$P"
_ALWAYS = -1  # the section that stays
_Mapping = Callable[[Int64], Int64]


@dataclass(slots=True)
class _Section:
    """A `.debug$S` while it grows. `open`: where the length of its last symbols stands, or 0."""

    data: bytearray = field(default_factory=lambda: bytearray(SIGNATURE))
    open: int = 0

    def begin(self, kind: int) -> None:
        """Begin a subsection."""
        self.end()
        self.data += kind.to_bytes(4, "little") + bytes(4)
        self.open = len(self.data) - 4

    def end(self) -> None:
        """End the subsection that is open."""
        if self.open:
            size = len(self.data) - self.open - 4
            self.data[self.open : self.open + 4] = size.to_bytes(4, "little")
            self.data += bytes(-len(self.data) % 4)
            self.open = 0

    def put(self, kind: int, contents: bytes) -> None:
        """A whole subsection."""
        self.begin(kind)
        self.data += contents
        self.end()


@dataclass(slots=True)
class _Tables:
    """What all units share."""

    types: Types = field(default_factory=Types)
    strings: StringTable = field(default_factory=StringTable)
    files: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    file_bytes: bytearray = field(default_factory=bytearray)
    # (function's index, file, line) and what follows: one or more files
    inlinees: dict[bytes, None] = field(default_factory=dict)
    long_inlinees: dict[bytes, None] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)  # records without a place of their own
    named: bool = False  # whether there is an S_OBJNAME

    def file(self, name: bytes, checksum: bytes) -> int:
        """The offset of a file's checksum, which is put at the end where it is new."""
        offset = self.files.setdefault((name, checksum), len(self.file_bytes))
        if offset == len(self.file_bytes):
            self.file_bytes += self.strings.add(name).to_bytes(4, "little") + checksum
            self.file_bytes += bytes(-len(self.file_bytes) % 4)
        return offset


@dataclass(slots=True)
class _Moves:
    """Where parts of a unit's sections went: columns of section, start, end, home, new start."""

    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)

    def of(self, section: Int64, offset: Int64) -> tuple[Int64, Int64]:
        """(home, new offset) of locations; home -2 for what went nowhere."""
        table = np.array(sorted(self.rows) or [(-1, 0, 0, 0, 0)], np.int64)
        key = (table[:, 0] << 32) + table[:, 1]
        nearest = np.maximum(np.searchsorted(key, (section << 32) + offset, side="right") - 1, 0)
        row = table[nearest]
        there = (row[:, 0] == section) & (offset >= row[:, 1]) & (offset < row[:, 2])
        return np.where(there, row[:, 3], cv.DEAD), row[:, 4] + offset - row[:, 1]


def collect(program: Program, machine: Machine, live: Bool, placed: Placed, before: int) -> Debug:
    """The CodeView of every unit with a live atom; `before` sections come before its own."""
    tables = _Tables()
    sections: dict[int, _Section] = {_ALWAYS: _Section()}
    references = [np.zeros(0, REFERENCE)]
    left_out = []
    for number in program.live_units(live):
        native = coff_unit(program.units[number])
        names = [native.names[n] for n in native.debug]
        if _TYPES not in names and _SYMBOLS not in names:
            continue
        try:
            references.append(_unit(program, live, placed, number, tables, sections))
        except UnknownError as e:
            left_out.append((program.units[number].name, str(e)))
    return _finish(machine, before, tables, sections, join(references), tuple(left_out))


def _unit(
    program: Program,
    live: Bool,
    placed: Placed,
    number: int,
    tables: _Tables,
    sections: dict[int, _Section],
) -> Array:
    """Add a unit's records, and return their relocations (REFERENCE), by home for `section`.

    The home is the output section of a group, or `_ALWAYS`. Raises `UnknownError` before anything
    was added.
    """
    unit = program.units[number]
    native = coff_unit(unit)
    f = CoffFile(unit.name, unit.data)
    by_name: dict[bytes, list[int]] = {}
    for section in native.debug:
        by_name.setdefault(native.names[section], []).append(section)
    mine = by_name.get(_SYMBOLS, [])
    if _PRECOMPILED in by_name or len(by_name.get(_TYPES, [])) > 1:
        raise UnknownError("types in another place")
    parents = {s: _parent(program, live, placed, number, s) for s in mine}
    mine = [s for s in mine if parents[s] != cv.DEAD]
    rows = f.relocations(np.array(mine, np.int64))
    refers = _unit_targets(program, live, placed, number, rows)
    contents = {s: bytes(f.contents(s)) for s in mine}
    read = cv.read(contents, _homes(mine, rows, np.where(refers["dead"], cv.DEAD, refers["home"])))
    buffers = {s: bytearray(c) for s, c in contents.items()}
    inlined = _inlined(read, contents)
    files = {old: tables.file(name, read.checksums[old]) for old, name in read.names.items()}
    replaced = {}
    for (section, position), first in read.inlined.items():
        end = position + 2 + int.from_bytes(contents[section][position : position + 2], "little")
        changed = cv.with_files(contents[section][first:end], files)
        if changed is not None:
            replaced[section, position] = first, end, changed
    types = b"".join(bytes(f.contents(s)) for s in by_name.get(_TYPES, []))
    index = tables.types.add(types) if types else np.zeros(0, np.int64)
    _patch(buffers, read.types, lambda old: _new_types(index, old))
    known = np.array(sorted(files), np.int64)
    new_files = np.array([files[o] for o in sorted(files)], np.int64)
    _patch(buffers, read.files, lambda old: _looked_up(known, new_files, old))
    for section, position in read.strings:
        old = u32(buffers[section], position)
        name = read.table[old : read.table.find(b"\0", old)] if old < len(read.table) else b""
        buffers[section][position : position + 4] = tables.strings.add(name).to_bytes(4, "little")
    moves = _Moves()
    for group in read.groups:
        home = parents[group.section]
        home = group.target if home == _ALWAYS else home
        _add(tables, sections, moves, group, home, buffers[group.section], replaced)
    for one in sections.values():
        one.end()  # a unit's symbols stay in a subsection of their own
    _inlinee_lines(tables, read, buffers, inlined, index, files)
    homes, offset = moves.of(rows["atom"].astype(np.int64), rows["offset"])
    kept = homes != cv.DEAD
    return referring(homes[kept], offset[kept], rows["type"][kept], refers[kept])


def _unit_targets(program: Program, live: Bool, placed: Placed, number: int, rows: Array) -> Array:
    """What a unit's relocations refer to: TARGET rows. Sections that are no atoms are dead.

    Functions are referred to by their own symbols: readers tell lines apart by these. A weak one
    that another took the place of is referred to where it is itself, if it lives: what is said of
    it, its lines above all, does not hold for the other.
    """
    native = coff_unit(program.units[number])
    symbols = program.symbols
    refers, elsewhere = targets(program, live, placed, number, rows)
    refers["dead"][elsewhere] = True
    symbol = int(program.symbol_base[number]) + native.numbers[rows["symbol"]]
    definition = program.definition[symbol]
    own = symbols["atom"][symbol].astype(np.int64)
    atom = np.maximum(own, 0)
    lost = (own >= 0) & program.discarded[atom]
    named = refers["by_section"] & ~lost & (symbols["kind"][definition] == KIND_FUNCTION)
    mine = (own >= 0) & ~lost & (definition != symbol)
    mine &= symbols["kind"][symbol] == KIND_FUNCTION
    alive = mine & live[atom] & (placed.section[atom] >= 0)
    home = np.where(mine, np.where(alive, placed.section[atom], -1), refers["home"])
    target = np.where(named, definition, refers["target"])
    adds = np.where(named, 0, refers["adds"])
    return rows_of(
        TARGET,
        len(rows),
        target=np.where(alive, home << STEP, target),
        adds=np.where(alive, placed.offset[atom] + symbols["value"][symbol], adds),
        home=home,
        by_section=(refers["by_section"] & ~named & ~mine) | alive,
        dead=(refers["dead"] | mine) & ~alive,
    )


def _parent(program: Program, live: Bool, placed: Placed, number: int, section: int) -> int:
    """The output section that a section of symbols belongs to; `DEAD` where that is gone."""
    native = coff_unit(program.units[number])
    if not native.comdats.selection[section]:
        return _ALWAYS
    parent = int(native.comdats.parent[section])
    local = int(native.section_atom[parent]) if parent >= 0 else -1
    if local < 0:
        return cv.DEAD
    atom = int(program.atom_base[number]) + local
    gone = program.discarded[atom] or not live[atom] or placed.section[atom] < 0
    return cv.DEAD if gone else int(placed.section[atom])


def _homes(mine: list[int], rows: Array, home: Int64) -> dict[int, tuple[list[int], list[int]]]:
    order = np.lexsort((rows["offset"], rows["atom"]))
    section, offset, home = rows["atom"][order], rows["offset"][order], home[order]
    homes = {}
    for number in mine:
        first, last = np.searchsorted(section, [number, number + 1]).tolist()
        homes[number] = offset[first:last].tolist(), home[first:last].tolist()
    return homes


def _inlined(read: cv.SymbolRecords, contents: dict[int, bytes]) -> set[int]:
    """The old indices of the functions that were inlined somewhere."""
    return {u32(contents[section], position + 12) for section, position in read.inlined}


def _patch(buffers: dict[int, bytearray], locations: list[tuple[int, int]], new: _Mapping) -> None:
    """Give the words at `locations` new values."""
    if not locations:
        return
    table = np.array(locations, np.int64)
    for section in np.unique(table[:, 0]).tolist():
        view = np.frombuffer(buffers[section], np.uint8)
        octets = table[table[:, 0] == section, 1][:, None] + np.arange(4)
        old = np.ascontiguousarray(view[octets]).view("<u4").reshape(-1).astype(np.int64)
        view[octets] = new(old).astype("<u4").view(np.uint8).reshape(-1, 4)


def _new_types(index: Int64, old: Int64) -> Int64:
    inside = old >= FIRST
    if (old[inside] - FIRST >= len(index)).any():
        raise UnknownError("a symbol of a type that is not there")
    out: Int64 = old.copy()
    out[inside] = index[old[inside] - FIRST]
    return out


def _looked_up(known: Int64, new: Int64, old: Int64) -> Int64:
    row = np.searchsorted(known, old)
    if not len(known) or (known[np.minimum(row, len(known) - 1)] != old).any():
        raise UnknownError("lines of a file that is not there")
    renumbered: Int64 = new[row]
    return renumbered


def _add(
    tables: _Tables,
    sections: dict[int, _Section],
    moves: _Moves,
    group: cv.Group,
    home: int,
    contents: bytearray,
    replaced: dict[tuple[int, int], tuple[int, int, bytes]],
) -> None:
    """Put a group into the section that it belongs to."""
    if group.kind == cv.SYMBOLS and home == _ALWAYS:
        if group.leaf == cv.OBJNAME:
            if tables.named:
                return
            tables.named = True
        start, end = group.ranges[0]
        alone = bytes(contents[start:end])
        if len(group.ranges) == 1:
            if alone in tables.seen:
                return
            tables.seen.add(alone)
    section = sections.setdefault(home, _Section())
    if group.kind != cv.SYMBOLS or not section.open:
        section.begin(group.kind)
    changed = [begin for owner, begin in replaced if owner == group.section]
    for start, end in group.ranges:
        position = start
        for begin in sorted(b for b in changed if start <= b < end):
            first, stop, annotations = replaced[group.section, begin]
            record = bytes(contents[begin:first]) + annotations
            record += bytes(-len(record) % 4)
            moves.rows.append((group.section, position, begin, home, len(section.data)))
            section.data += contents[position:begin]
            section.data += (len(record) - 2).to_bytes(2, "little") + record[2:]
            position = stop
        moves.rows.append((group.section, position, end, home, len(section.data)))
        section.data += contents[position:end]
    if group.kind != cv.SYMBOLS:
        section.end()


def _inlinee_lines(
    tables: _Tables,
    read: cv.SymbolRecords,
    contents: dict[int, bytearray],
    inlined: set[int],
    index: Int64,
    files: dict[int, int],
) -> None:
    """Where the functions begin that were inlined in what lives."""
    for section, start, end in read.inlinees:
        raw = contents[section]
        more = u32(raw, start) == 1
        position = start + 4
        while position + 12 <= end:
            old, file = u32(raw, position), u32(raw, position + 4)
            count = u32(raw, position + 12) if more and position + 16 <= end else 0
            others = [u32(raw, position + 16 + 4 * n) for n in range(count)]
            size = 16 + 4 * count if more else 12
            line = bytes(raw[position + 8 : position + 12])
            position += size
            if old not in inlined or not FIRST <= old < FIRST + len(index):
                continue
            words = [int(index[old - FIRST]), files.get(file, -1)]
            others = [files.get(o, -1) for o in others]
            if min(words + others) < 0:
                continue
            row = b"".join(w.to_bytes(4, "little") for w in words) + line
            if more:
                row += b"".join(w.to_bytes(4, "little") for w in [count, *others])
                tables.long_inlinees[row] = None
            else:
                tables.inlinees[row] = None


def _finish(
    machine: Machine,
    before: int,
    tables: _Tables,
    sections: dict[int, _Section],
    references: Array,
    left_out: tuple[tuple[str, str], ...],
) -> Debug:
    """The sections, the one that stays first: its tables are for all of them."""
    head = _Section()
    if tables.files:
        head.put(cv.CHECKSUMS, bytes(tables.file_bytes))
        head.put(cv.STRINGS, tables.strings.bytes())
    always = sections[_ALWAYS]
    shift = len(head.data) - 4
    for signature, rows in enumerate((tables.inlinees, tables.long_inlinees)):
        if rows:
            always.put(cv.INLINEES, signature.to_bytes(4, "little") + b"".join(rows))
    always.data = head.data + always.data[4:]
    flags = coff.DEBUG & ~coff.SCN_ALIGN_MASK
    order = sorted(h for h in sections if h != _ALWAYS)
    added: list[tuple[SectionKind, bytes]] = []
    if len(always.data) > 4 or order:
        added.append((SectionKind(_SYMBOLS, flags, root=True), bytes(always.data)))
    if tables.types.records:
        types = tables.types.contents()
        added.append((SectionKind(_TYPES, flags, root=True), types))
    first = len(added)
    for home in order:
        added.append((SectionKind(_SYMBOLS, flags, parent=home), bytes(sections[home].data)))
    sizes = np.array([len(c) for _, c in added], np.int64)
    contents = np.frombuffer(b"".join(c for _, c in added), np.uint8).copy()
    start = np.cumsum(sizes) - sizes
    homes = np.array([_ALWAYS, *order], np.int64)
    section: Int64 = np.searchsorted(homes, references["section"])
    references = referring(
        np.where(section > 0, section + first - 1, 0),
        references["offset"] + np.where(section == 0, shift, 0),
        references["type"],
        references["to"],
    )
    store(machine, contents, start, references, np.zeros(len(added), np.bool_))
    aligns = np.full(len(added), 4, np.int64)
    kinds = tuple(k for k, _ in added)
    entries = rewritten(machine, references, before)
    return Debug(kinds, sizes, aligns, contents, entries, left_out, np.zeros(0, LINK_MAP))
