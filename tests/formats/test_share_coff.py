"""Sets of Windows libraries: any of them are linked with the common one, and run under Wine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.consumers import windows_kit
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool
from tests.formats.windows_sets import (
    GNU,
    MSVC,
    NOINLINE,
    c_libraries,
    expected,
    libraries_of,
    main_of,
    rust_library,
    shared_set,
    verified,
    verified_set,
)
from tests.tools import need

RUNNING = [(MSVC, ""), (GNU, "bfd"), (GNU, "lld")]
I686 = "i686-pc-windows-gnu"


def kept(target: str, *, collected: bool) -> tuple[str, ...]:
    """Flags that have the linker drop what nothing needs, or keep it."""
    if target.endswith("msvc"):
        return ("/opt:ref,noicf" if collected else "/opt:noref,noicf",)
    return ("-Wl,--gc-sections",) if collected else ()


def said(target: str, objects: list[Path], libraries: list[Path], linker: str, *flags: str) -> str:
    """What a program of these says."""
    out = objects[0].with_suffix(".exe")
    program, warned = windows_kit.link(target, objects, libraries, out, *flags, linker=linker)
    assert warned.strip() == ""
    return windows_kit.output(target, program)


@pytest.mark.parametrize(("target", "linker"), RUNNING)
def test_any_libraries_of_a_set_link_and_share(tmp_path: Path, target: str, linker: str) -> None:
    small, common, _ = shared_set(tmp_path / "set", target, c_libraries(tmp_path, target))
    of = dict(zip("abc", small, strict=True))
    for names, collected in (("b", True), ("ca", True), ("abc", True), ("ac", False)):
        objects = [main_of(tmp_path, target, names)]
        libraries = [*(of[n] for n in names), common]
        flags = kept(target, collected=collected)
        assert said(target, objects, libraries, linker, *flags) == expected(names)


@pytest.mark.parametrize("target", kit.TARGETS)
@pytest.mark.parametrize("strip", Strip)
def test_a_set_of_each_level_and_granularity_is_verified(
    tmp_path: Path, target: str, strip: Strip
) -> None:
    libraries = c_libraries(tmp_path, target, "abc", "-g")
    for granularity in Granularity:
        found = verified_set(tmp_path / granularity.value, target, libraries, strip, granularity)
        assert [len(one.exports) for one in found] == [1, 1, 1]
        assert all(one.relocations for one in found)


@pytest.mark.parametrize("strip", Strip)
def test_each_level_runs(tmp_path: Path, strip: Strip) -> None:
    libraries = c_libraries(tmp_path, MSVC, "abc", "-g", "-gcodeview")
    small, common, made = shared_set(tmp_path / "set", MSVC, libraries, strip)
    verified(MSVC, libraries, small, common, made, strip)
    objects = [main_of(tmp_path, MSVC, "abc")]
    assert said(MSVC, objects, [*small, common], "", "/debug") == expected("abc")


@pytest.mark.parametrize("target", [GNU, I686])
@pytest.mark.parametrize("linker", ["bfd", "lld"])
def test_a_dll_exports_nothing_that_crosses(tmp_path: Path, target: str, linker: str) -> None:
    """MinGW's linkers export every external name of a library that says nothing of it."""
    small, common, _ = shared_set(tmp_path / "set", target, c_libraries(tmp_path, target))
    crossing = tool([kit.llvm("nm"), "--extern-only", "--defined-only", common])
    assert crossing.count("__csh_") == 5
    out = tmp_path / "a.dll"
    compiler: list[str | Path] = [windows_kit.gcc(target)]
    if linker == "lld":
        lld = need("ld.lld-22", "ld.lld")
        compiler = [need("clang-22", "clang"), f"--target={target}", f"--ld-path={lld}"]
    whole = ["-Wl,--whole-archive", small[0], common, "-Wl,--no-whole-archive"]
    tool([*compiler, "-shared", *whole, "-o", out])
    exports = re.findall(r"Name: (\w+)", tool([kit.llvm("readobj"), "--coff-exports", out]))
    assert exports == ["a"]


