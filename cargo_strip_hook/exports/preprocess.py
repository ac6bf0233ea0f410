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

from cargo_strip_hook.errors import HeaderError, UsageError
from cargo_strip_hook.exports.ctokens import Source, Token, spell, tokenize
from cargo_strip_hook.exports.macros import (
    QUERIES,
    SYSTEM_HEADERS,
    predefined,
    system_header_macros,
)
from cargo_strip_hook.exports.ppexpr import evaluate
from cargo_strip_hook.target import Target

_MAX_DEPTH = 100
_OMITTED = ""  # among the arguments of a call: there was none for the variadic parameter


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """The tokens of a header and what had to be passed over."""

    tokens: tuple[Token, ...]
    warnings: tuple[str, ...]


class _Macro(NamedTuple):
    params: tuple[str, ...] | None  # None: object-like
    variadic: str  # the name that stands for the rest of the arguments, or ""
    body: tuple[Token, ...]


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
        self.builtin = Source("<built-in>", False)
        # Text until first used: most predefined macros never are.
        self.macros: dict[str, _Macro | str] = dict(predefined(target, cxx=cxx))
        self.files: dict[Path, _File] = {}
        self.once: set[Path] = set()
        self.output: list[Token] = []
        self.pending: list[Token] = []
        self.warnings: list[str] = []
        self.depth = 0
        self.counter = 0
        self.system_seen = False
        for define in defines:
            self.define_from_text(define)

    # Macros ---------------------------------------------------------------------------------

    def define_from_text(self, text: str) -> None:
        name, equals, value = text.partition("=")
        source = Source(f"-D {text}", False)
        lines = tokenize(f"{name} {value if equals else '1'}", source)
        if len(lines) != 1 or lines[0][0].kind != "i":
            raise UsageError(f"`-D {text}` defines no macro", help="write -D NAME or -D NAME=VALUE")
        self.define(lines[0], text)

    def macro(self, name: str) -> _Macro | None:
        found = self.macros.get(name)
        if isinstance(found, str):
            lines = tokenize(found, self.builtin)
            found = _Macro(None, "", tuple(lines[0]) if lines else ())
            self.macros[name] = found
        return found

    def define(self, tokens: list[Token], where: str) -> None:
        """``#define`` without its first two words (6.10.3)."""
        if not tokens or tokens[0].kind != "i":
            raise HeaderError(f"{where}: `#define` needs a name")
        name = tokens[0]
        if len(tokens) < 2 or tokens[1].text != "(" or tokens[1].space:
            self.macros[name.text] = _Macro(None, "", tuple(tokens[1:]))
            return
        params: list[str] = []
        variadic = ""
        at = 2
        while at < len(tokens) and tokens[at].text != ")":
            word = tokens[at].text
            if word == "...":
                variadic = "__VA_ARGS__"
            elif at + 1 < len(tokens) and tokens[at + 1].text == "...":
                variadic = word
                at += 1
            elif tokens[at].kind == "i":
                params.append(word)
            else:
                raise HeaderError(f"{name.where}: the parameters of `{name.text}` are malformed")
            at += 1
            if at < len(tokens) and tokens[at].text == ",":
                at += 1
        if at >= len(tokens):
            raise HeaderError(f"{name.where}: the parameters of `{name.text}` have no `)`")
        self.macros[name.text] = _Macro(tuple(params), variadic, tuple(tokens[at + 1 :]))

    # Expansion (6.10.3.1 to 6.10.3.4, with hide sets as in Prosser's algorithm) ----------------

    def expand(self, tokens: Sequence[Token]) -> list[Token]:
        out: list[Token] = []
        stack = list(reversed(tokens))
        macros = self.macros
        while stack:
            token = stack.pop()
            name = token.text
            if token.kind != "i" or name not in macros or name in token.hide:
                out.append(self.dynamic(token) if name.startswith("__") else token)
                continue
            macro = self.macro(name)
            assert macro is not None
            hide = token.hide
            if macro.params is None:
                args: dict[str, list[Token]] = {}
            else:
                if not stack or stack[-1].text != "(":
                    out.append(token)
                    continue
                stack.pop()
                found, closing = self.arguments(token, stack)
                args = self.bind(macro, found, token)
                hide = hide & closing.hide
            body = self.substitute(macro, args) if args or macro.params is not None else macro.body
            if not body:
                continue
            hide = hide | {name}
            if macro.params is None:
                body = self.paste_all(body)
            for b in reversed(body):
                # An argument keeps its own place in the file, the macro's text has the call's.
                own = b.source is token.source and bool(args)
                line = b.line if own else token.line
                stack.append(Token(b.kind, b.text, token.source, line, b.space, b.hide | hide))
            first = stack[-1]
            stack[-1] = first._replace(space=token.space)
        return out

    def dynamic(self, token: Token) -> Token:
        """The macros whose value depends on the place (6.10.8.1)."""
        if token.text == "__LINE__":
            return token._replace(kind="n", text=str(token.line))
        if token.text == "__FILE__":
            return token._replace(kind="s", text=f'"{token.source.name}"')
        if token.text == "__COUNTER__":
            self.counter += 1
            return token._replace(kind="n", text=str(self.counter - 1))
        return token

    def arguments(self, call: Token, stack: list[Token]) -> tuple[list[list[Token]], Token]:
        """The arguments of a call whose ``(`` is read, and its ``)``."""
        args: list[list[Token]] = [[]]
        depth = 0
        while stack:
            token = stack.pop()
            if token.text == ")" and token.kind == "p":
                if depth == 0:
                    return args, token
                depth -= 1
            elif token.text == "(":
                depth += 1
            elif token.text == "," and depth == 0:
                args.append([])
                continue
            args[-1].append(token)
        raise HeaderError(f"{call.where}: the call of the macro `{call.text}` has no `)`")

    def bind(self, macro: _Macro, args: list[list[Token]], call: Token) -> dict[str, list[Token]]:
        params = macro.params or ()
        if macro.variadic:
            rest: list[Token] = []
            for index, arg in enumerate(args[len(params) :]):
                if index:
                    rest.append(Token("p", ",", call.source, call.line))
                rest += arg
            bound = dict(zip(params, args, strict=False))
            bound[macro.variadic] = rest
            if len(args) <= len(params):
                bound[_OMITTED] = []
            fits = len(args) >= len(params)
        else:
            if not params and args == [[]]:
                return {}
            bound = dict(zip(params, args, strict=False))
            fits = len(args) == len(params)
        if not fits:
            raise HeaderError(
                f"{call.where}: the macro `{call.text}` takes {len(params)} arguments, "
                f"not {len(args)}"
            )
        return bound

    def substitute(self, macro: _Macro, args: dict[str, list[Token]]) -> Sequence[Token]:
        """The macro's body with its arguments put in (6.10.3.1 to 6.10.3.3)."""
        out: list[Token] = []
        body = macro.body
        at = 0
        paste = False  # the token before was ##
        while at < len(body):
            token = body[at]
            at += 1
            if token.text == "##" and token.kind == "p" and out:
                paste = True
                continue
            following = body[at].text if at < len(body) else ""
            piece: list[Token]
            if token.text == "#" and following in args:
                piece = [token._replace(kind="s", text=_quoted(args[following]))]
                at += 1
            elif token.text == "__VA_OPT__" and macro.variadic and following == "(":
                end = _closing(body, at)
                inner = _Macro(macro.params, macro.variadic, body[at + 1 : end])
                piece = list(self.substitute(inner, args)) if args[macro.variadic] else []
                at = end + 1
            elif token.kind == "i" and token.text in args:
                if paste or following == "##":
                    piece = args[token.text]
                else:
                    piece = self.expand(args[token.text])
                if piece:
                    piece = [piece[0]._replace(space=token.space), *piece[1:]]
            else:
                piece = [token]
            if paste:
                paste = False
                gnu_comma = out[-1].text == "," and token.text == macro.variadic
                if gnu_comma and not piece and _OMITTED in args:
                    out.pop()
                elif piece and not gnu_comma and out[-1].text != "":
                    out[-1:] = self.paste(out[-1], piece[0])
                    piece = piece[1:]
            elif following == "##" and not piece:
                piece = [token._replace(kind="p", text="")]  # a placemarker
            out += piece
        return [t for t in out if t.text]

    def paste_all(self, body: Sequence[Token]) -> Sequence[Token]:
        """``##`` in an object-like macro."""
        if not any(t.text == "##" for t in body):
            return body
        return self.substitute(_Macro((), "", tuple(body)), {})

    def paste(self, left: Token, right: Token) -> list[Token]:
        pieces = tokenize(left.text + right.text, left.source)
        if not pieces:
            return []
        return [
            t._replace(line=left.line, space=left.space if i == 0 else False, hide=left.hide)
            for i, t in enumerate(pieces[0])
        ]

    def flush(self) -> None:
        """Expand the text collected so far: a call may go over several lines."""
        if self.pending:
            self.output += self.expand(self.pending)
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
            text = path.read_bytes().decode("utf-8-sig", errors="replace")
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
            self.define(rest, where)
        elif word == "undef":
            self.flush()
            if rest:
                self.macros.pop(rest[0].text, None)
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
            return evaluate(self.expand(self.queries(rest, where)), where, cxx=self.cxx)
        if not rest or rest[0].kind != "i":
            raise HeaderError(f"{where}: `#{word}` needs a name")
        return self.is_defined(rest[0].text) == (word == "ifdef")

    def is_defined(self, name: str) -> bool:
        return name in self.macros or name in QUERIES

    def queries(self, tokens: list[Token], where: str) -> list[Token]:
        """``defined X``, ``__has_include(…)`` and the like replaced by their answers."""
        out: list[Token] = []
        at = 0
        while at < len(tokens):
            token = tokens[at]
            at += 1
            known = token.text in QUERIES and token.text not in self.macros
            if token.kind != "i" or not (known or token.text == "defined"):
                out.append(token)
                continue
            if at < len(tokens) and tokens[at].text == "(":
                end = _closing(tokens, at)
                inner, at = tokens[at + 1 : end], end + 1
            else:
                inner, at = tokens[at : at + 1], at + 1
            if not inner:
                raise HeaderError(f"{where}: `{token.text}` needs a name")
            if token.text == "defined":
                answer = self.is_defined(inner[0].text)
            elif token.text.startswith("__has_include"):
                answer = self.has_include(inner, Path(where.rpartition(":")[0]).parent)
            else:
                answer = False
            out.append(token._replace(kind="n", text=str(int(answer))))
        return out

    def has_include(self, tokens: list[Token], folder: Path) -> bool:
        name, angled = _include_name(tokens)
        if not name:
            name, angled = _include_name(self.expand(tokens))
        return name in SYSTEM_HEADERS or self.find(name, folder, angled) is not None

    def include(self, file: _File, rest: list[Token], where: str, *, once: bool) -> None:
        name, angled = _include_name(rest)
        if not name:
            name, angled = _include_name(self.expand(rest))
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
            for macro, value in system_header_macros(self.target).items():
                self.macros.setdefault(macro, value)
        if not angled and name not in SYSTEM_HEADERS:
            self.warnings.append(f"{where}: `{name}` is not found; what it declares is not seen")


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """The index of the ``)`` for the ``(`` at `opening`."""
    depth = 0
    for index in range(opening, len(tokens)):
        if tokens[index].text == "(":
            depth += 1
        elif tokens[index].text == ")":
            depth -= 1
            if depth == 0:
                return index
    raise HeaderError(f"{tokens[opening].where}: `(` has no `)`")


def _quoted(tokens: Sequence[Token]) -> str:
    """The tokens as one string literal (6.10.3.2)."""
    escaped = [
        t._replace(text=t.text.replace("\\", "\\\\").replace('"', '\\"'))
        if t.kind in {"s", "q"}
        else t
        for t in tokens
    ]
    return f'"{spell(escaped)}"'


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
