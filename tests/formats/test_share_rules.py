"""What of several libraries may be one: equality, and the rules for state."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cargo_strip_hook.link.share.rules import Reason
from tests.fixtures import rustc
from tests.formats.share_kit import Found, c_set, find

NOINLINE = "__attribute__((noinline)) "


def test_what_is_equal_is_shared_and_what_is_public_stays(tmp_path: Path) -> None:
    util = {"util.c": f"{NOINLINE}int helper(int x) {{ return x * 77 + 3; }}"}
    use = "int helper(int); int %s(int x) { return helper(x) + 1; }"
    found = c_set(
        tmp_path, [{**util, "a.c": use % "a"}, {**util, "b.c": use % "b"}], [["a"], ["b"]]
    )
    assert found.one("helper")
    assert found.reasons("a") == found.reasons("b") == [Reason.PUBLIC]


def test_code_is_equal_only_with_all_that_it_calls(tmp_path: Path) -> None:
    def source(number: int) -> str:
        return (
            f"{NOINLINE}static int low(int x) {{ return x * {number} + 3; }}"
            f"{NOINLINE}int middle(int x) {{ return low(x) + 1; }}"
            f"{NOINLINE}int other(int x) {{ return x ^ 5; }}"
        )

    use = "int middle(int), other(int); int %s(int x) { return middle(x) + other(x) + 1; }"
    found = c_set(
        tmp_path,
        [{"u.c": source(7), "a.c": use % "a"}, {"u.c": source(8), "b.c": use % "b"}],
        [["a"], ["b"]],
    )
    assert found.one("other")
    for name in ("low", "middle"):
        assert found.reasons(name) == [Reason.DIFFERS] * 2, name


def test_two_equal_functions_of_a_library_stay_two(tmp_path: Path) -> None:
    util = {
        "u.c": f"{NOINLINE}int one(int x) {{ return x * 5 + 1; }}"
        f"{NOINLINE}int two(int x) {{ return x * 5 + 1; }}"
    }
    use = "int one(int), two(int); int (*%s[])(int) = {one, two};"
    found = c_set(
        tmp_path, [{**util, "a.c": use % "a"}, {**util, "b.c": use % "b"}], [["a"], ["b"]]
    )
    assert found.one("one")
    assert found.one("two")
    assert found.classes("one") != found.classes("two")


def test_what_refers_follows_what_it_refers_to(tmp_path: Path) -> None:
    """Equal functions under other names, in another order: each with the constant that it reads."""
    constants = "const int first = 4, second = 4;"

    def source(names: Sequence[str], reads: Sequence[str]) -> dict[str, str]:
        functions = "".join(
            f"{NOINLINE}const int *{n}(void) {{ return &{c}; }}"
            for n, c in zip(names, reads, strict=True)
        )
        return {"c.c": constants, "f.c": f"extern const int first, second;{functions}"}

    use = "const int *%s(void), *%s(void); int %s(void) { return %s() != %s(); }"
    found = c_set(
        tmp_path,
        [
            {**source("pq", ["first", "second"]), "a.c": use % ("p", "q", "a", "p", "q")},
            {**source("qp", ["first", "second"]), "b.c": use % ("p", "q", "b", "p", "q")},
        ],
        [["a"], ["b"]],
    )
    assert found.one("first")
    assert found.one("second")
    (p,), (other_q,) = found.classes("p")[0], found.classes("q")[1]
    (q,), (other_p,) = found.classes("q")[0], found.classes("p")[1]
    assert (p, q) == (other_q, other_p)
    assert p != q


def test_a_constant_that_has_a_name_needs_the_same_one(tmp_path: Path) -> None:
    def source(name: str) -> dict[str, str]:
        return {
            "k.c": f"const long {name}[2] = {{5, 6}};",
            "f.c": f"extern const long {name}[2];"
            f"{NOINLINE}const long *get(void) {{ return {name}; }}",
        }

    use = "const long *get(void); long %s(void) { return get()[1]; }"
    sources = [{**source("key"), "a.c": use % "a"}, {**source("key"), "b.c": use % "b"}]
    found = c_set(tmp_path / "same", sources, [["a"], ["b"]])
    assert found.one("key")
    sources[1] = {**source("other_key"), "b.c": use % "b"}
    found = c_set(tmp_path / "other", sources, [["a"], ["b"]])
    assert not found.one("get")


def test_weak_and_strong_references_outside_are_different(tmp_path: Path) -> None:
    def source(weak: str) -> str:
        return f"{weak}extern int far(int);{NOINLINE}int near(int x) {{ return far(x) + 1; }}"

    use = "int near(int); int %s(int x) { return near(x) + 1; }"
    for weak, expected in (("", True), ("__attribute__((weak)) ", False)):
        found = c_set(
            tmp_path / str(expected),
            [{"u.c": source(""), "a.c": use % "a"}, {"u.c": source(weak), "b.c": use % "b"}],
            [["a"], ["b"]],
        )
        assert found.one("near") == expected


def test_what_another_library_exports_is_not_called_from_shared_code(tmp_path: Path) -> None:
    util = {"u.c": f"int c(int);{NOINLINE}int near(int x) {{ return c(x) + 1; }}"}
    use = "int near(int); int %s(int x) { return near(x) + 1; }"
    sources = [
        {**util, "a.c": use % "a"},
        {**util, "b.c": use % "b"},
        {"c.c": "int c(int x) { return x; }"},
    ]
    found = c_set(tmp_path, sources, [["a"], ["b"], ["c"]])
    assert found.reasons("near") == [Reason.EXPORTED] * 2


COUNTER = f"static int counter;{NOINLINE}int bump(void) {{ return ++counter; }}"


def test_state_is_shared_with_all_that_refers_to_it(tmp_path: Path) -> None:
    use = "int bump(void); int %s(void) { return bump(); }"
    sources = [{"n.c": COUNTER, "a.c": use % "a"}, {"n.c": COUNTER, "b.c": use % "b"}]
    found = c_set(tmp_path, sources, [["a"], ["b"]])
    assert found.one("bump")
    assert found.state() == {"counter"}


PLAIN = "int bump(void); int %s(void) { return bump(); }"
RESETS = "int bump(void); void reset(void); int %s(void) { reset(); return bump(); }"


def test_state_that_one_library_alone_resets_is_not_shared(tmp_path: Path) -> None:
    counter = COUNTER + f"{NOINLINE}void reset(void) {{ counter = 0; }}"
    sources = [
        {"n.c": counter, "a.c": PLAIN % "a"},
        {"n.c": counter, "b.c": RESETS % "b"},
    ]
    found = c_set(tmp_path, sources, [["a"], ["b"]])
    assert found.state() == set()
    assert not found.one("bump")


def test_libraries_that_use_state_alike_share_it_among_themselves(tmp_path: Path) -> None:
    counter = COUNTER + f"{NOINLINE}void reset(void) {{ counter = 0; }}"
    sources = [
        {"n.c": counter, "u.c": text % name}
        for name, text in zip("abcd", [PLAIN, RESETS] * 2, strict=True)
    ]
    found = c_set(tmp_path, sources, [["a"], ["b"], ["c"], ["d"]])
    assert found.one("bump", [0, 2])
    assert found.one("bump", [1, 3])
    assert found.one("reset", [1, 3])
    assert not found.one("bump", [0, 1])


def test_a_lock_is_not_shared_without_what_it_guards(tmp_path: Path) -> None:
    """The lock's functions are equal; those of the data are not."""
    lock = (
        f"volatile int lock;{NOINLINE}void take(void) {{ lock = 1; }}"
        f"{NOINLINE}void leave(void) {{ lock = 0; }}"
    )

    def data(step: int) -> str:
        return (
            "void take(void), leave(void); static int data;"
            f"{NOINLINE}int work(void) {{ take(); data += {step}; leave(); return data; }}"
        )

    use = "int work(void); int %s(void) { return work(); }"
    for step, expected in ((1, {"lock", "data"}), (2, set())):
        sources = [
            {"lock.c": lock, "data.c": data(1), "a.c": use % "a"},
            {"lock.c": lock, "data.c": data(step), "b.c": use % "b"},
        ]
        found = c_set(tmp_path / str(step), sources, [["a"], ["b"]])
        assert found.state() == expected
        assert found.one("take") == bool(expected)


