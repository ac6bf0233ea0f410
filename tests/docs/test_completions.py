"""Completions in the shells themselves: loaded, and asked with the Tab key."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools import missing, need

# said by a function in the program's place, so that what the Tab key made of the line is known
START, END = "words:", ":end"
# (typed, with Tab at the end; the words that come of it)
CASES = [
    ("strip --gran", ["strip", "--granularity"]),
    ("strip --granularity se", ["strip", "--granularity", "section"]),
    ("che", ["check"]),
    ("--offl", ["--offline"]),
    ("strip --header publ", ["strip", "--header", "public.h"]),
    ("strip libfo", ["strip", "libfoo.a"]),
    ("completions fi", ["completions", "fish"]),
    ("help exp", ["help", "exports"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, named as shells look for them, and two files to complete."""
    folder = tmp_path_factory.mktemp("completions")
    for shell, name in (("bash", "bash"), ("zsh", "_cargo-strip-hook"), ("fish", "fish")):
        done = subprocess.run(
            [sys.executable, "-m", "cargo_strip_hook", "completions", shell],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        (folder / name).write_text(done.stdout)
    for file in ("public.h", "libfoo.a"):
        (folder / file).touch()
    return folder


def typed(
    argv: list[str], setup: str, line: str, folder: Path, program: str = "cargo-strip-hook"
) -> list[str]:
    """The words that an interactive shell runs after `line`, Tab and Return."""
    primary, secondary = pty.openpty()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        argv, stdin=secondary, stdout=secondary, stderr=secondary, env=env, cwd=folder,
        start_new_session=True,
    ) as shell:  # fmt: skip
        os.close(secondary)
        try:
            os.write(primary, f"{setup}\n".encode())
            said = _read_until(primary, "\nready:\r\n")
            os.write(primary, f"{program} {line}\t".encode())
            time.sleep(0.3)  # the line editor reads what was typed ahead as it likes
            os.write(primary, b"\n")
            said = _read_until(primary, END)
        finally:
            shell.kill()
            os.close(primary)
    return said.rpartition(START)[2].partition(END)[0].split()


def _read_until(terminal: int, end: str) -> str:
    said = ""
    limit = time.monotonic() + 30
    while time.monotonic() < limit and end not in said:
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 65536).decode(errors="replace")
    assert end in said, said
    return said


FUNCTION = f"cargo-strip-hook() {{ echo '{START}'\"$*\"'{END}'; }}; echo; echo re''ady:"


@pytest.mark.parametrize(("line", "words"), CASES)
def test_bash(folder: Path, line: str, words: list[str]) -> None:
    bash = need("bash")
    setup = f"source ./bash; PS1=; {FUNCTION}"
    assert typed([str(bash), "--norc", "--noprofile", "-i"], setup, line, folder) == words


@pytest.mark.parametrize(("line", "words"), CASES)
def test_zsh(folder: Path, line: str, words: list[str]) -> None:
    zsh = need("zsh")
    setup = f"PS1=; fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; {FUNCTION}"
    assert typed([str(zsh), "-f", "-i"], setup, line, folder) == words


@pytest.mark.parametrize(("line", "words"), CASES)
def test_fish(folder: Path, line: str, words: list[str]) -> None:
    fish = need("fish")
    done = subprocess.run(
        [fish, "--no-config", "-c", 'source fish; complete -C "$argv"', f"cargo-strip-hook {line}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    found = [answer.split("\t")[0] for answer in done.stdout.splitlines()]
    assert found == words[-1:]


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "-n")])
def test_syntax(folder: Path, shell: str, check: str) -> None:
    name = "_cargo-strip-hook" if shell == "zsh" else shell
    done = subprocess.run(
        [need(shell), check, folder / name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_after_the_word_cargo(folder: Path) -> None:
    """cargo's own completions for zsh call a function named for the command, which is ours."""
    zsh, rustc = need("zsh"), need("rustc")
    done = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, check=True)
    functions = Path(done.stdout.strip()) / "share/zsh/site-functions"
    if not (functions / "_cargo").exists():
        missing("cargo's completions for zsh")
    setup = f"PS1=; fpath=($PWD {functions} $fpath); autoload -U compinit; compinit -u -D; "
    setup += FUNCTION.replace("cargo-strip-hook", "cargo")
    said = typed([str(zsh), "-f", "-i"], setup, "strip-hook --offl", folder, program="cargo")
    assert said == ["strip-hook", "--offline"]
