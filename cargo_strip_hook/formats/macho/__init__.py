"""The Mach-O room: how 64-bit relocatable objects of Darwin map to the common model, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from cargo_strip_hook.core.requests import PrelinkRequest
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho import objc, parts, reader, section_keys, writer
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

# arm64 branches reach 128 MiB; a linker puts its islands between subsections
_ARM64_LIMIT = 96 << 20


class MachoFormat:
    """`Format` for Mach-O."""

    compresses = False
    twins = False  # code of members with debug information keeps its places

    def read(self, inputs: Sequence[Input]) -> list[Unit]:
        return reader.read(inputs)

    def import_members(self, inputs: Sequence[Input]) -> list[ImportMember]:  # noqa: ARG002
        return []

    def loaded_always(
        self, inputs: Sequence[Input], entries: Iterable[tuple[bytes, int]]
    ) -> list[int]:
        return objc.loaded_always(inputs, entries)

    def symbol_kinds(self) -> dict[int, Literal["function", "data", "tls", "common", "unknown"]]:
        return {
            reader.KIND_DATA: "data",
            reader.KIND_FUNCTION: "function",
            reader.KIND_TLS: "tls",
        }

    def leftovers(self, unit: Unit) -> tuple[int, int]:
        native: reader.MachoUnit = unit.native
        sections = native.sections
        debug = sections["segname"] == mo.DEBUG_SEGMENT
        debug &= sections["sectname"] != mo.MARKER_SECTION
        kinds = sections["flags"] & mo.SECTION_TYPE
        entries = sum(
            int(sections["size"][kinds == kind].sum())
            // (4 if kind == mo.S_INIT_FUNC_OFFSETS else 8)
            for kind in mo.INITIALISER_TYPES
        )
        return int(sections["size"][debug].sum()), entries

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
        symbols["kind"][1:] = reader.KIND_DATA
        symbols["name"][0] = reader.ANCHOR
        native = reader.MachoUnit(
            cputype=0,
            cpusubtype=0,
            sections=np.zeros(0, mo.SECTION),
            names=[],
            desc=np.zeros(len(symbols), np.uint16),
            numbers=np.zeros(0, np.int64),
            versions=(),
            options=(),
            data_in_code=(),
            has_debug=False,
            headers=[],
        )
        nothing = memoryview(b"")
        relocations, edges = np.zeros(0, RELOCATION), np.zeros(0, EDGE)
        return Unit(-1, "", nothing, atoms, symbols, 1, names, relocations, edges, (), native)

    def section_keys(self, program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
        return section_keys.assign(program, live)

    def section_limit(self, program: Program) -> int:
        arm = program.units[0].native.cputype == mo.CPU_TYPE_ARM64
        return _ARM64_LIMIT if arm else 1 << 31

    def write(self, program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> Image:
        return writer.write(program, live, layout, request)
