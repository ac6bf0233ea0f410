"""Compares what is in the result with where it came from: bytes, references, unwind records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cargo_strip_hook.verify.arrays import Array, is_among, rows_of, spread, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho.definitions import Definitions
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.marks import check_bound, check_marks
from cargo_strip_hook.verify.macho.objc import IMAGE_INFO, check_info
from cargo_strip_hook.verify.macho.read import ARM64, TRAILINGS, Object, Reference
from cargo_strip_hook.verify.macho.unwind import Records

_UNWIND_SECTIONS = np.array([b"__compact_unwind", b"__eh_frame"])
_NOTHING: frozenset[int] = frozenset()


class _Result:
    """The result, and its references by the address of the field."""

    def __init__(self, after: Object, references: Array, findings: Findings) -> None:
        self.object = after
        where = after.table["address"][references["section"] - 1] + references["offset"]
        order = np.argsort(where, kind="stable")
        self.fields, self.references = where[order], rows_of(references, order)
        for at in np.flatnonzero(self.fields[1:] == self.fields[:-1]).tolist():
            findings.add("relocation", f"at {int(self.fields[at]):#x} of the result is not alone")
        self.used = np.zeros(len(order), np.bool_)
        # each symbol's value, and for external ones the number of its name, -1 for others
        self.values = after.entries["value"]
        numbers = after.externals()
        self.names = dict(zip(after.names(numbers), numbers.tolist(), strict=True))
        self.name_of = np.full(len(self.values), -1, np.int64)
        self.name_of[list(self.names.values())] = list(self.names.values())
        # places in the file of the first byte of each section (from 1), as if it lay at address 0
        self.file = np.append(0, after.table["offset"] - after.table["address"])
        self.zerofill = np.append(False, after.table["zerofill"])

    def at(self, locations: Array) -> Array:
        """The number of the reference at each place, -1 for none."""
        if not len(self.fields):
            return np.full(len(locations), -1, np.int64)
        found = np.minimum(np.searchsorted(self.fields, locations), len(self.fields) - 1)
        return np.where(self.fields[found] == locations, found, -1)


class Compared(NamedTuple):
    """How many bytes were compared, the members' REFERENCE table, and the piece of each row.

    `piece` is that which each symbol of the members means, if it is one that is used; -1 for none,
    and at its end. `special`: the names that no member defines, by symbol.
    """

    octets: int
    references: Array
    pieces: Array
    piece: Array
    special: Mapping[int, bytes]


def check(
    before: Object,
    after: Object,
    where: Locations,
    references: Array,
    definitions: Definitions,
    findings: Findings,
) -> Compared:
    """Each placed piece has the bytes of the original and refers to the same.

    `references`: REFERENCE of the result.
    """
    result = _Result(after, references, findings)
    homes = unique(where.section)
    homes = homes[~before.table["zerofill"][homes - 1]]
    end = np.zeros(1, np.bool_)
    mine = before.relocations(homes, lambda home, offset: where.find(home, offset, end) >= 0)
    pointers = before.pointers()
    if len(pointers):
        here = where.find(pointers["section"], pointers["offset"], end) >= 0
        mine = np.concatenate([mine, pointers[here]])
    piece = where.piece(mine["section"], mine["offset"])
    there = ~result.zerofill[where.home[piece]]  # what lost its contents is told there
    mine, piece = rows_of(mine, there), piece[there]
    location = where.address[piece] + mine["offset"] - where.start[piece]
    in_file = result.file[where.home[piece]] + location
    found = result.at(location)
    result.used[found[found >= 0]] = True
    used = np.concatenate([mine["symbol"], mine["minus"]])
    means = _Means(before, where, unique(used[used >= 0]), definitions, result)
    resolvers = check_marks(before, after, where, findings)
    if len(resolvers):
        by_symbol = mine["symbol"] >= 0
        target = np.where(by_symbol, means.address[np.maximum(mine["symbol"], 0)], -1)
        symbol = np.where(found >= 0, result.references["symbol"][found], -1)
        check_bound(resolvers, target, location, symbol, after, findings)
    if definitions.files:
        used = unique(mine["symbol"][mine["symbol"] >= 0])
        used = used[before.entries["type"][used] & 0xE1 == 1]
        wanted = [*before.names(used), *result.names]
        definitions.choice.check(wanted, definitions.files, findings)
    closer = _Closer(before, after, where, definitions, findings)
    for n in np.flatnonzero(~means.same(mine, location, in_file, found)).tolist():
        one = None if found[n] < 0 else Reference(*result.references[found[n]].tolist())
        closer.check(Reference(*mine[n].tolist()), int(location[n]), one)
    masks = _masks(before.cpu, mine, found >= 0)
    compared = _check_bytes(result, before, where, in_file, masks, findings)
    compared_apart = is_among(after.table["name"], _UNWIND_SECTIONS)
    new = ~result.used & ~compared_apart[result.references["section"] - 1]
    for address in result.fields[new].tolist():
        findings.add("relocation", f"at {address:#x} of the result is not in the original")
    definitions.made.check(where, after, findings)
    return Compared(compared, mine, piece, means.piece, means.special)


class _Means:
    """What a member's symbols are in the result, for all that is plain and `used`.

    `address` of each symbol, the `piece` that it is in, and the number of the result's symbol of
    that `name`; -1 where that is not one thing.
    """

    def __init__(
        self,
        before: Object,
        where: Locations,
        used: Array,
        definitions: Definitions,
        result: _Result,
    ) -> None:
        self.where, self.result = where, result
        self.address = np.full(len(before.entries) + 1, -1, np.int64)
        self.name, self.piece = self.address.copy(), self.address.copy()
        kind = before.entries["type"][used]
        numbers = used[kind & 0xE1 == 1]
        names = before.names(numbers)
        find = result.names.get
        self.name[numbers] = [find(name, -1) for name in names]
        counts = np.where(kind & 0xEF == 0xE, used, -1)
        counts[kind & 0xE1 == 1] = definitions.symbols(names)
        here = counts >= 0
        self.piece[used[here]], self.address[used[here]] = where.pieces_of_symbols(counts[here])
        known = definitions.made.known(names)
        special = numbers[known]
        self.name[special] = self.address[special] = -1
        told = [name for name, one in zip(names, known.tolist(), strict=True) if one]
        self.special = dict(zip(special.tolist(), told, strict=True))

    def same(self, mine: Array, location: Array, in_file: Array, found: Array) -> Array:
        """Whether each reference of the member plainly means the same in the result.

        The others need a closer look. `found` is the reference at the address `location` there, -1
        for none; `in_file` is where that is in the file.
        """
        result = self.result
        symbol, by_address = np.maximum(mine["symbol"], 0), mine["symbol"] < 0
        at = self.address[symbol]
        target = np.where(at >= 0, at + mine["addend"], -1)
        meant = mine["addend"][by_address]
        target[by_address] = self.where.of_addresses(meant)
        # by address the label itself is meant, by symbol the addend counts what trails
        intel = result.object.cpu != ARM64
        trailing = np.where(by_address & intel, TRAILINGS[mine["kind"]], 0)
        plain = (mine["minus"] < 0) & ((at >= 0) | by_address | (self.name[symbol] >= 0))
        good = np.zeros(len(mine), np.bool_)

        rows = np.flatnonzero(plain & (found >= 0))
        other, old = rows_of(result.references, found[rows]), rows_of(mine, rows)
        alike = (other["kind"] == old["kind"]) & (other["width"] == old["width"])
        alike &= (other["symbol"] >= 0) & (other["minus"] < 0)
        there = np.maximum(other["symbol"], 0)
        name = np.where(by_address[rows], -1, self.name[symbol[rows]])
        by_name = (name >= 0) & (name == result.name_of[there])
        by_name &= other["addend"] == old["addend"]
        value = result.values[there] + other["addend"] + trailing[rows]
        by_location = (target[rows] >= 0) & result.object.placed[there] & (value == target[rows])
        good[rows] = alike & (by_name | by_location)

        rows = np.flatnonzero(plain & (found < 0) & (mine["width"] == 4))
        value, known = self.applied(mine["kind"][rows], location[rows], in_file[rows])
        good[rows] = known & (target[rows] >= 0) & (value + trailing[rows] == target[rows])
        base = np.where(mine["minus"] >= 0, self.address[mine["minus"]], -1)
        rows = np.flatnonzero((base >= 0) & (target >= 0))
        good[rows] = (
            self.difference(mine[rows], in_file[rows], found[rows]) == (target - base)[rows]
        )
        return good

    def difference(self, mine: Array, in_file: Array, found: Array) -> Array:
        """What fields that hold a difference mean in the result; a huge one where they hold none.

        See `same`.
        """
        value = np.full(len(mine), np.iinfo(np.int64).min)
        rows = np.flatnonzero(found < 0)
        value[rows] = self.result.object.stored(in_file[rows], mine["width"][rows])
        rows = np.flatnonzero(found >= 0)
        other = self.result.references[found[rows]]
        alike = (other["symbol"] >= 0) & (other["minus"] >= 0)
        for column in ("kind", "width"):
            alike &= other[column] == mine[column][rows]
        rows, other = rows[alike], other[alike]
        values, placed = self.result.values, self.result.object.placed
        both = placed[other["symbol"]] & placed[other["minus"]]
        distance = values[other["symbol"]] + other["addend"] - values[other["minus"]]
        value[rows[both]] = distance[both]
        return value

    def applied(self, kind: Array, location: Array, in_file: Array) -> tuple[Array, Array]:
        """(the address that the field at each place means, whether it has a kind that can)."""
        after = self.result.object
        value = after.stored(in_file, np.full(len(in_file), 4))
        if after.cpu == ARM64:
            distance = ((value & 0x3FFFFFF) ^ 0x2000000) - 0x2000000
            return location + 4 * distance, kind == 2
        return location + 4 + value, (kind == 1) | (kind == 2) | ((kind >= 6) & (kind <= 8))


def _masks(cpu: int, references: Array, kept: Array) -> Array:
    """The bits of each field that relocations decide (uint64), as many bytes as it is wide.

    Those in instructions of arm64 stay zero until a linker fills them in; only of a branch that was
    settled they are not. What an address or a distance holds is its addend.
    """
    width = references["width"].astype(np.uint64)
    every = np.where(width == 8, ~np.uint64(0), (np.uint64(1) << (8 * width) % 64) - np.uint64(1))
    if cpu != ARM64:
        return np.asarray(every)
    kind = references["kind"]
    branch = np.where(kept, np.uint64(0), np.uint64(0x3FFFFFF))
    held = (kind == 0) | (kind == 11)
    return np.asarray(np.where(held, every, np.where(kind == 2, branch, np.uint64(0))))


def _clear(octets: Array, locations: Array, masks: Array) -> None:
    """Make the bits of `masks` zero at places."""
    for n in range(8):
        part = ((masks >> np.uint64(8 * n)) & np.uint64(0xFF)).astype(np.uint8)
        mine = np.flatnonzero(part)
        octets[locations[mine] + n] &= ~part[mine]


def _check_bytes(
    result: _Result,
    before: Object,
    where: Locations,
    in_file: Array,
    masks: Array,
    findings: Findings,
) -> int:
    """Compare all pieces but for the bits of `masks`, at `in_file` of the result.

    What lies between pieces is zero. How many bytes were compared.
    """
    filled = ~before.table["zerofill"][where.section - 1] & (where.size > 0)
    for address in where.address[filled & result.zerofill[where.home]].tolist():
        findings.add("contents", f"at {address:#x} are not there")
    rows = np.flatnonzero(filled & ~result.zerofill[where.home])
    size, address = where.size[rows], where.address[rows]
    source = before.table["offset"][where.section[rows] - 1] + where.start[rows]
    target = result.file[where.home[rows]] + address
    order = np.argsort(target, kind="stable")
    info = result.object.table["name"][where.home[rows] - 1] == IMAGE_INFO
    check_info(before, source[info], result.object, target[info], findings)

    # debug information, most of a file that has it, lies outside of what is compared
    low = int(target.min()) if len(target) else 0
    found = np.array(result.object.octets[low : int((target + size).max()) if len(target) else 0])
    mine = (in_file >= low) & (in_file < low + len(found))
    in_file, masks, target = in_file[mine] - low, masks[mine], target - low
    _clear(found, in_file, masks)
    wanted = np.zeros(len(found), np.uint8)
    others = ~is_among(np.arange(1, len(result.file)), where.home) & ~result.zerofill[1:]
    for row in result.object.table[others]:
        begin, end = (max(int(row["offset"]) + n - low, 0) for n in (0, int(row["size"])))
        wanted[begin:end] = found[begin:end]  # compared elsewhere
    old, new = before.data, memoryview(wanted.data)
    for begin, end, at, merged in zip(
        source.tolist(), (source + size).tolist(), target.tolist(), info.tolist(), strict=True
    ):
        if merged:
            wanted[at : at + end - begin] = found[at : at + end - begin]
        else:
            new[at : at + end - begin] = old[begin:end]
    _clear(wanted, in_file, masks)
    differ = np.flatnonzero(wanted != found)
    if len(differ):
        piece = order[np.searchsorted(target[order], differ, side="right") - 1]
        first = np.append(True, piece[1:] != piece[:-1])
        for at in (differ[first] - target[piece[first]] + address[piece[first]]).tolist():
            findings.add("contents", f"at {at:#x} differ from the original")
    return int(where.size[~before.table["zerofill"][where.section - 1]].sum())


class _Closer:
    """A closer look at references that are not plainly the same."""

    def __init__(
        self,
        before: Object,
        after: Object,
        where: Locations,
        definitions: Definitions,
        findings: Findings,
    ) -> None:
        self.before, self.after, self.where = before, after, where
        self.definitions, self.findings = definitions, findings

    def _meant(self, symbol: int, addend: int) -> tuple[bytes, frozenset[int]]:
        """(the name, or empty; the addresses in the result that a reference may mean)."""
        if symbol < 0:
            at = int(self.where.of_addresses(np.array([addend]))[0])
            return b"", _NOTHING if at < 0 else frozenset({at})
        s = self.before.symbols[symbol]
        if s.external:
            of = self.definitions.of(s.name)
            return s.name, _NOTHING if of < 0 else frozenset({of + addend})
        if not s.placed:
            return b"", frozenset({s.value + addend})
        at = int(self.where.of_symbols(np.array([symbol]))[0])
        return b"", _NOTHING if at < 0 else frozenset({at + addend})

    def check(self, reference: Reference, location: int, found: Reference | None) -> None:
        """The field at `location` of the result means what the member's field does."""
        after, made, add = self.after, self.definitions.made, self.findings.add
        name, targets = self._meant(reference.symbol, reference.addend)
        if reference.minus >= 0:
            _, bases = self._meant(reference.minus, 0)
            targets = frozenset(t - b for t in targets for b in bases)
        if found is None:
            value = _applied(after, reference, location)
            if value is None or value not in targets:
                add("relocation", f"at {location:#x} was settled wrongly")
            return
        if found.kind != reference.kind or found.width != reference.width:
            add("relocation", f"at {location:#x} has another type than in the original")
            return
        if made.knows(name) and reference.minus < 0:
            made.use(name, _address(after, found) - reference.addend)
            return
        value = _address(after, found)
        if found.minus >= 0 or reference.minus >= 0:
            if found.minus < 0 or reference.minus < 0:
                add("relocation", f"at {location:#x} is a difference on one side only")
                return
            value -= after.symbols[found.minus].value
        if found.symbol >= 0:
            symbol = after.symbols[found.symbol]
            same_name = symbol.external and symbol.name == name
            if same_name and (reference.symbol < 0 or found.addend == reference.addend):
                return
            if not symbol.placed and not symbol.type & 0xE:
                add("relocation", f"at {location:#x} is to another symbol")
                return
        if after.cpu != ARM64 and reference.symbol < 0 <= found.symbol:
            # by address the label itself is meant, by symbol the addend counts what trails
            value += int(TRAILINGS[found.kind])
        if value not in targets:
            add("relocation", f"at {location:#x} refers to another place than in the original")


