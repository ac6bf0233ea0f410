"""One run at a time for each library. The lock lies in the user's cache, never beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.errors import ReplaceError

if TYPE_CHECKING:
    from filelock import BaseFileLock

APPLICATION = "cargo-strip-hook"


def cache_folder(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The folder for this user's caches.

    Sources: XDG Base Directory Specification (relative paths are ignored); Apple's File System
    Programming Guide; Windows' known folder LocalAppData.
    """
    home = Path(environment.get("HOME") or Path.home())
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
        return base / APPLICATION / "Cache"
    if platform == "darwin":
        return home / "Library" / "Caches" / APPLICATION
    configured = Path(environment.get("XDG_CACHE_HOME") or "")
    return (configured if configured.is_absolute() else home / ".cache") / APPLICATION


def lock_path(library: Path, cache: Path) -> Path:
    """The lock file of a library in a cache folder: the same for every way to write its path."""
    text = os.path.normcase(os.path.realpath(library))
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()
    return cache / "locks" / f"{digest[:32]}.lock"


@contextlib.contextmanager
def library_lock(library: Path, *, timeout: float = 600.0) -> Iterator[None]:
    """Hold the lock of a library; waits up to `timeout` seconds for another run.

    Raises `ReplaceError` when that time is over, or where no lock file can be made.
    """
    lock = _acquire(library, timeout)
    try:
        yield
    finally:
        lock.release()


def _acquire(library: Path, timeout: float) -> BaseFileLock:
    """The lock, in the cache folder or, where there is no home, in the temporary one."""
    from filelock import FileLock, Timeout

    private = f"{APPLICATION}-{os.getuid()}" if hasattr(os, "getuid") else APPLICATION
    problem: Exception | None = None
    for in_home in (True, False):
        try:
            cache = cache_folder() if in_home else _temporary_folder() / private
            path = lock_path(library, cache)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = FileLock(path, mode=0o600)
            lock.acquire(timeout=timeout)
        except Timeout as e:
            raise ReplaceError(
                f"{library} is being stripped by another process",
                help=f"wait for it to end (its lock is {path})",
            ) from e
        except (OSError, RuntimeError) as e:
            problem = e
        else:
            return lock
    raise ReplaceError(
        f"no lock can be taken for {library}: {problem}",
        help="set XDG_CACHE_HOME to a folder that can be written",
    )


def _temporary_folder() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())
