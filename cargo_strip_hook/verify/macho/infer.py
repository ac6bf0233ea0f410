"""What can be checked of a result whose engine cannot tell where things went: by symbol names.

Only names that occur once among the members and once in the result tell anything.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho.compare import personalities_of
from cargo_strip_hook.verify.macho.marks import RESOLVER
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, ARM64, Object, Reference, Symbol
from cargo_strip_hook.verify.macho.unwind import Records, records


class Location(NamedTuple):
    """What a symbol begins: from `address` on, `size` bytes up to the next one."""

    section: int  # from 1
    address: int
    size: int


_CSTRINGS = 0x2  # S_CSTRING_LITERALS; and the sizes of S_4BYTE_LITERALS and its like
_LITERALS = {0x3: 4, 0x4: 8, 0xE: 16}
_POINTERS = (0, 7)  # ARM64_RELOC_UNSIGNED, ARM64_RELOC_POINTER_TO_GOT
_SUFFIX = re.compile(rb"\.llvm\.\d+$")


def _plain(name: bytes) -> bytes:
    """A name without the suffix that LLVM gives to what it promotes, and ld64 takes off again."""
    return _SUFFIX.sub(b"", name)


def _named(o: Object) -> Iterable[Symbol]:
    return (s for s in o.symbols if s.placed and not s.stab and s.name[:1] not in (b"l", b"L", b""))


def _locations(o: Object) -> dict[bytes, Location]:
    """Of each name that occurs once; the contents of zero-filled sections are none."""
    borders: dict[int, set[int]] = defaultdict(set)
    for s in o.symbols:
        if s.placed and not s.stab and not s.desc & ALT_ENTRY and 0 < s.section <= len(o.sections):
            borders[s.section].add(s.value)
    ordered = {
        n: [*sorted(b), o.sections[n - 1].address + o.sections[n - 1].size]
        for n, b in borders.items()
    }
    once = Counter(_plain(s.name) for s in _named(o))
    found = {}
    for s in _named(o):
        if once[_plain(s.name)] == 1 and s.section in ordered and o.sections[s.section - 1].loaded:
            ends = ordered[s.section]
            end = ends[min(bisect_right(ends, s.value), len(ends) - 1)]
            size = _literal(o, s, end - s.value)
            found[_plain(s.name)] = Location(s.section, s.value, size)
    return found


def _literal(o: Object, s: Symbol, size: int) -> int:
    """The size of a piece: of literals each is one, whatever else has no symbol behind it."""
    home = o.sections[s.section - 1]
    kind = home.flags & 0xFF
    if kind in _LITERALS:
        return min(size, _LITERALS[kind])
    if kind == _CSTRINGS:
        start = home.offset + s.value - home.address
        end = bytes(o.data[start : start + size]).find(b"\0")
        return end + 1 if end >= 0 else size
    return size


def check_by_names(
    members: Mapping[int, Object], after: Object, unwound: Records, findings: Findings
) -> tuple[int, int]:
    """Named pieces have the bytes of the original, refer to the same and are unwound alike.

    Returns how many were compared, and their bytes. Raises `Damaged`.
    """
    new = _locations(after)
    old = {number: _locations(o) for number, o in members.items()}
    times = Counter(name for locations in old.values() for name in locations)
    known = {n: p for n, p in new.items() if times[n] == 1}
    references = _by_address(after)
    here = _functions(after, unwound)
    pieces = compared = 0
    for number, o in members.items():
        mine = {n: p for n, p in old[number].items() if n in known}
        if not mine:
            continue
        fields = _by_address(o)
        addresses = sorted(fields)
        there = _functions(o, records(o))
        _check_resolvers(o, after, mine, findings)
        for name, location in mine.items():
            at = bisect_right(addresses, location.address - 1)
            inside = []
            while at < len(addresses) and addresses[at] < location.address + location.size:
                inside.append((addresses[at] - location.address, fields[addresses[at]]))
                at += 1
            _check_piece(
                _Pair(o, after, name, location, new[name]), inside, references, known, findings
            )
            _check_unwound(name, there.get(location.address), here.get(new[name].address), findings)
            pieces += 1
            compared += location.size
    return pieces, compared


def _check_resolvers(
    before: Object, after: Object, names: Container[bytes], findings: Findings
) -> None:
    """Those of the `names` that are resolvers still are."""
    old, new = (
        {_plain(s.name) for s in o.symbols if s.placed and not s.stab and s.desc & RESOLVER}
        for o in (before, after)
    )
    for name in sorted(n for n in old - new if n in names):
        findings.add("structure", f"{name.decode('utf-8', 'replace')} is a resolver no more")


class _Pair(NamedTuple):
    before: Object
    after: Object
    name: bytes
    old: Location
    new: Location

    @property
    def shown(self) -> str:
        return self.name.decode("utf-8", "replace")


def _by_address(o: Object) -> dict[int, Reference]:
    """All references by the address of the field."""
    return {
        s.address + r.offset: r
        for number, s in enumerate(o.sections, start=1)
        if s.loaded
        for r in o.references(number)
    }


def _check_piece(
    pair: _Pair,
    inside: list[tuple[int, Reference]],
    references: Mapping[int, Reference],
    known: Mapping[bytes, Location],
    findings: Findings,
) -> None:
    home, new_home = (
        o.sections[p.section - 1] for o, p in ((pair.before, pair.old), (pair.after, pair.new))
    )
    if pair.new.address + pair.old.size > new_home.address + new_home.size:
        findings.add("contents", f"of {pair.shown} are cut short")
        return
    if home.zerofill or new_home.zerofill:
        if home.zerofill != new_home.zerofill:
            findings.add("contents", f"of {pair.shown} are in a section of another kind")
        return
    old, new = (
        bytearray(o.data[s.offset + p.address - s.address :][: pair.old.size])
        for o, s, p in (
            (pair.before, home, pair.old),
            (pair.after, new_home, pair.new),
        )
    )
    for offset, reference in inside:
        found = references.get(pair.new.address + offset)
        if found is None or found.kind != reference.kind or found.width != reference.width:
            findings.add("relocation", f"of {pair.shown} at {offset:#x} is not as it was")
            return
        if not _same_target(pair, reference, found, known):
            findings.add("relocation", f"of {pair.shown} at {offset:#x} is to another symbol")
            return
        end = offset + reference.width
        if pair.before.cpu != ARM64 or reference.kind in _POINTERS:  # others lie in instructions
            old[offset:end] = new[offset:end] = bytes(reference.width)
    if old != new:
        findings.add("contents", f"of {pair.shown} differ from the original")


def _same_target(
    pair: _Pair, old: Reference, new: Reference, known: Mapping[bytes, Location]
) -> bool:
    """Whether a reference means what it did, as far as names tell.

    Literals that are equal became one, and differences are not looked at.
    """
    if old.symbol < 0 or new.symbol < 0 or old.minus >= 0:
        return (old.minus >= 0) == (new.minus >= 0)
    before, after = pair.before.symbols[old.symbol], pair.after.symbols[new.symbol]
    location = known.get(_plain(before.name))
    if not after.placed:
        return after.name == before.name and old.addend == new.addend
    return location is None or after.value + new.addend == location.address + old.addend


def _functions(o: Object, unwound: Records) -> dict[int, tuple[bool, bytes]]:
    """Address of each function that can be unwound -> whether it has an LSDA, its personality."""
    found: dict[int, tuple[bool, bytes]] = {}
    rows = unwound.rows
    for function, at, routine in zip(
        rows["function"].tolist(), rows["lsda"].tolist(), personalities_of(o, unwound), strict=True
    ):
        lsda, personality = found.get(function, (False, b""))
        found[function] = (lsda or at >= 0, personality or routine)
    return found


def _check_unwound(
    name: bytes,
    before: tuple[bool, bytes] | None,
    after: tuple[bool, bytes] | None,
    findings: Findings,
) -> None:
    if before is None or before == after:
        return
    what = "cannot be unwound" if after is None else "has lost its LSDA or personality"
    findings.add("unwind", f"the function {name.decode('utf-8', 'replace')} {what}")
