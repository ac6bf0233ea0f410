"""Everything a library of Rust, C, C++ and assembly does, in a program that links the result."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.expected import BEHAVIOUR, BEHAVIOUR_MINIMAL, BEHAVIOUR_SHARED
from tests.consumers.toolbox import (
    AARCH64,
    LINKERS,
    link,
    linker_flags,
    run,
    run_program,
    strip,
)
from tests.tools import need

STRIPS = ("none", "debuginfo", "symbols")
PROFILES = ("release", "dev")


@pytest.mark.parametrize("gc", [(), ("-Wl,--gc-sections",)], ids=["all", "gc"])
@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_original_does_all_this(
    profile: str, linker: str, gc: tuple[str, ...], tmp_path: Path
) -> None:
    built = fixtures.library("behaviour", profile)
    program = link("behaviour.c", [built.library], [built], tmp_path, *gc, linker=linker)
    assert run_program(program, "a", "b").stdout == BEHAVIOUR


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("remove", STRIPS)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_stripped_library_does_the_same(
    profile: str, remove: str, linker: str, tmp_path: Path
) -> None:
    built = fixtures.library("behaviour", profile)
    stripped = strip(built, tmp_path / "out", "--strip", remove)
    program = link("behaviour.c", [stripped], [built], tmp_path, linker=linker)
    assert run_program(program, "a", "b").stdout == BEHAVIOUR


@pytest.mark.parametrize("granularity", ["class", "section", "whole"])
@pytest.mark.parametrize("linker", LINKERS)
def test_dropping_what_is_unused_drops_nothing_that_is_used(
    linker: str, granularity: str, tmp_path: Path
) -> None:
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out", "--granularity", granularity)
    program = link("behaviour.c", [stripped], [built], tmp_path, "-Wl,--gc-sections", linker=linker)
    assert run_program(program).stdout == BEHAVIOUR


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize(
    "flags",
    [("-no-pie", "-fno-pie"), ("-pie", "-fPIE"), ("-static",), ("-static-pie", "-fPIE")],
    ids=lambda flags: flags[0].strip("-"),
)
def test_every_kind_of_executable(flags: tuple[str, ...], linker: str, tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    original = link(
        "behaviour.c",
        [built.library],
        [built],
        tmp_path / "a",
        *flags,
        linker=linker,
        exit_code=None,
    )
    if not original.exists() or run_program(original, exit_code=None).returncode:
        pytest.skip("not with the original either")
    stripped = strip(built, tmp_path / "out")
    program = link("behaviour.c", [stripped], [built], tmp_path / "b", *flags, linker=linker)
    assert run_program(program).stdout == run_program(original).stdout


def test_inside_a_shared_library_with_copied_variables(tmp_path: Path) -> None:
    # A program that is not position-independent has its own copy of bhv_counter, and the
    # library has to use that one.
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out")
    shared = tmp_path / "libbehaviour-whole.so"
    natives = [n for n in built.native_libs if n != "-lgcc_s"]
    whole = ("-Wl,--whole-archive", stripped, "-Wl,--no-whole-archive")
    run(need("cc", "gcc"), "-shared", "-o", shared, *whole, *natives)
    flags = ("-no-pie", "-fno-pie", f"-Wl,-rpath,{tmp_path}")
    program = link("behaviour.c", [shared], [built], tmp_path, *flags)
    copies = run(need("readelf"), "-rW", program).stdout
    assert re.search(r"R_X86_64_COPY.* bhv_counter|R_AARCH64_COPY.* bhv_counter", copies)
    assert run_program(program).stdout == BEHAVIOUR_SHARED


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("flag", ["", "-Bsymbolic", "--gc-sections", "--icf=all"])
def test_inside_a_shared_library(flag: str, linker: str, tmp_path: Path) -> None:
    if (flag, linker) == ("--icf=all", "bfd"):
        pytest.skip("GNU ld folds nothing")
    built = fixtures.library("behaviour")
    natives = [n for n in built.native_libs if n != "-lgcc_s"]
    flags = [*linker_flags(linker, tmp_path), *([f"-Wl,{flag}"] if flag else [])]
    said = []
    folded = strip(built, tmp_path / "section", "--granularity", "section")
    for library in (built.library, folded, strip(built, tmp_path / "class")):
        folder = tmp_path / library.parent.name
        folder.mkdir(exist_ok=True)
        shared = folder / "libbehaviour-whole.so"
        whole = ("-Wl,--whole-archive", library, "-Wl,--no-whole-archive")
        run(need("cc", "gcc"), "-shared", "-o", shared, *flags, *whole, *natives)
        program = link("behaviour.c", [shared], [built], folder, f"-Wl,-rpath,{folder}")
        said.append(run_program(program, "a", "b").stdout)
    assert said[1] == said[0]
    if flag == "--icf=all":
        # linkers fold sections: functions that share one with others keep their own addresses
        assert "distinct: 0" in said[0]
        said[0] = said[0].replace("distinct: 0", "distinct: 1")
    assert said[2] == said[0]
    assert "panic through C: 105" in said[0]


def test_without_c_plus_plus(tmp_path: Path) -> None:
    built = fixtures.library("behaviour-minimal")
    stripped = strip(built, tmp_path / "out", "--allow-missing")
    program = link("behaviour.c", [stripped], [built], tmp_path, "-DWITHOUT_CXX")
    assert run_program(program).stdout == BEHAVIOUR_MINIMAL


@pytest.mark.parametrize("engine", ["native", "system"])
def test_either_engine(engine: str, tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out", "--engine", engine)
    program = link("behaviour.c", [stripped], [built], tmp_path)
    assert run_program(program).stdout == BEHAVIOUR


def _panics(program: Path) -> list[str]:
    """What the panics print, without the numbers that differ from run to run."""
    said = run_program(program, env={"RUST_BACKTRACE": "1"}).stderr
    return re.sub(r"(thread '<unnamed>') \(\d+\)| 0x[0-9a-f]+", r"\1", said).splitlines()


def test_printed_backtraces_are_the_same_with_debug_information(tmp_path: Path) -> None:
    built = fixtures.library("behaviour", "dev")
    stripped = strip(built, tmp_path / "out", "--strip", "none")
    before = _panics(link("behaviour.c", [built.library], [built], tmp_path / "a"))
    after = _panics(link("behaviour.c", [stripped], [built], tmp_path / "b"))
    assert sum("at src/panics.rs:" in line for line in before) > 5
    assert after == before


def test_printed_backtraces_name_functions_without_debug_information(tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out", "--strip", "debuginfo")
    frames = "\n".join(_panics(link("behaviour.c", [stripped], [built], tmp_path)))
    assert "panicked at src/panics.rs:" in frames
    for name in ("bhv_panic_code", "behaviour::panics::descend", "bhv_frame_c", "main"):
        assert re.search(rf"^ +\d+: {name}$", frames, re.M), name


@pytest.mark.target(AARCH64)
@pytest.mark.parametrize("remove", STRIPS)
@pytest.mark.parametrize("gc", [(), ("-Wl,--gc-sections",)], ids=["all", "gc"])
def test_aarch64(remove: str, gc: tuple[str, ...], tmp_path: Path) -> None:
    built = fixtures.library("behaviour", "release", AARCH64, "debian")
    original = link("behaviour.c", [built.library], [built], tmp_path / "a", *gc)
    assert run_program(original, "a", target=AARCH64).stdout == BEHAVIOUR
    stripped = strip(built, tmp_path / "out", "--strip", remove)
    program = link("behaviour.c", [stripped], [built], tmp_path / "b", *gc)
    assert run_program(program, "a", target=AARCH64).stdout == BEHAVIOUR


@pytest.mark.target(AARCH64)
@pytest.mark.parametrize("linker", ["gold", "lld"])
def test_aarch64_with_other_linkers(linker: str, tmp_path: Path) -> None:
    built = fixtures.library("behaviour", "release", AARCH64, "debian")
    stripped = strip(built, tmp_path / "out")
    if linker == "gold":
        need("aarch64-linux-gnu-ld.gold")
    program = link("behaviour.c", [stripped], [built], tmp_path, linker=linker)
    assert run_program(program, target=AARCH64).stdout == BEHAVIOUR


@pytest.mark.target(AARCH64)
def test_aarch64_dev(tmp_path: Path) -> None:
    built = fixtures.library("behaviour", "dev", AARCH64, "debian")
    stripped = strip(built, tmp_path / "out", "--strip", "none")
    program = link("behaviour.c", [stripped], [built], tmp_path)
    assert run_program(program, target=AARCH64).stdout == BEHAVIOUR
