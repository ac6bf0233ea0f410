"""What linkers demand of a COFF object; nothing of the original is needed.

Sources: Microsoft PE/COFF specification, "Section Flags", "Auxiliary Format 5: Section
Definitions", "COMDAT Sections"; bfd/cofflink.c and ld's PE emulation for what GNU ld does with
COMDATs: it knows them by the names of their sections.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.coff.read import (
    ABSOLUTE,
    ALIGN,
    ANY,
    ASSOCIATIVE,
    BSS,
    COMDAT,
    EXTERNAL,
    INFO,
    LARGEST,
    NODUPLICATES,
    OVERFLOW,
    REMOVE,
    STATIC,
    WEAK,
    Damaged,
    Object,
)
from cargo_strip_hook.verify.expectation import Expectation, Findings
from cargo_strip_hook.verify.kit.names import shown

MARKER = b".cargo-strip-hook"
_ROOTS = (b".CRT$", b".ctors", b".dtors")
_DEBUG = (b".debug", b".zdebug")
# what no relocation is to: words for linkers, and tables of symbols
_TOLD = (b".drectve", MARKER, b".sxdata", b".gfids$y", b".giats$y", b".gljmp$y", b".gehcont$y")


def check_structure(o: Object, expectation: Expectation, findings: Findings) -> None:
    """Header, sections, symbols, COMDATs and the marker. Raises `Damaged`."""
    check_names(o)
    _check_header(o, findings)
    _check_sections(o, expectation, findings)
    _check_symbols(o, findings)
    _check_comdats(o, expectation, findings)
    _check_marker(o, expectation, findings)


def check_names(o: Object) -> None:
    """Each symbol has a name, or none at all. Raises `Damaged`."""
    row = o.symbols[~o.auxiliary & (o.symbols["zeros"] == 0)]
    ends = len(o.strings) and o.strings.rfind(b"\0")
    if ((row["name"] < 4) | (row["name"] > ends)).any():
        raise Damaged("the name of a symbol is not in the string table")


def _check_header(o: Object, findings: Findings) -> None:
    big = o.record == 20
    time = o.raw[8:12] if big else o.raw[4:8]
    if time.any():
        findings.add("the file header", "the header tells a time: it would not be the same twice")
    if big and (o.raw[4:6].tolist() != [2, 0] or o.raw[28:44].any()):
        findings.add("the file header", "the header is that of no object of version 2")
    if not big and (o.raw[16:20]).any():
        findings.add("the file header", "the header has the flags or the size of a program's")


def _check_sections(o: Object, expectation: Expectation, findings: Findings) -> None:
    sections = o.sections
    flags, sizes = sections["flags"], sections["size"].astype(np.int64)
    stored = (flags & BSS == 0) & (sizes > 0)
    stored[0] = False
    if (sections["offset"][stored] == 0).any():
        findings.add("a section header", "a section has no contents")
    zero = flags & BSS != 0
    if (sections["offset"][zero].any() or sections["count"][zero].any()) and zero.any():
        findings.add("a section header", "a section of zeros has contents or relocations")
    if sections["memory"][1:].any() or sections["lines"].any() or sections["line_count"].any():
        findings.add("a section header", "a section has an address or line numbers")
    if (sections["relocations"][sections["count"] == 0] != 0).any():
        findings.add("a section header", "a section without relocations has a place for them")
    full = (sections["count"] == 0xFFFF) != (flags & OVERFLOW != 0)
    if full.any():
        findings.add("a section header", "NRELOC_OVFL does not match the number of relocations")
    counts = np.bincount(o.relocations["section"], minlength=len(sections)).astype(np.int64)
    spans = [
        np.stack([sections["offset"][stored], sections["offset"][stored] + sizes[stored]], 1),
        np.stack(
            [
                sections["relocations"][counts > 0].astype(np.int64),
                sections["relocations"][counts > 0] + 10 * counts[counts > 0],
            ],
            1,
        ),
        np.array([[o.table, o.table + o.record * len(o.symbols) + len(o.strings)]]),
    ]
    taken = np.concatenate(spans).astype(np.int64)
    taken = taken[np.argsort(taken[:, 0])]
    if (taken[:-1, 1] > taken[1:, 0]).any():
        findings.add("structure", "two parts of the file overlap")
    key = o.relocations["section"].astype(np.int64) << 40 | o.relocations["offset"]
    if (key[1:] <= key[:-1]).any():
        findings.add("structure", "relocations are not sorted, or two are at one place")
    for number in range(1, len(sections)):
        name, mine = o.names[number], int(flags[number])
        if name.startswith(_DEBUG) and expectation.strip.value != "none":
            findings.add("structure", f"{shown(name)} is debug information")
        if name == b".llvm_addrsig":
            findings.add("structure", "a table of addresses that matter: it would be wrong")
        if name.startswith(b"/") or not name:
            findings.add("damaged", "a section has no name")
        if name.startswith(_ROOTS) and mine & COMDAT and _selection(o, number) != ASSOCIATIVE:
            findings.add("initialisers", f"{shown(name)} could be dropped by linkers")
        if not 0 < (mine & ALIGN) >> 20 <= 14:
            findings.add("another alignment", f"{shown(name)} has no sensible one")


def _selection(o: Object, section: int) -> int:
    return o.selections.get(section, (0, 0, -1))[0]


def _check_symbols(o: Object, findings: Findings) -> None:
    symbols, sections = o.symbols, o.sections
    own = np.flatnonzero(~o.auxiliary)
    location = symbols["section"][own]
    inside = own[location > 0]
    size = sections["size"][symbols["section"][inside]]
    for i in inside[symbols["value"][inside] > size][:4].tolist():
        findings.add("structure", f"{shown(o.name(i))} lies outside of its section")
    classes = symbols["class"][own]
    for i in own[~np.isin(classes, (EXTERNAL, STATIC, WEAK))][:4].tolist():
        findings.add(
            "a symbol of unknown class", f"{shown(o.name(i))} has the class {symbols['class'][i]}"
        )
    for i in own[location < ABSOLUTE][:4].tolist():
        findings.add("structure", f"{shown(o.name(i))} is for a debugger alone")
    weak = own[classes == WEAK]
    told = symbols["section"][weak].astype(bool) | symbols["value"][weak].astype(bool)
    told |= symbols["aux"][weak] != 1
    rest = [bool(any(o.auxiliary_of(i)[8:])) for i in weak.tolist()]
    for i in weak[told | np.array(rest, np.bool_)][:4].tolist():
        findings.add("weak external", f"{shown(o.name(i))} is a weak external and more")
    loose = own[(location == 0) & (classes == STATIC)]
    for i in loose[:4].tolist():
        findings.add("structure", f"{shown(o.name(i))} is static and nowhere")
    # a section's symbol: of its name, at its start, with its definition behind it
    starts = (symbols["class"] == STATIC) & (symbols["value"] == 0) & (symbols["aux"] > 0)
    starts &= ~o.auxiliary & (symbols["section"] > 0)
    seen: set[int] = set()
    counts = np.bincount(o.relocations["section"], minlength=len(sections))
    for i in own[(symbols["aux"][own] > 0) & (classes != WEAK) & ~starts[own]][:4].tolist():
        findings.add(
            "a section's definition", f"{shown(o.name(i))} has records that are for another class"
        )
    for i in np.flatnonzero(starts).tolist():
        number = int(symbols["section"][i])
        if o.name(i) != o.names[number] or symbols["aux"][i] != 1:
            findings.add("a section's definition", f"{shown(o.name(i))} is no section's definition")
            continue
        aux = o.auxiliary_of(i)
        _check_definition(o, number, aux, findings)
        length, relocations = int.from_bytes(aux[:4], "little"), int.from_bytes(aux[4:6], "little")
        name = shown(o.names[number])
        if number in seen:
            findings.add("a section's definition", f"{name}[{number}] is there twice")
        seen.add(number)
        if length != sections["size"][number] or relocations != min(counts[number], 0xFFFF):
            findings.add(
                "a section's definition",
                f"the definition of {name}[{number}] is of another section",
            )
    missing = [n for n in range(1, len(sections)) if n not in seen]
    missing = [n for n in missing if not o.names[n].startswith(_TOLD)]
    for number in missing[:4]:
        findings.add("a section's definition", f"{shown(o.names[number])}[{number}] has none")


def _check_definition(o: Object, number: int, aux: bytes, findings: Findings) -> None:
    """What a section's record says besides its size: its selection, if it is a COMDAT."""
    other, selection = int.from_bytes(aux[12:14], "little"), aux[14]
    other |= int.from_bytes(aux[16:18], "little") << 16
    name = f"{shown(o.names[number])}[{number}]"
    comdat = int(o.sections["flags"][number]) & COMDAT
    if any(aux[6:12]) or aux[15] or any(aux[18:]):
        findings.add("a section's definition", f"the definition of {name} has lines or a checksum")
    if not comdat and (other or selection):
        findings.add("COMDAT", f"{name} has a selection and is none")
    if comdat and selection != ASSOCIATIVE and other != number:
        findings.add("COMDAT", f"{name} is associated, but has another selection")


