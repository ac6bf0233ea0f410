"""Debug sections as they come: their contents, no longer compressed, and their relocations.

Sources: gABI, "Section Compression" (Elf32_Chdr, Elf64_Chdr); GNU binutils, `.zdebug_*` (`ZLIB` and
the size in eight bytes, big-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.elf import compress
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.crel import read_compact
from cargo_strip_hook.formats.elf.elements import name_elements
from cargo_strip_hook.formats.elf.file import elf_unit, section_name
from cargo_strip_hook.formats.elf.machine import TYPES, Machine
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.arrays import begins, isin, join, rows_of
from cargo_strip_hook.link.contributions import collected
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array, Bool, Int64, Program, Unit
from cargo_strip_hook.link.pages import release
from cargo_strip_hook.link.reading import uleb

_MOST_ALIGN = 1 << 16  # bytes; no debug information has more than a page's
_BATCH = 1 << 18  # relocations that are looked at together
_OLD = b".zdebug_"
_OLD_HEADER = struct.Struct(">4sQ")


@dataclass(frozen=True, slots=True)
class Slots:
    """The debug sections of some units, in the order of the output: a slot is one of `rows`.

    `rows` (CONTRIBUTION, with the sizes of contents that are no longer compressed) are sorted by
    output section, then unit. `names` and `headers` are by output section; a header is type,
    flags and entry size. `of_section[section_base[unit] + section]` is a slot, -1 for none.
    """

    rows: Array
    names: tuple[bytes, ...]
    headers: tuple[tuple[int, int, int], ...]
    of_section: Array
    section_base: Int64


@dataclass(frozen=True, slots=True)
class Batch:
    """Relocations of neighbouring slots of one output section.

    `slots` are their numbers, `counts` how many relocations each has. `symbol` is the program-wide
    symbol of each. `addend` counts from it: for REL it is what the contents hold.
    """

    slots: Int64
    counts: Int64
    rows: Array  # REL or RELA
    symbol: Array
    addend: Int64
    explicit: Bool  # whether each has an addend of its own, none in the contents


def find_slots(program: Program, units: Sequence[int]) -> Slots:
    """All debug sections of `units`. Raises `ObjectError` for compression we cannot undo."""
    headers: dict[bytes, tuple[int, int, int]] = {}
    sections: list[tuple[bytes, int, int, int, int]] = []
    inflated = streams = 0  # bytes of all compressed sections
    for number in units:
        unit = program.units[number]
        native = elf_unit(unit)
        if not native.debug:
            continue
        chosen = list(native.debug)
        table = native.sections[chosen]
        columns = (table[name].tolist() for name in ("type", "flags", "entsize", "size", "align"))
        names = native.names16[chosen].tolist()
        for section, name, kind, flags, entsize, size, align in zip(
            chosen, names, *columns, strict=True
        ):
            if len(name) == 16:
                name = section_name(native, section)
            if flags & elf.SHF_COMPRESSED or name.startswith(_OLD):
                streams += size
                size, align = _plain_shape(unit, section)
                inflated += size
                if not compress.believable(inflated, streams):
                    raise _unbelievable(unit, section, inflated, streams)
                name = b".debug_" + name[len(_OLD) :] if name.startswith(_OLD) else name
            flags &= elf.SHF_MERGE | elf.SHF_STRINGS
            first, common, width = headers.setdefault(name, (kind, flags, entsize))
            if width != entsize:
                common, width = 0, 0
            headers[name] = (first, common & flags, width)
            sections.append((name, number, section, max(align, 1), size))
    rows, out_names = collected(sections)
    section_base = begins(np.array([len(elf_unit(u).sections) for u in program.units], np.int64))
    of_section = np.full(int(section_base[-1]), -1, np.int32)
    of_section[section_base[rows["unit"]] + rows["section"]] = np.arange(len(rows))
    return Slots(rows, out_names, tuple(headers.values()), of_section, section_base)


def _old_style(unit: Unit, section: int) -> bool:
    return bool(elf_unit(unit).names16[section].startswith(_OLD))


def _compressed(unit: Unit, section: int) -> tuple[int, int, int, int]:
    """(kind, size, alignment, bytes of the header) of a compressed section."""
    native = elf_unit(unit)
    header = native.sections[section]
    start, size = int(header["offset"]), int(header["size"])
    if int(header["flags"]) & elf.SHF_COMPRESSED:
        layout = compress.header_of(native.records)
        if size >= layout.size:
            return (*layout.unpack_from(unit.data, start), layout.size)
    elif size >= _OLD_HEADER.size:
        magic, plain = _OLD_HEADER.unpack_from(unit.data, start)
        if magic == b"ZLIB":
            align = int(header["align"])
            return (elf.ELFCOMPRESS_ZLIB, plain, align, _OLD_HEADER.size)
    raise bad_section(unit, section, "a compressed section of debug information has no header")


def _plain_shape(unit: Unit, section: int) -> tuple[int, int]:
    """(size, alignment) of the contents of a compressed section."""
    kind, size, align, skip = _compressed(unit, section)
    if kind not in compress.KINDS:
        raise bad_section(
            unit,
            section,
            f"debug information is compressed in a way that is not supported (type {kind})",
            "build with uncompressed debug information, or use `--strip debuginfo`",
        )
    if align & (align - 1) or align > _MOST_ALIGN:
        what = "a compressed section has an alignment that is no power of two"
        raise bad_section(unit, section, what)
    stream = int(elf_unit(unit).sections["size"][section]) - skip
    if not compress.believable(size, stream):
        raise _unbelievable(unit, section, size, stream)
    return size, align


def bad_section(unit: Unit, section: int, what: str, *help: str) -> ObjectError:
    """The error for a section of a file, which tells where its contents are."""
    offset = int(elf_unit(unit).sections["offset"][section])
    return ObjectError(what, member=unit.name, offset=offset, help=help)


def _unbelievable(unit: Unit, section: int, size: int, stream: int) -> ObjectError:
    return bad_section(
        unit,
        section,
        f"debug information that is compressed to {stream} bytes says that it has {size}",
        "so much of it would fill the memory, and no compiler makes it",
        "build with uncompressed debug information, or use `--strip debuginfo`",
    )


def plain(unit: Unit, section: int) -> memoryview | bytes:
    """The contents of a section, no longer compressed. Raises `ObjectError` for damaged ones."""
    header = elf_unit(unit).sections[section]
    start, size = int(header["offset"]), int(header["size"])
    view = unit.data[start : start + size]
    if not int(header["flags"]) & elf.SHF_COMPRESSED and not _old_style(unit, section):
        return view
    kind, wanted, _, skip = _compressed(unit, section)
    try:
        return compress.decompress(kind, view[skip:], wanted)
    except ValueError as e:
        raise bad_section(unit, section, f"a compressed section is damaged: {e}") from e


def batches(program: Program, machine: Machine, slots: Slots) -> Iterator[Batch]:
    """All relocations of the slots, in order. Raises `ObjectError` where they are out of range.

    One to an element of a section that linkers merge is to the element's own symbol.
    """
    tables = _relocation_sections(program, slots)
    waiting: list[int] = []
    total = 0
    for slot, (out, inputs) in enumerate(zip(slots.rows["out"].tolist(), tables, strict=True)):
        if not inputs:
            continue
        count = sum(size for _, _, size in inputs)
        if waiting and (total + count > _BATCH or out != slots.rows["out"][waiting[0]]):
            yield _batch(program, machine, slots, waiting, tables)
            waiting, total = [], 0
        waiting.append(slot)
        total += count
    if waiting:
        yield _batch(program, machine, slots, waiting, tables)


def _relocation_sections(program: Program, slots: Slots) -> list[list[tuple[int, int, int]]]:
    """(section, offset in the file, entries) of the relocation sections of each slot.

    Raises `ObjectError` for entries of another size than the architecture's.
    """
    tables: list[list[tuple[int, int, int]]] = [[] for _ in slots.rows]
    for number in sorted(set(slots.rows["unit"].tolist())):
        unit = program.units[number]
        native = elf_unit(unit)
        sections = native.sections
        types = sections["type"]
        compact = isin(types, np.array(elf.COMPACT))
        inputs = np.flatnonzero((types == elf.SHT_RELA) | (types == elf.SHT_REL) | compact)
        first = int(slots.section_base[number])
        mine = slots.of_section[first + sections["info"][inputs].astype(np.int64)]
        inputs, mine = inputs[mine >= 0], mine[mine >= 0]
        counts = _counts(unit, inputs, compact[inputs])
        for slot, *entry in zip(
            mine.tolist(),
            inputs.tolist(),
            sections["offset"][inputs].tolist(),
            counts.tolist(),
            strict=True,
        ):
            if entry[2]:
                tables[slot].append((entry[0], entry[1], entry[2]))
    return tables


def _counts(unit: Unit, tables: Int64, compact: Bool) -> Int64:
    """How many entries relocation sections have, those of `compact` ones as they say themselves."""
    native = elf_unit(unit)
    sections, records = native.sections, native.records
    is_rel = sections["type"][tables] == elf.SHT_REL
    wanted = np.where(is_rel, records.rel.itemsize, records.rela.itemsize)
    sizes = sections["size"][tables].astype(np.int64)
    counts: Int64 = sizes // wanted
    odd = (sections["entsize"][tables] != wanted) | (sizes % wanted != 0)
    odd &= (sizes != 0) & ~compact
    if odd.any():
        bad = int(tables[odd.argmax()])
        name = section_name(native, bad).decode(errors="surrogateescape")
        what = f"{name}: a relocation section has entries of an unknown size"
        raise bad_section(unit, bad, what)
    for row in np.flatnonzero(compact).tolist():
        start, size = int(sections["offset"][tables[row]]), int(sizes[row])
        try:
            count = uleb(unit.data[start : start + size], 0)[0] >> 3
        except IndexError as e:
            raise _bad_table(unit, int(tables[row])) from e
        if count > size:  # an entry has a byte at least
            raise _bad_table(unit, int(tables[row]))
        counts[row] = count
    return counts


def _bad_table(unit: Unit, section: int) -> ObjectError:
    return bad_section(unit, section, "relocations in the compact form are damaged")


def _batch(
    program: Program,
    machine: Machine,
    slots: Slots,
    chosen: list[int],
    tables: list[list[tuple[int, int, int]]],
) -> Batch:
    rows, explicit = _entries(program, machine, slots, chosen, tables)
    numbers = np.array(chosen, np.int64)
    count_of = np.array([sum(count for _, _, count in tables[s]) for s in chosen], np.int64)
    owner = np.repeat(slots.rows["unit"][numbers], count_of)
    symbol = (rows["info"] >> elf_unit(program.units[0]).records.symbol_shift).astype(np.int64)
    addend = rows["addend"] if explicit.any() else rows["offset"]  # in the contents: read below
    batch = Batch(numbers, count_of, rows, symbol, addend, explicit)
    bad = symbol >= np.diff(program.symbol_base)[owner]
    bad |= rows["offset"] >= np.repeat(slots.rows["size"][numbers], count_of)
    if bad.any():
        raise out_of_range(program, slots, batch, int(bad.argmax()))
    if not explicit.all():
        addend = np.where(explicit, addend, _implicit(program, machine, slots, batch))
    symbol = (symbol + program.symbol_base[owner]).astype(np.int32)
    symbol, addend = name_elements(program, symbol, addend)
    return Batch(numbers, count_of, rows, symbol, addend, explicit)


def _entries(
    program: Program,
    machine: Machine,
    slots: Slots,
    chosen: list[int],
    tables: list[list[tuple[int, int, int]]],
) -> tuple[Array, Bool]:
    """(the entries of all tables of the chosen slots, whether each has an addend of its own).

    Raises `ObjectError` for entries without addends where the architecture keeps none in contents,
    and for compact ones that are damaged.
    """
    entries, explicit = [], []
    for slot in chosen:
        unit = program.units[int(slots.rows["unit"][slot])]
        for section, offset, count in tables[slot]:
            rows, own = _rows(unit, section, offset, count)
            if not own and not machine.rel:
                raise bad_section(
                    unit,
                    section,
                    "relocations of debug information have a form that this architecture does "
                    "not use",
                    "use `--strip debuginfo`",
                )
            entries.append(rows)
            explicit.append(own)
    counts = [len(rows) for rows in entries]
    if any(explicit) and not all(explicit):
        record = elf_unit(program.units[0]).records.rela
        entries = [
            rows if own else rows_of(record, len(rows), offset=rows["offset"], info=rows["info"])
            for rows, own in zip(entries, explicit, strict=True)
        ]
    joined = join(entries)
    for slot in chosen:
        unit = program.units[int(slots.rows["unit"][slot])]
        for section, offset, _ in tables[slot]:
            size = int(elf_unit(unit).sections["size"][section])
            release(unit.data[offset : offset + size])
    return joined, np.repeat(explicit, counts)


def _rows(unit: Unit, section: int, offset: int, count: int) -> tuple[Array, bool]:
    """(the entries of one table, whether they have addends of their own)."""
    native = elf_unit(unit)
    records, kind = native.records, int(native.sections["type"][section])
    if kind not in elf.COMPACT:
        record = records.rel if kind == elf.SHT_REL else records.rela
        return np.frombuffer(unit.data, record, count, offset), kind != elf.SHT_REL
    size = np.array([int(native.sections["size"][section])])
    octets = np.frombuffer(unit.data, np.uint8)
    table = read_compact(octets, np.array([offset]), size, records)
    if table.damaged[0]:
        raise _bad_table(unit, section)
    if table.addends[0]:
        return table.rows, True
    return rows_of(records.rel, count, offset=table.rows["offset"], info=table.rows["info"]), False


def out_of_range(program: Program, slots: Slots, batch: Batch, row: int) -> ObjectError:
    """The error for a relocation of a batch."""
    return _bad_row(program, slots, batch, row, "a relocation of debug information is out of range")


def overlapping(program: Program, slots: Slots, batch: Batch, row: int) -> ObjectError:
    """The error for a relocation of a batch that is at the field of another one."""
    return _bad_row(program, slots, batch, row, "two relocations of debug information overlap")


def _bad_row(program: Program, slots: Slots, batch: Batch, row: int, what: str) -> ObjectError:
    slot = slots.rows[batch.slots[np.searchsorted(np.cumsum(batch.counts), row, side="right")]]
    return bad_section(program.units[int(slot["unit"])], int(slot["section"]), what)


def _implicit(program: Program, machine: Machine, slots: Slots, batch: Batch) -> Int64:
    """The addends that REL keeps in the contents."""
    rows = batch.rows
    addend = np.zeros(len(rows), np.int64)
    types = rows["info"] & elf_unit(program.units[0]).records.type_mask
    implicit = machine.implicit_types[np.minimum(types, TYPES - 1)]
    end = 0
    for slot, count in zip(batch.slots.tolist(), batch.counts.tolist(), strict=True):
        begin, end = end, end + count
        unit = program.units[int(slots.rows["unit"][slot])]
        octets = np.frombuffer(plain(unit, int(slots.rows["section"][slot])), np.uint8)
        for field in fields.FIELDS:
            mine = np.flatnonzero(implicit[begin:end] == field) + begin
            offset = rows["offset"][mine].astype(np.int64)
            if len(mine) and (offset + fields.width(field) > len(octets)).any():
                raise out_of_range(program, slots, batch, int(mine[0]))
            if len(mine):
                addend[mine] = fields.load(octets, offset, field, elf_unit(unit).records.order)
    return addend


def stored_addends(
    machine: Machine, unit: Unit, kind: Array, offset: Int64, addend: Int64
) -> tuple[tuple[Int64, Array], ...]:
    """(offsets, uint8[n, width]) of what the contents get where relocations have no addend."""
    if not machine.rel or not len(kind):
        return ()
    stored = []
    implicit = machine.stored_types[np.minimum(kind, TYPES - 1)]
    for field in fields.FIELDS:
        mine = np.flatnonzero(implicit == field)
        if len(mine):
            blank = np.zeros((len(mine), fields.width(field)), np.uint8)
            octets = fields.encode(field, addend[mine], blank, elf_unit(unit).records.order)
            stored.append((offset[mine], octets))
    if (implicit == Field.NONE).any():
        raise ObjectError(
            "a relocation of debug information has a type whose addend is unknown",
            member=unit.name,
            help="use `--strip debuginfo`",
        )
    return tuple(stored)
