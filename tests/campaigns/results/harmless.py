"""Changes that make another program, and no worse one: each with the reason why."""

from __future__ import annotations

from io import BytesIO

from elftools.elf.elffile import ELFFile

from tests.campaigns.results.bugs import Strike
from tests.campaigns.results.cases import Case
from tests.campaigns.results.mutants import Mutant

STRICTER = "a stricter alignment: what was aligned still is"
ORDER = "the order of records that stand for themselves: linkers make GOT entries in that order"
NAME = "what the object is called in the archive: that is ours to choose, and only told to people"
NOPS = "fewer DW_CFA_nop at the end of an unwind entry"
PADDING = "bytes between functions, which are never executed"
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
    if kind == "record of relocation" and mutant.how.startswith("swapped"):
        return ORDER
    between = case.format == "elf" and not _in_a_piece(case, mutant)
    return PADDING if kind == "padding" or (between and kind.endswith("[AX]")) else ""


def _in_a_piece(case: Case, mutant: Mutant) -> bool:
    """Whether what was changed in an ELF section belongs to a piece of the original."""
    rows, start = case.good.expectation.link_map, case.good.object[0]
    if rows is None:  # nobody says where pieces are
        return True
    elf = ELFFile(BytesIO(case.good.data[start : start + case.good.object[1]]))
    for row in rows.tolist():
        begin = start + elf.get_section(row[4])["sh_offset"] + row[5]
        if begin < mutant.at + mutant.width and mutant.at < begin + row[3]:
            old = case.good.data[max(begin, mutant.at) : begin + row[3]]
            if old != mutant.data[max(begin, mutant.at) : begin + row[3]]:
                return True
    return False


def _stricter(kind: str, old: int, new: int) -> bool:
    """Whether only the alignment of a COFF section is another one: 0 stands for 16 bytes."""
    shift = 4 if kind.endswith("high flags") else 20
    before, after = ((value >> shift & 15 or 5) for value in (old, new))
    return (old ^ new) & ~(15 << shift) == 0 and 14 >= after > before


def bug_reason(strike: Strike) -> str:
    """The same of what a bug makes."""
    return ELSEWHERE if strike.sound else ""
