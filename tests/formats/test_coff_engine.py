"""Small Windows objects of clang's through the native engine, judged by LLVM's tools and linker."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import LinkError, ObjectError
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.verify.marker import read_marker
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool
from tests.tools import need

X64 = "x86_64-pc-windows-msvc"
SECTIONS = ("-ffunction-sections", "-fdata-sections")

C_ONE = """
#ifdef __x86_64__
#define API __attribute__((sysv_abi))
#else
#define API
#endif
int two_used(int), two_weak(int), undefined_later(void);
__attribute__((weak)) int shared(int a) { return a * 3; }
int maybe(void) __attribute__((weak));
int hidden_counter = 5, common_one, common_two[40];
static const char *const words[] = { "alpha", "beta", "gamma" };
static int zero[16];
int exported_data = 42;
__attribute__((noinline)) static double scale(double x) { return x * 3.25 + 1e10; }
__attribute__((noinline)) static int one_of(int a) {
  switch (a & 7) {
    case 0: return two_used(a); case 1: return two_weak(a) * 3; case 2: return a ^ 0x55;
    case 3: return shared(a) + 7; case 4: return a * 11; case 5: return hidden_counter;
    default: return zero[a & 15];
  }
}
static int (*const table[])(int) = { two_used, two_weak, one_of, shared };
API int one_api(int a) {
  common_one += a; common_two[a & 31]++; zero[a & 15]++; hidden_counter += 2;
  return two_used(a) + shared(a) + hidden_counter + (int)(scale(a) / 1e8)
    + words[a % 3][0] + (maybe ? maybe() : 0) + table[a & 3](a) + one_of(a);
}
API int one_other(int a) { return two_weak(a) + shared(a) + exported_data + zero[a & 15]; }
API int one_dead(int a) { return undefined_later() + a; }
"""
C_TWO = """
int common_one, shared(int);
int two_used(int a) { return a + 1; }
int two_weak(int a) { return shared(a) + common_one; }
int two_dead(void) { return 9; }
"""
# what the rest of a program supplies
REST = "int undefined_later(void) { return 0; } int _fltused;"
EXPORTS = ("one_api", "one_other", "exported_data")
CALLS = [(n, v) for v in range(12) for n in ("one_api", "one_other")]


def _library(folder: Path, target: str, *flags: str) -> Path:
    return kit.library(folder, target, {"one.c": C_ONE, "two.c": C_TWO}, "-O1", "-fcommon", *flags)


def _names(target: str, names: tuple[str, ...]) -> set[str]:
    return {kit.prefix(target) + n for n in names}


@pytest.mark.parametrize("target", kit.TARGETS)
@pytest.mark.parametrize("flags", [(), SECTIONS], ids=["plain", "sections"])
@pytest.mark.parametrize("granularity", Granularity)
def test_only_the_exports_show_and_the_result_links(
    tmp_path: Path, target: str, flags: tuple[str, ...], granularity: Granularity
) -> None:
    original = _library(tmp_path, target, *flags)
    out, made = kit.strip(original, target, EXPORTS, granularity=granularity)
    object_ = kit.first_object(out)
    defined, undefined = kit.externals(object_)
    assert defined == _names(target, EXPORTS)
    # plain objects have all functions in one section, so that what is dead needs it, too
    # `_fltused` is named by no relocation: it asks for a part of the C runtime
    more: tuple[str, ...] = ("_fltused",) if target in (X64, "i686-pc-windows-msvc") else ()
    more += () if flags else ("undefined_later",)
    assert undefined == _names(target, ("maybe", *more))
    assert set(made.exports) == _names(target, EXPORTS)
    assert read_marker(out) == kit.MARKER
    if flags:
        rest = kit.compile(tmp_path, target, {"rest.c": "int _fltused;"})
        kit.link_dll(tmp_path / "new.dll", target, [out, *rest], EXPORTS, "/opt:ref")
        text = tool([kit.llvm("nm"), object_])
        assert "dead" not in text
        assert "two_used" in text


@pytest.mark.parametrize("strip", Strip)
@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("target", ["x86_64-pc-windows-msvc", "x86_64-pc-windows-gnu"])
@pytest.mark.parametrize("optimize", ["-O0", "-O2"])
def test_the_result_computes_what_the_original_does(
    tmp_path: Path, target: str, granularity: Granularity, strip: Strip, optimize: str
) -> None:
    original = _library(tmp_path, target, *SECTIONS, optimize, "-g")
    out, _ = kit.strip(original, target, EXPORTS, strip, granularity)
    rest = kit.compile(tmp_path, target, {"rest.c": REST})
    kit.link_dll(tmp_path / "old.dll", target, [original, *rest], EXPORTS, "/opt:ref")
    kit.link_dll(tmp_path / "new.dll", target, [out, *rest], EXPORTS, "/opt:ref")
    expected = kit.call(tmp_path / "old.dll", *CALLS)
    assert len(set(expected)) > 12
    assert kit.call(tmp_path / "new.dll", *CALLS) == expected


@pytest.mark.parametrize("target", kit.TARGETS)
def test_sections_are_comdats_that_no_linker_confuses(tmp_path: Path, target: str) -> None:
    original = _library(tmp_path, target, *SECTIONS, "-fasynchronous-unwind-tables")
    out, _ = kit.strip(original, target, EXPORTS)
    found = kit.sections(kit.first_object(out))
    for section in found:
        if section["name"].startswith((".text", ".rdata", ".data", ".bss", ".xdata")):
            assert section["selection"] == "NoDuplicates", section
    tables = [s for s in found if s["name"] == ".pdata"]
    assert bool(tables) == (not target.startswith("i686"))
    for section in tables:
        assert section["selection"] == "Associative"
        assert found[int(section["parent"]) - 1]["name"] == ".text"
    assert len({s["parent"] for s in tables}) == len(tables)


@pytest.mark.parametrize("target", kit.TARGETS)
def test_two_results_live_in_one_program(tmp_path: Path, target: str) -> None:
    libraries = []
    for name in ("left", "right"):
        rename = [f"-Done_api={name}_api", f"-Done_other={name}_other", f"-Dexported_data={name}_d"]
        rename.append(f"-Dmaybe={name}_maybe")
        original = _library(tmp_path / name, target, *SECTIONS, *rename)
        exports = (f"{name}_api", f"{name}_other")
        libraries.append((original, kit.strip(original, target, exports)[0], exports))
    every = (*libraries[0][2], *libraries[1][2])
    rest = kit.compile(tmp_path, target, {"rest.c": REST})
    with pytest.raises(AssertionError, match="duplicate symbol"):
        kit.link_dll(tmp_path / "old.dll", target, [*(o for o, _, _ in libraries), *rest], every)
    kit.link_dll(tmp_path / "new.dll", target, [*(s for _, s, _ in libraries), *rest], every)
    if target.startswith("x86_64"):
        calls = [(f"{side}_api", v) for v in range(5) for side in ("left", "right")]
        values = kit.call(tmp_path / "new.dll", *calls)
        assert values[::2] == values[1::2]  # each counts for itself


def test_unused_exports_are_dropped_with_what_they_need(tmp_path: Path) -> None:
    sources = {
        "a.c": "static volatile int big[9000] = {1}; int a(void) { return big[4]; }",
        "b.c": "int b(void) { return 2; }",
    }
    original = kit.library(tmp_path, X64, sources, "-O1", *SECTIONS)
    out, _ = kit.strip(original, X64, ("a", "b"))
    kit.link_dll(tmp_path / "b.dll", X64, [out], ["b"], "/opt:ref")
    kit.link_dll(tmp_path / "a.dll", X64, [out], ["a"], "/opt:ref")
    small, large = ((tmp_path / n).stat().st_size for n in ("b.dll", "a.dll"))
    assert small < 8000
    assert large > 36000


# COMDAT -------------------------------------------------------------------------------------------

_COMDAT = """
    .section .rdata,"dr",{selection},chosen
    .globl chosen
