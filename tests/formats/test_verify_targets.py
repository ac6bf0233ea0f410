"""The checker on other processors than x86-64: right results pass, and damaged ones do not.

The objects are clang's; pyelftools tells where in them the damage is to be done.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import verify
from cargo_strip_hook.verify.elf import machine
from cargo_strip_hook.verify.expectation import Expectation, Verified
from tests.formats.test_elf_targets import ONE, TARGETS, TWO, archive, compile_c, prelink

I386, ARM, THUMB = (
    "i686-unknown-linux-gnu",
    "armv7-unknown-linux-gnueabihf",
    "thumbv7-unknown-linux-gnueabihf",
)
S390, RISCV = "s390x-unknown-linux-gnu", "riscv64-unknown-linux-gnu"
POWER = "powerpc64le-unknown-linux-gnu"
POINTERS = """
#pragma GCC visibility push(hidden)
int other(int);
__attribute__((noinline)) static int one(int a) { return other(a) + 1; }
__attribute__((noinline)) static int two(int a) { return one(a) * 3; }
static int (*const functions[3])(int) = {one, two, one};
static int numbers[9] = {1};
int *const places[4] = {numbers, numbers + 2, numbers + 8, numbers + 1};
int (*chosen(int a))(int) { return functions[(a + *places[a & 3]) % 3]; }
"""
CHOSEN = "int (*chosen(int a))(int);\n" + TWO.replace("twice(a) + 1", "twice(a) + chosen(a)(a)")
SOURCES = {"one": ONE, "two": CHOSEN, "pointers": POINTERS}


@dataclass(frozen=True, slots=True)
class Relocation:
    """`at`: of the record in the archive; `field`: of what it relocates."""

    at: int
    field: int
    offset: int
    type: int
    symbol: int


class Result:
    """A prelinked library that can be damaged."""

    def __init__(self, target: str, folder: Path, granularity: str = "class") -> None:
        flags = ["-fPIC", "-ffunction-sections", "-fdata-sections", "-funwind-tables"]
        flags += ["-mthumb"] if target == THUMB else []
        self.objects = [compile_c(target, t, folder, n, *flags) for n, t in SOURCES.items()]
        self.library = archive(folder, *self.objects)
        self.out = folder / "out.a"
        names = ("api",)
        result = prelink(self.library, self.out, granularity)
        triple = Target.parse("x86_64-unknown-linux-gnu")
        self.expectation = Expectation(triple, names, Strip.SYMBOLS, result.link_map, b"m\n")
        self.data = bytearray(self.out.read_bytes())
        self.start = self.data.index(b"\x7fELF")
        self.elf = ELFFile(BytesIO(bytes(self.data[self.start :])))
        table = self.elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        self.symbols = list(table.iter_symbols())
        self.order = "<" if self.elf.little_endian else ">"

    def verify(self) -> Verified:
        self.out.write_bytes(self.data)
        return verify(self.library, self.out, self.expectation)

    def findings(self) -> str:
        with pytest.raises(VerifyError) as caught:
            self.verify()
        return "\n".join(caught.value.findings)

    def relocations(self, prefix: str) -> Iterator[Relocation]:
        """Those of sections whose name begins so."""
        for table in self.elf.iter_sections():
            if not isinstance(table, RelocationSection):
                continue
            target = self.elf.get_section(table["sh_info"])
            if not target.name.startswith(prefix):
                continue
            for i, r in enumerate(table.iter_relocations()):
                at = self.start + table["sh_offset"] + i * table["sh_entsize"]
                field = self.start + target["sh_offset"] + r["r_offset"]
                yield Relocation(at, field, r["r_offset"], r["r_info_type"], r["r_info_sym"])

    def moved_fields(self) -> Iterator[int]:
        """Where in the archive the fields of the relocations of the objects' code are now."""
        assert self.expectation.link_map is not None
        for row in self.expectation.link_map:
            with self.objects[row["member"]].open("rb") as file:
                before = ELFFile(file)
                for table in before.iter_sections():
                    if not isinstance(table, RelocationSection):
                        continue
                    if table["sh_info"] != row["section"]:
                        continue
                    if before.get_section(table["sh_info"])["sh_flags"] & 4:
                        new = self.elf.get_section(row["out_section"])["sh_offset"]
                        begin = self.start + new + int(row["out_offset"])
                        yield from (begin + r["r_offset"] for r in table.iter_relocations())

    def words(self, code: str, at: int) -> int:
        (value,) = struct.unpack_from(self.order + code, self.data, at)
        assert isinstance(value, int)
        return value

    def add(self, code: str, at: int, value: int) -> None:
        struct.pack_into(self.order + code, self.data, at, self.words(code, at) + value)

    def set_symbol(self, relocation: Relocation, symbol: int, kind: int) -> None:
        """In a record of 32 bits, or of 64."""
        if self.elf.elfclass == 32:
            struct.pack_into(f"{self.order}I", self.data, relocation.at + 4, symbol << 8 | kind)
        else:
            info = symbol << 32 | kind
            struct.pack_into(f"{self.order}Q", self.data, relocation.at + 8, info)


