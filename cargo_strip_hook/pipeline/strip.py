"""One library from start to end: the only place that knows the order of the phases.

lock -> is it done already? -> what is public -> engine -> verify -> replace

A library is one archive, or several in a universal file: its slices. What is public, the engine
and the verifier see each of them alone; the file is replaced as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook import __version__
from cargo_strip_hook.archive import join_parts, open_archive
from cargo_strip_hook.core.errors import (
    DiscoveryError,
    ExportsError,
    InputError,
    ReplaceError,
    UsageError,
    telling_of_memory,
)
from cargo_strip_hook.core.files import irregular
from cargo_strip_hook.core.lifetime import undisturbed
from cargo_strip_hook.core.requests import (
    Engine,
    PrelinkRequest,
    Slice,
    Statistics,
    Strip,
)
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import remembered
from cargo_strip_hook.exports.library import decide_exports
from cargo_strip_hook.formats.detect import must_be_for
from cargo_strip_hook.formats.slices import about, slices_of
from cargo_strip_hook.pipeline.outcomes import (
    Job,
    Observe,
    Outcome,
    Phase,
    Plan,
    Seconds,
    SliceOutcome,
    SlicePlan,
)
from cargo_strip_hook.pipeline.outputs import File, must_differ, read, written
from cargo_strip_hook.pipeline.slices import total, united
from cargo_strip_hook.verify.marker import make_marker, read_marker

if TYPE_CHECKING:
    from cargo_strip_hook.core.requests import PrelinkResult
    from cargo_strip_hook.replace import Identity, Staging
    from cargo_strip_hook.verify import Reading, Verified


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


def strip_library(
    job: Job,
    *,
    processes: int = 1,
    observe: Observe | None = None,
    expected: Identity | None = None,
) -> Outcome:
    """Make one library small and self-contained.

    Either the result is complete and verified, or everything is as it was. With two `processes`
    the engine works in one of its own, where the system can fork; there may be no other threads
    then. `observe` is told of each phase when it begins, after that fork. Where the library is not
    the file that was `expected`, it stays. Raises a `StripHookError` of the phase that failed.
    """
    from cargo_strip_hook.replace import commit_all, library_lock, must_be

    def conclude(staged: Sequence[Staging]) -> None:
        must_be(job.library, expected)
        commit_all(staged)

    must_exist(job.library)
    must_differ(written([job]), read([job]))
    with library_lock(job.output or job.library) as lock:
        must_be(job.library, expected)
        return _work_on(job, lock, processes, observe, conclude).outcome


@dataclass(frozen=True, slots=True)
class Prepared:
    """A library that is done but for its replacement: `staged` are the files that wait for it.

    Of a library that was done already there are none. Picklable.
    """

    outcome: Outcome
    staged: tuple[Staging, ...] = ()


def prepare_library(
    job: Job, *, lock: int | None = None, processes: int = 1, observe: Observe | None = None
) -> Prepared:
    """All that `strip_library` does but for taking the library's lock and replacing it.

    The caller holds the lock until it has called `commit_prepared` or `discard_prepared`; `lock`
    is its descriptor, for a process that may outlive this one.
    """

    def keep(all_staged: Sequence[Staging]) -> None:
        for staged in all_staged:
            staged.keep()

    return _work_on(job, lock, processes, observe, keep)


def _work_on(
    job: Job,
    lock: int | None,
    processes: int,
    observe: Observe | None,
    conclude: Callable[[Sequence[Staging]], None],
) -> Prepared:
    """`conclude` is called with the verified files, which are removed then where it leaves them."""
    from cargo_strip_hook.replace import blaming_changes, real_library, remove_litter

    clock = _Clock(job.library, observe)
    target = job.output or job.library
    must_exist(job.library)
    if job.output is None:
        real_library(job.library, job.root)
    remove_litter(target)
    with (
        telling_of_memory(),
        blaming_changes(job.library),
        _works(job, processes, lock) as works,
    ):
        with clock.phase("exports"):
            plan = plan_library(job)
        if not job.twin_required and any(read_marker(s.part) is not None for s in plan.slices):
            job = replace(job, twin=None)
            plan = replace(plan, job=job)
        if plan.fresh and job.twin is not None:
            raise InputError(
                "this library was stripped before, so that no debug twin can be made of it",
                path=str(job.library),
                help="build it again, then strip it with `--debug-twin`",
            )
        if plan.fresh and job.output is None:
            return Prepared(
                Outcome(
                    job,
                    target,
                    plan.before,
                    plan.before,
                    True,
                    plan.exports,
                    warnings=plan.warnings,
                    seconds=clock.seconds(),
                    slices=_slice_outcomes(plan, [_kept(s) for s in plan.slices]),
                )
            )
        return _make(job, plan, works, clock, conclude)


def commit_prepared(prepared: Sequence[Prepared]) -> list[Outcome]:
    """Replace all libraries, or none of them. Raises `ReplaceError`."""
    from cargo_strip_hook.replace import commit_all

    begin = time.perf_counter()
    commit_all([s for one in prepared for s in one.staged])
    spent = time.perf_counter() - begin
    return [replace(p.outcome, seconds=p.outcome.seconds.and_replaced(spent)) for p in prepared]


def discard_prepared(prepared: Sequence[Prepared]) -> None:
    """Remove what waits."""
    for one in prepared:
        for staged in one.staged:
            staged.discard()


@dataclass(frozen=True, slots=True)
class _Works:
    """`engine` gives the engine: in this process it is loaded when it is asked for.

    `in_worker`: it is in a process of its own, so that this one may do something meanwhile; `stop`
    ends that when there is nothing more to ask.
    """

    engine: Callable[[], Engine]
    in_worker: bool = False
    stop: Callable[..., None] = lambda **_: None


@contextmanager
def _works(job: Job, processes: int, lock: int | None) -> Iterator[_Works]:
    from cargo_strip_hook.engines import engine
    from cargo_strip_hook.engines.worker import in_worker, possible

    if processes < 2 or not possible():
        yield _Works(lambda: engine(job.engine))
        return

    def meanwhile() -> None:
        from cargo_strip_hook.verify import prepare

        prepare(job.target.object_format)

    with ExitStack() as stack:
        found = None
        with suppress(OSError):  # the system has no room for another process
            found = stack.enter_context(
                in_worker(job.engine, job.target.object_format, lock, meanwhile)
            )
        if found is None:
            yield _Works(lambda: engine(job.engine))
        else:
            works, stop = found
            yield _Works(lambda: works, True, stop)


def plan_library(job: Job) -> Plan:
    """Decide what is public and whether there is anything left to do; changes nothing."""
    must_exist(job.library)
    slices = tuple(
        _plan_slice(job, part, target) for part, target in slices_of(job.library, job.target)
    )
    exports = united([(s.part.architecture, s.exports) for s in slices])
    outside = [File(p, "a member of the thin archive") for s in slices for p in s.outside]
    must_differ(written([job]), outside)
    warnings = list(exports.warnings)
    if outside:
        warnings.append(
            f"{job.shown} is a thin archive; the result is a normal one, which needs no other files"
        )
    plan = Plan(job, exports, slices, job.library.stat().st_size, tuple(warnings))
    return plan if plan.fresh and job.output is None else _allowed(plan)


def _allowed(plan: Plan) -> Plan:
    """The plan, if it may be carried out in a signed bundle. Raises `ReplaceError`."""
    from cargo_strip_hook.archive.xcframework import signed

    job = plan.job
    for path in (job.output or job.library, job.twin):
        bundle = signed(path) if path is not None else None
        if bundle is None:
            continue
        if not job.allow_signed:
            raise ReplaceError(
                f"{bundle} is signed, and no signature is valid after a change",
                help=(
                    "strip first and sign then, or go on with `--allow-signed`",
                    f"to sign again: codesign --force --sign IDENTITY {bundle}",
                ),
            )
        warning = f"the signature of {bundle} is not valid any more: sign it again"
        return replace(plan, warnings=(*plan.warnings, warning))
    return plan


def _plan_slice(job: Job, part: Slice, target: Target) -> SlicePlan:
    found = read_marker(part)
    with about(part), open_archive(part) as archive:
        must_be_for(archive, target)
        outside = archive.outside
        try:
            request = replace(job.request, target=target)
            exports = remembered(request, found, part.name) or decide_exports(archive, request)
        except ExportsError as e:
            if found is not None and e.absent:
                raise ExportsError(
                    e.head,
                    lines=e.lines,
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
    return SlicePlan(part, target, exports, marker, found == marker, outside)


@dataclass(frozen=True, slots=True)
class _Made:
    """One finished archive: `part` is where it lies, `result` what the engine said of it.

    A slice that was done already has no result, and lies where it was.
    """

    part: Slice
    size: int
    result: PrelinkResult | None = None
    verified: Verified | None = None


def _kept(plan: SlicePlan) -> _Made:
    size = plan.part.path.stat().st_size if plan.part.size is None else plan.part.size
    return _Made(plan.part, size)


def _make(
    job: Job,
    plan: Plan,
    works: _Works,
    clock: _Clock,
    conclude: Callable[[Sequence[Staging]], None],
) -> Prepared:
    from cargo_strip_hook.replace import staging

    universal = bool(plan.slices[0].part.architecture)
    if universal and job.twin is not None:
        raise UsageError(
            "there can be no debug twin of a universal library",
            help="keep debug information in the library, with `--strip none`",
        )
    with ExitStack() as stack:
        with undisturbed():  # what is made is known to `stack`
            staged = stack.enter_context(staging(job.library, root=job.root, output=job.output))
            twin = None
            if job.twin is not None:
                twin = stack.enter_context(staging(job.library, output=job.twin))
            folder = None
            if universal or job.link_check or job.engine != "native":
                folder = stack.enter_context(staged.working_folder())
        # nobody may write there any more when they are removed
        stack.callback(works.stop, wait=True)
        plans = [_moved(s, staged.library) for s in plan.slices]
        if universal:
            assert folder is not None
            made = _make_slices(job, plans, staged, folder, works, clock)
        else:
            place = _Place(staged.path, twin.path if twin else None, folder)
            with about(plan.slices[0].part):
                made = [_make_archive(job, plans[0], place, works, clock)]
        if job.link_check:
            assert folder is not None
            with clock.phase("verify"):
                for one in plans:
                    _link(job, one.target, staged.path, one.exports.names(), folder)
        after = staged.path.stat().st_size
        waiting = tuple(s for s in (twin, staged) if s is not None)
        with clock.phase("replace"):
            conclude(waiting)
    results = [m.result for m in made if m.result is not None]
    undefined = {n for m in made if m.verified for n in m.verified.undefined}
    warnings = dict.fromkeys(w for r in results for w in r.warnings)
    outcome = Outcome(
        job,
        job.output or job.library,
        plan.before,
        after,
        False,
        plan.exports,
        tuple(sorted(undefined)),
        total([r.statistics for r in results]),
        (*plan.warnings, *warnings),
        clock.seconds(),
        _slice_outcomes(plan, made),
    )
    return Prepared(outcome, waiting)


def _moved(plan: SlicePlan, library: Path) -> SlicePlan:
    """The same slice of the file behind a symbolic link."""
    return replace(plan, part=replace(plan.part, path=library))


def _make_slices(
    job: Job,
    plans: Sequence[SlicePlan],
    staged: Staging,
    folder: Path,
    works: _Works,
    clock: _Clock,
) -> list[_Made]:
    """Make each slice in a file of its own, then the universal file of them, and verify that."""
    from cargo_strip_hook.verify import verify_universal

    made = []
    for number, plan in enumerate(plans):
        if plan.fresh:
            made.append(_kept(plan))
            continue
        with about(plan.part):
            place = _Place(folder / f"{number}.a", None, folder)
            made.append(_make_archive(job, plan, place, works, clock))
    with clock.phase("prelink"), staged.path.open("wb") as file:
        join_parts(file, staged.library, [m.part for m in made])
    with clock.phase("verify"):
        verify_universal(staged.library, staged.path, [m.part for m in made])
    return made


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an archive, its twin and what is made on the way to them go."""

    output: Path
    twin: Path | None
    folder: Path | None