chosen:
    .long {values}
    .text
    .globl {name}
{name}:
    movl chosen+4*0(%rip), %eax
    ret
"""


def _comdats(folder: Path, first: tuple[str, str], second: tuple[str, str]) -> Path:
    sources = {
        f"{name}.s": _COMDAT.format(selection=selection, values=values, name=name)
        for name, (selection, values) in (("one", first), ("two", second))
    }
    return kit.library(folder, X64, sources)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("discard", "5"), ("discard", "6, 7"), 5),
        (("largest", "5"), ("largest", "6, 7"), 6),
        (("largest", "6, 7"), ("largest", "5"), 6),
        (("same_size", "5"), ("same_size", "6"), 5),
        (("same_contents", "5"), ("same_contents", "5"), 5),
    ],
)
def test_selections(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str], expected: int
) -> None:
    original = _comdats(tmp_path, first, second)
    out, _ = kit.strip(original, X64, ("one", "two"))
    for library in (original, out):
        kit.link_dll(tmp_path / "x.dll", X64, [library], ["one", "two"])
        assert kit.call(tmp_path / "x.dll", ("one", 0), ("two", 0)) == [expected] * 2


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("one_only", "5"), ("one_only", "5"), "defined twice"),
        (("same_size", "5"), ("same_size", "6, 7"), "must not"),
        (("same_contents", "5"), ("same_contents", "6"), "must not"),
    ],
)
def test_selections_that_contradict(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str], words: str
) -> None:
    original = _comdats(tmp_path, first, second)
    with pytest.raises(AssertionError, match="duplicate symbol"):
        kit.link_dll(tmp_path / "x.dll", X64, [original], ["one", "two"])
    with pytest.raises(LinkError, match=words):
        kit.strip(original, X64, ("one", "two"))


def test_an_exported_choice_stays_one(tmp_path: Path) -> None:
    # a program with an inline function of the same name takes one of the two
    original = _comdats(tmp_path, ("discard", "5"), ("discard", "5"))
    out, _ = kit.strip(original, X64, ("one", "two", "chosen"))
    again = kit.compile(
        tmp_path / "p", X64, {"p.s": _COMDAT.format(selection="discard", values="5", name="mine")}
    )
    kit.link_dll(tmp_path / "x.dll", X64, [out, *again], ["one", "mine"])
    assert kit.call(tmp_path / "x.dll", ("one", 0), ("mine", 0)) == [5, 5]


@pytest.mark.parametrize("linker", ["bfd", "lld"])
@pytest.mark.parametrize("flags", [(), SECTIONS], ids=["plain", "sections"])
def test_an_exported_choice_of_mingw_stays_one(
    tmp_path: Path, linker: str, flags: tuple[str, ...]
) -> None:
    text = """
    extern "C" int outside(int);
    extern "C" __attribute__((selectany)) int chosen = 3;
    extern "C" inline __attribute__((noinline, used)) int shared(int a) {
      switch (a) {
        case 0: return outside(5); case 1: return outside(9); case 2: return outside(11);
        case 3: return 77; case 4: return outside(19); case 5: return outside(33);
      }
      return chosen;
    }
    extern "C" int NAME(int a) { return shared(a); }
    """
    target, gcc = "x86_64-pc-windows-gnu", need("x86_64-w64-mingw32-g++")
    inputs: list[list[Path]] = []
    for name in ("left", "right"):
        folder = tmp_path / name
        folder.mkdir()
        source, out = folder / "a.cpp", folder / "a.o"
        source.write_text(text)
        tool([gcc, "-O1", "-w", *flags, f"-DNAME={name}", "-c", source, "-o", out])
        original = kit.archive(folder / f"lib{name}.a", target, [out])
        new, made = kit.strip(original, target, (name, "chosen", "shared"))
        kit.check(original, new, target, made)
        inputs.append([original, new])
    main = "int outside(int a) { return a; } int left(int), right(int), shared(int);"
    main += "extern int chosen; int mainCRTStartup(void) { return left(1) + right(2) + chosen; }"
    [main_object] = kit.compile(tmp_path, target, {"main.c": main}, "-O1")
    ld = need("x86_64-w64-mingw32-ld") if linker == "bfd" else need("ld.lld-22", "ld.lld")
    argv: list[str | Path] = [ld, "-m", "i386pep"]
    for left in inputs[0]:
        for right in inputs[1]:
            out = tmp_path / "x.exe"
            tool([*argv, "-e", "mainCRTStartup", main_object, left, right, "-o", out])
            places = re.findall(r"^(\w+) \w (?:shared|chosen)$", tool([kit.llvm("nm"), out]), re.M)
            assert len(set(places)) == 2


def test_what_is_associated_lives_and_dies_with_its_section(tmp_path: Path) -> None:
    text = """
    .section .text,"xr",one_only,{name}
    .globl {name}
{name}:
    movl $3, %eax
    ret
    .section extra$b,"dr",associative,{name}
    .long 0x{mark}
