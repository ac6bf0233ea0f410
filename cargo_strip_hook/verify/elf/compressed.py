"""Compressed sections, read for the checker.

Sources: gABI, "Section Compression" (Elf32_Chdr, Elf64_Chdr); GNU binutils, `.zdebug_*` (`ZLIB` and
the size in eight bytes, big-endian).
"""

from __future__ import annotations

import struct
import zlib

_ZLIB, _ZSTD = 1, 2


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
    if kind == _ZLIB:
        try:
            found = zlib.decompress(stream)
        except zlib.error as e:
            raise ValueError(str(e)) from e
    elif kind == _ZSTD:
        found = _zstd(stream)
    else:
        raise ValueError(f"compression {kind} is unknown")
    if len(found) != size:
        raise ValueError("it has another size than it says")
    return memoryview(found)


def _zstd(stream: memoryview) -> bytes:
    from importlib import import_module

    try:
        module = import_module("compression.zstd")
    except ImportError:
        try:
            module = import_module("backports.zstd")
        except ImportError:
            raise ValueError("zstd is not there to read it") from None
    try:
        return bytes(module.decompress(stream))
    except module.ZstdError as e:
        raise ValueError(str(e)) from e


__all__ = ["header_of", "inflate", "inflate_old"]
