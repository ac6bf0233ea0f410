"""Assign addresses: where each atom and each section is in the new object, and in its contents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.link.model import Array, Bool, Int32, Int64

if TYPE_CHECKING:
    from typing_extensions import Self

STEP = 40  # bits of an offset of a location; sections are smaller


@dataclass(frozen=True, slots=True, eq=False)
class Addresses:
    """Where everything is.

    By atom: `section`, the output section's number from 0, -1 for what is nowhere, and `offset` in
    it, bytes. By output section: `size`, bytes; `stored`, whether it has contents; `executable`;
    `start`, where it begins in all contents. `kept` marks the symbols that stay global.
    """

    section: Int32
    offset: Int64
    size: Int64
    stored: Bool
    executable: Bool
    start: Int64
    kept: Bool

    def location(self, atoms: Array) -> Int64:
        """The location of each atom as one number: section << STEP | offset, int64."""
        keys: Int64 = (self.section[atoms].astype(np.int64) << STEP) + self.offset[atoms]
        return keys

    def resized(self, size: Int64) -> Self:
        """The same with other sizes of the sections, whose contents follow without a gap."""
        return replace(self, size=size, start=begin_of(size, self.stored))


def begin_of(size: Int64, stored: Bool, align: int = 1) -> Int64:
    """Where each section begins where those that are stored follow each other, by section."""
    held = np.where(stored, -(-size // align) * align, 0)
    begin: Int64 = np.cumsum(held) - held
    return begin
