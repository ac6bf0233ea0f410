"""What may be one section: pieces that a consumer's linker would keep or drop together anyway.

A linker drops what nothing needs. Pieces of the original that are one section of the result, or one
subsection, live and die together there; nothing is kept for that only where the same exports need
each of them in the original, or where all of them live always. So it is found out here which
exports need which piece, by what each piece refers to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, unique

_AT_ONCE = 512  # exports whose needs are followed together: memory is a bit for each and piece


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """Who needs whom among `count` pieces: `source[i]` needs `target[i]`; -1 of either is none.

    `exports` are the pieces that exports are in, `always` those that live in every program.
    """

    count: int
    source: Array
    target: Array
    exports: Array
    always: Array


def told_apart(homes: Array, needs: Needs) -> Array:
    """The pieces that are in one home with a piece that other exports need, by their numbers.

    `homes`: int64 for each piece, the section of the result; -1 for one that may be with any other.
    """
    first = _first_of_home(homes)
    shared = np.flatnonzero(first >= 0)
    wrong = np.zeros(len(homes), np.bool_)
    if not len(shared):
        return shared
    known = (needs.source >= 0) & (needs.target >= 0) & (needs.source != needs.target)
    graph = _Graph(needs.count, needs.source[known], needs.target[known])
    always = graph.reached_from(unique(needs.always))
    wrong[shared] = always[shared] != always[first[shared]]
    graph = graph.without(always)
    exports = unique(needs.exports[needs.exports >= 0])
    exports = exports[~always[exports]]
    for begin in range(0, len(exports), _AT_ONCE):
        needed = graph.needed_by(exports[begin : begin + _AT_ONCE])
        wrong[shared] |= (needed[shared] != needed[first[shared]]).any(axis=1)
    return np.flatnonzero(wrong)


def of_several(homes: Array, origins: Array) -> Array:
    """The pieces that are in one home with a piece of another origin, by their numbers.

    `homes` as above; `origins`: int64 for each piece, what it was a part of in the original.
    """
    first = _first_of_home(homes)
    shared = np.flatnonzero(first >= 0)
    return np.asarray(shared[origins[shared] != origins[first[shared]]])


def _first_of_home(homes: Array) -> Array:
    """For each piece the first one in its home; -1 for the first itself, and where it is alone."""
    first = np.full(len(homes), -1, np.int64)
    rows = np.flatnonzero(homes >= 0)
    rows = rows[np.argsort(homes[rows], kind="stable")]
    if not len(rows):
        return first
    begins = np.append(True, homes[rows][1:] != homes[rows][:-1])
    leader = rows[begins][np.cumsum(begins) - 1]
    first[rows[~begins]] = leader[~begins]
    return first


class _Graph:
    """The needs of all pieces, one piece's behind the other's."""

    def __init__(self, count: int, source: Array, target: Array) -> None:
        self.count = count
        each = unique(source * count + target)
        self._source, self._target = np.divmod(each, count)
        if count <= 1 << 16:  # these are sorted by their digits
            self._target = self._target.astype(np.uint16)
        self._begin = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(self._source, minlength=count), out=self._begin[1:])

    def without(self, gone: Array) -> _Graph:
        """The same, but that nothing leads to what is `gone` (bool for each piece)."""
        if not gone.any():
            return self
        kept = ~gone[self._target]
        return _Graph(self.count, self._source[kept], self._target[kept])

    def _from(self, pieces: Array) -> tuple[Array, Array]:
        """(position in `pieces`, target) of what these need."""
        begin = self._begin[pieces]
        size = self._begin[pieces + 1] - begin
        position = np.repeat(np.arange(len(pieces)), size)
        skip = np.cumsum(size) - size
        return position, self._target[np.arange(len(position)) + (begin - skip)[position]]

    def reached_from(self, pieces: Array) -> Array:
        """bool for each piece: whether one of `pieces` needs it, or it is one of them."""
        reached = np.zeros(self.count, np.bool_)
        reached[pieces] = True
        while len(pieces):
            _, target = self._from(pieces)
            pieces = unique(target[~reached[target]])
            reached[pieces] = True
        return reached

    def needed_by(self, pieces: Array) -> Array:
        """uint64[count, words]: bit `i` of a row says whether `pieces[i]` needs that piece."""
        bits = np.zeros((self.count, -(-len(pieces) // 64)), np.uint64)
        number = np.arange(len(pieces))
        bits[pieces, number >> 6] = np.uint64(1) << (number & 63).astype(np.uint64)
        news = pieces
        while len(news):
            position, target = self._from(news)
            if not len(target):
                break
            order = np.argsort(target, kind="stable")
            target = target[order]
            begins = np.append(True, target[1:] != target[:-1])
            gained = bits[news][position[order]]
            gained = np.bitwise_or.reduceat(gained, np.flatnonzero(begins), axis=0)
            news = target[begins]
            gained |= bits[news]
            more = (gained != bits[news]).any(axis=1)
            news = news[more]
            bits[news] = gained[more]
        return bits


__all__ = ["Needs", "of_several", "told_apart"]
