"""Starting external programs: the only module that does."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.core.errors import KilledError, ToolError, ToolFailure
from cargo_strip_hook.core.lifetime import dies_with_parent

_PATIENCE = 2.0  # seconds for a program to end after SIGTERM
# signals that others send; a program's own faults end it by other ones
_KILLS = [getattr(signal, n, 0) for n in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")]


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
    """Run a program to its end, and return what it said.

    `env` is added to the environment. `accept` lists the exit codes that are no failure (all, where
    it is empty). With `passthrough` the program has the user's terminal, and nothing is captured.
    Raises `ToolError` with argv, exit code, stdout and stderr, and `KilledError` for a program
    without the terminal that was killed.
    """
    words = tuple(os.fspath(a) for a in argv)
    environment = {**os.environ, **env} if env is not None else None
    try:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment,
            stdin=None if passthrough else subprocess.DEVNULL,
            stdout=None if passthrough else subprocess.PIPE,
            stderr=None if passthrough else subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            preexec_fn=_last_will(),  # noqa: PLW1509
        )
        stdout, stderr = _to_its_end(process, timeout)
    except FileNotFoundError as e:
        failure = ToolFailure(words, None, "", str(e))
        raise ToolError(f"`{words[0]}` is not installed", failure, help=help) from e
    except OSError as e:
        failure = ToolFailure(words, None, "", str(e))
        raise ToolError(f"`{words[0]}` cannot be started: {e}", failure, help=help) from e
    except subprocess.TimeoutExpired as e:
        failure = ToolFailure(words, None, "", f"no answer within {timeout} s")
        raise ToolError(f"`{shlex.join(words)}` did not end", failure, help=help) from e
    if not passthrough and process.returncode < 0 and -process.returncode in _KILLS:
        ended = signal.Signals(-process.returncode).name
        raise KilledError(
            f"`{words[0]}` was ended by {ended}",
            help="there may not be enough memory; nothing was replaced",
        )
    if accept and process.returncode not in accept:
        failure = ToolFailure(words, process.returncode, stdout, stderr)
        raise ToolError(
            f"`{shlex.join(words)}` failed with exit code {process.returncode}", failure, help=help
        )
    return Finished(words, process.returncode, stdout, stderr)


def _to_its_end(process: subprocess.Popen[str], timeout: float | None) -> tuple[str, str]:
    """Stdout and stderr of a program. It is ended where this process is, and after `timeout`."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return stdout or "", stderr or ""


def _last_will() -> Callable[[], object] | None:
    """What has a program end with this process, even if this process is killed (Linux)."""
    # what is called between fork and exec must not wait for another thread
    if threading.active_count() > 1:
        return None
    return dies_with_parent(signal.SIGTERM)
