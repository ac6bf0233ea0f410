"""The verifier of sets of Windows libraries: defects of the engine that are put in do not pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.engines import imports as of_imports
from cargo_strip_hook.engines import sharing as engine
from cargo_strip_hook.engines.imports import Divided, Imports, divide
from cargo_strip_hook.link.model import Array, Int64
from cargo_strip_hook.link.share import split as splitting
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.model import Sort
from cargo_strip_hook.link.share.split import Split, groups_of
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool
from tests.formats.test_share_verify import CALL, COMMON, damaged, forced, found, use
from tests.formats.windows_sets import (
    GNU,
    MSVC,
    NOINLINE,
    c_libraries,
    libraries_of,
    rust_library,
    shared_set,
    verified_set,
)

BOTH = pytest.mark.parametrize("target", [MSVC, GNU])


def of(
    folder: Path, target: str, sources: Sequence[dict[str, str]]
) -> list[tuple[Path, list[str]]]:
    named = dict(zip("abc", sources, strict=False))
    paths = libraries_of(folder, target, named, "-fno-asynchronous-unwind-tables")
    return [(path, [name, f"call_{name}"]) for path, name in zip(paths, named, strict=True)]


@BOTH
def test_statics_of_equal_bytes_are_found(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(name: str) -> str:
        return f"int {name};{NOINLINE}int get(void) {{ return ++{name}; }}" + COMMON

    sources = [
        {"x.c": text(name), "u.c": use(letter, "get") + CALL.replace("NAME", letter)}
        for name, letter in (("first", "a"), ("second", "b"))
    ]
    forced(monkeypatch, ("first", "second"), ("get",))
    with found("of two names is one"):
        verified_set(tmp_path / "set", target, of(tmp_path, target, sources))


@BOTH
def test_code_with_another_callee_is_found(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {
            "x.c": f"{NOINLINE}int low(int x) {{ return x * {factor} + 3; }}"
            f"int get(void) {{ return low(9) + 1; }}" + COMMON,
            "u.c": use(letter, "get") + CALL.replace("NAME", letter),
        }
        for factor, letter in ((1000, "a"), (1001, "b"))
    ]
    forced(monkeypatch, ("low",), ("get",))
    with found("contents: at"):
        verified_set(tmp_path / "set", target, of(tmp_path, target, sources))


@BOTH
def test_a_lock_without_its_data_is_found(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = (
        f"volatile int lock;{NOINLINE}void take(void) {{ lock = 1; }}"
        f"{NOINLINE}void leave(void) {{ lock = 0; }}"
    )
    sources = [
        {
            "lock.c": lock,
            "data.c": "void take(void), leave(void); int data;"
            f"int get(void) {{ take(); data += {step}; leave(); return data; }}",
            "u.c": COMMON + use(letter, "get") + CALL.replace("NAME", letter),
        }
        for step, letter in ((1, "a"), (2, "b"))
    ]
    forced(monkeypatch, ("lock",), ("take",), ("leave",))
    with found("a part of a crate's state"):
        verified_set(tmp_path / "set", target, of(tmp_path, target, sources))


@BOTH
def test_a_constructor_that_is_forgotten_is_found(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(shared: Shared, made: Split) -> Split:
        part = made.common[0]
        first = int(shared.joined.atom_base[part.library])
        sort = shared.joined.described.sort[first + part.atoms]
        assert (part.live & (sort == Sort.INITIALISER)).any()
        live = part.live & (sort != Sort.INITIALISER)
        return replace(made, common=(replace(part, live=live), *made.common[1:]))

    damaged(monkeypatch, forget)
    with found("is lost"):
        verified_set(tmp_path / "set", target, c_libraries(tmp_path, target))


@BOTH
def test_a_name_that_is_dropped_is_found(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(shared: Shared, made: Split) -> Split:  # noqa: ARG001
        part = made.common[0]
        shown = frozenset(sorted(part.program.exported)[1:])
        part = replace(part, program=replace(part.program, exported=shown))
        return replace(made, common=(part, *made.common[1:]))

    damaged(monkeypatch, drop)
    with found("undefined, and it was not before"):
        verified_set(tmp_path / "set", target, c_libraries(tmp_path, target))


@BOTH
@pytest.mark.parametrize(
    ("more", "what"),
    [
        (
            "int outside(int); int more(int x) { return outside(x) * 77; }",
            "a name that only other libraries need is undefined",
        ),
        (
            "int started; int more(int x) { return x * started; }"
            " void start(void) { started = 7; }"
            '__attribute__((section(".CRT$XCU"), used)) static void (*const run)(void) = start;',
            "something of other libraries runs by itself",
        ),
        (f"static int kept; {NOINLINE}int more(int x) {{ return kept += x * 77; }}", ""),
    ],
)
def test_a_member_that_holds_too_much_is_found(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch, more: str, what: str
) -> None:
    """What two libraries share is put into the member of all three, which may bring nothing."""
    calls = "int more(int); int more_of_NAME(void) { return more(3); }"
    sources = [
        {"x.c": COMMON + more, "u.c": CALL.replace("NAME", "a") + calls.replace("NAME", "a")},
        {"x.c": COMMON + more, "u.c": CALL.replace("NAME", "b") + calls.replace("NAME", "b")},
        {"x.c": COMMON, "u.c": CALL.replace("NAME", "c")},
    ]
    libraries = [
        (path, [f"call_{n}", f"more_of_{n}"][: 1 + (n != "c")])
        for (path, _), n in zip(of(tmp_path, target, sources), "abc", strict=True)
    ]

    def all_in_one(shared: Shared) -> tuple[Int64, list[tuple[int, ...]]]:
        group, groups = groups_of(shared)
        assert groups == [(0, 1, 2), (0, 1)]
        return group * 0, groups[:1]

    verified_set(tmp_path / "right", target, libraries)
    monkeypatch.setattr(splitting, "groups_of", all_in_one)
    for granularity in Granularity:
        folder = tmp_path / f"set-{granularity.value}"
        if not what:
            verified_set(folder, target, libraries, granularity=granularity)
            continue
        with found(what):
            verified_set(folder, target, libraries, granularity=granularity)


@BOTH
def test_a_place_that_no_library_has_is_found(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may hold what a library does not need, but only what another one does."""
    real = engine.link_maps

    def shorter(*arguments: Any) -> list[Array]:
        return [rows[rows["object"] == 0] for rows in real(*arguments)]

    monkeypatch.setattr(engine, "link_maps", shorter)
    with found("is lost|are more than its pieces|bytes that no input explains"):
        verified_set(tmp_path / "set", target, c_libraries(tmp_path, target))


