"""Reads relocations into the model: pairs told apart, addends in one form, places made atoms.

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
from cargo_strip_hook.formats.macho.split import Pieces
from cargo_strip_hook.link.arrays import gather
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


def read_relocations(f: MachoFiles, pieces: Pieces, numbers: Int64, anchors: Int64) -> Rows:
    """All relocations of sections with atoms, in the order of the files.

    `numbers`: the symbol of the model for each row of the symbol table, or -1; `anchors`: that of
    each atom. Raises `ObjectError`.
    """
    sections = np.flatnonzero(f.kept & (f.sections["nreloc"] > 0))
    entries = f.records(sections, "reloff", "nreloc", mo.RELOC)
    section = np.repeat(sections, f.sections["nreloc"][sections])
    if not len(entries):
        return Rows(np.zeros(0, RELOCATION), section)
    return _Reading(f, pieces, numbers, anchors, entries, section).result()


class _Reading:
    """The entries, taken apart into columns."""

    def __init__(
        self,
        f: MachoFiles,
        pieces: Pieces,
        numbers: Int64,
        anchors: Int64,
        entries: Array,
        section: Int64,
    ) -> None:
        self.f, self.pieces, self.numbers, self.anchors = f, pieces, numbers, anchors
        info = entries["info"].astype(np.int64)
        self.section = section
        self.offset = entries["address"].astype(np.int64)
        self.number = info & 0xFFFFFF
        self.pcrel = info >> 24 & 1
        self.length = info >> 25 & 3
        self.extern = info >> 27 & 1 != 0
        self.type = info >> 28
        self.arm = f.cputype == mo.CPU_TYPE_ARM64
        self.subtractor = SUBTRACTOR[f.cputype]

    def check(self, which: Bool, what: str) -> None:
        if which.any():
            number = int(self.section[int(which.argmax())])
            name = b",".join(self.f.names[number]).decode("latin-1")
            raise self.f.fail(
                int(self.f.owner[number]),
                f"a relocation of section {name} {what}",
                int(self.f.sections["reloff"][number]),
            )

    def result(self) -> Rows:
        self.check(self.offset < 0, "is a scattered one")
        self.check(self.type >= _TYPES[self.f.cputype], "has an unknown type")
        paired = self.fold_addends()
        width = np.int64(1) << self.length
        self.check(self.offset + width > self.f.size[self.section], "lies outside of it")
        self.pairs()
        self.check(self.twice(), "stands where another one does")
        content = self.contents(width)
        embedded = np.ones(len(content), np.bool_)
        if self.arm:
            embedded = (self.type == mo.UNSIGNED) | (self.type == self.subtractor)
        addend = np.where(embedded, content, 0) + paired
        addend[self.type == self.subtractor] = 0
        symbol = np.zeros(len(content), np.int64)
        first = self.f.symbol_first[self.f.owner[self.section]]
        count = self.f.symbol_first[self.f.owner[self.section] + 1] - first
        self.check(self.extern & (self.number >= count), "has no symbol")
        symbol[self.extern] = self.numbers[(first + self.number)[self.extern]]
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
        paired: Int64 = np.where(follows, said, 0)[kept]
        for name in ("section", "offset", "number", "pcrel", "length", "extern", "type"):
            setattr(self, name, getattr(self, name)[kept])
        return paired

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

    def twice(self) -> Bool:
        """Whether each entry has the place of another one that is not its SUBTRACTOR."""
        mine = np.flatnonzero(self.type != self.subtractor)
        key = (self.section[mine] << STEP) + self.offset[mine]
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        found = np.zeros(len(self.type), np.bool_)
        found[mine[order[1:][same]]] = True
        return found

    def contents(self, width: Int64) -> Int64:
        """What each field holds, with its sign."""
        start = self.f.start[self.section] + self.offset
        out = np.zeros(len(start), np.int64)
        for size in (1, 2, 4, 8):
            mine = np.flatnonzero(width == size)
            out[mine] = gather(self.f.octets, start[mine], np.dtype(f"<i{size}"))
        return out

    def anchor(self, symbol: Int64, addend: Int64) -> None:
        """Turn section-relative entries into ones to an atom's anchor; changes the arrays."""
        local = ~self.extern
        if not local.any():
            return
        f = self.f
        self.check(local & ~_BY_ADDRESS[f.cputype][self.type], "must name a symbol")
        first = f.first[f.owner[self.section]]
        count = f.first[f.owner[self.section] + 1] - first
        self.check(local & ((self.number == 0) | (self.number > count)), "names no section")
        rows = np.flatnonzero(local)
        target_section = (first + self.number - 1)[rows]
        gone = np.zeros(len(local), np.bool_)
        gone[rows] = ~f.kept[target_section]
        self.check(gone, "refers to a section that is no part of a program")
        value = addend[rows]
        pcrel = self.pcrel[rows] != 0
        here = f.address[self.section[rows]] + self.offset[rows] + 4
        value = np.where(pcrel, value + here, value)
        label = value + np.where(pcrel, _TRAILING[self.type[rows]], 0)
        place = label - f.address[target_section]
        outside = np.zeros(len(local), np.bool_)
        outside[rows] = (place < 0) | (place > f.size[target_section])
        self.check(outside, "refers to a place outside of its section")
        atom = self.pieces.find(target_section, place)
        symbol[rows] = self.anchors[atom]
        addend[rows] = value - f.address[target_section] - self.pieces.atoms["offset"][atom]
