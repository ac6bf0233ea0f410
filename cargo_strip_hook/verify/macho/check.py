"""The order of the checks of a Mach-O result."""

from __future__ import annotations

import mmap
from itertools import pairwise

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.verify.claim import Claim, Findings, Verified
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.macho import compare, demands
from cargo_strip_hook.verify.macho.infer import check_by_names
from cargo_strip_hook.verify.macho.read import Damaged, Object, Places, read
from cargo_strip_hook.verify.macho.unwind import records

_MAGIC = b"\xcf\xfa\xed\xfe"


def check_macho(
    original: Archive,
    listing: Listing,
    candidate: bytes | mmap.mmap | memoryview,
    claim: Claim,
    findings: Findings,
) -> Verified:
    """Compare the only object of `candidate` with the members of `original` it was made of.

    What is wrong goes to `findings`. Raises `ObjectError` for a damaged original.
    """
    _, offset, size = listing.members[0]
    if offset % 8:
        findings.add("the archive", "its member is not aligned to 8 bytes, as ld64 wants it")
    try:
        after = read(memoryview(candidate)[offset : offset + size])
        unwound = records(after)
        references = [
            r
            for number, s in enumerate(after.sections, start=1)
            for r in (after.references(number) if s.loaded else ())
        ]
    except Damaged as e:
        findings.add("damaged", str(e))
        return Verified((), ())
    allowed = demands.check_personalities(after, unwound, findings)
    demands.check_structure(after, findings)
    demands.check_unwound(after, unwound, findings)
    demands.check_marker(after, claim, findings)
    defined = {s.name for s in after.symbols if s.external and not s.stab and s.defined}
    defined |= {s.name for s in after.symbols if s.type & 0xE == 0 and s.external and s.value}
    _check_exports(defined, claim, allowed, findings)
    _check_index(listing, claim, allowed, findings)

    before = _read_members(original, claim)
    members = {index: o for index, (_, o) in before.items()}
    undefined = _check_undefined(original, after, members, claim, findings)
    demands.check_versions(after, members, findings)
    pieces = compared = 0
    if claim.placement is None and not findings:
        pieces, compared = check_by_names(members, after, unwound, findings)
    elif claim.placement is not None and not findings:
        places = _places(claim, members, after, findings)
        if not findings:
            pieces = len(claim.placement)
            compared = compare.check(members, after, places, claim, references, findings)
            compare.check_unwind(members, after, places, unwound, findings)
    return Verified(
        tuple(sorted(n.decode("utf-8", "replace") for n in defined - allowed)),
        tuple(sorted(n.decode("utf-8", "replace") for n in undefined)),
        pieces,
        compared,
        len(references),
        0,
        len(unwound),
    )


def _check_exports(
    defined: set[bytes], claim: Claim, allowed: set[bytes], findings: Findings
) -> None:
    wanted = {n.encode("utf-8", "surrogateescape") for n in claim.exports}
    for name in sorted(wanted - defined):
        findings.add("missing export", name.decode("utf-8", "replace"))
    for name in sorted(defined - wanted - allowed):
        findings.add("leaked symbol", name.decode("utf-8", "replace"))


def _check_index(listing: Listing, claim: Claim, allowed: set[bytes], findings: Findings) -> None:
    """The archive's index has each export once, and points at the object.

    Apple's libtool lists private external symbols, the `allowed` ones, as well.
    """
    if listing.index is None:
        findings.add("the archive's index", "is missing")
        return
    names = [name for name, _ in listing.index]
    wanted = {n.encode("utf-8", "surrogateescape") for n in claim.exports}
    if len(set(names)) != len(names) or not wanted <= set(names) <= wanted | allowed:
        findings.add("the archive's index", "does not list the exports, each once")
    if any(place != listing.members[0][0] for _, place in listing.index):
        findings.add("the archive's index", "points at no member")


def _read_members(original: Archive, claim: Claim) -> dict[int, tuple[str, Object]]:
    """The members that are used: all objects where the claim does not say which."""
    if claim.placement is None:
        used = [m.index for m in original.members if bytes(original.data(m)[:4]) == _MAGIC]
    else:
        used = sorted(set(claim.placement["member"].tolist()))
    found: dict[int, tuple[str, Object]] = {}
    for index in used:
        if not 0 <= index < len(original.members):
            continue
        member = original.members[index]
        try:
            found[index] = (member.name, read(original.data(member)))
        except Damaged as e:
            raise ObjectError(str(e), path=str(original.path), member=member.name) from e
    return found


def _check_undefined(
    original: Archive,
    after: Object,
    members: dict[int, Object],
    claim: Claim,
    findings: Findings,
) -> set[bytes]:
    """The names that the consumer supplies: only what the members left undefined as well."""
    names = {s.name for s in after.symbols if s.external and s.type & 0xE == 0 and not s.value}
    before = {
        s.name
        for o in members.values()
        for s in o.symbols
        if not s.stab and s.external and s.type & 0xE == 0
    }
    for name in sorted(names - before):
        findings.add(
            "undefined symbol", f"{name.decode('utf-8', 'replace')} was not undefined before"
        )
    index = original.symbols() or {}
    allowed = {n.encode("utf-8", "surrogateescape") for n in claim.allowed_extra}
    for name in sorted((names & index.keys()) - allowed):
        findings.add(
            "undefined symbol", f"{name.decode('utf-8', 'replace')} is defined by the original"
        )
    return names


def _places(
    claim: Claim, members: dict[int, Object], after: Object, findings: Findings
) -> dict[int, Places]:
    """Where everything went, checked to be inside of sections and not on top of each other."""
    assert claim.placement is not None
    found: dict[int, Places] = {}
    taken: list[tuple[int, int]] = []
    for member, section, offset, size, out_section, out_offset in sorted(claim.placement.tolist()):
        o = members.get(member)
        if o is None or not 0 < section <= len(o.sections):
            findings.add("placement", f"names section {section} of member {member}")
            continue
        if not 0 < out_section <= len(after.sections):
            findings.add("placement", f"names section {out_section} of the result")
            continue
        home = after.sections[out_section - 1]
        if offset + size > o.sections[section - 1].size or out_offset + size > home.size:
            findings.add("placement", f"a piece of member {member} reaches over its section")
            continue
        address = home.address + out_offset
        found.setdefault(member, Places()).add(section, offset, size, address)
        same = home.name == b"__objc_imageinfo"  # all are one
        if size and not same:
            taken.append((address, size))
    taken.sort()
    for (first, size), (second, _) in pairwise(taken):
        if first + size > second:
            findings.add("placement", f"two pieces overlap at {second:#x}")
    return found
