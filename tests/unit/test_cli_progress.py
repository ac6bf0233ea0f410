"""Progress: when it is told, how, and that nothing is left of it."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest

from cargo_strip_hook.cli import progress as module
from cargo_strip_hook.cli.console import Console
from cargo_strip_hook.cli.progress import Progress, Style, choose_style
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.pipeline.strip import Phase
from cargo_strip_hook.present.terminal import Shell

PHASES = [Phase(Path("out/libfoo.a"), name, 23_100_000) for name in ("prelink", "verify")]


@pytest.mark.parametrize(
    ("environment", "terminal", "silent", "style"),
    [
        ({}, True, False, "display"),
        ({}, False, False, "lines"),
        ({}, True, True, "none"),
        ({"TERM": "dumb"}, True, False, "lines"),
        ({"CI": "true"}, True, False, "lines"),
        ({"CARGO_TERM_PROGRESS_WHEN": "auto"}, True, False, "display"),
        ({"CARGO_TERM_PROGRESS_WHEN": "never"}, True, False, "none"),
        ({"CARGO_TERM_PROGRESS_WHEN": "always"}, False, False, "display"),
        ({"CARGO_TERM_PROGRESS_WHEN": "always"}, False, True, "none"),
    ],
)
def test_styles(environment: dict[str, str], terminal: bool, silent: bool, style: Style) -> None:
    assert choose_style(environment, is_terminal=terminal, is_silent=silent) == style


def test_a_style_of_no_kind() -> None:
    with pytest.raises(UsageError, match="CARGO_TERM_PROGRESS_WHEN is `often`"):
        choose_style({"CARGO_TERM_PROGRESS_WHEN": "often"}, is_terminal=True)


def told(style: Style, *, until: str = "") -> str:
    """What is written of two phases; the first takes until `until` was written."""
    stream = io.StringIO()
    threads = threading.active_count()
    shown = Progress(Console(Shell(stream)), style)
    shown.observe(PHASES[0])
    end = time.monotonic() + 20
    while until not in stream.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    shown.observe(PHASES[1])
    shown.end()
    assert threading.active_count() == threads
    shown.end()
    return stream.getvalue()


def test_short_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY", 1000)
    assert told("lines") == told("display") == ""


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY", 0)
    assert told("lines", until="\n") == (
        "  Prelinking libfoo.a (23.1 MB)\n   Verifying libfoo.a (23.1 MB)\n"
    )
    assert told("none") == ""


def test_a_display_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY", 0)
    said = told("display", until="Prelinking libfoo.a (23.1 MB)")
    assert "Verifying libfoo.a (23.1 MB)" in said
    # one line, erased at the end
    assert said.count("\n") == 1
    assert said.endswith("\x1b[1A\x1b[2K")