@pytest.mark.parametrize("granularity", ["class", "section", "whole"])
@pytest.mark.parametrize("target", TARGETS)
def test_right_results_pass(target: str, granularity: str, tmp_path: Path) -> None:
    result = Result(target, tmp_path, granularity)
    done = result.verify()
    assert done.exports == ("api",)
    assert done.pieces == len(
        result.expectation.link_map if result.expectation.link_map is not None else ()
    )
    assert done.relocations > 20


@pytest.mark.parametrize("target", [I386, ARM, THUMB, S390, RISCV])
def test_hardly_a_bit_can_change(target: str, tmp_path: Path) -> None:
    result = Result(target, tmp_path)
    sound = bytes(result.data)
    numbers = random.Random(11)
    places = []
    rows = result.expectation.link_map
    assert rows is not None
    for i, section in enumerate(result.elf.iter_sections()):
        at = result.start + section["sh_offset"]
        tables = section.name.startswith(".rel") and "rodata" not in section.name
        if section["sh_type"] in ("SHT_REL", "SHT_RELA") or section.name == ".eh_frame":
            inside = list(range(section["sh_size"]))
        elif section["sh_flags"] & 2 and section["sh_type"] != "SHT_NOBITS" and not tables:
            mine = rows[rows["out_section"] == i]
            inside = [k for r in mine for k in range(r["out_offset"], r["out_offset"] + r["size"])]
        else:
            continue
        places += [(section.name, at + k) for k in numbers.sample(inside, min(len(inside), 12))]
    assert len(places) > 100
    survived = []
    for name, at in places:
        result.data[:] = sound
        result.data[at] ^= 1 << numbers.randrange(8)
        try:
            result.verify()
        except VerifyError:
            continue
        if not _same_place(result, sound, name, at):
            survived.append((name, at - result.start))
    assert survived == []


def _same_place(result: Result, sound: bytes, name: str, at: int) -> bool:
    """Whether the only change is that a relocation names another symbol for the same place."""
    table = result.elf.get_section_by_name(name)
    if not isinstance(table, RelocationSection):
        return False
    size = table["sh_entsize"]
    begin = at - (at - result.start - table["sh_offset"]) % size
    wide = result.elf.elfclass == 64
    layout, shift = (f"{result.order}QQ", 32) if wide else (f"{result.order}II", 8)
    infos = [struct.unpack_from(layout, d, begin)[1] for d in (sound, result.data)]
    old, new = (result.symbols[info >> shift] for info in infos)
    # whether it is a function matters where functions have an instruction set
    arm = result.elf["e_machine"] == "EM_ARM"
    one, two = ((s["st_shndx"], s["st_value"], arm and s["st_info"]["type"]) for s in (old, new))
    return infos[0] != infos[1] and one == two


# R_386_32, R_ARM_ABS32, R_390_64: pointers in data
@pytest.mark.parametrize(("target", "kind"), [(I386, 1), (ARM, 2), (THUMB, 2), (S390, 22)])
def test_wrong_addend(target: str, kind: int, tmp_path: Path) -> None:
    result = Result(target, tmp_path)
    pointer = next(r for r in result.relocations(".data") if r.type == kind)
    if target == S390:
        result.add("q", pointer.at + 16, 4)
    else:
        result.add("I", pointer.field, 4)
    assert "a relocation has another target" in result.findings()


def test_wrong_addend_of_an_index_entry(tmp_path: Path) -> None:
    result = Result(ARM, tmp_path)
    entry = next(r for r in result.relocations(".ARM.exidx") if r.type == 42)
    result.add("I", entry.field, 4)
    assert "a relocation has another target" in result.findings()


