"""What the pipeline takes and returns: a job, its plan, and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from cargo_strip_hook.core.requests import (
    Compression,
    ExportSet,
    Granularity,
    Slice,
    Statistics,
    Strip,
)
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done to one library. Picklable.

    The `target` of a universal library is that of one slice; the objects of the other slices say
    theirs. `output` is where the result goes; None replaces the library itself. A symbolic link may
    not lead out of the folder `root`. `link_args` are what a program needs besides std's own
    libraries, for `link_check`. `twin` is where the debug twin goes. A library that was stripped
    before has none: that is an error only where it is `twin_required`. `compress_debug` is how
    debug sections are written. `bundle` is the xcframework that the library is in; either all
    libraries of one are replaced, or none. A signed bundle is changed only with `allow_signed`.
    The object is called after `name`, or after the library where that is "".
    """

    library: Path
    target: Target
    request: ExportRequest
    strip: Strip = Strip.DEBUGINFO
    granularity: Granularity = Granularity.CLASS
    engine: str = "native"
    output: Path | None = None
    root: Path | None = None
    link_check: bool = False
    link_args: tuple[str, ...] = ()
    twin: Path | None = None
    twin_required: bool = True
    compress_debug: Compression = Compression.NONE
    name: str = ""
    bundle: Path | None = None
    allow_signed: bool = False

    @property
    def shown(self) -> str:
        """The result's name for people: a path in an xcframework, whose files share one name."""
        if self.bundle is not None and self.library.is_relative_to(self.bundle):
            return str(self.library.relative_to(self.bundle))
        return (self.output or self.library).name


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of each phase, in seconds."""

    exports: float = 0.0
    prelink: float = 0.0
    verify: float = 0.0
    replace: float = 0.0
    total: float = 0.0

    def and_replaced(self, seconds: float) -> Seconds:
        """With the time that replacing took."""
        return replace(self, replace=self.replace + seconds, total=self.total + seconds)


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """What a run would do to one archive of a library; `fresh` where nothing is left to do.

    `outside` are the files with the members of a thin archive.
    """

    slice: Slice
    target: Target
    exports: ExportSet
    marker: bytes
    fresh: bool
    outside: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. `before` in bytes; `exports` are those of all slices together."""

    job: Job
    exports: ExportSet
    slices: tuple[SlicePlan, ...]
    before: int
    warnings: tuple[str, ...] = ()

    @property
    def fresh(self) -> bool:
        """Whether there is nothing left to do."""
        return all(s.fresh for s in self.slices)


@dataclass(frozen=True, slots=True)
class SliceOutcome:
    """What a run did to one slice of a universal library; see `Outcome`."""

    architecture: str
    target: Target
    before: int
    after: int
    fresh: bool
    exports: ExportSet
    undefined: tuple[str, ...] = ()
    statistics: Statistics = field(default_factory=Statistics)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did. Sizes in bytes; `undefined` are the names that the consumer supplies.

    Of a library that was done already (`fresh`) only sizes and exports are known. `slices` are
    those of a universal library; all other fields are then of all slices together.
    """

    job: Job
    output: Path
    before: int
    after: int
    fresh: bool
    exports: ExportSet
    undefined: tuple[str, ...] = ()
    statistics: Statistics = field(default_factory=Statistics)
    warnings: tuple[str, ...] = ()
    seconds: Seconds = Seconds()
    slices: tuple[SliceOutcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase that begins: its name as in `Seconds`, the library and its size in bytes."""

    library: Path
    name: str
    size: int


Observe: TypeAlias = Callable[[Phase], None]
