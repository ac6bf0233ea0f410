"""Keeps equal unwind information once: many functions save the same registers in the same way.

What entries of `.pdata` refer to in an output section `.xdata` are its records; each reaches to the
next one. Two that hold the same, relocations included, may be one, as functions know theirs by an
address only. Source: Microsoft, "x64 exception handling", "struct UNWIND_INFO".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff.addresses import Filled, Placed
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.arrays import isin, ramps, runs, unique
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array, Bool, Int64, Program
from cargo_strip_hook.link.output import Relocations

_ALIGN = 4  # bytes, of a record


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one output section.

    `start` is where each was, `moved` where it is now, which may be where another one is; `kept`
    are the first ones at their places.
    """

    start: Int64
    moved: Int64
    kept: Bool


def share(
    program: Program, live: Bool, machine: Machine, filled: Filled
) -> tuple[Filled, dict[int, Records]]:
    """Keep equal records of each output section once.

    A section stays as it is where anything but `.pdata` and itself refers to it. Returns the
    sections, and the records of those that changed, by their number.
    """
    placed, contents, relocations = filled.placed, filled.contents, filled.relocations
    is_table = np.array([k.name == kinds.XDATA for k in placed.kinds], np.bool_)
    rows = np.flatnonzero((relocations.symbol < 0) & is_table[relocations.target_section])
    table, home = relocations.target_section[rows], relocations.section[rows]
    plain = machine.adds[relocations.type[rows]] == Field.BITS32
    entries = np.array([k.name == kinds.PDATA for k in placed.kinds], np.bool_)
    plain &= entries[home] | (home == table)
    fit = (
        is_table
        & (placed.sections.align <= _ALIGN)
        & ~_must_stay(program, live, placed, relocations)
    )
    fit[table[~plain]] = False
    chosen = fit[table]
    rows, table, home = rows[chosen], table[chosen], home[chosen]
    target = relocations.addend[rows] & 0xFFFFFFFF

    records: dict[int, Records] = {}
    moved = target.copy()
    for number in unique(table).tolist():
        mine = np.flatnonzero(table == number)
        inner = mine[home[mine] == number]
        one = _records(
            contents[number],
            target[mine],
            relocations.offset[rows[inner]],
            target[inner],
            _of_section(relocations, number),
        )
        if one is not None:
            records[number] = one
            moved[mine] = one.moved[np.searchsorted(one.start, target[mine])]
    changed = list(contents)
    for first, end in runs(home):
        if (moved[first:end] != target[first:end]).any():
            section, offsets = int(home[first]), relocations.offset[rows[first:end]]
            changed[section] = contents[section].copy()
            fields.store(changed[section], offsets, Field.BITS32, moved[first:end], "<")
    return _without(replace(filled, contents=changed), records), records


def _must_stay(program: Program, live: Bool, placed: Placed, relocations: Relocations) -> Bool:
    """bool for each output section: it has an exported symbol, or a distance that is fixed."""
    used = np.zeros(len(placed.kinds), np.bool_)
    atoms = program.symbols["atom"][placed.kept]
    used[placed.section[atoms[atoms >= 0]]] = True
    of = program.relocations["atom"]
    of = of[live[of] & (placed.section[of] >= 0)]
    before = np.bincount(placed.section[of], minlength=len(used))
    used |= before != np.bincount(relocations.section, minlength=len(used))
    return used


def _of_section(relocations: Relocations, number: int) -> Array:
    """int64[n, 4]: offset, type and target of a section's relocations, by offset."""
    begin, end = np.searchsorted(relocations.section, [number, number + 1])
    columns = relocations.offset, relocations.type, relocations.symbol, relocations.location
    return np.stack([column[begin:end] for column in columns], axis=1)


def _records(
    contents: Array, targets: Int64, inner: Int64, inner_targets: Int64, relocations: Array
) -> Records | None:
    """Where the records of a section go; None where all of them stay.

    `targets` are all offsets in the section that anything refers to; `inner` are the offsets of
    fields in the section itself that do, and `inner_targets` what these refer to.
    """
    start = unique(np.concatenate([[0], targets]))
    if (start % _ALIGN).any() or start[-1] >= len(contents):
        return None
    end = np.append(start[1:], len(contents))
    relocations = relocations.copy()
    border = np.searchsorted(relocations[:, 0], np.append(start, len(contents))).tolist()
    relocations[:, 0] -= np.repeat(start, np.diff(border))
    rows, width = relocations.tobytes(), relocations.itemsize * relocations.shape[1]
    field = inner[:, None] + np.arange(4)
    goal = np.searchsorted(start, inner_targets)
    same = np.arange(len(start))  # of each record the first that is equal
    while True:
        # what two records refer to may be equal, too
        plain = contents.copy()
        plain[field] = start[same[goal]].astype("<u4").view(np.uint8).reshape(-1, 4)
        octets = plain.tobytes()
        seen: dict[tuple[bytes, bytes], int] = {}
        first_equal = np.array(
            [
                seen.setdefault((octets[b:e], rows[first * width : last * width]), n)
                for n, (b, e, first, last) in enumerate(
                    zip(start.tolist(), end.tolist(), border[:-1], border[1:], strict=True)
                )
            ]
        )
        if (first_equal == same).all():
            break
        same = first_equal
    kept = same == np.arange(len(same))
    if kept.all():
        return None
    size = np.where(kept, end - start, 0)
    return Records(start, (np.cumsum(size) - size)[same], kept)


def _without(filled: Filled, records: dict[int, Records]) -> Filled:
    """The sections without the records that others stand for."""
    if not records:
        return filled
    placed, relocations = filled.placed, filled.relocations
    sizes, contents = placed.sections.size.copy(), list(filled.contents)
    offset, stays = relocations.offset.copy(), np.ones(len(relocations.offset), np.bool_)
    for number, one in records.items():
        begin, end = np.searchsorted(relocations.section, [number, number + 1])
        record = np.searchsorted(one.start, offset[begin:end], side="right") - 1
        stays[begin:end] = one.kept[record]
        offset[begin:end] += (one.moved - one.start)[record]
        whole = contents[number]
        contents[number] = whole[np.repeat(one.kept, np.diff(one.start, append=len(whole)))]
        sizes[number] = len(contents[number])
    kept = replace(relocations, offset=offset).rows(stays)
    return Filled(placed.resized(sizes), contents, kept)


def by_record(link_map: Array, records: dict[int, Records]) -> Array:
    """The LINK_MAP rows, those of sections that changed one for each record."""
    numbers = np.array([n + 1 for n in records], np.int64)
    rows_of_sections = [link_map[~isin(link_map["out_section"], numbers)]]
    for number, one in records.items():
        rows = link_map[link_map["out_section"] == number + 1]
        begin = rows["out_offset"].astype(np.int64)
        end = begin + rows["size"]
        low = np.searchsorted(one.start, begin, side="right") - 1
        high = np.maximum(np.searchsorted(one.start, end), low + 1)
        count = high - low
        of = np.repeat(np.arange(len(rows)), count)
        record = ramps(low, count, 1)
        first = np.maximum(one.start[record], begin[of])
        last = np.minimum(np.append(one.start[1:], np.iinfo(np.int64).max)[record], end[of])
        rows = rows[of]
        rows["offset"] += first - begin[of]
        rows["size"] = last - first
        rows["out_offset"] = one.moved[record] + first - one.start[record]
        rows_of_sections.append(rows)
    return np.concatenate(rows_of_sections)
