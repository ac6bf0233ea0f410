"""Assign addresses: where each atom and each section is in the new object, and in its contents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.link.arrays import Columns
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64

if TYPE_CHECKING:
    from typing_extensions import Self

STEP = 40  # bits of an offset of a location; sections are smaller


@dataclass(frozen=True, slots=True, eq=False)
class Sections(Columns):
    """The output sections, numbered from 0.

    `size` and `align` in bytes; `stored`: whether it has contents; `start`: where these begin in
    those of all sections.
    """

    size: Int64
    align: Int64
    stored: Bool
    executable: Bool
    start: Int64

    @classmethod
    def following(
        cls, size: Int64, align: Int64, stored: Bool, executable: Bool, step: int = 1
    ) -> Self:
        """Contents follow each other, and begin at multiples of `step` bytes."""
        held = np.where(stored, -(-size // step) * step, 0)
        return cls(size, align, stored, executable, np.cumsum(held) - held)


@dataclass(frozen=True, slots=True, eq=False)
class Addresses:
    """Where everything is.

    By atom: `section`, the output section's number from 0, -1 for what is nowhere, and `offset` in
    it, bytes. `kept` (bool) marks the symbols that stay global.
    """

    section: Int32
    offset: Int64
    sections: Sections
    kept: Bool

    def location(self, atoms: Array) -> Int64:
        """The location of each atom as one number: section << STEP | offset, int64."""
        keys: Int64 = (self.section[atoms].astype(np.int64) << STEP) + self.offset[atoms]
        return keys

    def resized(self, size: Int64) -> Self:
        """The same with other sizes of the sections, whose contents follow without a gap."""
        _, align, stored, executable, _ = self.sections.columns()
        return replace(self, sections=Sections.following(size, align, stored, executable))
