"""Macros and their expansion: ISO C11 6.10.3, with the extensions that GCC and clang share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cargo_strip_hook.errors import HeaderError, UsageError
from cargo_strip_hook.exports.ctokens import Source, Token, spell, tokenize
from cargo_strip_hook.exports.macros import QUERIES

_OMITTED = ""  # among the arguments of a call: there was none for the variadic parameter


class _Macro(NamedTuple):
    params: tuple[str, ...] | None  # None: object-like
    variadic: str  # the name that stands for the rest of the arguments, or ""
    body: tuple[Token, ...]


class MacroTable:
    """The macros that are defined at one place of a header, at first those that are predefined."""

    def __init__(self, predefined: Mapping[str, str]) -> None:
        # Text until first used: most predefined macros never are.
        self._macros: dict[str, _Macro | str] = dict(predefined)
        self._builtin = Source("<built-in>", False)
        self._counter = 0
        self._asking = False  # an `#if` is being expanded

    def is_defined(self, name: str) -> bool:
        """What ``#ifdef`` finds."""
        return name in self._macros or name in QUERIES

    def is_query(self, name: str) -> bool:
        """Whether the name is an operator of ``#if``."""
        return name == "defined" or (name in QUERIES and name not in self._macros)

    def predefine(self, macros: Mapping[str, str]) -> None:
        """Add macros by ``NAME`` or ``NAME(x)`` and text, where the header did not itself."""
        for name, text in macros.items():
            plain, call, _ = name.partition("(")
            if plain in self._macros:
                continue
            if call:
                self.define_from_text(f"{name}={text}")
            else:
                self._macros[name] = text

    def undefine(self, name: str) -> None:
        """``#undef``."""
        self._macros.pop(name, None)

    def define_from_text(self, text: str) -> None:
        """``-D``: ``NAME``, ``NAME=VALUE``, ``NAME(x)=VALUE``. Raises `UsageError`."""
        name, equals, value = text.partition("=")
        source = Source(f"-D {text}", False)
        lines = tokenize(f"{name} {value if equals else '1'}", source)
        if len(lines) != 1 or lines[0][0].kind != "i":
            raise UsageError(f"`-D {text}` defines no macro", help="write -D NAME or -D NAME=VALUE")
        self.define(lines[0], text)

    def _macro(self, name: str) -> _Macro | None:
        found = self._macros.get(name)
        if isinstance(found, str):
            lines = tokenize(found, self._builtin)
            found = _Macro(None, "", tuple(lines[0]) if lines else ())
            self._macros[name] = found
        return found

    def define(self, tokens: list[Token], where: str) -> None:
        """``#define`` without its first two words (6.10.3)."""
        if not tokens or tokens[0].kind != "i":
            raise HeaderError(f"{where}: `#define` needs a name")
        name = tokens[0]
        if len(tokens) < 2 or tokens[1].text != "(" or tokens[1].space:
            self._macros[name.text] = _Macro(None, "", tuple(tokens[1:]))
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
        self._macros[name.text] = _Macro(tuple(params), variadic, tuple(tokens[at + 1 :]))

    # Expansion (6.10.3.1 to 6.10.3.4, with hide sets as in Prosser's algorithm) ----------------

    def expand(self, tokens: Sequence[Token], *, condition: bool = False) -> list[Token]:
        """The tokens with their macros expanded; ``defined X`` stays where they are a condition.

        Raises `HeaderError` for a call with the wrong arguments.
        """
        self._asking = condition
        try:
            return self._expand(tokens)
        finally:
            self._asking = False

    def _expand(self, tokens: Sequence[Token]) -> list[Token]:
        out: list[Token] = []
        stack = list(reversed(tokens))
        macros = self._macros
        while stack:
            token = stack.pop()
            name = token.text
            if self._asking and token.kind == "i" and self.is_query(name):
                out.append(token)
                _move_operand(stack, out)
                continue
            if token.kind != "i" or name not in macros or name in token.hide:
                out.append(self._dynamic(token) if name.startswith("__") else token)
                continue
            macro = self._macro(name)
            assert macro is not None
            hide = token.hide
            if macro.params is None:
                args: dict[str, list[Token]] = {}
            else:
                if not stack or stack[-1].text != "(":
                    out.append(token)
                    continue
                stack.pop()
                found, closing = self._arguments(token, stack)
                args = self._bind(macro, found, token)
                hide = hide & closing.hide
            # An argument keeps its own place in the file, the macro's text has the call's.
            placed = [b._replace(source=token.source, line=token.line) for b in macro.body]
            macro = macro._replace(body=tuple(placed))
            body = (
                self._paste_all(placed) if macro.params is None else self._substitute(macro, args)
            )
            if not body:
                continue
            hide = hide | {name}
            stack += [b._replace(hide=b.hide | hide) for b in reversed(body)]
            first = stack[-1]
            stack[-1] = first._replace(space=token.space)
        return out

    def _dynamic(self, token: Token) -> Token:
        """The macros whose value depends on the place (6.10.8.1)."""
        if token.text == "__LINE__":
            return token._replace(kind="n", text=str(token.line))
        if token.text == "__FILE__":
            return token._replace(kind="s", text=f'"{token.source.name}"')
        if token.text == "__COUNTER__":
            self._counter += 1
            return token._replace(kind="n", text=str(self._counter - 1))
        return token

    def _arguments(self, call: Token, stack: list[Token]) -> tuple[list[list[Token]], Token]:
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

    def _bind(self, macro: _Macro, args: list[list[Token]], call: Token) -> dict[str, list[Token]]:
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

    def _substitute(self, macro: _Macro, args: dict[str, list[Token]]) -> Sequence[Token]:
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
                end = closing_parenthesis(body, at)
                inner = _Macro(macro.params, macro.variadic, body[at + 1 : end])
                piece = list(self._substitute(inner, args)) if args[macro.variadic] else []
                at = end + 1
            elif token.kind == "i" and token.text in args:
                if paste or following == "##":
                    piece = args[token.text]
                else:
                    piece = self._expand(args[token.text])
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
                    out[-1:] = self._paste(out[-1], piece[0])
                    piece = piece[1:]
            elif following == "##" and not piece:
                piece = [token._replace(kind="p", text="")]  # a placemarker
            out += piece
        return [t for t in out if t.text]

    def _paste_all(self, body: Sequence[Token]) -> Sequence[Token]:
        """``##`` in an object-like macro."""
        if not any(t.text == "##" for t in body):
            return body
        return self._substitute(_Macro((), "", tuple(body)), {})

    def _paste(self, left: Token, right: Token) -> list[Token]:
        pieces = tokenize(left.text + right.text, left.source)
        if not pieces:
            return []
        return [
            t._replace(line=left.line, space=left.space if i == 0 else False, hide=left.hide)
            for i, t in enumerate(pieces[0])
        ]


def _move_operand(stack: list[Token], out: list[Token]) -> None:
    """Move what ``defined`` and its like are asked about; `stack` is in reverse."""
    depth = 0
    while stack:
        token = stack.pop()
        out.append(token)
        depth += (token.text == "(") - (token.text == ")")
        if depth <= 0:
            return


def closing_parenthesis(tokens: Sequence[Token], opening: int) -> int:
    """The index of the ``)`` for the ``(`` at `opening`. Raises `HeaderError`."""
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
