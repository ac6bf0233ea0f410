"""Reads a result again and compares it with the original; shares no code with the engines."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cargo_strip_hook.archive import Part
from cargo_strip_hook.errors import ObjectError, StripHookError, VerifyError
from cargo_strip_hook.verify.claim import Claim, Findings, Reading, Verified

if TYPE_CHECKING:
    import mmap

    from cargo_strip_hook.archive import Archive
    from cargo_strip_hook.verify.index import Listing

__all__ = [
    "Claim",
    "Reading",
    "Verified",
    "prepare",
    "read_ahead",
    "verify",
    "verify_twin",
    "verify_universal",
]


def prepare(object_format: str) -> None:
    """Load what `verify` needs for a format, while there is nothing else to do."""
    _room(object_format)


def read_ahead(original: Path | Part, members: Sequence[int]) -> list[Reading]:
    """Read what `verify` will read of the original if the result is made of these members.

    None or one: none of a damaged original, which `verify` will tell of.
    """
    from cargo_strip_hook.archive import open_archive

    with open_archive(original) as archive:
        used = sorted(m for m in set(members) if 0 <= m < len(archive.members))
        name = _format(archive.data(archive.members[used[0]])[:4]) if used else ""
        if not name:
            return []
        try:
            return [Reading(tuple(used), _room(name).read_original(archive, used))]
        except ObjectError:
            return []


class _Room(Protocol):
    """What is the same in each format's room."""

    def read_original(self, original: Archive, used: Sequence[int]) -> object: ...

    def check(
        self,
        original: Archive,
        listing: Listing,
        candidate: mmap.mmap | memoryview,
        claim: Claim,
        findings: Findings,
        ahead: Reading | None,
    ) -> Verified: ...


@runtime_checkable
class _Blames(Protocol):
    """A room that can tell what is wrong with the original itself, once a check failed."""

    def blame(self, original: Archive, claim: Claim) -> ObjectError | None: ...


def _room(name: str) -> _Room:
    room: _Room = import_module(f"cargo_strip_hook.verify.{name}.check")
    return room


def _format(head: bytes | memoryview, *, plain: bool = True) -> str:
    """The format of an object that begins so; "" for another. ELF is never in universal files."""
    if head[:4] == b"\x7fELF":
        return "elf" if plain else ""
    if head[:4] == b"\xcf\xfa\xed\xfe":
        return "macho"
    return "coff" if head[:2] in (b"\x4c\x01", b"\x64\x86", b"\x64\xaa", b"\0\0") else ""


def verify(
    original: Path | Part, candidate: Path | Part, claim: Claim, ahead: Reading | None = None
) -> Verified:
    """Check that `candidate` is `original` with only the exports visible, and nothing else changed.

    Both are plain libraries, or slices of universal ones. `ahead` is what was read of this original
    already; it is read now if that is not what it takes. Raises `VerifyError` with all findings,
    `ArchiveError` or `ObjectError` for a damaged original.
    """
    import mmap

    from cargo_strip_hook.archive import open_archive
    from cargo_strip_hook.verify.index import read_listing

    findings = Findings()
    done = Verified((), ())
    part = candidate if isinstance(candidate, Part) else Part(candidate)
    with part.path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    plain = part.size is None
    data = whole if part.size is None else memoryview(whole)[part.start : part.start + part.size]
    try:
        listing = read_listing(data)
    except ValueError as e:
        raise _error(part, (f"damaged: {e}",)) from e
    count = 1 + len(claim.companions)
    if len(listing.members) != count:
        what = f"the archive has {len(listing.members)} members, not {count}"
        raise _error(part, (what.replace("not 1", "not one"),))
    if not listing.anonymous:
        findings.add("the archive", "tells a time or an owner: it would not be the same twice")
    start = listing.members[0][1]
    name = _format(data[start : start + 4], plain=plain)
    with open_archive(original) as archive:
        if name:
            room = _room(name)
            try:
                done = room.check(archive, listing, data, claim, findings, ahead)
            except StripHookError:
                raise
            except Exception:
                _blame(room, archive, claim)
                raise
            if findings:
                _blame(room, archive, claim)
        else:
            findings.add("damaged", "its member is of a format that cannot be verified")
        if claim.companions:
            _compare_companions(archive, listing, data, claim, findings)
    if findings:
        raise _error(part, findings.texts())
    return done


def _blame(room: _Room, original: Archive, claim: Claim) -> None:
    """Raise the error of a damaged original: what was made of one is not the engine's fault."""
    if isinstance(room, _Blames):
        wrong = room.blame(original, claim)
        if wrong is not None:
            raise wrong


def _compare_companions(
    archive: Archive,
    listing: Listing,
    data: mmap.mmap | memoryview,
    claim: Claim,
    findings: Findings,
) -> None:
    """The members after the object are the original's, byte for byte and in its order."""
    if list(claim.companions) != sorted(set(claim.companions)):
        findings.add("the members", "are not in the order of the original")
    for number, (_, start, size) in zip(claim.companions, listing.members[1:], strict=True):
        if not 0 <= number < len(archive.members):
            findings.add("the members", f"are said to come from number {number} of the original")
        elif archive.data(archive.members[number]) != data[start : start + size]:
            name = archive.members[number].name
            findings.add("the members", f"differ from the original's: {name}")


def verify_universal(original: Path, candidate: Path, parts: Sequence[Part]) -> None:
    """Check that `candidate` is a universal file like `original` whose slices are `parts`.

    Each of these was verified alone. Raises `VerifyError`.
    """
    from cargo_strip_hook.verify.universal import differences

    try:
        found = differences(original, candidate, parts)
    except ValueError as e:
        found = (f"damaged: {e}",)
    if found:
        raise _error(Part(candidate), found)


def verify_twin(candidate: Path, twin: Path) -> None:
    """Check that a debug twin is the same program: allocated sections are equal byte for byte.

    Raises `VerifyError`.
    """
    from cargo_strip_hook.verify.twin import differences

    found = differences(candidate, twin)
    if found:
        raise _error(Part(twin), found)


def _error(candidate: Part, findings: tuple[str, ...]) -> VerifyError:
    return VerifyError(
        f"{candidate.name}: the result is not what it should be",
        findings,
        help="this is a defect of the engine; the library was not changed, please report it",
    )
