"""An engine in a process of its own: on a second processor it gets ready while it is found out what
there is to do, and the verifier gets ready while it works."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from cargo_strip_hook.engines import engine
from cargo_strip_hook.errors import StripHookError

if TYPE_CHECKING:
    import socket

    from cargo_strip_hook.job import Engine, PrelinkRequest, PrelinkResult


@dataclass(frozen=True, slots=True)
class _Process:
    """A forked process that waits for what `_serve` reads, and its end of the connection."""

    number: int
    connection: socket.socket

    def stop(self) -> None:
        """It has nothing left to do, and what it may have begun to write is not wanted.

        It is gone when `end` returns; giving its memory back takes a while.
        """
        os.kill(self.number, signal.SIGKILL)

    def end(self) -> None:
        """Wait until it is gone."""
        self.stop()
        os.waitpid(self.number, 0)
        self.connection.close()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Said before the answer: the members that the result will be made of."""

    members: tuple[int, ...]


# the process that was started ahead and that nobody has asked for yet: one at most
_waiting: list[_Process] = []


def possible() -> bool:
    """Whether a second process can be had for nothing: by a fork, and on a processor of its own."""
    if not hasattr(os, "fork"):
        return False
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) > 1
    return (os.cpu_count() or 1) > 1


def start() -> None:
    """Start the process before it is known what for: the next `apart` takes it.

    There may be no other threads. Does nothing where no process can be had for nothing.
    """
    if possible() and not _waiting:
        _waiting.append(_fork())


def dismiss() -> None:
    """End the process that waits, if there is one."""
    while _waiting:
        _waiting.pop().end()


@contextmanager
def apart(
    name: str,
    object_format: str,
    lock: int | None,
    meanwhile: Callable[[], None],
) -> Iterator[tuple[Engine, Callable[[], None]]]:
    """The engine called `name` in a process of its own, which is gone when the context ends, and
    what ends the process before, for whoever has nothing more to ask.

    It gets what `object_format` needs ready at once. `lock` is a file descriptor that it holds for
    as long as it lives: even if this process is killed, nobody else has the lock while something
    may still be written. `meanwhile` is called here while a request is worked on. There may be
    no other threads. What the engine raises is raised here.
    """
    process = _waiting.pop() if _waiting else _fork()
    try:
        with (
            suppress(BrokenPipeError),  # of what is left to send to a process that is gone
            process.connection.makefile("wb") as writer,
            process.connection.makefile("rb") as reader,
        ):
            works = _Apart(name, process, writer, reader, meanwhile)
            works.begin(object_format, lock)
            yield works, process.stop
    finally:
        process.end()


class _Apart:
    """`Engine` over the connection to the process."""

    def __init__(
        self,
        name: str,
        process: _Process,
        writer: IO[bytes],
        reader: IO[bytes],
        meanwhile: Callable[[], None],
    ) -> None:
        self.name = name
        self._process = process
        self._writer, self._reader = writer, reader
        self._meanwhile = meanwhile

    def begin(self, object_format: str, lock: int | None) -> None:
        """Hand the lock on and say which engine is wanted."""
        import socket

        with suppress(BrokenPipeError):  # told when the first request is answered
            socket.send_fds(self._process.connection, [b"."], [] if lock is None else [lock])
            pickle.dump((self.name, object_format), self._writer)
            self._writer.flush()

    def prelink(
        self, request: PrelinkRequest, loaded: Callable[[Sequence[int]], None] | None = None
    ) -> PrelinkResult:
        try:
            pickle.dump(request, self._writer)
            self._writer.flush()
            self._meanwhile()
            answer: PrelinkResult | BaseException | _Loaded = pickle.load(self._reader)
            while isinstance(answer, _Loaded):
                if loaded is not None:
                    loaded(answer.members)
                answer = pickle.load(self._reader)
        except (EOFError, ConnectionError, pickle.UnpicklingError):
            raise StripHookError(
                "the engine's process ended before its work was done",
                help="there may not be enough memory; nothing was replaced",
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _fork() -> _Process:
    import socket

    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the other process has it, too
    ours, its = socket.socketpair()
    number = os.fork()
    if number == 0:
        try:
            # the terminal interrupts both: the first process tells the user, and ends this one
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ours.close()
            _serve(its)
        finally:
            os._exit(0)
    its.close()
    return _Process(number, ours)


def _serve(connection: socket.socket) -> None:
    """What the other process does until nobody asks any more."""
    import socket

    with suppress(Exception):  # what is wrong will be told when the work is asked for
        import cargo_strip_hook.engines.native  # noqa: F401
    socket.recv_fds(connection, 1, 1)  # the lock's: it stays open until the process ends
    with connection.makefile("rb") as reader, connection.makefile("wb") as writer:
        name, object_format = pickle.load(reader)
        with suppress(Exception):
            from cargo_strip_hook.objects import format_for

            format_for(object_format)

        works: Engine | None = None

        def say(what: object) -> None:
            pickle.dump(what, writer)
            writer.flush()

        while True:
            request = pickle.load(reader)
            answer: PrelinkResult | Exception
            try:
                works = works or engine(name)
                answer = works.prelink(request, lambda m: say(_Loaded(tuple(m))))
            except Exception as e:
                answer = e
            say(answer)


__all__ = ["apart", "dismiss", "possible", "start"]
