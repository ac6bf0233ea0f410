"""The header and load commands of an object: as the checker reads them, and a second time.

Source: mach-o/loader.h. macholib's record layouts are the second reader.
"""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

import numpy as np
from macholib import mach_o

from cargo_strip_hook.verify.arrays import Array, gather, spread
from cargo_strip_hook.verify.expectation import Findings

X86_64, ARM64 = 0x01000007, 0x0100000C
SUBSECTIONS = 0x2000  # MH_SUBSECTIONS_VIA_SYMBOLS
_SEGMENT, _SYMTAB, _DYSYMTAB, _BUILD, _OPTION, _DATA = 0x19, 0x2, 0xB, 0x32, 0x2D, 0x29
_MINIMUMS = {0x24: 1, 0x25: 2, 0x2F: 3, 0x30: 4}  # the platform of each LC_VERSION_MIN
# the bytes of those that have no other size
_SIZES = {_SYMTAB: 24, _DYSYMTAB: 80, _BUILD: 24, _DATA: 16, **dict.fromkeys(_MINIMUMS, 16)}
_DATA_IN_CODE = np.dtype([("offset", "<u4"), ("length", "<u2"), ("kind", "<u2")])


class Damaged(Exception):
    """What is wrong with an object; `file` is its position among those asked for."""

    def __init__(self, what: str, file: int = 0) -> None:
        super().__init__(what)
        self.file = file


class Commands(NamedTuple):
    """What header and load commands of a file say; places are in the file."""

    cpu: int
    subtype: int
    flags: int
    listed: tuple[tuple[int, int, int], ...]  # (command, where it is, its size)
    sections: int
    section_count: int
    symbols: tuple[int, int, int, int]  # symbol table, number, string table, its size
    groups: tuple[int, int, int, int, int, int] | None
    indirect: tuple[int, int]  # the indirect symbol table, number
    data_in_code: tuple[int, int]  # the list, its bytes
    versions: tuple[tuple[int, int, int], ...]  # platform, minimum, SDK
    options: tuple[bytes, ...]  # the words of each LC_LINKER_OPTION, as they stand there


def read_commands(data: memoryview) -> Commands:
    """Raises `Damaged`, `struct.error` for what is cut short."""
    magic, cpu, subtype, kind, count, size, flags, _ = struct.unpack_from("<8I", data)
    if magic != 0xFEEDFACF or kind != 1 or cpu not in (X86_64, ARM64):
        raise Damaged("no 64-bit Mach-O object")
    sections = section_count = 0
    symbols, groups = (0, 0, 0, 0), None
    indirect = data_in_code = (0, 0)
    listed, versions, options = [], [], []
    at = 32
    for _ in range(count):
        command, length = struct.unpack_from("<II", data, at)
        if length < 8 or at + length > min(32 + size, len(data)):
            raise Damaged("the load commands are cut short")
        listed.append((command, at, length))
        if command == _SEGMENT:
            if sections:
                raise Damaged("there are two segments")
            (section_count,) = struct.unpack_from("<I", data, at + 64)
            sections = at + 72
            if 72 + 80 * section_count > length:
                raise Damaged("the section headers are cut short")
        elif command == _SYMTAB:
            symbols = struct.unpack_from("<4I", data, at + 8)
        elif command == _DYSYMTAB:
            groups = struct.unpack_from("<6I", data, at + 8)
            indirect = struct.unpack_from("<2I", data, at + 56)
        elif command == _BUILD:
            versions.append(struct.unpack_from("<3I", data, at + 8))
        elif command in _MINIMUMS:
            platform = _MINIMUMS[command]
            if cpu == X86_64:  # which was in no device: the simulator
                platform = {2: 7, 3: 8, 4: 9}.get(platform, platform)
            versions.append((platform, *struct.unpack_from("<II", data, at + 8)))
        elif command == _DATA:
            data_in_code = struct.unpack_from("<II", data, at + 8)
        elif command == _OPTION:
            (words,) = struct.unpack_from("<I", data, at + 8)
            text = bytes(data[at + 12 : at + length]).split(b"\0")[:words]
            options.append(b"\0".join(text))
        at += length
    return Commands(
        cpu,
        subtype,
        flags,
        tuple(listed),
        sections,
        section_count,
        symbols,
        groups,
        indirect,
        data_in_code,
        tuple(versions),
        tuple(options),
    )


