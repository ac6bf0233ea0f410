"""One library from start to end: the only place that knows the order of the phases.

lock -> is it done already? -> what is public -> engine -> verify -> replace
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook import __version__
from cargo_strip_hook.archive import Archive, open_archive
from cargo_strip_hook.errors import DiscoveryError, ExportsError, InputError
from cargo_strip_hook.exports.decide import ExportRequest, decide
from cargo_strip_hook.job import (
    DefinedSymbol,
    ExportSet,
    Granularity,
    PrelinkRequest,
    Statistics,
    Strip,
)
from cargo_strip_hook.target import Target
from cargo_strip_hook.verify.marker import make_marker, read_marker

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done to one library. Picklable.

    `output` is where the result goes; None replaces the library itself. `root` is the folder that
    a symbolic link may not lead out of. `link_args` are what a program needs besides std's own
    libraries, for `link_check`. `twin` is where the same library with all names and debug
    information goes.
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


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of each phase, in seconds."""

    exports: float = 0.0
    prelink: float = 0.0
    verify: float = 0.0
    replace: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: `fresh` where there is nothing left to do; `before` in bytes."""

    job: Job
    exports: ExportSet
    marker: bytes
    before: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did. Sizes in bytes; `undefined` are the names that the consumer supplies.

    Of a library that was done already (`fresh`) only sizes and exports are told.
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


class _Clock:
    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.spent: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.spent[name] = time.perf_counter() - begin

    def seconds(self) -> Seconds:
        return Seconds(**self.spent, total=time.perf_counter() - self.start)


def strip_library(job: Job) -> Outcome:
    """Make one library small and self-contained.

    Either the result is complete and verified, or everything is as it was. Raises a
    `StripHookError` of the phase that failed.
    """
    from cargo_strip_hook.replace import library_lock, remove_litter

    clock = _Clock()
    target = job.output or job.library
    must_exist(job.library)
    with library_lock(target):
        with clock.phase("exports"):
            plan = plan_library(job)
        if plan.fresh and job.twin is not None:
            raise InputError(
                "this library was stripped before, so that no debug twin can be made of it",
                path=str(job.library),
                help="build it again, then strip it with `--debug-twin`",
            )
        if plan.fresh and job.output is None:
            remove_litter(job.library)
            return Outcome(
                job,
                target,
                plan.before,
                plan.before,
                True,
                plan.exports,
                warnings=plan.exports.warnings,
                seconds=clock.seconds(),
            )
        return _make(job, plan, clock)


def plan_library(job: Job) -> Plan:
    """Decide what is public and whether there is anything left to do; changes nothing."""
    must_exist(job.library)
    found = read_marker(job.library)
    with open_archive(job.library) as archive:
        try:
            exports = decide_exports(archive, job.request)
        except ExportsError as e:
            if found is not None:
                raise ExportsError(
                    e.what,
                    help=(
                        f"{job.library} was stripped before, so that more symbols cannot become "
                        "public: build it again, then strip it",
                        *e.help,
                    ),
                ) from e
            raise
    marker = make_marker(
        exports.names(), job.strip.value, job.granularity.value, job.engine, __version__
    )
    size = job.library.stat().st_size
    return Plan(job, exports, marker, size, found == marker)


def decide_exports(archive: Archive, request: ExportRequest) -> ExportSet:
    """What is public in an open archive; its objects are only read where the request needs it."""

    def defined() -> Mapping[str, DefinedSymbol]:
        from cargo_strip_hook.objects.summary import defined_symbols

        return defined_symbols(archive)

    index = archive.symbols()
    return decide(request, defined, None if index is None else lambda: _Names(index))


class _Names:
    """An archive's index, asked for names; it has far more of them than are ever asked for."""

    def __init__(self, index: Mapping[bytes, int]) -> None:
        self._index = index

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.encode(errors="surrogateescape") in self._index


def _make(job: Job, plan: Plan, clock: _Clock) -> Outcome:
    from cargo_strip_hook.engines import engine
    from cargo_strip_hook.replace import staging
    from cargo_strip_hook.verify import Claim, verify, verify_twin

    with ExitStack() as stack:
        staged = stack.enter_context(staging(job.library, root=job.root, output=job.output))
        twin = None
        if job.twin is not None:
            twin = stack.enter_context(staging(job.library, output=job.twin))
        with clock.phase("prelink"):
            request = PrelinkRequest(
                archive=staged.library,
                output=staged.path,
                target=job.target,
                exports=plan.exports.names(),
                strip=job.strip,
                granularity=job.granularity,
                marker=plan.marker,
                twin=twin.path if twin else None,
            )
            made = engine(job.engine).prelink(request)
        with clock.phase("verify"):
            claim = Claim(
                job.target,
                plan.exports.names(),
                job.strip,
                made.placement,
                plan.marker,
                _c_library_symbols(staged.library, made.undefined, job.target),
            )
            verified = verify(staged.library, staged.path, claim)
            if twin:
                whole = replace(claim, strip=Strip.NONE, placement=made.twin_placement)
                verify(staged.library, twin.path, whole)
                verify_twin(staged.path, twin.path)
            if job.link_check:
                _link(job, staged.path, plan.exports.names())
        after = staged.path.stat().st_size
        with clock.phase("replace"):
            if twin:
                twin.commit()
            staged.commit()
    return Outcome(
        job,
        job.output or job.library,
        plan.before,
        after,
        False,
        plan.exports,
        verified.undefined,
        made.statistics,
        (*plan.exports.warnings, *made.warnings),
        clock.seconds(),
    )


def _c_library_symbols(
    library: Path, undefined: tuple[str, ...], target: Target
) -> tuple[str, ...]:
    """Names that stay undefined although the archive defines them: those of a bundled libc."""
    if not target.environment.startswith("musl"):
        return ()
    with open_archive(library) as archive:
        index = archive.symbols() or {}
        of_libc = {m.index for m in archive.members if m.name.endswith(".lo")}
        return tuple(n for n in undefined if index.get(n.encode()) in of_libc)


def _link(job: Job, candidate: Path, exports: tuple[str, ...]) -> None:
    import os
    import shlex

    from cargo_strip_hook.deduce import host_target
    from cargo_strip_hook.verify.linkcheck import compiler, default_libs, link_check

    here = host_target()
    native = (job.target.arch, job.target.system) == (here.arch, here.system)
    chosen = shlex.split(os.environ.get("CC", "")) if native else []
    cc = tuple(chosen) or compiler(job.target, host=native)
    libs = (*job.link_args, *default_libs(job.target))
    link_check(candidate, exports, job.target, cc, libs)


def must_exist(library: Path) -> None:
    """Raise `DiscoveryError` or `InputError` where there is no such file."""
    if library.is_dir():
        raise InputError("this is a folder, not a library", path=str(library))
    if not library.exists():
        raise DiscoveryError(
            f"there is no file {library}",
            help="build it first, or name a static library that exists",
        )
