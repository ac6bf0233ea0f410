"""Compares what is in the result with where it came from: bytes, references, unwind records."""

from __future__ import annotations

from collections import defaultdict

from cargo_strip_hook.verify.claim import Claim, Findings
from cargo_strip_hook.verify.macho.made import Made
from cargo_strip_hook.verify.macho.read import ARM64, TRAILING, Object, Places, Reference
from cargo_strip_hook.verify.macho.unwind import Record, records


class _Definitions:
    """Name -> the addresses in the result of all its definitions that went there."""

    def __init__(self, members: dict[int, Object], places: dict[int, Places]) -> None:
        self.places: dict[bytes, set[int]] = defaultdict(set)
        for member, o in members.items():
            where = places.get(member)
            if where is None:
                continue
            for s in o.symbols:
                if s.external and s.placed and not s.stab:
                    home = o.sections[s.section - 1]
                    at = where.find(s.section, s.value - home.address)
                    if at is not None:
                        self.places[s.name].add(at)
        self.made = Made(members, self.places)


def check(
    members: dict[int, Object],
    after: Object,
    places: dict[int, Places],
    claim: Claim,
    references: list[Reference],
    findings: Findings,
) -> int:
    """Each placed piece has the bytes of the original and refers to the same; bytes compared."""
    definitions = _Definitions(members, places)
    by_address = {after.sections[r.section - 1].address + r.offset: r for r in references}
    assert claim.placement is not None
    pieces: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for member, section, offset, size, out_section, out_offset in sorted(claim.placement.tolist()):
        address = after.sections[out_section - 1].address + out_offset
        pieces[member, section].append((offset, size, address))
    compared = 0
    for (member, number), rows in pieces.items():
        o = members[member]
        section = o.sections[number - 1]
        if section.zerofill:
            continue
        within = [(offset, size) for offset, size, _ in rows]
        mine = sorted(o.references(number, within), key=lambda r: r.offset)
        at = 0
        contents = o.contents(section)
        for offset, size, address in rows:
            while at < len(mine) and mine[at].offset < offset:
                at += 1
            fields: list[tuple[int, int]] = []
            while at < len(mine) and mine[at].offset < offset + size:
                reference = mine[at]
                place = address + reference.offset - offset
                _check_reference(
                    _Side(o, places[member]),
                    after,
                    reference,
                    place,
                    by_address.pop(place, None),
                    definitions,
                    findings,
                )
                fields.append((reference.offset - offset, reference.width))
                at += 1
            _check_bytes(after, contents[offset : offset + size], address, fields, findings)
            compared += size
    for address, reference in by_address.items():
        home = after.sections[reference.section - 1].name
        if home not in (b"__eh_frame", b"__compact_unwind", b"__data"):
            findings.add("relocation", f"at {address:#x} of the result is not in the original")
    definitions.made.check(members, after, claim, findings)
    return compared


def _check_bytes(
    after: Object,
    wanted: memoryview,
    address: int,
    fields: list[tuple[int, int]],
    findings: Findings,
) -> None:
    number = after.section_at(address)
    if not len(wanted):
        return
    if not number or after.sections[number - 1].zerofill:
        findings.add("contents", f"at {address:#x} are not there")
        return
    home = after.sections[number - 1]
    start = home.offset + address - home.address
    found = after.data[start : start + len(wanted)]
    if wanted == found:
        return
    begin = 0
    for offset, width in [*sorted(fields), (len(wanted), 0)]:
        if wanted[begin:offset] != found[begin:offset]:
            findings.add("contents", f"at {address + begin:#x} differ from the original")
            return
        begin = max(begin, offset + width)


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
    for member, o in members.items():
        where = places.get(member)
        if where is None:
            continue
        side = _Side(o, where)
        for record in records(o):
            at = side.where(record.function)
            if at is None:
                continue
            lsda = -1 if record.lsda < 0 else side.where(record.lsda)
            wanted[record.compact, at] = (record.what, lsda, personality_of(o, record))
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
