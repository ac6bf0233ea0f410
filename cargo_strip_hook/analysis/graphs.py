"""Walks over who needs whom: shortest chains, what depends on a node alone."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.link.model import Array, Bool, Int64
from cargo_strip_hook.link.reach import Graph, mark


def make_graph(sources: Array, targets: Array, count: int) -> Graph:
    """The graph of `count` nodes with these edges, each once, targets in their order."""
    keys = np.sort(sources.astype(np.int64) * count + targets)
    if len(keys):
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(keys // max(count, 1), minlength=count), out=starts[1:])
    return Graph(starts, (keys % max(count, 1)).astype(np.int32))


def edges(graph: Graph) -> tuple[Int64, Int64]:
    """(source, target) of each edge."""
    nodes = np.arange(len(graph.starts) - 1)
    return np.repeat(nodes, np.diff(graph.starts)), graph.targets.astype(np.int64)


def turned(graph: Graph) -> Graph:
    """The graph with each edge the other way."""
    sources, targets = edges(graph)
    return make_graph(targets, sources, len(graph.starts) - 1)


def walk(graph: Graph, roots: Array) -> Int64:
    """For each node the one before it on a shortest way from any of `roots`.

    A root has itself, what cannot be reached has -1. Of several ways the one that comes first
    counts: roots in their order, then edges in theirs.
    """
    count = len(graph.starts) - 1
    before, place = np.full((2, count), -1, np.int64)
    frontier = roots.astype(np.int64)
    before[frontier] = frontier
    while len(frontier):
        position, found = graph.needed_by(frontier)
        new = before[found] < 0
        sources, found = frontier[position[new]], found[new].astype(np.int64)
        # written backwards, so that of several the first one is what stays
        before[found[::-1]] = sources[::-1]
        place[found[::-1]] = np.arange(len(found))[::-1]
        frontier = found[place[found] == np.arange(len(found))]
    return before


def reached(graph: Graph, roots: Array, avoid: Array | None = None) -> Bool:
    """bool for each node: whether a way from `roots` leads there that does not pass `avoid`."""
    return mark(graph, roots, len(graph.starts) - 1, avoid)


def chain(before: Int64, node: int) -> list[int]:
    """The way that `walk` found to a node, which must have one, from its root on."""
    found = [node]
    while int(before[found[-1]]) != found[-1]:
        found.append(int(before[found[-1]]))
    return found[::-1]


def immediate_dominators(graph: Graph, roots: Array) -> Int64:
    """For each node the nearest one that every way from `roots` to it passes.

    It is `count`, one more than the last node, where only the roots taken together are passed, and
    -1 for what cannot be reached.

    Source: Georgiadis, "Linear-Time Algorithms for Dominators and Related Problems" (2005),
    section 2.2 (semi-NCA): semidominators as Lengauer and Tarjan have them, then the nearest
    common ancestor in the tree so far.
    """
    count = len(graph.starts) - 1
    starts, targets = graph.starts.tolist(), graph.targets.tolist()
    # depth first, from a node above all roots: `order` has nodes by number, `number` the reverse
    order, parent, number = [count], [0], [-1] * (count + 1)
    number[count] = 0
    stack = [(n, 0) for n in reversed(roots.tolist())]
    while stack:
        node, above = stack.pop()
        if number[node] >= 0:
            continue
        mine = number[node] = len(order)
        order.append(node)
        parent.append(above)
        stack += [(t, mine) for t in targets[starts[node] : starts[node + 1]] if number[t] < 0]
    total = len(order)
    into: list[list[int]] = [[] for _ in range(total)]
    for mine in range(1, total):
        node = order[mine]
        for target in targets[starts[node] : starts[node + 1]]:
            into[number[target]].append(mine)
    for root in set(roots.tolist()):
        into[number[root]].append(0)

    semi, label, ancestor = list(range(total)), list(range(total)), [-1] * total
    for mine in range(total - 1, 0, -1):
        best = mine
        for source in into[mine]:
            # the smallest semidominator on the way from `source` up to what is not linked yet
            at, path = source, []
            while ancestor[at] >= 0 and ancestor[ancestor[at]] >= 0:
                path.append(at)
                at = ancestor[at]
            for below in reversed(path):
                up = ancestor[below]
                if semi[label[up]] < semi[label[below]]:
                    label[below] = label[up]
                ancestor[below] = ancestor[up]
            best = min(best, semi[label[source]] if ancestor[source] >= 0 else source)
        semi[mine] = best
        ancestor[mine] = parent[mine]
    dominator = parent
    for mine in range(1, total):
        at = dominator[mine]
        while at > semi[mine]:
            at = dominator[at]
        dominator[mine] = at
    found = np.full(count, -1, np.int64)
    nodes = np.array(order, np.int64)
    found[nodes[1:]] = nodes[np.array(dominator[1:], np.int64)]
    return found


def retained(dominators: Int64, sizes: Int64) -> Int64:
    """The size of each node and all that it dominates, that of everything reached behind them.

    `sizes` counts what is reached; of what is not nothing is retained.
    """
    count = len(dominators)
    total = np.zeros(count + 1, np.int64)
    live = np.flatnonzero(dominators >= 0)
    total[live] = sizes[live]
    for level in reversed(_levels(dominators, live)):
        np.add.at(total, dominators[level], total[level])
    return total


def _levels(dominators: Int64, live: Int64) -> list[Int64]:
    """The nodes of the tree by how deep they are, the root's own children first."""
    depth = np.full(len(dominators) + 1, -1, np.int64)
    depth[-1] = 0
    left = live
    found: list[Int64] = []
    while len(left):
        known = depth[dominators[left]] >= 0
        level = left[known]
        depth[level] = len(found) + 1
        found.append(level)
        left = left[~known]
    return found