"""
    sources = {
        "a.s": text.format(name="alive", mark="11223344")
        + text.format(name="dead", mark="55667788")
    }
    original = kit.library(tmp_path, X64, sources)
    out, _ = kit.strip(original, X64, ("alive",))
    data = out.read_bytes()
    assert bytes.fromhex("44332211") in data
    assert bytes.fromhex("88776655") not in data


# Weak externals -----------------------------------------------------------------------------------


def _weak(folder: Path, *more: str) -> Path:
    text = """
    .text
    .globl api
api:
    call chosen
    addl $1, %eax
    ret
    .section .text$own,"xr"
    .globl own
own:
    movl $10, %eax
    ret
    .weak chosen
    .set chosen, own
"""
    return kit.library(folder, X64, {"a.s": text, **{f"m{n}.s": t for n, t in enumerate(more)}})


def test_a_weak_external_has_its_default(tmp_path: Path) -> None:
    out, _ = kit.strip(_weak(tmp_path), X64, ("api",))
    kit.link_dll(tmp_path / "x.dll", X64, [out], ["api"])
    assert kit.call(tmp_path / "x.dll", ("api", 0)) == [11]


def test_a_definition_that_is_loaded_wins_over_the_default(tmp_path: Path) -> None:
    other = ".text\n.globl chosen\nchosen: movl $20, %eax\nret\n.globl needed\nneeded: ret\n"
    original = _weak(tmp_path, other)
    for exports, expected in ((("api",), 11), (("api", "needed"), 21)):
        out, _ = kit.strip(original, X64, exports)
        for library in (original, out):
            kit.link_dll(tmp_path / "x.dll", X64, [library], exports)
            assert kit.call(tmp_path / "x.dll", ("api", 0)) == [expected]


def test_an_alias_of_another_file_is_followed(tmp_path: Path) -> None:
    text = ".text\n.globl api\napi: call other\nret\n.weak other\n.set other, real\n"
    real = ".text\n.globl real\nreal: movl $33, %eax\nret\n"
    original = kit.library(tmp_path, X64, {"a.s": text, "b.s": real})
    out, made = kit.strip(original, X64, ("api",))
    assert made.undefined == ()
    kit.link_dll(tmp_path / "x.dll", X64, [out], ["api"])
    assert kit.call(tmp_path / "x.dll", ("api", 0)) == [33]


@pytest.mark.parametrize("given", [False, True])
def test_a_weak_reference_stays_one(tmp_path: Path, given: bool) -> None:
    text = """
    int maybe(int) __attribute__((weak));
    __attribute__((sysv_abi)) int api(int a) { return maybe ? maybe(a) : 77; }
    """
    original = kit.library(tmp_path, X64, {"a.c": text}, "-O1")
    out, made = kit.strip(original, X64, ("api",))
    assert made.undefined == ("maybe",)
    inputs = [out]
    if given:
        inputs += kit.compile(tmp_path, X64, {"g.c": "int maybe(int a) { return a + 1; }"})
    kit.link_dll(tmp_path / "x.dll", X64, inputs, ["api"])
    assert kit.call(tmp_path / "x.dll", ("api", 4)) == [5 if given else 77]


# Initialisers, groups, directives -----------------------------------------------------------------


def test_initialisers_live_in_their_order(tmp_path: Path) -> None:
    text = """
    typedef void (*f)(void);
    static int seen;
    static void one(void) { seen = seen * 10 + 1; }
    static void two(void) { seen = seen * 10 + 2; }
    __attribute__((section(".CRT$XCV"), used)) static const f v = two;
    __attribute__((section(".CRT$XCU"), used)) static const f u = one;
    __attribute__((sysv_abi)) int api(int a) { return seen + a; }
    """
    consumer = """
    typedef void (*f)(void);
    __attribute__((section(".CRT$XCA"))) const f first = 0;
    __attribute__((section(".CRT$XCZ"))) const f last = 0;
    __attribute__((sysv_abi)) int start(int a) {
      for (const volatile f *p = (const f *)&first + 1; p < &last; p++) if (*p) (*p)();
      return a;
    }
    """
    original = kit.library(tmp_path, X64, {"a.c": text}, "-O1", *SECTIONS)
    out, _ = kit.strip(original, X64, ("api",))
    main = kit.compile(tmp_path, X64, {"main.c": consumer}, "-O1")
    kit.link_dll(tmp_path / "x.dll", X64, [out, *main], ["api", "start"], "/opt:ref")
    assert kit.call(tmp_path / "x.dll", ("start", 0), ("api", 0)) == [0, 12]


# elements that only stand between two ends, in two members; what is between is counted
GROUP = """
#define PART(x) __attribute__((section("GROUP$" x), used)) static const long
#ifdef ENDS
PART("Set9") stop = -1; PART("Set5") two = 2, one = 1; PART("Set0") start = -1;
__attribute__((sysv_abi)) int api(int a) {
  const volatile long *p = &start;
  for (p++; p < &stop; p++) a = a * 10 + (int)*p;
  return a;
}
#else
PART("Set5") more = 3;
__attribute__((sysv_abi)) int other(int a) { return a; }
#endif
"""
GROUPS = (".rdata", ".text", ".data", "mine")


def _grouped(folder: Path, target: str, name: str, *flags: str) -> Path:
    words = ("-O1", f"-DGROUP={name}", *flags)
    text = GROUP.replace('"GROUP$"', f'"{name}$"')
    text = text.replace("const long", "long") if name == ".data" else text
    first = kit.compile(folder, target, {"ends.c": "#define ENDS\n" + text}, *words)
    second = kit.compile(folder, target, {"more.c": text}, *words)
    return kit.archive(folder / "t.lib", target, [*first, *second])


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("flags", [(), SECTIONS], ids=["plain", "sections"])
def test_a_group_has_all_its_parts_in_order(
    tmp_path: Path, name: str, flags: tuple[str, ...], granularity: Granularity
) -> None:
    original = _grouped(tmp_path, X64, name, *flags)
    out, made = kit.strip(original, X64, ("api", "other"), Strip.SYMBOLS, granularity)
    kit.check(original, out, X64, made, Strip.SYMBOLS)
    # a part of the program's own comes between the library's
    text = f'__attribute__((section("{name}$Set7"), used)) const long mine = 4;'
    text = text.replace("const long", "long") if name == ".data" else text
    own = kit.compile(tmp_path, X64, {"own.c": text})
    for library, dll in ((original, "old.dll"), (out, "new.dll")):
        kit.link_dll(tmp_path / dll, X64, [library, *own], ["api", "other"], "/opt:ref")
        seen = kit.call(tmp_path / dll, ("api", 0))
        # a set of the library's own, both of whose ends it has, is its alone
        private = name == "mine" and dll == "new.dll"
        assert sorted(str(seen[0])) == ["1", "2", "3", *("4" if not private else "")], dll
        assert private or str(seen[0]).endswith("4")


@pytest.mark.parametrize("target", kit.TARGETS)
@pytest.mark.parametrize("name", [".rdata", "mine"])
def test_parts_of_groups_keep_their_names(tmp_path: Path, target: str, name: str) -> None:
    original = _grouped(tmp_path, target, name)
    out, made = kit.strip(original, target, ("api", "other"))
    kit.check(original, out, target, made)
    found = [s for s in kit.sections(kit.first_object(out)) if "Set" in s["name"]]
    names = {re.sub(r"\.[0-9a-f]{8}\$", "$", s["name"]) for s in found}
    assert sorted(names) == [f"{name}$Set{n}" for n in (0, 5, 9)]
    assert not any(s["selection"] for s in found)


def test_sets_of_two_libraries_stay_apart(tmp_path: Path) -> None:
    alone, results = [], []
    for name in ("left", "right"):
        original = _grouped(tmp_path / name, X64, "mine", f"-Dapi={name}", f"-Dother={name}_o")
        results.append(kit.strip(original, X64, (name, f"{name}_o"))[0])
        kit.link_dll(tmp_path / f"{name}.dll", X64, [original], [name, f"{name}_o"])
        alone += kit.call(tmp_path / f"{name}.dll", (name, 0))
    kit.link_dll(tmp_path / "both.dll", X64, results, ["left", "right"])
    assert kit.call(tmp_path / "both.dll", ("left", 0), ("right", 0)) == alone


def test_what_nothing_can_refer_to_stays(tmp_path: Path) -> None:
    text = """
    .globl api
    .text
