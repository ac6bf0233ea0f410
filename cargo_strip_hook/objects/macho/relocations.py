"""Reads relocations into the model: pairs told apart, addends in one form, places made atoms.

The addend is that of the entry with `r_extern` set: what is stored in the field for x86-64, what an
ADDEND entry says for arm64. A section-relative entry becomes one to the anchor of the atom that
its target lies in.
Sources: mach-o/x86_64/reloc.h, mach-o/arm64/reloc.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.objects.macho import layouts as mo
from cargo_strip_hook.objects.macho.commands import Commands, File
from cargo_strip_hook.objects.macho.split import Pieces
from cargo_strip_hook.objects.model import RELOCATION, Array, Bool, Int64

SUBTRACTOR = {mo.CPU_TYPE_X86_64: mo.X86_64_SUBTRACTOR, mo.CPU_TYPE_ARM64: mo.ARM64_SUBTRACTOR}
_TYPES = {mo.CPU_TYPE_X86_64: 10, mo.CPU_TYPE_ARM64: 11}  # numbers of types that are known


@dataclass(frozen=True, slots=True)
class Rows:
    """Relocations and, for each, the section (ordinal from 0) that holds its field."""

    rows: Array  # RELOCATION
    section: Int64


def read_relocations(f: File, commands: Commands, pieces: Pieces, numbers: Int64) -> Rows:
    """All relocations of sections with atoms. `numbers`: unit symbol of each table row, or -1.

    Raises `ObjectError`.
    """
    tables, owners = [np.zeros(0, mo.RELOC)], [np.zeros(0, np.int64)]
    for number in np.flatnonzero(pieces.kept & (commands.sections["nreloc"] > 0)).tolist():
        header = commands.sections[number]
        table = f.table(mo.RELOC, int(header["reloff"]), int(header["nreloc"]), "a relocation")
        tables.append(table)
        owners.append(np.full(len(table), number, np.int64))
    entries, section = np.concatenate(tables), np.concatenate(owners)
    if not len(entries):
        return Rows(np.zeros(0, RELOCATION), section)
    return _Reading(f, commands, pieces, numbers, entries, section).result()


class _Reading:
    """The entries of one file, taken apart into columns."""

    def __init__(
        self,
        f: File,
        commands: Commands,
        pieces: Pieces,
        numbers: Int64,
        entries: Array,
        section: Int64,
    ) -> None:
        self.f, self.commands, self.pieces, self.numbers = f, commands, pieces, numbers
        info = entries["info"].astype(np.int64)
        if (entries["address"] < 0).any():
            raise self.bad(section, entries["address"] < 0, "is a scattered one")
        self.section = section
        self.offset = entries["address"].astype(np.int64)
        self.number = info & 0xFFFFFF
        self.pcrel = info >> 24 & 1
        self.length = info >> 25 & 3
        self.extern = info >> 27 & 1 != 0
        self.type = info >> 28
        self.arm = commands.cputype == mo.CPU_TYPE_ARM64
        self.subtractor = SUBTRACTOR[commands.cputype]

    def bad(self, section: Int64, which: Bool, what: str) -> Exception:
        number = int(section[np.flatnonzero(which)[0]])
        header = self.commands.sections[number]
        name = b",".join((bytes(header["segname"]), bytes(header["sectname"]))).decode("latin-1")
        return self.f.fail(f"a relocation of section {name} {what}", int(header["reloff"]))

    def check(self, which: Bool, what: str) -> None:
        if which.any():
            raise self.bad(self.section, which, what)

    def result(self) -> Rows:
        self.check(self.type >= _TYPES[self.commands.cputype], "has an unknown type")
        paired = self.fold_addends()
        size = self.commands.sections["size"][self.section].astype(np.int64)
        width = np.int64(1) << self.length
        self.check(self.offset + width > size, "lies outside of it")
        self.pairs()
        content = self.contents(width)
        embedded = np.ones(len(content), np.bool_)
        if self.arm:
            embedded = (self.type == mo.UNSIGNED) | (self.type == self.subtractor)
        addend = np.where(embedded, content, 0) + paired
        addend[self.type == self.subtractor] = 0
        symbol = np.zeros(len(content), np.int64)
        rows = self.number[self.extern]
        self.check(self.extern & (self.number >= len(self.numbers)), "has no symbol")
        symbol[self.extern] = self.numbers[rows]
        self.check(self.extern & (symbol < 0), "names a symbol of the debug map")
        self.anchor(symbol, addend)

        atom = self.pieces.find(self.section, self.offset)
        out = np.zeros(len(atom), RELOCATION)
        out["atom"] = atom
        out["offset"] = self.offset - self.pieces.atoms["offset"][atom]
        beyond = out["offset"] + width > self.pieces.atoms["size"][atom]
        self.check(beyond, "reaches over the end of its atom")
        out["symbol"] = symbol
        out["type"] = self.type | self.pcrel << 4 | self.length << 5
        out["addend"] = addend
        return Rows(out, self.section)

    def fold_addends(self) -> Int64:
        """Drop ADDEND entries; what they say comes back for the entries that stay."""
        if not self.arm:
            return np.zeros(len(self.type), np.int64)
        adds = self.type == mo.ARM64_ADDEND
        follows = np.zeros(len(adds), np.bool_)
        follows[1:] = adds[:-1]
        said = np.zeros(len(adds), np.int64)
        said[1:] = (self.number[:-1] ^ 0x800000) - 0x800000  # 24 bits with a sign
        alone = adds.copy()
        alone[:-1] &= ~self.together()
        self.check(alone | (adds & follows), "is an ADDEND without its pair")
        kept = ~adds
        paired = np.where(follows, said, 0)[kept]
        self.keep(kept)
        out: Int64 = paired
        return out

    def keep(self, kept: Bool) -> None:
        for name in ("section", "offset", "number", "pcrel", "length", "extern", "type"):
            setattr(self, name, getattr(self, name)[kept])

    def together(self) -> Bool:
        """Whether each entry but the last is at the place of the one that follows."""
        same: Bool = (self.section[1:] == self.section[:-1]) & (self.offset[1:] == self.offset[:-1])
        return same

    def pairs(self) -> None:
        """Each SUBTRACTOR has to have its UNSIGNED entry."""
        first = self.type == self.subtractor
        good = np.zeros(len(first), np.bool_)
        good[:-1] = self.together() & (self.type[1:] == mo.UNSIGNED)
        good[:-1] &= self.length[1:] == self.length[:-1]
        self.check(first & ~good, "is a SUBTRACTOR without its pair")
        self.check(first & ~self.extern, "subtracts the address of a section, not of a symbol")

    def contents(self, width: Int64) -> Int64:
        """What each field holds, with its sign."""
        octets = np.frombuffer(self.f.data, np.uint8)
        start = self.commands.sections["offset"][self.section].astype(np.int64) + self.offset
        out = np.zeros(len(start), np.int64)
        for size in (1, 2, 4, 8):
            mine = np.flatnonzero(width == size)
            if len(mine):
                raw = octets[start[mine, None] + np.arange(size)]
                out[mine] = np.ascontiguousarray(raw).view(f"<i{size}").reshape(-1)
        return out

    def anchor(self, symbol: Int64, addend: Int64) -> None:
        """Turn section-relative entries into ones to an atom's anchor; changes the arrays."""
        local = ~self.extern
        if not local.any():
            return
        known = self.type == mo.UNSIGNED
        if not self.arm:
            known |= np.isin(self.type, (mo.X86_64_SIGNED, mo.X86_64_BRANCH, 6, 7, 8))
        self.check(local & ~known, "must name a symbol")
        count = len(self.commands.sections)
        self.check(local & ((self.number == 0) | (self.number > count)), "names no section")
        rows = np.flatnonzero(local)
        target_section = self.number[rows] - 1
        gone = np.zeros(len(local), np.bool_)
        gone[rows] = ~self.pieces.kept[target_section]
        self.check(gone, "refers to a section that is no part of a program")
        address = self.commands.sections["addr"].astype(np.int64)
        value = addend[rows]
        pcrel = self.pcrel[rows] != 0
        value = np.where(pcrel, value + address[self.section[rows]] + self.offset[rows] + 4, value)
        trailing = np.zeros(16, np.int64)
        trailing[list(mo.X86_64_TRAILING)] = list(mo.X86_64_TRAILING.values())
        label = value + np.where(pcrel, trailing[self.type[rows]], 0)
        place = label - address[target_section]
        limit = self.commands.sections["size"][target_section].astype(np.int64)
        outside = np.zeros(len(local), np.bool_)
        outside[rows] = (place < 0) | (place > limit)
        self.check(outside, "refers to a place outside of its section")
        atom = self.pieces.find(target_section, place)
        symbol[rows] = atom
        addend[rows] = value - address[target_section] - self.pieces.atoms["offset"][atom]
