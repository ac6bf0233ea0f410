"""The COFF checker finds what a broken engine could do; each test breaks one thing."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool
from tests.formats.test_coff_engine import SECTIONS

TARGETS = ("x86_64-pc-windows-msvc", "aarch64-pc-windows-msvc", "x86_64-pc-windows-gnu")
C_ONE = """
extern int outside(int);
int used(int), maybe(void) __attribute__((weak));
static int table[4] = {1, 2, 3, 4};
int *pointer = table + 1;
__attribute__((noinline)) static int helper(int a) { return outside(a) + table[a & 3] + 1; }
__attribute__((noinline)) static int alone(int a) { return outside(a) * outside(3); }
static void first(void) { table[0]++; }
__attribute__((section(".CRT$XCU"), used)) static void (*const start)(void) = first;
int api(int a) { return helper(a) + *pointer + (maybe ? maybe() : 0) + used(a) + alone(a); }
int other(int a) { return helper(a + 1) + used(a); }
"""
C_TWO = """
int outside(int);
int used(int a) { return outside(a) + 7; }
__asm__(".section .drectve,\\"yn\\"\\n.ascii \\" /DEFAULTLIB:some\\"\\n.text\\n");
"""
EXPORTS = ("api", "other")
FLAGS = ("-O1", "-fno-inline", "-fasynchronous-unwind-tables", *SECTIONS)


@dataclass
class Result:
    """A good result, which tests break. `at`: where its object is in the library."""

    original: Path
    library: Path
    expectation: Expectation
    raw: bytearray
    at: int
    parts: kit.Parts

    def findings(self) -> str:
        size = len(self.parts.raw)
        self.raw[self.at : self.at + size] = self.parts.raw
        self.library.write_bytes(self.raw)
        with pytest.raises(VerifyError) as caught:
            verify(self.original, self.library, self.expectation)
        return "\n".join(caught.value.findings)


@pytest.fixture(scope="module", params=TARGETS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Expectation]:
    target = request.param
    folder = tmp_path_factory.mktemp("verify")
    objects = kit.compile(folder, target, {"one.c": C_ONE, "two.c": C_TWO}, *FLAGS)
    original = kit.archive(folder / "t.lib", target, objects)
    definition = folder / "some.def"
    definition.write_text("LIBRARY some.dll\nEXPORTS\n outside\n")
    machine = "arm64" if target.startswith("aarch64") else "i386:x86-64"
    imports = folder / "some.lib"
    tool([kit.llvm("dlltool"), "-m", machine, "-d", definition, "-l", imports])
    tool([kit.llvm("ar"), "qLsD", original, imports])
    out, done = kit.strip(original, target, EXPORTS)
    assert len(done.import_members) == 4
    asked = (Target.parse(target), EXPORTS, Strip.DEBUGINFO, done.link_map, kit.MARKER)
    expectation = Expectation(*asked, import_members=done.import_members)
    verify(original, out, expectation)
    return original, out, expectation


@pytest.fixture(scope="module")
def made_with_debug(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Expectation]:
    """DWARF 4 and 5; `one.c` has a function and a common symbol that nobody needs."""
    target = "x86_64-pc-windows-gnu"
    folder = tmp_path_factory.mktemp("debug")
    more = """
int unused(int a) { return used(a) - 2; }
int block[2], forgotten[2];
__attribute__((section(".CRT$XCV"), used)) static int *const held = block;
"""
    flags = (*FLAGS, "-fcommon", "-g", "-gdwarf-4")
    objects = kit.compile(folder, target, {"one.c": C_ONE + more}, *flags)
    objects += kit.compile(folder, target, {"two.c": C_TWO}, *FLAGS, "-g", "-gdwarf-5")
    original = kit.archive(folder / "t.a", target, objects)
    out, done = kit.strip(original, target, EXPORTS, Strip.NONE)
    expectation = Expectation(Target.parse(target), EXPORTS, Strip.NONE, done.link_map, kit.MARKER)
    verify(original, out, expectation)
    return original, out, expectation


@pytest.fixture
def covers_debug(made_with_debug: tuple[Path, Path, Expectation], tmp_path: Path) -> Result:
    return _result(made_with_debug, tmp_path)


@pytest.fixture
def good(made: tuple[Path, Path, Expectation], tmp_path: Path) -> Result:
    return _result(made, tmp_path)


def _result(made: tuple[Path, Path, Expectation], tmp_path: Path) -> Result:
    original, library, expectation = made
    raw = library.read_bytes()
    contents = kit.first_object(library).read_bytes()
    at = raw.index(contents)
    broken = tmp_path / library.name
    return Result(original, broken, expectation, bytearray(raw), at, kit.Parts(contents))


def _set(form: str, at: int, value: int) -> Callable[[Result], None]:
    """Another value at a place of the object's header."""
    return lambda r: struct.pack_into(form, r.parts.raw, at, value)


