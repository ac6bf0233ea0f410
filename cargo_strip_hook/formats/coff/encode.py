"""Encodes one COFF object: headers, contents, relocations, symbols, in that order.

Source: Microsoft, "PE Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.addresses import Placed
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.formats.coff.symtab import OutputSections
from cargo_strip_hook.link.model import Array, Chunk, Int64
from cargo_strip_hook.link.output import OutputObject, octets


@dataclass(frozen=True, slots=True)
class Extra:
    """A section without a relocation that follows those of the layout."""

    name: bytes
    flags: int
    contents: bytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CoffOutput(OutputObject):
    """`comdats`: what linkers do with each section of `placed`; `extra` ones stand behind."""

    placed: Placed
    machine: Machine
    comdats: OutputSections
    extra: Sequence[Extra]

    def encode(self) -> tuple[int, Iterator[Chunk]]:
        """See `OutputObject`."""
        placed, contents, sections, table = self.placed, self.contents, self.comdats, self.symbols
        count = len(placed.kinds)
        total = count + len(self.extra)
        big = count > coff.MOST_SECTIONS
        if big != (total > coff.MOST_SECTIONS):
            raise LinkError(f"{total} sections are just at the limit of what an object can have")
        strings = table.strings
        end = (coff.BIG_HEADER if big else coff.HEADER).size + total * coff.SECTION.itemsize
        headers = np.zeros(total, coff.SECTION)
        flags = np.array([k.flags for k in placed.kinds], np.int64)
        align = placed.sections.align
        if len(align) and int(align.max()) > coff.MOST_ALIGN:
            raise LinkError(f"an alignment of {int(align.max())} bytes is more than COFF can say")
        flags |= (np.log2(np.maximum(align, 1)).astype(np.int64) + 1) << coff.SCN_ALIGN_SHIFT
        flags[sections.selection != 0] |= coff.SCN_LNK_COMDAT
        rows, counts = _relocations(self)
        overflow = counts > sections.relocations
        flags[overflow] |= coff.SCN_LNK_NRELOC_OVFL

        headers["flags"][:count] = flags
        headers["size"][:count] = sections.size
        headers["offset"][:count] = np.where(
            placed.sections.stored & (sections.size > 0), end + placed.sections.start, 0
        )
        end += sum(map(len, contents))
        body: list[Chunk] = [octets(one) for one in contents]
        first = end + coff.RELOCATION.itemsize * (np.cumsum(counts) - counts)
        headers["relocations"][:count] = np.where(counts > 0, first, 0)
        headers["relocation_count"][:count] = np.minimum(counts, coff.MOST_RELOCATIONS)
        body.append(octets(rows))
        end += rows.nbytes
        for number, one in enumerate(self.extra, start=count):
            headers["size"][number] = len(one.contents)
            headers["offset"][number] = end
            headers["flags"][number] = one.flags
            body.append(one.contents)
            end += len(one.contents)
        names = [k.name for k in placed.kinds] + [e.name for e in self.extra]
        headers["name"], more = _section_names(names, len(strings))
        strings += more
        if end >= 1 << 32:
            raise LinkError("the object would be larger than 4 GiB, which COFF cannot say")
        body.append(octets(table.records))
        body += [len(strings).to_bytes(4, "little"), strings[4:]]
        head = _header(self.machine.number, total, end, len(table.records), big=big)
        size = end + table.records.nbytes + len(strings)
        return size, iter([head, headers.tobytes(), *body])


def _header(machine: int, sections: int, symbols_at: int, symbols: int, *, big: bool) -> bytes:
    """The header of a file; `symbols_at`: the offset of so many symbols in it."""
    if not big:
        return coff.HEADER.pack(machine, sections, 0, symbols_at, symbols, 0, 0)
    none = (0, 0, 0, 0)
    return coff.BIG_HEADER.pack(
        0, 0xFFFF, 2, machine, 0, coff.BIG_CLASS, *none, sections, symbols_at, symbols
    )


def _section_names(names: list[bytes], strings: int) -> tuple[Array, bytes]:
    """(name fields of the headers, what has to follow the string table of `strings` bytes)."""
    more = b""
    known: dict[bytes, bytes] = {}
    fields = []
    for name in names:
        if len(name) > 8 and name not in known:
            where = strings + len(more)
            if where > 9_999_999:
                raise LinkError("the symbol names are too long for the names of sections")
            known[name] = b"/%d" % where
            more += name + b"\0"
        fields.append(known.get(name, name))
    return np.array(fields or [b""], "S8")[: len(names)], more


def _relocations(o: CoffOutput) -> tuple[Array, Int64]:
    """(records of all sections, their number for each section).

    Where there are more than a header can say, one more goes first and holds the number.
    """
    rows = np.zeros(len(o.relocations.section), coff.RELOCATION)
    rows["address"] = o.relocations.offset
    rows["type"] = o.relocations.type
    rows["symbol"] = o.symbols.numbers(o.relocations)
    counts = o.comdats.relocations.copy()
    overflow = np.flatnonzero(counts >= coff.MOST_RELOCATIONS)
    if len(overflow):
        starts = np.cumsum(counts) - counts
        more = np.zeros(len(overflow), coff.RELOCATION)
        more["address"] = counts[overflow] + 1
        rows = np.insert(rows, starts[overflow], more)
        counts[overflow] += 1
    return rows, counts


__all__ = ["CoffOutput", "Extra"]
