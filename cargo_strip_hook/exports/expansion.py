"""Macros and their expansion: ISO C11 6.10.3, with the extensions of both GCC and clang."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from cargo_strip_hook.core.errors import HeaderError, UsageError
from cargo_strip_hook.exports.ctokens import HELP_EXPORT, Source, Token, spell, tokenize
from cargo_strip_hook.exports.predefined import QUERIES_CLANG

# Macros whose value depends on where they are used (6.10.8.1), and GCC's and clang's such.
_DYNAMIC = frozenset(
    {
        *("__LINE__", "__FILE__", "__COUNTER__", "__DATE__", "__TIME__", "__TIMESTAMP__"),
        *("__INCLUDE_LEVEL__", "__BASE_FILE__", "__FILE_NAME__"),
    }
)
# The most that a header's macros may expand to, and the longest token: far above real headers.
MAX_EXPANSION = 500_000
MAX_TOKEN = 100_000

_OMITTED = ""  # a key of a call's arguments: it has none for the variadic parameter


class _Macro(NamedTuple):
    params: tuple[str, ...] | None  # None: object-like
    variadic: str  # the name that stands for the rest of the arguments, or ""
    body: tuple[Token, ...]


class MacroTable:
    """The macros that are defined at a point of a header; at its start, the predefined ones."""

    def __init__(self, predefined: Mapping[str, str], queries: Collection[str]) -> None:
        # Text until first used: most predefined macros never are.
        self._macros: dict[str, _Macro | str] = {}
        self._queries = queries
        self.ever = set[str]()  # every name that the header or the user defined at some time
        self._disabled = set[str]()  # macros whose expansion is being scanned
        self._made = 0
        self._builtin = Source("<built-in>", False)
        self._counter = 0
        self._asking = False  # an `#if` is being expanded
        self.predefine(predefined)

    def is_defined(self, name: str) -> bool:
        """Whether ``#ifdef`` is true for a name."""
        return name in self._macros or name in self._queries or name in _DYNAMIC

    def is_query(self, name: str) -> bool:
        """Whether the name is an operator of ``#if``."""
        return name == "defined" or (name in QUERIES_CLANG and name not in self._macros)

    def predefine(self, macros: Mapping[str, str]) -> None:
        """Add macros by ``NAME`` or ``NAME(x)`` and text, except those that the header defined."""
        for name, text in macros.items():
            plain, call, _ = name.partition("(")
            if plain in self._macros:
                continue
            if call:
                self.define_from_text(f"{name}={text}")
                self.ever.discard(plain)
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
        macro = self._macros.get(name)
        if isinstance(macro, str):
            lines = tokenize(macro, self._builtin)
            macro = _Macro(None, "", tuple(lines[0]) if lines else ())
            self._macros[name] = macro
        return macro

    def define(self, tokens: list[Token], where: str) -> None:
        """Read a ``#define``, without its first two tokens (6.10.3)."""
        if not tokens or tokens[0].kind != "i":
            raise HeaderError(f"{where}: `#define` needs a name")
        name = tokens[0]
        self.ever.add(name.text)
        if len(tokens) < 2 or tokens[1].text != "(" or tokens[1].space:
            self._macros[name.text] = _Macro(None, "", tuple(tokens[1:]))
            return
        params: list[str] = []
        variadic = ""
        index = 2
        while index < len(tokens) and tokens[index].text != ")":
            word = tokens[index].text
            if word == "...":
                variadic = "__VA_ARGS__"
            elif index + 1 < len(tokens) and tokens[index + 1].text == "...":
                variadic = word
                index += 1
            elif tokens[index].kind == "i":
                params.append(word)
            else:
                raise HeaderError(f"{name.where}: the parameters of `{name.text}` are malformed")
            index += 1
            if index < len(tokens) and tokens[index].text == ",":
                index += 1
        if index >= len(tokens):
            raise HeaderError(f"{name.where}: the parameters of `{name.text}` have no `)`")
        self._macros[name.text] = _Macro(tuple(params), variadic, tuple(tokens[index + 1 :]))

    # Expansion (6.10.3.1 to 6.10.3.4). As in GCC and clang, a macro is disabled while its expansion
    # is scanned: its name is on the stack below that text, and tokens of that name are painted.

    def expand(self, tokens: Sequence[Token], *, condition: bool = False) -> list[Token]:
        """The tokens with their macros expanded; in a condition ``defined X`` stays.

        Raises `HeaderError` for a call with the wrong arguments, and beyond the limits.
        """
        self._asking = condition
        try:
            return self._expand(tokens)
        finally:
            self._asking = False
            self._disabled.clear()

    def _expand(self, tokens: Sequence[Token]) -> list[Token]:
        out: list[Token] = []
        stack: list[Token | str] = list(reversed(tokens))
        macros = self._macros
        while stack:
            token = stack.pop()
            if isinstance(token, str):
                self._disabled.discard(token)
                continue
            name = token.text
            if token.kind != "i" or token.painted:
                out.append(token)
                continue
            if self._asking and self.is_query(name):
                out.append(token)
                self._move_operand(stack, out)
                continue
            if name not in macros:
                out.append(self._dynamic(token) if name.startswith("__") else token)
                continue
            if name in self._disabled:
                out.append(token._replace(painted=True))
                continue
            macro = self._macro(name)
            assert macro is not None
            if macro.params is None:
                args: dict[str, list[Token]] = {}
            else:
                if not self._opens(stack):
                    out.append(token)
                    continue
                args = self._bind(macro, self._arguments(token, stack), token)
            self._count(token, len(macro.body) + 1)
            # An argument keeps its own line, the macro's text gets that of the call.
            source, line = token.source, token.line
            placed = [Token(b.kind, b.text, source, line, b.space) for b in macro.body]
            body: Sequence[Token]
            if macro.params is None:
                body = self._paste_all(placed)
            else:
                body = self._substitute(macro._replace(body=tuple(placed)), args)
                self._count(token, len(body))
            if not body:
                continue
            self._disabled.add(name)
            stack.append(name)
            stack += reversed(body)
            stack[-1] = body[0]._replace(space=token.space)
        return out

    def _count(self, call: Token, tokens: int) -> None:
        self._made += tokens
        if self._made > MAX_EXPANSION:
            raise HeaderError(
                f"{call.where}: the limit of expansion is reached: the header's macros expand to "
                f"more than {MAX_EXPANSION:,} tokens",
                help=HELP_EXPORT,
            )

    def _opens(self, stack: list[Token | str]) -> bool:
        """Whether the next token is a ``(``, which is then removed."""
        index = len(stack) - 1
        while index >= 0 and isinstance(stack[index], str):
            index -= 1
        following = stack[index] if index >= 0 else None
        if not isinstance(following, Token) or following.text != "(":
            return False
        self._disabled.difference_update(n for n in stack[index + 1 :] if isinstance(n, str))
        del stack[index:]
        return True

    def _pop(self, stack: list[Token | str]) -> Token | None:
        """The next token; macros whose expansions end before it are enabled again."""
        while stack:
            token = stack.pop()
            if not isinstance(token, str):
                return token
            self._disabled.discard(token)
        return None

    def _move_operand(self, stack: list[Token | str], out: list[Token]) -> None:
        """Move the operand of ``defined`` and the like; `stack` is in reverse."""
        depth = 0
        while (token := self._pop(stack)) is not None:
            out.append(token)
            depth += (token.text == "(") - (token.text == ")")
            if depth <= 0:
                return

    def _dynamic(self, token: Token) -> Token:
        """The macros whose value depends on where they are used (6.10.8.1)."""
        if token.text == "__LINE__":
            return token._replace(kind="n", text=str(token.line))
        if token.text == "__FILE__":
            return token._replace(kind="s", text=f'"{token.source.name}"')
        if token.text == "__COUNTER__":
            self._counter += 1
            return token._replace(kind="n", text=str(self._counter - 1))
        return token

    def _arguments(self, call: Token, stack: list[Token | str]) -> list[list[Token]]:
        """The arguments of a call, from behind its ``(`` to its ``)``."""
        args: list[list[Token]] = [[]]
        depth = 0
        while (token := self._pop(stack)) is not None:
            if token.text == ")" and token.kind == "p":
                if depth == 0:
                    return args
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
        """The macro's body with its arguments inserted (6.10.3.1 to 6.10.3.3)."""
        out: list[Token] = []
        body = macro.body
        expanded: dict[str, list[Token]] = {}
        index = 0
        paste = False  # the token before was ##
        while index < len(body):
            token = body[index]
            index += 1
            if token.text == "##" and token.kind == "p" and out:
                paste = True
                continue
            following = body[index].text if index < len(body) else ""
            tokens: list[Token]
            if token.text == "#" and following in args:
                tokens = [token._replace(kind="s", text=_quoted(args[following], token))]
                index += 1
            elif token.text == "__VA_OPT__" and macro.variadic and following == "(":
                end = closing_parenthesis(body, index)
                inner = _Macro(macro.params, macro.variadic, body[index + 1 : end])
                tokens = list(self._substitute(inner, args)) if args[macro.variadic] else []
                index = end + 1
            elif token.kind == "i" and token.text in args:
                if paste or following == "##":
                    tokens = args[token.text]
                else:
                    if token.text not in expanded:
                        expanded[token.text] = self._expand(args[token.text])
                    tokens = expanded[token.text]
                self._count(token, len(tokens))
                if tokens:
                    tokens = [tokens[0]._replace(space=token.space), *tokens[1:]]
            else:
                tokens = [token]
            if paste:
                paste = False
                gnu_comma = out[-1].text == "," and token.text == macro.variadic
                if gnu_comma and not tokens and _OMITTED in args:
                    out.pop()
                elif tokens and not gnu_comma and out[-1].text != "":
                    out[-1:] = self._paste(out[-1], tokens[0])
                    tokens = tokens[1:]
            elif following == "##" and not tokens:
                tokens = [token._replace(kind="p", text="")]  # a placemarker
            out += tokens
        return [t for t in out if t.text]

    def _paste_all(self, body: Sequence[Token]) -> Sequence[Token]:
        """``##`` in an object-like macro."""
        if not any(t.text == "##" for t in body):
            return body
        return self._substitute(_Macro((), "", tuple(body)), {})

    def _paste(self, left: Token, right: Token) -> list[Token]:
        if len(left.text) + len(right.text) > MAX_TOKEN:
            raise _too_long(left)
        lines = tokenize(left.text + right.text, left.source)
        if not lines:
            return []
        return [
            t._replace(line=left.line, space=left.space if i == 0 else False)
            for i, t in enumerate(lines[0])
        ]


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


def _quoted(tokens: Sequence[Token], token: Token) -> str:
    """The tokens as one string literal (6.10.3.2)."""
    escaped = [
        t._replace(text=t.text.replace("\\", "\\\\").replace('"', '\\"'))
        if t.kind in {"s", "q"}
        else t
        for t in tokens
    ]
    if sum(len(t.text) + 1 for t in escaped) > MAX_TOKEN:
        raise _too_long(token)
    return f'"{spell(escaped)}"'


def _too_long(token: Token) -> HeaderError:
    return HeaderError(
        f"{token.where}: the limit of expansion is reached: a macro makes a token of more than "
        f"{MAX_TOKEN:,} characters",
        help=HELP_EXPORT,
    )
