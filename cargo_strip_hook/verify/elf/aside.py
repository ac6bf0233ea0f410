"""What is never loaded and no debug information: it is all there, and nothing else is.

Source: gABI, "Sections"; llvm/BinaryFormat/ELF.h, SHT_LLVM_*; GNU ld, `_bfd_elf_gc_mark_rsec`.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather
from cargo_strip_hook.verify.elf.groups import members
from cargo_strip_hook.verify.elf.mapping import Kind, Pair, Resolution
from cargo_strip_hook.verify.elf.read import (
    COMPACT,
    SHF_ALLOC,
    SHF_GNU_RETAIN,
    SHF_LINK_ORDER,
    SHT_NOBITS,
    STB_LOCAL,
    STEP,
    Objects,
)
from cargo_strip_hook.verify.expectation import Expectation
from cargo_strip_hook.verify.marker import SECTION_NAME

# tables, LLVM's lists of symbols by number, its bitcode
_TABLES = (0, 2, 3, 4, 9, 17, 18, 0x6FFF4C02, 0x6FFF4C03, 0x6FFF4C09, 0x6FFF4C0C, 0x6FFFFFF5)
_LEFT_OUT = (
    b".llvmbc\0",
    b".llvmcmd\0",
    b".llvm.lto\0",
    b".gnu.lto_",
    b".gnu.debuglto_",
    b".debug",
    b".zdebug",
    b".stab",
    b".line\0",
    b".gdb_index\0",
    b".gnu.linkonce.wi",
    b".note.GNU-stack\0",
    SECTION_NAME.encode() + b"\0",
)
_ATTRIBUTES = 0x70000003  # of Arm, AArch64, RISC-V and Hexagon: put together, or dropped


def is_told(expectation: Expectation) -> bool:
    """Whether the placement tells of such sections: a platform's linker does not."""
    return expectation.link_map is not None and expectation.covers_debug


def is_aside(objects: Objects) -> Array:
    """bool for each section: whether it is such a one."""
    s = objects.sections
    found = s["flags"] & SHF_ALLOC == 0
    for kind in (*_TABLES, *COMPACT.tolist(), _ATTRIBUTES):
        found &= s["type"] != kind
    for name in _LEFT_OUT if found.any() else ():
        found &= ~objects.names_begin(name)
    return np.asarray(found)


def check(pair: Pair) -> None:
    """None is lost that a linker would keep, and none is there that no input has."""
    if not (pair.complete and is_told(pair.expectation)):
        return
    before, after = pair.before, pair.after
    used = np.zeros(len(after.sections), np.bool_)
    used[pair.link_map["out_section"]] = True
    for number in np.flatnonzero(is_aside(after) & ~used).tolist():
        pair.findings.add("a section that no input explains", pair.where_after(number << STEP))
    s = before.sections
    aside = is_aside(before)
    lost = aside & (pair.row < 0) & ~pair.beaten
    live = np.zeros(len(before.base), np.bool_)
    live[s["object"][pair.section]] = True
    lost &= live[s["object"]] | (s["flags"] & SHF_GNU_RETAIN != 0)
    if not lost.any():
        return
    placed = (pair.row >= 0) | pair.cut.is_cut
    first = before.section_base[s["object"]]
    linked = (s["flags"] & SHF_LINK_ORDER != 0) & (s["link"] > 0)
    lost &= ~linked | placed[np.where(linked, first + s["link"], 0)]
    lost &= ~_in_dead_groups(pair, placed)
    lost &= (s["flags"] & SHF_GNU_RETAIN != 0) | ~_describe_the_dead(pair, lost, placed & ~aside)
    for number in np.flatnonzero(lost).tolist():
        pair.findings.add("a section for linkers or tools is gone", pair.where_before(number, 0))


def _in_dead_groups(pair: Pair, placed: Array) -> Array:
    """bool for each section: its group holds loaded sections, and none of them is there."""
    found = members(pair.before)
    out = np.zeros(len(placed), np.bool_)
    loaded = pair.before.sections["flags"][found.section] & SHF_ALLOC != 0
    has, alive = np.zeros(len(found.signature), np.bool_), np.zeros(len(found.signature), np.bool_)
    has[found.group[loaded]] = True
    alive[found.group[loaded & placed[found.section]]] = True
    out[found.section] = (has & ~alive)[found.group]
    return out


def _describe_the_dead(pair: Pair, lost: Array, alive: Array) -> Array:
    """bool for each section: it refers to others, and to none that is there.

    Of a name that several define all count: which one it is is asked elsewhere.
    """
    before = pair.before
    out = np.zeros(len(lost), np.bool_)
    tables = np.flatnonzero(before.targets > 0)
    rows = before.relocations(tables[lost[before.targets[tables]]])
    symbol = np.maximum(rows["symbol"], 0)
    home = before.symbols["section"][symbol]
    refers = (home > 0) & (before.sections["flags"][np.maximum(home, 0)] & SHF_ALLOC != 0)
    live = refers & alive[np.maximum(home, 0)]
    out[rows["section"][refers]] = True
    out[rows["section"][live]] = False
    return out


def _defined_but_gone(pair: Pair, symbol: Array) -> Array:
    """Which of these global symbols the original defines, and the result does not know."""
    before, s = pair.before, pair.before.symbols
    defining = before.names[np.flatnonzero((s["binding"] != STB_LOCAL) & (s["section"] > 0))]
    new = pair.after.symbols
    known = set(pair.after.strings(new["name"][new["binding"] != STB_LOCAL]))
    gone = set(defining.tolist()) - known
    return np.array([name in gone for name in before.names[symbol].tolist()], np.bool_)


def bury(
    pair: Pair, resolution: Resolution, old: Array, location: Array
) -> tuple[Array, tuple[Array, Array]]:
    """Of the relocations `old`, which are no more, those whose target is dead: fields of zeros.

    `location`: where in the result each is.

    Returns which of them (bool), and the places and widths of their fields.
    """
    none = np.zeros(0, np.int64)
    flags = pair.before.sections["flags"][old["section"]]
    kind = resolution.before.kind[np.maximum(old["symbol"], 0)]
    aside = flags & SHF_ALLOC == 0
    dead = aside & (kind == Kind.NOWHERE)
    named = np.flatnonzero(aside & (kind == Kind.NAME))
    if len(named):
        dead[named] = _defined_but_gone(pair, old["symbol"][named])
    if not dead.any():
        return dead, (none, none)
    width = pair.machine.width[np.minimum(old["type"], len(pair.machine.width) - 1)]
    section = location >> STEP
    at = pair.after.sections["offset"][section] + (location - (section << STEP))
    held = pair.after.sections["type"][section] != SHT_NOBITS
    for size in (4, 8):
        mine = np.flatnonzero(dead & held & (width == size))
        octets = gather(pair.after.data, at[mine], np.dtype(f"V{size}")).view(np.uint8)
        for i in mine[octets.reshape(-1, size).any(axis=1)].tolist():
            where = pair.where_after(int(location[i]))
            pair.findings.add("a reference to what is gone is not zero", where)
    return dead, (location[dead], width[dead].astype(np.int64))


__all__ = ["bury", "check", "is_aside", "is_told"]
