"""The Mach-O room: how 64-bit relocatable objects of Darwin map to the common model, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho import objc, reader, section_keys, sizes, writer
from cargo_strip_hook.formats.macho.reader import MachoUnit, macho_unit
from cargo_strip_hook.link.model import Array, Format, Program, Unit
from cargo_strip_hook.link.warnings import ITANIUM

# arm64 branches reach 128 MiB; a linker puts its islands between subsections
_ARM64_LIMIT = 96 << 20


def _leftovers(unit: Unit) -> tuple[int, int]:
    native = macho_unit(unit)
    sections = native.sections
    debug = sections["segname"] == mo.DEBUG_SEGMENT
    debug &= sections["sectname"] != mo.MARKER_SECTION
    types = sections["flags"] & mo.SECTION_TYPE
    entries = sum(
        int(sections["size"][types == kind].sum()) // (4 if kind == mo.S_INIT_FUNC_OFFSETS else 8)
        for kind in mo.INITIALISER_TYPES
    )
    return int(sections["size"][debug].sum()), entries


def _synthetic(_: Unit, unit: Unit, __: Array) -> Unit:
    symbols = unit.symbols.copy()
    symbols["kind"][1:] = reader.KIND_DATA
    symbols["name"][0] = reader.ANCHOR
    native = MachoUnit(
        cputype=0,
        cpusubtype=0,
        sections=np.zeros(0, mo.SECTION),
        names=[],
        desc=np.zeros(len(symbols), np.uint16),
        numbers=np.zeros(0, np.int64),
        versions=(),
        options=(),
        data_in_code=(),
        headers=[],
    )
    return replace(unit, symbols=symbols, native=native)


def _section_limit(program: Program) -> int:
    arm = macho_unit(program.units[0]).cputype == mo.CPU_TYPE_ARM64
    return _ARM64_LIMIT if arm else 1 << 31


FORMAT = Format(
    read=reader.read,
    synthetic=_synthetic,
    section_keys=section_keys.assign,
    section_limit=_section_limit,
    output=writer.output,
    cxx=ITANIUM,
    symbol_kinds={
        reader.KIND_DATA: "data",
        reader.KIND_FUNCTION: "function",
        reader.KIND_TLS: "tls",
    },
    leftovers=_leftovers,
    sizes=sizes.sizes,
    find_sets=section_keys.find_sets,
    loaded_always=objc.loaded_always,
    # no twins: code of members with debug information keeps its places
)
