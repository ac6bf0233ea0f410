"""A small workspace, and an installation of the hook, for the tests of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.cargo import workspaces
from tests.tools import need

HERE = Path(__file__).resolve().parents[2]
HEADER = "int little_one(void);\n"
CAPI = """\
[lib]
crate-type = ["staticlib", "cdylib"]
[package.metadata.capi.header]
generation = false
[package.metadata.capi.install.include]
asset = [{ from = "little.h" }]
"""
PROGRAM = """\
#include <little/little.h>
int main(void) { return little_one() == 1 ? 0 : 1; }
"""
MORE = '#[no_mangle]\npub extern "C" fn little_unlisted() -> i32 { 3 }\n'


@dataclass(frozen=True)
class Space:
    """A workspace, and a PATH with the two programs as an installation has them.

    `target` is the target folder, None for the usual one.
    """

    root: Path
    tools: Path
    target: Path | None = None

    def environment(self) -> dict[str, str]:
        path = f"{self.tools}{os.pathsep}{os.environ['PATH']}"
        more = {"CARGO_TARGET_DIR": os.fspath(self.target)} if self.target else {}
        return {**os.environ, "PATH": path, "CARGO_TERM_COLOR": "never", **more}

    def run(
        self, *argv: str | Path, code: int = 0, **more: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [os.fspath(a) for a in argv],
            cwd=self.root,
            env={**self.environment(), **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def library(self, pattern: str) -> Path:
        found = list(self.root.glob(pattern))
        assert len(found) == 1, found
        return found[0]


def make_space(folder: Path) -> Space:
    need("cargo")
    tools = write_tools(folder / "tools")
    root = folder / "little"
    workspaces.package(
        root, "little", CAPI, files={"little.h": HEADER, "main.c": PROGRAM}, workspace=True
    )
    source = root / "src" / "lib.rs"
    source.write_text(source.read_text() + MORE)
    return Space(root, tools)


def shown(library: Path) -> set[str]:
    """The global definitions, as LLVM's or GNU's nm lists them."""
    nm = need("llvm-nm-22", "llvm-nm", "nm")
    said = subprocess.run(
        [nm, "-g", "--defined-only", "--format=posix", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {line.split()[0] for line in said.splitlines() if len(line.split()) > 1}


def is_original(library: Path) -> bool:
    """Whether it is as rustc writes it: many members."""
    members = subprocess.run(
        [need("ar"), "t", library], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return len(members) > 1


def changed(space: Space, code: str) -> None:
    """Have the hook's process run `code` first; `real` is how it strips a library."""
    folder = space.tools / "changed"
    workspaces.write(
        folder / "sitecustomize.py",
        "import json, os, sys, time\n"
        "if 'rustc-wrapper' in sys.argv:\n"
        "    from cargo_strip_hook.pipeline import strip as pipeline\n"
        "    real = pipeline.strip_library\n" + textwrap.indent(textwrap.dedent(code), " " * 4),
    )
    write_tool(space.tools, f"{folder}{os.pathsep}{HERE}")


RECORD = """
def strip_library(job, **more):
    with open(os.environ["SAYS"], "a") as file:
        said = {"library": job.library.name, "processes": more["processes"]}
        file.write(json.dumps(said) + "\\n")
    return real(job, **more)
pipeline.strip_library = strip_library
"""


def write_tools(tools: Path) -> Path:
    """What an installation puts on PATH, in the folder `tools`."""
    write_tool(tools)
    shutil.copy(HERE / "scripts" / "cargo-strip-hook-rustc", tools)
    return tools


def write_tool(tools: Path, path: str = str(HERE)) -> None:
    """The program `cargo-strip-hook`, with the package at `path` (of PYTHONPATH)."""
    tool = workspaces.write(
        tools / "cargo-strip-hook",
        f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -m cargo_strip_hook "$@"\n',
    )
    tool.chmod(0o755)
