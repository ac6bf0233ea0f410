"""Prelink: many objects into one, whatever their format. Phases are functions, value to value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest
from cargo_strip_hook.link.layout import lay_out
from cargo_strip_hook.link.model import Bool, Format, Image, Input, Layout, Program
from cargo_strip_hook.link.reach import always_live, build_graph, classes, follow, mark
from cargo_strip_hook.link.resolve import resolve
from cargo_strip_hook.link.write import write


@dataclass(frozen=True, slots=True, eq=False)
class Prelinked:
    """All that is decided before an object is written: what lives (bool, by atom), and where."""

    program: Program
    live: Bool
    layout: Layout

    def image(self, format: Format, request: PrelinkRequest) -> Image:
        """The object; the strip level changes its names and debug information only."""
        return write(self.program, self.live, self.layout, format, request)


def prelink(
    members: Mapping[int, Input],
    index: Entries | Mapping[bytes, int] | None,
    format: Format,
    request: PrelinkRequest,
    loaded: Callable[[Sequence[int]], None] | None = None,
) -> Prelinked:
    """resolve -> reach -> lay out. Raises `LinkError` and `ObjectError`.

    `loaded` gets the numbers of the members with anything that lives.
    """
    roots = [name.encode("utf-8", "surrogateescape") for name in request.exports]
    program = resolve(members, index, roots, format, request.target.linker)
    graph = build_graph(program)
    symbols = np.array([program.globals[r] for r in roots], np.int64)
    program = replace(
        program, exported=frozenset(symbols.tolist()), granularity=request.granularity
    )
    exported = program.symbols["atom"][symbols]
    exported = exported[exported >= 0]
    always = always_live(program)
    live = mark(graph, np.concatenate([exported, always]), len(program.atoms))
    live = follow(program, live)
    if loaded is not None:
        units = (program.units[n] for n in program.live_units(live))
        loaded([u.index for u in units if u.index >= 0])
    if request.granularity is Granularity.CLASS:
        numbers = classes(program, graph, live, exported, always)
    else:
        numbers = np.zeros(len(live), np.int32)
    layout = lay_out(program, format, live, numbers, request.granularity)
    return Prelinked(program, live, layout)


__all__ = ["Input", "Prelinked", "prelink"]