api: ret
    .section .rdata,"dr"
    .ascii "a version for tools"
    .section .text$k,"xr",one_only,gone
    .globl gone
gone: ret
    """
    original = kit.library(tmp_path, X64, {"a.s": text})
    out, made = kit.strip(original, X64, ("api",))
    kit.check(original, out, X64, made)
    [constants] = [s for s in kit.sections(kit.first_object(out)) if s["name"] == ".rdata"]
    assert not constants["selection"]
    assert b"a version for tools" in out.read_bytes()


@pytest.mark.parametrize("gnu", ["x86_64", "i686"])
def test_functions_of_gcc_go_where_nothing_needs_them(tmp_path: Path, gnu: str) -> None:
    text = """
    int used(int a) { return a + 1; } int dead(int a) { return a * 7; }
    int __attribute__((stdcall)) dead_too(int a) { return a * 9; }
    int needed = 4, lost = 5; static const int kept[] = {1, 2, 3}, table[] = {4, 5, 6};
    __attribute__((section(".rdata$zMark"))) const int mark = 77;
    int dead_data(int a) { return table[a] + lost; }
    int api(int a) { return used(a) * needed + kept[a & 1]; }
    """
    source = tmp_path / "a.c"
    source.write_text(text)
    flags = ("-O1", "-fno-inline", *SECTIONS)
    out = tmp_path / "a.o"
    tool([need(f"{gnu}-w64-mingw32-gcc"), *flags, "-c", source, "-o", out])
    target = f"{gnu}-pc-windows-gnu"
    original = kit.archive(tmp_path / "t.lib", target, [out])
    out, made = kit.strip(original, target, ("api",), Strip.NONE)
    kit.check(original, out, target, made, Strip.NONE)
    names = tool([kit.llvm("nm"), kit.first_object(out)])
    assert "dead" not in names
    assert "lost" not in names
    assert "used" in names
    assert ".rdata$zMark" in [s["name"] for s in kit.sections(kit.first_object(out))]


def test_directives(tmp_path: Path) -> None:
    text = """
    .globl api, other, kept, gone
    .text