def test_dlls_have_state_of_their_own(tmp_path: Path) -> None:
    small, common, _ = shared_set(tmp_path / "set", GNU, c_libraries(tmp_path, GNU))
    folder = tmp_path / "out"
    folder.mkdir()
    libraries = [
        windows_kit.shared(
            GNU, merged(tmp_path, [one, common], name), [name], folder / f"{name}.dll"
        )
        for name, one in zip("ab", small, strict=False)
    ]
    out = folder / "program.exe"
    main = main_of(folder, GNU, "ab")
    tool([windows_kit.gcc(GNU), main, *libraries, "-o", out])
    assert windows_kit.output(GNU, out).splitlines() == [expected(n).strip() for n in "ab"]


def merged(folder: Path, archives: list[Path], name: str) -> Path:
    """The members of several archives in one."""
    out = folder / f"merged_{name}.a"
    lines = [f"CREATE {out}", *(f"ADDLIB {path}" for path in archives), "SAVE", "END", ""]
    script = folder / f"{name}.mri"
    script.write_text("\n".join(lines))
    with script.open() as file:
        subprocess.run([kit.llvm("ar"), "-M"], stdin=file, check=True)
    return out


@pytest.mark.parametrize("target", [MSVC, GNU])
def test_the_order_of_libraries_changes_nothing(tmp_path: Path, target: str) -> None:
    libraries = c_libraries(tmp_path, target)
    small, common, _ = shared_set(tmp_path / "set", target, libraries)
    again, other, _ = shared_set(tmp_path / "again", target, libraries[::-1])
    assert [p.read_bytes() for p in small] == [p.read_bytes() for p in again[::-1]]
    assert common.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("target", "linker"), RUNNING)
def test_rust_libraries_have_one_std(tmp_path: Path, target: str, linker: str) -> None:
    libraries = [rust_library(tmp_path, target, name) for name in ("one", "two")]
    small, common, made = shared_set(tmp_path / "set", target, libraries)
    found = verified(target, libraries, small, common, made)
    assert all(one.functions > 100 for one in found)
    main = tmp_path / "main.c"
    main.write_text(
        "int printf(const char *, ...);"
        "unsigned one_bump(void), two_bump(void); void one_hook(void);"
        "int one_panic(void), two_panic(void);"
        "int main(void) { unsigned a = one_bump(), b = two_bump(), c = one_bump();"
        'printf("%u %u %u\\n", a, b, c); one_hook();'
        "int p = one_panic(), q = two_panic();"
        'printf("%d %d\\n", p, q); return 0; }'
    )
    objects = [windows_kit.compile(target, main, tmp_path)]
    for collected in (False, True):
        flags = kept(target, collected=collected)
        lines = said(target, objects, [*small, common], linker, *flags).splitlines()
        assert sorted(lines) == ["1 2 3", "7 7", "one", "one"]


@pytest.mark.parametrize("target", [MSVC, GNU])
def test_linker_sets_stay_private(tmp_path: Path, target: str) -> None:
    """Each library has a group of its own, and the code that walks over it."""
    part = '__attribute__((section("set$%s"), used)) static const int %s = %d;'
    walk = (
        part % ("a", "first", -1)
        + part % ("z", "last", -2)
        + f"{NOINLINE}int sum(void) {{ int s = 0;"
        "for (const volatile int *p = (const volatile int *)&first + 1; *p != -2; p++) s += *p;"
        "return s; }"
        f"{NOINLINE}int plain(int x) {{ return x * 31 + 7; }}"
    )
    use = "int sum(void), plain(int); int NAME(void) { return sum() + plain(0); }"
    sources = {
        name: {"walk.c": walk + part % ("m", "own", n), "use.c": use.replace("NAME", name)}
        for n, name in enumerate("ab", 5)
    }
    libraries = [
        (path, [name])
        for path, name in zip(libraries_of(tmp_path, target, sources), "ab", strict=True)
    ]
    small, common, made = shared_set(tmp_path / "set", target, libraries)
    verified(target, libraries, small, common, made)
    assert [part.shared for part in made.parts]
    for path, other in ((small[0], common), (small[1], common)):
        assert b"set" in path.read_bytes()
        assert b"set$" not in other.read_bytes()


