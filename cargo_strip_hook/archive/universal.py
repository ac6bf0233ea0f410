"""Universal (fat) files: several architectures behind one header, each a slice.

Sources: mach-o/fat.h (`fat_header`, `fat_arch`, `fat_arch_64`; all numbers are big-endian);
mach/machine.h and cctools' `arch.c` (the names of architectures).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from cargo_strip_hook.archive.model import must_be_about_file
from cargo_strip_hook.archive.sniff import MOST_SLICES
from cargo_strip_hook.core.errors import ArchiveError
from cargo_strip_hook.core.files import open_file
from cargo_strip_hook.core.requests import Slice

FAT_MAGIC, FAT_MAGIC_64 = b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"
_NAMES = {
    (7, 3): "i386",
    (0x01000007, 3): "x86_64",
    (0x01000007, 8): "x86_64h",
    (12, 6): "armv6",
    (12, 9): "armv7",
    (12, 11): "armv7s",
    (12, 12): "armv7k",
    (0x0100000C, 0): "arm64",
    (0x0100000C, 1): "arm64v8",
    (0x0100000C, 2): "arm64e",
    (0x0200000C, 0): "arm64_32",
    (0x0200000C, 1): "arm64_32",
}
_LARGEST_ALIGNMENT = 15


@dataclass(frozen=True, slots=True)
class FatArch:
    """One architecture. `align` is a power of two's exponent; offset and size in bytes."""

    cputype: int
    cpusubtype: int
    align: int
    offset: int
    size: int

    @property
    def architecture(self) -> str:
        """What `lipo` calls it; the upper byte of the subtype has capabilities."""
        kind = self.cputype, self.cpusubtype & 0xFFFFFF
        return _NAMES.get(kind, f"processor {kind[0]:#x}.{kind[1]}")


@dataclass(frozen=True, slots=True)
class Universal:
    """The header of a universal file; `wide` is the form with 64-bit offsets."""

    wide: bool
    slices: tuple[FatArch, ...]


def is_universal(head: bytes) -> bool:
    """Whether a file's first eight bytes (fewer, if it is shorter) begin a universal file."""
    if head[:4] not in (FAT_MAGIC, FAT_MAGIC_64) or len(head) < 8:
        return False
    return int.from_bytes(head[4:8], "big") <= MOST_SLICES


def read_universal(data: memoryview, path: str | None = None) -> Universal:
    """Read the header. Raises `ArchiveError` for slices that overlap or reach beyond the file."""

    def fail(what: str, offset: int) -> ArchiveError:
        return ArchiveError(what, path=path, offset=offset)

    if not is_universal(bytes(data[:8])):
        raise fail("this is no universal file", 0)
    wide = bytes(data[:4]) == FAT_MAGIC_64
    form = struct.Struct(">IIQQII" if wide else ">IIIII")
    count = int.from_bytes(data[4:8], "big")
    end = 8 + count * form.size
    if end > len(data):
        raise fail("the universal header is cut short", 8)
    if not count:
        raise fail("the universal file has no architecture", 4)
    slices = []
    for i in range(count):
        header_offset = 8 + i * form.size
        cpu, subtype, offset, size, align = form.unpack_from(data, header_offset)[:5]
        if align > _LARGEST_ALIGNMENT or offset % (1 << align):
            raise fail(f"slice {i + 1} has an impossible alignment", header_offset)
        if offset < end or offset + size > len(data):
            raise fail(f"slice {i + 1} reaches beyond the end of the file", header_offset)
        slices.append(FatArch(cpu, subtype, align, offset, size))
    kinds = [(s.cputype, s.cpusubtype) for s in slices]
    if len(set(kinds)) != count:
        raise fail("the universal file has an architecture twice", 8)
    ordered = sorted(slices, key=lambda s: s.offset)
    for first, second in pairwise(ordered):
        if first.offset + first.size > second.offset:
            raise fail("two slices of the universal file overlap", 8)
    return Universal(wide, tuple(slices))


def lay_out(old: Universal, sizes: Sequence[int]) -> Universal:
    """The header for slices of new sizes: same order, same alignment, same form where it fits.

    Raises `ArchiveError` where 32-bit offsets do not reach.
    """
    form = 32 if old.wide else 20
    position = 8 + form * len(old.slices)
    slices = []
    for one, size in zip(old.slices, sizes, strict=True):
        position = -(-position // (1 << one.align)) * (1 << one.align)
        slices.append(FatArch(one.cputype, one.cpusubtype, one.align, position, size))
        position += size
    if position >= 1 << 32 and not old.wide:
        raise ArchiveError("the universal file would be larger than 4 GiB")
    return Universal(old.wide, tuple(slices))


def encode(header: Universal) -> bytes:
    """The bytes that stand before the first slice; zeros fill the gaps between slices."""
    out = FAT_MAGIC_64 if header.wide else FAT_MAGIC
    out += struct.pack(">I", len(header.slices))
    for s in header.slices:
        if header.wide:
            out += struct.pack(">IIQQII", s.cputype, s.cpusubtype, s.offset, s.size, s.align, 0)
        else:
            out += struct.pack(">IIIII", s.cputype, s.cpusubtype, s.offset, s.size, s.align)
    return out


def read_slices(path: Path) -> tuple[Slice, ...]:
    """The archives in a library, in their order: the file itself, or the slices of a universal one.

    Raises `ArchiveError` for a damaged universal header, and where the file cannot be read.
    """
    header = _header(path)
    if header is None:
        return (Slice(path),)
    return tuple(Slice(path, s.offset, s.size, s.architecture) for s in header.slices)


def _header(path: Path) -> Universal | None:
    """The header of a universal file; None for other files."""
    try:
        with open_file(path) as file:
            if not is_universal(file.read(8)):
                return None
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
                memoryview(data) as view,
            ):
                return read_universal(view, str(path))
    except (OSError, ValueError) as e:
        must_be_about_file(e)
        raise ArchiveError(f"cannot be read: {e}", path=str(path)) from e


def write_universal(file: BinaryIO, original: Path, slices: Sequence[Slice]) -> None:
    """Write a universal file like `original` with new slices, in the same order and alignment.

    Raises `ArchiveError` where `original` is no universal file, or has another number of slices.
    """
    old = _header(original)
    if old is None or len(old.slices) != len(slices):
        raise ArchiveError("the universal file has other slices than before", path=str(original))
    new = lay_out(old, [s.length() for s in slices])
    position = file.write(encode(new))
    for header, slice_ in zip(new.slices, slices, strict=True):
        position += file.write(bytes(header.offset - position))
        with slice_.path.open("rb") as source:
            source.seek(slice_.start)
            position += _copy(source, file, header.size)


def _copy(source: BinaryIO, file: BinaryIO, size: int) -> int:
    left = size
    while left:
        chunk = source.read(min(left, 1 << 20))
        if not chunk:
            raise ArchiveError("a slice became shorter while it was copied")
        left -= file.write(chunk)
    return size