api: ret
other: ret
    .section .text$k,"xr",one_only,kept
kept: ret
    .section .text$g,"xr",one_only,gone
gone: ret
    .section .drectve,"yn"
    .ascii " /EXPORT:api /EXPORT:other,DATA -export:\\"gone\\" /DEFAULTLIB:\\"libcmt\\" "
    .ascii "/defaultlib:uuid /INCLUDE:kept /INCLUDE:of_the_program -exclude-symbols:api,other"
    """
    again = '.section .drectve,"yn"\n.ascii " /DEFAULTLIB:\\"libcmt\\""\n.text\n.globl b\nb: ret\n'
    original = kit.library(tmp_path, X64, {"a.s": text, "b.s": again})
    out, made = kit.strip(original, X64, ("api", "b"))
    object_ = kit.first_object(out)
    said = tool([kit.llvm("readobj"), "--coff-directives", object_])
    words = re.findall(r"[/-]\S+", said.partition("Directive(s):")[2])
    assert words == [
        "/EXPORT:api",
        '/DEFAULTLIB:"libcmt"',
        "/defaultlib:uuid",
        "/INCLUDE:of_the_program",
        '-exclude-symbols:"api"',
    ]
    names = tool([kit.llvm("nm"), object_])
    assert " t kept" in names
    assert "gone" not in names
    assert made.undefined == ("of_the_program",)


@pytest.mark.parametrize("target", kit.TARGETS)
def test_a_pointer_to_what_became_private(tmp_path: Path, target: str) -> None:
    api = "__attribute__((sysv_abi)) " if target.startswith("x86_64") else ""
    user = f"""
    __declspec(dllimport) int value; __declspec(dllimport) int function(int);
    {api}int api(int a) {{ return value + function(a); }}
    """
    owner = "int value = 8; int function(int a) { return a * 2; }"
    original = kit.library(tmp_path, target, {"a.c": user, "b.c": owner}, "-O1", *SECTIONS)
    out, made = kit.strip(original, target, ("api",))
    assert made.undefined == ()
    kit.link_dll(tmp_path / "x.dll", target, [out], ["api"])
    if target.startswith("x86_64"):
        assert kit.call(tmp_path / "x.dll", ("api", 5)) == [18]


# Tables of symbols --------------------------------------------------------------------------------


def test_guard_tables_name_what_lives(tmp_path: Path) -> None:
    text = """
    static int one(int a) { return a; } int dead(int a) { return a; }
    int (*volatile pointer)(int) = one; int (*volatile dead_pointer)(int) = dead;
    int api(int a) { return pointer(a); }
    """
    flags = ("-O1", *SECTIONS, "-Xclang", "-cfguard")
    original = kit.library(tmp_path, X64, {"a.c": text}, *flags)
    out, _ = kit.strip(original, X64, ("api",))
    object_ = kit.first_object(out)
    assert ".gfids$y" in [s["name"] for s in kit.sections(object_)]
    said = tool([kit.llvm("readobj"), "--symbols", "--sections", "--section-data", object_])
    index = int(re.search(r"Name: \.gfids\$y.*?0000: (\w\w)000000 ", said, re.S)[1], 16)  # type: ignore[index]
    symbols = [
        (name, 1 + int(aux))
        for name, aux in re.findall(
            r"  Symbol \{\n    Name: (\S*).*?AuxSymbolCount: (\d+)", said, re.S
        )
    ]
    at = 0
    for name, size in symbols:
        if at == index:
            assert name == "one"
        at += size
    assert at > index
    features = re.search(r"Name: @feat\.00\n    Value: (\d+)", said)
    assert features and int(features[1]) & 0x800


def test_safe_exception_handlers_stay_known(tmp_path: Path) -> None:
    text = """
    .def @feat.00
    .scl 3
    .type 0
    .endef
    .globl @feat.00
