"""Conan, Debian and vcpkg packages of a stripped library, and programs that use them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.consumers.toolbox import run
from tests.examples.kit import (
    WORDS,
    assert_public,
    declared,
    defined,
    example,
    need_heavy,
)
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


VCPKG = """\
function(vcpkg_check_linkage)
endfunction()
function(vcpkg_fixup_pkgconfig)
endfunction()
function(vcpkg_install_copyright)
endfunction()
function(vcpkg_execute_required_process)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "WORKING_DIRECTORY;LOGNAME" "COMMAND")
    execute_process(COMMAND ${arg_COMMAND} WORKING_DIRECTORY "${arg_WORKING_DIRECTORY}"
                    COMMAND_ERROR_IS_FATAL ANY)
endfunction()
set(CURRENT_BUILDTREES_DIR "${CMAKE_CURRENT_LIST_DIR}/trees")
set(CURRENT_PACKAGES_DIR "${CMAKE_CURRENT_LIST_DIR}/package")
set(TARGET_TRIPLET x64-linux)
include("${CMAKE_CURRENT_LIST_DIR}/demo/portfile.cmake")
"""


def test_vcpkg_portfile(tmp_path: Path) -> None:
    """The port's commands, with stand-ins for vcpkg's functions: vcpkg itself is not to be had."""
    need("cargo-cbuild")
    need("cmake")
    here = example("vcpkg", tmp_path)
    (here.folder / "vcpkg.cmake").write_text(VCPKG)
    (here.folder / "trees").mkdir()
    here.sh("cmake -P vcpkg.cmake")
    package = here.folder / "package"
    header = package / "include/demo.h"
    assert not (package / "debug/include").exists()
    assert_public(package / "lib/libdemo.a", header)
    # The profile of the second has debug information, so that its size is no measure.
    assert defined(package / "debug/lib/libdemo.a") == declared(header)
    for variant in ("lib", "debug/lib"):
        program = f"{package}/{variant}/libdemo.a -lpthread -ldl -lm -o words && ./words"
        assert WORDS in here.sh(f"cc -I{package}/include ../main.c {program}")
