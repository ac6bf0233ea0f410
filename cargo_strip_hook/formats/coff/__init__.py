"""The COFF room: how object files of Windows map to the common model, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from cargo_strip_hook.core.requests import PrelinkRequest
from cargo_strip_hook.formats.coff import imports, kinds, parts, reader, section_keys, writer
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.comdat import Comdats
from cargo_strip_hook.formats.coff.directives import Directives
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

_POINTER = b"__imp_"


class CoffFormat:
    """`Format` for COFF; remembers the first file's processor, whose pointers may be made."""

    twins = False  # nothing checks yet that a twin is the same program
    compresses = False

    def __init__(self) -> None:
        self._first: reader.CoffUnit | None = None

    def read(self, inputs: Sequence[Input]) -> list[Unit]:
        units = [reader.read(i) for i in inputs]
        if self._first is None and units:
            self._first = units[0].native
        return units

    def import_members(self, inputs: Sequence[Input]) -> list[ImportMember]:
        return imports.import_members(inputs)

    def loaded_always(
        self,
        inputs: Sequence[Input],  # noqa: ARG002
        entries: Iterable[tuple[bytes, int]],  # noqa: ARG002
    ) -> list[int]:
        return []

    def symbol_kinds(self) -> dict[int, Literal["function", "data", "tls", "common", "unknown"]]:
        return {
            reader.KIND_DATA: "data",
            reader.KIND_FUNCTION: "function",
            reader.KIND_TLS: "tls",
        }

    def leftovers(self, unit: Unit) -> tuple[int, int]:
        native: reader.CoffUnit = unit.native
        sizes = native.sections["size"].astype(np.int64)
        arrays = [n for n, name in enumerate(native.names) if kinds.is_initialiser(name)]
        entries = int(sizes[arrays].sum()) * 8 // native.machine.bits
        return int(sizes[list(native.debug)].sum()), entries

    def parts(self, unit: Unit) -> Array:
        return parts.parts(unit)

    def find_sets(
        self,
        units: Sequence[Unit],  # noqa: ARG002
        undefined: Sequence[bytes],  # noqa: ARG002
    ) -> list[LinkerSet]:
        return []  # no linker makes symbols for sections

    def find_pointers(self, undefined: Sequence[bytes]) -> dict[bytes, bytes]:
        return {n: n[len(_POINTER) :] for n in undefined if n.startswith(_POINTER)}

    def synthetic(
        self, atoms: Array, symbols: Array, names: Sequence[bytes], pointers: Array
    ) -> Unit:
        assert self._first is not None
        machine = self._first.machine
        holders = pointers["source"]
        atoms["size"][holders] = atoms["align"][holders] = machine.bits // 8
        rows = np.zeros(len(pointers), RELOCATION)
        rows["atom"], rows["symbol"], rows["type"] = holders, pointers["target"], machine.pointer
        kinds = np.zeros(len(atoms), np.int32)
        kinds[holders] = 1
        none = np.full(len(symbols), -1, np.int32)
        native = reader.CoffUnit(
            machine,
            np.zeros(0, coff.SECTION),
            [],
            (section_keys.COMMONS, section_keys.POINTERS),
            kinds,
            np.zeros(0, np.int32),
            Comdats(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64)),
            (),
            np.zeros(0, np.int64),
            none,
            none,
            Directives(),
            0,
            np.zeros(0, np.int64),
            {},
        )
        nothing = memoryview(b"")
        return Unit(-1, "", nothing, atoms, symbols, 1, names, rows, np.zeros(0, EDGE), (), native)

    def section_keys(self, program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
        return section_keys.assign(program, live)

    def section_limit(self, program: Program) -> int:
        native: reader.CoffUnit = program.units[0].native
        return native.machine.branch_limit

    def write(self, program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> Image:
        return writer.write(program, live, layout, request)
