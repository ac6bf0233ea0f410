"""What is shared with how many others, and by crate what is not and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link.model import Bool
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.rules import Reason


@dataclass(frozen=True, slots=True)
class NotShared:
    """Why bytes of a crate are not shared; `crate` is its name, `size` in bytes."""

    crate: str
    reason: str
    size: int


@dataclass(frozen=True, slots=True)
class SharedParts:
    """Of one library's live bytes: `shared` by the number of others, `kept` those not shared.

    `kept` are sorted, largest first.
    """

    live: int
    shared: tuple[tuple[int, int], ...]
    kept: tuple[NotShared, ...]


WORDS = {
    Reason.ALONE: "no other library needs it",
    Reason.DIFFERS: "code differs",
    Reason.PUBLIC: "public, or refers to what is public",
    Reason.EXPORTED: "needs a name that another library of the set exports",
    Reason.SET: "in a linker set, retained, or filled by code that walks such a set",
    Reason.STATE: "state that cannot be shared",
    Reason.TOOLCHAIN: "other rustc",
    Reason.RUNTIME: "other allocator or panic runtime",
    Reason.SMALL: "smaller than what a name for it takes",
    Reason.LTO: "fat LTO: build the set without `lto = true`",
}


def report(shared: Shared) -> list[SharedParts]:
    """Sums for each library, in the order of `shared`."""
    joined = shared.joined
    size = joined.program.atoms["size"]
    count = len(joined.libraries)
    holders = np.zeros(shared.classes, np.int64)
    for number in range(count):
        mine = shared.number[(joined.library == number) & (shared.number >= 0)]
        holders[np.unique(mine)] += 1
    others = np.zeros(len(size), np.int64)
    rows = shared.number >= 0
    others[rows] = holders[shared.number[rows]] - 1
    found = []
    for number in range(count):
        mine = joined.live & (joined.library == number) & ~joined.described.copied
        by_count = np.bincount(others[mine & rows], size[mine & rows], count).astype(np.int64)
        shared_with = [(n, s) for n, s in enumerate(by_count.tolist()) if n and s]
        total = int(size[mine].sum())
        found.append(SharedParts(total, tuple(shared_with), _kept(shared, mine & ~rows)))
    return found


def _kept(shared: Shared, which: Bool) -> tuple[NotShared, ...]:
    crates = shared.identities.crates
    rows = np.flatnonzero(which & (shared.reason > 0))
    key = shared.identities.crate[rows].astype(np.int64) * 16 + shared.reason[rows]
    sizes = shared.joined.program.atoms["size"][rows]
    total = np.bincount(key, sizes, len(crates) * 16).astype(np.int64)
    names: dict[tuple[str, str], int] = {}
    for at in np.flatnonzero(total).tolist():
        crate, reason = divmod(at, 16)
        what = crates[crate][0], WORDS[Reason(reason)]
        names[what] = names.get(what, 0) + int(total[at])
    return _sorted(names)


def _sorted(sizes: dict[tuple[str, str], int]) -> tuple[NotShared, ...]:
    kept = [NotShared(crate, reason, size) for (crate, reason), size in sizes.items()]
    return tuple(sorted(kept, key=lambda k: (-k.size, k.crate, k.reason)))


def summed(parts: Sequence[SharedParts]) -> SharedParts:
    """What is said of several programs together, those of the slices of a library."""
    shared: dict[int, int] = {}
    kept: dict[tuple[str, str], int] = {}
    for one in parts:
        for others, size in one.shared:
            shared[others] = shared.get(others, 0) + size
        for row in one.kept:
            what = row.crate, row.reason
            kept[what] = kept.get(what, 0) + row.size
    live = sum(one.live for one in parts)
    return SharedParts(live, tuple(sorted(shared.items())), _sorted(kept))


__all__ = ["WORDS", "NotShared", "SharedParts", "report", "summed"]
