"""One library from start to end: the only module that knows the order of the phases.

lock -> is it done already? -> what is public -> engine -> verify -> replace

A library is one archive, or a universal file with several, its slices. Each slice is decided on,
prelinked and verified by itself; the file is replaced as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook import __version__
from cargo_strip_hook.archive import open_archive, write_universal
from cargo_strip_hook.core.errors import (
    DiscoveryError,
    ExportsError,
    InputError,
    ReplaceError,
    UsageError,
    reporting_lack_of_memory,
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
from cargo_strip_hook.pipeline.linking import linked
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
from cargo_strip_hook.verify.marker import make_marker, marker_of_set, read_marker, set_of

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

    Either the result is complete and verified, or nothing is changed. With two `processes` the
    engine works in a process of its own, where the system can fork; there may be no other threads
    then. `observe` is called when each phase begins, after that fork. A library that is not the
    file that was `expected` is left alone. Raises a `StripHookError` of the phase that failed.
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
    """A library that is done but not replaced yet: `staged` are the files that wait for that.

    There are none where the library was done already. Picklable.
    """

    outcome: Outcome
    staged: tuple[Staging, ...] = ()


def prepare_library(
    job: Job, *, lock: int | None = None, processes: int = 1, observe: Observe | None = None
) -> Prepared:
    """All that `strip_library` does, except that the library is neither locked nor replaced.

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
    """Strip a library and call `conclude` with the verified files.

    Files that `conclude` leaves where they are are removed afterwards.
    """
    from cargo_strip_hook.replace import blaming_changes, real_library, remove_litter

    clock = _Clock(job.library, observe)
    target = job.output or job.library
    must_exist(job.library)
    if job.output is None:
        real_library(job.library, job.root)
    remove_litter(target)
    with (
        reporting_lack_of_memory(),
        blaming_changes(job.library),
        _open_engine(job, processes, lock) as handle,
    ):
        with clock.phase("exports"):
            plan = plan_library(job)
        if not job.twin_required and any(read_marker(s.slice) is not None for s in plan.slices):
            job = replace(job, twin=None)
            plan = replace(plan, job=job)
        if plan.fresh and job.twin is not None:
            raise InputError(
                "this library was stripped before: no debug twin can be made of it",
                path=str(job.library),
                help="build it again, then strip it with `--debug-twin`",
            )
        if plan.fresh and job.output is None:
            kept = [_kept(s) for s in plan.slices]
            return Prepared(_outcome(plan, kept, plan.before, clock, fresh=True))
        return _carry_out(plan, handle, clock, conclude)


def commit_prepared(prepared: Sequence[Prepared]) -> list[Outcome]:
    """Replace all libraries, or none of them. Raises `ReplaceError`."""
    from cargo_strip_hook.replace import commit_all

    begin = time.perf_counter()
    commit_all([s for one in prepared for s in one.staged])
    spent = time.perf_counter() - begin
    return [replace(p.outcome, seconds=p.outcome.seconds.and_replaced(spent)) for p in prepared]


def discard_prepared(prepared: Sequence[Prepared]) -> None:
    """Remove the files that wait."""
    for one in prepared:
        for staged in one.staged:
            staged.discard()


@dataclass(frozen=True, slots=True)
class _EngineHandle:
    """`engine` returns the engine; where it works in this process it is loaded by the first call.

    `in_worker`: it works in a process of its own, so that this one can do something meanwhile.
    `stop` ends that process when there is nothing more to ask.
    """

    engine: Callable[[], Engine]
    in_worker: bool = False
    stop: Callable[..., None] = lambda **_: None


@contextmanager
def _open_engine(job: Job, processes: int, lock: int | None) -> Iterator[_EngineHandle]:
    from cargo_strip_hook.engines import engine
    from cargo_strip_hook.engines.worker import in_worker, possible

    if processes < 2 or not possible():
        yield _EngineHandle(lambda: engine(job.engine))
        return

    def meanwhile() -> None:
        from cargo_strip_hook.verify import prepare

        prepare(job.target.object_format)

    with ExitStack() as stack:
        handle = _EngineHandle(lambda: engine(job.engine))
        with suppress(OSError):  # the system has no room for another process
            worker, stop = stack.enter_context(
                in_worker(job.engine, job.target.object_format, lock, meanwhile)
            )
            handle = _EngineHandle(lambda: worker, True, stop)
        yield handle


