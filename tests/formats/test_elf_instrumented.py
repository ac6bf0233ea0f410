"""Libraries that compilers added to: constructors in groups, sanitizers, counters, other models."""

from __future__ import annotations

from pathlib import Path

import pytest

import cargo_strip_hook
from tests.formats import native_kit as kit
from tests.tools import need

CLANG = "clang-22"
SPLIT = ("-O1", "-fPIC", "-ffunction-sections", "-fdata-sections")
SHARED = """
#pragma once
struct Log { int n; explicit Log(int); };
inline Log shared_log(41);
template <class T> struct Reg { static Log slot; };
template <class T> Log Reg<T>::slot(7);
inline int calls() { static int n; return ++n; }
"""
A_CC = """#include "shared.h"
extern int started;
Log::Log(int v) : n(v + 1) { ++started; }
int started;
extern "C" int api_a(int x) { return Reg<int>::slot.n + shared_log.n + calls() + x; }
"""
B_CC = """#include "shared.h"
extern int started;
extern "C" int api_a(int);
extern "C" int api_b(int x) { static int table[4] = {1, 2, 3, 4};
  return Reg<int>::slot.n * 2 + shared_log.n + api_a(0) + table[x & 3]; }
extern "C" int api_started() { return started; }
"""
SOURCES = {"shared.h": SHARED, "a.cc": A_CC, "b.cc": B_CC}
MAIN = """#include <stdio.h>
int api_a(int), api_b(int), api_started(void);
int main(void) { int a = api_a(1), b = api_b(2); printf("%d %d %d\\n", a, b, api_started()); }
"""
EXPECTED = "52 113 2\n"  # each of the two objects is made once
EXPORTS = ["api_a", "api_b", "api_started"]
WAYS = [("native", g) for g in ("class", "section", "whole")] + [("system", "class")]


