"""Opening files that a user named. A pipe or a device is refused: reading it may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregular(path: Path) -> str | None:
    """What a path names: "a FIFO", "a device" …; None for a regular file or a folder."""
    return _kind(path.stat().st_mode)


def _kind(mode: int) -> str | None:
    return _KINDS.get(stat.S_IFMT(mode))


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read it. Raises `OSError`, without waiting, for anything else."""
    # without O_NONBLOCK, opening a FIFO waits for a writer
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0))
    try:
        what = _kind(os.fstat(descriptor).st_mode)
        if what is not None:
            raise OSError(errno.EINVAL, f"it is no regular file but {what}", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a regular file, with any line ends. Raises `OSError`, `UnicodeDecodeError`."""
    import io

    with io.TextIOWrapper(open_file(path), encoding=encoding) as file:
        return file.read()


def read_bytes(path: Path) -> bytes:
    """The contents of a regular file. Raises `OSError`."""
    with open_file(path) as file:
        return file.read()
