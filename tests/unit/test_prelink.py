"""The general phases on units made by hand: no object format, no tools."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.requests import Granularity
from cargo_strip_hook.link import reach as reach_module
from cargo_strip_hook.link.layout import lay_out
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    AtomFlag,
    Binding,
    Group,
    ImportMember,
    Int32,
    LinkerSet,
    Program,
    Reach,
    SectionKey,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.reach import always_live, build_graph, classes, mark
from cargo_strip_hook.link.resolve import Input, resolve

settings.register_profile("stable", deadline=None, derandomize=True, database=None)
settings.load_profile("stable")

UNDEF, COMMON = SpecialIndex.UNDEFINED, SpecialIndex.COMMON
STRONG, WEAK, UNIQUE = Binding.GLOBAL, Binding.WEAK, Binding.UNIQUE


@dataclass
class Spec:
    """One object: atoms by number, global symbols, references (atom, name or atom, reach)."""

    name: str
    atoms: int = 1
    flags: Mapping[int, int] = field(default_factory=dict)
    sizes: Sequence[tuple[int, int]] = ()  # size and alignment of each atom
    symbols: Sequence[tuple[str, int, int]] = ()  # name, binding, atom or place
    commons: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # size, alignment
    references: Sequence[tuple[int, str | int, Reach]] = ()
    edges: Sequence[tuple[int, int]] = ()
    groups: Sequence[tuple[str, tuple[int, ...]]] = ()
    sets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kinds: Mapping[int, str] = field(default_factory=dict)  # bucket of each atom, else "text"


class Fake:
    """A format whose files are `Spec`s. Bucket names: `*single` and `*whole` mean what they say."""

    def __init__(self, specs: Sequence[Spec], limit: int = 1 << 62) -> None:
        self.specs = list(specs)
        self.limit = limit
        self.symbol_kinds: dict[int, str] = {}
        self.read_order: list[str] = []

    def members(self) -> dict[int, Input]:
        return {i: Input(i, s.name, memoryview(b"")) for i, s in enumerate(self.specs)}

    def index(self) -> Entries:
        found = [
            (name.encode(), i)
            for i, spec in enumerate(self.specs)
            for name, _, place in spec.symbols
            if place != UNDEF
        ]
        return Entries([name for name, _ in found], [i for _, i in found])

    def read(self, inputs: Sequence[Input]) -> list[Unit]:
        return [self._read(i.index, i.name, i.data) for i in inputs]

    def _read(self, index: int, name: str, data: memoryview) -> Unit:
        spec = self.specs[index]
        self.read_order.append(name)
        atoms = np.zeros(spec.atoms, ATOM)
        atoms["contents"] = -1
        atoms["section"] = np.arange(spec.atoms)
        atoms["align"] = 1
        for i, (size, align) in enumerate(spec.sizes):
            atoms["size"][i], atoms["align"][i] = size, align
        for atom, flags in spec.flags.items():
            atoms["flags"][atom] = flags
        # local symbols: one for each atom, as section symbols are
        symbols = np.zeros(1 + spec.atoms + len(spec.symbols), SYMBOL)
        symbols["atom"][0] = UNDEF
        symbols["atom"][1 : 1 + spec.atoms] = np.arange(spec.atoms)
        numbers = {}
        for i, (symbol, binding, place) in enumerate(spec.symbols, start=1 + spec.atoms):
            symbols["atom"][i], symbols["binding"][i] = place, binding
            if place == COMMON:
                symbols["size"][i], symbols["value"][i] = spec.commons[symbol]
            numbers[symbol] = i
        relocations = np.zeros(len(spec.references), RELOCATION)
        for i, (atom, target, reach) in enumerate(spec.references):
            number = 1 + target if isinstance(target, int) else numbers[target]
            relocations[i] = (atom, number, 1, reach, 0, 0)
        edges = np.array(list(spec.edges), np.int32).reshape(-1, 2)
        table = np.zeros(len(edges), EDGE)
        table["source"], table["target"] = edges[:, 0], edges[:, 1]
        return Unit(
            index,
            name,
            data,
            atoms,
            symbols,
            1 + spec.atoms,
            [s.encode() for s, _, _ in spec.symbols],
            relocations,
            table,
            tuple(Group(s.encode(), a, comdat=True) for s, a in spec.groups),
            spec,
        )

    def find_sets(self, units: Sequence[Unit], undefined: Sequence[bytes]) -> list[LinkerSet]:
        wanted = {n.split(b"_", 3)[3].decode() for n in undefined if b"__st" in n}
        found: list[LinkerSet] = []
        for name in sorted(wanted):
            elements, base = [], 0
            for unit in units:
                elements += [base + a for a in unit.native.sets.get(name, ())]
                base += len(unit.atoms)
            text = name.encode()
            found.append(
                LinkerSet(
                    text, b"__start_" + text, b"__stop_" + text, np.array(elements, np.int32), 8
                )
            )
        return found

    def import_members(self, inputs: Sequence[Input]) -> list[ImportMember]:  # noqa: ARG002
        return []

    def loaded_always(
        self,
        inputs: Sequence[Input],  # noqa: ARG002
        index: Mapping[bytes, int],  # noqa: ARG002
    ) -> list[int]:
        return []

    def find_pointers(self, undefined: Sequence[bytes]) -> dict[bytes, bytes]:  # noqa: ARG002
        return {}

    def synthetic(self, like: Unit, unit: Unit, pointers: Array) -> Unit:  # noqa: ARG002
        return replace(unit, native=Spec("", len(unit.atoms)))

    def section_keys(self, program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
        of_set = {
            int(a): f"set-{i}*whole"
            for i, s in enumerate(program.sets)
            for a in (*s.elements, s.start_atom, s.stop_atom)
        }
        names: dict[str, int] = {}
        out = []
        for atom in live.tolist():
            number = int(program.unit_of(np.array([atom]))[0])
            local = atom - int(program.atom_base[number])
            kind = of_set.get(atom) or program.units[number].native.kinds.get(local, "text")
            out.append(names.setdefault(kind, len(names)))
        made = tuple(SectionKey(n, n.endswith("*single"), n.endswith("*whole")) for n in names)
        return np.array(out, np.int32), made

    def section_limit(self, program: Program) -> int:  # noqa: ARG002
        return self.limit


def resolved(specs: Sequence[Spec], *roots: str) -> tuple[Program, Fake]:
    fake = Fake(specs)
    names = [r.encode() for r in roots]
    return resolve(fake.members(), fake.index(), names, fake), fake  # type: ignore[arg-type]


def owner(program: Program, name: str) -> tuple[str, int]:
    """(unit, atom within it) of the winner."""
    atom = int(program.symbols["atom"][program.globals[name.encode()]])
    if atom < 0:
        return "", atom
    number = int(program.unit_of(np.array([atom]))[0])
    return program.units[number].name, atom - int(program.atom_base[number])


# ---- resolve


def test_members_load_lazily_in_the_order_of_need() -> None:
    specs = [
        Spec("unused.o", symbols=[("z", STRONG, 0)]),
        Spec("c.o", symbols=[("c", STRONG, 0)]),
        Spec("b.o", symbols=[("b", STRONG, 0), ("c", STRONG, UNDEF)]),
        Spec("a.o", symbols=[("a", STRONG, 0), ("b", STRONG, UNDEF), ("d", STRONG, UNDEF)]),
        Spec("d.o", symbols=[("d", STRONG, 0), ("outside", STRONG, UNDEF)]),
    ]
    program, fake = resolved(specs, "a")
    assert fake.read_order == ["a.o", "b.o", "d.o", "c.o"]
    assert owner(program, "c") == ("c.o", 0)
    assert owner(program, "outside") == ("", UNDEF)


def test_a_weak_reference_loads_nothing_but_binds() -> None:
    user = Spec("a.o", symbols=[("a", STRONG, 0), ("w", WEAK, UNDEF)])
    program, fake = resolved([user, Spec("w.o", symbols=[("w", STRONG, 0)])], "a")
    assert fake.read_order == ["a.o"] and owner(program, "w") == ("", UNDEF)
    both = Spec("w.o", symbols=[("w", STRONG, 0), ("other", STRONG, 0)])
    user = Spec("a.o", symbols=[("a", STRONG, 0), ("w", WEAK, UNDEF), ("other", STRONG, UNDEF)])
    program, fake = resolved([user, both], "a")
    assert owner(program, "w") == ("w.o", 0)
    # and a later strong reference to the same name loads it
    more = Spec("more.o", symbols=[("more", STRONG, 0), ("w", STRONG, UNDEF)])
    user = Spec("a.o", symbols=[("a", STRONG, 0), ("w", WEAK, UNDEF), ("more", STRONG, UNDEF)])
    program, fake = resolved([user, more, Spec("w.o", symbols=[("w", STRONG, 0)])], "a")
    assert fake.read_order == ["a.o", "more.o", "w.o"]


@pytest.mark.parametrize("first", ["weak", "strong", "common", "unique"])
@pytest.mark.parametrize("second", ["weak", "strong", "common", "unique"])
def test_definitions_compete(first: str, second: str) -> None:
    """GNU ld, linker.c, the table of `_bfd_generic_link_add_one_symbol`."""

    def spec(name: str, kind: str, needs: list[tuple[str, int, int]]) -> Spec:
        binding = {"weak": WEAK, "unique": UNIQUE}.get(kind, STRONG)
        place = COMMON if kind == "common" else 1
        symbols = [(name[0], STRONG, 0), ("x", binding, place), *needs]
        sizes = {"x": (8, 4) if name == "a.o" else (4, 16)}
        return Spec(name, atoms=2, symbols=symbols, commons=sizes)

    specs = [spec("a.o", first, [("b", STRONG, UNDEF)]), spec("b.o", second, [])]
    rank = {"weak": 0, "unique": 0, "common": 1, "strong": 2}
    if first == second == "strong":
        with pytest.raises(LinkError, match=r"`x`.*a\.o.*b\.o"):
            resolved(specs, "a")
        return
    program, _ = resolved(specs, "a")
    name, atom = owner(program, "x")
    if max(rank[first], rank[second]) == 1:
        assert name == ""  # the synthetic unit
        made = program.atoms[program.symbols["atom"][program.globals[b"x"]]]
        both = first == second
        expected = (8, 16) if both else ((8, 4) if first == "common" else (4, 16))
        assert (made["size"], made["align"]) == expected
    else:
        assert (name, atom) == ("b.o" if rank[second] > rank[first] else "a.o", 1)
    # every mention of the name means the winner
    winner = program.globals[b"x"]
    base = program.symbol_base
    for number in (0, 1):
        unit = program.units[number]
        row = int(base[number]) + unit.first_global + list(unit.names).index(b"x")
        assert program.definition[row] == winner


def test_the_first_group_of_a_signature_wins_whole() -> None:
    specs = [
        Spec(
            "a.o",
            atoms=3,
            symbols=[("a", STRONG, 0), ("f", WEAK, 1), ("b", STRONG, UNDEF)],
            groups=[("f", (1, 2))],
            references=[(0, "f", Reach.FORWARD)],
        ),
        Spec(
            "b.o",
            atoms=3,
            symbols=[("b", STRONG, 0), ("f", WEAK, 1), ("only_here", STRONG, 2)],
            groups=[("f", (1, 2))],
            references=[(0, "f", Reach.FORWARD), (0, 2, Reach.FORWARD)],
        ),
    ]
    program, _ = resolved(specs, "a")
    assert owner(program, "f") == ("a.o", 1)
    # a name that only the loser defines is not there: who refers to it refers to nothing
    assert program.discarded[program.symbols["atom"][program.globals[b"only_here"]]]
    assert np.flatnonzero(program.discarded).tolist() == [4, 5]
    live = mark(build_graph(program), np.array([0, 3]), len(program.atoms))
    # the members of a group live together; nothing of the loser does
    assert np.flatnonzero(live).tolist() == [0, 1, 2, 3]


def test_missing_roots_are_all_named() -> None:
    specs = [Spec("a.o", symbols=[("a", STRONG, 0), ("ref", STRONG, UNDEF)])]
    with pytest.raises(LinkError) as caught:
        resolved(specs, "a", "ref", "nowhere")
    assert "`ref`" in str(caught.value) and "`nowhere`" in str(caught.value)
    assert "`a`" not in str(caught.value)


@pytest.mark.parametrize(
    "index",
    [
        Entries([], []),
        Entries([b"a"], [0]),  # nothing of the second member
        Entries([b"a", b"b", b"c"], [0, 0, 1]),  # one in a member that has it not
        None,
    ],
)
def test_a_wrong_index_is_not_followed(index: Entries | None) -> None:
    fake = Fake(
        [
            Spec("a.o", symbols=[("a", STRONG, 0), ("b", STRONG, UNDEF)]),
            Spec("b.o", symbols=[("b", STRONG, 0), ("c", STRONG, 0)]),
        ]
    )
    program = resolve(fake.members(), index, [b"a"], fake)  # type: ignore[arg-type]
    assert owner(program, "b") == ("b.o", 0)
    with pytest.raises(LinkError, match="ghost"):
        resolve(fake.members(), index, [b"a", b"ghost"], fake)  # type: ignore[arg-type]


def test_names_of_members_that_are_left_out_stay_undefined() -> None:
    fake = Fake(
        [
            Spec("a.o", symbols=[("a", STRONG, 0), ("libc", STRONG, UNDEF)]),
            Spec("libc.lo", symbols=[("libc", STRONG, 0)]),
        ]
    )
    members = {0: fake.members()[0]}
    program = resolve(members, fake.index(), [b"a"], fake)  # type: ignore[arg-type]
    assert owner(program, "libc") == ("", UNDEF)


def test_whoever_needs_an_end_of_a_set_needs_its_elements() -> None:
    specs = [
        Spec(
            "a.o",
            atoms=3,
            symbols=[("a", STRONG, 0), ("__stop_s", STRONG, UNDEF), ("b", STRONG, UNDEF)],
            references=[(0, "__stop_s", Reach.FORWARD)],
            sets={"s": (1,)},
        ),
        Spec("b.o", atoms=3, symbols=[("b", STRONG, 0)], sets={"s": (1, 2)}, edges=[(2, 0)]),
    ]
    program, _ = resolved(specs, "a")
    live = mark(build_graph(program), np.array([0]), len(program.atoms))
    (elements,) = program.sets
    assert elements.elements.tolist() == [1, 4, 5]
    # the element 5 needs atom 3 in turn, atom 2 is no element; the start is referred to by no one
    assert np.flatnonzero(live[:6]).tolist() == [0, 1, 3, 4, 5]
    assert live[elements.stop_atom]


# ---- reach

graphs = st.integers(1, 24).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(
            st.tuples(
                st.integers(0, count - 1), st.integers(0, count - 1), st.sampled_from(range(3))
            ),
            max_size=60,
        ),
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=10),
        st.sets(st.integers(0, count - 1), max_size=4),  # atoms that are roots of themselves
        st.lists(st.integers(0, count - 1), min_size=1, max_size=70),  # exports
        st.sets(st.integers(0, count - 1), max_size=3),  # members of a losing group
    )
)
Drawn = tuple[int, list[tuple[int, int, int]], list[tuple[int, int]], set[int], list[int], set[int]]


def program_of(drawn: Drawn) -> Program:
    count, references, edges, roots, exports, lost = drawn
    group = [("g", (count,))]
    winner = Spec("w.o", atoms=1, symbols=[("w", STRONG, 0)], groups=[("g", (0,))])
    spec = Spec(
        "a.o",
        atoms=count + 1,
        flags=dict.fromkeys(roots, int(AtomFlag.ROOT)),
        symbols=[(f"e{a}", STRONG, a) for a in sorted(set(exports))],
        references=[(a, b, Reach(r)) for a, b, r in references],
        edges=edges,
        groups=[("g", (*sorted(lost), count))] if lost else group,
    )
    names = [f"e{a}" for a in dict.fromkeys(exports) if a not in lost]
    # the winner comes first, behind it the object under test: its atoms start at 1
    return resolved([winner, spec], "w", *names)[0]


def brute_force(drawn: Drawn, roots: set[int]) -> set[int]:
    """What can be reached, one step after the other; numbers of the object under test."""
    _, references, edges, _, _, lost = drawn
    live = {r for r in roots if r not in lost}
    while True:
        more = set(live)
        for a, b, reach in references:
            if reach == Reach.FORWARD and a in live:
                more.add(b)
            if reach == Reach.REVERSE and b in live:
                more.add(a)
        more |= {b for a, b in edges if a in live}
        more -= lost
        if more == live:
            return live
        live = more


@settings(max_examples=150)
@given(graphs)
def test_mark_reaches_what_brute_force_reaches(drawn: Drawn) -> None:
    _, _, _, roots, exports, lost = drawn
    if not set(exports) - lost:
        return
    program = program_of(drawn)
    always = always_live(program)
    assert {a - 1 for a in always.tolist()} == roots - lost
    starts = np.array([1 + a for a in exports if a not in lost], np.int64)
    live = mark(build_graph(program), np.concatenate([starts, always]), len(program.atoms))
    assert {a - 1 for a in np.flatnonzero(live).tolist()} == brute_force(
        drawn, set(exports) | roots
    )


@settings(max_examples=300)
@given(graphs, st.sampled_from((1, 3, 64, 65, 1024)))
def test_classes_are_the_sets_of_exports_that_reach_an_atom(drawn: Drawn, at_once: int) -> None:
    """However many exports are looked at together."""
    _, _, _, roots, exports, lost = drawn
    exports = [e for e in exports if e not in lost]
    if not exports:
        return
    program = program_of(drawn)
    graph, always = build_graph(program), always_live(program)
    starts = np.array([1 + a for a in exports], np.int64)
    live = mark(graph, np.concatenate([starts, always]), len(program.atoms))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reach_module, "_AT_ONCE", at_once)
        numbers = classes(program, graph, live, starts, always)

    permanent = brute_force(drawn, roots)
    reach = [brute_force(drawn, {e}) for e in exports]
    expected: dict[int, object] = {}
    for atom in brute_force(drawn, set(exports) | roots):
        by = tuple(i for i, r in enumerate(reach) if atom in r)
        expected[atom] = "always" if atom in permanent else by
    assert {a - 1 for a in np.flatnonzero(numbers >= 0).tolist()} == set(expected)
    pairs = {(int(numbers[1 + atom]), key) for atom, key in expected.items()}
    assert len(pairs) == len({n for n, _ in pairs}) == len({k for _, k in pairs})
    used = sorted({n for n, _ in pairs})
    assert used == list(range(len(used)))


def test_classes_of_seventy_thousand_exports() -> None:
    """A private function for each, one for every ten, and one for all."""
    count = 70_000
    exports = np.arange(count)
    private, shared, common = exports + count, 2 * count + exports // 10, 2 * count + count // 10
    source = np.concatenate([exports, exports, exports])
    target = np.concatenate([private, shared, np.full(count, common)])
    total = common + 1
    graph = reach_module.graph_of(source, target.astype(np.int32), total)
    program = program_of((1, [], [], set(), [0], set()))  # for its sets: it has none
    tracemalloc.start()
    try:
        none = np.zeros(0, np.int32)
        numbers = classes(program, graph, np.ones(total, np.bool_), exports, none)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (numbers[private] == numbers[exports]).all()
    assert len(set(numbers.tolist())) == count + count // 10 + 1
    assert set(numbers[exports].tolist()) == set(range(count))
    # a bit for every export in every atom would be 1.3 GB
    assert peak < 150 << 20


# ---- layout

KINDS = ("text", "data", "lone*single", "init*whole")
layouts = st.lists(
    st.tuples(
        st.integers(0, 100),  # size
        st.sampled_from((1, 2, 4, 8, 64)),  # alignment
        st.sampled_from(KINDS),
        st.integers(0, 2),  # class
        st.integers(0, 4).map(bool),  # live
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=200)
@given(layouts, st.sampled_from(list(Granularity)), st.sampled_from((16, 150, 1 << 62)))
def test_layout(
    atoms: list[tuple[int, int, str, int, bool]], granularity: Granularity, limit: int
) -> None:
    spec = Spec(
        "a.o",
        atoms=len(atoms),
        sizes=[(s, a) for s, a, _, _, _ in atoms],
        symbols=[("a", STRONG, 0)],
        kinds={i: a[2] for i, a in enumerate(atoms)},
    )
    program, _ = resolved([spec], "a")
    fake = Fake([spec], limit)
    live = np.array([a[4] for a in atoms], np.bool_)
    numbers = np.array([a[3] if a[4] else -1 for a in atoms], np.int32)
    done = lay_out(program, fake, live, numbers, granularity)  # type: ignore[arg-type]

    seen: list[int] = []
    for number, section in enumerate(done.sections):
        inside = section.atoms.tolist()
        seen += inside
        kinds = {atoms[a][2] for a in inside}
        assert kinds == {done.section_keys[section.section_key].descriptor}
        (kind,) = kinds
        end = 0
        for a in inside:
            size, align = atoms[a][:2]
            offset = int(done.offset[a])
            assert done.section[a] == number
            assert offset % align == 0 and section.align % align == 0
            assert end <= offset < end + align, "overlap, or more padding than alignment asks for"
            end = offset + size
        assert section.size == end
        assert section.align == max(atoms[a][1] for a in inside)
        assert inside == sorted(inside), "the order of the input"
        assert end <= limit or len(inside) == 1 or kind == "init*whole"
        if kind == "lone*single" or (granularity is Granularity.SECTION and kind != "init*whole"):
            assert len(inside) == 1
        if granularity is Granularity.CLASS and kind != "init*whole":
            assert len({atoms[a][3] for a in inside}) == 1
    assert sorted(seen) == np.flatnonzero(live).tolist()
    assert (done.section[~live] == -1).all()
    wholes = [s for s in done.sections if done.section_keys[s.section_key].whole]
    assert len(wholes) == len({s.section_key for s in wholes})
    if limit == 1 << 62:
        # no more sections than asked for
        keys = set()
        for i, (_, _, kind, class_, alive) in enumerate(atoms):
            part: object = class_ if granularity is Granularity.CLASS else 0
            if kind == "lone*single" or granularity is Granularity.SECTION:
                part = i
            if alive:
                keys.add((kind, 0 if kind == "init*whole" else part))
        assert len(done.sections) == len(keys)


@pytest.mark.parametrize("granularity", list(Granularity))
def test_the_ends_of_a_set_are_around_its_elements(granularity: Granularity) -> None:
    specs = [
        Spec(
            "a.o",
            atoms=2,
            sizes=[(4, 4), (8, 8)],
            symbols=[
                ("a", STRONG, 0),
                ("__start_s", STRONG, UNDEF),
                ("__stop_s", STRONG, UNDEF),
                ("b", STRONG, UNDEF),
            ],
            references=[(0, "__start_s", Reach.FORWARD), (0, "__stop_s", Reach.FORWARD)],
            sets={"s": (1,)},
        ),
        Spec("b.o", atoms=2, sizes=[(4, 4), (12, 4)], symbols=[("b", STRONG, 0)], sets={"s": (1,)}),
    ]
    program, fake = resolved(specs, "a")
    live = mark(build_graph(program), np.array([0]), len(program.atoms))
    numbers = np.where(live, 0, -1).astype(np.int32)
    done = lay_out(program, fake, live, numbers, granularity)  # type: ignore[arg-type]
    (elements,) = program.sets
    inside = [elements.start_atom, 1, 3, elements.stop_atom]
    (section,) = {int(done.section[a]) for a in inside}
    assert done.sections[section].atoms.tolist() == inside
    assert [int(done.offset[a]) for a in inside] == [0, 0, 8, 20]
