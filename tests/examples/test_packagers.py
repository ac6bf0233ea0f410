"""Conan and Debian packages of a stripped library, and programs that use them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.consumers.toolbox import run
from tests.examples.kit import WORDS, assert_public, example, need_heavy
from tests.tools import need


def test_conan(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("conan")
    need("cmake")
    here = example("conan", tmp_path)
    home = tmp_path / "conan"
    said = here.follow({"CONAN_HOME": str(home)})
    # Conan puts its own words between the lines of the program.
    assert all(line in said.splitlines() for line in WORDS.splitlines()), said
    libraries = list(home.glob("p/b/*/p/lib/libdemo.a"))
    assert len(libraries) == 1, libraries
    assert_public(libraries[0], libraries[0].parents[1] / "include/demo.h")


def test_debian(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need("pkg-config")
    need_heavy("dh")
    need_heavy("dpkg-buildpackage")
    here = example("debian", tmp_path)
    # debhelper gives programs a home of their own, where rustup's cargo finds nothing.
    rustup = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))
    said = here.follow({"RUSTUP_HOME": rustup, "DEB_BUILD_OPTIONS": "noautodbgsym"})
    assert "dh_strip" in said
    packages = list(here.folder.glob("build/libdemo-dev_0.1.0-1_*.deb"))
    assert len(packages) == 1, packages
    unpacked = tmp_path / "unpacked"
    run(need("dpkg-deb"), "-x", packages[0], unpacked)
    libraries = list(unpacked.glob("usr/lib/*/libdemo.a"))
    assert len(libraries) == 1, libraries
    assert_public(libraries[0], unpacked / "usr/include/demo.h")
    said = here.sh(f"""
        export PKG_CONFIG_SYSROOT_DIR={unpacked}
        export PKG_CONFIG_LIBDIR={libraries[0].parent}/pkgconfig
        cc ../main.c $(pkg-config --static --cflags --libs demo) -o words
        ./words
    """)
    assert WORDS in said
