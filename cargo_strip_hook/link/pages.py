"""Lets go of pages of a mapped file that are not needed for now.

Peak memory counts them; they come back from the page cache when they are read again.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable

import numpy as np

_WORTHWHILE = 1 << 16  # bytes; below that the call costs more than it frees


def release(view: object) -> None:
    """Release the whole pages inside of a memoryview of a mapping; anything else is left alone."""
    if not isinstance(view, memoryview) or len(view) < _WORTHWHILE:
        return
    mapping = view.obj
    if not isinstance(mapping, mmap.mmap) or not hasattr(mapping, "madvise"):
        return
    address = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    base = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    page = mmap.PAGESIZE
    start = -(-(address - base) // page) * page
    end = (address - base + len(view)) // page * page
    if end > start:
        mapping.madvise(mmap.MADV_DONTNEED, start, end - start)


def release_all(views: Iterable[object]) -> None:
    """Release all pages of the mappings that memoryviews are of, also those of small ones."""
    mappings = {id(v.obj): v.obj for v in views if isinstance(v, memoryview)}
    for mapping in mappings.values():
        if isinstance(mapping, mmap.mmap) and hasattr(mapping, "madvise"):
            mapping.madvise(mmap.MADV_DONTNEED)


def trim() -> None:
    """Give memory back that is free: glibc keeps it, once large arrays came and went."""
    if sys.platform != "linux":
        return
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):  # another C library
        return
