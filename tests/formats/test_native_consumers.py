"""What consumers do to a library: share, interpose, fold and collect it, link two of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.cli.main import main as cli
from cargo_strip_hook.core.requests import Granularity, Slice, Strip
from cargo_strip_hook.formats.elf import reader
from tests.formats import native_kit as kit

PIC = ("-O1", "-fPIC", "-ffunction-sections", "-fdata-sections")

INTERPOSED = {
    "a.c": """
int counter = 5; const int limit = 100;
int get(void) { return 1; }
int api(void) { return get() * 10 + counter; }
void bump(void) { counter++; }
int *where(void) { return &counter; }
int (*which(void))(void) { return get; }
int in_limit(void) { return limit; }
""",
    "b.c": """
extern int counter; int get(void);
int from_b(void) { return get() * 10 + counter; }
int (*const entry)(void) = get; int *const place = &counter;
int by_pointer(void) { return entry() * 10 + *place; }
""",
}
INTERPOSED_EXPORTS = (
    "api", "bump", "by_pointer", "counter", "from_b", "get", "in_limit", "limit", "where", "which"
)  # fmt: skip
INTERPOSED_MAIN = """
#include <stdio.h>
extern int counter; extern const int limit; int api(void), from_b(void), by_pointer(void);
int in_limit(void), *where(void), (*which(void))(void); void bump(void); int get(void);
#ifdef OWN
int get(void) { return 7; }
#endif
int main(void) {
  counter += 2; bump();
  printf("%d %d %d %d %d ", counter, api(), from_b(), by_pointer(), in_limit() == limit);
  printf("%d %d\\n", where() == &counter, which() == get);
}"""


@pytest.mark.parametrize("linker", kit.LINKERS)
@pytest.mark.parametrize("mode", ["plain", "Bsymbolic", "copy", "own", "own-Bsymbolic"])
def test_shared_object_of_the_library(mode: str, linker: str, tmp_path: Path) -> None:
    """References to exports inside of the library stay open to interposition and copies."""
    original = kit.library(tmp_path, INTERPOSED, *PIC)
    flags = ["-O1"]
    flags += ["-DOWN"] if "own" in mode else []
    flags += ["-fno-pic"] if mode == "copy" else ["-fPIE"]
    (main,) = kit.build(tmp_path, {"main.c": INTERPOSED_MAIN}, *flags)
    outputs = []
    for granularity in (None, *Granularity):
        used = original
        if granularity:
            used, _ = kit.strip(original, INTERPOSED_EXPORTS, granularity=granularity)
        folder = tmp_path / (granularity.value if granularity else "original")
        folder.mkdir(exist_ok=True)
        symbolic = ["-Wl,-Bsymbolic"] if "Bsymbolic" in mode else []
        shared: list[Path | str] = [
            "-shared",
            "-Wl,--whole-archive",
            used,
            "-Wl,--no-whole-archive",
        ]
        kit.link(folder / "libs.so", shared, linker, *symbolic)
        pie = ["-no-pie"] if mode == "copy" else ["-pie"]
        program = kit.link(folder / "p", [main, folder / "libs.so"], linker, *pie, "-Wl,-rpath=" + str(folder))  # noqa: E501  # fmt: skip
        outputs.append(kit.output(program))
    if mode == "plain":
        assert outputs[0] == "8 18 18 18 1 1 1\n"
    if mode == "copy":
        # a copy relocation: the program's own counter is the only one
        assert outputs[0] == "8 18 18 18 1 1 1\n"
        relocations = kit.tool(["readelf", "-rW", tmp_path / "class" / "p"])
        assert "R_X86_64_COPY" in relocations
    if mode == "own":
        assert outputs[0] == "8 78 78 78 1 1 1\n"
    assert outputs[1:] == outputs[:1] * 3, outputs


@pytest.mark.parametrize("linker", kit.LINKERS)
@pytest.mark.parametrize("mode", ["-static", "-static-pie"])
def test_static_programs(mode: str, linker: str, tmp_path: Path) -> None:
    if (mode, linker) == ("-static-pie", "gold"):
        pytest.skip("gold does not know --no-dynamic-linker")
    sources = {
        **INTERPOSED,
        "c.c": """static int pick(void) { return 3; } static void *choose(void) { return pick; }
