"""Sizes of a library as tables: for terminals, in Markdown, and as JSON. Sizes in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cargo_strip_hook.core.text import change, size
from cargo_strip_hook.present.plain import markdown as escaped
from cargo_strip_hook.present.plain import plain

if TYPE_CHECKING:
    from cargo_strip_hook.analysis.sizes import Change, Difference, Sizes
    from cargo_strip_hook.pipeline.sharing import SetPart

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the first column is names, the others are numbers. `total` is the last row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...]


def tables(sizes: Sizes, top: int) -> list[Table]:
    """The file by kind, what a program loads by crate, and the members, largest first.

    `top`: how many rows of each; the rest is one more row, so that columns add up.
    """
    in_memory = sum(sizes.loaded.values())
    kinds = tuple(sizes.loaded)
    crates = [(c.name, [*(c.kinds[k] for k in kinds), c.size]) for c in sizes.crates]
    members = [(m.name, [m.loaded, m.size]) for m in sizes.members]
    file = sorted(sizes.file.items(), key=lambda i: -i[1])
    return [
        _table("by kind, in the file", ("kind", "bytes"), [(n, [v]) for n, v in file if v], 99),
        _table("by crate, in a program", ("crate", *kinds, "total"), crates, top, in_memory),
        _table("by member", ("member", "loaded", "bytes"), members, top),
    ]


def shared_tables(part: SetPart, top: int) -> list[Table]:
    """What others of a set need, too, by how many do; and by crate what not, and why."""
    assert part.parts is not None
    shared = [(f"with {n} other{'s' if n > 1 else ''}", [size]) for n, size in part.parts.shared]
    kept = [(f"{one.crate}: {one.reason}", [one.size]) for one in part.parts.kept]
    return [
        _table("shared", ("with", "bytes"), shared, 99, part.parts.live),
        _table("not shared", ("crate", "bytes"), kept, top, part.parts.live),
    ]


def _table(
    title: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, list[int]]],
    top: int,
    whole: int | None = None,
) -> Table:
    """`whole` is what each row's share is computed of; without it there is no such column."""

    def line(name: str, values: Sequence[int]) -> tuple[str, ...]:
        share = (_share(values[-1], whole),) if whole is not None else ()
        return (name, *(f"{v:,}" for v in values), *share)

    shown, rest = rows[:top], rows[top:]
    lines = [line(name, values) for name, values in shown]
    if rest:
        sums = [sum(column) for column in zip(*(v for _, v in rest), strict=True)]
        lines.append(line(f"… {len(rest)} more", sums))
    total = [sum(column) for column in zip(*(v for _, v in rows), strict=True)]
    total = total or [0] * (len(columns) - 1)
    if whole is not None:
        columns = (*columns, "%")
    return Table(title, columns, tuple(lines), line("total", total))


def _share(value: int, whole: int | None) -> str:
    return f"{100 * value / whole:.1f}" if whole else "0.0"


def difference_tables(difference: Difference, top: int) -> list[Table]:
    """What changed, by kind and by crate."""
    columns = ("before", "after", "change", "%")
    return [
        _changes("by kind, in the file", ("kind", *columns), difference.file, 99),
        _changes("by crate, in a program", ("crate", *columns), difference.crates, top),
    ]


def _changes(title: str, columns: tuple[str, ...], changes: Iterable[Change], top: int) -> Table:
    def line(name: str, before: int | None, after: int | None) -> tuple[str, ...]:
        by = (after or 0) - (before or 0)
        words = "gone" if after is None else "new" if before is None else change(before, after)
        if before == 0 and after:
            words = "new"
        return (name, _number(before), _number(after), f"{by:+,}", words)

    everything = list(changes)
    rows = [c for c in everything if c.by]
    lines = [line(c.name, c.before, c.after) for c in rows[:top]]
    rest = [c for c in everything if c not in rows[:top]]
    sums = [sum(getattr(c, side) or 0 for c in rest) for side in ("before", "after")]
    if any(sums):
        lines.append(line(f"… {len(rest)} others", *sums))
    total = [sum(getattr(c, side) or 0 for c in everything) for side in ("before", "after")]
    return Table(title, columns, tuple(lines), line("total", *total))


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def headline(sizes: Sizes) -> str:
    """``libfoo.a: 23.1 MB, of which a program loads 1.3 MB``."""
    loaded = size(sum(sizes.loaded.values()))
    return f"{_name(sizes)}: {size(sizes.size)}, of which a program loads {loaded}"


