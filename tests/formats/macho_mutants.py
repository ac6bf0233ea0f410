"""For each check of a Mach-O result a mutant that this check alone refuses.

A mutant is a good result with one thing changed; one that an engine makes by a bug is a result of
other members than those that it is verified against.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import darwin_kit as kit

C = r"""
extern int outside(int), maybe(int) __attribute__((weak_import));
static int table[4] = {1, 2, 3, 4};
int *pointer = table + 1, buffer[10], shown_common;
int wide __attribute__((aligned(64)));
int one_data[2] = {5, 6}, two_data[2] = {7, 8};
__attribute__((noinline, cold)) static int rare(int a) { return outside(a) * 7; }
__attribute__((noinline)) static int helper(int a) { return outside(a) + table[a & 3]; }
int c_api(int a) { return helper(a) + *pointer + buffer[3] + wide + rare(a); }
int c_other(int a) { buffer[a] = 2; wide = 3; return helper(a) + (maybe ? maybe(2) : 3); }
__attribute__((weak)) int c_weak(int a) { return a + 17; }
__asm__(".linker_option \"-lz\"");
"""
CXX = r"""
void may_throw(int);
extern "C" int cxx_api(int a) { try { may_throw(a); } catch (int) { return 5; } return 3; }
"""
ASSEMBLY = {
    "arm64": """
    .globl _asm_api
    .p2align 2
_asm_api:
    .cfi_startproc
    .cfi_def_cfa_offset 16
    .cfi_escape 0x2e, 0x10
    bl _outside
    .data_region jt32
    .long 1
    .long 2
    .end_data_region
    .alt_entry _inner
_inner:
    adrp x0, _data@PAGE
    add x0, x0, _data@PAGEOFF
    adrp x1, _first@PAGE
    adrp x2, _second@PAGE
    b _inner
    .cfi_endproc
""",
    "x86_64": """
    .globl _asm_api
    .p2align 4
_asm_api:
    .cfi_startproc
    .cfi_def_cfa_offset 16
    .cfi_escape 0x2e, 0x10
    callq _outside
    .data_region jt32
    .long 1
    .long 2
    .end_data_region
    .alt_entry _inner
_inner:
    leaq _data(%rip), %rax
    leaq _first(%rip), %rax
    leaq _second(%rip), %rax
    jmp _inner
    .cfi_endproc
""",
}
DATA = """
_first:
    nop
_second:
    nop
    .data
    .p2align 4
_data: .quad _asm_api
    .quad _data + 12
    .quad _text
    .quad _const
    .no_dead_strip _data
    .section __TEXT,__cstring,cstring_literals
_text: .asciz "on"
    .section __DATA,__const
    .p2align 3
_const: .quad _data
    .section __DATA,__mod_init_func,mod_init_funcs
    .p2align 3
    .quad _first
    .subsections_via_symbols
"""
SECOND = ".section __DATA,__mod_init_func,mod_init_funcs\n .p2align 3\n .quad _alive"
# a member that is loaded for what is dead
DEAD = """
    .globl _dead
_dead: {jump} _elsewhere
    .globl _alive
_alive: {jump} _outside
    {second}
    .subsections_via_symbols
"""
ELSEWHERE = """
    .globl _elsewhere
_elsewhere: nop
    .data
    .long 1
    {section}
    .subsections_via_symbols
