"""The link map: where ranges of the input are in the output, as the engine says."""

from __future__ import annotations

import numpy as np

LINK_MAP = np.dtype(
    [
        ("member", "<i4"),  # position in the members of the original archive
        ("section", "<i4"),  # index of the section in that object
        ("offset", "<i8"),  # where the piece begins in its section, bytes
        ("size", "<i8"),  # bytes
        ("out_section", "<i4"),  # index of the section in the result
        ("out_offset", "<i8"),  # where the piece begins there, bytes
    ]
)
