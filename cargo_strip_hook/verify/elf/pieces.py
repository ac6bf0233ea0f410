"""The pieces themselves: where they went, what kind of section they are in, and their bytes."""

from __future__ import annotations

import re

import numpy as np

from cargo_strip_hook.verify.arrays import Array, is_among, spread, unique
from cargo_strip_hook.verify.elf.mapping import Pair
from cargo_strip_hook.verify.elf.read import (
    IN_COMMON,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_GNU_RETAIN,
    SHF_GROUP,
    SHF_INFO_LINK,
    SHF_LINK_ORDER,
    SHF_MERGE,
    SHF_STRINGS,
    SHF_TLS,
    SHF_WRITE,
    SHT_FINI_ARRAY,
    SHT_INIT_ARRAY,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_PREINIT_ARRAY,
    SHT_PROGBITS,
    STEP,
    Objects,
)
from cargo_strip_hook.verify.elf.relocations import Changed

_KIND = SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR | SHF_TLS
_ARRAYS = (SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY)
_CONTENTS = (SHT_PROGBITS, SHT_NOBITS)
# flags that are checked by themselves, or that say nothing about contents
_FREE_FLAGS = SHF_MERGE | SHF_STRINGS | SHF_GROUP | SHF_INFO_LINK | SHF_LINK_ORDER | SHF_GNU_RETAIN
# what linker scripts sort or place by name: GNU ld's default script
_PREFIXES = (
    b".text.unlikely",
    b".text.hot",
    b".text.startup",
    b".text.exit",
    b".data.rel.ro",
    b".text",
    b".rodata",
    b".data",
    b".bss",
    b".tdata",
    b".tbss",
    b".gcc_except_table",
)
_CODE, _COLD = _PREFIXES.index(b".text"), _PREFIXES.index(b".text.unlikely")
_LINKONCE = ".gnu.linkonce."
# GNU ld's default script: what these are placed with
_ONCE_KINDS = {
    b"t": b".text",
    b"r": b".rodata",
    b"d": b".data",
    b"b": b".bss",
    b"td": b".tdata",
    b"tb": b".tbss",
    b"e": b".gcc_except_table",
}
_CONSTRUCTORS = (b".init_array", b".fini_array", b".preinit_array", b".ctors", b".dtors")


def check_layout(pair: Pair) -> None:
    """Placement, alignment, kind of section, and that nothing overlaps or comes from nowhere."""
    before, after, rows = pair.before.sections, pair.after.sections, pair.link_map
    number = pair.section
    old = before[number]
    new = after[rows["out_section"]]
    end = rows["out_offset"] + rows["size"]

    def each(bad: Array, kind: str) -> None:
        pair.findings.each(
            kind,
            bad,
            lambda i: (
                f"{pair.where_before(int(number[i]), 0)}, "
                f"now {pair.where_after(int(pair.location[i]))}"
            ),
        )

    each((rows["out_offset"] < 0) | (end > new["size"]), "a piece lies outside its section")
    align = np.maximum(old["align"], 1)
    each(
        ((rows["out_offset"] % align != 0) | (np.maximum(new["align"], 1) < align))
        & (rows["size"] > 0),
        "a piece lost its alignment",
    )
    each(
        (old["flags"] & _KIND) != (new["flags"] & _KIND), "a piece is in a section of another kind"
    )
    each(
        (new["type"] == SHT_NOBITS) & (old["type"] != SHT_NOBITS) & (rows["size"] > 0),
        "contents became zeros",
    )
    held = rows["size"] > 0
    zeros = (old["type"] == SHT_NOBITS) & (new["type"] != SHT_NOBITS) & held
    if zeros.any() and pair.expectation.covers_debug:  # a linker of the platform may do that
        beside = rows["out_section"][held & (old["type"] != SHT_NOBITS)]
        each(zeros & ~is_among(rows["out_section"], beside), "zeros became contents")
    merge = SHF_MERGE | SHF_STRINGS
    each(
        (new["flags"] & SHF_MERGE != 0)
        & (((old["flags"] & merge) != (new["flags"] & merge)) | (old["entsize"] != new["entsize"])),
        "a piece is in a section that linkers merge in another way",
    )
    retained = old["flags"] & SHF_GNU_RETAIN != 0
    each(retained & (new["flags"] & SHF_GNU_RETAIN == 0), "a retained piece may be dropped")
    # contents may be given as zeros and zeros as contents; the bytes are compared
    same_type = (old["type"] == new["type"]) | (
        np.isin(old["type"], _CONTENTS) & np.isin(new["type"], _CONTENTS)
    )
    each(~same_type, "a piece is in a section of another type")
    other = (old["flags"] ^ new["flags"]) & ~_FREE_FLAGS
    each(
        other | new["flags"] & ~old["flags"] & merge != 0, "a piece is in a section of other flags"
    )
    # GNU ld gives arrays of pointers an entry size that compilers leave out
    unmerged = (new["flags"] & SHF_MERGE == 0) & ~np.isin(new["type"], _ARRAYS)
    each(
        unmerged & (new["entsize"] != 0) & (old["entsize"] != new["entsize"]),
        "a piece is in a section of another entry size",
    )
    word = pair.after.layouts.bits // 8
    each(
        np.isin(new["type"], _ARRAYS) & (new["entsize"] != 0) & (new["entsize"] != word),
        "a piece is in a section of another entry size",
    )
    _check_names(pair, number)
    linked = old["flags"] & SHF_LINK_ORDER != 0
    if linked.any():
        first = pair.before.section_base[old["object"]]
        target = pair.row[np.where(linked, first + old["link"], 0)]
        follows = (target >= 0) & (rows["out_section"][target] == new["link"])
        astray = linked & ((new["flags"] & SHF_LINK_ORDER == 0) | ~follows)
        each(astray & ~_in_private_set(pair, astray), "a piece is linked to another section")
    if pair.machine.index and pair.complete:
        _check_indices(pair, number)
    _check_constructors(pair)
    _check_retained(pair)
    _check_gaps(pair)


