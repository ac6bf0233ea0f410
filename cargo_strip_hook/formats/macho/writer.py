"""Writes one Mach-O relocatable object: header, commands, contents, relocations, symbols."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho import symtab, versions
from cargo_strip_hook.formats.macho.addresses import Placed, assign, marker_section
from cargo_strip_hook.formats.macho.debug import Debug, collect, debug_rows, keep_places
from cargo_strip_hook.formats.macho.debug import relocate as relocate_debug
from cargo_strip_hook.formats.macho.machine import MACHINES, Machine
from cargo_strip_hook.formats.macho.reader import macho_unit
from cargo_strip_hook.formats.macho.relocate import relocate
from cargo_strip_hook.formats.macho.section_keys import kept_symbols
from cargo_strip_hook.formats.macho.unwind_output import join
from cargo_strip_hook.link import warnings
from cargo_strip_hook.link.contents import Filling, make_contents
from cargo_strip_hook.link.link_map import link_map_rows, statistics
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Chunk,
    Image,
    Int64,
    Layout,
    Program,
    Unit,
)
from cargo_strip_hook.link.output import Relocations


def write(program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> Image:
    """Make the object. Raises `LinkError` for what cannot be one object."""
    real = [u for u in program.units if u.index >= 0]
    cputype = _cputype(real)
    used = [program.units[n] for n in program.live_units(live) if program.units[n].index >= 0]
    built_for = versions.merge((u.name, macho_unit(u).versions) for u in real)
    versions.check_target(built_for, cputype, request.target)
    compact, eh_frame, frames = join(program, live)
    debug = Debug((), (), frozenset(), ())
    regions: dict[int, tuple[int, int]] = {}
    if request.strip is Strip.NONE:
        debug = collect(program, live)
        layout, regions = keep_places(program, layout, debug.units)
    own = (compact, eh_frame, *debug.sections, marker_section(request.marker))
    kept = kept_symbols(program, live)
    placed, blocks = assign(program, layout, own, regions, kept[0])
    relocations, patches = relocate(program, MACHINES[cputype], live, placed)
    of_debug, addresses = relocate_debug(program, live, placed, debug)
    filling = Filling([*patches, *addresses, frames.cie_pointers(placed)], blocks)
    copied = np.concatenate([layout.atoms, compact.atoms, eh_frame.atoms])
    contents = make_contents(program, placed, copied, filling)
    del patches, addresses, filling  # there may be very many
    table = symtab.build(program, live, placed, kept, _targets(relocations), request.strip)
    # sections of debug information stand behind all others that have relocations
    relocations = Relocations.joined([relocations, of_debug])
    del of_debug
    options = tuple(dict.fromkeys(o for u in used for o in macho_unit(u).options))
    size, chunks = _file(
        (cputype, int(macho_unit(real[0]).cpusubtype)),
        (placed, contents),
        [v.encode() for v in built_for] + [_option(o) for o in options],
        _data_in_code(program, live, placed),
        _entries(MACHINES[cputype], placed, relocations, table),
        table,
    )
    section = program.atoms["flags"] & AtomFlag.SEPARATE == 0  # no record of one
    return Image(
        size,
        chunks,
        table.defined,
        table.undefined,
        np.concatenate(
            [
                link_map_rows(program, live & section & (placed.section >= 0), placed, 1),
                debug_rows(program, placed, debug),
            ]
        ),
        statistics(program, live, section, len(table.defined)),
        debug.warnings + warnings.private_cxx(program, live, kept[0], warnings.ITANIUM),
    )


def _cputype(units: list[Unit]) -> int:
    first, cputype = units[0], macho_unit(units[0]).cputype
    for unit in units:
        if macho_unit(unit).cputype != cputype:
            raise LinkError(
                f"{first.name} and {unit.name} are for different processors",
                help="make one library for each architecture",
            )
    return int(cputype)


def _option(words: tuple[bytes, ...]) -> bytes:
    text = b"".join(w + b"\0" for w in words)
    size = -(-(12 + len(text)) // 8) * 8
    return struct.pack("<3I", mo.LC_LINKER_OPTION, size, len(words)) + text.ljust(size - 12, b"\0")


def _data_in_code(program: Program, live: Bool, placed: Placed) -> Array:
    ranges = []
    for number, unit in enumerate(program.units):
        base = int(program.atom_base[number])
        for atom, offset, length, kind in macho_unit(unit).data_in_code:
            row = base + atom
            if live[row] and placed.section[row] >= 0:
                address = placed.address[placed.section[row]] + placed.offset[row] + offset
                ranges.append((int(address), length, kind))
    return np.array(sorted(ranges), mo.DATA_IN_CODE)


def _targets(relocations: Relocations) -> Int64:
    """What each refers to: a place, or ~s for the program-wide symbol s."""
    symbol = relocations.symbol
    return np.where(symbol >= 0, ~symbol, relocations.place)


def _entries(
    machine: Machine, placed: Placed, relocations: Relocations, table: symtab.SymbolTable
) -> list[bytes]:
    """The relocation entries of each section. Source: mach-o/reloc.h, struct relocation_info."""
    if (len(table.rows)) >= 1 << 24:
        raise LinkError("the library has more symbols than a Mach-O relocation can tell apart")
    extern = relocations.exact | (relocations.symbol >= 0)
    section = relocations.target_section + 1
    number = np.where(extern, table.numbers(_targets(relocations)), section)
    kind = relocations.type
    info = number | (kind >> 4 & 1) << 24 | (kind >> 5 & 3) << 25 | (kind & 0xF) << 28
    info |= extern.astype(np.int64) << 27
    before = machine.explicit[kind] & (relocations.addend != 0)
    # an ADDEND entry stands before its own
    of = np.repeat(np.arange(len(info)), 1 + before)
    rows = np.zeros(len(of), mo.RELOC)
    rows["address"], rows["info"] = relocations.offset[of], info[of]
    extra = np.flatnonzero(of[:-1] == of[1:])
    adds = relocations.addend[before] & 0xFFFFFF
    rows["info"][extra] = adds | 2 << 25 | mo.ARM64_ADDEND << 28
    borders = np.searchsorted(relocations.section[of], np.arange(len(placed.sections) + 1))
    return [rows[first:end].tobytes() for first, end in itertools.pairwise(borders.tolist())]


@dataclass(frozen=True, slots=True)
class _Offsets:
    """Where in the file everything lies. `contents`: where address 0 does, and the end of the last.

    `relocations` are by section, 0 for none.
    """

    contents: tuple[int, int]
    relocations: list[int]
    data_in_code: int
    symbols: int
    strings: int
    end: int


def _file(
    cpu: tuple[int, int],
    filled: tuple[Placed, Sequence[Array]],
    commands: list[bytes],
    data_in_code: Array,
    entries: list[bytes],
    table: symtab.SymbolTable,
) -> tuple[int, Iterator[Chunk]]:
    """Sizes, headers and the stream of the whole file; `filled`: the sections and their contents.

    Source: mach-o/loader.h.
    """
    placed, contents = filled
    length = mo.SEGMENT.itemsize + len(placed.sections) * mo.SECTION.itemsize
    length += sum(map(len, commands)) + 24 + 80 + (16 if len(data_in_code) else 0)
    total_commands = 3 + len(commands) + (1 if len(data_in_code) else 0)
    offsets = _offsets(mo.HEADER.itemsize + length, placed, entries, data_in_code, table)
    head = struct.pack(
        "<8I",
        mo.MH_MAGIC_64,
        *cpu,
        mo.MH_OBJECT,
        total_commands,
        length,
        mo.MH_SUBSECTIONS_VIA_SYMBOLS,
        0,
    )
    parts = [head, _segment(placed, offsets, entries), *commands, _symbol_commands(table, offsets)]
    if len(data_in_code):
        size = data_in_code.nbytes
        parts.append(struct.pack("<4I", mo.LC_DATA_IN_CODE, 16, offsets.data_in_code, size))
    body: list[tuple[int, Chunk]] = [(0, b"".join(parts))]
    for section, octets in zip(placed.sections, contents, strict=True):
        if len(octets):
            body.append((offsets.contents[0] + section.address, octets.data))
    body += [(offset, raw) for offset, raw in zip(offsets.relocations, entries, strict=True) if raw]
    if len(data_in_code):
        body.append((offsets.data_in_code, data_in_code.tobytes()))
    body += [(offsets.symbols, table.rows.tobytes()), (offsets.strings, table.strings)]
    return offsets.end, _stream(body)


def _offsets(
    before: int,
    placed: Placed,
    entries: list[bytes],
    data_in_code: Array,
    table: symtab.SymbolTable,
) -> _Offsets:
    """Lay out the file; `before` bytes of headers come first. Raises `LinkError` above 4 GiB."""
    # contents lie in the file as in memory, as assemblers put them
    align = min(max((s.align for s in placed.sections), default=1), 4096)
    begin = -(-before // align) * align
    ends = [s.address + s.size for s in placed.sections if not s.zerofill and s.size]
    content_end = begin + max(ends, default=0)
    position = -(-content_end // 8) * 8
    relocations = []
    for raw in entries:
        relocations.append(position if raw else 0)
        position += len(raw)
    symbols = -(-(position + data_in_code.nbytes) // 8) * 8
    strings = symbols + table.rows.nbytes
    end = strings + len(table.strings)
    if end >= 1 << 32:
        raise LinkError("the object would be larger than 4 GiB, which Mach-O cannot describe")
    return _Offsets((begin, content_end), relocations, position, symbols, strings, end)


def _segment(placed: Placed, offsets: _Offsets, entries: list[bytes]) -> bytes:
    """`LC_SEGMENT_64` with the headers of all sections."""
    begin, content_end = offsets.contents
    headers = np.zeros(len(placed.sections), mo.SECTION)
    for number, section in enumerate(placed.sections):
        headers[number] = (
            section.section,
            section.segment,
            section.address,
            section.size,
            begin + section.address if not section.zerofill and section.size else 0,
            section.align.bit_length() - 1,
            offsets.relocations[number],
            len(entries[number]) // 8,
            section.flags,
            0,
            0,
            0,
        )
    segment = np.zeros(1, mo.SEGMENT)
    segment[0] = (
        mo.LC_SEGMENT_64,
        mo.SEGMENT.itemsize + headers.nbytes,
        b"",
        0,
        max((s.address + s.size for s in placed.sections), default=0),
        begin,
        content_end - begin,
        7,
        7,
        len(headers),
        0,
    )
    return segment.tobytes() + headers.tobytes()


def _symbol_commands(table: symtab.SymbolTable, offsets: _Offsets) -> bytes:
    """`LC_SYMTAB` and `LC_DYSYMTAB`."""
    undefined = len(table.rows) - table.locals - table.externals
    return struct.pack(
        "<6I",
        mo.LC_SYMTAB,
        24,
        offsets.symbols,
        len(table.rows),
        offsets.strings,
        len(table.strings),
    ) + struct.pack(
        "<20I",
        mo.LC_DYSYMTAB,
        80,
        0,
        table.locals,
        table.locals,
        table.externals,
        table.locals + table.externals,
        undefined,
        *[0] * 12,
    )


def _stream(body: list[tuple[int, Chunk]]) -> Iterator[Chunk]:
    """The chunks, each at its offset in the file, with zeros between them."""
    position = 0
    for offset, chunk in body:
        if offset > position:
            yield bytes(offset - position)
        yield chunk
        position = offset + len(chunk)
