"""DWARF of live units: sections joined by name, relocations rewritten.

Sources: DWARF 5, section 7.4; Microsoft, "PE Format", for references between sections (SECREL).
What refers to dead code gets a tombstone as linkers write it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.addresses import Filled, Placed
from cargo_strip_hook.formats.coff.file import CoffFile
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.formats.coff.machine import Machine, Mode
from cargo_strip_hook.formats.coff.reader import coff_unit
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.addresses import STEP, Sections
from cargo_strip_hook.link.arrays import join, rows_of, unique
from cargo_strip_hook.link.contributions import ENDED_BY_ZEROS, collected, stacked
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import LINK_MAP, Array, Bool, Int64, Program, SpecialIndex
from cargo_strip_hook.link.output import Relocations


@dataclass(frozen=True, slots=True)
class Debug:
    """Filled that follow those of the program, their contents and relocations.

    `left_out`: members whose debug information cannot be kept, and why.
    """

    kinds: tuple[SectionKind, ...]
    sizes: Int64
    align: Int64
    contents: Array  # uint8, those of all sections one behind the other
    relocations: Relocations
    left_out: tuple[tuple[str, str], ...]
    link_map: Array  # LINK_MAP


def collect(program: Program, machine: Machine, live: Bool, placed: Placed) -> Debug:
    """The debug sections of every unit with a live atom."""
    rows, names = collected(_sections(program, live))
    offsets, sizes, aligns = stacked(rows, rows["size"], len(names))
    start = np.cumsum(sizes) - sizes
    contents = np.zeros(int(sizes.sum()), np.uint8)
    first = len(placed.kinds)
    references = [np.zeros(0, REFERENCE)]
    for number in unique(rows["unit"]).tolist():
        f = CoffFile(program.units[number].name, program.units[number].data)
        chosen = np.flatnonzero(rows["unit"] == number)
        mine, begins = rows[chosen], start[rows["out"][chosen]] + offsets[chosen]
        for section, begin in zip(mine["section"].tolist(), begins.tolist(), strict=True):
            view = np.frombuffer(f.contents(section), np.uint8)
            contents[begin : begin + len(view)] = view
        base = np.full((len(f.sections), 2), -1, np.int64)
        base[mine["section"]] = np.stack([mine["out"], offsets[chosen]], axis=1)
        entries = f.relocations(np.sort(mine["section"]).astype(np.int64))
        refers, elsewhere = targets(program, live, placed, number, entries)
        if len(elsewhere):
            refers = _into_records(refers, elsewhere, f, entries, base, first)
        section, begin = base[entries["atom"]].T
        offset = begin + entries["offset"]
        references.append(referring(section, offset, entries["type"], refers))
    every = join(references)
    one = np.array([name in ENDED_BY_ZEROS for name in names], np.bool_)
    store(machine, contents, start, every, one)
    flags = coff.DEBUG & ~coff.SCN_ALIGN_MASK
    return Debug(
        tuple(SectionKind(name, flags, root=True) for name in names),
        sizes,
        aligns,
        contents,
        rewritten(machine, every, first),
        (),
        rows_of(
            LINK_MAP,
            len(rows),
            member=np.array([u.index for u in program.units])[rows["unit"]],
            section=rows["section"] + 1,
            size=rows["size"],
            out_section=first + rows["out"] + 1,
            out_offset=offsets,
        ),
    )


def _sections(program: Program, live: Bool) -> Iterator[tuple[bytes, int, int, int, int]]:
    """The DWARF of all units with a live atom, as `collected` takes it."""
    for number in program.live_units(live):
        native = coff_unit(program.units[number])
        for section in native.debug:
            if native.names[section].startswith(b".debug_"):
                header = native.sections[section]
                shift = (int(header["flags"]) & coff.SCN_ALIGN_MASK) >> coff.SCN_ALIGN_SHIFT
                align = 1 << max(shift - 1, 0)
                yield native.names[section], number, section, align, int(header["size"])


# what relocations of debug information refer to in the new object, one row for each
TARGET = np.dtype(
    [
        ("target", "<i8"),  # program-wide symbol, or with `holder` the start of an output section
        ("adds", "<i8"),  # with `holder`: what is added to the field
        ("home", "<i8"),  # the output section, -1 for what is not inside
        ("by_section", "?"),
        ("dead", "?"),  # not in the new object
    ]
)
# these relocations in the new object
REFERENCE = np.dtype(
    [
        ("section", "<i8"),  # from 0, of the sections of debug information
        ("offset", "<i8"),  # of the field, in the section
        ("type", "<i8"),
        ("to", TARGET),
    ]
)


def referring(section: Int64, offset: Int64, kind: Array, refers: Array) -> Array:
    """REFERENCE rows of these columns; `refers`: TARGET rows."""
    return rows_of(REFERENCE, len(refers), section=section, offset=offset, type=kind, to=refers)


def targets(
    program: Program, live: Bool, placed: Placed, number: int, rows: Array
) -> tuple[Array, Int64]:
    """(TARGET rows, the numbers of those in sections that are no atoms) of a unit's relocations."""
    native = coff_unit(program.units[number])
    symbol = int(program.symbol_base[number]) + native.numbers[rows["symbol"]]
    definition = program.definition[symbol].astype(np.int64)
    holder = program.symbols["atom"][definition].astype(np.int64)
    # what is said of the loser of a COMDAT holds for the winner only where the two are the same
    own = program.symbols["atom"][symbol]
    lost = (own >= 0) & program.discarded[np.maximum(own, 0)]
    holder = np.where(lost, program.prevailing[np.maximum(own, 0)], holder)
    value = program.symbols["value"][np.where(lost, symbol, definition)]
    atom = np.maximum(holder, 0)
    alive = (holder >= 0) & live[atom] & (placed.section[atom] >= 0)
    whole = alive & (~placed.kept[definition] | lost)
    home = np.where(alive, placed.section[atom], -1).astype(np.int64)
    refers = rows_of(
        TARGET,
        len(rows),
        target=np.where(whole, home << STEP, definition),
        adds=np.where(whole, placed.offset[atom] + value, 0),
        home=home,
        by_section=whole,
        dead=((holder >= 0) | lost) & ~alive,
    )
    return refers, np.flatnonzero(holder == SpecialIndex.ELSEWHERE)


