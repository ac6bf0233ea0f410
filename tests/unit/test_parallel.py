"""The same work on several values, in processes of their own."""

from __future__ import annotations

import faulthandler
import os
import signal
import time

import pytest

from cargo_strip_hook.core.errors import StripHookError, VerifyError
from cargo_strip_hook.pipeline.parallel import spread

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def slow_first(number: int) -> tuple[int, int]:
    time.sleep(0.2 if number == 0 else 0)
    return number, os.getpid()


@pytest.mark.parametrize("at_a_time", [1, 2, 9])
def test_results_come_in_the_order_of_the_values(at_a_time: int) -> None:
    made = list(spread(slow_first, range(5), at_a_time))
    assert [number for number, _ in made] == [0, 1, 2, 3, 4]
    others = {process for _, process in made} - {os.getpid()}
    assert len(others) == (0 if at_a_time == 1 else 5)


def test_a_result_may_be_large() -> None:
    assert [len(data) for data in spread(bytes, [3_000_000, 5, 2_000_000], 2)] == [
        3_000_000,
        5,
        2_000_000,
    ]


def refused(number: int) -> int:
    if number == 2:
        raise VerifyError("not right", [f"number {number}"])
    return number


def test_errors_are_those_of_the_work() -> None:
    with pytest.raises(VerifyError, match="not right") as caught:
        list(spread(refused, range(5), 2))
    assert caught.value.findings == ("number 2",)


def fails(number: int) -> int:
    return 1 // number


def test_a_mistake_in_the_work_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        list(spread(fails, [1, 0], 2))


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, "ended before its work was done"), (signal.SIGBUS, "was changed while")],
)
def test_a_process_that_is_ended(number: int, said: str) -> None:
    def work(_: int) -> None:
        faulthandler.disable()  # it would tell of the signal
        os.kill(os.getpid(), number)

    with pytest.raises(StripHookError, match=said):
        list(spread(work, [1, 2], 2))


def test_processes_end_with_the_generator() -> None:
    running = spread(lambda number: time.sleep(60 * number) or os.getpid(), [0, 1, 1], 3)
    process = next(running)
    begin = time.monotonic()
    running.close()
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
