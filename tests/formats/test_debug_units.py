"""Units of debug information that describe nothing live are left out, whole and only those."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import StripHookError, VerifyError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import native_kit as kit
from tests.formats.prelinked import Editor
from tests.tools import need

SOURCES = {
    "shared.h": """
struct shared_type { int first_member; int second_member; };
static inline __attribute__((noinline)) int used_inline(int x) { return x * 3 + 1; }
""",
    "live.c": """
#include "shared.h"
int helper_of_live(struct shared_type *s);
int live_entry(int x) {
  struct shared_type s = {x, x + 1};
  int live_local_variable = helper_of_live(&s);
  return live_local_variable + used_inline(x);
}
""",
    "dead.c": """
#include "shared.h"
struct only_dead_uses_this { long only_dead_member; };
int dead_entry(int x) {
  struct only_dead_uses_this unused_structure = {x};
  return (int)unused_structure.only_dead_member + used_inline(x);
}
static int dead_counter_variable;
int dead_second(void) { return dead_counter_variable++; }
""",
    "helper.c": """
#include "shared.h"
int helper_of_live(struct shared_type *helper_argument) {
  return helper_argument->first_member * helper_argument->second_member;
}
int neighbour_that_is_dead(int x) { return x - 2; }
""",
    "lonely.c": """
void lonely_function(void) { __asm__ volatile(""); }
""",
    "data.c": """
int described_only_by_data = 7;
int *address_of_data(void);
""",
}
USER = {
    "user.c": """
