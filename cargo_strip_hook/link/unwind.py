"""Puts the live records of `.eh_frame` of all units behind one another.

Source: Linux Standard Base 5.0, section 10.6.1 (the .eh_frame section).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link.model import Array, AtomFlag, Bool, Int32, Int64, Program, Unit

# Where in its file each section of a unit begins, in bytes.
SectionStarts = Callable[[Unit], Array]


@dataclass(frozen=True, slots=True, eq=False)
class JoinedFrames:
    """The new `.eh_frame`: its contents, and where each live record went.

    `offset[i]` belongs to `records[i]`, a program-wide atom number; equal CIEs share an offset.
    `shared` are the CIEs that another one stands for: their relocations are not written.
    `cies` are all CIEs.
    """

    contents: Array  # uint8
    records: Int32
    offset: Int64
    shared: Int32
    cies: Int32


def is_frame(program: Program) -> Bool:
    """bool for each atom: whether it is a record of `.eh_frame`, live or not."""
    frame: Bool = (program.atoms["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)) == (
        AtomFlag.SEPARATE
    )
    return frame


def is_cie(program: Program) -> Bool:
    """bool for each atom: whether it is a CIE, live or not."""
    cie = is_frame(program)
    cie[program.edges["source"][cie[program.edges["source"]]]] = False
    return cie


def join_frames(
    program: Program, frames: Bool, order: str, starts: SectionStarts, merge: bool
) -> JoinedFrames:
    """Put records behind one another and say in each FDE how far back its CIE is.

    `frames` (by atom) are the live records, `order` is the byte order. Equal CIEs are written
    once if `merge` is set.
    """
    records = np.flatnonzero(frames).astype(np.int32)
    links = program.edges[frames[program.edges["source"]] & frames[program.edges["target"]]]
    position = np.full(len(program.atoms), -1, np.int64)
    position[records] = np.arange(len(records))
    fde, cie = position[links["source"]], position[links["target"]]
    is_fde = np.zeros(len(records), np.bool_)
    is_fde[fde] = True

    stands_for = np.arange(len(records))
    if merge:
        prevailing = _prevailing_cies(program, records[~is_fde], starts)
        stands_for[~is_fde] = position[prevailing]
    written = stands_for == np.arange(len(records))
    sizes = np.where(written, program.atoms["size"][records], 0)
    offset = (np.cumsum(sizes) - sizes)[stands_for]
    contents = contents_of(program, records[written], starts)
    distance = (offset[fde] + 4 - offset[cie]).astype(f"{order}u4").view(np.uint8)
    contents[offset[fde][:, None] + np.arange(4, 8)] = distance.reshape(-1, 4)
    return JoinedFrames(contents, records, offset, records[~written], records[~is_fde])


def contents_of(program: Program, atoms: Int32, starts: SectionStarts) -> Array:
    """uint8: the bytes of `atoms`, one behind the other, which may be changed."""
    units, begin, end = _ranges(program, atoms, starts)
    first = np.ones(len(atoms), np.bool_)  # of a run of neighbours
    first[1:] = (units[1:] != units[:-1]) | (begin[1:] != end[:-1])
    last = np.roll(first, -1)
    runs = zip(units[first].tolist(), begin[first].tolist(), end[last].tolist(), strict=True)
    joined = bytearray().join([program.units[unit].data[a:b] for unit, a, b in runs])
    return np.frombuffer(joined, np.uint8)


def _ranges(program: Program, atoms: Int32, starts: SectionStarts) -> tuple[Array, Int64, Int64]:
    """(number of the unit, where its bytes begin in that one's file, where they end) of atoms."""
    rows, units = program.atoms[atoms], program.unit_of(atoms)
    begin = rows["offset"].copy()
    borders = np.flatnonzero(np.diff(units, prepend=-1)).tolist()
    for first, end in zip(borders, [*borders[1:], len(atoms)], strict=False):
        section_start = starts(program.units[units[first]])
        begin[first:end] += section_start[rows["section"][first:end]].astype(np.int64)
    return units, begin, begin + rows["size"]


def _prevailing_cies(program: Program, cies: Int32, starts: SectionStarts) -> list[int]:
    """For each CIE the first that equals it: contents and relocations must agree."""
    of_cie: dict[int, list[tuple[int, int, int, int]]] = {cie: [] for cie in cies.tolist()}
    wanted = np.zeros(len(program.atoms), np.bool_)
    wanted[cies] = True
    rows = program.relocations[wanted[program.relocations["atom"]]]
    definition = program.definition[rows["symbol"]]
    homes = program.symbols[definition]
    columns = (rows["atom"], rows["offset"], rows["type"], rows["addend"], definition)
    places = (homes["atom"], homes["value"])
    for atom, offset, kind, addend, symbol, home, value in zip(
        *(column.tolist() for column in (*columns, *places)), strict=True
    ):
        # what is defined is known by its address, others by themselves
        target = (home, value + addend) if home >= 0 else (-1 - symbol, addend)
        of_cie[atom].append((offset, kind, *target))
    first: dict[tuple[bytes, tuple[tuple[int, int, int, int], ...]], int] = {}
    ranges = zip(*(column.tolist() for column in _ranges(program, cies, starts)), strict=True)
    return [
        first.setdefault((bytes(program.units[unit].data[begin:end]), tuple(of_cie[cie])), cie)
        for cie, (unit, begin, end) in zip(cies.tolist(), ranges, strict=True)
    ]


__all__ = ["JoinedFrames", "contents_of", "is_cie", "is_frame", "join_frames"]