"""
INITIALISER = ".section __DATA,__mod_init_func,mod_init_funcs\n .p2align 3\n .quad _elsewhere"
KEPT = SECOND + "\n .data\n .p2align 3\n_kept: .quad 7\n .no_dead_strip _kept"
CATEGORY = ".section __DATA,__objc_catlist,regular,no_dead_strip\n .p2align 3\n .quad _elsewhere"
# two members with a weak function of one name
PICKED = """
__attribute__((weak, noinline)) int picked(int a) {{ return a * {number}; }}
int picked_{number}(int a) {{ return picked(a) + {number}; }}
"""
EXPORTS = ("_alive", "_asm_api", "_c_api", "_c_other", "_c_weak", "_cxx_api", "_one_data")
EXPORTS += ("_shown_common", "_two_data")


@dataclass
class Result:
    """A library, a good result of it in bytes, and what is expected of that."""

    arch: str
    original: Path
    library: Path
    expectation: Expectation
    raw: bytearray

    def __post_init__(self) -> None:
        self.start = self.raw.index(b"\xcf\xfa\xed\xfe")
        self.commands: dict[int, int] = {}
        at = self.start + 32
        for _ in range(self.word(self.start + 16)):
            self.commands[self.word(at)] = at
            at += self.word(at + 4)

    def word(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.raw, at)[0])

    def put(self, at: int, value: int, form: str = "<I") -> None:
        struct.pack_into(form, self.raw, at, value)

    def headers(self) -> Iterator[tuple[bytes, int]]:
        """Name and place of each section header."""
        segment = self.commands[0x19]
        for n in range(self.word(segment + 64)):
            row = segment + 72 + 80 * n
            yield bytes(self.raw[row : row + 16]).rstrip(b"\0"), row

    def section(self, name: str) -> int:
        return next(row for one, row in self.headers() if one == name.encode())

    def number(self, name: str) -> int:
        return [one for one, _ in self.headers()].index(name.encode()) + 1

    def contents(self, name: str) -> int:
        return self.start + self.word(self.section(name) + 48)

    def relocations(self, name: str) -> list[int]:
        row = self.section(name)
        first = self.start + self.word(row + 56)
        return list(range(first, first + 8 * self.word(row + 60), 8))

    def symbols(self) -> Iterator[tuple[bytes, int]]:
        table, count, strings, _ = struct.unpack_from("<4I", self.raw, self.commands[2] + 8)
        for n in range(count):
            row = self.start + table + 16 * n
            text = self.start + strings + self.word(row)
            yield bytes(self.raw[text : self.raw.index(0, text)]), row

    def symbol(self, name: str) -> int:
        return next(row for one, row in self.symbols() if one == name.encode())

    def value(self, name: str) -> int:
        return int(struct.unpack_from("<Q", self.raw, self.symbol(name) + 8)[0])

    def findings(self) -> tuple[str, ...]:
        """What the verifier says; nothing where it accepts this."""
        self.library.write_bytes(self.raw)
        try:
            verify(self.original, self.library, self.expectation)
        except VerifyError as e:
            return e.findings
        return ()


def _library(folder: Path, arch: str, flags: tuple[str, ...], what: str) -> Path:
    """See `make`."""
    second = {"first": "", "kept": KEPT}.get(what, SECOND)
    other = {"both": INITIALISER, "objc": CATEGORY}.get(what, "")
    jump = "b" if arch == "arm64" else "jmp"
    text = ASSEMBLY[arch] + DATA
    objects = kit.compile(folder, arch, {"c.c": C}, "-O1", "-fno-inline", "-fcommon", *flags)
    objects += kit.compile(folder, arch, {"x.cpp": CXX}, "-O1", *flags)
    dead = DEAD.format(jump=jump, second=second)
    more = {"a.s": text, "d.s": dead, "e.s": ELSEWHERE.format(section=other)}
    objects += kit.compile(folder, arch, more)
    picks = {"picks": (3, 5), "other picks": (5, 3)}.get(what, ())
    weak = {f"p{n}.c": PICKED.format(number=n) for n in picks}
    return kit.archive(folder / "libt.a", objects + kit.compile(folder, arch, weak, "-O1"))


def make(folder: Path, arch: str, strip: Strip, what: str = "") -> Result:
    """`what` is in the library, or in another order: see `Row.made`.

    It is without the initialisers of a member ("first"), has such a member with nothing else
    ("both"), what must live ("kept"), a category ("objc"), or two definitions of a name ("picks").
    """
    exports = EXPORTS if "picks" not in what else (*EXPORTS, "_picked_3", "_picked_5")
    flags = ("-g", "-gdwarf-4" if arch == "arm64" else "-gdwarf-5") if strip is Strip.NONE else ()
    original = _library(folder, arch, flags, what)
    asked = PrelinkRequest(
        original,
        folder / "out.a",
        Target.parse(kit.triple(arch)),
        exports,
        strip,
        Granularity.CLASS,
        kit.MARKER,
    )
    made = NativeEngine().prelink(asked)
    words = (asked.target, exports, strip, made.link_map, kit.MARKER)
    expectation = Expectation(*words, granularity=asked.granularity)
    verify(original, asked.output, expectation)
    raw = bytearray(asked.output.read_bytes())
    return Result(arch, original, folder / "broken.a", expectation, raw)


Change = Callable[[Result], None]


def _put(place: Callable[[Result], int], value: int, form: str = "<I") -> Change:
    return lambda r: r.put(place(r), value, form)


def _flip(place: Callable[[Result], int], bits: int) -> Change:
    def change(r: Result) -> None:
        r.raw[place(r)] ^= bits

    return change


def _command(command: int, offset: int) -> Callable[[Result], int]:
    return lambda r: r.commands[command] + offset


def _header(name: str, offset: int) -> Callable[[Result], int]:
    return lambda r: r.section(name) + offset


def _symbol(name: str, offset: int) -> Callable[[Result], int]:
    return lambda r: r.symbol(name) + offset


def _contents(name: str, offset: int) -> Callable[[Result], int]:
    return lambda r: r.contents(name) + offset


def _swap(one: str, other: str) -> Change:
    def change(r: Result) -> None:
        a, b = r.value(one), r.value(other)
        r.put(r.symbol(one) + 8, b, "<Q")
        r.put(r.symbol(other) + 8, a, "<Q")

    return change


def _lost_option(r: Result) -> None:
    """Its text is another one."""
    at = r.raw.index(b"-lz\0", r.start)
    r.raw[at : at + 3] = b"-lq"


def _longer_strings(r: Result) -> None:
    at = r.section("__cstring") + 40
    r.put(at, int(struct.unpack_from("<Q", r.raw, at)[0]) + 1, "<Q")


def _data_in_code(r: Result) -> int:
    return r.start + r.word(r.commands[0x29] + 8)


def _other_section(r: Result) -> None:
    """The first entry of compact unwind is said to be in the next section."""
    row = r.relocations("__compact_unwind")[0]
    assert not r.raw[row + 7] & 8
    r.raw[row + 4] += 1


def _opcode(r: Result) -> None:
    """An instruction with a relocation uses another register."""
    row = next(
        row
        for row in r.relocations("__text")
        if r.raw[row + 7] >> 4 == (3 if r.arch == "arm64" else 1)
    )
    at = r.contents("__text") + r.word(row)
    r.raw[at if r.arch == "arm64" else at - 1] ^= 1 if r.arch == "arm64" else 8


def _gap(r: Result) -> None:
    """A zero that aligns what follows it, in the first section that has one."""
    rows = r.expectation.link_map
    assert rows is not None
    for number, (_, header) in enumerate(r.headers(), start=1):
        size = int(struct.unpack_from("<Q", r.raw, header + 40)[0])
        mine = rows[rows["out_section"] == number]
        covered = np.zeros(size, np.bool_)
        for start, length in zip(mine["out_offset"], mine["size"], strict=True):
            covered[start : start + length] = True
        if len(mine) and r.word(header + 48) and not covered.all():
            r.raw[r.start + r.word(header + 48) + int(covered.argmin())] = 1
            return
    raise AssertionError("no gap")


def _narrow(r: Result) -> None:
    row = r.relocations("__const")[0]
    r.raw[row + 7] ^= 2


def _order(r: Result) -> None:
    """Both initialisers change places, and the link map says so."""
    one, other = r.relocations("__mod_init_func")
    begin = r.contents("__mod_init_func")
    a, b = (begin + r.word(row) for row in (one, other))
    r.raw[a : a + 8], r.raw[b : b + 8] = r.raw[b : b + 8], r.raw[a : a + 8]
    one, other = one + 4, other + 4
    r.raw[one : one + 4], r.raw[other : other + 4] = (
        r.raw[other : other + 4],
        r.raw[one : one + 4],
    )
    rows = r.expectation.link_map
    assert rows is not None
    rows = rows.copy()
    mine = np.flatnonzero(rows["out_section"] == r.number("__mod_init_func"))
    rows["out_offset"][mine] = rows["out_offset"][mine[::-1]]
    r.expectation = replace(r.expectation, link_map=rows)


def _common_moved(r: Result) -> None:
    """The symbol of a common is 4 bytes later, and so is all that refers to it."""
    number = r.number("__common")
    values = [(int(struct.unpack_from("<Q", r.raw, row + 8)[0]), row) for _, row in r.symbols()]
    value, row = next(v for v in values if r.raw[v[1] + 5] == number and v[0] % 64 == 0)
    r.put(row + 8, value + 4, "<Q")


def _debug_byte(name: str, offset: int) -> Change:
    return _flip(_contents(name, offset), 0xFF)


def _debug_all(r: Result) -> None:
    for name, row in r.headers():
        if name.startswith(b"__debug_"):
            begin = r.start + r.word(row + 48)
            size = int(struct.unpack_from("<Q", r.raw, row + 40)[0])
            r.raw[begin : begin + size] = b"\xff" * size


def _debug_target(r: Result) -> None:
    name = _addresses(r)
    at = r.contents(name) + r.word(r.relocations(name)[-1])
    r.put(at, int(struct.unpack_from("<Q", r.raw, at)[0]) + 4, "<Q")


def _debug_lost(r: Result) -> None:
    row = r.section(_addresses(r))
    r.put(row + 60, r.word(row + 60) - 1)


def _addresses(r: Result) -> str:
    """The section with the addresses that DWARF tells; since DWARF 5 it is one of its own."""
    return "__debug_info" if r.arch == "arm64" else "__debug_addr"


def _rename(r: Result, old: bytes, new: bytes) -> None:
    at = r.raw.index(b"\0" + old, r.start) + 1
    r.raw[at : at + len(old)] = new


def _pc_relative(r: Result, name: str) -> None:
    r.raw[r.relocations(name)[0] + 7] ^= 1


def _personality(r: Result) -> None:
    """The field of the first entry that has a routine."""
    at = next(r.word(row) for row in r.relocations("__compact_unwind") if r.word(row) % 32 == 16)
    r.put(r.contents("__compact_unwind") + at, 8, "<Q")


@dataclass(frozen=True)
class Row:
    """`check`: module and name, in `cargo_strip_hook.verify.macho`, of the function that finds it.

    `kind` begins what it says. `made`: what the result is made of instead, a bug of the engine's.
    """

    check: str
    kind: str
    change: Change
    strip: Strip = Strip.DEBUGINFO
    made: str = ""
    arches: tuple[str, ...] = kit.ARCHES


def _twice(r: Result) -> None:
    """The last symbol, which is external, once more."""
    table, count, strings, _ = struct.unpack_from("<4I", r.raw, r.commands[2] + 8)
    end = r.start + table + 16 * count
    r.raw[end:end] = r.raw[end - 16 : end]
    r.put(r.commands[2] + 12, count + 1)
    r.put(r.commands[2] + 16, strings + 16)
    undefined = r.commands[0xB] + 28
    r.put(undefined, r.word(undefined) + 1)
    header = r.raw.rindex(b"`\n", 0, r.start) - 58
    size = int(r.raw[header + 48 : header + 58])
    r.raw[header + 48 : header + 58] = str(size + 16).encode().ljust(10)


def _exchanged(r: Result) -> None:
    """The last two members come in the other order."""
    rows = r.expectation.link_map
    assert rows is not None
    rows, last = rows.copy(), int(rows["member"].max())
    for old, new in ((last, last - 1), (last - 1, last)):
        rows["member"][r.expectation.link_map["member"] == old] = new
    r.expectation = replace(r.expectation, link_map=rows)


def _nothing(_: Result) -> None:
    """The result as it is, of other members."""


SAFE, NONE = Strip.DEBUGINFO, Strip.NONE
ROWS: dict[str, Row] = {
    "the header's flags": Row(
        "check.check_commands", "the file header", _put(lambda r: r.start + 24, 0x2004)
    ),
    "the header's reserved word": Row(
        "check.check_commands", "the file header", _put(lambda r: r.start + 28, 1)
    ),
    "the processor's subtype": Row(
        "constraints.check_header", "the file header", _put(lambda r: r.start + 8, 9)
    ),
    "a load command that is none of an object's": Row(
        "check.check_commands", "platform", _put(_command(0x32, 20), 1)
    ),
    "tables of LC_DYSYMTAB that there are not": Row(
        "check.check_commands", "the dynamic symbol table", _put(_command(0xB, 40), 1)
    ),
    "the segment's size": Row(
        "commands._check_segment", "the segment", _put(_command(0x19, 32), 1, "<Q")
    ),
    "reserved fields of a section": Row(
        "commands._check_segment", "a section header", _put(_header("__text", 68), 1)
    ),
    "the lowest version": Row(
        "constraints.check_versions", "platform", _put(_command(0x32, 12), 99 << 16)
    ),
    "the SDK": Row("constraints.check_versions", "platform", _put(_command(0x32, 16), 1 << 16)),
    "an option for the linker": Row("constraints.check_options", "linker option", _lost_option),
    "data in code": Row("check._check_data_in_code", "data in code", _flip(_data_in_code, 4)),
    "the name of a section": Row(
        "sections._check_names",
        "a piece is in a section of another name or type",
        _put(_header("__const", 7), 0x78, "<B"),
    ),
    "the segment of a section": Row(
        "sections._check_names",
        "a piece is in a section of another name or type",
        _put(_header("__cstring", 22), 0x78, "<B"),
    ),
    "the type of initialisers": Row(
        "sections._check_names",
        "a piece is in a section of another name or type",
        _put(_header("__mod_init_func", 64), 0, "<B"),
    ),
    "attributes": Row(
        "sections._check_attributes",
        "a section has other attributes",
        _flip(_header("__data", 67), 0x10),
    ),
    "a section that is for nothing": Row(
        "sections._check_made",
        "a section that no input explains",
        _flip(_header("__compact_unwind", 65), 2),
    ),
    "a lower alignment": Row(
        "sections._check_alignment", "a piece lost its alignment", _put(_header("__const", 52), 2)
    ),
    "a higher alignment": Row(
        "sections._check_alignment",
        "a section is more aligned than what is in it",
        _put(_header("__cstring", 52), 1),
    ),
    "a subsection within a piece": Row(
        "sections._check_cuts", "a subsection begins within a piece", _flip(_symbol("_inner", 7), 2)
    ),
    "two subsections that are one": Row(
        "classes.check",
        "parts of a subsection that linkers could tell apart",
        _flip(_symbol("_helper", 7), 2),
    ),
    "bytes that no input explains": Row(
        "sections._check_gaps", "bytes that no input explains", _longer_strings
    ),
    "the address of an export": Row(
        "symbols.check_externals", "an export is at another place", _swap("_one_data", "_two_data")
    ),
    "a weak definition": Row(
        "symbols.check_externals", "an export changed", _flip(_symbol("_c_weak", 6), 0x80)
    ),
    "a private external": Row(
        "symbols.check_externals", "an export changed", _flip(_symbol("_c_other", 4), 0x10)
    ),
    "a weak reference": Row(
        "symbols.check_outside",
        "an undefined or common symbol changed",
        _flip(_symbol("_maybe", 6), 0x40),
    ),
    "the alignment of a common": Row(
        "symbols.check_outside",
        "an undefined or common symbol changed",
        _flip(_symbol("_shown_common", 7), 1),
    ),
    "a local that is weak": Row(
        "symbols.check_locals", "a local symbol changed", _flip(_symbol("_helper", 6), 0x80)
    ),
    "a cold function": Row("symbols._check_marks", "a mark changed", _flip(_symbol("_rare", 7), 4)),
    "what could be dropped before": Row(
        "symbols._check_kept", "could be dropped before", _flip(_symbol("_helper", 6), 0x20)
    ),
    "a local name": Row(
        "symbols._check_names", "a local name", lambda r: _rename(r, b"_helper\0", b"_helped\0")
    ),
    "an initialiser that is lost": Row(
        "roots.check_roots", "an initialiser is missing", _nothing, made="first"
    ),
    "what must live that is lost": Row(
        "roots.check_roots", "what must live is missing", _nothing, made="kept"
    ),
    "a member that -ObjC has linkers load": Row(
        "objc.check_loaded", "-ObjC", _nothing, made="objc"
    ),
    "another definition than a linker takes": Row(
        "order.Choice.check", "a linker takes another definition", _exchanged, made="picks"
    ),
    "an external name twice": Row("symbols.check_externals", "defined twice", _twice),
    "initialisers out of order": Row("roots.check_order", "out of order", _order),
    "initialisers of a member with nothing else": Row(
        "roots.check_other_members", "an initialiser is missing", _nothing, made="other"
    ),
    "a pc-relative pointer": Row(
        "constraints.odd_forms",
        "a relocation of unknown form",
        lambda r: _pc_relative(r, "__const"),
    ),
    "a pointer of four bytes": Row("compare._Closer.check", "relocation", _narrow),
    "an address in another section": Row(
        "check.check_sections_named", "a relocation names another section", _other_section
    ),
    "an instruction with a relocation": Row("compare._check_bytes", "contents", _opcode),
    "what is between two pieces": Row("compare._check_bytes", "contents", _gap, arches=("x86_64",)),
    "the addend of a personality": Row("compare.check_unwind", "unwind", _personality),
    "a common that moved": Row("made.Made._check_commons", "a common symbol", _common_moved),
    "a byte of abbreviations": Row(
        "debug._compare", "debug information", _debug_byte("__debug_abbrev", 3), NONE
    ),
    "a byte of a line table": Row(
        "debug._compare", "debug information", _debug_byte("__debug_line", 20), NONE
    ),
    "where the abbreviations of a unit are": Row(
        "debug._compare",
        "debug information",
        lambda r: _flip(_contents("__debug_info", 6 if r.arch == "arm64" else 8), 1)(r),
        NONE,
    ),
    "all of debug information": Row("debug._compare", "debug information", _debug_all, NONE),
    "an address in debug information": Row(
        "debug._compare", "debug information", _debug_target, NONE
    ),
    "a relocation of debug information": Row(
        "debug._compare", "debug information", _debug_lost, NONE
    ),
}


@cache
def good(folder: Path, arch: str, strip: Strip, what: str) -> Result:
    """A good result, made once; `what`: see `make`."""
    return make(folder / f"{arch}-{strip.value}-{what}", arch, strip, what)


# of `Row.made`: what the result is made of, and what it is verified against
MADE = {
    "first": ("first", ""),
    "other": ("", "both"),
    "kept": ("", "kept"),
    "objc": ("", "objc"),
    "picks": ("picks", "other picks"),
    "": ("", ""),
}


def mutant(name: str, folder: Path, arch: str = "") -> Result:
    """A row's mutant. `folder` is where all of them are made."""
    row = ROWS[name]
    arch = arch or row.arches[0]
    made, against = MADE[row.made]
    sound = good(folder, arch, row.strip, made)
    original = good(folder, arch, row.strip, against).original
    result = replace(
        sound, original=original, library=folder / "mutant.a", raw=bytearray(sound.raw)
    )
    row.change(result)
    assert row.made or result.raw != sound.raw or result.expectation is not sound.expectation
    return result
