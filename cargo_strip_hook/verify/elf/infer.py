"""Finding the pieces again where the engine cannot say where they went: by symbol names."""

from __future__ import annotations

from collections import Counter

import numpy as np

from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.elf.read import (
    SHF_ALLOC,
    SHF_MERGE,
    STEP,
    STT_FUNC,
    STT_OBJECT,
    STT_TLS,
    Objects,
)
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.link_map import LINK_MAP

_KINDS = (STT_FUNC, STT_OBJECT, STT_TLS)


def _named(objects: Objects) -> tuple[list[int], list[bytes]]:
    """Symbols of functions and data in allocated sections, and their names.

    Elements of a mergeable section are left out: each may have gone another way.
    """
    s = objects.symbols
    inside = (s["section"] > 0) & np.isin(s["kind"], _KINDS) & (s["size"] > 0)
    numbers = np.flatnonzero(inside)
    flags = objects.sections["flags"][s["section"][numbers]]
    numbers = numbers[flags & (SHF_ALLOC | SHF_MERGE) == SHF_ALLOC]
    string = objects.string
    return numbers.tolist(), [string(at) for at in s["name"][numbers].tolist()]


def infer_placement(before: Objects, after: Objects, findings: Findings) -> tuple[Array, Array]:
    """Rows of PLACEMENT (member: position in `before`) and the section of each.

    Only names that occur once on each side tell anything; sections without one are not found.
    """
    new_numbers, new_names = _named(after)
    once = Counter(new_names)
    new = {name: i for name, i in zip(new_names, new_numbers, strict=True) if once[name] == 1}
    old_numbers, old_names = _named(before)
    twice = Counter(name for name in old_names if name in new)
    found: dict[int, int] = {}
    b, a = before.symbols, after.symbols
    for name, old in zip(old_names, old_numbers, strict=True):
        number = new.get(name)
        if number is None or twice[name] != 1 or a["size"][number] != b["size"][old]:
            continue
        section = int(b["section"][old])
        location = int(a["section"][number] << STEP) + int(a["value"][number] - b["value"][old])
        if found.setdefault(section, location) != location:
            findings.add("symbols of one section moved apart", name.decode("utf-8", "replace"))
    sections = np.array(sorted(found), np.int64)
    rows = np.zeros(len(sections), LINK_MAP)
    rows["member"] = before.sections["object"][sections]
    rows["section"] = sections - before.section_base[rows["member"]]
    rows["size"] = before.sections["size"][sections]
    locations = np.array([found[s] for s in sections.tolist()], np.int64)
    rows["out_section"], rows["out_offset"] = locations >> STEP, locations & ((1 << STEP) - 1)
    return rows, sections
