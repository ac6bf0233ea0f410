"""Graphs of what needs what: shortest chains, and what depends on one node alone."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.link.model import Array, Bool, Int64
from cargo_strip_hook.link.reach import Graph, mark


def make_graph(sources: Array, targets: Array, count: int) -> Graph:
    """The graph of `count` nodes with these edges, without repetitions, by source and target."""
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
    """For each node, the one before it on a shortest path from any of `roots`.

    A root has itself, a node that cannot be reached has -1. Of several paths the first counts, in
    the order of the roots, then in that of the edges.
    """
    count = len(graph.starts) - 1
    before, last_writer = np.full((2, count), -1, np.int64)
    frontier = roots.astype(np.int64)
    before[frontier] = frontier
    while len(frontier):
        position, nodes = graph.needed_by(frontier)
        new = before[nodes] < 0
        sources, nodes = frontier[position[new]], nodes[new].astype(np.int64)
        # written backwards, so that the first of several is the one that stays
        before[nodes[::-1]] = sources[::-1]
        last_writer[nodes[::-1]] = np.arange(len(nodes))[::-1]
        frontier = nodes[last_writer[nodes] == np.arange(len(nodes))]
    return before


def reached(graph: Graph, roots: Array, avoid: Array | None = None) -> Bool:
    """bool for each node: whether a path from `roots` leads there that passes none of `avoid`."""
    return mark(graph, roots, len(graph.starts) - 1, avoid)


def chain(before: Int64, node: int) -> list[int]:
    """The path that `walk` found to a node, from its root on. The node must be reachable."""
    path = [node]
    while int(before[path[-1]]) != path[-1]:
        path.append(int(before[path[-1]]))
    return path[::-1]


def immediate_dominators(graph: Graph, roots: Array) -> Int64:
    """For each node, the nearest one that every path from `roots` to it passes.

    It is `count`, one more than the last node, where no single node is on every path, and -1 for
    a node that cannot be reached.

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
            current, path = source, []
            while ancestor[current] >= 0 and ancestor[ancestor[current]] >= 0:
                path.append(current)
                current = ancestor[current]
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
        current = dominator[mine]
        while current > semi[mine]:
            current = dominator[current]
        dominator[mine] = current
    nearest = np.full(count, -1, np.int64)
    nodes = np.array(order, np.int64)
    nearest[nodes[1:]] = nodes[np.array(dominator[1:], np.int64)]
    return nearest


def retained(dominators: Int64, sizes: Int64) -> Int64:
    """The size of each node with all that it dominates; last, that of everything reached.

    A node that is not reached retains nothing. `sizes` has one entry for each node.
    """
    count = len(dominators)
    total = np.zeros(count + 1, np.int64)
    live = np.flatnonzero(dominators >= 0)
    total[live] = sizes[live]
    for level in reversed(_levels(dominators, live)):
        np.add.at(total, dominators[level], total[level])
    return total


def _levels(dominators: Int64, live: Int64) -> list[Int64]:
    """The nodes of the tree by their depth, the children of the root first."""
    depth = np.full(len(dominators) + 1, -1, np.int64)
    depth[-1] = 0
    left = live
    levels: list[Int64] = []
    while len(left):
        known = depth[dominators[left]] >= 0
        level = left[known]
        depth[level] = len(levels) + 1
        levels.append(level)
        left = left[~known]
    return levels
