"""The values that pass between the phases: plain frozen data.

discover -> exports -> read -> resolve -> reach -> lay out -> write -> verify -> replace
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cargo_strip_hook.core.target import Target


class Strip(Enum):
    """What is removed besides dead code and internal global symbols."""

    NONE = "none"  # debug information of live members stays
    DEBUGINFO = "debuginfo"  # names of live functions stay, debug information goes
    SYMBOLS = "symbols"  # local names go too


class Compression(Enum):
    """How debug sections are written."""

    NONE = "none"
    ZLIB = "zlib"
    ZSTD = "zstd"


class Granularity(Enum):
    """How finely a consumer's linker can still drop parts of the result."""

    CLASS = "class"  # sections reached from the same exports are one section
    SECTION = "section"  # as in the input
    WHOLE = "whole"  # one section of each kind


OriginKind = (
    str  # the kind of source: "header", "cdylib", "crate", "pattern", "preset", "file", "keep"
)


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Why a symbol is public: the kind of source, and where in it (``demo.h:12``, a pattern …)."""

    kind: OriginKind
    where: str


@dataclass(frozen=True, slots=True)
class Export:
    """One public symbol, by its name in the object file (leading underscore included)."""

    name: str
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class ExportSet:
    """The public symbols, sorted by name; `keep` holds those that stay global besides the API.

    `missing` holds declared symbols that the archive does not define (only with --allow-missing).
    `source` says in a few words how the set was decided, for the status output.
    """

    exports: tuple[Export, ...]
    keep: tuple[Export, ...] = ()
    missing: tuple[Export, ...] = ()
    source: str = ""
    warnings: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """All names that stay global, sorted."""
        return tuple(sorted({e.name for e in (*self.exports, *self.keep)}))


@dataclass(frozen=True, slots=True)
class DefinedSymbol:
    """A global definition in an archive: which member has it, and what it is."""

    name: str
    member: str
    weak: bool
    hidden: bool
    kind: Literal["function", "data", "tls", "common", "unknown"]


@dataclass(frozen=True, slots=True)
class Slice:
    """Where an archive is: `size` bytes of a file from `start` on (None: all of the file).

    A universal file has a slice for each `architecture`, by the name that `lipo` has for it. A
    plain library is one slice, whose architecture is "".
    """

    path: Path
    start: int = 0
    size: int | None = None
    architecture: str = ""

    def length(self) -> int:
        """Its size in bytes, that of the file where it is all of it. Raises `OSError`."""
        return self.path.stat().st_size if self.size is None else self.size

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def name(self) -> str:
        """The file's name, and the architecture in parentheses."""
        return self.path.name + (f"({self.architecture})" if self.architecture else "")

    def __str__(self) -> str:
        return str(self.path.with_name(self.name)) if self.architecture else str(self.path)


@dataclass(frozen=True, slots=True)
class PrelinkRequest:
    """What an engine is asked for. It writes a complete archive to `output`, nothing else.

    `archive` is a library, or one slice of a universal one. The debug twin is written to `twin`.
    `compress_debug` is how debug sections are written, where there are any. Temporary files go to
    `folder`, where that is not None. The object is called after `name`, or after the archive where
    that is "".
    """

    archive: Path | Slice
    output: Path
    target: Target
    exports: tuple[str, ...]
    strip: Strip
    granularity: Granularity = Granularity.CLASS
    marker: bytes = b""  # contents of the non-allocated section that says the work is done
    twin: Path | None = None
    compress_debug: Compression = Compression.NONE
    folder: Path | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of one run, for the report. Sizes in bytes."""

    members_total: int = 0
    members_used: int = 0
    sections_total: int = 0
    sections_live: int = 0
    symbols_hidden: int = 0


@dataclass(frozen=True, slots=True)
class PrelinkResult:
    """What an engine did.

    `link_map`: structured array of `LINK_MAP` (see `cargo_strip_hook.verify`), one row for each
    live allocated input range; None where the engine does not know. The verifier does not trust it,
    but checks it byte for byte. `covers_debug`: it has rows for debug sections, too.
    `exports`: the names that were asked for and are defined.
    `undefined`: the names that the consumer has to supply.
    `import_members`: the positions in the original archive of the members that follow the object
    unchanged.
    """

    exports: tuple[str, ...]
    undefined: tuple[str, ...]
    statistics: Statistics
    warnings: tuple[str, ...] = ()
    link_map: npt.NDArray[np.void] | None = None
    twin_link_map: npt.NDArray[np.void] | None = None
    import_members: tuple[int, ...] = ()
    covers_debug: bool = True


class Engine(Protocol):
    """Turns an archive into one with a single object that shows only the exports."""

    name: str

    def prelink(
        self, request: PrelinkRequest, loaded: Callable[[Sequence[int]], None] | None = None
    ) -> PrelinkResult:
        """Write `request.output`. Raises a `StripHookError`; never touches `request.archive`.

        An engine that knows which members the result is made of calls `loaded` with them, as soon
        as it does.
        """
        ...
