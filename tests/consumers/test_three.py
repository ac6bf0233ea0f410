"""Three libraries with the same dependencies, one by another compiler, in one program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.toolbox import LINKERS, link, run, run_program, strip
from tests.fixtures import Built
from tests.tools import need

NAMES = ("alpha", "beta", "gamma")


def _libraries(profile: str) -> list[Built]:
    return [
        fixtures.library("alpha", profile),
        fixtures.library("beta", profile),
        fixtures.library("gamma", profile, fixtures.host(), "debian"),
    ]


def _place_of_std(toolchain: fixtures.Toolchain) -> str:
    """Where this toolchain's std says that its sources are, from std itself."""
    rustc = fixtures.rustc(toolchain)
    sysroot = Path(run(rustc, "--print", "sysroot").stdout.strip())
    std = next((sysroot / "lib/rustlib" / fixtures.host() / "lib").glob("libstd-*.rlib"))
    found = re.search(rb"(/[\w/.-]+/library/std/src/)time\.rs", std.read_bytes())
    assert found, f"{std} names no source file"
    return found[1].decode()


def _expected() -> str:
    """Each has run its own hook twice, bumped its own counter, and sees one element and one std."""
    lines = []
    for name in NAMES:
        std = _place_of_std("debian" if name == "gamma" else "rustup")
        lines += [f"{name} hooked before: 0", f"{name} panic: 20", f"{name} panic: 30"]
        lines += [f"{name} hooked: 2", f"{name} bumps: 1", f"{name} items: 1"]
        lines += [f"{name} std: {std}time.rs"]
    return "".join(f"{line}\n" for line in lines)


def test_the_two_compilers_differ() -> None:
    assert _place_of_std("debian") != _place_of_std("rustup")


@pytest.mark.parametrize("linker", LINKERS)
def test_three_originals_do_not_link(linker: str, tmp_path: Path) -> None:
    three = _libraries("release")
    archives = [b.library for b in three]
    program = link("three.c", archives, three, tmp_path, linker=linker, exit_code=None)
    assert not program.exists()


@pytest.mark.parametrize("linker", LINKERS)
def test_two_originals_of_one_compiler_use_one_std(linker: str, tmp_path: Path) -> None:
    # They link, and the second binds to the first one's std without a word: both hooks are one.
    two = _libraries("release")[:2]
    flags = ("-DWITHOUT_GAMMA", "-DWITHOUT_ITEMS")
    program = link("three.c", [b.library for b in two], two, tmp_path, *flags, linker=linker)
    said = run_program(program).stdout
    assert "alpha hooked: 0\n" in said
    assert "beta hooked before: 3\n" in said


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("profile", ["release", "dev"])
def test_three_stripped_libraries_each_run_their_own_copy(
    profile: str, linker: str, tmp_path: Path
) -> None:
    three = _libraries(profile)
    stripped = [strip(b, tmp_path / "out") for b in three]
    for flags in ((), ("-Wl,--gc-sections",), ("-Wl,--whole-archive",)):
        # What follows the libraries, libc among it, is not to be taken whole.
        end = [Path("-Wl,--no-whole-archive")] if "-Wl,--whole-archive" in flags else []
        program = link("three.c", [*stripped, *end], three, tmp_path, *flags, linker=linker)
        assert run_program(program).stdout == _expected(), flags


def test_in_one_shared_library_each(tmp_path: Path) -> None:
    three = _libraries("release")
    shared = []
    for built in three:
        stripped = strip(built, tmp_path / "out")
        path = tmp_path / f"lib{built.name}-whole.so"
        whole = ("-Wl,--whole-archive", stripped, "-Wl,--no-whole-archive")
        run(need("cc", "gcc"), "-shared", "-o", path, *whole)
        shared.append(path)
    program = link("three.c", shared, three, tmp_path, f"-Wl,-rpath,{tmp_path}")
    assert run_program(program).stdout == _expected()
