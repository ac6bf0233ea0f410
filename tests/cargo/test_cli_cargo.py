"""The command around cargo-c, from sources to files that link: bare, `cbuild`, `cinstall`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cargo_strip_hook.present import text
from tests.cargo import workspaces
from tests.tools import need

HERE = Path(__file__).resolve().parents[2]
MANIFEST = """\
[package]
name = "little"
version = "0.3.0"
edition = "2021"
[features]
capi = []
[package.metadata.capi.header]
generation = false
[package.metadata.capi.install.include]
asset = [{ from = "little.h" }]
[workspace]
"""
HEADER = "int little_twice(int);\nint little_guarded(int);\n"
SOURCE = """\
#[no_mangle]
pub extern "C" fn little_twice(n: i32) -> i32 { n * 2 }
#[no_mangle]
pub extern "C" fn little_guarded(n: i32) -> i32 {
    std::panic::catch_unwind(|| if n < 0 { panic!("negative") } else { n }).unwrap_or(-7)
}
#[no_mangle]
pub extern "C" fn little_unlisted() -> i32 { 3 }
"""
PROGRAM = """\
#include <little.h>
int main(void) { return little_twice(4) == 8 && little_guarded(-1) == -7 ? 0 : 1; }
"""


@dataclass(frozen=True)
class Crate:
    """A crate's folder and a `cargo-strip-hook` on a PATH of its own, as an installation has it."""

    root: Path
    tools: Path

    @property
    def built(self) -> Path:
        """What `cargo cbuild` makes."""
        found = list(self.root.glob("target/*/debug/liblittle.a"))
        assert len(found) == 1, found
        return found[0]

    def run(self, *argv: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program with the tool on PATH."""
        env = {**os.environ, "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}"}
        env |= {"PYTHONPATH": os.fspath(HERE), "CARGO_TERM_COLOR": "never"}
        done = subprocess.run(
            [os.fspath(a) for a in argv],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def make_crate(folder: Path) -> Crate:
    need("cargo")
    need("cargo-cbuild")
    root = folder / "little"
    workspaces.write(root / "Cargo.toml", MANIFEST)
    workspaces.write(root / "src/lib.rs", SOURCE)
    workspaces.write(root / "little.h", HEADER)
    workspaces.write(root / "main.c", PROGRAM)
    script = workspaces.write(
        folder / "bin/cargo-strip-hook",
        f'#!/bin/sh\nexec "{sys.executable}" -m cargo_strip_hook "$@"\n',
    )
    script.chmod(0o755)
    return Crate(root, script.parent)


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crate]:
    """Built by cargo-c, and copied by the tests."""
    crate = make_crate(tmp_path_factory.mktemp("once"))
    crate.run("cargo-cbuild", "cbuild")
    yield crate


@pytest.fixture
def crate(built_once: Crate, tmp_path: Path) -> Crate:
    # mtimes are kept, and hard links are made again
    shutil.copytree(built_once.root.parent, tmp_path / "copy", symlinks=True)
    copy = Crate(tmp_path / "copy" / "little", tmp_path / "copy" / "bin")
    deps = copy.built.parent / "deps" / "liblittle.a"
    if deps.exists():
        built = copy.built
        built.unlink()
        os.link(deps, built)
    return copy


def global_symbols(library: Path) -> set[str]:
    """As LLVM sees them; GNU nm trips over the bitcode in std."""
    nm = need("llvm-nm-22", "llvm-nm")
    done = subprocess.run(
        [nm, "--defined-only", "--extern-only", "--format=just-symbols", library],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line for line in done.stdout.split() if not line.endswith(":")}


API = {"little_twice", "little_guarded"}


def test_bare_strips_what_cbuild_made(crate: Crate) -> None:
    assert "little_unlisted" in global_symbols(crate.built)
    deps = crate.built.parent / "deps" / "liblittle.a"
    original = deps.read_bytes() if deps.exists() else None
    size = crate.built.stat().st_size
    done = crate.run("cargo-strip-hook")
    assert done.stdout == ""
    assert "   Exporting 2 symbols from little.h" in done.stderr
    assert "   Stripping liblittle.a (" in done.stderr
    assert global_symbols(crate.built) == API
    assert crate.built.stat().st_size < size / 2
    if original is not None:
        # cargo calls it fresh, so that it must stay what cargo made
        assert deps.read_bytes() == original
    stripped = crate.built.read_bytes()
    again = crate.run("cargo-strip-hook")
    assert "       Fresh liblittle.a\n" in again.stderr
    assert crate.built.read_bytes() == stripped


def test_as_a_subcommand_of_cargo(crate: Crate) -> None:
    done = crate.run("cargo", "strip-hook", "--message-format", "json", "-q")
    assert done.stderr == ""
    first, last = map(json.loads, done.stdout.splitlines())
    assert first["reason"] == "stripped"
    assert set(first["exports"]) == API
    assert Path(first["output"]) == crate.built
    assert first["after"] == crate.built.stat().st_size
    assert last == {"reason": "finished", "success": True}


def test_dry_run_changes_nothing(crate: Crate) -> None:
    before = crate.built.read_bytes()
    done = crate.run("cargo-strip-hook", "--dry-run")
    assert " Would strip liblittle.a (" in done.stderr
    assert crate.built.read_bytes() == before
    wrapped = crate.run("cargo-strip-hook", "--dry-run", "cinstall", "--prefix", "/opt/x y")
    assert " Would run cargo-cinstall cinstall --prefix '/opt/x y'" in wrapped.stderr


def test_settings_and_options(crate: Crate) -> None:
    manifest = crate.root / "Cargo.toml"
    manifest.write_text(
        manifest.read_text() + '[package.metadata.strip-hook]\nexport = ["little_un*"]\n'
    )
    listed = crate.run("cargo-strip-hook", "exports")
    assert listed.stdout == "little_unlisted\tpattern little_un*\n"
    # an option goes over the setting
    listed = crate.run("cargo-strip-hook", "exports", "--export", "little_tw*")
    assert listed.stdout == "little_twice\tpattern little_tw*\n"
    manifest.write_text(manifest.read_text().replace("export =", "exprot ="))
    wrong = crate.run("cargo-strip-hook", "exports", code=2)
    assert "did you mean `export`?" in wrong.stderr


def test_a_budget(crate: Crate) -> None:
    """A library that is too large fails the run, which says what grew most."""
    manifest = crate.root / "Cargo.toml"
    plain = manifest.read_text() + "[package.metadata.strip-hook]\n"
    manifest.write_text(plain + 'max-size = "1 kB"\n')
    failed = crate.run("cargo-strip-hook", "--message-format", "json", code=1)
    size = crate.built.stat().st_size
    assert "more than the 1 kB of `max-size`" in failed.stderr
    assert "largest: " in failed.stderr
    messages = [json.loads(line) for line in failed.stdout.splitlines()]
    assert [m["reason"] for m in messages] == ["stripped", "error", "finished"]
    assert (messages[0]["after"], messages[1]["kind"]) == (size, "BudgetError")
    manifest.write_text(plain + f"max-size = {size}\n")
    crate.run("cargo-strip-hook")

    # against what a report said: nothing grew, then all of a crate, and the bytes of that
    report = crate.run("cargo-strip-hook", "report", crate.built, "--json").stdout
    baseline = crate.root / "sizes.json"
    baseline.write_text(report)
    growth = plain + 'max-growth = "1 %"\nbaseline = "sizes.json"\n'
    manifest.write_text(growth)
    crate.run("cargo-strip-hook")
    message = json.loads(report.splitlines()[0])
    [core] = [c for c in message["crates"] if c["name"] == "core"]
    message["crates"].remove(core)
    message["size"] -= core["size"]
    message["file"]["code"] -= core["size"]
    baseline.write_text(json.dumps(message) + "\n")
    failed = crate.run("cargo-strip-hook", code=1)
    assert "`max-growth` is 1 %" in failed.stderr
    assert f"grew most, crates: core +{text.size(core['size'])} (new)\n" in failed.stderr
    assert f"of the file: code +{text.size(core['size'])}" in failed.stderr
    for contents, words in (
        ("[]", "no report in JSON"),
        ('{"reason": "finished"}', "says nothing of liblittle.a"),
    ):
        baseline.write_text(contents)
        assert words in crate.run("cargo-strip-hook", code=2).stderr
    baseline.unlink()
    assert "there is no baseline" in crate.run("cargo-strip-hook", code=2).stderr
    manifest.write_text(plain + 'max-growth = "1 %"\n')
    assert "there is none" in crate.run("cargo-strip-hook", code=2).stderr


def test_cbuild_is_wrapped(crate: Crate) -> None:
    # what the bare hook did is undone by cargo-c, and done again by the wrapper
    crate.run("cargo-strip-hook")
    done = crate.run("cargo", "strip-hook", "cbuild")
    assert "Stripping liblittle.a (" in done.stderr
    assert global_symbols(crate.built) == API


def test_cinstall_is_wrapped_and_its_pc_links(crate: Crate, tmp_path: Path) -> None:
    cc, pkg_config = need("cc"), need("pkg-config", "pkgconf")
    prefix = tmp_path / "prefix"
    places = ["--prefix", prefix, "--libdir", prefix / "lib", "--includedir", prefix / "include"]
    crate.run("cargo", "strip-hook", "cinstall", *places, "--library-type", "staticlib")
    library = prefix / "lib" / "liblittle.a"
    assert global_symbols(library) == API
    env = {**os.environ, "PKG_CONFIG_PATH": os.fspath(prefix / "lib" / "pkgconfig")}
    flags = subprocess.run(
        [pkg_config, "--static", "--cflags", "--libs", "little"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    program = tmp_path / "program"
    subprocess.run([cc, crate.root / "main.c", "-o", program, *flags], check=True)
    # statically: there is no shared library to load
    assert subprocess.run([program], check=False, stderr=subprocess.DEVNULL).returncode == 0
    again = crate.run("cargo-strip-hook", "--installed", *places)
    assert "       Fresh liblittle.a" in again.stderr


def test_an_alias_named_like_cargo_c_does_not_call_for_ever(crate: Crate) -> None:
    workspaces.write(crate.root / ".cargo/config.toml", '[alias]\ncbuild = "strip-hook cbuild"\n')
    done = crate.run("cargo", "cbuild")
    assert done.stderr.count("Stripping liblittle.a (") <= 1
    crate.run("cargo", "strip-hook", "cbuild")
    assert global_symbols(crate.built) == API


def test_cargo_c_fails(crate: Crate) -> None:
    before = crate.built.read_bytes()
    (crate.root / "src/lib.rs").write_text("this is no Rust")
    done = crate.run("cargo-strip-hook", "cbuild", code=1)
    assert "error: `cargo-cbuild cbuild` failed, nothing was stripped\n" in done.stderr
    assert "Stripping" not in done.stderr
    assert crate.built.read_bytes() == before


def test_cargo_c_only_prints(crate: Crate) -> None:
    done = crate.run("cargo-strip-hook", "cbuild", "--help")
    assert "Usage: cargo-cbuild" in done.stdout
    assert "Stripping" not in done.stderr


def test_nothing_built(crate: Crate) -> None:
    shutil.rmtree(crate.root / "target")
    done = crate.run("cargo-strip-hook", code=1)
    assert "error: no static library of package `little`" in done.stderr
    assert "looked at" in done.stderr
    assert "cargo cbuild" in done.stderr


def test_several_libraries_in_parallel(crate: Crate) -> None:
    folder = crate.root / "several"
    folder.mkdir()
    names = []
    for number in range(3):
        names.append(folder / f"lib{number}.a")
        shutil.copyfile(crate.built, names[-1])
    bad = folder / "libbad.a"
    bad.write_bytes(b"!<arch>\nnothing that is a member")
    done = crate.run(
        "cargo-strip-hook",
        "strip",
        *names[:2],
        bad,
        names[2],
        "-j2",
        "--header",
        "little.h",
        code=1,
    )
    # not what shows the progress of a run that takes long
    assert [line.split()[1] for line in done.stderr.splitlines() if " → " in line] == [
        "lib0.a",
        "lib1.a",
        "lib2.a",
    ]
    assert "error: " in done.stderr
    assert all(global_symbols(name) == API for name in names)


# the signal comes when the result is written and nothing is replaced yet
INTERRUPTED = """
import os, signal
import cargo_strip_hook.verify
from cargo_strip_hook.__main__ import run

def interrupted(original, candidate, *_):
    assert candidate.exists()
    os.kill(os.getpid(), signal.SIGINT)

cargo_strip_hook.verify.verify = interrupted
# a shell ignores the signal for what it runs in the background
signal.signal(signal.SIGINT, signal.default_int_handler)
run()
"""


def test_an_interrupt_leaves_the_library_and_no_litter(crate: Crate) -> None:
    before = crate.built.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "strip", str(crate.built), "--header", "little.h"],
        cwd=crate.root,
        env={**os.environ, "PYTHONPATH": os.fspath(HERE), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in done.stderr
    assert crate.built.read_bytes() == before
    assert sorted(crate.built.parent.glob(".*strip-hook*")) == []
