"""Makes one ELF relocatable object: contents, relocations, symbols and notes, in that order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.formats.elf import attributes, notes, symtab
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.groups import group_sections, kept_groups
from cargo_strip_hook.formats.elf.index import add_tables, is_ordered
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.formats.elf.output import Section, octets, write_file
from cargo_strip_hook.formats.elf.relocate import Applied, Placed, apply
from cargo_strip_hook.formats.elf.section_keys import SectionKind
from cargo_strip_hook.link import cxx
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.link_map import link_map_rows, statistics
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Binding,
    Bool,
    Image,
    Int64,
    Layout,
    Program,
)
from cargo_strip_hook.link.unwind import JoinedFrames, is_frame, join_frames

if TYPE_CHECKING:
    from cargo_strip_hook.formats.elf.debug_output import DebugOutput, Pieces

MARKER_SECTION = b".cargo-strip-hook"


def write(program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> Image:
    """Make the object. Raises `LinkError` for a reference that cannot be kept."""
    first = program.units[0].native
    machine: Machine = first.machine
    layout = add_tables(program, live, layout)
    frame = join_frames(
        program,
        live & is_frame(program),
        first.records.order,
        lambda unit: unit.native.sections["offset"],
        merge=True,
    )
    placed = _place(program, machine, live, layout, frame)
    skip = np.zeros(len(program.atoms), np.bool_)
    skip[frame.shared] = True
    # linkers merge CIEs that have the same bytes and personality symbol, whatever its addend
    by_name = np.zeros(len(program.atoms), np.bool_)
    by_name[frame.cies] = True
    applied = apply(program, machine, live, placed, skip, by_name)
    debug: DebugOutput | None = None
    count = len(placed.start)
    used = unique(applied.target)
    if request.strip is Strip.NONE:
        from cargo_strip_hook.formats.elf.debug_output import debug_output

        debug = debug_output(program, machine, live, placed, first.records, request.compress_debug)
        count += len(debug.sections)
        used = unique(np.concatenate([used, debug.targets]))
    groups = kept_groups(program, np.flatnonzero(live).astype(np.int32))
    header_index = np.arange(1, count + 1) + len(groups)  # groups stand before their members
    table = symtab.build(program, machine, live, placed, header_index, used, request.strip)

    real = [program.units[i] for i in program.live_units(live) if program.units[i].index >= 0]
    merged = notes.merge(real, machine)
    flags, properties = attributes.merge(real, machine)
    sections = _code(program, layout, placed, frame, header_index)
    sections += debug.sections if debug else ()
    relas = _relas(
        machine, first.records, applied, debug.relocations if debug else (), table, count
    )
    sections += _notes(first.records, merged, properties, request.marker)
    symtab_index = len(groups) + len(sections) + len(relas) + 1
    inside = [set(placed.section[list(group.atoms)].tolist()) for group in groups]
    grouped: set[int] = set().union(*inside)
    tables = range(len(groups) + len(sections) + 1, symtab_index)
    members = [
        [int(header_index[n]) for n in sorted(mine)]
        + [at for at, (number, _) in zip(tables, relas, strict=True) if number in mine]
        for mine in inside
    ]
    for number in grouped:
        one = sections[number]
        sections[number] = replace(one, flags=one.flags | elf.SHF_GROUP)
    sections += [
        Section(
            (b".rel" if machine.rel else b".rela") + sections[number].name,
            elf.SHT_REL if machine.rel else elf.SHT_RELA,
            elf.SHF_INFO_LINK | (elf.SHF_GROUP if number in grouped else 0),
            sum(r.nbytes for r in rows),
            first.records.size,
            rows[0].itemsize,
            symtab_index,
            int(header_index[number]),
            lambda rows=rows: map(octets, rows),  # type: ignore[misc]
        )
        for number, rows in relas
    ]
    sections += _tables(first.records, table, symtab_index)
    order = first.records.order
    sections = group_sections(groups, members, table.of_symbol, symtab_index, order) + sections
    link_map = _link_map(program, live, placed)
    warnings = _warnings(program, placed, live, merged)
    if debug:
        link_map = np.concatenate((link_map, debug.link_map))
        warnings += debug.warnings
    link_map["out_section"] += len(groups)
    osabi = max(u.native.osabi for u in program.units)
    size, chunks = write_file(sections, first, flags, osabi)
    return Image(
        size,
        chunks,
        table.defined,
        table.undefined,
        link_map,
        statistics(program, live, _sections(program, live), len(table.defined)),
        warnings,
    )


def _place(
    program: Program,
    machine: Machine,
    live: Bool,
    layout: Layout,
    frame: JoinedFrames,
) -> Placed:
    """Copy the contents of every live atom to where it goes."""
    count = len(layout.sections) + (1 if len(frame.records) else 0)
    start = np.zeros(count, np.int64)
    flags = np.zeros(count, np.int64)
    at = 0
    for number, out in enumerate(layout.sections):
        kind: SectionKind = layout.section_keys[out.section_key].descriptor
        start[number] = at
        flags[number] = kind.flags
        if kind.type != elf.SHT_NOBITS:
            at += -(-out.size // 8) * 8
    section, offset = layout.section.copy(), layout.offset.copy()
    if len(frame.records):
        start[-1] = at
        at += len(frame.contents)
        section[frame.records] = count - 1
        offset[frame.records] = frame.offset
    blob = np.zeros(at, np.uint8)
    if len(frame.records):
        blob[int(start[-1]) :] = frame.contents
    target = octets(blob)
    padding = np.frombuffer(machine.padding, np.uint8)
    filled = []
    for number, out in enumerate(layout.sections):
        kind = layout.section_keys[out.section_key].descriptor
        if kind.type == elf.SHT_NOBITS:
            continue
        if kind.flags & elf.SHF_EXECINSTR:
            base = int(start[number])
            _fill(blob[base : base + out.size], padding)
        filled.append(out.atoms)
    if filled:  # all at once: an object may have very many sections
        atoms = np.concatenate(filled)
        _copy(program, atoms, start[section[atoms]] + offset[atoms], target)
    kept = np.zeros(len(program.symbols), np.bool_)
    kept[list(program.exported)] = True
    kept[symtab.profile_symbols(program, live)] = True
    return Placed(
        section,
        offset,
        start,
        blob,
        flags & elf.SHF_EXECINSTR != 0,
        flags & elf.SHF_TLS != 0,
        flags & elf.SHF_X86_64_LARGE != 0,
        kept,
    )


def _fill(room: Array, padding: Array) -> None:
    """Fill `room` with repetitions of `padding` (uint8)."""
    step = len(padding)
    whole = len(room) // step * step
    room[:whole].reshape(-1, step)[:] = padding
    room[whole:] = padding[: len(room) - whole]


def _copy(program: Program, atoms: Array, where: Int64, target: memoryview) -> None:
    rows = program.atoms[atoms]
    units = program.unit_of(atoms)
    # most are neighbours of one unit, so that all of these are looked up at once
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]).tolist()
    for first, end in zip(borders, [*borders[1:], len(atoms)], strict=True):
        unit = program.units[int(units[first])]
        mine = slice(first, end)
        chosen = np.flatnonzero((rows["section"][mine] >= 0) & (rows["size"][mine] > 0)) + first
        if not len(chosen):
            continue
        headers = unit.native.sections[rows["section"][chosen]]
        data = unit.data
        for start, size, to, kind in zip(
            (headers["offset"].astype(np.int64) + rows["offset"][chosen]).tolist(),
            rows["size"][chosen].tolist(),
            where[chosen].tolist(),
            headers["type"].tolist(),
            strict=True,
        ):
            if kind != elf.SHT_NOBITS:
                target[to : to + size] = data[start : start + size]


def _code(
    program: Program, layout: Layout, placed: Placed, frame: JoinedFrames, header_index: Int64
) -> list[Section]:
    blob = octets(placed.blob)
    sections: list[Section] = []
    for number, out in enumerate(layout.sections):
        kind: SectionKind = layout.section_keys[out.section_key].descriptor
        base = int(placed.start[number])
        flags, link = kind.flags, 0
        if kind.flags & elf.SHF_LINK_ORDER:
            linked = int(placed.section[kind.link]) if kind.link >= 0 else -1
            if linked >= 0:
                link = int(header_index[linked])
            else:
                flags &= ~elf.SHF_LINK_ORDER
        view = blob[base : base + out.size]
        sections.append(
            Section(
                kind.name,
                kind.type,
                flags,
                out.size,
                out.align,
                kind.entsize,
                link,
                0,
                None if kind.type == elf.SHT_NOBITS else lambda view=view: [view],  # type: ignore[misc]
            )
        )
    if len(frame.records):
        view = blob[int(placed.start[-1]) :]
        word = program.units[0].native.records.size
        kind_of = program.units[int(program.unit_of(frame.records[:1])[0])].native
        kind_number = int(kind_of.sections["type"][int(program.atoms["section"][frame.records[0]])])
        sections.append(
            Section(
                b".eh_frame", kind_number, elf.SHF_ALLOC, len(view), word, chunks=lambda: [view]
            )
        )
    return sections


def _relas(
    machine: Machine,
    records: elf.Records,
    applied: Applied,
    debug: tuple[Pieces, ...],
    table: symtab.SymbolTable,
    count: int,
) -> list[tuple[int, list[Array]]]:
    """(output section number, REL or RELA rows in pieces) of every section that has relocations."""

    def entries(targets: Array) -> Array:
        symbol = np.where(
            targets >= 0,
            table.of_symbol[np.where(targets >= 0, targets, 0)],
            table.of_section[np.where(targets < 0, ~targets, 0)],
        )
        info: Array = symbol.astype(np.uint64) << np.uint64(records.symbol_shift)
        return info

    if len(table.rows) > 1 << (records.bits - records.symbol_shift):
        raise LinkError(
            f"{len(table.rows)} symbols are too many for a {records.bits}-bit object",
            help="export less, or strip with `--strip symbols`",
        )
    found: list[tuple[int, list[Array]]] = []
    rows = np.zeros(len(applied.section), records.rel if machine.rel else records.rela)
    rows["offset"] = applied.offset
    if not machine.rel:
        rows["addend"] = applied.addend
    rows["info"] = entries(applied.target) | applied.type.astype(np.uint64)
    code = count - len(debug)
    borders = np.searchsorted(applied.section, np.arange(code + 1))
    for number in range(code):
        mine = rows[borders[number] : borders[number + 1]]
        if len(mine):
            found.append((number, [mine]))
    for number, pieces in enumerate(debug, start=code):
        for rela, target in pieces:
            rela["info"] |= entries(target)
        if pieces:
            found.append((number, [rela for rela, _ in pieces]))
    return found


def _notes(
    records: elf.Records,
    merged: notes.Notes,
    properties: attributes.Attributes | None,
    marker: bytes,
) -> list[Section]:
    sections = []
    if properties is not None:
        sections.append(
            Section(
                properties.name,
                properties.type,
                0,
                len(properties.contents),
                1,
                chunks=lambda: [properties.contents],
            )
        )
    if merged.properties:
        sections.append(
            Section(
                b".note.gnu.property",
                elf.SHT_NOTE,
                elf.SHF_ALLOC,
                len(merged.properties),
                records.size,
                chunks=lambda: [merged.properties],
            )
        )
    if merged.stack is not None:
        sections.append(
            Section(b".note.GNU-stack", elf.SHT_PROGBITS, merged.stack, 0, 1, chunks=list)
        )
    if marker:
        sections.append(
            Section(MARKER_SECTION, elf.SHT_PROGBITS, 0, len(marker), 1, chunks=lambda: [marker])
        )
    return sections


def _tables(records: elf.Records, table: symtab.SymbolTable, symtab_index: int) -> list[Section]:
    wide = (table.shndx >= elf.SHN_LORESERVE).any()
    short = np.where(table.shndx >= elf.SHN_LORESERVE, elf.SHN_XINDEX, table.shndx)
    short = np.abs(short)
    table.rows["shndx"] = short
    rows = table.rows
    sections = [
        Section(
            b".symtab",
            elf.SHT_SYMTAB,
            0,
            rows.nbytes,
            records.size,
            records.symbol.itemsize,
            symtab_index + (2 if wide else 1),
            table.first_global,
            lambda: [octets(rows)],
        )
    ]
    if wide:
        extended = np.where(table.shndx >= elf.SHN_LORESERVE, table.shndx, 0)
        raw = extended.astype(f"{records.order}u4").tobytes()
        sections.append(
            Section(
                b".symtab_shndx",
                elf.SHT_SYMTAB_SHNDX,
                0,
                len(raw),
                4,
                4,
                symtab_index,
                chunks=lambda: [raw],
            )
        )
    sections.append(
        Section(
            b".strtab",
            elf.SHT_STRTAB,
            0,
            len(table.strings),
            1,
            chunks=lambda: [table.strings],
        )
    )
    return sections


def _pieces(program: Program) -> Bool:
    """bool for each atom: whether it is a section, not a record of one."""
    found: Bool = (program.atoms["flags"] & AtomFlag.SEPARATE == 0) | is_ordered(program)
    return found


def _sections(program: Program, live: Bool) -> Bool:
    """bool for each atom: one for each section, a live one where there is any."""
    found: Bool = _pieces(program) & (program.atoms["flags"] & AtomFlag.ASIDE == 0)
    elements = np.flatnonzero(program.atoms["flags"] & AtomFlag.ELEMENT != 0)
    if len(elements):
        first = np.maximum.accumulate(np.where(program.atoms["offset"][elements] == 0, elements, 0))
        order = np.lexsort((~live[elements], first))
        again = np.zeros(len(elements), np.bool_)
        again[1:] = first[order][1:] == first[order][:-1]
        found[elements[order[again]]] = False
    return found


def _link_map(program: Program, live: Bool, placed: Placed) -> Array:
    atoms = np.flatnonzero(live & _pieces(program) & (program.atoms["section"] >= 0))
    return link_map_rows(program, atoms, placed.section, placed.offset)


def _warnings(program: Program, placed: Placed, live: Bool, merged: notes.Notes) -> tuple[str, ...]:
    warnings = []
    if merged.without_stack:
        names = ", ".join(merged.without_stack[:3])
        warnings.append(
            f"{names} has no `.note.GNU-stack` section: a linker takes that as a wish for an "
            "executable stack, from the original and from the result"
        )
    symbols = program.symbols
    weak = (symbols["binding"] == Binding.WEAK) | (symbols["binding"] == Binding.UNIQUE)
    warnings += cxx.private_cxx(program, live, placed.kept | ~weak, cxx.CXX_ITANIUM)
    return tuple(warnings)
