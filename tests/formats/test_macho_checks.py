"""Each check of a Mach-O result finds what nothing else does."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.verify.expectation import Findings
from tests.formats import darwin_kit as kit
from tests.formats import macho_mutants as mutants

ROOM = "cargo_strip_hook.verify.macho"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checks")


def _silence(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Let a check find nothing."""
    module, *names = check.split(".")
    home: Any = importlib.import_module(f"{ROOM}.{module}")
    for name in names[:-1]:
        home = getattr(home, name)
    real = getattr(home, names[-1])

    def silent(*args: Any, **named: Any) -> Any:
        args = tuple(Findings() if isinstance(a, Findings) else a for a in args)
        found = real(*args, **named)
        return [] if isinstance(found, list) else found

    if names[:-1]:  # a method has its findings elsewhere
        monkeypatch.setattr(home, names[-1], lambda *_args, **_named: None)
    else:
        monkeypatch.setattr(home, names[-1], silent)


@pytest.mark.parametrize(
    ("name", "arch"), [(n, arch) for n, row in mutants.ROWS.items() for arch in row.arches]
)
def test_a_mutant_is_found_by_one_check_alone(
    folder: Path, arch: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = mutants.ROWS[name]
    result = mutants.mutant(name, folder, arch)
    said = result.findings()
    assert said
    assert all(text.startswith(row.kind) for text in said), said
    _silence(monkeypatch, row.check)
    assert result.findings() == ()


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_macholib_reads_each_result_a_second_time(
    folder: Path, arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of ours that is wrong is found out."""
    from cargo_strip_hook.verify.macho import read

    real = read.read_commands

    def wrong(data: memoryview) -> Any:
        found = real(data)
        return found._replace(cpu=found.cpu, listed=found.listed[:-1])

    good = mutants.good(folder, arch, Strip.DEBUGINFO, "")
    result = replace(good, library=tmp_path / "out.a", raw=bytearray(good.raw))
    monkeypatch.setattr(read, "read_commands", wrong)
    assert any("macholib reads another file" in text for text in result.findings())
