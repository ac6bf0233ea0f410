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
