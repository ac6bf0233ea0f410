"""The symbol table of the new object: exports and undefined symbols global, all else local."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.beyond import refuse_beyond
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.formats.elf.relocate import Placed
from cargo_strip_hook.link.addresses import STEP
from cargo_strip_hook.link.arrays import isin, rows_of
from cargo_strip_hook.link.model import Array, Binding, Bool, Int32, Int64, Program, SpecialIndex
from cargo_strip_hook.link.output import ENTRY, SymbolTable, entries_at, entries_of, index_symbols
from cargo_strip_hook.link.strings import StringTable
from cargo_strip_hook.link.symbols import (
    Names,
    laid_out,
    merged,
    select,
    symbol_name,
    symbol_names,
    without_reference,
)

_BINDING_BITS = np.zeros(4, np.uint8)
_BINDING_BITS[Binding.GLOBAL] = elf.STB_GLOBAL
_BINDING_BITS[Binding.WEAK] = elf.STB_WEAK
_BINDING_BITS[Binding.UNIQUE] = elf.STB_GNU_UNIQUE


def profile_symbols(program: Program, live: Bool) -> list[int]:
    """The definitions that all instrumented code of a program has in common, and its runtime."""
    known = (program.globals.get(name, -1) for name in elf.PROFILE_SYMBOLS)
    defined = [s for s in known if s >= 0 and program.symbols["atom"][s] >= 0]
    return [s for s in defined if live[program.symbols["atom"][s]]]


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """The symbols of the program that get an entry, in the order of the table.

    `rows` are their program-wide numbers, `names` their names (empty where it is dropped). The
    first `locals` of them are local, `exports` more are defined and global, the rest undefined.
    """

    rows: Int64
    names: list[bytes]
    locals: int
    exports: int

    @property
    def globals(self) -> slice:
        """Where the defined global ones are."""
        return slice(self.locals, self.locals + self.exports)

    @property
    def undefined(self) -> slice:
        """Where the undefined ones are."""
        return slice(self.locals + self.exports, len(self.rows))


def build(
    program: Program,
    machine: Machine,
    live: Bool,
    placed: Placed,
    header_index: Int64,
    used: Array,
    strip: Strip,
) -> tuple[SymbolTable, bytes]:
    """(the table, the contents of `.symtab_shndx`, empty where no index of a section is wide).

    `used`: the targets of all relocations, program-wide symbols or ~section, unique;
    `header_index`: the index in the section header table of each output section.
    Names of live functions stay below `Strip.SYMBOLS`.
    """
    used_sections = np.sort(~used[used < 0])
    needed = np.zeros(len(program.symbols), np.bool_)
    needed[used[used >= 0].astype(np.int64)] = True
    null = program.symbol_base[:-1]  # the first symbol of each file stands for "no symbol"
    needed[null] = False
    needed[list(program.crossing)] = True  # a linker loads for them what nothing refers to
    entries = _entries(program, machine, live, placed, needed, strip)
    refuse_beyond(program, machine, entries.rows)

    records = elf_unit(program.units[0]).records
    first = 1 + len(used_sections)
    rows = np.concatenate(
        [
            rows_of(ENTRY, 1, symbol=-1, section=SpecialIndex.UNDEFINED),
            entries_at(used_sections.astype(np.int64) << STEP),
            entries_of(program, placed, entries.rows),
        ]
    )
    strings = StringTable()
    table = np.zeros(len(rows), records.symbol)
    table["info"][1:first] = elf.STT_SECTION
    table[first:] = _records(program, live, placed, entries)
    table["name"][first:] = [strings.add(name) for name in entries.names]
    table["value"] = rows["value"]
    shndx = _section_indices(program, header_index, rows)
    wide = shndx >= elf.SHN_LORESERVE
    table["shndx"] = np.abs(np.where(wide, elf.SHN_XINDEX, shndx))
    every = np.concatenate([rows, entries_of(program, placed, null)])
    numbers = np.concatenate([np.arange(len(rows)), np.zeros(len(null), np.int64)])
    of_section = np.full(len(header_index), -1, np.int64)
    of_section[used_sections] = np.arange(1, first)
    return SymbolTable(
        table,
        strings.bytes(),
        first + entries.locals,
        entries.exports,
        index_symbols(program, every, numbers),
        of_section,
        tuple(entries.names[entries.globals]),
        tuple(entries.names[entries.undefined]),
    ), np.where(wide, shndx, 0).astype(f"{records.order}u4").tobytes() if wide.any() else b""


def _entries(
    program: Program, machine: Machine, live: Bool, placed: Placed, needed: Bool, strip: Strip
) -> _Entries:
    """Choose the symbols that get an entry; `needed` are those that relocations refer to."""
    here = laid_out(program, live, placed.section)
    names = _for_people(program, here, placed)
    chosen = select(program, here, placed.kept, np.flatnonzero(needed), names.kept(strip))
    exports, undefined = merged(chosen.exports, chosen.commons), chosen.undefined
    named = np.zeros(len(needed), np.bool_)
    named[chosen.named] = True
    if strip is Strip.NONE:
        named |= _file_names(program, named)
    mapping = _mapping_symbols(program, machine, here, placed)
    is_local = needed | named
    is_local[list(mapping)] = True
    is_local[exports.rows] = is_local[undefined.rows] = False
    local = np.flatnonzero(is_local)
    if mapping:
        local = _without_repeats(program.symbols, placed, local, mapping)
    shown = named[local] | (needed[local] & (strip is not Strip.SYMBOLS))
    return _Entries(
        np.concatenate([local, exports.rows, undefined.rows]),
        [
            *_local_names(program, local, shown, mapping, strip),
            *exports.names,
            *undefined.names,
        ],
        len(local),
        len(exports.rows),
    )


def _local_names(
    program: Program, rows: Int64, shown: Bool, mapping: dict[int, bytes], strip: Strip
) -> list[bytes]:
    """The names of the local symbols `rows`: of mapping symbols, and of those that are `shown`."""
    names = [b""] * len(rows)
    where = np.flatnonzero(shown)
    for number, name in zip(where.tolist(), symbol_names(program, rows[where]), strict=True):
        if strip is Strip.NONE or not name.startswith(b".L"):  # an assembler's own
            names[number] = name
    if mapping:
        names = [mapping.get(row, name) for row, name in zip(rows.tolist(), names, strict=True)]
    return names


def _records(program: Program, live: Bool, placed: Placed, entries: _Entries) -> Array:
    """The format's record of each of `entries`, but for its name, section and value."""
    symbols = program.symbols[entries.rows]
    is_undefined = symbols["atom"] == SpecialIndex.UNDEFINED
    missing = entries.rows[entries.undefined]
    records = np.zeros(len(symbols), elf_unit(program.units[0]).records.symbol)
    records["info"] = (_bindings(program, live, entries) << 4) | _types(symbols, placed)
    records["other"] = symbols["native"]
    records["other"][entries.undefined] &= np.uint8(0xFC)
    records["other"][entries.undefined] |= _strictest(program, missing)
    records["size"] = np.where(is_undefined, 0, symbols["size"])
    return records


