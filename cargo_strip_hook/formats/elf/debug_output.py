"""The debug sections of the output: loaded only where debug information stays."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cargo_strip_hook.core.requests import Compression
from cargo_strip_hook.formats.elf import compress, split
from cargo_strip_hook.formats.elf import debug as dbg
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.formats.elf.output import Batches, Section
from cargo_strip_hook.formats.elf.relocate import Placed
from cargo_strip_hook.link.model import Array, Bool, Program


@dataclass(frozen=True, slots=True)
class DebugOutput:
    """The sections, and of each its relocations in batches.

    `targets` are those of all, as in `dbg.Debug`; `link_map` tells where the input's sections went.
    """

    sections: tuple[Section, ...]
    relocations: tuple[Batches, ...]
    targets: Array
    link_map: Array
    warnings: tuple[str, ...]


def debug_output(
    program: Program,
    machine: Machine,
    live: Bool,
    placed: Placed,
    records: elf.Records,
    how: Compression,
) -> DebugOutput:
    """The debug information of the live units."""
    debug = dbg.collect(program, machine, live, placed)
    beside = split.file_names(
        dbg.inputs(program, debug.sections, (b".debug_abbrev",)),
        dbg.inputs(program, debug.sections, (b".debug_str", b".debug_info")),
    )
    return DebugOutput(
        tuple(_section(program, s, records, how) for s in debug.sections),
        tuple(s.relocations for s in debug.sections),
        debug.targets,
        debug.link_map,
        split.warning(beside),
    )


def _section(
    program: Program, section: dbg.DebugSection, records: elf.Records, how: Compression
) -> Section:
    """One debug section, compressed where that was asked for and makes it smaller."""
    plain = Section(
        section.name,
        section.type,
        section.flags,
        section.size,
        section.align,
        section.entsize,
        chunks=dbg.stream(program, section),
    )
    if how is Compression.NONE:
        return plain
    whole = dbg.stream(program, section)
    packed = compress.compress(how, records, section.size, section.align, whole)
    if packed is None:
        return plain
    flags = section.flags | elf.SHF_COMPRESSED
    size, align = len(packed), records.size
    return replace(plain, flags=flags, size=size, align=align, chunks=[packed])
