"""What a shared library exports: the dynamic symbols of ELF, Mach-O and PE files."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from cargo_strip_hook.core.errors import ExportsError, InputError
from cargo_strip_hook.core.files import open_file
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.words import words

Data = bytes | mmap.mmap

_LINKER_MADE = words(
    """_init _fini _start _edata _end _etext edata end etext __bss_start __bss_start__ __bss_end__
    _bss_end__ __end__ __data_start data_start __dso_handle _DYNAMIC _GLOBAL_OFFSET_TABLE_
    _PROCEDURE_LINKAGE_TABLE_ __mh_dylib_header dyld_stub_binder"""
)
_LINKER_SETS = ("__start_", "__stop_")
_MACHO_CPU = {
    "x86_64": 0x01000007,
    "aarch64": 0x0100000C,
    "arm64": 0x0100000C,
    "i686": 7,
    "arm": 12,
}


def exported_names(library: Path, target: Target) -> tuple[str, ...]:
    """The names that a shared library exports, as object files for `target` spell them, sorted.

    Symbols that linkers define (``_end``, ``__start_X``) are left out. Raises `ExportsError` where
    the file cannot be read or is no shared library, `InputError` where it is damaged.
    """
    try:
        data = _mapped(library)
    except OSError as e:
        raise ExportsError(f"the cdylib `{library}` cannot be read: {e.strerror}") from e
    readers = {"elf": _elf, "macho": _macho, "coff": _pe}
    kind = _kind(data)
    if kind != target.object_format:
        what = kind.upper() if kind else "unknown"
        raise ExportsError(
            f"the cdylib `{library}` is a file of {what} format, not one for {target.triple}",
            help="give the shared library that was built together with the static one",
        )
    try:
        names = set(readers[kind](data, target))
    except (struct.error, IndexError, ValueError) as e:
        raise InputError(f"damaged {kind} file: {e}", path=str(library)) from e
    return tuple(
        sorted(n for n in names if n not in _LINKER_MADE and not n.startswith(_LINKER_SETS))
    )


def _mapped(library: Path) -> Data:
    """The file's contents, mapped: little of a large library is read."""
    with open_file(library) as file:
        if not file.read(1):
            return b""  # which cannot be mapped
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _kind(data: Data) -> str:
    if data[:4] == b"\x7fELF":
        return "elf"
    if data[:2] == b"MZ":
        return "coff"
    magics = {b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"}
    return "macho" if data[:4] in magics else ""


def _string(data: Data, offset: int) -> str:
    end = data.find(b"\0", offset)
    if end < 0:
        raise ValueError("a name has no end")
    return data[offset:end].decode("utf-8", "surrogateescape")


def _elf(data: Data, _target: Target) -> Iterator[str]:
    """Defined symbols of ``.dynsym`` that others can bind to (gABI, chapters 4 and 5)."""
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    if wide:
        (shoff,) = struct.unpack_from(order + "Q", data, 0x28)
        size, count = struct.unpack_from(order + "HH", data, 0x3A)
        section = struct.Struct(order + "IIQQQQIIQQ")
        symbol = struct.Struct(order + "IBBHQQ")
    else:
        (shoff,) = struct.unpack_from(order + "I", data, 0x20)
        size, count = struct.unpack_from(order + "HH", data, 0x2E)
        section = struct.Struct(order + "10I")
        symbol = struct.Struct(order + "IIIBBH")
    headers = [section.unpack_from(data, shoff + i * size) for i in range(count)]
    table = next((h for h in headers if h[1] == 11), None)  # SHT_DYNSYM
    if table is None:
        raise ValueError("it has no dynamic symbol table")
    strings = headers[table[6]][4]
    for fields in symbol.iter_unpack(data[table[4] : table[4] + table[5]]):
        if wide:
            name, info, other, index = fields[:4]
        else:
            name, info, other, index = fields[0], fields[3], fields[4], fields[5]
        # STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE; STV_DEFAULT, STV_PROTECTED
        if index and name and info >> 4 in {1, 2, 10} and other & 3 in {0, 3}:
            yield _string(data, strings + name)


def _macho(data: Data, target: Target) -> Iterator[str]:
    """The exports trie (mach-o/loader.h: LC_DYLD_INFO, LC_DYLD_EXPORTS_TRIE)."""
    base = 0
    if data[:3] == b"\xca\xfe\xba":
        base = _fat_slice(data, target)
    wide = data[base] == 0xCF
    commands, position = struct.unpack_from("<I", data, base + 16)[0], base + (32 if wide else 28)
    for _ in range(commands):
        command, size = struct.unpack_from("<II", data, position)
        if command & 0x7FFFFFFF == 0x22:  # LC_DYLD_INFO
            offset, length = struct.unpack_from("<II", data, position + 40)
            yield from _trie(data[base + offset : base + offset + length])
            return
        if command & 0x7FFFFFFF == 0x33:  # LC_DYLD_EXPORTS_TRIE
            offset, length = struct.unpack_from("<II", data, position + 8)
            yield from _trie(data[base + offset : base + offset + length])
            return
        position += size
    raise ValueError("it has no exports trie")


def _fat_slice(data: Data, target: Target) -> int:
    """The offset of the slice for the target (mach-o/fat.h; big endian)."""
    wanted = _MACHO_CPU.get(target.arch)
    (count,) = struct.unpack_from(">I", data, 4)
    wide = data[3] == 0xBF
    for i in range(count):
        if wide:
            cpu, _, offset = struct.unpack_from(">IIQ", data, 8 + 32 * i)
        else:
            cpu, _, offset = struct.unpack_from(">III", data, 8 + 20 * i)
        if cpu == wanted:
            return int(offset)
    raise ValueError(f"it has no slice for {target.arch}")


def _uleb(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, offset


def _trie(trie: bytes) -> Iterator[str]:
    if not trie:
        return
    todo: list[tuple[int, bytes]] = [(0, b"")]
    visited: set[int] = set()
    while todo:
        offset, prefix = todo.pop()
        if offset in visited:
            raise ValueError("the exports trie has a cycle")
        visited.add(offset)
        size, offset = _uleb(trie, offset)
        if size:
            yield prefix.decode("utf-8", "surrogateescape")
        offset += size
        children = trie[offset]
        offset += 1
        for _ in range(children):
            end = trie.index(b"\0", offset)
            child, after = _uleb(trie, end + 1)
            todo.append((child, prefix + trie[offset:end]))
            offset = after


def _pe(data: Data, target: Target) -> Iterator[str]:
    """The export name table (PE format, "The .edata Section")."""
    (header,) = struct.unpack_from("<I", data, 0x3C)
    if data[header : header + 4] != b"PE\0\0":
        raise ValueError("it has no PE header")
    sections, optional_size = struct.unpack_from("<H12xH", data, header + 6)
    optional = header + 24
    (magic,) = struct.unpack_from("<H", data, optional)
    directory = optional + (112 if magic == 0x20B else 96)
    (export,) = struct.unpack_from("<I", data, directory)
    if not export:
        return
    spans = []
    for i in range(sections):
        header_offset = optional + optional_size + 40 * i
        spans.append(struct.unpack_from("<IIII", data, header_offset + 8))

    def offset(address: int) -> int:
        for virtual_size, virtual, raw_size, raw in spans:
            if virtual <= address < virtual + max(virtual_size, raw_size):
                return int(raw + address - virtual)
        raise ValueError(f"no section holds the address {address:#x}")

    table = offset(export)
    count, _, names = struct.unpack_from("<III", data, table + 24)
    if not count:
        return
    for (address,) in struct.iter_unpack("<I", data[offset(names) : offset(names) + 4 * count]):
        yield target.symbol_prefix + _string(data, offset(address))