def _class(name: str, storage: int) -> Callable[[Result], None]:
    def change(r: Result) -> None:
        r.parts.raw[r.parts.symbol(name.encode()) + 16] = storage

    return change


def _value(name: str, more: int) -> Callable[[Result], None]:
    def change(r: Result) -> None:
        at = r.parts.symbol(name.encode()) + 8
        struct.pack_into("<I", r.parts.raw, at, struct.unpack_from("<I", r.parts.raw, at)[0] + more)

    return change


def _name(old: bytes, new: bytes) -> Callable[[Result], None]:
    def change(r: Result) -> None:
        at = r.parts.symbol(old)
        r.parts.raw[at : at + 8] = new.ljust(8, b"\0")

    return change


def _byte(section: str, offset: int) -> Callable[[Result], None]:
    def change(r: Result) -> None:
        r.parts.raw[r.parts.contents(section.encode()) + offset] ^= 0x10

    return change


def _data_byte(r: Result) -> None:
    at = r.parts.raw.index(struct.pack("<4I", 1, 2, 3, 4))
    r.parts.raw[at + 8] = 9


def _flags(section: str, clear: int, put: int = 0) -> Callable[[Result], None]:
    def change(r: Result) -> None:
        at = r.parts.section(section.encode()) + 36
        flags = struct.unpack_from("<I", r.parts.raw, at)[0]
        struct.pack_into("<I", r.parts.raw, at, flags & ~clear | put)

    return change


def _relocation(section: str, field: int, form: str, change_by: int) -> Callable[[Result], None]:
    def change(r: Result) -> None:
        at = r.parts.relocation(section.encode()) + field
        old = struct.unpack_from(form, r.parts.raw, at)[0]
        struct.pack_into(form, r.parts.raw, at, old + change_by)

    return change


def _addend(r: Result) -> None:
    """Where the first line table of a unit is."""
    rows = r.parts.relocation(b".debug_info")
    field = struct.unpack_from("<I", r.parts.raw, rows)[0]
    r.parts.raw[r.parts.contents(b".debug_info") + field] ^= 1


def _no_relocation(r: Result) -> None:
    at = r.parts.section(b".text") + 32
    count = struct.unpack_from("<H", r.parts.raw, at)[0]
    # the section's definition says it, too
    for place in (at, _definition(r, b".text") + 4):
        struct.pack_into("<H", r.parts.raw, place, count - 1)
    if count == 1:
        struct.pack_into("<I", r.parts.raw, at - 8, 0)


def _definition(r: Result, name: bytes, number: int = 0) -> int:
    """Where a section's definition is."""
    return r.parts.symbol(name, number) + 18


def _any(r: Result) -> None:
    number = r.parts.raw[r.parts.symbol(b"helper") + 12]
    at = next(
        a + 18 for n in range(20) if r.parts.raw[(a := r.parts.symbol(b".text", n)) + 12] == number
    )
    r.parts.raw[at + 14] = 2


def _selection(r: Result) -> None:
    r.parts.raw[_definition(r, b".text") + 14] = 0


def _associated_elsewhere(r: Result) -> None:
    first, second = (_definition(r, b".pdata", n) + 12 for n in (0, 1))
    r.parts.raw[first : first + 2] = r.parts.raw[second : second + 2]


def _weak(r: Result) -> None:
    r.parts.raw[r.parts.symbol(b"maybe") + 18 + 4] = 1


def _marker(r: Result) -> None:
    at = r.parts.raw.index(kit.MARKER)
    r.parts.raw[at + 1] ^= 1


