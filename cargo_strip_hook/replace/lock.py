"""Locks: one run at a time for each library. They are in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cargo_strip_hook.core.errors import ReplaceError

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
    """The lock file of a library in a cache folder: the same for every spelling of its path."""
    text = os.path.normcase(os.path.realpath(library))
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()
    return cache / "locks" / f"{digest[:32]}.lock"


@contextlib.contextmanager
def library_lock(library: Path, *, timeout: float = 600.0) -> Iterator[int | None]:
    """Hold the lock of a library; waits up to `timeout` seconds for another run.

    Yields the lock's file descriptor where the system has such locks: a process with a duplicate of
    it holds the lock, too. Raises `ReplaceError` when the time is over, or where no lock file can
    be created.
    """
    descriptor, release = _acquire(library, timeout)
    try:
        yield descriptor
    finally:
        release()


class _Taken(Exception):
    """Another process held the lock all the time."""


def _acquire(library: Path, timeout: float) -> tuple[int | None, Callable[[], None]]:
    """Take the lock, in the cache folder, or in the temporary folder where there is no home."""
    private = f"{APPLICATION}-{os.getuid()}" if hasattr(os, "getuid") else APPLICATION
    problem: Exception | None = None
    for in_home in (True, False):
        try:
            cache = cache_folder() if in_home else _temporary_folder() / private
            path = lock_path(library, cache)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return _take(path, timeout)
        except _Taken as e:
            raise ReplaceError(
                f"{library} is being stripped by another process",
                help=f"wait for it to end (its lock is {path})",
            ) from e
        except (OSError, RuntimeError) as e:
            problem = e
    raise ReplaceError(
        f"no lock can be taken for {library}: {problem}",
        help="set XDG_CACHE_HOME to a folder that can be written",
    )


def _take(path: Path, timeout: float) -> tuple[int | None, Callable[[], None]]:
    """Take a lock. Returns its descriptor, if it has one, and the function that releases it."""
    if sys.platform != "win32":
        descriptor = _flock(path, timeout)
        return descriptor, lambda: os.close(descriptor)
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=timeout)
    except Timeout as e:
        raise _Taken from e
    return None, lock.release


def _flock(path: Path, timeout: float) -> int:
    import fcntl

    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                if time.monotonic() >= end:
                    raise _Taken from e
                time.sleep(0.05)
            else:
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _temporary_folder() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())
