"""The link map: where GNU ld's map says that the input sections went.

Source of the format: GNU ld manual, "-Map"; `lang_map` and `print_input_section` in `ldlang.c`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.engines.system.view import SHF_ALLOC, View, view
from cargo_strip_hook.link.model import LINK_MAP
from cargo_strip_hook.link.prelink import Input

if TYPE_CHECKING:
    import numpy.typing as npt

# a name that is too long is on a line of its own
_LINE = re.compile(
    r"^ (?P<name>\S+)\s+0x(?P<to>[0-9a-f]+)\s+0x(?P<size>[0-9a-f]+) \S.*?\((?P<member>[^()\n]+)\)$"
    r"|^(?P<out>[^\s*(]\S*)\s+0x[0-9a-f]+\s+0x[0-9a-f]+",
    re.M,
)
_START = "Linker script and memory map"


def link_map(
    text: str, members: Mapping[int, Input], result: View, renamed: Mapping[bytes, bytes]
) -> npt.NDArray[np.void] | None:
    """The link map that the text of a map gives; None where names are ambiguous.

    It has no frames, which the linker takes apart, and no notes, which it merges. `renamed`: the
    names in `result` of sections of the linker's output.
    """
    _, start, text = text.partition(_START)
    if not start:
        return None
    outputs = _OutputSections(result, renamed)
    wanted: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for match in _LINE.finditer(text):
        if match["out"]:
            outputs.enter(match["out"].encode(errors="surrogateescape"))
        elif outputs.current:
            row = (int(match["size"], 16), outputs.current, int(match["to"], 16))
            wanted[match["member"], match["name"]].append(row)
    sections_by_name = _input_sections(members, {member for member, _ in wanted})
    rows: list[tuple[int, int, int, int, int, int]] = []
    for key, rows_of_map in wanted.items():
        here = sections_by_name.get(key, [])
        if not here or key[1] == ".eh_frame" or key[1].startswith(".note"):
            continue
        if len(here) != len(rows_of_map):
            return None
        for (member, section, size), (said, out, offset) in zip(here, rows_of_map, strict=True):
            if size != said:
                return None
            rows.append((member, section, 0, size, out, offset))
    return np.array(sorted(rows), LINK_MAP)


class _OutputSections:
    """Finds the output sections of a map among the sections of the result."""

    def __init__(self, result: View, renamed: Mapping[bytes, bytes]) -> None:
        self.numbers: dict[bytes, list[int]] = defaultdict(list)
        for number, name in enumerate(result.names):
            self.numbers[name].append(number)
        self.renamed = renamed
        self.current = 0

    def enter(self, name: bytes) -> None:
        """Go to the next output section of this name; `current` is 0 where the result has none."""
        left = self.numbers.get(self.renamed.get(name, name))
        self.current = left.pop(0) if left else 0


def _input_sections(
    members: Mapping[int, Input], used: set[str]
) -> dict[tuple[str, str], list[tuple[int, int, int]]]:
    """Member, number and size of the allocated sections, by the names of member and section."""
    sections_by_name: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for member in members.values():
        if member.name not in used:
            continue
        unit = view(member.data, member.name, symbols=False)
        flags: Sequence[int] = unit.sections["flags"].tolist()
        sizes: Sequence[int] = unit.sections["size"].tolist()
        for number, name in enumerate(unit.names):
            if flags[number] & SHF_ALLOC:
                key = (member.name, name.decode("utf-8", "surrogateescape"))
                sections_by_name[key].append((member.index, number, sizes[number]))
    return sections_by_name