.set @feat.00, 1
    .safeseh _handler
    .text
    .globl _api
_api:
    pushl $_handler
    ret
_handler:
    ret
    """
    target = "i686-pc-windows-msvc"
    original = kit.library(tmp_path, target, {"a.s": text})
    out, _ = kit.strip(original, target, ("api",), Strip.SYMBOLS)
    tool_words = ("/safeseh", "/dll", "/noentry", "/nodefaultlib", "/machine:x86", "/export:api")
    linker = need("lld-link-22", "lld-link")
    # lld refuses objects that do not say that they are fit for it
    tool([linker, *tool_words, f"/out:{tmp_path / 'x.dll'}", out])
    assert ".sxdata" in [s["name"] for s in kit.sections(kit.first_object(out))]


def test_the_table_of_significant_addresses_goes(tmp_path: Path) -> None:
    original = _library(tmp_path, X64, *SECTIONS, "-faddrsig")
    assert b".llvm_addrsig" in original.read_bytes()
    out, _ = kit.strip(original, X64, EXPORTS)
    assert b".llvm_addrsig" not in out.read_bytes()


# Large things -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [65534, 65535, 65536, 70000])
def test_more_relocations_than_a_header_can_count(tmp_path: Path, count: int) -> None:
    text = f".data\n.globl api\napi:\n.rept {count}\n.quad outside\n.endr\n"
    original = kit.library(tmp_path, X64, {"a.s": text})
    out, _ = kit.strip(original, X64, ("api",))
    said = tool([kit.llvm("objdump"), "-r", kit.first_object(out)])
    assert said.count("IMAGE_REL_AMD64_ADDR64") == count
    given = kit.compile(tmp_path, X64, {"o.s": ".data\n.globl outside\noutside: .quad 7\n"})
    kit.link_dll(tmp_path / "x.dll", X64, [out, *given], ["api"])


def test_more_sections_than_a_plain_object_has(tmp_path: Path) -> None:
    lines = []
    for n in range(66000):
        lines += [f'.section .text,"xr",one_only,f{n}', f".globl f{n}", f"f{n}: movl ${n}, %eax"]
        lines += [f"jmp f{n + 1}" if n < 65999 and n % 3 else "ret"]
    original = kit.library(tmp_path, X64, {"a.s": "\n".join(lines) + "\n"}, "-Wa,-mbig-obj")
    exports = [f"f{n}" for n in range(66000)]
    out, _ = kit.strip(original, X64, exports, granularity=Granularity.SECTION)
    object_ = kit.first_object(out)
    assert object_.read_bytes()[:6] == b"\0\0\xff\xff\x02\0"
    assert read_marker(out) == kit.MARKER
    kit.link_dll(tmp_path / "x.dll", X64, [out], ["f3", "f65997"])
    assert kit.call(tmp_path / "x.dll", ("f3", 0), ("f65997", 0)) == [3, 65997]
    # in one section there is no need for such a file
    out, _ = kit.strip(original, X64, exports[:10])
    assert kit.first_object(out).read_bytes()[:2] == b"\x64\x86"


# Members beside the object ------------------------------------------------------------------------


@pytest.mark.parametrize("target", kit.TARGETS)
def test_imports_stay_members_of_their_own(tmp_path: Path, target: str) -> None:
    definition = tmp_path / "some.def"
    definition.write_text("LIBRARY some.dll\nEXPORTS\n used\n unused\n data DATA\n")
    machine = {"x86_64": "i386:x86-64", "i686": "i386", "aarch64": "arm64"}[
        target.partition("-")[0]
    ]
    imports = tmp_path / "some.lib"
    tool([kit.llvm("dlltool"), "-m", machine, "-d", definition, "-l", imports, "-D", "some.dll"])
    text = """
    __declspec(dllimport) extern int data; int used(int);
    int api(int a) { return used(a) + data; }
    """
    original = kit.library(tmp_path, target, {"a.c": text}, "-O1")
    tool([kit.llvm("ar"), "qLsD", original, imports])
    out, made = kit.strip(original, target, ("api",))
    names = tool([kit.llvm("ar"), "t", out]).split()
    assert names.count("some.dll") == 5  # two imports, and what the table begins and ends with
    assert len(made.import_members) == 5
    kit.link_dll(tmp_path / "x.dll", target, [out], ["api"])
    said = tool([kit.llvm("readobj"), "--coff-imports", tmp_path / "x.dll"])
    assert re.findall(r"Symbol: (\w+)", said) == ["data", "used"]


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gnu", ["x86_64", "i686"])
def test_intermediate_code_of_gcc_is_refused(tmp_path: Path, gnu: str) -> None:
    objects = []
    texts = {"a": "int b(void); int api(void) { return b(); }", "b": "int b(void) { return 3; }"}
    for name, text in texts.items():
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        flags = ("-flto", "-fno-fat-lto-objects") if name == "b" else ()
        out = tmp_path / f"{name}.o"
        tool([need(f"{gnu}-w64-mingw32-gcc"), "-O1", *flags, "-c", source, "-o", out])
        objects.append(out)
    library = tmp_path / "t.lib"
    tool([need(f"{gnu}-w64-mingw32-gcc-ar"), "rcs", library, *objects])
    with pytest.raises(ObjectError, match="GCC's intermediate code only"):
        kit.strip(library, f"{gnu}-pc-windows-gnu", ("api",))


def test_arm64ec_is_refused(tmp_path: Path) -> None:
    objects = kit.compile(
        tmp_path, "arm64ec-pc-windows-msvc", {"a.c": "int api(void) { return 1; }"}
    )
    original = kit.archive(tmp_path / "t.a", "aarch64-pc-windows-gnu", objects)
    with pytest.raises(ObjectError, match="ARM64EC"):
        kit.strip(original, "aarch64-pc-windows-msvc", ("#api",))


CODEVIEW_A = """
#include "a.h"
struct pair { int first; union { short f; int n; } second; };
enum color { RED = 70000, BLUE = -1 } shade = BLUE;
static int hidden(struct pair *p) { return p->first * 3; }
int one_api(int n) { struct pair p = { twice(n), { 2 } }; return hidden(&p) + two_used(&p, n); }
int unused(int n) { return twice(n) - 9; }
"""
CODEVIEW_B = """
#include "a.h"
struct pair { int first; union { short f; int n; } second; };
static int counter;
int two_used(void *p, int n) { struct pair *q = p; counter += twice(q->first); return counter + n; }
int two_unused(int n) { return n - counter; }
"""
CODEVIEW_H = """
static inline __attribute__((always_inline)) int twice(int n) {
#line 7 "macros.inc"
  if (n > 1000) n -= 1000;
#line 4 "a.h"
  return n * 2;
}
int two_used(void *p, int n);
"""
MSVC = [t for t in kit.TARGETS if t.endswith("msvc")]


def _with_codeview(folder: Path, target: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.h").write_text(CODEVIEW_H)
    sources = {"a.c": CODEVIEW_A, "b.c": CODEVIEW_B}
    flags = ("-O1", "-fno-inline-functions", "-gcodeview", "-g", *SECTIONS)
    return kit.library(folder, target, sources, *flags)


def _lines_of(folder: Path, target: str, library: Path) -> tuple[dict[str, str], str]:
    """What LLVM's symbolizer says of each fourth byte of functions, and all types of the PDB."""
    dll = folder / "x.dll"
    kit.link_dll(dll, target, [library], ("one_api",), "/debug", "/opt:ref")
    pdbutil = kit.llvm("pdbutil")
    said = tool([pdbutil, "dump", "--symbols", dll.with_suffix(".pdb")])
    base = int(
        re.findall(r"ImageBase: (0x\w+)", tool([kit.llvm("readobj"), "--file-headers", dll]))[0], 16
    )
    found = {}
    row = r"S_[GL]PROC32 \[size = \d+\] `(\w+)`\s+parent = \d+, end = \d+, "
    row += r"addr = 0001:(\d+), code size = (\d+)"
    for name, address, size in re.findall(row, said):
        for n in range(0, int(size), 4):
            place = f"{base + 0x1000 + int(address) + n:#x}"
            found[f"{name}+{n}"] = tool([kit.llvm("symbolizer"), f"--obj={dll}", place])
    types = tool([pdbutil, "dump", "--types", "--ids", dll.with_suffix(".pdb")])
    return found, types


