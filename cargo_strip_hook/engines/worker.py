"""An engine in a process of its own.

On a second processor the engine is loaded while this process decides what is public, and the
verifier is loaded while the engine works.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from cargo_strip_hook.core import lifetime
from cargo_strip_hook.engines import engine

if TYPE_CHECKING:
    import socket

    from cargo_strip_hook.core.requests import Engine, PrelinkRequest, PrelinkResult


@dataclass(slots=True)
class _Process:
    """A forked process that runs `_serve`, and our end of the connection to it.

    `busy`: it has a request that it has not answered. `status` is how it ended, once known.
    """

    number: int
    connection: socket.socket
    busy: bool = False
    status: int | None = None

    def stop(self) -> None:
        """Have it end, without waiting: freeing its memory takes a while. `end` waits.

        A busy one gets a signal that it can handle, to end the programs that it started. What it
        may have begun to write is not needed.
        """
        if self.status is None:
            os.kill(self.number, signal.SIGTERM if self.busy else signal.SIGKILL)

    def end(self) -> None:
        """Wait until it is gone."""
        self.stop()
        self.connection.close()
        if self.wait(_PATIENCE) is None:
            os.kill(self.number, signal.SIGKILL)
            self.wait(None)

    def wait(self, seconds: float | None) -> int | None:
        """How it ended, as waitpid(2) has it; None if it has not after so many seconds."""
        end = None if seconds is None or not self.busy else time.monotonic() + seconds
        while self.status is None:
            number, status = os.waitpid(self.number, 0 if end is None else os.WNOHANG)
            if number:
                self.status = status
            elif end is not None and time.monotonic() > end:
                break
            else:
                time.sleep(0.005)
        return self.status


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Sent before the answer: the members that the result will be made of."""

    members: tuple[int, ...]


_MOMENT = 0.05  # seconds
_PATIENCE = 2.0  # seconds for a process to clean up
# the process that was started ahead and is not in use yet: one at most
_waiting: list[_Process] = []


def possible() -> bool:
    """Whether a second process costs no time: it can be forked, and has a processor of its own."""
    if not hasattr(os, "fork"):
        return False
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) > 1
    return (os.cpu_count() or 1) > 1


def start() -> None:
    """Start the process ahead of its use by the next `in_worker`.

    There may be no other threads. Does nothing where a process is not `possible`.
    """
    if possible() and not _waiting:
        with suppress(OSError):  # `in_worker` will raise it
            _waiting.append(_fork())


def dismiss() -> None:
    """End the process that was started ahead, if there is one."""
    while _waiting:
        _waiting.pop().end()


@contextmanager
def in_worker(
    name: str,
    object_format: str,
    lock: int | None,
    meanwhile: Callable[[], None],
) -> Iterator[tuple[Engine, Callable[..., None]]]:
    """The engine called `name` in a process of its own, and a function that ends the process.

    The process is gone when the context ends. The function has it end earlier, when there is
    nothing more to ask, and with `wait=True` waits for that. The process loads what `object_format`
    needs at once. `lock` is a file descriptor that it keeps open as long as it lives: even if this
    process is killed, the lock is held while something may still be written. `meanwhile` is called
    here while the engine works. There may be no other threads. What the engine raises is raised
    here. Raises `OSError` where no process can be started.
    """
    process = _waiting.pop() if _waiting else _fork()

    def stop(*, wait: bool = False) -> None:
        process.stop()
        if wait:
            process.end()

    try:
        writer, reader = (process.connection.makefile(mode) for mode in ("wb", "rb"))
        try:
            remote = _RemoteEngine(name, process, writer, reader, meanwhile)
            remote.begin(object_format, lock)
            yield remote, stop
        finally:
            for stream in (reader, writer):
                with suppress(OSError):  # there is data left for a process that is gone
                    stream.close()
    finally:
        process.end()


class _RemoteEngine:
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
        """Pass the lock on, and say which engine is wanted."""
        import socket

        with suppress(BrokenPipeError):  # noticed when the first request is answered
            socket.send_fds(self._process.connection, [b"."], [] if lock is None else [lock])
            pickle.dump((self.name, object_format), self._writer)
            self._writer.flush()

    def prelink(
        self, request: PrelinkRequest, loaded: Callable[[Sequence[int]], None] | None = None
    ) -> PrelinkResult:
        self._process.busy = True
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
            # if both processes were sent a signal, let ours arrive: it is what is to be reported
            time.sleep(_MOMENT)
            status = self._process.wait(_PATIENCE)
            number = os.WTERMSIG(status) if status and os.WIFSIGNALED(status) else 0
            raise lifetime.died(number, str(request.archive)) from None
        self._process.busy = False
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _fork() -> _Process:
    import socket

    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child would write it, too
    ours, its = socket.socketpair()
    parent = os.getpid()
    try:
        number = os.fork()
    except OSError:
        ours.close()
        its.close()
        raise
    if number == 0:
        try:
            # the terminal interrupts both processes: the parent reports it, and ends this one
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ours.close()
            _serve(its, parent)
        finally:
            os._exit(0)
    its.close()
    return _Process(number, ours)


def _serve(connection: socket.socket, parent: int) -> None:
    """What the worker does until the connection is closed or its parent is gone."""
    import socket

    with suppress(Exception):  # a request will fail for the same reason
        import cargo_strip_hook.engines.native  # noqa: F401
    # not earlier: without a request it only waits for the connection, which ends with the parent
    lifetime.serve(parent, lambda: _hung_up(connection))
    socket.recv_fds(connection, 1, 1)  # of the lock: it stays open until the process ends
    with connection.makefile("rb") as reader, connection.makefile("wb") as writer:
        name, object_format = pickle.load(reader)
        with suppress(Exception):
            from cargo_strip_hook.formats import format_for

            format_for(object_format)

        loaded_engine: Engine | None = None

        def say(what: object) -> None:
            pickle.dump(what, writer)
            writer.flush()

        while True:
            request = pickle.load(reader)
            answer: PrelinkResult | Exception
            try:
                loaded_engine = loaded_engine or engine(name)
                answer = loaded_engine.prelink(request, lambda m: say(_Loaded(tuple(m))))
            except Exception as e:
                answer = e
            say(answer)


def _hung_up(connection: socket.socket) -> None:
    """Return when the other end of a connection is closed."""
    import select

    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is always reported
    poll.poll()


__all__ = ["dismiss", "in_worker", "possible", "start"]
