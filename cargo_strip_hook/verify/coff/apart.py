"""What of the objects that a library of a set loads is other libraries' only.

A member of the common library may hold what not all that load it need. Each of these places is
compared for a library that it is of. To another one it must be as if it was not there: no name that
is undefined, and nothing that runs by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.verify.arrays import Array, rows_of
from cargo_strip_hook.verify.coff.locations import STEP
from cargo_strip_hook.verify.coff.read import BSS, EXTERNAL, WEAK, Object
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown

_RUN = (b".CRT$", b".ctors", b".dtors", b".rtc$")


def set_apart(after: Object, rows: Array, others: Sequence[Array], findings: Findings) -> Object:
    """The object as if nothing was in what only the rows of `others` explain.

    All rows are link maps whose sections are those of `after`.
    """
    sizes = after.sections["size"].astype(np.int64)
    base = np.cumsum(sizes) - sizes
    theirs = _covered(base, int(sizes.sum()), others)
    theirs &= ~_covered(base, int(sizes.sum()), [rows])
    if not theirs.any():
        return after
    edges = np.flatnonzero(np.diff(np.concatenate([[0], theirs.view(np.int8), [0]])))
    start, end = edges[::2], edges[1::2]
    # a range may go on in the next section
    cuts = base[(base > 0) & theirs[np.minimum(base, len(theirs) - 1)]]
    cuts = cuts[~np.isin(cuts, start)]
    start = np.sort(np.concatenate([start, cuts]))
    end = np.sort(np.concatenate([end, cuts]))
    section = np.searchsorted(base, start, side="right") - 1
    location = (section.astype(np.int64) << STEP) + start - base[section]
    for number in np.unique(section).tolist():
        if after.names[number].startswith(_RUN):
            what = "something of other libraries runs by itself, or is retained"
            findings.add(what, shown(after.names[number]))
    raw = after.raw.copy()
    for number, first, last in zip(section.tolist(), start.tolist(), end.tolist(), strict=True):
        header = after.sections[number]
        if not int(header["flags"]) & BSS:
            begin = int(header["offset"]) + first - int(base[number])
            raw[begin : begin + last - first] = 0
    relocations = after.relocations
    at = base[relocations["section"]] + relocations["offset"]
    gone = theirs[np.minimum(at, len(theirs) - 1)]
    left = rows_of(relocations, ~gone)
    _check_needs(after, rows_of(relocations, gone), left, findings)
    return replace(after, raw=raw, relocations=left, apart=(location, end - start))


def _covered(base: Array, total: int, maps: Sequence[Array]) -> Array:
    """bool for each byte of all sections, one behind another: whether a row has it."""
    steps = np.zeros(total + 1, np.int64)
    for rows in maps:
        begin = base[rows["out_section"]] + rows["out_offset"]
        np.add.at(steps, begin, 1)
        np.add.at(steps, begin + rows["size"], -1)
    covered: Array = np.cumsum(steps[:-1]) > 0
    return covered


def _check_needs(after: Object, gone: Array, left: Array, findings: Findings) -> None:
    """What is others' needs no name that the library would not need without it."""
    symbols = after.symbols
    missing = np.isin(symbols["class"], (EXTERNAL, WEAK)) & (symbols["section"] == 0)

    def names(rows: Array) -> set[bytes]:
        used = np.unique(rows["symbol"])
        return set(after.names_of(used[missing[used]]))

    for name in sorted(names(gone) - names(left)):
        findings.add("a name that only other libraries need is undefined", shown(name))


def inside(ranges: tuple[Array, Array] | None, locations: Array) -> Array:
    """bool for each place: whether it is in one of the ranges (start, size; sorted)."""
    if ranges is None:
        return np.zeros(len(locations), np.bool_)
    start, size = ranges
    at = np.searchsorted(start, locations, side="right") - 1
    near = np.maximum(at, 0)
    return np.asarray((at >= 0) & (locations < start[near] + size[near]))


__all__ = ["inside", "set_apart"]
