"""Debug sections as they come: their contents, no longer compressed, and their relocations.

Sources: gABI, "Section Compression" (Elf32_Chdr, Elf64_Chdr); GNU binutils, `.zdebug_*` (`ZLIB` and
the size in eight bytes, big-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.elf import compress
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import ElfUnit, section_name
from cargo_strip_hook.formats.elf.machine import TYPES, Machine
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array, Int64, Program, Unit
from cargo_strip_hook.link.pages import release

_MOST_ALIGN = 1 << 16  # bytes; no debug information has more than a page's
_BATCH = 1 << 18  # relocations that are looked at together
_OLD = b".zdebug_"
_OLD_HEADER = struct.Struct(">4sQ")

SLOT = np.dtype(
    [
        ("unit", "<i4"),  # number in the program
        ("section", "<i4"),  # index in the unit's file
        ("out", "<i4"),  # position in `Slots.names`
        ("align", "<i4"),  # bytes
        ("size", "<i8"),  # bytes, not compressed
    ]
)


@dataclass(frozen=True, slots=True)
class Slots:
    """The debug sections of some units, in the order of the output.

    `rows` (SLOT) are sorted by output section, then unit. `headers[i]` is (type, flags, entry
    size) of output section `i`. `of_section[section_base[unit] + section]` is a slot, -1 for none.
    """

    rows: Array
    names: tuple[bytes, ...]
    headers: tuple[tuple[int, int, int], ...]
    of_section: Array
    section_base: Int64


@dataclass(frozen=True, slots=True)
class Batch:
    """Relocations of neighbouring slots of one output section, in the output's form.

    `slots` are their numbers, `counts` how many relocations each has. `addend` is that of `rows`
    for RELA, and what REL keeps in the contents.
    """

    slots: Array
    counts: Int64
    rows: Array
    addend: Array


def find_slots(program: Program, units: Sequence[int]) -> Slots:
    """All debug sections of `units`. Raises `ObjectError` for compression we cannot undo."""
    order: dict[bytes, int] = {}
    headers: list[tuple[int, int, int]] = []
    found: list[tuple[int, int, int, int, int]] = []
    inflated = streams = 0  # bytes of all compressed sections
    for number in units:
        unit = program.units[number]
        native: ElfUnit = unit.native
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
            out = order.setdefault(name, len(order))
            if out == len(headers):
                headers.append((kind, flags, entsize))
            else:
                first, seen, width = headers[out]
                if width != entsize:
                    seen, width = 0, 0
                headers[out] = (first, seen & flags, width)
            found.append((out, number, section, max(align, 1), size))
    found.sort()
    rows = np.zeros(len(found), SLOT)
    for column, name in enumerate(("out", "unit", "section", "align", "size")):
        rows[name] = [row[column] for row in found]
    counts = [len(u.native.sections) for u in program.units]
    section_base = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    of_section = np.full(int(section_base[-1]), -1, np.int32)
    of_section[section_base[rows["unit"]] + rows["section"]] = np.arange(len(rows))
    return Slots(rows, tuple(order), tuple(headers), of_section, section_base)


def _old_style(unit: Unit, section: int) -> bool:
    return unit.native.names16[section].startswith(_OLD)  # type: ignore[no-any-return]


def _compressed(unit: Unit, section: int) -> tuple[int, int, int, int]:
    """(kind, size, alignment, bytes of the header) of a compressed section."""
    header = unit.native.sections[section]
    start, size = int(header["offset"]), int(header["size"])
    if int(header["flags"]) & elf.SHF_COMPRESSED:
        layout = compress.header_of(unit.native.records)
        if size >= layout.size:
            return (*layout.unpack_from(unit.data, start), layout.size)
    elif size >= _OLD_HEADER.size:
        magic, plain = _OLD_HEADER.unpack_from(unit.data, start)
        if magic == b"ZLIB":
            align = int(header["align"])
            return (elf.ELFCOMPRESS_ZLIB, plain, align, _OLD_HEADER.size)
    raise ObjectError(
        "a compressed section of debug information has no header", member=unit.name, offset=start
    )


def _plain_shape(unit: Unit, section: int) -> tuple[int, int]:
    """(size, alignment) of the contents of a compressed section."""
    kind, size, align, skip = _compressed(unit, section)
    header = unit.native.sections[section]
    start = int(header["offset"])
    if kind not in compress.KINDS:
        raise ObjectError(
            f"debug information is compressed in a way that is not supported (type {kind})",
            member=unit.name,
            offset=start,
            help="build with uncompressed debug information, or use `--strip debuginfo`",
        )
    if align & (align - 1) or align > _MOST_ALIGN:
        raise ObjectError(
            "a compressed section has an alignment that is no power of two",
            member=unit.name,
            offset=start,
        )
    if not compress.believable(size, int(header["size"]) - skip):
        raise _unbelievable(unit, section, size, int(header["size"]) - skip)
    return size, align


def _unbelievable(unit: Unit, section: int, size: int, stream: int) -> ObjectError:
    return ObjectError(
        f"debug information that is compressed to {stream} bytes says that it has {size}",
        member=unit.name,
        offset=int(unit.native.sections["offset"][section]),
        help=(
            "so much of it would fill the memory, and no compiler makes it",
            "build with uncompressed debug information, or use `--strip debuginfo`",
        ),
    )


def plain(unit: Unit, section: int) -> memoryview | bytes:
    """The contents of a section, no longer compressed. Raises `ObjectError` for damaged ones."""
    header = unit.native.sections[section]
    start, size = int(header["offset"]), int(header["size"])
    view = unit.data[start : start + size]
    if not int(header["flags"]) & elf.SHF_COMPRESSED and not _old_style(unit, section):
        return view
    kind, wanted, _, skip = _compressed(unit, section)
    try:
        return compress.decompress(kind, view[skip:], wanted)
    except ValueError as e:
        raise ObjectError(
            f"a compressed section is damaged: {e}", member=unit.name, offset=start
        ) from e


def batches(program: Program, machine: Machine, slots: Slots) -> Iterator[Batch]:
    """All relocations of the slots, in order. Raises `ObjectError` where they are out of range."""
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
    found: list[list[tuple[int, int, int]]] = [[] for _ in slots.rows]
    for number in sorted(set(slots.rows["unit"].tolist())):
        unit = program.units[number]
        sections = unit.native.sections
        types = sections["type"]
        inputs = np.flatnonzero((types == elf.SHT_RELA) | (types == elf.SHT_REL))
        first = int(slots.section_base[number])
        mine = slots.of_section[first + sections["info"][inputs].astype(np.int64)]
        inputs, mine = inputs[mine >= 0], mine[mine >= 0]
        records = unit.native.records
        wanted = np.where(types[inputs] == elf.SHT_REL, records.rel.itemsize, records.rela.itemsize)
        sizes = sections["size"][inputs].astype(np.int64)
        counts = sizes // wanted
        odd = (sections["entsize"][inputs] != wanted) | (sizes % wanted != 0)
        odd &= sizes != 0
        if odd.any():
            bad = int(inputs[odd.argmax()])
            name = section_name(unit.native, bad).decode(errors="surrogateescape")
            raise ObjectError(
                f"{name}: a relocation section has entries of an unknown size",
                member=unit.name,
                offset=int(sections["offset"][bad]),
            )
        for slot, *entry in zip(
            mine.tolist(),
            inputs.tolist(),
            sections["offset"][inputs].tolist(),
            counts.tolist(),
            strict=True,
        ):
            if entry[2]:
                found[slot].append((entry[0], entry[1], entry[2]))
    return found


def _batch(
    program: Program,
    machine: Machine,
    slots: Slots,
    chosen: list[int],
    tables: list[list[tuple[int, int, int]]],
) -> Batch:
    wanted = elf.SHT_REL if machine.rel else elf.SHT_RELA
    parts = []
    counts = []
    for slot in chosen:
        unit = program.units[int(slots.rows["unit"][slot])]
        native: ElfUnit = unit.native
        dtype = native.records.rel if machine.rel else native.records.rela
        for section, offset, count in tables[slot]:
            if int(native.sections["type"][section]) != wanted:
                raise ObjectError(
                    "relocations of debug information have a form that this architecture does "
                    "not use",
                    member=unit.name,
                    offset=offset,
                    help="use `--strip debuginfo`",
                )
            parts.append(np.frombuffer(unit.data, np.uint8, count * dtype.itemsize, offset))
        counts.append(sum(count for _, _, count in tables[slot]))
    rows = np.concatenate(parts).view(dtype)  # as bytes: joining records takes far longer
    for slot in chosen:
        data = program.units[int(slots.rows["unit"][slot])].data
        for _, offset, count in tables[slot]:
            release(data[offset : offset + count * dtype.itemsize])
    numbers = np.array(chosen, np.int64)
    count_of = np.array(counts, np.int64)
    addend = rows["offset"] if machine.rel else rows["addend"]  # REL: read below
    batch = Batch(numbers, count_of, rows, addend)
    records: elf.Records = program.units[0].native.records
    limits = np.diff(program.symbol_base)[slots.rows["unit"][numbers]]
    symbol = rows["info"] >> records.symbol_shift
    bad = symbol >= np.repeat(limits, count_of)
    bad |= rows["offset"] >= np.repeat(slots.rows["size"][numbers], count_of)
    if bad.any():
        raise out_of_range(program, slots, batch, int(bad.argmax()))
    return (
        replace(batch, addend=_implicit(program, machine, slots, batch)) if machine.rel else batch
    )


def out_of_range(program: Program, slots: Slots, batch: Batch, row: int) -> ObjectError:
    """The error for a relocation of a batch."""
    return _error("a relocation of debug information is out of range", program, slots, batch, row)


def overlapping(program: Program, slots: Slots, batch: Batch, row: int) -> ObjectError:
    """The error for a relocation of a batch that is at the field of another one."""
    return _error("two relocations of debug information overlap", program, slots, batch, row)


def _error(what: str, program: Program, slots: Slots, batch: Batch, row: int) -> ObjectError:
    which = np.searchsorted(np.cumsum(batch.counts), row, side="right")
    slot = slots.rows[batch.slots[which]]
    unit = program.units[int(slot["unit"])]
    return ObjectError(
        what,
        member=unit.name,
        offset=int(unit.native.sections["offset"][slot["section"]]),
    )


def _implicit(program: Program, machine: Machine, slots: Slots, batch: Batch) -> Int64:
    """The addends that REL keeps in the contents."""
    rows = batch.rows
    addend = np.zeros(len(rows), np.int64)
    kinds = rows["info"] & program.units[0].native.records.type_mask
    implicit = machine.implicit_types[np.minimum(kinds, TYPES - 1)]
    end = 0
    for slot, count in zip(batch.slots.tolist(), batch.counts.tolist(), strict=True):
        begin, end = end, end + count
        unit = program.units[int(slots.rows["unit"][slot])]
        octets = np.frombuffer(plain(unit, int(slots.rows["section"][slot])), np.uint8)
        for field in fields.FIELDS:
            mine = np.flatnonzero(implicit[begin:end] == field) + begin
            at = rows["offset"][mine].astype(np.int64)
            if len(mine) and (at + fields.width(field) > len(octets)).any():
                raise out_of_range(program, slots, batch, int(mine[0]))
            if len(mine):
                addend[mine] = fields.load(octets, at, field, unit.native.records.order)
    return addend


def stored_addends(
    machine: Machine, unit: Unit, kind: Array, offset: Int64, addend: Int64
) -> tuple[tuple[Int64, Array], ...]:
    """(offsets, uint8[n, width]) of what the contents get where relocations have no addend."""
    if not machine.rel or not len(kind):
        return ()
    found = []
    implicit = machine.implicit_types[np.minimum(kind, TYPES - 1)]
    for field in fields.FIELDS:
        mine = np.flatnonzero(implicit == field)
        if len(mine):
            blank = np.zeros((len(mine), fields.width(field)), np.uint8)
            octets = fields.encode(field, addend[mine], blank, unit.native.records.order)
            found.append((offset[mine], octets))
    if (implicit == Field.NONE).any():
        raise ObjectError(
            "a relocation of debug information has a type whose addend is unknown",
            member=unit.name,
            help="use `--strip debuginfo`",
        )
    return tuple(found)


__all__ = [
    "SLOT",
    "Batch",
    "Slots",
    "batches",
    "find_slots",
    "out_of_range",
    "overlapping",
    "plain",
    "stored_addends",
]