@pytest.mark.parametrize("target", [MSVC, GNU])
def test_a_file_without_anything_that_lives_asks_linkers(tmp_path: Path, target: str) -> None:
    """It is loaded, and so is what it asks for, as when the library is stripped alone."""
    asks = '__asm__(".section .drectve,\\"yn\\"\\n.ascii \\" /defaultlib:wanted\\"\\n.text\\n");'
    sources = {
        name: {
            "asks.c": f"{asks} int dead(int a) {{ return a; }}",
            "plain.c": "int dead(int); int unused(int a) { return dead(a); }"
            f"{NOINLINE}int plain(int a) {{ return a * 77 + 3; }}",
            "use.c": f"int plain(int); int {name}(int a) {{ return plain(a); }}",
        }
        for name in "ab"
    }
    paths = libraries_of(tmp_path, target, sources)
    libraries = [(path, [name]) for path, name in zip(paths, "ab", strict=True)]
    small, common, made = shared_set(tmp_path / "set", target, libraries)
    verified(target, libraries, small, common, made)
    for path in small:
        assert b"/defaultlib:wanted" in path.read_bytes()
    assert b"/defaultlib" not in common.read_bytes()


# Rust: what decides whether there is one std

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
_RUNTIME = "other allocator or panic runtime"


@pytest.mark.parametrize("target", [MSVC, GNU])
def test_one_std_needs_one_allocator(tmp_path: Path, target: str) -> None:
    def kept_of(*libraries: tuple[Path, list[str]]) -> set[tuple[str, str]]:
        out = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        small, common, made = shared_set(out, target, libraries)
        verified(target, libraries, small, common, made)
        assert all(part.shared for part in made.parts)
        return {(k.crate, k.reason) for part in made.parts for k in part.kept}

    one = rust_library(tmp_path, target, "one")
    two = rust_library(tmp_path, target, "two")
    assert {reason for _, reason in kept_of(one, two)} <= {
        "public, or refers to what is public",
        "no other library needs it",
        "smaller than what a name for it takes",
    }
    wide = kept_of(one, rust_library(tmp_path, target, "wide", dep_flags=("--cfg", "wide")))
    assert ("dep", "code differs") in wide
    assert ("std", _RUNTIME) not in wide
    counting = rust_library(tmp_path, target, "counting", more=_COUNTING)
    assert ("std", _RUNTIME) in kept_of(one, counting)


# what only this format has: the code of each library, and what all of them have in common

_KINDS = {
    "weak": (
        "__attribute__((weak)) int standing(int a) { return a * 3; } int maybe(void);"
        f"#pragma weak maybe\n{NOINLINE}int work(int a) {{"
        " return standing(a) + (maybe ? maybe() : 0); }"
    ),
    "alternate": (
        '__asm__(".section .drectve,\\"yn\\"\\n'
        '.ascii \\" /alternatename:PREnobody=PREelsewhere\\"\\n.text\\n");'
        f"int nobody(int); {NOINLINE}int work(int a) {{ return nobody(a) * 2; }}"
    ),
    "include": (
        '__asm__(".section .drectve,\\"yn\\"\\n.ascii \\" /include:PREkept\\"\\n.text\\n");'
        f"int kept = 7; {NOINLINE}int work(int a) {{ return a * 1234567; }}"
    ),
    "pointer": (
        "__attribute__((dllimport)) int standing(int);"
        f"{NOINLINE}int work(int a) {{ return standing(a) + 1; }}"
    ),
    "common": (
        "int buffer[40], one; "
        f"{NOINLINE}int work(int a) {{ one += a; return buffer[a & 31] += one; }}"
    ),
    "own section": (
        '__attribute__((section(".mine"), used)) int own = 5;'
        '__attribute__((section(".rdata$zzz"), used)) const int grouped = 6;'
        f"{NOINLINE}int work(int a) {{ return own + grouped + a; }}"
    ),
    "callback": (
        "static int calls; static void back(void) { calls++; }"
        '__attribute__((section(".CRT$XCT"), used)) void (*const entry)(void) = back;'
        f"{NOINLINE}int work(int a) {{ return calls + a; }}"
    ),
}


