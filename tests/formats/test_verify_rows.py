"""Each row of the verifier's list has a check, and a wrong result that this check alone notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.results import cases
from tests.campaigns.results.kinds import kinds
from tests.campaigns.results.rows import README, TITLES, Row, fault, rows, without_a_row

ROWS = list(rows())
# what several libraries share is no one format's: see `test_share_verify.py`
_OF_SETS = (
    *(f"{room}/{name}.py" for room in ("elf", "macho", "coff") for name in ("sharing", "apart")),
    *("elf/state.py", "coff/joined.py", "kit/sets.py", "kit/state.py", "verify/sharing.py"),
)
# kinds of findings that have no row yet
WITHOUT_A_ROW = {
    ".": ("the members",),
    "elf": (
        ".note.gnu.property",
        "a bit beside an addend changed",
        "a common symbol became smaller",
        "a common symbol is in the place of a piece",
        "a common symbol is in two places",
        "a compressed section is not aligned as its header is",
        "a constructor has another priority",
        "a distance to a section that came in pieces",
        "a group",
        "a group has a member that is no section",
        "a linker takes another definition",
        "a linker-made set is in several sections",
        "a personality has a relocation of another type",
        "a piece is linked to another section",
        "a reference into a group that may be dropped",
        "a reference to what is gone is not zero",
        "a relocation for zeros",
        "a relocation of an unwind entry has another target",
        "a relocation of debug information is missing",
        "a relocation that no unwind entry has",
        "a relocation that the original has not",
        "a request for a symbol ",
        "a retained piece is missing",
        "a retained piece may be dropped",
        "a section is compressed that cannot be",
        "a section is linked to none",
        "a section that programs find by its name is missing",
        "a settled relocation has a wrong value",
        "a symbol in a section that is gone",
        "an element of a linker-made set is missing",
        "an export that no used member defines",
        "an instruction was changed in a wrong way",
        "an unwind entry has another length",
        "an unwind entry lost a relocation",
        "an unwind entry names its function in another way",
        "code without an unwind entry beside code with one",
        "contents became zeros",
        "defined twice",
        "language-specific data of another relocation type",
        "marked as member of a group that is not there",
        "pieces overlap",
        "placement",
        "pyelftools reads another file",
        "relocations for no section",
        "relocations without symbols",
        "section names of another type",
        "stale",
        "symbols of one section moved apart",
        "symbols without names",
        "the original's unwind table cannot be read",
        "two groups of one name",
        "two relocation tables for a section",
        "two strong definitions",
        "undefined, and nothing needs it",
        "unwind entries are not in the order of the code",
    ),
    "coff": (
        "bytes that no input explains",
        "defined twice",
        "directives",
        "out of order",
    ),
}


@pytest.mark.parametrize("format", sorted({row.format for row in ROWS}))
def test_each_row_has_a_mutant_of_its_own(format: str, tmp_path: Path) -> None:
    made = cases.make(tmp_path, format)
    wrong = [text for row in ROWS if row.format == format and (text := fault(made, row))]
    assert not wrong, "\n".join(wrong)


def test_a_row_without_a_mutant_is_a_fault() -> None:
    text = "## ELF\n| what is read | check | wrong result |\n| --- | --- | --- |\n| a | `b` | |\n"
    (row,) = rows(text)
    assert row.checks == ("b",)
    assert "no wrong result" in fault([], row)


@pytest.mark.parametrize("room", ["elf", "macho", "coff", "kit", "."])
def test_each_finding_has_a_row(room: str) -> None:
    """In the table of its format; what is the same for all formats, in one of them."""
    lost = without_a_row(kinds(README.parent / room), ROWS, room)
    listed = WITHOUT_A_ROW.get(room, ())
    lost = [one for one in lost if one.text not in listed and one.file not in _OF_SETS]
    assert not lost, "\n".join(f"{one.file}:{one.line}: {one.text}" for one in lost)


def test_a_finding_without_a_row_is_told(tmp_path: Path) -> None:
    """However its kind is written there."""
    source = """
OTHER = "of the module"
class Check:
    def all(self, pair, findings, bad):
        findings.add("plain", "x")
        pair.findings.each("of two" if bad else "of another", bad, str)
        self._tell("told", bad)
        def each(kind, which):
            findings.each(kind, which, str)
        each("nested", bad)
        for kind, which in (("looped", bad),):
            findings.more(kind, 3)
        findings.add(f"begins {bad}", "x")
        findings.add(OTHER, "x")
        findings.add(pair.unknown, "x")
    def _tell(self, kind, which):
        self.findings.add(kind, "x")
"""
    (tmp_path / "check.py").write_text(source)
    row = Row("macho", "what", ("plain", "of two: more"), "")
    texts = [one.text for one in without_a_row(kinds(tmp_path), [row], "macho")]
    wanted = ["begins ", "looped", "nested", "of another", "of the module", "told"]
    assert texts == ["", *wanted]


def test_the_tables_have_rows() -> None:
    assert {row.format for row in ROWS} <= set(TITLES.values())
    assert len(ROWS) > 60
    assert all(row.checks for row in ROWS)
