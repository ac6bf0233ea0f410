"""The same work on several values, several at a time, each in a process of its own."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from cargo_strip_hook.core import lifetime

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_Value = TypeVar("_Value")
_Result = TypeVar("_Result")


def spread(
    function: Callable[[_Value], _Result], values: Sequence[_Value], at_a_time: int
) -> Iterator[_Result]:
    """What `function` makes of each value, in their order; results have to be picklable.

    Works in this process where there is one value, one process, or the system cannot fork. Raises
    what `function` raises, `StripHookError` for a process that ended before its work was done. All
    processes have ended when the generator is closed.
    """
    if min(at_a_time, len(values)) < 2 or not hasattr(os, "fork"):
        yield from map(function, values)
        return
    from multiprocessing.connection import wait

    waiting = deque(range(len(values)))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    done: dict[int, object] = {}
    try:
        for number in range(len(values)):
            while number not in done:
                while waiting and len(running) < at_a_time:
                    first = waiting.popleft()
                    try:
                        connection, process = _start(function, values[first])
                    except OSError:  # no room for another process
                        done[first] = function(values[first])
                    else:
                        running[connection] = first, process
                for ready in wait(list(running)) if running else ():
                    connection = cast("Connection", ready)
                    finished, process = running[connection]
                    done[finished] = _answer(connection, process)
                    del running[connection]
            result = done.pop(number)
            if isinstance(result, Exception):
                raise result
            yield cast("_Result", result)
    finally:
        for connection, (_, process) in running.items():
            process.kill()
            connection.close()
            process.join()


def _start(function: Callable[[_Value], _Result], value: _Value) -> tuple[Connection, BaseProcess]:
    import multiprocessing

    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(its, os.getpid(), function, value), daemon=True)
    try:
        with warnings.catch_warnings():
            # a thread that shows progress is no harm: the other process says nothing
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except BaseException:
        mine.close()
        raise
    finally:
        its.close()
    return mine, process


def _answer(connection: Connection, process: BaseProcess) -> object:
    try:
        result: object = connection.recv()
    except EOFError:
        process.join()
        result = lifetime.died(max(0, -(process.exitcode or 0)))
    connection.close()
    process.join()
    return result


def _work(
    connection: Connection, parent: int, function: Callable[[_Value], _Result], value: _Value
) -> None:
    with suppress(KeyboardInterrupt, OSError):  # the parent is gone, or wants no answer
        lifetime.serve(parent)
        try:
            result: object = function(value)
        except Exception as e:
            result = e
        connection.send(result)
    os._exit(0)


__all__ = ["spread"]
