"""The ELF room: how relocatable objects of ELF map to the common model, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.formats.elf import layouts, reader, section_keys, sizes, writer
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.link.model import Array, Bool, Format, Program, Unit
from cargo_strip_hook.link.warnings import ITANIUM


def _named(names: Array, *begins: bytes) -> Bool:
    named: Bool = np.zeros(len(names), np.bool_)
    for begin in begins:
        named |= np.char.startswith(names, begin)
    return named


def _leftovers(unit: Unit) -> tuple[int, int]:
    native = elf_unit(unit)
    types, names, sizes = native.sections["type"], native.names16, native.sections["size"]
    arrays = (layouts.SHT_INIT_ARRAY, layouts.SHT_FINI_ARRAY, layouts.SHT_PREINIT_ARRAY)
    plain = types == layouts.SHT_PROGBITS
    # .ctors and .dtors: GCC's own, before there were arrays (crtstuff.c)
    entries = np.isin(types, arrays) | (plain & _named(names, b".ctors", b".dtors"))
    debug = _named(names, b".debug_", b".zdebug_")
    return int(sizes[debug].sum()), int(sizes[entries].sum()) * 8 // native.records.bits


def _synthetic(like: Unit, unit: Unit, _: Array) -> Unit:
    first = elf_unit(like)
    native = replace(
        first,
        identity=bytes(2),
        sections=first.sections[:0],
        names16=first.names16[:0],
        strings=memoryview(b""),
        section_atom=np.zeros(0, np.int32),
        shndx=np.zeros(len(unit.symbols), np.int32),
        debug=(),
    )
    symbols = unit.symbols.copy()
    symbols["kind"][1:] = layouts.STT_OBJECT
    return replace(unit, symbols=symbols, native=native)


def _section_limit(program: Program) -> int:
    first = elf_unit(program.units[0])
    return first.machine.branch_limit or 1 << 62


FORMAT = Format(
    read=reader.read,
    synthetic=_synthetic,
    section_keys=section_keys.assign,
    section_limit=_section_limit,
    output=writer.output,
    cxx=ITANIUM,
    symbol_kinds={
        layouts.STT_OBJECT: "data",
        layouts.STT_FUNC: "function",
        layouts.STT_COMMON: "common",
        layouts.STT_TLS: "tls",
        layouts.STT_GNU_IFUNC: "function",
    },
    leftovers=_leftovers,
    sizes=sizes.sizes,
    find_sets=section_keys.find_sets,
    twins=True,
    compresses=True,
)
