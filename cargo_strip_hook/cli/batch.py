"""Several libraries, one process for each."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cargo_strip_hook.cli.console import Console
from cargo_strip_hook.cli.progress import Progress, open_progress
from cargo_strip_hook.engines.apart import dismiss
from cargo_strip_hook.errors import StripHookError, UsageError, of_system
from cargo_strip_hook.pipeline import Job, Observe, Outcome, plan_library, strip_library

if TYPE_CHECKING:
    from concurrent.futures import Future


def run_jobs(jobs: Sequence[Job], console: Console, *, at_a_time: int | None, dry: bool) -> int:
    """Strip every library, or say what would be done; the exit code.

    One that fails does not keep the others from being done.
    """
    _refuse_same_target(jobs)
    # numpy would start a thread for each processor when it is loaded, for algebra we do not do
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    exit_code = 0
    if dry:
        for job in jobs:
            try:
                console.plan(plan_library(job))
            except StripHookError as e:
                console.problem(e)
                exit_code = max(exit_code, e.exit_code)
        return exit_code
    workers = min(len(jobs), at_a_time or os.cpu_count() or 1)
    if workers > 1:
        dismiss()  # those who work need none, and would keep it from seeing that this one ended
    shown = open_progress(console)
    results = _parallel(jobs, workers, shown) if workers > 1 else _in_turn(jobs, shown)
    for result in results:
        if isinstance(result, Outcome):
            console.outcome(result)
        else:
            console.problem(result)
            exit_code = max(exit_code, result.exit_code)
    return exit_code


def _refuse_same_target(jobs: Sequence[Job]) -> None:
    seen: set[str] = set()
    for job in jobs:
        if job.twin is not None and len(jobs) > 1:
            raise UsageError("--debug-twin takes one library's, and there are several")
        path = os.path.realpath(job.output or job.library)
        if path in seen:
            raise UsageError(f"{job.output or job.library} is named twice")
        seen.add(path)


def _in_turn(jobs: Sequence[Job], shown: Progress) -> Iterator[Outcome | StripHookError]:
    for job in jobs:
        try:
            result = _attempt(job, 2, shown.observe)
        finally:
            shown.end()  # before the next job's fork, which must find no other thread
        yield result


def _attempt(
    job: Job, processes: int = 1, observe: Observe | None = None
) -> Outcome | StripHookError:
    try:
        return strip_library(job, processes=processes, observe=observe)
    except StripHookError as e:
        return e
    except OSError as e:
        return of_system(e)


def _parallel(
    jobs: Sequence[Job], workers: int, shown: Progress
) -> Iterator[Outcome | StripHookError]:
    """In the order of `jobs`. An interrupt lets those that run end, and starts no more."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # nothing has started a thread yet, so that forking is safe, and quicker by a whole start-up
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupt)
    try:
        futures: list[Future[Outcome | StripHookError]] = [pool.submit(_attempt, j) for j in jobs]
        for number, future in enumerate(futures):
            shown.say("Stripping", f"{jobs[number].library.name} ({number + 1} of {len(jobs)})")
            result = future.result()
            shown.end()
            yield result
    finally:
        shown.end()
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
