"""The COMDAT groups that the result has: those of exports, whole, and closed to the outside.

Source: gABI, "Section Groups".
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.elf.mapping import Pair
from cargo_strip_hook.verify.elf.read import SHT_GROUP, STB_LOCAL, STT_SECTION, Objects
from cargo_strip_hook.verify.elf.relocations import Sides

_GRP_COMDAT = 1


def _words(objects: Objects, number: int) -> list[int]:
    found: list[int] = np.frombuffer(
        objects.contents(number), f"{objects.layouts.order}u4"
    ).tolist()
    return found


def _signature(objects: Objects, number: int) -> tuple[int, bytes]:
    """The symbol that names a group, -1 for none, and the name."""
    row = objects.sections[number]
    base = int(objects.symbol_base[row["object"]])
    symbol = base + int(row["info"])
    if not base < symbol < int(objects.symbol_base[row["object"] + 1]):
        return -1, b""
    facts = objects.symbols[symbol]
    if facts["kind"] == STT_SECTION and facts["section"] > 0:
        return symbol, objects.section_name(int(facts["section"])).encode("utf-8", "replace")
    return symbol, objects.string(int(facts["name"]))


def check(pair: Pair, sides: Sides) -> None:
    """Each group of the result is one of the original's, and nothing else refers into it."""
    after, findings = pair.after, pair.findings
    groups = np.flatnonzero(after.sections["type"] == SHT_GROUP).tolist()
    if not groups or not pair.complete:
        return
    originals = _originals(pair.before)
    home = np.full(len(after.sections), -1, np.int64)
    names: set[bytes] = set()
    for n, number in enumerate(groups):
        flags, *members = _words(after, number) or [0]
        symbol, name = _signature(after, number)
        facts = after.symbols[max(symbol, 0)]
        if flags != _GRP_COMDAT or symbol < 0 or facts["binding"] == STB_LOCAL or name in names:
            findings.add("a group", f"[{number}] is none that linkers could keep one of")
            return
        names.add(name)
        mine = [m for m in members if after.targets[m] < 0]
        tables = {m for m in members if after.targets[m] >= 0}
        wanted = set(np.flatnonzero(np.isin(after.targets, mine)).tolist())
        if int(facts["section"]) not in mine or tables != wanted or (home[mine] >= 0).any():
            findings.add("a group", f"[{number}] has not the sections that it should have")
        home[mine] = n
        rows = np.flatnonzero(np.isin(pair.link_map["out_section"], mine))
        owners = {originals.get(int(s), (-1, b"")) for s in pair.section[rows].tolist()}
        own = next(iter(owners), (-1, b""))
        if len(owners) != 1 or own[0] < 0 or name not in (own[1], own[1].split(b".", 4)[-1]):
            findings.add("a group", f"[{number}] is none of the original's")
            continue
        every = [s for s, owner in originals.items() if owner == own]
        apart = np.isin(pair.section, every) & (home[pair.link_map["out_section"]] != n)
        if apart.any():
            findings.add("a group", f"[{number}] came apart")
    new = sides.after
    symbol_section = after.symbols["section"][np.maximum(new["symbol"], 0)]
    target = np.where(symbol_section > 0, home[np.maximum(symbol_section, 0)], -1)
    local = after.symbols["binding"][np.maximum(new["symbol"], 0)] == STB_LOCAL
    for i in np.flatnonzero(local & (target >= 0) & (target != home[new["section"]]))[:8].tolist():
        where = pair.where_after(int(sides.after_location[i]))
        findings.add("a reference into a group that may be dropped", where)


def _originals(before: Objects) -> dict[int, tuple[int, bytes]]:
    """Of each section in a COMDAT group the group's number and name."""
    found: dict[int, tuple[int, bytes]] = {}
    for number in np.flatnonzero(before.sections["type"] == SHT_GROUP).tolist():
        flags, *members = _words(before, number) or [0]
        base = int(before.section_base[before.sections["object"][number]])
        if flags & _GRP_COMDAT:
            _, name = _signature(before, number)
            found.update((base + m, (number, name)) for m in members)
    for number in np.flatnonzero(before.names_begin(b".gnu.linkonce.")).tolist():
        name = before.section_name(number).encode("utf-8", "replace")
        found[number] = number, name
    return found


__all__ = ["check"]
