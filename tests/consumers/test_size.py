"""How large the result is, and what a consumer's linker can still drop of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.toolbox import LINKERS, dynamic_exports, gnu_ld, link, run, strip
from tests.fixtures import Built
from tests.tools import need

CRATES = ("imagequant-sys", "dolby_vision", "gst-plugin-fallbackswitch")
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


@pytest.mark.parametrize("remove", ["debuginfo", "symbols"])
@pytest.mark.parametrize("name", CRATES)
def test_release_without_debug_information_is_near_the_cdylib(
    name: str, remove: str, tmp_path: Path
) -> None:
    built = fixtures.library(name)
    assert _by_cdylib(built, tmp_path, remove) <= 1.8 * _stripped_cdylib(built, tmp_path)


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
