"""An engine in a process of its own: on a second processor it gets ready while exports are decided,
and the verifier gets ready while it works."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from cargo_strip_hook.engines import engine
from cargo_strip_hook.errors import StripHookError

if TYPE_CHECKING:
    from cargo_strip_hook.job import Engine, PrelinkRequest, PrelinkResult


def possible() -> bool:
    """Whether a second process can be had for nothing: by a fork, and on a processor of its own."""
    if not hasattr(os, "fork"):
        return False
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) > 1
    return (os.cpu_count() or 1) > 1


@contextmanager
def apart(
    name: str, prepare: Callable[[], None], meanwhile: Callable[[], None]
) -> Iterator[Engine]:
    """The engine called `name` in a forked process, which is gone when the context ends.

    `prepare` is called there at once, `meanwhile` here while the first request is worked on.
    There may be no other threads. What the engine raises is raised here.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the other process has it, too
    questions, ask = os.pipe()
    reply, answers = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(ask)
        os.close(reply)
        _serve(name, prepare, questions, answers)
    os.close(questions)
    os.close(answers)
    try:
        with os.fdopen(ask, "wb") as writer, os.fdopen(reply, "rb") as reader:
            yield _Apart(name, process, writer, reader, meanwhile)
    finally:
        # it has nothing left to do, and what it may have begun to write is not wanted
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


class _Apart:
    """`Engine` over the two pipes to the process."""

    def __init__(
        self,
        name: str,
        process: int,
        writer: IO[bytes],
        reader: IO[bytes],
        meanwhile: Callable[[], None],
    ) -> None:
        self.name = name
        self._process = process
        self._writer, self._reader = writer, reader
        self._meanwhile = meanwhile

    def prelink(self, request: PrelinkRequest) -> PrelinkResult:
        try:
            pickle.dump(request, self._writer)
            self._writer.flush()
            self._meanwhile()
            answer: PrelinkResult | BaseException = pickle.load(self._reader)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise StripHookError(
                "the engine's process ended before its work was done",
                help="there may not be enough memory; nothing was replaced",
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _serve(name: str, prepare: Callable[[], None], questions: int, answers: int) -> None:
    """What the other process does until nobody asks any more. Does not return."""
    # the terminal interrupts both: the first process tells the user, and ends this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(questions, "rb") as reader, os.fdopen(answers, "wb") as writer:
            answer: PrelinkResult | Exception
            with suppress(Exception):  # what is wrong will be told when the work is asked for
                prepare()
            works = engine(name)
            while True:
                request = pickle.load(reader)
                try:
                    answer = works.prelink(request)
                except Exception as e:
                    answer = e
                pickle.dump(answer, writer)
                writer.flush()
    finally:
        os._exit(0)


__all__ = ["apart", "possible"]
