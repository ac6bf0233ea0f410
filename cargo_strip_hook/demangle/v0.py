"""Rust's v0 mangling: a grammar with back references, of paths, types and constants.

Source: the rustc book, "Symbol Mangling", "v0 Symbol Format"; how it is written out is as in
rustc-demangle's `v0.rs` (alternate form, without hashes and types of constants).
"""

from __future__ import annotations

from collections.abc import Callable

_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8",
    "i": "isize", "j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_",
    "s": "i16", "t": "u16", "u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_DEPTH = 150  # levels of nesting; names of programs have a tenth of it
_STEPS = 20_000  # paths, types and constants of one name: back references can make any number


class _Invalid(Exception):
    """This is no name of this mangling."""


def demangle(body: str) -> str | None:
    """The name whose mangled form continues with `body` behind `_R`; None if it is none."""
    reader = _Reader(body)
    try:
        reader.path(in_value=True)
        text = "".join(reader.out)
        if reader.peek().isupper():  # the crate that made this instance of generic code
            reader.path(in_value=False)
    except _Invalid:
        return None
    rest = body[reader.at :]
    return text + rest if not rest or rest[0] in ".@" else None


def crate_of(body: str) -> str | None:
    """The crate of the name that continues with `body` behind `_R`; None if it is none."""
    try:
        return _Reader(body).crate()
    except _Invalid:
        return None


