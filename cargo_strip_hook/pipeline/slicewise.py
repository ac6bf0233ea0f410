"""Sets of universal libraries, slice by slice, and several sets at once: all or none.

Each slice of a set is a set of plain libraries, made and verified in a folder of its own; the files
are put together of those.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cargo_strip_hook.archive import read_slices, write_universal
from cargo_strip_hook.core.errors import (
    ArchiveError,
    StripHookError,
    UsageError,
    VerifyError,
    reporting_lack_of_memory,
)
from cargo_strip_hook.core.lifetime import undisturbed
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.slices import slices_of
from cargo_strip_hook.link.share.report import summed
from cargo_strip_hook.pipeline.outcomes import Job
from cargo_strip_hook.pipeline.replacing import both
from cargo_strip_hook.pipeline.sharing import (
    SetJob,
    SetOutcome,
    SetPart,
    check_set,
    join_libraries,
    locked,
    share_libraries,
)
from cargo_strip_hook.replace import Staging, commit_all, library_lock, remove_litter, staging
from cargo_strip_hook.verify import verify_universal
from cargo_strip_hook.verify.marker import read_marker, set_of


def share_sets(jobs: Sequence[SetJob], *, dry: bool = False) -> list[SetOutcome]:
    """`share_libraries` for several sets; their libraries may be universal.

    Either all files of all sets are complete and verified, or everything is as it was.
    """
    begin = time.perf_counter()
    for job in jobs:
        check_set(job)
    with ExitStack() as stack:
        if not dry:
            for job in sorted(jobs, key=lambda j: str(j.common.resolve())):
                stack.enter_context(locked(job))
        stack.enter_context(reporting_lack_of_memory())
        made = [_made(job, stack, dry=dry) for job in jobs]
        if not dry:
            with undisturbed():
                _replace([one for one in made if not one.fresh])
    seconds = time.perf_counter() - begin
    return [one.outcome(seconds) for one in made]


def join_slices(job: SetJob, *, dry: bool = False) -> SetOutcome:
    """`join_libraries` for universal libraries."""
    if dry:
        return share_sets([job], dry=True)[0]
    begin = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(reporting_lack_of_memory())
        stack.enter_context(library_lock(job.common))
        remove_litter(job.common)
        staged = stack.enter_context(staging(job.jobs[0].library, output=job.common))
        sets = _sets(job, stack.enter_context(staged.working_folder()))
        outcomes = []
        for one in sets:
            with _speaking_of(job, one):
                outcomes.append(join_libraries(one.job))
        _put(staged.path, job.jobs[0].library, [Slice(one.job.common) for one in sets])
        size = staged.path.stat().st_size
        staged.commit()
    before = tuple(one.library.stat().st_size for one in job.jobs)
    return _Made(job, tuple(outcomes), size, before).outcome(time.perf_counter() - begin)


@dataclass(frozen=True, slots=True)
class _Set:
    """One slice of a set: plain libraries in a folder. `old`: the common library's before."""

    architecture: str
    job: SetJob
    old: Path | None


@dataclass(frozen=True, slots=True)
class _Made:
    """A set that is done: the outcomes of its slices, and sizes in bytes.

    `staged` are the small libraries, `final` the common one, which wait; `both` is one that serves
    the old small libraries, too.
    """

    job: SetJob
    slices: tuple[SetOutcome, ...]
    common: int
    before: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    staged: tuple[Staging, ...] = ()
    final: Path | None = None
    both: Path | None = None

    @property
    def fresh(self) -> bool:
        return all(one.fresh for one in self.slices)

    def outcome(self, seconds: float) -> SetOutcome:
        sizes = self.sizes or (0,) * len(self.job.jobs)
        parts = [
            _part(one, [outcome.parts[n] for outcome in self.slices], (before, size))
            for n, (one, before, size) in enumerate(
                zip(self.job.jobs, self.before, sizes, strict=True)
            )
        ]
        return SetOutcome(self.job, self.fresh, self.common, tuple(parts), seconds)


def _part(job: Job, slices: Sequence[SetPart], sizes: tuple[int, int]) -> SetPart:
    """What there is to say of a library, of what there is to say of its slices.

    `sizes` are those before and after.
    """

    def every(texts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for one in texts for text in one))

    told = [one.parts for one in slices if one.parts is not None]
    return SetPart(
        job,
        job.output or job.library,
        sizes[0],
        sizes[1] or sum(one.after for one in slices),
        tuple(sorted(every([one.exports for one in slices]))),
        tuple(sorted(every([one.undefined for one in slices]))),
        summed(told) if told else None,
        every([one.warnings for one in slices]),
    )


def _made(job: SetJob, stack: ExitStack, *, dry: bool) -> _Made:
    """Share in each slice, and put the files together; or say what would be shared."""
    before = tuple(one.library.stat().st_size for one in job.jobs)
    if dry:
        sets = _sets(job, Path(stack.enter_context(TemporaryDirectory())))
        return _Made(job, _shared(job, sets, dry=True), 0, before)
    staged: list[Staging] = []
    for one in job.jobs:
        with undisturbed():  # what is made is known to `stack`
            place = staging(one.library, root=one.root, output=one.output)
            staged.append(stack.enter_context(place))
    folder = stack.enter_context(staged[0].working_folder())
    sets = _sets(job, folder)
    outcomes = _shared(job, sets, dry=False)
    if all(one.fresh for one in outcomes):
        return _Made(job, outcomes, job.common.stat().st_size, before, before)
    for n, waiting in enumerate(staged):
        of = {s.architecture: Slice(s.job.jobs[n].library) for s in sets}
        order = [s.architecture for s in read_slices(waiting.library)]
        _put(waiting.path, waiting.library, [of[architecture] for architecture in order])
    final = folder / "common.a"
    _put(final, staged[0].library, [Slice(one.job.common) for one in sets])
    serving = None
    if any(one.old for one in sets):
        serving = folder / "both.a"
        _put(serving, staged[0].library, [_serving_both(one) for one in sets])
    sizes = tuple(waiting.path.stat().st_size for waiting in staged)
    size = final.stat().st_size
    return _Made(job, outcomes, size, before, sizes, tuple(staged), final, serving)