def test_a_name_that_a_dll_would_export_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cargo_strip_hook.formats.coff.sharing import CoffSharing

    monkeypatch.setattr(CoffSharing, "suffix", b"")
    with found("a DLL would export a name that crosses"):
        verified_set(tmp_path / "set", GNU, c_libraries(tmp_path, GNU))


# imports


def changed_division(patch: pytest.MonkeyPatch, change: object) -> None:
    def divided(libraries: Sequence[Imports], wanted: Sequence[Sequence[bytes]]) -> Divided:
        return change(divide(libraries, wanted))  # type: ignore[operator, no-any-return]

    patch.setattr(engine, "divide", divided)


@BOTH
def test_what_several_libraries_import_is_imported_once(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = [rust_library(tmp_path, target, name) for name in ("one", "two")]
    small, common, made = shared_set(tmp_path / "set", target, libraries)
    assert made.imports == ((), ())
    assert len(made.common_imports) > 2
    ar = kit.llvm("ar")
    names = tool([ar, "t", common]).splitlines()
    assert len(names) == len(made.common_imports) + sum(n.startswith("common.") for n in names)
    for path in small:
        assert len(tool([ar, "t", path]).splitlines()) == 1

    for lost in (made.common_imports[0], made.common_imports[-1]):
        rest = tuple(one for one in made.common_imports if one != lost)
        changed_division(monkeypatch, lambda d, rest=rest: replace(d, common=rest))
        with found("an import lacks what it needs|undefined, although the original defines it"):
            verified_set(tmp_path / "lost", target, libraries)

    copy = of_imports.Imports.copy

    def other(self: Imports, number: int) -> object:
        one = copy(self, number)
        data = b"".join(bytes(chunk) for chunk in one.chunks)
        return replace(one, chunks=[data[:-1] + bytes([data[-1] ^ 1])])

    monkeypatch.setattr(engine, "divide", divide)
    monkeypatch.setattr(of_imports.Imports, "copy", other)
    with found("an import that the original has not|damaged"):
        verified_set(tmp_path / "other", target, libraries)


# what is shared


def test_constants_are_those_of_any_file(tmp_path: Path) -> None:
    """A constant that its name tells is from another file in each library."""
    scale = f"{NOINLINE}double scale(double x) {{ return x * 3.25 + 1e10; }} int _fltused;"
    other = f"{NOINLINE}double NAME(double x) {{ return x / 3.25 - 1e10; }}"
    use_of = "double scale(double), NAME_other(double);"
    use_of += "int NAME(int x) { return (int)NAME_other(scale(x)); }"
    sources = {
        name: {
            f"{name}_use.c": use_of.replace("NAME", name),
            f"{name}_other.c": other.replace("NAME", f"{name}_other"),
            "scale.c": scale,
        }
        for name in "ab"
    }
    sources["b"] = dict(sorted(sources["b"].items(), reverse=True))
    paths = libraries_of(tmp_path, MSVC, sources)
    libraries = [(path, [name]) for path, name in zip(paths, "ab", strict=True)]
    verified_set(tmp_path / "set", MSVC, libraries, Strip.NONE)
    small, common = (kit.externals(tmp_path / "set" / name) for name in ("a.lib", "common.lib"))
    assert len(small[1] & common[0]) == 2
    assert "__real@" not in tool([kit.llvm("nm"), tmp_path / "set" / "a.lib"])


def test_types_of_exceptions_are_no_state(tmp_path: Path) -> None:
    """Rust's `catch_unwind` in a crate that each library has its own of leaves std one."""
    more = (
        '#[no_mangle] pub extern "C" fn NAME_more() -> i32 {'
        " std::panic::catch_unwind(|| std::process::id() as i32 % NUMBER).unwrap_or(1) }"
    )
    libraries = [
        rust_library(
            tmp_path, MSVC, name, more=more.replace("NAME", name).replace("NUMBER", str(number))
        )
        for name, number in (("one", 3), ("two", 4))
    ]
    _, _, made = shared_set(tmp_path / "set", MSVC, libraries)
    kept = {(k.crate, k.reason) for part in made.parts for k in part.kept}
    assert "other allocator or panic runtime" not in {reason for _, reason in kept}
