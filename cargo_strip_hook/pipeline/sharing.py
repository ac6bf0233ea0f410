"""A set of libraries from start to end: what they have in common goes into one more library.

locks -> is it done already? -> what is public -> engine -> verify -> replace

Each file is whole at every moment, and each library has what it needs: the common library is
replaced before the others by one that serves the old and the new ones, and after them by its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cargo_strip_hook import __version__
from cargo_strip_hook.archive import object_name, read_slices
from cargo_strip_hook.core.errors import (
    ArchiveError,
    ExportsError,
    InputError,
    LinkError,
    UsageError,
    reporting_lack_of_memory,
)
from cargo_strip_hook.core.lifetime import undisturbed
from cargo_strip_hook.core.requests import Granularity, Slice, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.forked import forked
from cargo_strip_hook.engines.sharing import (
    SharedLibrary,
    ShareRequest,
    ShareResult,
    join,
    share,
    survey,
)
from cargo_strip_hook.exports.decide import remembered
from cargo_strip_hook.formats import sharing_for
from cargo_strip_hook.link.share.report import SharedParts
from cargo_strip_hook.pipeline.companions import Companion, replace_texts, stage_texts
from cargo_strip_hook.pipeline.dependants import must_serve_no_other
from cargo_strip_hook.pipeline.linking import linked, set_linked
from cargo_strip_hook.pipeline.outcomes import Job
from cargo_strip_hook.pipeline.outputs import File, must_differ, read, written
from cargo_strip_hook.pipeline.parallel import spread
from cargo_strip_hook.pipeline.public import Public, decide_all
from cargo_strip_hook.pipeline.replacing import replace_set, together
from cargo_strip_hook.pipeline.strip import must_exist
from cargo_strip_hook.replace import (
    Staging,
    commit_all,
    left_over,
    library_lock,
    remove_litter,
    staging,
)
from cargo_strip_hook.verify import Expectation, Verified
from cargo_strip_hook.verify.marker import make_marker, marker_of_set, read_marker, set_of
from cargo_strip_hook.verify.sharing import SetMember, verify_joined, verify_set


@dataclass(frozen=True, slots=True)
class SetJob:
    """Libraries that are to share what they have in common, which goes to `common`.

    All of `jobs` ask for the same strip level and granularity. `each`: each job says what is public
    in its library alone, else one command line speaks of all. `companions` are replaced together
    with the libraries. `again` says what to do where a library was stripped before.
    """

    jobs: tuple[Job, ...]
    common: Path
    each: bool = False
    companions: tuple[Companion, ...] = ()
    again: Mapping[Path, Sequence[str]] = field(default_factory=dict)

    @property
    def strip(self) -> Strip:
        """The strip level of all."""
        return self.jobs[0].strip

    @property
    def granularity(self) -> Granularity:
        """The granularity of all."""
        return self.jobs[0].granularity

    @property
    def target(self) -> Target:
        """The target of all."""
        return self.jobs[0].target


@dataclass(frozen=True, slots=True)
class SetPart:
    """One library of a set; sizes in bytes.

    `parts` says what it shares with how many others, and what it does not share and why.
    """

    job: Job
    output: Path
    before: int
    after: int
    exports: tuple[str, ...]
    undefined: tuple[str, ...] = ()
    parts: SharedParts | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetOutcome:
    """What a run did, or would do. `common` is the common library's size, in bytes."""

    job: SetJob
    fresh: bool
    common: int
    parts: tuple[SetPart, ...]
    seconds: float


def check_set(job: SetJob) -> None:
    """Raise `UsageError` for what cannot be a set."""
    if len(job.jobs) < 2:
        raise UsageError(
            "one library has nothing to share with",
            help="name the other libraries of the set, or use `strip`",
        )
    for one in job.jobs:
        must_exist(one.library)
    outputs: dict[str, Path] = {}
    real: dict[str, Path] = {}
    for one in job.jobs:
        path = os.path.normcase(os.path.realpath(one.library))
        if path in real:
            raise UsageError(f"{one.library} is named twice")
        real[path] = one.library
        if one.output is not None:
            other = outputs.setdefault(os.path.normcase(one.output.name), one.library)
            if other is not one.library:
                raise UsageError(
                    f"{other} and {one.library} have the same name, and go to one folder",
                    help="give one of them another name, or share them in place",
                )
    if os.path.normcase(os.path.realpath(job.common)) in real:
        raise UsageError(
            f"the common library {job.common} is one of the libraries",
            help="give it a name of its own",
        )
    common = File(job.common, "the result")
    must_differ([*written(job.jobs), common], read(job.jobs))
    for one in job.jobs[1:]:
        if one.target.triple != job.target.triple:
            raise UsageError(
                f"{job.jobs[0].library} is for {job.target.triple}, "
                f"{one.library} for {one.target.triple}",
                help="a set is of one target: share those of each target apart",
            )
    sharing_for(job.target.object_format)