def test_bit_beside_the_addend_of_an_index_entry(tmp_path: Path) -> None:
    result = Result(ARM, tmp_path)
    entry = next(r for r in result.relocations(".ARM.exidx") if r.type == 42)
    result.data[entry.field + 3] ^= 0x80
    assert "a bit beside an addend changed" in result.findings()


# call rel32; BRASL, whose distance counts halfwords
@pytest.mark.parametrize(
    ("target", "opcode", "code"), [(I386, b"\xe8", "i"), (S390, b"\xc0\xe5", "i")]
)
@pytest.mark.parametrize("error", [0, 1, -16])
def test_wrong_settled_value(
    target: str, opcode: bytes, code: str, error: int, tmp_path: Path
) -> None:
    result = Result(target, tmp_path)
    sound = bytes(result.data)
    kept = {r.field for r in result.relocations(".text")}
    found = [
        field
        for field in result.moved_fields()
        if field not in kept and sound[field - len(opcode) : field] == opcode
    ]
    assert found
    assert result.verify().resolved >= len(found)
    for field in found:
        result.data[:] = sound
        result.add(code, field, error)
        if error:
            assert "a settled relocation has a wrong value" in result.findings()
        else:
            result.verify()


@pytest.mark.parametrize("target", [ARM, THUMB, RISCV])
def test_nothing_is_settled_where_linkers_change_code(target: str, tmp_path: Path) -> None:
    result = Result(target, tmp_path)
    assert result.verify().resolved == 0
    call = next(r for r in result.relocations(".text") if r.type in (10, 18, 19, 28, 29))
    result.set_symbol(call, 0, 0)
    assert "a relocation is missing" in result.findings()


@pytest.mark.parametrize("target", [ARM, THUMB])
def test_swapped_index_entries(target: str, tmp_path: Path) -> None:
    result = Result(target, tmp_path)
    number, first, second = _two_entries(result)
    section = result.elf.get_section(number)
    at = result.start + section["sh_offset"]
    one, two = at + first, at + second
    result.data[one : one + 8], result.data[two : two + 8] = (
        result.data[two : two + 8],
        result.data[one : one + 8],
    )
    assert "a relocation has another target" in result.findings()


@pytest.mark.parametrize("target", [ARM, THUMB])
def test_index_in_another_order_than_the_code(target: str, tmp_path: Path) -> None:
    """Entries, relocations and claim agree: only the order is wrong."""
    result = Result(target, tmp_path)
    number, first, second = _two_entries(result)
    section = result.elf.get_section(number)
    at = result.start + section["sh_offset"]
    for r in result.relocations(".ARM.exidx"):
        other = {first: second, second: first}.get(r.offset & ~7)
        if other is not None and r.field - r.offset == at:
            result.add("I", r.at, other - (r.offset & ~7))
    one, two = at + first, at + second
    result.data[one : one + 8], result.data[two : two + 8] = (
        result.data[two : two + 8],
        result.data[one : one + 8],
    )
    rows = np.array(result.expectation.link_map)
    mine = rows["out_section"] == number
    is_first, is_second = (mine & (rows["out_offset"] == o) for o in (first, second))
    rows["out_offset"][is_first], rows["out_offset"][is_second] = second, first
    result.expectation = replace(result.expectation, link_map=rows)
    found = result.findings()
    assert found.startswith("unwind entries are not in the order of the code")
    assert "another target" not in found


def _two_entries(result: Result) -> tuple[int, int, int]:
    """A section of the index, and where two pieces of one entry each begin in it."""
    rows = result.expectation.link_map
    assert rows is not None
    for number, section in enumerate(result.elf.iter_sections()):
        mine = rows[(rows["out_section"] == number) & (rows["size"] == 8)]
        if section.name.startswith(".ARM.exidx") and len(mine) > 1:
            first, second = sorted(mine["out_offset"].tolist())[:2]
            return number, first, second
    raise AssertionError("no two entries")


def test_lost_index_entry(tmp_path: Path) -> None:
    result = Result(ARM, tmp_path)
    number, first, _ = _two_entries(result)
    rows = result.expectation.link_map
    assert rows is not None
    kept = (rows["out_section"] != number) | (rows["out_offset"] != first)
    result.expectation = replace(result.expectation, link_map=rows[kept])
    found = result.findings()
    assert "a function lost its unwind entry" in found
    assert "code without an unwind entry beside code with one" in found


