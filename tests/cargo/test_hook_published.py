"""The hook on published crates: built and installed by plain cargo-c, linked and run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from tests import fixtures
from tests.cargo import workspaces
from tests.cargo.hooked import Space, is_original, shown, write_tools
from tests.consumers.expected import FALLBACKSWITCH, IMAGEQUANT
from tests.consumers.toolbox import SOURCES, dynamic_exports
from tests.tools import TIER, need

NATIVE = ("-lm", "-lpthread", "-ldl")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time these crates are fetched."""
    monkeypatch.delenv("CARGO_NET_OFFLINE", raising=False)


@contextmanager
def published(name: str, folder: Path) -> Iterator[Space]:
    """The source of a crate, at one place, so that its dependencies are compiled once.

    The package itself is as if it had never been built.
    """
    root = fixtures.CACHE / "src" / f"hook-{name}-{fixtures.PUBLISHED[name]}"
    with FileLock(f"{root}.lock"):
        source = fixtures.source(name)
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(source, root)
        space = Space(root, write_tools(folder / "tools"), fixtures.CACHE / "target" / root.name)
        space.run("cargo-strip-hook", "setup")
        yield space


def install(space: Space, folder: Path) -> str:
    """`cargo cinstall`; what it said."""
    need("cargo-cbuild")
    argv = ["cargo-cinstall", "cinstall", "--release", "--locked", "--prefix", "/usr"]
    argv += ["--libdir", "lib", "--destdir", os.fspath(folder)]
    return space.run(*argv).stderr


def runs(space: Space, source: str, library: Path, *flags: str | Path) -> str:
    """What a C program says that is linked with `library` alone."""
    program = library.with_suffix("")
    space.run(need("cc"), SOURCES / source, library, *flags, *NATIVE, "-o", program)
    registry = {"GST_REGISTRY": f"{program}.registry", "GST_REGISTRY_FORK": "no"}
    return space.run(program, **registry).stdout


def test_imagequant(tmp_path: Path) -> None:
    """Its header is a source file, and says less than the shared library exports."""
    with published("imagequant-sys", tmp_path) as space:
        install(space, tmp_path)
        library = tmp_path / "usr/lib/libimagequant.a"
        header = tmp_path / "usr/include/libimagequant.h"
        words = set(re.findall(r"\w+", header.read_text()))
        dynamic = set(dynamic_exports(tmp_path / "usr/lib/libimagequant.so"))
        assert shown(library) == dynamic & words
        assert not is_original(library)
        assert library.stat().st_size < 2_000_000
        assert runs(space, "imagequant.c", library, f"-I{header.parent}") == IMAGEQUANT
        assert "Compiling" not in install(space, tmp_path)


def test_a_gstreamer_plugin(tmp_path: Path) -> None:
    """It has no header at all: what its shared library exports is public."""
    if TIER == "ci":
        pytest.skip("its dependencies take minutes to compile")
    with published("gst-plugin-fallbackswitch", tmp_path) as space:
        install(space, tmp_path)
        folder = tmp_path / "usr/lib/gstreamer-1.0"
        library = folder / "libgstfallbackswitch.a"
        assert shown(library) == set(dynamic_exports(folder / "libgstfallbackswitch.so"))
        assert not is_original(library)
        parts = [f"gstreamer-{p}1.0" for p in ("", "base-", "audio-", "video-")]
        parts.append("gio-2.0")
        flags = space.run(need("pkg-config"), "--cflags", "--libs", *parts).stdout.split()
        assert runs(space, "fallbackswitch.c", library, *flags) == FALLBACKSWITCH
        assert "Compiling" not in install(space, tmp_path)


# Rust crates with a C API of their own, one with C that is compiled in, and std
DEPENDENCIES = """\
[dependencies]
imagequant-sys = "=4.1.0"
libbz2-rs-sys = { version = "=0.2.6", features = ["export-symbols"] }
libz-rs-sys = { version = "=0.6.8", features = ["export-symbols"] }
lz4-sys = "=1.11.1"
"""
USES = """\
pub use {imagequant_sys, libbz2_rs_sys, libz_rs_sys};
#[no_mangle]
pub extern "C" fn all_of_them(n: i32) -> i32 {
    (unsafe { lz4_sys::LZ4_compressBound(n) }) + format!("{n}").len() as i32
}
"""


@pytest.mark.parametrize("lto", ["off", "thin", "fat"])
def test_what_is_public_in_dependencies_is_what_a_cdylib_exports(tmp_path: Path, lto: str) -> None:
    if TIER == "ci":
        pytest.skip("its dependencies take long to compile")
    root = fixtures.CACHE / "src" / "hook-all-of-them"
    with FileLock(f"{root}.lock"):
        shutil.rmtree(root, ignore_errors=True)
        workspaces.package(
            root, "all-of-them", '[lib]\ncrate-type = ["staticlib"]\n[workspace]\n' + DEPENDENCIES
        )
        workspaces.write(root / "src/lib.rs", USES)
        space = Space(root, write_tools(tmp_path / "tools"), fixtures.CACHE / "target" / root.name)
        space.run("cargo-strip-hook", "setup")
        build = ("cargo", "rustc", "--release", "--config", f'profile.release.lto="{lto}"')
        space.run(*build, "--crate-type", "cdylib")
        assert space.target
        release = space.target / "release"
        expected = set(dynamic_exports(release / "liball_of_them.so"))
        assert {"liq_attr_create", "BZ2_bzCompress", "inflate", "all_of_them"} <= expected
        assert "LZ4_compressBound" not in expected
        space.run(*build, "--crate-type", "staticlib")
        assert not is_original(release / "liball_of_them.a")
        assert shown(release / "liball_of_them.a") == expected
