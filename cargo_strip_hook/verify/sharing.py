"""Checks a set: each original against its small library and the common one, and what is shared.

Shares no code with the engine, and takes of it only its claim of where things went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cargo_strip_hook.archive import Archive, open_archive
from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.verify.expectation import Expectation, Findings, Verified
from cargo_strip_hook.verify.index import Listing, read_listing
from cargo_strip_hook.verify.kit.names import encoded
from cargo_strip_hook.verify.kit.sets import Common, Compared
from cargo_strip_hook.verify.kit.state import Live, check_state


@dataclass(frozen=True, slots=True)
class SetMember:
    """A library of a set, what was made of it, and what was asked for.

    The link map of `expectation` has one more column: `object` is 0 for the small library's, from 1
    on the number of the common library's.
    """

    original: Path | Slice
    candidate: Path
    expectation: Expectation


class _Room(NamedTuple):
    """What a format's room does for a set."""

    read_common: Callable[[bytes, Listing, Expectation, Findings], Common | None]
    check: Callable[
        [Archive, tuple[bytes, Listing], Common | None, Expectation, Findings], Compared
    ]
    live_state: Callable[[Archive, Compared], Live]


def _room(name: str) -> _Room:
    if name == "macho":
        from cargo_strip_hook.verify.macho import sharing as macho
        from cargo_strip_hook.verify.macho import state as of_macho

        return _Room(macho.read_common, macho.check, of_macho.live_state)
    from cargo_strip_hook.verify.elf import sharing as elf
    from cargo_strip_hook.verify.elf import state as of_elf

    return _Room(elf.read_common, elf.check, of_elf.live_state)


def verify_set(
    members: Sequence[SetMember], common: Path | None, expectation: Expectation
) -> list[Verified]:
    """Check that each small library with the common one is its original, and nothing else.

    Without a common library the candidates are one file, with an object that is all of them.
    `expectation` is that of the common library's objects: strip level and marker count. Raises
    `VerifyError` with all findings, `ArchiveError` or `ObjectError` for a damaged original.
    """
    room = _room(expectation.target.object_format)
    findings = Findings()
    where = common or members[0].candidate
    made = None
    if common is not None:
        data, listing = _read(common, findings)
        if listing is not None:
            made = room.read_common(data, listing, expectation, findings)
        if made is None or findings:
            raise _error(common, findings)
    found: list[Verified] = []
    states: list[Live] = []
    foreign: dict[int, list[frozenset[int]]] = {}
    promises: dict[int, bool] = {}
    maps = [member.expectation.link_map for member in members]
    for number, member in enumerate(members):
        small, listing = _read(member.candidate, findings)
        if listing is None or len(listing.members) != 1:
            findings.add("the archive", "has not one member")
            raise _error(member.original, findings)
        others = tuple(rows for n, rows in enumerate(maps) if n != number and rows is not None)
        asked = replace(member.expectation, covers_debug=False, others=others)
        with open_archive(member.original) as archive:
            compared = room.check(archive, (small, listing), made, asked, findings)
            if findings or compared.seen is None:
                raise _error(member.original, findings)
            states.append(room.live_state(archive, compared))
        found.append(compared.verified)
        for object_ in compared.loaded:
            bad = object_ in compared.promises
            promises[object_] = promises.get(object_, True) and bad
        for home in [n + 1 for n in compared.loaded] if common is not None else [0]:
            mine = frozenset(row for place, row in compared.foreign if place == home)
            foreign.setdefault(home, []).append(mine)
    for home, unknown in foreign.items():
        if frozenset.intersection(*unknown):
            findings.add("a local symbol that no original has", f"in object {home}")
    for home in (n for n, bad in promises.items() if bad):
        findings.add(".note.gnu.property", f"object {home} promises more than any original")
    if common is None:
        _check_union(members, findings)
    check_state(states, findings)
    if findings:
        raise _error(where, findings)
    return found


def _check_union(members: Sequence[SetMember], findings: Findings) -> None:
    """A library of all lists what any of them exports, and nothing else."""
    _, listing = _read(members[0].candidate, findings)
    names = sorted(encoded(name for m in members for name in m.expectation.exports))
    if listing is None or [name for name, _ in sorted(listing.index or ())] != names:
        findings.add("the archive's index", "is not that of all exports")


def _read(path: Path, findings: Findings) -> tuple[bytes, Listing | None]:
    data = path.read_bytes()
    try:
        listing = read_listing(data)
    except ValueError as e:
        findings.add("damaged", str(e))
        return data, None
    if not listing.anonymous:
        findings.add("the archive", "tells a time or an owner: it would not be the same twice")
    return data, listing


def _error(library: Path | Slice, findings: Findings) -> VerifyError:
    return VerifyError(
        f"{library}: the result is not what it should be",
        findings.texts(),
        help="this is a defect of the engine; the library was not changed, please report it",
        defect=True,
    )


def verify_joined(joined: Path, parts: Sequence[Path]) -> None:
    """Check that an archive has the members of others, in their order, and all that they list.

    The members were verified in those. Raises `VerifyError`.
    """
    findings = Findings()
    data, listing = _read(joined, findings)
    wanted: list[bytes] = []
    names: list[tuple[bytes, int]] = []
    for path in parts:
        content, one = _read(path, findings)
        if one is None:
            continue
        homes = {header: len(wanted) + n for n, (header, *_) in enumerate(one.members)}
        wanted += [content[start : start + size] for _, start, size in one.members]
        names += [(name, homes[header]) for name, header in one.index or ()]
    if listing is not None:
        found = [data[start : start + size] for _, start, size in listing.members]
        if found != wanted:
            findings.add("the members", "are not those that were verified")
        homes = {header: n for n, (header, *_) in enumerate(listing.members)}
        index = [(name, homes.get(header, -1)) for name, header in listing.index or ()]
        if sorted(index) != sorted(names):
            findings.add("the archive's index", "is not that of its members")
    if findings:
        raise _error(joined, findings)


__all__ = ["SetMember", "verify_joined", "verify_set"]
