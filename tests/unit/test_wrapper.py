"""The hook's parts that need no cargo: arguments of rustc, ``.d`` files, diagnostics, tokens."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import cargo_strip_hook_rustc
from cargo_strip_hook.cargo.metadata import Workspace
from cargo_strip_hook.cargo.setup import turn_off, turn_on, wrappers
from cargo_strip_hook.cargo.wrapper.depinfo import with_inputs
from cargo_strip_hook.cargo.wrapper.diagnostics import tell
from cargo_strip_hook.cargo.wrapper.invocation import Invocation, parse, profile_of
from cargo_strip_hook.cargo.wrapper.jobserver import token
from cargo_strip_hook.cargo.wrapper.package import find_package
from cargo_strip_hook.core.errors import DiscoveryError, UsageError
from tests.cargo import workspaces

# what cargo 1.95 called for a crate that is staticlib and cdylib, under cargo-c
CARGO_C = shlex.split(
    "--crate-name demo --edition=2021 src/lib.rs --error-format=json "
    "--json=diagnostic-rendered-ansi,artifacts,future-incompat --crate-type staticlib "
    "--crate-type cdylib --emit=dep-info,link -C opt-level=3 --cfg 'feature=\"capi\"' "
    "-C metadata=1c1a --out-dir /t/release/deps --target x86_64-unknown-linux-gnu "
    "-C strip=debuginfo -L dependency=/t/release/deps --print native-static-libs"
)
PROBE = shlex.split(
    "- --crate-name ___ --print=file-names --crate-type bin --crate-type staticlib --print=cfg"
)
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cargo-strip-hook-rustc"


def parsed(*args: str) -> Invocation:
    found = parse(args)
    assert found is not None
    return found


def test_the_call_of_cargo_c_is_understood() -> None:
    found = parsed(*CARGO_C)
    assert found.crate_types == ("staticlib", "cdylib")
    assert found.library_paths("libdemo.a") == (Path("/t/release/deps/libdemo.a"),)
    assert found.dep_info == Path("/t/release/deps/demo.d")
    assert found.features == {"capi"}
    assert found.target == "x86_64-unknown-linux-gnu"
    assert found.json
    assert found.ansi


@pytest.mark.parametrize(
    "args",
    [
        PROBE,
        ["-vV"],
        [a for a in CARGO_C if a != "staticlib"],
        [a.replace("dep-info,link", "dep-info,metadata") for a in CARGO_C],
        [*CARGO_C, "--test"],
        ["--crate-type=rlib,cdylib", "src/lib.rs"],
        [],
    ],
    ids=["probe", "version", "cdylib", "check", "test", "list", "nothing"],
)
def test_what_makes_no_static_library_is_not_caught(args: list[str]) -> None:
    assert parse(args) is None


@pytest.mark.parametrize(
    ("args", "place"),
    [
        (["--crate-type", "rlib,staticlib", "a-b.rs"], "./liba_b.a"),
        (["--crate-type=staticlib", "-Cextra-filename=-1", "a.rs"], "./liba-1.a"),
        (
            ["--crate-type=staticlib", "-C", "extra-filename=-1", "-Cextra-filename=-2", "a.rs"],
            "./liba-2.a",
        ),
        (["--crate-type=staticlib", "--codegen", "extra-filename=-1", "a.rs"], "./liba-1.a"),
        (["--crate-type=staticlib", "-o", "x/y.a", "a.rs"], "x/y.a"),
        (["--crate-type=staticlib", "--emit", "link=z.a,dep-info", "a.rs"], "z.a"),
        (["--crate-type=staticlib", "--emit=obj", "--emit=link", "a.rs"], "./liba.a"),
    ],
)
def test_the_library_is_found_where_rustc_puts_it(args: list[str], place: str) -> None:
    found = parsed(*args)
    assert found.library_paths(f"lib{found.file_stem}.a")[0] == Path(place)


def test_arguments_are_read_from_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "args"
    listed.write_text("\n".join(CARGO_C) + "\n")
    assert parsed(f"@{listed}") == parsed(*CARGO_C)


@pytest.mark.parametrize(
    "args",
    [
        CARGO_C,
        PROBE,
        ["-vV"],
        ["@args"],
        ["--emit=metadata", "@args"],
        ["--crate-type=staticlib", "--emit", "metadata", "a.rs"],
        ["--crate-type=staticlib", "--emit", "link", "--emit=dep-info", "a.rs"],
        ["--crate-type=staticlib", "a.rs"],
    ],
)
def test_shell_and_python_hand_on_the_same_calls(args: list[str], tmp_path: Path) -> None:
    """What the shell script does not hand to rustc is what the module of other systems keeps."""
    for name in ("cargo-strip-hook", "rustc"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name).chmod(0o755)
    script = tmp_path / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    script.chmod(0o755)
    done = subprocess.run(
        [script, tmp_path / "rustc", *args], capture_output=True, text=True, check=True
    )
    kept = cargo_strip_hook_rustc.ours(args)
    assert done.stdout == ("cargo-strip-hook\n" if kept else "rustc\n")
    if parse([a for a in args if not a.startswith("@")]) is not None:
        assert kept


def test_a_link_to_the_script_alone_finds_the_program_on_path(tmp_path: Path) -> None:
    for name in ("cargo-strip-hook", "rustc"):
        workspaces.write(tmp_path / name, f"#!/bin/sh\necho {name}\n").chmod(0o755)
    link = tmp_path / "links" / SCRIPT.name
    link.parent.mkdir()
    link.symlink_to(SCRIPT)
    done = subprocess.run(
        [link, tmp_path / "rustc", *CARGO_C],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.stdout == "cargo-strip-hook\n"


def test_the_module_imports_nothing_for_what_is_not_ours(tmp_path: Path) -> None:
    """Streams, descriptors and the exit code are those of the program that it calls."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    code = (
        "import sys, cargo_strip_hook_rustc as hook\n"
        "try:\n    hook.run()\n"
        "finally:\n    print(any(m.startswith('cargo_strip_hook.') for m in sys.modules))\n"
    )
    program = workspaces.write(
        tmp_path / "rustc", f"#!/bin/sh\necho said >/dev/fd/{write}\nexit 7\n"
    )
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, program, "--crate-type=lib", "a.rs"],
        capture_output=True,
        text=True,
        check=False,
        close_fds=False,
        cwd=SCRIPT.parents[1],
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        assert (pipe.read(), done.returncode, done.stdout) == ("said\n", 7, "False\n")