def _check_comdats(o: Object, expectation: Expectation, findings: Findings) -> None:
    exports = {n.encode("utf-8", "surrogateescape") for n in expectation.exports}
    leaders: set[int] = set()
    for number in np.flatnonzero(o.sections["flags"] & COMDAT).tolist():
        selection, other, leader = o.selections.get(number, (0, 0, -1))
        name = f"{shown(o.names[number])}[{number}]"
        if not NODUPLICATES <= selection <= LARGEST:
            findings.add("COMDAT", f"{name} has the selection {selection}")
            continue
        if selection == ASSOCIATIVE:
            _check_associated(o, number, other, name, findings)
            continue
        if leader < 0:
            findings.add("COMDAT", f"{name} has no leader")
            continue
        leaders.add(leader)
        external = int(o.symbols["class"][leader]) == EXTERNAL
        if not external and selection != NODUPLICATES:
            findings.add(
                "COMDAT", f"{name} has a static leader, and another library's could replace it"
            )
        if external and o.name(leader) not in exports:
            findings.add("COMDAT", f"{name} is led by {shown(o.name(leader))}, no export")
        if external and selection == ANY and o.bare(number) in (b".pdata", b".xdata"):
            findings.add("COMDAT", f"{name} would be dropped by GNU ld")


def _check_associated(o: Object, number: int, other: int, name: str, findings: Findings) -> None:
    seen = {number}
    while True:
        if not 0 < other < len(o.sections):
            findings.add("COMDAT", f"{name} is associated to no section")
            return
        if other in seen:
            findings.add("COMDAT", f"{name} is associated to itself")
            return
        seen.add(other)
        selection, following, _ = o.selections.get(other, (0, 0, -1))
        if selection != ASSOCIATIVE:
            if not int(o.sections["flags"][other]) & COMDAT:
                findings.add("COMDAT", f"{name} is associated to a section that is none")
            return
        other = following


def _check_marker(o: Object, expectation: Expectation, findings: Findings) -> None:
    if not expectation.marker:
        return
    found = [n for n in range(1, len(o.names)) if o.names[n] == MARKER]
    if len(found) != 1 or o.contents(found[0]) != expectation.marker:
        findings.add("marker", "is missing or another one")
    elif int(o.sections["flags"][found[0]]) & (INFO | REMOVE) != INFO | REMOVE:
        findings.add("marker", "would become a part of programs")
