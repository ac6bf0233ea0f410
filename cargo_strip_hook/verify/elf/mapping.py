"""What the symbols of the original and of the result stand for, in terms both sides share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np

from cargo_strip_hook.verify.arrays import Array, unique
from cargo_strip_hook.verify.elf.elements import Cut
from cargo_strip_hook.verify.elf.frames import Frames
from cargo_strip_hook.verify.elf.machine import Machine
from cargo_strip_hook.verify.elf.read import (
    IN_ABS,
    IN_COMMON,
    SHF_EXECINSTR,
    STB_GLOBAL,
    STB_LOCAL,
    STB_WEAK,
    STEP,
    STT_FUNC,
    STT_SECTION,
    STV_HIDDEN,
    Objects,
)
from cargo_strip_hook.verify.expectation import Expectation, Findings
from cargo_strip_hook.verify.kit.names import Names, encoded
from cargo_strip_hook.verify.loading import Loading

# what instrumented code tells the runtime that counts for all of a program
_SHARED = frozenset(
    b"__llvm_profile_" + name
    for name in (b"raw_version", b"filename", b"counter_bias", b"bitmap_bias")
)


class Kind(IntEnum):
    """What a symbol stands for; `base` is a place, a value or the number of a name."""

    NOWHERE = 0  # a section that is not in the placement
    LOCATION = 1
    VALUE = 2
    NAME = 3  # an export, or a name that the consumer supplies
    COMMON = 4  # a place that the result chose; base is the number of the name


class Special(IntFlag):
    """What a symbol says besides its place."""

    MORE = 1  # section + addend says less
    FUNCTION = 2  # a branch to a function may change the instruction set


@dataclass(frozen=True, eq=False)
class Pair:
    """The original's used objects and the result's one, and where pieces went.

    `section[r]` is the section of the original that row `r` of the placement tells of, `place[r]`
    where it went. `row[s]` is the row of a whole section `s`, -1 for none; `cut` are those that
    came in pieces. `complete`: every live piece is in the placement: what is not there is dead.
    """

    expectation: Expectation
    findings: Findings
    before: Objects
    after: Objects
    members: tuple[str, ...]  # the name of each object of `before`
    numbers: tuple[int, ...]  # and its place in the archive
    loading: Loading
    link_map: Array
    section: Array
    row: Array
    location: Array
    cut: Cut
    complete: bool
    machine: Machine
    defined_elsewhere: frozenset[bytes]  # names in the original's archive index
    covers_debug: Array  # placement of debug information, and the original's section of each row
    described_section: Array
    frames: Frames | None  # the unwind tables of `before`; None: they cannot be read
    kinds: Array  # what the names of sections of `before` begin with
    beaten: Array  # bool for each section: of a group of which another one is in the result
    # further places of sections that linkers merge: shared code may have a copy of its own
    copies: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    # bool for each symbol of the result: known by a name that crosses between objects of a set
    crossing: Array | None = None
    # (starts, ends) of places of the result, apart from each other, that are other libraries'
    foreign: tuple[Array, Array] | None = None

    def is_foreign(self, location: Array) -> Array:
        """bool for each place: whether it is in what is another library's."""
        if self.foreign is None:
            return np.zeros(len(location), np.bool_)
        return among(self.foreign, location)

    def where_before(self, section: int, offset: int) -> str:
        """A place of the original, for a finding."""
        member = self.members[int(self.before.sections["object"][section])]
        return f"{member}({self.before.section_name(section)}+{offset:#x})"

    def where_rows(self, rows: Array) -> Callable[[int], str]:
        """The same of the one with a number among records with `section` and `offset`."""
        return lambda i: self.where_before(int(rows["section"][i]), int(rows["offset"][i]))

    def where_after(self, location: int) -> str:
        """A place of the result, for a finding."""
        section = location >> STEP
        if not 0 < section < len(self.after.sections):
            return f"place {location:#x}"
        name = self.after.section_name(section)
        return f"{name}[{section}]+{location - (section << STEP):#x}"

    def element(self, symbol: Array, addend: Array) -> tuple[Array, Array, Array]:
        """References by the symbol of a section that came in pieces.

        Takes a symbol of the original (-1 for none) and an addend for each reference. Gives the
        positions of those references among all, the place of the element that each means, -1
        where it is gone, and the offset in it (int64 all).
        """
        section = self.before.symbols["section"][np.maximum(symbol, 0)]
        mine = (symbol >= 0) & (section > 0) & self.cut.is_cut[np.maximum(section, 0)]
        which = np.flatnonzero(mine)
        which = which[self.before.symbols["kind"][symbol[which]] == STT_SECTION]
        return which, *self.cut.find(section[which], addend[which])


