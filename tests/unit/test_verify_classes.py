"""Which pieces may be one section, against networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.verify.kit.classes import Needs, of_several, told_apart

COUNT = 9
PIECES = st.integers(-1, COUNT - 1)
NEEDED = st.lists(st.tuples(PIECES, PIECES), max_size=25)
HOMES = st.lists(st.integers(-1, 3), min_size=COUNT, max_size=COUNT)


def strangers(homes: list[int], told: list[object]) -> list[int]:
    """The pieces of which something else is told than of the first one in their home."""
    first = {home: piece for piece, home in reversed(list(enumerate(homes)))}
    return [n for n, home in enumerate(homes) if home >= 0 and told[n] != told[first[home]]]


@given(NEEDED, HOMES, st.lists(PIECES, max_size=4), st.lists(st.integers(0, COUNT - 1), max_size=2))
def test_one_home_for_what_the_same_exports_need(
    edges: list[tuple[int, int]], homes: list[int], exports: list[int], always: list[int]
) -> None:
    graph = nx.DiGraph([edge for edge in edges if min(edge) >= 0])
    graph.add_nodes_from(range(COUNT))
    needed = {n: nx.descendants(graph, n) | {n} for n in range(COUNT)}
    alive = set().union(*(needed[n] for n in always))
    told: list[object] = [
        None if n in alive else {e for e in exports if e >= 0 and n in needed[e]}
        for n in range(COUNT)
    ]
    table = np.array(edges, np.int64).reshape(-1, 2)
    numbers = (np.array(values, np.int64) for values in (exports, always))
    needs = Needs(COUNT, table[:, 0], table[:, 1], *numbers)
    found = told_apart(np.array(homes), needs).tolist()
    assert found == strangers(homes, told)


def test_more_exports_than_are_followed_together() -> None:
    count = 1200
    everyone = np.arange(count)
    for other in (0, 700, 1199):
        needs = Needs(count + 2, everyone, np.full(count, count), everyone, everyone[:0])
        homes = np.full(count + 2, -1)
        homes[count:] = 0
        source = np.append(needs.source, everyone[everyone != other])
        target = np.append(needs.target, np.full(count - 1, count + 1))
        assert told_apart(homes, Needs(count + 2, source, target, everyone, everyone[:0])).size == 1
        source, target = np.append(source, other), np.append(target, count + 1)
        assert told_apart(homes, Needs(count + 2, source, target, everyone, everyone[:0])).size == 0


@given(HOMES, st.lists(st.integers(0, 2), min_size=COUNT, max_size=COUNT))
def test_one_home_for_what_was_one(homes: list[int], origins: list[int]) -> None:
    found = of_several(np.array(homes), np.array(origins)).tolist()
    assert found == strangers(homes, list(origins))
