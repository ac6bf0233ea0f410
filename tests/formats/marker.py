"""An independent answer to which sections of an archive live: slow, plain, over pyelftools.

It shares no code with the tool. The rules are those of a linker that loads members lazily from the
exports and collects sections: gABI ("Symbol Table", "Section Groups"), GNU ld's manual
(`--gc-sections`, `__start_X`), the LSB (`.eh_frame`).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

Section = tuple[int, int]  # member, section index

ALLOC, EXECUTED, LINK_ORDER, RETAIN = 0x2, 0x4, 0x80, 0x200000
UNDEFINED, ABSOLUTE, COMMON = "UNDEF", "ABS", "COMMON"


@dataclass
class Symbol:
    name: str
    binding: str
    place: int | str  # section index, or one of the words above
    value: int


@dataclass
class Object:
    """One member: what the rules need of it, in the plainest form."""

    name: str
    names: list[str] = field(default_factory=list)
    types: list[str | int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    first_global: int = 0
    relocations: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # offset, symbol
    groups: list[tuple[str, bool, list[int]]] = field(default_factory=list)
    frames: dict[int, bytes] = field(default_factory=dict)


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The members of a GNU archive that are no tables."""
    data = path.read_bytes()
    assert data[:8] == b"!<arch>\n"
    at, long_names = 8, b""
    while at < len(data):
        head = data[at : at + 60]
        raw, size = head[:16].decode().rstrip(), int(head[48:58])
        body = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
        if raw == "//":
            long_names = body
        elif raw not in ("/", "/SYM64/"):
            name = raw[:-1]
            if raw.startswith("/"):
                name = long_names[int(raw[1:]) :].split(b"/\n")[0].decode()
            yield name, body


def read(name: str, data: bytes) -> Object:
    elf = ELFFile(io.BytesIO(data))
    out = Object(name)
    sections: list[Any] = list(elf.iter_sections())
    table: Any = elf.get_section_by_name(".symtab")
    wide = [s for s in sections if s["sh_type"] == "SHT_SYMTAB_SHNDX"]
    for number, symbol in enumerate(table.iter_symbols() if table else []):
        shndx = symbol["st_shndx"]
        place: int | str = shndx if isinstance(shndx, int) else UNDEFINED
        if shndx == "SHN_XINDEX":
            place = wide[0].get_section_index(number)
        elif shndx == "SHN_ABS":
            place = ABSOLUTE
        elif shndx in ("SHN_COMMON", 0xFF02):
            place = COMMON
        binding = symbol["st_info"]["bind"].removeprefix("STB_")
        out.symbols.append(Symbol(symbol.name, binding, place, symbol["st_value"]))
    out.first_global = table["sh_info"] if table else 0
    for number, section in enumerate(sections):
        out.names.append(section.name)
        out.types.append(section["sh_type"])
        out.flags.append(section["sh_flags"])
        out.links.append(section["sh_link"])
        out.sizes.append(section["sh_size"])
        if section["sh_type"] == "SHT_RELA":
            rows = [(r["r_offset"], r["r_info_sym"]) for r in section.iter_relocations()]
            out.relocations.setdefault(section["sh_info"], []).extend(rows)
        if section["sh_type"] == "SHT_GROUP":
            words = struct.unpack(f"<{section['sh_size'] // 4}I", section.data())
            symbol = out.symbols[section["sh_info"]]
            assert symbol.name, "a signature without a name"
            out.groups.append((symbol.name, bool(words[0] & 1), list(words[1:])))
        if section.name == ".eh_frame":
            out.frames[number] = section.data()
        if section.name.startswith(".gnu.linkonce"):
            out.groups.append((section.name, True, [number]))
    return out


