"""The hook that cargo runs by itself: `setup`, and what builds make from then on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cargo import workspaces
from tests.cargo.hooked import Space, changed, is_original, make_space, shown, write_tool
from tests.tools import need


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "built-before"])
def test_one_line_makes_cargo_c_install_a_stripped_library(space: Space, before: bool) -> None:
    need("cargo-cbuild")
    install = ("cargo-cinstall", "cinstall", "--release", "--prefix", "/usr", "--libdir", "lib")
    install = (*install, "--destdir", "stage")
    if before:
        space.run("cargo-cbuild", "cbuild", "--release")
    space.run("cargo-strip-hook", "strip-hook", "setup")
    space.run(*install)
    installed = space.root / "stage" / "usr" / "lib" / "liblittle.a"
    assert shown(installed) == {"little_one"}  # the header is a source file
    assert not is_original(installed)
    built = space.library("target/*/release/liblittle.a")
    assert built.samefile(space.library("target/*/release/deps/liblittle.a"))
    assert (space.root / "stage/usr/lib/pkgconfig/little.pc").exists()
    cc = need("cc")
    space.run(cc, "main.c", "-Istage/usr/include", installed, "-o", "main")
    space.run(space.root / "main")

    time_before = installed.stat().st_mtime_ns, built.stat().st_mtime_ns
    again = space.run(*install)
    assert "Compiling" not in again.stderr
    assert built.stat().st_mtime_ns == time_before[1]

    os.utime(space.root / "src" / "lib.rs")
    assert "Compiling" in space.run(*install).stderr
    assert shown(installed) == {"little_one"}

    manifest = space.root / "Cargo.toml"
    text = manifest.read_text()
    manifest.write_text(text + '[package.metadata.strip-hook]\nexport = ["little_*"]\n')
    space.run(*install)
    assert shown(installed) == {"little_one", "little_unlisted"}

    space.run(*install, STRIP_HOOK="0")
    assert is_original(installed)
    space.run(*install)
    assert not is_original(installed)

    space.run("cargo-strip-hook", "strip-hook", "setup", "--undo")
    space.run(*install)
    assert is_original(installed)


def test_it_is_what_strip_makes_of_the_same_library(space: Space, tmp_path: Path) -> None:
    space.run("cargo", "rustc", "--release", "--crate-type", "staticlib")
    original = shutil.copy(space.library("target/release/liblittle.a"), tmp_path / "liblittle.a")
    space.run("cargo-strip-hook", "setup")
    space.run("cargo", "rustc", "--release", "--crate-type", "staticlib")
    made = space.library("target/release/liblittle.a")
    space.run("cargo-strip-hook", "strip", original, "--header", "little.h")
    assert made.read_bytes() == Path(original).read_bytes()


def test_dev_is_left_alone_unless_it_is_asked_for(space: Space) -> None:
    space.run("cargo-strip-hook", "setup")
    space.run("cargo", "build")
    library = space.root / "target" / "debug" / "liblittle.a"
    assert is_original(library)
    manifest = space.root / "Cargo.toml"
    manifest.write_text(
        manifest.read_text() + '[package.metadata.strip-hook]\nprofiles = ["dev"]\n'
    )
    space.run("cargo", "build")
    assert not is_original(library)
    space.run("cargo", "build", "--release")
    assert is_original(space.root / "target" / "release" / "liblittle.a")


def test_without_a_header_it_is_what_the_cdylib_exports(tmp_path: Path) -> None:
    """Also where the compilation makes none, and the C API is that of a dependency."""
    space = make_space(tmp_path)
    other = workspaces.package(space.root / "other", "other", capi=False)
    text = (other / "src" / "lib.rs").read_text()
    panic = text[text.index("#[panic_handler]") : text.index("/// Returns")]
    (other / "src" / "lib.rs").write_text(text.replace(panic, ""))
    (space.root / "Cargo.toml").write_text(
        '[package]\nname = "little"\nversion = "1.0.0"\nedition = "2021"\n[lib]\n'
        'crate-type = ["staticlib", "cdylib", "rlib"]\n'
        '[dependencies]\nother = { path = "other" }\n[workspace]\n' + workspaces.ABORT
    )
    source = space.root / "src" / "lib.rs"
    source.write_text(source.read_text() + "pub use other::other_one;\n")
    space.run("cargo-strip-hook", "setup")
    space.run("cargo", "build", "--release")
    library = space.root / "target" / "release" / "liblittle.a"
    nm = space.run(need("nm"), "-D", "--defined-only", "target/release/liblittle.so").stdout
    dynamic = {line.split()[-1] for line in nm.splitlines()}
    assert shown(library) == dynamic == {"little_one", "little_unlisted", "other_one"}
    space.run("cargo", "rustc", "--release", "--crate-type", "staticlib")
    assert not is_original(library)
    assert shown(library) == dynamic
    for lto in ("thin", "fat"):
        space.run(
            *("cargo", "rustc", "--release", "--crate-type", "staticlib"),
            *("--config", f'profile.release.lto="{lto}"'),
        )
        assert shown(library) == dynamic


def test_a_refusal_is_a_diagnostic_and_the_build_fails(space: Space) -> None:
    manifest = space.root / "Cargo.toml"
    text = manifest.read_text()
    manifest.write_text(text + '[package.metadata.strip-hook]\nexport = ["nothing_*"]\n')
    space.run("cargo-strip-hook", "setup")
    failed = space.run("cargo", "build", "--release", code=101)
    assert "error: --export names symbols that the archive does not define" in failed.stderr
    assert "could not compile `little`" in failed.stderr
    assert "process didn't exit successfully" not in failed.stderr
    failed = space.run("cargo", "build", "--release", "--message-format", "json", code=101)
    messages = [json.loads(line) for line in failed.stdout.splitlines()]
    [said] = [m["message"] for m in messages if m["reason"] == "compiler-message"]
    assert said["level"] == "error"
    assert "nothing_*" in said["message"]
    # said again, and then it is mended
    space.run("cargo", "build", "--release", code=101)
    manifest.write_text(
        text + '[package.metadata.strip-hook]\nexport = ["nothing_*"]\non-error = "warn"\n'
    )
    passed = space.run("cargo", "build", "--release")
    assert "warning: --export names symbols" in passed.stderr
    assert is_original(space.root / "target" / "release" / "liblittle.a")
    manifest.write_text(text)
    passed = space.run("cargo", "build", "--release")
    assert "strip" not in passed.stderr.lower()
    assert not is_original(space.root / "target" / "release" / "liblittle.a")


def test_a_budget_and_a_wrong_key_are_diagnostics(space: Space) -> None:
    manifest = space.root / "Cargo.toml"
    text = manifest.read_text()
    space.run("cargo-strip-hook", "setup")
    for table, says in (
        ("max-size = 100", "of `max-size`"),
        ("max-seize = 100", "unknown key `package.metadata.strip-hook.max-seize`"),
    ):
        manifest.write_text(f"{text}[package.metadata.strip-hook]\n{table}\n")
        assert says in space.run("cargo", "build", "--release", code=101).stderr


def test_members_of_a_workspace_side_by_side_and_other_commands(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    root = space.root
    shutil.rmtree(root)
    names = ("one", "two", "three")
    workspaces.write(
        root / "Cargo.toml",
        '[workspace]\nresolver = "2"\nmembers = ["one", "two", "three"]\n' + workspaces.ABORT,
    )
    for name in names:
        workspaces.package(
            root / name, name, '[lib]\ncrate-type = ["staticlib"]\ntest = false\ndoctest = false\n'
        )
    space.run("cargo-strip-hook", "setup")
    space.run("cargo", "build", "--release", "-j", "3")
    for name in names:
        assert shown(root / f"target/release/lib{name}.a") == {f"{name}_one"}
    for words in (("check",), ("doc", "--no-deps"), ("test", "--no-run"), ("metadata",)):
        space.run("cargo", *words, "--offline")
    if shutil.which("cargo-clippy"):
        space.run("cargo", "clippy", "--offline")
    again = space.run("cargo", "build", "--release")
    assert "Compiling" not in again.stderr


@pytest.mark.parametrize("whom", ["group", "cargo"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_an_interrupt_the_next_build_is_right(
    space: Space, whom: str, number: signal.Signals
) -> None:
    """A strip that takes long is in the way; then a build without it."""
    changed(
        space,
        """
        def strip_library(*a, **k):
            open(os.environ["SAYS"], "w").close()
            time.sleep(2)
            return real(*a, **k)
        pipeline.strip_library = strip_library
        """,
    )
    space.run("cargo-strip-hook", "setup")
    says = space.root / "says"
    process = subprocess.Popen(
        ["cargo", "build", "--release"],
        cwd=space.root,
        env={**space.environment(), "SAYS": os.fspath(says)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not says.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    if whom == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    assert process.wait(timeout=60) != 0
    write_tool(space.tools)
    space.run("cargo", "build", "--release")
    library = space.root / "target" / "release" / "liblittle.a"
    assert shown(library) == {"little_one"}
    time.sleep(2.5)  # what the first one left behind, if anything, is through by now
    assert shown(library) == {"little_one"}
    assert {p.suffix for p in (space.root / "target/release/deps").iterdir()} <= {".a", ".so", ".d"}


def test_the_library_is_found_by_other_names(space: Space) -> None:
    """`-C extra-filename`, `--emit link=PATH` and a JSON target are found, too."""
    space.run("cargo-strip-hook", "setup")
    rustc = shutil.which("rustc")
    assert rustc
    call = ("cargo-strip-hook-rustc", rustc, "--crate-type=staticlib", "-Cpanic=abort", "-O")
    package = {"CARGO_MANIFEST_DIR": os.fspath(space.root)}
    for words, name in (
        (("-Cextra-filename=-abc",), "liblib-abc.a"),
        (("--emit", "link=named.a"), "named.a"),
        (("-o", "out.a"), "out.a"),
        (("@args",), "liblib.a"),
    ):
        (space.root / "args").write_text("--edition\n2021\n")
        space.run(*call, "src/lib.rs", *words, **package)
        assert shown(space.root / name) == {"little_one"}, words
    failed = space.run(*call, "src/lib.rs", code=1, CARGO_MANIFEST_DIR="")
    assert "does not say which package" in failed.stderr


def test_check_says_whether_and_by_what(space: Space) -> None:
    said = space.run("cargo-strip-hook", "setup", "--check", code=1).stderr
    assert "Not active" in said
    space.run("cargo-strip-hook", "setup")
    said = space.run("cargo-strip-hook", "setup", "--check").stderr
    assert f"{space.root / '.cargo' / 'config.toml'}, for little" in said
    other = {"RUSTC_WORKSPACE_WRAPPER": "clippy-driver"}
    said = space.run("cargo-strip-hook", "setup", "--check", code=1, **other).stderr
    assert "RUSTC_WORKSPACE_WRAPPER names `clippy-driver`" in said
