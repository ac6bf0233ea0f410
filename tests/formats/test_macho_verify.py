"""The Mach-O checker finds what a broken engine could do; each test breaks one thing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import darwin_kit as kit
from tests.formats.test_macho_engine import CXX

MAGIC = b"\xcf\xfa\xed\xfe"

C = """
extern int outside(int);
static int table[4] = {1, 2, 3, 4};
int *c_pointer = table + 1;
extern long distance;
__asm__(".data\\n.p2align 3\\n_distance: .quad _c_api - _c_other\\n.text");
__attribute__((noinline)) static int helper(int a) { return outside(a) + table[a & 3]; }
int c_api(int a) { return helper(a) + *c_pointer + (int)distance; }
int c_other(int a) { return helper(a + 1); }
"""
EXPORTS = ("_c_api", "_c_other", "_cxx_api")


class Result:
    """A good result, taken apart enough to be broken."""

    def __init__(self, original: Path, library: Path, expectation: Expectation) -> None:
        self.original, self.library, self.expectation = original, library, expectation
        self.raw = bytearray(library.read_bytes())
        self.start = self.raw.index(MAGIC)
        self.sections: dict[bytes, int] = {}  # name -> its header in the file
        self.symbols: dict[bytes, int] = {}  # name -> its record in the file
        self.records: list[int] = []  # of all symbols, of one name too
        at = self.start + 32
        for _ in range(struct.unpack_from("<I", self.raw, self.start + 16)[0]):
            command, size = struct.unpack_from("<II", self.raw, at)
            if command == 0x19:
                for i in range(struct.unpack_from("<I", self.raw, at + 64)[0]):
                    row = at + 72 + 80 * i
                    self.sections[bytes(self.raw[row : row + 16]).rstrip(b"\0")] = row
            elif command == 2:
                table, count, strings, _ = struct.unpack_from("<4I", self.raw, at + 8)
                for i in range(count):
                    row = self.start + table + 16 * i
                    self.records.append(row)
                    text = self.start + strings + struct.unpack_from("<I", self.raw, row)[0]
                    self.symbols[bytes(self.raw[text : self.raw.index(0, text)])] = row
            elif command == 0xB:
                self.dysymtab = at
            elif command == 0x32:
                self.version = at
            at += size

    def contents(self, name: bytes) -> int:
        """Where a section's contents are in the file."""
        return self.start + int(struct.unpack_from("<I", self.raw, self.sections[name] + 48)[0])

    def relocations(self, name: bytes) -> tuple[int, int]:
        """(where in the file, number)."""
        place, count = struct.unpack_from("<II", self.raw, self.sections[name] + 56)
        return self.start + place, count

    def findings(self) -> str:
        self.library.write_bytes(self.raw)
        with pytest.raises(VerifyError) as caught:
            verify(self.original, self.library, self.expectation)
        return "\n".join(caught.value.findings)


@pytest.fixture(scope="module", params=kit.ARCHES)
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    arch = request.param
    folder = tmp_path_factory.mktemp("verify")
    sources = {"c.c": C, "cxx.cpp": CXX}
    original = kit.library(folder, arch, sources, "-O1", "-fno-inline")
    out = folder / "out.a"
    asked = PrelinkRequest(
        original,
        out,
        Target.parse(kit.triple(arch)),
        EXPORTS,
        Strip.DEBUGINFO,
        Granularity.CLASS,
        kit.MARKER,
    )
    link_map = NativeEngine().prelink(asked).link_map
    words = (asked.target, EXPORTS, asked.strip, link_map, kit.MARKER)
    expectation = Expectation(*words, granularity=asked.granularity)
    verify(original, out, expectation)
    return Result(original, out, expectation)


def _fresh(good: Result) -> Result:
    again = Result.__new__(Result)
    again.__dict__.update(good.__dict__)
    again.raw = bytearray(good.raw)
    return again


def _leak(r: Result) -> None:
    r.raw[r.symbols[b"_c_other"] + 0] += 1  # the name begins one letter later


