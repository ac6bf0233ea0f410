"""The contents of the new object: bytes of the input, bytes that phases made, and patches.

This is the one place that allocates and fills them. Phases say what is to be changed; what they
need to know of the input they read from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link import fields
from cargo_strip_hook.link.addresses import Addresses
from cargo_strip_hook.link.arrays import runs
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array, Int64, Program


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A value for each of several fields, which begin at `position` in all contents."""

    field: Field
    position: Int64
    value: Int64


@dataclass(frozen=True, slots=True, eq=False)
class Filling:
    """What contents are made of besides the input.

    `blocks`: (position in all contents, uint8 array) that phases made. `padding` is repeated in
    code wherever nothing else is; `order` is the byte order of the patches.
    """

    patches: Iterable[Patch]
    blocks: Iterable[tuple[int, Array]] = ()
    padding: bytes = b"\0"
    order: str = "<"


def make_contents(
    program: Program, placed: Addresses, atoms: Array, filling: Filling
) -> list[Array]:
    """The contents of each output section, uint8, empty where none are stored.

    `atoms`: those whose bytes are copied, where they have any.
    """
    sections = placed.sections
    ends = sections.start + np.where(sections.stored, sections.size, 0)
    whole = np.zeros(int(ends.max(initial=0)), np.uint8)
    if filling.padding != b"\0":
        for number in np.flatnonzero(sections.executable & sections.stored).tolist():
            _repeat(whole[sections.start[number] : ends[number]], filling.padding)
    _copy(program, placed, atoms, whole)
    for position, block in filling.blocks:
        whole[position : position + len(block)] = block
    for patch in filling.patches:
        fields.store(whole, patch.position, patch.field, patch.value, filling.order)
    return [
        whole[begin:end]
        for begin, end in zip(placed.sections.start.tolist(), ends.tolist(), strict=True)
    ]


def _repeat(room: Array, pattern: bytes) -> None:
    """Fill `room` with repetitions of `pattern`."""
    step, padding = len(pattern), np.frombuffer(pattern, np.uint8)
    whole = len(room) // step * step
    room[:whole].reshape(-1, step)[:] = padding
    room[whole:] = padding[: len(room) - whole]


def _copy(program: Program, placed: Addresses, atoms: Array, whole: Array) -> None:
    """Copy the bytes of the atoms to where they go; neighbours that stay so at once."""
    rows = program.atoms[atoms]
    held = (
        (rows["contents"] >= 0) & (rows["size"] > 0) & placed.sections.stored[placed.section[atoms]]
    )
    atoms, rows = atoms[held], rows[held]
    if not len(atoms):
        return
    units = program.unit_of(atoms)
    source, size = rows["contents"], rows["size"]
    target = placed.sections.start[placed.section[atoms]] + placed.offset[atoms]
    begins = np.ones(len(atoms), np.bool_)
    begins[1:] = (units[1:] != units[:-1]) | (source[1:] != source[:-1] + size[:-1])
    begins[1:] |= target[1:] != target[:-1] + size[:-1]
    first = np.flatnonzero(begins)
    sizes = np.add.reduceat(size, first)
    data = [unit.data for unit in program.units]
    view = memoryview(whole.data)
    columns = (units[first], source[first], sizes, target[first])
    for unit, begin, count, to in zip(*(c.tolist() for c in columns), strict=True):
        view[to : to + count] = data[unit][begin : begin + count]


def read_input(program: Program, atoms: Array, offset: Int64, width: int) -> Array:
    """uint8[n, width]: what the input holds at these offsets of atoms.

    What lies before an atom, or has no bytes in a file, is zero.
    """
    octets = np.zeros((len(atoms), width), np.uint8)
    begin = program.atoms["contents"][atoms]
    rows = np.flatnonzero(begin >= 0)
    if not len(rows):
        return octets
    within = offset[rows, None] + np.arange(width)
    positions = begin[rows, None] + np.maximum(within, 0)
    units = program.unit_of(atoms[rows])
    for first, end in runs(units):
        data = np.frombuffer(program.units[int(units[first])].data, np.uint8)
        octets[rows[first:end]] = data[positions[first:end]]
    octets[rows] *= within >= 0
    return octets


__all__ = ["Filling", "Patch", "make_contents", "read_input"]
