"""What sharing between libraries must know of Mach-O: contents, state, what belongs together.

Sources: mach-o/loader.h (section types and attributes), the names of sections that compilers use
(LLVM's `TargetLoweringObjectFileImpl.cpp` and `MCObjectFileInfo.cpp`).
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import COMPACT_UNWIND, EH_FRAME
from cargo_strip_hook.formats.macho.machine import MACHINES
from cargo_strip_hook.formats.macho.marks import cold_atoms, resolvers
from cargo_strip_hook.formats.macho.reader import MachoUnit, macho_unit
from cargo_strip_hook.link.arrays import runs
from cargo_strip_hook.link.model import (
    EDGE,
    Array,
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Program,
    SpecialIndex,
)
from cargo_strip_hook.link.pages import release
from cargo_strip_hook.link.share.model import Costs, Described, Sharing, Sort
from cargo_strip_hook.link.symbols import symbol_names

# Sections that nobody walks over, as compilers call them. Of any other name a program may ask for
# all that there is (`getsectiondata`).
_CONSTANTS = frozenset(
    (b"__const", b"__ustring", b"__const_coal", b"__cfstring", b"__got", b"__nl_symbol_ptr")
)
_STATE = frozenset((b"__data", b"__bss", b"__common", b"__datacoal_nt"))
_CODE = frozenset((b"__text", b"__textcoal_nt", b"__StaticInit"))
# what their runtimes find by the names of sections
_RUNTIMES = (b"__objc_", b"__swift")
_LSDA = b"__gcc_except_tab"
_LITERALS = (mo.S_CSTRING_LITERALS, *mo.LITERAL_SIZES)
_THREAD_LOCAL = range(0x11, 0x14)  # contents, zeros, and descriptors, which dyld writes into
_BRANCH = 2  # r_type of both architectures
_LABELS = (b"L", b"l")  # what stands for no name: those of C and Rust begin with an underscore


class MachoSharing(Sharing):
    """`Sharing` for Mach-O."""

    label = 0
    first_section = 1
    costs = Costs(48, 8, 1500)

    def describe(self, program: Program, live: Bool) -> Described:
        atoms = np.flatnonzero(live).astype(np.int32)
        contents, sort = _contents(program, atoms)
        pinned = _pinned(program, live, sort)
        relocated = np.zeros(len(live), np.bool_)
        relocated[program.relocations["atom"]] = True
        literal = program.atoms["flags"] & AtomFlag.MERGEABLE != 0
        copied = literal & ~relocated & ~pinned  # linkers take equal ones for one
        copied |= _cies(program)
        nothing = np.zeros(len(live), np.bool_)
        return Described(contents, sort, pinned, copied, nothing, _links(program, live, sort))

    def names(self, program: Program, symbols: Array) -> list[bytes]:
        inside = (program.symbols["atom"][symbols] >= 0).tolist()
        return [
            b"" if here and name.startswith(_LABELS) else name
            for name, here in zip(symbol_names(program, symbols), inside, strict=True)
        ]

    def calls(self, program: Program, relocations: Array) -> Bool:
        # X86_64_RELOC_BRANCH and ARM64_RELOC_BRANCH26
        branches: Bool = program.relocations["type"][relocations] & 0xF == _BRANCH
        return branches


def _frames(program: Program) -> Array:
    """EDGE: those from an FDE to its CIE."""
    separate = program.atoms["flags"] & AtomFlag.SEPARATE != 0
    edges = program.edges
    found: Array = edges[separate[edges["source"]] & separate[edges["target"]]]
    return found


def _cies(program: Program) -> Bool:
    cie = np.zeros(len(program.atoms), np.bool_)
    cie[_frames(program)["target"]] = True
    return cie


def _contents(program: Program, atoms: Int32) -> tuple[Array, Array]:
    """(S16 digest, uint8 `Sort`) for each atom; zeros for those that are not among `atoms`."""
    digests = np.zeros(len(program.atoms), "S16")
    sort = np.full(len(program.atoms), Sort.OTHER, np.uint8)
    cold = cold_atoms(program)
    fde = np.zeros(len(program.atoms), np.bool_)
    fde[_frames(program)["source"]] = True
    begins, ends = _relocated(program)
    units = program.unit_of(atoms)
    for first, end in runs(units):
        number = int(units[first])
        unit = program.units[number]
        native = macho_unit(unit)
        mine = atoms[first:end]
        rows = program.atoms[mine]
        octets = _without_fields(
            program, number, mine[fde[mine]], slice(int(begins[number]), int(ends[number]))
        )
        known: dict[int, tuple[bytes, Sort]] = {-1: (b"made", Sort.STATE)}
        out, sorts = [], []
        for (section, _, _, size, align, start), is_cold in zip(
            rows.tolist(), cold[mine].tolist(), strict=True
        ):
            facts = known.get(section)
            if facts is None:
                facts = known[section] = _facts(native, section)
            head, what = facts
            digest = blake2b(b"%s %d %d %d " % (head, size, align, is_cold), digest_size=16)
            if start >= 0:
                digest.update(octets[start : start + size])
            out.append(digest.digest().replace(b"\0", b"\1"))
            sorts.append(what)
        digests[mine], sort[mine] = out, sorts
        release(unit.data)
    return digests, sort


def _relocated(program: Program) -> tuple[Int64, Int64]:
    """The first relocation of each unit, and the end of its last one: they are in order."""
    unit = program.unit_of(program.relocations["atom"])
    numbers = np.arange(len(program.units))
    assert (np.diff(unit) >= 0).all()
    return np.searchsorted(unit, numbers), np.searchsorted(unit, numbers, side="right")


def _without_fields(program: Program, number: int, fdes: Int32, mine: slice) -> memoryview:
    """A unit's file with zeros for what relocations say, and for how far it is to a CIE.

    Instructions of arm64 have zeros there already. `mine`: the unit's relocations.
    """
    unit = program.units[number]
    native = macho_unit(unit)
    octets = np.frombuffer(unit.data, np.uint8)
    relocations = program.relocations[mine]
    kind = relocations["type"].astype(np.int64)
    width = np.int64(1) << (kind >> 5 & 3)
    width[kind == mo.PC_RELATIVE], width[kind == mo.PC_RELATIVE_4] = 8, 4
    held = np.ones(len(kind), np.bool_)
    if native.cputype == mo.CPU_TYPE_ARM64:
        held = ~MACHINES[mo.CPU_TYPE_ARM64].explicit[kind]
    start = program.atoms["contents"][relocations["atom"]] + relocations["offset"]
    held &= program.atoms["contents"][relocations["atom"]] >= 0
    fields = [(start[held & (width == size)], size) for size in (1, 2, 4, 8)]
    fields.append((program.atoms["contents"][fdes] + 4, 4))
    if not any(len(locations) for locations, _ in fields):
        return unit.data
    octets = octets.copy()
    for locations, size in fields:
        octets[locations[:, None] + np.arange(size)] = 0
    return memoryview(octets.data)


def _facts(native: MachoUnit, section: int) -> tuple[bytes, Sort]:
    """(what the header of a section says that must be equal, its sort)."""
    names = native.names[section]
    flags = int(native.sections["flags"][section])
    return b"%s,%s %d" % (*names, flags), _sort(names, flags)


def _sort(names: tuple[bytes, bytes], flags: int) -> Sort:
    _, name = names
    kind = flags & mo.SECTION_TYPE
    if names in (COMPACT_UNWIND, EH_FRAME) or name == _LSDA:
        return Sort.RECORD
    if name.startswith(_RUNTIMES) or kind == mo.S_INTERPOSING or flags & mo.S_ATTR_LIVE_SUPPORT:
        return Sort.OTHER
    if kind in mo.INITIALISER_TYPES:
        return Sort.INITIALISER
    if kind in _LITERALS or kind == mo.S_NON_LAZY_SYMBOL_POINTERS:
        return Sort.CONSTANT
    if kind in _THREAD_LOCAL or name in _STATE:
        return Sort.STATE
    if name in _CODE and flags & (mo.S_ATTR_PURE_INSTRUCTIONS | mo.S_ATTR_SOME_INSTRUCTIONS):
        return Sort.CODE
    if name in _CONSTANTS:
        return Sort.CONSTANT
    return Sort.OTHER


def _pinned(program: Program, live: Bool, sort: Array) -> Bool:
    """What is its library's own whatever it is."""
    flags = program.atoms["flags"]
    pinned: Bool = sort == Sort.OTHER
    # kept for a reason that nobody knows here
    pinned |= (flags & AtomFlag.ROOT != 0) & (sort != Sort.INITIALISER)
    for one in program.sets:
        pinned[one.elements] = True
        pinned[[one.start_atom, one.stop_atom]] = True
    symbols = program.symbols
    pinned[symbols["atom"][resolvers(program)]] = True
    rows = program.relocations[live[program.relocations["atom"]]]
    target = symbols["atom"][program.definition[rows["symbol"]]]
    lost = (target == SpecialIndex.COMMON) | (target == SpecialIndex.ELSEWHERE)
    lost |= (target >= 0) & ~live[np.maximum(target, 0)]
    pinned[rows["atom"][lost]] = True
    return pinned