def _address(o: Object, reference: Reference) -> int:
    if reference.symbol < 0:
        return reference.addend
    return o.symbols[reference.symbol].value + reference.addend


def _applied(after: Object, reference: Reference, location: int) -> int | None:
    """What a field without a relocation means: an address, or a difference."""
    number = after.section_at(location)
    home = after.sections[number - 1]
    at = home.offset + location - home.address
    raw = bytes(after.data[at : at + reference.width])
    value = int.from_bytes(raw, "little", signed=True)
    if reference.minus >= 0:
        return value
    if after.cpu == ARM64:
        if reference.kind != 2:
            return None
        distance = ((value & 0x3FFFFFF) ^ 0x2000000) - 0x2000000
        return location + 4 * distance
    if reference.kind not in (1, 2, 6, 7, 8):
        return None
    target = location + 4 + value
    if reference.symbol < 0:
        return target + int(TRAILINGS[reference.kind])
    return target


def check_unwind(
    before: Object,
    after: Object,
    where: Locations,
    unwinds: Records,
    unwound: Records,
    findings: Findings,
) -> None:
    """Each function that went into the result is unwound as in its member, and nothing else is.

    `unwinds`: the members' records of these functions; `unwound`: those of the result.
    """
    rows, new = unwinds.rows, unwound.rows
    function, lsda = where.of_addresses(np.stack([rows["function"], rows["lsda"]]))
    lsda[(lsda < 0) & (rows["lsda"] >= 0)] = -2  # lost
    names: dict[bytes, int] = {}
    wanted = _Unwinds(before, unwinds, function, lsda, names)
    found = _Unwinds(after, unwound, new["function"], new["lsda"], names)
    if (found.keys[1:] == found.keys[:-1]).any():
        findings.add("unwind", "a function has two records")
    for key in wanted.keys[~is_among(wanted.keys, found.keys)].tolist():
        findings.add("unwind", f"the function at {key >> 1:#x} has lost a record")
    for key in found.keys[~is_among(found.keys, wanted.keys)].tolist():
        findings.add("unwind", f"the function at {key >> 1:#x} has a record that is not its own")
    here = np.flatnonzero(is_among(wanted.keys, found.keys))
    there = np.searchsorted(found.keys, wanted.keys[here], side="right") - 1
    differ = (wanted.columns[:, here] != found.columns[:, there]).any(0)
    frames = np.flatnonzero(~differ & (wanted.rows["cie"][here] >= 0))
    differ[frames] = wanted.frames_differ(here[frames], found, there[frames])
    for key in wanted.keys[here[differ]].tolist():
        findings.add("unwind", f"the function at {key >> 1:#x} is unwound in another way")


