"""Split debug information: the library only names the files that hold most of it.

Sources: DWARF 5, sections 3.1.2 (skeleton units), 7.3.2 and 7.5.3 (abbreviations); for DWARF 4 the
GNU extension that it was made of (`DW_AT_GNU_dwo_name`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Contents = bytes | bytearray | memoryview

_LEB = rb"[\x80-\xff]*[\x00-\x7f]"
# DW_TAG_compile_unit or DW_TAG_skeleton_unit, then attributes and their forms (one of these,
# DW_FORM_implicit_const, has its value behind it) up to DW_AT_dwo_name or DW_AT_GNU_dwo_name
_SKELETON = re.compile(
    rb"[\x11\x4a][\x00\x01](?:(?!\x00)" + _LEB + rb"(?:\x21|(?!\x21))" + _LEB + rb")*?"
    rb"(?:\x76|\xb0\x42)"
)
_SUFFIX = re.compile(rb"\.dwo\0")
_LONGEST = 4096  # bytes of a path


def file_names(abbreviations: Iterable[Contents], strings: Iterable[Contents]) -> set[bytes]:
    """The files that skeleton units name.

    `abbreviations`: contents of `.debug_abbrev`; `strings`: where names may stand, which are
    `.debug_str` and `.debug_info`.
    """
    names: set[bytes] = set()
    if any(_SKELETON.search(data) for data in abbreviations):
        for data in strings:
            for match in _SUFFIX.finditer(data):
                before = bytes(data[max(0, match.start() - _LONGEST) : match.end() - 1])
                names.add(before.rpartition(b"\0")[2])
    return names


def warning(names: set[bytes]) -> tuple[str, ...]:
    """What to tell of it, if there is anything."""
    if not names:
        return ()
    shown = min(names).decode(errors="surrogateescape")
    what = "a file" if len(names) == 1 else f"{len(names)} files"
    return (
        f"debug information is split off into {what} beside the library (`{shown}`), where "
        "debuggers look for it by name: keep them, or join them with `llvm-dwp -e PROGRAM -o "
        "PROGRAM.dwp`. Those that are only members of the original library are not in the result; "
        '`ar x` takes them out. With `split-debuginfo = "off"` in the profile nothing is split off',
    )


__all__ = ["file_names", "warning"]
