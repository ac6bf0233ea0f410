"""Reads one COFF object into the common model.

An atom is a section; `.pdata` is taken apart into its entries, each of which lives with its
function. Symbols of the file keep their order, locals before globals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.coff import directives as drectve
from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.comdat import Comdats, read_comdats
from cargo_strip_hook.formats.coff.directives import Directives
from cargo_strip_hook.formats.coff.file import CoffFile
from cargo_strip_hook.formats.coff.kinds import SectionKind, Shape
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.link.arrays import isin, ramps, rows_of
from cargo_strip_hook.link.frames import PC_BEGIN, FrameRules, read_records
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    AtomFlag,
    Binding,
    Input,
    Int32,
    Int64,
    Reach,
    SpecialIndex,
    Unit,
)

# SYMBOL.kind
KIND_DATA, KIND_FUNCTION, KIND_TLS = 0, 1, 2
HIDDEN = 2  # SYMBOL.visibility of what a DLL does not export of itself
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class CoffUnit:
    """What only the COFF room knows of an object file.

    Sections are counted from 0 here. `numbers`: symbol of the unit for each record of the file's
    table, -1 for auxiliary ones. `fallback`: for each symbol of the unit the one that stands for
    it where nobody defines it, -1 for none; `search` is how it is searched for. `tables`: the
    symbols of the unit that a section of symbol numbers lists.
    """

    machine: Machine
    sections: Array  # SECTION
    names: list[bytes]
    kinds: tuple[SectionKind, ...]
    atom_kind: Int32  # of each atom, index of `kinds`
    section_atom: Int32  # -1 for sections that are no atoms
    comdats: Comdats
    debug: tuple[int, ...]
    numbers: Int64
    fallback: Int32
    search: Int32
    directives: Directives
    features: int  # @feat.00
    asked: Int64  # undefined symbols that no relocation names: they load something (`_fltused`)
    tables: dict[bytes, tuple[int, Int64]]  # name -> (flags, symbols)


def coff_unit(unit: Unit) -> CoffUnit:
    """What only this room knows of an object file."""
    return cast("CoffUnit", unit.native)


@dataclass(frozen=True, slots=True)
class _Atoms:
    """The atoms of a file, and what became of each section."""

    rows: Array  # ATOM
    kinds: tuple[SectionKind, ...]
    atom_kind: Int32
    section_atom: Int32
    entries: Int32  # first atom of a section's unwind entries, -1 for other sections


def read(item: Input) -> Unit:
    """Read a COFF object. Raises `ObjectError` naming the member and the offset."""
    f = CoffFile(item.name, item.data)
    f.check_symbols()
    comdats = read_comdats(f)
    atoms = _atoms(f, comdats)
    text = b" ".join(bytes(f.contents(n)) for n, s in enumerate(f.names) if s == b".drectve")
    asked = drectve.parse(text) if text else Directives()

    primary = f.primary
    rows = f.symbols[primary]
    shown = (rows["class"] == coff.CLASS_EXTERNAL) | (rows["class"] == coff.CLASS_WEAK_EXTERNAL)
    order = np.concatenate([np.flatnonzero(~shown), np.flatnonzero(shown)])
    first_global = int((~shown).sum())
    primary = primary[order]
    numbers = np.full(len(f.symbols), -1, np.int64)
    numbers[primary] = np.arange(len(primary))
    names = f.symbol_names(primary[first_global:])
    _refuse_slim(f, names)
    symbols = _symbols(f, atoms, primary, dict(asked.aligned), names, first_global)
    prefix = b"_" if f.header.machine.number == coff.I386 else b""
    if asked.hidden:
        hidden = [n.removeprefix(prefix) in asked.hidden or n in asked.hidden for n in names]
        symbols["visibility"][first_global:][hidden] = HIDDEN
    fallback, search = _weak(f, primary, numbers, symbols)

    relocations = f.relocations(np.flatnonzero((atoms.section_atom >= 0) | (atoms.entries >= 0)))
    relocations["symbol"] = numbers[relocations["symbol"]]
    uses = _uses(f, atoms, relocations)
    relocations["atom"], relocations["offset"], relocations["reach"] = uses
    lonely = _without_name(f, atoms, symbols, first_global, relocations)
    rows_of_atoms = atoms.rows.copy()
    rows_of_atoms["flags"][lonely] |= np.uint32(AtomFlag.ROOT)
    tables: dict[bytes, tuple[int, Int64]] = {}
    for n, name in enumerate(f.names):
        if name in kinds.SYMBOL_TABLES:  # there may be one for each COMDAT
            flags, listed = tables.get(name, (int(f.flags[n]), _NONE))
            tables[name] = flags, np.concatenate([listed, _table(f, n, numbers)])
    groups, edges = comdats.bind(f, atoms.section_atom, atoms.entries)
    aliases = np.flatnonzero((fallback >= 0) & (symbols["atom"] == SpecialIndex.UNDEFINED))
    alias_rows = rows_of(EDGE, len(aliases), source=aliases, target=fallback[aliases])
    asked_for = _asked(symbols, relocations, aliases, fallback)
    unit = Unit(
        item.index,
        item.name,
        item.data,
        rows_of_atoms,
        symbols,
        first_global,
        names,
        relocations,
        edges,
        groups,
        CoffUnit(
            f.header.machine,
            f.sections,
            f.names,
            atoms.kinds,
            atoms.atom_kind,
            atoms.section_atom,
            comdats,
            tuple(n for n, name in enumerate(f.names) if kinds.is_debug(name)),
            numbers,
            fallback,
            search,
            asked,
            _features(rows),
            asked_for,
            tables,
        ),
        item.data,
        alias_rows,
    )
    return _with_directives(unit, asked) if asked.included or asked.alternate else unit


def _refuse_slim(f: CoffFile, names: list[bytes]) -> None:
    """Raise `ObjectError` for what GCC's `-flto` makes: nothing that a linker alone can use."""
    if any(n.startswith(b".gnu.lto_") for n in f.names) and (
        b"__gnu_lto_slim" in names or b"___gnu_lto_slim" in names
    ):
        raise f.fail(
            "this member holds GCC's intermediate code only, no machine code",
            0,
            "compile it with `-ffat-lto-objects` or without `-flto`",
        )