def _in_private_set(pair: Pair, rows: Array) -> Array:
    """Which of these rows (bool for each) are elements of a set that got a name of its own.

    Whoever refers to its ends needs all of them: none is dropped with what it is linked to.
    """
    found = np.zeros(len(rows), np.bool_)
    for i in np.flatnonzero(rows).tolist():
        name = pair.before.section_name(int(pair.section[i]))
        now = pair.after.section_name(int(pair.link_map["out_section"][i]))
        found[i] = name.isidentifier() and now != name
    return found


def _check_indices(pair: Pair, number: Array) -> None:
    """Unwind indices have the order of the code: a linker sorts whole sections, not entries.

    Source: EHABI32, section 5 ("Index table entries"): an entry is good up to the next one.
    """
    before, rows = pair.before, pair.link_map
    s = before.sections
    indices = np.flatnonzero((s["type"] == pair.machine.index) & (s["size"] > 0))
    code = pair.row[before.section_base[s["object"][indices]] + s["link"][indices]]
    mine = pair.row[indices]
    for section in indices[(code >= 0) & (mine < 0)].tolist():
        pair.findings.add("a function lost its unwind entry", pair.where_before(section, 0))
    both = (code >= 0) & (mine >= 0)
    code, mine = code[both], mine[both]
    order = np.argsort(pair.location[mine])
    table, function = rows["out_section"][mine][order], pair.location[code][order]
    wrong = (table[1:] == table[:-1]) & (function[1:] < function[:-1])
    for i in np.flatnonzero(wrong).tolist():
        where = pair.where_after(int(pair.location[mine[order[i]]]))
        pair.findings.add("unwind entries are not in the order of the code", where)
    # the last entry of a function before covers code without one
    indexed = np.zeros(len(rows), np.bool_)
    indexed[code] = True
    has_table = np.zeros(len(pair.after.sections), np.bool_)
    has_table[rows["out_section"][code]] = True
    bare = ~indexed & has_table[rows["out_section"]] & (rows["size"] > 0)
    for i in np.flatnonzero(bare).tolist():
        where = pair.where_before(int(number[i]), 0)
        pair.findings.add("code without an unwind entry beside code with one", where)
    tables = np.flatnonzero(pair.after.sections["type"] == pair.machine.index)
    links = pair.after.sections["link"][tables]
    if len(unique(links)) != len(links):
        pair.findings.add("damaged", "two unwind indices for one section")


def kinds(objects: Objects) -> Array:
    """Of each section the number of the first of `_PREFIXES` that begins its name, or -1."""
    kind = np.full(len(objects.sections), -1, np.int64)
    for i, prefix in reversed(tuple(enumerate(_PREFIXES))):
        for end in (b"\0", b"."):
            kind[objects.names_begin(prefix + end)] = i
    once = objects.names_begin(_LINKONCE.encode())
    for letters, prefix in _ONCE_KINDS.items() if once.any() else ():
        mine = objects.names_begin(_LINKONCE.encode() + letters + b".")
        kind[mine] = _PREFIXES.index(prefix)
    return kind