def _types(symbols: Array, placed: Placed) -> Array:
    """The type (STT_*, uint8) of the entry of each of `symbols` (SYMBOL rows)."""
    types: Array = symbols["kind"].copy()
    # a section symbol that needs an entry of its own is a plain local label now
    labels = np.flatnonzero(types == elf.STT_SECTION)
    types[labels] = np.where(
        placed.tls[placed.section[symbols["atom"][labels]]], elf.STT_TLS, elf.STT_NOTYPE
    )
    own = np.flatnonzero((types == elf.STT_OBJECT) & (symbols["atom"] >= 0))
    own = own[placed.tls[placed.section[symbols["atom"][own]]]]  # a common that we placed
    types[own] = elf.STT_TLS
    return types


def _bindings(program: Program, live: Bool, entries: _Entries) -> Array:
    """The binding (STB_*, uint8) of each of `entries`."""
    bindings: Array = _BINDING_BITS[program.symbols["binding"][entries.rows]]
    bindings[: entries.locals] = elf.STB_LOCAL
    # of a COMDAT group each: the first of a program wins, without its group as a weak one
    shared = [s for s in profile_symbols(program, live) if s not in program.exported]
    bindings[isin(entries.rows, np.array(shared, np.int64))] = elf.STB_WEAK
    weak = _weak_references(program, live, entries.rows[entries.undefined])
    bindings[entries.undefined] = np.where(weak, elf.STB_WEAK, elf.STB_GLOBAL)
    return bindings


def _section_indices(program: Program, header_index: Int64, entries: Array) -> Int64:
    """The section header index of each ENTRY, negated for reserved ones."""
    section = entries["section"]
    indices = np.full(len(section), elf.SHN_UNDEF, np.int64)
    indices[section >= 0] = header_index[section[section >= 0]]
    indices[section == SpecialIndex.ABSOLUTE] = -elf.SHN_ABS
    common = np.flatnonzero(section == SpecialIndex.COMMON)
    indices[common] = [-_common_index(program, s) for s in entries["symbol"][common].tolist()]
    return indices


def _common_index(program: Program, symbol: int) -> int:
    """SHN_COMMON, or what the processor has besides for large ones."""
    unit = int(np.searchsorted(program.symbol_base, symbol, side="right")) - 1
    shndx: Int32 = elf_unit(program.units[unit]).shndx
    return int(shndx[symbol - int(program.symbol_base[unit])]) & 0xFFFF


