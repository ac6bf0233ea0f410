"""For each check of a COFF result a mutant that this check alone refuses."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import windows_objects as kit
from tests.formats.test_coff_engine import SECTIONS

MSVC, GNU, OLD = "x86_64-pc-windows-msvc", "x86_64-pc-windows-gnu", "i686-pc-windows-gnu"
C_ONE = r"""
extern int outside(int);
int used(int), maybe(void) __attribute__((weak));
static int table[4] = {1, 2, 3, 4};
int *pointer = table + 1, block[10];
__attribute__((noinline)) static int helper(int a) { return outside(a) + table[a & 3]; }
__attribute__((noinline)) static int alone(int a) { return outside(a) * outside(3); }
static void first(void) { table[0]++; }
__attribute__((section(".CRT$XCU"), used)) static void (*const start)(void) = first;
int (*taken)(int) = alone;
__attribute__((selectany)) int any_data = FIRST;
int api(int a) { return helper(a) + *pointer + (maybe ? maybe() : 0) + used(a) + alone(a); }
int other(int a) { block[a] = 2; return helper(a + 1) + used(a) + taken(a) + any_data; }
int shown_data[3] = {3, 2, 1};
"""
C_TWO = r"""
int outside(int);
__attribute__((selectany)) int any_data = SECOND;
extern int block[10];
static inline __attribute__((always_inline)) int within(int a) { return outside(a) + 7; }
int used(int a) { return within(a) + block[a] + any_data; }
__asm__(".section .drectve,\"yn\"\n.ascii \" /DEFAULTLIB:some\"\n.text\n");
"""
# the table is the last section, so that the others keep their numbers where it is left out
FRAMES = """
    .text
    .globl _api