__attribute__((visibility("hidden"))) int fast(void) __attribute__((ifunc("choose")));
static __thread int t = 4; int c(void) { return fast() * 10 + ++t; }""",
    }
    original = kit.library(tmp_path, sources, *PIC)
    stripped, _ = kit.strip(original, (*INTERPOSED_EXPORTS, "c"))
    main = INTERPOSED_MAIN.replace(
        "counter += 2;", 'int c(void); printf("%d ", c()); counter += 2;'
    )
    (program,) = kit.build(tmp_path, {"main.c": main}, "-O1", "-fPIE")
    for library in (original, stripped):
        kit.link(tmp_path / "p", [program, library], linker, mode)
        assert kit.output(tmp_path / "p") == "35 8 18 18 18 1 1 1\n"


SET = """
struct item { int value; };
#define ITEM(n, v) static const struct item n __attribute__((section("shared_set"), used)) = {v}
ITEM(NAME(x), VALUE);
extern const struct item __start_shared_set[], __stop_shared_set[];
int NAME(count)(void) { return __stop_shared_set - __start_shared_set; }
int NAME(value)(void) { return __start_shared_set->value; }
"""


@pytest.mark.parametrize("linker", kit.LINKERS)
@pytest.mark.parametrize("collect", [False, True])
def test_two_libraries_with_a_set_of_one_name(linker: str, collect: bool, tmp_path: Path) -> None:
    stripped = []
    for name, value in (("one", 11), ("two", 22)):
        defines = ("-DNAME(x)=" + name + "_##x", f"-DVALUE={value}")
        original = kit.library(tmp_path / name, {"a.c": SET}, *PIC, *defines)
        stripped.append(kit.strip(original, (f"{name}_count", f"{name}_value"))[0])
    main = """#include <stdio.h>
int one_count(void), two_count(void), one_value(void), two_value(void);
int main(void) { printf("%d %d %d %d\\n", one_count(), one_value(), two_count(), two_value()); }"""
    (program,) = kit.build(tmp_path, {"main.c": main})
    flags = ["-Wl,--gc-sections"] if collect else []
    kit.link(tmp_path / "p", [program, *stripped], linker, *flags)
    assert kit.output(tmp_path / "p") == "1 11 1 22\n"


@pytest.mark.parametrize("linker", kit.LINKERS)
def test_two_libraries_with_the_same_private_names(linker: str, tmp_path: Path) -> None:
    """COMDAT groups and old `.gnu.linkonce.` sections of two libraries do not meet any more."""
    source = """
__attribute__((visibility("default"))) int PREFIX(void);
int common_name(void) { return VALUE; }
extern int linkonce_value(void);
int PREFIX(void) { return common_name() + linkonce_value(); }
__asm__(".section .gnu.linkonce.t.linkonce_value,\\"ax\\",@progbits\\n .weak linkonce_value\\n"
  ".type linkonce_value,@function\\nlinkonce_value: movl $(VALUE * 100), %eax\\n ret\\n .text\\n");
"""
    text = source
    stripped = []
    for name, value in (("one", "1"), ("two", "2")):
        body = text.replace("PREFIX", name).replace("VALUE", value)
        original = kit.library(tmp_path / name, {"a.c": body}, *PIC)
        stripped.append(kit.strip(original, (name,))[0])
    main = """#include <stdio.h>
int one(void), two(void); int main(void) { printf("%d %d\\n", one(), two()); }"""
    (program,) = kit.build(tmp_path, {"main.c": main})
    kit.link(tmp_path / "p", [program, *stripped], linker)
    assert kit.output(tmp_path / "p") == "101 202\n"


ICF = {
    "a.c": """
int f1(int x) { return x * 3 + 1; } int f2(int x) { return x * 3 + 1; }
static int g1(int x) { return x / 7; } static int g2(int x) { return x / 7; }
int (*volatile p1)(int) = g1; int (*volatile p2)(int) = g2;
int differ(void) { return p1 != p2; }
int calls(int x) { return f1(x) + f2(x) + g1(x) + p2(x); }
"""
}


@pytest.mark.parametrize(
    ("linker", "level"),
    [("lld", "safe"), ("lld", "all"), ("gold", "safe"), ("gold", "all"), ("mold", "all")],
)
@pytest.mark.parametrize("compiler", ["gcc", "clang-22"])
def test_identical_code_folding(linker: str, level: str, compiler: str, tmp_path: Path) -> None:
    original = kit.library(tmp_path, ICF, *PIC, compiler=compiler)
    stripped, _ = kit.strip(original, ("calls", "differ", "f1", "f2"))
    main = """#include <stdio.h>
