"""Makes one ELF relocatable object: contents, relocations, symbols and notes, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.formats.elf import attributes, notes, symtab
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.encode import ElfOutput
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.formats.elf.groups import kept_groups
from cargo_strip_hook.formats.elf.index import is_ordered, with_indices
from cargo_strip_hook.formats.elf.output import Batches, Section, holding
from cargo_strip_hook.formats.elf.relocate import Placed, relocate
from cargo_strip_hook.formats.elf.section_keys import SectionKind, section_kinds
from cargo_strip_hook.link.addresses import Sections
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.contents import Filling, make_contents
from cargo_strip_hook.link.link_map import link_map_rows
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Layout,
    Program,
    SectionKey,
)
from cargo_strip_hook.link.output import octets
from cargo_strip_hook.link.symbols import kept_symbols
from cargo_strip_hook.link.unwind import JoinedFrames, is_frame, join_frames, with_frames

MARKER_SECTION = b".cargo-strip-hook"


def output(program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> ElfOutput:
    """All of the object. Raises `LinkError` for a reference that cannot be kept."""
    native = elf_unit(program.units[0])
    machine, records = native.machine, native.records
    frames = join_frames(program, live & is_frame(program), merge=True)
    layout = _with_frames(program, with_indices(program, live, layout), frames)
    placed = _assign(program, live, layout)
    skip = np.zeros(len(program.atoms), np.bool_)
    skip[frames.shared] = True
    # linkers merge CIEs that have the same bytes and personality symbol, whatever its addend
    by_name = np.zeros(len(program.atoms), np.bool_)
    by_name[frames.cies] = True
    relocations, patches = relocate(program, machine, live, placed, skip, by_name)
    patches.append(frames.cie_pointers(placed))
    filling = Filling(patches, (), machine.padding, records.order)
    contents = make_contents(program, placed, layout.atoms, filling)
    groups = kept_groups(program, np.flatnonzero(live).astype(np.int32))
    first = len(groups) + 1  # the header of the first section: those of groups come before
    sections = _code(layout, placed, contents, first)
    used = unique(np.concatenate([relocations.named, ~relocations.sections]))
    link_map = link_map_rows(program, live & _are_sections(program), placed, 0)
    debug_relocations: tuple[Batches, ...] = ()
    warnings: tuple[str, ...] = ()
    if request.strip is Strip.NONE:
        from cargo_strip_hook.formats.elf.debug_output import debug_output

        debug = debug_output(program, machine, live, placed, records, request.compress_debug)
        sections += debug.sections
        used = unique(np.concatenate([used, debug.targets]))
        link_map = np.concatenate([link_map, debug.link_map])
        debug_relocations, warnings = debug.relocations, debug.warnings
    link_map["out_section"] += len(groups)
    header_index = np.arange(first, first + len(sections))
    symbols, wide = symtab.build(program, machine, live, placed, header_index, used, request.strip)
    real = [program.units[n] for n in program.live_units(live) if program.units[n].index >= 0]
    merged = notes.merge(real, machine)
    flags, properties = attributes.merge(real, machine)
    return ElfOutput(
        program=program,
        live=live,
        placed=placed,
        contents=contents,
        relocations=relocations,
        symbols=symbols,
        link_map=link_map,
        counted=_counted(program, live),
        warnings=_warnings(merged) + warnings,
        sections=[*sections, *_notes(records, merged, properties, request.marker)],
        debug_relocations=debug_relocations,
        groups=groups,
        wide=wide,
        flags=flags,
    )


def _with_frames(program: Program, layout: Layout, frames: JoinedFrames) -> Layout:
    """The layout with the section `.eh_frame`, which has the type that its first record has."""
    if not len(frames.records):
        return layout
    native = elf_unit(program.units[int(program.unit_of(frames.records[:1])[0])])
    type_ = int(native.sections["type"][int(program.atoms["section"][frames.records[0]])])
    key = SectionKey(SectionKind(b".eh_frame", type_, elf.SHF_ALLOC, 0))
    return with_frames(program, layout, frames, key, native.records.size)


def _assign(program: Program, live: Bool, layout: Layout) -> Placed:
    """Where every live atom goes."""
    kinds = section_kinds(layout)
    flags = np.array([kind.flags for kind in kinds], np.int64)
    stored = np.array([kind.type != elf.SHT_NOBITS for kind in kinds], np.bool_)
    executable = flags & elf.SHF_EXECINSTR != 0
    kept = kept_symbols(program, symtab.profile_symbols(program, live))
    return Placed(
        layout.section,
        layout.offset,
        Sections.following(layout.sizes, layout.aligns, stored, executable, 8),
        kept,
        flags & elf.SHF_TLS != 0,
        flags & elf.SHF_X86_64_LARGE != 0,
    )


def _code(layout: Layout, placed: Placed, contents: Sequence[Array], first: int) -> list[Section]:
    """The sections of the program, with their `contents`; `first`: the header of the first."""
    sections: list[Section] = []
    for out, kind, whole in zip(layout.sections, section_kinds(layout), contents, strict=True):
        flags, link = kind.flags, 0
        if kind.flags & elf.SHF_LINK_ORDER:
            linked = int(placed.section[kind.link]) if kind.link >= 0 else -1
            if linked >= 0:
                link = first + linked
            else:
                flags &= ~elf.SHF_LINK_ORDER
        section = Section(kind.name, kind.type, flags, out.size, out.align, kind.entsize, link)
        stored = kind.type != elf.SHT_NOBITS
        sections.append(replace(section, chunks=[octets(whole)]) if stored else section)
    return sections


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


def _warnings(merged: notes.Notes) -> tuple[str, ...]:
    if not merged.without_stack:
        return ()
    return (
        f"{', '.join(merged.without_stack[:3])} has no `.note.GNU-stack` section: a linker takes "
        "that as a wish for an executable stack, from the original and from the result",
    )
