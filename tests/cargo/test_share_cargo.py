"""Packages of a workspace that share code, from cargo-c's files to programs by pkg-config."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cargo_strip_hook.cli import main
from tests.cargo import workspaces
from tests.cargo.hooked import Space, is_original, shown, write_tools
from tests.formats.test_share_command import killed_at
from tests.tools import need

WORKSPACE = """\
[workspace]
members = ["base", "one", "two"]
resolver = "2"
[workspace.metadata.strip-hook]
share = "both"
strip = "symbols"
"""
BASE = """\
use std::sync::atomic::{AtomicI32, Ordering};
static COUNT: AtomicI32 = AtomicI32::new(0);
#[inline(never)]
pub fn count() -> i32 { COUNT.fetch_add(1, Ordering::SeqCst) + 1 }
"""
MEMBER = """\
[package]
name = "NAME"
version = "0.3.0"
edition = "2021"
[features]
capi = []
[dependencies]
base = { path = "../base" }
[package.metadata.capi.header]
generation = false
[package.metadata.capi.install.include]
asset = [{ from = "NAME.h" }]
"""
# `two` is a plugin, and needs a library that has a .pc file of its own
MORE = {
    "one": "",
    "two": '[package.metadata.capi.library]\ninstall_subdir = "plugins"\n'
    '[package.metadata.capi.pkg_config]\nrequires_private = "other >= 1.0"\n',
}
SOURCE = """\
#[no_mangle]
pub extern "C" fn NAME_count() -> i32 { base::count() }
#[no_mangle]
pub extern "C" fn NAME_guarded(n: i32) -> i32 {
    std::panic::catch_unwind(|| if n < 0 { panic!("negative") } else { n }).unwrap_or(-7)
}
"""
JSON = ("--message-format", "json")
PLACES = ("--workspace", "--release", "--prefix", "/usr", "--libdir", "lib")
ALONE = "#include <NAME.h>\nint main(void) { return NAME_guarded(-1) + NAME_count() + 6; }\n"
BOTH = """\
#include <one.h>
#include <two.h>
int main(void) {
    return one_count() != 1 || two_count() != 2 || one_guarded(-1) != -7 || two_guarded(3) != 3;
}
"""


def make_workspace(folder: Path) -> Space:
    need("cargo-cbuild")
    root = folder / "ws"
    workspaces.write(root / "Cargo.toml", WORKSPACE)
    workspaces.write(
        root / "base/Cargo.toml",
        '[package]\nname = "base"\nversion = "0.1.0"\nedition = "2021"\n',
    )
    workspaces.write(root / "base/src/lib.rs", BASE)
    for name, more in MORE.items():
        workspaces.write(root / name / "Cargo.toml", MEMBER.replace("NAME", name) + more)
        workspaces.write(root / name / "src/lib.rs", SOURCE.replace("NAME", name))
        workspaces.write(
            root / name / f"{name}.h", f"int {name}_count(void);\nint {name}_guarded(int);\n"
        )
        workspaces.write(root / f"{name}.c", ALONE.replace("NAME", name))
    workspaces.write(root / "both.c", BOTH)
    workspaces.write(
        root / "other/other.pc", "Name: other\nDescription: other\nVersion: 1.5\nLibs:\n"
    )
    return Space(root, write_tools(folder / "tools"))


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """Built and installed by cargo-c, and copied by the tests."""
    space = make_workspace(tmp_path_factory.mktemp("once"))
    install = ("cargo-cinstall", "cinstall", "--library-type", "staticlib", *PLACES)
    space.run(*install, "--destdir", "stage")
    yield space


@pytest.fixture
def space(built_once: Space, tmp_path: Path) -> Space:
    shutil.copytree(built_once.root.parent, tmp_path / "copy", symlinks=True)
    copy = Space(tmp_path / "copy/ws", tmp_path / "copy/tools")
    for path in copy.root.glob("target/*/release/*.pc"):  # they name their folder
        path.write_text(path.read_text().replace(f"{built_once.root}/", f"{copy.root}/"))
    return copy


def runs(space: Space, program: str, *packages: str, folder: Path | None = None) -> None:
    """A program that `pkg-config --static` links works."""
    cc, pkg_config = need("cc"), need("pkg-config", "pkgconf")
    stage = space.root / "stage"
    of_build = folder is not None
    path = os.pathsep.join(
        map(os.fspath, (folder or stage / "usr/lib/pkgconfig", space.root / "other"))
    )
    said = subprocess.run(
        [pkg_config, "--static", "--cflags", "--libs", *packages],
        env={**os.environ, "PKG_CONFIG_PATH": path}
        | ({} if of_build else {"PKG_CONFIG_SYSROOT_DIR": os.fspath(stage)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    out = space.root / "program"
    # not the system's own places, which `--prefix /usr` names
    where = [] if of_build else [f"-L{stage}/usr/lib", f"-I{stage}/usr/include"]
    where += [f"-I{stage}/usr/include/{name}" for name in packages]
    space.run(cc, f"{program}.c", *where, *said.stdout.split(), "-o", out)
    space.run(out, RUST_BACKTRACE="0")


def installed(space: Space) -> dict[str, bytes]:
    stage = space.root / "stage"
    return {
        str(p.relative_to(stage / "usr/lib")): p.read_bytes()
        for p in stage.rglob("*")
        if p.suffix in (".a", ".pc")
    }


SET = {"libone.a", "plugins/libtwo.a", "libboth.a"} | {
    f"pkgconfig/{name}.pc" for name in ("one", "two", "both")
}


def field(space: Space, name: str, key: str) -> str:
    text = (space.root / f"stage/usr/lib/pkgconfig/{name}.pc").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{key}:")]
    return line.partition(":")[2].strip()


def test_installed_packages_share_one_std(space: Space) -> None:
    done = space.run("cargo-strip-hook", "--installed", *PLACES, "--destdir", "stage", *JSON)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [m["reason"] for m in said] == ["shared", "shared", "common", "finished"]
    after = installed(space)
    assert after.keys() == SET
    assert len(after["libone.a"]) + len(after["plugins/libtwo.a"]) < len(after["libboth.a"])
    assert shown(space.root / "stage/usr/lib/libone.a") == {"one_count", "one_guarded"}
    natives = field(space, "one", "Libs.private")
    assert "-lc" in natives.split()
    assert field(space, "one", "Requires.private") == "both"
    assert field(space, "two", "Requires.private") == "other >= 1.0, both"
    assert field(space, "both", "Requires.private") == "other >= 1.0"
    assert field(space, "both", "Libs.private") == natives
    assert field(space, "both", "Libs") == "-L${libdir} -lboth"
    assert field(space, "both", "Version") == "0.3.0"
    for packages in (("one", "two"), ("two", "one")):
        runs(space, "both", *packages)  # one count: `base` is there once
    runs(space, "one", "one")

    again = space.run("cargo-strip-hook", "--installed", *PLACES, "--destdir", "stage")
    assert again.stderr.count("       Fresh ") == 3
    assert installed(space) == after
    (space.root / "stage/usr/lib/pkgconfig/both.pc").unlink()
    space.run("cargo-strip-hook", "--installed", *PLACES, "--destdir", "stage")
    assert installed(space) == after


def test_cinstall_is_wrapped_and_what_it_does_not_tell_is_an_error(space: Space) -> None:
    words = ("cinstall", "--library-type", "staticlib", *PLACES, "--destdir", "stage")
    before = installed(space)
    space.run("cargo-strip-hook", *words)
    after = installed(space)
    assert after.keys() == SET
    os.utime(space.root / "one/src/lib.rs")
    failed = space.run("cargo-strip-hook", *words, code=1)
    assert "two.pc names no libraries under `Libs.private`" in failed.stderr
    assert "`cargo clean -p one -p two`" in failed.stderr
    assert installed(space)["libone.a"] == before["libone.a"]
    triple = space.library("target/*/release").parent.name
    space.run("cargo", "clean", "--release", "--target", triple, "-p", "one", "-p", "two")
    space.run("cargo-strip-hook", *words)
    assert installed(space) == after
    runs(space, "both", "one", "two")


def test_a_build_is_shared_with_an_option(space: Space) -> None:
    (space.root / "Cargo.toml").write_text(WORKSPACE.partition("[workspace.metadata")[0])
    folder = space.library("target/*/release")
    asked = ("--workspace", "--release", "--share", "std")
    would = space.run("cargo-strip-hook", *asked, "--dry-run")
    assert "Would share libone.a" in would.stderr
    assert not (folder / "libstd.a").exists()
    space.run("cargo-strip-hook", *asked, "--link-check")
    assert {p.name for p in folder.glob("*.pc")} == {
        f"{name}{ending}.pc" for name in ("one", "two", "std") for ending in ("", "-uninstalled")
    }
    runs(space, "both", "one", "two", folder=folder)
    again = space.run("cargo-strip-hook", *asked)
    assert again.stderr.count("       Fresh ") == 3


def test_what_is_refused(
    space: Space, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(space.root)
    asked = ("--installed", *PLACES, "--destdir", "stage")
    before = installed(space)

    def refused(said: str, *more: str, code: int = 2, words: tuple[str, ...] = asked) -> str:
        assert main.main([*words, *more]) == code
        err = capsys.readouterr().err
        assert said in err, err
        assert installed(space) == before
        return err

    one = tuple(w for w in asked if w != "--workspace")
    assert "--workspace" in refused("package `one` has nothing to share", "-p", "one", words=one)
    refused("is no name of a library", "--share", "libx.a")
    refused("package `one` makes", "--share", "one")
    refused("`engine` is not for libraries that share code", "--engine", "system")
    manifest = space.root / "two/Cargo.toml"
    plain = manifest.read_text()
    manifest.write_text(plain + '[package.metadata.strip-hook]\nstrip = "none"\n')
    refused("package `one` asks for strip `symbols`, `two` for `none`")
    # what a package says is of its own library, and has to say something of it
    manifest.write_text(plain + '[package.metadata.strip-hook]\nexport = "nothing_*"\n')
    refused("nothing_*", code=1)
    manifest.write_text(plain)
    assert main.main(["strip", "stage/usr/lib/libone.a", "--export", "one_*"]) == 0
    before = installed(space)
    said = refused("libone.a: this library was stripped before", code=1)
    assert "build package `one` again: `cargo clean -p one`" in said


def test_packages_that_are_left_out_are_stripped_alone(space: Space) -> None:
    manifest = space.root / "two/Cargo.toml"
    manifest.write_text(manifest.read_text() + "[package.metadata.strip-hook]\nshare = false\n")
    root = space.root / "Cargo.toml"
    root.write_text(root.read_text().replace('share = "both"\n', ""))
    space.run("cargo-strip-hook", "--installed", *PLACES, "--destdir", "stage")
    assert installed(space).keys() == SET - {"libboth.a", "pkgconfig/both.pc"}
    assert field(space, "two", "Requires.private") == "other >= 1.0"
    runs(space, "one", "one")


def test_the_hook_leaves_sets_alone(space: Space) -> None:
    space = replace(space, target=space.root.parent / "hooked")
    said = space.run("cargo-strip-hook", "setup").stderr
    assert "one, two: of the set `both`, which the hook leaves to `cargo strip-hook`" in said
    build = ("cargo", "rustc", "--release", "--crate-type", "staticlib", "-p", "one")
    space.run(*build)
    library = space.root.parent / "hooked/release/libone.a"
    assert is_original(library)
    root = space.root / "Cargo.toml"
    root.write_text(root.read_text().replace('share = "both"', "share = false"))
    space.run(*build)  # the manifest is one of the build's inputs
    assert not is_original(library)


def test_a_run_that_is_killed_leaves_libraries_that_link(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(space.root)
    words = ["--installed", *PLACES, "--destdir", "stage"]
    stage = space.root / "stage/usr/lib"
    before = installed(space)
    assert main.main(words) == 0
    wanted = installed(space)
    step = 0
    while True:
        for name in SET:
            (stage / name).unlink()
            if name in before or step % 2:  # every other time the common library is there already
                (stage / name).write_bytes(before.get(name, wanted[name]))
        if not killed_at(step, lambda: main.main(words)):
            break
        for name in ("one", "two"):
            runs(space, name, name)
        step += 1
        assert main.main(words) == 0
        assert installed(space) == wanted
    assert step == 6  # the common library and its file, two files, two libraries