def share_libraries(job: SetJob, *, dry: bool = False, processes: int = 1) -> SetOutcome:
    """Make all libraries small, and one of what they have in common; or say what would be shared.

    With several `processes` so many libraries are verified at a time, if the system can fork.
    Either all files are complete and verified, or everything is as it was. Raises a
    `StripHookError` of the phase that failed.
    """
    begin = time.perf_counter()
    check_set(job)
    if _is_sliced(job):
        from cargo_strip_hook.pipeline.slicewise import share_sets

        return share_sets([job], dry=dry)[0]
    with ExitStack() as stack:
        if not dry:
            stack.enter_context(locked(job))
        stack.enter_context(reporting_lack_of_memory())
        done = _done(job, begin)
        if done is not None:
            if not dry:
                replace_texts(job.companions)
            return done
        must_serve_no_other(job.common, [one.output or one.library for one in job.jobs])
        exports = decide_all(job.jobs, each=job.each)
        return _surveyed(job, exports, begin) if dry else _make(job, exports, begin, processes)


@contextmanager
def locked(job: SetJob) -> Iterator[None]:
    """Hold the locks of all files that are written, taken in the order of their real paths."""
    files = {os.path.realpath(one.output or one.library) for one in job.jobs}
    files.add(os.path.realpath(job.common))
    files.update(os.path.realpath(file) for one in job.companions for file in one.files)
    with ExitStack() as stack:
        for name in sorted(files):
            stack.enter_context(library_lock(Path(name)))
        _finish(job)
        for name in sorted(files):
            remove_litter(Path(name))
        yield


def _finish(job: SetJob) -> None:
    """Go on where a run was killed while it replaced the libraries in place.

    Some are done then, and what the others are to become is complete and verified.
    """
    if any(one.output is not None for one in job.jobs):
        return
    markers = [_mark(one.library) for one in job.jobs]
    shared = {set_of(marker) for marker in (*markers, _mark(job.common)) if marker}
    if not any(markers) or all(markers) or len(shared) != 1:
        return
    (text,) = shared
    waiting = []
    for one in (one for one, marker in zip(job.jobs, markers, strict=True) if marker is None):
        left = left_over(one.library)
        if left is None or not text or set_of(_mark(left.path)) != text:
            return
        waiting.append(left)
    commit_all(waiting)


def _is_sliced(job: SetJob) -> bool:
    """Whether there are universal libraries."""
    return any(read_slices(one.library)[0].architecture for one in job.jobs)


def _mark(path: Path) -> bytes | None:
    """The marker of a library, of a universal one that of its first slice."""
    try:
        return read_marker(read_slices(path)[0])
    except ArchiveError:
        return None


def _marker(job: SetJob, exports: Sequence[str], digest: str) -> bytes:
    plain = make_marker(exports, job.strip.value, job.granularity.value, "native", __version__)
    return marker_of_set(plain, f"{digest} {_named(job)}")


def _named(job: SetJob) -> str:
    """The libraries of a set by their names, whatever folder they are in."""
    return " ".join(sorted(object_name(one.library) for one in job.jobs))


def _done(job: SetJob, begin: float) -> SetOutcome | None:
    """The outcome of a set where nothing is left to do.

    Raises `InputError` for a library that was stripped before, and is not what was asked for.
    """
    markers = [read_marker(one.library) for one in job.jobs]
    if not any(markers):
        return None
    found = {set_of(marker) for marker in (*markers, read_marker(job.common))}
    in_place = all(one.output is None for one in job.jobs)
    digest, _, named = min(found).partition(" ")
    if len(found) == 1 and named == _named(job) and in_place:
        exports = _remembered(job, markers)
        if [_marker(job, names, digest) for names in exports] == markers:
            parts = [
                SetPart(one, one.library, size, size, names)
                for one, names in zip(job.jobs, exports, strict=True)
                for size in [one.library.stat().st_size]
            ]
            size = job.common.stat().st_size
            return SetOutcome(job, True, size, tuple(parts), time.perf_counter() - begin)
    _none_stripped(job, markers)
    return None


