"""The sections of unwind information: the bytes of the live records, and where each went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import COMPACT_UNWIND, EH_FRAME
from cargo_strip_hook.link.model import Array, AtomFlag, Bool, Int32, Int64, Program, Unit
from cargo_strip_hook.link.unwind import contents_of, join_frames

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


def join(program: Program, live: Bool) -> tuple[Part, Part]:
    """Both sections of unwind information, of what lives: compact entries, and `__eh_frame`.

    CIEs stay one for each member, as linkers write them.
    """
    separate = program.atoms["flags"] & AtomFlag.SEPARATE != 0
    links = program.edges[separate[program.edges["source"]] & separate[program.edges["target"]]]
    is_frame = np.zeros(len(program.atoms), np.bool_)
    is_frame[links["source"]] = is_frame[links["target"]] = True
    compact = np.flatnonzero(live & separate & ~is_frame).astype(np.int32)
    offset = np.arange(len(compact), dtype=np.int64) * mo.COMPACT_UNWIND_SIZE
    contents = contents_of(program, compact, _section_starts)
    frames = join_frames(program, live & is_frame, "<", _section_starts, merge=False)
    return (
        Part(*COMPACT_UNWIND, mo.S_ATTR_DEBUG, contents, compact, offset),
        Part(*EH_FRAME, _FRAME_FLAGS, frames.contents, frames.records, frames.offset),
    )


def _section_starts(unit: Unit) -> Array:
    starts: Array = unit.native.sections["offset"]
    return starts