def _make_archive(job: Job, plan: SlicePlan, place: _Place, works: _Works, clock: _Clock) -> _Made:
    """Have the engine make one archive, and verify it."""
    from cargo_strip_hook.pipeline.workaround import looked_for
    from cargo_strip_hook.verify import Expectation, read_ahead, verify, verify_twin

    exports = plan.exports.names()
    ahead: list[Reading] = []  # none, or one

    def loaded(members: Sequence[int]) -> None:
        ahead.extend(read_ahead(plan.part, members))

    with clock.phase("prelink"):
        request = PrelinkRequest(
            archive=plan.part,
            output=place.output,
            target=plan.target,
            exports=exports,
            strip=job.strip,
            granularity=job.granularity,
            marker=plan.marker,
            twin=place.twin,
            compress_debug=job.compress_debug,
            folder=place.folder,
            name=job.name,
        )
        made = works.engine().prelink(request, loaded if works.in_worker else None)
        if not plan.part.architecture:  # of a universal library more are to come
            works.stop()

    def expectation_of(made: PrelinkResult) -> Expectation:
        return Expectation(
            plan.target,
            exports,
            job.strip,
            made.link_map,
            plan.marker,
            _c_library_symbols(plan.part, made.undefined, plan.target),
            made.import_members,
            made.covers_debug,
            job.compress_debug,
        )

    with clock.phase("verify"), looked_for(job.engine, request, expectation_of):
        expectation = expectation_of(made)
        verified = verify(plan.part, place.output, expectation, *ahead)
        if place.twin:
            whole = replace(expectation, strip=Strip.NONE, link_map=made.twin_link_map)
            verify(plan.part, place.twin, whole, *ahead)
            verify_twin(plan.part, place.output, place.twin)
    return _Made(Slice(place.output), place.output.stat().st_size, made, verified)


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
    library: Slice, undefined: tuple[str, ...], target: Target
) -> tuple[str, ...]:
    """Names that stay undefined although the archive defines them: those of a bundled libc."""
    if not target.environment.startswith("musl"):
        return ()
    with open_archive(library) as archive:
        index = archive.symbols() or {}
        of_libc = {m.index for m in archive.members if m.name.endswith(".lo")}
        return tuple(
            n for n in undefined if index.get(n.encode(errors="surrogateescape")) in of_libc
        )


