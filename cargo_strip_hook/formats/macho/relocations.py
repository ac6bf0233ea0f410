"""Reads relocations into the model: pairs told apart, addends in one form, locations made atoms.

The addend is that of the entry with `r_extern` set: what is stored in the field for x86-64, what an
ADDEND entry says for arm64. A section-relative entry becomes one to the anchor of the atom that
its target lies in.
Sources: mach-o/x86_64/reloc.h, mach-o/arm64/reloc.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP, MachoFiles
from cargo_strip_hook.formats.macho.split import AtomTable
from cargo_strip_hook.link.arrays import gather, rows_of
from cargo_strip_hook.link.model import RELOCATION, Array, Bool, Int64

SUBTRACTOR = {mo.CPU_TYPE_X86_64: mo.X86_64_SUBTRACTOR, mo.CPU_TYPE_ARM64: mo.ARM64_SUBTRACTOR}
_TYPES = {mo.CPU_TYPE_X86_64: 10, mo.CPU_TYPE_ARM64: 11}  # numbers of types that are known
# which types may be by address
_BY_ADDRESS = {cpu: np.zeros(16, np.bool_) for cpu in _TYPES}
_BY_ADDRESS[mo.CPU_TYPE_ARM64][mo.UNSIGNED] = True
_BY_ADDRESS[mo.CPU_TYPE_X86_64][
    [mo.UNSIGNED, mo.X86_64_SIGNED, mo.X86_64_BRANCH, *mo.X86_64_TRAILING]
] = True
_TRAILING = np.zeros(16, np.int64)
_TRAILING[list(mo.X86_64_TRAILING)] = list(mo.X86_64_TRAILING.values())


@dataclass(frozen=True, slots=True)
class Rows:
    """Relocations and, for each, the section that holds its field."""

    rows: Array  # RELOCATION
    section: Int64


# entries as they stand in files, taken apart
_ENTRY = np.dtype(
    [
        ("section", "<i8"),  # numbered through
        ("offset", "<i8"),  # of the field, in the section
        ("number", "<i8"),  # of a symbol, or of a section from 1 on
        ("pcrel", "?"),
        ("length", "<i8"),  # the field has 1 << length bytes
        ("extern", "?"),  # `number` is a symbol's
        ("type", "<i8"),
    ]
)


def read_relocations(f: MachoFiles, table: AtomTable, numbers: Int64, anchors: Int64) -> Rows:
    """All relocations of sections with atoms, in the order of the files.

    `numbers`: the symbol of the model for each row of the symbol table, or -1; `anchors`: that of
    each atom. Raises `ObjectError`.
    """
    sections = np.flatnonzero(f.kept & (f.sections["nreloc"] > 0))
    stored = f.records(sections, "reloff", "nreloc", mo.RELOC)
    if not len(stored):
        return Rows(np.zeros(0, RELOCATION), np.zeros(0, np.int64))
    info = stored["info"].astype(np.int64)
    entries = rows_of(
        _ENTRY,
        len(stored),
        section=np.repeat(sections, f.sections["nreloc"][sections]),
        offset=stored["address"],
        number=info & 0xFFFFFF,
        pcrel=info >> 24 & 1,
        length=info >> 25 & 3,
        extern=info >> 27 & 1,
        type=info >> 28,
    )
    _check(f, entries, entries["offset"] < 0, "is a scattered one")
    _check(f, entries, entries["type"] >= _TYPES[f.cputype], "has an unknown type")
    entries, paired = _without_addends(f, entries)
    section, offset, kind = entries["section"], entries["offset"], entries["type"]
    width = np.int64(1) << entries["length"]
    _check(f, entries, offset + width > f.size[section], "lies outside of it")
    _check_pairs(f, entries)
    content = _contents(f, entries)
    subtracts = kind == SUBTRACTOR[f.cputype]
    if f.cputype == mo.CPU_TYPE_ARM64:
        content[(kind != mo.UNSIGNED) & ~subtracts] = 0
    addend = np.where(subtracts, 0, content + paired)
    symbol = _named(f, numbers, entries)
    local = np.flatnonzero(~entries["extern"])
    if len(local):
        atom, addend[local] = _anchored(f, table, entries, local, addend[local])
        symbol[local] = anchors[atom]
    atom = table.find(section, offset)
    within = offset - table.atoms["offset"][atom]
    beyond = within + width > table.atoms["size"][atom]
    _check(f, entries, beyond, "reaches over the end of its atom")
    kind = kind | entries["pcrel"].astype(np.int64) << 4 | entries["length"] << 5
    columns = {"atom": atom, "offset": within, "symbol": symbol, "type": kind, "addend": addend}
    return Rows(rows_of(RELOCATION, len(atom), **columns), section)


def _check(f: MachoFiles, entries: Array, bad: Bool, what: str) -> None:
    """Raise `ObjectError` for the section of the first entry that is bad."""
    if bad.any():
        number = int(entries["section"][bad.argmax()])
        name = b",".join(f.names[number]).decode("latin-1")
        offset = int(f.sections["reloff"][number])
        raise f.fail(int(f.owner[number]), f"a relocation of section {name} {what}", offset)


def _without_addends(f: MachoFiles, entries: Array) -> tuple[Array, Int64]:
    """(the entries but for ADDEND ones, what these say of each of them)."""
    if f.cputype != mo.CPU_TYPE_ARM64:
        return entries, np.zeros(len(entries), np.int64)
    adds = entries["type"] == mo.ARM64_ADDEND
    follows = np.zeros(len(adds), np.bool_)
    follows[1:] = adds[:-1]
    said = np.zeros(len(adds), np.int64)
    said[1:] = (entries["number"][:-1] ^ 0x800000) - 0x800000  # 24 bits with a sign
    alone = adds.copy()
    alone[:-1] &= ~_together(entries)
    _check(f, entries, alone | (adds & follows), "is an ADDEND without its pair")
    return entries[~adds], np.where(follows, said, 0)[~adds]


def _together(entries: Array) -> Bool:
    """Whether each entry but the last is at the location of the one that follows."""
    location = (entries["section"] << STEP) + entries["offset"]
    return np.asarray(location[1:] == location[:-1])


def _check_pairs(f: MachoFiles, entries: Array) -> None:
    """Each SUBTRACTOR has to have its UNSIGNED entry, and no location may have others."""
    kind, length = entries["type"], entries["length"]
    first = kind == SUBTRACTOR[f.cputype]
    paired = np.zeros(len(first), np.bool_)
    paired[:-1] = _together(entries) & (kind[1:] == mo.UNSIGNED) & (length[1:] == length[:-1])
    _check(f, entries, first & ~paired, "is a SUBTRACTOR without its pair")
    by_section = first & ~entries["extern"]
    _check(f, entries, by_section, "subtracts the address of a section, not of a symbol")
    rows = np.flatnonzero(~first)
    location = (entries["section"][rows] << STEP) + entries["offset"][rows]
    order = np.argsort(location, kind="stable")
    twice = np.zeros(len(first), np.bool_)
    twice[rows[order[1:][location[order][1:] == location[order][:-1]]]] = True
    _check(f, entries, twice, "stands where another one does")


def _contents(f: MachoFiles, entries: Array) -> Int64:
    """What each field holds, with its sign."""
    start = f.start[entries["section"]] + entries["offset"]
    contents = np.zeros(len(start), np.int64)
    for power in range(4):
        mine = np.flatnonzero(entries["length"] == power)
        contents[mine] = gather(f.octets, start[mine], np.dtype(f"<i{1 << power}"))
    return contents


def _named(f: MachoFiles, numbers: Int64, entries: Array) -> Int64:
    """The symbol of the model that each entry names, 0 for those that name a section."""
    extern, number, owner = entries["extern"], entries["number"], f.owner[entries["section"]]
    first, end = f.symbol_first[owner], f.symbol_first[owner + 1]
    _check(f, entries, extern & (number >= end - first), "has no symbol")
    symbol = np.zeros(len(entries), np.int64)
    symbol[extern] = numbers[(first + number)[extern]]
    _check(f, entries, extern & (symbol < 0), "names a symbol of the debug map")
    return symbol


def _anchored(
    f: MachoFiles, table: AtomTable, entries: Array, local: Int64, addend: Int64
) -> tuple[Array, Int64]:
    """(the atom that each of the `local` entries means, the addend from there on).

    These have the address in their file; `addend` is what their fields hold.
    """
    entries = entries[local]
    kind, pcrel, number = entries["type"], entries["pcrel"], entries["number"]
    _check(f, entries, ~_BY_ADDRESS[f.cputype][kind], "must name a symbol")
    owner = f.owner[entries["section"]]
    count = np.diff(f.first)[owner]
    _check(f, entries, (number == 0) | (number > count), "names no section")
    target = f.first[owner] + number - 1
    _check(f, entries, ~f.kept[target], "refers to a section that is no part of a program")
    here = f.address[entries["section"]] + entries["offset"] + 4
    value = np.where(pcrel, addend + here, addend)
    location = value + np.where(pcrel, _TRAILING[kind], 0) - f.address[target]
    outside = (location < 0) | (location > f.size[target])
    _check(f, entries, outside, "refers to a place outside of its section")
    atom = table.find(target, location)
    return atom, value - f.address[target] - table.atoms["offset"][atom]
