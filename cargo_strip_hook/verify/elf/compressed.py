"""Compressed sections, read for the checker.

Sources: gABI, "Section Compression" (Elf32_Chdr, Elf64_Chdr); GNU binutils, `.zdebug_*` (`ZLIB` and
the size in eight bytes, big-endian).
"""

from __future__ import annotations

import struct
import zlib

_ZLIB, _ZSTD = 1, 2
# bytes that any stream may hold, and how many for each of its own bytes beyond: more is no
# debug information, but an attempt to fill all memory
_ALWAYS, _EACH = 64 << 20, 64


def header_of(order: str, bits: int) -> struct.Struct:
    """ch_type, ch_size and ch_addralign in front of the stream."""
    return struct.Struct(order + ("I4xQQ" if bits == 64 else "III"))


def inflate(data: memoryview, order: str, bits: int) -> memoryview:
    """What a section with SHF_COMPRESSED holds. Raises `ValueError` for a damaged one."""
    layout = header_of(order, bits)
    if len(data) < layout.size:
        raise ValueError("it has no header")
    kind, size, _ = layout.unpack_from(data)
    return _inflated(kind, data[layout.size :], size)


def inflate_old(data: memoryview) -> memoryview:
    """What a `.zdebug_*` section holds. Raises `ValueError` for a damaged one."""
    return _inflated(_ZLIB, data[12:], int.from_bytes(data[4:12], "big"))


def _inflated(kind: int, stream: memoryview, size: int) -> memoryview:
    if size > _ALWAYS and size > _EACH * len(stream):
        raise ValueError("it is larger than debug information can be")
    if kind == _ZLIB:
        found = _zlib(stream, size)
    elif kind == _ZSTD:
        found = _zstd(stream, size)
    else:
        raise ValueError(f"compression {kind} is unknown")
    if len(found) != size:
        raise ValueError("it has another size than it says")
    return memoryview(found)


def _zlib(stream: memoryview, size: int) -> bytes:
    """Not more than one byte more than `size`."""
    decoder = zlib.decompressobj()
    try:
        found = decoder.decompress(stream, size + 1)
    except zlib.error as e:
        raise ValueError(str(e)) from e
    if len(found) == size and not decoder.eof:
        try:
            found += decoder.decompress(decoder.unconsumed_tail, 1)  # the checksum
        except zlib.error as e:
            raise ValueError(str(e)) from e
        if not decoder.eof:
            raise ValueError("it ends too early")
    return found


def _zstd(stream: memoryview, size: int) -> bytes:
    """Not more than one byte more than `size`."""
    from importlib import import_module

    try:
        module = import_module("compression.zstd")
    except ImportError:
        try:
            module = import_module("backports.zstd")
        except ImportError:
            raise ValueError("zstd is not there to read it") from None
    found = bytearray()
    rest = bytes(stream)
    try:
        while rest and len(found) <= size:  # a stream may be of several frames
            decoder = module.ZstdDecompressor()
            found += decoder.decompress(rest, size + 1 - len(found))
            if not decoder.eof:
                if len(found) <= size:
                    raise ValueError("it ends too early")
                break
            rest = decoder.unused_data
    except module.ZstdError as e:
        raise ValueError(str(e)) from e
    return bytes(found)


__all__ = ["header_of", "inflate", "inflate_old"]
