"""What an architecture asks of us: one table for each, found by `e_machine`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property, lru_cache
from importlib import import_module

import numpy as np
import numpy.typing as npt

from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array, Bool

TYPES = 4096  # relocation types that relocatable objects have are below


class Relaxation(IntEnum):
    """A load through the GOT that can address its target directly."""

    NONE = 0
    X86_64_GOT = 1


@dataclass(frozen=True)
class Machine:
    """One architecture. What is not said is assumed to be forbidden.

    `direct`: relocation types for which a local symbol and section + addend mean the same.
    `relative`: types whose value is symbol + addend - place, and how it is stored; only for those
    that no linker treats specially. `absolute`: width in bytes of the plain addresses that debug
    information is made of. `addressing`: further types that address symbol + addend, wherever the
    field stands: that sum alone says which element of a merged section is meant.
    """

    number: int
    name: str
    order: str = "<"  # byte order that `relative` is meant for
    direct: frozenset[int] = frozenset()
    relative: Mapping[int, Field] = field(default_factory=dict)
    absolute: Mapping[int, int] = field(default_factory=dict)
    addressing: frozenset[int] = frozenset()
    relaxations: Mapping[int, Relaxation] = field(default_factory=dict)
    pc32: int = 0
    padding: bytes = b"\0"  # what stands between functions: traps where there is a short one
    mapping: bytes = b""  # letters of the `$x` symbols that tell code from data and must stay
    branch_limit: int | None = None  # bytes of a section that thunks can still be put around
    and_property: int | None = None  # the GNU property that is the AND of all inputs
    or_properties: range = range(0)  # those that are the OR of all inputs
    or_and_properties: range = range(0)  # the OR, where all inputs have one
    # relocations have no addend of their own: where it stands, for the types that we may change
    rel: bool = False
    implicit: Mapping[int, Field] = field(default_factory=dict)
    words: frozenset[int] = frozenset()  # other types whose addend would fill four bytes
    # linkers delete bytes of code: distances in it are theirs to compute, and an alignment above
    # this does not survive what is deleted before it in the same section
    code_align: int | None = None
    entry_bits: int = 0  # of st_other: a branch does not go where the symbol points
    thumb: bool = False  # bit 0 of a function's address is the instruction set
    keeps_none: bool = False  # R_*_NONE asks for a symbol of a library
    strings: bool = True  # whether relocations into SHF_MERGE sections can follow a move
    index_type: int = 0  # section type of an unwind index in the order of the code
    attributes: int = 0  # section type of build attributes
    joined_flags: int = 0  # bits of e_flags that are set if an input sets them
    optional_flags: int = 0  # bits of e_flags where 0 says nothing
    refused_flags: int = 0  # bits of e_flags of an ABI that we do not know
    refused_section: bytes = b""  # the name of a section of such an ABI, where flags are silent

    # What follows are tables by relocation type, for `of_types`.

    @cached_property
    def direct_types(self) -> Bool:
        """Whether a relocation type is in `direct`: bool."""
        return np.asarray(_table((number, 1) for number in self.direct) != 0)

    @cached_property
    def relative_types(self) -> npt.NDArray[np.uint8]:
        """uint8 of `Field`."""
        return _table(self.relative.items())

    @cached_property
    def implicit_types(self) -> npt.NDArray[np.uint8]:
        """uint8 of `Field`."""
        return _table(self.implicit.items())

    @cached_property
    def stored_types(self) -> npt.NDArray[np.uint8]:
        """uint8 of `Field`: where an addend goes that the input keeps beside the contents."""
        return _table([*self.implicit.items(), *((number, Field.BITS32) for number in self.words)])

    @cached_property
    def absolute_types(self) -> npt.NDArray[np.uint8]:
        """uint8 of bytes."""
        return _table(self.absolute.items())

    @cached_property
    def addressing_types(self) -> Bool:
        """Whether a relocation type is in `absolute` or `addressing`: bool."""
        table: Bool = self.absolute_types != 0
        table[sorted(self.addressing)] = True
        return table

    @cached_property
    def relaxation_types(self) -> npt.NDArray[np.uint8]:
        """uint8 of `Relaxation`."""
        return _table(self.relaxations.items())


def of_types(table: Array, types: Array) -> Array:
    """What one of a machine's tables says of each relocation type: 0 of those it cannot have."""
    return np.asarray(table[np.minimum(types, TYPES)])


def _table(entries: Iterable[tuple[int, int]]) -> npt.NDArray[np.uint8]:
    table = np.zeros(TYPES + 1, np.uint8)
    for number, what in entries:
        table[number] = what
    return table


# e_machine -> the table's module. Source: gABI, "e_machine".
_MODULES = {
    3: "i386",
    21: "ppc64",
    22: "s390",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
_MIPS = 8


@lru_cache(maxsize=16)
def machine(number: int, bits: int, order: str) -> Machine | None:
    """The table for an `e_machine` value, class and byte order; None where we can do nothing.

    For an architecture without a table nothing is resolved and every symbol stays that a
    relocation names: that is right wherever relocations have addends (RELA).
    """
    if number == _MIPS and bits == 64:
        return None  # r_info is laid out in another way: MIPS64 ELF Object File, section 2.9.1
    module = _MODULES.get(number)
    if module is None:
        # code is not merged, since linkers may delete bytes
        return Machine(number, f"machine {number}", order, code_align=0)
    table: Machine = import_module(f"cargo_strip_hook.formats.elf.machines.{module}").MACHINE
    if order != table.order:
        table = replace(table, order=order, relative={}, relaxations={})
    return table
