"""What checks of a set have in common in all formats: its common library, and what was compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cargo_strip_hook.verify.expectation import Findings, Verified
from cargo_strip_hook.verify.index import Listing


@dataclass(frozen=True, eq=False)
class Common:
    """The common library: its bytes, and what each of its objects gives and needs by name.

    `properties` are what each promises (ELF's `.note.gnu.property`).
    """

    data: bytes
    listing: Listing
    gives: tuple[frozenset[bytes], ...]
    needs: tuple[frozenset[bytes], ...]
    properties: tuple[dict[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Compared:
    """A library that was compared: `loaded` are the numbers of the common library's objects.

    `seen` is what the format's room knows of both sides, the result's objects behind one another,
    the small one first; None where something is wrong. `foreign` are the local symbols (object, 0
    for the library's own, then those of the common library; number) that have a name this library
    does not know, or are in what is other libraries' only. `promises`: the objects of the common
    library that promise more than this library's members.
    """

    verified: Verified
    seen: object
    loaded: tuple[int, ...]
    foreign: frozenset[tuple[int, int]] = frozenset()
    promises: frozenset[int] = frozenset()


def loaded_for(common: Common, wanted: frozenset[bytes]) -> tuple[int, ...]:
    """The objects of the common library that a linker loads for undefined names."""
    home = {name: number for number, mine in enumerate(common.gives) for name in mine}
    found: set[int] = set()
    waiting = list(wanted)
    while waiting:
        number = home.get(waiting.pop())
        if number is not None and number not in found:
            found.add(number)
            waiting += common.needs[number]
    return tuple(sorted(found))


def check_common_index(
    listing: Listing, gives: Sequence[frozenset[bytes]], findings: Findings
) -> None:
    """The index has each name, and points at the object that defines it."""
    expected = {
        (name, header)
        for mine, (header, *_) in zip(gives, listing.members, strict=True)
        for name in mine
    }
    if listing.index is None or set(listing.index) != expected:
        findings.add("the common library's index", "is not that of its members")
    elif len(listing.index) != len(expected):
        findings.add("the common library's index", "has a name twice")


__all__ = ["Common", "Compared", "check_common_index", "loaded_for"]