def _serving_both(one: _Set) -> Slice:
    """A common library of the new members and the old ones."""
    if one.old is None:
        return Slice(one.job.common)
    out = one.old.with_name("both.a")
    both(one.job.common, one.old, out, one.job.target)
    return Slice(out)


def _shared(job: SetJob, sets: Sequence[_Set], *, dry: bool) -> tuple[SetOutcome, ...]:
    outcomes = []
    for one in sets:
        with _speaking_of(job, one):
            outcomes.append(share_libraries(one.job, dry=dry))
    return tuple(outcomes)


def _sets(job: SetJob, folder: Path) -> list[_Set]:
    """The slices of a set, each with its files in a folder of its own.

    Raises `UsageError` where libraries have other slices than the first.
    """
    every = [slices_of(one.library, one.target) for one in job.jobs]
    first = _kinds(every[0])
    for one, mine in zip(job.jobs[1:], every[1:], strict=True):
        if _kinds(mine) != first:
            here, there = (
                ", ".join(f"{a or t}" for a, t in sorted(kinds.items()))
                for kinds in (first, _kinds(mine))
            )
            raise UsageError(
                f"{job.jobs[0].library} is for {here}, {one.library} for {there}",
                help="universal libraries share code slice by slice: all need the same ones",
            )
    found = []
    for number, (slice_, target) in enumerate(every[0]):
        architecture = slice_.architecture
        place = folder / f"{number}"
        jobs = []
        for n, (one, mine) in enumerate(zip(job.jobs, every, strict=True)):
            part = next(s for s, _ in mine if s.architecture == architecture)
            path = _copied(part, place / f"{n}" / (one.output or one.library).name)
            jobs.append(_thin(one, path, target))
        common = place / "common" / job.common.name
        old = _old_common(job.common, architecture)
        if old is not None:
            _copied(old, common)
            old = Slice(_copied(old, place / "old" / job.common.name))
        common.parent.mkdir(parents=True, exist_ok=True)
        thin = replace(job, jobs=tuple(jobs), common=common)
        found.append(_Set(architecture, thin, old.path if old else None))
    return found


def _kinds(slices: Sequence[tuple[Slice, Target]]) -> dict[str, str]:
    return {one.architecture: target.triple for one, target in slices}


def _thin(job: Job, path: Path, target: Target) -> Job:
    request = replace(job.request, target=target)
    return replace(job, library=path, target=target, request=request, output=None, root=None)


def _old_common(path: Path, architecture: str) -> Slice | None:
    """The slice of the common library that there is already."""
    if not path.is_file():
        return None
    try:
        mine = [s for s in read_slices(path) if s.architecture == architecture]
    except ArchiveError:
        return None
    return mine[0] if mine and set_of(read_marker(mine[0])) else None


def _copied(part: Slice, path: Path) -> Path:
    """A slice as a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.path.open("rb") as source, path.open("wb") as out:
        source.seek(part.start)
        left = part.length()
        while left:
            chunk = source.read(min(left, 1 << 20))
            if not chunk:
                raise ArchiveError("became shorter while it was read", path=str(part.path))
            left -= out.write(chunk)
    return path


def _put(path: Path, like: Path, slices: Sequence[Slice]) -> None:
    """Write a file of the same slices as `like`, in its order, and verify it."""
    if not read_slices(like)[0].architecture:
        shutil.copyfile(slices[0].path, path)
        return
    with path.open("wb") as file:
        write_universal(file, like, slices)
    verify_universal(like, path, slices)


def _replace(made: Sequence[_Made]) -> None:
    """The common libraries for the old and the new, then all others, then the common libraries."""
    for one in made:
        _commit_common(one, one.both or one.final)
    commit_all([staged for one in made for staged in one.staged])
    for one in made:
        if one.both is not None:
            _commit_common(one, one.final)


def _commit_common(made: _Made, source: Path | None) -> None:
    assert source is not None
    first = made.staged[0]
    like = first.target if first.committed else first.library
    with staging(like, output=made.job.common) as waiting:
        shutil.copyfile(source, waiting.path)
        waiting.commit()


@contextmanager
def _speaking_of(job: SetJob, one: _Set) -> Iterator[None]:
    """Errors speak of the libraries that were named, not of copies of their slices."""
    try:
        yield
    except StripHookError as e:
        names = {str(one.job.common): str(job.common)}
        for thin, named in zip(one.job.jobs, job.jobs, strict=True):
            names[str(thin.library)] = str(Slice(named.library, 0, None, one.architecture))

        def told(text: str) -> str:
            for copy, name in names.items():
                text = text.replace(copy, name)
            return text

        e.what, e.lines, e.help = told(e.what), tuple(map(told, e.lines)), tuple(map(told, e.help))
        if getattr(e, "path", None):
            e.path = told(str(e.path))  # type: ignore[attr-defined]
        if isinstance(e, VerifyError):
            e.findings = tuple(map(told, e.findings))
        e.args = (e.what,)
        raise


__all__ = ["join_slices", "share_sets"]