class _Unwinds:
    """Records by `keys`: function << 1 | whether it is an FDE; of equal ones the last is meant.

    `columns` are what has to be equal, besides frames. `names` numbers personality routines.
    """

    def __init__(
        self, o: Object, those: Records, function: Array, lsda: Array, names: dict[bytes, int]
    ) -> None:
        keys = function << 1 | ~those.rows["compact"]
        order = np.flatnonzero(function >= 0)
        order = order[np.argsort(keys[order], kind="stable")]
        self.keys, self.rows = keys[order], rows_of(those.rows, order)
        number = _routines(o, those, names)
        rows = self.rows
        columns = [lsda[order], number[order], rows["size"].view(np.int64)]
        columns += [rows["encoding"], rows["personality_addend"], rows["personality_kind"]]
        self.columns = np.stack([c.astype(np.int64) for c in columns])
        self._octets, self._cies = o.octets, those.cies

    def frames_differ(self, mine: Array, other: _Unwinds, others: Array) -> Array:
        """bool for each pair of FDEs: whether their CIEs or instructions differ."""
        number: dict[bytes, int] = {}
        cies, codes = [], []
        size = self.rows["code_size"][mine].astype(np.int64)
        differ = size != other.rows["code_size"][others]
        size[differ] = 0
        for one, rows in ((self, mine), (other, others)):
            known = [number.setdefault(cie, len(number)) for cie in one._cies]
            cies.append(np.array(known, np.int64)[one.rows["cie"][rows]])
            codes.append(one._octets[spread(one.rows["code"][rows], size, 1)])
        differ |= cies[0] != cies[1]
        differ[np.repeat(np.arange(len(mine)), size)[codes[0] != codes[1]]] = True
        return np.asarray(differ)


