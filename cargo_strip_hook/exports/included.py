"""The files that a header includes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cargo_strip_hook.core.files import read_bytes
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.macros import SYSTEM_HEADERS
from cargo_strip_hook.exports.preprocess import files_of

_INCLUDE = re.compile(rb'^\s*#\s*include\w*\s*(?:<([^>]*)>|"([^"]*)"|(.))', re.M)


def included_files(
    header: Path,
    *,
    target: Target,
    include_dirs: Sequence[Path] = (),
    defines: Sequence[str] = (),
) -> tuple[Path, ...]:
    """All files that are read for `header` in C and in C++, the header itself first.

    For a header that cannot be read to its end: those up to the error. Without system headers,
    which are never read.
    """
    try:
        text = read_bytes(header)
    except OSError:
        return (header,)
    names = ((m[1] or m[2] or b"?").decode(errors="replace") for m in _INCLUDE.finditer(text))
    if all(name in SYSTEM_HEADERS for name in names):
        return (header,)  # like most headers: it includes nothing of ours
    files = dict.fromkeys([header])
    for cxx in (False, True):
        files |= dict.fromkeys(files_of(header, target, include_dirs, defines, cxx=cxx))
    return tuple(files)


__all__ = ["included_files"]
