"""Debug information that stays: sound in the object, and found by dsymutil from a program."""

from __future__ import annotations

import random
import re
import struct
import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ObjectError, StripHookError
from cargo_strip_hook.core.requests import Granularity, Strip
from tests.consumers import darwin_image
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.formats.test_macho_engine import MAIN
from tests.tools import need

ONE = """
extern int two(int), maybe(int *);
struct pair { int left, right; };
static int counter;
static __attribute__((noinline)) int helper(struct pair *p) {
  int sum = p->left;
  for (int i = 0; i < p->right; i++) sum += maybe(&i);
  return sum + counter++;
}
int one_dead(int a) { struct pair p = {a, 2}; return helper(&p) + 7; }
int one_api(int a) {
  struct pair p = {a, a + 1};
  return two(a) + helper(&p);
}
int one_other(int a) { return one_api(a) * 2; }
const int exported_data = 3;
"""
TWO = """
int two_dead(int a) { return a / 3; }
static __attribute__((noinline)) int helper(int a) { return a * 5 + 1; }
int two(int a) { return helper(a) + helper(a + 1); }
int maybe(int *p) { return *p; }
"""
EXPORTS = ("_one_api", "_one_other", "_exported_data")


def lines(program: Path) -> dict[str, list[str]]:
    """Function -> file:line of its start, by the dSYM bundle that dsymutil makes of a program."""
    bundle = program.with_suffix(".dSYM")
    tool([need("dsymutil-22", "dsymutil"), program, "-o", bundle])
    said = tool([kit.llvm("dwarfdump"), "--verify", bundle])
    assert "No errors." in said
    image = darwin_image.load(program.read_bytes())
    functions = image.functions()
    inner = bundle / "Contents" / "Resources" / "DWARF" / program.name
    done = subprocess.run(
        [kit.llvm("symbolizer"), f"--obj={inner}", "--output-style=GNU", "--no-inlines"],
        input="".join(f"{a:#x}\n" for a in sorted(functions)),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    found: dict[str, list[str]] = {}
    for address, text in zip(sorted(functions), done.stdout.splitlines()[1::2], strict=True):
        name = re.sub(r"\.\d+$", "", functions[address])
        found.setdefault(name, []).append(text)
    return {name: sorted(texts) for name, texts in found.items()}


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("granularity", Granularity)
def test_every_function_has_its_line(
    tmp_path: Path, arch: str, version: int, granularity: Granularity
) -> None:
    flags = (f"-gdwarf-{version}", "-O1")
    original = kit.library(tmp_path, arch, {"one.c": ONE, "two.c": TWO}, *flags)
    out, result, _ = kit.strip(original, arch, EXPORTS, Strip.NONE, granularity)
    assert not result.warnings
    said = tool([kit.llvm("dwarfdump"), "--verify", out])
    assert "No errors." in said
    (main,) = kit.compile(tmp_path, arch, {"main.c": MAIN}, "-O1")
    first = kit.link(tmp_path / "first", arch, [main, original], "-dead_strip")
    expected = lines(first)
    second = kit.link(tmp_path / "second", arch, [main, out], "-dead_strip")
    for file in tmp_path.glob("*.o"):
        file.unlink()
    original.unlink()
    found = lines(second)
    assert found == expected
    assert len(found["_helper"]) == 2
    assert re.search(r"one\.c:11$", found["_one_api"][0])


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_it_is_gone_unless_asked_for(tmp_path: Path, arch: str) -> None:
    original = kit.library(tmp_path, arch, {"one.c": ONE, "two.c": TWO}, "-g")
    for strip in (Strip.DEBUGINFO, Strip.SYMBOLS):
        out, _, _ = kit.strip(original, arch, EXPORTS, strip)
        assert not re.search(r"__debug|__apple", tool([kit.llvm("objdump"), "-h", out]))


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_what_is_not_understood_is_left_out_with_a_warning(tmp_path: Path, arch: str) -> None:
    macros = kit.compile(tmp_path, arch, {"two.c": TWO}, "-gdwarf-4", "-fdebug-macro")
    new = kit.compile(tmp_path, arch, {"one.c": ONE}, "-gdwarf-4")
    original = kit.archive(tmp_path / "libt.a", [*new, *macros])
    out, result, _ = kit.strip(original, arch, EXPORTS, Strip.NONE)
    assert result.warnings == (
        "the debug information of two.o is left out: "
        "attribute 0x43 is an offset into an unknown section",
    )
    said = tool([kit.llvm("dwarfdump"), "--verify", out])
    assert "No errors." in said


def _debug_entries(data: bytes) -> tuple[list[int], dict[str, int]]:
    """Where the relocations of debug sections are in an archive of one object, and its begin."""
    start = data.index(b"\xcf\xfa\xed\xfe")
    at = start + 32
    while struct.unpack_from("<I", data, at)[0] != 0x19:
        at += struct.unpack_from("<I", data, at + 4)[0]
    found, first = [], {}
    for n in range(struct.unpack_from("<I", data, at + 64)[0]):
        row = at + 72 + 80 * n
        segment = data[row + 16 : row + 32].rstrip(b"\0")
        place, count = struct.unpack_from("<II", data, row + 56)
        if segment == b"__DWARF" and count:
            first[data[row : row + 16].rstrip(b"\0").decode()] = row
            found += range(start + place, start + place + 8 * count, 8)
    return found, first


# what the entry says then; and of it the error
DAMAGE = {
    "another field": (lambda _, info: (0, info), "outside of its section"),
    "beyond": (lambda place, info: (place + 0x100000, info), "lies outside of its section"),
    "before": (lambda place, info: (place | 0x80000000, info), "lies outside of its section"),
    "symbol": (lambda place, info: (place, info | 0x08FFFFFF), "has no symbol"),
    "section": (lambda place, info: (place, info & 0xF6000000 | 200), "names no section"),
    "none": (lambda place, info: (place, info & 0xF6000000), "names no section"),
    "kind": (lambda place, info: (place, info ^ 0x10000000), ""),
    "width": (lambda place, info: (place, info ^ 0x02000000), ""),
}


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_relocation(tmp_path: Path, arch: str, name: str) -> None:
    change, expected = DAMAGE[name]
    original = kit.library(tmp_path, arch, {"two.c": TWO}, "-g", "-O1")
    data = bytearray(original.read_bytes())
    entries, _ = _debug_entries(data)
    at = entries[0]
    struct.pack_into("<II", data, at, *change(*struct.unpack_from("<II", data, at)))
    original.write_bytes(data)
    if expected:
        with pytest.raises(ObjectError, match=expected) as caught:
            kit.strip(original, arch, ["_two"], Strip.NONE)
        assert caught.value.member == "two.o"
        assert caught.value.offset == at - data.index(b"\xcf\xfa\xed\xfe")
        return
    _, result, _ = kit.strip(original, arch, ["_two"], Strip.NONE)
    assert result.warnings == (
        "the debug information of two.o is left out: "
        "it has relocations that are no addresses of 8 bytes",
    )


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_random_damage_of_relocations_and_headers(tmp_path: Path, arch: str) -> None:
    original = kit.library(tmp_path, arch, {"two.c": TWO, "one.c": ONE}, "-g", "-O1")
    good = original.read_bytes()
    chance = random.Random(arch)
    start = good.index(b"\xcf\xfa\xed\xfe")
    commands = struct.unpack_from("<I", good, start + 20)[0]
    places = [*range(start + 32, start + 32 + commands, 4)]
    entries, rows = _debug_entries(good)
    places += [p for entry in entries for p in (entry, entry + 4)] * 3
    places += [row + field for row in rows.values() for field in (40, 48, 56, 60)] * 3
    refused = 0
    for _ in range(120):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 2))):
            value = chance.choice((0, 1, 0x7F, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF))
            struct.pack_into("<I", data, chance.choice(places), value)
        original.write_bytes(data)
        try:
            kit.strip(original, arch, EXPORTS, chance.choice([*Strip]))
        except StripHookError:
            refused += 1
    assert refused > 30


