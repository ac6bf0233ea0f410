"""Evaluating the constant expression of a preprocessor's ``#if`` (C11 6.10.1 and 6.6)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.exports.ctokens import Token, quoted

_MASK = (1 << 64) - 1
_MAX_DIGITS = 200
_PRECEDENCE = {
    "||": 1,
    "&&": 2,
    "|": 3,
    "^": 4,
    "&": 5,
    "==": 6,
    "!=": 6,
    "<": 7,
    ">": 7,
    "<=": 7,
    ">=": 7,
    "<<": 8,
    ">>": 8,
    "+": 9,
    "-": 9,
    "*": 10,
    "/": 10,
    "%": 10,
}
# C++ spells some operators as words (ISO C++ [lex.digraph]).
_WORDS = {"and": "&&", "or": "||", "not": "!", "bitand": "&", "bitor": "|", "xor": "^"}
_WORDS |= {"compl": "~", "not_eq": "!="}
_ESCAPES = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, "e": 27}
_ESCAPE = re.compile(r"\\(?:[xuU](?P<x>[0-9a-fA-F]{1,64})|(?P<o>[0-7]{1,3})|(?P<c>.))")

Value = tuple[int, bool]  # the number and whether its type is uintmax_t


def evaluate(tokens: Sequence[Token], where: str, *, cxx: bool = False) -> bool:
    """Whether the expression is true; its macros must have been expanded.

    Remaining identifiers count as 0 (``true`` as 1). Raises `HeaderError` naming `where`.
    """
    parser = _Parser(tokens, where, cxx)
    value = parser.conditional(live=True)
    if parser.index != len(tokens):
        raise parser.error(f"{parser.named(tokens[parser.index])} is not expected here")
    return value[0] != 0


class _Parser:
    def __init__(self, tokens: Sequence[Token], where: str, cxx: bool) -> None:
        self.tokens, self.where, self.cxx = tokens, where, cxx
        self.index = 0

    def error(self, why: str) -> HeaderError:
        text = quoted(self.tokens)
        return HeaderError(f"{self.where}: in `#if{text and ' '}{text}`: {why}")

    def named(self, token: Token) -> str:
        """A token for a message."""
        return f"`{quoted([token])}`" if token.source.quotable else "something"

    def peek(self) -> str:
        if self.index >= len(self.tokens):
            return ""
        token = self.tokens[self.index]
        if self.cxx and token.kind == "i":
            return _WORDS.get(token.text, token.text)
        return token.text

    def expect(self, text: str) -> None:
        if self.peek() != text:
            raise self.error(f"`{text}` is missing")
        self.index += 1

    def conditional(self, live: bool) -> Value:
        condition = self.binary(1, live)
        if self.peek() != "?":
            return condition
        self.index += 1
        chosen = condition[0] != 0
        first = self.conditional(live and chosen)
        self.expect(":")
        second = self.conditional(live and not chosen)
        return _typed((first if chosen else second)[0], first[1] or second[1])

    def binary(self, least: int, live: bool) -> Value:
        left = self.unary(live)
        while True:
            operator = self.peek()
            level = _PRECEDENCE.get(operator, 0)
            if level < least or not level:
                return left
            self.index += 1
            needed = live
            if operator == "&&":
                needed = live and left[0] != 0
            elif operator == "||":
                needed = live and left[0] == 0
            right = self.binary(level + 1, needed)
            left = self.apply(operator, left, right, live)

    def apply(  # noqa: PLR0912 - a case for each operator
        self, operator: str, left: Value, right: Value, live: bool
    ) -> Value:
        a, b = left[0], right[0]
        if operator == "&&":
            return int(a != 0 and b != 0), False
        if operator == "||":
            return int(a != 0 or b != 0), False
        unsigned = left[1] or right[1]
        if operator in {"<<", ">>"}:  # the type is that of the left operand alone
            shift = min(b & _MASK, 63)
            return _typed(a << shift if operator == "<<" else a >> shift, left[1])
        if unsigned:
            a, b = a & _MASK, b & _MASK
        match operator:
            case "==":
                return int(a == b), False
            case "!=":
                return int(a != b), False
            case "<":
                return int(a < b), False
            case ">":
                return int(a > b), False
            case "<=":
                return int(a <= b), False
            case ">=":
                return int(a >= b), False
            case "|":
                return _typed(a | b, unsigned)
            case "^":
                return _typed(a ^ b, unsigned)
            case "&":
                return _typed(a & b, unsigned)
            case "+":
                return _typed(a + b, unsigned)
            case "-":
                return _typed(a - b, unsigned)
            case "*":
                return _typed(a * b, unsigned)
        if b == 0:
            if live:
                raise self.error("division by zero")
            return 0, unsigned
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return _typed(quotient if operator == "/" else a - b * quotient, unsigned)

    def unary(self, live: bool) -> Value:
        operator = self.peek()
        if operator in {"+", "-", "~", "!"}:
            self.index += 1
            value, unsigned = self.unary(live)
            if operator == "!":
                return int(value == 0), False
            if operator == "-":
                value = -value
            elif operator == "~":
                value = ~value
            return _typed(value, unsigned)
        return self.primary(live)

    def primary(self, live: bool) -> Value:
        if self.index >= len(self.tokens):
            raise self.error("something is missing at the end")
        token = self.tokens[self.index]
        self.index += 1
        if token.text == "(":
            value = self.conditional(live)
            self.expect(")")
            return value
        if token.kind == "n":
            return self.number(token)
        if token.kind == "q":
            return _character(token.text), False
        if token.kind == "i":
            if self.peek() == "(":
                raise self.error(f"{self.named(token)} is called but is not a macro")
            return int(token.text == "true"), False
        raise self.error(f"{self.named(token)} is not expected here")

    def number(self, token: Token) -> Value:
        text = token.text
        if len(text) > _MAX_DIGITS:
            raise self.error("an integer is too long")
        digits = text.replace("'", "").lower()
        body = digits.rstrip("ulz")
        if body.startswith("0x"):
            base = 16
        elif body.startswith("0b"):
            base = 2
        elif body.startswith("0") and len(body) > 1:
            base = 8
            body = body.removeprefix("0o")
        else:
            base = 10
        try:
            value = int(body.replace("_", "?"), base)
        except ValueError:
            raise self.error(f"{self.named(token)} is no integer") from None
        return value & _MASK, "u" in digits[len(body) :] or value >= 1 << 63


def _typed(value: int, unsigned: bool) -> Value:
    """`value` wrapped to 64 bits."""
    value &= _MASK
    if not unsigned and value >> 63:
        value -= 1 << 64
    return value, unsigned


def _character(text: str) -> int:
    """The value of a character constant; of several characters the last counts."""
    body = text[text.index("'") + 1 : -1]
    m = _ESCAPE.fullmatch(body)
    if m is None:
        return ord(body[-1]) if body else 0
    if m["x"]:
        return int(m["x"], 16) & _MASK
    if m["o"]:
        return int(m["o"], 8)
    return _ESCAPES.get(m["c"], ord(m["c"]))