@pytest.mark.parametrize("target", kit.TARGETS)
def test_each_kind_of_code_is_verified(tmp_path: Path, target: str) -> None:
    always = f"{NOINLINE}int always(int a) {{ return a * 77 + 3; }}"
    use = "int work(int), always(int); int NAME(int a) { return work(a) + always(a); }"
    for kind, text in _KINDS.items():
        folder = tmp_path / kind.replace(" ", "_")
        libraries = []
        for name in "ab":
            sources = {
                "work.c": text.replace("PRE", kit.prefix(target)).replace(";#", ";\n#"),
                "more.c": always + ("int standing(int a) { return a * 9; }" * (kind == "pointer")),
                "use.c": use.replace("NAME", name),
            }
            flags = ("-O1", "-ffunction-sections", "-fdata-sections", "-fcommon")
            objects = kit.compile(folder / name, target, sources, *flags)
            libraries.append((kit.archive(folder / f"{name}.lib", target, objects), [name]))
        for strip, granularity in ((Strip.SYMBOLS, Granularity.CLASS), (Strip.NONE, "section")):
            granularity = Granularity(granularity)
            small, common, made = shared_set(
                folder / strip.value, target, libraries, strip, granularity
            )
            verified(target, libraries, small, common, made, strip)
            shared = kind in ("pointer", "common", "callback", "include")
            kept_there = {k.reason for part in made.parts for k in part.kept}
            assert ("in a linker set" in str(kept_there)) == (not shared or kind == "include"), kind


@pytest.mark.parametrize("target", ["x86_64-pc-windows-msvc", "i686-pc-windows-msvc"])
def test_files_with_tables_of_call_targets_stay_whole(tmp_path: Path, target: str) -> None:
    """Control flow guard: a linker reads such a table for the object that has it alone."""
    back = f"{NOINLINE}int back(int a);"
    guarded = f"{back}int (*volatile go)(int) = back; int call(int a) {{ return go(a); }}"
    plain = f"{NOINLINE}int back(int a) {{ return a ^ 5; }}{NOINLINE}int other(int a) {{"
    plain += " return a * 77777; } int (*volatile also)(int) = other;"
    use = "int call(int), other(int); int NAME(int a) { return call(a) + other(a); }"
    libraries = []
    for name in "ab":
        objects = kit.compile(
            tmp_path / name, target, {"guarded.c": guarded}, "-O1", "-Xclang", "-cfguard"
        )
        sources = {"plain.c": plain, "use.c": use.replace("NAME", name)}
        objects += kit.compile(tmp_path / name, target, sources, "-O1", "-ffunction-sections")
        libraries.append((kit.archive(tmp_path / f"{name}.lib", target, objects), [name]))
    small, common, made = shared_set(tmp_path / "set", target, libraries)
    verified(target, libraries, small, common, made)
    readobj = kit.llvm("readobj")
    assert ".gfids$y" not in tool([readobj, "--sections", common])
    assert ".gfids$y" in tool([readobj, "--sections", small[0]])
    assert "T __csh" in tool([kit.llvm("nm"), common])