extern int described_only_by_data;
int live_entry(int);
int user_entry(int x) { return live_entry(x) + described_only_by_data; }
"""
}
MAIN = {"main.c": "int user_entry(int); int main(void) { return user_entry(2) == 0; }"}
SECTIONS = ("-ffunction-sections", "-fdata-sections", "-fPIC")
VARIANTS = {
    "gcc-5": ("gcc", "-gdwarf-5"),
    "gcc-4": ("gcc", "-gdwarf-4"),
    "gcc-4-64": ("gcc", "-gdwarf-4", "-gdwarf64"),
    "gcc-5-64": ("gcc", "-gdwarf-5", "-gdwarf64"),
    "gcc-5-O2": ("gcc", "-gdwarf-5", "-O2", "-fno-inline"),
    "gcc-4-O2": ("gcc", "-gdwarf-4", "-O2", "-fno-inline"),
    "gcc-types": ("gcc", "-gdwarf-4", "-fdebug-types-section"),
    "gcc-types-5": ("gcc", "-gdwarf-5", "-fdebug-types-section"),
    "gcc-pubnames": ("gcc", "-gdwarf-4", "-gpubnames"),
    "gcc-macros": ("gcc", "-gdwarf-5", "-g3"),
    "clang-5": ("clang-22", "-gdwarf-5", "-O1", "-fno-inline"),
    "clang-4": ("clang-22", "-gdwarf-4", "-O1", "-fno-inline", "-gpubnames"),
    "clang-names": ("clang-22", "-gdwarf-5", "-gpubnames"),
    "arm": ("arm-linux-gnueabihf-gcc", "-gdwarf-4"),
    "arm-5": ("arm-linux-gnueabihf-gcc", "-gdwarf-5", "-O1", "-fno-inline"),
    "aarch64": ("aarch64-linux-gnu-gcc", "-gdwarf-5"),
}
TRIPLES = {
    "arm": "armv7-unknown-linux-gnueabihf",
    "aarch64": "aarch64-unknown-linux-gnu",
}
# a file whose tables name all units, so that it is kept as one
TOGETHER = ("clang-names",)
# type units are referred to by signature: they stay with their file
WITH_TYPE_UNITS = ("gcc-types", "gcc-types-5")
DEAD_NAMES = ("only_dead_uses_this", "only_dead_member", "dead_counter_variable")


class Built:
    """An archive whose first member has several units, and what becomes of it."""

    def __init__(self, folder: Path, variant: str) -> None:
        compiler, *flags = VARIANTS[variant]
        self.variant, self.folder = variant, folder
        prefix = compiler.removesuffix("gcc") if "-linux-" in compiler else ""
        self.triple = TRIPLES.get(prefix.partition("-")[0], kit.TRIPLE)
        self.gcc = compiler if prefix else "gcc"
        objects = kit.build(folder, SOURCES, *flags, *SECTIONS, compiler=compiler)
        unwind_output = folder / "joined.o"
        kit.tool([need(f"{prefix}ld"), "-r", "--unique", "-o", unwind_output, *objects])
        user = kit.build(folder, USER, *flags, *SECTIONS, compiler=compiler)
        self.original = kit.archive(folder / "libt.a", [unwind_output, *user])
        self.main = kit.build(folder, MAIN, compiler=self.gcc)
        self.stripped, self.result = kit.strip(
            self.original, ("user_entry",), Strip.NONE, triple=self.triple
        )

    def expectation(self) -> Expectation:
        target = Target.parse(self.triple)
        return Expectation(target, ("user_entry",), Strip.NONE, self.result.link_map, b"marker")

    def link(self, library: Path, *flags: str) -> Path:
        program = self.folder / f"{library.parent.name}-program"
        kit.tool([need(self.gcc), "-o", program, *self.main, library, *flags])
        return program


@pytest.fixture(scope="module", params=VARIANTS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp(request.param), request.param)


def dump(path: Path, *words: str) -> str:
    return kit.tool([need("llvm-dwarfdump-22", "llvm-dwarfdump"), *words, path], accept=(0, 1))


def units(path: Path) -> list[str]:
    """The names of all compile units."""
    said = dump(path, "--debug-info", "--recurse-depth=0", "--diff")
    found = re.findall(r'DW_AT_name\s*\((?:"|\S+ = ")([^"]*)"\)', said)
    return sorted(Path(name).name for name in found)


def test_what_describes_nothing_is_gone(built: Built) -> None:
    before, after = units(built.original), units(built.stripped)
    assert before == ["data.c", "dead.c", "helper.c", "live.c", "lonely.c", "user.c"]
    gone = [] if built.variant in TOGETHER else ["dead.c", "lonely.c"]
    assert after == sorted(set(before) - set(gone))


def test_the_checker_accepts_it(built: Built) -> None:
    verify(built.original, built.stripped, built.expectation())


def test_its_strings_are_gone(built: Built) -> None:
    if built.variant in (*TOGETHER, *WITH_TYPE_UNITS):
        pytest.skip("this file keeps its strings: it is kept as one, or its type units are")
    raw = built.stripped.read_bytes()
    assert b"first_member" in raw and b"live_local_variable" in raw
    assert b"only_dead_member" in built.original.read_bytes()
    for name in DEAD_NAMES:
        assert name.encode() not in raw, name


def errors(path: Path) -> set[str]:
    found = re.findall(r"^error: (.*)$", dump(path, "--verify"), re.M)
    return {re.sub(r"0x[0-9a-f]+|\d+", "N", e) for e in found}


def test_the_rest_is_well_formed(built: Built) -> None:
    drop = "-Wl,--gc-sections"
    programs = [built.link(library, drop) for library in (built.original, built.stripped)]
    assert errors(programs[1]) <= errors(programs[0])


def places(program: Path, thumb: bool = False) -> dict[str, str]:
    """Names and lines of every instruction of the library's functions."""
    found = {}
    for row in kit.tool([need("nm", "llvm-nm-22"), "-S", "--defined-only", program]).splitlines():
        words = row.split()
        if len(words) == 4 and re.search(r"entry|helper|inline", words[3]):
            start = int(words[0], 16) & ~int(thumb)
            asked = [hex(start + i) for i in range(int(words[1], 16))]
            tool = need("llvm-symbolizer-22", "llvm-symbolizer")
            found[words[3]] = kit.tool([tool, f"--obj={program}", "--inlines", *asked])
    return found