def _atoms(f: CoffFile, comdats: Comdats) -> _Atoms:
    count = len(f.sections)
    known: dict[tuple[bytes, int, int], int] = {}
    section_kinds: list[SectionKind] = []
    kind_of = np.full(count, -1, np.int32)
    shapes = _shapes(f, comdats)
    keys = zip(f.names, (f.flags & ~coff.SCN_OF_FILE).tolist(), shapes, strict=True)
    for n, key in enumerate(keys):
        number = known.get(key)
        if number is None:
            name, flags, _ = key
            number = -1
            outside = name in kinds.SYMBOL_TABLES or kinds.is_debug(name)
            if not outside and not kinds.is_dropped(name, flags):
                number = len(section_kinds)
                section_kinds.append(kinds.kind_of(*key[:2], Shape(key[2])))
            known[key] = number
        kind_of[n] = number

    entry = f.header.machine.entry
    is_table = np.zeros(count, np.bool_)
    if entry:
        tables = np.array([k.name == kinds.PDATA for k in section_kinds] or [False], np.bool_)
        is_table = (kind_of >= 0) & tables[kind_of]
    chosen = np.flatnonzero((kind_of >= 0) & ~is_table)
    section_atom = np.full(count, -1, np.int32)
    section_atom[chosen] = np.arange(len(chosen))
    divided = np.flatnonzero(is_table)
    counts = f.sizes[divided] // max(entry, 1)
    parted = f.sizes[divided] % max(entry, 1) != 0
    f.check(parted, "the unwind entries of a section have no whole number")
    empty = (f.sizes[divided] > 0) & ~f.stored[divided]
    f.check(empty, "a section of unwind entries has no contents")
    entries = np.full(count, -1, np.int32)
    entries[divided] = len(chosen) + np.cumsum(counts) - counts
    of = np.repeat(divided, counts)
    rows = np.concatenate(
        [
            rows_of(
                ATOM, len(chosen), section=chosen, size=f.sizes[chosen], align=f.aligns[chosen]
            ),
            rows_of(
                ATOM,
                len(of),
                section=of,
                offset=ramps(np.zeros_like(counts), counts, 1) * entry,
                size=entry,
                align=4,
                flags=AtomFlag.SEPARATE | AtomFlag.ORDERED,
            ),
        ]
    )
    begin = np.where(f.stored, f.sections["offset"].astype(np.int64), -1)[rows["section"]]
    rows["contents"] = np.where(begin >= 0, begin + rows["offset"], -1)
    atom_kind = kind_of[rows["section"]]
    root = np.array([k.root for k in section_kinds] or [False], np.bool_)
    rows["flags"][root[atom_kind]] |= np.uint32(AtomFlag.ROOT)
    return _Atoms(rows, tuple(section_kinds), atom_kind.astype(np.int32), section_atom, entries)


