"""Which files a header is made of: those that it includes."""

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
    """All files that are read for `header`, itself first, in C and in C++.

    Of a header that cannot be read to its end it is those up to there. System headers, which are
    never read, are none of them.
    """
    try:
        text = read_bytes(header)
    except OSError:
        return (header,)
    names = ((m[1] or m[2] or b"?").decode(errors="replace") for m in _INCLUDE.finditer(text))
    if all(name in SYSTEM_HEADERS for name in names):
        return (header,)  # as most: there is nothing to look for
    files = dict.fromkeys([header])
    for cxx in (False, True):
        files |= dict.fromkeys(files_of(header, target, include_dirs, defines, cxx=cxx))
    return tuple(files)


__all__ = ["included_files"]
