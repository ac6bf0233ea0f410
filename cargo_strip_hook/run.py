"""The one place that starts external programs."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.errors import ToolError, ToolFailure


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended; `exit_code` is 0 unless the caller allowed others."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
    passthrough: bool = False,
    timeout: float | None = None,
    help: str | Sequence[str] = (),
) -> Finished:
    """Run a program to its end and return what it said.

    `env` is added to the environment. `accept` lists the exit codes that are no failure (any code
    where it is empty). With `passthrough` the program has the user's terminal and nothing is
    captured. Raises `ToolError` with argv, exit code, stdout and stderr.
    """
    words = tuple(os.fspath(a) for a in argv)
    environment = {**os.environ, **env} if env is not None else None
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment,
            stdin=None if passthrough else subprocess.DEVNULL,
            capture_output=not passthrough,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as e:
        failure = ToolFailure(words, None, "", str(e))
        raise ToolError(f"`{words[0]}` is not installed", failure, help=help) from e
    except OSError as e:
        failure = ToolFailure(words, None, "", str(e))
        raise ToolError(f"`{words[0]}` cannot be started: {e}", failure, help=help) from e
    except subprocess.TimeoutExpired as e:
        failure = ToolFailure(words, None, "", f"no answer within {timeout} s")
        raise ToolError(f"`{shlex.join(words)}` did not end", failure, help=help) from e
    stdout, stderr = done.stdout or "", done.stderr or ""
    if accept and done.returncode not in accept:
        failure = ToolFailure(words, done.returncode, stdout, stderr)
        raise ToolError(
            f"`{shlex.join(words)}` failed with exit code {done.returncode}", failure, help=help
        )
    return Finished(words, done.returncode, stdout, stderr)