def _link(
    job: Job, target: Target, candidate: Path, exports: tuple[str, ...], folder: Path
) -> None:
    import os
    import shlex

    from cargo_strip_hook.formats.detect import host_target
    from cargo_strip_hook.verify.linkcheck import compiler, default_libs, link_check

    here = host_target()
    native = (target.arch, target.system) == (here.arch, here.system)
    chosen = shlex.split(os.environ.get("CC", "")) if native else []
    cc = tuple(chosen) or compiler(target, host=native)
    libs = (*job.link_args, *default_libs(target))
    link_check(candidate, exports, target, cc, libs, folder=folder)


def must_exist(library: Path) -> None:
    """Raise `DiscoveryError` or `InputError` where there is no such file."""
    if library.is_dir():
        from cargo_strip_hook.archive.sniff import folder_instead

        what, help = folder_instead(library)
        raise InputError(what, path=str(library), help=help)
    if not library.exists():
        raise DiscoveryError(
            f"there is no file {library}",
            help="build it first, or name a static library that exists",
        )
    odd = irregular(library)
    if odd is not None:
        raise InputError(f"this is no regular file but {odd}", path=str(library))


__all__ = [
    "Job",
    "Observe",
    "Outcome",
    "Phase",
    "Plan",
    "Prepared",
    "Seconds",
    "SliceOutcome",
    "SlicePlan",
    "commit_prepared",
    "discard_prepared",
    "must_exist",
    "plan_library",
    "prepare_library",
    "strip_library",
]
