"""The files that a run reads and writes: no result may be written over another one or an input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.exports.sources import named_files
from cargo_strip_hook.replace import reserved

if TYPE_CHECKING:
    from cargo_strip_hook.pipeline.outcomes import Job


@dataclass(frozen=True, slots=True)
class File:
    """A file by the name that the user gave, and what it is for.

    `library`: only this name of the file is replaced, so that other names of the same file (cargo
    makes hard links) do no harm.
    """

    path: Path
    what: str
    library: bool = False


def written(jobs: Iterable[Job]) -> list[File]:
    """The files that the jobs write."""
    files = []
    for job in jobs:
        if job.output is None:
            files.append(File(job.library, "the library", library=True))
        else:
            files.append(File(job.output, "`--output`"))
        if job.twin is not None:
            files.append(File(job.twin, "`--debug-twin`"))
    return files


def read(jobs: Iterable[Job]) -> list[File]:
    """The files that the jobs read, except libraries that they replace."""
    files = []
    for job in jobs:
        request = job.request
        files += [File(p, "a header") for p in request.headers]
        files += [File(path, noun) for path, noun in named_files(request.named).items()]
        if request.cdylib is not None:
            files.append(File(request.cdylib, "the shared library"))
        # an `--output` that is the library itself replaces it, as without the option
        if job.output is not None and not _same(job.output, job.library):
            files.append(File(job.library, "the library", library=True))
    return list(dict.fromkeys(files))


def must_differ(results: Sequence[File], inputs: Sequence[File]) -> None:
    """Raise `UsageError` where a result is the same file as another result or an input.

    Files are compared by what they are, not by name. Writes nothing.
    """
    paths: dict[str, File] = {}
    files: dict[tuple[int, int], File] = {}
    for one in results:
        path = _real(one.path)
        other = paths.setdefault(path, one)
        if other is not one:
            if one.library and other.library:
                raise UsageError(f"{one.path} is named twice")
            raise _both(other, one)
        number = _number(one.path)
        if number is not None:
            other = files.setdefault(number, one)
            if other is not one and not (one.library and other.library):
                raise _both(other, one)
    own = {
        os.path.normcase(name): one
        for one in results
        for name in map(str, reserved(Path(os.path.realpath(one.path))))
    }
    for one in (*results, *inputs):
        path = _real(one.path)
        if path in own:
            raise UsageError(
                f"{one.path} has a name that is used while {own[path].path} is made",
                help="give it another name; nothing was changed",
            )
    for one in inputs:
        number = _number(one.path)
        result = paths.get(_real(one.path)) or (files.get(number) if number else None)
        if result is not None:
            raise _both(result, one)


def _both(first: File, second: File) -> UsageError:
    return UsageError(
        f"{first.what} {first.path} and {second.what} {second.path} are the same file",
        help="give each result a name of its own; nothing was changed",
    )


def _same(first: Path, second: Path) -> bool:
    return _real(first) == _real(second) or (_number(first) or 0) == (_number(second) or 1)


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _number(path: Path) -> tuple[int, int] | None:
    """What identifies a file, whatever its name; None where there is no file."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return (facts.st_dev, facts.st_ino) if facts.st_ino else None
