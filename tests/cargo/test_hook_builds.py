"""The hook under the many ways in which cargo builds: where files lie, what they are, and when."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cargo import workspaces
from tests.cargo.hooked import (
    RECORD,
    Space,
    changed,
    is_original,
    make_space,
    shown,
    write_tool,
    write_tools,
)
from tests.demo import ROOT
from tests.tools import need

UNSTABLE = {"RUSTC_BOOTSTRAP": "1"}
BUILD = ("cargo", "build", "--release")
ONE = {"little_one"}
HOOK = "cargo-strip-hook-rustc"


def setup(space: Space) -> None:
    space.run("cargo-strip-hook", "setup")


def settings(space: Space, text: str) -> None:
    """Put a table of our own into Cargo.toml, in place of the one that is there."""
    manifest = space.root / "Cargo.toml"
    before = manifest.read_text().partition("[package.metadata.strip-hook]")[0]
    manifest.write_text(f"{before}[package.metadata.strip-hook]\n{text}\n")


def test_a_copy_in_another_folder_is_the_stripped_one(space: Space) -> None:
    setup(space)
    space.run(*BUILD, "--artifact-dir", "out", "-Zunstable-options", **UNSTABLE)
    assert shown(space.root / "out" / "liblittle.a") == ONE


@pytest.mark.parametrize("new", [False, True], ids=["old-layout", "new-layout"])
def test_intermediate_files_lie_elsewhere(space: Space, new: bool) -> None:
    """The profile is told in both layouts, and what was built before is built again."""
    more = {"CARGO_BUILD_BUILD_DIR": os.fspath(space.root / "between"), **UNSTABLE}
    flags = ("-Zbuild-dir-new-layout",) if new else ()
    space.run(*BUILD, *flags, **more)
    assert is_original(space.root / "target/release/liblittle.a")
    space.run("cargo-strip-hook", "setup", **more)
    space.run(*BUILD, *flags, **more)
    space.run("cargo", "build", *flags, **more)
    assert shown(space.root / "target/release/liblittle.a") == ONE
    assert is_original(space.root / "target/debug/liblittle.a")
    assert not list((space.root / "target").rglob("*.d.*"))
    assert list((space.root / "between").rglob("out/liblittle.a")) if new else True


def test_an_incremental_build_has_the_same_symbols(space: Space) -> None:
    setup(space)
    manifest = space.root / "Cargo.toml"
    text = manifest.read_text()
    text = text.replace('"staticlib", "cdylib"', '"staticlib"')
    manifest.write_text(text.replace("generation = false", "enabled = false"))
    source = space.root / "src" / "lib.rs"
    both = {"little_one", "little_unlisted"}
    for more in ("", '#[no_mangle]\npub extern "C" fn little_more() -> i32 { 4 }\n'):
        source.write_text(source.read_text() + more)
        space.run(*BUILD, CARGO_INCREMENTAL="1")
        library = space.root / "target/release/liblittle.a"
        assert not is_original(library)
        assert shown(library) == both | ({"little_more"} if more else set())


def test_a_member_that_another_one_links_as_an_rlib(tmp_path: Path) -> None:
    """The rlib that the same compilation makes stays as it is, and is linked and run."""
    space = make_space(tmp_path)
    shutil.rmtree(space.root)
    workspaces.write(
        space.root / "Cargo.toml", '[workspace]\nresolver = "2"\nmembers = ["base", "user"]\n'
    )
    workspaces.package(space.root / "base", "base", '[lib]\ncrate-type = ["rlib", "staticlib"]\n')
    workspaces.write(
        space.root / "base/src/lib.rs",
        '#[no_mangle]\npub extern "C" fn base_one() -> i32 { plain().len() as i32 }\n'
        'pub fn plain() -> String { "x".repeat(std::hint::black_box(3)) }\n',
    )
    workspaces.package(
        space.root / "user",
        "user",
        '[lib]\ncrate-type = ["staticlib"]\n[[bin]]\nname = "tell"\npath = "src/main.rs"\n'
        '[dependencies]\nbase = { path = "../base" }\n',
        files={"src/main.rs": 'fn main() { println!("{} {}", base::plain(), base::base_one()) }\n'},
    )
    workspaces.write(
        space.root / "user/src/lib.rs",
        '#[no_mangle]\npub extern "C" fn user_one() -> i32 { base::base_one() + 1 }\n',
    )
    setup(space)
    assert space.run(*BUILD).stdout == ""
    release = space.root / "target/release"
    assert shown(release / "libbase.a") == {"base_one"}
    assert shown(release / "libuser.a") == {"base_one", "user_one"}  # as its cdylib would
    assert is_original(release / "libbase.rlib")
    assert space.run(release / "tell").stdout == "xxx 3\n"


def test_every_file_that_decides_has_cargo_build_again(tmp_path: Path) -> None:
    space = make_space(tmp_path / "a folder")
    write = workspaces.write
    write(
        space.root / "api/all of it.h",
        '#include "part.h"\n#ifdef __cplusplus\n#include "c++.h"\n#endif\n',
    )
    write(space.root / "api/part.h", "int little_one(void);\n")
    write(space.root / "api/c++.h", "\n")
    write(space.root / "names.txt", "little_one\n")
    write(space.root / "cbindgen.toml", '[defines]\n"unix" = "ON_UNIX"\n')
    setup(space)
    library = space.root / "target/release/liblittle.a"

    def built(again: bool = True) -> set[str]:
        said = space.run(*BUILD).stderr
        assert ("Compiling" in said) == again, said
        return shown(library)

    both = {"little_one", "little_unlisted"}
    settings(space, 'header = ["api/all of it.h"]')
    assert built() == ONE
    assert built(again=False) == ONE
    later(write(space.root / "api/c++.h", "// nothing\n"))
    assert built() == ONE
    more = "int little_one(void);\n#ifdef ON_UNIX\nint little_unlisted(void);\n#endif\n"
    later(write(space.root / "api/part.h", more))
    assert built() == both
    later(write(space.root / "cbindgen.toml", "\n"))
    assert built() == ONE
    settings(space, 'exports-file = "names.txt"')
    assert built() == ONE
    later(write(space.root / "names.txt", "little_*\n"))
    assert built() == both
    assert built(again=False) == both
    # refused, and right again when the file is
    later(write(space.root / "names.txt", "nothing_*\n"))
    space.run(*BUILD, code=101)
    settings(space, 'exports-file = "names.txt"\non-error = "warn"')
    assert "nothing_*" in space.run(*BUILD).stderr
    later(write(space.root / "names.txt", "little_one\n"))
    assert built() == ONE


def later(path: Path) -> None:
    """Files that were written within cargo's second are told apart by their time."""
    time.sleep(0.02)
    os.utime(path)


