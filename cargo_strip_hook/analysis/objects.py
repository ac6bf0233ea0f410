"""All objects of an archive, with their tables joined and numbered through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.formats.members import objects_of
from cargo_strip_hook.link.arrays import join
from cargo_strip_hook.link.batch import read_all
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SIZE,
    SYMBOL,
    Array,
    Int64,
    Unit,
)
from cargo_strip_hook.link.pages import release
from cargo_strip_hook.link.symbols import local_names


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of an archive. Atoms, symbols and sections are numbered through all of them.

    `names` are those of all symbols, empty where there is none; an undefined symbol is not bound
    to another object's definition. `section` is that of each atom, -1 for none;
    `unit_of_section` is the object of each section. `members` are positions in the archive.
    """

    units: tuple[Unit, ...]
    members: tuple[int, ...]
    atoms: Array  # ATOM
    symbols: Array  # SYMBOL
    names: list[bytes]
    relocations: Array  # RELOCATION
    edges: Array  # EDGE
    sections: Array  # SIZE
    section: Int64
    unit_of_section: Int64


def read_objects(archive: Archive) -> Objects:
    """Read every object that is no import member. Raises `ObjectError` for a damaged one."""
    units: list[Unit] = []
    names: list[bytes] = []
    sections: list[Array] = []
    for format, inputs in objects_of(archive):
        for unit in read_all(format, inputs):
            units.append(unit)
            names += symbol_names([unit])
            sections.append(format.sizes(unit))
            release(unit.data)
    return _joined(units, names, sections)


def symbol_names(units: Sequence[Unit]) -> list[bytes]:
    """The names of all symbols of some units, in order; empty where a symbol has none."""
    names: list[bytes] = []
    for unit in units:
        rest = len(unit.symbols) - unit.first_global - len(unit.names)
        names += [*local_names(unit), *unit.names, *[b""] * rest]
    return names


def _joined(units: list[Unit], names: list[bytes], sections: list[Array]) -> Objects:
    def first(counts: list[int]) -> list[int]:
        return [0, *np.cumsum(counts, dtype=np.int64).tolist()]

    atom_base = first([len(u.atoms) for u in units])
    symbol_base = first([len(u.symbols) for u in units])
    section_base = first([len(p) for p in sections])
    atoms = join([u.atoms for u in units]) if units else np.zeros(0, ATOM)
    symbols = join([u.symbols for u in units]) if units else np.zeros(0, SYMBOL)
    relocations = join([u.relocations for u in units]) if units else np.zeros(0, RELOCATION)
    edges = join([u.edges for u in units]) if units else np.zeros(0, EDGE)

    def shift(values: Array, counts: list[int], bases: list[int]) -> None:
        """Turn numbers within each object into numbers within all; negative ones stay."""
        added = np.repeat(np.array(bases[: len(counts)], np.int64), counts)
        values += np.where(values >= 0, added, 0).astype(values.dtype)

    shift(symbols["atom"], [len(u.symbols) for u in units], atom_base)
    counts = [len(u.relocations) for u in units]
    shift(relocations["atom"], counts, atom_base)
    shift(relocations["symbol"], counts, symbol_base)
    counts = [len(u.edges) for u in units]
    shift(edges["source"], counts, atom_base)
    shift(edges["target"], counts, atom_base)
    section = atoms["section"].astype(np.int64)
    shift(section, [len(u.atoms) for u in units], section_base)
    return Objects(
        tuple(units),
        tuple(u.index for u in units),
        atoms,
        symbols,
        names,
        relocations,
        edges,
        join(sections) if sections else np.zeros(0, SIZE),
        section,
        np.repeat(np.arange(len(sections)), [len(p) for p in sections]),
    )
