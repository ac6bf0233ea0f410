"""Asking cargo's jobserver for a second processor.

Protocol: GNU make manual, "POSIX Jobserver Interaction": a process may run one job; for each other
job it reads a byte from the pipe, and writes it back when that job is done.
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
    """Take a processor for a second process, without waiting; yields whether there was one.

    It is given back at the end of the context. Without a jobserver there always is one.
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
        # open the pipe again: O_NONBLOCK must not be set on cargo's own descriptors
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
