"""What no member of the original holds itself: commons, and the ends of sets of elements."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import pairwise

import numpy as np

from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.read import Object
from cargo_strip_hook.verify.macho.sections import COMMON, Borders

_START, _END = b"section$start$", b"section$end$"


class Made:
    """Names that the linker gives a place; all references have to agree on it."""

    def __init__(self, before: Object, defined: Container[bytes]) -> None:
        self.commons: dict[bytes, int] = {}  # size
        self._align: dict[bytes, int] = {}  # of commons, as a power of two
        self.ends: set[bytes] = set()
        self.found: dict[bytes, set[int]] = {}
        for name, size in before.undefined:
            if size and name not in defined:
                self.commons[name] = max(size, self.commons.get(name, 0))
            elif name.startswith((_START, _END)) and name not in defined:
                self.ends.add(name)
        if self.commons:
            self._read_alignments(before)

    def _read_alignments(self, before: Object) -> None:
        """What each common asks for; ld64 takes the size where one says nothing."""
        numbers = np.flatnonzero(before.entries["type"] & 0xEF == 1)
        numbers = numbers[before.entries["value"][numbers] > 0]
        rows = before.entries[numbers]
        powers = (rows["desc"] >> 8 & 0xF).tolist()
        for name, power in zip(before.names(numbers), powers, strict=True):
            self._align[name] = max(power, self._align.get(name, 0))

    def knows(self, name: bytes) -> bool:
        return name in self.commons or name in self.ends

    def known(self, names: Sequence[bytes]) -> Array:
        """bool: `knows` of each name."""
        if not self.commons and not self.ends:
            return np.zeros(len(names), np.bool_)
        return np.array([self.knows(name) for name in names], np.bool_)

    def use(self, name: bytes, address: int) -> None:
        """A reference takes `name` to be at `address`."""
        self.found.setdefault(name, set()).add(address)

    def check(self, where: Locations, after: Object, findings: Findings) -> None:
        for name, locations in self.found.items():
            if len(locations) > 1:
                shown = name.decode("utf-8", "replace")
                findings.add("relocation", f"references to {shown} do not agree")
        if not self.commons.keys().isdisjoint(self.found):
            self._check_commons(where, after, findings)
        if not self.ends.isdisjoint(self.found):
            self._check_sets(_pieces(where), findings)

    def _check_commons(self, where: Locations, after: Object, findings: Findings) -> None:
        """Zeros of the right size, for nothing else. One that stays a common has no place."""
        taken: list[tuple[int, int]] = []
        outside = {name for name, _ in after.undefined}
        starts = set(after.entries["value"][after.placed].tolist())
        borders = Borders(after)
        for name, size in self.commons.items():
            if name not in self.found or name in outside:
                continue
            at = min(self.found[name])
            number = after.section_at(at)
            home = after.sections[number - 1] if number else None
            shown = name.decode("utf-8", "replace")
            if home is None or at + size > home.address + home.size:
                findings.add("a common symbol", f"the common {shown} has no room at {at:#x}")
                continue
            if (home.segment, home.name, home.flags) != (*COMMON, 1):
                findings.add("a common symbol", f"the common {shown} is in no section for commons")
            begin = int(borders.before(np.array([number]), np.array([at]))[0]) - home.address
            given = min(home.align, (begin & -begin).bit_length() - 1) if begin else home.align
            power = self._align.get(name, 0)
            if given < power or (at - home.address - begin) % (1 << power):
                findings.add(
                    "a common symbol", f"the common {shown} is less aligned than it asks for"
                )
            if at not in starts:
                findings.add("a common symbol", f"there is no symbol at the common {shown}")
            taken.append((at, size))
        for (first, size), (second, _) in pairwise(sorted(taken)):
            if first + size > second:
                findings.add("placement", f"two pieces overlap at {second:#x}")
        filled = where.size > 0
        order = np.argsort(where.address[filled], kind="stable")
        piece, size_of = where.address[filled][order], where.size[filled][order]
        if not len(piece):
            return
        common = np.array(taken, np.int64).reshape(-1, 2)
        # pieces are apart: the last one that begins before a common ends is the one that may reach
        last = np.searchsorted(piece, common.sum(axis=1)) - 1
        for at in piece[last[(last >= 0) & ((piece + size_of)[last] > common[:, 0])]].tolist():
            findings.add("placement", f"two pieces overlap at {at:#x}")

    def _check_sets(self, pieces: list[tuple[int, int, bytes]], findings: Findings) -> None:
        """Between the ends of a set lie all of its elements and nothing else."""
        for name in {n.split(b"$", 2)[2] for n in self.ends if n in self.found}:
            start = min(self.found.get(_START + name, {-1}))
            end = min(self.found.get(_END + name, {-1}))
            mine = [(at, size) for at, size, home in pieces if home == name]
            low = min((at for at, _ in mine), default=start)
            high = max((at + size for at, size in mine), default=end)
            wrong = (start >= 0 and start != low) or (end >= 0 and end != high)
            wrong |= any(low <= at < high and home != name for at, size, home in pieces if size)
            if wrong:
                findings.add(
                    "relocation",
                    f"the ends of the set {name.decode('utf-8', 'replace')} are misplaced",
                )


def _pieces(where: Locations) -> list[tuple[int, int, bytes]]:
    """Address, size and `segment$section` of origin of each piece."""
    homes = [s.segment + b"$" + s.name for s in where.members.sections]
    return [
        (address, size, homes[section - 1])
        for address, size, section in zip(
            where.address.tolist(), where.size.tolist(), where.section.tolist(), strict=True
        )
    ]