class _Reader:
    """Reads at `at` and writes to `out`."""

    def __init__(self, body: str) -> None:
        if not body.isascii() or not body[:1].isupper():
            body = ""  # a decimal number here would be of a later version of the mangling
        self.body = body
        self.at = 0
        self.out: list[str] = []
        self.depth = 0
        self.steps = 0
        self.bound = 0  # lifetimes that are bound here

    # Pieces ---------------------------------------------------------------------------------

    def peek(self) -> str:
        return self.body[self.at : self.at + 1]

    def next(self) -> str:
        sign = self.peek()
        if not sign:
            raise _Invalid
        self.at += 1
        return sign

    def eat(self, sign: str) -> bool:
        found = self.peek() == sign
        self.at += found
        return found

    def base62(self) -> int:
        """`_` is 0, `0_` is 1 and so on."""
        if self.eat("_"):
            return 0
        value = 0
        while not self.eat("_"):
            sign = self.next()
            if "0" <= sign <= "9":
                digit = ord(sign) - 48
            elif "a" <= sign <= "z":
                digit = ord(sign) - 87
            elif "A" <= sign <= "Z":
                digit = ord(sign) - 29
            else:
                raise _Invalid
            value = value * 62 + digit
            if value >> 64:
                raise _Invalid
        return value + 1

    def optional62(self, tag: str) -> int:
        return self.base62() + 1 if self.eat(tag) else 0

    def identifier(self) -> str:
        punycode = self.eat("u")
        start = self.at
        while "0" <= self.peek() <= "9":
            self.at += 1
            if self.body[start] == "0":
                break
        digits = self.body[start : self.at]
        if not digits or len(digits) > 6:
            raise _Invalid
        self.eat("_")
        end = self.at + int(digits)
        if end > len(self.body):
            raise _Invalid
        text = self.body[self.at : end]
        self.at = end
        return _punycode(text) if punycode else text

    def hexadecimal(self) -> str:
        start = self.at
        while not self.eat("_"):
            if self.next() not in "0123456789abcdef":
                raise _Invalid
        return self.body[start : self.at - 1]

    def list(self, read: Callable[[], object], between: str = ", ") -> int:
        """What stands before an `E`; how many."""
        count = 0
        while not self.eat("E"):
            if count:
                self.out.append(between)
            read()
            count += 1
        return count

    def within(self, read: Callable[[], object]) -> None:
        """One level deeper."""
        self.depth += 1
        self.steps += 1
        if self.depth > _DEPTH or self.steps > _STEPS:
            raise _Invalid
        read()
        self.depth -= 1

    def behind(self, read: Callable[[], object]) -> None:
        """What a back reference, whose `B` was read, refers to."""
        position = self.at - 1
        target = self.base62()
        if target >= position:
            raise _Invalid
        after, self.at = self.at, target
        self.within(read)
        self.at = after

    def silently(self, read: Callable[[], object]) -> None:
        out, self.out = self.out, []
        read()
        self.out = out

    # Paths ----------------------------------------------------------------------------------

    def path(self, *, in_value: bool) -> None:
        self.within(lambda: self._path(in_value))

    def _path(self, in_value: bool) -> None:
        tag = self.next()
        out = self.out
        if tag == "C":
            self.optional62("s")
            out.append(self.identifier())
        elif tag == "N":
            space = self.next()
            if not space.isalpha():
                raise _Invalid
            self.path(in_value=in_value)
            number = self.optional62("s")
            name = self.identifier()
            if space.isupper():
                what = {"C": "closure", "S": "shim"}.get(space, space)
                out.append(f"::{{{what}{':' if name else ''}{name}#{number}}}")
            elif name:
                out.append(f"::{name}")
        elif tag in "MXY":
            if tag != "Y":
                self.impl()
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
            self.behind(lambda: self._path(in_value))
        else:
            raise _Invalid

    def impl(self) -> None:
        """Where an `impl` stands, which is not written out."""
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
            raise _Invalid
        self.out.append(f"'{chr(97 + depth)}" if depth < 26 else f"'_{depth}")

    def binder(self, read: Callable[[], object]) -> None:
        count = self.optional62("G")
        if count > 1000:
            raise _Invalid
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
        self.within(self._type)

    def _type(self) -> None:
        tag = self.next()
        out = self.out
        if tag in _BASIC:
            out.append(_BASIC[tag])
        elif tag in "RQ":
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
                raise _Invalid
            index = self.base62()
            if index:
                out.append(" + ")
                self.lifetime(index)
        elif tag == "B":
            self.behind(self._type)
        else:
            self.at -= 1
            self.path(in_value=False)

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
        if self.eat("B"):
            opened: list[bool] = []
            self.behind(lambda: opened.append(self.open_path()))
            return opened[0]
        if self.eat("I"):
            self.path(in_value=False)
            self.out.append("<")
            self.list(self.argument)
            return True
        self.path(in_value=False)
        return False

    # Constants ------------------------------------------------------------------------------

    def constant(self, *, in_value: bool) -> None:
        self.within(lambda: self._constant(in_value))

    def _constant(self, in_value: bool) -> None:
        tag = self.next()
        out = self.out
        if tag == "B":
            self.behind(lambda: self._constant(in_value))
            return
        if tag == "p":
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
                raise _Invalid
        else:
            raise _Invalid

    def field(self) -> None:
        self.optional62("s")
        self.out.append(f"{self.identifier()}: ")
        self.constant(in_value=True)

    def number(self, limit: int) -> int:
        digits = self.hexadecimal().lstrip("0")
        value = int(digits or "0", 16) if len(digits) <= 16 else limit + 1
        if value > limit:
            raise _Invalid
        return value

    def string(self) -> None:
        digits = self.hexadecimal()
        try:
            text = bytes.fromhex(digits).decode("utf-8")
        except ValueError as e:
            raise _Invalid from e
        self.out.append('"' + "".join(_quoted(c, '"') for c in text) + '"')

    # Crates ---------------------------------------------------------------------------------

    def crate(self) -> str | None:
        """The crate of the path, type or bound that begins here; only as much of it is read."""
        for _ in range(_DEPTH):
            tag = self.next()
            if tag == "C":
                self.optional62("s")
                return self.identifier()
            if tag == "N":
                self.next()
            elif tag in "MX":
                self.optional62("s")  # and then where the `impl` stands
            elif tag == "Y":
                start = self.at
                found = self.crate()
                if found is not None:
                    return found
                self.at = start
                self.silently(self.type)  # and then the trait
            elif tag == "B":
                position = self.at - 1
                self.at = self.base62()
                if self.at >= position:
                    raise _Invalid
            elif tag in "RQ":
                if self.eat("L"):
                    self.base62()
            elif tag in "D":
                self.optional62("G")
            elif tag not in "IPOAST":
                return None  # a type of the language itself
        raise _Invalid


def _punycode(text: str) -> str:
    plain, _, coded = text.rpartition("_")
    try:
        joined = f"{plain}-{coded}" if plain else coded
        return joined.encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError) as e:
        raise _Invalid from e


def _scalar(number: int) -> str:
    if 0xD800 <= number < 0xE000:
        raise _Invalid
    return chr(number)


def _quoted(sign: str, quote: str) -> str:
    """A character as Rust's `escape_debug` has it, the other kind of quote left alone."""
    known = {"\t": "\\t", "\r": "\\r", "\n": "\\n", "\\": "\\\\", "\0": "\\0", quote: "\\" + quote}
    if sign in known:
        return known[sign]
    return sign if sign.isprintable() else f"\\u{{{ord(sign):x}}}"