int f1(int), f2(int), differ(void), calls(int);
int (*volatile a)(int) = f1, (*volatile b)(int) = f2;
int main(void) { printf("%d %d %d\\n", calls(14), a != b, differ()); }"""
    (program,) = kit.build(tmp_path, {"main.c": main}, "-fPIE", compiler=compiler)
    kit.link(tmp_path / "p", [program, stripped], linker, f"-Wl,--icf={level}")
    got = kit.output(tmp_path / "p").split()
    assert got[0] == "90"
    if level == "safe":
        assert got[1:] == ["1", "1"], "pointers that C tells apart became one"


TEN = {
    f"m{i}.c": f"""
int shared_{i % 3}(int), table_{i}(int); extern const char *const names_{i % 3}[];
static int private_{i}(int x) {{ return x * {i + 3} + shared_{i % 3}(x); }}
__attribute__((noinline)) int second_{i}(int x) {{ return private_{i}(x) ^ {i}; }}
int export_{i}(int x) {{ return second_{i}(x) + names_{i % 3}[x & 1][0]; }}
int dead_{i}(int x) {{ return export_{i}(x) + shared_{(i + 1) % 3}(x); }}
"""
    for i in range(10)
} | {
    f"s{i}.c": f"""
int deep_{i}(int x) {{ return x - {i}; }}
int shared_{i}(int x) {{ return deep_{i}(x) * 5; }}
const char *const names_{i}[] = {{"one{i}", "two{i}"}};
"""
    for i in range(3)
}


def allocated(program: Path) -> int:
    """The bytes of code and data of a program, without what tells linkers apart by an accident."""
    with program.open("rb") as f:
        return sum(
            s["sh_size"]
            for s in ELFFile(f).iter_sections()
            if s["sh_flags"] & 2 and s.name not in (".note.gnu.build-id", ".hash", ".gnu.hash")
        )


@pytest.mark.parametrize("linker", ["bfd", "lld"])
def test_one_of_ten_exports_costs_no_more_than_before(linker: str, tmp_path: Path) -> None:
    original = kit.library(tmp_path, TEN, "-Os", *PIC[1:])
    stripped, _ = kit.strip(original, tuple(f"export_{i}" for i in range(10)))
    for i in range(10):
        main = (
            f"int export_{i}(int); int main(int c, char **v) {{ return export_{i}(c) == 12345; }}"
        )
        (program,) = kit.build(tmp_path, {"main.c": main}, "-fPIE")
        sizes = [
            allocated(kit.link(tmp_path / "p", [program, lib], linker, "-Wl,--gc-sections"))
            for lib in (original, stripped)
        ]
        assert sizes[1] <= sizes[0], f"export_{i}"


def test_an_unused_export_is_collected_with_what_only_it_needs(tmp_path: Path) -> None:
    original = kit.library(tmp_path, TEN, *PIC)
    stripped, _ = kit.strip(original, tuple(f"export_{i}" for i in range(10)))
    main = "int export_4(int); int main(int c, char **v) { return export_4(c) == 12345; }"
    (program,) = kit.build(tmp_path, {"main.c": main}, "-fPIE")
    for linker in kit.LINKERS:
        kit.link(tmp_path / "p", [program, stripped], linker, "-Wl,--gc-sections")
        names = set(re.findall(r" [tT] (\w+)$", kit.tool(["nm", tmp_path / "p"]), re.M))
        ours = {n for n in names if re.match(r"(export|second|private|shared|deep|dead)_", n)}
        assert ours <= {"export_4", "second_4", "private_4", "shared_1", "deep_1"}
        assert {"export_4", "second_4"} <= ours


@pytest.mark.parametrize("strip", [Strip.NONE, Strip.DEBUGINFO])
def test_a_backtrace_has_the_names_of_private_functions(strip: Strip, tmp_path: Path) -> None:
    sources = {
        "a.c": """
#include <execinfo.h>
#include <stdio.h>
__attribute__((noinline)) static int innermost_static(void) {
  void *frames[16]; int n = backtrace(frames, 16);
  for (int i = 0; i < n; i++) printf("%p\\n", frames[i]);
  return n; }
