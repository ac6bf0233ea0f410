"""The probe: an object with what linkers get wrong, made without a compiler, and how to judge it.

Source of the layouts: System V ABI, chapter 4, "Object Files"; of `.eh_frame`: Linux Standard Base
Core, "Exception Frames"; of `SHF_GNU_RETAIN`: the GNU gABI extensions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cargo_strip_hook.engines.system.machines import Machine
from cargo_strip_hook.engines.system.view import SHF_ALLOC, SHF_GROUP, SHT_GROUP, STB_LOCAL, View

EXPORT = "strip_hook_probe"
SET = b"strip_hook_probe_set"
MARKER = b"probe"

_NULL, _PROGBITS, _SYMTAB, _STRTAB, _RELA, _INIT_ARRAY, _GROUP = 0, 1, 2, 3, 4, 14, 17
_W, _A, _X, _INFO, _G, _RETAIN = 1, 2, 4, 0x40, 0x200, 0x200000
_LOCAL, _GLOBAL, _WEAK, _UNIQUE = 0, 1, 2, 10
_OBJECT, _FUNC = 1, 2
_ABSOLUTE, _RELATIVE = 0, 1

# a CIE with augmentation "zR" and pc-relative 4-byte addresses, without instructions
_CIE = struct.pack("<IIB3sBBBBB3x", 16, 0, 1, b"zR\0", 1, 0x78, 16, 1, 0x1B)


def _fde(offset: int) -> bytes:
    """The FDE of a function of 16 bytes; a relocation fills in its address, at offset 8."""
    return struct.pack("<IIII4x", 16, offset + 4, 0, 16)


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    flags: int
    data: bytes
    fixups: tuple[tuple[int, int, str], ...] = ()  # offset, kind, symbol
    type: int = _PROGBITS


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    section: str
    binding: int
    kind: int
    size: int


_START, _STOP = f"__start_{SET.decode()}", f"__stop_{SET.decode()}"
_SECTIONS = (
    _Section(
        ".text.live",
        _A | _X,
        bytes(32),
        (
            (0, _ABSOLUTE, _START),
            (8, _ABSOLUTE, _STOP),
            (16, _ABSOLUTE, "probe_unique"),
            (24, _ABSOLUTE, "probe_comdat"),
        ),
    ),
    _Section(".text.dead", _A | _X, bytes(16), ((0, _ABSOLUTE, "probe_of_dead_code"),)),
    _Section(".text.started", _A | _X, bytes(16)),
    _Section(".text.comdat", _A | _X | _G, bytes(16)),
    _Section(".data.unique", _W | _A, bytes(8)),
    _Section(".data.element", _W | _A, bytes(8)),
    _Section(".data.retained", _W | _A | _RETAIN, bytes(8)),
    _Section(SET.decode(), _W | _A, bytes(8), ((0, _ABSOLUTE, "probe_element"),)),
    _Section(
        ".init_array.00101", _W | _A, bytes(8), ((0, _ABSOLUTE, "probe_started"),), _INIT_ARRAY
    ),
    _Section(".ctors.65000", _W | _A, bytes(8), ((0, _ABSOLUTE, "probe_started"),)),
    _Section(
        ".eh_frame",
        _A,
        _CIE + _fde(20) + _fde(40),
        ((28, _RELATIVE, EXPORT), (48, _RELATIVE, "probe_dead")),
    ),
    _Section(".note.GNU-stack", 0, b""),
)
_SYMBOLS = (  # local ones first
    _Symbol("probe_element", ".data.element", _LOCAL, _OBJECT, 8),
    _Symbol("probe_started", ".text.started", _LOCAL, _FUNC, 16),
    _Symbol(EXPORT, ".text.live", _GLOBAL, _FUNC, 16),
    _Symbol("probe_dead", ".text.dead", _GLOBAL, _FUNC, 16),
    _Symbol("probe_comdat", ".text.comdat", _WEAK, _FUNC, 16),
    _Symbol("probe_unique", ".data.unique", _UNIQUE, _OBJECT, 8),
    _Symbol(_START, "", _GLOBAL, 0, 0),
    _Symbol(_STOP, "", _GLOBAL, 0, 0),
    _Symbol("probe_of_dead_code", "", _GLOBAL, 0, 0),
)


class _Strings:
    def __init__(self) -> None:
        self.data = bytearray(1)

    def add(self, text: str) -> int:
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset


def probe_object(machine: Machine) -> bytes:
    """The probe for a machine, as a compiler might write it."""
    names, texts = _Strings(), _Strings()
    headers: list[tuple[int, ...]] = [(0,) * 10]
    body = bytearray(64)

    def add(name: str, kind: int, flags: int, data: bytes, link: int, info: int, unit: int) -> None:
        body.extend(bytes(-len(body) % 8))
        fields = (names.add(name), kind, flags, 0, len(body), len(data), link, info, 8, unit)
        headers.append(fields)
        body.extend(data)

    numbers = {s.name: i for i, s in enumerate(_SECTIONS, 1)}
    rows = {s.name: i for i, s in enumerate(_SYMBOLS, 1)}
    relocated = [s for s in _SECTIONS if s.fixups]
    symtab = 1 + len(_SECTIONS) + 1 + len(relocated)
    for s in _SECTIONS:
        add(s.name, s.type, s.flags, s.data, 0, 0, 0)
    group = struct.pack("<II", 1, numbers[".text.comdat"])  # GRP_COMDAT
    add(".group", _GROUP, 0, group, symtab, rows["probe_comdat"], 4)
    types = {_ABSOLUTE: machine.absolute, _RELATIVE: machine.relative}
    for s in relocated:
        rela = [struct.pack("<QIIq", offset, types[k], rows[n], 0) for offset, k, n in s.fixups]
        add(f".rela{s.name}", _RELA, _INFO, b"".join(rela), symtab, numbers[s.name], 24)
    entries = [bytes(24)]
    for y in _SYMBOLS:
        shndx, info = numbers.get(y.section, 0), y.binding << 4 | y.kind
        entries.append(struct.pack("<IBBHQQ", texts.add(y.name), info, 0, shndx, 0, y.size))
    first_global = 1 + sum(y.binding == _LOCAL for y in _SYMBOLS)
    add(".symtab", _SYMTAB, 0, b"".join(entries), symtab + 1, first_global, 24)
    add(".strtab", _STRTAB, 0, bytes(texts.data), 0, 0, 0)
    names.add(".shstrtab")
    names_data = bytes(names.data)
    add(".shstrtab", _STRTAB, 0, names_data, 0, 0, 0)
    headers[-1] = (names_data.index(b".shstrtab\0"), *headers[-1][1:])
    body.extend(bytes(-len(body) % 8))
    # ELFOSABI_GNU: else unique symbols and retained sections have no meaning
    ident = b"\x7fELF" + bytes((2, 1, 1, 3)) + bytes(8)
    body[:64] = ident + struct.pack(
        "<HHIQQQIHHHHHH", 1, machine.number, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(headers),
        len(headers) - 1,
    )  # fmt: skip
    return bytes(body) + b"".join(struct.pack("<IIQQQQIIQQ", *h) for h in headers)


def linker_faults(linked: View, *, collected: bool) -> tuple[str, ...]:
    """What is wrong with the object that `ld -r` made of the probe; empty where nothing is.

    `collected`: it was asked to drop dead code.
    """
    where = {name: number for number, name in enumerate(linked.names)}
    faults = []
    if collected and b".text.dead" in where:
        faults.append("keeps dead code")
    live, frames = where.get(b".text.live"), where.get(b".eh_frame")
    if live is None:
        return ("drops live code",)
    if frames is None or live not in linked.targets(frames):
        faults.append("drops .eh_frame, so that a panic would abort")
    for name, what in (
        (SET, "drops sections behind __start_ and __stop_ symbols"),
        (b".data.element", "drops what the elements of a linker set refer to"),
        (b".init_array.00101", "drops constructors or their priority"),
        (b".ctors.65000", "drops constructors in .ctors"),
        (b".text.started", "drops the code of constructors"),
        (b".data.retained", "drops sections that are marked SHF_GNU_RETAIN"),
        (b".text.comdat", "drops members of section groups"),
    ):
        if name not in where:
            faults.append(what)
    sections = linked.sections
    if any(s.name.endswith(SET) for s in linked.undefined()):
        faults.append("does not define __start_ and __stop_ symbols as asked")
    if (sections["type"] == SHT_GROUP).any() or (sections["flags"] & SHF_GROUP).any():
        faults.append("keeps section groups")
    return tuple(faults)


def objcopy_faults(finished: View, private_set: bytes, *, collected: bool) -> tuple[str, ...]:
    """What is wrong with the object that objcopy made of the linked probe.

    `private_set` is the new name that the linker set should have.
    """
    faults = []
    visible = {s.name for s in finished.defined() if s.binding != STB_LOCAL}
    if EXPORT.encode() not in visible:
        faults.append("drops exported symbols")
    if len(visible) > 1:
        faults.append("leaves internal symbols global")
    if private_set not in finished.names or SET in finished.names:
        faults.append("does not rename sections")
    # dead code that was not dropped needs it
    needed = set() if collected else {b"probe_of_dead_code"}
    if {s.name for s in finished.undefined()} != needed:
        faults.append("keeps undefined symbols that nothing needs, or drops others")
    where = {name: number for number, name in enumerate(finished.names)}
    frames = where.get(b".eh_frame")
    if frames is None or where.get(b".text.live") not in finished.targets(frames):
        faults.append("damages .eh_frame")
    mark = where.get(b".cargo-strip-hook")
    header = finished.sections[mark] if mark is not None else None
    if header is None or header["flags"] & SHF_ALLOC or int(header["size"]) != len(MARKER):
        faults.append("cannot add a section")
    return tuple(faults)
