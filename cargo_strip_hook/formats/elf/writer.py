"""Makes one ELF relocatable object: contents, relocations, symbols and notes, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.formats.elf import attributes, notes, symtab
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.formats.elf.groups import group_sections, kept_groups
from cargo_strip_hook.formats.elf.index import is_ordered, with_indices
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.formats.elf.output import Section, holding, octets, write_file
from cargo_strip_hook.formats.elf.relocate import Placed, relocate
from cargo_strip_hook.formats.elf.section_keys import SectionKind, section_kinds
from cargo_strip_hook.link import warnings as warn
from cargo_strip_hook.link.addresses import begin_of
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.contents import Filling, make_contents
from cargo_strip_hook.link.link_map import link_map_rows, statistics
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Image,
    Int64,
    Layout,
    Program,
    SectionKey,
)
from cargo_strip_hook.link.output import Relocations
from cargo_strip_hook.link.symbols import kept_symbols
from cargo_strip_hook.link.unwind import JoinedFrames, is_frame, join_frames, with_frames

if TYPE_CHECKING:
    from cargo_strip_hook.formats.elf.debug_output import Batches, DebugOutput

MARKER_SECTION = b".cargo-strip-hook"


def write(program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> Image:
    """Make the object. Raises `LinkError` for a reference that cannot be kept."""
    first = elf_unit(program.units[0])
    machine, records = first.machine, first.records
    frames = join_frames(program, live & is_frame(program), merge=True)
    layout = _with_frames(program, with_indices(program, live, layout), frames)
    placed = _place(program, live, layout)
    skip = np.zeros(len(program.atoms), np.bool_)
    skip[frames.shared] = True
    # linkers merge CIEs that have the same bytes and personality symbol, whatever its addend
    by_name = np.zeros(len(program.atoms), np.bool_)
    by_name[frames.cies] = True
    relocations, patches = relocate(program, machine, live, placed, skip, by_name)
    patches.append(frames.cie_pointers(placed))
    filling = Filling(patches, (), machine.padding, records.order)
    contents = make_contents(program, placed, layout.atoms, filling)
    debug: DebugOutput | None = None
    count = len(placed.size)
    used = unique(_targets(relocations))
    if request.strip is Strip.NONE:
        from cargo_strip_hook.formats.elf.debug_output import debug_output

        debug = debug_output(program, machine, live, placed, records, request.compress_debug)
        count += len(debug.sections)
        used = unique(np.concatenate([used, debug.targets]))
    groups = kept_groups(program, np.flatnonzero(live).astype(np.int32))
    header_index = np.arange(1, count + 1) + len(groups)  # groups stand before their members
    table = symtab.build(program, machine, live, placed, header_index, used, request.strip)

    real = [program.units[i] for i in program.live_units(live) if program.units[i].index >= 0]
    merged = notes.merge(real, machine)
    flags, properties = attributes.merge(real, machine)
    sections = _code(layout, placed, contents, header_index)
    sections += debug.sections if debug else ()
    relas = _relas(machine, records, relocations, debug.relocations if debug else (), table, count)
    sections += _notes(records, merged, properties, request.marker)
    symtab_index = len(groups) + len(sections) + len(relas) + 1
    inside = [set(placed.section[list(group.atoms)].tolist()) for group in groups]
    grouped: set[int] = set().union(*inside)
    tables = range(len(groups) + len(sections) + 1, symtab_index)
    members = [
        [int(header_index[n]) for n in sorted(mine)]
        + [index for index, (number, _) in zip(tables, relas, strict=True) if number in mine]
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
            records.size,
            rows[0].itemsize,
            symtab_index,
            int(header_index[number]),
            map(octets, rows),
        )
        for number, rows in relas
    ]
    sections += _tables(records, table, symtab_index)
    sections = group_sections(groups, members, table.of_symbol, symtab_index, records.order) + (
        sections
    )
    link_map = link_map_rows(program, live & _are_sections(program), placed, 0)
    warnings = _warnings(program, placed, live, merged)
    if debug:
        link_map = np.concatenate((link_map, debug.link_map))
        warnings += debug.warnings
    link_map["out_section"] += len(groups)
    osabi = max(elf_unit(u).osabi for u in program.units)
    size, chunks = write_file(sections, first, flags, osabi)
    return Image(
        size,
        chunks,
        table.defined,
        table.undefined,
        link_map,
        statistics(program, live, _counted(program, live), len(table.defined)),
        warnings,
    )


def _targets(relocations: Relocations) -> Int64:
    """What each refers to: a program-wide symbol, or ~section for an output section's symbol."""
    symbol = relocations.symbol
    return np.where(symbol >= 0, symbol, ~relocations.target_section)


def _with_frames(program: Program, layout: Layout, frames: JoinedFrames) -> Layout:
    """The layout with the section `.eh_frame`, which has the type that its first record has."""
    if not len(frames.records):
        return layout
    native = elf_unit(program.units[int(program.unit_of(frames.records[:1])[0])])
    type_ = int(native.sections["type"][int(program.atoms["section"][frames.records[0]])])
    key = SectionKey(SectionKind(b".eh_frame", type_, elf.SHF_ALLOC, 0))
    return with_frames(program, layout, frames, key, native.records.size)


