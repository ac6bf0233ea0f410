"""The order of the checks of a COFF result."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.verify.arrays import unique
from cargo_strip_hook.verify.claim import Claim, Findings, Reading, Verified, is_described, taken
from cargo_strip_hook.verify.coff import codeview, compare, debug, demands, structure
from cargo_strip_hook.verify.coff.order import contents
from cargo_strip_hook.verify.coff.places import Pair, check_rows, definitions
from cargo_strip_hook.verify.coff.read import Array, Damaged, Object, read
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.loading import loading

_MACHINES = {"x86_64": 0x8664, "i686": 0x14C, "i586": 0x14C, "aarch64": 0xAA64}


def check(
    original: Archive,
    listing: Listing,
    candidate: bytes | mmap.mmap | memoryview,
    claim: Claim,
    findings: Findings,
    ahead: Reading | None = None,
) -> Verified:
    """Compare the first object of `candidate` with the members of `original` it was made of.

    `ahead` is what `read_original` gave for some members. What is wrong goes to `findings`. Raises
    `ObjectError` for a damaged original.
    """
    nothing = Verified((), ())
    _, offset, size = listing.members[0]
    try:
        after = read(memoryview(candidate)[offset : offset + size])
        if after.machine != _MACHINES.get(claim.target.arch):
            raise Damaged("made for another processor than the original")
        structure.check_structure(after, claim, findings)
        demands.check_tables(after, findings)
    except (Damaged, IndexError) as e:
        findings.add("damaged", str(e))
        return nothing
    if findings:  # what follows relies on a sound object
        return nothing
    if claim.placement is None:
        findings.add("placement", "is needed to compare a COFF object")
        return nothing
    rows, described = debug.part(after, claim.placement)
    claim = replace(claim, placement=rows)
    members = _members(original, claim, findings, ahead)
    if findings:
        return nothing
    try:
        companions = demands.companion_names(original, claim)
        pair = Pair(members, after, claim, findings)
        check_rows(pair)
        if findings:
            return nothing
        return _compare(original, listing, pair, companions, described)
    except Damaged as e:
        raise ObjectError(str(e), path=str(original.path)) from e


def _compare(
    original: Archive,
    listing: Listing,
    pair: Pair,
    companions: list[tuple[bytes, ...]],
    described: Array,
) -> Verified:
    findings = pair.findings
    order = loading(original, pair.claim, lambda: contents(original))
    found = definitions(pair, order)
    beside = {name for names in companions for name in names}
    exported = demands.check_exports(pair, found)
    undefined = demands.check_undefined(pair, found, original.symbols() or {}, beside)
    demands.check_directives(pair)
    demands.check_order(pair)
    demands.check_handlers(pair, found)
    demands.check_index(listing, pair.claim, companions, findings)
    compare.check_weak(pair, found)
    made, (compared, relocations, settled) = compare.compare(pair, found)
    functions = compare.check_unwinding(pair)
    if is_described(pair.claim):
        debug.check(pair, found, made, described)
        codeview.check(pair)
    return Verified(
        tuple(sorted(n.decode("utf-8", "surrogateescape") for n in exported)),
        tuple(sorted(n.decode("utf-8", "surrogateescape") for n in undefined)),
        len(pair.rows),
        compared,
        relocations,
        settled,
        functions,
    )


@dataclass(frozen=True, slots=True)
class Original:
    """Members with their names, by their numbers."""

    members: dict[int, tuple[str, Object]]


def _members(
    original: Archive, claim: Claim, findings: Findings, ahead: Reading | None
) -> dict[int, tuple[str, Object]]:
    """The members that pieces came from."""
    assert claim.placement is not None
    used = unique(claim.placement["member"]).tolist()
    if not used or not 0 <= used[0] <= used[-1] < len(original.members):
        findings.add("placement", "names a member that the original has not")
        return {}
    return (taken(ahead, used, Original) or read_original(original, used)).members


def read_original(original: Archive, used: Sequence[int]) -> Original:
    """Read members by their numbers. Raises `ObjectError`."""
    found: dict[int, tuple[str, Object]] = {}
    for index in used:
        member = original.members[index]
        try:
            one = read(original.data(member))
            _ = one.selections  # kept: they will be asked for
            found[index] = (member.name, one)
        except Damaged as e:
            raise ObjectError(str(e), path=str(original.path), member=member.name) from e
    return Original(found)