int middle_global(void); int (*volatile go)(void) = innermost_static;
__attribute__((noinline)) int middle_global(void) { return go() + 1; }
int (*volatile mid)(void) = middle_global;
int api_entry(void) { return mid() + 1; }
"""
    }
    original = kit.library(tmp_path, sources, "-O1", "-g", *PIC[1:])
    stripped, _ = kit.strip(original, ("api_entry",), strip)
    (program,) = kit.build(
        tmp_path, {"main.c": "int api_entry(void); int main(void) { return api_entry() == 0; }"}
    )
    kit.link(tmp_path / "p", [program, stripped], "bfd", "-static")
    addresses = [int(x, 16) for x in kit.output(tmp_path / "p").split()]
    with (tmp_path / "p").open("rb") as f:
        table = ELFFile(f).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        functions = [
            (s["st_value"], s["st_value"] + s["st_size"], s.name)
            for s in table.iter_symbols()
            if s["st_info"]["type"] == "STT_FUNC"
        ]
    names = [n for a in addresses for low, high, n in functions if low < a <= high]
    assert names[:4] == ["innermost_static", "middle_global", "api_entry", "main"]


@pytest.mark.parametrize("linker", ["bfd", "lld"])
def test_patchable_entries_follow_their_functions(linker: str, tmp_path: Path) -> None:
    """SHF_LINK_ORDER: one entry for each function that a collecting consumer keeps."""
    flags = ("-fpatchable-function-entry=4,2",)
    original = kit.library(tmp_path, TEN, *PIC, *flags)
    exports = tuple(f"export_{i}" for i in range(10))
    main = "int export_4(int); int main(int c, char **v) { return export_4(c) == 12345; }"
    (program,) = kit.build(tmp_path, {"main.c": main}, "-fPIE")

    def entries(library: Path) -> int:
        kit.link(tmp_path / "p", [program, library], linker, "-Wl,--gc-sections")
        with (tmp_path / "p").open("rb") as f:
            section: Any = ELFFile(f).get_section_by_name("__patchable_function_entries")
            return int(section["sh_size"]) // 8

    before = entries(original)
    assert 0 < before < 10
    for granularity in (Granularity.SECTION, Granularity.CLASS):
        assert entries(kit.strip(original, exports, granularity=granularity)[0]) == before
    everything = entries(kit.strip(original, exports, granularity=Granularity.WHOLE)[0])
    assert everything > before


def test_retained_sections_stay_and_stay_retained(tmp_path: Path) -> None:
    sources = {
        "a.c": """
__attribute__((used, retain, section("kept_notes"))) static const char note[] = "retained text";
__attribute__((used, retain)) static int helper(void) { return 5; }
int api(void) { return 1; }
"""
    }
    original = kit.library(tmp_path, sources, *PIC)
    stripped, _ = kit.strip(original, ("api",))
    listing = kit.tool(["readelf", "-SW", stripped])
    assert re.search(r"kept_notes\s+PROGBITS.*\bAR\b", listing)
    (program,) = kit.build(tmp_path, {"main.c": "int main(void) { return 0; }"})
    for linker in kit.LINKERS:
        if linker == "gold":
            continue  # knows no SHF_GNU_RETAIN, measured with binutils 2.40
        kit.link(
            tmp_path / "p",
            [program, "-Wl,--whole-archive", stripped, "-Wl,--no-whole-archive"],
            linker,
            "-Wl,--gc-sections",
        )
        assert b"retained text" in (tmp_path / "p").read_bytes(), linker


def test_control_flow_protection_is_the_and_of_all_members(tmp_path: Path) -> None:
    text = {
        "a.c": "int b(void); int api(void) { return b(); }",
        "b.c": "int b(void) { return 1; }",
        "dead.c": "int dead(void) { return 1; }",
    }
    for name, of_a, of_b, expected in (
        ("both", "full", "full", "IBT, SHSTK"),
        ("less", "full", "branch", "IBT"),
        ("none", "full", "none", ""),
    ):
        objects = kit.build(tmp_path / name, {"a.c": text["a.c"]}, f"-fcf-protection={of_a}")
        objects += kit.build(tmp_path / name, {"b.c": text["b.c"]}, f"-fcf-protection={of_b}")
        objects += kit.build(tmp_path / name, {"dead.c": text["dead.c"]}, "-fcf-protection=none")
        stripped, _ = kit.strip(kit.archive(tmp_path / name / "libt.a", objects), ("api",))
        notes = kit.tool(["readelf", "-nW", stripped])
        found = re.search(r"x86 feature: (.*)", notes)
        assert (found[1].strip() if found else "") == expected, name


def test_a_wish_for_an_executable_stack_stays_one(tmp_path: Path) -> None:
    """No `.note.GNU-stack` in a live member: linkers take it as a wish, so it is passed on."""
    sources = {
        "a.s": ' .section .text.api,"ax"\n .globl api\napi: ret\n',
        "b.c": "int b(void) { return 1; }",
    }
    objects = kit.build(tmp_path, sources)
    stripped, result = kit.strip(kit.archive(tmp_path / "libt.a", objects), ("api",))
    assert any("a.o" in w and ".note.GNU-stack" in w for w in result.warnings)
    assert ".note.GNU-stack" not in kit.tool(["readelf", "-SW", stripped])
    stripped, result = kit.strip(kit.archive(tmp_path / "libu.a", objects), ("b",))
    assert not result.warnings
    listing = kit.tool(["readelf", "-SW", stripped])
    assert re.search(r"GNU-stack\s+PROGBITS\s+0+ \w+ 0+ 00\s+0", listing), listing


LISTED = {
    "a.c": """
