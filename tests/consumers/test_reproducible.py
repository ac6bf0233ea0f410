"""The same input gives the same bytes, whatever is around it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cargo_strip_hook.archive import NewMember, open_archive, write_archive
from tests import fixtures
from tests.consumers.toolbox import command, strip


@pytest.mark.parametrize("name", ["behaviour", "gst-plugin-fallbackswitch"])
@pytest.mark.parametrize("remove", ["none", "symbols"])
def test_folder_hash_seed_time_and_process_do_not_matter(
    name: str, remove: str, tmp_path: Path
) -> None:
    built = fixtures.library(name)
    source: tuple[str | Path, ...] = ("--header", str(built.header))
    if not built.header:
        source = ("--cdylib", str(built.cdylib))
    results = []
    for number, seed in enumerate(("0", "1", "random")):
        folder = tmp_path / f"{'deep/' * number}folder{number}"
        library = built.copy_to(folder)
        os.utime(library, (1_000_000_000 + number, 1_000_000_000 + number))
        library.chmod(0o600 + 0o44 * number)
        words = ("strip", library.name, *source, "--strip", remove, "-o", "result.a")
        # A relative name, seen from the folder.
        command(*words, cwd=folder, env={"PYTHONHASHSEED": seed, "TZ": f"UTC-{number}"})
        results.append((folder / "result.a").read_bytes())
    assert results[0] == results[1] == results[2]


def test_a_second_run_over_the_result_changes_nothing(tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    once = strip(built, tmp_path / "once").read_bytes()
    library = tmp_path / "again" / built.library.name
    library.parent.mkdir()
    library.write_bytes(once)
    assert built.header
    command("strip", library, "--header", built.header)
    assert library.read_bytes() == once


def test_the_input_is_left_alone(tmp_path: Path) -> None:
    built = fixtures.library("behaviour")
    library = built.copy_to(tmp_path)
    before, status = library.read_bytes(), library.stat()
    assert built.header
    command("strip", library, "--header", built.header, "-o", tmp_path / "out.a")
    after = library.stat()
    assert library.read_bytes() == before
    assert (after.st_mtime_ns, after.st_mode, after.st_ino) == (
        status.st_mtime_ns,
        status.st_mode,
        status.st_ino,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([library.name, "out.a"])


@pytest.mark.parametrize("remove", ["none", "debuginfo", "symbols"])
def test_the_order_of_members_does_not_matter(remove: str, tmp_path: Path) -> None:
    """As long as each name is defined by one member, and one only has initialisers.

    What is loaded follows from names then.
    """
    built = fixtures.library("imagequant-sys")
    turned = tmp_path / "turned" / built.library.name
    turned.parent.mkdir()
    with open_archive(built.library) as archive:
        index = archive.symbols()
        assert index is not None
        names: dict[int, list[bytes]] = {}
        for name, member in index.items():
            names.setdefault(member, []).append(name)
        members = [
            NewMember(m.name, m.size, [archive.data(m)], names.get(m.index, ()))
            for m in reversed(archive.members)
        ]
        with turned.open("wb") as file:
            write_archive(file, "gnu", members)
    again = replace(built, library=turned)
    first = strip(built, tmp_path / "a", "--strip", remove)
    second = strip(again, tmp_path / "b", "--strip", remove)
    assert first.read_bytes() == second.read_bytes()
