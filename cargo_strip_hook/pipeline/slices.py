"""What the slices of a library have together: public symbols, warnings and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from cargo_strip_hook.core.requests import Export, ExportSet, Origin, Statistics


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

    def merged(texts: Sequence[tuple[str, str]]) -> list[str]:
        """Each text once, after the architectures that it is true of where those are not all."""
        of: dict[str, list[str]] = {}
        for architecture, text in texts:
            of.setdefault(text, []).append(architecture)
        whole = len(slices)
        return [t if len(a) == whole else f"{', '.join(a)}: {t}" for t, a in of.items()]

    return ExportSet(
        all_of("exports"),
        all_of("keep"),
        all_of("missing"),
        "; ".join(merged([(a, s.source) for a, s in slices])),
        tuple(merged([(a, w) for a, s in slices for w in s.warnings])),
    )


def total(counts: Sequence[Statistics]) -> Statistics:
    """The sums of all counts."""
    if len(counts) == 1:
        return counts[0]
    names = [f.name for f in fields(Statistics)]
    return Statistics(**{n: sum(getattr(c, n) for c in counts) for n in names})
