"""Several libraries as one object: what it has once, what it shows, and that defects are found."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.engines import sharing as engine
from cargo_strip_hook.formats.elf import notes, writer
from cargo_strip_hook.link.model import Array, Binding, Format
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.model import Sharing, Sort
from cargo_strip_hook.link.share.together import Together, together
from tests.formats.native_kit import library, link, tool
from tests.formats.share_kit import FLAGS, joined_set, verified_set
from tests.formats.test_share_output import c_libraries, expected, main_of
from tests.formats.test_share_rules import rust_library
from tests.formats.test_share_verify import CALL, COMMON, NOINLINE, forced, found, libraries_of, use
from tests.targets import FOREIGN, RUNNING, Foreign


def shown(path: Path) -> list[tuple[str, str]]:
    """(letter of nm, name) of what is global or undefined."""
    lines = [line.split() for line in tool(["nm", "-g", path]).splitlines() if " " in line]
    return sorted((words[-2], words[-1]) for words in lines)


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("strip", Strip)
def test_a_joined_library_is_one_object(
    tmp_path: Path, strip: Strip, granularity: Granularity
) -> None:
    joined = tmp_path / "libjoined.a"
    joined_set(joined, c_libraries(tmp_path, "abc", "-g"), strip, granularity)
    with open_archive(joined) as archive:
        assert len(archive.members) == 1
    assert [pair for pair in shown(joined) if pair[0] not in "Uw"] == [
        ("T", "a"),
        ("T", "b"),
        ("T", "c"),
    ]
    assert tool(["size", "-A", joined]).count(".init_array") == 1
    program = link(tmp_path / "program", [main_of(tmp_path, "cab"), joined])
    assert tool([program]) == expected("cab")


def test_rust_libraries_are_joined(tmp_path: Path) -> None:
    libraries = [rust_library(tmp_path, name) for name in ("one", "two")]
    joined = tmp_path / "libjoined.a"
    assert len(joined_set(joined, libraries, Strip.NONE)) == 2
    first = joined.read_bytes()
    joined_set(joined, libraries[::-1], Strip.NONE)
    assert joined.read_bytes() == first


def test_a_name_that_another_part_exports_is_bound(tmp_path: Path) -> None:
    """One library needs what another one offers; both need the same from outside."""
    libraries = [
        (library(tmp_path / n, {f"{n}.c": source}, *FLAGS, name=f"lib{n}.a"), [f"of_{n}"])
        for n, source in {
            "a": "int of_b(int); int outside(int); int of_a(int x) { return of_b(outside(x)); }",
            "b": "int outside(int); int of_b(int x) { return outside(x) + 1; }",
            "c": "__attribute__((weak)) int outside(int); extern int never "
            "__attribute__((weak)); int of_c(int x) { return &never ? 1 : outside(x) + 2; }",
        }.items()
    ]
    joined = tmp_path / "libjoined.a"
    joined_set(joined, libraries)
    assert shown(joined) == [
        ("T", "of_a"),
        ("T", "of_b"),
        ("T", "of_c"),
        ("U", "outside"),
        ("w", "never"),
    ]
    main = tmp_path / "main.c"
    main.write_text(
        "int of_a(int), of_c(int); int outside(int x) { return 2 * x; }"
        "int main(void) { return of_a(5) + of_c(1) - 21 - 4; }"
    )
    tool([link(tmp_path / "program", [main, joined])])


GNU = [FOREIGN[triple] for triple in RUNNING if triple.endswith(("-gnu", "-gnueabihf"))]


@pytest.mark.parametrize("foreign", GNU, ids=lambda f: str(f.triple))
def test_libraries_of_another_architecture_are_joined(tmp_path: Path, foreign: Foreign) -> None:
    compiler = str(foreign.compiler())
    flags = ("-g", "-fPIC", "-fasynchronous-unwind-tables")
    joined = tmp_path / "libjoined.a"
    joined_set(
        joined, c_libraries(tmp_path, "ab", *flags, compiler=compiler), triple=foreign.triple
    )
    program = tmp_path / "program"
    tool([compiler, "-o", program, main_of(tmp_path, "ba"), joined])
    assert tool([*foreign.emulation(), program]) == expected("ba")


def test_statics_of_equal_bytes_that_became_one_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {
            "x.c": f"static int {name};{NOINLINE}int get(void) {{ return ++{name}; }}" + COMMON,
            "u.c": use(letter, "get") + CALL.replace("NAME", letter),
        }
        for name, letter in (("first", "a"), ("second", "b"))
    ]
    forced(monkeypatch, ("first", "second"), ("get",))
    with found("of two names is one"):
        joined_set(tmp_path / "libjoined.a", libraries_of(tmp_path, sources))


def test_a_constructor_that_is_lost_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(shared: Shared, sharing: Sharing, format: Format) -> Together:
        made = together(shared, sharing, format)
        sort = shared.joined.described.sort
        return replace(made, live=made.live & (sort != Sort.INITIALISER))

    monkeypatch.setattr(engine, "together", lose)
    with found("a constructor is missing"):
        joined_set(tmp_path / "libjoined.a", c_libraries(tmp_path))


def test_what_no_library_has_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that no link map tells of."""
    real = engine.maps_of_one

    def forget(shared: Shared, made: Together, rows: Array) -> list[Array]:
        maps = real(shared, made, rows)
        code = int(maps[0]["out_section"].min())
        return [m[(m["out_section"] != code) | (m["out_offset"] != 0)] for m in maps]

    monkeypatch.setattr(engine, "maps_of_one", forget)
    with found("bytes that no input explains|the original has not"):
        joined_set(tmp_path / "libjoined.a", c_libraries(tmp_path))


def test_a_name_too_many_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(shared: Shared, sharing: Sharing, format: Format) -> Together:
        made = together(shared, sharing, format)
        program = made.program
        inside = np.maximum(program.symbols["atom"], 0)
        may = (program.symbols["atom"] >= 0) & made.live[inside]
        may &= program.symbols["binding"] == Binding.GLOBAL
        row = next(r for r in np.flatnonzero(may).tolist() if r not in program.exported)
        shown = program.exported | {row}
        return replace(made, program=replace(program, exported=shown))

    monkeypatch.setattr(engine, "together", show)
    with found("not that of all exports"):
        joined_set(tmp_path / "libjoined.a", c_libraries(tmp_path))


@pytest.mark.parametrize(("joined", "who"), [(True, "ab"), (True, "b"), (False, "ab")])
def test_a_promise_too_many_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, joined: bool
) -> None:
    """`.note.gnu.property` holds where all members say so: of one library, or of none."""
    libraries = []
    for name in "ab":
        flag = "-fcf-protection=none" if name in who else "-fcf-protection"
        sources = {"common.c": COMMON, f"{name}.c": CALL.replace("NAME", name)}
        path = library(tmp_path / name, sources, *FLAGS, flag, name=f"lib{name}.a")
        libraries.append((path, [f"call_{name}"]))

    def made() -> None:
        if joined:
            joined_set(tmp_path / "libjoined.a", libraries)
        else:
            verified_set(tmp_path / "set", libraries)

    made()
    promise = struct.pack("<IIIII", 4, 16, 5, 0x554E47, 0xC0000002) + struct.pack("<III", 4, 3, 0)
    real = notes.merge
    monkeypatch.setattr(writer.notes, "merge", lambda *a: replace(real(*a), properties=promise))
    with found(".note.gnu.property"):
        made()
