"""Stripping several libraries in several processes; those of an xcframework together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias, cast

from cargo_strip_hook.cli.console import Console
from cargo_strip_hook.cli.progress import Progress, open_progress
from cargo_strip_hook.core import lifetime
from cargo_strip_hook.core.errors import StripHookError, UsageError, of_memory, of_system
from cargo_strip_hook.engines.worker import dismiss
from cargo_strip_hook.pipeline.outputs import File, must_differ, read, written
from cargo_strip_hook.pipeline.strip import (
    Job,
    Observe,
    Outcome,
    Prepared,
    commit_prepared,
    discard_prepared,
    plan_library,
    prepare_library,
    strip_library,
)
from cargo_strip_hook.replace import library_lock, remove_litter

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_PATIENCE = 2.0  # seconds for a process to clean up
Result: TypeAlias = "Outcome | Prepared | StripHookError"


def run_jobs(
    jobs: Sequence[Job],
    console: Console,
    *,
    at_a_time: int | None,
    dry: bool,
    inputs: Sequence[File] = (),
) -> int:
    """Strip every library, or say what would be done. Returns the exit code.

    A failure stops only the other libraries of the same xcframework. `inputs` are files that are
    read besides those that the jobs name. Raises `UsageError` where a result would be written over
    another result or an input.
    """
    if len(jobs) > 1 and any(job.twin is not None for job in jobs):
        raise UsageError("--debug-twin is for one library, and there are several")
    must_differ(written(jobs), [*read(jobs), *inputs])
    # numpy would start a thread for each processor when it is loaded, for algebra that is not used
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if dry:
        return _plan(jobs, console)
    workers = min(len(jobs), at_a_time or os.cpu_count() or 1)
    if workers > 1:
        dismiss()  # workers need none, and would keep its connection open after this process ended
    shown = open_progress(console)
    exit_code = 0
    with ExitStack() as stack:
        locks = _locks(jobs, stack)
        if workers > 1:
            results = _parallel(jobs, locks, workers, shown)
        else:
            results = _in_turn(jobs, locks, shown)
        try:
            for bundle, some in groupby(jobs, key=lambda job: job.bundle):
                if bundle is None:
                    for _ in some:
                        exit_code = max(exit_code, _tell(next(results), console))
                else:
                    exit_code = max(exit_code, _together(list(some), results, console))
        except BaseException:
            results.close()
            for job in jobs:
                if job.bundle is not None:  # what was prepared
                    remove_litter(job.library)
            raise
        finally:
            results.close()
    return exit_code


def _locks(jobs: Sequence[Job], stack: ExitStack) -> list[int | None]:
    """Take the locks of libraries that are replaced together, for as long as `stack` is open.

    The other libraries are locked by the processes that strip them. The locks are always taken in
    the same order, so that two runs never wait for each other.
    """
    locks: list[int | None] = [None] * len(jobs)
    together = [n for n, job in enumerate(jobs) if job.bundle is not None]
    for number in sorted(together, key=lambda n: os.path.realpath(jobs[n].library)):
        locks[number] = stack.enter_context(library_lock(jobs[number].library))
    return locks


def _plan(jobs: Sequence[Job], console: Console) -> int:
    exit_code = 0
    for job in jobs:
        try:
            console.plan(plan_library(job))
        except StripHookError as e:
            console.problem(e)
            exit_code = max(exit_code, e.exit_code)
    return exit_code


def _tell(result: Result, console: Console) -> int:
    if isinstance(result, StripHookError):
        console.problem(result)
        return result.exit_code
    assert isinstance(result, Outcome)
    console.outcome(result)
    return 0


def _together(jobs: Sequence[Job], results: Iterator[Result], console: Console) -> int:
    """Replace the libraries of one xcframework: all, or none. Returns the exit code."""
    attempted: list[tuple[Job, Result]] = []
    prepared: list[Prepared] = []
    try:
        for job in jobs:
            result = next(results)
            attempted.append((job, result))
            if isinstance(result, Prepared):
                prepared.append(result)
        if len(prepared) == len(jobs):
            try:
                outcomes = commit_prepared(prepared)
            except StripHookError as e:
                attempted = [(job, e if job is jobs[0] else one) for job, one in attempted]
            else:
                for outcome in outcomes:
                    console.outcome(outcome)
                return 0
    finally:
        discard_prepared([p for p in prepared if not all(s.committed for s in p.staged)])
    exit_code = 0
    for job, result in attempted:
        if isinstance(result, StripHookError):
            console.shell.status("Failed", job.shown)
            console.problem(result)
            exit_code = max(exit_code, result.exit_code)
    unchanged([job for job, result in attempted if not isinstance(result, StripHookError)], console)
    return exit_code


def unchanged(jobs: Sequence[Job], console: Console) -> None:
    """Report libraries of an xcframework that are unchanged because another one failed."""
    for job in jobs:
        console.shell.status("Unchanged", f"{job.shown}: another library of {job.bundle} failed")


def _attempt(
    job: Job, lock: int | None, processes: int = 1, observe: Observe | None = None
) -> Result:
    """Strip a library; one of several that are replaced together is only prepared."""
    try:
        if job.bundle is not None:
            return prepare_library(job, lock=lock, processes=processes, observe=observe)
        return strip_library(job, processes=processes, observe=observe)
    except StripHookError as e:
        return e
    except Exception as e:
        problem = of_memory(e)
        if problem is None and isinstance(e, OSError):
            problem = of_system(e)
        if problem is None:
            raise
        return problem


def _in_turn(
    jobs: Sequence[Job], locks: Sequence[int | None], shown: Progress
) -> Generator[Result, None, None]:
    for job, lock in zip(jobs, locks, strict=True):
        try:
            result = _attempt(job, lock, 2, shown.observe)
        finally:
            shown.end()  # before the next job's fork, which must find no other thread
        yield result


class _Worker:
    """A process that does one job after another; `job` is the number of the current one."""

    def __init__(self, others: Sequence[_Worker]) -> None:
        """Start the process. Raises `OSError` where there can be none."""
        import multiprocessing

        # no thread has been started yet: forking is safe, and quicker than a new interpreter
        forks = "fork" in multiprocessing.get_all_start_methods()
        start = (multiprocessing.get_context("fork") if forks else multiprocessing).Process
        self.job: int | None = None
        self.connection, its = multiprocessing.Pipe()
        copied = [w.connection for w in (*others, self)] if forks else []
        self.process = start(target=_work, args=(its, os.getpid(), copied), daemon=True)
        try:
            self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            its.close()

    def give(self, number: int, job: Job, lock: int | None) -> None:
        """Have it do a job. A process that is gone is noticed when the answer is read."""
        self.job = number
        with suppress(OSError):
            self.connection.send((job, lock))

    def answer(self) -> Result | None:
        """The result of its job; None where the process is gone. Raises internal errors."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(result, Exception) and not isinstance(result, StripHookError):
            raise result
        self.job = None
        return cast("Result", result)

    def end(self) -> int:
        """End it and its work. Returns the number of the signal that ended it, or 0."""
        self.connection.close()
        if self.job is None:
            self.process.kill()
        else:
            self.process.terminate()
            self.process.join(_PATIENCE)
            self.process.kill()
        self.process.join()
        return max(0, -(self.process.exitcode or 0))


