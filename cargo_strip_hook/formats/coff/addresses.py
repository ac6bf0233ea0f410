"""Where everything is in the new object; unwind entries stand in the order of their code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.link.addresses import Addresses, Sections
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
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
    """`kinds` tell what the output sections are."""

    kinds: tuple[SectionKind, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
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
    stored = flags & coff.SCN_CNT_UNINITIALIZED_DATA == 0
    code = flags & coff.SCN_CNT_CODE != 0
    sections = Sections.following(layout.sizes, layout.aligns, stored, code)
    return Placed(layout.section, layout.offset, sections, kept_symbols(program), kinds)
