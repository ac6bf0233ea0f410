"""Walks and dominators against networkx."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.analysis.graphs import (
    chain,
    immediate_dominators,
    make_graph,
    reached,
    retained,
    turned,
    walk,
)

NODES = st.integers(0, 11)
EDGES = st.lists(st.tuples(NODES, NODES), max_size=40)
ROOTS = st.lists(NODES, min_size=1, max_size=4)
COUNT, ABOVE = 12, 12  # `ABOVE` is a node before all roots


def both(edges: list[tuple[int, int]], roots: list[int]):  # type: ignore[no-untyped-def]
    """The graph as ours, and as networkx's."""
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    theirs = nx.DiGraph(edges)
    theirs.add_nodes_from(range(COUNT))
    theirs.add_edges_from((ABOVE, root) for root in roots)
    return make_graph(pairs[:, 0], pairs[:, 1], COUNT), theirs


@given(EDGES, ROOTS)
def test_shortest_ways(edges: list[tuple[int, int]], roots: list[int]) -> None:
    graph, theirs = both(edges, roots)
    before = walk(graph, np.array(roots))
    lengths = nx.single_source_shortest_path_length(theirs, ABOVE)
    assert {n for n in range(COUNT) if before[n] >= 0} == set(lengths) - {ABOVE}
    for node in set(lengths) - {ABOVE}:
        way = chain(before, node)
        assert len(way) == lengths[node]
        assert way[0] in roots
        assert all(theirs.has_edge(*pair) for pair in pairwise(way))
    back = reached(turned(graph), np.array(roots[:1]))
    assert set(np.flatnonzero(back)) == nx.ancestors(theirs, roots[0]) - {ABOVE} | {roots[0]}


@given(EDGES, ROOTS)
def test_dominators_and_what_they_retain(edges: list[tuple[int, int]], roots: list[int]) -> None:
    graph, theirs = both(edges, roots)
    found = immediate_dominators(graph, np.array(roots))
    expected = dict(nx.immediate_dominators(theirs, ABOVE))
    expected.pop(ABOVE, None)
    assert {n: int(found[n]) for n in range(COUNT) if found[n] >= 0} == expected
    sizes = np.arange(COUNT) ** 2 + 1
    kept = retained(found, sizes)
    live = set(expected)
    assert kept[COUNT] == sum(int(sizes[n]) for n in live)
    for node in range(COUNT):
        without = theirs.copy()
        without.remove_node(node)
        left = nx.descendants(without, ABOVE)
        gone = live - left
        assert kept[node] == sum(int(sizes[n]) for n in gone) * (node in live)
        # the same without the tree: what cannot be reached around it
        around = reached(graph, np.array(roots), np.array([node]))
        assert set(np.flatnonzero(around)) == left
