"""Sets of Windows libraries, of C and of Rust, for the tests of sharing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.sharing import SharedLibrary, ShareRequest, ShareResult, share
from cargo_strip_hook.verify import Expectation, Verified
from cargo_strip_hook.verify.sharing import SetMember, verify_set
from tests import fixtures
from tests.consumers import windows_kit
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool

MSVC, GNU = "x86_64-pc-windows-msvc", "x86_64-pc-windows-gnu"
FLAGS = ("-O1", "-ffunction-sections", "-fdata-sections")
NOINLINE = "__attribute__((noinline)) "
Libraries = Sequence[tuple[Path, Sequence[str]]]

# what all three have: state, thread-locals, a constructor, tables, strings, calls in a circle
_COMMON = f"""
static int count; int begun;
static void begin(void) {{ begun++; }}
#ifdef __MINGW32__
__attribute__((constructor)) static void run(void) {{ begin(); }}
static int mine = 10;
#else
__attribute__((section(".CRT$XCU"), used)) static void (*const run)(void) = begin;
static __declspec(thread) int mine = 10;
#endif
{NOINLINE}int bump(void) {{ mine++; return ++count; }}
{NOINLINE}int started(void) {{ return begun; }}
{NOINLINE}int of_thread(void) {{ return mine; }}
int odd(unsigned n);
{NOINLINE}int even(unsigned n) {{ return n == 0 ? 1 : odd(n - 1) + 0 * *(volatile int *)&n; }}
{NOINLINE}int odd(unsigned n) {{ return n == 0 ? 0 : even(n - 1) + 0 * *(volatile int *)&n; }}
static const char *const words[] = {{
    "nought", "a word that is long enough to have its own name", "two"
}};
{NOINLINE}const char *word(int n) {{ return words[n % 3]; }}
static int (*const table[])(unsigned) = {{even, odd}};
{NOINLINE}int by_table(int n, unsigned x) {{ return table[n](x); }}
"""
_OWN = """
int printf(const char *, ...);
int bump(void), of_thread(void), by_table(int, unsigned), started(void); const char *word(int);
int NAME(void) {
    int own = START + bump();
    printf("NAME %d %d %d %d %s\\n", own, of_thread(), started(), by_table(1, 7), word(own));
    return own;
}
"""


def compiled(folder: Path, target: str, sources: Mapping[str, str], *flags: str) -> list[Path]:
    """Objects by the compiler that belongs to the target."""
    if target.endswith("msvc"):
        return kit.compile(folder, target, sources, *flags)
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name, text in sources.items():
        file = folder / name
        file.write_text(text)
        objects.append(file.with_suffix(".o"))
        tool([windows_kit.gcc(target), *flags, "-c", file, "-o", objects[-1]])
    return objects


def libraries_of(
    folder: Path, target: str, sources: Mapping[str, Mapping[str, str]], *flags: str
) -> list[Path]:
    """A library of each of several sets of sources, by their names."""
    return [
        kit.archive(
            folder / f"{name}.lib",
            target,
            compiled(folder / name, target, files, *FLAGS, *flags),
        )
        for name, files in sources.items()
    ]


def c_libraries(
    folder: Path, target: str, names: str = "abc", *flags: str
) -> list[tuple[Path, list[str]]]:
    """Libraries with one function each of their own."""
    sources = {
        name: {
            "common.c": _COMMON,
            f"{name}.c": _OWN.replace("NAME", name).replace("START", str(100 * n)),
        }
        for n, name in enumerate(names)
    }
    made = libraries_of(folder, target, sources, *flags)
    return [(path, [name]) for path, name in zip(made, names, strict=True)]


def expected(names: Sequence[str]) -> str:
    """What a program of `c_libraries` says that has the common code and state once."""
    lines, words = [], ["nought", "a word that is long enough to have its own name", "two"]
    for count, name in enumerate(names, 1):
        own = 100 * "abc".index(name) + count
        lines.append(f"{name} {own} {10 + count} 1 1 {words[own % 3]}")
    return "\n".join(lines) + "\n"


def main_of(folder: Path, target: str, names: Sequence[str]) -> Path:
    """The object of a program that calls these functions."""
    file = folder / f"main_{''.join(names)}.c"
    declared = "".join(f"int {n}(void);" for n in names)
    calls = "".join(f"{n}();" for n in names)
    file.write_text(f"{declared}int main(void) {{ {calls} return 0; }}")
    return windows_kit.compile(target, file, folder)


def shared_set(
    folder: Path,
    target: str,
    libraries: Libraries,
    strip: Strip = Strip.SYMBOLS,
    granularity: Granularity = Granularity.CLASS,
) -> tuple[list[Path], Path, ShareResult]:
    """Write a set; (the small libraries in their order, the common one, what the engine says)."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = tuple(
        SharedLibrary(
            path, folder / path.name, tuple(kit.prefix(target) + name for name in exports)
        )
        for path, exports in libraries
    )
    common = folder / "common.lib"
    request = ShareRequest(
        asked, common, Target.parse(target), strip, granularity, lambda *_: kit.MARKER
    )
    return [one.output for one in asked], common, share(request)


