"""Asking cargo's jobserver for a second processor.

Protocol: GNU make manual, "POSIX Jobserver Interaction": a process may run one job; for each more
it takes a byte out of the pipe, and puts it back when that job is done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_FIFO = re.compile(r"--jobserver-auth=fifo:(\S+)")
_PIPE = re.compile(r"--jobserver-(?:auth|fds)=(\d+),(\d+)")


@contextmanager
def token(environ: Mapping[str, str]) -> Iterator[bool]:
    """Whether there is a processor for a second process, which is ours in the context.

    Never waits. Without a jobserver nobody else is known to want one.
    """
    flags = environ.get("CARGO_MAKEFLAGS") or environ.get("MAKEFLAGS") or ""
    fifo, pipe = _FIFO.search(flags), _PIPE.search(flags)
    if not fifo and not pipe:
        yield True
        return
    if fifo:
        reading = writing = Path(fifo[1])
    else:
        assert pipe is not None
        # a new description of the pipe: only it is set not to wait, cargo's own stays as it is
        reading, writing = Path(f"/proc/self/fd/{pipe[1]}"), Path(f"/proc/self/fd/{pipe[2]}")
    taken = b""
    with suppress(OSError):
        descriptor = os.open(reading, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            taken = os.read(descriptor, 1)
        finally:
            os.close(descriptor)
    try:
        yield bool(taken)
    finally:
        if taken:
            descriptor = os.open(writing, os.O_WRONLY)
            try:
                os.write(descriptor, taken)
            finally:
                os.close(descriptor)


__all__ = ["token"]
