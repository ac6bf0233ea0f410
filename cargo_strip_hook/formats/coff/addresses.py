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
    Array,
    AtomFlag,
    Bool,
    Int64,
    Layout,
    Program,
    Reach,
    SectionKey,
)
from cargo_strip_hook.link.output import Relocations
from cargo_strip_hook.link.symbols import kept_symbols
from cargo_strip_hook.link.unwind import add_tables


@dataclass(frozen=True, slots=True, eq=False)
class Placed(Addresses):
    """`kinds` tell what the output sections are, `align` (bytes) how they are aligned."""

    align: Int64
    kinds: tuple[SectionKind, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sections:
    """The output sections while phases change them: where they are, what is in them."""

    placed: Placed
    contents: list[Array]  # uint8
    relocations: Relocations


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
    size = layout.sizes
    stored = flags & coff.SCN_CNT_UNINITIALIZED_DATA == 0
    return Placed(
        layout.section,
        layout.offset,
        size,
        stored,
        flags & coff.SCN_CNT_CODE != 0,
        begin_of(size, stored),
        kept_symbols(program),
        np.array([s.align for s in layout.sections], np.int64),
        kinds,
    )
