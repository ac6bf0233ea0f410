"""A small C preprocessor: from a header to the tokens that the target's compiler would see.

One difference from a compiler is intended: system headers are never read (the parser supplies their
types, see `cheader`), so that only the header itself has to be on the machine. Section numbers are
those of ISO C11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.core.files import open_file
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.ctokens import HELP_EXPORT, Source, Token, quoted, tokenize
from cargo_strip_hook.exports.expansion import MacroTable, closing_parenthesis
from cargo_strip_hook.exports.macros import SYSTEM_HEADERS
from cargo_strip_hook.exports.ppexpr import evaluate
from cargo_strip_hook.exports.predefined import Queries, is_known, predefined
from cargo_strip_hook.exports.text import decoded, is_utf16

_MAX_DEPTH = 100
# The most bytes of all included files together: far above real headers.
_MAX_FILES = 20_000
_MAX_LINES = 5_000_000
_MAX_TOKENS = 3_000_000
_MAX_BYTES = 64 << 20
# A name that is reserved for compilers (C11 7.1.3).
_RESERVED = re.compile(r"_[A-Z_]\w*")


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """The tokens of a header, and what was skipped.

    `not_found` are the included files that do not exist, as ``FILE (where)``.
    """

    tokens: tuple[Token, ...]
    warnings: tuple[str, ...]
    not_found: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)  # by #pragma redefine_extname


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
    """Preprocess `header` as a compiler for `target` would.

    `defines` are written as for a compiler's ``-D``: ``NAME``, ``NAME=VALUE`` or
    ``NAME(x)=VALUE``. Raises `HeaderError` with file and line; `UsageError` for a define that is
    none.
    """
    state = _Preprocessor(header, target, include_dirs, defines, cxx)
    try:
        state.run(header)
    except HeaderError as e:
        raise with_missing(e, state.not_found) from None
    state.warn_of_unknown()
    return Preprocessed(
        tuple(state.output), tuple(state.warnings), tuple(state.not_found), state.renamed
    )


def files_of(
    header: Path,
    target: Target,
    include_dirs: Sequence[Path],
    defines: Sequence[str],
    *,
    cxx: bool,
) -> tuple[Path, ...]:
    """The files that `preprocess` reads, up to the first error."""
    state = _Preprocessor(header, target, include_dirs, defines, cxx)
    with suppress(HeaderError, RecursionError):
        state.run(header)
    return tuple(state.files)


def with_missing(error: HeaderError, not_found: Sequence[str]) -> HeaderError:
    """The error with the included files that were not found, which may be its cause."""
    if not not_found or "was not found" in error.what:
        return error
    shown = "; ".join(not_found[:3]) + ("; …" if len(not_found) > 3 else "")
    return HeaderError(
        error.head,
        lines=(*error.lines, f"not found, so that what it defines is not known: {shown}"),
        help=("-I DIR names the folder that an included header is in", *error.help),
    )


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
        self.raw = cxx or not target.is_msvc  # strings
        self.home = header.parent
        self.include_dirs = tuple(include_dirs)
        self.asked = Queries(target, cxx=cxx)
        self.macros = MacroTable(predefined(target, cxx=cxx), self.asked.names)
        self.folders = tuple(p.resolve() for p in (header.parent, *include_dirs))
        self.files: dict[Path, _File] = {}
        self.once: set[Path] = set()
        self.output: list[Token] = []
        self.pending: list[Token] = []
        self.warnings: list[str] = []
        self.not_found: list[str] = []
        self.skipped = set[str]()
        self.renamed: dict[str, str] = {}
        self.tested: dict[str, str] = {}  # names in conditions, and where they come first
        self.undefined: list[str] = []  # those of the last condition that are not defined
        self.asked_in_vain: dict[
            str, str
        ] = {}  # those that hid something after a file was not found
        self.depth = self.entered = self.read_lines = self.read_tokens = 0
        for define in defines:
            self.macros.define_from_text(define)

    def flush(self) -> None:
        """Expand the text collected so far: a macro call may extend over several lines."""
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

    def file(self, path: Path, source: Source, where: str = "") -> None:
        if path in self.once:
            return
        self.entered += 1
        if self.entered > _MAX_FILES:
            raise _too_much(where, f"more than {_MAX_FILES:,} files are included")
        known = self.files.get(path)
        if known is None:
            text = self.text(path, source)
            known = self.files[path] = _File(path, source, tokenize(text, source, raw=self.raw))
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise HeaderError(
                f"{where}: the limit of inclusion is reached: `{source.name}` includes itself "
                f"without an end, or files lie more than {_MAX_DEPTH} deep"
            )
        self.read_lines += len(known.lines)
        if self.read_lines > _MAX_LINES:
            raise _too_much(where, f"the included files have more than {_MAX_LINES:,} lines")
        stack: list[_Condition] = []
        live = True
        for line in known.lines:
            if line[0].text != "#" or line[0].kind != "p":
                if live:
                    self.read_tokens += len(line)
                    self.pending += line
            elif len(line) > 1:
                live = self.directive(known, line, stack, live)
            if self.read_tokens > _MAX_TOKENS:
                raise _too_much(line[0].where, f"there are more than {_MAX_TOKENS:,} tokens")
        if stack:
            raise HeaderError(f"{stack[-1].where}: the `#if` has no `#endif`")
        self.depth -= 1

    def text(self, path: Path, source: Source) -> str:
        """The text of a file, in which lines end with line feeds."""
        with open_file(path) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise _too_much(source.name, f"a file is larger than {_MAX_BYTES >> 20} MiB")
        if is_utf16(data) and not self.target.is_msvc:  # only cl.exe accepts it
            raise HeaderError(
                f"{source.name}: the header is UTF-16, which compilers for {self.target.triple} "
                "do not read",
                help="save it as UTF-8",
            )
        text = decoded(data, errors="replace")
        # The end-of-file character of DOS programs.
        return text.removesuffix("\x1a")

    def directive(
        self, file: _File, line: list[Token], stack: list[_Condition], live: bool
    ) -> bool:
        """Execute a directive. Returns whether the lines after it are live."""
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
            if word == "define" and rest:
                self.macros.ever.add(rest[0].text)
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
            elif len(rest) == 3 and rest[0].text == "redefine_extname":
                self.renamed[rest[1].text] = rest[2].text
        elif word == "error":
            raise HeaderError(
                f"{where}: #error {quoted(rest)}".rstrip(),
                help="a macro the header asks for is set with -D NAME[=VALUE]",
            )
        elif word not in {"warning", "line", "ident", "sccs", "embed"} and line[1].kind != "n":
            raise HeaderError(f"{where}: `#{quoted(line[1:2])}` is no preprocessor directive")
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
            top.live = False  # a condition is not evaluated where its branch cannot be taken
        else:
            top.live = self.condition(word.removeprefix("el"), rest, where)
        top.taken = top.taken or top.live
        return top.live

    def condition(self, word: str, rest: list[Token], where: str) -> bool:
        self.undefined.clear()
        value = self.decided(word, rest, where)
        if not value and word != "ifndef" and self.not_found:
            for name in self.undefined:
                self.asked_in_vain.setdefault(name, where)
        return value

    def decided(self, word: str, rest: list[Token], where: str) -> bool:
        if word == "if":
            if not rest:
                raise HeaderError(f"{where}: `#if` needs an expression")
            expanded = self.macros.expand(rest, condition=True)
            asked = self.queries(expanded, where)
            for token in asked:
                if token.kind == "i":
                    self.test(token)
            return evaluate(asked, where, cxx=self.cxx)
        if not rest or rest[0].kind != "i":
            raise HeaderError(f"{where}: `#{word}` needs a name")
        return self.is_defined(rest[0]) == (word == "ifdef")

    def is_defined(self, token: Token) -> bool:
        defined = self.macros.is_defined(token.text)
        if not defined:
            self.test(token)
        return defined

    def test(self, token: Token) -> None:
        """Remember a name in a condition that is not defined."""
        if token.source.quotable:
            self.undefined.append(token.text)
        if token.source.quotable and _RESERVED.fullmatch(token.text):
            self.tested.setdefault(token.text, token.where)

    def warn_of_unknown(self) -> None:
        """Warn of names in conditions that look predefined and are defined nowhere."""
        for name, where in self.tested.items():
            if name in self.macros.ever or is_known(name):
                continue
            self.warnings.append(
                f"{where}: `{name}` is not known to be defined by a compiler or a header, and is "
                f"taken as not defined; -D {name} defines it"
            )
        lost = [
            f"`{name}` ({where})"
            for name, where in self.asked_in_vain.items()
            if not (self.macros.is_defined(name) or name in self.macros.ever or is_known(name))
            and name not in self.tested
        ]
        if lost:
            shown = ", ".join(lost[:3]) + (", …" if len(lost) > 3 else "")
            self.warnings.append(
                f"taken as not defined: {shown}; {self.not_found[0]} may define it, but was not "
                "found: -I DIR names its folder"
            )

    def queries(self, tokens: list[Token], where: str) -> list[Token]:
        """The tokens, with answers in place of ``defined X``, ``__has_include(…)`` and the like.

        Also where a macro expands to them, as in GCC and clang (undefined in 6.10.1).
        """
        out: list[Token] = []
        index = 0
        while index < len(tokens):
            token = tokens[index]
            index += 1
            if token.kind != "i" or not self.macros.is_query(token.text):
                out.append(token)
                continue
            if index < len(tokens) and tokens[index].text == "(":
                end = closing_parenthesis(tokens, index)
                inner, index = tokens[index + 1 : end], end + 1
            else:
                inner, index = tokens[index : index + 1], index + 1
            if not inner:
                raise HeaderError(f"{where}: `{token.text}` needs a name")
            if token.text == "defined":
                answer = str(int(self.is_defined(inner[0])))
            elif token.text.startswith("__has_include"):
                answer = str(int(self.has_include(inner, Path(token.source.name).parent)))
            else:
                answer = self.asked.answer(token.text, "".join(t.text for t in inner))
            out.append(token._replace(kind="n", text=answer))
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
            raise HeaderError(f"{where}: `#include {quoted(rest)}` names no file")
        path = None if name in SYSTEM_HEADERS else self.find(name, file.path.parent, angled)
        if path is None:
            self.skip(name, angled, where)
            return
        # Another library's header supplies types, but its functions are not this library's.
        parents = path.resolve().parents
        ours = not angled or self.folders[0] in parents
        quotable = any(folder in parents for folder in self.folders)
        source = Source(str(path), file.source.public and ours, quotable)
        try:
            self.file(path, source, where)
        except OSError as e:
            raise HeaderError(f"{where}: `{path}` cannot be read: {e.strerror}") from e
        if once:
            self.once.add(path)

    def find(self, name: str, folder: Path, angled: bool) -> Path | None:
        folders = [] if angled else [folder]
        folders += self.include_dirs
        # A header beside the C library's own would include the whole system.
        if not angled or not (self.home / "stdio.h").exists():
            folders.append(self.home)
        for searched in folders:
            path = searched / name
            if path.is_file():
                return path
        return None

    def skip(self, name: str, angled: bool, where: str) -> None:
        for header in sorted({"", name} - self.skipped):
            self.skipped.add(header)
            from cargo_strip_hook.exports.systemmacros import system_header_macros

            self.macros.predefine(system_header_macros(self.target, header, cxx=self.cxx))
        if name in SYSTEM_HEADERS:
            return
        self.not_found.append(f"`{name}` ({where})")
        if not angled:
            self.warnings.append(f"{where}: `{name}` is not found; what it declares is not seen")


def _too_much(where: str, what: str) -> HeaderError:
    return HeaderError(f"{where}: the limit of inclusion is reached: {what}", help=HELP_EXPORT)


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
