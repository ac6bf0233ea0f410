"""The header and load commands of an object file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.versions import Version
from cargo_strip_hook.formats.sniff import VERSION_MIN, minimum_platform
from cargo_strip_hook.link.model import Array
from cargo_strip_hook.link.reading import InputFile

_CPU_NAMES = {
    7: "i386",
    12: "arm",
    18: "powerpc",
    0x01000012: "powerpc64",
    0x0200000C: "arm64_32",
    mo.CPU_TYPE_X86_64: "x86_64",
    mo.CPU_TYPE_ARM64: "arm64",
}
_SUPPORTED = "supported are 64-bit objects for arm64 and x86_64"


@dataclass(frozen=True, slots=True)
class Commands:
    """What the load commands say. `indirect` is the indirect symbol table."""

    cputype: int
    cpusubtype: int
    flags: int
    sections: Array  # SECTION
    symbols: Array  # NLIST
    strings: memoryview
    strings_offset: int  # in the file
    indirect: Array
    versions: tuple[Version, ...]
    options: tuple[tuple[bytes, ...], ...]
    data_in_code: Array  # DATA_IN_CODE


def read_commands(f: InputFile) -> Commands:
    """Read header and load commands. Raises `ObjectError`."""
    header = _header(f)
    sections = np.zeros(0, mo.SECTION)
    symbols = np.zeros(0, mo.NLIST)
    strings, strings_offset = memoryview(b"\0"), 0
    indirect = np.zeros(0, "<u4")
    versions: list[Version] = []
    options: list[tuple[bytes, ...]] = []
    data_in_code = np.zeros(0, mo.DATA_IN_CODE)
    seen: set[int] = set()
    position, end = mo.HEADER.itemsize, mo.HEADER.itemsize + int(header["sizeofcmds"])
    if end > len(f.data):
        raise f.fail("the load commands reach beyond the end of the file", 20)
    for _ in range(int(header["ncmds"])):
        if position + 8 > end:
            raise f.fail("the load commands are cut short", position)
        command, size = struct.unpack_from("<II", f.data, position)
        if size < 8 or size % 4 or position + size > end:
            raise f.fail("a load command has an impossible size", position)
        if command in (mo.LC_SEGMENT_64, mo.LC_SYMTAB, mo.LC_DYSYMTAB, mo.LC_DATA_IN_CODE):
            if command in seen:
                raise f.fail("a load command is there twice", position)
            seen.add(command)
        if command == mo.LC_SEGMENT_64:
            sections = _sections(f, position, size)
        elif command == mo.LC_SYMTAB:
            symbols, strings, strings_offset = _symtab(f, position, size)
        elif command == mo.LC_DYSYMTAB:
            _need(f, position, size, 80)
            start, count = struct.unpack_from("<II", f.data, position + 56)
            if count:
                indirect = f.table(
                    np.dtype("<u4"), start, count, "the indirect symbol table reaches"
                )
        elif command == mo.LC_BUILD_VERSION:
            _need(f, position, size, 24)
            platform, minimum, sdk = struct.unpack_from("<III", f.data, position + 8)
            versions.append(Version(platform, minimum, sdk))
        elif command in VERSION_MIN:
            _need(f, position, size, 16)
            minimum, sdk = struct.unpack_from("<II", f.data, position + 8)
            intel = int(header["cputype"]) == mo.CPU_TYPE_X86_64
            platform = minimum_platform(command, intel=intel)
            versions.append(Version(platform, minimum, sdk, command))
        elif command == mo.LC_LINKER_OPTION:
            options.append(_option(f, position, size))
        elif command == mo.LC_DATA_IN_CODE:
            _need(f, position, size, 16)
            start, length = struct.unpack_from("<II", f.data, position + 8)
            count = length // mo.DATA_IN_CODE.itemsize
            data_in_code = f.table(
                mo.DATA_IN_CODE, start, count, "the list of data in code reaches"
            )
        position += size
    return Commands(
        int(header["cputype"]),
        int(header["cpusubtype"]),
        int(header["flags"]),
        sections,
        symbols,
        strings,
        strings_offset,
        indirect,
        tuple(versions),
        tuple(options),
        data_in_code,
    )


def _header(f: InputFile) -> Array:
    if len(f.data) < mo.HEADER.itemsize:
        raise f.fail("the file is too short for a Mach-O header", 0)
    magic = bytes(f.data[:4])
    if magic in (b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf"):
        raise f.fail("32-bit and big-endian Mach-O objects are not supported", 0, _SUPPORTED)
    header: Array = np.frombuffer(f.data, mo.HEADER, 1)[0]
    if header["magic"] != mo.MH_MAGIC_64:
        raise f.fail("this is no Mach-O file", 0)
    cpu, subtype = int(header["cputype"]), int(header["cpusubtype"]) & ~mo.CPU_SUBTYPE_MASK
    name = _CPU_NAMES.get(cpu, f"processor {cpu:#x}")
    if cpu == mo.CPU_TYPE_ARM64 and subtype == mo.CPU_SUBTYPE_ARM64E:
        name = "arm64e"
    if name not in ("arm64", "x86_64"):
        raise f.fail(f"Mach-O objects for {name} are not supported", 4, _SUPPORTED)
    if header["filetype"] != mo.MH_OBJECT:
        raise f.fail("this Mach-O file is no relocatable object", 12)
    return header


def _need(f: InputFile, position: int, size: int, wanted: int) -> None:
    if size < wanted:
        raise f.fail("a load command is too short", position)


def _sections(f: InputFile, offset: int, size: int) -> Array:
    _need(f, offset, size, mo.SEGMENT.itemsize)
    count = int(np.frombuffer(f.data, mo.SEGMENT, 1, offset)[0]["nsects"])
    if mo.SEGMENT.itemsize + count * mo.SECTION.itemsize > size:
        raise f.fail("the section headers are cut short", offset)
    if count > mo.MAX_SECTIONS:
        raise f.fail(f"the file has {count} sections, more than {mo.MAX_SECTIONS}", offset)
    sections = f.table(mo.SECTION, offset + mo.SEGMENT.itemsize, count, "the section table reaches")
    limit = len(f.data)
    columns = [sections[c].tolist() for c in ("addr", "size", "offset", "align", "reloff")]
    columns += [sections[c].tolist() for c in ("nreloc", "flags")]
    for number, row in enumerate(zip(*columns, strict=True)):
        address, length, start, align, first, relocations, flags = row
        where = offset + mo.SEGMENT.itemsize + number * mo.SECTION.itemsize
        zero = flags & mo.SECTION_TYPE in mo.ZEROFILL_TYPES
        if length and not zero and start + length > limit:
            raise f.fail(f"section {number + 1} reaches beyond the end of the file", where)
        if address + length >= 1 << 40 or length >= 1 << 32:
            raise f.fail(f"section {number + 1} has an impossible address or size", where)
        if align > 28:
            raise f.fail(f"section {number + 1} has an impossible alignment", where)
        if relocations and first + 8 * relocations > limit:
            raise f.fail(f"the relocations of section {number + 1} are cut short", where)
        if relocations and zero:
            raise f.fail(f"section {number + 1} has relocations but no contents", where)
    return sections


def _symtab(f: InputFile, position: int, size: int) -> tuple[Array, memoryview, int]:
    _need(f, position, size, 24)
    start, count, strings, length = struct.unpack_from("<IIII", f.data, position + 8)
    symbols = f.table(mo.NLIST, start, count, "the symbol table reaches")
    if strings + length > len(f.data):
        raise f.fail("the string table reaches beyond the end of the file", position)
    table = f.data[strings : strings + length]
    if count and (not length or table[-1] != 0):
        raise f.fail("the symbol names do not end with a zero byte", position)
    if (symbols["strx"] >= max(length, 1)).any():
        raise f.fail("a symbol's name lies outside of the string table", position)
    return symbols, table if length else memoryview(b"\0"), strings


def _option(f: InputFile, position: int, size: int) -> tuple[bytes, ...]:
    _need(f, position, size, 12)
    (count,) = struct.unpack_from("<I", f.data, position + 8)
    words = bytes(f.data[position + 12 : position + size]).split(b"\0")
    if len(words) <= count:
        raise f.fail("a linker option is cut short", position)
    return tuple(words[:count])