class _Link:
    """Members loaded so far and what each global name means."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = objects
        self.loaded: list[int] = []
        self.definition: dict[str, tuple[int, int, Symbol]] = {}  # rank, member, symbol
        self.lost: set[Section] = set()
        self.signatures: set[str] = set()
        self.wanted: list[str] = []

    def load(self, member: int) -> None:
        if member in self.loaded:
            return
        self.loaded.append(member)
        obj = self.objects[member]
        for signature, comdat, inside in obj.groups:
            if comdat:
                if signature in self.signatures:
                    self.lost |= {(member, s) for s in inside}
                self.signatures.add(signature)
        for symbol in obj.symbols[obj.first_global :]:
            if symbol.place == UNDEFINED or (member, symbol.place) in self.lost:
                if symbol.binding != "WEAK":
                    self.wanted.append(symbol.name)
                continue
            rank = 2 if symbol.place == COMMON else 3 if symbol.binding == "GLOBAL" else 1
            if rank > self.definition.get(symbol.name, (0,))[0]:
                self.definition[symbol.name] = (rank, member, symbol)

    def place(self, member: int, number: int) -> Section | None:
        """The section that symbol `number` of `member` means, if it is in one."""
        obj = self.objects[member]
        symbol = obj.symbols[number]
        if number >= obj.first_global:
            found = self.definition.get(symbol.name)
            if found is None:
                return None
            _, member, symbol = found
        if isinstance(symbol.place, str) or (member, symbol.place) in self.lost:
            return None
        return member, symbol.place


def live_sections(
    path: Path, exports: Sequence[str], *, follow_sets: bool = True
) -> tuple[list[Object], set[Section]]:
    """The members, and the live allocated sections in them, `.eh_frame` left out.

    Without `follow_sets` a reference to `__start_X` keeps nothing.
    """
    objects = [read(name, data) for name, data in members(path)]
    link = _Link(objects)
    link.wanted += exports
    while _pass(link):
        pass

    needs: dict[Section, set[Section]] = {}

    def need(source: Section, target: Section | None) -> None:
        if target is not None:
            needs.setdefault(source, set()).add(target)

    roots: set[Section] = set()
    for name in exports:
        symbol = link.definition[name][2]
        if not isinstance(symbol.place, str):
            roots.add((link.definition[name][1], symbol.place))
    used = {s.name for member in link.loaded for s in objects[member].symbols}
    own = {n.split("_", 3)[3] for n in used if n.startswith(("__start_", "__stop_"))}
    for member in link.loaded:
        roots |= _roots(member, objects[member])
        if not follow_sets:  # as ld -r
            own |= {*objects[member].names}
        roots |= {
            (member, s) for s in _listed(objects[member]) if objects[member].names[s] not in own
        }
        for section, rows in objects[member].relocations.items():
            if section in objects[member].frames:
                continue
            for _, symbol_number in rows:
                need((member, section), link.place(member, symbol_number))
                if follow_sets:
                    for e in _set_elements(link, objects[member].symbols[symbol_number].name):
                        need((member, section), e)
        for section, flags in enumerate(objects[member].flags):
            if flags & LINK_ORDER:
                need((member, objects[member].links[section]), (member, section))
        for _, _, inside in objects[member].groups:
            for a in inside:
                for b in inside:
                    need((member, a), (member, b))
        for section, contents in objects[member].frames.items():
            for function, others in _frames(link, member, section, contents):
                for other in others:
                    need(function, other)

    live: set[Section] = set()
    todo = list(roots)
    while todo:
        here = todo.pop()
        if here in live or here in link.lost or not objects[here[0]].flags[here[1]] & ALLOC:
            continue
        live.add(here)
        todo.extend(needs.get(here, ()))
    return objects, {
        (m, s)
        for m, s in live
        if s not in objects[m].frames and objects[m].names[s] != ".note.gnu.property"
    }


def _pass(link: _Link) -> bool:
    """GNU ld's elf_link_add_archive_symbols, one walk over all symbols; whether it loaded any."""
    before = len(link.loaded)
    for member, obj in enumerate(link.objects):
        for symbol in obj.symbols[obj.first_global :]:
            if symbol.place == UNDEFINED or member in link.loaded:
                continue
            known = link.definition.get(symbol.name)
            if known is None:
                needed = symbol.name in link.wanted
            else:  # a definition is loaded for what is only common
                needed = known[0] == 2 and symbol.place != COMMON and symbol.binding == "GLOBAL"
            if needed:
                link.load(member)
    return len(link.loaded) > before


def _roots(member: int, obj: Object) -> set[Section]:
    found = set()
    for section, (name, kind, flags) in enumerate(
        zip(obj.names, obj.types, obj.flags, strict=True)
    ):
        initialiser = kind in ("SHT_INIT_ARRAY", "SHT_FINI_ARRAY", "SHT_PREINIT_ARRAY", "SHT_NOTE")
        for start in (".init_array", ".fini_array", ".preinit_array", ".ctors", ".dtors"):
            initialiser |= name == start or name.startswith(start + ".")
        initialiser |= name in (".init", ".fini", ".jcr")
        if flags & ALLOC and (initialiser or flags & RETAIN):
            found.add((member, section))
    return found


def _listed(obj: Object) -> list[int]:
    """Data that a program may find by its section's name (GNU ld manual, "-z start-stop-gc")."""
    return [
        section
        for section, (name, flags) in enumerate(zip(obj.names, obj.flags, strict=True))
        if name.isidentifier() and flags & (ALLOC | EXECUTED | LINK_ORDER) == ALLOC
    ]


def _set_elements(link: _Link, name: str) -> list[Section]:
    """The sections between `__start_X` and `__stop_X`, if `name` is one of them."""
    for prefix in ("__start_", "__stop_"):
        if name.startswith(prefix) and name not in link.definition:
            wanted = name.removeprefix(prefix)
            return [
                (member, section)
                for member in link.loaded
                for section, its_name in enumerate(link.objects[member].names)
                if its_name == wanted and link.objects[member].flags[section] & ALLOC
            ]
    return []


def _frames(
    link: _Link, member: int, section: int, contents: bytes
) -> Iterator[tuple[Section, list[Section]]]:
    """(function, what its FDE and CIE refer to besides) of every FDE. Source: LSB 5.0, 10.6.1."""
    rows = link.objects[member].relocations.get(section, [])

    def between(start: int, end: int) -> list[tuple[int, Section]]:
        found = []
        for offset, number in rows:
            place = link.place(member, number)
            if start <= offset < end and place is not None:
                found.append((offset - start, place))
        return found

    at = 0
    while at + 4 <= len(contents):
        (length,) = struct.unpack_from("<I", contents, at)
        end = at + 4 + length
        if length:
            (pointer,) = struct.unpack_from("<I", contents, at + 4)
            if pointer:
                cie = at + 4 - pointer
                (cie_length,) = struct.unpack_from("<I", contents, cie)
                mine = between(at, end)
                begin = [place for offset, place in mine if offset == 8]
                others = [place for offset, place in mine if offset != 8]
                others += [place for _, place in between(cie, cie + 4 + cie_length)]
                if begin:
                    yield begin[0], others
        at = end
