"""The file of an ELF relocatable object: headers, and its sections one behind the other.

Source: gABI, "Object Files".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import ElfUnit
from cargo_strip_hook.link.model import Array, Chunk
from cargo_strip_hook.link.output import stream
from cargo_strip_hook.link.strings import StringTable

_FILE_ALIGN = 4096  # bytes
# relocations without their symbols, and the target of each: a program-wide symbol, or ~section
Batches = tuple[tuple[Array, Array], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the output; `chunks` are its contents, read once, None for NOBITS."""

    name: bytes
    type: int
    flags: int
    size: int
    align: int
    entsize: int = 0
    link: int = 0
    info: int = 0
    chunks: Iterable[Chunk] | None = None


def holding(
    name: bytes, type: int, flags: int, octets: Chunk, align: int = 1, **header: int
) -> Section:
    """A section with these contents."""
    return Section(name, type, flags, len(octets), align, chunks=[octets], **header)


def write_file(
    sections: Sequence[Section], native: ElfUnit, flags: int, identity: bytes
) -> tuple[int, Iterator[Chunk]]:
    """The size in bytes and the stream of a file with these sections, and one of their names.

    `native` is an object of the same class, byte order and machine.
    """
    records = native.records
    names = StringTable()
    # `.rela.text` also holds `.text`
    prefix = {elf.SHT_RELA: 5, elf.SHT_REL: 4}
    tails = {s.name[prefix[s.type] :]: s for s in sections if s.type in prefix}
    starts = {name: names.add(s.name) + prefix[s.type] for name, s in tails.items()}
    name_offsets = [starts[s.name] if s.name in starts else names.add(s.name) for s in sections]
    shstrtab_name = names.add(b".shstrtab")
    raw_names = names.bytes()
    sections = [
        *sections,
        holding(b".shstrtab", elf.SHT_STRTAB, 0, raw_names),
    ]
    name_offsets.append(shstrtab_name)
    headers = np.zeros(len(sections) + 1, records.section)
    end = records.header.size
    for i, section in enumerate(sections, start=1):
        if section.type != elf.SHT_NOBITS:
            # a file need not be aligned as memory is: gABI asks that of sh_addr only
            step = min(section.align, _FILE_ALIGN)
            end = -(-end // step) * step
        headers[i] = (
            name_offsets[i - 1],
            section.type,
            section.flags,
            0,
            end,
            section.size,
            section.link,
            section.info,
            section.align,
            section.entsize,
        )
        if section.type != elf.SHT_NOBITS:
            end += section.size
    shoff = -(-end // 8) * 8
    count = len(headers)
    shstrndx = count - 1
    if count >= elf.SHN_LORESERVE:
        headers["size"][0] = count
    if shstrndx >= elf.SHN_LORESERVE:
        headers["link"][0] = shstrndx
    ident = bytes([0x7F, 0x45, 0x4C, 0x46, records.bits // 32, 1 if records.order == "<" else 2, 1])
    ident += identity + bytes(7)
    header = records.header.pack(
        ident,
        elf.ET_REL,
        native.machine.number,
        1,
        0,
        0,
        shoff,
        flags,
        records.header.size,
        0,
        0,
        records.section.itemsize,
        count if count < elf.SHN_LORESERVE else 0,
        shstrndx if shstrndx < elf.SHN_LORESERVE else elf.SHN_XINDEX,
    )
    offsets = headers["offset"][1:].tolist()
    contents = [(n, s.chunks) for n, s in zip(offsets, sections, strict=True) if s.chunks]
    table = (shoff, [headers.tobytes()])
    return shoff + headers.nbytes, stream([(0, [header]), *contents, table])
