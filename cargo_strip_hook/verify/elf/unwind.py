"""Unwind tables: each placed function has the same description as in the original, no other has.

Source: Linux Standard Base 5.0 Core, section 10.6 ("Exception Frames").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, keys, match_keys
from cargo_strip_hook.verify.elf.frames import Frames, read_frames
from cargo_strip_hook.verify.elf.mapping import Pair, Resolution
from cargo_strip_hook.verify.elf.read import STEP
from cargo_strip_hook.verify.elf.relocations import by_location, same_target
from cargo_strip_hook.verify.kit.frames import BadFrames


@dataclass(frozen=True, eq=False)
class Unwind:
    """The tables of both sides; `live` are the original's FDEs whose function is in the result.

    `referenced` marks the symbols of the original that live records name.
    """

    before: Frames
    after: Frames
    location: Array  # of the function of each of the original's FDEs, -1
    live: Array
    referenced: Array


def read(pair: Pair) -> Unwind | None:
    """Read both sides; None (and a finding) where one of them is damaged."""
    try:
        before = pair.frames or read_frames(pair.before, pair.before.frame_sections)
    except (BadFrames, IndexError) as e:
        pair.findings.add("the original's unwind table cannot be read", str(e))
        return None
    try:
        after = read_frames(pair.after, pair.after.frame_sections)
    except (BadFrames, IndexError) as e:
        pair.findings.add("the unwind table is damaged", str(e))
        return None
    if after.ends_early:
        pair.findings.add("the unwind table is damaged", "it ends before its last record")
    aligns = pair.before.sections["align"][pair.before.frame_sections]
    mine = pair.after.sections["align"][pair.after.frame_sections]
    if len(aligns) and (mine < aligns.min()).any():
        pair.findings.add("the unwind table is damaged", "it lost its alignment")
    location = _function_locations(pair, before)
    live = np.flatnonzero(location >= 0)
    referenced = np.zeros(len(pair.before.symbols), np.bool_)
    fdes = before.fdes[live]
    for symbols in (before.cie_symbol[fdes["cie"]], fdes["lsda_symbol"]):
        referenced[symbols[symbols >= 0]] = True
    if len(before.rest):
        placed = (before.rest_fde >= 0) & (location[before.rest_fde] >= 0)
        symbols = before.rest["symbol"][placed]
        referenced[symbols[symbols >= 0]] = True
    return Unwind(before, after, location, live, referenced)


def _function_locations(pair: Pair, frames: Frames) -> Array:
    """Where each FDE of the original has its function in the result, -1 if that is not there."""
    s = pair.before.symbols
    symbol = np.maximum(frames.fdes["symbol"], 0)
    section = s["section"][symbol]
    row = np.where(
        (section > 0) & (frames.fdes["symbol"] >= 0), pair.row[np.maximum(section, 0)], -1
    )
    location = pair.location[row] + s["value"][symbol] + frames.fdes["addend"]
    return np.where(row >= 0, location, -1)


def _result_locations(pair: Pair, after: Frames) -> Array:
    """Where the function of each FDE of the result is, -1 for none."""
    symbol = after.fdes["symbol"]
    section = np.where(symbol >= 0, pair.after.symbols["section"][np.maximum(symbol, 0)], 0)
    value = pair.after.symbols["value"][np.maximum(symbol, 0)]
    return np.where(section > 0, (section << STEP) + value + after.fdes["addend"], -1)


def check(pair: Pair, unwind: Unwind, resolution: Resolution) -> int:
    """Match FDEs by the place of their function, then compare; returns how many."""
    each = pair.findings.each
    before, after, old_location, live = unwind.before, unwind.after, unwind.location, unwind.live
    new_location = _result_locations(pair, after)
    if pair.complete:
        each(
            "an unwind entry without a function",
            new_location < 0,
            lambda i: f".eh_frame+{after.fdes['offset'][i]:#x}",
        )
    order = np.argsort(new_location, kind="stable")
    keys = new_location[order]
    old_order = live[np.argsort(old_location[live], kind="stable")]
    old_keys = old_location[old_order]
    if not len(keys):
        keys, order = np.array([-1]), np.array([0])
    # several entries for one place (aliases that were folded) follow in the same order
    rank = np.arange(len(old_keys)) - np.searchsorted(old_keys, old_keys)
    at = np.searchsorted(keys, old_keys) + rank
    hit = (at < len(keys)) & (keys[np.minimum(at, len(keys) - 1)] == old_keys)
    each("a function lost its unwind entry", old_location[old_order[~hit]], pair.where_after)
    old_row, new_row = old_order[hit], order[at[hit]]
    if pair.complete:
        known = np.zeros(len(after.fdes), np.bool_)
        known[new_row] = True
        extra = new_location[~known & (new_location >= 0)]
        extra = extra[~pair.is_foreign(extra)]
        each("an unwind entry that the original has not", extra, pair.where_after)
    _compare_rest(pair, before, after, old_row, new_row, resolution)
    _compare_records(pair, before, after, old_row, new_row)
    _compare_common(pair, before, after, old_row, new_row, resolution)
    return len(old_row)


def _compare_rest(
    pair: Pair,
    before: Frames,
    after: Frames,
    old_row: Array,
    new_row: Array,
    resolution: Resolution,
) -> None:
    """Relocations within records, at no pointer: the same ones in the same order."""
    if not len(before.rest) and not len(after.rest):
        return
    sides = []
    for side, rows in ((before, old_row), (after, new_row)):
        number = np.full(len(side.fdes), -1, np.int64)
        number[rows] = np.arange(len(rows))
        owner = number[side.rest_fde] if len(number) else side.rest_fde
        mine = np.flatnonzero((side.rest_fde >= 0) & (owner >= 0))
        sides.append((mine, (owner[mine] << 32) + side.rest_at[mine]))
    (old, old_location), (new, new_location) = sides
    found = match_keys(keys(old_location), keys(new_location))
    known = np.zeros(len(after.rest), np.bool_)
    known[new[found[found >= 0]]] = True
    if pair.foreign is not None:
        foreign = pair.is_foreign(_result_locations(pair, after))
        known |= (after.rest_fde >= 0) & foreign[np.maximum(after.rest_fde, 0)]
    lost, extra = before.rest[old[found < 0]], after.rest[~known]
    old_rest, new_rest = before.rest[old[found >= 0]], after.rest[new[found[found >= 0]]]
    symbols, new_symbols = old_rest["symbol"], new_rest["symbol"]
    summed = by_location(pair, resolution, old_rest["type"], symbols, new_symbols)
    same = same_target(
        pair,
        resolution,
        symbols,
        old_rest["addend"],
        new_symbols,
        new_rest["addend"],
        summed,
    )
    other = old_rest["type"] != new_rest["type"]
    for bad, kind in (
        (lost, "an unwind entry lost a relocation"),
        (old_rest[other], "an unwind entry has a relocation of another type"),
        (old_rest[~same], "a relocation of an unwind entry has another target"),
    ):
        pair.findings.each(kind, np.arange(len(bad)), pair.where_rows(bad))
    if pair.complete:
        locations = (extra["section"] << STEP) + extra["offset"]
        pair.findings.each("a relocation that no unwind entry has", locations, pair.where_after)


def _compare_records(
    pair: Pair, before: Frames, after: Frames, old_row: Array, new_row: Array
) -> None:
    """Range and instructions of each FDE, byte by byte; addresses were compared before."""
    old, new = before.fdes[old_row], after.fdes[new_row]
    where, was = pair.after.frame_sections, pair.where_rows(old)

    def report(bad: Array, kind: str) -> None:
        def text(i: int) -> str:
            now = pair.where_after((int(where[0]) << STEP) + int(new["offset"][i]))
            return f"{was(i)}, now {now}"

        pair.findings.each(kind, bad, text)

    other_size = old["size"] != new["size"]
    for i in np.flatnonzero(other_size).tolist():
        # padding is DW_CFA_nop, which is 0: as much of it as anyone likes
        old_end, new_end = (
            bytes(memoryview(side.buffer)[int(row["at"]) :][: int(row["size"])]).rstrip(b"\0")[8:]
            for side, row in ((pair.before, old[i]), (pair.after, new[i]))
        )
        other_size[i] = new_end != old_end
    report(other_size, "an unwind entry has another length")
    other_size = old["size"] != new["size"]
    pointer = np.array([c.pointer for c in before.cies], np.int64)[old["cie"]]
    lsda = np.array([c.lsda for c in before.cies], np.int64)[old["cie"]]
    differs = np.zeros(len(old), np.bool_)
    implicit = pair.before.implicit_addends
    # an LSDA pointer is at 25 at most, and pointers have up to 8 bytes
    group = (((old["size"] << 8 | old["lsda_at"]) << 4 | pointer) << 4) | lsda
    alike = np.flatnonzero(~other_size)
    alike = alike[np.argsort(group[alike], kind="stable")]
    borders = np.flatnonzero(np.diff(group[alike], prepend=-1))
    for rows in np.split(alike, borders[1:]) if len(alike) else ():
        size, lsda_at = int(old["size"][rows[0]]), int(old["lsda_at"][rows[0]])
        width, lsda_size = int(pointer[rows[0]]), int(lsda[rows[0]])
        layout = np.dtype(f"V{size}")
        a = gather(pair.before.data, old["at"][rows], layout).view(np.uint8).reshape(-1, size)
        b = gather(pair.after.data, new["at"][rows], layout).view(np.uint8).reshape(-1, size)
        keep = np.ones(size, np.bool_)
        keep[4:8] = False  # the CIE pointer
        if implicit:  # the addends are in the fields; they were compared
            keep[8 : 8 + width] = False
            keep[lsda_at : lsda_at + lsda_size] = False
        differs[rows] = (a[:, keep] != b[:, keep]).any(axis=1)
    report(differs, "an unwind entry differs")
    content = {c.content: i for i, c in enumerate(before.cies)}
    old_id = np.array([content[c.content] for c in before.cies], np.int64)
    new_id = np.array([content.get(c.content, -1) for c in after.cies], np.int64)
    report(old_id[old["cie"]] != new_id[new["cie"]], "an unwind entry has another CIE")


def _compare_common(
    pair: Pair,
    before: Frames,
    after: Frames,
    old_row: Array,
    new_row: Array,
    resolution: Resolution,
) -> None:
    """Personality routines and language-specific data: the same targets."""
    old, new = before.fdes[old_row], after.fdes[new_row]
    person, new_person = before.cie_symbol[old["cie"]], after.cie_symbol[new["cie"]]
    always = np.ones(len(old), np.bool_)
    same = same_target(
        pair,
        resolution,
        person,
        before.cie_addend[old["cie"]],
        new_person,
        after.cie_addend[new["cie"]],
        always,
    )
    same_lsda = same_target(
        pair,
        resolution,
        old["lsda_symbol"],
        old["lsda_addend"],
        new["lsda_symbol"],
        new["lsda_addend"],
        always,
    )
    if resolution.before.special is not None:  # then the same place is not enough
        good = same_target(
            pair,
            resolution,
            old["symbol"],
            old["addend"],
            new["symbol"],
            new["addend"],
            always,
        )
        kind = "an unwind entry names its function in another way"
        pair.findings.each(kind, ~good, pair.where_rows(old))
    person_type = before.cie_type[old["cie"]] != after.cie_type[new["cie"]]
    other_type = old["type"] != new["type"]
    for bad, kind in (
        (other_type, "an unwind entry has a relocation of another type"),
        (person_type, "a personality has a relocation of another type"),
        (old["lsda_type"] != new["lsda_type"], "language-specific data of another relocation type"),
        (~same, "a function has another personality"),
        (~same_lsda, "a function has other language-specific data"),
    ):
        pair.findings.each(kind, bad, pair.where_rows(old))
