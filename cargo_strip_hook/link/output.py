"""The output side of the model: what is to be written, before a format encodes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.link.addresses import STEP
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64

if TYPE_CHECKING:
    from typing_extensions import Self


class Columns:
    """A table whose fields are its columns: arrays with one item for each row."""

    __slots__ = ()

    def columns(self) -> list[Array]:
        """The columns in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]

    def rows(self, which: Array) -> Self:
        """The rows that `which` marks (bool) or numbers (int, in this order)."""
        return type(self)(*(column[which] for column in self.columns()))

    @classmethod
    def joined(cls, tables: Sequence[Self]) -> Self:
        """The rows of all tables, one behind the other."""
        every = zip(*(table.columns() for table in tables), strict=True)
        return cls(*(np.concatenate(columns) for columns in every))


@dataclass(frozen=True, slots=True, eq=False)
class Relocations(Columns):
    """Relocations of the new object.

    The field is `offset` bytes into output section `section`; `type` is the format's. It refers to
    the program-wide `symbol`, or, where that is -1, to what is `target_offset` bytes into
    `target_section`: by a symbol at just that place where it is `exact`, else by the section.
    `addend` is what is added to that.
    """

    section: Int32
    offset: Int64
    type: Int64
    symbol: Int32
    target_section: Int32
    target_offset: Int64
    addend: Int64
    exact: Bool

    @property
    def place(self) -> Int64:
        """Where the target is, as one number (see `Addresses.key`); only for symbols of -1."""
        places: Int64 = (self.target_section.astype(np.int64) << STEP) + self.target_offset
        return places


__all__ = ["Columns", "Relocations"]
