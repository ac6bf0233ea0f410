"""Patterns of symbol names, and which names they choose.

Patterns are written with C names, without the underscore that Mach-O puts before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.requests import OriginKind
from cargo_strip_hook.exports.matching import Names, selected


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of symbol names. `raw`: spelled as in the object file, as in Apple's lists."""

    text: str
    kind: OriginKind = "pattern"
    where: str = ""
    raw: bool = False

    @property
    def exact(self) -> bool:
        """Whether it is a single name."""
        return not self.is_regex and not any(c in self.text for c in "*?[")

    @property
    def is_regex(self) -> bool:
        """Whether it is ``/…/``."""
        return len(self.text) > 2 and self.text[0] == "/" and self.text[-1] == "/"

    def matcher(self) -> Callable[[str], bool]:
        """A function that matches a name. A regex has to match all of it. Raises `UsageError`."""
        self.check()
        if self.exact:
            return self.text.__eq__
        if self.is_regex:
            return lambda name: self.matching([name])[0]
        import fnmatch

        whole = re.compile(fnmatch.translate(self.text))
        return lambda name: whole.fullmatch(name) is not None

    def matching(self, names: Sequence[str]) -> list[bool]:
        """Whether a regex matches each whole name. Raises `UsageError`."""
        from cargo_strip_hook.exports.regexes import matches

        return matches(self.text[1:-1], names)

    def check(self) -> None:
        """Raise `UsageError` for what can be neither a name nor a pattern."""
        if self.is_regex:
            return
        if self.text.startswith("?") and "@" in self.text:
            return  # a C++ name of MSVC
        if not self.text.strip():
            raise UsageError("a pattern of symbol names is empty")
        if self.kind != "file" and any(c.isspace() for c in self.text):
            raise UsageError(
                f"`{self.text}` is no symbol name: there is a space in it",
                help="give the option once for each name",
            )
        # to fnmatch, an unclosed bracket is a letter, which no symbol name has
        if "[" in re.sub(r"\[(?:!.|[^!])[^\]]*\]", "", self.text):
            raise UsageError(f"`{self.text}` is no pattern: a `[` has no `]`")


def select_all(
    patterns: Sequence[Pattern], names: Names
) -> tuple[dict[str, list[Pattern]], list[Pattern]]:
    """The patterns by the names that they match, and the patterns that match nothing.

    Raises `UsageError` for what is no pattern.
    """
    chosen: dict[str, list[Pattern]] = {}
    idle: list[Pattern] = []
    for pattern, matches in zip(patterns, selected(patterns, names), strict=True):
        if not matches:
            idle.append(pattern)
        for name in matches:
            chosen.setdefault(name, []).append(pattern)
    return chosen, idle
