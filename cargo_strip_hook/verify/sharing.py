"""Checks a set: each original against its small library and the common one, and what is shared.

Shares no code with the engine, and takes of it only its claim of where things went.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cargo_strip_hook.archive import Archive, open_archive
from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.verify import compare_companions
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
    if name == "coff":
        from cargo_strip_hook.verify.coff import sharing as coff
        from cargo_strip_hook.verify.coff import state as of_coff

        return _Room(coff.read_common, coff.check, of_coff.live_state)
    from cargo_strip_hook.verify.elf import sharing as elf
    from cargo_strip_hook.verify.elf import state as of_elf

    return _Room(elf.read_common, elf.check, of_elf.live_state)


@dataclass(frozen=True, slots=True)
class _Left:
    """What the comparison of one library leaves to that of all: its state, and local symbols.

    `foreign` are those symbols of each object that it loads which its original has not, by their
    rows. `promises`: for each object of the common library that it loads whether that promises
    more than its members.
    """

    verified: Verified
    state: Live
    foreign: dict[int, frozenset[int]]
    promises: dict[int, bool]


Run: TypeAlias = "Callable[[Callable[[int], _Left], Sequence[int]], Iterable[_Left]]"


def verify_set(
    members: Sequence[SetMember], common: Path | None, expectation: Expectation, run: Run = map
) -> list[Verified]:
    """Check that each small library with the common one is its original, and nothing else.

    Without a common library the candidates are one file, with an object that is all of them.
    `run` does the same for each member's number, as `map` does, in other processes if it likes.
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

    def compare(number: int) -> _Left:
        member = members[number]
        small, listing = _read(member.candidate, findings)
        count = 1 + len(member.expectation.import_members)
        if listing is None or len(listing.members) != count:
            findings.add("the archive", f"has not the {count} members that it should have")
            raise _error(member.original, findings)
        maps = [one.expectation.link_map for n, one in enumerate(members) if n != number]
        others = tuple(rows for rows in maps if rows is not None)
        asked = replace(member.expectation, covers_debug=False, others=others)
        with open_archive(member.original) as archive:
            compare_companions(archive, listing, small, asked, findings)
            compared = room.check(archive, (small, listing), made, asked, findings)
            if findings or compared.seen is None:
                raise _error(member.original, findings)
            state = room.live_state(archive, compared)
        homes = [n + 1 for n in compared.loaded] if common is not None else [0]
        foreign = {
            home: frozenset(row for location, row in compared.foreign if location == home)
            for home in homes
        }
        promises = {n: n in compared.promises for n in compared.loaded}
        return _Left(compared.verified, state, foreign, promises)

    left = list(run(compare, range(len(members))))
    needed = {number for one in left for number in one.promises}
    for number in range(len(made.gives) if made is not None else 0):
        if number not in needed:
            findings.add("a member of the common library", f"nothing needs number {number}")
    for home in sorted({home for one in left for home in one.foreign}):
        unknown = [one.foreign[home] for one in left if home in one.foreign]
        if frozenset.intersection(*unknown):
            findings.add("a local symbol that no original has", f"in object {home}")
    for number in sorted(needed):
        if all(one.promises.get(number, True) for one in left):
            text = f"object {number} promises more than any original"
            findings.add(".note.gnu.property", text)
    if common is None:
        _check_union(members, findings)
    check_state([one.state for one in left], findings)
    if findings:
        raise _error(where, findings)
    return [one.verified for one in left]


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
