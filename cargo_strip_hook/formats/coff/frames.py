"""DWARF unwind information in COFF, as MinGW has it on i686.

Source: LSB 5.0 Core, "Exception Frames". A file's `.eh_frame` stays whole: it lives with any
function that it describes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.link.model import Int64


def function_fields(contents: memoryview, fail: Callable[[str, int], ObjectError]) -> Int64:
    """The offsets of the fields of FDEs that name the function they describe."""
    found: list[int] = []
    at = 0
    while at + 4 <= len(contents):
        size = int.from_bytes(contents[at : at + 4], "little")
        if size == 0:  # the end, or padding
            at += 4
            continue
        if size == 0xFFFFFFFF or size < 4 or at + 4 + size > len(contents):
            raise fail("a record of .eh_frame is damaged", at)
        if any(contents[at + 4 : at + 8]):
            found.append(at + 8)
        at += 4 + size
    return np.array(found, np.int64)
