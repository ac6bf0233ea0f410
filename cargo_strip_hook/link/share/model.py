"""Values that pass between the phases of sharing, and what a format's room offers for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np

from cargo_strip_hook.link.model import Array, Bool, Input, Int32, Int64, Program


class Sort(IntEnum):
    """What an atom is, as far as it decides whether two are one."""

    CODE = 0
    CONSTANT = 1  # never written once a program runs
    STATE = 2  # writable data, zeros, thread-locals: has an identity besides its bytes
    RECORD = 3  # of unwind information; lives with its function
    INITIALISER = 4  # runs when a program begins or ends
    OTHER = 5


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """One library of a set: resolved, and reached from its own exports.

    `program.exported` are its public symbols. `live`: bool for each atom. `members` are all that
    its archive offers, loaded or not. `imports`: what comes with each name that an import member
    of it defines.
    """

    name: str
    program: Program
    live: Bool
    members: Mapping[int, Input]
    imports: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """What a format knows of a program's live atoms; by atom, without meaning for dead ones.

    `contents` (S16) is a digest of all but relocations: bytes (without what linkers fill in), kind
    of section, flags, alignment. `sort` is a `Sort`. `pinned` atoms stay in their library whatever
    they are. Of `copied` ones each object has its own, which nobody can tell apart: records that
    linkers merge, parts of them, short constants of sections that linkers merge. `folded`:
    equal ones in one library may be one as well. `links` (EDGE) bind two atoms to one another: an
    atom is shared only together with what it is linked to.
    """

    contents: Array
    sort: Array  # uint8
    pinned: Bool
    copied: Bool
    folded: Bool
    links: Array


@dataclass(frozen=True, slots=True)
class Costs:
    """About how many bytes of a file a format needs for what crosses between objects.

    `symbol` with its name, `reference` for a relocation, `member` for an object of the common
    library besides what it holds.
    """

    symbol: int
    reference: int
    member: int


class Sharing(Protocol):
    """What a format's room offers for sharing.

    `label`: the kind of a symbol that is a place. `joins`: objects of several libraries can be
    one, and be verified. `suffix`: what names that cross end with. `first_section`: what is added
    to `ATOM.section` for the number that a link map has.
    """

    label: int
    joins: bool = False
    suffix: bytes = b""
    first_section: int
    costs: Costs

    def describe(self, program: Program, live: Bool) -> Described:
        """See `Described`."""
        ...

    def names(self, program: Program, symbols: Array) -> list[bytes]:
        """The names of program-wide symbols; empty for those that have none."""
        ...

    def calls(self, program: Program, relocations: Array) -> Bool:
        """For some of the program's relocations, by number, whether each is surely of a call."""
        ...

    def speaking(self, program: Program) -> Int64:  # noqa: ARG002 - by default none does
        """The units that say something of the library even where nothing of them lives."""
        return np.zeros(0, np.int64)

    def kinds(self, program: Program, symbols: Array) -> Array:
        """The kind (as `SYMBOL.kind`) that a global symbol at the place of each symbol has."""
        kinds: Array = program.symbols["kind"][symbols].copy()
        return kinds


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Several libraries as one numbering: `program` has all units, one library's behind another's.

    Nothing is bound across libraries. `library` is the number of each atom's library; `atom_base`
    and `symbol_base` are the first of each library, and the total. `live` and `described` are by
    atom.
    """

    libraries: Sequence[Library]
    program: Program
    library: Int32
    atom_base: Int64
    symbol_base: Int64
    live: Bool
    described: Described


__all__ = ["Costs", "Described", "Joined", "Library", "Sharing", "Sort"]
