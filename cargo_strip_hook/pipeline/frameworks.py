"""Sets of xcframeworks: each variant is a set of libraries, and a common one has the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cargo_strip_hook.archive.xcframework import Variant, listing_like, variants
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.pipeline.outcomes import Job
from cargo_strip_hook.pipeline.sharing import SetJob, SetOutcome
from cargo_strip_hook.pipeline.slicewise import share_sets
from cargo_strip_hook.pipeline.strip import may_be_signed
from cargo_strip_hook.replace import staging

_LISTING = "Info.plist"


def share_frameworks(
    frameworks: Sequence[Path],
    common: Path,
    job_of: Callable[[Path, Variant], Job],
    *,
    dry: bool = False,
) -> list[SetOutcome]:
    """Share in each variant, in place, and write the xcframework of what they have in common.

    `job_of` gives the job of a variant's library. With `dry` say what would be shared. Either all
    variants are complete and verified, or everything is as it was. Raises a `StripHookError` of the
    phase that failed.
    """
    every = {folder: {v.identifier: v for v in variants(folder)} for folder in frameworks}
    first = every[frameworks[0]]
    for folder, mine in every.items():
        if mine.keys() != first.keys():
            raise UsageError(
                f"{frameworks[0]} has the variants {', '.join(sorted(first))}, "
                f"{folder} {', '.join(sorted(mine))}",
                help="a set is of the same variants: make xcframeworks with these alone",
            )
        for variant in mine.values():
            may_be_signed(variant.library, allowed=False)
    library = f"lib{common.stem}.a"
    jobs = [
        SetJob(
            tuple(job_of(folder, mine[identifier]) for folder, mine in every.items()),
            common / identifier / library,
        )
        for identifier in first
    ]
    if dry:
        return share_sets(jobs, dry=True)
    new = not common.exists()
    try:
        for job in jobs:
            job.common.parent.mkdir(parents=True, exist_ok=True)
        if new:
            (common / _LISTING).write_bytes(b"")
        _list(frameworks[0], common, library)
        return share_sets(jobs)
    except BaseException:
        if new and not any(job.common.exists() for job in jobs):
            shutil.rmtree(common, ignore_errors=True)
        raise


def _list(like: Path, common: Path, library: str) -> None:
    """Write the list of the common xcframework's libraries, where it is another one."""
    listing, place = listing_like(like, library), common / _LISTING
    if place.read_bytes() != listing:
        with staging(place, output=place) as staged:
            staged.path.write_bytes(listing)
            staged.commit()


__all__ = ["share_frameworks"]
