"""Single facts of the object that the native engine writes, read back by other tools."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import native_kit as kit

STACK = ' .section .note.GNU-stack,"",@progbits\n'


def test_more_sections_than_the_header_can_count(tmp_path: Path) -> None:
    """SHN_XINDEX, read and written: 66,000 sections, symbols beyond index 65,279."""
    count = 66000
    lines = [
        f' .section .data.d{i},"aw"\n .globl d{i}\nd{i}: .long {i}, d{i}_end - .\nd{i}_end:'
        for i in range(count)
    ]
    used = (7, 65200, 65279, 65280, 65290, 65999)
    lines += [' .section .text.api,"ax"\n .globl api\napi: xorl %eax, %eax']
    lines += [f" addl d{i}(%rip), %eax" for i in used]
    original = kit.library(tmp_path, {"many.s": "\n".join([*lines, " ret\n", STACK])})
    stripped, result = kit.strip(original, ("api", "d65290"))
    assert result.statistics.sections_live == len(used) + 1
    main = """extern int d65290; int api(void); int printf(const char *, ...);
int main(void) { printf("%d %d\\n", api(), d65290); }"""
    (program,) = kit.build(tmp_path, {"main.c": main})
    kit.link(tmp_path / "p", [program, stripped])
    assert kit.output(tmp_path / "p") == f"{sum(used)} 65290\n"

    # all of them exported: the output has to count that far too
    everything = tuple(f"d{i}" for i in range(count))
    stripped, result = kit.strip(original, ("api", *everything), granularity=Granularity.SECTION)
    assert len(result.exports) == count + 1
    for linker in ("bfd", "lld", "mold"):
        kit.link(tmp_path / "p", [program, stripped], linker, "-Wl,--gc-sections")
        assert kit.output(tmp_path / "p") == f"{sum(used)} 65290\n", linker


def test_large_data_is_not_addressed_directly(tmp_path: Path) -> None:
    """A load through the GOT reaches `.ldata` (SHF_X86_64_LARGE), which may be 2 GB away."""
    text = f"""
 .section .text.api,"ax",@progbits
 .globl api
api: movq far@GOTPCREL(%rip), %rax
 movl (%rax), %eax
 ret
 .section .ldata.far,"awl",@progbits
 .balign 4
far: .long 42
 .section .lbss.gap,"awl",@nobits
 .globl gap
gap: .zero 64
{STACK}"""
    stripped, _ = kit.strip(kit.library(tmp_path, {"a.s": text}), ("api", "gap"))
    listing = kit.tool(["readelf", "-rSW", stripped])
    assert re.search(r"GOTPCREL", listing)
    assert not re.search(r"R_X86_64_PC32", listing)
    assert re.search(r"\.ldata\b.*\bWAl\b", listing)
    (main,) = kit.build(tmp_path, {"m.c": "int api(void); int main(void) { return api() - 42; }"})
    kit.output(kit.link(tmp_path / "p", [main, stripped]))


def test_link_order_to_no_section_stays_so(tmp_path: Path) -> None:
    """sh_link of a SHF_LINK_ORDER section that describes nothing is 0, as it was."""
    sources = {
        "a.s": f' .section .text.early,"ax"\n .globl early\nearly: ret\n{STACK}',
        "b.s": f"""
 .section .text.api,"ax",@progbits
 .globl api
api: call early
 leaq meta(%rip), %rax
 ret
 .section meta_data,"ao",@progbits,0
meta: .long 41
{STACK}""",
    }
    original = kit.library(tmp_path, sources, compiler="clang-22")
    for granularity in Granularity:
        stripped, _ = kit.strip(original, ("api",), granularity=granularity)
        row = re.search(r"meta_data .*", kit.tool(["readelf", "-SW", stripped]))
        assert row
        assert int(row[0].split()[-3]) == 0, row[0]


VISIBILITY = {
    "a.c": """
extern int elsewhere; int helper(void); int api(void) { return elsewhere + helper(); }
int shown(void) { return 1; }
""",
    "b.c": """
extern int elsewhere __attribute__((visibility("hidden")));
int shown(void) __attribute__((visibility("hidden")));
int helper(void) { return elsewhere + shown(); }
""",
}


def test_the_strictest_visibility_wins(tmp_path: Path) -> None:
    """gABI, "Symbol Visibility": of all references and definitions the most constraining one."""
    original = kit.library(tmp_path, VISIBILITY, "-fPIC")
    stripped, _ = kit.strip(original, ("api", "shown"))
    reference = tmp_path / "ld.o"
    kit.tool(["ld.bfd", "-r", "-uapi", "-ushown", "-o", reference, original])

    def visibility(file: Path) -> dict[str, str]:
        rows = kit.tool(["readelf", "-sW", file]).splitlines()
        words = [r.split() for r in rows if re.search(r" (elsewhere|shown)$", r)]
        return {w[7]: w[5] for w in words}

    assert visibility(reference) == {"elsewhere": "HIDDEN", "shown": "HIDDEN"}
    # an export keeps the visibility of its definition: the header says that it is public
    assert visibility(stripped) == {"elsewhere": "HIDDEN", "shown": "DEFAULT"}


def test_undefined_symbols_are_those_of_live_code(tmp_path: Path) -> None:
    text = {
        "a.c": """
