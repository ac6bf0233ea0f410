"""Rooms of the package import what lies below them, and general phases know no object format."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cargo_strip_hook

PACKAGE = Path(cargo_strip_hook.__file__).parent

# Each room with the rooms that it may import. What two rooms need is in one below both.
MAY: dict[str, str] = {
    "core": "",
    "archive": "core",
    "demangle": "core",
    "link": "core archive demangle",
    "formats": "core archive demangle link",
    "exports": "core archive formats",
    "engines": "core archive link formats",
    "verify": "core archive",
    "replace": "core",
    "analysis": "core archive demangle link formats exports verify",
    "pipeline": "core archive link formats exports engines verify replace",
    "present": "core analysis pipeline",
    "cargo": "core archive formats exports pipeline analysis present replace api",
    "cli": "core archive demangle formats exports engines replace analysis pipeline present cargo "
    "api",
    "api": "core archive formats exports analysis pipeline",
    "__main__": "core engines cargo cli",
    "__init__": "api",
}
# Engine and verifier share no code: what both know of a format, each has read for itself.
APART = [("verify", "link"), ("verify", "formats"), ("verify", "engines")]
APART += [(other, "verify") for other in ("link", "formats", "engines", "exports")]
GENERAL = ("link", "pipeline", "engines/native.py", "engines/worker.py")
FORMATS = re.compile(r"\b(elf|macho|coff)\b")


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and name, without the package's, of each module that a file imports of the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "cargo_strip_hook":
            names = [f"cargo_strip_hook.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "cargo_strip_hook" and rest and not rest[0].startswith("__"):
                yield node.lineno, tuple(rest)


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_each_room_is_in_the_table() -> None:
    assert {room(f.relative_to(PACKAGE).parts) for f in files()} == set(MAY)


def test_rooms_import_only_what_the_table_says() -> None:
    wrong = []
    for file in files():
        mine = room(file.relative_to(PACKAGE).parts)
        for line, module in imports(file):
            other = room(module)
            if other != mine and other not in MAY[mine].split():
                wrong.append(f"{file.relative_to(PACKAGE)}:{line}: {'.'.join(module)}")
    assert not wrong


def test_the_table_has_no_circle() -> None:
    below: dict[str, set[str]] = {name: set(text.split()) for name, text in MAY.items()}
    while below:
        lowest = [name for name, rest in below.items() if not rest & below.keys()]
        assert lowest, f"these import each other: {sorted(below)}"
        for name in lowest:
            del below[name]


def test_the_verifier_shares_nothing_with_the_engines() -> None:
    for one, other in APART:
        assert other not in MAY[one].split()


@pytest.mark.parametrize("place", GENERAL)
def test_general_phases_name_no_format(place: str) -> None:
    path = PACKAGE / place
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for line, module in imports(file):
            assert not FORMATS.search(".".join(module)), f"{file.name}:{line}"
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in ("elf", "macho", "coff"):
                assert id(node) in texts, f"{file.name}:{node.lineno} asks for a format"


def test_nobody_borrows_from_the_verifier() -> None:
    """Its readers are a second opinion: what else needs one has the model's."""
    offered = {("verify",), *(("verify", name) for name in ("marker", "linkcheck", "sharing"))}
    for file in files():
        if room(file.relative_to(PACKAGE).parts) != "verify":
            for line, module in imports(file):
                assert module[0] != "verify" or module in offered, f"{file.name}:{line}"
