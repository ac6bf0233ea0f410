"""Keeps grouped sections alive where GNU ld is told to drop what nothing refers to.

Its `--gc-sections` drops parts of a group that only stand between two others, which Microsoft's
linker and lld never do. So what refers to one part of a group gets a reference to each other one,
behind its contents. Source: GNU binutils, `coff_gc_sections` in `bfd/cofflink.c`.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff.addresses import Filled
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import Program
from cargo_strip_hook.link.output import Relocations


def keep_groups(program: Program, machine: Machine, filled: Filled) -> Filled:
    """The sections with references to the parts of groups that they refer to a part of."""
    placed, contents, relocations = filled.placed, filled.contents, filled.relocations
    groups: dict[bytes, list[int]] = {}
    for number, kind in enumerate(placed.kinds):
        if kind.root and kinds.is_grouped(kind.name) and placed.sections.size[number]:
            groups.setdefault(kind.name.partition(b"$")[0], []).append(number)
    groups = {base: members for base, members in groups.items() if len(members) > 1}
    if not groups:
        return filled
    atom = program.symbols["atom"][relocations.symbol]
    named = np.where(atom >= 0, placed.section[np.maximum(atom, 0)], -1)
    goal = np.where(relocations.symbol < 0, relocations.target_section, named)
    extra: list[tuple[int, int]] = []  # from which section to which
    for members in groups.values():
        users = unique(relocations.section[isin(goal, np.array(members))])
        for user in users.tolist():
            name = placed.kinds[user].name
            # nothing may come between the parts of a group
            separate = name not in (kinds.PDATA, kinds.XDATA, kinds.EH_FRAME)
            if separate and not kinds.is_grouped(name):
                there = set(goal[relocations.section == user].tolist()) | {user}
                extra += [(user, member) for member in members if member not in there]
    if not extra:
        return filled
    sizes, offsets = placed.sections.size.copy(), []
    for user, _ in extra:
        offsets.append(-(-int(sizes[user]) // 4) * 4)
        sizes[user] = offsets[-1] + 4
    grown = list(contents)
    for user in {user for user, _ in extra}:
        grown[user] = np.zeros(int(sizes[user]), np.uint8)
        grown[user][: len(contents[user])] = contents[user]
    source, target = np.array(extra, np.int32).T
    none, nobody = np.zeros(len(extra), np.int64), np.full(len(extra), -1, np.int32)
    fields = source, np.array(offsets, np.int64), none + machine.relative
    more = Relocations(*fields, nobody, target, none, none, none != 0)
    every = Relocations.joined([relocations, more])
    order = np.lexsort((every.offset, every.section))
    return Filled(placed.resized(sizes), grown, every.rows(order))
