"""The header of a universal file, read a second time and on its own. Source: mach-o/fat.h."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cargo_strip_hook.core.requests import Slice


class FatArch(NamedTuple):
    """`kind`: magic number, processor and its subtype, alignment. `start` and `size` in bytes."""

    kind: tuple[bytes, bytes, bytes, bytes]
    start: int
    size: int


def read_slices(path: Path, *, tight: bool) -> tuple[FatArch, ...] | None:
    """The slices in the header's order, None for a plain file. Raises `ValueError` for damage.

    In a `tight` file nothing but zeros lies between slices, and nothing after the last one.
    """
    with path.open("rb") as file:
        if file.read(4) not in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(data, tight)


def _read(data: mmap.mmap, tight: bool) -> tuple[FatArch, ...]:
    magic = data[:4]
    step, width = (32, 8) if magic[3] == 0xBF else (20, 4)
    count = int.from_bytes(data[4:8], "big")
    end = 8 + count * step
    if end > len(data):
        raise ValueError("the universal header is cut short")
    slices = []
    for entry in range(8, end, step):
        start, size = (
            int.from_bytes(data[entry + 8 + i * width : entry + 8 + (i + 1) * width], "big")
            for i in (0, 1)
        )
        align = data[entry + 8 + 2 * width : entry + 12 + 2 * width]
        if start % (1 << (align[3] & 31)) or align[:3] != bytes(3):
            raise ValueError("a slice is not aligned as the universal header says")
        kind = magic, data[entry : entry + 4], data[entry + 4 : entry + 8], align
        slices.append(FatArch(kind, start, size))
    for one in sorted(slices, key=lambda s: s.start):
        if one.start < end or one.start + one.size > len(data):
            raise ValueError("slices of the universal file overlap or reach beyond its end")
        if tight and any(data[end : one.start]):
            raise ValueError("there is something between the slices of the universal file")
        end = one.start + one.size
    if tight and end != len(data):
        raise ValueError("there is something after the slices of the universal file")
    return tuple(slices)


def differences(original: Path, candidate: Path, parts: Sequence[Slice]) -> tuple[str, ...]:
    """What is wrong with a universal file that should be `original` with `parts` as its slices.

    Raises `ValueError` for damage.
    """
    before, after = read_slices(original, tight=False), read_slices(candidate, tight=True)
    if before is None or after is None:
        return ("universal: only one of original and result is a universal file",)
    if [s.kind for s in before] != [s.kind for s in after]:
        return ("universal: other architectures, order or alignment than in the original",)
    return tuple(
        f"universal: slice {n} is another one than was verified"
        for n, (one, part) in enumerate(zip(after, parts, strict=True), start=1)
        if not _same(Slice(candidate, one.start, one.size), part)
    )


def _same(first: Slice, second: Slice) -> bool:
    with first.path.open("rb") as a, second.path.open("rb") as b:
        maps = [mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) for f in (a, b)]
    views = [
        memoryview(m)[p.start : len(m) if p.size is None else p.start + p.size]
        for m, p in zip(maps, (first, second), strict=True)
    ]
    return views[0] == views[1]
