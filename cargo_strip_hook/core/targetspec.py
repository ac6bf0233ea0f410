"""Target specifications: files that name a target, as for rustc (`--target x.json`).

Source: rustc's `rustc_target::spec` (keys `llvm-target`, `arch`, `os`, `env`); RUST_TARGET_PATH.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.target import Target

# LLVM's name -> rustc's name
_SYSTEMS = {"macosx": "macos", "xros": "visionos", "win32": "windows", "elf": "none"}
_ARCHITECTURES = {"arm64": "aarch64", "i386": "i686", "amd64": "x86_64"}
_WIDTH = {"x86": "i686"}  # `arch` -> the first word of a triple, where they differ


def named_target(
    text: str, folders: Sequence[Path] = (), environ: Mapping[str, str] | None = None
) -> Target:
    """The target that `--target` names: a triple, or the file of a specification.

    The target of a specification is its `llvm-target`, a triple, completed by `arch`, `os` and
    `env`. A relative path is looked for in the current folder and in `folders`, a name without
    suffix in RUST_TARGET_PATH. Raises `UsageError`.
    """
    environ = os.environ if environ is None else environ
    if not text.endswith(".json"):
        for folder in filter(None, environ.get("RUST_TARGET_PATH", "").split(os.pathsep)):
            path = Path(folder, f"{text}.json")
            if path.is_file():
                return read_spec(path)
        return Target.parse(text)
    paths = [Path(text), *(folder / text for folder in folders)]
    return read_spec(next((p for p in paths if p.is_file()), paths[0]))


def read_spec(path: Path) -> Target:
    """The target of a specification. Raises `UsageError` where it cannot be read, or names none."""
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UsageError(
            f"the target specification {path} cannot be read: {e.strerror}",
            help="name a triple, or a file as `rustc --print target-spec-json` writes it",
        ) from e
    except (ValueError, RecursionError) as e:
        raise UsageError(f"the target specification {path} is no JSON: {e}") from e

    def text(key: str) -> str:
        value = table.get(key) if isinstance(table, dict) else None
        return value if isinstance(value, str) else ""

    try:
        target = Target.parse(text("llvm-target"))
    except UsageError:
        raise UsageError(
            f"the target specification {path} has no `llvm-target` that is a triple",
            help="it is a key that rustc needs, too, for example x86_64-unknown-none",
        ) from None
    arch = _ARCHITECTURES.get(target.arch, target.arch)
    if arch == "unknown":
        arch = _WIDTH.get(text("arch"), text("arch")) or arch
    system = re.sub(r"[\d.]+$", "", target.system)
    system = _SYSTEMS.get(system, system)
    if system in ("unknown", "none") and text("os"):
        system = text("os")
    environment = re.sub(r"[\d.]+$", "", target.environment)
    if environment in ("", "elf", "unknown"):
        environment = text("env")
    environment = {"simulator": "sim"}.get(environment, environment)
    return replace(target, arch=arch, system=system, environment=environment)