def _directive(r: Result) -> None:
    at = r.parts.raw.index(b"/DEFAULTLIB:some")
    r.parts.raw[at + 14 : at + 16] = b"ng"


def _moved(r: Result) -> None:
    assert r.expectation.link_map is not None
    rows = r.expectation.link_map.copy()
    chosen = int((rows["size"] > 8).argmax())
    rows["out_offset"][chosen] += 4
    rows["size"][chosen] -= 4
    r.expectation = replace(r.expectation, link_map=rows)


def _forgotten(r: Result) -> None:
    assert r.expectation.link_map is not None
    r.expectation = replace(r.expectation, link_map=r.expectation.link_map[1:])


def _index(r: Result) -> None:
    at = r.raw.index(b"other\0")
    r.raw[at : at + 5] = b"othes"


def _companion(r: Result) -> None:
    r.raw[r.raw.rindex(b"some.dll")] ^= 1


def _companions_order(r: Result) -> None:
    r.expectation = replace(r.expectation, import_members=r.expectation.import_members[::-1])


def _time(r: Result) -> None:
    r.raw[8 + 16] = ord("1")


BREAKS: dict[str, tuple[Callable[[Result], None], str]] = {
    "a leaked function": (_class("helper", 2), "helper"),
    "an export that is static": (_class("api", 3), "an export is missing"),
    "an export of another name": (_name(b"other", b"othes"), "no export"),
    "an export elsewhere": (_value("api", 4), "api"),
    "an undefined name": (_name(b"outside", b"outsidf"), "undefined, and it was not before"),
    "a byte of code": (_byte(".text", 3), "contents|relocation"),
    "a byte of data": (_data_byte, "contents"),
    "a byte of unwind data": (_byte(".xdata", 1), "contents"),
    "a relocation's symbol": (_relocation(".text", 4, "<I", 1), "relocation"),
    "a relocation's place": (_relocation(".text", 0, "<I", 1), "relocation"),
    "a relocation's type": (_relocation(".text", 8, "<H", 1), "relocation"),
    "a lost relocation": (_no_relocation, "lost its relocation"),
    "an entry of unwind data": (_relocation(".pdata", 4, "<I", 1), "unwind|relocation"),
    "a selection that others replace": (_any, "static leader"),
    "no selection": (_selection, "selection 0"),
    "unwind data with another function": (_associated_elsewhere, "unwind"),
    "an initialiser that can be dropped": (_flags(".CRT$XCU", 0, 0x1000), "initialisers"),
    "code that does not run": (_flags(".text", 0x20000000), "section"),
    "data that cannot be written": (_flags(".data", 0x80000000), "section"),
    "a low alignment": (_flags(".text", 0xF00000, 0x100000), "aligned"),
    "a weak external's search": (_weak, "maybe"),
    "the marker": (_marker, "marker"),
    "a directive": (_directive, "directives"),
    "a piece elsewhere": (_moved, "aligned|contents|relocation"),
    "a piece that is not told": (_forgotten, "contents|placement|relocation|unwind|section"),
    "another processor": (_set("<H", 0, 0x14C), "processor"),
    "a time": (_set("<I", 4, 7), "time"),
    "the archive's index": (_index, "archive's index"),
    "a companion's bytes": (_companion, "differ from the original"),
    "the companions' order": (_companions_order, "the members"),
    "a member's time": (_time, "the archive"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_it_is_found(good: Result, name: str) -> None:
    change, expected = BREAKS[name]
    change(good)
    said = good.findings()
    assert any(words in said for words in expected.split("|")), said


# What is told of debug information


def _dead_range(r: Result) -> None:
    """A one in `.debug_ranges`, whose entry begins with what is gone, becomes a zero."""
    at = r.parts.contents(b".debug_ranges")
    size = struct.unpack_from("<I", r.parts.raw, r.parts.section(b".debug_ranges") + 16)[0]
    words = struct.unpack_from(f"<{size // 8}Q", r.parts.raw, at)
    struct.pack_into("<Q", r.parts.raw, at + 8 * words.index(1), 0)


def _dead_code(r: Result) -> None:
    """A field of `.debug_info` without a relocation in the result holds no zero."""
    original = kit.Parts(kit.first_object(r.original).read_bytes())
    fields = []
    for parts in (original, r.parts):
        count = struct.unpack_from("<H", parts.raw, parts.section(b".debug_info") + 32)[0]
        first = parts.relocation(b".debug_info")
        fields.append({bytes(parts.raw[first + 10 * n :][:4]) for n in range(count)})
    places = [{struct.unpack("<I", field)[0] for field in some} for some in fields]
    dead = min(places[0] - places[1])
    r.parts.raw[r.parts.contents(b".debug_info") + dead] = 4


def _row(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Result], None]:
    """What is claimed of the first piece of debug information is changed."""

    def apply(r: Result) -> None:
        assert r.expectation.link_map is not None
        rows = r.expectation.link_map.copy()
        number = (r.parts.section(b".debug_info") - 20) // 40 + 1
        r.expectation = replace(r.expectation, link_map=change(rows, rows["out_section"] == number))

    return apply


def _moved_row(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    rows["out_offset"][np.flatnonzero(chosen)[0]] += 1
    return rows


def _cut_row(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    rows["size"][np.flatnonzero(chosen)[0]] -= 1
    return rows


def _twice(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    first, second = np.flatnonzero(chosen)[:2]
    rows["out_offset"][second] = rows["out_offset"][first]
    return rows


def _lost_row(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return rows[np.arange(len(rows)) != np.flatnonzero(chosen)[0]]


def _of_another(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    rows["member"][np.flatnonzero(chosen)[0]] = 77
    return rows


BREAKS_OF_DEBUG: dict[str, tuple[Callable[[Result], None], str]] = {
    "a byte of a unit": (_byte(".debug_info", 16), "differs from the original"),
    "a byte of a line table": (_byte(".debug_line", 20), "differs from the original"),
    "a byte of a string": (_byte(".debug_str", 1), "differs from the original"),
    "a relocation's symbol": (_relocation(".debug_info", 4, "<I", 2), "another place"),
    "a relocation's type": (_relocation(".debug_line", 8, "<H", 1), "another place"),
    "a relocation's place": (_relocation(".debug_info", 0, "<I", 1), "relocation"),
    "an addend": (_addend, "another place"),
    "an entry of a list of ranges that ends it": (_dead_range, "no tombstone"),
    "an address of what is gone": (_dead_code, "no tombstone"),
    "a unit elsewhere": (_row(_moved_row), "differs|overlaps|wrong place"),
    "a unit in part": (_row(_cut_row), "wrong place"),
    "two units in one place": (_row(_twice), "overlaps"),
    "a unit that is lost": (_row(_lost_row), "is lost"),
    "a unit of nothing": (_row(_of_another), "no code is from"),
}


@pytest.mark.parametrize("name", BREAKS_OF_DEBUG)
def test_it_is_found_in_debug_information(covers_debug: Result, name: str) -> None:
    change, expected = BREAKS_OF_DEBUG[name]
    change(covers_debug)
    said = [line for line in covers_debug.findings().splitlines() if "debug information" in line]
    assert any(words in "\n".join(said) for words in expected.split("|")), said


def test_random_damage_ends_in_findings(good: Result) -> None:
    """Whatever byte of the object is another one, the checker says so or nothing depends on it."""
    chance = random.Random(7)
    found = 0
    for _ in range(120):
        raw = bytearray(good.raw)
        at = chance.randrange(good.at, good.at + len(good.parts.raw))
        raw[at] ^= 1 << chance.randrange(8)
        good.library.write_bytes(raw)
        try:
            verify(good.original, good.library, good.expectation)
        except VerifyError as e:
            assert e.findings
            found += 1
    assert found > 60


def _eh_frame(r: Result) -> tuple[dict[int, int], list[int]]:
    """Of the first `.eh_frame` in the result: where its relocations are by the place of their
    field, and the places of pc_begin of the FDEs, by a walk over the records."""
    header = r.parts.section(b".eh_frame")
    size, start, rows = struct.unpack_from("<III", r.parts.raw, header + 16)
    (count,) = struct.unpack_from("<H", r.parts.raw, header + 32)
    fields = {
        start + struct.unpack_from("<I", r.parts.raw, at)[0]: at
        for at in range(rows, rows + 10 * count, 10)
    }
    begins, at = [], start
    while at < start + size:
        length, cie = struct.unpack_from("<II", r.parts.raw, at)
        if cie:
            begins.append(at + 8)
        at += 4 + length
    return fields, begins


def test_an_eh_frame_that_describes_functions_which_are_gone(tmp_path: Path) -> None:
    target = "i686-pc-windows-gnu"
    objects = kit.compile(tmp_path, target, {"one.c": C_ONE, "two.c": C_TWO}, *FLAGS)
    original = kit.archive(tmp_path / "t.a", target, objects)
    out, done = kit.strip(original, target, ["other"])
    asked = (Target.parse(target), ("_other",), Strip.DEBUGINFO, done.link_map, kit.MARKER)
    made = original, out, Expectation(*asked)
    verify(*made)

    (tmp_path / "broken").mkdir()
    fields, begins = _eh_frame(_result(made, tmp_path / "broken"))
    live, dead = [b for b in begins if b in fields], [b for b in begins if b not in fields]
    assert len(live) >= 2
    assert len(dead) >= 2
    for place in dead:
        r = _result(made, tmp_path / "broken")
        r.parts.raw[place] ^= 0x10
        assert "differ from the original" in r.findings()
    for place in live:
        r = _result(made, tmp_path / "broken")
        struct.pack_into("<H", r.parts.raw, fields[place] + 8, 0)
        assert ".eh_frame" in r.findings()


ALIKE_C = """
int outside(int);
#define F(n) __attribute__((noinline)) int n(int a) { return outside(a) + outside(a + 1) + #n[0]; }
F(one) F(two) F(three) F(four)
__attribute__((noinline)) int large(int a) { volatile int b[900]; b[a] = 1; return outside(b[a]); }
int api(int a) { return one(a) + two(a) + three(a) + four(a) + large(a); }
"""


def _entries(r: Result) -> list[tuple[int, int, int]]:
    """Of the entries of the first `.pdata`: (function, record), and where the latter's field is.

    Places are offsets in the sections that the fields count from.
    """
    header = r.parts.section(b".pdata")
    size, start = struct.unpack_from("<II", r.parts.raw, header + 16)
    places = range(start, start + size, 12)
    return [(*struct.unpack_from("<I4xI", r.parts.raw, at), at + 8) for at in places]


@pytest.mark.parametrize("target", ["x86_64-pc-windows-msvc", "x86_64-pc-windows-gnu"])
def test_equal_unwind_information_is_kept_once(target: str, tmp_path: Path) -> None:
    original = kit.library(tmp_path, target, {"alike.c": ALIKE_C}, *FLAGS)
    out, done = kit.strip(original, target, ["api"])
    link_map = done.link_map
    assert link_map is not None
    asked = (Target.parse(target), ("api",), Strip.DEBUGINFO, link_map, kit.MARKER)
    made = original, out, Expectation(*asked)
    verify(*made)
    said = tool([kit.llvm("readobj"), "--unwind", kit.first_object(out)])
    assert said.count("RuntimeFunction {") == 6  # api and what it calls
    assert said.count("STACK") + said.count("ALLOC_SMALL") >= 5
    (tmp_path / "broken").mkdir()
    r = _result(made, tmp_path / "broken")
    entries = _entries(r)
    records = sorted({record for _, record, _ in entries})
    assert len(entries) == 6
    assert 2 <= len(records) <= 3  # the four that are alike have one

    # an entry for another function's record, which saves something else
    changes = 0
    for _, record, field in entries:
        for other in records:
            if other != record:
                r = _result(made, tmp_path / "broken")
                struct.pack_into("<I", r.parts.raw, field, other)
                assert "refers to another place" in r.findings()
                changes += 1
    assert changes >= 6

    # an engine that takes two records for equal which are not
    rows = np.flatnonzero(link_map["out_section"] == _number(r, b".xdata"))
    for row in rows.tolist():
        for other in records:
            if other != link_map["out_offset"][row]:
                claimed = link_map.copy()
                claimed["out_offset"][row] = other
                wrong = replace(made[2], link_map=claimed)
                with pytest.raises(VerifyError):
                    verify(original, out, wrong)


def _number(r: Result, name: bytes) -> int:
    return 1 + (r.parts.section(name) - 20) // 40


CODEVIEW_C = """
int outside(int);
static __attribute__((noinline)) int inner(int a) { return outside(a) + 1; }
int gone(int a) { return inner(a) * 5; }
int api(int a) {
  int b = inner(a);
  return b * inner(b);
}
"""


@pytest.fixture(scope="module", params=["x86_64", "i686", "aarch64"])
def made_with_codeview(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Expectation]:
    target = f"{request.param}-pc-windows-msvc"
    folder = tmp_path_factory.mktemp("codeview")
    original = kit.library(folder, target, {"a.c": CODEVIEW_C}, *FLAGS, "-g", "-gcodeview")
    out, done = kit.strip(original, target, ["api"], Strip.NONE)
    names = (f"{kit.prefix(target)}api",)
    expectation = Expectation(Target.parse(target), names, Strip.NONE, done.link_map, kit.MARKER)
    verify(original, out, expectation)
    return original, out, expectation


def _codeview(r: Result, kind: int) -> list[tuple[int, int]]:
    """(where its contents are, their size) of each subsection of a kind in the object."""
    found = []
    for header in range(20, 20 + 40 * r.parts.count, 40):
        if r.parts.name(header) != b".debug$S":
            continue
        size, start = struct.unpack_from("<II", r.parts.raw, header + 16)
        at = start + 4
        while at < start + size:
            what, length = struct.unpack_from("<II", r.parts.raw, at)
            if what == kind:
                found.append((at + 8, length))
            at += 8 + -(-length // 4) * 4
    return found


@pytest.mark.parametrize(
    ("kind", "offset", "what"),
    [
        (0xF2, 8, "code size"),
        (0xF2, 12 + 12 + 4, "line"),
        (0xF2, 12 + 12, "offset of a line"),
        (0xF2, 12, "file"),
        (0xF3, 3, "name of a file"),
        (0xF4, 8, "checksum of a file"),
    ],
)
def test_what_codeview_tells_of_a_function_is_compared(
    made_with_codeview: tuple[Path, Path, Expectation],
    tmp_path: Path,
    kind: int,
    offset: int,
    what: str,
) -> None:
    parts = _codeview(_result(made_with_codeview, tmp_path), kind)
    assert len(parts) >= (2 if kind == 0xF2 else 1), what
    for start, size in parts:
        r = _result(made_with_codeview, tmp_path)
        assert offset < size
        r.parts.raw[start + offset] ^= 1
        assert "CodeView" in r.findings()


def test_records_of_functions_are_compared(
    made_with_codeview: tuple[Path, Path, Expectation], tmp_path: Path
) -> None:
    found = 0
    for start, size in _codeview(_result(made_with_codeview, tmp_path), 0xF1):
        at = start
        while at < start + size:
            r = _result(made_with_codeview, tmp_path)
            length, kind = struct.unpack_from("<HH", r.parts.raw, at)
            if kind in (0x110F, 0x1110, 0x1146, 0x1147):
                found += 1
                for offset in (16, 20, 24, 39):  # code size, where it begins and ends, name
                    r = _result(made_with_codeview, tmp_path)
                    r.parts.raw[at + offset] ^= 1
                    assert "CodeView" in r.findings()
            at += 2 + length
    assert found == 2


def test_codeview_of_another_function_is_found(
    made_with_codeview: tuple[Path, Path, Expectation], tmp_path: Path
) -> None:
    """A line table that refers to the other function's section."""
    good = _result(made_with_codeview, tmp_path)
    tables = {start for start, _ in _codeview(good, 0xF2)}
    found = {}  # of each table: its relocation, and the symbol
    for header in range(20, 20 + 40 * good.parts.count, 40):
        if good.parts.name(header) == b".debug$S":
            start, rows, count = struct.unpack_from("<II4xH", good.parts.raw, header + 20)
            for at in range(rows, rows + 10 * count, 10):
                field, symbol, kind = struct.unpack_from("<IIH", good.parts.raw, at)
                if start + field in tables and kind in (0xB, 0x8):
                    found[at] = symbol
    assert len(found) == len(tables) == 2
    for at, symbol in found.items():
        r = _result(made_with_codeview, tmp_path)
        other = next(o for o in found.values() if o != symbol)
        struct.pack_into("<I", r.parts.raw, at + 4, other)
        assert "CodeView" in r.findings()
