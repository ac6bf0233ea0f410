"""From what is shared to objects: a small one for each library, and those of the common library.

A member of the common library holds what the same libraries share. What one object needs of
another has a hidden name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import overload

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    Binding,
    Bool,
    Format,
    Int32,
    Int64,
    Program,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.reach import always_live, build_graph, follow, mark
from cargo_strip_hook.link.share.classes import classes
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.grouping import grouped, groups_of, homes_of
from cargo_strip_hook.link.share.model import Sharing, Sort
from cargo_strip_hook.link.share.reduce import reduce

PREFIX = b"__csh_"


def crosses(name: str) -> bool:
    """Whether a name is one by which an object refers to what another one of the set holds."""
    return name.lstrip("_").startswith(PREFIX.decode().lstrip("_"))


_HIDDEN = 2  # STV_HIDDEN: what a format without visibilities does not look at
_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LETTERS = 8  # 47 bits, for a few thousand names: a set's own are compared with each other


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One object to be written, of the atoms of one library.

    `program` has the names that cross behind its own symbols. `live` and `classes` are by atom,
    and `atoms` the number that each has in the library's program.
    `libraries` are the numbers of those that need it: of a small library's object that one.
    `gives` and `takes` are the names that cross.
    """

    program: Program
    live: Bool
    classes: Int32
    atoms: Int64
    library: int
    libraries: tuple[int, ...]
    gives: tuple[bytes, ...]
    takes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """`small` are the libraries' objects in their order, `common` those of the common library.

    `homes` is the atom of the joined libraries that stands for each class. Parts are made when
    they are asked for: what each takes is free before the next one.
    """

    small: Sequence[Part]
    common: Sequence[Part]
    homes: Int64


class _Parts(Sequence[Part]):
    def __init__(self, make: Callable[[int], Part], numbers: range) -> None:
        self.make, self.numbers = make, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Part: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Part, ...]: ...

    def __getitem__(self, at: int | slice) -> Part | tuple[Part, ...]:
        if isinstance(at, slice):
            return tuple(map(self.make, self.numbers[at]))
        return self.make(self.numbers[at])


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """An object before names are given: `live` by atom of its library.

    `rows` are the relocations (of the library's program) that lead out of it; they need
    `targets`.
    """

    library: int
    libraries: tuple[int, ...]
    group: int
    live: Bool
    rows: Int64
    targets: Array


# What a name that crosses stands for: a place in a class, and what a symbol there is.
_TARGET = np.dtype([("number", "<i8"), ("value", "<i8"), ("kind", "<u1"), ("native", "<u1")])


def split(shared: Shared, sharing: Sharing, format: Format) -> Split:
    """Divide what is shared from what is not. Raises `LinkError`."""
    numbers = classes(shared)
    group, groups = groups_of(shared)
    group, groups, made_of = grouped(shared, group, groups)
    homes = homes_of(shared, group, made_of)
    planned = plan_objects(
        shared, sharing, homes, group, list(zip(made_of.tolist(), groups, strict=True))
    )
    planned = [_waking(shared, sharing, homes, group, plan, planned) for plan in planned]
    targets = np.concatenate([plan.targets for plan in planned])
    targets = np.unique(targets) if len(targets) else targets
    names = _names(shared, sharing, targets)
    gives = group[targets["number"]]

    def make(number: int) -> Part:
        plan = planned[number]
        table = targets, names, np.flatnonzero(gives == plan.group)
        return _part(shared, format, homes, plan, table, numbers)

    count = len(shared.joined.libraries)
    return Split(_Parts(make, range(count)), _Parts(make, range(count, len(planned))), homes)


def plan_objects(
    shared: Shared,
    sharing: Sharing,
    homes: Int64,
    group: Int64,
    groups: Sequence[tuple[int, tuple[int, ...]]],
    *,
    alone: bool = True,
) -> list[Planned]:
    """An object for each library, and one for each group (the library it is made of, its own).

    `alone`: each is to be an object of its own, in which nothing of it needs a name.
    """
    planned = [_small(shared, sharing, n) for n in range(len(shared.joined.libraries))]
    planned += [
        _common(shared, sharing, homes, group, (number, made_of, libraries), alone=alone)
        for number, (made_of, libraries) in enumerate(groups)
    ]
    return planned


