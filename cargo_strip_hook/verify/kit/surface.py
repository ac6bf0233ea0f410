"""What a result shows to others: the names that it defines, those that it wants, and the index."""

from __future__ import annotations

from collections.abc import Collection, Set

from cargo_strip_hook.verify.expectation import Expectation, Findings
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit.names import encoded, quoted


def check_exports(
    defined: Set[bytes],
    expectation: Expectation,
    findings: Findings,
    allowed: Set[bytes] = frozenset(),
) -> None:
    """Exactly the exports are global; `allowed` are names that may be."""
    wanted = encoded(expectation.exports)
    for name in sorted(wanted - defined):
        findings.add("an export is missing", quoted(name))
    for name in sorted(defined - wanted - allowed):
        findings.add("a global symbol that is no export", quoted(name))


def check_undefined(
    new: Set[bytes], defined: Set[bytes], expectation: Expectation, findings: Findings
) -> None:
    """What the consumer supplies is not defined here, and was not before.

    `new`: names that were not undefined before; `defined`: undefined ones that the original
    defines.
    """
    for name in sorted(new):
        findings.add("undefined, and it was not before", quoted(name))
    for name in sorted(defined - encoded(expectation.allowed_extra)):
        findings.add("undefined, although the original defines it", quoted(name))


def check_index(
    listing: Listing,
    wanted: Collection[tuple[bytes, int]],
    findings: Findings,
    *,
    optional: Set[bytes] = frozenset(),
    twice: bool = False,
) -> None:
    """The archive's index has each name once, at the member that defines it.

    `wanted`: names with the header offset of their member; `optional` are names of the first one
    that may be listed. `twice`: a library for Microsoft's linker has it twice, then sorted.
    """
    kind, again = "the archive's index", "the archive's second index"
    if listing.index is None:
        findings.add(kind, "is missing")
        return
    tables = [(kind, listing.index)]
    if twice and listing.second is None:
        findings.add(kind, "has no second linker member")
    elif listing.second is not None:
        tables.append((again, listing.second))
        order = [name for name, _ in listing.second]
        if order != sorted(order):
            findings.add(again, "is not sorted")
    good = {*wanted, *((name, listing.members[0][0]) for name in optional)}
    known = {name for name, _ in good}
    for kind, table in tables:
        entries = set(table)
        for name in sorted({name for name, _ in wanted} - {name for name, _ in entries}):
            findings.add(kind, f"lacks {quoted(name)}")
        for name, _ in sorted(entries - good):
            wrong = "points {} at no member" if name in known else "has {}, which is not defined"
            findings.add(kind, wrong.format(quoted(name)))
        if len(entries) != len(table):
            findings.add(kind, "has a name twice")


__all__ = ["check_exports", "check_index", "check_undefined"]