def _links(program: Program, live: Bool, sort: Array) -> Array:
    """EDGE: unwind records and their LSDAs, both ends of a distance, what no linker takes apart."""
    symbols = program.symbols
    rows = program.relocations[live[program.relocations["atom"]]]
    target = symbols["atom"][program.definition[rows["symbol"]]]
    there = (target >= 0) & live[np.maximum(target, 0)]
    record = (sort[rows["atom"]] == Sort.RECORD) & (sort[np.maximum(target, 0)] == Sort.RECORD)
    subtractor = MACHINES[max(macho_unit(unit).cputype for unit in program.units)].subtractor
    subtrahend = (rows["type"] & 0xF == subtractor) & (rows["type"] < mo.PC_RELATIVE)
    subtrahend &= target != rows["atom"]
    chosen = there & (record | subtrahend)
    found = np.zeros(int(chosen.sum()), EDGE)
    found["source"], found["target"] = rows["atom"][chosen], target[chosen]
    chains = [found]
    for unit, base in zip(program.units, program.atom_base.tolist(), strict=False):
        for group in unit.groups:
            atoms = np.array(group.atoms, np.int64) + base
            atoms = atoms[live[atoms]]
            chain = np.zeros(max(len(atoms) - 1, 0), EDGE)
            chain["source"], chain["target"] = atoms[:-1], atoms[1:]
            chains.append(chain)
    return np.concatenate(chains)


__all__ = ["MachoSharing"]