def _routines(o: Object, those: Records, names: dict[bytes, int]) -> Array:
    """The number in `names` of each record's personality routine; new ones are added."""
    symbol = those.rows["personality"]
    if ((symbol < 0) & (those.rows["personality_address"] >= 0)).any():
        every = personalities_of(o, those)
        return np.array([names.setdefault(p, len(names)) for p in every], np.int64)
    used = unique(symbol)
    texts = [b"" if n < 0 else o.names(np.array([n]))[0] for n in used.tolist()]
    number = np.array([names.setdefault(text, len(names)) for text in texts], np.int64)
    return number[np.searchsorted(used, symbol)]


def personalities_of(o: Object, those: Records) -> list[bytes]:
    """The name of each record's personality routine, empty where it has none."""
    symbol, address = (those.rows[c] for c in ("personality", "personality_address"))
    known = {-1: b""}
    used = unique(symbol[symbol >= 0])
    known.update(zip(used.tolist(), o.names(used), strict=True))
    found = [known[n] for n in symbol.tolist()]
    by_address = np.flatnonzero((symbol < 0) & (address >= 0))
    if len(by_address):
        numbers = o.externals()
        numbers = numbers[o.placed[numbers]]
        values = o.entries["value"][numbers]
        of = {}
        for at in unique(address[by_address]).tolist():
            of[at] = next(iter(o.names(numbers[values == at][:1])), b"?")
        for n in by_address.tolist():
            found[n] = of[int(address[n])]
    return found