def _place(program: Program, live: Bool, layout: Layout) -> Placed:
    """Where every live atom goes."""
    kinds = section_kinds(layout)
    flags = np.array([kind.flags for kind in kinds], np.int64)
    stored = np.array([kind.type != elf.SHT_NOBITS for kind in kinds], np.bool_)
    size = np.array([s.size for s in layout.sections], np.int64)
    kept = kept_symbols(program, symtab.profile_symbols(program, live))
    return Placed(
        layout.section,
        layout.offset,
        size,
        stored,
        flags & elf.SHF_EXECINSTR != 0,
        begin_of(size, stored, 8),
        kept,
        flags & elf.SHF_TLS != 0,
        flags & elf.SHF_X86_64_LARGE != 0,
    )


def _code(
    layout: Layout, placed: Placed, contents: Sequence[Array], header_index: Int64
) -> list[Section]:
    """The sections of the program, with their `contents`."""
    sections: list[Section] = []
    for out, kind, whole in zip(layout.sections, section_kinds(layout), contents, strict=True):
        flags, link = kind.flags, 0
        if kind.flags & elf.SHF_LINK_ORDER:
            linked = int(placed.section[kind.link]) if kind.link >= 0 else -1
            if linked >= 0:
                link = int(header_index[linked])
            else:
                flags &= ~elf.SHF_LINK_ORDER
        section = Section(kind.name, kind.type, flags, out.size, out.align, kind.entsize, link)
        stored = kind.type != elf.SHT_NOBITS
        sections.append(replace(section, chunks=[octets(whole)]) if stored else section)
    return sections


def _relas(
    machine: Machine,
    records: elf.Records,
    relocations: Relocations,
    debug: tuple[Batches, ...],
    table: symtab.SymbolTable,
    count: int,
) -> list[tuple[int, list[Array]]]:
    """(output section number, arrays of its REL or RELA rows) of every section that has any."""

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
    of_section: list[tuple[int, list[Array]]] = []
    rows = np.zeros(len(relocations.section), records.rel if machine.rel else records.rela)
    rows["offset"] = relocations.offset
    if not machine.rel:
        rows["addend"] = relocations.addend
    rows["info"] = entries(_targets(relocations)) | relocations.type.astype(np.uint64)
    code = count - len(debug)
    borders = np.searchsorted(relocations.section, np.arange(code + 1))
    for number in range(code):
        mine = rows[borders[number] : borders[number + 1]]
        if len(mine):
            of_section.append((number, [mine]))
    for number, batches in enumerate(debug, start=code):
        for rela, target in batches:  # they are read by nobody else, and too many to copy
            rela["info"] |= entries(target)
        if batches:
            of_section.append((number, [rela for rela, _ in batches]))
    return of_section


def _notes(
    records: elf.Records,
    merged: notes.Notes,
    properties: attributes.Attributes | None,
    marker: bytes,
) -> list[Section]:
    """Attributes, notes and the marker."""
    sections = []
    if properties is not None:
        sections.append(holding(properties.name, properties.type, 0, properties.contents))
    if merged.properties:
        name, octets = b".note.gnu.property", merged.properties
        sections.append(holding(name, elf.SHT_NOTE, elf.SHF_ALLOC, octets, records.size))
    if merged.stack is not None:
        sections.append(holding(b".note.GNU-stack", elf.SHT_PROGBITS, merged.stack, b""))
    if marker:
        sections.append(holding(MARKER_SECTION, elf.SHT_PROGBITS, 0, marker))
    return sections


def _tables(records: elf.Records, table: symtab.SymbolTable, symtab_index: int) -> list[Section]:
    """The symbol table, its section indices where they are wide, and its names."""
    wide = table.shndx >= elf.SHN_LORESERVE
    rows = table.rows.copy()
    rows["shndx"] = np.abs(np.where(wide, elf.SHN_XINDEX, table.shndx))
    sections = [
        holding(
            b".symtab",
            elf.SHT_SYMTAB,
            0,
            octets(rows),
            records.size,
            entsize=records.symbol.itemsize,
            link=symtab_index + (2 if wide.any() else 1),
            info=table.first_global,
        )
    ]
    if wide.any():
        raw = np.where(wide, table.shndx, 0).astype(f"{records.order}u4").tobytes()
        kind = elf.SHT_SYMTAB_SHNDX
        sections.append(holding(b".symtab_shndx", kind, 0, raw, 4, entsize=4, link=symtab_index))
    sections.append(holding(b".strtab", elf.SHT_STRTAB, 0, table.strings))
    return sections


def _are_sections(program: Program) -> Bool:
    """bool for each atom: whether it is a section, not a record of one."""
    sections: Bool = (program.atoms["flags"] & AtomFlag.SEPARATE == 0) | is_ordered(program)
    return sections


def _counted(program: Program, live: Bool) -> Bool:
    """bool for each atom: one for each section, a live one where there is any."""
    sections: Bool = _are_sections(program) & (program.atoms["flags"] & AtomFlag.ASIDE == 0)
    elements = np.flatnonzero(program.atoms["flags"] & AtomFlag.ELEMENT != 0)
    if len(elements):
        first = np.maximum.accumulate(np.where(program.atoms["offset"][elements] == 0, elements, 0))
        order = np.lexsort((~live[elements], first))
        again = np.zeros(len(elements), np.bool_)
        again[1:] = first[order][1:] == first[order][:-1]
        sections[elements[order[again]]] = False
    return sections


def _warnings(program: Program, placed: Placed, live: Bool, merged: notes.Notes) -> tuple[str, ...]:
    warnings = []
    if merged.without_stack:
        names = ", ".join(merged.without_stack[:3])
        warnings.append(
            f"{names} has no `.note.GNU-stack` section: a linker takes that as a wish for an "
            "executable stack, from the original and from the result"
        )
    return (*warnings, *warn.private_cxx(program, live, placed.kept, warn.ITANIUM))
