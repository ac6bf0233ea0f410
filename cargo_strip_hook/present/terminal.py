"""Lines as cargo writes them: a status verb, ``warning:``, ``error:``, ``help:``; all on stderr.

Rules: the Cargo Book, "Configuration" (`term.*`); cargo's `core/shell.rs` (width and colours);
no-color.org and force-color.org.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TextIO

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.present.plain import fit, plain

ColorChoice = Literal["auto", "always", "never"]
COLOR_CHOICES: tuple[ColorChoice, ...] = ("auto", "always", "never")

_RESET = "\x1b[0m"
_STYLES = {
    "status": "\x1b[1m\x1b[32m",
    "note": "\x1b[1m\x1b[36m",
    "help": "\x1b[1m\x1b[36m",
    "warning": "\x1b[1m\x1b[33m",
    "error": "\x1b[1m\x1b[31m",
}


class Verbosity(IntEnum):
    """How much is said: only errors, what happens, or everything."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


def choose_color(flag: str | None, environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether to colour: --color, CARGO_TERM_COLOR, NO_COLOR, FORCE_COLOR, then the terminal.

    Raises `UsageError` for a CARGO_TERM_COLOR that cargo refuses too.
    """
    configured = environment.get("CARGO_TERM_COLOR") or None
    if flag is None and configured is not None and configured not in COLOR_CHOICES:
        raise UsageError(
            f"CARGO_TERM_COLOR is `{configured}`", help="it must be auto, always or never"
        )
    choice = flag or configured or "auto"
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal and environment.get("TERM") != "dumb"


def choose_verbosity(verbose: int, quiet: bool, environment: Mapping[str, str]) -> Verbosity:
    """-v and -q over CARGO_TERM_VERBOSE and CARGO_TERM_QUIET. Raises `UsageError` for both."""
    if verbose and quiet:
        raise UsageError("cannot set both --verbose and --quiet")
    if verbose:
        return Verbosity.VERBOSE
    if quiet:
        return Verbosity.QUIET
    set_verbose = _boolean("CARGO_TERM_VERBOSE", environment)
    set_quiet = _boolean("CARGO_TERM_QUIET", environment)
    if set_verbose and set_quiet:
        raise UsageError("cannot set both CARGO_TERM_VERBOSE and CARGO_TERM_QUIET")
    if set_verbose:
        return Verbosity.VERBOSE
    return Verbosity.QUIET if set_quiet else Verbosity.NORMAL


def _boolean(name: str, environment: Mapping[str, str]) -> bool:
    text = environment.get(name, "")
    if text not in ("", "true", "false"):
        raise UsageError(f"{name} is `{text}`", help="it must be true or false")
    return text == "true"


@dataclass(frozen=True, slots=True)
class Shell:
    """Where lines for people go, and how many of them.

    A text is one line: characters that cannot be seen are escaped (see `plain`).
    """

    stream: TextIO
    color: bool = False
    verbosity: Verbosity = Verbosity.NORMAL

    @classmethod
    def open(cls, stream: TextIO, color: str | None, verbose: int, quiet: bool) -> Shell:
        """From the options and the environment. Raises `UsageError`."""
        is_terminal = stream.isatty()
        return cls(
            stream,
            choose_color(color, os.environ, is_terminal=is_terminal),
            choose_verbosity(verbose, quiet, os.environ),
        )

    @property
    def is_verbose(self) -> bool:
        return self.verbosity is Verbosity.VERBOSE

    @property
    def is_quiet(self) -> bool:
        return self.verbosity is Verbosity.QUIET

    def status(self, verb: str, text: str) -> None:
        """``   Stripping libfoo.a``: the verb right-aligned in twelve columns, bold green."""
        if self.verbosity > Verbosity.QUIET:
            self._write(f"{self._style('status', f'{verb:>12}')} {plain(text)}")

    def detail(self, verb: str, text: str) -> None:
        """A status line that only -v shows."""
        if self.is_verbose:
            self.status(verb, text)

    def warning(self, text: str, help: Iterable[str] = ()) -> None:
        """``warning:`` and its ``help:`` lines; -q hides them, as cargo's does."""
        if self.verbosity > Verbosity.QUIET:
            self._labelled("warning", text, help)

    def note(self, text: str) -> None:
        """``note:``, which -q hides."""
        if self.verbosity > Verbosity.QUIET:
            self._labelled("note", text, ())

    def error(self, text: str, help: Iterable[str] = ()) -> None:
        """``error:`` and its ``help:`` lines; always shown."""
        self._labelled("error", text, help)

    def block(self, title: str, lines: Sequence[str]) -> None:
        """Lines of another program, indented under a title."""
        self._write("\n".join([f"  {plain(title)}", *(f"    {plain(line)}" for line in lines)]))

    def more(self, lines: Iterable[str]) -> None:
        """More lines that belong to the one before."""
        for line in lines:
            self._write(f"  {plain(line)}")

    def _labelled(self, label: str, text: str, help: Iterable[str]) -> None:
        self._write(f"{self._style(label, label)}: {plain(text)}")
        self.helps(help)

    def helps(self, lines: Iterable[str]) -> None:
        """``help:`` lines under the last line."""
        for line in lines:
            self._write(f"  {self._style('help', 'help')}: {plain(line)}")

    def _style(self, style: str, text: str) -> str:
        return f"{_STYLES[style]}{text}{_RESET}" if self.color else text

    def _write(self, line: str) -> None:
        try:
            self.stream.write(fit(line, self.stream.encoding or "utf-8") + "\n")
            self.stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass  # a full device: the work goes on