def test_zeroed_statics_of_one_name_are_not_one(tmp_path: Path) -> None:
    """Two files, one static name, code that does the same: nothing but the member tells."""
    text = f"static long cache[4];{NOINLINE}long *room(void) {{ return cache; }}"
    use = "long *room(void); long %s(void) { return *room(); }"
    sources = [{"jpeg.c": text, "a.c": use % "a"}, {"png.c": text, "b.c": use % "b"}]
    found = c_set(tmp_path, sources, [["a"], ["b"]])
    assert found.state() == set()


def test_linker_sets_and_what_walks_them_stay(tmp_path: Path) -> None:
    walk = (
        "extern int __start_things[], __stop_things[]; static int seen;"
        f"{NOINLINE}int walk(void) {{"
        "for (int *p = __start_things; p < __stop_things; p++) seen += *p; return seen; }"
    )
    thing = '__attribute__((section("things"), used)) static int thing = %d;'
    use = "int walk(void); int %s(void) { return walk(); }"
    sources = [
        {"w.c": walk, "a.c": thing % 1 + use % "a"},
        {"w.c": walk, "b.c": thing % 2 + use % "b"},
    ]
    found = c_set(tmp_path, sources, [["a"], ["b"]])
    assert found.state() == set()
    assert found.reasons("walk") == [Reason.SET] * 2