def _small(shared: Shared, sharing: Sharing, number: int) -> Planned:
    """What stays in a library."""
    joined = shared.joined
    program = joined.libraries[number].program
    first, end = joined.atom_base[number : number + 2].tolist()
    shares = shared.number[first:end] >= 0
    rows = np.array(sorted(program.exported), np.int64)
    atoms = program.symbols["atom"][rows]
    roots = np.concatenate([atoms[atoms >= 0], always_live(program)])
    live = mark(build_graph(program), roots, end - first, np.flatnonzero(shares))
    live = follow(program, live)
    out, targets = _crossing(shared, sharing, number, live)
    return Planned(number, (number,), -1, live, out, targets)


def _common(
    shared: Shared,
    sharing: Sharing,
    homes: Int64,
    group: Int64,
    member: tuple[int, int, tuple[int, ...]],
    *,
    alone: bool,
) -> Planned:
    """A member of the common library, with copies of what each object has of its own.

    `member` is its number, the library that it is made of, and those that load it.
    """
    joined = shared.joined
    number, library, libraries = member
    first, end = joined.atom_base[library : library + 2].tolist()
    mine = shared.number[first:end]
    live = np.zeros(end - first, np.bool_)
    live[homes[group == number] - first] = True
    if alone and shared.classes:  # what may be folded is referred to without a name
        live |= joined.described.folded[first:end] & (mine >= 0) & (group[mine] == number)
    inside = shared.refers.target >= 0
    source, target = shared.refers.source[inside], shared.refers.target[inside]
    here = (source >= first) & (source < end)
    source, target = source[here] - first, target[here] - first
    copied = shared.copied[first:end]
    while True:
        new = unique(target[live[source] & copied[target] & ~live[target]])
        if not len(new):
            break
        live[new] = True
    rows, targets = _crossing(shared, sharing, library, live)
    return Planned(library, libraries, number, live, rows, targets)


def _crossing(shared: Shared, sharing: Sharing, number: int, live: Bool) -> tuple[Int64, Array]:
    """(rows of the relocations that lead out of an object, the place that each means)."""
    joined = shared.joined
    program = joined.libraries[number].program
    first, end = joined.atom_base[number : number + 2].tolist()
    mine = shared.number[first:end]
    rows = np.flatnonzero(live[program.relocations["atom"]] & (program.relocations["type"] != 0))
    symbol = program.definition[program.relocations["symbol"][rows]]
    atom = program.symbols["atom"][symbol]
    inside = np.maximum(atom, 0)
    # what is never loaded says nothing of what is elsewhere
    loaded = joined.live[first:end][program.relocations["atom"][rows]]
    out = (atom >= 0) & (mine[inside] >= 0) & ~live[inside] & loaded
    rows, symbol = rows[out], symbol[out]
    return rows, _meant(shared, sharing, number, symbol)


def _meant(shared: Shared, sharing: Sharing, number: int, symbols: Array) -> Array:
    """_PLACE of symbols of a library that are in shared atoms."""
    joined = shared.joined
    program = joined.libraries[number].program
    meant = program.symbols[symbols]
    targets = np.zeros(len(symbols), _TARGET)
    targets["number"] = shared.number[int(joined.atom_base[number]) + meant["atom"]]
    targets["value"] = meant["value"]
    targets["kind"] = sharing.kinds(program, symbols)
    targets["native"] = meant["native"] & 0xFC
    return targets


def _waking(
    shared: Shared,
    sharing: Sharing,
    homes: Int64,
    group: Int64,
    plan: Planned,
    planned: Sequence[Planned],
) -> Planned:
    """The same for a library that needs a member's initialisers and nothing else of it.

    A linker loads a member for a name only.
    """
    if plan.group >= 0:
        return plan
    sort = shared.joined.described.sort
    starts = sort[homes] == Sort.INITIALISER
    wanted = set(unique(group[starts]).tolist())
    wanted -= set(unique(group[plan.targets["number"]]).tolist())
    extra = []
    for other in planned:
        if other.group in wanted and plan.library in other.libraries:
            target = np.zeros(1, _TARGET)
            target["number"] = np.flatnonzero(starts & (group == other.group))[:1]
            target["kind"] = sharing.label
            extra.append(target)
    if not extra:
        return plan
    return replace(plan, targets=np.concatenate([plan.targets, *extra]))


def without_tables(part: Part) -> Part:
    """A part as link maps need it: without symbols and relocations."""
    program = replace(
        part.program,
        symbols=np.zeros(0, SYMBOL),
        relocations=np.zeros(0, RELOCATION),
        definition=np.zeros(0, np.int32),
    )
    return replace(part, program=program)


