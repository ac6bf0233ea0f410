"""Build attributes and e_flags of the inputs, put together as linkers do.

Sources: Arm ABI Addenda, "Build Attributes" (the format, and how values combine); RISC-V ELF
psABI 1.0, section 8.7; RISC-V ISA manual, "ISA Extension Naming Conventions".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError, ObjectError
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import elf_unit, section_name
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.model import Unit
from cargo_strip_hook.link.reading import uleb

Tags = dict[int, int | bytes]

_ARM = 40
_FILE, _COMPATIBILITY = 1, 32  # Tag_File, Tag_compatibility


@dataclass(frozen=True, slots=True)
class Attributes:
    """A section of build attributes."""

    name: bytes
    type: int
    contents: bytes


def merge(real: Sequence[Unit], machine: Machine) -> tuple[int, Attributes | None]:
    """(e_flags, build attributes) of the output. Raises `LinkError` where inputs contradict."""
    flags = _flags(real, machine)
    if not machine.attributes:
        return flags, None
    name, vendor, together = b"", b"", None
    for unit in real:
        native = elf_unit(unit)
        for section in np.flatnonzero(native.sections["type"] == machine.attributes).tolist():
            parsed = _parse(unit, section)
            if parsed is None:
                continue
            vendor, tags = parsed
            name = section_name(native, section)
            if together is None:
                together = dict(tags)
            elif machine.number == _ARM:
                together = _join_arm(together, tags, unit.name)
            else:
                together = _join_riscv(together, tags)
    if together is None:
        return flags, None
    order = elf_unit(real[0]).records.order
    return flags, Attributes(name, machine.attributes, _contents(vendor, together, order))


def _flags(real: Sequence[Unit], machine: Machine) -> int:
    """e_flags: the bits that add up, and the others, in which all objects with code agree."""
    common, first, owner = 0, None, ""
    for unit in real:
        native = elf_unit(unit)
        common |= native.flags & machine.joined_flags
        rest = native.flags & ~machine.joined_flags
        if not (native.sections["flags"] & elf.SHF_EXECINSTR).any():
            continue
        if first is None:
            first, owner = rest, unit.name
        elif rest != first:
            optional = machine.optional_flags
            silent = rest & optional == 0 or first & optional == 0
            if (rest ^ first) & (~optional if silent else -1):
                raise LinkError(
                    f"{owner} and {unit.name} were compiled for different ABIs "
                    f"(e_flags 0x{first:x} and 0x{rest:x})",
                    help="a program that uses both members does not link with the original either",
                )
            first |= rest
    if first is None:
        first = int(elf_unit(real[0]).flags) & ~machine.joined_flags if real else 0
    return common | first


def joined_identity(units: Sequence[Unit]) -> bytes:
    """EI_OSABI and EI_ABIVERSION: those of all units that say something.

    Raises `LinkError` where they are for different systems.
    """
    told = [(elf_unit(unit).identity, unit.name) for unit in units if any(elf_unit(unit).identity)]
    systems = {identity[0]: name for identity, name in told if identity[0]}
    if len(systems) > 1:
        (one, first), (other, second), *_ = systems.items()
        raise LinkError(
            f"{first} and {second} are for different operating systems (OS/ABI {one} and {other})",
            help="build all members for one target",
        )
    return max((identity for identity, _ in told), default=bytes(2))


# ---- the format


def _parse(unit: Unit, section: int) -> tuple[bytes, Tags] | None:
    """(vendor, the tags that apply to the whole file) of the first vendor's part."""
    header = elf_unit(unit).sections[section]
    start, size = int(header["offset"]), int(header["size"])
    data = bytes(unit.data[start : start + size])
    try:
        return _first_vendor(data, elf_unit(unit).records.order)
    except (IndexError, ValueError, struct.error) as e:
        raise ObjectError("the build attributes are damaged", member=unit.name, offset=start) from e


def _first_vendor(data: bytes, order: str) -> tuple[bytes, Tags] | None:
    if data[:1] != b"A" or len(data) < 6:
        return None
    end = min(1 + struct.unpack_from(f"{order}I", data, 1)[0], len(data))
    name_end = data.index(b"\0", 5)
    vendor = data[5:name_end]
    position = name_end + 1
    tags: Tags = {}
    while position < end:
        (length,) = struct.unpack_from(f"{order}I", data, position + 1)
        if length < 5:
            raise ValueError(length)
        if data[position] == _FILE:
            tags |= _tags(data[position + 5 : position + length], vendor)
        position += length
    return vendor, tags


def _is_text(tag: int, vendor: bytes) -> bool:
    if vendor == b"aeabi" and tag < 64:
        return tag in (_CPU_RAW_NAME, _CPU_NAME)
    return tag % 2 == 1


def _tags(data: bytes, vendor: bytes) -> Tags:
    tags: Tags = {}
    position = 0
    while position < len(data):
        tag, position = uleb(data, position)
        if _is_text(tag, vendor):
            end = data.index(b"\0", position)
            tags[tag] = data[position:end]
            position = end + 1
        else:
            tags[tag], position = uleb(data, position)
            if tag == _COMPATIBILITY:  # a number and a string, of toolchains that nobody has
                position = data.index(b"\0", position) + 1
                del tags[tag]
    return tags


def _contents(vendor: bytes, tags: Tags, order: str) -> bytes:
    body = b""
    # a claim of conformance stands first: Addenda, "Tag_conformance"
    for tag in sorted(tags, key=lambda t: (vendor != b"aeabi" or t != _CONFORMANCE, t)):
        value = tags[tag]
        body += _uleb(tag) + (value + b"\0" if isinstance(value, bytes) else _uleb(value))
    body = bytes([_FILE]) + struct.pack(f"{order}I", len(body) + 5) + body
    part = vendor + b"\0" + body
    return b"A" + struct.pack(f"{order}I", len(part) + 4) + part


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- Arm

