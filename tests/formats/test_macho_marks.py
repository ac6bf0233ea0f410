"""What n_desc says of definitions that become local: resolvers, cold functions, what must stay.

Only Apple's linker binds resolvers; LLVM's assembler writes them, and its reader shows them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import Expectation
from tests.consumers import darwin_image
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.formats.test_macho_verify import Result

pytestmark = pytest.mark.parametrize("arch", kit.ARCHES)

VARIANTS = [
    (Strip.NONE, Granularity.CLASS),
    (Strip.DEBUGINFO, Granularity.CLASS),
    (Strip.DEBUGINFO, Granularity.SECTION),
    (Strip.SYMBOLS, Granularity.CLASS),
    (Strip.SYMBOLS, Granularity.WHOLE),
]
RESOLVER, COLD, NO_DEAD_STRIP, DYNAMIC = 0x100, 0x400, 0x20, 0x10
CALL = {"arm64": "bl", "x86_64": "call"}


def _sources(arch: str) -> dict[str, str]:
    call = CALL[arch]
    api = f"""
    .globl _api
    .p2align 2
    _api: {call} _chosen
    {call} _other
    {call} _own
    {call} _plain
    ret
    _own: {call} _own
    {call} _plain
    ret
    .symbol_resolver _own
    .globl _api_chosen
    .symbol_resolver _api_chosen
    _api_chosen: ret
    .globl _plain
    _plain: ret
    .subsections_via_symbols
    """
    others = f"""
    .globl _chosen
    .symbol_resolver _chosen
    .p2align 2
    _chosen: {call} _impl
    ret
    .private_extern _other
    .globl _other
    .symbol_resolver _other
    _other: {call} _impl
    ret
    _impl: ret
    .globl _unused
    .symbol_resolver _unused
    _unused: ret
    .data
    .p2align 3
    .globl _table
    .desc _table, 0x10
    _table: .quad _chosen
    .quad _other + 8
    .subsections_via_symbols
    """
    return {"api.s": api, "others.s": others}


def _marks(library: Path) -> dict[str, int]:
    """n_desc of each symbol that has a name."""
    data = library.read_bytes()
    image = darwin_image.load(data[data.index(b"\xcf\xfa\xed\xfe") :])
    return {name: desc for name, _, _, desc, _ in image.symbols if name != "l"}


def _called(library: Path) -> list[str]:
    """The names that relocations of code and of the table refer to, in order of their fields."""
    said = tool([kit.llvm("readobj"), "-r", library])
    rows = re.findall(r"^ *(0x\w+) \d \d 1 \w+(?:BRANCH\w*|UNSIGNED) 0 (\w+)$", said, re.M)
    return sorted(name for _, name in rows)


@pytest.mark.parametrize(("strip", "granularity"), VARIANTS)
def test_a_resolver_stays_one(
    tmp_path: Path, arch: str, strip: Strip, granularity: Granularity
) -> None:
    original = kit.library(tmp_path, arch, _sources(arch))
    out, _, _ = kit.strip(original, arch, ["_api", "_api_chosen"], strip, granularity)
    marks = _marks(out)
    for name in ("_chosen", "_other", "_own", "_api_chosen"):
        assert marks[name] == RESOLVER, name
    assert marks["_table"] & DYNAMIC
    assert "_unused" not in marks
    found, wanted = (
        [n for n in _called(library) if n in ("_chosen", "_other", "_own")]
        for library in (out, original)
    )
    assert found == wanted
    assert set(found) == {"_chosen", "_other", "_own"}


COLD_SOURCE = """
__attribute__((cold, noinline)) static int first(int a) { return a * 3; }
__attribute__((cold, noinline)) int second(int a) { return a * 5; }
__attribute__((noinline)) static int third(int a) { return a * 7; }
__attribute__((noinline)) static int fourth(int a) { return third(a) * 9; }
int api(int a) { return a > 3 ? first(a) + second(a) : fourth(a); }
"""


@pytest.mark.parametrize("granularity", Granularity)
def test_cold_functions_stay_cold(tmp_path: Path, arch: str, granularity: Granularity) -> None:
    """A subsection is cold as a whole: linkers move it behind the others."""
    original = kit.library(tmp_path, arch, {"a.c": COLD_SOURCE}, "-O1")
    assert _marks(original)["_second"] == COLD, "clang marks no function"
    out, _, _ = kit.strip(original, arch, ["_api"], granularity=granularity)
    marks = _marks(out)
    assert [n for n in sorted(marks) if marks[n] & COLD] == ["_first", "_second"]


def test_what_is_never_dropped_is_in_the_program(tmp_path: Path, arch: str) -> None:
    """An exported table in a section that must stay, beside sections of its name that need not."""
    sources = {
        "a.s": """
        .section __DATA,__table,regular,no_dead_strip
        .globl _api_table
        .p2align 3
        _api_table: .quad 77
        .subsections_via_symbols
        """,
        "b.s": """
        .section __DATA,__table
        .globl _api_other
        .p2align 3
        _api_other: .quad 78
        .subsections_via_symbols
        """,
    }
    original = kit.library(tmp_path, arch, sources)
    out, _, _ = kit.strip(original, arch, ["_api_table", "_api_other"])
    main = "extern long api_table; int main(void) { return 0; }"
    objects = kit.compile(tmp_path, arch, {"main.c": main})
    sizes = []
    for name, library in (("first", original), ("second", out)):
        program = kit.link(
            tmp_path / name,
            arch,
            [*objects, library],
            "-dead_strip",
            "-u",
            "_api_other",
            "-all_load",
        )
        sections = darwin_image.load(program.read_bytes()).sections
        sizes.append(sections["__DATA", "__table"][1])
    assert sizes[0] == sizes[1] == 16


def test_a_literal_that_is_never_dropped(tmp_path: Path, arch: str) -> None:
    """And an initialiser with such a mark, which no linker drops anyhow."""
    source = """
    .cstring
    .asciz "dropped"
    .no_dead_strip _said
    _said: .asciz "for whoever looks into the program"
    .section __DATA,__mod_init_func,mod_init_funcs
    .p2align 3
    .no_dead_strip _start
    _start: .quad _api
    .text
    .globl _api
    .p2align 2
    _api: ret
    .subsections_via_symbols
    """
    original = kit.library(tmp_path, arch, {"a.s": source})
    out, _, _ = kit.strip(original, arch, ["_api"])
    main = "void api(void); int main(void) { api(); return 0; }"
    objects = kit.compile(tmp_path, arch, {"main.c": main})
    found = []
    for name, library in (("first", original), ("second", out)):
        program = kit.link(tmp_path / name, arch, [*objects, library], "-dead_strip")
        image = darwin_image.load(program.read_bytes())
        address, size, _ = image.sections["__TEXT", "__cstring"]
        found.append(image.bytes_at(address, size))
    assert found[0] == found[1] == b"for whoever looks into the program\0"


def _no_resolver(r: Result) -> None:
    r.raw[r.symbols[b"_chosen"] + 7] = 0


def _another_resolver(r: Result) -> None:
    r.raw[r.symbols[b"_impl"] + 7] |= 1


def _droppable(r: Result) -> None:
    r.raw[r.symbols[b"_kept"] + 6] &= ~NO_DEAD_STRIP & 0xFF


BREAKS = [
    (_no_resolver, "is a resolver no more"),
    (_another_resolver, "was no resolver"),
    (_droppable, "could be dropped, but must never be"),
]


def _broken(folder: Path, arch: str) -> Result:
    kept = ".data\n.no_dead_strip _kept\n_kept: .quad 5\n.text\n"
    sources = {n: kept + t if n == "api.s" else t for n, t in _sources(arch).items()}
    original = kit.library(folder, arch, sources)
    out, result, _ = kit.strip(original, arch, ["_api", "_api_chosen"], Strip.NONE)
    expectation = Expectation(
        Target.parse(kit.triple(arch)),
        ("_api", "_api_chosen"),
        Strip.NONE,
        result.link_map,
        kit.MARKER,
    )
    return Result(original, out, expectation)


@pytest.mark.parametrize(("damage", "expected"), BREAKS)
def test_the_verifier_sees_it(
    tmp_path: Path, arch: str, damage: Callable[[Result], None], expected: str
) -> None:
    broken = _broken(tmp_path, arch)
    damage(broken)
    assert expected in broken.findings()


def test_a_reference_to_another_symbol_at_the_place_is_seen(tmp_path: Path, arch: str) -> None:
    """A call of a resolver that no relocation is left of goes to the resolver itself."""
    broken = _broken(tmp_path, arch)
    place, count = broken.relocations(b"__text")
    names = {row: name for name, row in broken.symbols.items()}
    for at in range(place, place + 8 * count, 8):
        where, info = struct.unpack_from("<II", broken.raw, at)
        if names.get(broken.records[info & 0xFFFFFF]) == b"_own" and where:
            other = broken.records.index(broken.symbols[b"_plain"])
            struct.pack_into("<I", broken.raw, at + 4, info & 0xFF000000 | other)
    row = broken.symbols[b"_plain"]
    own = broken.symbols[b"_own"]
    broken.raw[row + 4 : row + 16] = broken.raw[own + 4 : own + 16]
    broken.raw[row + 7] = 0
    assert "is to a resolver, and not to what it returns" in broken.findings()