def plan_library(job: Job) -> Plan:
    """Decide what is public, and whether there is anything left to do. Changes nothing."""
    must_exist(job.library)
    slices = tuple(
        _plan_slice(job, slice_, target) for slice_, target in slices_of(job.library, job.target)
    )
    exports = united([(s.slice.architecture, s.exports) for s in slices])
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
    """The plan, with a warning where it breaks a signature.

    Raises `ReplaceError` where that is not allowed.
    """
    job = plan.job
    for path in (job.output or job.library, job.twin):
        bundle = may_be_signed(path, job.allow_signed) if path is not None else None
        if bundle is None:
            continue
        warning = f"the signature of {bundle} is not valid any more: sign it again"
        return replace(plan, warnings=(*plan.warnings, warning))
    return plan


def may_be_signed(path: Path, allowed: bool) -> Path | None:
    """The signed bundle that a file is in. Raises `ReplaceError` where that is not allowed."""
    from cargo_strip_hook.archive.xcframework import signed

    bundle = signed(path)
    if bundle is not None and not allowed:
        raise ReplaceError(
            f"{bundle} is signed, and any change makes the signature invalid",
            help=(
                "strip first and sign then, or go on with `--allow-signed`",
                f"to sign again: codesign --force --sign IDENTITY {bundle}",
            ),
        )
    return bundle


