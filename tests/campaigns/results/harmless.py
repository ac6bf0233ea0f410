"""Changes that make another program, and no worse one: each with the reason why."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from elftools.elf.elffile import ELFFile

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.verify import Expectation
from tests.campaigns.results.bugs import Strike
from tests.campaigns.results.cases import Case
from tests.campaigns.results.mutants import Mutant

STRICTER = "a stricter alignment: what was aligned still is"
ORDER = "the order of records that stand for themselves: linkers make GOT entries in that order"
SYMBOLS = "the order of symbols that no relocation names: linkers list exports in that order"
NAME = "what the object is called in the archive: that is ours to choose, and only told to people"
NOPS = "fewer DW_CFA_nop at the end of an unwind entry"
PADDING = "bytes between functions, which are never executed"
REGIONS = "another order of members' code, whose parts stay subsections where DWARF is kept"
ELSEWHERE = "pieces lie elsewhere in their section, aligned and apart, initialisers in their order"


def reason(case: Case, mutant: Mutant) -> str:
    """Why a mutant that another program is made of does no harm; "" where it does."""
    kind, old, new = mutant.kind, mutant.old, mutant.new
    if kind == "member.name" and mutant.at < case.good.object[0]:
        return NAME
    if kind.startswith("section[") and kind.endswith(".align"):
        power = new if case.format == "elf" else 0
        return STRICTER if new > old and not power & (power - 1) else ""
    if case.format == "coff" and kind.startswith("section[") and kind.endswith("flags"):
        return STRICTER if _stricter(kind, old, new) else ""
    if case.format == "elf" and kind == "FDE.length" and new < old:
        return NOPS
    if case.format == "elf" and kind == "record of symbol" and mutant.how.startswith("swapped"):
        return SYMBOLS
    if kind == "record of relocation" and mutant.how.startswith("swapped"):
        return ORDER
    code = {"elf": kind.endswith("[AX]"), "coff": kind.endswith("[.text]")}.get(case.format)
    between = code and not _in_a_piece(case, mutant)
    return PADDING if kind == "padding" or between else ""


def _in_a_piece(case: Case, mutant: Mutant) -> bool:
    """Whether what was changed in a section belongs to a piece of the original."""
    rows, start = case.good.expectation.link_map, case.good.object[0]
    if rows is None:  # nobody says where pieces are
        return True
    offset = _offsets(case)
    for row in rows.tolist():
        begin = start + offset[row[4]] + row[5]
        if begin < mutant.at + mutant.width and mutant.at < begin + row[3]:
            old = case.good.data[max(begin, mutant.at) : begin + row[3]]
            if old != mutant.data[max(begin, mutant.at) : begin + row[3]]:
                return True
    return False


def _offsets(case: Case) -> list[int]:
    """Where each section is in the object; sections of COFF are numbered from 1."""
    start, size = case.good.object
    data = case.good.data[start : start + size]
    if case.format == "elf":
        elf = ELFFile(BytesIO(data))
        return [section["sh_offset"] for section in elf.iter_sections()]
    (count,) = struct.unpack_from("<H", data, 2)
    return [0, *(struct.unpack_from("<I", data, 40 + 40 * n)[0] for n in range(count))]


def _stricter(kind: str, old: int, new: int) -> bool:
    """Whether only the alignment of a COFF section is another one: 0 stands for 16 bytes."""
    shift = 4 if kind.endswith("high flags") else 20
    before, after = ((value >> shift & 15 or 5) for value in (old, new))
    return (old ^ new) & ~(15 << shift) == 0 and 14 >= after > before


def bug_reason(case: Case, strike: Strike, data: bytes, claimed: Expectation) -> str:
    """The same of what a bug makes, which `claimed` says where things are in."""
    if strike.sound and _apart(claimed):
        return ELSEWHERE
    return REGIONS if case.format == "macho" and _regions(case, data, claimed) else ""


def _apart(claimed: Expectation) -> bool:
    """Whether no two pieces of the link map overlap; equal ones may be one."""
    rows = claimed.link_map
    if rows is None:
        return True
    rows = np.unique(rows[rows["size"] > 0][["out_section", "out_offset", "size"]])
    end = rows["out_offset"] + rows["size"]
    same = rows["out_section"][1:] == rows["out_section"][:-1]
    return not (same & (rows["out_offset"][1:] < end[:-1])).any()


def _regions(case: Case, data: bytes, claimed: Expectation) -> bool:
    """Whether code sections of members moved as one, and each part of them is a subsection."""
    old, new = case.good.expectation.link_map, claimed.link_map
    if case.strip is not Strip.NONE or old is None or new is None or len(old) != len(new):
        return False
    order = ["member", "section", "offset"]
    old, new = np.sort(old, order=order), np.sort(new, order=order)
    if any((old[name] != new[name]).any() for name in (*order, "size", "out_section")):
        return False
    for one, rows in ((case.good.data, old), (data, new)):
        moved = rows[old["out_offset"] != new["out_offset"]]
        delta = moved["out_offset"] - moved["offset"]
        same = (moved[["member", "section"]][1:]) == (moved[["member", "section"]][:-1])
        if (delta[1:] != delta[:-1])[same].any():
            return False
        begins = _plain_symbols(one[case.good.object[0] :])
        places = zip(moved["out_section"].tolist(), moved["out_offset"].tolist(), strict=True)
        if not begins.issuperset(places):
            return False
    return True


def _plain_symbols(data: bytes) -> set[tuple[int, int]]:
    """(section, offset in it) of the symbols of a Mach-O object that begin subsections."""
    at, begins = 32, [0]
    table = count = 0
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command == 0x19:
            number = struct.unpack_from("<I", data, at + 64)[0]
            begins += [struct.unpack_from("<Q", data, at + 104 + 80 * n)[0] for n in range(number)]
        elif command == 2:
            table, count = struct.unpack_from("<II", data, at + 8)
        at += size
    found = set()
    for n in range(count):
        kind, section, desc, value = struct.unpack_from("<BBHQ", data, table + 16 * n + 4)
        if kind & 0xEE == 0xE and not desc & 0x200:
            found.add((section, value - begins[section]))
    return found
