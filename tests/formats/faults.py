"""Strips a library with one step going wrong: in this process, or in forks that kill themselves.

A step is a call of an operation that changes something: those of `replace.io`, and each write into
the result. ``python -m tests.formats.faults LIBRARY TARGET EXPORT…`` kills a run before each step
in turn and prints what it left as JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines import native
from cargo_strip_hook.replace import io, library_lock, remove_litter, staging
from cargo_strip_hook.verify import Expectation, verify

OPERATIONS = ("create", "sync", "sync_folder", "rename", "remove", "copy_attributes")
Step = Callable[[str, int], None]  # called with the step's name and, for a write, the offset


def strip(library: Path, target: str, exports: tuple[str, ...], output: Path | None = None) -> None:
    """What the command does with one library."""
    triple = Target.parse(target)
    with library_lock(library):
        remove_litter(output or library)
        with staging(library, output=output) as staged:
            request = PrelinkRequest(
                library, staged.path, triple, exports, Strip.SYMBOLS, marker=b"done"
            )
            result = native.NativeEngine().prelink(request)
            expectation = Expectation(triple, exports, Strip.SYMBOLS, result.link_map, b"done")
            verify(library, staged.path, expectation)
            staged.commit()


class Watched:
    """A file that tells of each write, in small pieces, of the flush and of the close."""

    def __init__(self, file: BinaryIO, step: Step) -> None:
        self.file, self.step, self.offset = file, step, 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, max(len(view), 1), 1 << 14):
            part = view[start : start + (1 << 14)]
            self.step("write", self.offset)
            self.file.write(part)
            self.file.flush()
            self.offset += len(part)
        return len(view)

    def flush(self) -> None:
        self.step("flush", self.offset)
        self.file.flush()


@contextlib.contextmanager
def watched(step: Step) -> Iterator[None]:
    """Call `step` before each step of a run; what it raises is what the step raises."""
    before = {name: getattr(io, name) for name in OPERATIONS}
    write_archive = native.write_archive

    def wrap(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            step(name, -1)
            return before[name](*args)

        return call

    def write(file: BinaryIO, *rest: Any) -> None:
        step("open", 0)
        own: Any = Watched(file, step)
        write_archive(own, *rest)
        own.flush()

    try:
        for name in OPERATIONS:
            setattr(io, name, wrap(name))
        native.write_archive = write  # type: ignore[attr-defined]
        yield
    finally:
        for name in OPERATIONS:
            setattr(io, name, before[name])
        native.write_archive = write_archive  # type: ignore[attr-defined]


def killed_at(number: int, library: Path, target: str, exports: tuple[str, ...]) -> str:
    """Strip in a child that kills itself before step `number`; the step's name, "" if it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def step(name: str, _: int) -> None:
            nonlocal count
            if count == number:
                os.write(writer, name.encode())
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        code = 1
        try:
            with watched(step):
                strip(library, target, exports)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        name = file.read()
    _, status = os.waitpid(child, 0)
    if not name and status:
        raise RuntimeError(f"the child ended with status {status}")
    return name


def main(library: str, target: str, *exports: str) -> None:
    """Kill a run before each of its steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = folder / "libcopy.a"
        old = Path(library).read_bytes()
        shutil.copyfile(library, copy)
        strip(copy, target, exports)
        new = copy.read_bytes()
        for number in range(10_000):
            shutil.copyfile(library, copy)
            at = killed_at(number, copy, target, exports)
            left = copy.read_bytes()
            state = {old: "old", new: "new"}.get(left, "neither")
            names = sorted(p.name for p in folder.iterdir())
            if at:
                copy.write_bytes(old)
                strip(copy, target, exports)
            after = sorted(p.name for p in folder.iterdir())
            good = copy.read_bytes() == new
            print(json.dumps([at, state, names, after, good]))
            if not at:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