def _local_export(r: Result) -> None:
    r.raw[r.symbols[b"_c_api"] + 4] = 0x0E


def _text_byte(r: Result) -> None:
    r.raw[r.contents(b"__text")] ^= 0x40


def _data_byte(r: Result) -> None:
    at = r.raw.index(struct.pack("<4I", 1, 2, 3, 4), r.start)
    r.raw[at + 8] = 9


def _symbol_moved(r: Result) -> None:
    at = r.symbols[b"_helper"] + 8
    struct.pack_into("<Q", r.raw, at, struct.unpack_from("<Q", r.raw, at)[0] + 4)


def _relocation_elsewhere(r: Result) -> None:
    place, _ = r.relocations(b"__text")
    info = struct.unpack_from("<I", r.raw, place + 4)[0]
    other = (info & 0xFFFFFF) ^ 1
    struct.pack_into("<I", r.raw, place + 4, (info & 0xFF000000) | other)


def _relocation_type(r: Result) -> None:
    place, _ = r.relocations(b"__text")
    r.raw[place + 7] ^= 0x40


def _relocation_outside(r: Result) -> None:
    place, _ = r.relocations(b"__text")
    struct.pack_into("<I", r.raw, place, 1 << 24)


def _compact_encoding(r: Result) -> None:
    r.raw[r.contents(b"__compact_unwind") + 12] ^= 1


def _compact_function(r: Result) -> None:
    at = r.contents(b"__compact_unwind")
    struct.pack_into("<Q", r.raw, at, struct.unpack_from("<Q", r.raw, at)[0] + 1)


def _personality_local(r: Result) -> None:
    r.raw[r.symbols[b"___gxx_personality_v0"] + 4] = 0


def _marker(r: Result) -> None:
    r.raw[r.contents(b"__strip_hook")] ^= 1


def _stab(r: Result) -> None:
    r.raw[r.symbols[b"_helper"] + 4] = 0x66


def _alternate(r: Result) -> None:
    for row in r.symbols.values():
        if r.raw[row + 4] & 0xE == 0xE and r.raw[row + 5] == 1:
            desc = struct.unpack_from("<H", r.raw, row + 6)[0]
            struct.pack_into("<H", r.raw, row + 6, desc | 0x200)


def _groups(r: Result) -> None:
    r.raw[r.dysymtab + 12] ^= 1


def _platform(r: Result) -> None:
    struct.pack_into("<I", r.raw, r.version + 12, 10 << 16)


def _subsections(r: Result) -> None:
    struct.pack_into("<I", r.raw, r.start + 24, 0)


def _pair(r: Result) -> None:
    """Moves the second of two relocations that belong together."""
    subtractor = 1 if r.expectation.target.triple.startswith("aarch64") else 5
    for name in r.sections:
        place, count = r.relocations(name)
        for row in range(place, place + 8 * count, 8):
            if r.raw[row + 7] >> 4 == subtractor:
                return struct.pack_into("<I", r.raw, row + 8, r.raw[row + 8] ^ 8)
    raise AssertionError("no pair of relocations")


def _pair_cut(r: Result) -> None:
    """Leaves out the second."""
    subtractor = 1 if r.expectation.target.triple.startswith("aarch64") else 5
    for name, header in r.sections.items():
        place, count = r.relocations(name)
        kinds = [r.raw[row + 7] >> 4 for row in range(place, place + 8 * count, 8)]
        if subtractor in kinds:
            last = max(n for n, kind in enumerate(kinds) if kind == subtractor)
            return struct.pack_into("<I", r.raw, header + 60, last + 1)
    raise AssertionError("no pair of relocations")


def _unaligned(r: Result) -> None:
    """The member's name is four bytes longer, and the member as much later."""
    header = r.raw.rindex(b"#1/", 0, r.start)
    name, size = int(r.raw[header + 3 : header + 16]), int(r.raw[header + 48 : header + 58])
    r.raw[header : header + 16] = f"#1/{name + 4}".ljust(16).encode()
    r.raw[header + 48 : header + 58] = str(size + 4).ljust(10).encode()
    r.raw[r.start : r.start] = bytes(4)