@pytest.mark.parametrize("target", MSVC)
def test_codeview_of_what_lives_stays(tmp_path: Path, target: str) -> None:
    original = _with_codeview(tmp_path, target)
    out, made = kit.strip(original, target, ("one_api",), Strip.NONE)
    assert made.warnings == ()
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    before, types_before = _lines_of(tmp_path / "old", target, original)
    after, types_after = _lines_of(tmp_path / "new", target, out)
    assert {name.partition("+")[0] for name in after} == {"one_api", "hidden", "two_used"}
    assert after == before
    assert "twice\n" in "".join(after.values())
    assert "a.h:4" in "".join(after.values())
    kinds = [sorted(re.findall(r"(LF_\w+) \[", text)) for text in (types_before, types_after)]
    assert kinds[0] == kinds[1]
    dumped = tool([kit.llvm("readobj"), "--codeview", kit.first_object(out)])
    shown = sorted(re.findall(r"DisplayName: (\w+)", dumped))
    assert shown == ["counter", "hidden", "one_api", "two_used"]
    if target.startswith("x86_64"):  # elsewhere a conditional instruction does it, of one line
        assert re.search(r"ChangeFile: \S*macros.inc", dumped)
    assert dumped.count("StringTable (") == dumped.count("FileChecksums (") == 1