def data_in_code(octets: Array, base: int, commands: Commands) -> Array:
    """(address, bytes, kind) of each range of data in code, int64. Raises `Damaged`."""
    location, size = commands.data_in_code
    try:
        starts = spread(np.array([base + location]), np.array([size // 8]), 8)
        rows = gather(octets, starts, _DATA_IN_CODE)
    except IndexError as e:
        raise Damaged("the list of data in code reaches beyond the end of the file") from e
    return np.stack([rows[c].astype(np.int64) for c in ("offset", "length", "kind")], 1)


def check_commands(data: memoryview, told: Commands, findings: Findings) -> None:
    """Header and load commands are those of an object that we made, with nothing else in them."""
    count, size, _, reserved = struct.unpack_from("<4I", data, 16)
    if told.flags != SUBSECTIONS or reserved:
        findings.add("the file header", f"the header has the flags {told.flags:#x}, {reserved:#x}")
    if sum(length for _, _, length in told.listed) != size:
        findings.add("load commands", f"{count} of them are not {size} bytes")
    kinds = [command for command, _, _ in told.listed]
    once = [c for c in kinds if c not in (_OPTION, _BUILD)]
    if len(set(once)) != len(once) or not {_SEGMENT, _SYMTAB, _DYSYMTAB} <= set(kinds):
        findings.add("load commands", "one is missing, or there twice")
    for command, at, length in told.listed:
        if command not in (*_SIZES, _SEGMENT, _OPTION):
            findings.add("load commands", f"there is one of the type {command:#x}")
        elif length != _SIZES.get(command, length) or length % 8:
            findings.add("load commands", f"that of the type {command:#x} has {length} bytes")
        if command == _DYSYMTAB and any(data[at + 32 : at + 80]):
            findings.add(
                "the dynamic symbol table", "LC_DYSYMTAB tells of tables that an object has not"
            )
        if command == _BUILD and any(data[at + 20 : at + 24]):
            findings.add("platform", "LC_BUILD_VERSION tells of tools")
        if command == _SEGMENT:
            _check_segment(data, told, at, length, findings)
    location, count = told.data_in_code
    if count % 8 or location + count > len(data):
        findings.add("data in code", "LC_DATA_IN_CODE is no list of the file")


def _check_segment(
    data: memoryview, told: Commands, at: int, length: int, findings: Findings
) -> None:
    """The segment holds all of its sections, and no more."""
    name = bytes(data[at + 8 : at + 24])
    address, size, offset, stored, most, first, _, flags = struct.unpack_from(
        "<4Q4I", data, at + 24
    )
    if any(name) or address or (most, first, flags) != (7, 7, 0):
        findings.add("the segment", "the segment is not that of an object")
    if length != 72 + 80 * told.section_count:
        findings.add("the segment", "the segment's sections are not all of it")
    end = file_end = 0
    for n in range(told.section_count):
        row = told.sections + 80 * n
        start, room, location = struct.unpack_from("<QQI", data, row + 32)
        (kind,) = struct.unpack_from("<B", data, row + 64)
        end = max(end, start + room)
        if data[row + 56 : row + 60] != bytes(4) and data[row + 60 : row + 64] == bytes(4):
            findings.add("a section header", "a section without relocations has a place for them")
        zeros = kind in (0x1, 0xC, 0x12)
        if any(data[row + 68 : row + 80]):
            findings.add("a section header", "a section has reserved fields that are not zero")
        if zeros or not room:
            if location:
                findings.add(
                    "a section header", "a section without contents has a place in the file"
                )
            continue
        file_end = max(file_end, location + room)
        if location != offset + start:
            findings.add("a section header", "a section does not lie in the file as in memory")
    if size != end or (file_end and offset + stored != file_end):
        findings.add("the segment", "the segment does not end with its last section")


def second_reading(data: memoryview, told: Commands, symbols: int, findings: Findings) -> None:
    """Header, load commands and the number of symbols, as macholib reads them.

    Only its record layouts: its `MachO` reads the contents of all sections.
    """
    end = 32 + int.from_bytes(data[20:24], "little")
    stream = io.BytesIO(bytes(data[:end]))
    order: Any = {"_endian_": "<"}
    seen, sections, count = [], 0, 0
    try:
        header = mach_o.mach_header_64.from_fileobj(stream, **order)
        for _ in range(header.ncmds):
            at = stream.tell()
            load = mach_o.load_command.from_fileobj(stream, **order)
            seen.append((int(load.cmd), at, int(load.cmdsize)))
            body = mach_o.LC_REGISTRY[load.cmd].from_fileobj(stream, **order)
            if load.cmd == mach_o.LC_SEGMENT_64:
                sections = int(body.nsects)
            elif load.cmd == mach_o.LC_SYMTAB:
                count = int(body.nsyms)
            stream.seek(at + load.cmdsize)
    except (KeyError, ValueError, TypeError, struct.error, EOFError) as e:
        findings.add("macholib cannot read it", str(e) or type(e).__name__)
        return
    mine = (told.cpu, told.subtype, told.listed, told.section_count, symbols)
    theirs = (int(header.cputype), int(header.cpusubtype), tuple(seen), sections, count)
    if mine != theirs:
        findings.add("macholib reads another file", f"{theirs} instead of {mine}"[:200])
