"""Relocate: bind the relocations of what lives, and store what no linker can change any more.

A format says which of its fields hold distances and addends (tables by relocation type), and what
only it knows of its relocations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.addresses import STEP, Addresses
from cargo_strip_hook.link.arrays import Columns, unique
from cargo_strip_hook.link.contents import Patch, read_input
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64, Program


@dataclass(frozen=True, slots=True, eq=False)
class Bound(Columns):
    """Relocations, each with its field in the new object and what it refers to.

    `input` is what the input says (RELOCATION). `definition`: the program-wide symbol that its
    symbol resolves to, in `atom`, or a `SpecialIndex`. `gone`: that atom is not in the new object.
    `local`: it is, and its symbol is not kept: only its address counts, which is `target_offset`
    bytes into `target_section` (-1 and 0 for what is not local).
    """

    input: Array
    definition: Int32
    atom: Int32
    gone: Bool
    local: Bool
    section: Int32
    offset: Int64
    type: Int64
    addend: Int64
    target_section: Int32
    target_offset: Int64

    @property
    def inside(self) -> Bool:
        """Which refer to what shares their section, at an address that nothing can change."""
        same: Bool = self.local & (self.target_section == self.section)
        return same

    @property
    def location(self) -> Int64:
        """The location of the target of each, as one number (see `Addresses.location`)."""
        locations: Int64 = (self.target_section.astype(np.int64) << STEP) + self.target_offset
        return locations

    def position(self, placed: Addresses) -> Int64:
        """Where each field begins in all contents."""
        positions: Int64 = placed.sections.start[self.section] + self.offset
        return positions


def bind(program: Program, live: Bool, placed: Addresses, chosen: Bool) -> Bound:
    """Bind the `chosen` of all relocations (bool, by relocation), which stay in their order."""
    rows = program.relocations[chosen]
    definition = program.definition[rows["symbol"]]
    atom = program.symbols["atom"][definition]
    home = np.maximum(atom, 0)
    gone = (atom >= 0) & (~live[home] | (placed.section[home] < 0))
    local = (atom >= 0) & ~gone & ~placed.kept[definition]
    return Bound(
        rows,
        definition,
        atom,
        gone,
        local,
        placed.section[rows["atom"]],
        placed.offset[rows["atom"]] + rows["offset"],
        rows["type"].astype(np.int64),
        rows["addend"].copy(),
        np.where(local, placed.section[home], np.int32(-1)),
        np.where(local, placed.offset[home] + program.symbols["value"][definition], 0),
    )


def refuse(program: Program, bound: Bound, bad: Bool, what: str, help: str = "") -> None:
    """Raise `LinkError` with the member of the first relocation that is `bad`, if one is."""
    if bad.any():
        atom = bound.input["atom"][int(bad.argmax())]
        unit = program.units[int(program.unit_of(np.array([atom]))[0])]
        raise LinkError(f"a relocation in {unit.name} {what}", help=help or ())


def store(
    which: Bool, field: Array, value: Int64, position: Int64, wraps: frozenset[int] = frozenset()
) -> tuple[Bool, list[Patch]]:
    """(which values fit into their fields, the patches for these); only of those in `which`.

    `field` (uint8 of `Field`), `value` and `position` are by relocation. The fields of `wraps` take
    the low bits of any value.
    """
    stored, patches = np.zeros(len(which), np.bool_), []
    for kind in unique(field[which]).tolist():
        if kind == Field.NONE:
            continue
        rows = np.flatnonzero(which & (field == kind))
        if kind not in wraps:
            rows = rows[fields.fits(kind, value[rows])]
        stored[rows] = True
        patches.append(Patch(kind, position[rows], value[rows]))
    return stored, patches


def embedded(program: Program, bound: Bound, field: Array) -> Int64:
    """The addends that the input has in its fields, 0 where `field` (of `Field`) is NONE."""
    addend = np.zeros(len(field), np.int64)
    for kind in unique(field[field != Field.NONE]).tolist():
        rows = np.flatnonzero(field == kind)
        there = bound.input[rows]
        octets = read_input(program, there["atom"], there["offset"], fields.width(kind))
        addend[rows] = fields.decode(kind, octets, "<")
    return addend


__all__ = ["Bound", "bind", "embedded", "refuse", "store"]
