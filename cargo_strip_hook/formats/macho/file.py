"""Several Mach-O files while they are read: one table of each kind for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.commands import read_commands
from cargo_strip_hook.link.arrays import gather, join, ramps, together
from cargo_strip_hook.link.model import Array, Bool, Input, Int64
from cargo_strip_hook.link.reading import InputFiles, numbered

STEP = 40  # bits of an offset of a location: addresses stay below 1 << 40

COMPACT_UNWIND = (b"__LD", b"__compact_unwind")
EH_FRAME = (b"__TEXT", b"__eh_frame")


class MachoFiles(InputFiles):
    """Files for one processor.

    Sections and symbols are numbered through, from 0; `first` and `symbol_first` are the numbers
    of each file's first one, and the totals; `owner` and `symbol_owner` are the files they are of.
    `octets` (uint8) holds all files, each from its `base` on; `start` is where in it the contents
    of a section begin. `kept` sections have atoms.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        super().__init__(inputs)
        self.commands = [read_commands(f) for f in self.files]
        self.cputype = self.commands[0].cputype
        self.octets, self.base = together([i.data for i in inputs])
        self.sections = join([c.sections for c in self.commands])
        self.first, self.owner = numbered([len(c.sections) for c in self.commands])
        self.address = self.sections["addr"].astype(np.int64)
        self.size = self.sections["size"].astype(np.int64)
        self.start = self.base[self.owner] + self.sections["offset"]
        self.flags = self.sections["flags"]
        self.types = self.flags & mo.SECTION_TYPE
        self.names = names_of(self.sections)
        flags = self.flags.tolist()
        self.kept = np.array(
            [not is_dropped(n, fl) for n, fl in zip(self.names, flags, strict=True)], np.bool_
        )
        self.compact = self._named(COMPACT_UNWIND)
        self.eh_frame = self._named(EH_FRAME) & self.kept
        scatter = [c.flags & mo.MH_SUBSECTIONS_VIA_SYMBOLS != 0 for c in self.commands]
        self.scatter = np.array(scatter, np.bool_)  # of each file

        self.symbols = join([c.symbols for c in self.commands])
        self.symbol_first, self.symbol_owner = numbered([len(c.symbols) for c in self.commands])
        self._locate_symbols()

    def _named(self, name: tuple[bytes, bytes]) -> Bool:
        return np.array([n == name for n in self.names], np.bool_)

    def _locate_symbols(self) -> None:
        """`placed` symbols lie in `symbol_section`, `symbol_offset` bytes from its beginning."""
        table, owner = self.symbols, self.symbol_owner
        self.plain = table["type"] & mo.N_STAB == 0
        self.placed = self.plain & (table["type"] & mo.N_TYPE == mo.N_SECT)
        number = table["sect"].astype(np.int64)
        bad = self.placed & ((number == 0) | (number > np.diff(self.first)[owner]))
        self.check(bad, owner, "a symbol's section is out of range")
        self.symbol_section = np.where(self.placed, self.first[owner] + number - 1, 0)
        self.symbol_offset = np.zeros(len(table), np.int64)
        rows = np.flatnonzero(self.placed)
        section = self.symbol_section[rows]
        offset = table["value"][rows].astype(np.int64) - self.address[section]
        self.symbol_offset[rows] = offset
        outside = np.zeros(len(table), np.bool_)
        outside[rows] = ((offset < 0) | (offset > self.size[section])) & self.kept[section]
        self.check(outside, owner, "a symbol lies outside of its section")

    def initials(self, rows: Int64) -> Array:
        """The first byte of the name of each of these symbols."""
        strings = np.array([c.strings_offset for c in self.commands], np.int64) + self.base
        letters: Array = self.octets[strings[self.symbol_owner[rows]] + self.symbols["strx"][rows]]
        return letters

    def records(self, sections: Int64, offset: str, count: str, record: np.dtype[np.void]) -> Array:
        """The records of tables that headers of `sections` name, one behind the other.

        `offset` and `count` are the columns of the section table that say where they are.
        """
        counts = self.sections[count][sections].astype(np.int64)
        begin = self.base[self.owner[sections]] + self.sections[offset][sections]
        return gather(self.octets, ramps(begin, counts, record.itemsize), record)


def names_of(sections: Array) -> list[tuple[bytes, bytes]]:
    """(segment, section) name of each section."""
    return list(zip(sections["segname"].tolist(), sections["sectname"].tolist(), strict=True))


def is_dropped(name: tuple[bytes, bytes], flags: int) -> bool:
    """Whether a section is no part of a program: bitcode, debug information, linker's hints."""
    segment, section = name
    if name == COMPACT_UNWIND:
        return False
    return (
        segment in (b"__LLVM", mo.DEBUG_SEGMENT)
        or section == b"__llvm_addrsig"
        or bool(flags & mo.S_ATTR_DEBUG)
    )
