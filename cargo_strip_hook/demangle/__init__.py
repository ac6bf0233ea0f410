"""Names of Rust's two manglings, back to how they are written, and the crate each belongs to.

Names come as object files have them: a leading underscore of Darwin or i686 Windows is taken off,
`.llvm.…` too, and other suffixes stay. The text is that of `rustfilt`, without hashes.
"""

from __future__ import annotations

import re

from cargo_strip_hook.demangle import legacy, v0

_SUFFIX = re.compile(r"\.llvm\.[0-9A-F@]+\Z")


def demangle(name: str) -> str:
    """A mangled name as it is written in Rust; any other name as it is."""
    bare = _SUFFIX.sub("", name)
    start = _start(bare)
    if start is None:
        return name
    kind, body = start
    text = legacy.demangle(body) if kind == "legacy" else v0.demangle(body)
    return name if text is None else text


def crate_of(name: str) -> str | None:
    """The crate that a mangled name belongs to; None where the name is not Rust's.

    That is the crate whose path it is, and for a method the one that has the `impl` (v0), or as
    far as the name tells (legacy): the type's own crate, the trait's for types of no crate.
    """
    start = _start(name)
    if start is None:
        return None
    kind, body = start
    return legacy.crate_of(body) if kind == "legacy" else v0.crate_of(body)


def _start(name: str) -> tuple[str, str] | None:
    """Which mangling, and what follows its prefix."""
    at = 1 if name.startswith("__") else 0
    if name.startswith("_ZN", at):
        return "legacy", name[at + 3 :]
    if name.startswith("_R", at):
        return "v0", name[at + 2 :]
    return None


__all__ = ["crate_of", "demangle"]
