"""Reads a result again and compares it with the original; shares no code with the engines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cargo_strip_hook.core.errors import ObjectError, StripHookError, VerifyError
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.verify.expectation import Damage, Expectation, Findings, Reading, Verified

if TYPE_CHECKING:
    import mmap

    from cargo_strip_hook.archive import Archive
    from cargo_strip_hook.verify.index import Listing

__all__ = [
    "Expectation",
    "Reading",
    "Verified",
    "compare_companions",
    "prepare",
    "read_ahead",
    "verify",
    "verify_twin",
    "verify_universal",
]


def prepare(object_format: str) -> None:
    """Load what `verify` needs for a format, while there is nothing else to do."""
    _room(object_format)


def read_ahead(original: Path | Slice, members: Sequence[int]) -> list[Reading]:
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
        expectation: Expectation,
        findings: Findings,
        ahead: Reading | None,
    ) -> Verified: ...


class _Damage(Protocol):
    """What is wrong with objects of a format by themselves."""

    def damages(self, original: Archive, used: Collection[int] | None) -> Iterator[Damage]: ...


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
    original: Path | Slice,
    candidate: Path | Slice,
    expectation: Expectation,
    ahead: Reading | None = None,
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
    part = candidate if isinstance(candidate, Slice) else Slice(candidate)
    with part.path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    plain = part.size is None
    data = whole if part.size is None else memoryview(whole)[part.start : part.start + part.size]
    try:
        listing = read_listing(data)
    except ValueError as e:
        raise _error(original, (f"damaged: {e}",)) from e
    count = 1 + len(expectation.import_members)
    if len(listing.members) != count:
        what = f"the archive has {len(listing.members)} members, not {count}"
        raise _error(original, (what.replace("not 1", "not one"),))
    if not listing.anonymous:
        findings.add("the archive", "tells a time or an owner: it would not be the same twice")
    start = listing.members[0][1]
    name = _format(data[start : start + 4], plain=plain)
    with open_archive(original) as archive:
        if name:
            try:
                done = _room(name).check(archive, listing, data, expectation, findings, ahead)
            except StripHookError:
                raise
            except Exception:
                _must_be_sound(archive, name, expectation)
                raise
        else:
            findings.add("damaged", "its member is of a format that cannot be verified")
        if expectation.import_members:
            compare_companions(archive, listing, data, expectation, findings)
        if findings:
            _must_be_sound(archive, name or expectation.target.object_format, expectation)
            raise _error(original, findings.texts())
    return done


def compare_companions(
    archive: Archive,
    listing: Listing,
    data: mmap.mmap | memoryview | bytes,
    expectation: Expectation,
    findings: Findings,
) -> None:
    """The members after the object are the original's, byte for byte and in its order."""
    if list(expectation.import_members) != sorted(set(expectation.import_members)):
        findings.add("the members", "are not in the order of the original")
    for number, (_, start, size), called in zip(
        expectation.import_members, listing.members[1:], listing.names[1:], strict=True
    ):
        if not 0 <= number < len(archive.members):
            findings.add("the members", f"are said to come from number {number} of the original")
        elif archive.data(archive.members[number]) != data[start : start + size]:
            name = archive.members[number].name
            findings.add("the members", f"differ from the original's: {name}")
        elif called != archive.members[number].name.encode("utf-8", "surrogateescape"):
            name = archive.members[number].name
            findings.add("the members", f"do not have the original's names: {name}")


def verify_universal(original: Path, candidate: Path, parts: Sequence[Slice]) -> None:
    """Check that `candidate` is a universal file like `original` whose slices are `parts`.

    Each of these was verified alone. Raises `VerifyError`.
    """
    from cargo_strip_hook.verify.universal import differences

    try:
        found = differences(original, candidate, parts)
    except ValueError as e:
        found = (f"damaged: {e}",)
    if found:
        raise _error(original, found)


def verify_twin(original: Path | Slice, candidate: Path, twin: Path) -> None:
    """Check that a debug twin is the same program: allocated sections are equal byte for byte.

    Raises `VerifyError`, which names `original`.
    """
    from cargo_strip_hook.verify.twin import differences

    found = differences(candidate, twin)
    if found:
        raise _error(original, found)


def _must_be_sound(archive: Archive, name: str, expectation: Expectation) -> None:
    """Raise `ObjectError` for an original that is damaged: what is made of it is no engine's fault.

    Nobody looks for that before a check failed: most of it does no harm, and a linker would not
    mind either.
    """
    used: set[int] | None = None
    if expectation.link_map is not None and len(expectation.link_map):
        used = set(expectation.link_map["member"].tolist())
    room: _Damage = import_module(f"cargo_strip_hook.verify.{name}.damage")
    for member, what, offset in room.damages(archive, used):
        raise ObjectError(
            what,
            path=archive.slice.name,
            member=member,
            offset=offset,
            help="the library is damaged, and was not changed: build it again",
        )


def _error(original: Path | Slice, findings: tuple[str, ...]) -> VerifyError:
    return VerifyError(
        f"{original}: the result is not what it should be",
        findings,
        help="this is a defect of the engine; the library was not changed, please report it",
        defect=True,
    )
