"""Reads section groups: what a linker keeps or drops as one.

Source: gABI, "Section Groups".
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import ElfFiles, Symbols
from cargo_strip_hook.link.model import Group, Int32
from cargo_strip_hook.link.strings import string_at


def find_groups(f: ElfFiles, table: Symbols, section_atom: Int32) -> list[list[Group]]:
    """Each file's COMDAT and plain groups; old `.gnu.linkonce.` sections are groups of one.

    `section_atom`: the (first) atom of each section, counted in its file, -1 where it has none.
    Raises `ObjectError` for a group that is damaged.
    """
    groups: list[list[Group]] = [[] for _ in f.inputs]
    for i in np.flatnonzero(f.types == elf.SHT_GROUP).tolist():
        file = int(f.owner[i])
        first, end = int(f.first[file]), int(f.first[file + 1])
        header = f.sections[i]
        words = np.frombuffer(f.contents(i), f"{f.r.order}u4", int(header["size"]) // 4)
        symbol = int(table.first[file]) + int(header["info"])
        if (
            len(words) == 0
            or symbol >= int(table.first[file + 1])
            or (words[1:] >= end - first).any()
        ):
            raise f.fail(file, "a section group is damaged", int(header["offset"]))
        entry = table.table[symbol]
        if entry["info"] & 0xF == elf.STT_SECTION:
            signature = _section_name(f, file, first + int(table.shndx[symbol]))
        else:
            signature = string_at(table.strings[file], int(entry["name"]))
        members = section_atom[first + words[1:].astype(np.int64)]
        members = members[members >= 0]
        comdat = bool(words[0] & elf.GRP_COMDAT)
        groups[file].append(Group(signature, tuple(members.tolist()), comdat))
    for i in np.flatnonzero(f.named(b".gnu.linkonce") & (section_atom >= 0)).tolist():
        file = int(f.owner[i])
        atoms = (int(section_atom[i]),)
        groups[file].append(Group(_section_name(f, file, i), atoms, comdat=True))
    return groups


def _section_name(f: ElfFiles, file: int, section: int) -> bytes:
    return string_at(f.strings[file], int(f.sections["name"][section]))


__all__ = ["find_groups"]