def relocations(data: bytes, name: bytes) -> tuple[int, list[int]]:
    """Where the contents of an object's debug section are, and its 8-byte relocations."""
    at, count = 32, struct.unpack_from("<I", data, 16)[0]
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        for header in range(at + 72, at + size, 80) if command == 0x19 else ():  # LC_SEGMENT_64
            if data[header : header + 16].rstrip(b"\0") == name:
                start, _, place, number = struct.unpack_from("<IIII", data, header + 48)
                rows = range(place, place + 8 * number, 8)
                return start, [
                    r for r in rows if data[r + 7] >> 4 == 0 and data[r + 7] >> 1 & 3 == 3
                ]
        at += size
    raise AssertionError(name)


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("address", "overlaps another one"),
        ("far", "a place outside of its section"),
        ("before", "a place outside of its section"),
    ],
)
def test_damaged_relocations_are_refused(tmp_path: Path, arch: str, change: str, said: str) -> None:
    (path,) = kit.compile(tmp_path, arch, {"one.c": ONE}, "-g", "-gdwarf-4")
    data = bytearray(path.read_bytes())
    start, rows = relocations(data, b"__debug_info")
    assert len(rows) > 1
    (where,) = struct.unpack_from("<I", data, rows[0])
    if change == "address":
        struct.pack_into("<I", data, rows[1], where + 4)
    else:
        value = 1 << 45 if change == "far" else -(1 << 45)
        struct.pack_into("<q", data, start + where, value)
    path.write_bytes(data)
    original = kit.archive(tmp_path / "libt.a", [path])
    with pytest.raises(ObjectError, match=said) as caught:
        kit.strip(original, arch, EXPORTS[:1], Strip.NONE)
    assert caught.value.member == "one.o" and caught.value.offset
    kit.strip(original, arch, EXPORTS[:1], Strip.DEBUGINFO)
