"""The report as a page that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from cargo_strip_hook.core.text import size
from cargo_strip_hook.present import sizes as present
from cargo_strip_hook.present.plain import html as escape
from cargo_strip_hook.present.plain import plain
from cargo_strip_hook.present.treemap import Box, Leaf, drawing

if TYPE_CHECKING:
    from cargo_strip_hook.analysis.sizes import Difference, Sizes
    from cargo_strip_hook.core.requests import ExportSet

_ALL = 10**9  # rows of a table: a page can have all of them
# The page loads nothing, and only its own scripts may run.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A library, or a slice of one. `difference` is how it differs from another one."""

    sizes: Sizes
    exports: ExportSet | None = None
    difference: Difference | None = None


def page(subjects: Sequence[Subject]) -> str:
    """The whole page."""
    title = subjects[0].sizes.library.name
    inside = "\n".join(_subject(s, number) for number, s in enumerate(subjects))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}: where the bytes are</title>
<link rel="icon" href="data:,">
<style>
{_resource("page.css")}</style>
</head>
<body>
<main>
{inside}
</main>
<script>
{_resource("page.js")}</script>
</body>
</html>
"""


def _resource(name: str) -> str:
    return files("cargo_strip_hook.present").joinpath(name).read_text(encoding="utf-8")


def _subject(subject: Subject, number: int) -> str:
    sizes = subject.sizes
    if subject.difference is None:
        title = present.headline(sizes)
        tables = present.tables(sizes, _ALL)
    else:
        title = present.difference_headline(subject.difference)
        tables = present.difference_tables(subject.difference, _ALL)
    heading = "h1" if not number else "h2"
    parts = [
        "<section>",
        f"<{heading}>{escape(title)}</{heading}>",
        f"<p>{escape(sizes.target.triple)}</p>",
        _map(sizes),
        *(_table(t) for t in tables),
    ]
    if subject.exports is not None:
        parts.append(_exports(subject.exports))
    return "\n".join([*parts, "</section>"])


def _map(sizes: Sizes) -> str:
    total = sum(sizes.loaded.values())
    if not total:
        return "<p>A program loads nothing of it.</p>"
    boxes = [
        Box(
            plain(crate.name),
            f"{crate.name}: {size(crate.size)}, {100 * crate.size / total:.1f} % ("
            + ", ".join(f"{kind} {size(n)}" for kind, n in crate.kinds.items() if n)
            + ")",
            tuple(Leaf(kind, n) for kind, n in crate.kinds.items()),
        )
        for crate in sizes.crates
    ]
    label = f"What a program loads of {sizes.library.name}, by crate: {size(total)}"
    kinds = "".join(
        f'<li><span class="{kind}"></span>{kind} {size(n)}</li>'
        for kind, n in sizes.loaded.items()
        if n
    )
    return "\n".join(
        [
            "<h2>What a program loads, by crate</h2>",
            drawing(boxes, 1180, 560, label, "wide"),
            drawing(boxes, 360, 520, label, "narrow"),
            f'<ul class="legend">{kinds}</ul>',
            '<output aria-live="polite"></output>',
        ]
    )


def _table(table: present.Table, style: str = "") -> str:
    def cells(row: Sequence[str]) -> str:
        return "".join(f"<td>{escape(cell)}</td>" for cell in row)

    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(c)}</button></th>'
        for c in table.columns
    )
    body = "\n".join(f"<tr>{cells(row)}</tr>" for row in table.rows)
    foot = f"<tfoot><tr>{cells(table.total)}</tr></tfoot>" if table.total else ""
    title = escape(table.title)
    return (
        f"<h2>{title[0].upper()}{title[1:]}</h2>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f'<table class="{style}"><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>{foot}</table></div>"
    )


def _exports(exports: ExportSet) -> str:
    rows = [
        (e.name, ", ".join(f"{o.kind} {o.where}".strip() for o in e.origins), state)
        for state, entries in (
            ("public", exports.exports),
            ("kept global", exports.keep),
            ("not defined", exports.missing),
        )
        for e in entries
    ]
    table = present.Table("exports", ("symbol", "origin", "state"), tuple(rows), ())
    return _table(table, "words") + f"\n<p>{escape(exports.source)}</p>"


__all__ = ["Subject", "page"]
