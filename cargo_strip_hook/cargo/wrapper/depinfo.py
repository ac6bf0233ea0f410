"""Adding our own inputs to the ``.d`` file that rustc wrote.

Cargo reads the prerequisites of that file's first rule, and its lines ``# env-dep:NAME=VALUE``
(cargo `core/compiler/fingerprint/dep_info.rs`, `parse_rustc_dep_info`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

# cargo splits at white space, and joins again, by one space, what follows a backslash
_UNSAYABLE = re.compile(r"[^\S ]|\\(?: |$)")


def with_inputs(text: str, files: Sequence[Path], variables: Mapping[str, str | None]) -> str:
    """The text of a ``.d`` file, with `files` added to its first rule, and environment `variables`.

    A variable that is not set has the value None. What the text has already is not added again; a
    file whose name cannot be written there (with a tab) is left out.
    """
    files = [f for f in files if not _UNSAYABLE.search(os.fspath(f))]
    lines = text.split("\n")
    rule = next((n for n, line in enumerate(lines) if ": " in line or line.endswith(":")), None)
    if rule is not None:
        known = re.findall(r"(?:\\ |\S)+", lines[rule])
        more = [_escaped(os.fspath(file)) for file in files]
        lines[rule] = " ".join([lines[rule].rstrip(" "), *(m for m in more if m not in known)])
    for name, value in variables.items():
        line = f"# env-dep:{name}" if value is None else f"# env-dep:{name}={_quoted(value)}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines).rstrip("\n") + "\n"


def _escaped(path: str) -> str:
    """A file name for a rule: a backslash before each space (rustc `write_out_deps`)."""
    return path.replace(" ", "\\ ")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


__all__ = ["with_inputs"]
