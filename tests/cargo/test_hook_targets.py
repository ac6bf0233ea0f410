"""The hook for other targets: std from source, target files, and cargo-ndk with a stub linker."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from tests import fixtures
from tests.cargo.hooked import Space, is_original, make_space, shown, write_tools
from tests.consumers.windows_kit import QUICK_WINDOWS
from tests.targets import QUICK, build_environment
from tests.tools import TIER, need

FUNCTIONS = ("start", "panic", "hooked", "bump", "items", "std")
TARGETS = {
    "aarch64-unknown-linux-gnu": ("", "libalpha.a"),
    "aarch64-linux-android": ("", "libalpha.a"),
    "aarch64-apple-darwin": ("_", "libalpha.a"),
    "x86_64-pc-windows-gnu": ("", "libalpha.a"),
    "x86_64-pc-windows-msvc": ("", "alpha.lib"),
}


def debian(target: str) -> dict[str, str]:
    """The toolchain that has the sources of std."""
    return {
        "RUSTC": os.fspath(fixtures.rustc("debian")),
        "RUSTC_BOOTSTRAP": "1",
        **build_environment(target),
    }


@contextmanager
def with_std(target: str, folder: Path) -> Iterator[tuple[Space, Path]]:
    """The crate `alpha` where std has been compiled for `target`; and the output folder."""
    key = fixtures.std_key("debian")
    target_dir = fixtures.CACHE / "target" / key
    there = (target_dir / target / "release").is_dir()
    quick = target in (*QUICK, *QUICK_WINDOWS)
    if not {"all": True, "ci": quick}.get(TIER, there):
        pytest.skip("std takes minutes to compile")
    for name in ("alpha", "shared"):
        shutil.copytree(fixtures.CRATES / name, folder / name)
    with FileLock(fixtures.CACHE / f"{key}-{target}.lock"):
        yield (
            Space(folder / "alpha", write_tools(folder / "tools"), target_dir),
            target_dir / target / "release",
        )


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_whose_std_is_built_from_source(target: str, tmp_path: Path) -> None:
    """All of std's crates are packages of this build, and none of them is public."""
    prefix, name = TARGETS[target]
    with with_std(target, tmp_path) as (space, output):
        argv = [fixtures.cargo("debian"), "rustc", "--release", "--lib", "--locked"]
        argv += ["--crate-type", "staticlib", "--target", target]
        argv += ["-Zbuild-std=std,panic_unwind"]
        # the wrapper is a part of what names are made of: both times it is there
        more = {**debian(target), "RUSTC_WORKSPACE_WRAPPER": "cargo-strip-hook-rustc"}
        space.run(*argv, **more, STRIP_HOOK="0")
        original = Path(shutil.copy(output / name, tmp_path / name))
        assert is_original(original)
        made = space.run(*argv, **more)
        assert "warning" not in made.stderr
        library = Path(shutil.copy(output / name, tmp_path / f"made-{name}"))
        (output / name).unlink()
    # imports are members of their own, and Darwin's personality routine coalesces
    ar = need("llvm-ar-22", "llvm-ar")
    first = space.run(ar, "t", library).stdout.split()[0]
    space.run(ar, "x", "--output", tmp_path, library, first)
    expected = {f"{prefix}alpha_{function}" for function in FUNCTIONS}
    assert shown(tmp_path / first) - {"_rust_eh_personality"} == expected
    words = ("--header", "alpha.h", "--target", target)
    if "darwin" in target:
        words += ("--strip", "none")  # `build_environment` asks for debug information
    space.run("cargo-strip-hook", "strip", original, *words)
    assert library.read_bytes() == original.read_bytes()


@contextmanager
def with_core(folder: Path) -> Iterator[Space]:
    """A package without std, at one place, so that core is compiled once for each target."""
    if TIER == "ci":
        pytest.skip("core takes long to compile")
    made = make_space(folder)
    root = fixtures.CACHE / "src" / "hook-little"
    with FileLock(f"{root}.lock"):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(made.root, root)
        manifest = root / "Cargo.toml"
        manifest.write_text(manifest.read_text().replace("generation = false", "enabled = false"))
        target_dir = fixtures.CACHE / "target" / f"hook-{fixtures.std_key('debian')}"
        space = Space(root, made.tools, target_dir)
        space.run("cargo-strip-hook", "setup", RUSTC=os.fspath(fixtures.rustc("debian")))
        yield space


def test_a_target_file(tmp_path: Path) -> None:
    with with_core(tmp_path) as space:
        more = {"RUSTC": os.fspath(fixtures.rustc("debian")), "RUSTC_BOOTSTRAP": "1"}
        spec = json.loads(
            space.run(
                *(more["RUSTC"], "-Zunstable-options", "--print", "target-spec-json"),
                *("--target", "x86_64-unknown-linux-gnu"),
                **more,
            ).stdout
        )
        file = space.root / "our-own.json"
        spec.pop("is-builtin", None)
        file.write_text(json.dumps({**spec, "vendor": "our"}))
        argv = (fixtures.cargo("debian"), "build", "--release", "--target", file)
        space.run(*argv, "-Zbuild-std=core", "-Zjson-target-spec", **more)
        assert space.target
        output = space.target / "our-own" / "release"
        assert not is_original(output / "liblittle.a")
        assert shown(output / "liblittle.a") == {"little_one", "little_unlisted"}


def test_cargo_ndk(tmp_path: Path) -> None:
    """Its NDK is a folder with a linker that is clang with lld, which links without Bionic."""
    if TIER == "ci":
        pytest.skip("core takes long to compile")
    tool = need("cargo-ndk")  # which looks for itself beside its path
    ndk = tmp_path / "ndk"
    programs = ndk / "toolchains/llvm/prebuilt/linux-x86_64/bin"
    programs.mkdir(parents=True)
    (ndk / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 29.0.1\n")
    linker = programs / "clang"
    said = tmp_path / "linked"
    linker.write_text(
        f'#!/bin/sh\necho "$@" >> {said}\n'
        f'exec {need("clang-22", "clang")} -fuse-ld=lld -nostdlib "$@"\n'
    )
    linker.chmod(0o755)
    with with_core(tmp_path) as space:
        more = {
            "ANDROID_NDK_HOME": os.fspath(ndk),
            "CARGO": os.fspath(fixtures.cargo("debian")),
            "RUSTC": os.fspath(fixtures.rustc("debian")),
            "RUSTC_BOOTSTRAP": "1",
        }
        argv = (tool, "ndk", "-t", "arm64-v8a", "build", "--release", "-Zbuild-std=core")
        space.run(*argv, **more)
        assert "--target=aarch64-linux-android" in said.read_text()
        assert space.target
        output = space.target / "aarch64-linux-android" / "release"
        assert shown(output / "liblittle.a") == {"little_one", "little_unlisted"}
        assert not is_original(output / "liblittle.a")
        assert (output / "liblittle.so").exists()
