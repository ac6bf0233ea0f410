"""Doing what an example's README says, in a copy, and looking at what came of it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.consumers.toolbox import run
from tests.tools import TIER, need

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
BUILT = shutil.ignore_patterns("target", "build", "stage", "__pycache__", "bazel-*")

# What main.c prints with the library as cargo-c made it: counted by hand.
WORDS = """\
8 different words, `the` 2 times
9 words, counted by two threads
a panic was caught inside the library: yes
"""


@dataclass(frozen=True)
class Example:
    """A copy of `examples/`, and in it the folder of one of them."""

    folder: Path
    tools: Path

    @property
    def demo(self) -> Path:
        """The crate that most examples build."""
        return self.folder.parent / "demo"

    def sh(self, script: str, env: Mapping[str, str] | None = None) -> str:
        """Run a script in the folder; what it printed, with stderr. Its first failure ends it."""
        # cc, cargo and the like come first from where the machine has them.
        path = os.pathsep.join([str(self.tools), str(Path(sys.executable).parent)])
        path = os.pathsep.join([path, os.environ["PATH"]])
        given = {"PATH": path, "CARGO_TERM_COLOR": "never", "CARGO_NET_OFFLINE": "true"}
        given["CARGO_HOME"] = os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))
        argv = ["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script}"]
        return run(*argv, cwd=self.folder, env={**given, **(env or {})}).stdout

    def follow(self, env: Mapping[str, str] | None = None, number: int = 0) -> str:
        """Run a block of the README that is marked `sh`, the first one, word for word."""
        return self.sh(self.recipe(number), env)

    def recipe(self, number: int = 0) -> str:
        """That block."""
        text = (self.folder / "README.md").read_text()
        found = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
        assert len(found) > number, "the README has no block of commands"
        return str(found[number])


def example(name: str, folder: Path) -> Example:
    """A copy of the examples below `folder`, and `cargo-strip-hook` as if it were installed."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(EXAMPLES, folder / "examples", ignore=BUILT, symlinks=True)
    tools = folder / "tools"
    tools.mkdir()
    command = tools / "cargo-strip-hook"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m cargo_strip_hook "$@"\n'
    )
    command.chmod(0o755)
    return Example(folder / "examples" / name, tools)


def need_heavy(*names: str) -> Path:
    """As `need`, for what the tier `ci` leaves to `all`, to be quick."""
    if TIER == "ci":
        pytest.skip("this example is run in the tier `all`")
    return need(*names)


def declared(header: Path) -> set[str]:
    """The functions of a header that has one on a line, named after itself."""
    return set(re.findall(rf"\b({header.stem}_\w+)\(", header.read_text()))


def defined(library: Path) -> set[str]:
    """The symbols that a library shows to others, by nm."""
    said = run(need("nm"), "-g", "--defined-only", "--format=posix", library).stdout
    return {line.split()[0] for line in said.splitlines() if len(line.split()) > 1}


def assert_public(library: Path, *headers: Path) -> None:
    """The library is one small object that shows what the headers declare and nothing else."""
    names = {name for header in headers for name in declared(header)}
    assert names, headers
    assert defined(library) == names
    members = run(need("ar"), "t", library).stdout.splitlines()
    assert len(members) == 1, members
    # std alone is more than 15 MB
    assert library.stat().st_size < 2_500_000, library.stat().st_size