def _overlap(r: Result) -> None:
    at = r.sections[b"__data"] + 32
    struct.pack_into("<Q", r.raw, at, struct.unpack_from("<Q", r.raw, at)[0] - 8)


def _outside(r: Result) -> None:
    struct.pack_into("<Q", r.raw, r.symbols[b"_helper"] + 8, 1 << 40)


def _no_section(r: Result) -> None:
    r.raw[r.symbols[b"_helper"] + 5] = 200


def _order(r: Result) -> None:
    r.raw[r.symbols[b"_helper"] + 4] |= 1


def _another_undefined(r: Result) -> None:
    at = r.raw.index(b"_outside\0", r.start)
    r.raw[at : at + 8] = b"_Outside"


def _loaded_marker(r: Result) -> None:
    struct.pack_into("<I", r.raw, r.sections[b"__strip_hook"] + 64, 0)
    r.raw[r.sections[b"__strip_hook"] + 16 : r.sections[b"__strip_hook"] + 23] = b"__DATA\0"


def _lsda(r: Result) -> None:
    """All symbols at the start of LSDAs are alternate entries."""
    header = r.sections[b"__gcc_except_tab"]
    number = next(n for n, row in enumerate(sorted(r.sections.values()), 1) if row == header)
    for row in r.records:
        if r.raw[row + 4] & 0xE == 0xE and r.raw[row + 5] == number:
            r.raw[row + 7] |= 2


def _index(r: Result) -> None:
    at = r.raw.index(b"_c_api\0")
    r.raw[at : at + 6] = b"_x_api"


BREAKS: list[tuple[Callable[[Result], None], str]] = [
    (_leak, "an export is missing"),
    (_leak, "a global symbol that is no export"),
    (_local_export, "an export is missing"),
    (_text_byte, "contents"),
    (_data_byte, "contents"),
    (_symbol_moved, "no symbol at the function"),
    (_relocation_elsewhere, "relocation"),
    (_relocation_type, "relocation|damaged"),
    (_relocation_outside, "lies outside"),
    (_compact_encoding, "unwound in another way"),
    (_compact_function, "no symbol at the function"),
    (_personality_local, "is local, but ld64"),
    (_marker, "marker"),
    (_stab, "debug map"),
    (_alternate, "alternate entry begins a section"),
    (_groups, "LC_DYSYMTAB"),
    (_platform, "platform"),
    (_subsections, "MH_SUBSECTIONS_VIA_SYMBOLS"),
    (_index, "archive's index"),
    (_pair, "torn apart"),
    (_pair_cut, "torn apart"),
    (_unaligned, "not aligned to 8 bytes"),
    (_overlap, "overlaps or is not aligned"),
    (_outside, "lies outside of its section"),
    (_no_section, "is in no section"),
    (_order, "among the wrong symbols"),
    (_another_undefined, "undefined, and it was not before: `_Outside`"),
    (_loaded_marker, "marker"),
    (_lsda, "no subsection begins at the LSDA"),
]


@pytest.mark.parametrize(("damage", "expected"), BREAKS)
def test_it_is_found(good: Result, damage: Callable[[Result], None], expected: str) -> None:
    broken = _fresh(good)
    damage(broken)
    said = broken.findings()
    assert any(words in said for words in expected.split("|")), said


def test_random_damage_ends_in_findings(good: Result) -> None:
    """Whatever byte of the object is another one, the checker says so or nothing depends on it."""
    import random

    chance = random.Random(5)
    for _ in range(120):
        broken = _fresh(good)
        at = chance.randrange(broken.start, len(broken.raw))
        broken.raw[at] ^= 1 << chance.randrange(8)
        broken.library.write_bytes(broken.raw)
        try:
            verify(broken.original, broken.library, broken.expectation)
        except VerifyError as e:
            assert e.findings
