"""Puts the live unwind records of all units behind one another.

Relocations are written by the same code as all others; here are the bytes and the places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import COMPACT_UNWIND, EH_FRAME
from cargo_strip_hook.formats.macho.reader import MachoUnit
from cargo_strip_hook.link.model import Array, AtomFlag, Bool, Int32, Int64, Program

_FRAME_FLAGS = (
    mo.S_COALESCED | mo.S_ATTR_NO_TOC | mo.S_ATTR_STRIP_STATIC_SYMS | mo.S_ATTR_LIVE_SUPPORT
)


@dataclass(frozen=True, slots=True)
class Part:
    """One section of records: `offset[i]` belongs to `atoms[i]`."""

    segment: bytes
    section: bytes
    flags: int
    contents: Array  # uint8
    atoms: Int32
    offset: Int64


@dataclass(frozen=True, slots=True)
class UnwindOutput:
    """Both sections of unwind information. CIEs stay one for each member, as linkers write them."""

    compact: Part
    frames: Part


def join(program: Program, live: Bool) -> UnwindOutput:
    """Both sections of unwind information, of what lives."""
    separate = program.atoms["flags"] & AtomFlag.SEPARATE != 0
    records = np.flatnonzero(live & separate).astype(np.int32)
    units = program.unit_of(records).tolist()
    sections = program.atoms["section"][records].tolist()
    is_compact = np.array(
        [
            program.units[u].native.names[s] == COMPACT_UNWIND
            for u, s in zip(units, sections, strict=True)
        ],
        np.bool_,
    )
    compact = records[is_compact]
    frames = records[~is_compact]
    offset = np.arange(len(compact), dtype=np.int64) * mo.COMPACT_UNWIND_SIZE
    contents = np.frombuffer(b"".join(_contents(program, compact)), np.uint8)
    first = Part(*COMPACT_UNWIND, mo.S_ATTR_DEBUG, contents, compact, offset)
    return UnwindOutput(first, _join_frames(program, frames))


def _contents(program: Program, atoms: Int32) -> list[bytes]:
    """The bytes of each atom."""
    rows = program.atoms[atoms]
    columns = (rows[name].tolist() for name in ("section", "offset", "size"))
    found = []
    for number, section, offset, size in zip(
        program.unit_of(atoms).tolist(), *columns, strict=True
    ):
        unit = program.units[number]
        native: MachoUnit = unit.native
        begin = native.headers[section][0] + offset
        found.append(bytes(unit.data[begin : begin + size]))
    return found


def _join_frames(program: Program, records: Int32) -> Part:
    edges = program.edges
    inside = np.zeros(len(program.atoms), np.bool_)
    inside[records] = True
    links = edges[inside[edges["source"]] & inside[edges["target"]]]
    cie_of = dict(zip(links["source"].tolist(), links["target"].tolist(), strict=True))
    where: dict[int, int] = {}
    parts: list[bytes] = []
    at = 0
    for atom, data in zip(records.tolist(), _contents(program, records), strict=True):
        if atom in cie_of:
            data = data[:4] + (at + 4 - where[cie_of[atom]]).to_bytes(4, "little") + data[8:]
        where[atom] = at
        parts.append(data)
        at += len(data)
    contents = np.frombuffer(b"".join(parts), np.uint8)
    offset = np.array([where[a] for a in records.tolist()], np.int64)
    return Part(*EH_FRAME, _FRAME_FLAGS, contents, records, offset)