def among(ranges: tuple[Array, Array], location: Array) -> Array:
    """bool for each place: whether it is in one of the ranges (starts, ends), which are sorted."""
    starts, ends = ranges
    if not len(starts):
        return np.zeros(len(location), np.bool_)
    at = np.searchsorted(starts, location, side="right") - 1
    return np.asarray((at >= 0) & (location < ends[np.maximum(at, 0)]))


@dataclass
class Symbols:
    """`kind`, `base` for each symbol of one side; names numbered alike on both sides."""

    kind: Array
    base: Array
    in_section: Array  # whether it is a section's own symbol
    special: Array | None = None  # `Special`; None: no symbol says more than its place


@dataclass
class Resolution:
    """How the names of the original resolve.

    `own` is what symbols of the original stand for without regard to other objects, `before` what
    references to them do. `definitions`: candidates for each name, those whose section is placed.
    `strong_use`: numbers of names that a reference needs not only weakly, `used_names` of all that
    the consumer supplies. `visibility`: the st_other of all references to a name by its number.
    `export_location`: the place of a definition by the number of its name. `alternatives`: for a
    reference, the places of all definitions of its name if all are weak. `set_ends`: places of
    `__start_X` and `__stop_X`.
    """

    names: Names
    own: Symbols
    before: Symbols
    after: Symbols
    definitions: dict[bytes, list[int]]
    strong_use: set[int]
    used_names: set[int]
    visibility: dict[int, set[int]]
    export_location: dict[int, int]
    alternatives: dict[int, tuple[int, ...]]
    set_ends: set[int]


def special_symbols(objects: Objects, machine: Machine) -> Array | None:
    """`Special` of each symbol; None where a place is all that a symbol says."""
    if not (machine.function_bit or machine.entry_bits or machine.moving_code):
        return None
    s = objects.symbols
    inside = s["section"] > 0
    code = objects.sections["flags"][np.where(inside, s["section"], 0)] & SHF_EXECINSTR != 0
    function = s["kind"] == STT_FUNC
    more = function & (s["value"] & machine.function_bit != 0)
    more |= s["other"] & np.uint8(machine.entry_bits) != 0
    more |= code & machine.moving_code
    special = np.where(inside & more, Special.MORE, 0)
    if machine.function_bit:
        special |= np.where(inside & function, Special.FUNCTION, 0)
    return special.astype(np.uint8)


def result_symbols(after: Objects, names: Names, machine: Machine) -> Symbols:
    """What each symbol of the result stands for: global ones by name, local ones by place."""
    s = after.symbols
    kind = np.full(len(s), Kind.NOWHERE, np.uint8)
    base = np.zeros(len(s), np.int64)
    inside = s["section"] > 0
    kind[inside] = Kind.LOCATION
    base[inside] = (s["section"][inside] << STEP) + s["value"][inside]
    valued = (s["section"] == IN_ABS) | (s["undefined"] & (s["binding"] == STB_LOCAL))
    kind[valued] = Kind.VALUE
    base[valued] = s["value"][valued]
    string = after.string
    for i in np.flatnonzero(s["binding"] != STB_LOCAL).tolist():
        kind[i] = Kind.NAME
        base[i] = names.of(string(int(s["name"][i])))
    return Symbols(kind, base, s["kind"] == STT_SECTION, special_symbols(after, machine))


def shared_names(pair: Pair) -> set[bytes]:
    """What the result shows of `_SHARED`: weak, and seen within one program only."""
    s = pair.after.symbols
    weak = (s["binding"] == STB_WEAK) & (s["other"] & 3 == STV_HIDDEN) & ~s["undefined"]
    return {pair.after.string(offset) for offset in s["name"][weak].tolist()} & _SHARED


@dataclass(frozen=True, eq=False)
class _Defined:
    """The names that the original defines.

    `candidates` and `chosen` hold symbols of the original by name: all definitions that are placed,
    and the one that a linker takes. `unfound`: names whose definition may be in the result although
    it was not found, since the placement is not complete.
    """

    own: Symbols  # what each symbol of the original stands for by itself
    candidates: dict[bytes, list[int]]
    chosen: dict[bytes, int]
    exports: set[bytes]
    unfound: set[bytes]