extern int strong_dead(void), strong_live(void);
extern int weak_live(void) __attribute__((weak)), both(void) __attribute__((weak));
int dead(void) { return strong_dead(); }
int api(void) { return strong_live() + (weak_live ? weak_live() : 0) + (both ? both() : 0) ; }
int b(void); int tie(void) { return b(); } int (*keep)(void) = tie;
int *p(void) { return (int *)keep; }
""",
        "b.c": "extern int both(void); int b(void) { return 1; } int gone(void) { return both(); }",
    }
    original = kit.library(tmp_path, text, "-O1", "-fPIC", "-ffunction-sections")
    stripped, result = kit.strip(original, ("api", "p"))
    assert result.undefined == ("both", "strong_live", "weak_live")
    rows = kit.tool(["nm", "-u", stripped]).split("\n")
    found = {r.split()[-1]: r.split()[-2] for r in rows if r.startswith(" ")}
    # `both` is strong in dead code only: no linker that collects would miss it
    assert found == {"both": "w", "strong_live": "U", "weak_live": "w"}


def test_properties_that_restrict_the_consumer_stay(tmp_path: Path) -> None:
    """`-mno-direct-extern-access` forbids the consumer copy relocations; GNU ld -r keeps it."""
    source = {"a.c": "int shared = 1; int api(void) { return shared; }"}
    original = kit.library(tmp_path, source, "-fPIC", "-mno-direct-extern-access")
    stripped, _ = kit.strip(original, ("api", "shared"))
    kit.tool(["ld.bfd", "-r", "-uapi", "-o", tmp_path / "ld.o", original])

    def properties(file: Path) -> list[str]:
        text = kit.tool(["readelf", "-nW", file])
        return sorted(re.findall(r"(1_needed: .*|no copy on protected.*|x86 \w+ needed: .*)", text))

    assert properties(original)
    assert properties(stripped) == properties(tmp_path / "ld.o") == properties(original)


def test_order_of_equal_meaning_makes_no_difference(tmp_path: Path) -> None:
    """The same bytes from copies in other folders; a second run; another name of the folder."""
    sources = {
        "a.c": "int b(void); int api(void) { return b(); }",
        "b.c": "int b(void) { return 2; }",
    }
    outputs = set()
    for name in ("one", "two-longer"):
        original = kit.library(tmp_path / name, sources, "-g0")
        for _ in range(2):
            stripped, _ = kit.strip(original, ("api",))
            outputs.add(stripped.read_bytes())
    assert len(outputs) == 1


def test_unwind_information_is_not_repeated(tmp_path: Path) -> None:
    """One FDE for each live function, equal CIEs once, those with another personality apart."""
    sources = {
        "a.c": """int b(int), c(int); int api(int x) { return b(x) + c(x); }
int d(int x) { return x; }""",
        "b.c": "int b(int x) { return x + 1; } int e(int x) { return x; }",
        "c.cc": """extern "C" int c(int x) { try { if (x) throw x; } catch (int y) { return y; }
  return 0; }""",
    }
    original = kit.library(tmp_path, sources, "-O1", "-fPIC", "-ffunction-sections")
    stripped, _ = kit.strip(original, ("api",))
    frames = kit.tool(["readelf", "--debug-dump=frames", stripped])
    # gcc splits the catch block of `c` off into .text.unlikely, with an FDE of its own
    functions = kit.tool(["readelf", "--debug-dump=frames", original]).count("FDE") - 2
    assert frames.count("FDE cie=") == functions
    assert sorted(re.findall(r'Augmentation:\s+"(\w+)"', frames)) == ["zPLR", "zR"]


def test_cxx_identity_is_warned_of(tmp_path: Path) -> None:
    source = {
        "a.cc": """struct E { virtual ~E() {} };
inline int &counter() { static int n = 0; return n; }
extern "C" int api(int x) { if (x > 5) throw E(); return ++counter(); }"""
    }
    original = kit.library(tmp_path, source, "-O1", "-fPIC")
    _, result = kit.strip(original, ("api",))
    assert any("_ZTI" in w and "--keep" in w for w in result.warnings)
    names = kit.tool(["nm", "--defined-only", "--format=posix", original])
    kept = tuple(re.findall(r"^(_Z\S+) [VWu] ", names, re.M))
    assert kept
    _, result = kit.strip(original, ("api", *kept))
    assert not result.warnings


def test_strip_levels_keep_the_names_they_say(tmp_path: Path) -> None:
    source = {
        "a.c": """static int datum = 4; __attribute__((noinline)) static int helper(int x) {
  return x + datum++; } int api(int x) { return helper(x) + helper(x + 1); }"""
    }
    original = kit.library(tmp_path, source, "-O1", "-g", "-fno-toplevel-reorder")

    def names(strip: Strip) -> set[str]:
        stripped, _ = kit.strip(original, ("api",), strip)
        text = kit.tool(["nm", "-a", "--format=posix", stripped])
        return set(re.findall(r"^([A-Za-z_]\w*) ", text, re.M))

    assert names(Strip.SYMBOLS) == {"api"}
    assert names(Strip.DEBUGINFO) == {"api", "helper"}
    assert names(Strip.NONE) >= {"api", "helper", "datum"}


@pytest.mark.parametrize("strip", list(Strip))
def test_debug_sections_follow_the_level(strip: Strip, tmp_path: Path) -> None:
    original = kit.library(tmp_path, {"a.c": "int api(void) { return 1; }"}, "-g")
    stripped, _ = kit.strip(original, ("api",), strip)
    assert (".debug_info" in kit.tool(["readelf", "-SW", stripped])) == (strip is Strip.NONE)
