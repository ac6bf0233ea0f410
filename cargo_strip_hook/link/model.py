"""The common model: what the general phases know of an object file, whatever its format.

An *atom* is the smallest range of a file that lives or dies: an ELF or COFF section, a Mach-O
subsection, one record of unwind information. Symbols name places in atoms; relocations and
explicit edges say which atom needs which. Everything else of a format stays in `Unit.native`, which
only the format's own room reads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Statistics
from cargo_strip_hook.link.arrays import unique

if TYPE_CHECKING:
    from cargo_strip_hook.link.output import OutputObject
    from cargo_strip_hook.link.warnings import CxxAbi

Array = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

ATOM = np.dtype(
    [
        ("section", "<i4"),  # index of the section in its file, -1 for a synthetic atom
        ("flags", "<u4"),  # AtomFlag
        ("offset", "<i8"),  # where the atom begins in its section, bytes
        ("size", "<i8"),  # bytes
        ("align", "<i8"),  # bytes, a power of two
        ("contents", "<i8"),  # where its bytes begin in the file, -1 for one without any
    ]
)

SYMBOL = np.dtype(
    [
        ("atom", "<i4"),  # atom that holds the definition, or one of SpecialIndex
        ("kind", "<u1"),  # the format's own symbol type
        ("binding", "<u1"),  # Binding
        ("visibility", "<u1"),  # the format's own visibility, 0 is the default
        ("native", "<u1"),  # the format's own remaining bits (ELF st_other)
        ("value", "<i8"),  # offset in the atom; value of an absolute; alignment of a common
        ("size", "<i8"),  # bytes, 0 where unknown
        ("name", "<i8"),  # offset in `Unit.strings`; ~offset of a short name, 8 bytes at most
    ]
)

RELOCATION = np.dtype(
    [
        ("atom", "<i4"),  # the atom whose contents are relocated
        ("symbol", "<i4"),  # index of the symbol referred to
        ("type", "<u4"),  # the format's and machine's own relocation type
        ("reach", "<u4"),  # Reach
        ("offset", "<i8"),  # in the atom, bytes
        ("addend", "<i8"),
    ]
)

EDGE = np.dtype([("source", "<i4"), ("target", "<i4")])

LINK_MAP = np.dtype(
    [
        ("member", "<i4"),  # the input range: member of the archive, section, bytes
        ("section", "<i4"),
        ("offset", "<i8"),
        ("size", "<i8"),
        ("out_section", "<i4"),  # where it went: section header index and bytes
        ("out_offset", "<i8"),
    ]
)

SIZE = np.dtype(
    [
        ("kind", "<u1"),  # Contents
        ("size", "<i8"),  # bytes of a program's memory, 0 for what is not loaded
        ("stored", "<i8"),  # bytes of the file
    ]
)


_NO_NAMES = memoryview(b"")


class Contents(IntEnum):
    """What bytes of an object file are for. The first five are loaded with a program."""

    CODE = 0
    CONSTANTS = 1  # loaded and never written
    DATA = 2
    ZEROS = 3  # data that is all zeros: no bytes of the file
    UNWIND = 4  # tables for exceptions and panics
    DEBUG = 5
    BITCODE = 6  # LLVM's, with its command lines
    RELOCATIONS = 7
    SYMBOLS = 8  # symbol tables and names
    OTHER = 9  # for linkers and tools


LOADED = (
    Contents.CODE,
    Contents.CONSTANTS,
    Contents.DATA,
    Contents.ZEROS,
    Contents.UNWIND,
)


class AtomFlag(IntFlag):
    """What the general phases must know of an atom."""

    ROOT = 1  # lives whenever its file is loaded: initialisers, retained sections
    SEPARATE = 2  # laid out by the format's writer (unwind records), not by the layout phase
    MERGEABLE = 4  # a linker merges equal elements: never addressed as section + addend by us
    ORDERED = 8  # with SEPARATE: a table in the order of what its atoms are linked to
    COLD = 16  # stands behind the others of its output section: code that hardly ever runs
    ELEMENT = 32  # with MERGEABLE: one element of a section that linkers merge
    ASIDE = 64  # never loaded with a program: for linkers and tools
    FOLLOWS = 128  # with ASIDE: lives where its file does, unless all that it refers to is dead
    LISTED = 256  # a program may find it by its section's name: a root unless in a linker set


class Binding(IntEnum):
    """How a symbol competes with others of its name."""

    LOCAL = 0
    GLOBAL = 1
    WEAK = 2
    UNIQUE = 3  # one per process (STB_GNU_UNIQUE); resolves like WEAK


class SpecialIndex(IntEnum):
    """Values of `SYMBOL.atom` for a symbol that is in no atom."""

    UNDEFINED = -1
    ABSOLUTE = -2
    COMMON = -3
    ELSEWHERE = -4  # in a section that is no atom (debug information, metadata)


class Reach(IntEnum):
    """What a relocation means for liveness."""

    FORWARD = 0  # the atom needs its target
    REVERSE = 1  # the atom lives if its target does (an FDE and its function)
    NONE = 2  # says nothing
    BOTH = 3  # both: what supports a live atom, with all that it needs itself


@dataclass(frozen=True, slots=True)
class Input:
    """One member of the archive that may be loaded."""

    index: int
    name: str
    data: memoryview


@dataclass(frozen=True, slots=True)
class ComdatSelection:
    """Which of several COMDATs a linker takes, and what must be equal in them.

    It takes the first one of the highest `preference`. `equal` is the same in all; None in one
    that may differ.
    """

    preference: int = 0
    equal: object = None


@dataclass(frozen=True, slots=True)
class Group:
    """Atoms that come together; one group of a signature prevails where `comdat` is set.

    `bound` groups also live together.
    """

    signature: bytes
    atoms: tuple[int, ...]
    comdat: bool
    bound: bool = True
    selection: ComdatSelection = ComdatSelection()


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """One object file, read. Atom and symbol numbers are local to it.

    `strings` holds the names of symbols.

    `globals` are the symbols from `first_global` on that take part in resolution, named by `names`;
    behind them may stand local ones that the reader made. `aliases`: the target, where it is
    defined, stands for a source that nobody defines.
    """

    index: int  # of the member in its archive, -1 for the synthetic unit
    name: str
    data: memoryview
    atoms: Array  # ATOM
    symbols: Array  # SYMBOL
    first_global: int
    names: Sequence[bytes]
    relocations: Array  # RELOCATION
    edges: Array  # EDGE: the target lives if the source does
    groups: tuple[Group, ...]
    native: object  # only the format's own room reads it
    strings: memoryview = _NO_NAMES
    aliases: Array = field(default_factory=lambda: np.zeros(0, EDGE))  # EDGE, of symbols

    @property
    def globals(self) -> Array:
        """SYMBOL rows of those that `names` names."""
        return self.symbols[self.first_global : self.first_global + len(self.names)]


@dataclass(frozen=True, slots=True)
class ImportMember:
    """A member that stays one of its own beside the object, for as long as it is needed.

    `defines` and `needs` are names of symbols.
    """

    index: int  # position in the archive
    defines: tuple[bytes, ...]
    needs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LinkerSet:
    """Elements between a start and a stop symbol that a linker would define (`__start_X`).

    `elements` are program-wide atom numbers; `start` and `stop` are the symbols' names.
    """

    name: bytes
    start: bytes
    stop: bytes
    elements: Int32
    align: int  # bytes
    start_atom: int = -1  # synthetic atoms of no size at the ends, once they are made
    stop_atom: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """All loaded units with program-wide numbering.

    `atoms`, `symbols`, `relocations` are the units' tables one behind the other, numbers made
    program-wide. `definition[s]` is the symbol that symbol `s` resolves to (itself, if it is the
    definition or stays undefined). `discarded` marks atoms of losing COMDAT groups;
    `prevailing` is the atom of the same place and size in the group that won, -1 for none.
    `crossing` are undefined symbols that another object of the same set defines: hidden, and always
    needed. `given` are those of `exported` that only other objects of the same set refer to.
    """

    units: tuple[Unit, ...]
    atom_base: Int64  # first atom of each unit, and the total
    symbol_base: Int64
    atoms: Array
    symbols: Array
    relocations: Array
    edges: Array
    definition: Int32
    discarded: Bool
    globals: dict[bytes, int]  # name -> resolved symbol
    sets: tuple[LinkerSet, ...] = ()
    exported: frozenset[int] = frozenset()  # the symbols of the exports
    granularity: Granularity = Granularity.CLASS
    prevailing: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    crossing: frozenset[int] = frozenset()
    given: frozenset[int] = frozenset()

    def unit_of(self, atoms: Array) -> Array:
        """The unit number of each atom."""
        return np.searchsorted(self.atom_base, atoms, side="right") - 1

    def live_units(self, live: Bool) -> list[int]:
        """The numbers of the units with any of the `live` atoms (bool for each atom)."""
        numbers: list[int] = unique(self.unit_of(np.flatnonzero(live))).tolist()
        return numbers


@dataclass(frozen=True, slots=True)
class SectionKey:
    """Atoms that may be laid out in one output section, and what that section is like.

    `descriptor` belongs to the format. `single` atoms are never merged; `whole` ones always are,
    whatever their class (linker sets, initialisers in their order). `identity` gives for each of
    the key's atoms (in any number) what makes it interchangeable with others, None for what
    never is: of equal ones in a section only the first is laid out, the others share its place.
    """

    descriptor: object  # as `Unit.native`
    single: bool = False
    whole: bool = False
    identity: Callable[[Int32], Sequence[Hashable | None]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OutputSection:
    """One section to be written: its section key and the atoms in it, in order."""

    section_key: int
    atoms: Int32
    size: int
    align: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where every live atom goes. Arrays are indexed by atom; -1 is nowhere."""

    section_keys: tuple[SectionKey, ...]
    sections: tuple[OutputSection, ...]
    section: Int32
    offset: Int64

    @property
    def sizes(self) -> Int64:
        """Bytes of each section."""
        return np.array([s.size for s in self.sections], np.int64)

    @property
    def aligns(self) -> Int64:
        """Bytes that each section is aligned to."""
        return np.array([s.align for s in self.sections], np.int64)

    @property
    def descriptors(self) -> list[object]:
        """What the format says of the section key of each section."""
        return [self.section_keys[s.section_key].descriptor for s in self.sections]

    @property
    def atoms(self) -> Int32:
        """The atoms of all sections in their order, without those that share another's place."""
        return np.concatenate([np.zeros(0, np.int32), *(s.atoms for s in self.sections)])


Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A relocatable object ready to be written, and what the engine reports of it."""

    size: int
    chunks: Iterable[Chunk]  # their lengths add up to `size`
    defined: tuple[bytes, ...]  # names for the archive's symbol index
    undefined: tuple[bytes, ...]
    link_map: Array
    statistics: Statistics
    warnings: tuple[str, ...] = field(default=())


_T = TypeVar("_T")
SymbolKind = Literal["function", "data", "tls", "common", "unknown"]


def _nothing(*_: object) -> list[_T]:
    """What a format that has none of something finds."""
    return []


def _no_names(_: Sequence[bytes]) -> dict[bytes, bytes]:
    return {}


@dataclass(frozen=True, slots=True)
class Format:
    """What a format's room offers to the general phases: its functions and tables.

    `read`: the units of object files. Raises `ObjectError`.
    `synthetic(like, unit, pointers)`: completes a unit for what no file holds: commons, the ends
    of linker sets, and `pointers` (EDGE, from an atom, whose size is set there, to the symbol that
    it points to). `like` is a unit that was read.
    `section_keys`: the section key of each live atom (same shape), -1 for those the writer lays
    out, and the keys. `section_limit`: the bytes that an output section should not pass.
    `output`: decides all of the object. Raises `LinkError` where it cannot say what was asked.
    `cxx`: how C++ shares definitions there.
    `symbol_kinds`: what the values of `SYMBOL.kind` mean.

    For reports: `leftovers` gives (bytes of debug information, number of initialisers and
    finalisers) of an object; `sizes`: SIZE for each section of the file, numbered as
    `ATOM.section` has them, then others, without headers and padding.

    What only some formats have: `find_sets`: the linker sets whose start or stop symbols are among
    undefined names. `import_members`: those of the members that are never joined with others.
    `loaded_always`: the numbers of those that linkers load whatever refers to them, by the
    archive's index (a name, and the member that defines it). `find_pointers`: the names that, where
    their value here is defined, are pointers to it (`__imp_X`). `twins`: the strip level leaves
    the program alone, so that there can be a debug twin. `compresses`: debug sections can be.
    """

    read: Callable[[Sequence[Input]], list[Unit]]
    synthetic: Callable[[Unit, Unit, Array], Unit]
    section_keys: Callable[[Program, Int32], tuple[Int32, tuple[SectionKey, ...]]]
    section_limit: Callable[[Program], int]
    output: Callable[[Program, Bool, Layout, PrelinkRequest], OutputObject]
    cxx: CxxAbi
    symbol_kinds: Mapping[int, SymbolKind]
    leftovers: Callable[[Unit], tuple[int, int]]
    sizes: Callable[[Unit], Array]
    find_sets: Callable[[Sequence[Unit], Sequence[bytes]], list[LinkerSet]] = _nothing
    import_members: Callable[[Sequence[Input]], list[ImportMember]] = _nothing
    loaded_always: Callable[[Sequence[Input], Iterable[tuple[bytes, int]]], list[int]] = _nothing
    find_pointers: Callable[[Sequence[bytes]], dict[bytes, bytes]] = _no_names
    twins: bool = False
    compresses: bool = False


__all__ = [
    "ATOM",
    "EDGE",
    "LINK_MAP",
    "LOADED",
    "RELOCATION",
    "SIZE",
    "SYMBOL",
    "Array",
    "AtomFlag",
    "Binding",
    "Bool",
    "Chunk",
    "ComdatSelection",
    "Contents",
    "Format",
    "Granularity",
    "Group",
    "Image",
    "ImportMember",
    "Input",
    "Int32",
    "Int64",
    "Layout",
    "LinkerSet",
    "OutputSection",
    "Program",
    "Reach",
    "SectionKey",
    "SpecialIndex",
    "SymbolKind",
    "Unit",
]
