"""Sets of libraries for Darwin: shared, verified, linked with ld64.lld and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.engines import sharing as engine
from cargo_strip_hook.link.model import Array, Int64
from cargo_strip_hook.link.share import split as splitting
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.model import Sort
from cargo_strip_hook.link.share.split import Split, groups_of
from tests.consumers import darwin_set
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.formats.share_kit import shared_set, verified_set
from tests.formats.test_share_output import C_COMMON, C_OWN, expected, main_text
from tests.formats.test_share_verify import damaged, forced, found, use

NOINLINE = "__attribute__((noinline)) "
COMMON = f"{NOINLINE}int common(int x) {{ return x * 31 + 7; }}"
CALL = "int common(int); int call_NAME(void) { return common(5); }"
GC = ("-dead_strip",)
arches = pytest.mark.parametrize("arch", kit.ARCHES)

Libraries = list[tuple[Path, list[str]]]


def library(folder: Path, arch: str, name: str, sources: Mapping[str, str], *flags: str) -> Path:
    objects = kit.compile(folder / name, arch, sources, "-O1", *kit.headers(), *flags)
    return kit.archive(folder / name / f"lib{name}.a", objects)


def c_libraries(folder: Path, arch: str, *flags: str) -> Libraries:
    """Three that have state, thread-locals, tables, strings and calls in a circle in common."""
    return [
        (
            library(
                folder,
                arch,
                name,
                {
                    "common.c": C_COMMON,
                    f"{name}.c": C_OWN.replace("NAME", name).replace("START", str(100 * n)),
                },
                *flags,
            ),
            [f"_{name}"],
        )
        for n, name in enumerate("abc")
    ]


def libraries_of(folder: Path, arch: str, sources: Sequence[Mapping[str, str]]) -> Libraries:
    """Libraries without unwind information, which the engine's defects would tear apart, too."""
    flags = ("-fno-asynchronous-unwind-tables", "-fno-unwind-tables")
    return [
        (library(folder, arch, name, one, *flags), [f"_{name}", f"_call_{name}"])
        for name, one in zip("abc", sources, strict=False)
    ]


def output(folder: Path, arch: str, source: str, inputs: list[Path], *flags: str) -> str:
    return darwin_set.output(folder / "program", kit.triple(arch), source, inputs, *flags)


@arches
@pytest.mark.parametrize("flags", [(), GC], ids=["plain", "gc"])
def test_any_libraries_of_a_set_link_and_share(
    tmp_path: Path, arch: str, flags: tuple[str, ...]
) -> None:
    libraries = c_libraries(tmp_path, arch)
    small, common = shared_set(tmp_path / "set", libraries, triple=kit.triple(arch))
    of = dict(zip("abc", small, strict=True))
    for names in ("a", "bc", "abc"):
        inputs = [*(of[n] for n in names), common]
        assert output(tmp_path, arch, main_text(names), inputs, *flags) == expected(names)


@arches
@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("strip", Strip)
def test_a_set_is_verified_and_works(
    tmp_path: Path, arch: str, strip: Strip, granularity: Granularity
) -> None:
    libraries = c_libraries(tmp_path, arch, "-g")
    place = tmp_path / "set"
    seen = verified_set(place, libraries, strip, granularity, kit.triple(arch))
    assert [one.exports for one in seen] == [("_a",), ("_b",), ("_c",)]
    assert all(one.relocations and one.functions for one in seen)
    inputs = [place / f"lib{name}.a" for name in ("a", "b", "c", "common")]
    assert output(tmp_path, arch, main_text("abc"), inputs, *GC) == expected("abc")


@arches
def test_names_that_cross_are_hidden_and_may_be_inside_of_a_class(
    tmp_path: Path, arch: str
) -> None:
    libraries = c_libraries(tmp_path, arch)
    _, common = shared_set(tmp_path / "set", libraries, triple=kit.triple(arch))
    said = tool([kit.llvm("nm"), "-m", "--defined-only", common]).splitlines()
    crossing = [line for line in said if "__csh_" in line]
    assert crossing
    assert all("private external" in line for line in crossing)
    assert any("[alt entry]" in line for line in crossing)
    assert all("non-external" in line for line in said if line not in crossing and " (" in line)


@arches
def test_the_order_of_libraries_changes_nothing(tmp_path: Path, arch: str) -> None:
    libraries = c_libraries(tmp_path, arch)
    triple = kit.triple(arch)
    small, common = shared_set(tmp_path / "set", libraries, triple=triple)
    again, other = shared_set(tmp_path / "again", libraries[::-1], triple=triple)
    assert [p.read_bytes() for p in small] == [p.read_bytes() for p in again[::-1]]
    assert common.read_bytes() == other.read_bytes()


