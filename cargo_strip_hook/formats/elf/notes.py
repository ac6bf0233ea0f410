"""Notes that a linker reads: GNU properties and the wish for an executable stack.

Source: Linux Extensions to gABI, "GNU property"; GNU ld, "-z execstack".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import elf_unit, section_name
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.model import Unit

_NT_GNU_PROPERTY_TYPE_0 = 5
_NO_COPY_ON_PROTECTED = 2
_AND, _OR = range(0xB0000000, 0xB0008000), range(0xB0008000, 0xB0010000)


@dataclass(frozen=True, slots=True)
class Notes:
    """`properties`: contents of `.note.gnu.property`, empty for none. `stack`: sh_flags of
    `.note.GNU-stack`, None where an input has none (as hand-written assembly often does)."""

    properties: bytes
    stack: int | None
    without_stack: tuple[str, ...]


def merge(real: Sequence[Unit], machine: Machine) -> Notes:
    """What the notes of the live units `real` say together."""
    stack = 0
    missing: list[str] = []
    every: list[dict[int, int | None]] = []
    for unit in real:
        native = elf_unit(unit)
        heads = native.names16
        stack_notes = np.flatnonzero(heads == b".note.GNU-stack")
        if len(stack_notes):
            stack |= int(native.sections["flags"][stack_notes[0]]) & elf.SHF_EXECINSTR
        else:
            missing.append(unit.name)
        own: dict[int, int | None] = {}
        for section in np.flatnonzero(heads == b".note.gnu.proper").tolist():
            if section_name(native, section) == b".note.gnu.property":
                own.update(_properties(unit, section))
        every.append(own)
    properties = b""
    kept = _merge_properties(every, machine)
    if kept:
        records: elf.Records = elf_unit(real[0]).records
        body = b""
        for number, value in sorted(kept.items()):
            raw = b"" if value is None else struct.pack(f"{records.order}I", value)
            body += struct.pack(f"{records.order}II", number, len(raw)) + raw
            body += bytes(-len(body) % records.size)
        head = struct.pack(f"{records.order}III", 4, len(body), _NT_GNU_PROPERTY_TYPE_0)
        properties = head + b"GNU\0" + body
    return Notes(properties, None if missing else stack, tuple(missing))


def _merge_properties(
    every: Sequence[dict[int, int | None]], machine: Machine
) -> dict[int, int | None]:
    """The properties of the result. Each has a rule by its number: AND, OR, or OR where all have
    one; a property that we have no rule for is dropped, as GNU ld does."""
    kept: dict[int, int | None] = {}
    for number in sorted({n for own in every for n in own}):
        values = [own.get(number, 0) for own in every]
        present = all(number in own for own in every)
        bits = [v or 0 for v in values]
        value: int | None
        if number == machine.and_property or number in _AND:
            value = reduce(and_, bits) if present else 0
        elif number in _OR or number in machine.or_properties:
            value = reduce(or_, bits)
        elif number in machine.or_and_properties:
            value = reduce(or_, bits) if present else 0
        else:
            value = 0
            if number == _NO_COPY_ON_PROTECTED:
                kept[number] = None
        if value:
            kept[number] = value
    return kept


def _properties(unit: Unit, section: int) -> dict[int, int | None]:
    """Number and value (None for those without data) of each property in a note section."""
    native = elf_unit(unit)
    header = native.sections[section]
    start, size = int(header["offset"]), int(header["size"])
    data = bytes(unit.data[start : start + size])
    order, word = native.records.order, native.records.size
    position = 0
    properties: dict[int, int | None] = {}
    while position + 16 <= len(data):
        name_size, body_size, kind = struct.unpack_from(f"{order}III", data, position)
        body = position + 12 + (name_size + 3) // 4 * 4
        if kind == _NT_GNU_PROPERTY_TYPE_0 and data[position + 12 : position + 16] == b"GNU\0":
            inner, end = body, min(body + body_size, len(data))
            while inner + 8 <= end:
                number, length = struct.unpack_from(f"{order}II", data, inner)
                if length == 4 and inner + 12 <= end:
                    properties[number] = int(struct.unpack_from(f"{order}I", data, inner + 8)[0])
                elif length == 0:
                    properties[number] = None
                inner += 8 + -(-length // word) * word
        position = body + -(-body_size // word) * word
    return properties
