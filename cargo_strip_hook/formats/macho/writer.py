"""Makes one Mach-O relocatable object: all that is decided before it is encoded."""

from __future__ import annotations

import struct

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho import symtab, versions
from cargo_strip_hook.formats.macho.addresses import Placed, assign, marker_section
from cargo_strip_hook.formats.macho.debug import Debug, collect, debug_rows, keep_code
from cargo_strip_hook.formats.macho.debug import relocate as relocate_debug
from cargo_strip_hook.formats.macho.encode import MachoOutput
from cargo_strip_hook.formats.macho.machine import MACHINES
from cargo_strip_hook.formats.macho.reader import macho_unit
from cargo_strip_hook.formats.macho.relocate import relocate
from cargo_strip_hook.formats.macho.section_keys import kept_symbols
from cargo_strip_hook.formats.macho.unwind_output import join
from cargo_strip_hook.link.contents import Filling, make_contents
from cargo_strip_hook.link.link_map import link_map_rows
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Layout,
    Program,
    Unit,
)
from cargo_strip_hook.link.output import Relocations


def output(program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> MachoOutput:
    """All of the object. Raises `LinkError` for what cannot be one object."""
    real = [u for u in program.units if u.index >= 0]
    cputype = _cputype(real)
    machine = MACHINES[cputype]
    used = [program.units[n] for n in program.live_units(live) if program.units[n].index >= 0]
    built_for = versions.merge((u.name, macho_unit(u).versions) for u in real)
    versions.check_target(built_for, cputype, request.target)
    compact, eh_frame, frames = join(program, live)
    debug = Debug((), (), frozenset(), ())
    regions: dict[int, tuple[int, int]] = {}
    if request.strip is Strip.NONE:
        debug = collect(program, live)
        layout, regions = keep_code(program, layout, debug.units)
    own = (compact, eh_frame, *debug.sections, marker_section(request.marker))
    kept = kept_symbols(program, live)
    placed, blocks = assign(program, layout, own, regions, kept[0])
    relocations, patches = relocate(program, machine, live, placed)
    of_debug, addresses = relocate_debug(program, live, placed, debug)
    filling = Filling([*patches, *addresses, frames.cie_pointers(placed)], blocks)
    copied = np.concatenate([layout.atoms, compact.atoms, eh_frame.atoms])
    contents = make_contents(program, placed, copied, filling)
    del patches, addresses, filling  # there may be very many
    symbols = symtab.build(program, live, placed, kept, relocations, request.strip)
    options = tuple(dict.fromkeys(o for u in used for o in macho_unit(u).options))
    section = program.atoms["flags"] & AtomFlag.SEPARATE == 0  # no record of one
    from_input = live & section & (placed.section >= 0)
    return MachoOutput(
        program=program,
        live=live,
        placed=placed,
        contents=contents,
        # sections of debug information stand behind all others that have relocations
        relocations=Relocations.joined([relocations, of_debug]),
        symbols=symbols,
        link_map=np.concatenate(
            [link_map_rows(program, from_input, placed, 1), debug_rows(program, placed, debug)]
        ),
        counted=section,
        warnings=debug.warnings,
        machine=machine,
        cpu=(cputype, int(macho_unit(real[0]).cpusubtype)),
        commands=[v.encode() for v in built_for] + [_option(o) for o in options],
        data_in_code=_data_in_code(program, live, placed),
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
