"""Alias, Makefile, workspace, sharing, CMake, Meson: built as the READMEs say, linked and run."""

from __future__ import annotations

import re
from pathlib import Path

from tests import fixtures
from tests.consumers.toolbox import run
from tests.examples.kit import WORDS, Example, assert_public, example
from tests.tools import need

THREE = """\
Hello in MCMXCIV = 1994
79927398713 is valid
panics inside: -1 -1
calls: roman 2, luhn 2, rot13 1
"""


def test_alias(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("pkg-config")
    here = example("alias", tmp_path)
    said = here.follow()
    assert WORDS in said
    assert_public(here.folder / "stage/lib/libdemo.a", here.demo / "demo.h")


def test_makefile(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("make")
    here = example("makefile", tmp_path)
    said = here.follow()
    assert WORDS in said
    assert_public(here.folder / "stage/usr/lib/libdemo.a", here.demo / "demo.h")
    # Installed again: the library in the target directory was left to cargo-c.
    assert "Compiling" not in here.sh('make install prefix=/usr DESTDIR="$PWD/stage"')
    assert_public(here.folder / "stage/usr/lib/libdemo.a", here.demo / "demo.h")


def test_workspace(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("pkg-config")
    here = example("workspace", tmp_path)
    said = here.follow()
    assert THREE in said
    for name in ("roman", "luhn", "rot13"):
        assert_public(here.folder / f"stage/lib/lib{name}.a", here.folder / name / f"{name}.h")
    assert not (here.folder / "stage/lib/libcommon.a").exists()
    # `strip = "symbols"` of the workspace: no local names either.
    assert not re.search(r"common|roman_value\..*", _locals(here.folder / "stage/lib/libroman.a"))
    # With the libraries as they were all calls end in one copy of `common`, without a word.
    built = f"target/{fixtures.host()}/release"
    names = [f"{built}/lib{name}.a" for name in ("roman", "luhn", "rot13")]
    headers = "-Iroman -Iluhn -Irot13"
    here.sh(f"cc {headers} main.c {' '.join(names)} -lpthread -ldl -lm -o together")
    assert "calls: roman 5, luhn 5, rot13 5" in here.sh("./together")


def test_sharing(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("meson")
    need("ninja")
    need("pkg-config")
    here = example("sharing", tmp_path)
    said = here.follow()
    assert said.count(THREE) == 2  # by Meson, and by pkg-config
    folder = here.folder / "stage/lib"
    for name in ("roman", "luhn", "rot13"):
        crate = here.folder.parent / "workspace" / name
        assert_public(folder / f"lib{name}.a", crate / f"{name}.h")
        assert (folder / f"lib{name}.a").stat().st_size < 20_000
        assert "Requires.private: rust-common" in (folder / f"pkgconfig/{name}.pc").read_text()
    assert (folder / "librust-common.a").stat().st_size < 800_000


def _locals(library: Path) -> str:
    """Names of local functions and data, by nm."""
    said = run(need("nm"), library).stdout
    return "\n".join(line for line in said.splitlines() if re.search(r" [a-z] ", line))


def test_cmake(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("cmake")
    need("ninja")
    here = example("cmake", tmp_path)
    said = here.follow()
    assert WORDS in said
    assert_public(here.folder / "stage/lib/libdemo.a", here.demo / "demo.h")
    # Nothing to do, and after a change of the crate all of it.
    assert "no work to do" in here.sh("cmake --build build")
    _assert_a_change_is_built(here, "cmake --build build")


def test_meson(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("meson")
    need("ninja")
    need("pkg-config")
    here = example("meson", tmp_path)
    said = here.follow()
    assert WORDS in said
    assert_public(here.folder / "stage/lib/libdemo.a", here.demo / "demo.h")
    assert "no work to do" in here.sh("meson compile -C build")
    _assert_a_change_is_built(here, "meson compile -v -C build")


def _assert_a_change_is_built(here: Example, build: str) -> None:
    """Once the crate counts words in upper case, so does the program after `build`."""
    source = here.demo / "src/lib.rs"
    source.write_text(source.read_text().replace("word.to_lowercase()", "word.to_uppercase()"))
    assert "Stripping" in here.sh(build)
    assert "8 different words, `the` 0 times" in here.sh("build/words")
