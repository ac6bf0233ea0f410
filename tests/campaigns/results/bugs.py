"""Bugs in an engine: what its phases hand to the writer is changed, or what the writer makes.

Each bug is a function from a random choice and what it changes to the changed one, None where it
has nothing to change. Only what every format's writer is given is used, so that a bug is the same
for all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from cargo_strip_hook.core.requests import Compression, PrelinkRequest, Strip
from cargo_strip_hook.link import prelink
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Binding,
    Bool,
    Format,
    Image,
    Layout,
    OutputSection,
    Program,
)

_STEPS = (1, -1, 2, 4, -4, 8, 16, -16)


@dataclass(frozen=True)
class Given:
    """What a writer is given."""

    program: Program
    live: Bool
    layout: Layout
    request: PrelinkRequest

    def but(self, **changes: Any) -> Given:
        """The same with another program's tables."""
        return replace(self, program=replace(self.program, **changes))


Bug = Callable[[random.Random, Given], Given | None]
After = Callable[[random.Random, Image], Image | None]


def _pick(chance: random.Random, which: Array) -> int:
    """One of the true rows, -1 for none."""
    rows = np.flatnonzero(which)
    return int(rows[chance.randrange(len(rows))]) if len(rows) else -1


def _made(given: Given) -> Bool:
    """bool for each atom: whether no file holds it."""
    made = np.zeros(len(given.live), np.bool_)
    for n, unit in enumerate(given.program.units):
        if unit.index < 0:
            made[given.program.atom_base[n] : given.program.atom_base[n + 1]] = True
    return made


# ---- relocations


def _relocation(
    chance: random.Random, given: Given, change: Callable[[Array, int, int], None]
) -> Given | None:
    """`change` is given the table, a live row and another one."""
    rows = given.program.relocations.copy()
    alive = given.live[rows["atom"]] & (given.layout.section[rows["atom"]] >= 0)
    first, second = _pick(chance, alive), _pick(chance, alive)
    if first < 0:
        return None
    change(rows, first, second)
    return given.but(relocations=rows)


