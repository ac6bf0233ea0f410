"""Public symbols from a file that lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cargo_strip_hook.core.errors import ExportsError
from cargo_strip_hook.core.files import read_bytes
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.patterns import Pattern
from cargo_strip_hook.exports.sources import Named
from cargo_strip_hook.exports.text import decoded


def read(path: Path, target: Target) -> Named:
    """Read a symbol-list file: one name a line, a GNU version script, Apple's list or a ``.def``.

    The format is recognised by the text. The local names of a version script are excluded. Raises
    `ExportsError` for a file that is none of these, or empty.
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
    entries: list[tuple[str, int, bool]]
    if re.search(r"^\s*EXPORTS\b", text, re.MULTILINE | re.IGNORECASE):
        entries = [(name, line, True) for name, line in _module_definition(text)]
    elif _is_version_script(text):
        entries = list(_version_script(text, path))
    else:
        entries = [(name, line, True) for name, line in _plain(text)]
        bad = next((f for f in entries if " " in f[0]), None)
        if bad:
            raise ExportsError(f"{path}:{bad[1]}: `{bad[0]}` is no symbol name")
    # Apple's exported_symbols_list spells names with their underscore.
    names = [name for name, _, _ in entries]
    raw = (
        target.symbol_prefix == "_" and bool(names) and all(n[:1] in tuple("_*?[/") for n in names)
    )
    raw = raw and any(n[:1] == "_" for n in names)
    patterns = [
        (Pattern(name, "file", f"{path}:{line}", raw), public) for name, line, public in entries
    ]
    wanted = tuple(p for p, public in patterns if public)
    if not wanted:
        raise ExportsError(f"the symbol list `{path}` names no symbol")
    return Named(path.name, wanted, tuple(p for p, public in patterns if not public))


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
        word, first_line = m[0], line
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
                yield name, first_line, public
            name = ""
        elif word.startswith('"') and name == "extern":
            language, name = word[1:-1], ""
        elif word not in {":", "::"}:
            name = word.strip('"') if not name or depth else name
    if depth:
        raise ExportsError(f"{path}:{line}: the braces of the version script do not match")
