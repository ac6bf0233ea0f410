"""Rust's v0 mangling: a grammar with back references, of paths, types and constants.

Source: the rustc book, "Symbol Mangling", "v0 Symbol Format"; how it is written out is as in
rustc-demangle's `v0.rs` (alternate form, without hashes and types of constants).
"""

from __future__ import annotations

import re
from collections.abc import Callable

_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8",
    "i": "isize", "j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_",
    "s": "i16", "t": "u16", "u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_PATHS = "CMXYNI"  # what a path begins with that is no back reference
_DEPTH = 150  # levels of nesting; names of programs have a tenth of it
_STEPS = 20_000  # paths, types and constants of one name: back references can make any number
_BASE62 = re.compile(r"([0-9a-zA-Z]*)_")
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUES = {sign: value for value, sign in enumerate(DIGITS)}
# a number that keeps things of one name apart, a mark of Punycode and the length of the name
NAMED = re.compile(r"(?:s([0-9a-zA-Z]*)_)?(u?)(0|[1-9][0-9]{0,5}(?![0-9]))_?")
_HEXADECIMAL = re.compile(r"([0-9a-f]*)_")


class InvalidNameError(Exception):
    """This is no name of this mangling."""


def demangle(body: str) -> str | None:
    """The name whose mangled form continues with `body` behind `_R`; None if it is none."""
    reader = Reader(body)
    try:
        rest = reader.name()
    except InvalidNameError:
        return None
    return "".join(reader.out) + rest or None  # a crate may have no name, what is shown may not


def crate_of(body: str) -> str | None:
    """The crate of the name that continues with `body` behind `_R`; None if it is none."""
    try:
        return Reader(body).crate()
    except InvalidNameError:
        return None