_api:
    .cfi_startproc
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
"""
EXPORTS = ("api", "other", "shown_data", "any_data")
FLAGS = ("-O1", "-fno-inline", "-fcommon", "-fasynchronous-unwind-tables", *SECTIONS)


@dataclass
class Result:
    """A library, a good result of it, and what is expected of that. `at`: where its object is."""

    original: Path
    library: Path
    expectation: Expectation
    raw: bytearray
    at: int
    parts: kit.Parts

    def findings(self) -> tuple[str, ...]:
        """What the verifier says; nothing where it accepts this."""
        self.raw[self.at : self.at + len(self.parts.raw)] = self.parts.raw
        self.library.write_bytes(self.raw)
        try:
            verify(self.original, self.library, self.expectation)
        except VerifyError as e:
            return e.findings
        return ()

    def copy(self, library: Path) -> Result:
        parts = kit.Parts(bytes(self.parts.raw))
        return replace(self, library=library, raw=bytearray(self.raw), parts=parts)


def make(folder: Path, target: str, strip: Strip, made: str) -> Result:
    """`made` of other things: "swapped" members, or no "frames"."""
    flags = (*FLAGS, "-DFIRST=4", "-DSECOND=5")
    flags += ("-Xclang", "-cfguard") if target == MSVC else ()
    debug = "-gcodeview" if target == MSVC else "-gdwarf-4"
    flags += ("-g", debug) if strip is Strip.NONE else ()
    names: tuple[str, ...] = EXPORTS
    if target == OLD:
        names = ("api",)
        text = FRAMES if made != "frames" else FRAMES.replace(".cfi_", "# ")
        objects = kit.compile(folder, target, {"a.s": text})
    else:
        objects = kit.compile(folder, target, {"one.c": C_ONE, "two.c": C_TWO}, *flags)
    if made == "swapped":
        objects.reverse()
    original = kit.archive(folder / "t.lib", target, objects)
    out, done = kit.strip(original, target, names, strip)
    expectation = Expectation(Target.parse(target), done.exports, strip, done.link_map, kit.MARKER)
    verify(original, out, expectation)
    raw = bytearray(out.read_bytes())
    contents = kit.first_object(out).read_bytes()
    return Result(original, out, expectation, raw, raw.index(contents), kit.Parts(contents))


Change = Callable[[Result], None]


def _put(place: Callable[[kit.Parts], int], value: int, form: str = "<I") -> Change:
    return lambda r: struct.pack_into(form, r.parts.raw, place(r.parts), value)


def _flip(place: Callable[[kit.Parts], int], bits: int) -> Change:
    def change(r: Result) -> None:
        r.parts.raw[place(r.parts)] ^= bits

    return change


def _section(name: str, offset: int) -> Callable[[kit.Parts], int]:
    return lambda p: p.section(name.encode()) + offset


def _symbol(name: str, offset: int, number: int = 0) -> Callable[[kit.Parts], int]:
    return lambda p: p.symbol(name.encode(), number) + offset


def _contents(name: str, offset: int) -> Callable[[kit.Parts], int]:
    return lambda p: p.contents(name.encode()) + offset


def _align(name: str, power: int) -> Change:
    def change(r: Result) -> None:
        at = r.parts.section(name.encode()) + 38
        r.parts.raw[at] = r.parts.raw[at] & 0x0F | (power + 1) << 4

    return change


def _feature_name(p: kit.Parts) -> int:
    """The last letter of `@feat.00`."""
    return p.symbol(b"@feat.00") + 7


def _weak_default(r: Result) -> None:
    """What stands for `maybe` is the value that says what the object is able to."""
    p = r.parts
    number = (p.symbol(b"@feat.00") - p.table) // 18
    struct.pack_into("<I", p.raw, p.symbol(b"maybe") + 18, number)


def _swapped(r: Result) -> None:
    """The link map tells of the members by the numbers that these have in the original."""
    rows = r.expectation.link_map
    assert rows is not None
    rows = rows.copy()
    rows["member"] = 1 - rows["member"]
    order = np.argsort(rows["member"], kind="stable")
    r.expectation = replace(r.expectation, link_map=rows[order])


def _gap(r: Result) -> None:
    """What aligns a piece, in the first section that has such."""
    rows, p = r.expectation.link_map, r.parts
    assert rows is not None
    for number in range(1, p.count + 1):
        size, start = struct.unpack_from("<II", p.raw, 20 + 40 * (number - 1) + 16)
        mine = rows[rows["out_section"] == number]
        covered = np.zeros(size, np.bool_)
        for begin, length in zip(mine["out_offset"], mine["size"], strict=True):
            covered[begin : begin + length] = True
        if len(mine) and start and not covered.all():
            p.raw[start + int(covered.argmin())] = 0x77
            return
    raise AssertionError("no gap")


def _records(p: kit.Parts) -> Iterator[tuple[int, int]]:
    """(kind, place) of CodeView: types, symbols, and the contents of what is told of lines."""
    for header in range(20, 20 + 40 * p.count, 40):
        size, start = struct.unpack_from("<II", p.raw, header + 16)
        if p.name(header) == b".debug$T":
            yield from _followed(p, start + 4, start + size)
        elif p.name(header) == b".debug$S":
            at = start + 4
            while at < start + size:
                kind, length = struct.unpack_from("<II", p.raw, at)
                yield kind, at + 8
                if kind == 0xF1:
                    yield from _followed(p, at + 8, at + 8 + length)
                at += 8 + -(-length // 4) * 4


def _followed(p: kit.Parts, start: int, stop: int) -> Iterator[tuple[int, int]]:
    while start < stop:
        length, kind = struct.unpack_from("<HH", p.raw, start)
        yield kind, start
        start += 2 + length


def _codeview(kind: int, offset: int) -> Callable[[kit.Parts], int]:
    """A place in the first record of a kind."""
    return lambda p: next(place for one, place in _records(p) if one == kind) + offset


def _nothing(_: Result) -> None:
    """The result as it is, of other members."""


@dataclass(frozen=True)
class Row:
    """`check`: module and name, in `cargo_strip_hook.verify.coff`, of the function that finds it.

    `kinds` begin what it says. `made`: what the result is made of instead, a bug of the engine's.
    """

    check: str
    kinds: str
    change: Change
    target: str = GNU
    strip: Strip = Strip.DEBUGINFO
    made: str = ""


ROWS: dict[str, Row] = {
    "a time in the header": Row("structure._check_header", "the file header", _put(lambda _: 4, 7)),
    "a place for relocations that there are not": Row(
        "structure._check_sections", "a section header", _put(_section(".cargo-strip-hook", 24), 8)
    ),
    "a weak external with a value": Row(
        "structure._check_symbols", "weak external", _put(_symbol("maybe", 8), 4)
    ),
    "the class of a static": Row(
        "structure._check_symbols",
        "a symbol of unknown class",
        _put(_symbol("helper", 16), 6, "<B"),
    ),
    "a section's definition with lines": Row(
        "structure._check_definition", "a section's definition", _put(_symbol(".text", 24), 1, "<H")
    ),
    "a selection of what is no COMDAT": Row(
        "structure._check_definition", "COMDAT", _put(_symbol(".CRT$XCU", 32), 2, "<B")
    ),
    "a COMDAT that is none any more": Row(
        "structure._check_definition", "COMDAT", _flip(_section(".text", 37), 0x10)
    ),
    "the marker": Row(
        "structure._check_marker", "marker", _flip(_contents(".cargo-strip-hook", 2), 1)
    ),
    "characteristics": Row(
        "facts.check_sections",
        "a section has other characteristics",
        _flip(_section(".rdata", 39), 0x10),
    ),
    "a higher alignment": Row("facts.check_sections", "another alignment", _align(".text", 9)),
    "the alignment of commons": Row("facts.check_sections", "another alignment", _align(".bss", 0)),
    "characteristics of directives": Row(
        "facts._check_told",
        "other characteristics than its kind has",
        _flip(_section(".drectve", 39), 0x40),
    ),
    "characteristics of debug information": Row(
        "facts._check_told",
        "other characteristics than its kind has",
        _flip(_section(".debug_line", 39), 0x10),
        strip=Strip.NONE,
    ),
    "the type of an exported function": Row(
        "facts.check_symbols", "a symbol's type", _put(_symbol("other", 14), 0, "<H")
    ),
    "the type of a static function": Row(
        "facts.check_symbols", "a symbol's type", _put(_symbol("helper", 14), 0, "<H")
    ),
    "the type of exported data": Row(
        "facts.check_symbols", "a symbol's type", _put(_symbol("any_data", 14), 0x20, "<H")
    ),
    "a static name": Row(
        "facts.check_symbols",
        "a local name that the original has not",
        _flip(_symbol("helper", 2), 1),
    ),
    "the type of an undefined name": Row(
        "facts._check_placeless", "a symbol's type", _put(_symbol("outside", 14), 0x30, "<H")
    ),
    "the name of @feat.00": Row(
        "facts._check_placeless",
        "a value that the original has not|handlers",
        _flip(_feature_name, 1),
    ),
    "the definition that a linker takes": Row(
        "facts.check_winners", "a linker takes another definition", _swapped, made="swapped"
    ),
    "a table of .eh_frame that is lost": Row(
        "facts.check_frames", "unwind", _nothing, target=OLD, made="frames"
    ),
    "what is between two pieces": Row("compare._check_bytes", "contents", _gap),
    "what a weak external stands for": Row("compare.check_weak", "weak external", _weak_default),
    "@feat.00": Row("guard.check_guard", "handlers", _flip(_symbol("@feat.00", 8), 2), target=MSVC),
    "a table of call targets": Row(
        "guard.check_guard", "guard", _put(_contents(".gfids$y", 0), 0), target=MSVC
    ),
    "a byte of DWARF": Row(
        "debug.check",
        "debug information",
        _flip(_contents(".debug_abbrev", 2), 1),
        strip=Strip.NONE,
    ),
    "the size of a type of CodeView": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x1503, 12), 1), MSVC, Strip.NONE
    ),
    "a type that CodeView refers to": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x1008, 4), 1), MSVC, Strip.NONE
    ),
    "the address of a variable": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x110D, 8), 1), MSVC, Strip.NONE
    ),
    "the name of a variable": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x110D, 14), 1), MSVC, Strip.NONE
    ),
    "the size of a function": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x1147, 16), 1), MSVC, Strip.NONE
    ),
    "where a variable of a function is": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x1141, 8), 1), MSVC, Strip.NONE
    ),
    "a line": Row("codeview.check", "CodeView", _flip(_codeview(0xF2, 28), 1), MSVC, Strip.NONE),
    "the checksum of a file": Row(
        "codeview.check", "CodeView", _flip(_codeview(0xF4, 8), 1), MSVC, Strip.NONE
    ),
    "the line of an inlined function": Row(
        "codeview.check", "CodeView", _flip(_codeview(0xF6, 12), 1), MSVC, Strip.NONE
    ),
    "the lines of an inlined function": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x114D, 16), 1), MSVC, Strip.NONE
    ),
    "the name of the object": Row(
        "codeview.check", "CodeView", _flip(_codeview(0x1101, 8), 1), MSVC, Strip.NONE
    ),
    "the version of CodeView": Row(
        "codeview.check", "CodeView", _flip(_codeview(0xF4, -12), 1), MSVC, Strip.NONE
    ),
}


@cache
def good(folder: Path, target: str, strip: Strip, made: str) -> Result:
    """A good result, made once; see `make`."""
    within = folder / f"{target}-{strip.value}-{made}"
    within.mkdir(parents=True, exist_ok=True)
    return make(within, target, strip, made)


def mutant(name: str, folder: Path) -> Result:
    """A row's mutant. `folder` is where all of them are made."""
    row = ROWS[name]
    sound = good(folder, row.target, row.strip, row.made)
    result = sound.copy(folder / "mutant.lib")
    if row.made:  # a result of other things than it is verified against
        result.original = good(folder, row.target, row.strip, "").original
    row.change(result)
    assert row.made or result.parts.raw != sound.parts.raw
    return result