def _check_names(pair: Pair, number: Array) -> None:
    """A section may lose the end of its name, not the part that tells a linker its place."""
    rows, kind = pair.link_map, pair.kinds
    new_kind = kinds(pair.after)[rows["out_section"]]
    odd = (kind[number] < 0) | (kind[number] != new_kind)
    # most sections have pieces of their own kind only
    order = np.flatnonzero(is_among(rows["out_section"], rows["out_section"][odd]))
    order = order[np.argsort(rows["out_section"][order], kind="stable")]
    borders = np.flatnonzero(np.diff(rows["out_section"][order]))
    for mine in np.split(order, borders + 1) if len(order) else ():
        chosen = number[mine]
        name = pair.after.section_name(int(rows["out_section"][mine[0]])).encode()
        if not name.startswith(b".") and not pair.complete:
            continue
        found = unique(kind[chosen]).tolist()
        if found == [-1]:
            # not known to linkers: keeps its name, but sets are renamed
            olds = {pair.before.section_name(int(i)) for i in chosen}
            new = name.decode(errors="replace")
            # of two files with a section `.gnu.linkonce.t.f` a linker drops one: the name must go
            good = all(
                old == new
                or (old.isidentifier() and _is_renamed_set(old, new))
                or (new and old.startswith(f"{new}."))
                or (old.startswith(_LINKONCE) and not new.startswith(_LINKONCE))
                for old in olds
            )
        elif set(found) <= {_CODE, _COLD} and new_kind[mine[0]] == _CODE:
            # code that hardly ever runs may stand behind other code, not between it
            size = rows["size"][mine]
            there = rows["out_offset"][mine]
            is_cold = kind[chosen] == _COLD
            hot_end = (there + size)[~is_cold & (size > 0)].max(initial=0)
            good = bool((there[is_cold & (size > 0)] >= hot_end).all())
        else:
            good = found == [new_kind[mine[0]]]
        if not good:
            where = pair.where_before(int(chosen[0]), 0)
            pair.findings.add("a piece is in a section of another name", f"{where}, now {name!r}")


def _is_renamed_set(old: str, new: str) -> bool:
    """Whether a set got a name that no linker, and no other library, knows."""
    return new == f"{old}.private" or re.fullmatch(rf"{old}_[0-9a-f]{{8,}}", new) is not None


def _check_constructors(pair: Pair) -> None:
    """Each initialiser of a used member is there, in a section of the same name (priority)."""
    if not pair.complete:
        return
    for prefix in _CONSTRUCTORS:
        for section in np.flatnonzero(pair.before.names_begin(prefix)).tolist():
            facts = pair.before.sections[section]
            if not facts["flags"] & SHF_ALLOC or facts["size"] == 0:
                continue
            row = int(pair.row[section])
            name = pair.before.section_name(section)
            if row < 0 and pair.beaten[section]:
                continue
            if row < 0:
                pair.findings.add("a constructor is missing", pair.where_before(section, 0))
            elif pair.after.section_name(int(pair.link_map["out_section"][row])) != name:
                now = pair.where_after(int(pair.location[row]))
                pair.findings.add(
                    "a constructor has another priority",
                    f"{pair.where_before(section, 0)}, now {now}",
                )
    _check_order(pair)


def _check_order(pair: Pair) -> None:
    """Initialisers and elements of sets are in the order in which a linker would find them.

    That is the order in which members are loaded, and in a member that of its sections.
    """
    rows, after = pair.link_map, pair.after
    ordered = np.zeros(len(after.sections), np.bool_)
    for number in unique(rows["out_section"]).tolist():
        name = after.section_name(number)
        is_set = name.partition(".")[0].isidentifier()
        ordered[number] = is_set or name.encode().startswith(_CONSTRUCTORS)
    mine = np.flatnonzero(ordered[rows["out_section"]] & (rows["size"] > 0))
    mine = mine[np.argsort(pair.location[mine], kind="stable")]
    owner = pair.before.sections["object"][pair.section[mine]]
    out = rows["out_section"][mine]
    if not ((out[1:] == out[:-1]) & (owner[1:] != owner[:-1])).any():
        rank = owner.astype(np.int64)
    else:
        ranks = pair.loading.rank
        last = len(ranks)
        rank = np.array([ranks.get(pair.numbers[o], last) for o in owner.tolist()], np.int64)
    key = (rank << 32) + pair.section[mine]
    wrong = np.flatnonzero((out[1:] == out[:-1]) & (key[1:] < key[:-1])) + 1
    where = pair.location[mine]
    pair.findings.each("out of order", where[wrong], pair.where_after)


