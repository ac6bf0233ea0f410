"""Opening an archive a second time in one run: quick, and never with what stood there before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cargo_strip_hook.archive import NewMember, open_archive, reader, write_archive

LONG_AGO = 1_000_000_000  # seconds


def _write(path: Path, name: str, symbol: bytes) -> None:
    with path.open("wb") as file:
        write_archive(file, "gnu", [NewMember(name, 2, [b"ab"], (symbol,))])


def _look(path: Path) -> tuple[str, dict[bytes, int] | None]:
    with open_archive(path) as archive:
        assert bytes(archive.data(archive.members[0])) == b"ab"
        return archive.members[0].name, archive.symbols()


def test_same_size_and_time_but_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "liba.a"
    for name, symbol in (("x.o", b"one"), ("y.o", b"two"), ("z.o", b"six")):
        _write(path, name, symbol)
        os.utime(path, (LONG_AGO, LONG_AGO))
        assert _look(path) == (name, {symbol: 0})
        assert _look(path) == (name, {symbol: 0})


def test_an_old_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "liba.a"
    _write(path, "x.o", b"one")
    monkeypatch.setattr(reader, "_CLOCK_STEP", -(10**12))  # so that a new file counts as old
    with open_archive(path) as first, open_archive(path) as second:
        assert first.members is second.members
        assert first.symbols() is second.symbols()