def store(machine: Machine, contents: Array, start: Int64, references: Array, one: Bool) -> None:
    """Add to fields what is added, and put tombstones into those of what is dead.

    The caller has made the `contents` (uint8), which change. `references`: REFERENCE rows. Arrays
    by section: `start` is where each begins in the contents, `one` whether its tombstone is 1.
    """
    refers, field = references["to"], start[references["section"]] + references["offset"]
    width, adds = machine.width[references["type"]], machine.adds[references["type"]]
    for kind in (Field.BITS32, Field.BITS64):
        chosen = np.flatnonzero(refers["by_section"] & ~refers["dead"] & (adds == kind))
        value = fields.load(contents, field[chosen], kind, "<") + refers["adds"][chosen]
        fields.store(contents, field[chosen], kind, value, "<")
    for size in (2, 4, 8):
        chosen = np.flatnonzero(refers["dead"] & (width == size))
        octets = field[chosen, None] + np.arange(size)
        contents[octets] = 0
        contents[field[chosen]] = one[references["section"][chosen]]


def rewritten(machine: Machine, references: Array, first: int) -> Relocations:
    """The entries of what is not dead, by section and offset; `first`: the first section's number.

    Those at the same offset keep their order.
    """
    chosen = np.flatnonzero(~references["to"]["dead"])
    order = np.lexsort((references["offset"][chosen], references["section"][chosen]))
    left = references[chosen[order]]
    kind, inside, target = left["type"], left["to"]["by_section"], left["to"]["target"]
    exact = inside & (machine.mode[kind] == Mode.EXACT)
    none = np.zeros(len(left), np.int64)
    return Relocations(
        (left["section"] + first).astype(np.int32),
        left["offset"],
        kind,
        np.where(inside, -1, target).astype(np.int32),
        np.where(inside, target >> STEP, -1).astype(np.int32),
        none,
        none,
        exact,
    )


def _into_records(
    refers: Array, elsewhere: Int64, f: CoffFile, rows: Array, base: Int64, first: int
) -> Array:
    """The targets, where the rows `elsewhere` name symbols of sections that are no atoms.

    Such a symbol's place is in the file's own record. `base`: (output section, offset) of each
    section of the file; `first`: the number of the first of these output sections.
    """
    symbols = f.symbols[rows["symbol"][elsewhere]]
    section = symbols["section"].astype(np.int64)
    inside = (section > 0) & (section <= len(base))
    out = np.where(inside[:, None], base[np.where(inside, section - 1, 0)], -1)
    kept = out[:, 0] >= 0
    refers = refers.copy()
    refers["dead"][elsewhere[~kept]] = True
    mine = elsewhere[kept]
    refers["target"][mine] = (out[kept, 0] + first) << STEP
    refers["adds"][mine] = out[kept, 1] + symbols["value"][kept].astype(np.int64)
    refers["by_section"][mine] = True
    return refers


def combined(first: Debug, second: Debug) -> Debug:
    """The sections of both, one behind the other: `second` was made to follow `first`."""
    return Debug(
        first.kinds + second.kinds,
        np.concatenate([first.sizes, second.sizes]),
        np.concatenate([first.align, second.align]),
        np.concatenate([first.contents, second.contents]),
        Relocations.joined([first.relocations, second.relocations]),
        first.left_out + second.left_out,
        np.concatenate([first.link_map, second.link_map]),
    )


def with_sections(filled: Filled, debug: Debug) -> Filled:
    """The program's sections, and the debug sections behind them."""
    placed = filled.placed
    every = np.ones(len(debug.kinds), np.bool_)
    behind = Sections.following(debug.sizes, debug.align, every, ~every)
    size, align, stored, code, _ = Sections.joined([placed.sections, behind]).columns()
    placed = replace(
        placed,
        sections=Sections.following(size, align, stored, code),
        kinds=(*placed.kinds, *debug.kinds),
    )
    ends = np.cumsum([0, *debug.sizes]).tolist()
    contents = [debug.contents[begin:end] for begin, end in itertools.pairwise(ends)]
    relocations = Relocations.joined([filled.relocations, debug.relocations])
    return Filled(placed, filled.contents + contents, relocations)
