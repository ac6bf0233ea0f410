"""Where pieces of the input are in the output: the engine's claim that the checker tests."""

from __future__ import annotations

import numpy as np

PLACEMENT = np.dtype(
    [
        ("member", "<i4"),  # position in the members of the original archive
        ("section", "<i4"),  # index of the section in that object
        ("offset", "<i8"),  # where the piece begins in its section, bytes
        ("size", "<i8"),  # bytes
        ("out_section", "<i4"),  # index of the section in the result
        ("out_offset", "<i8"),  # where the piece begins there, bytes
    ]
)
