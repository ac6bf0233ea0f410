"""What refers to what in an object file, as pyelftools (ELF) and llvm-readobj (others) read it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from tests.formats.native_kit import tool
from tests.tools import need


@dataclass
class Seen:
    """Sections are numbered from 0 as they stand in the file.

    `references`: of a section, offset and the name or the number of the symbol referred to.
    `places`: of a name, or the number of a symbol without one, the sections and offsets where it
    is defined.
    """

    references: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    places: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def targets(self, section: int, start: int, end: int) -> set[str]:
        """What the bytes from `start` to `end` of a section refer to."""
        found = self.references.get(section, [])
        return {symbol for offset, symbol in found if start <= offset < end}

    def defines(self, symbol: str, section: int, start: int, end: int) -> bool:
        """Whether a symbol is a place in those bytes."""
        places = self.places.get(symbol, [])
        if symbol.startswith("#"):  # a section and an addend, from which a processor may count on
            return any(s == section for s, _ in places)
        return any(s == section and start <= value < max(end, start + 1) for s, value in places)


def see(data: bytes, folder: Path) -> Seen:
    """Read an object file."""
    if data[:4] == b"\x7fELF":
        return _elf(data)
    file = folder / "seen.o"
    file.write_bytes(data)
    words = ["--relocs", "--expand-relocs", "--symbols", "--sections"]
    said = tool([need("llvm-readobj-22"), *words, file])
    return _told(said, coff="Format: COFF" in said)


def _elf(data: bytes) -> Seen:
    seen = Seen()
    file = ELFFile(io.BytesIO(data))
    table = file.get_section_by_name(".symtab")
    for number, symbol in enumerate(table.iter_symbols()):
        if isinstance(symbol["st_shndx"], int):
            place = symbol["st_shndx"], symbol["st_value"]
            seen.places.setdefault(f"#{number}", []).append(place)
            if symbol.name:
                seen.places.setdefault(symbol.name, []).append(place)
    names = [s.name for s in table.iter_symbols()]
    for section in file.iter_sections():
        if isinstance(section, RelocationSection):
            found = seen.references.setdefault(section["sh_info"], [])
            for row in section.iter_relocations():
                number = row["r_info_sym"]
                found.append((row["r_offset"], names[number] or f"#{number}"))
    return seen


_BLOCK = re.compile(r"^    (?:Relocation|Symbol|Section) \{\n(.*?)^    \}\n", re.M | re.S)
_PART = re.compile(r"^  Section (?:\((\d+)\) )?(\S+) \{\n(.*?)^  \}\n", re.M | re.S)


def _told(said: str, *, coff: bool) -> Seen:
    seen = Seen()
    sections, rest = said.split("\nRelocations [\n", 1)
    relocations, symbols = rest.split("\nSymbols [\n", 1)
    heads = re.findall(r"^  Section \{\n(.*?)^  \}\n", sections, re.M | re.S)
    names = [_field(b, "Name").split(" (")[0] for b in heads]
    # Mach-O symbols have addresses, and sections begin at theirs
    base = [0 if coff else int(_field(b, "Address"), 16) for b in heads]
    for block in re.findall(r"^  Symbol \{\n(.*?)^  \}\n", symbols, re.M | re.S):
        where = re.search(r"^    Section: .*\((-?\w+)\)", block, re.M)
        number = int(where[1], 0) - 1 if where else -1
        if 0 <= number < len(names):
            value = int(_field(block, "Value"), 0) - base[number]
            name = _field(block, "Name")
            name = name if coff else name.rsplit(" (", 1)[0]
            seen.places.setdefault(name, []).append((number, value))
    # those that have relocations come in their order; llvm-readobj numbers those of COFF alone
    related = [n for n, b in enumerate(heads) if int(_field(b, "RelocationCount"), 0)]
    for number, (_, name, body) in zip(related, _PART.findall(relocations), strict=True):
        assert names[number] == name
        found = seen.references.setdefault(number, [])
        for block in _BLOCK.findall(body):
            offset = int(_field(block, "Offset"), 16)
            symbol = re.search(r"Symbol: (.*)", block)
            if symbol:
                found.append((offset, symbol[1] if coff else symbol[1].rsplit(" (", 1)[0]))
    return seen


def _field(block: str, name: str) -> str:
    found = re.search(rf"^ *{name}: (.*)$", block, re.M)
    assert found, (name, block)
    return found[1]
