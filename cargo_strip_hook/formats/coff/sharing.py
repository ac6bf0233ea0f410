"""What sharing between libraries must know of COFF: contents, state, what belongs together.

How names that cross end: GNU ld's `autofilter_symbolsuffixlist` (`ld/pe-dll.c`) and LLVM's lld
(`COFF/MinGW.cpp`, `AutoExporter`). A DLL that MinGW's linkers make exports all external names but
such; those of the compiler's own prefix are exported by lld on i686, where names begin with `_`.
"""

from __future__ import annotations

import re
from hashlib import blake2b

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.formats.coff.reader import KIND_DATA, CoffUnit, coff_unit
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

_CODE = coff.SCN_CNT_CODE | coff.SCN_MEM_EXECUTE
_STATE = coff.SCN_MEM_WRITE | coff.SCN_CNT_UNINITIALIZED_DATA
# What nobody writes, though it is in `.data`: types that exceptions have (`codegen_msvc_try` in
# `rustc_codegen_llvm/src/intrinsic.rs`, Microsoft's ABI of C++), of which linkers take any; and
# pointers that rustc makes for what other crates import (`create_imps` in `back/write.rs`).
_CONSTANT = re.compile(rb"\?\?_R0|\w*rust_panic_type_info\Z|_?_imp_")
# Constants whose names say what they hold: each file has those that it needs, linkers take any.
_BY_CONTENTS = (b"__real@", b"__xmm@", b"__ymm@", b"__zmm@", b"??_C@_")
_BRANCH26 = 3  # IMAGE_REL_ARM64_BRANCH26
_UNWIND = (kinds.PDATA, kinds.XDATA, kinds.EH_FRAME, b".gcc_except_table")


class CoffSharing(Sharing):
    """`Sharing` for COFF."""

    label = KIND_DATA
    suffix = b"_iname"
    first_section = 1
    costs = Costs(39, 10, 1000)

    def describe(self, program: Program, live: Bool) -> Described:
        atoms = np.flatnonzero(live).astype(np.int32)
        contents, sort = _contents(program, atoms)
        never_written = _never_written(program)
        sort[never_written[sort[never_written] == Sort.STATE]] = Sort.CONSTANT
        none = np.zeros(len(live), np.bool_)
        pinned = _pinned(program, live, sort)
        return Described(contents, sort, pinned, none, none, _links(program, live, sort))

    def names(self, program: Program, symbols: Array) -> list[bytes]:
        inside = (program.symbols["atom"][symbols] >= 0).tolist()
        return [
            b"" if here and name.startswith(_BY_CONTENTS) else name
            for name, here in zip(symbol_names(program, symbols), inside, strict=True)
        ]

    def calls(self, program: Program, relocations: Array) -> Bool:
        # elsewhere a relocation of a branch may be of an address as well
        known = coff_unit(program.units[0]).machine.number == coff.ARM64
        branches: Bool = known & (program.relocations["type"][relocations] == _BRANCH26)
        return branches

    def speaking(self, program: Program) -> Int64:
        units = [coff_unit(unit) for unit in program.units]
        return np.flatnonzero([_speaks(native) for native in units])


def _speaks(native: CoffUnit) -> bool:
    """Whether a file has directives, names without a relocation, or stand-ins for names."""
    there = bool(native.directives.words) or len(native.asked) > 0
    return there or bool((native.fallback >= 0).any())


def _contents(program: Program, atoms: Int32) -> tuple[Array, Array]:
    """(S16 digest, uint8 `Sort`) for each atom; zeros for those that are not among `atoms`."""
    digests = np.zeros(len(program.atoms), "S16")
    sort = np.full(len(program.atoms), Sort.OTHER, np.uint8)
    units = program.unit_of(atoms)
    for first, end in runs(units):
        number = int(units[first])
        unit = program.units[number]
        native = coff_unit(unit)
        safe = native.features & coff.FEAT_SAFE_SEH
        facts = [(_head(kind, safe), _sort(kind)) for kind in native.kinds]
        mine = atoms[first:end]
        rows = program.atoms[mine]
        kind_of = native.atom_kind[mine - int(program.atom_base[number])].tolist()
        out, sorts = [], []
        for (size, align, at), kind in zip(
            rows[["size", "align", "contents"]].tolist(), kind_of, strict=True
        ):
            # what a directive includes is no part of a program
            head, what = facts[kind] if kind >= 0 else (b"", Sort.OTHER)
            digest = blake2b(b"%s %d %d " % (head, size, align), digest_size=16)
            if at >= 0:
                digest.update(unit.data[at : at + size])
            out.append(digest.digest().replace(b"\0", b"\1"))
            sorts.append(what)
        digests[mine], sort[mine] = out, sorts
        release(unit.data)
    return digests, sort


def _head(kind: SectionKind, safe: int) -> bytes:
    """What must be equal: what a section's header says, and whether its file is fit for SafeSEH.

    An object promises that only where all in it do.
    """
    return b"%s %d %d %d" % (kind.name, kind.flags, kind.root, safe)