def test_every_instruction_symbolises_as_before(built: Built) -> None:
    thumb, drop = built.variant.startswith("arm"), "-Wl,--gc-sections"
    libraries = (built.original, built.stripped)
    before, after = (places(built.link(library, drop), thumb) for library in libraries)
    assert {"user_entry", "live_entry", "helper_of_live", "used_inline"} <= after.keys()
    assert after == {name: before[name] for name in after}
    assert not any("??:0" in said for said in after.values())


def test_gdb_knows_the_types(built: Built) -> None:
    if built.triple != kit.TRIPLE:
        pytest.skip("gdb is for the machine's own programs")
    said = []
    for library in (built.original, built.stripped):
        argv = [need("gdb"), "-nx", "-batch", "-ex", "break helper_of_live", "-ex", "run"]
        argv += ["-ex", "print *helper_argument", "-ex", "ptype struct shared_type", "-ex", "up"]
        argv += ["-ex", "info locals", "-ex", "print described_only_by_data"]
        program = built.link(library)
        text = kit.tool([*argv, program]).replace(str(program), "")
        said.append(re.sub(r"0x[0-9a-f]+|Thread debugging.*\n|Using host.*\n", "", text))
    assert "first_member = 2" in said[1]
    assert said[0] == said[1]


@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
def test_link_time_optimisation(version: str, tmp_path: Path) -> None:
    """Units that share tables, and refer to one another."""
    flags = (version, "-O1", "-flto", *SECTIONS)
    bitcode = kit.build(tmp_path, SOURCES, *flags, compiler="clang-22")
    unwind_output, member = tmp_path / "joined.bc", tmp_path / "joined.o"
    kit.tool([need("llvm-link-22", "llvm-link"), "-o", unwind_output, *bitcode])
    words = ["-O2", "-ffunction-sections", "-fdata-sections", "-fPIC"]
    kit.tool([need("clang-22"), "-c", *words, "-o", member, unwind_output])
    user = kit.build(tmp_path, USER, version, *SECTIONS, compiler="clang-22")
    original = kit.archive(tmp_path / "libt.a", [member, *user])
    stripped, result = kit.strip(original, ("user_entry",), Strip.NONE)
    expectation = Expectation(
        Target.parse(kit.TRIPLE), ("user_entry",), Strip.NONE, result.link_map, b"marker"
    )
    verify(original, stripped, expectation)
    assert set(units(original)) == {"user.c", *SOURCES} - {"shared.h"}
    # units of version 5 share a table of addresses, and `int` is in the unit of dead.c alone
    gone = {"lonely.c"} if version == "-gdwarf-4" else set()
    assert set(units(stripped)) == set(units(original)) - gone
    main = kit.build(tmp_path, MAIN)
    programs = [
        kit.link(tmp_path / name, [*main, library], "bfd", "-Wl,--gc-sections")
        for name, library in (("before", original), ("after", stripped))
    ]
    assert errors(programs[1]) <= errors(programs[0])
    before, after = (places(program) for program in programs)
    assert after and after == {name: before[name] for name in after}


@pytest.mark.parametrize("variant", ["gcc-4", "gcc-5", "clang-5"])
def test_damage_is_told_or_does_no_harm(variant: str, tmp_path: Path) -> None:
    """Whatever stands in debug sections, the result is verified or there is a clear error."""
    built = Built(tmp_path, variant)
    whole = bytearray(built.original.read_bytes())
    start = whole.index(b"\x7fELF")
    editor = Editor(bytes(whole[start:]))
    spans = [
        (start + s["offset"], s["size"])
        for name, s in ((name, editor.section(name)) for name in sorted(set(editor.names)))
        if name.startswith((".debug_", ".rela.debug_")) and s["size"]
    ]
    pick = random.Random(variant)
    fine = 0
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(pick.choice((1, 4))):
            at, size = pick.choice(spans)
            data[at + pick.randrange(size)] = pick.choice((0, 1, 2, 5, 0x7F, 0xFF))
        built.original.write_bytes(data)
        try:
            stripped, result = kit.strip(built.original, ("user_entry",), Strip.NONE)
            expectation = replace(built.expectation(), link_map=result.link_map)
            verify(built.original, stripped, expectation)
            fine += 1
        except VerifyError as e:
            pytest.fail(f"{e.findings}")
        except StripHookError as e:
            assert "internal" not in str(e)
    assert fine > 40


