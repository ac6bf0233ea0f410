"""Recognising a DLL's import library: like a static library, it may be called ``<name>.lib``."""

from __future__ import annotations

from pathlib import Path

from cargo_strip_hook.core.errors import DiscoveryError


def is_import_library(path: Path) -> bool:
    """Whether the archive at `path` is an import library, without code of its own.

    By name (``.dll.lib``, ``.dll.a``) or by content: every member is a short import or an object
    with an `.idata$` section. Raises `ArchiveError` where it is no archive.
    """
    if path.name.endswith((".dll.lib", ".dll.a")):
        return True
    from cargo_strip_hook.archive import open_archive, read_slices
    from cargo_strip_hook.formats.detect import is_import_member

    slices = read_slices(path)
    if slices[0].architecture:  # a universal file: Darwin has no such libraries
        return False
    with open_archive(slices[0]) as archive:
        if not archive.members:
            return False
        for member in archive.members:
            with archive.data(member) as data:
                if not is_import_member(data):
                    return False
    return True


def refuse_import_library(path: Path) -> None:
    """Raise `DiscoveryError` where `path` is an import library."""
    if is_import_library(path):
        raise DiscoveryError(
            f"{path} is the import library of a DLL, not a static library",
            help=(
                "an import library holds no code and must stay as it is",
                "under --meson-paths cargo-c writes it over the static library of the same name; "
                "build with `--library-type staticlib`",
            ),
        )
