"""Keeps grouped sections alive where GNU ld is told to drop what nothing refers to.

Its `--gc-sections` drops parts of a group that only stand between two others, which Microsoft's
linker and lld never do. So what refers to one part of a group gets a reference to each other one,
behind its contents. Source: GNU binutils, `coff_gc_sections` in `bfd/cofflink.c`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.formats.coff.place import Placed
from cargo_strip_hook.formats.coff.relocate import STEP, Rewritten
from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import Int64, Program


def keep_groups(
    program: Program, machine: Machine, placed: Placed, sizes: Int64, rewritten: Rewritten
) -> tuple[Placed, Int64, Rewritten]:
    """The sections with references to the parts of groups that they refer to a part of."""
    groups: dict[bytes, list[int]] = {}
    for number, kind in enumerate(placed.kinds):
        if kind.root and kinds.is_part_of_group(kind.name) and sizes[number]:
            groups.setdefault(kind.name.partition(b"$")[0], []).append(number)
    groups = {base: parts for base, parts in groups.items() if len(parts) > 1}
    if not groups:
        return placed, sizes, rewritten
    atom = program.symbols["atom"][np.where(rewritten.place, 0, rewritten.target)]
    named = np.where(atom >= 0, placed.section[np.maximum(atom, 0)], -1)
    goal = np.where(rewritten.place, rewritten.target >> STEP, named)
    extra: list[tuple[int, int]] = []  # from which section to which
    for parts in groups.values():
        users = unique(rewritten.section[isin(goal, np.array(parts))])
        for user in users.tolist():
            name = placed.kinds[user].name
            # nothing may come between the parts of a group
            apart = name not in (kinds.PDATA, kinds.XDATA, kinds.EH_FRAME)
            if apart and not kinds.is_part_of_group(name):
                there = set(goal[rewritten.section == user].tolist()) | {user}
                extra += [(user, part) for part in parts if part not in there]
    if not extra:
        return placed, sizes, rewritten
    sizes, offsets = sizes.copy(), []
    for user, _ in extra:
        offsets.append(-(-int(sizes[user]) // 4) * 4)
        sizes[user] = offsets[-1] + 4
    blobs = []
    for number in range(len(placed.kinds)):
        old = placed.blob[placed.start[number] : placed.start[number + 1]]
        blobs.append(old)
        if number in {user for user, _ in extra}:
            blobs.append(np.zeros(int(sizes[number]) - len(old), np.uint8))
    lengths = np.diff(placed.start)
    grown = unique(np.array([user for user, _ in extra], np.int64))
    lengths[grown] = sizes[grown]
    placed = replace(
        placed, start=np.concatenate([[0], np.cumsum(lengths)]), blob=np.concatenate(blobs)
    )
    source, target = np.array(extra, np.int64).T
    columns = [
        np.concatenate([rewritten.section, source]),
        np.concatenate([rewritten.offset, np.array(offsets, np.int64)]),
        np.concatenate([rewritten.type, np.full(len(extra), machine.relative)]),
        np.concatenate([rewritten.target, target << STEP]),
        np.concatenate([rewritten.place, np.ones(len(extra), np.bool_)]),
        np.concatenate([rewritten.exact, np.zeros(len(extra), np.bool_)]),
    ]
    order = np.lexsort((columns[1], columns[0]))
    return placed, sizes, Rewritten(*(column[order] for column in columns))