def _shapes(f: CoffFile, comdats: Comdats) -> list[int]:
    """The shape (`Shape`) of each section."""
    every = np.where(comdats.selection == 0, Shape.WHOLE, Shape.COMDAT)
    every[comdats.selection == coff.COMDAT_ASSOCIATIVE] = Shape.ASSOCIATIVE
    shapes: list[int] = every.tolist()
    candidates = [n for n, name in enumerate(f.names) if b"$" in name and kinds.may_be_alone(name)]
    if not candidates:
        return shapes
    rows = f.symbols[f.primary]
    section = rows["section"].astype(np.int64) - 1
    mine = np.flatnonzero(isin(section, np.array(candidates)))
    # a section's own symbol has its definition behind it
    mine = mine[(rows["class"][mine] != coff.CLASS_STATIC) | (rows["aux"][mine] == 0)]
    names: dict[int, set[bytes]] = {n: set() for n in candidates}
    several = set(section[mine[rows["value"][mine] != 0]].tolist())
    for n, name in zip(section[mine].tolist(), f.symbol_names(f.primary[mine]), strict=True):
        names[n].add(name)
    for n in candidates:
        alone = n not in several and kinds.is_alone(f.names[n], names[n])
        if alone and shapes[n] != Shape.ASSOCIATIVE:
            shapes[n] = Shape.ALONE
    return shapes


def _without_name(
    f: CoffFile, atoms: _Atoms, symbols: Array, first_global: int, relocations: Array
) -> Int32:
    """The atoms of plain sections that are no COMDAT, and live where nothing can refer to them.

    Linkers keep all that is no COMDAT: a version that only tools look for. What can be referred to
    needs that, since a library's members are loaded one by one, and the new object is as a whole.
    """
    whole = np.flatnonzero((f.flags & coff.SCN_LNK_COMDAT == 0) & (f.sizes > 0))
    chosen = np.array([n for n in whole.tolist() if kinds.is_exactly_plain(f.names[n])], np.int64)
    chosen = chosen[atoms.section_atom[chosen] >= 0]
    target = symbols["atom"][relocations["symbol"]]
    named = [symbols["atom"][first_global:], target[target != relocations["atom"]]]
    mine = atoms.section_atom[chosen]
    lonely: Int32 = mine[~isin(mine, np.concatenate(named))]
    return lonely


