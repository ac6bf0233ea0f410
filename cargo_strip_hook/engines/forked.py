"""Work in a process of its own, whose memory is free again when it is done.

What a set needs is several times what a library does. The verifier comes behind it, and needs
nothing of that.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from cargo_strip_hook.core import lifetime
from cargo_strip_hook.engines.worker import possible

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


def forked(work: Callable[[_Asked], _Answer], asked: _Asked) -> _Answer:
    """What `work` returns, or raises; where no process can be forked it is called here.

    Its answer is pickled. There may be no other threads. Locks that this process holds are held
    until the other one has ended, too.
    """
    if not possible():
        return work(asked)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child would write it, too
    answers, answering = os.pipe()
    life, living = os.pipe()  # the other end of `life` is closed when this process is gone
    parent = os.getpid()
    number = os.fork()
    if number == 0:
        try:
            # the terminal interrupts both processes: the parent reports it, and ends this one
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.close(answers)
            os.close(living)
            lifetime.serve(parent, lambda: os.read(life, 1))
            _serve(work, asked, answering)
        finally:
            os._exit(0)
    os.close(answering)
    os.close(life)
    status = None
    try:
        with os.fdopen(answers, "rb") as stream:
            answer: _Answer | Exception = pickle.load(stream)
    except (EOFError, pickle.UnpicklingError):
        _, status = os.waitpid(number, 0)
        raise lifetime.died(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0) from None
    finally:
        os.close(living)
        if status is None:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM)  # it has nothing more to do, or we have not
            os.waitpid(number, 0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(work: Callable[[_Asked], _Answer], asked: _Asked, answering: int) -> None:
    answer: _Answer | Exception
    try:
        answer = work(asked)
    except Exception as e:
        answer = e
    with os.fdopen(answering, "wb") as stream:
        pickle.dump(answer, stream)


__all__ = ["forked"]
