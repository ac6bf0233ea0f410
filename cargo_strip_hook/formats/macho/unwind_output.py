"""The sections of unwind information: which records live, and where each goes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import COMPACT_UNWIND, EH_FRAME
from cargo_strip_hook.link.model import Array, AtomFlag, Bool, Int32, Int64, Program
from cargo_strip_hook.link.unwind import JoinedFrames, join_frames

_FRAME_FLAGS = (
    mo.S_COALESCED | mo.S_ATTR_NO_TOC | mo.S_ATTR_STRIP_STATIC_SYMS | mo.S_ATTR_LIVE_SUPPORT
)


@dataclass(frozen=True, slots=True, eq=False)
class OwnSection:
    """A section that is not in the layout: its `contents` (uint8), or those of records.

    `offset[i]` belongs to `atoms[i]`.
    """

    segment: bytes
    section: bytes
    flags: int
    size: int
    contents: Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    atoms: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    offset: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))


def join(program: Program, live: Bool) -> tuple[OwnSection, OwnSection, JoinedFrames]:
    """Both sections of unwind information, of what lives: compact entries, and `__eh_frame`.

    CIEs stay one for each member, as linkers write them.
    """
    separate = program.atoms["flags"] & AtomFlag.SEPARATE != 0
    links = program.edges[separate[program.edges["source"]] & separate[program.edges["target"]]]
    is_frame = np.zeros(len(program.atoms), np.bool_)
    is_frame[links["source"]] = is_frame[links["target"]] = True
    compact = np.flatnonzero(live & separate & ~is_frame).astype(np.int32)
    offset = np.arange(len(compact), dtype=np.int64) * mo.COMPACT_UNWIND_SIZE
    size = len(compact) * mo.COMPACT_UNWIND_SIZE
    joint = join_frames(program, live & is_frame, merge=False)
    return (
        OwnSection(*COMPACT_UNWIND, mo.S_ATTR_DEBUG, size, atoms=compact, offset=offset),
        OwnSection(*EH_FRAME, _FRAME_FLAGS, joint.size, atoms=joint.records, offset=joint.offset),
        joint,
    )
