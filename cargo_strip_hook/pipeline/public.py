"""What is public in the libraries of a set, where one command line speaks of all of them.

What names public symbols need not say something of each library, but of one at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cargo_strip_hook.archive import Archive, open_archive
from cargo_strip_hook.core.errors import ExportsError
from cargo_strip_hook.core.requests import ExportSet, Slice
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.exports.library import decide_exports
from cargo_strip_hook.formats.detect import must_be_for
from cargo_strip_hook.formats.slices import about
from cargo_strip_hook.pipeline.outcomes import Job


@dataclass(frozen=True, slots=True)
class Public:
    """What is public in a library."""

    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tried:
    """What was decided; `left` are sources that say nothing of this library, `error` why."""

    decided: ExportSet | None
    left: frozenset[str] = frozenset()
    error: ExportsError | None = None


def decide_all(jobs: Sequence[Job], *, each: bool = False) -> list[Public]:
    """Decide what is public in each library.

    `each`: what a job names has to say something of its own library. None is a universal library.
    Raises `ExportsError` for a source that says nothing of any library, and for a library that none
    speaks of.
    """
    tried = [_of_library(job) for job in jobs]
    for one in tried if each else ():
        if one.error is not None:
            raise one.error
    nowhere = frozenset.intersection(*(one.left for one in tried))
    defined = {name for one in tried if one.decided for name in one.decided.names()}
    for job, one in zip(jobs, tried, strict=True):
        if one.error is None:
            continue
        missing = {e.name for e in one.decided.missing} if one.decided else set()
        unknown = missing - defined and not job.request.allow_missing
        if nowhere or unknown:
            raise one.error
        if one.decided is None or not one.decided.names():
            raise ExportsError(
                f"nothing says what is public in {job.library}",
                help="name its public symbols as well, with `--export`, `--header` or `--preset`",
            ) from one.error
    return [_public(one) for one in tried]


def _public(tried: _Tried) -> Public:
    assert tried.decided is not None
    warnings = () if tried.error else tried.decided.warnings
    return Public(tried.decided.names(), warnings)


def _of_library(job: Job) -> _Tried:
    whole = Slice(job.library)
    with about(whole), open_archive(whole) as archive:
        must_be_for(archive, job.target)
        try:
            return _Tried(decide_exports(archive, job.request))
        except ExportsError as e:
            return _by_source(archive, job.request, e)


def _by_source(archive: Archive, request: ExportRequest, error: ExportsError) -> _Tried:
    """The same with those sources alone that say something of a library."""
    nothing = replace(request, headers=(), named={}, keep=(), cdylib=None)
    left: set[str] = set()
    named: dict[str, tuple[str | Path, ...]] = {}
    for source, values in request.named.items():
        speaking = []
        for value in values:
            try:
                decide_exports(archive, replace(nothing, named={source: (value,)}))
                speaking.append(value)
            except ExportsError:
                left.add(f"{source} {value}")
        named[source] = tuple(speaking)
    if not (any(named.values()) or request.headers or request.cdylib):
        return _Tried(None, frozenset(left), error)
    smaller = replace(request, named=named, allow_missing=True)
    try:
        decided = decide_exports(archive, smaller)
    except ExportsError:
        return _Tried(None, frozenset(left), error)
    return _Tried(decided, frozenset(left), error)


__all__ = ["Public", "decide_all"]