def difference_headline(difference: Difference) -> str:
    """``libfoo.a (23.1 MB) → libfoo.a (1.0 MB), -96 %``."""
    before, after = difference.before, difference.after
    words = f"{_name(before)} ({size(before.size)}) → {_name(after)} ({size(after.size)})"
    return f"{words}, {change(before.size, after.size)}"


def _name(sizes: Sizes) -> str:
    more = f"({sizes.architecture})" if sizes.architecture else ""
    return sizes.library.name + more


def markdown(title: str, tables: Sequence[Table]) -> str:
    """A heading and tables, as GitHub and GitLab render them."""
    parts = [f"### {escaped(title)}\n"]
    for table in tables:
        heads = [table.title, *table.columns[1:]]
        lines = [
            [escaped(cell) for cell in heads],
            ["---", *["---:"] * (len(heads) - 1)],
            *([escaped(cell) for cell in row] for row in table.rows),
            [f"**{escaped(cell)}**" for cell in table.total],
        ]
        parts.append("".join(f"| {' | '.join(row)} |\n" for row in lines))
    return "\n".join(parts)


def show(title: str, tables: Sequence[Table], *, color: bool | None) -> None:
    """Write tables to stdout, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    # a file has no width: nothing is folded there
    width = None if Console().is_terminal else 200
    console = Console(
        markup=False, emoji=False, highlight=False, no_color=color is False, width=width
    )
    console.print(plain(title), style="bold")
    for table in tables:
        drawn = RichTable(box=None, pad_edge=False, show_footer=True, header_style="bold")
        names = [table.title, *table.columns[1:]]
        for number, (name, total) in enumerate(zip(names, table.total, strict=True)):
            if number:
                drawn.add_column(name, total, justify="right", no_wrap=True, footer_style="bold")
            else:
                drawn.add_column(name, total, overflow="ellipsis", footer_style="bold")
        for row in table.rows:
            drawn.add_row(*map(plain, row))
        console.print()
        console.print(drawn)


def message(sizes: Sizes, part: SetPart | None = None) -> Message:
    """The sizes of one library, or one slice; with what it shares with others of a set."""
    shared: Message = {}
    if part is not None and part.parts is not None:
        shared["with"] = [{"others": n, "size": size} for n, size in part.parts.shared]
        shared["kept"] = [asdict(one) for one in part.parts.kept]
    return {
        "reason": "sizes",
        **_subject(sizes),
        "target": sizes.target.triple,
        "size": sizes.size,
        "file": sizes.file,
        "loaded": sizes.loaded,
        "crates": [{"name": c.name, "size": c.size, "kinds": c.kinds} for c in sizes.crates],
        "members": [{"name": m.name, "size": m.size, "loaded": m.loaded} for m in sizes.members],
        **shared,
    }


def difference_message(difference: Difference) -> Message:
    """What changed between two."""

    def listed(changes: Iterable[Change]) -> list[Message]:
        return [{"name": c.name, "before": c.before, "after": c.after} for c in changes]

    return {
        "reason": "sizes-changed",
        **_subject(difference.after),
        "original": str(difference.before.library),
        "before": difference.before.size,
        "after": difference.after.size,
        "file": listed(difference.file),
        "loaded": listed(difference.loaded),
        "crates": listed(difference.crates),
    }


def _subject(sizes: Sizes) -> Message:
    architecture = {"architecture": sizes.architecture} if sizes.architecture else {}
    return {"library": str(sizes.library), **architecture}


__all__ = [
    "Table",
    "difference_headline",
    "difference_message",
    "difference_tables",
    "headline",
    "markdown",
    "message",
    "shared_tables",
    "show",
    "tables",
]
