"""A small reader of 64-bit little-endian ELF objects, for the results of the tools.

Source of the layouts: System V ABI, chapter 4, "Object Files".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.core.errors import ObjectError

if TYPE_CHECKING:
    import numpy.typing as npt

SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_GROUP, SHT_SYMTAB_SHNDX = 1, 2, 4, 17, 18
SHF_ALLOC, SHF_EXECINSTR, SHF_LINK_ORDER, SHF_GROUP = 2, 4, 0x80, 0x200
SHN_UNDEF, SHN_LORESERVE, SHN_COMMON, SHN_XINDEX = 0, 0xFF00, 0xFFF2, 0xFFFF
SHN_X86_64_LCOMMON = 0xFF02
COMMON, SPECIAL = -1, -2  # in place of a section's number
STB_LOCAL, STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE = 0, 1, 2, 10

_SECTION = np.dtype(
    [
        ("name", "<u4"),
        ("type", "<u4"),
        ("flags", "<u8"),
        ("addr", "<u8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("link", "<u4"),
        ("info", "<u4"),
        ("align", "<u8"),
        ("entsize", "<u8"),
    ]
)
_SYMBOL = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("shndx", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)
_RELA = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol with a name; `section` is its number, `SHN_UNDEF`, `COMMON` or `SPECIAL`."""

    number: int
    name: bytes
    binding: int
    section: int
    offset: int  # of its entry in the file


@dataclass(frozen=True, eq=False)
class View:
    """Sections and symbols of one object. `names` are those of the sections.

    `symbols` are the global ones, and all undefined ones (GNU ld makes the undefined symbols of
    dead code local).
    """

    data: memoryview
    sections: npt.NDArray[np.void]
    names: tuple[bytes, ...]
    symbols: tuple[Symbol, ...]

    def defined(self) -> tuple[Symbol, ...]:
        """Global definitions, commons included."""
        return tuple(s for s in self.symbols if s.section != SHN_UNDEF)

    def undefined(self) -> tuple[Symbol, ...]:
        return tuple(s for s in self.symbols if s.section == SHN_UNDEF)

    def needed(self) -> frozenset[int]:
        """The numbers of the symbols that relocations of allocated sections name."""
        used = [relocations["info"] >> 32 for relocations in self._relocations()]
        return frozenset(np.unique(np.concatenate(used)).tolist()) if used else frozenset()

    def targets(self, section: int) -> frozenset[int]:
        """The sections that relocations of one section reach."""
        table = self._symbol_table()
        reached: set[int] = set()
        for relocations in self._relocations(section):
            types = relocations["info"] & 0xFFFFFFFF
            reached.update(table["shndx"][(relocations["info"] >> 32)[types != 0]].tolist())
        return frozenset(reached)

    def _relocations(self, only: int | None = None) -> list[npt.NDArray[np.void]]:
        s = self.sections
        rela = np.flatnonzero(s["type"] == SHT_RELA)
        to = s["info"][rela]
        wanted = s["flags"][to] & SHF_ALLOC != 0 if only is None else to == only
        return [
            np.frombuffer(self.data, _RELA, int(h["size"]) // _RELA.itemsize, int(h["offset"]))
            for h in s[rela[wanted]]
        ]

    def _symbol_table(self) -> npt.NDArray[np.void]:
        header = self.sections[self.sections["type"] == SHT_SYMTAB][0]
        count = int(header["size"]) // _SYMBOL.itemsize
        return np.frombuffer(self.data, _SYMBOL, count, int(header["offset"]))


def view(data: bytes | bytearray | memoryview, what: str, *, symbols: bool = True) -> View:
    """Read an object, with or without its symbols.

    Raises `ObjectError`, which names it `what`, for a damaged one.
    """
    try:
        return _view(memoryview(data), symbols)
    except (struct.error, ValueError, IndexError) as e:
        raise ObjectError(f"this is no 64-bit little-endian ELF object: {e}", path=what) from e


def _view(data: memoryview, with_symbols: bool) -> View:
    if bytes(data[:6]) != b"\x7fELF\x02\x01":
        raise ValueError("wrong magic bytes")
    (start,) = struct.unpack_from("<Q", data, 40)
    count, strings = struct.unpack_from("<HH", data, 60)
    first = np.frombuffer(data, _SECTION, 1, start)[0]
    count = count or int(first["size"])
    strings = int(first["link"]) if strings == SHN_XINDEX else strings
    sections = np.frombuffer(data, _SECTION, count, start)
    names = _names(data, sections[strings], sections["name"])
    tables = np.flatnonzero(sections["type"] == SHT_SYMTAB)
    symbols = _symbols(data, sections, int(tables[0])) if with_symbols and len(tables) else ()
    return View(data, sections, names, symbols)


def _names(data: memoryview, header: np.void, offsets: npt.NDArray[np.uint32]) -> tuple[bytes, ...]:
    start = int(header["offset"])
    text = bytes(data[start : start + int(header["size"])])
    return tuple(text[o : text.index(b"\0", o)] for o in offsets.tolist())


def _symbols(data: memoryview, sections: npt.NDArray[np.void], table: int) -> tuple[Symbol, ...]:
    header = sections[table]
    start, count = int(header["offset"]), int(header["size"]) // _SYMBOL.itemsize
    entries = np.frombuffer(data, _SYMBOL, count, start)
    raw = entries["shndx"]
    section_numbers = np.where(raw >= SHN_LORESERVE, SPECIAL, raw.astype(np.int64))
    section_numbers[(raw == SHN_COMMON) | (raw == SHN_X86_64_LCOMMON)] = COMMON
    wide = sections[(sections["type"] == SHT_SYMTAB_SHNDX) & (sections["link"] == table)]
    if len(wide):
        real = np.frombuffer(data, "<u4", count, int(wide[0]["offset"]))
        section_numbers = np.where(raw == SHN_XINDEX, real, section_numbers)
    visible = (entries["info"] >> 4 != STB_LOCAL) | (entries["shndx"] == SHN_UNDEF)
    numbers = np.flatnonzero(visible & (entries["name"] != 0))
    names = _names(data, sections[int(header["link"])], entries["name"][numbers])
    return tuple(
        Symbol(number, name, binding, section, start + number * _SYMBOL.itemsize)
        for number, name, binding, section in zip(
            numbers.tolist(),
            names,
            (entries["info"][numbers] >> 4).tolist(),
            section_numbers[numbers].tolist(),
            strict=True,
        )
    )