@dataclass(frozen=True, eq=False)
class _Uses:
    """What references by name ask for; each part is as in `Resolution`."""

    strong: set[int] = field(default_factory=set)
    names: set[int] = field(default_factory=set)
    visibility: dict[int, set[int]] = field(default_factory=dict)
    alternatives: dict[int, tuple[int, ...]] = field(default_factory=dict)
    set_ends: set[int] = field(default_factory=set)


def resolve(pair: Pair, referenced: Array) -> Resolution:
    """Resolve symbols of the original as a linker would.

    `referenced`: bool for each symbol of the original; the others keep what they stand for by
    themselves.
    """
    names = Names()
    defined = _defined(pair, own_symbols(pair))
    own, chosen = defined.own, defined.chosen
    after = result_symbols(pair.after, names, pair.machine)
    export_location = {
        names.of(name): int(own.base[chosen[name]])
        for name in defined.exports & chosen.keys()
        if own.kind[chosen[name]] == Kind.LOCATION
    }
    before, uses = _references(pair, names, defined, referenced)
    return Resolution(
        names,
        own,
        before,
        after,
        defined.candidates,
        uses.strong,
        uses.names,
        uses.visibility,
        export_location,
        uses.alternatives,
        uses.set_ends,
    )


def own_symbols(pair: Pair) -> Symbols:
    """What each symbol of the original stands for without regard to other objects."""
    s = pair.before.symbols
    section = s["section"]
    row = np.where(section > 0, pair.row[np.maximum(section, 0)], -1)
    placed = row >= 0
    kind = np.full(len(s), Kind.NOWHERE, np.uint8)
    base = np.zeros(len(s), np.int64)
    kind[placed] = Kind.LOCATION
    base[placed] = pair.location[row[placed]] + s["value"][placed]
    parted = np.flatnonzero((section > 0) & pair.cut.is_cut[np.maximum(section, 0)])
    parted = parted[s["kind"][parted] != STT_SECTION]
    where, within = pair.cut.find(section[parted], s["value"][parted])
    parted, where = parted[where >= 0], (where + within)[where >= 0]
    kind[parted], base[parted] = Kind.LOCATION, where
    valued = (section == IN_ABS) | (s["undefined"] & (s["binding"] == STB_LOCAL))
    kind[valued] = Kind.VALUE
    base[valued] = s["value"][valued]
    return Symbols(kind, base, s["kind"] == STT_SECTION, special_symbols(pair.before, pair.machine))


def _defined(pair: Pair, own: Symbols) -> _Defined:
    """Collect the definitions of each name, and choose among them."""
    s = pair.before.symbols
    is_global = s["binding"] != STB_LOCAL
    exports = encoded(pair.expectation.exports) | shared_names(pair)
    section = s["section"]
    placed = own.kind == Kind.LOCATION
    defining = is_global & (placed | (section == IN_ABS) | (section == IN_COMMON))
    symbols = np.flatnonzero(defining)
    candidates: dict[bytes, list[int]] = {}
    for i, name in zip(symbols.tolist(), pair.before.names[symbols].tolist(), strict=True):
        candidates.setdefault(name, []).append(i)
    chosen = {
        name: rivals[0] if len(rivals) == 1 else _choose(pair, rivals)
        for name, rivals in candidates.items()
    }
    unfound: set[bytes] = set()
    if not pair.complete:
        string = pair.before.string
        hidden = is_global & ~defining & ~s["undefined"]
        unfound = (
            {string(offset) for offset in s["name"][hidden].tolist()} - chosen.keys() - exports
        )
    return _Defined(own, candidates, chosen, exports, unfound)