def test_what_a_walker_fills_stays_with_it(tmp_path: Path) -> None:
    """The list is equal in both; only one of the libraries walks a set into it."""
    store = (
        f"static int total;{NOINLINE}void put(int x) {{ total += x; }}"
        f"{NOINLINE}int sum(void) {{ return total; }}"
    )
    walk = (
        "void put(int); extern int __start_things[], __stop_things[];"
        f"{NOINLINE}void walk(void) {{"
        "for (int *p = __start_things; p < __stop_things; p++) put(*p); }"
        '__attribute__((section("things"), used)) static int thing = 4;'
    )
    use = "void walk(void); int sum(void); int %s(void) { walk(); return sum(); }"
    sources = [{"s.c": store, "u.c": walk + use % name} for name in "ab"]
    found = c_set(tmp_path, sources, [["a"], ["b"]])
    assert found.state() == set()
    assert found.reasons("put") == [Reason.SET] * 2


def test_an_initialiser_is_shared_with_what_it_sets(tmp_path: Path) -> None:
    text = (
        "int level; __attribute__((constructor)) static void begin(void) { level += 5; }"
        f"{NOINLINE}int get(void) {{ return level; }}"
    )
    use = "int get(void); int %s(void) { return get(); }"
    sources = [{"n.c": text, "a.c": use % "a"}, {"n.c": text, "b.c": use % "b"}]
    found = c_set(tmp_path, sources, [["a"], ["b"]])
    assert found.state() == {"level"}
    assert found.one("begin")


def test_nothing_refers_from_what_is_shared_to_what_is_not(tmp_path: Path) -> None:
    util = (
        "int deep(int x) { return x + 1; } int (*volatile hook)(int) = deep;"
        "int call(int x) { return hook(x); }"
    )
    use = "int call(int); int %s(int x) { return call(x) - 1; }"
    sources = [
        {"u.c": util, "a.c": use % "a"},
        {"u.c": util, "b.c": use % "b" + "int deep(int); int b2(int x) { return deep(x) + 3; }"},
    ]
    found = c_set(tmp_path, sources, [["a"], ["b", "b2"]])
    shared = found.shared
    refers = shared.refers
    inside = (refers.target >= 0) & (shared.number[refers.source] >= 0)
    target = refers.target[inside]
    assert ((shared.number[target] >= 0) | shared.copied[target]).all()


# Rust: real staticlibs, each with std

RUST_DEPENDENCY = """
use std::sync::atomic::{AtomicU32, Ordering};
static COUNT: AtomicU32 = AtomicU32::new(0);
thread_local! { static MINE: std::cell::Cell<u32> = const { std::cell::Cell::new(5) }; }
#[cfg(wide)] static WIDE: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
#[inline(never)] pub fn bump() -> u32 {
    MINE.with(|m| m.set(m.get() + 1));
    #[cfg(wide)] WIDE[1].fetch_add(1, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst) + 1
}
"""
RUST_LIBRARY = """
#[no_mangle] pub extern "C" fn NAME_bump() -> u32 { dep::bump() }
#[no_mangle] pub extern "C" fn NAME_hook() { std::panic::set_hook(Box::new(|_| println!("NAME"))); }
#[no_mangle] pub extern "C" fn NAME_panic() -> i32 {
    std::panic::catch_unwind(|| { if std::env::args().count() > 0 { panic!("x") } 3 }).unwrap_or(7)
}
"""
_COUNTING = """
struct Counting;
static BYTES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
unsafe impl std::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: std::alloc::Layout) -> *mut u8 {
        BYTES.fetch_add(l.size(), std::sync::atomic::Ordering::Relaxed);
        std::alloc::GlobalAlloc::alloc(&std::alloc::System, l)
    }
    unsafe fn dealloc(&self, p: *mut u8, l: std::alloc::Layout) {
        std::alloc::GlobalAlloc::dealloc(&std::alloc::System, p, l)
    }
}
#[global_allocator] static A: Counting = Counting;
"""