def _none_stripped(job: SetJob, markers: Sequence[bytes | None]) -> None:
    for one, marker in zip(job.jobs, markers, strict=True):
        if marker is not None:
            raise InputError(
                "this library was stripped before, so that what it needs cannot be told apart",
                path=str(one.library),
                help=job.again.get(one.library, "build it again, then share it with the others"),
            )


def _remembered(job: SetJob, markers: Sequence[bytes | None]) -> list[tuple[str, ...]]:
    """What would be public in libraries that are done; nothing where that cannot be decided."""
    known = [
        remembered(one.request, marker, one.library.name)
        for one, marker in zip(job.jobs, markers, strict=True)
    ]
    if all(known):
        return [decided.names() for decided in known if decided]
    try:
        return [public.names for public in decide_all(job.jobs, each=job.each)]
    except ExportsError:
        return []


def _surveyed(
    job: SetJob, exports: Sequence[Public], begin: float, *, lean: bool = True
) -> SetOutcome:
    """What would be shared; nothing is written."""
    outputs = [one.library for one in job.jobs]
    asked = _request(job, [Slice(one.library) for one in job.jobs], outputs, exports)
    surveyed = survey(replace(asked, lean=lean))
    parts = [
        SetPart(
            one,
            one.output or one.library,
            one.library.stat().st_size,
            0,
            public.names,
            parts=shared,
            warnings=public.warnings,
        )
        for one, public, shared in zip(job.jobs, exports, surveyed, strict=True)
    ]
    return SetOutcome(job, False, 0, tuple(parts), time.perf_counter() - begin)


def _request(
    job: SetJob,
    archives: Sequence[Slice],
    outputs: Sequence[Path],
    exports: Sequence[Public],
    common: Path | None = None,
) -> ShareRequest:
    libraries = tuple(
        SharedLibrary(archive, output, public.names, (one.output or one.library).stem)
        for one, archive, output, public in zip(job.jobs, archives, outputs, exports, strict=True)
    )
    return ShareRequest(
        libraries,
        common or job.common,
        job.target,
        job.strip,
        job.granularity,
        lambda names, digest: _marker(job, names, digest),
        job.common.stem,
    )


def _make(job: SetJob, exports: Sequence[Public], begin: float, processes: int) -> SetOutcome:
    with ExitStack() as stack:
        staged: list[Staging] = []
        for one in job.jobs:
            with undisturbed():  # what is made is known to `stack`
                place = staging(one.library, root=one.root, output=one.output)
                staged.append(stack.enter_context(place))
        folder = stack.enter_context(staged[0].working_folder())
        final = folder / "common.a"
        request = _request(
            job, [Slice(s.library) for s in staged], [s.path for s in staged], exports, final
        )
        made = forked(share, request)
        verified = _verified(job, request, made, processes)
        parts = _parts(job, [s.path for s in staged], exports, verified, made)
        _must_tell(job, parts)
        if any(one.link_check for one in job.jobs):
            names = [public.names for public in exports]
            set_linked(job.jobs, [s.path for s in staged], names, final, folder)
        texts = stage_texts(job.companions, stack)
        size = final.stat().st_size
        with undisturbed():
            replace_set(job.common, final, staged, texts, job.target)
    return SetOutcome(job, False, size, parts, time.perf_counter() - begin)