def addend(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        rows["addend"][at] += chance.choice(_STEPS)

    return _relocation(chance, given, change)


def relocation_type(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, other: int) -> None:
        rows["type"][at] = rows["type"][other]

    return _relocation(chance, given, change)


def target(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, other: int) -> None:
        rows["symbol"][at] = rows["symbol"][other]

    return _relocation(chance, given, change)


def targets_swapped(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, other: int) -> None:
        rows["symbol"][[at, other]] = rows["symbol"][[other, at]]

    return _relocation(chance, given, change)


def field_place(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        rows["offset"][at] = max(0, rows["offset"][at] + chance.choice(_STEPS))

    return _relocation(chance, given, change)


def relocation_lost(chance: random.Random, given: Given) -> Given | None:
    rows = given.program.relocations
    at = _pick(chance, given.live[rows["atom"]])
    return None if at < 0 else given.but(relocations=np.delete(rows, at))


def unwind_relocation_lost(chance: random.Random, given: Given) -> Given | None:
    rows = given.program.relocations
    separate = given.program.atoms["flags"] & AtomFlag.SEPARATE != 0
    at = _pick(chance, (given.live & separate)[rows["atom"]])
    return None if at < 0 else given.but(relocations=np.delete(rows, at))


# ---- symbols


def _symbol(
    chance: random.Random, given: Given, change: Callable[[Array, int, int], None], *, shown: bool
) -> Given | None:
    """`change` is given the table, a symbol that is used and another: of the exports, or of all."""
    program, rows = given.program, given.program.symbols.copy()
    used = np.zeros(len(rows), np.bool_)
    if shown:
        used[list(program.exported)] = True
    else:
        relocations = program.relocations
        named = relocations["symbol"][given.live[relocations["atom"]]]
        used[program.definition[named]] = True
    first, second = _pick(chance, used), _pick(chance, used)
    if first < 0:
        return None
    change(rows, first, second)
    return given.but(symbols=rows)


def value(chance: random.Random, given: Given) -> Given | None:
    made = _made(given)

    def change(rows: Array, at: int, _: int) -> None:
        if not made[rows["atom"][at]]:  # these are for `misaligned_common`
            rows["value"][at] += chance.choice(_STEPS)

    return _symbol(chance, given, change, shown=False)


def export_value(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        rows["value"][at] += chance.choice(_STEPS)

    return _symbol(chance, given, change, shown=True)


def export_size(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        rows["size"][at] = max(0, rows["size"][at] + chance.choice(_STEPS))

    return _symbol(chance, given, change, shown=True)


def export_kind(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        kinds = np.unique(rows["kind"]).tolist()
        rows["kind"][at] = chance.choice(kinds)

    return _symbol(chance, given, change, shown=True)


def symbol_kind(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        rows["kind"][at] = chance.choice(np.unique(rows["kind"]).tolist())

    return _symbol(chance, given, change, shown=False)


def export_binding(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        weak = rows["binding"][at] == Binding.WEAK
        rows["binding"][at] = Binding.GLOBAL if weak else Binding.WEAK

    return _symbol(chance, given, change, shown=True)


def undefined_binding(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        if rows["atom"][at] < 0:
            weak = rows["binding"][at] == Binding.WEAK
            rows["binding"][at] = Binding.GLOBAL if weak else Binding.WEAK

    return _symbol(chance, given, change, shown=False)


def export_visibility(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        rows["visibility"][at] = (int(rows["visibility"][at]) + 1 + chance.randrange(3)) % 4

    return _symbol(chance, given, change, shown=True)


def native_bits(chance: random.Random, given: Given) -> Given | None:
    def change(rows: Array, at: int, _: int) -> None:
        rows["native"][at] ^= 1 << chance.randrange(8)

    return _symbol(chance, given, change, shown=bool(chance.randrange(2)))


def mislabelled(chance: random.Random, given: Given) -> Given | None:
    """An export is another's place."""

    def change(rows: Array, at: int, other: int) -> None:
        rows["atom"][at], rows["value"][at] = rows["atom"][other], rows["value"][other]

    return _symbol(chance, given, change, shown=True)


def wrong_definition(chance: random.Random, given: Given) -> Given | None:
    """A name resolves to another's definition."""
    program = given.program
    rows = program.relocations
    used = np.zeros(len(program.symbols), np.bool_)
    used[rows["symbol"][given.live[rows["atom"]]]] = True
    first, second = _pick(chance, used), _pick(chance, used)
    if first < 0:
        return None
    definition = program.definition.copy()
    definition[first] = definition[second]
    return given.but(definition=definition)


def hidden(chance: random.Random, given: Given) -> Given | None:
    names = sorted(given.program.exported)
    return given.but(exported=given.program.exported - {chance.choice(names)})


def leaked(chance: random.Random, given: Given) -> Given | None:
    program = given.program
    atoms = program.symbols["atom"]
    defined = (atoms >= 0) & (program.definition == np.arange(len(atoms)))
    shown = np.zeros(len(atoms), np.bool_)
    shown[[s for s in program.globals.values() if s >= 0]] = True
    there = defined & shown & np.append(given.layout.section, -1)[atoms].__ge__(0)
    there[list(program.exported)] = False
    at = _pick(chance, there)
    return None if at < 0 else given.but(exported=program.exported | {at})


# ---- atoms and layout


def _without(given: Given, atoms: Array) -> Given:
    """Atoms are dead, and nowhere; a section ends where its last one does."""
    live, section = given.live.copy(), given.layout.section.copy()
    live[atoms], section[atoms] = False, -1
    ends = given.layout.offset + given.program.atoms["size"]
    sections = []
    for out in given.layout.sections:
        rest = out.atoms[~np.isin(out.atoms, atoms)]
        same = len(rest) == len(out.atoms)
        size = out.size if same else int(ends[rest].max(initial=0))
        sections.append(replace(out, atoms=rest, size=size))
    return replace(
        given, live=live, layout=replace(given.layout, section=section, sections=tuple(sections))
    )


def lost(chance: random.Random, given: Given) -> Given | None:
    at = _pick(chance, given.live & (given.layout.section >= 0))
    return None if at < 0 else _without(given, np.array([at]))


def lost_root(chance: random.Random, given: Given) -> Given | None:
    """A constructor, or what must never be dropped."""
    roots = given.program.atoms["flags"] & (AtomFlag.ROOT | AtomFlag.LISTED) != 0
    at = _pick(chance, given.live & roots)
    return None if at < 0 else _without(given, np.array([at]))


def lost_record(chance: random.Random, given: Given) -> Given | None:
    """An unwind record."""
    separate = given.program.atoms["flags"] & AtomFlag.SEPARATE != 0
    at = _pick(chance, given.live & separate)
    return None if at < 0 else _without(given, np.array([at]))


def lost_all_records(chance: random.Random, given: Given) -> Given | None:  # noqa: ARG001
    separate = given.program.atoms["flags"] & AtomFlag.SEPARATE != 0
    atoms = np.flatnonzero(given.live & separate)
    return _without(given, atoms) if len(atoms) else None


def shifted(chance: random.Random, given: Given) -> Given | None:
    at = _pick(chance, given.live & (given.layout.section >= 0))
    if at < 0:
        return None
    offset = given.layout.offset.copy()
    offset[at] = max(0, offset[at] + chance.choice(_STEPS))
    return replace(given, layout=replace(given.layout, offset=offset))


def misaligned_common(chance: random.Random, given: Given) -> Given | None:
    """What no file holds lies elsewhere: commons, the ends of element sets, pointers."""
    at = _pick(chance, given.live & _made(given) & (given.layout.section >= 0))
    if at < 0:
        return None
    offset = given.layout.offset.copy()
    offset[at] = max(0, offset[at] + chance.choice(_STEPS))
    return replace(given, layout=replace(given.layout, offset=offset))


def small_common(chance: random.Random, given: Given) -> Given | None:
    """The next thing begins where a common does."""
    made = _made(given)
    section, offset = given.layout.section, given.layout.offset.copy()
    at = _pick(chance, given.live & made & (section >= 0))
    if at < 0:
        return None
    behind = np.flatnonzero((section == section[at]) & (offset > offset[at]))
    if not len(behind):
        return None
    offset[behind[np.argmin(offset[behind])]] = offset[at]
    return replace(given, layout=replace(given.layout, offset=offset))


def swapped(chance: random.Random, given: Given) -> Given | None:
    """Two atoms of one size are in each other's place."""
    layout, size = given.layout, given.program.atoms["size"]
    first = _pick(chance, given.live & (layout.section >= 0) & (size > 0))
    if first < 0:
        return None
    alike = given.live & (layout.section == layout.section[first]) & (size == size[first])
    second = _pick(chance, alike)
    offset = layout.offset.copy()
    offset[[first, second]] = offset[[second, first]]
    return replace(given, layout=replace(layout, offset=offset))


def swapped_contents(chance: random.Random, given: Given) -> Given | None:
    """An atom is cut out of its file at another's place."""
    program = given.program
    atoms = program.atoms.copy()
    placed = given.live & (given.layout.section >= 0) & (atoms["size"] > 0)
    first = _pick(chance, placed)
    if first < 0:
        return None
    mine = program.unit_of(np.arange(len(atoms))) == program.unit_of(np.array([first]))[0]
    second = _pick(chance, placed & mine)
    for name in ("section", "offset"):
        atoms[name][[first, second]] = atoms[name][[second, first]]
    return given.but(atoms=atoms)


def cut_short(chance: random.Random, given: Given) -> Given | None:
    atoms = given.program.atoms.copy()
    at = _pick(chance, given.live & (given.layout.section >= 0) & (atoms["size"] > 0))
    if at < 0:
        return None
    atoms["size"][at] = max(0, atoms["size"][at] - chance.choice((1, 4, 8)))
    return given.but(atoms=atoms)


def atom_flags(chance: random.Random, given: Given) -> Given | None:
    atoms = given.program.atoms.copy()
    at = _pick(chance, given.live)
    atoms["flags"][at] ^= 1 << chance.randrange(9)
    return given.but(atoms=atoms)


def _sections(given: Given, sections: list[OutputSection]) -> Given:
    """Other output sections; where each atom is follows from them, but for its offset."""
    section = np.full(len(given.live), -1, np.int32)
    separate = given.program.atoms["flags"] & AtomFlag.SEPARATE != 0
    section[separate] = given.layout.section[separate]
    for n, out in enumerate(sections):
        section[out.atoms] = n
    layout = replace(given.layout, sections=tuple(sections), section=section)
    return replace(given, layout=layout)


def _out(chance: random.Random, given: Given) -> int:
    return chance.randrange(len(given.layout.sections)) if given.layout.sections else -1


def alignment(chance: random.Random, given: Given) -> Given | None:
    sections = list(given.layout.sections)
    at = _pick(chance, np.array([out.align > 1 for out in sections], np.bool_))
    if at < 0:
        return None
    out = sections[at]
    sections[at] = replace(out, align=chance.choice((1, out.align // 2)))
    return replace(given, layout=replace(given.layout, sections=tuple(sections)))


def section_size(chance: random.Random, given: Given) -> Given | None:
    sections = list(given.layout.sections)
    at = _out(chance, given)
    out = sections[at]
    sections[at] = replace(out, size=max(0, out.size + chance.choice((*_STEPS, 64))))
    return replace(given, layout=replace(given.layout, sections=tuple(sections)))


def classes_merged(chance: random.Random, given: Given) -> Given | None:
    """All of one section goes behind another, of whatever kind that is."""
    sections = list(given.layout.sections)
    first, second = _out(chance, given), _out(chance, given)
    if first == second:
        return None
    one, two = sections[first], sections[second]
    step = max(one.align, two.align)
    begin = -(-one.size // step) * step
    offset = given.layout.offset.copy()
    offset[two.atoms] += begin
    atoms = np.concatenate([one.atoms, two.atoms])
    sections[first] = replace(one, atoms=atoms, size=begin + two.size, align=step)
    sections[second] = replace(two, atoms=two.atoms[:0], size=0)
    given = replace(given, layout=replace(given.layout, offset=offset))
    return _sections(given, sections)


def keys_swapped(chance: random.Random, given: Given) -> Given | None:
    """A section is said to be what another one is."""
    sections = list(given.layout.sections)
    first, second = _out(chance, given), _out(chance, given)
    if sections[first].section_key == sections[second].section_key:
        return None
    sections[first] = replace(sections[first], section_key=sections[second].section_key)
    return replace(given, layout=replace(given.layout, sections=tuple(sections)))


def section_lost(chance: random.Random, given: Given) -> Given | None:
    at = _out(chance, given)
    return None if at < 0 else _without(given, given.layout.sections[at].atoms)


def order_reversed(chance: random.Random, given: Given) -> Given | None:
    """The atoms of a section have the same places, the other way round."""
    whole = [
        n
        for n, out in enumerate(given.layout.sections)
        if len(out.atoms) > 1
        and len(np.unique(given.program.atoms["size"][out.atoms])) == 1
        and given.program.atoms["size"][out.atoms[0]] > 0
    ]
    if not whole:
        return None
    atoms = given.layout.sections[chance.choice(whole)].atoms
    offset = given.layout.offset.copy()
    offset[atoms] = offset[atoms][::-1]
    return replace(given, layout=replace(given.layout, offset=offset))


def descriptor(chance: random.Random, given: Given) -> Given | None:
    """What is said of a section is wrong in one thing: a flag is lost, a name another one."""
    keys = list(given.layout.section_keys)
    used = sorted({out.section_key for out in given.layout.sections})
    if not used:
        return None
    number = chance.choice(used)
    told = keys[number].descriptor
    if not is_dataclass(told):
        return None
    found = [f.name for f in fields(told) if isinstance(getattr(told, f.name), int | bytes)]
    name = chance.choice(found)
    old = getattr(told, name)
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, bytes):
        new = chance.choice((b".data", b".text", b"__data", old + b"x", old[:-1]))
    else:
        bits = [n for n in range(32) if old & 1 << n]
        lose = bits and chance.random() < 0.7
        new = old ^ 1 << (chance.choice(bits) if lose else chance.randrange(12))
    keys[number] = replace(keys[number], descriptor=replace(told, **{name: new}))
    return replace(given, layout=replace(given.layout, section_keys=tuple(keys)))


def set_ends(chance: random.Random, given: Given) -> Given | None:
    """The end of an element set is elsewhere."""
    sets = given.program.sets
    if not sets:
        return None
    one = chance.choice(sets)
    offset = given.layout.offset.copy()
    at = chance.choice((one.start_atom, one.stop_atom))
    offset[at] = max(0, offset[at] + chance.choice((4, -4, 8, -8)))
    return replace(given, layout=replace(given.layout, offset=offset))


def groups_lost(chance: random.Random, given: Given) -> Given | None:  # noqa: ARG001
    """Nothing is known of groups any more."""
    if not any(unit.groups for unit in given.program.units):
        return None
    units = tuple(replace(unit, groups=()) for unit in given.program.units)
    return given.but(units=units)


def strip_level(chance: random.Random, given: Given) -> Given | None:
    other = chance.choice([s for s in Strip if s is not given.request.strip])
    return replace(given, request=replace(given.request, strip=other))


def marker(chance: random.Random, given: Given) -> Given | None:
    return replace(given, request=replace(given.request, marker=chance.choice((b"", b"x"))))


def compression(chance: random.Random, given: Given) -> Given | None:
    if given.request.strip is not Strip.NONE or given.request.target.object_format != "elf":
        return None
    kinds = [
        c for c in (Compression.NONE, Compression.ZLIB) if c is not given.request.compress_debug
    ]
    return replace(given, request=replace(given.request, compress_debug=chance.choice(kinds)))


def unwanted_alive(chance: random.Random, given: Given) -> Given | None:
    """A dead atom is in the result, with nothing that it needs."""
    program = given.program
    fit = ~given.live & (program.atoms["flags"] & AtomFlag.SEPARATE == 0)
    at = _pick(chance, fit & (program.atoms["section"] >= 0) & (program.atoms["size"] > 0))
    where = _out(chance, given)
    if at < 0 or where < 0:
        return None
    live, offset = given.live.copy(), given.layout.offset.copy()
    sections = list(given.layout.sections)
    out, step = sections[where], max(16, int(program.atoms["align"][at]))
    live[at], offset[at] = True, -(-out.size // step) * step
    size = int(offset[at]) + int(program.atoms["size"][at])
    atoms = np.append(out.atoms, np.int32(at)).astype(np.int32)
    sections[where] = replace(out, atoms=atoms, size=size, align=max(out.align, step))
    given = replace(given, live=live, layout=replace(given.layout, offset=offset))
    return _sections(given, sections)


# ---- what the writer tells


def map_row_lost(chance: random.Random, image: Image) -> Image | None:
    if not len(image.link_map):
        return None
    at = chance.randrange(len(image.link_map))
    return replace(image, link_map=np.delete(image.link_map, at))


def map_row_wrong(chance: random.Random, image: Image) -> Image | None:
    rows = image.link_map.copy()
    if not len(rows):
        return None
    name = chance.choice(rows.dtype.names or ())
    at, other = chance.randrange(len(rows)), chance.randrange(len(rows))
    rows[name][at] = chance.choice((rows[name][other], rows[name][at] + chance.choice(_STEPS)))
    return replace(image, link_map=rows)


def index_name_lost(chance: random.Random, image: Image) -> Image | None:
    names = list(image.defined)
    names.remove(chance.choice(names))
    return replace(image, defined=tuple(names))


def index_name_more(chance: random.Random, image: Image) -> Image | None:
    name = chance.choice((*image.undefined, b"no_such_name"))
    return replace(image, defined=(*image.defined, name))


BUGS: tuple[Bug, ...] = (
    *(addend, relocation_type, target, targets_swapped, field_place, relocation_lost),
    *(unwind_relocation_lost, value, export_value, export_size, export_kind, symbol_kind),
    *(export_binding, undefined_binding, export_visibility, native_bits, mislabelled),
    *(wrong_definition, hidden, leaked, lost, lost_root, lost_record, lost_all_records),
    *(shifted, misaligned_common, small_common, swapped, swapped_contents, cut_short),
    *(atom_flags, alignment, section_size, classes_merged, keys_swapped, section_lost),
    *(order_reversed, descriptor, set_ends, groups_lost, strip_level, marker, compression),
    unwanted_alive,
)
AFTERS: tuple[After, ...] = (map_row_lost, map_row_wrong, index_name_lost, index_name_more)


@dataclass(frozen=True)
class Strike:
    """`hit`: whether there was anything to change. `sound`: the layout is another one, as good."""

    hit: bool
    sound: bool = False


def _no_less(given: Given, old: OutputSection, new: OutputSection) -> bool:
    """Whether a section is the same one, or has only commons in it, and room for more."""
    if new is old:
        return True
    same = new.section_key == old.section_key and new.align == old.align
    same = same and np.array_equal(new.atoms, old.atoms) and bool(len(new.atoms))
    return same and new.size > old.size and bool(_made(given)[new.atoms].all())


def _sound(old: Given, new: Given) -> bool:
    """Whether atoms lie elsewhere in their sections, and nothing else changed that matters.

    Each is aligned and apart from the others in its section, and what comes in an order is in it.
    Behind commons there may be room.
    """
    if new.program is not old.program or new.live is not old.live:
        return False
    sections = old.layout.sections, new.layout.sections
    if len(sections[0]) != len(sections[1]):
        return False
    if not all(_no_less(new, *both) for both in zip(*sections, strict=True)):
        return False
    atoms, offset, made = new.program.atoms, new.layout.offset, _made(new)
    moved = np.flatnonzero(offset != old.layout.offset)
    if (atoms["size"][moved] == 0).any() or (offset[moved] % atoms["align"][moved]).any():
        return False
    for out in new.layout.sections:
        by_place = out.atoms[np.argsort(offset[out.atoms], kind="stable")]
        ordered = new.layout.section_keys[out.section_key].whole
        if ordered and (by_place != out.atoms).any():
            return False
        end = offset[by_place] + atoms["size"][by_place]
        # others may be in what aligns the next section: the link map says whether that is so
        if (end[made[by_place]] > out.size).any():
            return False
        if (offset[by_place][1:] < end[:-1]).any():
            return False
    return True


@contextmanager
def with_bug(bug: Bug | After, chance: random.Random) -> Iterator[list[Strike]]:
    """The engine has this bug meanwhile; what is yielded tells afterwards where it struck."""
    right = prelink.write
    struck: list[Strike] = []

    def write(
        program: Program, live: Bool, layout: Layout, room: Format, request: PrelinkRequest
    ) -> Image:
        given = Given(program, live, layout, request)
        if bug in AFTERS:
            image = right(program, live, layout, room, request)
            wrong = bug(chance, image)  # type: ignore[arg-type]
            struck.append(Strike(wrong is not None))
            return wrong or image  # type: ignore[return-value]
        changed = bug(chance, given)  # type: ignore[arg-type]
        struck.append(Strike(changed is not None, changed is not None and _sound(given, changed)))
        used = changed or given
        return right(used.program, used.live, used.layout, room, used.request)  # type: ignore[attr-defined]

    prelink.write = write  # type: ignore[attr-defined]
    try:
        yield struck
    finally:
        prelink.write = right  # type: ignore[attr-defined]


__all__ = ["AFTERS", "BUGS", "After", "Bug", "with_bug"]