def rust_library(
    folder: Path,
    name: str,
    *flags: str,
    dep_flags: Sequence[str] = (),
    more: str = "",
    compiler: Path | None = None,
) -> tuple[Path, list[str]]:
    """A static library of Rust with a dependency that counts; and its exports."""
    here = folder / name
    here.mkdir(parents=True)
    (here / "dep.rs").write_text(RUST_DEPENDENCY)
    (here / "lib.rs").write_text(RUST_LIBRARY.replace("NAME", name) + more)
    base: list[str | Path] = [compiler or rustc(), "-O", "--edition", "2021", "-C", "metadata=one"]
    dep = [*base, *flags, *dep_flags, "--crate-type", "rlib", "--crate-name", "dep"]
    subprocess.run([*dep, "-C", "extra-filename=-0123456789abcdef", "dep.rs"], cwd=here, check=True)
    crate = [*base, *flags, "--crate-type", "staticlib", "--crate-name", name, "-L", "."]
    subprocess.run(
        [*crate, "--extern", "dep=libdep-0123456789abcdef.rlib", "lib.rs"], cwd=here, check=True
    )
    return here / f"lib{name}.a", [f"{name}_{what}" for what in ("bump", "hook", "panic")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, list[str]]]:
    folder = tmp_path_factory.mktemp("plain")
    return [rust_library(folder, name) for name in ("one", "two")]


def has(found: Found, part: str) -> bool:
    return any(part in name for name in found.state())


def test_one_toolchain_is_one_std(plain: list[tuple[Path, list[str]]]) -> None:
    found = find(plain)
    assert has(found, "4HOOK")
    assert has(found, "3dep5COUNT")
    assert has(found, "3dep4MINE")
    assert found.one("rust_eh_personality")


def test_a_flag_of_the_dependency_parts_its_state_alone(
    plain: list[tuple[Path, list[str]]], tmp_path: Path
) -> None:
    other = rust_library(tmp_path, "three", dep_flags=("--cfg", "wide"))
    found = find([plain[0], other])
    assert has(found, "4HOOK")
    assert not has(found, "3dep5COUNT")
    assert not has(found, "3dep4MINE")
    found = find([*plain, other])
    assert has(found, "3dep5COUNT")  # of the two that are alike


def test_two_allocators_share_no_state_of_std(
    plain: list[tuple[Path, list[str]]], tmp_path: Path
) -> None:
    other = rust_library(tmp_path, "three", more=_COUNTING)
    found = find([plain[0], other])
    assert not has(found, "4HOOK")
    assert not has(found, "3dep5COUNT")
    assert found.shared.classes > 100  # code that needs no state is shared all the same
    found = find([*plain, other])
    assert has(found, "4HOOK")


def test_an_abort_beside_an_unwind_shares_no_state_of_std(
    plain: list[tuple[Path, list[str]]], tmp_path: Path
) -> None:
    found = find([plain[0], rust_library(tmp_path, "three", "-C", "panic=abort")])
    assert not has(found, "4HOOK")
    assert not has(found, "3dep5COUNT")


def test_two_toolchains_share_no_state_of_std(
    plain: list[tuple[Path, list[str]]], tmp_path: Path
) -> None:
    found = find([plain[0], rust_library(tmp_path, "three", compiler=rustc("debian"))])
    assert not has(found, "4HOOK")
    assert not has(found, "3dep5COUNT")


def test_a_std_that_lto_took_apart_shares_no_state(tmp_path: Path) -> None:
    libraries = [
        rust_library(tmp_path, name, "-C", "lto=fat", "-C", "embed-bitcode=yes")
        for name in ("one", "two")
    ]
    found = find(libraries)
    assert not has(found, "4HOOK")
