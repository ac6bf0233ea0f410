"""What is expected of a result, and what the verifier found to be true of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cargo_strip_hook.core.requests import Compression, Granularity, Strip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np
    import numpy.typing as npt

    from cargo_strip_hook.core.target import Target

_Native = TypeVar("_Native")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What was asked of an engine, and the link map that it gave.

    `exports` are the names that must be global, and no other may be. `link_map` is an array of
    `LINK_MAP`, one row for each live allocated range of input; where it is None ranges are found by
    symbol names, and only those are compared. `allowed_extra` are names that may stay undefined
    although a member of the original defines them (those of a C library that is in the archive).
    `import_members` are positions in the original of the members that follow the object.
    `covers_debug`: the link map covers debug information, too, which is then compared; that of a
    platform's linker covers code and data only. `compress_debug` is how debug sections may be
    compressed. `granularity` says what of the original may be one section; None where that is not
    checked, as with a linker of the platform. `others` are the link maps of the other libraries of
    a set.
    """

    target: Target
    exports: tuple[str, ...]
    strip: Strip
    link_map: npt.NDArray[np.void] | None
    marker: bytes
    allowed_extra: tuple[str, ...] = ()
    import_members: tuple[int, ...] = ()
    covers_debug: bool = True
    compress_debug: Compression = Compression.NONE
    granularity: Granularity | None = None
    others: tuple[npt.NDArray[np.void], ...] = ()


def compares_debug(expectation: Expectation) -> bool:
    """Whether it is told where debug information went, so that it can be compared."""
    return (
        expectation.link_map is not None
        and expectation.covers_debug
        and expectation.strip is Strip.NONE
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What the verifier read of the original's members with these numbers, which ascend.

    `native` is known to the room of the format only.
    """

    members: tuple[int, ...]
    native: object


def taken(ahead: Reading | None, used: Sequence[int], kind: type[_Native]) -> _Native | None:
    """What was read of the members `used`, as a room keeps it; None where it is to be read now."""
    if ahead is None or ahead.members != tuple(used) or not isinstance(ahead.native, kind):
        return None
    return ahead.native


class Damage(NamedTuple):
    """What is wrong with a member of the original by itself; `offset` in bytes from its start."""

    member: str
    what: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared: counts, sizes in bytes, and the names that the consumer supplies."""

    exports: tuple[str, ...]
    undefined: tuple[str, ...]
    pieces: int = 0
    piece_bytes: int = 0
    relocations: int = 0
    resolved: int = 0  # relocations whose value was written into the contents
    functions: int = 0  # unwind records


MAX_SHOWN = 8  # findings of one kind that are told in full


class Findings:
    """Collects what is wrong; of each kind the first few in full and the number of the rest."""

    def __init__(self) -> None:
        self._kinds: dict[str, list[str]] = {}
        self._more: dict[str, int] = {}

    def add(self, kind: str, what: str) -> None:
        """One finding; `kind` is a few words that begin its text."""
        shown = self._kinds.setdefault(kind, [])
        if len(shown) < MAX_SHOWN:
            shown.append(what)
        else:
            self.more(kind, 1)

    def more(self, kind: str, count: int) -> None:
        """Findings that are only counted."""
        if count > 0:
            self._kinds.setdefault(kind, [])
            self._more[kind] = self._more.get(kind, 0) + count

    def each(self, kind: str, which: npt.NDArray[Any], text: Callable[[int], str]) -> None:
        """A finding for each row: `which` is bool for each, or their numbers.

        `text` is called for those only that are told.
        """
        rows = which.nonzero()[0] if which.dtype == bool else which
        for row in rows[:MAX_SHOWN].tolist():
            self.add(kind, text(row))
        self.more(kind, len(rows) - MAX_SHOWN)

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def texts(self) -> tuple[str, ...]:
        """All findings, one line each."""
        lines = []
        for kind, shown in self._kinds.items():
            lines += [f"{kind}: {text}" for text in shown]
            if kind in self._more:
                lines.append(f"{kind}: and {self._more[kind]} more")
        return tuple(lines)