@arches
def test_constructors_run_once(tmp_path: Path, arch: str) -> None:
    """Also one that is all that a library needs of a member of the common library."""
    begin = (
        "#include <stdio.h>\n"
        '__attribute__((constructor)) static void begin(void) { puts("begun"); }'
    )
    libraries: Libraries = [
        (
            library(tmp_path, arch, n, {"u.c": f"{begin}\nint {n}(int x) {{ return x + 1; }}"}),
            [f"_{n}"],
        )
        for n in "ab"
    ]
    verified_set(tmp_path / "set", libraries, triple=kit.triple(arch))
    small, common = [tmp_path / "set" / f"lib{n}.a" for n in "ab"], tmp_path / "set/libcommon.a"
    one = "int a(int); int main(void) { return a(1) - 2; }"
    both = "int a(int), b(int); int main(void) { return a(1) + b(1) - 4; }"
    for flags in ((), GC):
        assert output(tmp_path, arch, one, [small[0], common], *flags) == "begun\n"
        assert output(tmp_path, arch, both, [*small, common], *flags) == "begun\n"


@arches
def test_a_linker_set_stays_private(tmp_path: Path, arch: str) -> None:
    walk = (
        '#include <stdio.h>\nextern int first __asm("section$start$__DATA$__things");'
        'extern int last __asm("section$end$__DATA$__things");'
        f"{NOINLINE}int walk(void) {{ int sum = 0;"
        "for (int *p = &first; p < &last; p++) sum += *p; return sum; }"
    )
    thing = '__attribute__((section("__DATA,__things"), used)) static int thing = %d;'
    own = 'int walk(void); void NAME(void) { printf("%d\\n", walk()); }'
    libraries: Libraries = [
        (library(tmp_path, arch, n, {"u.c": walk + thing % x + own.replace("NAME", n)}), [f"_{n}"])
        for n, x in (("a", 4), ("b", 5))
    ]
    same = f"{NOINLINE}int twice(int x) {{ return 2 * x + 9; }} int NAME2(int x) {{"
    same += "return twice(x); }"
    for path, names in libraries:
        name = path.stem.removeprefix("lib")
        more = {"common.c": same.replace("NAME", name)}
        objects = kit.compile(tmp_path / name, arch, more, "-O1")
        kit.archive(path, [path.parent / "u.o", *objects])
        names.append(f"_{name}2")
    verified_set(tmp_path / "set", libraries, triple=kit.triple(arch))
    inputs = [tmp_path / "set" / f"lib{n}.a" for n in ("a", "b", "common")]
    source = "void a(void), b(void); int main(void) { a(); b(); return 0; }"
    assert output(tmp_path, arch, source, inputs, *GC) == "4\n5\n"


# Defects of the engine that are put in: the verifier has something against each


