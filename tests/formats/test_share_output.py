"""Sets of libraries that share a common one: they are linked, in any choice of them, and run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats.native_kit import LINKERS, library, link, output, tool
from tests.formats.share_kit import FLAGS, shared_set, verified_set
from tests.formats.test_share_rules import rust_library
from tests.tools import need

NOINLINE = "__attribute__((noinline)) "
GC = ("-Wl,--gc-sections",)

# what all three have: state, thread-locals, a constructor, tables, strings, calls in a circle
C_COMMON = f"""
#include <stdio.h>
#include <string.h>
static int count; static __thread int mine = 10; int begun;
__attribute__((constructor)) static void begin(void) {{ begun++; }}
{NOINLINE}int bump(void) {{ mine++; return ++count; }}
{NOINLINE}int started(void) {{ return begun; }}
{NOINLINE}int of_thread(void) {{ return mine; }}
int odd(unsigned n);
{NOINLINE}int even(unsigned n) {{ return n == 0 ? 1 : odd(n - 1); }}
{NOINLINE}int odd(unsigned n) {{ return n == 0 ? 0 : even(n - 1); }}
static const char *const words[] = {{
    "nought", "a word that is long enough to have its own name", "two"
}};
{NOINLINE}const char *word(int n) {{ return words[n % 3]; }}
static int (*const table[])(unsigned) = {{even, odd}};
{NOINLINE}int by_table(int n, unsigned x) {{ return table[n](x); }}
"""
C_OWN = """
#include <stdio.h>
int bump(void), of_thread(void), by_table(int, unsigned), started(void); const char *word(int);
int NAME(void) {
    int own = START + bump();
    printf("NAME %d %d %d %d %s\\n", own, of_thread(), started(), by_table(1, 7), word(own));
    return own;
}
"""
_MAIN = "{declared}int main(void) {{ {calls} return 0; }}"


def c_libraries(
    folder: Path, names: str = "abc", *flags: str, compiler: str | None = None
) -> list[tuple[Path, list[str]]]:
    return [
        (
            library(
                folder / name,
                {
                    "common.c": C_COMMON,
                    f"{name}.c": C_OWN.replace("NAME", name).replace("START", str(100 * n)),
                },
                *FLAGS,
                *flags,
                name=f"lib{name}.a",
                compiler=compiler,
            ),
            [name],
        )
        for n, name in enumerate(names)
    ]


def main_text(names: Sequence[str]) -> str:
    declared = "".join(f"int {n}(void);" for n in names)
    return _MAIN.format(declared=declared, calls="".join(f"{n}();" for n in names))


def main_of(folder: Path, names: Sequence[str]) -> Path:
    file = folder / f"main_{''.join(names)}.c"
    file.write_text(main_text(names))
    return file


def expected(names: Sequence[str]) -> str:
    """What a program says that has the common code and state once."""
    lines, words = [], ["nought", "a word that is long enough to have its own name", "two"]
    for count, name in enumerate(names, 1):
        own = 100 * "abc".index(name) + count
        lines.append(f"{name} {own} {10 + count} 1 1 {words[own % 3]}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("flags", [(), GC], ids=["plain", "gc"])
def test_any_libraries_of_a_set_link_and_share(
    tmp_path: Path, linker: str, flags: tuple[str, ...]
) -> None:
    small, common = shared_set(tmp_path / "set", c_libraries(tmp_path))
    of = dict(zip("abc", small, strict=True))
    for count in (1, 2, 3):
        for names in itertools.combinations("abc", count):
            inputs = [main_of(tmp_path, names), *(of[n] for n in names), common]
            program = link(tmp_path / "program", inputs, linker, *flags)
            assert output(program) == expected(names)


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("strip", Strip)
def test_a_set_of_each_level_and_granularity(
    tmp_path: Path, strip: Strip, granularity: Granularity
) -> None:
    libraries = c_libraries(tmp_path, "abc", "-g")
    small, common = shared_set(tmp_path / "set", libraries, strip, granularity)
    for linker, flags in itertools.product(("bfd", "lld"), ((), GC)):
        inputs = [main_of(tmp_path, "abc"), *small, common]
        assert output(link(tmp_path / "program", inputs, linker, *flags)) == expected("abc")


def test_shared_libraries_have_state_of_their_own(tmp_path: Path) -> None:
    small, common = shared_set(tmp_path / "set", c_libraries(tmp_path, "abc", "-fPIC"))
    libraries = [
        link(
            tmp_path / f"lib{name}.so",
            ["-shared", "-Wl,-u," + name, one, common],
            "bfd",
        )
        for name, one in zip("abc", small, strict=True)
    ]
    program = link(
        tmp_path / "program",
        [main_of(tmp_path, "abc"), *libraries],
        "bfd",
        f"-Wl,-rpath,{tmp_path}",
    )
    assert output(program).splitlines() == [expected(n).strip() for n in "abc"]
    for one in libraries:
        assert "__csh_" not in tool([need("nm"), "-D", one])


def test_the_order_of_libraries_changes_nothing(tmp_path: Path) -> None:
    libraries = c_libraries(tmp_path)
    small, common = shared_set(tmp_path / "set", libraries)
    again, other = shared_set(tmp_path / "again", libraries[::-1])
    assert [p.read_bytes() for p in small] == [p.read_bytes() for p in again[::-1]]
    assert common.read_bytes() == other.read_bytes()


def test_a_program_of_a_few_gets_what_these_need(tmp_path: Path) -> None:
    """Two of four libraries share more: nobody else gets it, nor what it refers to outside."""
    more = f"int nowhere(int); {NOINLINE}int more(int x) {{ return nowhere(x) * 3; }}"
    use = "int util(int); int more(int); int %s(int x) { return util(x) + more(x); }"
    plain = "int util(int); int %s(int x) { return util(x) - 1; }"
    util = f"{NOINLINE}int util(int x) {{ return x * 5; }}"
    sources = [
        {"util.c": util, "more.c": more, "u.c": use % "a"},
        {"util.c": util, "more.c": more, "u.c": use % "b"},
        {"util.c": util, "u.c": plain % "c"},
        {"util.c": util, "u.c": plain % "d"},
    ]
    libraries = [
        (library(tmp_path / n, one, *FLAGS, name=f"lib{n}.a"), [n])
        for n, one in zip("abcd", sources, strict=True)
    ]
    small, common = shared_set(tmp_path / "set", libraries)
    main = tmp_path / "main.c"
    main.write_text("int c(int), d(int); int main(void) { return c(2) + d(3) != 23; }")
    for linker in LINKERS:
        output(link(tmp_path / "program", [main, small[2], small[3], common], linker))


def test_a_shared_constructor_runs_where_nothing_else_is_needed(tmp_path: Path) -> None:
    begin = (
        "#include <stdio.h>\n"
        '__attribute__((constructor)) static void begin(void) { puts("begun"); }'
    )
    libraries = [
        (
            library(
                tmp_path / n,
                {"u.c": f"{begin}\nint {n}(int x) {{ return x + 1; }}"},
                *FLAGS,
                name=f"lib{n}.a",
            ),
            [n],
        )
        for n in "ab"
    ]
    small, common = shared_set(tmp_path / "set", libraries)
    main = tmp_path / "main.c"
    for linker, flags in itertools.product(LINKERS, ((), GC)):
        main.write_text("int a(int); int main(void) { return a(1) - 2; }")
        program = link(tmp_path / "program", [main, small[0], common], linker, *flags)
        assert output(program) == "begun\n"
        main.write_text("int a(int), b(int); int main(void) { return a(1) + b(1) - 4; }")
        program = link(tmp_path / "program", [main, *small, common], linker, *flags)
        assert output(program) == "begun\n"


def test_debug_information_stands_where_the_code_is(tmp_path: Path) -> None:
    """Each function's entry has an address once in a program."""
    small, common = shared_set(tmp_path / "set", c_libraries(tmp_path, "abc", "-g"), Strip.NONE)
    inputs = [main_of(tmp_path, "abc"), *small, common]
    program = link(tmp_path / "program", inputs, "lld", *GC)
    text = tool([need("llvm-dwarfdump-22"), "--name=even", "--name=a", program])
    for name in ("even", "a"):
        found = re.findall(
            rf'DW_AT_low_pc\s+\((0x[0-9a-f]+)\)(?:(?!DW_TAG)[\s\S])*?DW_AT_name\s+\("{name}"\)'
            rf'|DW_AT_name\s+\("{name}"\)(?:(?!DW_TAG)[\s\S])*?DW_AT_low_pc\s+\((0x[0-9a-f]+)\)',
            text,
        )
        places = [int(a or b, 16) for a, b in found]
        assert sum(place > 1 for place in places) == 1, text
    tool([need("llvm-dwarfdump-22"), "--verify", "--quiet", common], accept=(0,))


