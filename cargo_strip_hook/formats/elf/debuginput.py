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
from cargo_strip_hook.formats.elf.elements import name_elements
from cargo_strip_hook.formats.elf.file import elf_unit, section_name
from cargo_strip_hook.formats.elf.machine import TYPES, Machine
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.arrays import begins
from cargo_strip_hook.link.contributions import collected
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array, Int64, Program, Unit
from cargo_strip_hook.link.pages import release

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
    """Relocations of neighbouring slots of one output section, in the output's form.

    `slots` are their numbers, `counts` how many relocations each has. `symbol` is the program-wide
    symbol of each. `addend` counts from it: for REL it is what the contents hold.
    """

    slots: Int64
    counts: Int64
    rows: Array  # REL or RELA
    symbol: Array
    addend: Int64


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
        sections, records = native.sections, native.records
        types = sections["type"]
        inputs = np.flatnonzero((types == elf.SHT_RELA) | (types == elf.SHT_REL))
        first = int(slots.section_base[number])
        mine = slots.of_section[first + sections["info"][inputs].astype(np.int64)]
        inputs, mine = inputs[mine >= 0], mine[mine >= 0]
        wanted = np.where(types[inputs] == elf.SHT_REL, records.rel.itemsize, records.rela.itemsize)
        sizes = sections["size"][inputs].astype(np.int64)
        counts = sizes // wanted
        odd = (sections["entsize"][inputs] != wanted) | (sizes % wanted != 0)
        odd &= sizes != 0
        if odd.any():
            bad = int(inputs[odd.argmax()])
            name = section_name(native, bad).decode(errors="surrogateescape")
            what = f"{name}: a relocation section has entries of an unknown size"
            raise bad_section(unit, bad, what)
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


def _batch(
    program: Program,
    machine: Machine,
    slots: Slots,
    chosen: list[int],
    tables: list[list[tuple[int, int, int]]],
) -> Batch:
    wanted = elf.SHT_REL if machine.rel else elf.SHT_RELA
    entries = []
    counts = []
    for slot in chosen:
        unit = program.units[int(slots.rows["unit"][slot])]
        native = elf_unit(unit)
        dtype = native.relocation
        for section, offset, count in tables[slot]:
            if int(native.sections["type"][section]) != wanted:
                raise bad_section(
                    unit,
                    section,
                    "relocations of debug information have a form that this architecture does "
                    "not use",
                    "use `--strip debuginfo`",
                )
            entries.append(np.frombuffer(unit.data, np.uint8, count * dtype.itemsize, offset))
        counts.append(sum(count for _, _, count in tables[slot]))
    rows = np.concatenate(entries).view(dtype)  # as bytes: joining records takes far longer
    for slot in chosen:
        data = program.units[int(slots.rows["unit"][slot])].data
        for _, offset, count in tables[slot]:
            release(data[offset : offset + count * dtype.itemsize])
    numbers, count_of = np.array(chosen, np.int64), np.array(counts, np.int64)
    owner = np.repeat(slots.rows["unit"][numbers], count_of)
    symbol = (rows["info"] >> elf_unit(program.units[0]).records.symbol_shift).astype(np.int64)
    addend = rows["offset"] if machine.rel else rows["addend"]  # REL: read below
    batch = Batch(numbers, count_of, rows, symbol, addend)
    bad = symbol >= np.diff(program.symbol_base)[owner]
    bad |= rows["offset"] >= np.repeat(slots.rows["size"][numbers], count_of)
    if bad.any():
        raise out_of_range(program, slots, batch, int(bad.argmax()))
    if machine.rel:
        addend = _implicit(program, machine, slots, batch)
    symbol = (symbol + program.symbol_base[owner]).astype(np.int32)
    symbol, addend = name_elements(program, symbol, addend)
    return Batch(numbers, count_of, rows, symbol, addend)


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
    implicit = machine.implicit_types[np.minimum(kind, TYPES - 1)]
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
