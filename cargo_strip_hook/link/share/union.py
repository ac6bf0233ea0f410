"""Several resolved libraries under one numbering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.link.arrays import begins, join
from cargo_strip_hook.link.model import Array, AtomFlag, Int64, LinkerSet, Program
from cargo_strip_hook.link.numbering import numbered_through
from cargo_strip_hook.link.share.model import Described, Joined, Library, Sharing


def join_libraries(libraries: Sequence[Library], sharing: Sharing) -> Joined:
    """All of at least one library's atoms and symbols, numbered through."""
    programs = [one.program for one in libraries]
    atom_base = begins(np.array([len(p.atoms) for p in programs]))
    symbol_base = begins(np.array([len(p.symbols) for p in programs]))
    # what is never loaded with a program is nobody's but its library's
    live = np.concatenate(
        [one.live & (one.program.atoms["flags"] & AtomFlag.ASIDE == 0) for one in libraries]
    )
    parts = [sharing.describe(one.program, one.live) for one in libraries]
    return Joined(
        libraries,
        _program(programs, atom_base, symbol_base),
        np.repeat(np.arange(len(programs), dtype=np.int32), np.diff(atom_base)),
        atom_base,
        symbol_base,
        live,
        _described(parts, atom_base),
    )


def _program(programs: Sequence[Program], atom_base: Int64, symbol_base: Int64) -> Program:
    bases = list(zip(programs, atom_base.tolist(), symbol_base.tolist(), strict=False))
    symbols, relocations, edges = numbered_through(
        atom_base,
        symbol_base,
        [p.symbols for p in programs],
        [p.relocations for p in programs],
        [p.edges for p in programs],
    )
    prevailing = [
        p.prevailing if len(p.prevailing) else np.full(len(p.atoms), -1, np.int32) for p in programs
    ]
    return Program(
        tuple(unit for p in programs for unit in p.units),
        np.concatenate([*(p.atom_base[:-1] + a for p, a, _ in bases), atom_base[-1:]]),
        np.concatenate([*(p.symbol_base[:-1] + s for p, _, s in bases), symbol_base[-1:]]),
        join([p.atoms for p in programs]),
        symbols,
        relocations,
        edges,
        np.concatenate([p.definition + np.int32(s) for p, _, s in bases]),
        np.concatenate([p.discarded for p in programs]),
        {},
        tuple(_moved(one, a) for p, a, _ in bases for one in p.sets),
        frozenset(row + s for p, _, s in bases for row in p.exported),
        programs[0].granularity,
        np.concatenate(
            [_shift(t, a) for t, a in zip(prevailing, atom_base.tolist(), strict=False)]
        ),
    )


def _moved(one: LinkerSet, base: int) -> LinkerSet:
    return replace(
        one,
        elements=one.elements + np.int32(base),
        start_atom=one.start_atom + base,
        stop_atom=one.stop_atom + base,
    )


def _shift(numbers: Array, base: int) -> Array:
    return np.where(numbers >= 0, numbers + np.int32(base), numbers).astype(np.int32)


def _described(parts: Sequence[Described], atom_base: Int64) -> Described:
    links = [part.links.copy() for part in parts]
    for pairs, base in zip(links, atom_base.tolist(), strict=False):
        pairs["source"] += np.int32(base)
        pairs["target"] += np.int32(base)
    return Described(
        np.concatenate([p.contents for p in parts]),
        np.concatenate([p.sort for p in parts]),
        np.concatenate([p.pinned for p in parts]),
        np.concatenate([p.copied for p in parts]),
        np.concatenate([p.folded for p in parts]),
        join(links),
    )


__all__ = ["join_libraries"]