class Reader:
    """Reads the grammar at `at`, and writes what it says in Rust to `out`."""

    def __init__(self, body: str) -> None:
        if not body.isascii() or not body[:1].isupper():
            body = ""  # a decimal number here would be of a later version of the mangling
        self.body = body + "\0"  # which nothing begins with
        self.at = 0
        self.out: list[str] = []
        self.depth = 0
        self.steps = 0
        self.bound = 0  # lifetimes that are bound here

    # Pieces ---------------------------------------------------------------------------------

    def peek(self) -> str:
        return self.body[self.at]

    def next(self) -> str:
        sign = self.body[self.at]
        if sign == "\0":
            raise InvalidNameError
        self.at += 1
        return sign

    def eat(self, sign: str) -> bool:
        there = self.body[self.at] == sign
        self.at += there
        return there

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        read = pattern.match(self.body, self.at)
        if read is None:
            raise InvalidNameError
        self.at = read.end()
        return read

    def base62(self) -> int:
        """`_` is 0, `0_` is 1 and so on."""
        return _number(self.match(_BASE62)[1])

    def optional62(self, tag: str) -> int:
        return self.base62() + 1 if self.eat(tag) else 0

    def named(self, *, shown: bool = False) -> tuple[int, str]:
        """A number that keeps things of one name apart, where it is `shown`, and the name."""
        read = self.match(NAMED)
        return _number(read[1]) + 1 if shown and read[1] is not None else 0, self.text(read)

    def identifier(self) -> str:
        return self.text(self.match(NAMED))

    def text(self, read: re.Match[str]) -> str:
        """What the letters are behind a length that was read."""
        start, self.at = self.at, self.at + int(read[3])
        if self.at >= len(self.body):
            raise InvalidNameError
        text = self.body[start : self.at]
        return _punycode(text) if read[2] else text

    def hexadecimal(self) -> str:
        return self.match(_HEXADECIMAL)[1]

    def list(self, read: Callable[[], object], between: str = ", ") -> int:
        """What stands before an `E`; how many."""
        count = 0
        while not self.eat("E"):
            if count:
                self.out.append(between)
            read()
            count += 1
        return count

    def deeper(self) -> None:
        """A path, type or constant begins here; the caller takes `depth` down behind it."""
        self.depth += 1
        self.steps += 1
        if self.depth > _DEPTH or self.steps > _STEPS:
            raise InvalidNameError

    def reference(self) -> int:
        """Where the back reference refers to whose `B` was read."""
        position = self.at - 1
        target = self.base62()
        if target >= position:
            raise InvalidNameError
        return target

    def behind(self, read: Callable[[], object]) -> None:
        """What a back reference, whose `B` was read, refers to."""
        target = self.reference()
        after, self.at = self.at, target
        read()
        self.at = after

    def silently(self, read: Callable[[], object]) -> None:
        out, self.out = self.out, []
        read()
        self.out = out

    def name(self) -> str:
        """All of a name; what stands behind it."""
        self.path(in_value=True)
        self.instance()
        rest = self.body[self.at : -1]
        if rest and rest[0] not in ".@":
            raise InvalidNameError
        return rest

    def instance(self) -> None:
        """The crate that made this instance of generic code, which is not written out."""
        if self.peek().isupper():
            self.silently(lambda: self.path(in_value=False))

    # Paths ----------------------------------------------------------------------------------

    def path(self, *, in_value: bool) -> None:
        self.deeper()
        tag = self.next()
        out = self.out
        if tag == "N":
            space = self.next()
            if not space.isalpha():
                raise InvalidNameError
            self.path(in_value=in_value)
            number, name = self.named(shown=space.isupper())
            if space.isupper():
                what = {"C": "closure", "S": "shim"}.get(space, space)
                out.append(f"::{{{what}{':' if name else ''}{name}#{number}}}")
            elif name:
                out.append(f"::{name}")
        elif tag == "C":
            out.append(self.named()[1])
        elif tag in "MXY":
            if tag != "Y":
                self.impl(tag)
            out.append("<")
            self.type()
            if tag != "M":
                out.append(" as ")
                self.path(in_value=False)
            out.append(">")
        elif tag == "I":
            self.path(in_value=in_value)
            if in_value:
                out.append("::")
            out.append("<")
            self.list(self.argument)
            out.append(">")
        elif tag == "B":
            self.behind(lambda: self.path(in_value=in_value))
        else:
            raise InvalidNameError
        self.depth -= 1

    def impl(self, tag: str) -> None:  # noqa: ARG002 - the shortener asks
        """Where an `impl` stands, which is not written out; `tag`, `M` or `X`, was read."""
        self.optional62("s")
        self.silently(lambda: self.path(in_value=False))

    def argument(self) -> None:
        if self.eat("L"):
            self.lifetime(self.base62())
        elif self.eat("K"):
            self.constant(in_value=False)
        else:
            self.type()

    def lifetime(self, index: int) -> None:
        if index == 0:
            self.out.append("'_")
            return
        depth = self.bound - index
        if depth < 0:
            raise InvalidNameError
        self.out.append(f"'{chr(97 + depth)}" if depth < 26 else f"'_{depth}")

    def binder(self, read: Callable[[], object]) -> None:
        count = self.optional62("G")
        if count > 1000:
            raise InvalidNameError
        if count:
            self.out.append("for<")
            for number in range(count):
                if number:
                    self.out.append(", ")
                self.bound += 1
                self.lifetime(1)
            self.out.append("> ")
        read()
        self.bound -= count

    # Types ----------------------------------------------------------------------------------

    def type(self) -> None:
        tag = self.peek()
        if tag in _BASIC:
            self.at += 1
            self.out.append(_BASIC[tag])
        elif tag in _PATHS:
            self.path(in_value=False)
        else:
            self.deeper()
            self.compound(self.next())
            self.depth -= 1

    def compound(self, tag: str) -> None:
        """A type made of others, whose `tag` was read."""
        out = self.out
        if tag in "RQ":
            out.append("&")
            if self.eat("L"):
                index = self.base62()
                if index:
                    self.lifetime(index)
                    out.append(" ")
            if tag == "Q":
                out.append("mut ")
            self.type()
        elif tag in "PO":
            out.append("*const " if tag == "P" else "*mut ")
            self.type()
        elif tag in "AS":
            out.append("[")
            self.type()
            if tag == "A":
                out.append("; ")
                self.constant(in_value=True)
            out.append("]")
        elif tag == "T":
            out.append("(")
            out.append(",)" if self.list(self.type) == 1 else ")")
        elif tag == "F":
            self.binder(self.function)
        elif tag == "D":
            out.append("dyn ")
            self.binder(lambda: self.list(self.bound_trait, " + "))
            if not self.eat("L"):
                raise InvalidNameError
            index = self.base62()
            if index:
                out.append(" + ")
                self.lifetime(index)
        elif tag == "B":
            self.behind(self.type)
        else:
            raise InvalidNameError

    def function(self) -> None:
        out = self.out
        if self.eat("U"):
            out.append("unsafe ")
        if self.eat("K"):
            abi = "C" if self.eat("C") else self.identifier().replace("_", "-")
            out.append(f'extern "{abi}" ')
        out.append("fn(")
        self.list(self.type)
        out.append(")")
        if not self.eat("u"):
            out.append(" -> ")
            self.type()

    def bound_trait(self) -> None:
        is_open = self.open_path()
        while self.eat("p"):
            self.out.append(", " if is_open else "<")
            is_open = True
            self.out.append(f"{self.identifier()} = ")
            self.type()
        if is_open:
            self.out.append(">")

    def open_path(self) -> bool:
        """A path whose generic arguments, where it has any, are not closed yet."""
        self.deeper()
        is_open = [False]
        if self.eat("B"):
            self.behind(lambda: is_open.append(self.open_path()))
        elif self.eat("I"):
            self.path(in_value=False)
            self.out.append("<")
            self.list(self.argument)
            is_open.append(True)
        else:
            self.path(in_value=False)
        self.depth -= 1
        return is_open[-1]

    # Constants ------------------------------------------------------------------------------

    def constant(self, *, in_value: bool) -> None:
        self.deeper()
        tag = self.next()
        out = self.out
        if tag == "B":
            self.behind(lambda: self.constant(in_value=in_value))
        elif tag == "p":
            out.append("_")
        elif tag in "htmyojaslxni":
            sign = "-" if tag in "aslxni" and self.eat("n") else ""
            digits = self.hexadecimal().lstrip("0")
            value = str(int(digits or "0", 16)) if len(digits) <= 16 else f"0x{digits}"
            out.append(sign + value)
        elif tag == "b":
            out.append({0: "false", 1: "true"}[self.number(1)])
        elif tag == "c":
            out.append(f"'{_quoted(_scalar(self.number(0x10FFFF)), chr(39))}'")
        elif tag == "R" and self.eat("e"):
            self.string()
        else:
            if not in_value:
                out.append("{")
            self.expression(tag)
            if not in_value:
                out.append("}")
        self.depth -= 1

    def expression(self, tag: str) -> None:
        """A constant that is written as an expression of others."""
        out = self.out

        def one() -> None:
            self.constant(in_value=True)

        if tag == "e":
            out.append("*")
            self.string()
        elif tag in "RQ":
            out.append("&" if tag == "R" else "&mut ")
            one()
        elif tag == "A":
            out.append("[")
            self.list(one)
            out.append("]")
        elif tag == "T":
            out.append("(")
            out.append(",)" if self.list(one) == 1 else ")")
        elif tag == "V":
            self.path(in_value=True)
            kind = self.next()
            if kind == "T":
                out.append("(")
                self.list(one)
                out.append(")")
            elif kind == "S":
                out.append(" { ")
                self.list(self.field)
                out.append(" }")
            elif kind != "U":
                raise InvalidNameError
        else:
            raise InvalidNameError

    def field(self) -> None:
        self.out.append(f"{self.named()[1]}: ")
        self.constant(in_value=True)

    def number(self, limit: int) -> int:
        digits = self.hexadecimal().lstrip("0")
        value = int(digits or "0", 16) if len(digits) <= 16 else limit + 1
        if value > limit:
            raise InvalidNameError
        return value

    def string(self) -> None:
        digits = self.hexadecimal()
        try:
            text = bytes.fromhex(digits).decode("utf-8")
        except ValueError as e:
            raise InvalidNameError from e
        self.out.append('"' + "".join(_quoted(c, '"') for c in text) + '"')

    # Crates ---------------------------------------------------------------------------------

    def crate(self) -> str | None:
        """The crate of the path, type or bound that begins here; only as much of it is read."""
        for _ in range(_DEPTH):
            tag = self.next()
            if tag == "C":
                return self.named()[1]
            if tag == "N":
                self.next()
            elif tag in "MX":
                self.optional62("s")  # and then where the `impl` stands
            elif tag == "Y":
                start = self.at
                own = self.crate()
                if own is not None:
                    return own
                self.at = start
                self.silently(self.type)  # and then the trait
            elif tag == "B":
                position = self.at - 1
                self.at = self.base62()
                if self.at >= position:
                    raise InvalidNameError
            elif tag in "RQ":
                if self.eat("L"):
                    self.base62()
            elif tag in "D":
                self.optional62("G")
            elif tag not in "IPOAST":
                return None  # a type of the language itself
        raise InvalidNameError


def _number(digits: str) -> int:
    """The value of a base-62 number without its `_`: none is 0, `0` is 1 and so on."""
    value = 0 if digits else -1
    for digit in digits:
        value = value * 62 + _VALUES[digit]
    if value >> 64 > 0:
        raise InvalidNameError
    return value + 1


def _punycode(text: str) -> str:
    plain, _, coded = text.rpartition("_")
    try:
        joined = f"{plain}-{coded}" if plain else coded
        return joined.encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError) as e:
        raise InvalidNameError from e


def _scalar(number: int) -> str:
    if 0xD800 <= number < 0xE000:
        raise InvalidNameError
    return chr(number)


def _quoted(sign: str, quote: str) -> str:
    """A character as Rust's `escape_debug` has it, the other kind of quote left alone."""
    known = {"\t": "\\t", "\r": "\\r", "\n": "\\n", "\\": "\\\\", "\0": "\\0", quote: "\\" + quote}
    if sign in known:
        return known[sign]
    return sign if sign.isprintable() else f"\\u{{{ord(sign):x}}}"
