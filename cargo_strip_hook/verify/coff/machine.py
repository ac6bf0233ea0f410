"""What the relocations of each machine say of the bytes they are at.

Sources: Microsoft PE/COFF specification, "Type Indicators"; Arm Architecture Reference Manual,
"C6.2" (ADR, ADRP, B, B.cond, TBZ, ADD and LDR with an immediate).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.coff.read import AMD64, ARM64, I386, Array

WORD, HALF, QUAD = 0xFFFF_FFFF, 0xFFFF, 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Kind:
    """`mask`: the bits that hold the addend. `behind`: for a distance, what is added to the place
    it is counted from; -1 for what is no distance. `form`: how the bits make a number.
    """

    mask: int
    behind: int = -1
    form: str = "plain"

    @property
    def width(self) -> int:
        """Bytes."""
        return {QUAD: 8, HALF: 2}.get(self.mask, 4)


_PAGE = 0x60FF_FFE0
KINDS: dict[int, dict[int, Kind]] = {
    AMD64: {
        1: Kind(QUAD),
        2: Kind(WORD),
        3: Kind(WORD),
        **{4 + k: Kind(WORD, 4 + k) for k in range(6)},
        10: Kind(HALF),
        11: Kind(WORD),
    },
    I386: {6: Kind(WORD), 7: Kind(WORD), 10: Kind(HALF), 11: Kind(WORD), 20: Kind(WORD, 4)},
    ARM64: {
        1: Kind(WORD),
        2: Kind(WORD),
        3: Kind(0x03FF_FFFF, 0, "branch"),
        4: Kind(_PAGE, form="page"),
        5: Kind(_PAGE, 0, "page"),
        6: Kind(0x003F_FC00, form="low"),
        7: Kind(0x003F_FC00, form="load"),
        8: Kind(WORD),
        9: Kind(0x003F_FC00, form="low"),
        10: Kind(0x003F_FC00, form="low"),
        11: Kind(0x003F_FC00, form="load"),
        13: Kind(HALF),
        14: Kind(QUAD),
        15: Kind(0x00FF_FFE0, 0, "near"),
        16: Kind(0x0007_FFE0, 0, "nearer"),
        17: Kind(WORD, 4),
    },
}
POINTER = {AMD64: 1, I386: 6, ARM64: 14}
RELATIVE = {AMD64: 3, I386: 7, ARM64: 2}  # an address of 32 bits that counts from the image
UNWOUND = {AMD64: 12, ARM64: 8}  # bytes of an entry of .pdata


def _signed(value: Array, bits: int) -> Array:
    top = np.int64(1) << np.int64(bits - 1)
    return np.asarray((value ^ top) - top)


def addends(machine: int, types: Array, fields: Array) -> tuple[Array, Array, Array]:
    """(the number in each field, its mask, what is behind; all for a type that is not known: 0)."""
    number = np.zeros(len(types), np.int64)
    masks = np.zeros(len(types), np.uint64)
    behind = np.full(len(types), -1, np.int64)
    for code, kind in KINDS[machine].items():
        mine = np.flatnonzero(types == code)
        if not len(mine):
            continue
        masks[mine], behind[mine] = kind.mask, kind.behind
        number[mine] = _decode(kind, fields[mine])
    return number, masks, behind


def _decode(kind: Kind, fields: Array) -> Array:
    value = (fields & np.uint64(kind.mask)).astype(np.int64)
    if kind.form == "plain":
        return value if kind.mask == QUAD else _signed(value, 8 * kind.width)
    if kind.form == "branch":
        return _signed(value, 26) << 2
    if kind.form == "near":
        return _signed(value >> 5, 19) << 2
    if kind.form == "nearer":
        return _signed(value >> 5, 14) << 2
    if kind.form == "page":
        return _signed(value >> 29 & 3 | value >> 3 & 0x1F_FFFC, 21)
    if kind.form == "low":
        return np.asarray(value >> 10)
    word = fields.astype(np.int64) & WORD
    wide = (word & 0x0480_0000 == 0x0480_0000).astype(np.int64) << 2  # 128 bits
    return np.asarray((value >> 10) << ((word >> 30) + wide))
