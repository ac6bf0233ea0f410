"""Where pieces of the members went in the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.macho.read import STEP, Object


class Locations:
    """Where pieces of the members went: (section, offset) -> address in the result.

    `section` (from 1), `start`, `size`, `home` (the result's section) and `address` are arrays, by
    section and offset in order.
    """

    def __init__(
        self,
        members: Object,
        section: Array,
        start: Array,
        size: Array,
        home: Array,
        address: Array,
    ) -> None:
        self.members = members
        self.section, self.start, self.size = section, start, size
        self.home, self.address = home, address
        self._keys = (section << STEP) + start

    def piece(self, section: Array, offset: Array) -> Array:
        """The last piece that begins at each place or before it; 0 where there is none."""
        inside = (offset >= 0) & (offset < 1 << STEP)
        keys = (section.astype(np.int64) << STEP) + np.where(inside, offset, 0)
        return np.maximum(np.searchsorted(self._keys, keys, side="right") - 1, 0)

    def pieces(self, section: Array, offset: Array, end: Array) -> Array:
        """The piece that each place is in, -1 for none: with `end` it may be just behind it."""
        if not len(self._keys):
            return np.full(offset.shape, -1, np.int64)
        at = self.piece(section, offset)
        within, size = offset - self.start[at], self.size[at]
        inside = (self.section[at] == section) & (within >= 0)
        inside &= (within < size) | ((within == size) & (end | (size == 0)))
        return np.where(inside, at, -1)

    def find(self, section: Array, offset: Array, end: Array) -> Array:
        """The address in the result of each place; -1 for what is not there.

        With `end` a place may be just behind a piece.
        """
        if not len(self._keys):
            return np.full(offset.shape, -1, np.int64)
        at = self.pieces(section, offset, end)
        return np.where(at >= 0, self.address[at] + offset - self.start[at], -1)

    def _symbol_locations(self, numbers: Array) -> tuple[Array, Array, Array]:
        """(section, offset, whether that is its end) of the members' symbols; section 0: none."""
        o = self.members
        section = o.entries["section"][numbers].astype(np.int64)
        row = np.maximum(section, 1) - 1
        if not len(o.table):
            return section, section, section > 0
        offset = o.entries["value"][numbers] - o.table["address"][row]
        return section, offset, offset == o.table["size"][row]

    def of_symbols(self, numbers: Array) -> Array:
        """The addresses of the members' symbols in the result, -1 for those that are not there."""
        locations = self._symbol_locations(numbers)
        return np.where(locations[0] > 0, self.find(*locations), -1)

    def pieces_of_symbols(self, numbers: Array) -> tuple[Array, Array]:
        """(piece, address in the result) of the members' symbols, -1 for those not there."""
        section, offset, end = self._symbol_locations(numbers)
        piece = np.where(section > 0, self.pieces(section, offset, end), -1)
        if not len(self.section):
            return piece, piece
        return piece, np.where(piece >= 0, self.address[piece] + offset - self.start[piece], -1)

    def _address_locations(self, addresses: Array) -> tuple[Array, Array, Array]:
        """(section, offset, False) of addresses in the members; section 0 for none."""
        section = self.members.sections_at(addresses)
        if not section.any():
            return section, section, np.zeros(1, np.bool_)
        offset = addresses - self.members.table["address"][np.maximum(section, 1) - 1]
        return section, offset, np.zeros(1, np.bool_)

    def of_addresses(self, addresses: Array) -> Array:
        """As `of_symbols`, of addresses in the members; the shape is theirs."""
        locations = self._address_locations(addresses)
        return np.where(locations[0] > 0, self.find(*locations), -1)

    def pieces_of_addresses(self, addresses: Array) -> Array:
        """As `pieces_of_symbols`, of addresses in the members; the shape is theirs."""
        locations = self._address_locations(addresses)
        return np.where(locations[0] > 0, self.pieces(*locations), -1)


@dataclass(frozen=True, eq=False)
class Ranges:
    """Addresses of the result that are other libraries' only (see `apart.py`), sorted.

    `home` is the section of each, from 1.
    """

    start: Array
    end: Array
    home: Array

    def have(self, addresses: Array) -> Array:
        """bool for each address."""
        if not len(self.start):
            return np.zeros(len(addresses), np.bool_)
        at = np.searchsorted(self.start, addresses, side="right") - 1
        return np.asarray((at >= 0) & (addresses < self.end[np.maximum(at, 0)]))


NOWHERE = Ranges(*np.zeros((3, 0), np.int64))
