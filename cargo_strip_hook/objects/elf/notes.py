"""Notes that a linker reads: GNU properties and the wish for an executable stack.

Source: Linux Extensions to gABI, "GNU property"; GNU ld, "-z execstack".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.objects.elf import layouts as elf
from cargo_strip_hook.objects.elf.machine import Machine
from cargo_strip_hook.objects.elf.reader import section_name
from cargo_strip_hook.objects.model import Unit

_NT_GNU_PROPERTY_TYPE_0 = 5


@dataclass(frozen=True, slots=True)
class Notes:
    """`properties`: contents of `.note.gnu.property`, empty for none. `stack`: sh_flags of
    `.note.GNU-stack`, None where an input has none (as hand-written assembly often does)."""

    properties: bytes
    stack: int | None
    without_stack: tuple[str, ...]


def merge(units: Iterable[Unit], machine: Machine) -> Notes:
    """What the notes of all live units say together."""
    stack = 0
    missing: list[str] = []
    features: int | None = None
    for unit in units:
        native = unit.native
        heads = native.names16
        found = np.flatnonzero(heads == b".note.GNU-stack")
        if len(found):
            stack |= int(native.sections["flags"][found[0]]) & elf.SHF_EXECINSTR
        else:
            missing.append(unit.name)
        own = 0
        for section in np.flatnonzero(heads == b".note.gnu.proper").tolist():
            if section_name(native, section) == b".note.gnu.property":
                own |= _and_features(unit, section, machine)
        features = own if features is None else features & own
    properties = b""
    if features and machine.and_property is not None:
        body = struct.pack("<IIII", machine.and_property, 4, features, 0)
        properties = struct.pack("<III", 4, len(body), _NT_GNU_PROPERTY_TYPE_0) + b"GNU\0" + body
    return Notes(properties, None if missing else stack, tuple(missing))


def _and_features(unit: Unit, section: int, machine: Machine) -> int:
    """The bits of the property that must be set in all inputs to be set in the output."""
    header = unit.native.sections[section]
    start, size = int(header["offset"]), int(header["size"])
    data = bytes(unit.data[start : start + size])
    at, bits = 0, 0
    while at + 16 <= len(data):
        name_size, body_size, kind = struct.unpack_from("<III", data, at)
        body = at + 12 + (name_size + 3) // 4 * 4
        if kind == _NT_GNU_PROPERTY_TYPE_0 and data[at + 12 : at + 16] == b"GNU\0":
            inner, end = body, min(body + body_size, len(data))
            while inner + 8 <= end:
                number, length = struct.unpack_from("<II", data, inner)
                if number == machine.and_property and length == 4 and inner + 12 <= end:
                    bits |= int(struct.unpack_from("<I", data, inner + 8)[0])
                inner += 8 + (length + 7) // 8 * 8
        at = body + (body_size + 7) // 8 * 8
    return bits
