"""Conditional compilation: `cfg(...)` expressions and what holds for a target.

Grammar: the Rust Reference, "Conditional compilation"; for platform names, cargo-platform 0.3
(`Platform::from_str`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.target import Target

CfgSet = frozenset[tuple[str, str | None]]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"[^"]*")|(?P<word>(?:r\#)?[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[(),=]))"""
)
_BARE_VALUE = re.compile(r"\s*([^\s(),=\"]+)")


@dataclass(frozen=True, slots=True)
class Option:
    """``unix`` (value None) or ``target_os = "linux"``."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Combination:
    """``all(...)``, ``any(...)`` or ``not(...)`` (with one operand)."""

    kind: Literal["all", "any", "not"]
    operands: tuple[Expression, ...]


Expression = Option | Combination


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def error(self, what: str) -> UsageError:
        return UsageError(
            f"`{self.text}` is not a cfg expression: {what} at column {self.position + 1}",
            help='for example cfg(all(unix, not(target_os = "macos")))',
        )

    def peek(self) -> tuple[str, str]:
        if not self.text[self.position :].strip():
            return "end", ""
        match = _TOKEN.match(self.text, self.position)
        if not match:
            raise self.error("unexpected character")
        kind = match.lastgroup or ""
        return kind, match[kind]

    def take(self) -> tuple[str, str]:
        token = self.peek()
        match = _TOKEN.match(self.text, self.position)
        self.position = match.end() if match else len(self.text)
        return token

    def expect(self, mark: str) -> None:
        if self.peek() != ("mark", mark):
            raise self.error(f"expected `{mark}`")
        self.take()

    def expression(self) -> Expression:
        kind, word = self.peek()
        if kind != "word":
            raise self.error("expected a name" if kind != "end" else "it ends too early")
        self.take()
        if self.peek() == ("mark", "(") and word in {"all", "any", "not"}:
            self.take()
            operands = self.arguments()
            if word == "not" and len(operands) != 1:
                raise self.error("`not` takes one argument")
            name: Literal["all", "any", "not"] = (
                "all" if word == "all" else "any" if word == "any" else "not"
            )
            return Combination(name, operands)
        if self.peek() == ("mark", "="):
            self.take()
            return Option(word.removeprefix("r#"), self.value())
        # `true` and `false` are literals since Rust 1.88
        if word in {"true", "false"}:
            return Combination("all" if word == "true" else "any", ())
        return Option(word.removeprefix("r#"), None)

    def arguments(self) -> tuple[Expression, ...]:
        operands: list[Expression] = []
        while self.peek() != ("mark", ")"):
            operands.append(self.expression())
            if self.peek() == ("mark", ","):
                self.take()
            elif self.peek() != ("mark", ")"):
                raise self.error("expected `,` or `)`")
        self.take()
        return tuple(operands)

    def value(self) -> str:
        if self.text[self.position :].lstrip().startswith('"'):
            quoted = _TOKEN.match(self.text, self.position)
            if not quoted:
                raise self.error("the string does not end")
            return self.take()[1][1:-1]
        # cbindgen.toml writes `"target_os = freebsd" = "DEFINE"`
        match = _BARE_VALUE.match(self.text, self.position)
        if not match:
            raise self.error("expected a value")
        self.position = match.end()
        return match[1]


def parse_cfg(text: str) -> Expression:
    """Parse what is between the parentheses of `cfg(...)`. Raises `UsageError`.

    Values may be unquoted, as in cbindgen's `[defines]`.
    """
    parser = _Parser(text)
    expression = parser.expression()
    if parser.peek()[0] != "end":
        raise parser.error("more than one expression")
    return expression


def holds(expression: Expression, cfg: CfgSet) -> bool:
    """Whether `expression` is true where exactly the options in `cfg` are set."""
    if isinstance(expression, Option):
        return (expression.name, expression.value) in cfg
    results = [holds(operand, cfg) for operand in expression.operands]
    if expression.kind == "not":
        return not results[0]
    return all(results) if expression.kind == "all" else any(results)


def is_cfg_platform(key: str) -> bool:
    """Whether the key of a platform is ``cfg(...)``, not the name of a target."""
    return key.startswith("cfg(") and key.endswith(")")


def parse_platform(key: str) -> Expression | str:
    """A key of a `target` table: an expression, or the triple it names. Raises `UsageError`."""
    if is_cfg_platform(key):
        return parse_cfg(key[4:-1])
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", key):
        raise UsageError(
            f"`{key}` is neither a target triple nor cfg(...)",
            help="for example targets.'cfg(windows)' or targets.x86_64-unknown-linux-gnu",
        )
    return key


def parse_rustc_cfg(stdout: str) -> CfgSet:
    """The options that `rustc --print cfg` printed, one a line."""
    options: set[tuple[str, str | None]] = set()
    for line in filter(None, map(str.strip, stdout.splitlines())):
        name, equals, value = line.partition("=")
        options.add((name, value.strip('"') if equals else None))
    return frozenset(options)


def feature_cfg(features: Iterable[str]) -> CfgSet:
    """The options that enabled Cargo features set."""
    return frozenset(("feature", name) for name in features)


_ARCH_PREFIXES = (
    ("x86_64", "x86_64"),
    ("arm64ec", "arm64ec"),
    ("aarch64", "aarch64"),
    ("arm64", "aarch64"),
    ("thumb", "arm"),
    ("arm", "arm"),
    ("riscv64", "riscv64"),
    ("riscv32", "riscv32"),
    ("powerpc64", "powerpc64"),
    ("powerpc", "powerpc"),
    ("mipsisa64", "mips64r6"),
    ("mipsisa32", "mips32r6"),
    ("mips64", "mips64"),
    ("mips", "mips"),
    ("sparcv9", "sparc64"),
    ("loongarch64", "loongarch64"),
    ("loongarch32", "loongarch32"),
    ("wasm32", "wasm32"),
    ("wasm64", "wasm64"),
)
_64_BIT_TEXT = """
    x86_64 aarch64 arm64ec riscv64 powerpc64 mips64 mips64r6 sparc64 loongarch64 s390x wasm64
    bpf nvptx64