def set_digest(shared: Shared) -> bytes:
    """What tells a set from another one: all that its libraries share."""
    digest = blake2b(digest_size=16)
    for number in range(len(shared.joined.libraries)):
        mine = shared.number[shared.joined.library == number]
        colours = shared.colour[unique(mine[mine >= 0])]
        digest.update(np.sort(colours).astype("<u8").tobytes() + b"\0")
    return digest.digest()


def _names(shared: Shared, sharing: Sharing, targets: Array) -> list[bytes]:
    """A name for each place, by what it is and by all that the set shares."""
    colour, key = shared.colour, set_digest(shared)
    names = []
    for number, value, kind, native in targets.tolist():
        what = b"%d %d %d %d" % (int(colour[number]), value, kind, native)
        digest = blake2b(what, digest_size=16, key=key).digest()
        names.append(PREFIX + _text(digest) + sharing.suffix)
    if len(set(names)) < len(names):
        raise LinkError("two names of the common library are the same by chance")
    return names


def _text(digest: bytes) -> bytes:
    value = int.from_bytes(digest, "little")
    out = bytearray()
    for _ in range(_LETTERS):
        value, digit = divmod(value, len(_DIGITS))
        out.append(_DIGITS[digit])
    return bytes(out)


def _part(
    shared: Shared,
    format: Format,
    homes: Int64,
    plan: Planned,
    table: tuple[Array, list[bytes], Int64],
    numbers: Int32,
) -> Part:
    """Give a program the names that cross. `table`: all places, their names, which it gives."""
    targets, names, gives = table
    joined = shared.joined
    home = joined.libraries[plan.library].program
    first, end = joined.atom_base[plan.library : plan.library + 2].tolist()
    takes, of_row = np.unique(np.searchsorted(targets, plan.targets), return_inverse=True)
    assert not set(takes.tolist()) & set(gives.tolist())
    every = np.concatenate([gives, takes]).astype(np.int64)
    called = [names[n] for n in every.tolist()]
    common = plan.group >= 0
    if common:
        reduced = reduce(home, plan.live)
        program, atoms = reduced.program, reduced.atoms
        rows = np.searchsorted(reduced.relocations, plan.rows)
        relocations = program.relocations
    else:
        program, atoms = home, np.arange(end - first)
        rows, relocations = plan.rows, program.relocations.copy()
    symbols = np.zeros(1 + len(every), SYMBOL)
    symbols["atom"] = SpecialIndex.UNDEFINED
    nothing = np.zeros(0, RELOCATION), np.zeros(0, EDGE)
    plain = Unit(-1, "", memoryview(b""), np.zeros(0, ATOM), symbols, 1, called, *nothing, (), None)
    unit = format.synthetic(home.units[0], plain, np.zeros(0, EDGE))
    chosen = targets[every]
    given = homes[chosen["number"][: len(gives)]] - first
    symbols["atom"][1 : 1 + len(gives)] = np.searchsorted(atoms, given)
    symbols["binding"][1:] = Binding.GLOBAL
    symbols["visibility"][1:] = _HIDDEN
    symbols["native"][1:] = chosen["native"] | _HIDDEN
    symbols["kind"][1:] = chosen["kind"]
    symbols["value"][1 : 1 + len(gives)] = chosen["value"][: len(gives)]
    base = len(program.symbols)
    taken = base + 1 + len(gives) + of_row.reshape(-1)
    relocations["symbol"][rows] = taken[: len(rows)]
    shown = range(base + 1, base + 1 + len(gives))
    made = replace(
        program,
        units=(*program.units, unit),
        atom_base=np.append(program.atom_base, program.atom_base[-1:]),
        symbol_base=np.append(program.symbol_base, base + len(symbols)),
        symbols=np.concatenate([program.symbols, symbols]),
        relocations=relocations,
        definition=np.append(
            program.definition, np.arange(base, base + len(symbols), dtype=np.int32)
        ),
        exported=frozenset(shown) if common else program.exported,
        given=frozenset(shown),
        crossing=frozenset((base + 1 + len(gives) + np.arange(len(takes))).tolist()),
    )
    return Part(
        made,
        plan.live[atoms],
        numbers[first:end][atoms],
        atoms,
        plan.library,
        plan.libraries,
        tuple(called[: len(gives)]),
        tuple(called[len(gives) :]),
    )


__all__ = [
    "PREFIX",
    "Part",
    "Planned",
    "Split",
    "crosses",
    "groups_of",
    "plan_objects",
    "set_digest",
    "split",
    "without_tables",
]
