"""A library as the archives that it consists of: one, or several in a universal file.

Their targets, and what is to be told of all of them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from cargo_strip_hook.archive import Part, open_archive, parts_of
from cargo_strip_hook.core.errors import InputError, StripHookError, UsageError
from cargo_strip_hook.core.requests import Export, ExportSet, Origin, Statistics
from cargo_strip_hook.core.target import Target


def slices_of(library: Path, named: Target) -> list[tuple[Part, Target]]:
    """The archives of a library, each with its target.

    `named` is the target of a plain library, and of the slice with its architecture; what the
    others are for their objects say. Raises `ArchiveError` for a damaged universal file,
    `UsageError` where none of its slices is for `named`.
    """
    from cargo_strip_hook.formats.detect import slice_target

    parts = parts_of(library)
    if not parts[0].architecture:
        return [(parts[0], named)]
    found = []
    for part in parts:
        with about(part), open_archive(part) as archive:
            found.append((part, slice_target(archive, named)))
    if all(target != named for _, target in found):
        names = ", ".join(p.architecture for p in parts)
        raise UsageError(
            f"{library} has no slice for {named.triple} (it has {names})",
            help="leave `--target` out: the slices' objects say what they are for",
        )
    return found


@contextmanager
def about(part: Part) -> Iterator[None]:
    """Says which library or slice an error of the body is about: readers see members only."""
    try:
        yield
    except StripHookError as e:
        if part.architecture and part.name not in e.what:
            e.what = f"{part.name}: {e.what}"
        elif isinstance(e, InputError) and e.path is None and e.member is not None:
            e.path, e.what = str(part), f"{part}{e.what}"  # which begins with the member
        e.args = (e.what,)
        raise


def united(slices: Sequence[tuple[str, ExportSet]]) -> ExportSet:
    """What is public in any of the slices of a library; each comes with its architecture."""
    if len({s for _, s in slices}) == 1:
        return slices[0][1]

    def all_of(kind: str) -> tuple[Export, ...]:
        origins: dict[str, dict[Origin, None]] = {}
        for _, exports in slices:
            for export in getattr(exports, kind):
                origins.setdefault(export.name, {}).update(dict.fromkeys(export.origins))
        return tuple(Export(name, tuple(sorted(origins[name]))) for name in sorted(origins))

    def told(texts: Sequence[tuple[str, str]]) -> list[str]:
        """Each text once, with the architectures that it is true of if it is not of all."""
        of: dict[str, list[str]] = {}
        for architecture, text in texts:
            of.setdefault(text, []).append(architecture)
        whole = len(slices)
        return [t if len(a) == whole else f"{', '.join(a)}: {t}" for t, a in of.items()]

    return ExportSet(
        all_of("exports"),
        all_of("keep"),
        all_of("missing"),
        "; ".join(told([(a, s.source) for a, s in slices])),
        tuple(told([(a, w) for a, s in slices for w in s.warnings])),
    )


def total(counts: Sequence[Statistics]) -> Statistics:
    """The sums of all counts."""
    if len(counts) == 1:
        return counts[0]
    names = [f.name for f in fields(Statistics)]
    return Statistics(**{n: sum(getattr(c, n) for c in counts) for n in names})