def _check_retained(pair: Pair) -> None:
    if not pair.complete:
        return
    s = pair.before.sections
    lost = (s["flags"] & SHF_GNU_RETAIN != 0) & (s["flags"] & SHF_ALLOC != 0) & (pair.row < 0)
    lost &= ~pair.beaten
    # linkers keep notes, too: lld, `MarkLive.cpp` (isReserved); GNU ld, `elf_gc_mark_extra`
    notes = (s["type"] == SHT_NOTE) & (s["flags"] & (SHF_ALLOC | SHF_GROUP) == SHF_ALLOC)
    notes &= ~pair.before.names_begin(b".note.gnu.property\0")
    if pair.expectation.covers_debug:  # a platform's linker merges them
        lost |= notes & (pair.row < 0)
    for section in np.flatnonzero(lost & (s["size"] > 0)).tolist():
        pair.findings.add("a retained piece is missing", pair.where_before(section, 0))
    # what a program's `__start_X` would find in the original (GNU ld manual, "-z start-stop-gc"),
    # unless the library itself has a set of that name
    others = SHF_EXECINSTR | SHF_LINK_ORDER
    lost = (s["flags"] & (SHF_ALLOC | others) == SHF_ALLOC) & (pair.row < 0) & (s["size"] > 0)
    lost &= ~pair.beaten & ~pair.before.names_begin(b"__llvm_prf_")
    lost &= ~pair.before.names_begin(b".") & ~pair.before.names_begin(b"\0")
    if not lost.any():
        return
    symbols = pair.before.symbols
    names = {
        pair.before.string(at) for at in unique(symbols["name"][symbols["undefined"]]).tolist()
    }
    for section in np.flatnonzero(lost).tolist():
        name = pair.before.section_name(section)
        own = {f"__start_{name}".encode(), f"__stop_{name}".encode()} & names
        if name.isidentifier() and name.isascii() and not own:
            pair.findings.add("a section that programs find by its name is missing", name)


def _check_gaps(pair: Pair) -> None:
    """Pieces do not overlap, and what lies between them is no more than alignment asks for.

    Equal elements of sections that linkers merge may be one: the bytes of each are compared.
    """
    element = pair.cut.merges[pair.section]
    location, size = pair.location, pair.link_map["size"]
    align = np.maximum(pair.before.sections["align"][pair.section], 1)
    if pair.foreign is not None:  # their own gaps are looked at for the libraries that they are of
        starts, ends = pair.foreign
        location, size = np.concatenate([location, starts]), np.concatenate([size, ends - starts])
        align = np.concatenate([align, np.full(len(starts), 1 << STEP)])
        element = np.concatenate([element, np.zeros(len(starts), np.bool_)])
    order = np.lexsort((size, location))
    start, size, element = location[order], size[order], element[order]
    end = start + size
    twin = np.zeros(len(order), np.bool_)
    twin[1:] = (start[1:] == start[:-1]) & (end[1:] == end[:-1]) & element[1:] & element[:-1]
    start, end, size, align = start[~twin], end[~twin], size[~twin], align[order][~twin]
    furthest = np.maximum.accumulate(end)
    overlap = np.flatnonzero((start[1:] < furthest[:-1]) & (size[1:] > 0))
    for i in overlap[:8].tolist():
        pair.findings.add("pieces overlap", pair.where_after(int(start[i + 1])))
    if not pair.complete:
        return
    _check_slack(pair, start, size, align, furthest)


