"""The symbol table of the new object: exports and undefined symbols global, all else local."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.beyond import refuse_beyond
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.formats.elf.relocate import Placed
from cargo_strip_hook.link.arrays import isin
from cargo_strip_hook.link.model import Array, Binding, Bool, Int32, Int64, Program, SpecialIndex
from cargo_strip_hook.link.strings import StringTable, string_at

_BINDING_BITS = np.zeros(4, np.uint8)
_BINDING_BITS[Binding.GLOBAL] = elf.STB_GLOBAL
_BINDING_BITS[Binding.WEAK] = elf.STB_WEAK
_BINDING_BITS[Binding.UNIQUE] = elf.STB_GNU_UNIQUE


@dataclass(frozen=True, slots=True, eq=False)
class SymbolTable:
    """The table to be written and how to find entries in it.

    `rows`: the format's records; `shndx`: the section header index of each (may pass 65,279;
    reserved values are negated).
    `of_symbol[s]` is the entry of program symbol `s`, `of_section[n]` that of output section `n`;
    -1 where there is none.
    """

    rows: Array
    shndx: Int64
    strings: bytes
    first_global: int
    of_symbol: Int32
    of_section: Int32
    defined: tuple[bytes, ...]
    undefined: tuple[bytes, ...]


def symbol_names(program: Program, symbols: Array) -> list[bytes]:
    """The names of program-wide symbols, in their order."""
    numbers = np.searchsorted(program.symbol_base, symbols, side="right") - 1
    inside = symbols - program.symbol_base[numbers]
    names: list[bytes] = []
    for number, local, start in zip(
        numbers.tolist(), inside.tolist(), program.symbols["name"][symbols].tolist(), strict=True
    ):
        unit = program.units[number]
        if 0 <= local - unit.first_global < len(unit.names):
            names.append(unit.names[local - unit.first_global])
        else:
            names.append(string_at(unit.native.symbol_strings, start))
    return names


def symbol_name(program: Program, symbol: int) -> bytes:
    """The name of one program-wide symbol."""
    return symbol_names(program, np.array([symbol]))[0]


def profile_symbols(program: Program, live: Bool) -> list[int]:
    """The definitions that all instrumented code of a program has in common, and its runtime."""
    known = (program.globals.get(name, -1) for name in elf.PROFILE_SYMBOLS)
    found = [s for s in known if s >= 0 and program.symbols["atom"][s] >= 0]
    return [s for s in found if live[program.symbols["atom"][s]]]


def _by_name(program: Program, chosen: Bool) -> list[tuple[bytes, int]]:
    """(name, program-wide number) of the chosen symbols, sorted."""
    rows = np.flatnonzero(chosen)
    return sorted(zip(symbol_names(program, rows), rows.tolist(), strict=True))


def build(
    program: Program,
    machine: Machine,
    live: Bool,
    placed: Placed,
    header_index: Int64,
    used: Array,
    strip: Strip,
) -> SymbolTable:
    """Make the table.

    `used`: the targets of all relocations as in `Applied`, unique; `header_index`: the index
    in the section header table of each output section. Names of live functions stay below
    `Strip.SYMBOLS`.
    """
    symbols = program.symbols
    used_sections = np.sort(~used[used < 0])
    used_rows = used[used >= 0].astype(np.int64)
    place = symbols["atom"]
    at = np.where(place >= 0, place, 0)
    here = (place >= 0) & live[at] & (placed.section[at] >= 0)
    wins = program.definition == np.arange(len(symbols))

    unplaced = (place == SpecialIndex.COMMON) | (place == SpecialIndex.ABSOLUTE)
    is_global = placed.kept & (here | unplaced) & wins
    needed = np.zeros(len(symbols), np.bool_)
    needed[used_rows] = True
    null = program.symbol_base[:-1]  # the first symbol of each file stands for "no symbol"
    needed[null] = False
    undefined = needed & (place == SpecialIndex.UNDEFINED)
    named = _for_people(program, here & wins, placed, strip)
    mapping, mapping_names = _mapping_symbols(program, machine, here, placed)
    local = (needed & ~is_global & ~undefined) | named
    local_rows = np.flatnonzero(local | mapping)
    if machine.mapping and len(local_rows):
        local_rows = _without_repeats(symbols, placed, local_rows, mapping, mapping_names)
    strings = StringTable()
    keep_name = named[local_rows] | (needed[local_rows] & (strip is not Strip.SYMBOLS))
    kept_names = iter(symbol_names(program, local_rows[keep_name & ~mapping[local_rows]]))
    local_names: list[bytes] = []
    for row, keep in zip(local_rows.tolist(), keep_name.tolist(), strict=True):
        name = mapping_names.get(row)
        if name is None:
            name = next(kept_names) if keep else b""
        made = name.startswith(b".L") and strip is not Strip.NONE  # an assembler's own
        local_names.append(b"" if made else name)

    globals_, outside = _by_name(program, is_global), _by_name(program, undefined)
    rows_ = np.array(
        [*local_rows.tolist(), *(r for _, r in globals_), *(r for _, r in outside)], np.int64
    )
    refuse_beyond(program, machine, rows_)
    first = 1 + len(used_sections)
    first_global = first + len(local_rows)
    count = first + len(rows_)
    records = program.units[0].native.records
    table = np.zeros(count, records.symbol)
    shndx = np.zeros(count, np.int64)
    table["info"][1:first] = elf.STT_SECTION
    shndx[1:first] = header_index[used_sections]

    chosen = symbols[rows_]
    body = table[first:]
    defined = chosen["atom"] >= 0
    kind = chosen["kind"].copy()
    # a section symbol that needs an entry of its own is a plain local label now
    labels = np.flatnonzero(kind == elf.STT_SECTION)
    kind[labels] = np.where(
        placed.tls[placed.section[chosen["atom"][labels]]], elf.STT_TLS, elf.STT_NOTYPE
    )
    own = np.flatnonzero((kind == elf.STT_OBJECT) & defined)  # a common that we placed
    own = own[placed.tls[placed.section[chosen["atom"][own]]]]
    kind[own] = elf.STT_TLS
    binding = _BINDING_BITS[chosen["binding"]]
    binding[: len(local_rows)] = elf.STB_LOCAL
    # of a COMDAT group each: the first of a program wins, without its group as a weak one
    shared = [s for s in profile_symbols(program, live) if s not in program.exported]
    binding[isin(rows_, np.array(shared, np.int64))] = elf.STB_WEAK
    weak = _weak_references(program, live, rows_[len(local_rows) + len(globals_) :])
    binding[len(local_rows) + len(globals_) :] = np.where(weak, elf.STB_WEAK, elf.STB_GLOBAL)
    body["info"] = (binding << 4) | kind
    body["other"] = chosen["native"]
    missing = rows_[len(local_rows) + len(globals_) :]
    body["other"][len(local_rows) + len(globals_) :] &= np.uint8(0xFC)
    body["other"][len(local_rows) + len(globals_) :] |= _strictest(program, missing)
    body["value"] = chosen["value"]
    body["value"][defined] += placed.offset[chosen["atom"][defined]].astype(np.uint64)
    body["value"][chosen["atom"] == SpecialIndex.UNDEFINED] = 0
    body["size"] = np.where(chosen["atom"] == SpecialIndex.UNDEFINED, 0, chosen["size"])
    names = [*local_names, *(n for n, _ in globals_), *(n for n, _ in outside)]
    body["name"] = [strings.add(n) for n in names]
    sections = np.full(len(chosen), elf.SHN_UNDEF, np.int64)
    sections[defined] = header_index[placed.section[chosen["atom"][defined]]]
    # reserved indices are negative here, to be told apart from real ones
    sections[chosen["atom"] == SpecialIndex.ABSOLUTE] = -elf.SHN_ABS
    common = np.flatnonzero(chosen["atom"] == SpecialIndex.COMMON)
    sections[common] = [-_common_index(program, row) for row in rows_[common].tolist()]
    shndx[first:] = sections

    of_symbol = np.full(len(symbols), -1, np.int32)
    of_symbol[rows_] = np.arange(first, count, dtype=np.int32)
    of_symbol[null] = 0
    of_section = np.full(len(header_index), -1, np.int32)
    of_section[used_sections] = np.arange(1, first, dtype=np.int32)
    return SymbolTable(
        table,
        shndx,
        strings.bytes(),
        first_global,
        of_symbol,
        of_section,
        tuple(n for n, _ in globals_),
        tuple(n for n, _ in outside),
    )


def _common_index(program: Program, symbol: int) -> int:
    """SHN_COMMON, or what the processor has besides for large ones."""
    unit = int(np.searchsorted(program.symbol_base, symbol, side="right")) - 1
    shndx: Int32 = program.units[unit].native.shndx
    return int(shndx[symbol - int(program.symbol_base[unit])]) & 0xFFFF


def _for_people(program: Program, here: Bool, placed: Placed, strip: Strip) -> Bool:
    """The local names that stay: of functions, and of data beside debug information."""
    symbols = program.symbols
    if strip is Strip.SYMBOLS:
        return np.zeros(len(symbols), np.bool_)
    kind = symbols["kind"]
    code = np.zeros(len(symbols), np.bool_)
    atoms = symbols["atom"]
    code[here] = placed.executable[placed.section[atoms[here]]]
    functions = (kind == elf.STT_FUNC) | (kind == elf.STT_GNU_IFUNC)
    # labels of hand-written assembly are functions without a type
    functions |= (kind == elf.STT_NOTYPE) & (symbols["binding"] != Binding.LOCAL) & code
    if strip is Strip.NONE:
        functions |= (kind == elf.STT_OBJECT) | (kind == elf.STT_TLS)
        functions |= (kind == elf.STT_NOTYPE) & (symbols["name"] > 0)  # labels
    found: Bool = functions & here & ~placed.kept
    if strip is Strip.NONE:  # the names of the files that they are from
        owner = np.repeat(np.arange(len(program.units)), np.diff(program.symbol_base))
        has = np.zeros(len(program.units), np.bool_)
        has[owner[found]] = True
        files = (kind == elf.STT_FILE) & (symbols["atom"] == SpecialIndex.ABSOLUTE)
        found |= files & has[owner]
    return found


def _mapping_symbols(
    program: Program, machine: Machine, here: Bool, placed: Placed
) -> tuple[Bool, dict[int, bytes]]:
    """The symbols that tell code from data in live code.

    Sources: AAELF64 and AAELF32, "Mapping symbols"; RISC-V ELF psABI, section 8.3.1 (where a
    `$x` may name an instruction set).
    """
    found = np.zeros(len(program.symbols), np.bool_)
    names: dict[int, bytes] = {}
    letters = {b"$%c" % letter for letter in machine.mapping}
    if not letters:
        return found, names
    symbols = program.symbols
    candidates = here & (symbols["kind"] == elf.STT_NOTYPE) & (symbols["size"] == 0)
    candidates &= symbols["binding"] == Binding.LOCAL
    for number, unit in enumerate(program.units):
        base = int(program.symbol_base[number])
        rows = np.flatnonzero(candidates[base : base + unit.first_global])
        table = unit.native.symbol_strings
        for local, start in zip(rows.tolist(), unit.symbols["name"][rows].tolist(), strict=True):
            head = bytes(table[start : start + 3])
            if head[:2] in letters and (head[2:3] in (b"\0", b".") or head == b"$xr"):
                row = base + local
                if placed.executable[placed.section[symbols["atom"][row]]]:
                    found[row] = True
                    names[row] = symbol_name(program, row) if head == b"$xr" else head[:2]
    return found, names


def _without_repeats(
    symbols: Array, placed: Placed, rows: Array, mapping: Bool, names: dict[int, bytes]
) -> Array:
    """Drop a mapping symbol that says what the one before it in its section said already."""
    mine = rows[mapping[rows]]
    atoms = symbols["atom"][mine]
    section = placed.section[atoms]
    where = placed.offset[atoms] + symbols["value"][mine]
    code = np.array([names[r] for r in mine.tolist()], np.bytes_)
    order = np.lexsort((mine, where, section))
    section, code = section[order], code[order]
    repeat = np.zeros(len(mine), np.bool_)
    repeat[1:] = (section[1:] == section[:-1]) & (code[1:] == code[:-1])
    return rows[~isin(rows, mine[order[repeat]])]


def _weak_references(program: Program, live: Bool, rows: Array) -> Bool:
    """Whether all references of live code to each undefined symbol of `rows` are weak."""
    if not len(rows):
        return np.zeros(0, np.bool_)
    symbols = program.symbols
    used = np.zeros(len(symbols), np.bool_)
    used[program.relocations["symbol"][live[program.relocations["atom"]]]] = True
    outside = symbols["atom"] == SpecialIndex.UNDEFINED
    strong = np.zeros(len(symbols), np.bool_)
    strong[program.definition[used & outside & (symbols["binding"] == Binding.GLOBAL)]] = True
    return ~strong[rows]


def _strictest(program: Program, rows: Array) -> Array:
    """The most constraining visibility of all references to each undefined symbol of `rows`.

    Source: gABI, "Symbol Visibility": internal, hidden, protected, then default.
    """
    if not len(rows):
        return np.zeros(0, np.uint8)
    symbols = program.symbols
    rank = np.where(symbols["visibility"] == 0, 4, symbols["visibility"])
    strict = np.flatnonzero((rank < 4) & (symbols["binding"] != Binding.LOCAL))
    best = np.full(len(symbols), 4, np.uint8)
    np.minimum.at(best, program.definition[strict], rank[strict])
    return best[rows] & 3