def verified_set(
    folder: Path,
    target: str,
    libraries: Libraries,
    strip: Strip = Strip.SYMBOLS,
    granularity: Granularity = Granularity.CLASS,
) -> list[Verified]:
    """Write a set and verify it; raises what the verifier has against it."""
    small, common, made = shared_set(folder, target, libraries, strip, granularity)
    return verified(target, libraries, small, common, made, strip)


def verified(
    target: str,
    libraries: Libraries,
    small: Sequence[Path],
    common: Path,
    made: ShareResult,
    strip: Strip = Strip.SYMBOLS,
) -> list[Verified]:
    """What the verifier says of a set. Raises what it raises."""
    parsed = Target.parse(target)
    members = []
    for (path, exports), one, rows, imports in zip(
        libraries, small, made.link_maps, made.imports, strict=True
    ):
        names = tuple(kit.prefix(target) + name for name in exports)
        expectation = Expectation(parsed, names, strip, rows, kit.MARKER, import_members=imports)
        members.append(SetMember(path, one, expectation))
    return verify_set(members, common, Expectation(parsed, (), strip, None, kit.MARKER))


# Rust: with the std that other libraries of the cache were built with

_DEP = """
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
_LIB = """
#[no_mangle] pub extern "C" fn NAME_bump() -> u32 { dep::bump() }
#[no_mangle] pub extern "C" fn NAME_hook() { std::panic::set_hook(Box::new(|_| println!("NAME"))); }
#[no_mangle] pub extern "C" fn NAME_panic() -> i32 {
    std::panic::catch_unwind(|| { if std::env::args().count() > 0 { panic!("x") } 3 }).unwrap_or(7)
}
"""
_OF_STD = (
    *("std", "core", "alloc", "compiler_builtins", "panic_unwind", "panic_abort", "unwind"),
    *("std_detect", "hashbrown", "libc", "cfg_if", "memchr", "object", "addr2line", "gimli"),
    *("miniz_oxide", "adler2", "rustc_demangle", "rustc_std_workspace_core", "windows_link"),
    *("rustc_std_workspace_alloc", "windows_targets", "rustc_literal_escaper"),
)


@cache
def _std(target: str) -> Path:
    """The folder with the std of a library in the cache. Skips the test where there is none."""
    windows_kit.built_for("alpha", target)
    found: Path = fixtures.std_folder(target, "debian")
    return found


def sysroot(folder: Path, target: str) -> Path:
    """A folder that rustc takes for its own, with the target's std."""
    root = folder / "sysroot"
    libraries = root / "lib/rustlib" / target / "lib"
    libraries.mkdir(parents=True, exist_ok=True)
    for crate in _OF_STD:
        for file in _std(target).glob(f"lib{crate}-*.rlib"):
            if not (libraries / file.name).exists():
                (libraries / file.name).symlink_to(file)
    return root


def rust_library(
    folder: Path,
    target: str,
    name: str,
    *flags: str,
    dep_flags: Sequence[str] = (),
    more: str = "",
) -> tuple[Path, list[str]]:
    """A static library of Rust with a dependency that counts; and its exports."""
    here = folder / name
    here.mkdir(parents=True)
    (here / "dep.rs").write_text(_DEP)
    (here / "lib.rs").write_text(_LIB.replace("NAME", name) + more)
    base: list[str | Path] = [fixtures.rustc("debian"), "-O", "--edition", "2021"]
    base += ["-C", "metadata=one", "--target", target, "--sysroot", sysroot(folder, target)]
    base += ["--out-dir", here, *flags]
    dep = [*base, *dep_flags, "--crate-type", "rlib", "--crate-name", "dep"]
    tool([*dep, "-C", "extra-filename=-0123456789abcdef", here / "dep.rs"])
    crate = [*base, "--crate-type", "staticlib", "--crate-name", name]
    tool([*crate, "--extern", f"dep={here}/libdep-0123456789abcdef.rlib", here / "lib.rs"])
    made = here / (f"{name}.lib" if target.endswith("msvc") else f"lib{name}.a")
    return made, [f"{name}_{what}" for what in ("bump", "hook", "panic")]