def _check_slack(pair: Pair, start: Array, size: Array, align: Array, furthest: Array) -> None:
    """There is no more between pieces than their alignment asks for, and that is zero.

    Pieces are sorted by their places, `start`; `furthest`: the end of all up to each of them.
    """
    after = pair.after.sections
    out = start >> STEP
    first = np.r_[True, out[1:] != out[:-1]][: len(out)]
    before = np.where(first, out << STEP, np.r_[0, furthest[:-1]][: len(out)])
    gap = start - before
    held = _held(pair)
    wide = (gap >= align) & (size > 0) & held[out]
    pair.findings.each(
        "bytes that no input explains",
        wide,
        lambda i: f"{gap[i]} in {pair.where_after(int(before[i]))}",
    )
    end = np.arange(len(after)) << STEP
    np.maximum.at(end, out, furthest)
    tail = after["size"] - (end & ((1 << STEP) - 1))
    behind = held & (tail > 0)
    pair.findings.each(
        "bytes that no input explains",
        behind,
        lambda i: f"{tail[i]} in {pair.where_after(int(end[i]))}",
    )
    # what stands there in code is never executed; a reader of data may take it for some
    data = held & (after["flags"] & SHF_EXECINSTR == 0) & (after["type"] != SHT_NOBITS)
    mine = np.flatnonzero((gap > 0) & ~wide & data[out])
    at = after["offset"][out[mine]] + before[mine] - (out[mine] << STEP)
    filled = pair.after.data[spread(at, gap[mine], 1)]
    if filled.any():
        which = np.repeat(before[mine], gap[mine])[filled != 0]
        pair.findings.each("bytes that no input explains", which, pair.where_after)


def _held(pair: Pair) -> Array:
    """bool for each section of the result: whether all of it comes from pieces."""
    after, symbols = pair.after.sections, pair.before.symbols
    held = after["flags"] & SHF_ALLOC != 0
    held[pair.link_map["out_section"]] = True
    held &= ~pair.after.names_begin(b".note.gnu.property\0")
    held[pair.after.frame_sections] = False
    if not pair.expectation.covers_debug:  # then notes are not told of
        held &= after["type"] != SHT_NOTE
    commons = (symbols["section"] == IN_COMMON).any() or pair.foreign is not None
    if commons:  # which get room in such sections
        held &= after["type"] != SHT_NOBITS
    return np.asarray(held)


def check_bytes(pair: Pair, changed: Changed) -> int:
    """All bytes of all pieces; returns how many were compared."""
    rows = pair.link_map
    object_of = pair.section
    old = pair.before.sections[object_of]
    new = pair.after.sections[rows["out_section"]]
    held = np.flatnonzero((new["type"] != SHT_NOBITS) & (rows["size"] > 0))
    held = held[np.argsort(pair.location[held], kind="stable")]
    inside = rows["out_offset"][held] + rows["size"][held] <= new["size"][held]
    held = held[inside & (rows["out_offset"][held] >= 0)]
    size = rows["size"][held]
    total = int(size.sum())
    if not total:
        return 0
    at = np.cumsum(size) - size
    expected, found = bytearray(total), bytearray(total)
    source, result = memoryview(pair.before.buffer), memoryview(pair.after.buffer)
    full = np.flatnonzero(old["type"][held] != SHT_NOBITS)  # of the others zeros are expected
    mine = (old["offset"] + rows["offset"])[held]
    for here, length, there in zip(
        at[full].tolist(), size[full].tolist(), mine[full].tolist(), strict=True
    ):
        expected[here : here + length] = source[there : there + length]
    # most pieces begin where the one before them ends
    result_at = (new["offset"] + rows["out_offset"])[held]
    first = np.flatnonzero(np.r_[True, result_at[1:] != (result_at + size)[:-1]])
    run = np.add.reduceat(size, first)
    for here, length, there in zip(
        at[first].tolist(), run.tolist(), result_at[first].tolist(), strict=True
    ):
        found[here : here + length] = result[there : there + length]
    if found == expected:
        return total
    bad = np.flatnonzero(np.frombuffer(found, np.uint8) != np.frombuffer(expected, np.uint8))
    which = np.searchsorted(at, bad, side="right") - 1
    locations = pair.location[held[which]] + (bad - at[which])
    allowed = np.sort(spread(changed.location, changed.width, 1))
    if len(allowed):
        near = np.minimum(np.searchsorted(allowed, locations), len(allowed) - 1)
        good = allowed[near] == locations
        locations, bad, which = locations[~good], bad[~good], which[~good]

    def text(i: int) -> str:
        section = int(object_of[held[which[i]]])
        offset = int(rows["offset"][held[which[i]]] + bad[i] - at[which[i]])
        now, was = found[bad[i]], expected[bad[i]]
        where = pair.where_after(int(locations[i]))
        return f"{where} is {now:#04x}, was {was:#04x} in {pair.where_before(section, offset)}"

    pair.findings.each("other bytes", np.arange(len(bad)), text)
    return total
