"""The output side of the model: what is to be written, before a format encodes it."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link.addresses import STEP, Addresses
from cargo_strip_hook.link.arrays import Columns, rows_of, unique
from cargo_strip_hook.link.model import Array, Bool, Chunk, Int32, Int64, Program, SpecialIndex
from cargo_strip_hook.link.pages import release


@dataclass(frozen=True, slots=True, eq=False)
class Relocations(Columns):
    """Relocations of the new object.

    The field is `offset` bytes into output section `section`; `type` is the format's. It refers to
    the program-wide `symbol`, or, where that is -1, to what is `target_offset` bytes into
    `target_section`: by a symbol at just that location where it is `exact`, else by the section.
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
    def location(self) -> Int64:
        """Where the target is, as one number (see `Addresses.location`); only for symbols of -1."""
        locations: Int64 = (self.target_section.astype(np.int64) << STEP) + self.target_offset
        return locations

    @property
    def named(self) -> Int64:
        """The program-wide symbols that they refer to, sorted, each once."""
        return unique(self.symbol[self.symbol >= 0].astype(np.int64))

    @property
    def sections(self) -> Int64:
        """The output sections that they refer to as such, sorted, each once."""
        whole = (self.symbol < 0) & ~self.exact
        return unique(self.target_section[whole].astype(np.int64))

    def by_section(self, count: int) -> list[slice]:
        """Which rows are those of each of `count` output sections: they stand in their order."""
        borders = np.searchsorted(self.section, np.arange(count + 1)).tolist()
        return list(itertools.starmap(slice, itertools.pairwise(borders)))


NONE: Int64 = np.zeros(0, np.int64)
ENTRY = np.dtype(
    [
        ("symbol", "<i4"),  # program-wide, -1 for one that only stands for a location
        ("section", "<i4"),  # output section from 0, or one of `SpecialIndex`
        ("value", "<i8"),  # bytes into the section; what `SYMBOL` has for others, 0 for undefined
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class SymbolIndex:
    """The numbers of symbols: `of_symbol[s]` of program symbol `s`, -1 where it has no entry.

    `of_location` belongs to the sorted `locations` (see `Addresses.location`).
    """

    of_symbol: Int64
    locations: Int64
    of_location: Int64

    def at(self, locations: Int64) -> Int64:
        """The number of the first symbol at each of these locations, which have one."""
        numbers: Int64 = self.of_location[np.searchsorted(self.locations, locations)]
        return numbers


def entries_of(program: Program, placed: Addresses, symbols: Array) -> Array:
    """ENTRY of these program-wide symbols, in their order."""
    rows = program.symbols[symbols]
    atom = np.maximum(rows["atom"], 0)
    inside = rows["atom"] >= 0
    value = np.where(inside, placed.offset[atom], 0) + rows["value"]
    return rows_of(
        ENTRY,
        len(rows),
        symbol=symbols,
        section=np.where(inside, placed.section[atom], rows["atom"]),
        value=np.where(rows["atom"] == SpecialIndex.UNDEFINED, 0, value),
    )


def entries_at(locations: Array) -> Array:
    """ENTRY of symbols that only stand for these locations."""
    columns = {"section": locations >> STEP, "value": locations & ((1 << STEP) - 1)}
    return rows_of(ENTRY, len(locations), symbol=-1, **columns)


def locations_of(entries: Array) -> Int64:
    """The location of each ENTRY (see `Addresses.location`), -1 for one that is in no section."""
    locations: Int64 = (entries["section"].astype(np.int64) << STEP) + entries["value"]
    return np.where(entries["section"] >= 0, locations, -1)


def index_symbols(
    program: Program, entries: Array, numbers: Array, standing: Array = NONE
) -> SymbolIndex:
    """How to find symbols: the number of each ENTRY; rows `standing` are found by location, too."""
    of_symbol = np.full(len(program.symbols), -1, np.int64)
    named = entries["symbol"] >= 0
    of_symbol[entries["symbol"][named]] = numbers[named]
    locations = locations_of(entries[standing])
    order = np.argsort(locations, kind="stable")  # the first name of a location stands for it
    return SymbolIndex(of_symbol, locations[order], numbers[standing][order])


@dataclass(frozen=True, slots=True, eq=False)
class SymbolTable:
    """The symbols of the new object, and how relocations find them. They are numbered from 0.

    `records` and `strings` are in the format's form; `locals` symbols are local and come first,
    where the format parts them, then `globals` that are defined. `of_section[n]` is the number of
    the symbol of output section `n` itself. `defined` and `undefined`: the names for the index of
    an archive.
    """

    records: Array
    strings: bytes
    locals: int
    globals: int
    index: SymbolIndex
    of_section: Int64
    defined: tuple[bytes, ...]
    undefined: tuple[bytes, ...]

    def numbers(self, relocations: Relocations) -> Int64:
        """The number of the symbol that each relocation refers to."""
        symbol = relocations.symbol
        number: Int64 = self.index.of_symbol[symbol]
        whole = np.flatnonzero((symbol < 0) & ~relocations.exact)
        number[whole] = self.of_section[relocations.target_section[whole]]
        exact = np.flatnonzero((symbol < 0) & relocations.exact)
        if len(exact):
            number[exact] = self.index.at(relocations.location[exact])
        if (number < 0).any():
            raise AssertionError("a relocation has no symbol")
        return number


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class OutputObject(ABC):
    """The new object, with all that is decided. What a format has besides is in its subclass.

    `contents` (uint8) are those of each section of `placed`. `link_map`: LINK_MAP rows; `counted`
    (bool, by atom): the atoms that statistics count as sections.
    """

    program: Program
    live: Bool
    placed: Addresses
    contents: Sequence[Array]
    relocations: Relocations
    symbols: SymbolTable
    link_map: Array
    counted: Bool
    warnings: tuple[str, ...]

    @abstractmethod
    def encode(self) -> tuple[int, Iterator[Chunk]]:
        """The size of the file in bytes, and its stream, which is read once.

        Raises `LinkError` for what the format cannot say.
        """


def octets(array: Array) -> memoryview:
    """The bytes of an array, without a copy."""
    return memoryview(array.view(np.uint8).data) if len(array) else memoryview(b"")


def stream(contents: Iterable[tuple[int, Iterable[Chunk]]]) -> Iterator[Chunk]:
    """The bytes of a file: chunks from each offset on, in their order, and zeros between them."""
    position = 0
    for offset, chunks in contents:
        if offset > position:
            yield bytes(offset - position)
            position = offset
        for chunk in chunks:
            yield chunk
            position += len(chunk)
            release(chunk)