def _work(connection: Connection, parent: int, copied: Sequence[Connection]) -> None:
    """What a worker does. `copied` are ends of other connections, inherited by the fork."""
    try:
        for one in copied:
            one.close()
        lifetime.serve(parent, _parent_ended)
        while True:
            job, lock = connection.recv()
            try:
                result: object = _attempt(job, lock)
            except Exception as e:
                result = e
            connection.send(result)
    except (KeyboardInterrupt, EOFError, OSError):
        pass  # the parent is gone, or wants no answer
    finally:
        os._exit(0)


def _parent_ended() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()


def _parallel(
    jobs: Sequence[Job], locks: Sequence[int | None], at_a_time: int, shown: Progress
) -> Generator[Result, None, None]:
    """Yield results in the order of `jobs`. All workers end when the generator is closed."""
    from multiprocessing.connection import wait

    workers: list[_Worker] = []
    waiting = deque(range(len(jobs)))
    done: dict[int, Result] = {}
    try:
        _hire(workers, at_a_time)
        for number, next_job in enumerate(jobs):
            while number not in done:
                for worker in workers:
                    if worker.job is None and waiting:
                        first = waiting.popleft()
                        worker.give(first, jobs[first], locks[first])
                busy = {w.connection: w for w in workers if w.job is not None}
                if not busy:  # the system has no room for another process
                    first = waiting.popleft()
                    done[first] = _attempt(jobs[first], locks[first])
                    continue
                shown.say("Stripping", f"{next_job.shown} ({number + 1} of {len(jobs)})")
                for ready in wait(list(busy)):
                    worker = busy[ready]  # type: ignore[index]
                    finished = worker.job
                    assert finished is not None
                    answer = worker.answer()
                    if answer is None:
                        shown.end()
                        workers.remove(worker)
                        answer = lifetime.died(worker.end(), str(jobs[finished].library))
                        _tidy(jobs[finished])
                        _hire(workers, len(workers) + 1)
                    done[finished] = answer
            shown.end()
            yield done.pop(number)
    finally:
        shown.end()
        for result in done.values():
            if isinstance(result, Prepared):
                discard_prepared([result])
        for worker in workers:
            worker.end()
            if worker.job is not None:
                _tidy(jobs[worker.job])


def _tidy(job: Job) -> None:
    """Remove what a worker that was killed may have left."""
    with ExitStack() as stack, suppress(StripHookError):
        if job.bundle is None:  # else the lock is held here
            stack.enter_context(library_lock(job.output or job.library, timeout=0.5))
        remove_litter(job.output or job.library)


def _hire(workers: list[_Worker], number: int) -> None:
    """Start workers up to a number, as far as the system allows."""
    with suppress(OSError):
        while len(workers) < number:
            workers.append(_Worker(workers))