def _sort(kind: SectionKind) -> Sort:
    if kinds.is_initialiser(kind.name):
        return Sort.INITIALISER
    if kind.name in _UNWIND:
        return Sort.RECORD
    if kind.name == kinds.TLS or kind.name.startswith(kinds.TLS + b"$"):
        return Sort.STATE
    if kind.root:  # somebody's own, or a part of a group that linkers order
        return Sort.OTHER
    if kind.flags & _CODE:
        return Sort.CODE
    return Sort.STATE if kind.flags & _STATE else Sort.CONSTANT


def _never_written(program: Program) -> Array:
    """Atoms that are constant by what they are called."""
    rows = [row for name, row in program.globals.items() if _CONSTANT.match(name)]
    atoms = program.symbols["atom"][np.array(rows, np.int64)]
    return np.asarray(atoms[atoms >= 0])


def _pinned(program: Program, live: Bool, sort: Array) -> Bool:
    """What is its library's own whatever it is."""
    flags, symbols = program.atoms["flags"], program.symbols
    root = flags & AtomFlag.ROOT != 0
    pinned: Bool = (sort == Sort.OTHER) | (root & (sort != Sort.INITIALISER))
    rows = program.relocations[live[program.relocations["atom"]]]
    meant = program.definition[rows["symbol"]]
    target = symbols["atom"][meant]
    inside = np.maximum(target, 0)
    # what a directive includes is kept by the library that has it; initialisers run anyway
    included = target[(rows["type"] == 0) & (target >= 0) & root[rows["atom"]]]
    pinned[included[sort[included] != Sort.INITIALISER]] = True
    lost = (target == SpecialIndex.COMMON) | (target == SpecialIndex.ELSEWHERE)
    # a table of frames stays whole: what it says of dead functions leads nowhere
    lost |= (target >= 0) & ~live[inside] & (sort[rows["atom"]] != Sort.RECORD)
    lost |= _replaceable(program)[meant] & (target == SpecialIndex.UNDEFINED)
    pinned[rows["atom"][lost & (rows["type"] != 0)]] = True
    pinned[_stand_ins(program)] = True
    pinned[_guarded(program)] = True
    return pinned


def _guarded(program: Program) -> Array:
    """Atoms of files with tables of control flow guard, and what files list of others.

    Such a table is of one object: linkers take what is in another one by its relocations.
    """
    found = [np.zeros(0, np.int64)]
    bases = zip(program.atom_base.tolist(), program.symbol_base.tolist(), strict=True)
    for (first, base), unit in zip(bases, program.units, strict=False):
        native = coff_unit(unit)
        end = first + len(unit.atoms)
        guards = native.features & (coff.FEAT_GUARD_CF | coff.FEAT_GUARD_EHCONT) != 0
        for _, symbols in native.tables.values():
            atoms = program.symbols["atom"][program.definition[base + symbols]]
            found.append(atoms[(atoms >= 0) & (guards | (atoms < first) | (atoms >= end))])
        if guards:
            found.append(np.arange(first, end))
    return np.concatenate(found).astype(np.int64)


def _replaceable(program: Program) -> Bool:
    """bool by symbol: whether a file says what stands for it where nobody defines it."""
    found = np.zeros(len(program.symbols), np.bool_)
    names: set[bytes] = set()
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        native = coff_unit(unit)
        found[program.definition[base + np.flatnonzero(native.fallback >= 0)]] = True
        names |= {name for name, _ in native.directives.alternate}
    found[[program.globals[name] for name in names if name in program.globals]] = True
    return found


def _stand_ins(program: Program) -> Array:
    """The atoms of what stands for names that nobody defines."""
    found = [np.zeros(0, np.int64)]
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        native = coff_unit(unit)
        weak = np.flatnonzero(native.fallback >= 0)
        missing = program.symbols["atom"][program.definition[base + weak]]
        weak = weak[missing == SpecialIndex.UNDEFINED]
        found.append(program.definition[base + native.fallback[weak]].astype(np.int64))
    atoms = program.symbols["atom"][np.concatenate(found)]
    return np.asarray(atoms[atoms >= 0])


def _links(program: Program, live: Bool, sort: Array) -> Array:
    """EDGE: an entry of `.pdata` and its record, a section and what is associated with it."""
    rows = program.relocations[live[program.relocations["atom"]]]
    target = program.symbols["atom"][program.definition[rows["symbol"]]]
    inside = np.maximum(target, 0)
    chosen = (target >= 0) & live[inside] & (target != rows["atom"])
    chosen &= (sort[rows["atom"]] == Sort.RECORD) & (sort[inside] == Sort.RECORD)
    edges = program.edges[live[program.edges["source"]] & live[program.edges["target"]]]
    found = np.zeros(int(chosen.sum()), EDGE)
    found["source"], found["target"] = rows["atom"][chosen], target[chosen]
    return np.concatenate([found, edges])


__all__ = ["CoffSharing"]
