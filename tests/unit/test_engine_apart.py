"""An engine in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cargo_strip_hook.engines import apart as module
from cargo_strip_hook.errors import LinkError, StripHookError
from cargo_strip_hook.job import Engine, PrelinkRequest, PrelinkResult, Statistics, Strip
from cargo_strip_hook.target import Target

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
LINUX = Target.parse("x86_64-unknown-linux-gnu")


class Fake:
    """Answers with the names asked for and its own process; some names are not names."""

    name = "fake"

    def prelink(self, request: PrelinkRequest) -> PrelinkResult:
        (name,) = request.exports
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
def started(events: list[str] | None = None) -> Iterator[Engine]:
    said = [] if events is None else events
    with module.apart("fake", lambda: None, lambda: said.append("meanwhile")) as works:
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


def test_it_is_gone_after_an_error_here() -> None:
    process = 0
    with pytest.raises(KeyboardInterrupt), started() as works:
        process = int(asked(works, "one").undefined[0])
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
