"""What distributions and consumers do to a static library: afterwards it still does everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.expected import BEHAVIOUR
from tests.consumers.toolbox import LINKERS, link, linker_flags, run, run_program, strip
from tests.tools import need

# debhelper's dh_strip for static libraries: its options of `strip`, word for word.
DH_STRIP = (
    *("--strip-debug", "--remove-section=.comment", "--remove-section=.note"),
    *("--enable-deterministic-archives", "-R", ".gnu.lto_*", "-R", ".gnu.debuglto_*"),
    *("-N", "__gnu_lto_slim", "-N", "__gnu_lto_v1"),
)
TREATMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "strip-g": (("strip", "-g"),),
    "strip-unneeded": (("strip", "--strip-unneeded"),),
    "strip-unneeded-deterministic": (("strip", "-D", "--strip-unneeded"),),
    "dh_strip": (("strip", *DH_STRIP),),
    # RPM's brp-strip-static-archive.
    "brp-strip": (("strip", "-p", "-g"),),
    "objcopy": (("objcopy", "-D"),),
    "objcopy-unneeded": (("objcopy", "-D", "--strip-unneeded"),),
    "ranlib": (("ranlib", "-D"),),
    "llvm-strip-g": (("llvm-strip-22", "-g"),),
    "llvm-strip-unneeded": (("llvm-strip-22", "--strip-unneeded"),),
    "llvm-objcopy": (("llvm-objcopy-22", "-D"),),
    "twice": (("strip", "-g"), ("strip", "--strip-unneeded"), ("ranlib",)),
}


@pytest.mark.parametrize("remove", ["none", "debuginfo"])
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_treated_by_a_tool(treatment: str, remove: str, tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out", "--strip", remove)
    for tool, *words in TREATMENTS[treatment]:
        done = run(need(tool), *words, stripped)
        assert not done.stderr, "the tool had something to say"
    for linker in ("bfd", "lld"):
        program = link("behaviour.c", [stripped], [built], tmp_path, linker=linker)
        assert run_program(program).stdout == BEHAVIOUR


@pytest.mark.parametrize("final", ["bfd", "lld"])
@pytest.mark.parametrize("first", LINKERS)
def test_a_relocatable_link_of_the_consumer(first: str, final: str, tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out")
    merged = tmp_path / "merged.o"
    flags = linker_flags(first, tmp_path)
    whole = ("-Wl,--whole-archive", stripped, "-Wl,--no-whole-archive")
    run(need("cc", "gcc"), "-nostdlib", "-r", *flags, *whole, "-o", merged)
    for gc in ((), ("-Wl,--gc-sections",)):
        program = link("behaviour.c", [merged], [built], tmp_path, *gc, linker=final)
        assert run_program(program).stdout == BEHAVIOUR, gc


def _whole(archive: Path) -> list[Path]:
    return [Path("-Wl,--whole-archive"), archive, Path("-Wl,--no-whole-archive")]


def _alone(archive: Path) -> list[Path]:
    return [archive]


@pytest.mark.parametrize("place", [_whole, _alone], ids=["whole", "lazy"])
@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("flag", ["", "--icf=safe", "--gc-sections", "--as-needed"])
def test_linked_another_way(
    flag: str, linker: str, place: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    if "icf" in flag and linker == "bfd":
        pytest.skip("GNU ld has no --icf")
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out")
    flags = (f"-Wl,{flag}",) if flag else ()
    program = link("behaviour.c", place(stripped), [built], tmp_path, *flags, linker=linker)
    assert run_program(program).stdout == BEHAVIOUR


def test_made_without_debug_information_nothing_is_left_for_strip(tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    stripped = strip(built, tmp_path / "out", "--strip", "debuginfo")
    before = stripped.stat().st_size
    run(need("strip"), "-D", "-g", stripped)
    assert stripped.stat().st_size >= 0.97 * before
