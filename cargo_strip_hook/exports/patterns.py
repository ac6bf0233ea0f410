"""Naming public symbols by hand: patterns, presets and symbol-list files.

Patterns are written with C names, without the underscore that Mach-O puts before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.core.errors import ExportsError, UsageError
from cargo_strip_hook.core.files import read_bytes
from cargo_strip_hook.core.requests import OriginKind
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.matching import Names, selected
from cargo_strip_hook.exports.text import decoded

# What the frameworks make public: gstreamer-rs `plugin_define!`, the Java Native Interface
# specification ("Resolving Native Method Names"), uniffi's scaffolding and its metadata.
PRESETS: dict[str, tuple[str, ...]] = {
    "gst": ("gst_plugin_*_get_desc", "gst_plugin_*_register"),
    "jni": ("Java_*", "JNI_OnLoad", "JNI_OnUnload", "JNI_OnLoad_*", "JNI_OnUnload_*"),
    "uniffi": ("uniffi_*", "ffi_*", "UNIFFI_META_*"),
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A wish for symbols. `raw`: spelled as in the object file, as Apple's lists are."""

    text: str
    kind: OriginKind = "pattern"
    where: str = ""
    raw: bool = False

    @property
    def exact(self) -> bool:
        """Whether it is one name and not a pattern."""
        return not self.is_regex and not any(c in self.text for c in "*?[")

    @property
    def is_regex(self) -> bool:
        """``/…/``."""
        return len(self.text) > 2 and self.text[0] == "/" and self.text[-1] == "/"

    def matcher(self) -> Callable[[str], bool]:
        """A predicate on names. A regex has to match the whole name. Raises `UsageError`."""
        self.check()
        if self.exact:
            return self.text.__eq__
        if self.is_regex:
            return lambda name: self.matching([name])[0]
        import fnmatch

        whole = re.compile(fnmatch.translate(self.text))
        return lambda name: whole.fullmatch(name) is not None

    def matching(self, names: Sequence[str]) -> list[bool]:
        """Whether a regex matches each whole name. Raises `UsageError`."""
        from cargo_strip_hook.exports.regexes import matches

        return matches(self.text[1:-1], names)

    def check(self) -> None:
        """Raise `UsageError` for what can be no name and no pattern of names."""
        if self.is_regex:
            return
        if self.text.startswith("?") and "@" in self.text:
            return  # a C++ name of MSVC's
        if not self.text.strip():
            raise UsageError("a pattern of symbol names is empty")
        if self.kind != "file" and any(c.isspace() for c in self.text):
            raise UsageError(
                f"`{self.text}` is no symbol name: there is a space in it",
                help="give the option once for each name",
            )
        # fnmatch takes a bracket without an end for a letter; no symbol name has one
        if "[" in re.sub(r"\[(?:!.|[^!])[^\]]*\]", "", self.text):
            raise UsageError(f"`{self.text}` is no pattern: a `[` has no `]`")


@dataclass(frozen=True, slots=True)
class SymbolList:
    """What a symbol-list file asks for; `excluded` are a version script's local names."""

    patterns: tuple[Pattern, ...]
    excluded: tuple[Pattern, ...] = ()


