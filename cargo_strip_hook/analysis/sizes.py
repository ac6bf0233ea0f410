"""How large a library is: by kind of contents, by crate and by member.

Every sum is exact: the kinds add up to the bytes of the archive, the crates to the bytes of each
kind that a program loads, the members and what is between them to the archive again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cargo_strip_hook.analysis.objects import Objects, read_objects
from cargo_strip_hook.analysis.owners import OTHER, find_owners
from cargo_strip_hook.archive import Archive, open_archive
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.detect import must_have_objects
from cargo_strip_hook.formats.slices import about, slices_of
from cargo_strip_hook.link.model import LOADED, Array, Contents

_KINDS = {
    Contents.CODE: "code",
    Contents.CONSTANTS: "constants",
    Contents.DATA: "data",
    Contents.ZEROS: "zeros",
    Contents.UNWIND: "unwind",
    Contents.DEBUG: "debug",
    Contents.BITCODE: "bitcode",
    Contents.RELOCATIONS: "relocations",
    Contents.SYMBOLS: "symbols",
    Contents.OTHER: "other",
}
LOADED_KINDS = tuple(_KINDS[k] for k in LOADED)
HEADERS = "headers"  # of objects, and padding in them
ARCHIVE = "archive"  # headers and symbol index of the archive
FILE_KINDS = (*(k for k in _KINDS.values() if k != "zeros"), HEADERS, "members", ARCHIVE)


@dataclass(frozen=True, slots=True)
class Crate:
    """What of a program's memory belongs to one crate, in bytes by kind of contents."""

    name: str
    kinds: dict[str, int]

    @property
    def size(self) -> int:
        return sum(self.kinds.values())


@dataclass(frozen=True, slots=True)
class MemberSize:
    """One member: its bytes in the file, and those that a program loads, zeros included."""

    name: str
    size: int
    loaded: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """One archive: a library, or a slice of a universal one. Sizes in bytes.

    `file` has the bytes of the archive by kind, `loaded` those that a program with all of it would
    load. `crates` and `members` are sorted by size, the largest first.
    """

    library: Path
    architecture: str
    target: Target
    size: int
    file: dict[str, int]
    loaded: dict[str, int]
    crates: tuple[Crate, ...]
    members: tuple[MemberSize, ...]


def measure_library(library: Path, target: Target) -> tuple[Sizes, ...]:
    """Measure each slice of a library. Raises `InputError` for a damaged one."""
    measured = []
    for slice_, its_target in slices_of(library, target):
        with about(slice_), open_archive(slice_) as archive:
            if archive.members:  # an empty archive has a size, too
                must_have_objects(archive)
            measured.append(measure(archive, its_target))
    return tuple(measured)


def measure(archive: Archive, target: Target) -> Sizes:
    """Measure an archive. Raises `ObjectError` for a damaged member."""
    objects = read_objects(archive)
    sections, slice_ = objects.sections, archive.slice
    size = slice_.length()
    file = dict.fromkeys(FILE_KINDS, 0)
    loaded = dict.fromkeys(LOADED_KINDS, 0)
    for kind, name in _KINDS.items():
        chosen = sections["kind"] == kind
        if name in file:
            file[name] = int(sections["stored"][chosen].sum())
        if name in loaded:
            loaded[name] = int(sections["size"][chosen].sum())
    stored = _by_member(objects, sections["stored"])
    in_memory = _by_member(objects, sections["size"])
    members = []
    for member in archive.members:
        members.append(MemberSize(member.name, member.size, in_memory.get(member.index, 0)))
        if member.index in stored:
            file[HEADERS] += member.size - stored[member.index]
        else:
            file["members"] += member.size
    file[ARCHIVE] = size - sum(m.size for m in archive.members)
    members.sort(key=lambda m: (-m.size, m.name))
    return Sizes(
        slice_.path,
        slice_.architecture,
        target,
        size,
        file,
        loaded,
        _crates(objects),
        tuple(members),
    )


def _by_member(objects: Objects, values: Array) -> dict[int, int]:
    """The sum of a value of each section, for each member that is an object."""
    sums = np.zeros(len(objects.units), np.int64)
    np.add.at(sums, objects.unit_of_section, values)
    return dict(zip(objects.members, sums.tolist(), strict=True))


def _crates(objects: Objects) -> tuple[Crate, ...]:
    ranges = find_owners(objects)
    count = len(ranges.owners)
    section = objects.section[ranges.atom]
    kind = objects.sections["kind"][section]
    counted = kind <= Contents.UNWIND
    table = np.zeros((count, len(LOADED)), np.int64)
    np.add.at(table, (ranges.owner[counted], kind[counted]), ranges.size[counted])
    # bytes of a section that are in no atom: padding, the terminator of unwind tables
    whole = np.zeros(len(LOADED), np.int64)
    loaded = objects.sections["kind"] <= Contents.UNWIND
    np.add.at(whole, objects.sections["kind"][loaded], objects.sections["size"][loaded])
    table[ranges.owners.index(OTHER)] += whole - table.sum(axis=0)
    crates = [
        Crate(name, dict(zip(LOADED_KINDS, row, strict=True)))
        for name, row in zip(ranges.owners, table.tolist(), strict=True)
        if any(row)
    ]
    return tuple(sorted(crates, key=lambda c: (-c.size, c.name)))


@dataclass(frozen=True, slots=True)
class Change:
    """The size of a kind or crate before and after, in bytes; None where there is none."""

    name: str
    before: int | None
    after: int | None

    @property
    def by(self) -> int:
        """How much it grew."""
        return (self.after or 0) - (self.before or 0)


@dataclass(frozen=True, slots=True)
class Difference:
    """How a library, or a slice of one, differs from an earlier one.

    Each tuple has all that is in either, the largest change first.
    """

    before: Sizes
    after: Sizes
    file: tuple[Change, ...]
    loaded: tuple[Change, ...]
    crates: tuple[Change, ...]


def compare_libraries(
    before: Path, before_target: Target, after: Path, after_target: Target
) -> tuple[Difference, ...]:
    """Compare two libraries, slice by slice. Raises `UsageError` where one has other slices."""
    old = measure_library(before, before_target)
    new = measure_library(after, after_target)
    by_name = {s.architecture: s for s in old}
    if sorted(by_name) != sorted(s.architecture for s in new):
        raise UsageError(
            f"{before} and {after} cannot be compared: they have different slices",
            help="take the slices out with `lipo -thin`",
        )
    return tuple(compare(by_name[s.architecture], s) for s in new)


def compare(before: Sizes, after: Sizes) -> Difference:
    """The change of each kind and crate."""
    return Difference(
        before,
        after,
        _changes(before.file, after.file),
        _changes(before.loaded, after.loaded),
        _changes({c.name: c.size for c in before.crates}, {c.name: c.size for c in after.crates}),
    )


def _changes(before: dict[str, int], after: dict[str, int]) -> tuple[Change, ...]:
    names = dict.fromkeys([*before, *after])
    changes = [Change(n, before.get(n), after.get(n)) for n in names]
    return tuple(sorted(changes, key=lambda c: (-abs(c.by), -(c.after or 0), c.name)))
