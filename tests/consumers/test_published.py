"""Published crates, built by cargo-c: a C program does with the result what it did before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.expected import DOLBY_VISION, FALLBACKSWITCH, IMAGEQUANT
from tests.consumers.toolbox import dynamic_exports, link, run, run_program, strip
from tests.tools import need

CRATES = {
    "imagequant-sys": ("imagequant.c", IMAGEQUANT),
    "dolby_vision": ("dolby_vision.c", DOLBY_VISION),
    "gst-plugin-fallbackswitch": ("fallbackswitch.c", FALLBACKSWITCH),
}


def _flags(name: str) -> list[str]:
    if not name.startswith("gst-"):
        return []
    return run(need("pkg-config"), "--cflags", "gstreamer-1.0").stdout.split()


def _environment(folder: Path) -> dict[str, str]:
    """Keeps GStreamer's registry of plugins away from the developer's own."""
    return {"GST_REGISTRY": str(folder / "registry.bin"), "GST_REGISTRY_FORK": "no"}


@pytest.mark.parametrize("profile", ["release", "dev"])
@pytest.mark.parametrize("name", CRATES)
def test_a_program_runs_as_with_the_original(name: str, profile: str, tmp_path: Path) -> None:
    source, expected = CRATES[name]
    built = fixtures.library(name, profile)
    flags, env = _flags(name), _environment(tmp_path)
    original = link(source, [built.library], [built], tmp_path / "a", *flags)
    assert run_program(original, env=env).stdout == expected
    for remove in ("none", "debuginfo", "symbols"):
        stripped = strip(built, tmp_path / remove, "--strip", remove)
        program = link(source, [stripped], [built], tmp_path / remove, *flags)
        assert run_program(program, env=env).stdout == expected, remove


@pytest.mark.parametrize("linker", ["gold", "lld", "mold"])
@pytest.mark.parametrize("name", CRATES)
def test_with_other_linkers_that_drop_what_is_unused(
    name: str, linker: str, tmp_path: Path
) -> None:
    source, expected = CRATES[name]
    built = fixtures.library(name)
    stripped = strip(built, tmp_path / "out")
    flags = (*_flags(name), "-Wl,--gc-sections")
    program = link(source, [stripped], [built], tmp_path, *flags, linker=linker)
    assert run_program(program, env=_environment(tmp_path)).stdout == expected


@pytest.mark.parametrize("name", CRATES)
def test_only_the_public_symbols_are_global(name: str, tmp_path: Path) -> None:
    built = fixtures.library(name)
    assert built.cdylib
    stripped = strip(built, tmp_path, "--cdylib", built.cdylib)
    said = run(need("nm"), "-g", "--defined-only", "-j", stripped).stdout
    names = [line for line in said.split() if not line.endswith(":")]
    assert sorted(names) == dynamic_exports(built.cdylib)