_CPU_RAW_NAME, _CPU_NAME, _PROFILE, _FP_ARCH = 4, 5, 7, 10
_R9_USE, _WCHAR, _NUMBER_MODEL, _HARD_FP_USE, _GOALS = 14, 18, 23, 27, (30, 31)
_VFP_ARGS, _VFP_ARGS_NONE = 28, 3
_CONFORMANCE, _VIRTUALISATION = 67, 68
# Tag_FP_arch: value -> (version, has 32 registers)
_FP = {
    0: (0, False),
    1: (1, False),
    2: (2, False),
    3: (3, True),
    4: (3, False),
    5: (4, True),
    6: (4, False),
    7: (8, True),
    8: (8, False),
}


def _join_arm(ours: Tags, other: Tags, name: str) -> Tags:
    """Most values grow with what they ask for, so that the larger one holds for both."""
    out = dict(ours)
    if args := _join_vfp_args(ours, other, name):
        out[_VFP_ARGS] = args
    for tag in sorted(ours.keys() | other.keys()):
        a, b = ours.get(tag), other.get(tag)
        if isinstance(a, bytes) or isinstance(b, bytes):
            # names of processors and of other ABIs hold only where all say the same
            if a != b:
                out.pop(tag, None)
            continue
        x, y = a or 0, b or 0
        if tag == _FP_ARCH:
            out[tag] = _join_fp(x, y)
        elif tag == _VFP_ARGS:
            continue
        elif tag == _R9_USE and 3 in (x, y):
            out[tag] = min(x, y)  # unused goes with every use
        elif tag in (_HARD_FP_USE, _VIRTUALISATION):
            out[tag] = x | y
        elif tag in _GOALS:
            out[tag] = x if x == y else 0
        elif tag == _WCHAR and 0 in (x, y):
            out[tag] = x | y
        elif tag == _PROFILE:
            out[tag] = x if y in (0, ord("S")) else y
        else:
            out[tag] = max(x, y)
    return out


def _join_vfp_args(ours: Tags, other: Tags, name: str) -> int | bytes:
    """How floats are passed; objects that have no floats, or pass none, go with both ways."""
    a, b = ours.get(_VFP_ARGS, 0), other.get(_VFP_ARGS, 0)
    if a == b or not other.get(_NUMBER_MODEL) or b == _VFP_ARGS_NONE:
        return a
    if not ours.get(_NUMBER_MODEL) or a == _VFP_ARGS_NONE:
        return b
    raise LinkError(
        f"{name} passes floating-point arguments in another way than the members before it",
        help="a program that uses both members does not link with the original either",
    )


def _join_fp(a: int, b: int) -> int:
    if a not in _FP or b not in _FP:
        return max(a, b)
    version = max(_FP[a][0], _FP[b][0])
    wanted = version, _FP[a][1] or _FP[b][1]
    return next((v for v, what in _FP.items() if what == wanted), max(a, b))


# ---- RISC-V

_STACK_ALIGN, _ARCH, _UNALIGNED, _ATOMIC = 4, 5, 6, 14
_ATOMIC_A6S = 2
_LETTERS = "iemafdqlcbkjtpvnh"
_EXTENSION = re.compile(r"([a-z][a-z0-9]*?)(\d+)p(\d+)$")


def _join_riscv(ours: Tags, other: Tags) -> Tags:
    out = dict(ours)
    for tag, value in other.items():
        mine = ours.get(tag)
        if mine is None:
            out[tag] = value
        elif isinstance(mine, bytes) and isinstance(value, bytes):
            out[tag] = join_arch(mine, value) if tag == _ARCH else mine
        elif isinstance(mine, int) and isinstance(value, int):
            if tag == _UNALIGNED:
                out[tag] = mine | value
            elif tag == _ATOMIC and _ATOMIC_A6S in (mine, value):
                out[tag] = value if mine == _ATOMIC_A6S else mine  # goes with all the others
            elif tag != _STACK_ALIGN:
                out[tag] = mine or value
    return out


def join_arch(a: bytes, b: bytes) -> bytes:
    """The instruction set that has all extensions of two, each in its higher version.

    >>> join_arch(b"rv64i2p1_m2p0_zicsr2p0", b"rv64i2p1_c2p0_zba1p0")
    b'rv64i2p1_m2p0_c2p0_zba1p0_zicsr2p0'
    """
    if a == b or a[:4] != b[:4]:
        return a
    versions: dict[str, tuple[int, int]] = {}
    for text in (a, b):
        for extension in text[4:].decode("ascii", "replace").split("_"):
            match = _EXTENSION.match(extension)
            if match is None:
                return a
            version = int(match[2]), int(match[3])
            versions[match[1]] = max(version, versions.get(match[1], version))
    names = sorted(versions, key=_canonical)
    return a[:4] + "_".join(f"{n}{versions[n][0]}p{versions[n][1]}" for n in names).encode()


def _canonical(name: str) -> tuple[int, int, str]:
    """Single letters in their order, then Z by its second letter, then S, then X."""
    if len(name) == 1:
        return 0, _LETTERS.find(name), name
    kind = "zsx".find(name[0]) + 1
    return kind, _LETTERS.find(name[1]) if name[0] == "z" else 0, name


__all__ = ["Attributes", "join_arch", "merge"]
