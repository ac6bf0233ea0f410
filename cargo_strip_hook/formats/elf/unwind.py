"""Takes `.eh_frame` apart into its records and puts the live ones together again.

Source: Linux Standard Base 5.0, section 10.6.1 (the .eh_frame section).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Program,
)

# Where pc_begin stands in a record: after the length and the CIE pointer.
PC_BEGIN = 8


@dataclass(frozen=True, slots=True, eq=False)
class SplitFrames:
    """The records of several `.eh_frame` sections, in order; offsets and sizes in bytes.

    `table` is the position of each record's section among those asked for. `record` and `within`
    say for each relocation which record it is in, and where; `fde` is the record of each FDE,
    `cie` that of its CIE.
    """

    table: Int64
    offsets: Int64
    sizes: Int64
    record: Int64
    within: Int64
    begins: Bool  # for each relocation, whether it is an FDE's pc_begin
    fde: Int64
    cie: Int64


def split_eh_frames(
    contents: Sequence[memoryview],
    order: str,
    tables: Int64,
    offsets: Int64,
    fail: Callable[[int, str, int], ObjectError],
) -> SplitFrames:
    """Find the records of several sections.

    `tables` and `offsets` tell of each relocation of these sections where it is: the position of
    its section, and the offset there. Raises what `fail(position, what, offset)` makes
    (`ObjectError`) for records that do not fit or are in the 64-bit form.
    """
    starts: list[int] = []
    counts: list[int] = []
    words = [np.frombuffer(c, f"{order}u4", len(c) // 4) for c in contents]
    # a place is one number over all sections
    base = np.concatenate([[0], np.cumsum([4 * len(w) + 4 for w in words])]).astype(np.int64)
    for number, section in enumerate(words):
        before = len(starts)
        _walk(section.tolist(), int(base[number]) // 4, starts, number, fail)
        counts.append(len(starts) - before)
    start = np.array(starts, np.int64) * 4
    table = np.repeat(np.arange(len(words)), counts)
    none = np.zeros(1, f"{order}u4")  # between the sections, as `base` has it
    every = np.concatenate([part for w in words for part in (w, none)]) if words else none
    sizes = every[start // 4].astype(np.int64) + 4
    pointers = every[start // 4 + 1].astype(np.int64)
    is_fde = pointers != 0

    place = base[tables] + offsets
    record = np.searchsorted(start, place, side="right") - 1
    inside = record >= 0
    inside[inside] = place[inside] - start[record[inside]] < sizes[record[inside]]
    if not inside.all():
        number = int(tables[int((~inside).argmax())])
        raise fail(number, ".eh_frame is damaged: a relocation is in no record", 0)
    within = place - start[record]
    begins = is_fde[record] & (within == PC_BEGIN)

    fde = np.flatnonzero(is_fde)
    wanted = start[fde] + 4 - pointers[fde]
    cie = np.searchsorted(start, wanted)
    found = cie < len(start)
    cie[~found] = 0
    found &= wanted >= base[table[fde]]
    if len(start):
        found &= (start[cie] == wanted) & ~is_fde[cie]
    if not found.all():
        number = int(table[fde[int((~found).argmax())]])
        raise fail(number, ".eh_frame is damaged: an FDE has no CIE", 0)
    return SplitFrames(table, start - base[table], sizes, record, within, begins, fde, cie)


def _walk(
    lengths: list[int],
    base: int,
    starts: list[int],
    number: int,
    fail: Callable[[int, str, int], ObjectError],
) -> None:
    """Append to `starts` the word, counted from `base`, at which each record begins."""
    total, at = len(lengths), 0
    while at < total:
        length = lengths[at]
        if length == 0:  # a terminator: whoever writes the final table adds its own
            at += 1
            continue
        if length == 0xFFFFFFFF:
            what = ".eh_frame records in the 64-bit form are not supported"
            raise fail(number, what, at * 4)
        following = at + 1 + (length >> 2)
        if length & 3 or length < 8 or following > total:
            raise fail(number, ".eh_frame is damaged: a record does not fit", at * 4)
        starts.append(base + at)
        at = following


@dataclass(frozen=True, slots=True, eq=False)
class JoinedFrame:
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


def is_cie(program: Program) -> Bool:
    """bool for each atom: whether it is a CIE, live or not."""
    kind = program.atoms["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)
    found: Bool = kind == AtomFlag.SEPARATE
    links = program.edges[found[program.edges["source"]]]
    found[links["source"]] = False
    return found


def join_eh_frame(program: Program, live: Bool, order: str) -> JoinedFrame:
    """Put the live records of all units behind one another, equal CIEs only once."""
    kind = program.atoms["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)
    separate = kind == AtomFlag.SEPARATE
    records = np.flatnonzero(live & separate).astype(np.int32)
    if not len(records):
        empty = np.zeros(0, np.int32)
        return JoinedFrame(np.zeros(0, np.uint8), empty, np.zeros(0, np.int64), empty, empty)
    position = np.full(len(program.atoms), -1, np.int64)
    position[records] = np.arange(len(records))
    inner = separate[program.edges["source"]] & separate[program.edges["target"]]
    links = program.edges[inner]
    links = links[live[links["source"]]]
    is_fde = np.zeros(len(records), np.bool_)
    is_fde[position[links["source"]]] = True

    units = program.unit_of(records)
    twins = _equal_cies(program, records[~is_fde], units[~is_fde])
    stands_for = np.arange(len(records))
    for cie, first in twins.items():
        stands_for[position[cie]] = position[first]
    written = stands_for == np.arange(len(records))
    sizes = program.atoms["size"][records]
    offset = np.cumsum(np.where(written, sizes, 0)) - np.where(written, sizes, 0)
    offset = offset[stands_for]

    words = np.zeros(int(sizes[written].sum()) // 4, f"{order}u4")
    starts = program.atoms["offset"][records] // 4
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]).tolist()
    for first, end in zip(borders, [*borders[1:], len(records)], strict=True):
        unit = program.units[int(units[first])]
        mine = slice(first, end)
        # an object has one .eh_frame as compilers write it, but nothing forbids several
        for section in unique(program.atoms["section"][records[mine]]).tolist():
            chosen = np.flatnonzero(
                written[mine] & (program.atoms["section"][records[mine]] == section)
            )
            chosen += first
            if not len(chosen):
                continue
            header = unit.native.sections[section]
            source = np.frombuffer(
                unit.data, f"{order}u4", int(header["size"]) // 4, int(header["offset"])
            )
            counts = sizes[chosen] // 4
            ramp = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
            words[np.repeat(offset[chosen] // 4, counts) + ramp] = source[
                np.repeat(starts[chosen], counts) + ramp
            ]
    fde = position[links["source"]]
    cie = position[links["target"]]
    words[offset[fde] // 4 + 1] = offset[fde] + 4 - offset[cie]
    return JoinedFrame(
        words.view(np.uint8),
        records,
        offset,
        records[~written].astype(np.int32),
        records[~is_fde],
    )


def _equal_cies(program: Program, cies: Array, units: Array) -> dict[int, int]:
    """For each CIE that equals an earlier one, that one. Contents and relocations must agree."""
    relocations = program.relocations
    wanted = np.zeros(len(program.atoms), np.bool_)
    wanted[cies] = True
    of_cie: dict[int, list[tuple[int, int, int, int]]] = {}
    rows = relocations[wanted[relocations["atom"]]]
    definition = program.definition[rows["symbol"]]
    for row, symbol in zip(rows.tolist(), definition.tolist(), strict=True):
        atom, _, kind, _, offset, addend = row
        found = program.symbols[symbol]
        place = int(found["atom"])
        # a local symbol is known by its place, others by themselves
        target = (place, int(found["value"]) + addend) if place >= 0 else (-1 - symbol, addend)
        of_cie.setdefault(atom, []).append((offset, kind, *target))
    first: dict[tuple[bytes, tuple[tuple[int, int, int, int], ...]], int] = {}
    twins: dict[int, int] = {}
    for cie, number in zip(cies.tolist(), units.tolist(), strict=True):
        unit = program.units[number]
        atom = program.atoms[cie]
        start = int(unit.native.sections["offset"][atom["section"]]) + int(atom["offset"])
        contents = bytes(unit.data[start : start + int(atom["size"])])
        key = (contents, tuple(of_cie.get(cie, ())))
        if key in first:
            twins[cie] = first[key]
        else:
            first[key] = cie
    return twins
