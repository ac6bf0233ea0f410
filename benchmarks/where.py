"""Where the bytes of a stripped ELF library are.

``python benchmarks/where.py [--markdown] LIBRARY…`` tabulates contents, relocations by the kinds of
section that they are in and refer to, symbols, names, headers and padding, as pyelftools reads
them. One column for each library; the last row is the size of the file.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_RELOC_TYPE_AARCH64, ENUM_RELOC_TYPE_x64
from elftools.elf.sections import SymbolTableSection

ROOT = Path(__file__).resolve().parents[1]
# longest first; what GNU ld's script and we know of a section's name
KINDS = (
    ".text", ".rodata", ".data.rel.ro", ".gcc_except_table", ".eh_frame", ".data", ".tdata",
    ".bss", ".tbss", ".debug", ".init_array",
)  # fmt: skip
_ALLOC = 2
_TYPES = {"x64": ENUM_RELOC_TYPE_x64, "AArch64": ENUM_RELOC_TYPE_AARCH64}


def kind_of(name: str) -> str:
    """What a row of the table calls a section."""
    return next((k for k in KINDS if name.startswith(k)), "other sections")


def members(path: Path) -> Iterator[bytes]:
    """The object files of an archive."""
    sys.path.insert(0, str(ROOT))
    from cargo_strip_hook.archive import open_archive

    with open_archive(path) as archive:
        for member in archive.members:
            data = bytes(archive.data(member))
            if data[:4] == b"\x7fELF":
                yield data


def tabulate(path: Path) -> Counter[tuple[str, str]]:
    """Bytes by (group, row); the sum is the size of the file."""
    found: Counter[tuple[str, str]] = Counter()
    for data in members(path):
        _object(data, found)
    found["file", "archive"] = path.stat().st_size - found.total()
    return found


def _object(data: bytes, found: Counter[tuple[str, str]]) -> None:
    elf = ELFFile(io.BytesIO(data))
    sections = list(elf.iter_sections())
    symbols = next(s for s in sections if isinstance(s, SymbolTableSection))
    table = list(symbols.iter_symbols())
    names = {v: k for k, v in _TYPES.get(elf.get_machine_arch(), {}).items()}
    used = elf.header["e_ehsize"] + elf.header["e_shnum"] * elf.header["e_shentsize"]
    found["file", "header"] += elf.header["e_ehsize"]
    found["section headers", f"{elf.header['e_shentsize']} bytes each"] += used - int(
        elf.header["e_ehsize"]
    )
    for section in sections:
        size = 0 if section["sh_type"] in ("SHT_NOBITS", "SHT_NULL") else section["sh_size"]
        used += size
        if section["sh_type"] in ("SHT_RELA", "SHT_REL"):
            place = kind_of(sections[section["sh_info"]].name)
            for relocation in section.iter_relocations():  # type: ignore[attr-defined]
                symbol = table[relocation["r_info_sym"]]
                row = f"{place} → {_target(symbol, sections)}"
                type_ = names.get(relocation["r_info_type"], str(relocation["r_info_type"]))
                found["relocations", f"{row}, {type_.rpartition('R_')[2]}"] += section["sh_entsize"]
        elif section is symbols:
            for symbol in table:
                found["symbols", _symbol_row(symbol)] += section["sh_entsize"]
        elif section.name == ".strtab":
            found["names", "of symbols"] += size
        elif section.name == ".shstrtab":
            found["names", "of sections"] += size
        elif section["sh_flags"] & _ALLOC:
            found["contents", kind_of(section.name)] += size
        else:
            found["contents", "not loaded"] += size
    found["file", "padding"] += len(data) - used


def _target(symbol: Any, sections: Sequence[Any]) -> str:
    where = symbol["st_shndx"]
    if where == "SHN_UNDEF":
        return "outside"
    if symbol["st_info"]["bind"] != "STB_LOCAL":
        return "an export"
    return kind_of(sections[where].name) if isinstance(where, int) else str(where)


def _symbol_row(symbol: Any) -> str:
    where = symbol["st_shndx"]
    if where == "SHN_UNDEF":
        return "undefined"
    if symbol["st_info"]["bind"] != "STB_LOCAL":
        return "exports"
    kind = symbol["st_info"]["type"].removeprefix("STT_").lower()
    return f"local, {kind}" + (" with name" if symbol.name else "")


def rows(tables: Sequence[Counter[tuple[str, str]]]) -> list[tuple[str, str, list[int]]]:
    """(group, row, bytes for each library): groups in order, the largest row first."""
    groups = ("contents", "relocations", "symbols", "names", "section headers", "file")
    sums: Counter[tuple[str, str]] = Counter()
    for table in tables:
        sums.update(table)
    ordered = sorted(sums, key=lambda k: (groups.index(k[0]), -sums[k]))
    return [(group, row, [t[group, row] for t in tables]) for group, row in ordered]


def main(argv: Sequence[str] | None = None) -> int:
    """Tabulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library", nargs="+", type=Path, metavar="LIBRARY")
    parser.add_argument("--least", type=int, default=1000, help="bytes that deserve a row")
    args = parser.parse_args(argv)
    tables = [tabulate(path) for path in args.library]
    rest: dict[str, list[int]] = {}
    print("| | | " + " | ".join(p.stem for p in args.library) + " |")
    print("| --- | --- |" + " --: |" * len(tables))
    shown = ""
    for group, row, numbers in rows(tables):
        if max(numbers) < args.least:
            known = rest.setdefault(group, [0] * len(numbers))
            rest[group] = [a + b for a, b in zip(known, numbers, strict=True)]
            continue
        cells = " | ".join(f"{n:,}" for n in numbers)
        print(f"| {group if group != shown else ''} | {row} | {cells} |")
        shown = group
    for group, numbers in rest.items():
        print(f"| {group} | the rest | " + " | ".join(f"{n:,}" for n in numbers) + " |")
    print("| file | | " + " | ".join(f"{t.total():,}" for t in tables) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
