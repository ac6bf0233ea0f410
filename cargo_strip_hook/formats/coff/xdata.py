"""Keeps equal unwind information once: many functions save the same registers in the same way.

What entries of `.pdata` refer to in an output section `.xdata` are its records; each reaches to the
next one. Two that hold the same, relocations included, may be one, as functions know theirs by an
address only. Source: Microsoft, "x64 exception handling", "struct UNWIND_INFO".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff.machine import Machine, Mode
from cargo_strip_hook.formats.coff.place import Placed
from cargo_strip_hook.formats.coff.relocate import STEP, Rewritten
from cargo_strip_hook.link.arrays import isin, ramps, unique
from cargo_strip_hook.link.model import Array, Bool, Int64, Program

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


@dataclass(frozen=True, slots=True)
class Shared:
    """What the sections are after sharing; `records` of those that changed, by their number."""

    placed: Placed
    sizes: Int64
    rewritten: Rewritten
    records: dict[int, Records]


def share(
    program: Program,
    live: Bool,
    machine: Machine,
    sizes: Int64,
    aligns: Int64,
    placed: Placed,
    rewritten: Rewritten,
) -> Shared:
    """Keep equal records of each output section once. `sizes` and `aligns` are the sections'.

    A section stays as it is where anything but `.pdata` and itself refers to it.
    """
    is_table = np.array([k.name == kinds.XDATA for k in placed.kinds], np.bool_)
    inside = np.where(rewritten.place, rewritten.target >> STEP, 0)
    rows = np.flatnonzero(rewritten.place & is_table[inside])
    table, home = inside[rows], rewritten.section[rows]
    field = placed.start[home] + rewritten.offset[rows]
    plain = machine.mode[rewritten.type[rows]] == Mode.ADDS
    plain &= machine.width[rewritten.type[rows]] == 4
    entries = np.array([k.name == kinds.PDATA for k in placed.kinds], np.bool_)
    plain &= entries[home] | (home == table)
    fit = is_table & (aligns <= _ALIGN) & ~_told_of(program, live, placed, rewritten)
    fit[table[~plain]] = False
    chosen = fit[table]
    rows, table, home, field = rows[chosen], table[chosen], home[chosen], field[chosen]
    octets = field[:, None] + np.arange(4)
    target = np.ascontiguousarray(placed.blob[octets]).view("<u4").reshape(-1).astype(np.int64)

    records: dict[int, Records] = {}
    for number in unique(table).tolist():
        mine = np.flatnonzero(table == number)
        inner = mine[home[mine] == number]
        found = _records(
            placed.blob[placed.start[number] : placed.start[number + 1]],
            target[mine],
            rewritten.offset[rows[inner]],
            target[inner],
            _of_section(rewritten, number),
        )
        if found is not None:
            records[number] = found
            at = np.searchsorted(found.start, target[mine])
            placed.blob[octets[mine]] = found.moved[at].astype("<u4").view(np.uint8).reshape(-1, 4)
    return _without(placed, sizes, rewritten, records)


def _told_of(program: Program, live: Bool, placed: Placed, rewritten: Rewritten) -> Bool:
    """The output sections with an exported symbol, or with a distance that is settled already."""
    found = np.zeros(len(placed.kinds), np.bool_)
    atoms = program.symbols["atom"][placed.kept]
    found[placed.section[atoms[atoms >= 0]]] = True
    of = program.relocations["atom"]
    of = of[live[of] & (placed.section[of] >= 0)]
    before = np.bincount(placed.section[of], minlength=len(found))
    found |= before != np.bincount(rewritten.section, minlength=len(found))
    return found


def _of_section(rewritten: Rewritten, number: int) -> Array:
    """int64[n, 4]: offset, type, target and `place` of a section's relocations, by offset."""
    begin, end = np.searchsorted(rewritten.section, [number, number + 1])
    fields = (rewritten.offset, rewritten.type, rewritten.target, rewritten.place)
    return np.stack([f[begin:end].astype(np.int64) for f in fields], axis=1)


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
        found = np.array(
            [
                seen.setdefault((octets[b:e], rows[first * width : last * width]), n)
                for n, (b, e, first, last) in enumerate(
                    zip(start.tolist(), end.tolist(), border[:-1], border[1:], strict=True)
                )
            ]
        )
        if (found == same).all():
            break
        same = found
    kept = same == np.arange(len(same))
    if kept.all():
        return None
    size = np.where(kept, end - start, 0)
    return Records(start, (np.cumsum(size) - size)[same], kept)


def _without(
    placed: Placed, sizes: Int64, rewritten: Rewritten, records: dict[int, Records]
) -> Shared:
    """The sections without the records that others stand for."""
    if not records:
        return Shared(placed, sizes, rewritten, records)
    sizes, parts = sizes.copy(), []
    offset, stays = rewritten.offset.copy(), np.ones(len(rewritten.offset), np.bool_)
    for number in range(len(placed.kinds)):
        contents = placed.blob[placed.start[number] : placed.start[number + 1]]
        if number in records:
            one = records[number]
            begin, end = np.searchsorted(rewritten.section, [number, number + 1])
            at = np.searchsorted(one.start, offset[begin:end], side="right") - 1
            stays[begin:end] = one.kept[at]
            offset[begin:end] += (one.moved - one.start)[at]
            contents = contents[np.repeat(one.kept, np.diff(one.start, append=len(contents)))]
            sizes[number] = len(contents)
        parts.append(contents)
    ends = np.cumsum([0, *(len(part) for part in parts)])
    kept = Rewritten(
        rewritten.section[stays],
        offset[stays],
        rewritten.type[stays],
        rewritten.target[stays],
        rewritten.place[stays],
        rewritten.exact[stays],
    )
    return Shared(replace(placed, start=ends, blob=np.concatenate(parts)), sizes, kept, records)


def pieces(link_map: Array, records: dict[int, Records]) -> Array:
    """PLACEMENT rows, those of sections that changed one for each record."""
    numbers = np.array([n + 1 for n in records], np.int64)
    found = [link_map[~isin(link_map["out_section"], numbers)]]
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
        found.append(rows)
    return np.concatenate(found)