def _references(
    pair: Pair, names: Names, defined: _Defined, referenced: Array
) -> tuple[Symbols, _Uses]:
    """What a reference to each symbol of the original stands for. Numbers the names it meets."""
    s, own, chosen = pair.before.symbols, defined.own, defined.chosen
    kind, base = own.kind.copy(), own.base.copy()
    special = None if own.special is None else own.special.copy()
    uses = _Uses()
    symbols = np.flatnonzero((s["binding"] != STB_LOCAL) & referenced)
    texts = pair.before.names[symbols].tolist()
    plain = _plain(pair, defined)
    winner = np.fromiter(map(plain.get, texts, itertools.repeat(-1)), np.int64, len(symbols))
    simple = winner >= 0
    kind[symbols[simple]] = own.kind[winner[simple]]
    base[symbols[simple]] = own.base[winner[simple]]
    if special is not None:
        special[symbols[simple]] = special[winner[simple]]
    rest = symbols[~simple].tolist()
    for i, name in zip(rest, itertools.compress(texts, (~simple).tolist()), strict=True):
        if name in defined.unfound:
            kind[i] = Kind.NOWHERE
            continue
        if name in defined.exports or name not in chosen:
            number = names.of(name)
            uses.visibility.setdefault(number, set()).add(int(s["other"][i]))
            if s["binding"][i] == STB_GLOBAL:
                uses.strong.add(number)
            end = None if name in defined.exports else _set_end(pair, name)
            if end is None:
                kind[i], base[i] = Kind.NAME, number
                uses.names.add(number)
            else:
                kind[i], base[i] = Kind.LOCATION, end
                uses.set_ends.add(end)
            continue
        if s["section"][chosen[name]] == IN_COMMON:
            kind[i], base[i] = Kind.COMMON, names.of(name)
            continue
        kind[i], base[i] = own.kind[chosen[name]], own.base[chosen[name]]
        if special is not None:
            special[i] = special[chosen[name]]
        uses.alternatives[i] = tuple(
            int(own.base[k]) for k in defined.candidates[name] if own.kind[k] == Kind.LOCATION
        )
    return Symbols(kind, base, own.in_section, special), uses


def _plain(pair: Pair, defined: _Defined) -> dict[bytes, int]:
    """Of `chosen` the names of which there is no more to say than where they are."""
    s = pair.before.symbols
    winners = np.fromiter(defined.chosen.values(), np.int64, len(defined.chosen))
    counts = (len(rivals) == 1 for rivals in defined.candidates.values())
    single = np.fromiter(counts, np.bool_, len(winners))
    good = (s["section"][winners] != IN_COMMON) & (single | (s["binding"][winners] == STB_GLOBAL))
    named = zip(defined.chosen.items(), good.tolist(), strict=True)
    return {name: i for (name, i), plain in named if plain and name not in defined.exports}


def _choose(pair: Pair, rivals: list[int]) -> int:
    """The one that a linker takes: a strong one, then a common one, then the first it loads."""
    s = pair.before.symbols
    strong = [i for i in rivals if s["binding"][i] == STB_GLOBAL and s["section"][i] != IN_COMMON]
    common = [i for i in rivals if s["section"][i] == IN_COMMON]
    if len(strong) > 1:
        name = pair.before.string(int(s["name"][strong[0]])).decode("utf-8", "replace")
        where = ", ".join(pair.members[int(s["object"][i])] for i in strong)
        pair.findings.add("two strong definitions", f"`{name}` in {where}")
    if common and not strong:
        return max(common, key=lambda i: int(s["size"][i]))
    if not strong and pair.complete:
        rank = pair.loading.rank
        return min(rivals, key=lambda i: rank.get(pair.numbers[s["object"][i]], len(rank)))
    return (strong or rivals)[0]


def _set_end(pair: Pair, name: bytes) -> int | None:
    """The place of `__start_X` or `__stop_X`: the ends of the placed sections called X.

    Source: GNU ld manual, "Input Section Example" (C identifiers as section names).
    """
    for prefix in (b"__start_", b"__stop_"):
        if name.startswith(prefix):
            break
    else:
        return None
    called = name[len(prefix) :]
    if not called.decode("latin-1").isidentifier():
        return None
    if not pair.complete:
        return None
    members = np.flatnonzero(pair.before.names_begin(called + b"\0"))
    members = members[pair.before.sections["flags"][members] & 2 != 0]
    if not len(members):
        return None
    rows = pair.row[members]
    lost = members[(rows < 0) & ~pair.beaten[members]]
    if len(lost):
        where = pair.where_before(int(lost[0]), 0)
        pair.findings.add("an element of a linker-made set is missing", where)
    rows = rows[rows >= 0]
    if not len(rows):
        return None
    starts = pair.location[rows]
    ends = starts + pair.link_map["size"][rows]
    if len(unique(starts >> STEP)) > 1:
        pair.findings.add("a linker-made set is in several sections", called.decode("latin-1"))
    return int(starts.min() if prefix == b"__start_" else ends.max())