def test_the_same_codeview_twice(tmp_path: Path) -> None:
    original = _with_codeview(tmp_path, X64)
    asked = (original, X64, ("one_api",), Strip.NONE)
    assert kit.strip(*asked)[0].read_bytes() == kit.strip(*asked)[0].read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"\x03\x12", b"\x77\x17", "type record 0x1777"),
        (b"\x3c\x11", b"\x77\x17", "symbol 0x1777"),
    ],
)
def test_codeview_that_is_not_known_is_left_out_with_a_warning(
    tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    original = _with_codeview(tmp_path, X64)
    raw = original.read_bytes()
    at = raw.index(old, raw.index(b".debug$T"))
    original.write_bytes(raw[:at] + new + raw[at + 2 :])
    out, made = kit.strip(original, X64, ("one_api",), Strip.NONE)
    assert ["CodeView" in w and words in w for w in made.warnings] == [True]
    # the other file's stays
    kit.link_dll(tmp_path / "x.dll", X64, [out], ("one_api",), "/debug")


@pytest.mark.parametrize("target", [t for t in kit.TARGETS if t.endswith("gnu")])
def test_dwarf_of_what_lives_stays(tmp_path: Path, target: str) -> None:
    original = _library(tmp_path, target, *SECTIONS, "-gdwarf-5")
    out, made = kit.strip(original, target, ("one_api", "one_other"), Strip.NONE)
    assert made.warnings == ()
    dump = kit.llvm("dwarfdump")
    lines = []
    rest = kit.compile(tmp_path, target, {"rest.c": REST})
    for name, library in (("old", original), ("new", out)):
        dll = tmp_path / f"{name}.dll"
        flags = ("/lldmingw", "/debug:dwarf", "/opt:ref")
        kit.link_dll(dll, target, [library, *rest], ("one_api", "one_other"), *flags)
        said = tool([dump, "--debug-info", dll])
        found = {}
        for block in said.split("DW_TAG_subprogram")[1:]:
            place = re.search(r"DW_AT_low_pc\s*\(0x(\w+)\)", block)
            label = re.search(r'DW_AT_name\s*\("(\w+)"\)', block)
            if place and label and int(place[1], 16):
                at = subprocess.run(
                    [kit.llvm("symbolizer"), f"--obj={dll}", f"0x{place[1]}"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split("\n")
                found[label[1]] = at[1]
        lines.append(found)
    assert lines[0] == lines[1]
    assert {"one_api", "scale", "two_used"} <= lines[0].keys()


_THROWS = """
int other(int);
extern "C" int api_{n}(int n) {{
  try {{ if (n > {n}) throw n; return other(n); }} catch (int e) {{ return e + {n}; }}
}}
"""
_RUNTIME = """
void __stdcall _CxxThrowException(void *a, void *b) {}
void __CxxFrameHandler3(void) {} int _fltused;
int other(int n) __asm__("%s"); int other(int n) { return n; }
int type_info __asm__("??_7type_info@@6B@");
"""


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("arch", ["x86_64", "i686", "aarch64"])
def test_what_two_members_throw(tmp_path: Path, arch: str, granularity: Granularity) -> None:
    """Each has a copy of what is told of an `int`, in sections like those of unwind information."""
    target = f"{arch}-pc-windows-msvc"
    sources = {f"{n}.cpp": _THROWS.format(n=n) for n in (1, 2)}
    library = kit.library(
        tmp_path, target, sources, "-O1", "-fexceptions", "-fcxx-exceptions", *SECTIONS
    )
    assert len(re.findall("_TI1H$", tool([kit.llvm("nm"), library]), re.M)) >= 2
    exports = ["api_1", "api_2"]
    out, made = kit.strip(library, target, exports, granularity=granularity)
    kit.check(library, out, target, made)
    assert kit.externals(out)[0] == _names(target, ("api_1", "api_2"))
    other = "?other@@YAHH@Z"
    rest = kit.compile(tmp_path, target, {"rest.c": _RUNTIME % other}, "-w")
    for name, inputs in (("original", library), ("result", out)):
        kit.link_dll(tmp_path / f"{name}.dll", target, [inputs, *rest], exports)


def test_unwind_tables_of_inline_functions_stay_with_them(tmp_path: Path) -> None:
    """GCC gives such a table no symbol to select it by: by its name it belongs to the function."""
    text = """
    inline int __attribute__((noinline)) deep(int n) { if (n > 2) throw n; return n; }
    extern "C" int api(int n) { try { return deep(n) + 1; } catch (int m) { return m + 100; } }
    inline int __attribute__((noinline)) other(int n) { if (n > 5) throw n; return n; }
    extern "C" int unused(int n) { try { return other(n) + 1; } catch (int m) { return m + 9; } }
    """
    (tmp_path / "a.cc").write_text(text)
    out = tmp_path / "a.o"
    tool([need("i686-w64-mingw32-g++"), "-O1", *SECTIONS, "-c", tmp_path / "a.cc", "-o", out])
    target = "i686-pc-windows-gnu"
    own = _frame_sizes(out)
    original = kit.archive(tmp_path / "t.lib", target, [out])
    for strip in Strip:
        out, made = kit.strip(original, target, ("api",), strip)
        kit.check(original, out, target, made, strip)
        left = _frame_sizes(kit.first_object(out)).values()
        # the file's own stays whole; of those of inline functions the one that is needed
        assert sum(left) == own[".eh_frame"] + own[".eh_frame$_Z4deepi"]


def _frame_sizes(path: Path) -> dict[str, int]:
    """Bytes of the sections of unwind tables, by name; of equal names together."""
    sizes: dict[str, int] = {}
    for line in tool([kit.llvm("objdump"), "-h", path]).splitlines():
        words = line.split()
        if len(words) > 2 and words[1].startswith(".eh_frame"):
            sizes[words[1]] = sizes.get(words[1], 0) + int(words[2], 16)
    return sizes