@pytest.mark.parametrize("flags", [(), GC], ids=["plain", "gc"])
def test_rust_libraries_have_one_std(tmp_path: Path, flags: tuple[str, ...]) -> None:
    libraries = [rust_library(tmp_path, name) for name in ("one", "two")]
    small, common = shared_set(tmp_path / "set", libraries)
    main = tmp_path / "main.c"
    main.write_text(
        "#include <stdio.h>\n"
        "unsigned one_bump(void), two_bump(void); void one_hook(void);"
        "int one_panic(void), two_panic(void);"
        "int main(void) { unsigned a = one_bump(), b = two_bump(), c = one_bump();"
        'fprintf(stderr, "%u %u %u\\n", a, b, c); one_hook();'
        "int p = one_panic(), q = two_panic();"
        'fprintf(stderr, "%d %d\\n", p, q); return 0; }'
    )
    for linker in LINKERS:
        program = link(tmp_path / "program", [main, *small, common], linker, *flags)
        lines = output(program).splitlines()
        assert sorted(lines) == ["1 2 3", "7 7", "one", "one"], linker


def test_a_call_to_a_crossing_name_needs_no_table(tmp_path: Path) -> None:
    """With `-fno-plt` calls go through the GOT; those to the common library do not."""
    libraries = c_libraries(tmp_path, "abc", "-fPIC", "-fno-plt")
    small, common = shared_set(tmp_path / "set", libraries)
    for one in (*small, common):
        for line in tool([need("readelf"), "-rW", one]).splitlines():
            assert "GOTPC" not in line or "__csh_" not in line, line
    for linker in LINKERS:
        inputs = [main_of(tmp_path, "abc"), *small, common]
        assert output(link(tmp_path / "program", inputs, linker, *GC)) == expected("abc")


def test_what_a_name_takes_more_for_than_it_saves_is_not_shared(tmp_path: Path) -> None:
    """A short function that is called often stays, unless its address is taken or it has state."""
    common = f"""
static int count;
{NOINLINE}int often(int x) {{ return x * 3; }}
{NOINLINE}int address(int x) {{ return x * 7; }}
{NOINLINE}int state(int x) {{ return x + ++count; }}
"""
    own = "int often(int), address(int), state(int);"
    own += "int NAME(int x) { int (*volatile f)(int) = address; int s = START + x;"
    own += "s += often(s) + f(s + 1) + state(s);" * 40 + "return s; }"
    libraries = []
    for start, name in enumerate("ab"):
        code = own.replace("NAME", name).replace("START", str(start))
        sources = {"common.c": common, f"{name}.c": code}
        path = library(tmp_path / name, sources, *FLAGS, "-fPIC", name=f"lib{name}.a")
        libraries.append((path, [name]))
    verified_set(tmp_path / "set", libraries, Strip.DEBUGINFO, lean=True)
    names = tool([need("nm"), tmp_path / "set" / "libcommon.a"])
    shared = {n for n in ("often", "address", "state") if f" {n}\n" in names}
    assert shared == {"address", "state"}
