"""Sections that linkers order by name, or keep though nothing refers to them.

Sources: Microsoft PE/COFF specification, "Grouped Sections" and "COMDAT Sections (Object Only)";
Microsoft's C runtime for `.CRT$X*`; how compilers name the sections of functions and variables:
GCC's `-ffunction-sections` for Windows, LLVM's `TargetLoweringObjectFileCOFF`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from cargo_strip_hook.verify.coff.locations import Pair
from cargo_strip_hook.verify.coff.read import (
    ASSOCIATIVE,
    COMDAT,
    EXTERNAL,
    INFO,
    REMOVE,
    STATIC,
    WEAK,
    Object,
)
from cargo_strip_hook.verify.kit.names import shown

_ORDERED = (b".text", b".rdata", b".data", b".bss")
_UNWIND = (b".pdata", b".xdata", b".eh_frame", b".gcc_except_table")
# what needs a reference to live
_PLAIN = (*_ORDERED, *_UNWIND, b".rodata")
# sections that are for the linker, not for the program
_TOLD = tuple(
    b".debug .zdebug .stab .drectve .sxdata .llvm .gfids$y .giats$y .gljmp$y .gehcont$y".split()
)
_OWN = re.compile(rb"\.[0-9a-f]{8}\$.*")
_RATE = re.compile(rb"(unlikely|hot|unknown|startup|exit)([$.]|$)")


def check_groups(pair: Pair) -> None:
    """All that no linker would drop is there, under the name that orders it."""
    there = {
        (p, r) for p, r in zip(pair.position.tolist(), pair.rows["section"].tolist(), strict=True)
    }
    free: list[set[int]] = []
    for m, o in enumerate(pair.objects):
        without, kept = _of_member(pair, m)
        free.append(without)
        for number in kept:
            if (m, number) not in there:
                what = "initialisers" if o.names[number].startswith(b".CRT$X") else "section"
                text = f"{shown(o.names[number])} of {pair.titles[m]} is lost"
                pair.findings.add(what, text)
    last: dict[tuple[int, bytes], tuple[int, int]] = {}
    homes: dict[bytes, bytes] = {}  # what each group is called in the result
    for m, location, row in zip(
        pair.position.tolist(), pair.location.tolist(), pair.rows.tolist(), strict=True
    ):
        name, home = pair.objects[m].names[row[1]], pair.after.names[row[4]]
        if not _may_be_in(name, home, row[1] in free[m]):
            pair.findings.add("section", f"{shown(name)} went to {shown(home)}")
        elif b"$" in name and row[3] and home.partition(b"$")[2] == name.partition(b"$")[2]:
            base, own = name.partition(b"$")[0], home.partition(b"$")[0]
            if homes.setdefault(base, own) != own:
                pair.findings.add("section", f"the group {shown(base)} is in two places")
            before = last.get((m, name), (0, -1))
            if before > (row[1], location):
                text = f"the parts of {shown(name)} are not in order at {pair.where(location)}"
                pair.findings.add("section", text)
            last[m, name] = row[1], location


def _may_be_in(name: bytes, home: bytes, free: bool) -> bool:
    """Whether a section can be a part of one with another name."""
    if name == home:
        return True
    base, _, order = name.partition(b"$")
    if order and base in _ORDERED:
        return free and home == base
    if order and _OWN.fullmatch(home, len(base)) and home.startswith(base):
        return home.endswith(b"$" + order)  # a set that is the library's alone
    return any(_is_of(name, plain) and home == plain for plain in _PLAIN)


def _free(o: Object) -> set[int]:
    """The sections whose suffix says nothing: it repeats the name of what they hold."""
    chosen = [
        n
        for n in range(1, len(o.names))
        if b"$" in o.names[n] and o.names[n].partition(b"$")[0] in _ORDERED
    ]
    if not chosen:
        return set()
    symbols = o.symbols
    wanted = np.zeros(len(o.names), np.bool_)
    wanted[chosen] = True
    mine = o.in_sections(wanted)
    mine = mine[(symbols["class"][mine] != STATIC) | (symbols["aux"][mine] == 0)]
    names: dict[int, set[bytes]] = {n: set() for n in chosen}
    section = symbols["section"][mine]
    for number, name in zip(section.tolist(), o.names_of(mine), strict=True):
        names[number].add(name)
    spread = set(section[symbols["value"][mine] != 0].tolist())
    found = set()
    for n in chosen:
        suffix = o.names[n].partition(b"$")[2]
        rate = _RATE.match(suffix)
        own = suffix[rate.end() :] if rate else suffix
        by_rate = rate is not None and int(o.sections["flags"][n]) & COMDAT
        if by_rate or (n not in spread and _repeats(own, names[n])):
            found.add(n)
    return found


def _repeats(suffix: bytes, names: set[bytes]) -> bool:
    """Whether one of the names is the suffix, but for what i686 puts around names."""
    wanted = re.sub(rb"@\d+$", b"", suffix)
    for name in names:
        plain = re.sub(rb"@\d+$", b"", name)
        if wanted in (plain, plain[1:] if plain[:1] in b"_@" else plain) and plain:
            return True
        if plain == wanted + b".cold":
            return True
    return False


def _kept(o: Object, free: set[int]) -> Iterator[int]:
    """The sections that are no COMDAT, and that no reference can or need keep."""
    flags = o.sections["flags"]
    plain = []
    chosen = (o.sections["size"] > 0) & (flags & (COMDAT | INFO | REMOVE) == 0)
    for n in np.flatnonzero(chosen).tolist():
        name = o.names[n]
        if name.startswith(_TOLD):
            continue
        base, _, order = name.partition(b"$")
        if name in _ORDERED:
            plain.append(n)
        if base in _ORDERED or base == b".tls":
            if order and n not in free:
                yield n
        elif base.startswith(tuple(p + b"." for p in _ORDERED)):
            continue
        elif not name.startswith((*_UNWIND, b".rodata")):
            yield n
    yield from _nameless(o, plain)


def _of_member(pair: Pair, member: int) -> tuple[set[int], list[int]]:
    """The sections whose suffix says nothing, and those that no linker would drop."""
    if member not in pair.kept:
        o = pair.objects[member]
        free = _free(o)
        pair.kept[member] = free, list(_kept(o, free))
    return pair.kept[member]


def rooted(pair: Pair, member: int) -> set[int]:
    """What lives in every program: that, and COMDATs whose names say that others look for them."""
    o = pair.objects[member]
    named = {
        n
        for n, (selection, _, _) in o.selections.items()
        if selection != ASSOCIATIVE and not any(_is_of(o.names[n], p) for p in (*_PLAIN, b".tls"))
    }
    return named | set(_of_member(pair, member)[1])


def _is_of(name: bytes, base: bytes) -> bool:
    """Whether a section is called so, whatever it is called behind that."""
    return name == base or name.startswith((base + b"$", base + b"."))


def _nameless(o: Object, plain: list[int]) -> list[int]:
    """Those of the sections that neither another section nor another file can refer to."""
    if not plain:
        return []
    symbols, rows = o.symbols, o.relocations
    shown_ = np.isin(symbols["class"], (EXTERNAL, WEAK)) & ~o.auxiliary
    target = symbols["section"][rows["symbol"]]
    from_program = np.array([not name.startswith(_TOLD) for name in o.names], np.bool_)
    named = set(symbols["section"][shown_].tolist())
    named |= set(target[(target != rows["section"]) & from_program[rows["section"]]].tolist())
    return [n for n in plain if n not in named]


__all__ = ["check_groups", "rooted"]
