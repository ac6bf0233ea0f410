"""Matching users' regular expressions within a time limit.

Some expressions take exponential time on some names, and nothing can stop Python's `re` within a
process. So expressions of a dangerous form are matched in another process, which ends itself.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cargo_strip_hook.core.errors import ToolError, UsageError
from cargo_strip_hook.core.run import run

# Seconds for one expression and all names of an archive; usual ones need milliseconds.
TIME_LIMIT = 5
# The watchdog is a thread that needs no lock of Python's; it works on every system.
_CHILD = """
import faulthandler, json, os, re, sys
faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True, file=open(os.devnull, "w"))
with open(sys.argv[1], encoding="utf-8") as file:
    text, names = json.load(file)
match = re.compile(text).fullmatch
print("".join("1" if match(name) else "0" for name in names))
"""


def matches(expression: str, names: Sequence[str]) -> list[bool]:
    """Whether the expression matches each whole name.

    Raises `UsageError` where it is no expression, and where it exceeds the time limit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            match = re.compile(expression).fullmatch
            dangerous = is_dangerous(expression)
    except (re.error, RecursionError, OverflowError) as e:
        raise UsageError(f"`/{expression}/` is no regular expression: {e}") from e
    if not dangerous:
        return [match(name) is not None for name in names]
    with tempfile.TemporaryDirectory(prefix="cargo-strip-hook-") as folder:
        path = Path(folder) / "names.json"
        path.write_text(json.dumps([expression, list(names)]), encoding="utf-8")
        argv = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _CHILD, str(path)]
        try:
            done = run([*argv, str(TIME_LIMIT)], timeout=TIME_LIMIT + 30)
        except ToolError as e:
            raise UsageError(
                f"`/{expression}/` does not end within {TIME_LIMIT} s: a repetition in it is "
                "repeated, or many follow each other",
                help="write it without the inner repetition, or as a pattern with `*`",
            ) from e
    return [letter == "1" for letter in done.stdout.strip()]


def is_dangerous(expression: str) -> bool:
    """Whether matching may take exponential time, or a high power of linear time.

    So with a repetition or a choice within a repetition, a back reference, or more than two
    unbounded repetitions. Raises `re.error`.
    """
    try:
        from re import _parser  # type: ignore[attr-defined]
    except ImportError:  # Python 3.10
        import sre_parse as _parser
    loops = [0]
    parsed: Any = _parser.parse(expression)
    return _walk(parsed, inside=False, loops=loops) or loops[0] > 2


def _walk(items: Any, *, inside: bool, loops: list[int]) -> bool:
    for operator, value in items:
        name = str(operator)
        if name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            least, most, body = value
            many = int(most) > 8 and int(most) != int(least)
            if many:
                loops[0] += 1
                if inside:
                    return True
            if _walk(body, inside=inside or int(most) > 8, loops=loops):
                return True
        elif name == "SUBPATTERN":
            if _walk(value[-1], inside=inside, loops=loops):
                return True
        elif name == "BRANCH":
            if inside or any(_walk(b, inside=inside, loops=loops) for b in value[1]):
                return True
        elif name in {"ASSERT", "ASSERT_NOT"}:
            if _walk(value[1], inside=inside, loops=loops):
                return True
        elif name == "ATOMIC_GROUP":
            if _walk(value, inside=inside, loops=loops):
                return True
        elif name.startswith("GROUPREF"):
            return True
    return False
