"""Compressed sections: zlib, and zstd where Python has it.

Source: gABI, "Section Compression": a header (Elf32_Chdr, Elf64_Chdr) and one stream behind it.
zstd is in Python's own library from 3.14 on, and in the package `backports.zstd` before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.requests import Compression
from cargo_strip_hook.formats.elf import layouts as elf

KINDS = (elf.ELFCOMPRESS_ZLIB, elf.ELFCOMPRESS_ZSTD)
# What is taken for debug information, in bytes: any contents up to `_SMALL`, and beyond what is not
# more than so many times as large as its stream. Blank tables of addresses shrink a thousandfold,
# but are small; what is large has strings and code in it, of which a tenth is left at best.
_SMALL = 1 << 26
_MOST_RATIO = 64
_ZLIB_LEVEL = 6  # zlib's own default, as linkers use it
_ZSTD_LEVEL = 5  # as mold and lld: fast, and smaller than zlib


def header_of(records: elf.Records) -> struct.Struct:
    """(ch_type, ch_size, ch_addralign) of the header in front of the stream."""
    return struct.Struct(f"{records.order}{'I4xQQ' if records.bits == 64 else 'III'}")


def zstd(otherwise: str = "or use `--compress-debug zlib`") -> Any:
    """The module for zstd. Raises `UsageError`, with what else would do, where Python has none."""
    from importlib import import_module

    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UsageError(
        "zstd needs Python 3.14, or the package `backports.zstd`, which is not installed",
        help=("`pip install 'cargo-strip-hook[zstd]'`", otherwise),
    )


def believable(size: int, stream: int) -> bool:
    """Whether streams of `stream` bytes together may hold `size` bytes of debug information.

    What may not be is not inflated: a few bytes would fill all memory.
    """
    return size <= max(_SMALL, _MOST_RATIO * stream)


def decompress(kind: int, stream: memoryview, size: int) -> bytes:
    """The `size` bytes that a stream holds. Raises `ValueError` where it does not.

    Never makes more bytes than that.
    """
    if kind == elf.ELFCOMPRESS_ZSTD:
        module = zstd("or leave debug information out, with `--strip debuginfo`")
        try:
            decoder = module.ZstdDecompressor()
            plain = decoder.decompress(bytes(stream), max_length=size + 1)
        except module.ZstdError as e:
            raise ValueError(str(e)) from e
    else:
        try:
            plain = zlib.decompressobj().decompress(stream, size + 1)
        except zlib.error as e:
            raise ValueError(str(e)) from e
    if len(plain) != size:
        raise ValueError("it has another size than it says")
    return bytes(plain)


def compress(
    how: Compression, records: elf.Records, size: int, align: int, chunks: Iterable[Any]
) -> bytes | None:
    """Header and stream of `chunks` (`size` bytes together); None where that is no smaller.

    The same chunks give the same bytes, as far as the compressing library is the same.
    """
    if how is Compression.ZSTD:
        kind, encoder = elf.ELFCOMPRESS_ZSTD, zstd().ZstdCompressor(_ZSTD_LEVEL)
    else:
        kind, encoder = elf.ELFCOMPRESS_ZLIB, zlib.compressobj(_ZLIB_LEVEL)
    stream = [header_of(records).pack(kind, size, align)]
    stream += [encoder.compress(chunk) for chunk in chunks]
    stream.append(encoder.flush())
    packed = b"".join(stream)
    return packed if len(packed) < size else None


__all__ = ["KINDS", "believable", "compress", "decompress", "header_of", "zstd"]
