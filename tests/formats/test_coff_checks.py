"""Each check of a COFF result finds what nothing else does."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.verify.expectation import Findings
from tests.formats import coff_mutants as mutants

ROOM = "cargo_strip_hook.verify.coff"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checks")


def _silence(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Let a check find nothing."""
    module, name = check.split(".")
    home: Any = importlib.import_module(f"{ROOM}.{module}")
    real = getattr(home, name)

    def silent(*args: Any, **named: Any) -> Any:
        pairs = [a for a in args if hasattr(a, "findings")]
        kept = [pair.findings for pair in pairs]
        for pair in pairs:
            pair.findings = Findings()
        args = tuple(Findings() if isinstance(a, Findings) else a for a in args)
        try:
            return real(*args, **named)
        finally:
            for pair, findings in zip(pairs, kept, strict=True):
                pair.findings = findings

    monkeypatch.setattr(home, name, silent)


@pytest.mark.parametrize("name", mutants.ROWS)
def test_a_mutant_is_found_by_one_check_alone(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, result = mutants.ROWS[name], mutants.mutant(name, folder)
    said = result.findings()
    assert said
    kinds = tuple(f"{kind}: " for kind in row.kinds.split("|"))
    assert all(text.startswith(kinds) for text in said), said
    _silence(monkeypatch, row.check)
    assert result.findings() == ()
