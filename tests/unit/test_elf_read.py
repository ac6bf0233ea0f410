"""The ELF reader on files made by hand, byte for byte as the gABI has them; no tools."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.elf import FORMAT
from cargo_strip_hook.link.model import AtomFlag, Binding, Input, Reach, SpecialIndex, Unit

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, INIT_ARRAY, GROUP = 1, 2, 3, 4, 8, 14, 17
WRITE, ALLOC, EXEC, MERGE, STRINGS, LINK_ORDER, IN_GROUP = 1, 2, 4, 0x10, 0x20, 0x80, 0x200
PC32, PLT32, ABS64 = 2, 4, 1  # x86-64 psABI, table 4.9


@dataclass
class Section:
    name: str
    type: int
    flags: int
    data: bytes = b""
    link: int = 0
    info: int = 0
    align: int = 1
    entsize: int = 0
    size: int | None = None


def symbol(name: int, bind: int, kind: int, section: int, value: int = 0, size: int = 0) -> bytes:
    return struct.pack("<IBBHQQ", name, bind << 4 | kind, 0, section, value, size)


def rela(offset: int, number: int, kind: int, addend: int) -> bytes:
    return struct.pack("<QQq", offset, number << 32 | kind, addend)


def strings(*names: str) -> tuple[bytes, list[int]]:
    table, offsets = b"\0", []
    for name in names:
        offsets.append(len(table))
        table += name.encode() + b"\0"
    return table, offsets


def elf_file(sections: Sequence[Section], kind: int = 1, machine: int = 62) -> bytes:
    """An ELF64 little-endian file: header, contents, section table. gABI, figures 4-3 and 4-8."""
    names, offsets = strings(*(s.name for s in sections), ".shstrtab")
    every = [*sections, Section(".shstrtab", STRTAB, 0, names)]
    body, table = b"", [bytes(64)]
    for section, name in zip(every, offsets, strict=True):
        body += bytes(-(64 + len(body)) % 8)
        size = len(section.data) if section.size is None else section.size
        table.append(
            struct.pack(
                "<IIQQQQIIQQ",
                name,
                section.type,
                section.flags,
                0,
                64 + len(body),
                size,
                section.link,
                section.info,
                section.align,
                section.entsize,
            )
        )
        body += section.data
    body += bytes(-len(body) % 8)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    counts = (64, 0, 0, 64, len(table), len(table) - 1)
    header = struct.pack("<16sHHIQQQI6H", ident, kind, machine, 1, 0, 0, 64 + len(body), 0, *counts)
    return header + body + b"".join(table)


def sample() -> bytes:
    names, at = strings("f", "g", "outside", "weak", "data", "five", "tentative")
    f, g, outside, weak, data, five, tentative = at
    # a CIE, and the FDEs of f and of g; PC-relative, as `.cfi_startproc` makes them
    cie = struct.pack("<II", 12, 0) + b"\x01zR\0\x01\x78\x10\x01"
    fdes = b"".join(struct.pack("<III", 16, len(cie) + 20 * n + 4, 0) + bytes(8) for n in range(2))
    symbols = [
        bytes(24),
        symbol(0, 0, 3, 1),  # the symbol of section 1
        symbol(0, 0, 3, 4),
        symbol(f, 1, 2, 1, 0, 8),
        symbol(g, 2, 2, 4, 4, 4),
        symbol(outside, 1, 0, 0),
        symbol(weak, 2, 0, 0),
        symbol(data, 1, 1, 7),
        symbol(five, 1, 0, 0xFFF1, 5),
        symbol(tentative, 1, 1, 0xFFF2, 16, 40),
    ]
    groups = struct.pack("<III", 1, 4, 5)
    sections = [
        Section(".text.f", PROGBITS, ALLOC | EXEC, bytes(8), align=16),  # 1
        Section(
            ".rela.text.f",
            RELA,
            0,
            rela(1, 4, PLT32, -4) + rela(4, 2, PC32, 9),
            link=9,
            info=1,
            align=8,
            entsize=24,
        ),
        Section(".group", GROUP, 0, groups, link=9, info=4, align=4, entsize=4),
        Section(".text.g", PROGBITS, ALLOC | EXEC | IN_GROUP, bytes(8)),  # 4
        Section(".rodata.str", PROGBITS, ALLOC | MERGE | STRINGS | IN_GROUP, b"hi\0", entsize=1),
        Section(".init_array.5", INIT_ARRAY, WRITE | ALLOC, bytes(8), align=8),
        Section(".bss.data", NOBITS, WRITE | ALLOC, align=32, size=100),  # 7
        Section(".debug_info", PROGBITS, 0, b"debug"),
        Section(".symtab", SYMTAB, 0, b"".join(symbols), link=10, info=3, align=8, entsize=24),
        Section(".strtab", STRTAB, 0, names),
        Section(".eh_frame", PROGBITS, ALLOC, cie + fdes, align=8),  # 11
        Section(
            ".rela.eh_frame",
            RELA,
            0,
            rela(16 + 8, 1, PC32, 0) + rela(16 + 20 + 8, 2, PC32, 0),
            link=9,
            info=11,
            align=8,
            entsize=24,
        ),
        Section("meta", PROGBITS, ALLOC | LINK_ORDER, bytes(4), link=1),  # 13
    ]
    return elf_file(sections)


def read(data: bytes) -> Unit:
    [unit] = FORMAT.read([Input(0, "sample.o", memoryview(data))])
    return unit


def test_what_is_in_a_file() -> None:
    unit = read(sample())
    plain = unit.atoms[unit.atoms["flags"] & AtomFlag.SEPARATE == 0]
    assert plain["section"].tolist() == [1, 4, 5, 6, 7, 13]
    assert plain["size"].tolist() == [8, 8, 3, 8, 100, 4]
    assert plain["align"].tolist() == [16, 1, 1, 8, 32, 1]
    assert plain["flags"].tolist() == [0, 0, AtomFlag.MERGEABLE, AtomFlag.ROOT, 0, 0]
    assert list(unit.names) == [*(b"f", b"g", b"outside", b"weak", b"data", b"five", b"tentative")]
    rows = unit.symbols[unit.first_global :]
    assert rows["atom"].tolist() == [
        *(
            0,
            1,
            SpecialIndex.UNDEFINED,
            SpecialIndex.UNDEFINED,
            4,
            SpecialIndex.ABSOLUTE,
            SpecialIndex.COMMON,
        )
    ]
    weak, strong = Binding.WEAK, Binding.GLOBAL
    assert rows["binding"].tolist() == [strong, weak, strong, weak, strong, strong, strong]
    assert rows["value"].tolist() == [0, 4, 0, 0, 0, 5, 16]
    assert rows["size"].tolist() == [8, 4, 0, 0, 0, 0, 40]
    (group,) = unit.groups
    assert (group.signature, group.atoms, group.comdat) == (b"g", (1, 2), True)


def test_unwind_records_live_with_their_functions() -> None:
    unit = read(sample())
    separate = (unit.atoms["flags"] & AtomFlag.SEPARATE != 0).nonzero()[0].tolist()
    assert len(separate) == 3
    cie, first, second = separate
    assert unit.atoms["offset"][separate].tolist() == [0, 16, 36]
    assert unit.atoms["size"][separate].tolist() == [16, 20, 20]
    edges = {(int(e["source"]), int(e["target"])) for e in unit.edges}
    assert edges == {(first, cie), (second, cie), (0, 5)}  # and the linked section with its own
    rows = {
        (int(r["atom"]), int(r["offset"])): (int(r["symbol"]), int(r["reach"]), int(r["addend"]))
        for r in unit.relocations
    }
    assert rows == {
        (0, 1): (4, Reach.FORWARD, -4),
        (0, 4): (2, Reach.FORWARD, 9),
        (first, 8): (1, Reach.REVERSE, 0),
        (second, 8): (2, Reach.REVERSE, 0),
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ((0, b"\x7fELG"), "no ELF file"),
        ((16, b"\x02\0"), "no relocatable object"),
        ((40, b"\xff" * 8), "beyond the end"),
        ((62, b"\x70\0"), "out of range"),
    ],
)
def test_headers_that_are_no_headers(change: tuple[int, bytes], what: str) -> None:
    data = bytearray(sample())
    at, octets = change
    data[at : at + len(octets)] = octets
    with pytest.raises(ObjectError, match=what) as caught:
        read(bytes(data))
    assert caught.value.member == "sample.o" and caught.value.offset is not None


def test_every_truncation_is_noticed() -> None:
    data = sample()
    for size in range(len(data)):
        with pytest.raises(ObjectError):
            read(data[:size])


interesting = st.sampled_from(
    [b"\0", b"\1", b"\x7f", b"\xff", b"\xf1\xff", b"\xff" * 4, b"\xff" * 8, bytes(8)]
    + [struct.pack("<Q", 1 << n) for n in (31, 32, 40, 62, 63)]
    + [struct.pack("<I", n) for n in (1, 2, 3, 4, 9, 14, 15, 17, 18, 0x6FFF4C03)]
)


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, len(sample()) - 1), interesting), min_size=1, max_size=3))
def test_damage_gives_an_object_or_an_error(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(sample())
    for at, octets in changes:
        data[at : at + len(octets)] = octets[: len(data) - at]
    try:
        unit = read(bytes(data))
    except ObjectError as e:
        assert "sample.o" in str(e)
    else:
        assert (unit.relocations["atom"] < len(unit.atoms)).all()
        assert (unit.relocations["symbol"] < len(unit.symbols)).all()
        assert (unit.symbols["atom"] < len(unit.atoms)).all()
