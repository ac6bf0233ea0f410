"""Whether a library is older than its sources."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_SKIPPED = frozenset({"target", "node_modules"})


def newer_source(library: Path, dep_infos: Sequence[Path], root: Path) -> Path | None:
    """The newest source, if it is newer than `library`; None where the library is up to date.

    The sources are those in the first of `dep_infos` that exists (the ``.d`` file that cargo writes
    beside its outputs); without one, the package's ``*.rs`` and Cargo.toml below `root`.
    """
    try:
        built = library.stat().st_mtime_ns
    except OSError:
        return None
    listed = next((path for path in dep_infos if path.is_file()), None)
    sources = parse_dep_info(listed.read_text("utf-8", "replace")) if listed else _sources(root)
    base = root if listed else Path()
    newest: tuple[int, Path] | None = None
    for source in sources:
        path = base / source
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            # it is gone: cargo would rebuild, but there is no time to compare
            continue
        if changed > built and (newest is None or changed > newest[0]):
            newest = changed, path
    return newest[1] if newest else None


def parse_dep_info(text: str) -> tuple[str, ...]:
    """The prerequisites of all rules in a ``.d`` file, each once.

    Format: make rules, one a line, spaces in names after a backslash (cargo
    `core/compiler/output_depinfo.rs`).
    """
    prerequisites: dict[str, None] = {}
    for line in text.splitlines():
        _, colon, names = line.partition(": ")
        if not colon or line.startswith("#"):
            continue
        for name in re.findall(r"(?:\\ |\S)+", names):
            prerequisites[name.replace("\\ ", " ")] = None
    return tuple(prerequisites)


def _sources(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        # a folder with its own Cargo.toml is another package
        folders[:] = [
            name
            for name in folders
            if name not in _SKIPPED
            and not name.startswith(".")
            and not (here / name / "Cargo.toml").exists()
        ]
        for name in files:
            if name.endswith(".rs") or name == "Cargo.toml":
                yield os.fspath(here / name)
