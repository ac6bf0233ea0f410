"""A small C preprocessor: from a header to the tokens a compiler for the target would see.

What differs from a compiler on purpose: system headers are never read (their types are injected
by the parser, see `cheader`), so nothing but the header itself has to be on the machine. Sections
are those of ISO C11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cargo_strip_hook.errors import HeaderError
from cargo_strip_hook.exports.ctokens import Source, Token, spell, tokenize
from cargo_strip_hook.exports.expansion import MacroTable, closing_parenthesis
from cargo_strip_hook.exports.macros import SYSTEM_HEADERS, predefined, system_header_macros
from cargo_strip_hook.exports.ppexpr import evaluate
from cargo_strip_hook.files import read_bytes
from cargo_strip_hook.target import Target

_MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """The tokens of a header and what had to be passed over."""

    tokens: tuple[Token, ...]
    warnings: tuple[str, ...]


class _File(NamedTuple):
    path: Path
    source: Source
    lines: list[list[Token]]


@dataclass(slots=True)
class _Condition:
    where: str
    outer: bool  # the group around this one is live
    live: bool
    taken: bool
    seen_else: bool = False


def preprocess(
    header: Path,
    *,
    target: Target,
    include_dirs: Sequence[Path] = (),
    defines: Sequence[str] = (),
    cxx: bool = False,
) -> Preprocessed:
    """Run the preprocessor over `header` as a compiler for `target` would.

    `defines` are written as for a compiler's ``-D``: ``NAME``, ``NAME=VALUE`` or
    ``NAME(x)=VALUE``. Raises `HeaderError` with file and line; `UsageError` for a define that is
    none.
    """
    state = _Preprocessor(header, target, include_dirs, defines, cxx)
    state.run(header)
    return Preprocessed(tuple(state.output), tuple(state.warnings))


class _Preprocessor:
    def __init__(
        self,
        header: Path,
        target: Target,
        include_dirs: Sequence[Path],
        defines: Sequence[str],
        cxx: bool,
    ) -> None:
        self.target, self.cxx = target, cxx
        self.home = header.parent
        self.include_dirs = tuple(include_dirs)
        self.macros = MacroTable(predefined(target, cxx=cxx))
        self.files: dict[Path, _File] = {}
        self.once: set[Path] = set()
        self.output: list[Token] = []
        self.pending: list[Token] = []
        self.warnings: list[str] = []
        self.depth = 0
        self.system_seen = False
        for define in defines:
            self.macros.define_from_text(define)

    def flush(self) -> None:
        """Expand the text collected so far: a call may go over several lines."""
        if self.pending:
            self.output += self.macros.expand(self.pending)
            self.pending = []

    # Files (6.10.2) ---------------------------------------------------------------------------

    def run(self, header: Path) -> None:
        source = Source(str(header), True)
        try:
            self.file(header, source)
        except OSError as e:
            raise HeaderError(f"the header `{header}` cannot be read: {e.strerror}") from e
        self.flush()

    def file(self, path: Path, source: Source) -> None:
        if path in self.once:
            return
        known = self.files.get(path)
        if known is None:
            text = read_bytes(path).decode("utf-8-sig", errors="replace")
            known = self.files[path] = _File(path, source, tokenize(text, source))
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise HeaderError(f"{source.name}: includes itself without an end")
        stack: list[_Condition] = []
        live = True
        for line in known.lines:
            if line[0].text != "#" or line[0].kind != "p":
                if live:
                    self.pending += line
            elif len(line) > 1:
                live = self.directive(known, line, stack, live)
        if stack:
            raise HeaderError(f"{stack[-1].where}: the `#if` has no `#endif`")
        self.depth -= 1

    def directive(
        self, file: _File, line: list[Token], stack: list[_Condition], live: bool
    ) -> bool:
        """Obey one directive; returns whether the lines after it are live."""
        word, rest = line[1].text, line[2:]
        where = line[0].where
        if word in {"if", "ifdef", "ifndef"}:
            value = live and self.condition(word, rest, where)
            stack.append(_Condition(where, live, value, value))
            return value
        if word in {"elif", "elifdef", "elifndef", "else", "endif"}:
            if not stack:
                raise HeaderError(f"{where}: `#{word}` without `#if`")
            return self.branch(word, rest, where, stack)
        if not live:
            return False
        if word == "define":
            self.flush()
            self.macros.define(rest, where)
        elif word == "undef":
            self.flush()
            if rest:
                self.macros.undefine(rest[0].text)
        elif word in {"include", "include_next", "import"}:
            self.include(file, rest, where, once=word == "import")
        elif word == "pragma":
            if rest and rest[0].text == "once":
                self.once.add(file.path)
        elif word == "error":
            raise HeaderError(
                f"{where}: #error {spell(rest)}",
                help="a macro the header asks for is set with -D NAME[=VALUE]",
            )
        elif word not in {"warning", "line", "ident", "sccs", "embed"} and line[1].kind != "n":
            raise HeaderError(f"{where}: `#{word}` is no preprocessor directive")
        return True

    def branch(self, word: str, rest: list[Token], where: str, stack: list[_Condition]) -> bool:
        top = stack[-1]
        if word == "endif":
            stack.pop()
            return top.outer
        if top.seen_else:
            raise HeaderError(f"{where}: `#{word}` after `#else`")
        if word == "else":
            top.seen_else = True
            top.live = top.outer and not top.taken
        elif top.taken or not top.outer:
            top.live = False  # the condition of a branch that cannot be taken is not evaluated
        else:
            top.live = self.condition(word.removeprefix("el"), rest, where)
        top.taken = top.taken or top.live
        return top.live

    def condition(self, word: str, rest: list[Token], where: str) -> bool:
        if word == "if":
            if not rest:
                raise HeaderError(f"{where}: `#if` needs an expression")
            expanded = self.macros.expand(rest, condition=True)
            return evaluate(self.queries(expanded, where), where, cxx=self.cxx)
        if not rest or rest[0].kind != "i":
            raise HeaderError(f"{where}: `#{word}` needs a name")
        return self.macros.is_defined(rest[0].text) == (word == "ifdef")

    def queries(self, tokens: list[Token], where: str) -> list[Token]:
        """``defined X``, ``__has_include(…)`` and the like replaced by their answers.

        Also those that macros expand to, as GCC and clang have it (6.10.1 leaves it undefined).
        """
        out: list[Token] = []
        at = 0
        while at < len(tokens):
            token = tokens[at]
            at += 1
            if token.kind != "i" or not self.macros.is_query(token.text):
                out.append(token)
                continue
            if at < len(tokens) and tokens[at].text == "(":
                end = closing_parenthesis(tokens, at)
                inner, at = tokens[at + 1 : end], end + 1
            else:
                inner, at = tokens[at : at + 1], at + 1
            if not inner:
                raise HeaderError(f"{where}: `{token.text}` needs a name")
            if token.text == "defined":
                answer = self.macros.is_defined(inner[0].text)
            elif token.text.startswith("__has_include"):
                answer = self.has_include(inner, Path(where.rpartition(":")[0]).parent)
            else:
                answer = False
            out.append(token._replace(kind="n", text=str(int(answer))))
        return out

    def has_include(self, tokens: list[Token], folder: Path) -> bool:
        name, angled = _include_name(tokens)
        if not name:
            name, angled = _include_name(self.macros.expand(tokens))
        return name in SYSTEM_HEADERS or self.find(name, folder, angled) is not None

    def include(self, file: _File, rest: list[Token], where: str, *, once: bool) -> None:
        name, angled = _include_name(rest)
        if not name:
            name, angled = _include_name(self.macros.expand(rest))
        if not name:
            raise HeaderError(f"{where}: `#include {spell(rest)}` names no file")
        path = None if name in SYSTEM_HEADERS else self.find(name, file.path.parent, angled)
        if path is None:
            self.skip(name, angled, where)
            return
        # A foreign header that is found gives types, but its functions are not this library's.
        ours = not angled or self.home.resolve() in path.resolve().parents
        self.file(path, Source(str(path), file.source.public and ours))
        if once:
            self.once.add(path)

    def find(self, name: str, folder: Path, angled: bool) -> Path | None:
        folders = [] if angled else [folder]
        folders += self.include_dirs
        # A header beside the C library's own would drag the whole system in.
        if not angled or not (self.home / "stdio.h").exists():
            folders.append(self.home)
        for place in folders:
            path = place / name
            if path.is_file():
                return path
        return None

    def skip(self, name: str, angled: bool, where: str) -> None:
        if not self.system_seen:
            self.system_seen = True
            self.macros.predefine(system_header_macros(self.target))
        if not angled and name not in SYSTEM_HEADERS:
            self.warnings.append(f"{where}: `{name}` is not found; what it declares is not seen")


def _include_name(tokens: list[Token]) -> tuple[str, bool]:
    """The file of an ``#include`` and whether it is written with angle brackets."""
    if tokens and tokens[0].kind == "s":
        return tokens[0].text[1:-1], False
    if len(tokens) > 2 and tokens[0].text == "<":
        name = ""
        for token in tokens[1:]:
            if token.text == ">":
                return name, True
            name += " " * token.space + token.text
    return "", False