"""
_64_BIT = frozenset(_64_BIT_TEXT.split())
_UNIX_TEXT = """
    linux android macos ios tvos watchos visionos freebsd netbsd openbsd dragonfly solaris
    illumos haiku hurd emscripten cygwin aix redox fuchsia nto espidf horizon vita l4re vxworks
    nuttx rtems lynxos178 qurt
"""
_UNIX = frozenset(_UNIX_TEXT.split())


def target_arch(target: Target) -> str:
    """`target_arch` as rustc sets it."""
    if target.arch in {"i386", "i586", "i686"}:
        return "x86"
    for prefix, arch in _ARCH_PREFIXES:
        if target.arch.startswith(prefix):
            return arch
    return target.arch


def target_os(target: Target) -> str:
    """`target_os` as rustc sets it."""
    if target.environment.startswith("android"):
        return "android"
    return {"darwin": "macos"}.get(target.system, target.system)


def target_env(target: Target) -> str:
    """`target_env` as rustc sets it ("" where the target has none)."""
    for name in ("gnu", "musl", "msvc", "uclibc", "ohos", "newlib", "sgx", "macabi"):
        if target.environment.startswith(name):
            return name
    if target.system == "redox":
        return "relibc"
    return "sim" if target.environment == "sim" else ""


def builtin_cfg(target: Target) -> CfgSet:
    """The options of a target by our own tables, for where rustc cannot be run.

    Has `unix`/`windows` and target_os, _arch, _env, _family, _vendor, _pointer_width and
    _endian.
    """
    arch, system = target_arch(target), target_os(target)
    families: list[str] = []
    if system in _UNIX:
        families.append("unix")
    if system == "windows":
        families.append("windows")
    if arch.startswith("wasm"):
        families.append("wasm")
    narrow = "x32" in target.environment or "ilp32" in target.environment
    narrow = narrow or target.arch == "arm64_32"
    values: Mapping[str, str] = {
        "target_arch": arch,
        "target_os": system,
        "target_env": target_env(target),
        "target_vendor": target.vendor,
        "target_pointer_width": "64" if arch in _64_BIT and not narrow else "32",
        "target_endian": "big" if _is_big_endian(target.arch) else "little",
    }
    options: set[tuple[str, str | None]] = set(values.items())
    options.update(("target_family", family) for family in families)
    options.update((family, None) for family in families if family != "wasm")
    return frozenset(options)


def _is_big_endian(arch: str) -> bool:
    if arch.startswith(("s390x", "sparc", "m68k")):
        return True
    if arch.startswith(("powerpc", "mips")):
        return not arch.endswith(("le", "el", "r6el"))
    return arch.startswith(("aarch64_be", "aarch64be", "armeb", "armebv"))