def preset(name: str) -> tuple[Pattern, ...]:
    """The patterns of a preset. Raises `UsageError` for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset `{name}`", help=f"presets: {', '.join(PRESETS)}")
    return tuple(Pattern(text, "preset", f"{name}: {text}") for text in PRESETS[name])


def read_list(path: Path, target: Target) -> SymbolList:
    """Read a symbol-list file: names one a line, a GNU version script, Apple's list or a ``.def``.

    The kind is recognised from the text. Raises `ExportsError` for a file that is none or empty.
    """
    try:
        text = decoded(read_bytes(path))
    except OSError as e:
        raise ExportsError(f"the symbol list `{path}` cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ExportsError(f"the symbol list `{path}` is no text: {e}") from e
    if "\0" in text:
        raise ExportsError(
            f"the symbol list `{path}` is no text: there is a zero byte in it",
            help="save it as UTF-8",
        )
    found: list[tuple[str, int, bool]]
    if re.search(r"^\s*EXPORTS\b", text, re.MULTILINE | re.IGNORECASE):
        found = [(name, line, True) for name, line in _module_definition(text)]
    elif _is_version_script(text):
        found = list(_version_script(text, path))
    else:
        found = [(name, line, True) for name, line in _plain(text)]
        bad = next((f for f in found if " " in f[0]), None)
        if bad:
            raise ExportsError(f"{path}:{bad[1]}: `{bad[0]}` is no symbol name")
    # Apple's exported_symbols_list spells names with their underscore.
    names = [name for name, _, _ in found]
    raw = (
        target.symbol_prefix == "_" and bool(names) and all(n[:1] in tuple("_*?[/") for n in names)
    )
    raw = raw and any(n[:1] == "_" for n in names)
    patterns = [
        (Pattern(name, "file", f"{path}:{line}", raw), public) for name, line, public in found
    ]
    wanted = tuple(p for p, public in patterns if public)
    if not wanted:
        raise ExportsError(f"the symbol list `{path}` names no symbol")
    return SymbolList(wanted, tuple(p for p, public in patterns if not public))


def _is_version_script(text: str) -> bool:
    bare = re.sub(r"#[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    return "{" in bare and ";" in bare


def _plain(text: str) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(text.split("\n"), 1):
        name = line.partition("#")[0].strip()
        if name:
            yield name, number


def _module_definition(text: str) -> Iterator[tuple[str, int]]:
    """The EXPORTS of a module-definition file ("Module-Definition (.def) Files", MSVC)."""
    active = False
    for number, line in enumerate(text.split("\n"), 1):
        # MinGW's `a == b` names the symbol of an import library
        words = re.sub("=+", " = ", line.partition(";")[0]).split()
        if not words:
            continue
        head = words[0].upper()
        if head == "EXPORTS":
            active = True
            words = words[1:]
        elif head in {"LIBRARY", "NAME", "DESCRIPTION", "SECTIONS", "STACKSIZE", "HEAPSIZE"}:
            active = False
        if not active or not words:
            continue
        name = words[0].strip('"')
        if len(words) > 2 and words[1] == "=":
            name = words[2].strip('"')
            if "." in name:
                continue  # forwarded to another DLL
        yield name, number


def _version_script(text: str, path: Path) -> Iterator[tuple[str, int, bool]]:
    """The global names of a GNU version script or dynamic list (ld manual, "VERSION Command")."""
    words = re.compile(r"/\*.*?\*/|#[^\n]*|\n|\s+|\"[^\"\n]*\"|::?|[{};]|[^\s{};:\"]+", re.DOTALL)
    line, depth, public, language = 1, 0, True, ""
    name = ""
    languages: list[str] = []
    for m in words.finditer(text):
        word, at = m[0], line
        line += word.count("\n")
        if word[0] in " \t\r\n\f#" or word.startswith("/*"):
            continue
        if word == "{":
            depth += 1
            languages.append(language)
            language = name = ""
            public = public if depth > 1 else True
        elif word == "}":
            depth -= 1
            if depth < 0:
                break
            languages.pop()
            language = ""
        elif word == ":" and name in {"global", "local"}:
            public, name = name == "global", ""
        elif word == ";":
            if name and depth and "C++" not in languages and (public or name != "*"):
                yield name, at, public
            name = ""
        elif word.startswith('"') and name == "extern":
            language, name = word[1:-1], ""
        elif word not in {":", "::"}:
            name = word.strip('"') if not name or depth else name
    if depth:
        raise ExportsError(f"{path}:{line}: the braces of the version script do not match")


def select_all(
    patterns: Sequence[Pattern], names: Names
) -> tuple[dict[str, list[Pattern]], list[Pattern]]:
    """Which pattern asks for which name, and the patterns that match nothing.

    Raises `UsageError` for what is no pattern.
    """
    chosen: dict[str, list[Pattern]] = {}
    idle: list[Pattern] = []
    for pattern, found in zip(patterns, selected(patterns, names), strict=True):
        if not found:
            idle.append(pattern)
        for name in found:
            chosen.setdefault(name, []).append(pattern)
    return chosen, idle
