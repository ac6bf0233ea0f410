"""How large the result is, and what a consumer's linker can still drop of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from tests import fixtures
from tests.consumers.toolbox import (
    LINKERS,
    dynamic_exports,
    gnu_ld,
    link,
    linker_flags,
    run,
    strip,
)
from tests.fixtures import Built
from tests.tools import need

CRATES = ("imagequant-sys", "dolby_vision", "gst-plugin-fallbackswitch")
# × the stripped cdylib
LIMITS = {"debuginfo": 1.6, "symbols": 1.35}
ONE = {
    "one_imagequant.c": "imagequant-sys",
    "one_dolby_vision.c": "dolby_vision",
    "one_behaviour.c": "behaviour",
    "number.c": "imagequant-sys",
}


def _stripped_cdylib(built: Built, folder: Path) -> int:
    assert built.cdylib
    copy = Path(shutil.copyfile(built.cdylib, folder / "floor.so"))
    run(need("strip"), copy)
    return copy.stat().st_size


def _by_cdylib(built: Built, folder: Path, remove: str) -> int:
    assert built.cdylib
    stripped = strip(built, folder, "--cdylib", built.cdylib, "--strip", remove)
    return stripped.stat().st_size


@pytest.mark.parametrize("remove", LIMITS)
@pytest.mark.parametrize("name", (*CRATES, "rav1e"))
def test_release_without_debug_information_is_near_the_cdylib(
    name: str, remove: str, tmp_path: Path
) -> None:
    built = fixtures.library(name)
    assert _by_cdylib(built, tmp_path, remove) <= LIMITS[remove] * _stripped_cdylib(built, tmp_path)


@pytest.mark.parametrize(
    ("remove", "by_hand"),
    [("none", ()), ("debuginfo", ("--strip-debug",)), ("symbols", ("--strip-unneeded",))],
)
@pytest.mark.parametrize("profile", ["release", "dev"])
@pytest.mark.parametrize("name", CRATES)
def test_never_larger_than_by_gnu_ld_and_objcopy(
    name: str, profile: str, remove: str, by_hand: tuple[str, ...], tmp_path: Path
) -> None:
    built = fixtures.library(name, profile)
    assert built.cdylib
    theirs = gnu_ld(built, dynamic_exports(built.cdylib), tmp_path / "hand", *by_hand)
    assert _by_cdylib(built, tmp_path, remove) <= theirs.stat().st_size


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("source", ONE)
def test_a_program_that_uses_one_function_is_as_small_as_from_the_original(
    source: str, linker: str, tmp_path: Path
) -> None:
    built = fixtures.library(ONE[source])
    stripped = strip(built, tmp_path / "out")
    flags = ("-Wl,--gc-sections", "-s")
    before = link(source, [built.library], [built], tmp_path / "a", *flags, linker=linker)
    after = link(source, [stripped], [built], tmp_path / "b", *flags, linker=linker)
    assert after.stat().st_size <= 1.02 * before.stat().st_size


def _allocated(program: Path) -> int:
    """The bytes that a program takes in memory, without what lld fills the last page up with."""
    with program.open("rb") as file:
        return sum(
            s["sh_size"]
            for s in ELFFile(file).iter_sections()
            if s["sh_flags"] & SH_FLAGS.SHF_ALLOC and s.name != ".relro_padding"
        )


@pytest.mark.parametrize("linker", ["bfd", "lld"])
def test_classes_cost_no_program_anything(linker: str, tmp_path: Path) -> None:
    built = fixtures.library("imagequant-sys")
    stripped = {g: strip(built, tmp_path / g, "--granularity", g) for g in ("class", "section")}
    listed = run(need("nm"), "-g", "--defined-only", "--format=posix", stripped["class"]).stdout
    names = [line.split()[0] for line in listed.splitlines() if not line.endswith(":")]
    assert len(names) >= 50
    flags = ("-Wl,--gc-sections", "-s", *linker_flags(linker, tmp_path), *built.native_libs)
    larger = []
    for name in names:
        source, program = tmp_path / "one.c", tmp_path / "one"
        source.write_text(
            f"extern char {name}[]; char *volatile used; int main(void) {{ used = {name}; }}\n"
        )
        sizes = {}
        for granularity, library in stripped.items():
            run(need("cc", "gcc"), "-O1", "-fPIE", source, library, "-o", program, *flags)
            sizes[granularity] = _allocated(program)
        if sizes["class"] > 1.005 * sizes["section"]:
            larger.append((name, sizes))
    assert not larger
