"""What sharing between libraries must know of ELF: contents, state, what belongs together."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import ElfUnit, elf_unit, section_name
from cargo_strip_hook.formats.elf.machine import Relaxation, of_types
from cargo_strip_hook.formats.elf.section_keys import (
    is_c_identifier,
    is_initialiser,
    kind_of_name,
)
from cargo_strip_hook.link.arrays import isin, runs
from cargo_strip_hook.link.contents import read_input
from cargo_strip_hook.link.model import (
    EDGE,
    Array,
    AtomFlag,
    Bool,
    Int32,
    Program,
    SpecialIndex,
)
from cargo_strip_hook.link.pages import release
from cargo_strip_hook.link.share.equality import hashed, word
from cargo_strip_hook.link.share.model import Costs, Described, Sharing, Sort
from cargo_strip_hook.link.symbols import symbol_names
from cargo_strip_hook.link.unwind import is_cie

_RELRO = (b".data.rel.ro", b".bss.rel.ro")  # written by the dynamic linker only
# The pointer to a personality routine that position independent code has: GCC's and LLVM's name
# for what DW_EH_PE_indirect needs. Nobody writes it.
_INDIRECT = b".data.DW.ref."
_LSDA = b".gcc_except_table"
# What begins so has the same kind and sort whatever follows: most of all sections. No linker's name
# is between the 16 bytes of the first of them and the whole.
_CUT = (b".gcc_except_tabl", b".text._", b".rodata..", b".data.rel.ro.", b".bss._", b".tbss._")
_HEAD = 16  # bytes of names that are compared
# R_X86_64_PLT32; R_AARCH64_JUMP26, R_AARCH64_CALL26
_BRANCHES = {62: (4,), 183: (282, 283)}  # by e_machine
_LEFT_OUT = elf.SHF_GROUP | elf.SHF_INFO_LINK


class ElfSharing(Sharing):
    """`Sharing` for ELF."""

    label = elf.STT_NOTYPE
    joins = True
    first_section = 0  # of a file: its header table has one that is none
    costs = Costs(39, 24, 1500)

    def describe(self, program: Program, live: Bool) -> Described:
        atoms = np.flatnonzero(live).astype(np.int32)
        copied = is_cie(program)
        contents, sort = _contents(program, atoms, copied)
        flags = program.atoms["flags"]
        element = flags & AtomFlag.ELEMENT != 0
        merged = (flags & AtomFlag.MERGEABLE != 0) & ~element
        relocated = np.zeros(len(live), np.bool_)
        relocated[program.relocations["atom"]] = True
        copied |= merged & ~relocated  # linkers merge nothing that is relocated
        return Described(
            contents,
            sort,
            _pinned(program, live, sort),
            copied,
            element,
            _links(program, live, sort),
        )

    def names(self, program: Program, symbols: Array) -> list[bytes]:
        found = symbol_names(program, symbols)
        kinds = program.symbols["kind"][symbols]
        return [
            b"" if is_section else name
            for name, is_section in zip(found, (kinds == elf.STT_SECTION).tolist(), strict=True)
        ]

    def calls(self, program: Program, relocations: Array) -> Bool:
        native = elf_unit(program.units[0])
        rows = program.relocations[relocations]
        found = isin(rows["type"], np.array(_BRANCHES.get(native.machine.number, ()), np.int64))
        got = of_types(native.machine.relaxation_types, rows["type"]) == Relaxation.X86_64_GOT
        through = np.flatnonzero(got & (rows["offset"] >= 2))
        mine = rows[through]
        opcode, modrm = read_input(program, mine["atom"], mine["offset"] - 2, 2).T
        found[through] = (opcode == 0xFF) & ((modrm == 0x15) | (modrm == 0x25))
        return found

    def kinds(self, program: Program, symbols: Array) -> Array:
        rows = program.symbols[symbols]
        kinds: Array = rows["kind"].copy()
        for at in np.flatnonzero(kinds == elf.STT_SECTION).tolist():
            atom = int(rows["atom"][at])
            native = elf_unit(program.units[int(program.unit_of(np.array([atom]))[0])])
            section = int(program.atoms["section"][atom])
            thread = section >= 0 and int(native.sections["flags"][section]) & elf.SHF_TLS
            kinds[at] = elf.STT_TLS if thread else elf.STT_NOTYPE
        return kinds


def _contents(program: Program, atoms: Int32, cie: Bool) -> tuple[Array, Array]:
    """(S16 digest, uint8 `Sort`) for each atom; zeros for those that are not among `atoms`."""
    rows = program.atoms[atoms]
    made = rows["section"] < 0
    record = (rows["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)) == AtomFlag.SEPARATE
    # how far a record is to its CIE is what linkers fill in
    begin = np.where(record, rows["contents"] + 8, rows["contents"])
    end = np.where(rows["contents"] < 0, begin, rows["contents"] + rows["size"])
    begin[made] = end[made] = 0
    parts = []
    units = program.unit_of(atoms)
    for first, last in runs(units):
        data = program.units[int(units[first])].data
        ranges = zip(begin[first:last].tolist(), end[first:last].tolist(), strict=True)
        parts += [blake2b(data[a:b], digest_size=16).digest() for a, b in ranges]
        release(data)
    head, what = _heads(program, atoms, units)
    head += np.where(record, 1 + cie[atoms], 0).astype(np.uint64)
    head = hashed([head, rows["size"], rows["align"]])
    octets = np.frombuffer(b"".join(parts), np.uint64).reshape(-1, 2) ^ head[:, np.newaxis]
    octets = octets.view(np.uint8)
    octets[octets == 0] = 1  # numpy drops zeros at the end
    digests = np.zeros(len(program.atoms), "S16")
    digests[atoms] = octets.reshape(-1).view("S16")
    sort = np.full(len(program.atoms), Sort.OTHER, np.uint8)
    what[record], what[made] = Sort.RECORD, Sort.STATE
    sort[atoms] = what
    return digests, sort


def _heads(program: Program, atoms: Int32, units: Array) -> tuple[Array, Array]:
    """For each atom (a hash of what its section says that must be equal, its `Sort`)."""
    head = np.zeros(len(atoms), np.uint64)
    sort = np.zeros(len(atoms), np.uint8)
    numbers: dict[tuple[bytes, int, int, int], tuple[int, Sort]] = {}
    for first, last in runs(units):
        native = elf_unit(program.units[int(units[first])])
        if not len(native.sections):
            continue  # what no file holds
        sections = np.maximum(program.atoms["section"][atoms[first:last]], 0)
        headers = native.sections[sections]
        names = native.names16[sections]
        for prefix in _CUT:
            names[names.astype(f"S{len(prefix)}") == prefix] = prefix
        columns = (names, headers["type"], headers["flags"], headers["entsize"])
        keys = list(zip(*(column.tolist() for column in columns), strict=True))
        found = []
        for key, section in zip(keys, sections.tolist(), strict=True):
            facts = numbers.get(key)
            if facts is None:
                text, what = _facts(native, section)
                facts = word(text), what
                if key[0] in _CUT or len(key[0]) < _HEAD:
                    numbers[key] = facts
            found.append(facts)
        head[first:last] = [number for number, _ in found]
        sort[first:last] = [what for _, what in found]
    return head, sort


def _facts(native: ElfUnit, section: int) -> tuple[bytes, Sort]:
    """(what the header of a section says that must be equal, its sort)."""
    header = native.sections[section]
    name = section_name(native, section)
    flags, kind = int(header["flags"]), int(header["type"])
    head = b"%s %d %d %d" % (kind_of_name(name), kind, flags & ~_LEFT_OUT, int(header["entsize"]))
    what = Sort.CONSTANT
    if kind in (elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY) or (
        is_initialiser(name)
    ):
        what = Sort.INITIALISER
    elif kind == elf.SHT_NOTE or not flags & elf.SHF_ALLOC or is_c_identifier(name):
        # a program may go through all sections of such a name
        what = Sort.OTHER
    elif flags & elf.SHF_EXECINSTR:
        what = Sort.CODE
    elif name.startswith(_LSDA) or kind == native.machine.index_type != 0:
        what = Sort.RECORD
    elif flags & (elf.SHF_WRITE | elf.SHF_TLS) and not name.startswith((*_RELRO, _INDIRECT)):
        what = Sort.STATE
    return head, what


def _pinned(program: Program, live: Bool, sort: Array) -> Bool:
    """What is its library's own whatever it is."""
    flags = program.atoms["flags"]
    pinned: Bool = flags & (AtomFlag.LISTED | AtomFlag.ASIDE) != 0
    pinned |= sort == Sort.OTHER
    # retained for a reason that nobody knows here
    pinned |= (flags & AtomFlag.ROOT != 0) & (sort != Sort.INITIALISER)
    for one in program.sets:
        pinned[one.elements] = True
        pinned[[one.start_atom, one.stop_atom]] = True
    symbols = program.symbols
    chosen = (symbols["kind"] == elf.STT_GNU_IFUNC) & (symbols["atom"] >= 0)
    pinned[symbols["atom"][chosen]] = True
    rows = program.relocations[live[program.relocations["atom"]]]
    target = symbols["atom"][program.definition[rows["symbol"]]]
    lost = (target == SpecialIndex.COMMON) | (target == SpecialIndex.ELSEWHERE)
    lost |= (target >= 0) & ~live[np.maximum(target, 0)]
    lost &= rows["type"] != 0  # R_*_NONE refers to nothing
    pinned[rows["atom"][lost]] = True
    return pinned


def _links(program: Program, live: Bool, sort: Array) -> Array:
    """EDGE: an unwind record and its LSDA, a section and what describes it (SHF_LINK_ORDER)."""
    symbols = program.symbols
    rows = program.relocations[live[program.relocations["atom"]]]
    rows = rows[sort[rows["atom"]] == Sort.RECORD]
    target = symbols["atom"][program.definition[rows["symbol"]]]
    there = (target >= 0) & live[np.maximum(target, 0)]
    there &= sort[np.maximum(target, 0)] == Sort.RECORD
    cie = is_cie(program)
    edges = program.edges[live[program.edges["source"]] & live[program.edges["target"]]]
    edges = edges[~cie[edges["target"]]]
    found = np.zeros(int(there.sum()), EDGE)
    found["source"], found["target"] = rows["atom"][there], target[there]
    return np.concatenate([found, edges])


__all__ = ["ElfSharing"]
