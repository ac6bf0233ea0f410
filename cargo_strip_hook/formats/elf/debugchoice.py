"""What of the debug sections is kept: of each input section all, nothing or some parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.elf import dwarf
from cargo_strip_hook.formats.elf.debuginput import Batch, Slots, plain
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Bool, Int32, Int64, Program

DEAD = np.iinfo(np.int32).min  # the target of a relocation to what is not in the result

# (starts, sizes) of the kept ranges of a slot, in order; None for all of it
Ranges = tuple[Int64, Int64] | None


@dataclass(frozen=True, slots=True)
class Targets:
    """What each symbol of the program is to debug information.

    `target`: a program-wide symbol, or ~section for an output section; ~(count of code sections +
    slot) for places in debug sections, DEAD for what is not there. `delta` is added to
    addends. `lives`: it is live code or data.
    """

    target: Int32
    delta: Int64
    lives: Bool
    first_slot: int


class Choice:
    """Chooses what is kept: nothing, all or some parts of each slot."""

    def __init__(
        self, program: Program, slots: Slots, targets: Targets, relocations: list[Batch]
    ) -> None:
        self.program, self.slots, self.targets = program, slots, targets
        self.relocations = relocations
        self.file = slots.rows["unit"].astype(np.int64)
        self.order: str = elf_unit(program.units[0]).records.order

    def choose(self) -> dict[int, Ranges]:
        """(starts, sizes) of the kept ranges of each kept slot, in order; None for all of it."""
        rows = self.slots.rows
        by_slot = np.zeros(len(rows), np.bool_)
        for batch in self.relocations:
            alive = self.targets.lives[batch.symbol]
            starts = np.cumsum(batch.counts) - batch.counts
            by_slot[batch.slots] = np.logical_or.reduceat(alive, starts)
        files = np.zeros(len(self.program.units), np.bool_)
        files[self.file[by_slot]] = True
        files = self._referred_from_elsewhere(files)
        whole: dict[int, Ranges]
        whole = dict.fromkeys(np.flatnonzero(files[self.file]).tolist())
        several = self._several(files)
        if several:
            whole.update(self._divide(several))
        return {slot: part for slot, part in whole.items() if part is None or len(part[0])}

    def _referred_from_elsewhere(self, files: Bool) -> Bool:
        """The `files`, and those that they refer to by a symbol that both know; bool by unit."""
        target = self.targets.target
        into = np.flatnonzero((target < ~(self.targets.first_slot - 1)) & (target != DEAD))
        owner = np.searchsorted(self.program.symbol_base, into, side="right") - 1
        there = self.file[~target[into].astype(np.int64) - self.targets.first_slot]
        foreign = there != owner
        return dwarf.reached(files, owner[foreign], there[foreign])

    def _several(self, files: Bool) -> dict[int, list[int]]:
        """The slots of each kept file that has several units."""
        of_file: dict[int, list[int]] = {}
        for slot in np.flatnonzero(files[self.file]).tolist():
            of_file.setdefault(int(self.file[slot]), []).append(slot)
        has = {name for name in dwarf.UNITS if name in self.slots.names}
        return {
            file: mine
            for file, mine in of_file.items()
            if has and not dwarf.is_simple([self._section(slot) for slot in mine], self.order)
        }

    def _section(self, slot: int, relocated: Int64 | None = None) -> dwarf.Section:
        row = self.slots.rows[slot]
        unit, section = self.program.units[int(row["unit"])], int(row["section"])
        return dwarf.Section(
            self.slots.names[int(row["out"])],
            int(row["size"]),
            int(row["align"]),
            lambda: plain(unit, section),
            np.zeros(0, np.int64) if relocated is None else relocated,
        )

    def _divide(self, several: dict[int, list[int]]) -> dict[int, Ranges]:
        """The kept ranges of the slots of files with several units."""
        rows = self.slots.rows
        chosen = np.array(sorted(slot for mine in several.values() for slot in mine), np.int64)
        # every byte of these slots has an address of its own
        size = rows["size"][chosen] + 1
        base = np.full(len(rows), -1, np.int64)
        base[chosen] = np.cumsum(size) - size
        source, target, lives = self._references(base)
        into = np.flatnonzero(target >= 0)
        starts, kinds = self._starts(several, base, np.sort(source), unique(target[into]))
        slot_of = chosen[np.searchsorted(base[chosen], starts, side="right") - 1]
        names = np.array([self.slots.names[o] for o in rows["out"][slot_of].tolist()], object)
        unit = np.isin(names, dwarf.UNITS)
        unknown = np.array([not dwarf.is_known(name) for name in names.tolist()], np.bool_)
        part = np.searchsorted(starts, source, side="right") - 1
        live = np.zeros(len(starts), np.bool_)
        live[part[lives]] = True
        string = np.isin(names, dwarf.STRINGS)
        pairs = unique(
            part[into] * len(starts) + np.searchsorted(starts, target[into], "right") - 1
        )
        graph = dwarf.Graph(
            self.file[slot_of],
            unit,
            kinds,
            np.isin(names, dwarf.INDICES),
            unknown,
            live,
            pairs // len(starts),
            pairs % len(starts),
        )
        kept = dwarf.kept(graph)
        # a file that others refer to is kept, whatever it describes itself
        alone = ~np.isin(self.file, self.file[slot_of[kept]])
        kept |= alone[slot_of]
        ends = np.append(starts[1:], base[chosen[-1]] + size[-1])
        ends[:-1] -= slot_of[1:] != slot_of[:-1]
        ends[-1] -= 1
        result: dict[int, Ranges] = {}
        complete = np.ones(len(self.program.units), np.bool_)
        complete[self.file[slot_of[~kept & ~string]]] = False
        borders = np.append(np.searchsorted(slot_of, chosen), len(slot_of))
        used = np.sort(target[into][kept[part[into]]])
        for i, slot in enumerate(chosen.tolist()):
            if complete[self.file[slot]]:
                continue
            mine = slice(int(borders[i]), int(borders[i + 1]))
            if string[mine.start]:
                first, last = np.searchsorted(used, (base[slot], base[slot] + size[i]))
                offsets = unique(used[first:last]) - base[slot]
                result[slot] = dwarf.live_strings(self._section(slot).contents(), offsets)
            elif not kept[mine].all():
                where = np.flatnonzero(kept[mine]) + mine.start
                result[slot] = _runs(starts[where] - base[slot], ends[where] - base[slot])
        return result

    def _references(self, base: Int64) -> tuple[Int64, Int64, Bool]:
        """(address of each relocation, of what it refers to or -1, whether that is live code).

        `base[slot]` is the address of a slot, -1 for those that do not matter.
        """
        sources, targets, lives = [], [], []
        first = self.targets.first_slot
        limit = self.slots.rows["size"]
        for batch in self.relocations:
            if not (base[batch.slots] >= 0).any():
                continue
            mine = np.flatnonzero(np.repeat(base[batch.slots] >= 0, batch.counts))
            slot = np.repeat(batch.slots, batch.counts)[mine]
            symbol = batch.symbol[mine]
            sources.append(base[slot] + batch.rows["offset"][mine].astype(np.int64))
            target = self.targets.target[symbol].astype(np.int64)
            debug = (target < ~(first - 1)) & (target != DEAD)
            there = np.where(debug, ~target - first, 0)
            offset = np.clip(batch.addend[mine] + self.targets.delta[symbol], 0, limit[there])
            targets.append(np.where(debug & (base[there] >= 0), base[there] + offset, -1))
            lives.append(self.targets.lives[symbol])
        if not sources:
            none = np.zeros(0, np.int64)
            return none, none, np.zeros(0, np.bool_)
        return np.concatenate(sources), np.concatenate(targets), np.concatenate(lives)

    def _starts(
        self, several: dict[int, list[int]], base: Int64, sources: Int64, targets: Int64
    ) -> tuple[Int64, Bool]:
        """(addresses where parts begin, sorted; whether each is a type unit)."""
        starts, kinds = [], []
        for mine in several.values():
            sections, referenced = [], []
            for slot in mine:
                begin, end = int(base[slot]), int(base[slot] + self.slots.rows["size"][slot])
                first, last = np.searchsorted(sources, (begin, end))
                sections.append(self._section(slot, sources[first:last] - begin))
                first, last = np.searchsorted(targets, (begin, end))
                referenced.append(targets[first:last] - begin)
            word = elf_unit(self.program.units[0]).records.size
            divided = dwarf.parts(sections, referenced, word, self.order)
            if divided is None:
                # every part refers to every other: the file is one
                divided = [(np.zeros(1, np.int64), np.ones(1, np.bool_))] * len(mine)
            for slot, (inside, kind) in zip(mine, divided, strict=True):
                starts.append(inside + base[slot])
                kinds.append(kind)
        addresses, kind_of = np.concatenate(starts), np.concatenate(kinds)
        order = np.argsort(addresses, kind="stable")
        return addresses[order], kind_of[order]


def _runs(starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
    """(starts, sizes) of the same places, those that touch joined."""
    if not len(starts):
        return starts, ends
    first = np.append(True, starts[1:] != ends[:-1])
    last = np.append(first[1:], True)
    return starts[first], ends[last] - starts[first]


__all__ = ["DEAD", "Choice", "Ranges", "Targets"]
