"""The keys of cbindgen.toml that decide which lines of a header count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cargo_strip_hook.cargo.cfg import CfgSet, holds, parse_cfg
from cargo_strip_hook.cargo.tomlfile import read_table, sub_table
from cargo_strip_hook.core.errors import UsageError


def load_defines(root: Path) -> dict[str, str]:
    """`[defines]` of the package's cbindgen.toml, inverted: C define -> cfg expression.

    A define that several expressions share stands for any of them (cbindgen's documentation,
    "docs.md": ``"target_os = freebsd" = "DEFINE_FREEBSD"``).
    """
    path = root / "cbindgen.toml"
    if not path.is_file():
        return {}
    defines: dict[str, list[str]] = {}
    for expression, define in sub_table(read_table(path), "defines").items():
        if isinstance(define, str):
            defines.setdefault(define, []).append(expression)
    return {d: e[0] if len(e) == 1 else f"any({', '.join(e)})" for d, e in defines.items()}


def active_defines(defines: Mapping[str, str], cfg: CfgSet) -> tuple[tuple[str, ...], list[str]]:
    """The defines whose expression holds, and the expressions that cannot be understood."""
    active: list[str] = []
    odd: list[str] = []
    for define, text in defines.items():
        try:
            if holds(parse_cfg(text), cfg):
                active.append(define)
        except UsageError:
            odd.append(text)
    return tuple(active), odd