@arches
def test_statics_of_equal_bytes_are_found(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(name: str) -> str:
        return f"static int {name};{NOINLINE}int get(void) {{ return ++{name}; }}" + COMMON

    sources = [
        {"x.c": text(name), "u.c": use(letter, "get") + CALL.replace("NAME", letter)}
        for name, letter in (("first", "a"), ("second", "b"))
    ]
    forced(monkeypatch, ("_first", "_second"), ("_get",))
    with found("of two names is one"):
        libraries = libraries_of(tmp_path, arch, sources)
        verified_set(tmp_path / "set", libraries, triple=kit.triple(arch))


@arches
def test_code_with_another_callee_is_found(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {
            "x.c": f"{NOINLINE}int low(int x) {{ return x * {factor} + 3; }}"
            f"int get(void) {{ return low(9) + 1; }}" + COMMON,
            "u.c": use(letter, "get") + CALL.replace("NAME", letter),
        }
        for factor, letter in ((1000, "a"), (1001, "b"))
    ]
    forced(monkeypatch, ("_low",), ("_get",))
    with found("differ from the original"):
        libraries = libraries_of(tmp_path, arch, sources)
        verified_set(tmp_path / "set", libraries, triple=kit.triple(arch))


@arches
def test_a_lock_without_its_data_is_found(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = (
        f"volatile int lock;{NOINLINE}void take(void) {{ lock = 1; }}"
        f"{NOINLINE}void leave(void) {{ lock = 0; }}"
    )
    sources = [
        {
            "lock.c": lock,
            "data.c": "void take(void), leave(void); static int data;"
            f"int get(void) {{ take(); data += {step}; leave(); return data; }}",
            "u.c": COMMON + use(letter, "get") + CALL.replace("NAME", letter),
        }
        for step, letter in ((1, "a"), (2, "b"))
    ]
    forced(monkeypatch, ("_lock",), ("_take",), ("_leave",))
    with found("a part of a crate's state"):
        libraries = libraries_of(tmp_path, arch, sources)
        verified_set(tmp_path / "set", libraries, triple=kit.triple(arch))


@arches
def test_a_constructor_that_is_forgotten_is_found(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(shared: Shared, made: Split) -> Split:
        part = made.common[0]
        first = int(shared.joined.atom_base[part.library])
        sort = shared.joined.described.sort[first + part.atoms]
        assert (part.live & (sort == Sort.INITIALISER)).any()
        live = part.live & (sort != Sort.INITIALISER)
        return replace(made, common=(replace(part, live=live), *made.common[1:]))

    begin = (
        "int level; volatile int step = 5; __attribute__((constructor))"
        f"static void begin(void) {{ level += step; }} {NOINLINE}int get(void) {{ return level; }}"
    )
    sources = [
        {"n.c": begin, "u.c": COMMON + use(n, "get") + CALL.replace("NAME", n)} for n in "ab"
    ]
    libraries = libraries_of(tmp_path, arch, sources)
    verified_set(tmp_path / "right", libraries, triple=kit.triple(arch))
    damaged(monkeypatch, forget)
    with found("an initialiser is missing"):
        verified_set(tmp_path / "set", libraries, triple=kit.triple(arch))


@arches
def test_a_hidden_name_that_is_dropped_is_found(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(shared: Shared, made: Split) -> Split:  # noqa: ARG001
        part = made.common[0]
        left = frozenset(sorted(part.program.exported)[1:])
        program = replace(part.program, exported=left, given=left)
        return replace(made, common=(replace(part, program=program), *made.common[1:]))

    damaged(monkeypatch, drop)
    with found("undefined, and it was not before"):
        verified_set(tmp_path / "set", c_libraries(tmp_path, arch), triple=kit.triple(arch))


MORE = {
    "name": (
        f"int outside(int); {NOINLINE}int more(int x) {{ return outside(x) * 77; }}",
        "only other libraries need",
    ),
    "constructor": (
        f"volatile int step = 7; int started; {NOINLINE}int more(int x) {{ return x * started; }}"
        "__attribute__((constructor)) static void start(void) { started = step; }",
        "runs by itself",
    ),
    "nothing": (
        f'const char *words[] = {{"of", "no other library"}}; {NOINLINE}int more(int x) {{'
        "return x * 77 + words[x & 1][0]; }",
        "",
    ),
}


@arches
@pytest.mark.parametrize("strip", [Strip.NONE, Strip.SYMBOLS])
@pytest.mark.parametrize("kind", MORE)
def test_a_member_that_holds_more_than_a_library_needs(
    tmp_path: Path, arch: str, kind: str, strip: Strip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two libraries share is put into the member of all three, which may bring nothing."""
    more, what = MORE[kind]
    calls = "int more(int); int more_of_NAME(void) { return more(3); }"
    sources = [
        {"x.c": COMMON + more, "u.c": (CALL + calls).replace("NAME", "a")},
        {"x.c": COMMON + more, "u.c": (CALL + calls).replace("NAME", "b")},
        {"x.c": COMMON, "u.c": CALL.replace("NAME", "c")},
    ]
    libraries = [
        (library(tmp_path, arch, n, one, "-g"), [f"_call_{n}", f"_more_of_{n}"][: 1 + (n != "c")])
        for n, one in zip("abc", sources, strict=True)
    ]

    def all_in_one(shared: Shared) -> tuple[Int64, list[tuple[int, ...]]]:
        group, groups = groups_of(shared)
        assert groups == [(0, 1, 2), (0, 1)]
        return group * 0, groups[:1]

    monkeypatch.setattr(splitting, "groups_of", all_in_one)
    place, triple = tmp_path / "set", kit.triple(arch)
    if what:
        with found(what):
            verified_set(place, libraries, strip, triple=triple)
        return
    verified_set(place, libraries, strip, triple=triple)
    inputs = [place / "libc.a", place / "libcommon.a"]
    main = "int call_c(void); int main(void) { return call_c() != 162; }"
    assert output(tmp_path, arch, main, inputs, *GC) == ""


@arches
def test_a_place_that_no_library_has_is_found(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may hold what a library does not need, but only what another one does."""
    real = engine.link_maps

    def shorter(*arguments: Any) -> list[Array]:
        maps = real(*arguments)
        last = max(int(rows["out_offset"].max()) for rows in maps)
        return [rows[(rows["object"] == 0) | (rows["out_offset"] < last)] for rows in maps]

    monkeypatch.setattr(engine, "link_maps", shorter)
    with found("no input explains|settled wrongly|differ"):
        verified_set(tmp_path / "set", c_libraries(tmp_path, arch), triple=kit.triple(arch))


@arches
@pytest.mark.parametrize("strip", Strip)
def test_equal_functions_of_other_names_are_one(tmp_path: Path, arch: str, strip: Strip) -> None:
    """Each name is that of the other function in the other library."""
    sources = [
        {
            "u.c": f"{NOINLINE}static int {one}(int x) {{ return x * 99 + 4; }}"
            f"{NOINLINE}static int {two}(int x) {{ return x / 7 - 12; }}"
            f"int {name}(int x) {{ return {one}(x) + {two}(x); }}"
            f"int call_{name}(int x) {{ return {two}(x) - 1; }}"
        }
        for name, one, two in (("a", "first", "second"), ("b", "second", "first"))
    ]
    libraries = libraries_of(tmp_path, arch, sources)
    verified_set(tmp_path / "set", libraries, strip, triple=kit.triple(arch))
    names = tool([kit.llvm("nm"), tmp_path / "set" / "libcommon.a"])
    assert names.count("__csh_") == 2


@arches
def test_a_file_that_linkers_do_not_take_apart(tmp_path: Path, arch: str) -> None:
    """Assembled without `.subsections_via_symbols`: all of it is shared, or nothing."""
    text = (
        ".text\n.globl _low\n.p2align 2\n_low:\n ret\n"
        ".globl _high\n.p2align 2\n_high:\n nop\n ret\n"
        ".section __DATA,__const\n.globl _word\n.p2align 3\n_word: .quad _low\n"
    )
    sources = "void low(void), high(void); extern void *word;"
    sources += "long NAME(void) { low(); high(); return (long)word - (long)low; }"
    libraries: Libraries = [
        (library(tmp_path, arch, n, {"s.s": text, "u.c": sources.replace("NAME", n)}), [f"_{n}"])
        for n in "ab"
    ]
    verified_set(tmp_path / "set", libraries, triple=kit.triple(arch))
    inputs = [tmp_path / "set" / f"lib{n}.a" for n in ("a", "b", "common")]
    main = "long a(void), b(void); int main(void) { return a() || b(); }"
    for flags in ((), GC):
        assert output(tmp_path, arch, main, inputs, *flags) == ""


def test_weak_references_outside_are_different(tmp_path: Path) -> None:
    def source(weak: str) -> str:
        return f"extern int far(int){weak};{NOINLINE}int near(int x) {{ return far(x) + 1; }}"

    weak = " __attribute__((weak_import))"
    use_near = "int near(int); int NAME(int x) { return near(x) + 1; }" + COMMON
    for kinds, shares in ((("", ""), True), ((weak, weak), True), (("", weak), False)):
        folder = tmp_path / "".join(str(len(k)) for k in kinds)
        sources = [
            {"n.c": source(kind), "u.c": use_near.replace("NAME", n) + CALL.replace("NAME", n)}
            for kind, n in zip(kinds, "ab", strict=True)
        ]
        libraries = libraries_of(folder, "arm64", sources)
        verified_set(folder / "set", libraries, Strip.DEBUGINFO, triple=kit.triple("arm64"))
        assert ("_near" in tool([kit.llvm("nm"), folder / "set" / "libcommon.a"])) == shares


RUST_MAIN = """#include <stdio.h>
unsigned one_bump(void), two_bump(void);
void one_hook(void);
int one_panic(void), two_panic(void);
int main(void) {
    unsigned a = one_bump(), b = two_bump(), c = one_bump();
    printf("%u %u %u\\n", a, b, c);
    one_hook();
    int p = one_panic(), q = two_panic();
    printf("%d %d\\n", p, q);
    return 0;
}
"""


@pytest.mark.parametrize(
    "target", ["aarch64-apple-darwin", "x86_64-apple-darwin", "aarch64-apple-ios"]
)
def test_rust_libraries_have_one_std(tmp_path: Path, target: str) -> None:
    """A hook that one library sets is the other's, and the dependency counts for both."""
    rust = darwin_set.rust_set(tmp_path / "rust", target, {"one": "", "two": ""})
    libraries = [(path, rust.exports(name)) for name, path in rust.libraries.items()]
    place = tmp_path / "set"
    for strip, granularity, flags in (
        (Strip.NONE, Granularity.CLASS, GC),
        (Strip.DEBUGINFO, Granularity.SECTION, ()),
        (Strip.SYMBOLS, Granularity.CLASS, GC),
    ):
        seen = verified_set(place, libraries, strip, granularity, target)
        assert all(one.functions > 100 for one in seen)
        inputs = [place / f"lib{name}.a" for name in ("one", "two", "common")]
        lines = darwin_set.output(tmp_path / "program", target, RUST_MAIN, inputs, *flags)
        assert sorted(lines.splitlines()) == ["1 2 3", "7 7", "one", "one"]
    originals = [path for path, _ in libraries]
    before = darwin_set.output(tmp_path / "program", target, RUST_MAIN, originals, *GC)
    assert before == lines  # of one toolchain they have one std as well


OBJECTIVE_C = """
__attribute__((objc_root_class)) @interface Base { int x; } + (int)make:(int)a; @end
@implementation Base + (int)make:(int)a { return a * 3; } @end
__attribute__((noinline)) int plain(int a) { return a * 31 + 5; }
__attribute__((noinline)) SEL chosen(void) { return @selector(make:); }
"""
USES_OBJECTIVE_C = """
int plain(int); SEL chosen(void); int NAME(int a) { return plain(a) + (chosen() != 0); }
"""
CXX = """
struct B { virtual ~B(); virtual int f(int); int v = 1; };
struct D : B { int f(int) override; };
inline int counter() { static int n = 0; return ++n; }
template <class T> __attribute__((noinline)) T twice(T x) { if (x > 1000) throw 5; return x + x; }
B::~B() {}
int B::f(int a) { return a; }
int D::f(int a) { try { return twice(a) + counter(); } catch (int e) { return e; } }
B *make() { static D d; return &d; }
thread_local int local = 5;
int next() { return ++local; }
"""
USES_CXX = """
struct B { virtual ~B(); virtual int f(int); int v; };
B *make(); int next();
extern "C" int NAME(int a) { return make()->f(a) + next(); }
"""
KINDS = {"m": (OBJECTIVE_C, USES_OBJECTIVE_C), "cpp": (CXX, USES_CXX)}


@arches
@pytest.mark.parametrize("strip", [Strip.NONE, Strip.SYMBOLS])
@pytest.mark.parametrize("kind", KINDS)
def test_records_of_runtimes_stay_and_tables_of_c_plus_plus_are_shared(
    tmp_path: Path, arch: str, kind: str, strip: Strip
) -> None:
    common, own = KINDS[kind]
    libraries = []
    for n in "abc":
        sources = {f"common.{kind}": common, f"own.{kind}": own.replace("NAME", n)}
        objects = kit.compile(tmp_path / n, arch, sources, "-O1", "-g", "-w")
        libraries.append((kit.archive(tmp_path / n / f"lib{n}.a", objects), [f"_{n}"]))
    seen = verified_set(tmp_path / "set", libraries, strip, triple=kit.triple(arch))
    assert all(one.functions for one in seen)
    headers = tool([kit.llvm("objdump"), "--macho", "-h", tmp_path / "set" / "libcommon.a"])
    assert "__text" in headers
    assert "__objc_" not in headers
    assert ("__gcc_except_tab" in headers) == (kind == "cpp")
    if kind == "m":
        for n in "abc":
            own_headers = tool([kit.llvm("objdump"), "-h", tmp_path / "set" / f"lib{n}.a"])
            assert "__objc_classlist" in own_headers


def test_debug_information_stands_where_the_code_is(tmp_path: Path) -> None:
    """A member's is in the objects that have code of it; tools have no complaint."""
    libraries = c_libraries(tmp_path, "arm64", "-g")
    small, common = shared_set(tmp_path / "set", libraries, Strip.NONE, triple=kit.triple("arm64"))
    for path, there in ((small[0], {"a": True, "even": False}), (common, {"even": True})):
        tool([kit.llvm("dwarfdump"), "--verify", "--quiet", path], accept=(0,))
        for name, is_there in there.items():
            said = tool([kit.llvm("dwarfdump"), f"--name={name}", path])
            assert (f'DW_AT_name\t("{name}")' in said and "DW_AT_low_pc" in said) == is_there
