"""Compares what is in the result with where it came from: bytes, references, unwind records."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np

from cargo_strip_hook.verify.claim import Claim, Findings
from cargo_strip_hook.verify.macho.made import Made
from cargo_strip_hook.verify.macho.read import (
    ARM64,
    TRAILING,
    TRAILINGS,
    Array,
    Object,
    Places,
    Reference,
)
from cargo_strip_hook.verify.macho.unwind import Record, records


class _Definitions:
    """Name -> the addresses in the result of all its definitions that went there."""

    def __init__(self, members: dict[int, Object], places: dict[int, Places]) -> None:
        self.places: dict[bytes, set[int]] = defaultdict(set)
        for member, o in members.items():
            if member not in places:
                continue
            numbers = o.externals()
            at = places[member].of_symbols(o, numbers)
            names = o.names(numbers[at >= 0])
            for name, address in zip(names, at[at >= 0].tolist(), strict=True):
                self.places[name].add(address)
        self.made = Made(members, self.places)


class _Result:
    """The result, and its references by the address of the field."""

    def __init__(self, after: Object, references: Array, findings: Findings) -> None:
        self.object = after
        start = np.array([0, *(s.address for s in after.sections)], np.int64)
        where = start[references["section"]] + references["offset"]
        order = np.argsort(where, kind="stable")
        self.fields, self.references = where[order], references[order]
        for at in np.flatnonzero(self.fields[1:] == self.fields[:-1]).tolist():
            findings.add("relocation", f"at {int(self.fields[at]):#x} of the result is not alone")
        self.used = np.zeros(len(order), np.bool_)
        # each symbol's value, and for external ones the number of its name, -1 for others
        self.values = after.entries["value"].astype(np.int64)
        numbers = after.externals()
        self.names = dict(zip(after.names(numbers), numbers.tolist(), strict=True))
        self.name_of = np.full(len(self.values), -1, np.int64)
        self.name_of[list(self.names.values())] = list(self.names.values())
        self.placed = after.entries["type"] & 0xEE == 0xE
        # places in the file of the first byte of each section, as if it lay at address 0
        self.file = np.array([0, *(s.offset - s.address for s in after.sections)], np.int64)
        self.zerofill = np.array([False, *(s.zerofill for s in after.sections)], np.bool_)
        self.masked = np.array(np.frombuffer(after.data, np.uint8))  # without fields that were seen

    def mask(self, places: Array, width: Array) -> None:
        """Leave fields out of what is compared byte by byte; `places` in the file."""
        _zero(self.masked, places, width)

    def at(self, places: Array) -> Array:
        """The number of the reference at each place, -1 for none."""
        if not len(self.fields):
            return np.full(len(places), -1, np.int64)
        found = np.minimum(np.searchsorted(self.fields, places), len(self.fields) - 1)
        return np.where(self.fields[found] == places, found, -1)


def check(
    members: dict[int, Object],
    after: Object,
    places: dict[int, Places],
    claim: Claim,
    references: Array,
    findings: Findings,
) -> int:
    """Each placed piece has the bytes of the original and refers to the same; bytes compared.

    `references`: REFERENCE of the result.
    """
    definitions = _Definitions(members, places)
    result = _Result(after, references, findings)
    compared = 0
    for member, where in places.items():
        o = members[member]
        side = _Side(o, where)
        borders = np.flatnonzero(np.diff(where.section, prepend=-1, append=-1)).tolist()
        spans = [slice(first, end) for first, end in pairwise(borders)]
        spans = [p for p in spans if not o.sections[int(where.section[p.start]) - 1].zerofill]
        mine = o.table([int(where.section[p.start]) for p in spans], where)
        piece = where.piece(mine["section"], mine["offset"])
        place = where.address[piece] + mine["offset"] - where.start[piece]
        in_file = result.file[where.home[piece]] + place
        found = result.at(place)
        result.used[found[found >= 0]] = True
        means = _Means(side, mine["symbol"], definitions, result)
        for n in np.flatnonzero(~means.same(mine, place, in_file, found)).tolist():
            one = None if found[n] < 0 else Reference(*result.references[found[n]].tolist())
            reference = Reference(*mine[n].tolist())
            _check_reference(side, after, reference, int(place[n]), one, definitions, findings)
        result.mask(in_file, mine["width"])
        for span in spans:
            compared += _check_bytes(result, o, mine, span, where, findings)
    for number in np.flatnonzero(~result.used).tolist():
        home = after.sections[int(result.references["section"][number]) - 1].name
        if home not in (b"__eh_frame", b"__compact_unwind", b"__data"):
            address = int(result.fields[number])
            findings.add("relocation", f"at {address:#x} of the result is not in the original")
    definitions.made.check(members, after, claim, findings)
    return compared


class _Means:
    """What a member's symbols are in the result, for all that is plain and `used`.

    `address` of each symbol, and the number of the result's symbol of that `name`; -1 where that
    is not one thing.
    """

    def __init__(
        self, side: _Side, used: Array, definitions: _Definitions, result: _Result
    ) -> None:
        self.side, self.result = side, result
        o = side.object
        self.address = np.full(len(o.entries), -1, np.int64)
        self.name = np.full(len(o.entries), -1, np.int64)
        local = np.flatnonzero(o.entries["type"] & 0xEF == 0xE)
        self.address[local] = side.places.of_symbols(o, local)
        is_used = np.zeros(len(o.entries), np.bool_)
        is_used[used[used >= 0]] = True
        numbers = o.externals()
        numbers = numbers[is_used[numbers]]
        for n, name in zip(numbers.tolist(), o.names(numbers), strict=True):
            if definitions.made.knows(name):
                continue
            self.name[n] = result.names.get(name, -1)
            found = definitions.places.get(name, ())
            if len(found) == 1:
                (self.address[n],) = found

    def same(self, mine: Array, place: Array, in_file: Array, found: Array) -> Array:
        """Whether each reference of the member plainly means the same in the result.

        The others need a closer look. `found` is the reference at the address `place` there, -1 for
        none; `in_file` is where that is in the file.
        """
        result = self.result
        symbol, by_address = np.maximum(mine["symbol"], 0), mine["symbol"] < 0
        at = self.address[symbol] if len(self.address) else np.full(len(mine), -1, np.int64)
        target = np.where(at >= 0, at + mine["addend"], -1)
        meant = mine["addend"][by_address]
        target[by_address] = self.side.places.of_addresses(self.side.object, meant)
        # by address the label itself is meant, by symbol the addend counts what trails
        intel = result.object.cpu != ARM64
        trailing = np.where(by_address & intel, TRAILINGS[mine["kind"]], 0)
        plain = (mine["minus"] < 0) & ((at >= 0) | by_address | (self.name[symbol] >= 0))
        good = np.zeros(len(mine), np.bool_)

        rows = np.flatnonzero(plain & (found >= 0))
        other, old = result.references[found[rows]], mine[rows]
        alike = (other["kind"] == old["kind"]) & (other["width"] == old["width"])
        alike &= (other["symbol"] >= 0) & (other["minus"] < 0)
        there = np.maximum(other["symbol"], 0)
        name = np.where(by_address[rows], -1, self.name[symbol[rows]])
        by_name = (name >= 0) & (name == result.name_of[there])
        by_name &= other["addend"] == old["addend"]
        value = result.values[there] + other["addend"] + trailing[rows]
        by_place = (target[rows] >= 0) & result.placed[there] & (value == target[rows])
        good[rows] = alike & (by_name | by_place)

        rows = np.flatnonzero(plain & (found < 0) & (mine["width"] == 4))
        value, known = self.settled(mine["kind"][rows], place[rows], in_file[rows])
        good[rows] = known & (target[rows] >= 0) & (value + trailing[rows] == target[rows])
        return good

    def settled(self, kind: Array, place: Array, in_file: Array) -> tuple[Array, Array]:
        """(the address that the field at each place means, whether it has a kind that can)."""
        after = self.result.object
        value = after.stored(in_file, np.full(len(in_file), 4))
        if after.cpu == ARM64:
            distance = ((value & 0x3FFFFFF) ^ 0x2000000) - 0x2000000
            return place + 4 * distance, kind == 2
        return place + 4 + value, (kind == 1) | (kind == 2) | ((kind >= 6) & (kind <= 8))


def _zero(octets: Array, places: Array, width: Array) -> None:
    for size in (1, 2, 4, 8):
        mine = places[width == size]
        octets[mine[:, None] + np.arange(size)] = 0


def _check_bytes(
    result: _Result,
    o: Object,
    mine: Array,
    pieces: slice,
    where: Places,
    findings: Findings,
) -> int:
    """Compare `pieces`, all those of a section, but for the fields of the references `mine`.

    In the result they are masked. How many bytes were compared.
    """
    number = int(where.section[pieces.start])
    section = o.sections[number - 1]
    old, new = np.array(np.frombuffer(o.contents(section), np.uint8)), result.masked
    mine = mine[mine["section"] == number]
    _zero(old, mine["offset"], mine["width"])
    there = where.home[pieces]
    begins = result.file[there] + where.address[pieces]
    gone = result.zerofill[there] & (where.size[pieces] > 0)
    for address in where.address[pieces][gone].tolist():
        findings.add("contents", f"at {address:#x} are not there")
    wanted, found = old.data, new.data
    for start, size, begin, address in zip(
        where.start[pieces].tolist(),
        where.size[pieces].tolist(),
        begins.tolist(),
        where.address[pieces].tolist(),
        strict=True,
    ):
        if wanted[start : start + size] != found[begin : begin + size]:
            differ = np.flatnonzero(old[start : start + size] != new[begin : begin + size])
            findings.add("contents", f"at {address + int(differ[0]):#x} differ from the original")
    return int(where.size[pieces].sum())


class _Side:
    """A member, and where its pieces went."""

    def __init__(self, o: Object, places: Places) -> None:
        self.object, self.places = o, places

    def where(self, address: int, section: int = 0) -> int | None:
        """The address in the result of an address in the member."""
        number = section or self.object.section_at(address)
        if not number:
            return None
        home = self.object.sections[number - 1]
        offset = address - home.address
        return self.places.find(number, offset, end=offset == home.size)


def _meant(
    side: _Side, symbol: int, addend: int, definitions: _Definitions
) -> tuple[bytes, frozenset[int]]:
    """(the name, or empty; the addresses in the result that a reference may mean)."""
    if symbol < 0:
        at = side.where(addend)
        return b"", frozenset() if at is None else frozenset({at})
    s = side.object.symbols[symbol]
    if s.external:
        return s.name, frozenset(a + addend for a in definitions.places.get(s.name, ()))
    if not s.placed:
        return b"", frozenset({s.value + addend})
    at = side.where(s.value, s.section)
    return b"", frozenset() if at is None else frozenset({at + addend})


def _check_reference(
    side: _Side,
    after: Object,
    reference: Reference,
    place: int,
    found: Reference | None,
    definitions: _Definitions,
    findings: Findings,
) -> None:
    """The field at `place` of the result means what the member's field does."""
    name, targets = _meant(side, reference.symbol, reference.addend, definitions)
    if reference.minus >= 0:
        _, bases = _meant(side, reference.minus, 0, definitions)
        targets = frozenset(t - b for t in targets for b in bases)
    if found is None:
        value = _settled(after, reference, place)
        if value is None or value not in targets:
            findings.add("relocation", f"at {place:#x} was settled wrongly")
        return
    if found.kind != reference.kind:
        findings.add("relocation", f"at {place:#x} has another type than in the original")
        return
    if definitions.made.knows(name) and reference.minus < 0:
        definitions.made.use(name, _address(after, found) - reference.addend)
        return
    if found.minus >= 0 or reference.minus >= 0:
        if found.minus < 0 or reference.minus < 0:
            findings.add("relocation", f"at {place:#x} is a difference on one side only")
            return
        values = {_address(after, found) - after.symbols[found.minus].value}
    else:
        values = {_address(after, found)}
    if found.symbol >= 0:
        symbol = after.symbols[found.symbol]
        same_name = symbol.external and symbol.name == name
        if same_name and (reference.symbol < 0 or found.addend == reference.addend):
            return
        if not symbol.placed and not symbol.type & 0xE:
            findings.add("relocation", f"at {place:#x} is to another symbol")
            return
    if after.cpu != ARM64 and reference.symbol < 0 <= found.symbol:
        # by address the label itself is meant, by symbol the addend counts what trails
        values = {v + TRAILING.get(found.kind, 0) for v in values}
    if not values & targets:
        findings.add("relocation", f"at {place:#x} refers to another place than in the original")