@pytest.mark.parametrize("which", ["cargo", "cargo-c"])
def test_a_touched_source_is_stripped_once_and_nothing_is_said(space: Space, which: str) -> None:
    if which == "cargo":
        build, quiet = BUILD, True
    else:
        need("cargo-cinstall")
        build = ("cargo-cinstall", "cinstall", "--release", "--prefix=/usr", "--destdir=stage")
        quiet = False  # it says what it installs
    changed(space, RECORD)
    settings(space, 'export = ["little_*"]')
    setup(space)
    says = space.root.parent / "says"
    for number in (1, 2):
        os.utime(space.root / "src/lib.rs")
        done = space.run(*build, "-j2", SAYS=os.fspath(says), CARGO_TERM_QUIET="true")
        assert "warning" not in done.stderr
        if quiet:
            assert (done.stdout, done.stderr) == ("", "")
        stripped = [json.loads(line)["library"] for line in says.read_text().splitlines()]
        assert stripped == ["liblittle.a"] * number
        done = space.run(*build, SAYS=os.fspath(says))
        assert "Compiling" not in done.stderr
    assert len(says.read_text().splitlines()) == 2


def test_a_second_process_needs_a_token(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    changed(space, RECORD)
    setup(space)
    for jobs, processes in (("1", 1), ("2", 2)):
        says = tmp_path / f"says-{jobs}"
        os.utime(space.root / "src/lib.rs")
        done = space.run(*BUILD, "-j", jobs, SAYS=os.fspath(says))
        assert json.loads(says.read_text())["processes"] == processes
        assert "jobserver" not in done.stderr


def test_arguments_that_are_too_long_come_in_a_file(space: Space) -> None:
    """Then cargo calls `rustc @FILE`; the system takes no more than 128 KiB for an argument."""
    changed(space, "open(os.environ['SAYS'], 'w').write(sys.argv[-1])")
    setup(space)
    says = space.root.parent / "says"
    words = ",".join(f"'--cfg=word_{i}_{'x' * 2000}'" for i in range(1500))
    workspaces.write(space.root / "long.toml", f"[build]\nrustflags = [{words}]\n")
    space.run(*BUILD, "--config", "long.toml", SAYS=os.fspath(says))
    assert says.read_text().startswith("@")
    assert shown(space.root / "target/release/liblittle.a") == ONE


def test_what_cargo_is_told_of_the_profile_on_its_command_line(space: Space) -> None:
    setup(space)
    library = space.root / "target/release/liblittle.a"
    listing = need("readelf")
    for said, expected in (
        ("debug=2", {".debug_info", ".symtab"}),
        ('strip="symbols"', {".symtab"}),
        ("debug=0", {".symtab"}),
    ):
        space.run(*BUILD, "--config", f"profile.release.{said}")
        sections = space.run(listing, "-SW", library).stdout
        assert (".debug_info" in sections) == (".debug_info" in expected), said


def test_a_source_header_by_the_name_before_cargo_c_gives_another(space: Space) -> None:
    need("cargo-cbuild")
    manifest = space.root / "Cargo.toml"
    text = manifest.read_text()
    manifest.write_text(
        text[: text.index("[package.metadata.capi.install")]
        + '[package.metadata.capi.library]\nname = "tiny"\n'
    )
    workspaces.write(space.root / "assets/little.h", "int little_one(void);\n")
    setup(space)
    space.run("cargo-cbuild", "cbuild", "--release")
    assert shown(space.library("target/*/release/libtiny.a")) == ONE


def test_a_crate_with_the_name_of_one_of_stds(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    shutil.rmtree(space.root)
    workspaces.package(space.root, "object", '[lib]\ncrate-type = ["staticlib"]\n', workspace=True)
    setup(space)
    space.run(*BUILD)
    assert shown(space.root / "target/release/libobject.a") == {"object_one"}


def test_three_packages_of_cargo_c(tmp_path: Path) -> None:
    need("cargo-cbuild")
    space = make_space(tmp_path)
    shutil.rmtree(space.root)
    names = ("one", "two", "three")
    workspaces.write(
        space.root / "Cargo.toml",
        '[workspace]\nresolver = "2"\nmembers = ["one", "two", "three"]\n' + workspaces.ABORT,
    )
    lib = "[lib]\ntest = false\ndoctest = false\n[package.metadata.capi.header]\nenabled = false\n"
    for name in names:
        workspaces.package(space.root / name, name, lib)
    setup(space)
    install = ("cargo-cinstall", "cinstall", "--workspace", "--prefix=/usr", "--destdir=stage")
    for _ in range(2):
        again = space.run(*install, "--libdir=lib")
        for name in names:
            assert shown(space.root / f"stage/usr/lib/lib{name}.a") == {f"{name}_one"}
    assert "Compiling" not in again.stderr
    space.run("cargo-cbuild", "cbuild", "--workspace")  # dev
    for name in names:
        assert is_original(space.library(f"target/*/debug/lib{name}.a"))


@pytest.mark.parametrize("said", ["file", "variable"])
def test_other_wrappers_are_refused_and_told_of(space: Space, said: str) -> None:
    """sccache refuses the hook, or goes around it; another workspace wrapper takes its place."""
    write_sccache = workspaces.write(space.tools / "sccache", '#!/bin/sh\nexec "$@"\n')
    write_sccache.chmod(0o755)
    setup(space)
    more = {"RUSTC_WRAPPER": "sccache"} if said == "variable" else {}
    if said == "file":
        with (space.root / ".cargo/config.toml").open("a") as file:
            file.write('rustc-wrapper = "sccache"\n')
    told = space.run("cargo-strip-hook", "setup", "--check", code=1, **more).stderr
    assert "sccache" in told
    refused = space.run("cargo-strip-hook", "setup", code=2, **more).stderr
    assert "sccache" in refused
    assert "cargo strip-hook cinstall" in refused


def test_beside_a_wrapper_that_calls_what_it_is_given(space: Space) -> None:
    """cargo calls `RUSTC_WRAPPER hook rustc ARGS…`."""
    other = workspaces.write(space.tools / "other", '#!/bin/sh\nexec "$@"\n')
    other.chmod(0o755)
    setup(space)
    space.run(*BUILD, RUSTC_WRAPPER=os.fspath(other))
    assert shown(space.root / "target/release/liblittle.a") == ONE


def test_a_hook_that_is_not_on_path_is_told_of(space: Space) -> None:
    setup(space)
    (space.tools / "cargo-strip-hook-rustc").unlink()
    folders = [f for f in os.environ["PATH"].split(os.pathsep) if not (Path(f) / HOOK).exists()]
    path = os.pathsep.join([os.fspath(space.tools), *folders])
    told = space.run("cargo-strip-hook", "setup", "--check", code=1, PATH=path).stderr
    assert "is not on PATH" in told


def test_an_empty_variable_turns_it_off(space: Space) -> None:
    setup(space)
    space.run(*BUILD, RUSTC_WORKSPACE_WRAPPER="")
    assert is_original(space.root / "target/release/liblittle.a")


def test_what_an_orphan_finds_is_not_its_own(space: Space) -> None:
    """cargo is killed while the hook waits; another build, which strips nothing, comes first."""
    changed(
        space,
        """
        from cargo_strip_hook.core import lifetime
        lifetime.end_with = lambda parent: False  # as where the system cannot do that
        def strip_library(*a, **k):
            with open(os.environ["SAYS"], "w") as file:
                file.write(str(os.getpid()))
            while not os.path.exists(os.environ["SAYS"] + ".go"):
                time.sleep(0.02)
            return real(*a, **k)
        pipeline.strip_library = strip_library
        """,
    )
    setup(space)
    says = space.root.parent / "says"
    process = subprocess.Popen(
        BUILD,
        cwd=space.root,
        env={**space.environment(), "SAYS": os.fspath(says)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not says.exists() or not says.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    orphan = int(says.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    write_tool(space.tools)
    space.run(*BUILD, STRIP_HOOK="0")
    library = space.root / "target/release/liblittle.a"
    before = library.stat()
    workspaces.write(says.with_name("says.go"), "")
    while Path(f"/proc/{orphan}").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert library.stat() == before
    assert is_original(library)


def test_a_debug_twin_that_the_package_asks_for(space: Space) -> None:
    settings(space, 'debug-twin = "twin.a"\nexport = ["little_one"]')
    twin = space.root / "twin.a"
    # outside of the hook, too; a library that was stripped before has no other twin
    space.run(*BUILD)
    for _ in range(2):
        space.run("cargo-strip-hook", "--release")
        assert not is_original(twin)
    before = twin.stat()
    settings(space, 'debug-twin = "twin.a"\nexport = ["little_*"]')
    space.run("cargo-strip-hook", "--release", code=0)
    assert twin.stat() == before
    twin.unlink()
    setup(space)
    space.run(*BUILD)
    assert shown(twin) >= ONE
    manifest = space.root / "Cargo.toml"
    text = manifest.read_text().replace(
        "[package.metadata.strip-hook]", "[workspace.metadata.strip-hook]"
    )
    manifest.write_text(text)
    assert "names one file for all packages" in space.run(*BUILD, code=101).stderr


def test_the_example_and_the_other_commands(tmp_path: Path) -> None:
    """With std: installed, linked by what pkg-config says, run; and `ctest`, `test`, `clippy`."""
    need("cargo-cbuild")
    root = tmp_path / "demo"
    shutil.copytree(ROOT / "examples" / "demo", root)
    space = Space(root, write_tools(tmp_path / "tools"))
    setup(space)
    install = ("cargo-cinstall", "cinstall", "--release", "--prefix", "/usr", "--libdir", "lib")
    install = (*install, "--destdir", "stage")
    space.run(*install)
    library = root / "stage/usr/lib/libdemo.a"
    assert shown(library) == set(re.findall(r"\bdemo_\w+(?=\()", (root / "demo.h").read_text()))
    assert library.stat().st_size < 1_000_000
    found = {"PKG_CONFIG_PATH": "stage/usr/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": "stage"}
    argv = (need("pkg-config"), "--static", "--cflags", "--libs", "demo")
    flags = [f for f in space.run(*argv, **found).stdout.split() if f != "-ldemo"]
    main = ROOT / "examples" / "main.c"
    space.run(need("cc"), main, library, *flags, "-o", "main")
    assert "9 words, counted by two threads" in space.run(root / "main").stdout
    before = library.stat().st_size
    assert "Compiling" not in space.run(*install).stderr
    assert library.stat().st_size == before
    # commands that make no library to ship, and one that runs programs with it
    space.run("cargo-ctest", "ctest", "--release")
    for words in (("test", "--release"), ("check",), ("doc", "--no-deps")):
        assert "warning" not in space.run("cargo", *words).stderr
    if shutil.which("cargo-clippy"):
        space.run("cargo", "clippy")
    assert shown(space.library("target/*/release/libdemo.a")) == shown(library)
