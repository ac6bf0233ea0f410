"""The ELF room: how relocatable objects of ELF map to the common model, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from cargo_strip_hook.core.requests import PrelinkRequest
from cargo_strip_hook.formats.elf import layouts, parts, reader, section_keys, writer
from cargo_strip_hook.formats.elf.file import ElfUnit
from cargo_strip_hook.link.model import (
    EDGE,
    RELOCATION,
    Array,
    Bool,
    Image,
    ImportMember,
    Input,
    Int32,
    Layout,
    LinkerSet,
    Program,
    SectionKey,
    Unit,
)


def _named(names: Array, *begins: bytes) -> Bool:
    found: Bool = np.zeros(len(names), np.bool_)
    for begin in begins:
        found |= np.char.startswith(names, begin)
    return found


class ElfFormat:
    """`Format` for ELF; remembers the first file read, after whose kind the output is made."""

    twins = True
    compresses = True

    def __init__(self) -> None:
        self._first: ElfUnit | None = None

    def read(self, inputs: Sequence[Input]) -> list[Unit]:
        units = reader.read(inputs)
        if self._first is None and units:
            self._first = units[0].native
        return units

    def import_members(self, inputs: Sequence[Input]) -> list[ImportMember]:  # noqa: ARG002
        return []

    def loaded_always(
        self,
        inputs: Sequence[Input],  # noqa: ARG002
        entries: Iterable[tuple[bytes, int]],  # noqa: ARG002
    ) -> list[int]:
        return []

    def symbol_kinds(self) -> dict[int, Literal["function", "data", "tls", "common", "unknown"]]:
        return {
            layouts.STT_OBJECT: "data",
            layouts.STT_FUNC: "function",
            layouts.STT_COMMON: "common",
            layouts.STT_TLS: "tls",
            layouts.STT_GNU_IFUNC: "function",
        }

    def leftovers(self, unit: Unit) -> tuple[int, int]:
        native: ElfUnit = unit.native
        types, names, sizes = native.sections["type"], native.names16, native.sections["size"]
        arrays = (layouts.SHT_INIT_ARRAY, layouts.SHT_FINI_ARRAY, layouts.SHT_PREINIT_ARRAY)
        plain = types == layouts.SHT_PROGBITS
        # .ctors and .dtors: GCC's own, before there were arrays (crtstuff.c)
        entries = np.isin(types, arrays) | (plain & _named(names, b".ctors", b".dtors"))
        debug = _named(names, b".debug_", b".zdebug_")
        return int(sizes[debug].sum()), int(sizes[entries].sum()) * 8 // native.records.bits

    def parts(self, unit: Unit) -> Array:
        return parts.parts(unit)

    def find_sets(self, units: Sequence[Unit], undefined: Sequence[bytes]) -> list[LinkerSet]:
        return section_keys.find_sets(units, undefined)

    def find_pointers(self, undefined: Sequence[bytes]) -> dict[bytes, bytes]:  # noqa: ARG002
        return {}

    def synthetic(
        self,
        atoms: Array,
        symbols: Array,
        names: Sequence[bytes],
        pointers: Array,  # noqa: ARG002
    ) -> Unit:
        assert self._first is not None
        symbols["kind"][1:] = layouts.STT_OBJECT
        native = ElfUnit(
            self._first.records,
            self._first.machine,
            0,
            self._first.flags,
            np.zeros(0, self._first.records.section),
            np.zeros(0, "S16"),
            memoryview(b""),
            np.zeros(0, np.int32),
            np.zeros(len(symbols), np.int32),
            (),
        )
        return Unit(
            -1,
            "",
            memoryview(b""),
            atoms,
            symbols,
            1,
            names,
            np.zeros(0, RELOCATION),
            np.zeros(0, EDGE),
            (),
            native,
        )

    def section_keys(self, program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
        return section_keys.assign(program, live)

    def section_limit(self, program: Program) -> int:
        return program.units[0].native.machine.branch_limit or 1 << 62

    def write(self, program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> Image:
        return writer.write(program, live, layout, request)