def _address(o: Object, reference: Reference) -> int:
    if reference.symbol < 0:
        return reference.addend
    return o.symbols[reference.symbol].value + reference.addend


def _settled(after: Object, reference: Reference, place: int) -> int | None:
    """What a field without a relocation means: an address, or a difference."""
    number = after.section_at(place)
    home = after.sections[number - 1]
    at = home.offset + place - home.address
    raw = bytes(after.data[at : at + reference.width])
    value = int.from_bytes(raw, "little", signed=True)
    if reference.minus >= 0:
        return value
    if after.cpu == ARM64:
        if reference.kind != 2:
            return None
        distance = ((value & 0x3FFFFFF) ^ 0x2000000) - 0x2000000
        return place + 4 * distance
    if reference.kind not in (1, 2, 6, 7, 8):
        return None
    target = place + 4 + value
    if reference.symbol < 0:
        return target + TRAILING.get(reference.kind, 0)
    return target


def check_unwind(
    members: dict[int, Object],
    after: Object,
    places: dict[int, Places],
    unwound: list[Record],
    findings: Findings,
) -> None:
    """Each function that went into the result is unwound as in its member, and nothing else is."""
    wanted: dict[tuple[bool, int], tuple[object, ...]] = {}
    for member, where in places.items():
        o = members[member]
        unwinds = records(o, where)
        at = where.of_addresses(o, np.array([(r.function, r.lsda) for r in unwinds], np.int64))
        for record, (function, lsda) in zip(unwinds, at.tolist(), strict=True):
            if function >= 0:
                lost = record.lsda >= 0 > lsda
                what = (record.what, None if lost else lsda, personality_of(o, record))
                wanted[record.compact, function] = what
    found = {(r.compact, r.function): (r.what, r.lsda, personality_of(after, r)) for r in unwound}
    if len(found) != len(unwound):
        findings.add("unwind", "a function has two records")
    for key in sorted(wanted.keys() - found.keys()):
        findings.add("unwind", f"the function at {key[1]:#x} has lost a record")
    for key in sorted(found.keys() - wanted.keys()):
        findings.add("unwind", f"the function at {key[1]:#x} has a record that is not its own")
    for key in sorted(wanted.keys() & found.keys()):
        if wanted[key] != found[key]:
            findings.add("unwind", f"the function at {key[1]:#x} is unwound in another way")


def personality_of(o: Object, record: Record) -> bytes:
    """The name of a record's personality routine, empty where it has none."""
    if record.personality >= 0:
        return o.symbols[record.personality].name
    if record.personality_address < 0:
        return b""
    at = record.personality_address
    return next((s.name for s in o.symbols if s.placed and s.external and s.value == at), b"?")
