"""The verifier of sets: what is right passes, and defects of the engine that are put in do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.engines import sharing as engine
from cargo_strip_hook.link.model import Array, Format, Int64
from cargo_strip_hook.link.share import split as splitting
from cargo_strip_hook.link.share.find import Shared, find_shared
from cargo_strip_hook.link.share.model import Library, Sharing, Sort
from cargo_strip_hook.link.share.split import Split, groups_of, split
from tests.formats.native_kit import library, tool
from tests.formats.share_kit import FLAGS, Found, verified_set
from tests.formats.test_share_output import c_libraries, expected, main_of
from tests.formats.test_share_rules import rust_library
from tests.targets import FOREIGN, RUNNING, Foreign

NOINLINE = "__attribute__((noinline)) "
COMMON = f"{NOINLINE}int common(int x) {{ return x * 31 + 7; }}"
CALL = "int common(int); int call_NAME(void) { return common(5); }"


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("strip", Strip)
def test_a_set_is_verified(tmp_path: Path, strip: Strip, granularity: Granularity) -> None:
    libraries = c_libraries(tmp_path, "abc", "-g")
    found = verified_set(tmp_path / "set", libraries, strip, granularity)
    assert [one.exports for one in found] == [("a",), ("b",), ("c",)]
    assert all(one.relocations for one in found)


def test_a_set_of_rust_libraries_is_verified(tmp_path: Path) -> None:
    libraries = [rust_library(tmp_path, name) for name in ("one", "two")]
    found = verified_set(tmp_path / "set", libraries)
    assert all(one.functions > 100 for one in found)


@contextmanager
def found(text: str) -> Iterator[None]:
    """The verifier has something against a set that begins or ends with a text."""
    with pytest.raises(VerifyError) as caught:
        yield
    findings = "\n".join(caught.value.findings)
    assert any(part in findings for part in text.split("|")), findings


def forced(patch: pytest.MonkeyPatch, *named: tuple[str, ...]) -> None:
    """Have the engine share what has these names (in each library one), whatever the rules say."""

    def find(libraries: Sequence[Library], sharing: Sharing) -> Shared:
        shared = find_shared(libraries, sharing)
        number, colour = shared.number.copy(), shared.colour
        of = [Found(shared, sharing).names(n) for n in range(len(libraries))]
        for names in named:
            homes = [(n, one[name][0]) for n, one in enumerate(of) for name in names if name in one]
            number[[atom for _, atom in homes]] = len(colour)
            colour = np.append(colour, np.uint64(len(colour)))
        return replace(shared, number=number, colour=colour)

    patch.setattr(engine, "find_shared", find)


def use(name: str, called: str) -> str:
    return f"int {called}(void); int {name}(void) {{ return {called}(); }}"


def libraries_of(
    folder: Path, sources: Sequence[Mapping[str, str]]
) -> list[tuple[Path, list[str]]]:
    return [
        (library(folder / name, one, *FLAGS, name=f"lib{name}.a"), [name, f"call_{name}"])
        for name, one in zip("abc", sources, strict=False)
    ]


def test_statics_of_equal_bytes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def text(name: str) -> str:
        return f"static int {name};{NOINLINE}int get(void) {{ return ++{name}; }}" + COMMON

    sources = [
        {"x.c": text(name), "u.c": use(letter, "get") + CALL.replace("NAME", letter)}
        for name, letter in (("first", "a"), ("second", "b"))
    ]
    forced(monkeypatch, ("first", "second"), ("get",))
    with found("of two names is one"):
        verified_set(tmp_path / "set", libraries_of(tmp_path, sources))


def test_code_with_another_callee_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [
        {
            "x.c": f"{NOINLINE}static int low(int x) {{ return x * {factor} + 3; }}"
            f"int get(void) {{ return low(9) + 1; }}" + COMMON,
            "u.c": use(letter, "get") + CALL.replace("NAME", letter),
        }
        for factor, letter in ((1000, "a"), (1001, "b"))
    ]
    forced(monkeypatch, ("low", "low.isra.0", "low.constprop.0"), ("get",))
    with found("other bytes"):
        verified_set(tmp_path / "set", libraries_of(tmp_path, sources))


def test_a_lock_without_its_data_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    forced(monkeypatch, ("lock",), ("take",), ("leave",))
    with found("a part of a crate's state"):
        verified_set(tmp_path / "set", libraries_of(tmp_path, sources))


def damaged(patch: pytest.MonkeyPatch, change: Callable[[Shared, Split], Split]) -> None:
    def made(shared: Shared, sharing: Sharing, format: Format) -> Split:
        return change(shared, split(shared, sharing, format))

    patch.setattr(engine, "split", made)


def test_a_constructor_that_is_forgotten_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(shared: Shared, made: Split) -> Split:
        part = made.common[0]
        first = int(shared.joined.atom_base[part.library])
        sort = shared.joined.described.sort[first + part.atoms]
        assert (part.live & (sort == Sort.INITIALISER)).any()
        live = part.live & (sort != Sort.INITIALISER)
        return replace(made, common=(replace(part, live=live), *made.common[1:]))

    damaged(monkeypatch, forget)
    with found("a constructor is missing"):
        verified_set(tmp_path / "set", c_libraries(tmp_path))


def test_a_hidden_name_that_is_dropped_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(shared: Shared, made: Split) -> Split:  # noqa: ARG001
        part = made.common[0]
        shown = frozenset(sorted(part.program.exported)[1:])
        part = replace(part, program=replace(part.program, exported=shown))
        return replace(made, common=(part, *made.common[1:]))

    damaged(monkeypatch, drop)
    with found("undefined, and it was not before"):
        verified_set(tmp_path / "set", c_libraries(tmp_path))


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (
            "int outside(int); int more(int x) { return outside(x) * 77; }",
            "only other libraries need",
        ),
        (
            "int started; int more(int x) { return x * started; }"
            "__attribute__((constructor)) static void start(void) { started = 7; }",
            "runs by itself",
        ),
        (f"{NOINLINE}int more(int x) {{ return x * 77; }}", ""),
    ],
)
def test_a_member_that_holds_too_much_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, what: str
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
        for (path, _), n in zip(libraries_of(tmp_path, sources), "abc", strict=True)
    ]

    def all_in_one(shared: Shared) -> tuple[Int64, list[tuple[int, ...]]]:
        group, groups = groups_of(shared)
        assert groups == [(0, 1, 2), (0, 1)]
        return group * 0, groups[:1]

    verified_set(tmp_path / "right", libraries)
    with open_archive(tmp_path / "right" / "libcommon.a") as common:
        assert len(common.members) == (2 if what else 1)
    monkeypatch.setattr(splitting, "groups_of", all_in_one)
    if not what:
        verified_set(tmp_path / "set", libraries)
        return
    with found(what):
        verified_set(tmp_path / "set", libraries)


def test_a_place_that_no_library_has_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may hold what a library does not need, but only what another one does."""
    libraries = [(path, names[:2]) for path, names in c_libraries(tmp_path)]
    real = engine.link_maps

    def shorter(*arguments: Any) -> list[Array]:
        return [rows[rows["object"] == 0] if n else rows for n, rows in enumerate(real(*arguments))]

    monkeypatch.setattr(engine, "link_maps", shorter)
    with found("runs by itself"):
        verified_set(tmp_path / "set", libraries)


