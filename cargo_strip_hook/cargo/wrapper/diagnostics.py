"""Diagnostics for cargo, in rustc's format.

Cargo stores them, and shows them again in each build that has nothing to do: they must stay true.

Format: the rustc book, "JSON Output", diagnostics.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, TextIO

from cargo_strip_hook.core.errors import StripHookError, ToolError, VerifyError
from cargo_strip_hook.present.plain import plain

Level = Literal["error", "warning", "note"]
_COLOURS = {"error": "\x1b[1m\x1b[91m", "warning": "\x1b[1m\x1b[93m", "note": "\x1b[1m\x1b[92m"}
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"


def tell(
    stream: TextIO,
    level: Level,
    what: str,
    help: Sequence[str] = (),
    *,
    as_json: bool,
    colour: bool,
) -> None:
    """Write a diagnostic of a level, with its ``help`` lines, to rustc's stderr."""
    help = [plain(line) for line in help]
    text = _rendered(level, what, help, colour=colour)
    if as_json:
        text = json.dumps(_message(level, what, help, text))
    stream.write(text + "\n")
    stream.flush()


def lines_of(error: StripHookError) -> str:
    """All that an error says, without its help, in one text."""
    more = list(error.lines)
    if isinstance(error, VerifyError):
        more += error.findings
    if isinstance(error, ToolError):
        more += error.failure.stderr.splitlines()[-20:]
    return "\n".join([plain(error.head), *(f"  {plain(line)}" for line in more)])


def _rendered(level: Level, what: str, help: Sequence[str], *, colour: bool) -> str:
    head = f"{level}: {what}"
    if colour:
        head = f"{_COLOURS[level]}{level}{_RESET}{_BOLD}: {what}{_RESET}"
    return "\n".join([head, *(f"  = help: {line}" for line in help), ""])


def _message(level: Level, what: str, help: Sequence[str], rendered: str) -> dict[str, Any]:
    def diagnostic(level: str, text: str, children: list[Any], shown: str | None) -> dict[str, Any]:
        return {
            "$message_type": "diagnostic",
            "message": text,
            "code": None,
            "level": level,
            "spans": [],
            "children": children,
            "rendered": shown,
        }

    children = [diagnostic("help", line, [], None) for line in help]
    for child in children:
        del child["$message_type"]
    return diagnostic(level, what, children, rendered)


__all__ = ["Level", "lines_of", "tell"]