# ---- what the checker finds


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("plain"), "gcc-4")


def findings(built: Built, data: bytes, expectation: Expectation) -> str:
    changed = built.folder / "changed.a"
    changed.write_bytes(data)
    with pytest.raises(VerifyError) as caught:
        verify(built.original, changed, expectation)
    return "\n".join(caught.value.findings)


class Change:
    """The archive with one object, and an editor of the object."""

    def __init__(self, built: Built) -> None:
        self.whole = built.stripped.read_bytes()
        self.start = self.whole.index(b"\x7fELF")
        self.editor = Editor(self.whole[self.start :])

    def __setitem__(self, at: int, value: bytes) -> None:
        self.editor.data[at : at + len(value)] = value

    def data(self) -> bytes:
        return self.whole[: self.start] + bytes(self.editor.data)

    def relocation(self, section: str, which: int) -> int:
        header = self.editor.section(f".rela{section}")
        return header["offset"] + 24 * which


def test_another_byte_is_found(plain: Built) -> None:
    change = Change(plain)
    header = change.editor.section(".debug_abbrev")
    at = header["offset"] + header["size"] // 2
    change[at] = bytes([change.editor.data[at] ^ 1])
    assert "other bytes: .debug_abbrev" in findings(plain, change.data(), plain.expectation())


def test_another_target_is_found(plain: Built) -> None:
    change = Change(plain)
    at = change.relocation(".debug_info", 3) + 16
    change[at] = bytes([change.editor.data[at] ^ 1])
    found = findings(plain, change.data(), plain.expectation())
    assert "a relocation of debug information has another target" in found


def test_a_missing_relocation_is_found(plain: Built) -> None:
    change = Change(plain)
    first, second = (change.relocation(".debug_info", i) for i in (2, 3))
    change[second] = bytes(change.editor.data[first : first + 24])
    found = findings(plain, change.data(), plain.expectation())
    assert "a relocation of debug information is missing" in found


def test_a_missing_tombstone_is_found(plain: Built) -> None:
    """Without it a dead function would claim an address."""
    change = Change(plain)
    header = change.editor.section(".debug_ranges")
    octets = change.editor.data[header["offset"] : header["offset"] + header["size"]]
    at = octets.find((1).to_bytes(8, "little"))
    assert at >= 0 and at % 8 == 0, "no tombstone in the ranges"
    change[header["offset"] + at] = bytes(8)
    found = findings(plain, change.data(), plain.expectation())
    assert "dead debug information without a tombstone: .debug_ranges" in found


def test_a_lost_unit_is_found(plain: Built) -> None:
    """A claim without a part of the original that describes live code."""
    rows = plain.result.link_map
    assert rows is not None
    editor = Change(plain).editor
    number = editor.number(".debug_line")
    mine = [i for i, row in enumerate(rows) if row["out_section"] == number]
    assert len(mine) > 1
    expectation = replace(
        plain.expectation(), link_map=rows[[i for i in range(len(rows)) if i != mine[0]]]
    )
    found = findings(plain, plain.stripped.read_bytes(), expectation)
    assert "bytes that no input explains: .debug_line" in found
    moved = rows.copy()
    moved["out_offset"][mine[0]] += 1
    found = findings(plain, plain.stripped.read_bytes(), replace(expectation, link_map=moved))
    assert "debug information" in found


def test_debug_information_of_live_code_cannot_be_dropped(plain: Built) -> None:
    """An object without any debug sections, and a claim that agrees with it."""
    stripped, result = kit.strip(plain.original, ("user_entry",), Strip.DEBUGINFO)
    expectation = replace(plain.expectation(), link_map=result.link_map)
    found = findings(plain, stripped.read_bytes(), expectation)
    assert "debug information of live code is gone" in found