def join_libraries(job: SetJob, *, dry: bool = False, processes: int = 1) -> SetOutcome:
    """Make one library of several, with what they have in common once, in place of `job.common`.

    Raises a `StripHookError` of the phase that failed, `LinkError` for two definitions of one name
    that is public.
    """
    begin = time.perf_counter()
    check_set(job)
    if _is_sliced(job):
        from cargo_strip_hook.pipeline.slicewise import join_slices

        return join_slices(job, dry=dry)
    with ExitStack() as stack:
        stack.enter_context(reporting_lack_of_memory())
        if not dry:
            stack.enter_context(library_lock(job.common))
            remove_litter(job.common)
        _none_stripped(job, [read_marker(one.library) for one in job.jobs])
        exports = decide_all(job.jobs)
        _must_differ(job, exports)
        if dry:
            several = not sharing_for(job.target.object_format).joins
            return _surveyed(job, exports, begin, lean=several)
        staged = stack.enter_context(staging(job.jobs[0].library, output=job.common))
        folder = stack.enter_context(staged.working_folder())
        if sharing_for(job.target.object_format).joins:
            parts = _one_object(job, staged.path, exports, processes)
        else:
            parts = _several_objects(job, staged.path, folder, exports, processes)
        if any(one.link_check for one in job.jobs):
            names = tuple(name for public in exports for name in public.names)
            linked(job.jobs[0], job.target, staged.path, names, folder)
        size = staged.path.stat().st_size
        staged.commit()
    return SetOutcome(job, False, size, parts, time.perf_counter() - begin)


def _one_object(
    job: SetJob, path: Path, exports: Sequence[Public], processes: int
) -> tuple[SetPart, ...]:
    """Write one library, of one object, to `path`, and verify it."""
    files = [path for _ in job.jobs]
    archives = [Slice(one.library.resolve()) for one in job.jobs]
    request = replace(_request(job, archives, files, exports, path), may_be_empty=True)
    made = forked(join, request)
    verified = _verified(job, request, made, processes)
    return _parts(job, files, exports, verified, made)


def _several_objects(
    job: SetJob, path: Path, folder: Path, exports: Sequence[Public], processes: int
) -> tuple[SetPart, ...]:
    """The same with an object for each library, and those that libraries share."""
    files = [folder / f"{number}.a" for number in range(len(job.jobs))]
    common = folder / "common.a"
    archives = [Slice(one.library.resolve()) for one in job.jobs]
    request = replace(_request(job, archives, files, exports, common), may_be_empty=True)
    made = forked(share, request)
    verified = _verified(job, request, made, processes)
    together([*files, common], path, job.target)
    verify_joined(path, [*files, common])
    return _parts(job, files, exports, verified, made)


def _must_differ(job: SetJob, exports: Sequence[Public]) -> None:
    """Raise `LinkError` for a name that is public in two libraries."""
    owner: dict[str, Path] = {}
    for one, public in zip(job.jobs, exports, strict=True):
        for name in public.names:
            other = owner.setdefault(name, one.library)
            if other is not one.library:
                raise LinkError(
                    f"`{name}` is public in {other} and in {one.library}",
                    help="a program cannot link both: make one of them private",
                )


def _parts(
    job: SetJob,
    files: Sequence[Path],
    exports: Sequence[Public],
    verified: Sequence[Verified],
    made: ShareResult,
) -> tuple[SetPart, ...]:
    """What there is to say of each library; `files` are the small ones."""
    return tuple(
        SetPart(
            one,
            one.output or one.library,
            one.library.stat().st_size,
            file.stat().st_size,
            public.names,
            result.undefined,
            shared,
            tuple(dict.fromkeys((*public.warnings, *warnings))),
        )
        for one, file, public, result, shared, warnings in zip(
            job.jobs, files, exports, verified, made.parts, made.warnings, strict=True
        )
    )


def _verified(
    job: SetJob, request: ShareRequest, made: ShareResult, processes: int
) -> list[Verified]:
    joined = len(made.markers) == 1
    markers = made.markers * len(request.libraries) if joined else made.markers[:-1]
    members = [
        SetMember(
            one.archive,
            one.output,
            Expectation(job.target, one.exports, job.strip, rows, marker, import_members=imports),
        )
        for one, rows, marker, imports in zip(
            request.libraries, made.link_maps, markers, made.imports, strict=True
        )
    ]
    expected = Expectation(job.target, (), job.strip, None, made.markers[-1])
    return verify_set(
        members,
        None if joined else request.common,
        expected,
        lambda check, all: spread(check, all, processes),
    )


def _must_tell(job: SetJob, parts: Sequence[SetPart]) -> None:
    prefix = job.target.symbol_prefix
    undefined = {
        part.job.library: [name.removeprefix(prefix) for name in part.undefined] for part in parts
    }
    defined = {name.removeprefix(prefix) for part in parts for name in part.exports}
    for one in job.companions:
        one.must_tell(undefined, defined)


__all__ = [
    "SetJob",
    "SetOutcome",
    "SetPart",
    "check_set",
    "join_libraries",
    "locked",
    "share_libraries",
]