def _symbols(
    f: CoffFile,
    atoms: _Atoms,
    primary: Int64,
    aligned: dict[bytes, int],
    names: list[bytes],
    first_global: int,
) -> Array:
    rows = f.symbols[primary]
    section = rows["section"].astype(np.int64)
    shown = np.arange(len(rows)) >= first_global
    weak = rows["class"] == coff.CLASS_WEAK_EXTERNAL
    value = rows["value"].astype(np.int64)
    atom = np.full(len(rows), SpecialIndex.ELSEWHERE, np.int32)
    inside = section > 0
    atom[inside] = atoms.section_atom[section[inside] - 1]
    atom[inside & (atom == -1)] = SpecialIndex.ELSEWHERE
    atom[shown & (section == coff.SYM_UNDEFINED)] = SpecialIndex.UNDEFINED
    common = shown & ~weak & (section == coff.SYM_UNDEFINED) & (value > 0)
    atom[common] = SpecialIndex.COMMON
    atom[section == coff.SYM_ABSOLUTE] = SpecialIndex.ABSOLUTE
    placed = np.flatnonzero(atom >= 0)
    # a label may stand at the very end
    outside = value[placed] > atoms.rows["size"][atom[placed]]
    f.check(outside, "a symbol lies outside of its section", f.table_at)
    tls = np.array([n.startswith(kinds.TLS + b"$") for n in f.names], np.bool_)
    kind = np.where(rows["type"] & 0xF0 == coff.TYPE_FUNCTION, KIND_FUNCTION, KIND_DATA)
    code = f.flags & (coff.SCN_CNT_CODE | coff.SCN_MEM_EXECUTE) != 0
    where = np.where(inside, section - 1, 0)
    if len(f.sections):
        kind[inside & shown & code[where]] = KIND_FUNCTION
        kind[inside & tls[where]] = KIND_TLS
    symbols = rows_of(
        SYMBOL,
        len(rows),
        atom=atom,
        value=value,
        binding=np.where(weak, Binding.WEAK, np.where(shown, Binding.GLOBAL, Binding.LOCAL)),
        name=f.name_positions(primary),
        kind=kind,
    )
    for n in np.flatnonzero(common).tolist():
        size = int(value[n])
        if size >= 1 << 31:
            raise f.fail("a common symbol has an impossible size", f.table_at)
        # as link.exe and lld: the size's own power of two, up to 32
        align = min(32, 1 << max(size - 1, 0).bit_length())
        symbols["size"][n] = size
        symbols["value"][n] = max(align, aligned.get(names[n - first_global], 1))
    return symbols


def _weak(f: CoffFile, primary: Int64, numbers: Int64, symbols: Array) -> tuple[Int32, Int32]:
    """(fallback, search) of each symbol; a weak external with a definition beside it has that one.

    Source: PE format, "Auxiliary Format 3: Weak Externals".
    """
    fallback = np.full(len(primary), -1, np.int32)
    search = np.zeros(len(primary), np.int32)
    weak = np.flatnonzero(f.symbols["class"][primary] == coff.CLASS_WEAK_EXTERNAL)
    if not len(weak):
        return fallback, search
    weak = weak[symbols["atom"][weak] == SpecialIndex.UNDEFINED]
    silent = f.symbols["aux"][primary[weak]] < 1
    f.check(silent, "a weak external does not say what stands for it", f.table_at)
    aux = f.auxiliary(primary[weak], coff.WEAK_AUX)
    tags = aux["tag"].astype(np.int64)
    known = np.minimum(tags, len(numbers) - 1)
    lost = (tags >= len(numbers)) | (numbers[known] < 0)
    f.check(lost, "a weak external is said to stand for no symbol", f.table_at)
    target = numbers[known]
    f.check(target == weak, "a weak external is said to stand for itself", f.table_at)
    fallback[weak], search[weak] = target, aux["search"]
    placed = symbols["atom"][target] >= 0
    mine, defined = weak[placed], target[placed]
    for field in ("atom", "value", "kind"):
        symbols[field][mine] = symbols[field][defined]
    # the others are searched for in libraries only where they say so
    wanted = weak[~placed & (search[weak] == coff.WEAK_SEARCH_LIBRARY)]
    symbols["binding"][wanted] = Binding.GLOBAL
    return fallback, search


def _uses(f: CoffFile, atoms: _Atoms, rows: Array) -> tuple[Int32, Int64, Array]:
    """(atom, offset there, `Reach`) of each of the relocations, whose `atom` is a section yet."""
    section, offset = rows["atom"], rows["offset"].copy()
    atom, reach = atoms.section_atom[section], np.full(len(rows), Reach.FORWARD, np.uint32)
    first = atoms.entries[section]
    table = first >= 0
    entry = f.header.machine.entry
    if table.any():
        number = offset[table] // entry
        atom[table] = first[table] + number
        offset[table] -= number * entry
        # begin (and end, where there is one) is the function; what follows describes it
        describes = 4 if entry == 8 else 8
        reach[table] = np.where(offset[table] < describes, Reach.REVERSE, Reach.FORWARD)
    for n, name in enumerate(f.names):
        if name == kinds.EH_FRAME and atoms.section_atom[n] >= 0:
            mine = np.flatnonzero(section == n)
            is_function = isin(offset[mine], _function_fields(f, n))
            reach[mine[is_function]] = Reach.REVERSE
    return atom, offset, reach