@pytest.mark.parametrize(
    ("words", "strip"),
    [
        ([], None),
        (["-C", "strip=symbols"], "symbols"),
        (["-Cdebuginfo=2"], "none"),
        (["-Cdebuginfo=0"], None),
        (["-Cdebuginfo=1", "-Cstrip=debuginfo"], "debuginfo"),
    ],
)
def test_what_cargo_says_of_the_profile(words: list[str], strip: str | None) -> None:
    assert parsed("--crate-type=staticlib", *words, "a.rs").strip == strip


def test_a_name_that_cannot_be_written_is_left_out() -> None:
    files = [Path("/a\tb"), Path("/a  b"), Path("/c\n")]
    assert with_inputs("x.d: a.rs\n", files, {}) == "x.d: a.rs /a\\ \\ b\n"


def test_inputs_are_added_to_the_first_rule() -> None:
    before = "/t/a.d: src/lib.rs\n\n/t/liba.a: src/lib.rs\n\nsrc/lib.rs:\n\n# env-dep:CARGO_X=1\n"
    files = [Path("/p q/Cargo.toml"), Path("src/lib.rs")]
    after = with_inputs(before, files, {"STRIP_HOOK": None, "OTHER": "a\\b\nc"})
    lines = after.split("\n")
    assert lines[0] == "/t/a.d: src/lib.rs /p\\ q/Cargo.toml"
    assert lines[2] == "/t/liba.a: src/lib.rs"
    assert lines[-3:] == ["# env-dep:STRIP_HOOK", "# env-dep:OTHER=a\\\\b\\nc", ""]
    assert with_inputs(after, files, {"STRIP_HOOK": None, "OTHER": "a\\b\nc"}) == after


def test_a_diagnostic_has_the_fields_that_cargo_reads() -> None:
    stream = io.StringIO()
    tell(stream, "error", "what\nmore", ["do this"], as_json=True, colour=True)
    said = json.loads(stream.getvalue())
    assert said["$message_type"] == "diagnostic"
    assert (said["level"], said["message"]) == ("error", "what\nmore")
    assert said["rendered"].startswith("\x1b[1m\x1b[91merror")
    assert said["children"][0]["message"] == "do this"
    stream = io.StringIO()
    tell(stream, "warning", "what", ["do this"], as_json=False, colour=False)
    assert stream.getvalue() == "warning: what\n  = help: do this\n\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