def _for_people(program: Program, here: Bool, placed: Placed) -> Names:
    """The names of functions and, for debuggers, of data and labels."""
    symbols = program.symbols
    kind, atom = symbols["kind"], symbols["atom"]
    code = np.zeros(len(symbols), np.bool_)
    code[here] = placed.sections.executable[placed.section[atom[here]]]
    functions = (kind == elf.STT_FUNC) | (kind == elf.STT_GNU_IFUNC)
    # labels of hand-written assembly are functions without a type
    functions |= (kind == elf.STT_NOTYPE) & (symbols["binding"] != Binding.LOCAL) & code
    others = (kind == elf.STT_OBJECT) | (kind == elf.STT_TLS)
    others |= (kind == elf.STT_NOTYPE) & (symbols["name"] > 0)
    return Names(functions, others)


def _file_names(program: Program, named: Bool) -> Bool:
    """The symbols (bool) with the names of the files that the `named` ones are from."""
    owner = np.repeat(np.arange(len(program.units)), np.diff(program.symbol_base))
    has = np.zeros(len(program.units), np.bool_)
    has[owner[named]] = True
    symbols = program.symbols
    files = (symbols["kind"] == elf.STT_FILE) & (symbols["atom"] == SpecialIndex.ABSOLUTE)
    shown: Bool = files & has[owner]
    return shown


def _mapping_symbols(
    program: Program, machine: Machine, here: Bool, placed: Placed
) -> dict[int, bytes]:
    """The names of the symbols that tell code from data in live code.

    Sources: AAELF64 and AAELF32, "Mapping symbols"; RISC-V ELF psABI, section 8.3.1 (where a
    `$x` may name an instruction set).
    """
    names: dict[int, bytes] = {}
    letters = {b"$%c" % letter for letter in machine.mapping}
    if not letters:
        return names
    symbols = program.symbols
    candidates = here & (symbols["kind"] == elf.STT_NOTYPE) & (symbols["size"] == 0)
    candidates &= symbols["binding"] == Binding.LOCAL
    for number, unit in enumerate(program.units):
        base = int(program.symbol_base[number])
        rows = np.flatnonzero(candidates[base : base + unit.first_global])
        for local, start in zip(rows.tolist(), unit.symbols["name"][rows].tolist(), strict=True):
            head = bytes(unit.strings[start : start + 3])
            if head[:2] in letters and (head[2:3] in (b"\0", b".") or head == b"$xr"):
                row = base + local
                if placed.sections.executable[placed.section[symbols["atom"][row]]]:
                    names[row] = symbol_name(program, row) if head == b"$xr" else head[:2]
    return names


def _without_repeats(
    symbols: Array, placed: Placed, rows: Int64, mapping: dict[int, bytes]
) -> Int64:
    """Drop a mapping symbol that says what the one before it in its section said already."""
    mine = np.array(sorted(mapping), np.int64)
    atoms = symbols["atom"][mine]
    section = placed.section[atoms]
    where = placed.offset[atoms] + symbols["value"][mine]
    code = np.array([mapping[r] for r in mine.tolist()], np.bytes_)
    order = np.lexsort((mine, where, section))
    section, code = section[order], code[order]
    repeat = np.zeros(len(mine), np.bool_)
    repeat[1:] = (section[1:] == section[:-1]) & (code[1:] == code[:-1])
    return rows[~isin(rows, mine[order[repeat]])]


def _weak_references(program: Program, live: Bool, rows: Array) -> Bool:
    """Whether all references of live code to each undefined symbol of `rows` are weak."""
    if not len(rows):
        return np.zeros(0, np.bool_)
    used = np.zeros(len(program.symbols), np.bool_)
    used[program.relocations["symbol"][live[program.relocations["atom"]]]] = True
    used[list(program.crossing)] = True
    strong = used & (program.symbols["binding"] == Binding.GLOBAL)
    return without_reference(program, strong)[rows]


def _strictest(program: Program, rows: Array) -> Array:
    """The most constraining visibility of all references to each undefined symbol of `rows`.

    Source: gABI, "Symbol Visibility": internal, hidden, protected, then default.
    """
    if not len(rows):
        return np.zeros(0, np.uint8)
    symbols = program.symbols
    strictness = np.where(symbols["visibility"] == 0, 4, symbols["visibility"])
    strict = np.flatnonzero((strictness < 4) & (symbols["binding"] != Binding.LOCAL))
    best = np.full(len(symbols), 4, np.uint8)
    np.minimum.at(best, program.definition[strict], strictness[strict])
    return best[rows] & 3
