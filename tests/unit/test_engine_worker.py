"""An engine in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import LinkError, StripHookError
from cargo_strip_hook.core.requests import Engine, PrelinkRequest, PrelinkResult, Statistics, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines import worker as module

fcntl = pytest.importorskip("fcntl")  # as the system that cannot fork has none
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
LINUX = Target.parse("x86_64-unknown-linux-gnu")


class Fake:
    """Answers with the names asked for and its own process; some names are not names."""

    name = "fake"

    def prelink(
        self, request: PrelinkRequest, loaded: Callable[[Sequence[int]], None] | None = None
    ) -> PrelinkResult:
        (name,) = request.exports
        if name == "tell" and loaded is not None:
            loaded([3, 1])
        if name == "refuse":
            raise LinkError("it cannot be", help=("do", "that"))
        if name == "break":
            raise ZeroDivisionError("a defect")
        if name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        return PrelinkResult(request.exports, (str(os.getpid()),), Statistics(members_used=3))


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "engine", lambda _: Fake())


@contextmanager
def started(events: list[str] | None = None, lock: int | None = None) -> Iterator[Engine]:
    said = [] if events is None else events
    with module.in_worker("fake", "elf", lock, lambda: said.append("meanwhile")) as (works, _):
        yield works


def asked(works: Engine, name: str) -> PrelinkResult:
    return works.prelink(PrelinkRequest(Path("a"), Path("b"), LINUX, (name,), Strip.NONE))


def test_it_answers_from_another_process_which_then_is_gone() -> None:
    events: list[str] = []
    with started(events) as works:
        first, second = asked(works, "one"), asked(works, "interrupt")
        process = int(first.undefined[0])
        assert process != os.getpid()
        os.kill(process, 0)
    assert (first.exports, second.exports) == (("one",), ("interrupt",))
    assert first.statistics == Statistics(members_used=3)
    assert events == ["meanwhile"] * 2
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_what_it_raises_is_raised_here() -> None:
    with started() as works:
        with pytest.raises(LinkError, match="it cannot be") as error:
            asked(works, "refuse")
        assert error.value.help == ("do", "that")
        with pytest.raises(ZeroDivisionError, match="a defect"):
            asked(works, "break")
        assert asked(works, "goes on").exports == ("goes on",)


def test_a_process_that_dies_is_told() -> None:
    with (
        started() as works,
        pytest.raises(StripHookError, match="ended before its work was done"),
    ):
        asked(works, "die")


def test_it_can_be_stopped_before() -> None:
    with module.in_worker("fake", "elf", None, lambda: None) as (works, stop):
        process = int(asked(works, "one").undefined[0])
        stop()
        stop()
        with pytest.raises(StripHookError, match="ended before its work was done"):
            asked(works, "two")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_it_is_gone_after_an_error_here() -> None:
    process = 0
    with pytest.raises(KeyboardInterrupt), started() as works:
        process = int(asked(works, "one").undefined[0])
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_members_are_told_before_the_answer() -> None:
    said: list[object] = []
    with started() as works:
        request = PrelinkRequest(Path("a"), Path("b"), LINUX, ("tell",), Strip.NONE)
        said.append(works.prelink(request, lambda m: said.append(tuple(m))).exports)
        assert asked(works, "tell").exports == ("tell",)  # and need not be listened to
    assert said == [(3, 1), ("tell",)]


def test_one_that_was_started_ahead_is_taken() -> None:
    module.start()
    module.start()  # one is enough
    (waiting,) = module._waiting
    with started() as works:
        assert int(asked(works, "one").undefined[0]) == waiting.number
        assert not module._waiting
    with pytest.raises(ProcessLookupError):
        os.kill(waiting.number, 0)


def test_one_that_nobody_needed_is_gone() -> None:
    module.start()
    (waiting,) = module._waiting
    module.dismiss()
    with pytest.raises(ProcessLookupError):
        os.kill(waiting.number, 0)
    module.dismiss()


@pytest.mark.parametrize("ahead", [False, True])
def test_it_holds_the_lock_as_long_as_it_lives(tmp_path: Path, ahead: bool) -> None:
    """If this process was killed, nobody could take the lock while something may be written."""
    if ahead:
        module.start()
    file = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    with started(lock=file) as works:
        asked(works, "one")  # it has received everything
        os.close(file)
        other = os.open(tmp_path / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_an_engine_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> Engine:
        raise LinkError("there is no such thing")

    monkeypatch.setattr(module, "engine", broken)
    with started() as works, pytest.raises(LinkError, match="no such thing"):
        asked(works, "one")


def test_one_that_is_gone_before_it_is_asked() -> None:
    module.start()
    os.kill(module._waiting[0].number, signal.SIGKILL)
    with (
        started() as works,
        pytest.raises(StripHookError, match="ended before its work was done"),
    ):
        asked(works, "one")
