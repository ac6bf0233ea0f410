"""The manual page and `cargo help strip-hook`, as programs read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from cargo_strip_hook.cli import manual
from cargo_strip_hook.cli.parser import COMMANDS, PARSERS
from cargo_strip_hook.cli.reference import reference
from tests.tools import need

HERE = Path(__file__).resolve().parents[2]


def run(argv: Sequence[str | Path], **more: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("manual") / "cargo-strip-hook.1"
    argv = [sys.executable, "-m", "cargo_strip_hook", "man"]
    file.write_text(run(argv))
    assert file.read_text() == manual.page()
    return file


def test_mandoc_finds_nothing(page: Path) -> None:
    mandoc = need("mandoc")
    done = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_groff_finds_nothing(page: Path) -> None:
    man = need("man")
    done = subprocess.run(
        [man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""


def test_all_that_the_parsers_know_is_on_the_page(page: Path) -> None:
    text = run([need("mandoc"), "-T", "ascii", "-O", "width=1000", page])
    text = "".join(c for n, c in enumerate(text) if c != "\b" and text[n + 1 : n + 2] != "\b")
    words = set(text.replace(",", " ").split())
    for name, make in PARSERS.items():
        for action in make()._actions:
            assert set(action.option_strings) <= words, (name, action.option_strings)
            assert str(action.help) in text.replace("`", "") or "`" in str(action.help)
    assert set(COMMANDS) <= words


def test_the_reference_has_each_option_of_each_command() -> None:
    told = reference()
    groups = {group.title: group for group in told.groups}
    assert len(groups) == len(told.groups), "two groups of one name differ between commands"
    for command in told.commands:
        known = {name for option in command.own for name in option.names}
        for title in command.groups:
            assert command.name in groups[title].commands
            known |= {name for option in groups[title].options for name in option.names}
        actions = PARSERS[command.name]()._actions
        assert known == {name for action in actions for name in action.option_strings}


def test_the_wheel_installs_it(tmp_path: Path) -> None:
    """From the source distribution, as packagers build it."""
    pytest.importorskip("hatchling")
    out = tmp_path / "dist"
    hatchling = [sys.executable, "-m", "hatchling", "build", "-d", out]
    # a copy, as tests run beside each other and building writes below the folder
    checkout = tmp_path / "checkout"
    leave = shutil.ignore_patterns(".*", "target", "build", "dist", "__pycache__")
    shutil.copytree(HERE, checkout, ignore=leave)
    run([*hatchling, "-t", "sdist"], cwd=checkout)
    (packed,) = out.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / packed.name.removesuffix(".tar.gz")
    run([*hatchling, "-t", "wheel"], cwd=unpacked)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (inside,) = [
            n for n in archive.namelist() if n.endswith("/share/man/man1/cargo-strip-hook.1")
        ]
        assert ".data/data/share/" in inside
        archive.extract(inside, tmp_path)
        assert archive.read(inside).decode() == manual.page()
    share = (tmp_path / inside).parent.parent
    found = run([need("man"), "-w", "cargo-strip-hook"], env={**os.environ, "MANPATH": str(share)})
    assert Path(found.strip()) == tmp_path / inside


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["help", "strip-hook"], "usage: cargo strip-hook [COMMAND] [OPTIONS]"),
        (["strip-hook", "--help"], "usage: cargo strip-hook [COMMAND] [OPTIONS]"),
        (["strip-hook", "help", "cbuild"], "usage: cargo strip-hook [OPTIONS] cbuild [ARGS]"),
        (["strip-hook", "strip", "-h"], "usage: cargo strip-hook strip LIB... [OPTIONS]"),
    ],
)
def test_cargo_shows_our_help(tmp_path: Path, words: list[str], usage: str) -> None:
    cargo = need("cargo")
    program = tmp_path / "cargo-strip-hook"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cargo_strip_hook "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": os.fspath(HERE)}
    said = run([cargo, *words], env=env, cwd=tmp_path)
    assert said.splitlines()[0] == usage
    if words[0] == "help":
        for name, text in COMMANDS.items():
            assert f"{name} " in said
            assert text in said