GNU = [FOREIGN[triple] for triple in RUNNING if triple.endswith(("-gnu", "-gnueabihf"))]


@pytest.mark.parametrize("foreign", GNU, ids=lambda f: str(f.triple))
def test_a_set_of_another_architecture_works(tmp_path: Path, foreign: Foreign) -> None:
    """Compiled, shared, verified, linked and run; with unwind tables, thread-locals, tables."""
    compiler = str(foreign.compiler())
    flags = ("-g", "-fPIC", "-fasynchronous-unwind-tables")
    libraries = c_libraries(tmp_path, "abc", *flags, compiler=compiler)
    verified_set(tmp_path / "set", libraries, triple=foreign.triple)
    for names, gc in (("abc", ()), ("ac", ("-Wl,--gc-sections",))):
        inputs = [main_of(tmp_path, names), *(tmp_path / "set" / f"lib{n}.a" for n in names)]
        program = tmp_path / "program"
        tool([compiler, "-o", program, *inputs, tmp_path / "set" / "libcommon.a", *gc])
        assert tool([*foreign.emulation(), program]) == expected(names)


@pytest.mark.parametrize("strip", Strip)
def test_equal_functions_of_other_names_are_one(tmp_path: Path, strip: Strip) -> None:
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
    found = verified_set(tmp_path / "set", libraries_of(tmp_path, sources), strip)
    assert len(found) == 2
    names = tool(["nm", tmp_path / "set" / "libcommon.a"])
    assert names.count("__csh_") == 2