def _plan_slice(job: Job, slice_: Slice, target: Target) -> SlicePlan:
    old_marker = read_marker(slice_)
    with about(slice_), open_archive(slice_) as archive:
        must_be_for(archive, target)
        outside = archive.outside
        try:
            request = replace(job.request, target=target)
            exports = remembered(request, old_marker, slice_.name) or decide_exports(
                archive, request
            )
        except ExportsError as e:
            if old_marker is not None and e.absent:
                raise ExportsError(
                    e.head,
                    lines=e.lines,
                    help=(
                        f"{slice_} was stripped before, and no more symbols can become public: "
                        "build it again, then strip it",
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
    # a library of a set is done, too: it only lacks what it has in common with others
    done = old_marker in (marker, marker_of_set(marker, set_of(old_marker)))
    return SlicePlan(slice_, target, exports, marker, done, outside)


@dataclass(frozen=True, slots=True)
class _Finished:
    """One finished archive: `slice` is where it is, `result` what the engine said of it.

    A slice that was done already is where it was, and has no result.
    """

    slice: Slice
    size: int
    result: PrelinkResult | None = None
    verified: Verified | None = None


def _kept(plan: SlicePlan) -> _Finished:
    return _Finished(plan.slice, plan.slice.length())


def _carry_out(
    plan: Plan,
    handle: _EngineHandle,
    clock: _Clock,
    conclude: Callable[[Sequence[Staging]], None],
) -> Prepared:
    from cargo_strip_hook.replace import staging

    job = plan.job
    universal = bool(plan.slices[0].slice.architecture)
    if universal and job.twin is not None:
        raise UsageError(
            "there can be no debug twin of a universal library",
            help="keep debug information in the library, with `--strip none`",
        )
    with ExitStack() as stack:
        with undisturbed():  # `stack` knows of each file once it exists
            staged = stack.enter_context(staging(job.library, root=job.root, output=job.output))
            twin = None
            if job.twin is not None:
                twin = stack.enter_context(staging(job.library, output=job.twin))
            folder = None
            if universal or job.link_check or job.engine != "native":
                folder = stack.enter_context(staged.working_folder())
        # the engine must not write there any more when they are removed
        stack.callback(handle.stop, wait=True)
        plans = [_moved(s, staged.library) for s in plan.slices]
        if universal:
            assert folder is not None
            finished = _strip_slices(job, plans, staged, folder, handle, clock)
        else:
            paths = _Paths(staged.path, twin.path if twin else None, folder)
            with about(plan.slices[0].slice):
                finished = [_strip_slice(job, plans[0], paths, handle, clock)]
        if job.link_check:
            assert folder is not None
            with clock.phase("verify"):
                for one in plans:
                    linked(job, one.target, staged.path, one.exports.names(), folder)
        after = staged.path.stat().st_size
        waiting = tuple(s for s in (twin, staged) if s is not None)
        with clock.phase("replace"):
            conclude(waiting)
    return Prepared(_outcome(plan, finished, after, clock), waiting)


def _outcome(
    plan: Plan, finished: Sequence[_Finished], after: int, clock: _Clock, *, fresh: bool = False
) -> Outcome:
    """`after` is the size of the result, in bytes."""
    results = [f.result for f in finished if f.result is not None]
    undefined = {n for f in finished if f.verified for n in f.verified.undefined}
    warnings = dict.fromkeys(w for r in results for w in r.warnings)
    return Outcome(
        plan.job,
        plan.job.output or plan.job.library,
        plan.before,
        after,
        fresh,
        plan.exports,
        tuple(sorted(undefined)),
        total([r.statistics for r in results]),
        (*plan.warnings, *warnings),
        clock.seconds(),
        _slice_outcomes(plan, finished),
    )


def _moved(plan: SlicePlan, library: Path) -> SlicePlan:
    """The same slice, of the file behind a symbolic link."""
    return replace(plan, slice=replace(plan.slice, path=library))


def _strip_slices(
    job: Job,
    plans: Sequence[SlicePlan],
    staged: Staging,
    folder: Path,
    handle: _EngineHandle,
    clock: _Clock,
) -> list[_Finished]:
    """Strip each slice into a file of its own, join them into a universal file, and verify that."""
    from cargo_strip_hook.verify import verify_universal

    finished = []
    for number, plan in enumerate(plans):
        if plan.fresh:
            finished.append(_kept(plan))
            continue
        with about(plan.slice):
            paths = _Paths(folder / f"{number}.a", None, folder)
            finished.append(_strip_slice(job, plan, paths, handle, clock))
    with clock.phase("prelink"), staged.path.open("wb") as file:
        write_universal(file, staged.library, [f.slice for f in finished])
    with clock.phase("verify"):
        verify_universal(staged.library, staged.path, [f.slice for f in finished])
    return finished


@dataclass(frozen=True, slots=True)
class _Paths:
    """Where an archive, its debug twin and temporary files go."""

    output: Path
    twin: Path | None
    folder: Path | None


def _strip_slice(
    job: Job, plan: SlicePlan, paths: _Paths, handle: _EngineHandle, clock: _Clock
) -> _Finished:
    """Have the engine prelink one archive, and verify the result."""
    from cargo_strip_hook.pipeline.workaround import suggesting_workaround
    from cargo_strip_hook.verify import Expectation, read_ahead, verify, verify_twin

    exports = plan.exports.names()
    ahead: list[Reading] = []  # none, or one

    def loaded(members: Sequence[int]) -> None:
        ahead.extend(read_ahead(plan.slice, members))

    with clock.phase("prelink"):
        request = PrelinkRequest(
            archive=plan.slice,
            output=paths.output,
            target=plan.target,
            exports=exports,
            strip=job.strip,
            granularity=job.granularity,
            marker=plan.marker,
            twin=paths.twin,
            compress_debug=job.compress_debug,
            folder=paths.folder,
            name=job.name,
        )
        result = handle.engine().prelink(request, loaded if handle.in_worker else None)
        if not plan.slice.architecture:  # of a universal library more are to come
            handle.stop()

    def expectation_of(result: PrelinkResult) -> Expectation:
        return Expectation(
            plan.target,
            exports,
            job.strip,
            result.link_map,
            plan.marker,
            _c_library_symbols(plan.slice, result.undefined, plan.target),
            result.import_members,
            result.covers_debug,
            job.compress_debug,
            job.granularity if result.covers_debug else None,
        )

    with clock.phase("verify"), suggesting_workaround(job.engine, request, expectation_of):
        expectation = expectation_of(result)
        verified = verify(plan.slice, paths.output, expectation, *ahead)
        if paths.twin:
            whole = replace(expectation, strip=Strip.NONE, link_map=result.twin_link_map)
            verify(plan.slice, paths.twin, whole, *ahead)
            verify_twin(plan.slice, paths.output, paths.twin)
    return _Finished(Slice(paths.output), paths.output.stat().st_size, result, verified)


def _slice_outcomes(plan: Plan, finished: Sequence[_Finished]) -> tuple[SliceOutcome, ...]:
    return tuple(
        SliceOutcome(
            one.slice.architecture,
            one.target,
            one.slice.size or 0,
            done.size,
            one.fresh,
            one.exports,
            done.verified.undefined if done.verified else (),
            done.result.statistics if done.result else Statistics(),
        )
        for one, done in zip(plan.slices, finished, strict=True)
        if one.slice.architecture
    )


def _c_library_symbols(
    library: Slice, undefined: tuple[str, ...], target: Target
) -> tuple[str, ...]:
    """Names that stay undefined although the archive defines them: those of a bundled C library."""
    if not target.environment.startswith("musl"):
        return ()
    with open_archive(library) as archive:
        index = archive.symbols() or {}
        of_libc = {m.index for m in archive.members if m.name.endswith(".lo")}
        return tuple(
            n for n in undefined if index.get(n.encode(errors="surrogateescape")) in of_libc
        )


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
    "may_be_signed",
    "must_exist",
    "plan_library",
    "prepare_library",
    "strip_library",
]
