"""One library from start to end: the only place that knows the order of the phases.

lock -> is it done already? -> what is public -> engine -> verify -> replace

A library is one archive, or several in a universal file: its slices. What is public, the engine
and the verifier see each of them alone; the file is replaced as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cargo_strip_hook import __version__
from cargo_strip_hook.archive import Archive, Part, join_parts, open_archive
from cargo_strip_hook.deduce import must_be_for
from cargo_strip_hook.errors import (
    DiscoveryError,
    ExportsError,
    InputError,
    UsageError,
)
from cargo_strip_hook.exports.decide import ExportRequest, decide
from cargo_strip_hook.job import (
    Compression,
    DefinedSymbol,
    Engine,
    ExportSet,
    Granularity,
    PrelinkRequest,
    Statistics,
    Strip,
)
from cargo_strip_hook.slices import about, slices_of, total, united
from cargo_strip_hook.target import Target
from cargo_strip_hook.verify.marker import make_marker, read_marker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cargo_strip_hook.job import PrelinkResult
    from cargo_strip_hook.replace import Staging
    from cargo_strip_hook.verify import Reading, Verified


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done to one library. Picklable.

    `target` is, of a universal library, that of the slice with its architecture; the objects of
    the other slices say theirs. `output` is where the result goes; None replaces the library
    itself. `root` is the folder that a symbolic link may not lead out of. `link_args` are what a
    program needs besides std's own libraries, for `link_check`. `twin` is where the same library
    with all names and debug information goes. `compress_debug` is how debug sections are written.
    `name` is what the object is called after, "" for the library.
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
    compress_debug: Compression = Compression.NONE
    name: str = ""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of each phase, in seconds."""

    exports: float = 0.0
    prelink: float = 0.0
    verify: float = 0.0
    replace: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """What a run would do to one archive of a library; `fresh` where nothing is left to do."""

    part: Part
    target: Target
    exports: ExportSet
    marker: bytes
    fresh: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. `before` in bytes; `exports` are those of all slices together."""

    job: Job
    exports: ExportSet
    slices: tuple[SlicePlan, ...]
    before: int

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

    Of a library that was done already (`fresh`) only sizes and exports are told. `slices` are
    those of a universal library: all else then is of them together.
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
    """What begins: one of the phases that `Seconds` has, of a library of so many bytes."""

    library: Path
    name: str
    size: int


Observe: TypeAlias = Callable[[Phase], None]


class _Clock:
    def __init__(self, library: Path, observe: Observe | None) -> None:
        self.start = time.perf_counter()
        self.spent: dict[str, float] = {}
        self.library, self.observe = library, observe

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if self.observe is not None:
            self.observe(Phase(self.library, name, self.library.stat().st_size))
        begin = time.perf_counter()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - begin

    def seconds(self) -> Seconds:
        return Seconds(**self.spent, total=time.perf_counter() - self.start)


def strip_library(job: Job, *, processes: int = 1, observe: Observe | None = None) -> Outcome:
    """Make one library small and self-contained.

    Either the result is complete and verified, or everything is as it was. With two `processes`
    the engine works in one of its own, where the system can fork; there may be no other threads
    then. `observe` is told of each phase when it begins, after that fork. Raises a
    `StripHookError` of the phase that failed.
    """
    from cargo_strip_hook.replace import library_lock, remove_litter

    clock = _Clock(job.library, observe)
    target = job.output or job.library
    must_exist(job.library)
    with library_lock(target) as lock, _works(job, processes, lock) as works:
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
                slices=_slice_outcomes(plan, [_kept(s) for s in plan.slices]),
            )
        return _make(job, plan, works, clock)


@dataclass(frozen=True, slots=True)
class _Works:
    """`engine` gives the engine: in this process it is loaded when it is asked for.

    `apart`: it is in a process of its own, so that this one may do something meanwhile; `stop`
    ends that when there is nothing more to ask.
    """

    engine: Callable[[], Engine]
    apart: bool = False
    stop: Callable[[], None] = lambda: None


@contextmanager
def _works(job: Job, processes: int, lock: int | None) -> Iterator[_Works]:
    from cargo_strip_hook.engines import engine
    from cargo_strip_hook.engines.apart import apart, possible

    if processes < 2 or not possible():
        yield _Works(lambda: engine(job.engine))
        return

    def meanwhile() -> None:
        from cargo_strip_hook.verify import prepare

        prepare(job.target.object_format)

    with apart(job.engine, job.target.object_format, lock, meanwhile) as (works, stop):
        yield _Works(lambda: works, True, stop)


def plan_library(job: Job) -> Plan:
    """Decide what is public and whether there is anything left to do; changes nothing."""
    must_exist(job.library)
    slices = tuple(
        _plan_slice(job, part, target) for part, target in slices_of(job.library, job.target)
    )
    exports = united([(s.part.architecture, s.exports) for s in slices])
    return Plan(job, exports, slices, job.library.stat().st_size)


def _plan_slice(job: Job, part: Part, target: Target) -> SlicePlan:
    found = read_marker(part)
    with about(part), open_archive(part) as archive:
        must_be_for(archive, target)
        try:
            exports = decide_exports(archive, replace(job.request, target=target))
        except ExportsError as e:
            if found is not None and e.absent:
                raise ExportsError(
                    e.what,
                    help=(
                        f"{part} was stripped before, so that more symbols cannot become "
                        "public: build it again, then strip it",
                        *e.help,
                    ),
                    absent=True,
                ) from e
            raise
    marker = make_marker(
        exports.names(),
        job.strip.value,
        job.granularity.value,
        job.engine,
        __version__,
        compress_debug=job.compress_debug.value,
    )
    return SlicePlan(part, target, exports, marker, found == marker)


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


@dataclass(frozen=True, slots=True)
class _Made:
    """One finished archive: `part` is where it lies, `result` what the engine said of it.

    A slice that was done already has no result, and lies where it was.
    """

    part: Part
    size: int
    result: PrelinkResult | None = None
    verified: Verified | None = None


def _kept(plan: SlicePlan) -> _Made:
    size = plan.part.path.stat().st_size if plan.part.size is None else plan.part.size
    return _Made(plan.part, size)


def _make(job: Job, plan: Plan, works: _Works, clock: _Clock) -> Outcome:
    from cargo_strip_hook.replace import staging

    universal = bool(plan.slices[0].part.architecture)
    if universal and job.twin is not None:
        raise UsageError(
            "there can be no debug twin of a universal library",
            help="keep debug information in the library, with `--strip none`",
        )
    with ExitStack() as stack:
        staged = stack.enter_context(staging(job.library, root=job.root, output=job.output))
        twin = None
        if job.twin is not None:
            twin = stack.enter_context(staging(job.library, output=job.twin))
        plans = [_moved(s, staged.library) for s in plan.slices]
        if universal:
            made = _make_slices(job, plans, staged, works, clock)
        else:
            with about(plan.slices[0].part):
                made = [_make_archive(job, plans[0], staged.path, twin, works, clock)]
        if job.link_check:
            with clock.phase("verify"):
                for one in plans:
                    _link(job, one.target, staged.path, one.exports.names())
        after = staged.path.stat().st_size
        with clock.phase("replace"):
            if twin:
                twin.commit()
            staged.commit()
    results = [m.result for m in made if m.result is not None]
    undefined = {n for m in made if m.verified for n in m.verified.undefined}
    warnings = dict.fromkeys(w for r in results for w in r.warnings)
    return Outcome(
        job,
        job.output or job.library,
        plan.before,
        after,
        False,
        plan.exports,
        tuple(sorted(undefined)),
        total([r.statistics for r in results]),
        (*plan.exports.warnings, *warnings),
        clock.seconds(),
        _slice_outcomes(plan, made),
    )


def _moved(plan: SlicePlan, library: Path) -> SlicePlan:
    """The same slice of the file behind a symbolic link."""
    return replace(plan, part=replace(plan.part, path=library))


def _make_slices(
    job: Job,
    plans: Sequence[SlicePlan],
    staged: Staging,
    works: _Works,
    clock: _Clock,
) -> list[_Made]:
    """Make each slice in a file of its own, then the universal file of them, and verify that."""
    import tempfile

    from cargo_strip_hook.verify import verify_universal

    with tempfile.TemporaryDirectory(prefix="cargo-strip-hook-") as folder:
        made = []
        for number, plan in enumerate(plans):
            if plan.fresh:
                made.append(_kept(plan))
                continue
            with about(plan.part):
                path = Path(folder, f"{number}.a")
                made.append(_make_archive(job, plan, path, None, works, clock))
        with clock.phase("prelink"), staged.path.open("wb") as file:
            join_parts(file, staged.library, [m.part for m in made])
        with clock.phase("verify"):
            verify_universal(staged.library, staged.path, [m.part for m in made])
    return made


def _make_archive(
    job: Job,
    plan: SlicePlan,
    output: Path,
    twin: Staging | None,
    works: _Works,
    clock: _Clock,
) -> _Made:
    """Have the engine make one archive, and verify it."""
    from cargo_strip_hook.verify import Claim, read_ahead, verify, verify_twin

    exports = plan.exports.names()
    ahead: list[Reading] = []  # none, or one

    def loaded(members: Sequence[int]) -> None:
        ahead.extend(read_ahead(plan.part, members))

    with clock.phase("prelink"):
        request = PrelinkRequest(
            archive=plan.part,
            output=output,
            target=plan.target,
            exports=exports,
            strip=job.strip,
            granularity=job.granularity,
            marker=plan.marker,
            twin=twin.path if twin else None,
            compress_debug=job.compress_debug,
            name=job.name,
        )
        made = works.engine().prelink(request, loaded if works.apart else None)
        if not plan.part.architecture:  # of a universal library more are to come
            works.stop()
    with clock.phase("verify"):
        claim = Claim(
            plan.target,
            exports,
            job.strip,
            made.placement,
            plan.marker,
            _c_library_symbols(plan.part, made.undefined, plan.target),
            made.companions,
            made.described,
            job.compress_debug,
        )
        verified = verify(plan.part, output, claim, *ahead)
        if twin:
            whole = replace(claim, strip=Strip.NONE, placement=made.twin_placement)
            verify(plan.part, twin.path, whole, *ahead)
            verify_twin(output, twin.path)
    return _Made(Part(output), output.stat().st_size, made, verified)


def _slice_outcomes(plan: Plan, made: Sequence[_Made]) -> tuple[SliceOutcome, ...]:
    return tuple(
        SliceOutcome(
            one.part.architecture,
            one.target,
            one.part.size or 0,
            done.size,
            one.fresh,
            one.exports,
            done.verified.undefined if done.verified else (),
            done.result.statistics if done.result else Statistics(),
        )
        for one, done in zip(plan.slices, made, strict=True)
        if one.part.architecture
    )


def _c_library_symbols(
    library: Part, undefined: tuple[str, ...], target: Target
) -> tuple[str, ...]:
    """Names that stay undefined although the archive defines them: those of a bundled libc."""
    if not target.environment.startswith("musl"):
        return ()
    with open_archive(library) as archive:
        index = archive.symbols() or {}
        of_libc = {m.index for m in archive.members if m.name.endswith(".lo")}
        return tuple(n for n in undefined if index.get(n.encode()) in of_libc)


def _link(job: Job, target: Target, candidate: Path, exports: tuple[str, ...]) -> None:
    import os
    import shlex

    from cargo_strip_hook.deduce import host_target
    from cargo_strip_hook.verify.linkcheck import compiler, default_libs, link_check

    here = host_target()
    native = (target.arch, target.system) == (here.arch, here.system)
    chosen = shlex.split(os.environ.get("CC", "")) if native else []
    cc = tuple(chosen) or compiler(target, host=native)
    libs = (*job.link_args, *default_libs(target))
    link_check(candidate, exports, target, cc, libs)


def must_exist(library: Path) -> None:
    """Raise `DiscoveryError` or `InputError` where there is no such file."""
    if library.is_dir():
        raise InputError("this is a folder, not a library", path=str(library))
    if not library.exists():
        raise DiscoveryError(
            f"there is no file {library}",
            help="build it first, or name a static library that exists",
        )