@pytest.mark.parametrize("kind", ["pipe", "fifo"])
def test_a_token_is_taken_only_where_there_is_one_and_given_back(tmp_path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(tmp_path / "f")
        read = write = os.open(tmp_path / "f", os.O_RDWR)
        environ = {"MAKEFLAGS": f"-j --jobserver-auth=fifo:{tmp_path / 'f'}"}
    else:
        read, write = os.pipe()
        environ = {"CARGO_MAKEFLAGS": f"-j --jobserver-fds={read},{write} --jobserver-auth=8,9"}
    try:
        with token(environ) as one:
            assert not one
        os.write(write, b"+")
        with token(environ) as one, token(environ) as two:
            assert (one, two) == (True, False)
        assert os.read(read, 5) == b"+"
    finally:
        for descriptor in {read, write}:
            os.close(descriptor)
    with token({}) as one:
        assert one


@pytest.mark.parametrize(
    ("folder", "profile"),
    [
        ("/t/debug/deps", "dev"),
        ("/t/release/deps", "release"),
        ("/t/x86_64-unknown-linux-gnu/dist/deps", "dist"),
        ("/t/release/build/demo/0123456789abcdef/out", "release"),
        ("/somewhere", None),
    ],
)
def test_the_folder_tells_the_profile(folder: str, profile: str | None) -> None:
    assert profile_of(Path(folder)) == profile


def test_the_workspace_of_a_package_is_found_as_cargo_does(tmp_path: Path) -> None:
    (tmp_path / "Cargo.toml").write_text(
        '[workspace]\nmembers = ["a"]\nexclude = ["b"]\n[workspace.metadata.x]\ny = 1\n'
    )
    for name, more in (("a", ""), ("b", ""), ("c", 'workspace = "../d"\n')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Cargo.toml").write_text(f'[package]\nname = "{name}"\n{more}')
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "Cargo.toml").write_text("[workspace]\n")

    def root(name: str) -> Path:
        return find_package({"CARGO_MANIFEST_DIR": str(tmp_path / name)}, name).root.resolve()

    assert root("a") == tmp_path / "Cargo.toml"
    assert root("b") == tmp_path / "b" / "Cargo.toml"
    assert root("c") == tmp_path / "d" / "Cargo.toml"
    with pytest.raises(DiscoveryError, match="does not say which package"):
        find_package({}, "a")


# Turning it on and off ------------------------------------------------------------------------


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "home"))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cargo-strip-hook-rustc").write_text("#!/bin/sh\n")
    (tools / "cargo-strip-hook-rustc").chmod(0o755)
    root = tmp_path / "root"
    root.mkdir()
    return Workspace(root, root / "target", root / "target", (), (), {})


def environ(space: Workspace, **more: str) -> dict[str, str]:
    folder = space.root.parent
    return {"PATH": str(folder / "tools"), "CARGO_HOME": str(folder / "home"), **more}


def test_the_line_is_written_beside_what_is_there_and_taken_out_again(space: Workspace) -> None:
    path = space.root / ".cargo" / "config.toml"
    path.parent.mkdir()
    before = '# why\n[alias]\nb = "build" # short\n\n[build]\njobs = 2\n# end\n'
    path.write_text(before)
    assert turn_on(space, environ(space)) == path
    assert '# why\n[alias]\nb = "build" # short\n\n[build]\njobs = 2\n' in path.read_text()
    assert wrappers(space.root, environ(space)).active
    assert turn_on(space, environ(space)) is None
    assert turn_off(space) == path
    assert path.read_text().split() == before.split()
    assert not wrappers(space.root, environ(space)).active
    assert turn_off(space) is None


def test_a_file_that_held_nothing_else_is_gone_again(space: Workspace) -> None:
    path = turn_on(space, environ(space))
    assert path == space.root / ".cargo" / "config.toml"
    assert path.read_text() == '[build]\nrustc-workspace-wrapper = "cargo-strip-hook-rustc"\n'
    turn_off(space)
    assert not path.exists()


@pytest.mark.parametrize(
    ("more", "text", "says"),
    [
        ({"RUSTC_WORKSPACE_WRAPPER": "clippy-driver"}, "", "clippy-driver"),
        ({}, '[build]\nrustc-workspace-wrapper = "mine"\n', "mine"),
        ({"RUSTC_WRAPPER": "/usr/bin/sccache"}, "", "sccache"),
        ({}, '[build]\nrustc-wrapper = "sccache"\n', "sccache"),
    ],
)
def test_other_wrappers_are_refused(
    space: Workspace, more: dict[str, str], text: str, says: str
) -> None:
    path = space.root / ".cargo" / "config.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        turn_on(space, environ(space, **more))
    assert path.read_text() == text


def test_what_is_not_on_path_is_not_written(space: Workspace) -> None:
    with pytest.raises(DiscoveryError, match="not on PATH"):
        turn_on(space, environ(space, PATH="/nonexistent"))
    assert not (space.root / ".cargo").exists()


def test_an_empty_variable_turns_a_file_off(space: Workspace) -> None:
    turn_on(space, environ(space))
    found = wrappers(space.root, environ(space, RUSTC_WORKSPACE_WRAPPER=""))
    assert not found.active