def stripped(
    library: Path, engine: str, granularity: str, level: str = "debuginfo"
) -> cargo_strip_hook.Outcome:
    """The library by all phases, the verifier among them."""
    return cargo_strip_hook.strip(
        library,
        output=library.with_name("out.a"),
        exports=EXPORTS,
        engine=engine,  # type: ignore[arg-type]
        granularity=granularity,  # type: ignore[arg-type]
        strip=level,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("compiler", ["g++", CLANG])
def test_constructors_in_groups_run_once(compiler: str, tmp_path: Path) -> None:
    """clang puts the initialiser of an inline variable into the group of the variable."""
    library = kit.library(tmp_path, SOURCES, *SPLIT, "-std=c++17", compiler=compiler)
    main = tmp_path / "main.c"
    main.write_text(MAIN)
    for linker in kit.LINKERS:
        kit.link(tmp_path / "p", [main, library], linker, "-lstdc++")
        assert kit.output(tmp_path / "p") == EXPECTED
    for engine, granularity in WAYS:
        stripped(library, engine, granularity)
        for linker in kit.LINKERS if granularity == "class" else ("bfd",):
            kit.link(tmp_path / "p", [main, tmp_path / "out.a"], linker, "-lstdc++")
            assert kit.output(tmp_path / "p") == EXPECTED, (engine, granularity, linker)


def test_two_libraries_have_an_initialised_variable_each(tmp_path: Path) -> None:
    one = kit.library(tmp_path / "one", SOURCES, *SPLIT, "-std=c++17", compiler=CLANG)
    other = {n: t.replace("api_", "bpi_") for n, t in SOURCES.items()}
    two = kit.library(tmp_path / "two", other, *SPLIT, "-std=c++17", compiler=CLANG)
    kit.strip(one, EXPORTS, output=tmp_path / "one.a")
    kit.strip(two, [e.replace("api_", "bpi_") for e in EXPORTS], output=tmp_path / "two.a")
    main = tmp_path / "main.c"
    main.write_text(
        MAIN
        + MAIN.partition("\n")[2].replace("api_", "bpi_").replace("main", "more")
        + "__attribute__((destructor)) static void end(void) { more(); }\n"
    )
    kit.link(tmp_path / "p", [main, tmp_path / "one.a", tmp_path / "two.a"], "bfd", "-lstdc++")
    assert kit.output(tmp_path / "p") == EXPECTED * 2


INSTRUMENTED = {
    "asan": (CLANG, ("-fsanitize=address",), ("-fsanitize=address",)),
    "asan-gcc": ("g++", ("-fsanitize=address",), ("-fsanitize=address",)),
    "guards": (
        CLANG,
        ("-fsanitize=address", "-fsanitize-coverage=trace-pc-guard"),
        ("-fsanitize=address",),
    ),
    "counters": (
        CLANG,
        ("-fsanitize=undefined", "-fsanitize-coverage=inline-8bit-counters,pc-table"),
        ("-fsanitize=undefined",),
    ),
    "kcfi": (CLANG, ("-fsanitize=kcfi",), ()),
    "gmon": (CLANG, ("-pg",), ()),
    "functions": ("g++", ("-finstrument-functions",), ()),
    "patchable": (CLANG, ("-fpatchable-function-entry=4,2",), ()),
    "xray": (
        CLANG,
        ("-fxray-instrument", "-fxray-instruction-threshold=1"),
        ("-fxray-instrument",),
    ),
    "sizes": (CLANG, ("-fstack-size-section", "-fbasic-block-address-map"), ()),
    "large": (CLANG, ("-mcmodel=large",), ()),
    "large-gcc": ("g++", ("-mcmodel=large",), ()),
    "medium": (CLANG, ("-mcmodel=medium", "-mlarge-data-threshold=1"), ()),
    "medium-gcc": ("g++", ("-mcmodel=medium", "-mlarge-data-threshold=1"), ()),
}


@pytest.mark.parametrize("name", INSTRUMENTED)
def test_instrumented_code(name: str, tmp_path: Path) -> None:
    compiler, flags, link = INSTRUMENTED[name]
    library = kit.library(tmp_path, SOURCES, *SPLIT, "-std=c++17", *flags, compiler=compiler)
    main = tmp_path / "main.c"
    main.write_text(MAIN)
    driver = need("gcc" if compiler == "g++" else CLANG)
    for engine, granularity in (("native", "class"), ("native", "section"), ("system", "class")):
        stripped(library, engine, granularity, "none")
        argv = [driver, "-o", tmp_path / "p", main, tmp_path / "out.a", *link, "-lstdc++", "-lm"]
        kit.tool(argv)
        assert kit.output(tmp_path / "p") == EXPECTED, (engine, granularity)


def _coverage(program: Path, folder: Path) -> str:
    raw, data = folder / "p.profraw", folder / "p.profdata"
    raw.unlink(missing_ok=True)
    kit.tool(["env", f"LLVM_PROFILE_FILE={raw}", program])
    kit.tool([need("llvm-profdata-22"), "merge", raw, "-o", data])
    return kit.tool([need("llvm-cov-22"), "report", program, f"-instr-profile={data}"])


@pytest.mark.parametrize("level", ["none", "debuginfo", "symbols"])
def test_coverage_of_two_libraries_and_the_program(level: str, tmp_path: Path) -> None:
    """`llvm-cov` reports as with the originals: each function, used or not."""
    flags = ("-O1", "-fPIC", "-fprofile-instr-generate", "-fcoverage-mapping")
    sources = {
        "one": "int one(int i) { if (i > 3) return 7; return i; } int dead(int i) { return i; }",
        "two": "static int in(int i) { return i > 2 ? 5 : i; } int two(int i) { return in(i); }",
    }
    paths = []
    for name, text in sources.items():
        paths.append(kit.library(tmp_path / name, {f"{name}.c": text}, *flags, compiler=CLANG))
    main = tmp_path / "main.c"
    main.write_text("int one(int), two(int); int main(void) { return one(1) + two(1) != 2; }")
    program = tmp_path / "p"
    kit.tool([need(CLANG), *flags, main, *paths, "-o", program])
    wanted = _coverage(program, tmp_path)
    assert "two.c" in wanted
    for engine in ("native", "system"):
        for path, name in zip(paths, sources, strict=True):
            cargo_strip_hook.strip(
                path,
                output=path.with_name("out.a"),
                exports=[name],
                strip=level,  # type: ignore[arg-type]
                engine=engine,  # type: ignore[arg-type]
            )
        outs = [p.with_name("out.a") for p in paths]
        for more in ((), ("-Wl,--gc-sections",)):
            kit.tool([need(CLANG), *flags, main, *outs, *more, "-o", program])
            assert _coverage(program, tmp_path) == wanted


def test_the_kind_of_profile_is_told(tmp_path: Path) -> None:
    """The runtime learns from a hidden symbol of the libraries what their counters mean."""
    paths = []
    for name in ("one", "two"):
        source = {f"{name}.c": f"int {name}(int i) {{ return i > 3 ? 7 : i; }}"}
        flags = ("-O2", "-fPIC", "-fprofile-generate")
        paths.append(kit.library(tmp_path / name, source, *flags, compiler=CLANG))
    main = tmp_path / "main.c"
    main.write_text("int one(int), two(int); int main(void) { return one(1) + two(1) != 2; }")
    [plain] = kit.build(tmp_path, {"plain.c": main.read_text()}, compiler=CLANG)
    for engine in ("native", "system"):
        for path in paths:
            out = path.with_name("out.a")
            names = [path.parent.name]
            cargo_strip_hook.strip(path, output=out, exports=names, engine=engine)  # type: ignore[arg-type]
        outs = [p.with_name("out.a") for p in paths]
        kit.tool([need(CLANG), "-fprofile-generate", plain, *outs, "-o", tmp_path / "p"])
        raw = tmp_path / f"{engine}.profraw"
        kit.tool(["env", f"LLVM_PROFILE_FILE={raw}", tmp_path / "p"])
        said = kit.tool([need("llvm-profdata-22"), "show", raw])
        assert "Instrumentation level: IR" in said and "Total functions: 2" in said


ASIDE = """
int api_get(int i) { return i; }
int dead(void) { return 1; }
__asm__(".pushsection .comment.build,\\"\\",@progbits\\n .ascii \\"build 42\\"\\n .popsection\\n"
        ".pushsection .gnu.warning.api_get,\\"\\",@progbits\\n"
        " .asciz \\"careful\\"\\n .popsection\\n"
        ".pushsection .deplibs,\\"MS\\",@llvm_dependent_libraries,1\\n"
        " .asciz \\"m\\"\\n .popsection\\n"
        ".pushsection .probes,\\"\\",@note\\n .long 4, 8, 3\\n .asciz \\"abc\\"\\n"
        " .quad dead\\n .popsection\\n"
        ".pushsection .probes.live,\\"\\",@note\\n .quad api_get\\n .quad dead\\n .popsection\\n"
        ".pushsection .llvmcmd,\\"e\\",@progbits\\n .asciz \\"-O1\\"\\n .popsection\\n");
"""


@pytest.mark.parametrize("level", ["none", "debuginfo", "symbols"])
def test_what_linkers_and_tools_read_stays(level: str, tmp_path: Path) -> None:
    library = kit.library(tmp_path, {"a.c": ASIDE}, *SPLIT, compiler=CLANG)
    out = tmp_path / "out.a"
    cargo_strip_hook.strip(library, output=out, exports="api_get", strip=level)  # type: ignore[arg-type]
    listed = kit.tool([need("readelf"), "-SW", out])
    for name in (".comment", ".comment.build", ".gnu.warning.api_get", ".deplibs", ".probes.live"):
        assert f" {name} " in listed
    assert " .probes " not in listed  # it tells of dead code only
    assert ".llvmcmd" not in listed
    live = kit.tool([need("readelf"), "-x.probes.live", "-rW", out])
    assert "000000000010" not in live and "dead" not in live
    main = tmp_path / "main.c"
    main.write_text("int api_get(int); int main(void) { return api_get(0); }")
    driver = ["gcc", f"-B{kit.linker_folder()}", main, out, "-o", tmp_path / "p"]
    assert "careful" in kit.tool([*driver, "-fuse-ld=bfd"])
    kit.tool([*driver, "-fuse-ld=lld"])
