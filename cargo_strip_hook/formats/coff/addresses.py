"""Where everything is in the new object; unwind entries stand in the order of their code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.link.addresses import Addresses, begin_of
from cargo_strip_hook.link.model import (
    AtomFlag,
    Bool,
    Layout,
    Program,
    Reach,
    SectionKey,
)
from cargo_strip_hook.link.symbols import kept_symbols
from cargo_strip_hook.link.unwind import add_tables


@dataclass(frozen=True, slots=True, eq=False)
class Placed(Addresses):
    """`kinds` tell what the output sections are."""

    kinds: tuple[SectionKind, ...]


def with_entries(program: Program, live: Bool, layout: Layout) -> Layout:
    """The layout with a table of unwind entries more for each section of code that has any.

    The entries stand in the order of their functions.
    """
    flags = program.atoms["flags"]
    is_entry = live & (flags & AtomFlag.ORDERED != 0)
    rows = program.relocations
    first = rows[is_entry[rows["atom"]] & (rows["reach"] == Reach.REVERSE) & (rows["offset"] == 0)]
    code = program.symbols["atom"][program.definition[first["symbol"]]]

    def key_of(_entry: int, code: int) -> SectionKey:
        parent = int(layout.section[code])
        return SectionKey(SectionKind(kinds.PDATA, coff.RDATA, parent=parent))

    return add_tables(program, layout, first["atom"], code, key_of)


def assign(program: Program, layout: Layout) -> Placed:
    """Where every live atom goes."""
    kinds = cast("tuple[SectionKind, ...]", tuple(layout.descriptors))
    flags = np.array([k.flags for k in kinds], np.int64)
    size = np.array([s.size for s in layout.sections], np.int64)
    stored = flags & coff.SCN_CNT_UNINITIALIZED_DATA == 0
    code = flags & coff.SCN_CNT_CODE != 0
    start = begin_of(size, stored)
    return Placed(
        layout.section, layout.offset, size, stored, code, start, kept_symbols(program), kinds
    )