struct item { int value, (*call)(void); }; extern struct item __start_own[], __stop_own[];
extern struct item __start_unused[];
#define IN(set) static struct item in_##set __attribute__((section(#set), used))
static int ten(void) { return 10; } IN(listed) = {1, ten}; IN(own) = {3, ten}; IN(unused) = {4, 0};
__attribute__((section("code"))) int dead(void) { return __start_unused->value; }
int b(void); int api(void) { return b() + __start_own->value + (__stop_own - __start_own); }
""",
    "b.c": """
struct item { int value, (*call)(void); };
__attribute__((used)) static int twenty(void) { return 20; }
static struct item more __attribute__((section("listed"), used)) = {2, twenty};
int b(void) { return 0; }
__asm__(".section listed,\\"awG\\",@progbits,third,comdat\\n.balign 8\\n.quad 0, twenty\\n.text");
""",
}
LISTED_MAIN = """
#include <stdio.h>
struct item { int value, (*call)(void); }; __attribute__((weak))
extern struct item __start_listed[], __stop_listed[]; int api(void);
int main(void) {
  int sum = 0; for (struct item *i = __start_listed; i < __stop_listed; i++) sum += i->call();
  printf("%d %d\\n", api(), sum);
}"""


@pytest.mark.parametrize("linker", kit.LINKERS)
@pytest.mark.parametrize("engine", ["native", "system"])
def test_sets_that_only_a_program_goes_through(engine: str, linker: str, tmp_path: Path) -> None:
    """Linkers keep them, so that they stay, except those that are the library's own."""
    original = kit.library(tmp_path, LISTED, *PIC)
    main = tmp_path / "main.c"
    main.write_text(LISTED_MAIN)
    results = [original]
    for granularity in Granularity if engine == "native" else ():
        results.append(kit.strip(original, ["api"], granularity=granularity)[0])
    if engine == "system":
        results.append(tmp_path / "system.a")
        argv = ["strip", str(original), "--export", "api", "--engine", "system"]
        assert cli([*argv, "-o", str(results[-1])]) == 0
    collect = ["-Wl,--gc-sections"] + ["-Wl,-z,nostart-stop-gc"] * (linker == "lld")
    for flags in ([], collect):
        said = {kit.output(kit.link(tmp_path / "p", [main, r], linker, *flags)) for r in results}
        assert said == {"4 50\n"}
    for result in results[1:]:
        with open_archive(Slice(result)) as archive:
            names = kit.tool(["readelf", "-SW", result])
            assert len(archive.members) == 1
        assert " listed " in names and " unused" not in names and " code" not in names


def test_a_set_of_programs_that_is_lost_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reader, "_listed", lambda _: np.zeros(0, np.int64))
    original = kit.library(tmp_path, LISTED, *PIC)
    assert cli(["strip", str(original), "--export", "api"]) == 1
    assert "a section that programs find by its name is missing: listed" in capsys.readouterr().err
