"""Progress: what is being done, where it takes longer than a second.

On a terminal a display that disappears again, elsewhere plain lines.

Rules: the Cargo Book, "Configuration" (`term.progress.when`, CARGO_TERM_PROGRESS_WHEN).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.present.plain import plain

if TYPE_CHECKING:
    from threading import Thread

    from cargo_strip_hook.cli.console import Console
    from cargo_strip_hook.pipeline.strip import Phase

Style = Literal["display", "lines", "none"]
DELAY = 1.0  # seconds of work before anything is shown
_VERBS = {
    "exports": "Deciding",
    "prelink": "Prelinking",
    "verify": "Verifying",
    "replace": "Replacing",
}


def choose_style(
    environment: Mapping[str, str], *, is_terminal: bool, is_silent: bool = False
) -> Style:
    """How progress is shown; not at all where `is_silent` (quiet, or JSON).

    Raises `UsageError` for a CARGO_TERM_PROGRESS_WHEN that cargo refuses, too.
    """
    when = environment.get("CARGO_TERM_PROGRESS_WHEN") or "auto"
    if when not in ("auto", "always", "never"):
        raise UsageError(
            f"CARGO_TERM_PROGRESS_WHEN is `{when}`", help="it must be auto, always or never"
        )
    if is_silent or when == "never":
        return "none"
    if when == "always":
        return "display"
    # as for cargo: no display in CI, nor on a terminal that cannot move its cursor
    able = is_terminal and environment.get("TERM") != "dumb" and not environment.get("CI")
    return "display" if able else "lines"


class Progress:
    """Shows what is being done. It has a thread only while there is something to show."""

    def __init__(self, console: Console, style: Style) -> None:
        self._shell = console.shell
        self._style = style
        self._thread: Thread | None = None
        self._words = ("", "")
        self._display: Any = None
        self._visible = False

    def observe(self, phase: Phase) -> None:
        """Show a phase of the pipeline."""
        from cargo_strip_hook.core.text import size

        self.say(_VERBS[phase.name], f"{phase.library.name} ({size(phase.size)})")

    def say(self, verb: str, text: str) -> None:
        """Show this from now on."""
        if self._style == "none":
            return
        from threading import Event, Lock, Thread

        if self._thread is None:
            self._words = verb, text
            self._lock, self._ended = Lock(), Event()
            thread = Thread(target=self._run, daemon=True)
            with suppress(RuntimeError, MemoryError):  # no room for a thread: nothing is shown
                thread.start()
                self._thread = thread
            return
        with self._lock:
            self._words = verb, text
            if self._visible:
                self._show()

    def _run(self) -> None:
        """The thread: waits for the delay, then keeps the display moving."""
        if self._ended.wait(DELAY):
            return
        self._begin()
        while not self._ended.wait(0.1):
            if self._display is not None:
                self._display.refresh()

    def _begin(self) -> None:
        if self._style == "display":
            from rich.console import Console as RichConsole
            from rich.progress import Progress as Display
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
            )
            to = RichConsole(
                file=self._shell.stream,
                force_terminal=True,
                no_color=not self._shell.color,
                width=_width(os.environ),
            )
            display = Display(*columns, console=to, transient=True, auto_refresh=False)
            display.add_task("", total=None)
            display.start()
            self._display = display
        with self._lock:
            self._visible = True
            self._show()

    def _show(self) -> None:
        verb, text = self._words
        if self._display is not None:
            [task] = self._display.task_ids
            self._display.update(task, description=plain(f"{verb} {text}"), refresh=True)
        elif self._style == "lines":
            self._shell.status(verb, text)

    def end(self) -> None:
        """End the display and the thread."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
        if self._display is not None:
            self._display.stop()
        self._thread, self._display, self._visible = None, None, False


def _width(environment: Mapping[str, str]) -> int | None:
    text = environment.get("CARGO_TERM_PROGRESS_WIDTH", "")
    return int(text) if text.isdigit() and int(text) else None


def open_progress(console: Console) -> Progress:
    """The progress that the environment asks for. Raises `UsageError`."""
    stream = console.shell.stream
    is_silent = console.json or console.shell.is_quiet
    style = choose_style(os.environ, is_terminal=stream.isatty(), is_silent=is_silent)
    return Progress(console, style)


@contextmanager
def progress(console: Console, verb: str, library: Path) -> Iterator[None]:
    """Show progress while the body works on a library."""
    from cargo_strip_hook.core.text import size

    shown = open_progress(console)
    try:
        if library.is_file():
            shown.say(verb, f"{library.name} ({size(library.stat().st_size)})")
        yield
    finally:
        shown.end()
