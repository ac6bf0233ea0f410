"""Progress of whole runs: on a terminal, in a pipe, and never in JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import cargo_strip_hook
from cargo_strip_hook.pipeline.strip import Phase
from tests.formats import native_kit as kit

SOURCES = {"a.c": "int g(void); int f(void) { return g(); }", "b.c": "int g(void) { return 2; }"}
# What takes longer than a second is told; here, that is everything, once it could be.
PROGRAM = """
import sys, time
from cargo_strip_hook.cli import progress
from cargo_strip_hook.cli.main import main
progress.DELAY = 0.0
observe = progress.Progress.observe
def slow(self, phase):
    observe(self, phase)
    end = time.monotonic() + 20
    while self._thread and not self._visible and time.monotonic() < end:
        time.sleep(0.01)
progress.Progress.observe = slow
sys.exit(main(sys.argv[1:]))
"""


def _library(folder: Path) -> Path:
    return kit.library(folder, SOURCES, "-ffunction-sections")


def _environment(**more: str) -> dict[str, str]:
    drop = ("CI", "TERM", "NO_COLOR", "CARGO_TERM_PROGRESS_WHEN", "CARGO_TERM_COLOR")
    return {k: v for k, v in os.environ.items() if k not in drop} | more


def _run(*words: str | Path, **more: str) -> tuple[str, str]:
    argv = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(
        argv, env=_environment(**more), capture_output=True, text=True, check=True, timeout=100
    )
    return done.stdout, done.stderr


def test_lines_in_a_pipe_and_none_in_json(tmp_path: Path) -> None:
    path = _library(tmp_path)
    out = tmp_path / "out.a"
    words = ("strip", path, "-o", out, "--export", "f")
    _, said = _run(*words)
    size = f"libt.a ({path.stat().st_size / 1000:.0f} kB)"
    verbs = [line.split()[0] for line in said.splitlines() if line.endswith(size)]
    assert verbs == ["Deciding", "Prelinking", "Verifying", "Replacing"]
    stdout, said = _run(*words, "--message-format", "json")
    assert [json.loads(line)["reason"] for line in stdout.splitlines()] == ["stripped", "finished"]
    assert "Verifying" not in said
    assert "Verifying" not in _run(*words, CARGO_TERM_PROGRESS_WHEN="never")[1]
    assert _run(*words, "-q") == ("", "")


def test_a_display_on_a_terminal(tmp_path: Path) -> None:
    path = _library(tmp_path)
    words = ("strip", str(path), "-o", str(tmp_path / "out.a"), "--export", "f")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env=_environment(TERM="xterm", COLUMNS="100"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            data = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        said += data
    os.close(ours)
    assert process.wait(60) == 0
    text = said.decode()
    for verb in ("Prelinking", "Verifying"):
        assert f"{verb} libt.a" in text
    # it is erased before what stays is said
    assert "\x1b[2K" in text.rpartition("Verifying")[2]
    assert "Stripping" in text.splitlines()[-1]


def test_a_program_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _library(tmp_path)
    size = path.stat().st_size
    seen: list[Phase] = []
    cargo_strip_hook.strip(path, exports="f", output=tmp_path / "out.a", observe=seen.append)
    assert [p.name for p in seen] == ["exports", "prelink", "verify", "replace"]
    assert {(p.library, p.size) for p in seen} == {(path, size)}
    assert capfd.readouterr() == ("", "")
