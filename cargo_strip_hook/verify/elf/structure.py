"""Whether the result is a sound relocatable object by itself.

Source: System V gABI, chapter 4. pyelftools reads the header and the notes a second time.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.notes import iter_notes
from elftools.elf.structs import ELFStructs

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.verify.arrays import Array, unique
from cargo_strip_hook.verify.elf import attributes
from cargo_strip_hook.verify.elf.machine import TYPES, machine
from cargo_strip_hook.verify.elf.read import (
    SHF_ALLOC,
    SHF_COMPRESSED,
    SHF_EXECINSTR,
    SHF_GROUP,
    SHF_INFO_LINK,
    SHF_LINK_ORDER,
    SHF_TLS,
    SHN_XINDEX,
    SHT_GROUP,
    SHT_LLVM_ADDRSIG,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_REL,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    STB_GLOBAL,
    STB_LOCAL,
    STB_WEAK,
    STT_COMMON,
    STT_FUNC,
    STT_GNU_IFUNC,
    STT_NOTYPE,
    STT_SECTION,
    STT_TLS,
    Objects,
)
from cargo_strip_hook.verify.expectation import Expectation, Findings, compares_debug
from cargo_strip_hook.verify.kit.names import quoted
from cargo_strip_hook.verify.marker import SECTION_NAME

ELFOSABI_GNU = 3
# types of contents, which have neither sh_link nor sh_info (gABI, figure 4-14)
_PLAIN = (SHT_PROGBITS, SHT_STRTAB, SHT_NOTE, SHT_NOBITS, 14, 15, 16)
_PAGE = 4096  # bytes
_X86_64_UNWIND = 0x70000001  # SHT_X86_64_UNWIND
_UNIQUE = 10  # STB_GNU_UNIQUE
_BATCH = 200_000  # relocations that are looked at together


def check_structure(after: Objects, expectation: Expectation, findings: Findings) -> None:
    """Headers, sections, symbols and relocation records of the result."""
    _check_header(after, findings)
    _check_sections(after, findings)
    _check_symbols(after, findings)
    _check_relocations(after, expectation, findings)
    _check_content(after, expectation, findings)


def _name(after: Objects, number: int) -> str:
    return f"{after.section_name(number)}[{number}]"


def _check_header(after: Objects, findings: Findings) -> None:
    """Fields of the file header and of section 0 that have one right value."""
    header = after.header[0]
    ident = header["ident"].ljust(16, b"\0")
    if ident[6] != 1 or header["version"] != 1 or any(ident[9:]):
        findings.add("the file header", "is of an unknown version")
    if any(header[field] for field in ("entry", "phoff", "phentsize", "phnum")):
        findings.add("the file header", "has an entry point or program headers")
    if header["ehsize"] != after.layouts.header.itemsize:
        findings.add("the file header", f"says that it has {header['ehsize']} bytes")
    first = after.sections[0]
    # size and link hold the numbers of sections and of their names where those are too large
    extended = header["shnum"] == 0, header["shstrndx"] == SHN_XINDEX
    fields = ["type", "flags", "info", "align", "entsize"]
    fields += [f for f, used in zip(("size", "link"), extended, strict=True) if not used]
    if any(first[field] for field in fields):
        findings.add("section 0", "is not empty")


def _check_sections(after: Objects, findings: Findings) -> None:
    s = after.sections
    count = len(s)
    held = (s["type"] != SHT_NOBITS) & (s["type"] != 0) & (s["size"] > 0)

    def each(bad: Array, kind: str) -> None:
        findings.each(kind, bad, lambda i: _name(after, i))

    align = np.maximum(s["align"], 1)
    each(((align & (align - 1)) != 0) | (s["align"] < 0), "an alignment that is no power of two")
    relative = s["offset"] - after.base[0]
    odd = align & (align - 1)
    # gABI asks that of addresses only, which objects have none of: a page is enough
    step = np.minimum(align, _PAGE)
    each(held & (odd == 0) & (relative % step != 0), "a section is not aligned in the file")
    order = np.flatnonzero(held)
    order = order[np.argsort(s["offset"][order], kind="stable")]
    end = (s["offset"] + s["size"])[order]
    overlap = np.zeros(count, np.bool_)
    overlap[order[1:]] = s["offset"][order][1:] < np.maximum.accumulate(end)[:-1]
    each(overlap, "sections overlap")
    table = int(after.base[0] + after.header["shoff"][0])
    table_end = table + count * after.layouts.section.itemsize
    each(held & (s["offset"] < table_end) & (s["offset"] + s["size"] > table), "sections overlap")

    each(s["address"] != 0, "a section has an address")
    compressed = s["flags"] & SHF_COMPRESSED != 0
    each(
        compressed & ((s["flags"] & SHF_ALLOC != 0) | (s["type"] == SHT_NOBITS)),
        "a section is compressed that cannot be",
    )
    tables = (s["type"] == SHT_RELA) | (s["type"] == SHT_REL)
    strings = np.isin(s["type"], (SHT_SYMTAB, SHT_STRTAB))
    each(
        (tables & (s["flags"] & ~(SHF_INFO_LINK | SHF_GROUP) != 0)) | (strings & (s["flags"] != 0)),
        "a table has flags that it cannot have",
    )
    names = int(
        after.sections["link"][0]
        if after.header["shstrndx"][0] == SHN_XINDEX
        else after.header["shstrndx"][0]
    )
    number = np.arange(count)
    each((number == names) & (s["type"] != SHT_STRTAB), "section names of another type")
    ends = np.flatnonzero((s["type"] == SHT_STRTAB) & (s["size"] > 0))
    last = after.data[(s["offset"] + s["size"] - 1)[ends]]
    unended = np.zeros(count, np.bool_)
    unended[ends] = last != 0
    each(unended | ((s["type"] == SHT_STRTAB) & (s["size"] <= 0)), "names do not end with a zero")
    _check_links(after, findings)
    unwinds = after.names_begin(b".eh_frame\0")
    odd = (s["flags"] != SHF_ALLOC) | (s["entsize"] != 0)
    odd |= (s["type"] != SHT_PROGBITS) & (s["type"] != _X86_64_UNWIND)
    each(unwinds & odd, "an unwind table is in a section of another kind")
    _check_groups(after, findings)


def _check_links(after: Objects, findings: Findings) -> None:
    """What sections say of other sections: sh_link and sh_info."""
    s = after.sections
    count = len(s)
    tables = (s["type"] == SHT_RELA) | (s["type"] == SHT_REL)

    def each(bad: Array, kind: str) -> None:
        findings.each(kind, bad, lambda i: _name(after, i))

    plain = (s["flags"] & SHF_LINK_ORDER == 0) & np.isin(s["type"], _PLAIN)
    each(plain & ((s["link"] != 0) | (s["info"] != 0)), "contents are linked to something")
    link = np.where(s["link"] < count, s["link"], 0)
    each(s["link"] >= count, "a section is linked to none")
    each(tables & (s["type"][link] != SHT_SYMTAB), "relocations without symbols")
    info = np.where(s["info"] < count, s["info"], 0)
    bad = tables & ((s["info"] >= count) | (info == 0) | tables[info] | (s["type"][info] == 0))
    each(bad, "relocations for no section")
    again = np.zeros(count, np.bool_)
    numbers = np.flatnonzero(tables)
    _, first = np.unique(s["info"][numbers], return_index=True)
    again[numbers] = True
    again[numbers[first]] = False
    each(again, "two relocation tables for a section")
    each((s["type"] == SHT_SYMTAB) & (s["type"][link] != SHT_STRTAB), "symbols without names")
    each((s["flags"] & SHF_LINK_ORDER != 0) & (link == 0), "a section is linked to none")


def _check_groups(after: Objects, findings: Findings) -> None:
    """Every section marked as a member of a group is in one that is there."""
    s = after.sections
    members: set[int] = set()
    for number in np.flatnonzero(s["type"] == SHT_GROUP).tolist():
        text = after.contents(number)
        words = np.frombuffer(text, f"{after.layouts.order}u4", len(text) // 4)[1:].tolist()
        if len(text) % 4 or any(not 0 < word < len(s) for word in words):
            findings.add("a group has a member that is no section", _name(after, number))
        members.update(words)
    for number in np.flatnonzero(s["flags"] & SHF_GROUP != 0).tolist():
        if number not in members:
            findings.add("marked as member of a group that is not there", _name(after, number))


def _check_symbols(after: Objects, findings: Findings) -> None:
    symbols, s = after.symbols, after.sections
    if not len(symbols):
        findings.add("damaged", "there is no symbol table")
        return

    def each(bad: Array, kind: str) -> None:
        findings.each(
            kind, bad, lambda i: f"{quoted(after.string(int(symbols['name'][i])))} (symbol {i})"
        )

    first = int(after.first_global[0])
    number = np.arange(len(symbols))
    local = symbols["binding"] == STB_LOCAL
    each((number < first) & ~local, "a global symbol among the local ones")
    each((number >= first) & local, "a local symbol among the global ones")
    inside = symbols["section"] > 0
    home = np.where(inside, symbols["section"], 0)
    known = np.isin(symbols["binding"], (STB_LOCAL, STB_GLOBAL, STB_WEAK))
    known |= (symbols["binding"] == _UNIQUE) & ~symbols["undefined"]
    each(~known, "a symbol of unknown binding")
    other = (symbols["kind"] > STT_TLS) & (symbols["kind"] != STT_GNU_IFUNC)
    each(other | (local & (symbols["kind"] == STT_COMMON)), "a symbol of unknown type")
    null = symbols[0]
    if any(null[f] for f in ("kind", "binding", "other", "value", "size")) or first < 1:
        findings.add("symbol 0", "is not empty")
    each(symbols["undefined"] & (symbols["value"] != 0), "an undefined symbol has a value")
    own = (symbols["kind"] == STT_SECTION) & (symbols["value"] != 0)
    each(own, "a section's symbol is not at its beginning")
    each(inside & (s["type"][home] == 0), "a symbol in a section that is gone")
    function_bit = machine(after.machine, after.layouts.order).function_bit
    value = symbols["value"]
    if function_bit:
        value = np.where(symbols["kind"] == STT_FUNC, value & ~function_bit, value)
    each(
        inside & ((symbols["value"] < 0) | (value > s["size"][home])),
        "a symbol lies outside its section",
    )
    thread = s["flags"][home] & SHF_TLS != 0
    any_kind = symbols["kind"] == STT_SECTION
    any_kind |= local & (symbols["kind"] == STT_NOTYPE)  # such as `$d` of RISC-V
    each(
        inside & ((symbols["kind"] == STT_TLS) != thread) & ~any_kind,
        "a symbol's type and its section disagree about thread-local storage",
    )


def _check_relocations(after: Objects, expectation: Expectation, findings: Findings) -> None:
    """Offsets and symbols of all records, but for those that are compared later, one by one."""
    wanted = after.targets > 0
    if compares_debug(expectation):
        wanted &= ~after.is_debug[np.maximum(after.targets, 0)]
    tables = np.flatnonzero(wanted)
    facts = machine(after.machine, after.layouts.order)
    total = np.cumsum(after.sections["size"][tables] // 16)
    batches = np.searchsorted(total, np.arange(0, int(total[-1]) if len(tables) else 0, _BATCH))
    for part in np.split(tables, unique(batches[1:])) if len(tables) else ():
        found = after.relocations(part)
        width = facts.width[np.minimum(found["type"], TYPES - 1)]
        size = after.sections["size"][found["section"]]
        outside = (found["offset"] < 0) | (found["offset"] + width > size)
        outside &= found["type"] != 0
        none = after.sections["type"][found["section"]] == SHT_NOBITS
        for bad, kind in (
            (outside, "a relocation lies outside its section"),
            (found["symbol"] < 0, "a relocation has a symbol that is not there"),
            (none, "a relocation for zeros"),
        ):
            findings.each(kind, bad, _where(after, found))


def _where(after: Objects, rows: Array) -> Callable[[int], str]:
    section, offset = rows["section"], rows["offset"]
    return lambda i: f"{_name(after, int(section[i]))}+{int(offset[i]):#x}"


def _check_content(after: Objects, expectation: Expectation, findings: Findings) -> None:
    """Sections that must not be there, and the marker."""
    s = after.sections
    unwanted = [b".llvmbc\0", b".llvmcmd\0"]
    if expectation.strip is not Strip.NONE:
        unwanted += [b".debug_", b".zdebug_"]
    # `.debug_gdb_scripts` is part of the program, not debug information
    idle = s["flags"] & SHF_ALLOC == 0
    for prefix in unwanted:
        for number in np.flatnonzero(after.names_begin(prefix) & idle)[:3].tolist():
            findings.add("a section that should be gone", _name(after, number))
    for number in np.flatnonzero(s["type"] == SHT_LLVM_ADDRSIG).tolist():
        link = int(s["link"][number])
        indices = _uleb_list(after.contents(number))
        bad = not 0 < link < len(s) or s["type"][link] != SHT_SYMTAB
        if bad or any(not 0 < i < len(after.symbols) for i in indices):
            findings.add("stale", f"{_name(after, number)} names symbols that are not there")
    if expectation.marker:
        marks = np.flatnonzero(after.names_begin(SECTION_NAME.encode() + b"\0")).tolist()
        good = [
            i
            for i in marks
            if s["type"][i] == 1 and after.contents(i) == memoryview(expectation.marker)
        ]
        if len(marks) != 1 or not good or s["flags"][marks[0]] or s["entsize"][marks[0]]:
            findings.add("the marker", f"{SECTION_NAME} is not there as it was asked for")


def _uleb_list(data: memoryview) -> list[int]:
    found, value, shift = [], 0, 0
    for octet in data:
        value |= (octet & 0x7F) << shift
        shift += 7
        if octet < 0x80:
            found.append(value)
            value = shift = 0
    return found


def check_stack_note(before: Objects, after: Objects, findings: Findings) -> None:
    """`.note.GNU-stack`: the stack becomes executable only where an input asks for it."""
    asks = np.zeros(len(before.base), np.bool_)
    has = np.zeros(len(before.base), np.bool_)
    notes = np.flatnonzero(before.names_begin(b".note.GNU-stack\0"))
    has[before.sections["object"][notes]] = True
    executable = before.sections["flags"][notes] & SHF_EXECINSTR != 0
    asks[before.sections["object"][notes][executable]] = True
    mine = np.flatnonzero(after.names_begin(b".note.GNU-stack\0"))
    kinds = after.sections[mine]
    if (kinds["type"] != SHT_PROGBITS).any() or kinds["size"].any():
        findings.add("the stack", ".note.GNU-stack is no empty section of contents")
    if not len(before.base) or not has.all() or asks.any():
        return  # then a linker decides, and ours must not promise more than the inputs do
    if not len(mine):
        findings.add("the stack", ".note.GNU-stack is missing: the stack would be executable")
    elif (after.sections["flags"][mine] & SHF_EXECINSTR != 0).any():
        findings.add("the stack", "an executable stack that no input asks for")


def second_reading(after: Objects, image: memoryview, findings: Findings) -> dict[int, int]:
    """Header, tables and notes as pyelftools reads them; returns the GNU properties (type, bits).

    Only its record layouts and its reader of notes: `ELFFile` brings all of DWARF along, and takes
    four times as long to import.
    """
    properties: dict[int, int] = {}
    stream: Any = _View(image)
    structs = ELFStructs(after.layouts.order == "<", after.layouts.bits)
    try:
        structs.create_basic_structs()
        header = struct_parse(structs.Elf_Ehdr, stream, 0)
        structs.create_advanced_structs(
            header["e_type"], header["e_machine"], header["e_ident"]["EI_OSABI"]
        )
        if header["e_type"] != "ET_REL":
            findings.add("pyelftools reads another file", f"type {header['e_type']}")
        s = after.sections
        facade: Any = _Notes(stream, structs, header)
        notes = np.flatnonzero(s["type"] == SHT_NOTE)[:64].tolist()
        tables = np.flatnonzero(np.isin(s["type"], (SHT_SYMTAB, SHT_STRTAB)))[:8].tolist()
        for number in (*tables, *notes):
            location = header["e_shoff"] + number * header["e_shentsize"]
            section = struct_parse(structs.Elf_Shdr, stream, location)
            theirs = section["sh_offset"], section["sh_size"]
            mine = int(s["offset"][number] - after.base[0]), int(s["size"][number])
            if theirs != mine:
                findings.add("pyelftools reads another file", f"{_name(after, number)}: {theirs}")
            if number in notes:
                for note in iter_notes(facade, *theirs):
                    if note["n_type"] == "NT_GNU_PROPERTY_TYPE_0":
                        for entry in note["n_desc"]:
                            kind = _property_number(entry["pr_type"])
                            properties[kind] = entry["pr_data"]
    except (
        ELFError,
        ConstructError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        EOFError,
    ) as e:
        findings.add("pyelftools cannot read it", str(e) or type(e).__name__)
    return properties


def _property_number(kind: Any) -> int:
    names = {"GNU_PROPERTY_X86_FEATURE_1_AND": 0xC0000002}
    return kind if isinstance(kind, int) else names.get(str(kind), -1)


class _Notes:
    """What pyelftools' reader of notes wants of a file."""

    def __init__(self, stream: Any, structs: Any, header: Any) -> None:
        self.stream, self.structs, self.header = stream, structs, header
        self.elfclass = structs.elfclass

    def __getitem__(self, name: str) -> Any:
        return self.header[name]


