"""All file operations that change something: tests make each of them fail."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from pathlib import Path

# errors of a file system that cannot synchronise at all
_CANNOT = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})


def create(path: Path) -> None:
    """Create an empty file that only its owner may read. Fails where the path exists."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    os.close(os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600))


def sync(path: Path) -> None:
    """Wait until a file's contents are on the medium."""
    _sync(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)


def sync_folder(path: Path) -> None:
    """Wait until the entries of a folder are on the medium, where the system supports that."""
    if os.name == "posix":
        _sync(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in _CANNOT:
            raise
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Replace one file by another, atomically."""
    tries = 20 if sys.platform == "win32" else 1
    for left in reversed(range(tries)):
        try:
            source.replace(target)
            return
        except PermissionError:
            # virus scanners and indexers hold new files open for a moment
            if not left:
                raise
            time.sleep(0.05)


def remove(path: Path) -> None:
    """Remove a file, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def make_folder(path: Path) -> None:
    """Create a folder that only its owner may enter. Fails where the path exists."""
    path.mkdir(mode=0o700)


def remove_folder(path: Path) -> None:
    """Remove a folder with its contents, as far as possible; of a link, only the link."""
    try:
        is_folder = stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_folder:
        path.unlink()
        return
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def link(source: Path, name: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, name)
    except FileExistsError:
        raise
    except OSError:
        import shutil

        create(name)
        shutil.copy2(source, name)


def copy_attributes(source: Path, target: Path) -> None:
    """Give `target` the owner, access control lists and mode of `source`.

    The mode must be copied; the others only as far as the file system and this process's rights
    allow.
    """
    facts = source.stat()
    if hasattr(os, "chown"):
        mine = target.stat()
        if (mine.st_uid, mine.st_gid) != (facts.st_uid, facts.st_gid):
            try:
                os.chown(target, facts.st_uid, facts.st_gid)
            except OSError:
                with contextlib.suppress(OSError):
                    os.chown(target, -1, facts.st_gid)
    if sys.platform == "linux":
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = os.listxattr(source)
        for name in names:
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
    target.chmod(facts.st_mode & 0o7777)
