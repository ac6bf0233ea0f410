"""How the processes of a run end: on a signal, and with their parent.

A run has a process that waits, one that works, and workers. Each ends with the process that started
it: Linux sends it a signal (prctl(2), PR_SET_PDEATHSIG); elsewhere a thread waits until a
connection is closed that only the parent has open.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from cargo_strip_hook.core.errors import InputError, StripHookError

_PR_SET_PDEATHSIG = 1
# the signals that ask a program to end; Windows has the first two
_ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def ending_of(error: KeyboardInterrupt) -> tuple[str, int]:
    """How a run ended, in a word, and its exit code, as shells have it."""
    number = error.number if isinstance(error, Terminated) else signal.SIGINT
    return _WORDS[signal.Signals(number).name], 128 + number


# one entry for each `undisturbed` body; the signal held back by them; all signals, with their times
_holding: list[None] = []
_came: list[int] = []
_asked: list[tuple[int, float]] = []
_PATIENCE = 3.0  # seconds for cleaning up
_home: list[int] = []  # the process that signals are for


def _raise(number: int, frame: FrameType | None) -> None:
    """The handler. Only the first signal counts: others would disturb the clean-up after it."""
    if _home and os.getpid() not in _home:  # a child that has not begun its work
        os._exit(128 + number)
    now = time.monotonic()
    if _asked and now < _asked[-1][1] + _PATIENCE:
        return
    if frame is not None and frame.f_code.co_filename.startswith(_IMPORTING) and _later(number):
        return
    _asked.append((number, now))
    if _holding:
        _came.append(number)
    else:
        raise Terminated(number)


# in there Python calls functions to release its locks, and ignores what they raise
_IMPORTING = "<frozen importlib"


def _later(number: int) -> bool:
    """Have a signal handled again in a moment; False where the system has no timer for that."""
    if not hasattr(signal, "setitimer"):
        return False
    signal.signal(signal.SIGALRM, lambda _, frame: _raise(number, frame))
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    return True


def asked_to_end() -> Terminated | None:
    """The `Terminated` that was raised, if any. C libraries turn it into errors of their own."""
    return Terminated(_asked[0][0]) if _asked else None


@contextlib.contextmanager
def endings_raise() -> Iterator[None]:
    """Signals that ask the program to end raise `Terminated` in the body, once.

    A signal that is ignored stays ignored (`nohup`, a shell's background job). Does nothing in
    other threads than the main one.
    """
    before = {}
    _home[:] = [os.getpid()]
    try:
        for number in _ENDING:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, _raise)
                before[number] = handler
    except ValueError:  # not the main thread
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold signals that ask the program to end back until the body is done. Keep it short."""
    _holding.append(None)
    try:
        yield
    finally:
        _holding.pop()
    if _came and not _holding:
        raise Terminated(_came.pop())


def serve(parent: int, ended: Callable[[], object] | None = None) -> None:
    """In a worker of `parent`: end when the parent ends, or when it sends SIGTERM.

    The other signals are left to the parent, which the terminal sends them, too. `ended` returns
    when the parent is gone; a thread calls it where the system has no better way.
    """
    _home[:] = [os.getpid()]
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else _raise)
    _holding.clear()
    _asked.clear()
    if not end_with(parent) and ended is not None:
        _watch(ended)


def follow(parent: int) -> None:
    """In the work that `supervised` calls: end when the process that waits ends."""
    if not end_with(parent) and _life:
        _watch(lambda: os.read(_life[0], 1))


# one end of a connection; only the process that waits has the other end
_life: list[int] = []


def _watch(ended: Callable[[], object]) -> None:
    import threading

    def watch() -> None:
        ended()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def end_with(parent: int) -> bool:
    """Have the system end this process when its parent ends; False where it cannot.

    Ends the process at once where the parent is already gone.
    """
    if sys.platform != "linux":
        return False
    ignored = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    done = death_signal(signal.SIGKILL if ignored else signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
    return done


def death_signal(number: int) -> bool:
    """Ask Linux for a signal when the parent ends; whether that is supported."""
    ask = dies_with_parent(number)
    return ask is not None and ask()


def dies_with_parent(number: int) -> Callable[[], bool] | None:
    """The function that a process calls after its fork to get a signal when its parent ends.

    None where the system does not support that.
    """
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return lambda: prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) == 0


def died(number: int, library: str = "") -> StripHookError:
    """The error for a process that was ended by a signal (0: by an unknown one)."""
    if number == getattr(signal, "SIGBUS", -1):
        return InputError(
            f"{'the' if library else 'a'} file was changed while it was read",
            path=library or None,
            help="another build is running; strip again when it is done",
        )
    return StripHookError(
        "the engine's process ended before its work was done",
        help="there may not be enough memory; nothing was replaced",
    )


def supervised(work: Callable[[int | None], int], died: Callable[[int], int]) -> int:
    """Do `work` in a process of its own, and return its exit code.

    That process is killed when a library is truncated while it is mapped (SIGBUS), and may be for
    lack of memory (SIGKILL, or a C library that aborts). Then `died` is called with the signal's
    number, or 0, and returns the exit code. Signals that ask the program to end are passed on.
    `work` is called with the number of the process that waits, None where the system cannot fork.
    """
    if not hasattr(os, "fork"):
        return work(None)
    parent = os.getpid()
    ends, life = os.pipe(), os.pipe()
    os.set_blocking(ends[0], False)
    signals = [s for s in _ENDING if signal.getsignal(s) not in (signal.SIG_IGN, None)]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until there are handlers
    try:
        child = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return work(None)
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            os.close(life[1])
            _life.append(life[0])
            exit_code = work(parent)
            os.write(ends[1], b".")  # the exit code is the work's own
            os._exit(exit_code)
        finally:
            os._exit(1)
    for number in signals:
        signal.signal(number, lambda number, _: _hand_on(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    status = os.waitpid(child, 0)[1]
    for number in signals:  # there is nobody left
        signal.signal(number, signal.SIG_IGN)
    if os.WIFEXITED(status):
        with contextlib.suppress(BlockingIOError):
            if os.read(ends[0], 1):
                return os.WEXITSTATUS(status)
        return died(0)
    number = os.WTERMSIG(status)
    return 128 + number if number in _ENDING else died(number)


def _hand_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)
