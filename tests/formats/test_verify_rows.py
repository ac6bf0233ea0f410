"""Each row of the verifier's list has a check, and a wrong result that this check alone notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.results import cases
from tests.campaigns.results.rows import TITLES, fault, rows

ROWS = list(rows())


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


def test_the_tables_have_rows() -> None:
    assert {row.format for row in ROWS} <= set(TITLES.values())
    assert len(ROWS) > 60
    assert all(row.checks for row in ROWS)