class _View(io.RawIOBase):
    """A file over memory that is not copied (BytesIO would copy all of it)."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self.view, self.at = view, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.at = offset + (0, self.at, len(self.view))[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1, /) -> bytes:
        end = len(self.view) if size < 0 else self.at + size
        data = bytes(self.view[self.at : end])
        self.at += len(data)
        return data


def check_against_members(before: Objects, after: Objects, findings: Findings) -> None:
    """What the members agree on in the file header is what the result says."""
    flags = unique(before.header["flags"])
    if len(flags) == 1 and after.header["flags"][0] != flags[0]:
        findings.add(
            "the file header", f"has flags {after.header['flags'][0]:#x}, not {flags[0]:#x}"
        )
    kind = machine(after.machine, after.layouts.order).attributes
    attributes.check(before, after, kind, findings)


def check_identity(before: Objects, after: Objects, findings: Findings) -> None:
    """EI_OSABI and EI_ABIVERSION: what members say that say something."""
    identities, mine = (
        {ident.ljust(16, b"\0")[7:9] for ident in side.header["ident"].tolist()}
        for side in (before, after)
    )
    allowed = {identity for identity in identities if identity[0]} or identities
    # GNU ld marks what uses GNU extensions as such; the other way round loses their meaning
    for system, version in sorted(mine - allowed - {bytes([ELFOSABI_GNU, 0])}):
        findings.add("the file header", f"is for operating system {system}, version {version}")
