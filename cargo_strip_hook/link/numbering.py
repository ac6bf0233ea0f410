"""Tables of several units, or of several programs, under one numbering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.link.arrays import join
from cargo_strip_hook.link.model import Array, Int64


def numbered_through(
    atom_base: Int64,
    symbol_base: Int64,
    symbols: Sequence[Array],
    relocations: Sequence[Array],
    edges: Sequence[Array],
) -> tuple[Array, Array, Array]:
    """(SYMBOL, RELOCATION, EDGE rows of all, one behind the other, with their numbers moved).

    `atom_base` and `symbol_base`: the first atom and symbol of each of the tables, and the total.
    What is in no atom stays so.
    """
    first_atom, first_symbol = atom_base[:-1].astype(np.int32), symbol_base[:-1].astype(np.int32)
    all_symbols = join(symbols)
    inside = all_symbols["atom"] >= 0
    all_symbols["atom"][inside] += np.repeat(first_atom, np.diff(symbol_base))[inside]
    all_relocations = join(relocations)
    counts = [len(rows) for rows in relocations]
    all_relocations["atom"] += np.repeat(first_atom, counts)
    all_relocations["symbol"] += np.repeat(first_symbol, counts)
    all_edges = join(edges)
    of_edge = np.repeat(first_atom, [len(rows) for rows in edges])
    all_edges["source"] += of_edge
    all_edges["target"] += of_edge
    return all_symbols, all_relocations, all_edges


__all__ = ["numbered_through"]
