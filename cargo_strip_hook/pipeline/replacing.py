"""Replacing all files of a set, and archives of the members of others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cargo_strip_hook.archive import Archive, NewMember, open_archive, write_archive
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.replace import Staging, commit_all, staging
from cargo_strip_hook.verify.marker import read_marker, set_of


def replace_set(
    common: Path,
    new: Path,
    staged: Sequence[Staging],
    texts: Sequence[Staging],
    target: Target,
) -> None:
    """The common library for the old and the `new`, then all others, then the common library.

    A text that says that the common library is needed does no harm before it is.
    """
    old = common.exists() and bool(set_of(read_marker(common)))
    with staging(staged[0].library, output=common) as first:
        if old:
            both(new, common, first.path, target)
        else:
            shutil.copyfile(new, first.path)
        first.commit()
    commit_all([*texts, *staged])
    if old:
        with staging(staged[0].target, output=common) as last:
            shutil.copyfile(new, last.path)
            last.commit()


def both(new: Path, old: Path, path: Path, target: Target) -> None:
    """An archive of the new common library's members, and behind them those of the old one."""
    members: list[NewMember] = []
    known: set[bytes] = set()
    with ExitStack() as stack:
        for library in (new, old):
            for member in _members(stack.enter_context(open_archive(library))):
                mine = [name for name in member.symbols if name not in known]
                if not mine and library is old:
                    continue  # the same as before
                known.update(mine)
                members.append(replace(member, symbols=mine))
        with path.open("wb") as file:
            write_archive(file, target.archive_dialect, members)


def _members(archive: Archive) -> Iterator[NewMember]:
    """The members of an archive as they are written into another one."""
    names: dict[int, list[bytes]] = {}
    for name, number in (archive.symbols() or {}).items():
        names.setdefault(number, []).append(name)
    for member in archive.members:
        data = archive.data(member)
        yield NewMember(member.name, len(data), [data], names.get(member.index, []))


def together(archives: Sequence[Path], path: Path, target: Target) -> None:
    """One archive of the members of several."""
    members: list[NewMember] = []
    with ExitStack() as stack:
        for library in archives:
            members += _members(stack.enter_context(open_archive(library)))
        with path.open("wb") as file:
            write_archive(file, target.archive_dialect, members)


__all__ = ["both", "replace_set", "together"]
