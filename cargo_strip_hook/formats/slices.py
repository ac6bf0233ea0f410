"""The archives of a library, one or several in a universal file, and their targets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cargo_strip_hook.archive import open_archive, read_slices
from cargo_strip_hook.core.errors import InputError, StripHookError, UsageError
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.core.target import Target


def slices_of(library: Path, named: Target) -> list[tuple[Slice, Target]]:
    """The archives of a library, each with its target.

    `named` is the target of a plain library, and of the slice with its architecture; what the
    others are for their objects say. Raises `ArchiveError` for a damaged universal file,
    `UsageError` where none of its slices is for `named`.
    """
    from cargo_strip_hook.formats.detect import slice_target

    slices = read_slices(library)
    if not slices[0].architecture:
        return [(slices[0], named)]
    archives = []
    for slice_ in slices:
        with about(slice_), open_archive(slice_) as archive:
            archives.append((slice_, slice_target(archive, named)))
    if all(target != named for _, target in archives):
        names = ", ".join(s.architecture for s in slices)
        raise UsageError(
            f"{library} has no slice for {named.triple} (it has {names})",
            help="leave `--target` out: the slices' objects say what they are for",
        )
    return archives


@contextmanager
def about(slice_: Slice) -> Iterator[None]:
    """Says which library or slice an error of the body is about: readers see members only."""
    try:
        yield
    except StripHookError as e:
        if slice_.architecture and slice_.name not in e.what:
            e.what = f"{slice_.name}: {e.what}"
        elif isinstance(e, InputError) and e.path is None and e.member is not None:
            e.path, e.what = str(slice_), f"{slice_}{e.what}"  # which begins with the member
        e.args = (e.what,)
        raise
