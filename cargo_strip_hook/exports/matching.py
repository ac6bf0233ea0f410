"""Which names of an archive a pattern matches: by the C name, with and without decorations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cargo_strip_hook.core.target import Target

if TYPE_CHECKING:
    from cargo_strip_hook.exports.patterns import Pattern

# "Decorated Names" (Microsoft): __stdcall, __fastcall, __vectorcall. On x86_64 only the last.
_DECORATED_X86 = re.compile(r"_([^@?]+)@\d+|@([^@?]+)@\d+|([^@?]+)@@\d+")
_DECORATED = re.compile(r"([^@?]+)@@\d+")
_GRAM = 4


class Names:
    """The global definitions of an archive, by all names that a person may use."""

    def __init__(self, defined: Collection[str], target: Target) -> None:
        self.defined, self.prefix = defined, target.symbol_prefix
        self.decorated: re.Pattern[str] | None = None
        if target.object_format == "coff":
            self.decorated = _DECORATED_X86 if self.prefix else _DECORATED
        self._plain: dict[str, list[str]] | None = None

    def undecorated(self, name: str) -> str:
        """The C name in a decorated one, "" where the name is none."""
        if self.decorated is None or "@" not in name:
            return ""
        m = self.decorated.fullmatch(name)
        return m[m.lastindex] if m and m.lastindex else ""

    def spellings(self, name: str) -> Iterator[str]:
        """The spellings of a symbol that patterns may match: its C name, also with decoration."""
        if name.startswith(self.prefix):
            yield name[len(self.prefix) :]
        elif self.decorated is not None:
            yield name
        plain = self.undecorated(name)
        if plain:
            yield plain

    def decorations_of(self, name: str) -> list[str]:
        """The decorated definitions of a C name: ``_f@8``, ``@f@8``, ``f@@8``."""
        if self.decorated is None:
            return []
        if self._plain is None:
            self._plain = {}
            for symbol in self.defined:
                plain = self.undecorated(symbol)
                if plain:
                    self._plain.setdefault(plain, []).append(symbol)
        return self._plain.get(name, [])

    def exact(self, text: str, *, raw: bool = False) -> list[str]:
        """The definitions that a name means: as a C name, else as one of the object file.

        An undecorated name means decorated ones, as for link.exe. `raw`: as one of the object file
        first.
        """
        spelled = self.prefix + text
        order = (spelled, text)
        if raw:  # Apple's lists have no other names
            order = (text, text) if self.decorated is None else (text, spelled)
        for name in order:
            if name in self.defined:
                return [name]
        return self.decorations_of(text)


def selected(patterns: Sequence[Pattern], names: Names) -> list[list[str]]:
    """For each pattern, the definitions that it means, in the archive's order."""
    matches: list[list[str]] = [[] for _ in patterns]
    open_ones: list[int] = []
    for index, pattern in enumerate(patterns):
        pattern.check()
        if pattern.exact or (pattern.text[0] == "?" and pattern.text in names.defined):
            matches[index] = names.exact(pattern.text, raw=pattern.raw)
        else:
            open_ones.append(index)
    if not open_ones:
        return matches
    globs = {i: patterns[i] for i in open_ones if not patterns[i].is_regex}
    _globs(globs, names, matches)
    for index in open_ones:
        if patterns[index].is_regex:
            matches[index] = _regex(patterns[index], names)
        if not matches[index] and not patterns[index].raw and names.prefix:
            # as a name of the object file, as nm shows it
            match = patterns[index].matcher() if not patterns[index].is_regex else None
            if match is not None:
                matches[index] = [n for n in names.defined if match(n)]
    return matches


def _regex(pattern: Pattern, names: Names) -> list[str]:
    spelled = [
        (name, spelling)
        for name in names.defined
        for spelling in ((name,) if pattern.raw else names.spellings(name))
    ]
    hits = pattern.matching([s for _, s in spelled])
    return list(dict.fromkeys(name for (name, _), hit in zip(spelled, hits, strict=True) if hit))


def _globs(globs: dict[int, Pattern], names: Names, matches: list[list[str]]) -> None:
    """Match glob patterns. If there are many, a name is tried only with those that may match it.

    Each pattern is filed under the rarest four letters that a name must have to match.
    """
    matchers: dict[int, Callable[[str], bool]] = {}  # compiled when first used
    grams_of = {index: _grams(pattern.text) for index, pattern in globs.items()}
    often = Counter(gram for grams in grams_of.values() for gram in grams)
    filed: dict[str, list[int]] = {}
    always: list[int] = []
    for index, grams in grams_of.items():
        if grams and len(globs) > 16:
            filed.setdefault(min(grams, key=often.__getitem__), []).append(index)
        else:
            always.append(index)
    for name in names.defined if filed else _promising(list(globs.values()), names):
        spellings = list(names.spellings(name))
        for index in _candidates(name, filed, always):
            match = matchers.get(index)
            if match is None:
                match = matchers[index] = globs[index].matcher()
            asked: Iterable[str] = (name,) if globs[index].raw else spellings
            if any(match(s) for s in asked):
                matches[index].append(name)


def _promising(globs: Sequence[Pattern], names: Names) -> Iterable[str]:
    """The names that any of a few patterns may match, found by one expression for all."""
    if names.decorated is not None or any(g.raw for g in globs):
        return names.defined  # a name has several spellings
    import fnmatch

    match = re.compile("|".join(fnmatch.translate(g.text) for g in globs)).match
    prefix = names.prefix
    start = len(prefix)
    return [n for n in names.defined if n.startswith(prefix) and match(n, start)]


def _candidates(name: str, filed: dict[str, list[int]], always: list[int]) -> Iterable[int]:
    """The patterns that may match a name, or another spelling, which is always a part of it."""
    if not filed:
        return always
    # four iterators, each one letter ahead
    grams = map("".join, zip(*(name[start:] for start in range(_GRAM)), strict=False))
    hits = filed.keys() & set(grams)
    return [*always, *dict.fromkeys(index for gram in hits for index in filed[gram])]


def _grams(text: str) -> set[str]:
    """The strings of `_GRAM` letters that each name has which a glob matches."""
    chunks = re.split(r"\[.[^\]]*\]|[*?]", text)
    return {c[start : start + _GRAM] for c in chunks for start in range(len(c) - _GRAM + 1)}