def _function_fields(f: CoffFile, section: int) -> Int64:
    """The offsets in an `.eh_frame` at which FDEs name their functions.

    MinGW has it on i686. It stays whole: it lives with any function that it describes. Raises
    `ObjectError` for a record that is damaged.
    """

    def damaged(_section: int, _what: str, offset: int) -> ObjectError:
        begin = int(f.sections["offset"][section])
        return f.fail("a record of .eh_frame is damaged", begin + offset)

    octets = np.frombuffer(f.contents(section), np.uint8)
    whole, size = np.zeros(1, np.int64), np.array([len(octets)])
    records = read_records(octets, whole, whole, size, FrameRules(shortest=4), damaged)
    offsets: Int64 = records.start[records.pointer != 0] + PC_BEGIN
    return offsets


def _table(f: CoffFile, section: int, numbers: Int64) -> Int64:
    """The symbols that a section of symbol numbers lists."""
    contents = f.contents(section)
    listed = np.frombuffer(contents, "<u4", len(contents) // 4).astype(np.int64)
    known = np.minimum(listed, max(len(numbers) - 1, 0))
    name = f.names[section].decode(errors="surrogateescape")
    if len(contents) % 4 or (len(listed) and not len(numbers)):
        raise f.fail(f"the table {name} is damaged")
    f.check((listed >= len(numbers)) | (numbers[known] < 0), f"the table {name} lists no symbol")
    return numbers[known]


def _features(rows: Array) -> int:
    """The value of `@feat.00`, 0 where there is none."""
    static = (rows["class"] == coff.CLASS_STATIC) & (rows["section"] == coff.SYM_ABSOLUTE)
    named = np.ascontiguousarray(rows["name"][static]).view("S8") == b"@feat.00"
    values: Array = rows["value"][static][named]
    return int(values[0]) if len(values) else 0


def _asked(symbols: Array, relocations: Array, aliases: Int64, fallback: Int32) -> Int64:
    undefined = symbols["atom"] == SpecialIndex.UNDEFINED
    undefined &= symbols["binding"] == Binding.GLOBAL
    undefined[relocations["symbol"]] = False
    undefined[aliases] = False
    undefined[fallback[fallback >= 0]] = False
    return np.flatnonzero(undefined)


def _with_directives(unit: Unit, asked: Directives) -> Unit:
    """The unit with a root that needs what `/INCLUDE` names, and with `/ALTERNATENAME`s."""
    pairs = [name for pair in asked.alternate for name in pair]
    names = [*asked.included, *pairs]
    base = len(unit.symbols)
    binding = np.full(len(names), Binding.WEAK)
    binding[: len(asked.included)] = Binding.GLOBAL
    symbols = rows_of(SYMBOL, len(names), atom=SpecialIndex.UNDEFINED, binding=binding)
    flags = AtomFlag.ROOT | AtomFlag.SEPARATE
    root = rows_of(ATOM, 1, section=-1, align=1, flags=flags, contents=-1)
    included = base + np.arange(len(asked.included))
    rows = rows_of(RELOCATION, len(included), atom=len(unit.atoms), symbol=included)
    source = base + len(included) + 2 * np.arange(len(asked.alternate))
    alias = rows_of(EDGE, len(source), source=source, target=source + 1)
    native = coff_unit(unit)
    none = np.full(len(names), -1, np.int32)
    native = replace(
        native,
        atom_kind=np.concatenate([native.atom_kind, np.full(1, -1, np.int32)]),
        fallback=np.concatenate([native.fallback, none]),
        search=np.concatenate([native.search, none]),
    )
    return replace(
        unit,
        atoms=np.concatenate([unit.atoms, root]),
        symbols=np.concatenate([unit.symbols, symbols]),
        names=[*unit.names, *names],
        relocations=np.concatenate([unit.relocations, rows]),
        aliases=np.concatenate([unit.aliases, alias]),
        native=native,
    )


__all__ = ["CoffUnit", "read"]
