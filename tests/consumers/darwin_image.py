"""Reads linked Mach-O images for comparison: functions by name, and what unwinds each of them.

Shares nothing with the package. Sources: mach-o/loader.h, mach-o/compact_unwind_encoding.h, and
the Linux Standard Base for .eh_frame.
"""

from __future__ import annotations

import bisect
import re
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

DWARF_MODE = {0x0100000C: 0x03000000, 0x01000007: 0x04000000}


@dataclass
class Image:
    data: bytes
    cpu: int
    sections: dict[tuple[str, str], tuple[int, int, int]]  # address, size, file offset
    symbols: list[tuple[str, int, int, int, int]]  # name, type, sect, desc, value
    base: int = 0
    commands: list[tuple[int, bytes]] = field(default_factory=list)
    indirect: dict[tuple[str, str], int] = field(default_factory=dict)  # first indirect symbol

    def pointed(self, slot: int) -> str:
        """The name of what a pointer of `__got` leads to; "" for the address 0.

        Sources: mach-o/loader.h, "indirect symbol table"; mach-o/fixup-chains.h,
        `dyld_chained_ptr_64_rebase` (an address, or an offset from the image's start).
        """
        if not slot:
            return ""
        key = next(
            k for k, (start, size, _) in self.sections.items() if start <= slot < start + size
        )
        first, _, _ = self.sections[key]
        (table,) = (
            struct.unpack_from("<I", raw, 56)[0] for command, raw in self.commands if command == 0xB
        )
        place = table + 4 * (self.indirect[key] + (slot - first) // 8)
        number = struct.unpack_from("<I", self.data, place)[0]
        if not number & 0xC0000000:  # INDIRECT_SYMBOL_LOCAL, INDIRECT_SYMBOL_ABS
            return self.symbols[number][0]
        target = struct.unpack("<Q", self.bytes_at(slot, 8))[0] & ((1 << 36) - 1)
        target += self.base if target < self.base else 0
        names = [n for n, kind, _, _, at in self.symbols if at == target and not kind & 0xE0]
        return min(names, key=lambda n: ("_personality" not in n, n))  # not an assembler's label

    def bytes_at(self, address: int, size: int) -> bytes:
        for start, length, offset in self.sections.values():
            if start <= address < start + length:
                at = offset + address - start
                return self.data[at : at + size]
        raise AssertionError(f"no section holds {address:#x}")

    def functions(self) -> dict[int, str]:
        """Address -> name of each symbol of `__text`."""
        start, size, _ = self.sections["__TEXT", "__text"]
        return {
            value: name
            for name, kind, _, _, value in self.symbols
            if not kind & 0xE0 and kind & 0xE == 0xE and start <= value < start + size
        }


def load(data: bytes) -> Image:
    """Read a thin 64-bit file of any type."""
    magic, cpu, _, _, count, _, _, _ = struct.unpack_from("<8I", data)
    assert magic == 0xFEEDFACF
    image = Image(data, cpu, {}, [])
    at = 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        image.commands.append((command, data[at : at + size]))
        if command == 0x19:
            name = data[at + 8 : at + 24].rstrip(b"\0").decode()
            if name == "__TEXT":
                image.base = struct.unpack_from("<Q", data, at + 24)[0]
            for i in range(struct.unpack_from("<I", data, at + 64)[0]):
                row = at + 72 + 80 * i
                section = data[row : row + 16].rstrip(b"\0").decode()
                segment = data[row + 16 : row + 32].rstrip(b"\0").decode()
                address, length, offset = struct.unpack_from("<QQI", data, row + 32)
                image.sections[segment, section] = (address, length, offset)
                image.indirect[segment, section] = struct.unpack_from("<I", data, row + 68)[0]
        elif command == 2:
            table, number, strings, _ = struct.unpack_from("<4I", data, at + 8)
            for i in range(number):
                text, kind, sect, desc, value = struct.unpack_from("<IBBHQ", data, table + 16 * i)
                end = data.index(b"\0", strings + text)
                name = data[strings + text : end].decode()
                image.symbols.append((name, kind, sect, desc, value))
        at += size
    return image


def _uleb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = data[at]
        value |= (octet & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if octet < 0x80:
            return value, at


def unwind_entries(image: Image) -> tuple[list[tuple[int, int]], dict[int, int], list[int]]:
    """(sorted (address, encoding), function -> LSDA address, personality GOT slots)."""
    if ("__TEXT", "__unwind_info") not in image.sections:
        return [], {}, []
    _, size, offset = image.sections["__TEXT", "__unwind_info"]
    raw = image.data[offset : offset + size]
    _, common, commons, persons, person_count, index, pages = struct.unpack_from("<7I", raw)
    encodings = struct.unpack_from(f"<{commons}I", raw, common)
    slots = [image.base + p for p in struct.unpack_from(f"<{person_count}I", raw, persons)]
    first = [struct.unpack_from("<3I", raw, index + 12 * i) for i in range(pages)]
    entries: list[tuple[int, int]] = []
    for function, page, _ in first[:-1]:
        kind = struct.unpack_from("<I", raw, page)[0]
        begin, count = struct.unpack_from("<HH", raw, page + 4)
        if kind == 2:
            for i in range(count):
                address, encoding = struct.unpack_from("<II", raw, page + begin + 8 * i)
                entries.append((image.base + address, encoding))
        else:
            table, table_count = struct.unpack_from("<HH", raw, page + 8)
            own = struct.unpack_from(f"<{table_count}I", raw, page + table)
            for i in range(count):
                word = struct.unpack_from("<I", raw, page + begin + 4 * i)[0]
                number = word >> 24
                all_encodings = (*encodings, *own)
                address = image.base + function + (word & 0xFFFFFF)
                entries.append((address, all_encodings[number]))
    lsdas: dict[int, int] = {}
    begin, end = first[0][2], first[-1][2]
    for at in range(begin, end, 8):
        function, lsda = struct.unpack_from("<II", raw, at)
        lsdas[image.base + function] = image.base + lsda
    return sorted(entries), lsdas, slots


@dataclass(frozen=True)
class Frame:
    """One FDE: what it says, without addresses."""

    start: int
    size: int
    lsda: int
    cie: bytes
    personality: int  # address of the GOT slot
    instructions: bytes


def frames(image: Image) -> dict[int, Frame]:
    """The FDEs of an image, by their offset in `__eh_frame`."""
    if ("__TEXT", "__eh_frame") not in image.sections:
        return {}
    start, size, offset = image.sections["__TEXT", "__eh_frame"]
    raw = image.data[offset : offset + size]
    found: dict[int, Frame] = {}
    at = 0
    while at + 4 <= size:
        length = struct.unpack_from("<I", raw, at)[0]
        if not length:
            break
        pointer = struct.unpack_from("<I", raw, at + 4)[0]
        if pointer:
            cie = at + 4 - pointer
            personality, has_lsda, body = _cie(raw, cie, start)
            begin = start + at + 8 + struct.unpack_from("<q", raw, at + 8)[0]
            extent = struct.unpack_from("<q", raw, at + 16)[0]
            data, next_at = _uleb(raw, at + 24)
            lsda = 0
            if has_lsda and data >= 8:
                distance = struct.unpack_from("<q", raw, next_at)[0]
                lsda = start + next_at + distance if distance else 0
            code = raw[next_at + data : at + 4 + length].rstrip(b"\0")
            found[at] = Frame(begin, extent, lsda, body, personality, code)
        at += 4 + length
    return found


def _cie(raw: bytes, at: int, start: int) -> tuple[int, bool, bytes]:
    """(address of the personality's slot or 0, whether FDEs have an LSDA, bytes without it)."""
    length = struct.unpack_from("<I", raw, at)[0]
    end = raw.index(b"\0", at + 9)
    text = raw[at + 9 : end]
    position = end + 1
    for _ in range(3):
        _, position = _uleb(raw, position)
    _, position = _uleb(raw, position)
    personality, record = 0, bytearray(raw[at : at + 4 + length])
    for letter in text[1:]:
        if letter == ord("P"):
            place = position + 1
            personality = start + place + struct.unpack_from("<i", raw, place)[0]
            record[place - at : place - at + 4] = bytes(4)
            position += 5
        elif letter in b"LR":
            position += 1
    return personality, b"L" in text, bytes(record)


def personalities(image: Image) -> tuple[set[int], set[int]]:
    """The slots of the personality routines: of compact unwind information, and of CIEs."""
    framed = {f.personality for f in frames(image).values()}
    return set(unwind_entries(image)[2]), framed - {0}


def _lsda(image: Image, address: int) -> bytes:
    """The header and the call sites of an LSDA (Itanium C++ ABI, exception handling, 7.2)."""
    raw = image.bytes_at(address, 1 << 16)
    at = 1
    if raw[0] != 0xFF:
        _, at = _uleb(raw, at)
    types = raw[at]
    at += 1
    if types != 0xFF:
        _, at = _uleb(raw, at)
    length, at = _uleb(raw, at + 1)
    return raw[: at + length]


def unwinding(image: Image, *, named: bool = True) -> dict[int, tuple[object, ...]]:
    """For each function: what a panic that passes it meets, without addresses.

    (compact encoding, or the FDE's instructions and CIE; the personality's name, or whether there
    is one; the LSDA).
    """

    def called(slot: int) -> str | bool:
        return image.pointed(slot) if named else slot != 0

    entries, lsdas, slots = unwind_entries(image)
    starts = [e[0] for e in entries]
    by_offset = frames(image)
    mode = DWARF_MODE[image.cpu]
    found: dict[int, tuple[object, ...]] = {}
    for address in image.functions():
        i = bisect.bisect_right(starts, address) - 1
        encoding = entries[i][1] if i >= 0 else 0
        lsda = lsdas.get(address, 0)
        which = encoding >> 28 & 3  # one more than the number of the slot
        routine = called(slots[which - 1] if which else 0)
        detail: tuple[object, ...] = (encoding & ~(3 << 28), routine)
        if encoding & 0x0F000000 == mode:
            frame = by_offset[encoding & 0xFFFFFF]
            if frame.start != address:
                found[address] = ("another function's",)
                continue
            lsda = frame.lsda
            routine = called(frame.personality)
            detail = (frame.size, frame.cie, frame.instructions, routine)
        text = _lsda(image, lsda) if lsda else b""
        found[address] = (*detail, text)
    return found


_ADDRESS = re.compile(r"-?0x[0-9a-f]+")


def data_in_code(image: Image) -> dict[int, bytes]:
    """Address -> contents of each jump table in `__text`, by LC_DATA_IN_CODE."""
    found = {}
    for command, raw in image.commands:
        if command == 0x29:
            at, size = struct.unpack_from("<II", raw, 8)
            for offset, length, _ in struct.iter_unpack("<IHH", image.data[at : at + size]):
                address = image.base + offset
                found[address] = image.bytes_at(address, length)
    return found


def bodies(path: Path, objdump: Path) -> dict[int, str]:
    """Function address -> its instructions, without addresses and what follows from them.

    Jump tables behind the instructions are included: they hold distances within the function.
    """
    tables = data_in_code(load(path.read_bytes()))
    order = sorted(tables)
    done = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", "--section=__text", path],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    found: dict[int, str] = {}
    start = cut = 0
    lines: list[str] = []
    for line in [*done.stdout.splitlines(), "fffffffffffffff <end>:"]:
        head = re.match(r"^([0-9a-f]+) <.*>:$", line)
        if head:
            end = int(head[1], 16)
            own = [tables[t].hex() for t in order[bisect.bisect_left(order, start) :] if t < end]
            if start:
                found[start] = "\n".join([*_trim(lines), *own])
            start, lines = end, []
            cut = next((t for t in order if t >= start), 1 << 64)
        elif line.startswith("1") and ":" in line:
            where, text = line.split(":", 1)
            if int(where, 16) < cut:
                text = text.strip().split("##")[0].split(" ; ")[0].split(" <")[0].rstrip()
                # an offset within a page that happens to be 0 is not printed
                lines.append(_ADDRESS.sub("@", text).replace(", #@]", "]"))
    return found


def program(
    path: Path, objdump: Path, *, named: bool = True
) -> Counter[tuple[str, tuple[object, ...]]]:
    """All functions of a linked program, each with its instructions and how it is unwound.

    `named`: personality routines by name, which takes a table of indirect symbols that is right.
    """
    unwound = unwinding(load(path.read_bytes()), named=named)
    return Counter((text, unwound[address]) for address, text in bodies(path, objdump).items())


def _trim(lines: list[str]) -> list[str]:
    """Up to a jump table, and without the padding behind the last instruction.

    Tables and padding decode to whatever their bytes happen to say.
    """
    for number, line in enumerate(lines):
        if line.startswith("<unknown>") or re.match(r"^addb\t%\w+, @?\(", line):
            lines = lines[:number]
            break
    while lines and re.match(
        r"^(nop|int3|data16|cs nop|udf|xchgw|addb)", lines[-1].replace("\t", " ")
    ):
        lines = lines[:-1]
    return lines