def test_request_for_the_personality_routine(tmp_path: Path) -> None:
    result = Result(ARM, tmp_path)
    requests = [r for r in result.relocations(".ARM.exidx") if r.type == 0]
    assert len(requests) == len({r.field - r.offset for r in requests}), "one for each section"
    result.set_symbol(requests[0], 0, 0)
    assert "a request for a symbol is missing: `__aeabi_unwind_cpp_pr0`" in result.findings()


def test_thumb_function_as_section_and_addend(tmp_path: Path) -> None:
    """The number is the same, but a linker would no longer know that it is Thumb code."""
    result = Result(THUMB, tmp_path)
    symbols = result.symbols
    for r in result.relocations(".data.rel.ro"):
        symbol = symbols[r.symbol]
        if symbol["st_info"]["type"] != "STT_FUNC":
            continue
        assert symbol["st_value"] & 1
        number, beside = next(
            (i, s)
            for i, s in enumerate(symbols)
            if s["st_shndx"] == symbol["st_shndx"] and s["st_info"]["type"] != "STT_FUNC"
        )
        result.set_symbol(r, number, r.type)
        result.add("I", r.field, symbol["st_value"] - beside["st_value"])
        assert "a relocation has another target" in result.findings()
        return
    pytest.fail("no pointer to a function")


@pytest.mark.parametrize(("target", "section"), [(RISCV, ".data.rel.ro"), (POWER, ".text")])
def test_symbols_that_are_more_than_a_place(target: str, section: str, tmp_path: Path) -> None:
    """Another symbol and addend: right until code shrinks, or for another entry point."""
    result = Result(target, tmp_path)
    symbols = result.symbols
    for r in result.relocations(section):
        mine = symbols[r.symbol]
        if mine["st_info"]["type"] != "STT_FUNC":
            continue
        number, beside = next(
            (i, s)
            for i, s in enumerate(symbols)
            if s["st_shndx"] == mine["st_shndx"] and s["st_value"] != mine["st_value"]
        )
        result.set_symbol(r, number, r.type)
        result.add("q", r.at + 16, mine["st_value"] - beside["st_value"])
        assert "a relocation has another target" in result.findings()
        return
    pytest.fail("no pointer to a function")


def test_call_of_a_place_that_is_no_function(tmp_path: Path) -> None:
    """A linker changes the instruction set only on the way to a function (AAELF32)."""
    result = Result(ARM, tmp_path)
    symbols = result.symbols
    for r in result.relocations(".text"):
        mine = symbols[r.symbol]
        for i, s in enumerate(symbols):
            same = (s["st_shndx"], s["st_value"]) == (mine["st_shndx"], mine["st_value"])
            kinds = mine["st_info"]["type"], s["st_info"]["type"]
            if r.type == 28 and same and kinds == ("STT_FUNC", "STT_NOTYPE"):
                result.set_symbol(r, i, r.type)
                assert "a relocation has another target" in result.findings()
                return
    pytest.fail("no call")


# R_RISCV_ADD32, R_RISCV_SUB32 at the length of the code
@pytest.mark.parametrize("kind", [35, 39])
def test_length_of_code_in_an_unwind_entry(kind: int, tmp_path: Path) -> None:
    result = Result(RISCV, tmp_path)
    sound = bytes(result.data)
    length = next(r for r in result.relocations(".eh_frame") if r.type == kind)
    result.add("q", length.at + 16, 2)
    assert "a relocation of an unwind entry has another target" in result.findings()
    result.data[:] = sound
    result.set_symbol(length, length.symbol, kind - 1)
    assert "an unwind entry has a relocation of another type" in result.findings()
    result.data[:] = sound
    result.set_symbol(length, 0, 0)
    assert "an unwind entry lost a relocation" in result.findings()


@pytest.mark.parametrize("target", [ARM, RISCV])
def test_build_attributes(target: str, tmp_path: Path) -> None:
    result = Result(target, tmp_path)
    section = next(s for s in result.elf.iter_sections() if s.name.endswith(".attributes"))
    result.data[result.start + section["sh_offset"] + section["sh_size"] - 1] ^= 1
    assert "build attributes: differ" in result.findings()


def test_tables_of_big_endian_code_settle_nothing() -> None:
    little, big = machine.machine(183, "<"), machine.machine(183, ">")
    assert little.value.any() and not big.value.any()
    assert machine.machine(62, "<").got.any()
    assert machine.machine(22, ">").value.any() and not machine.machine(22, "<").value.any()
