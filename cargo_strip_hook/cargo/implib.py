"""Telling a DLL's import library from a static library: both may be called ``<name>.lib``.

Source: the Microsoft PE/COFF specification, "Import Library Format": short import members begin
with 0x0000 0xFFFF and version 0; the others hold nothing but `.idata$` sections and stubs.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cargo_strip_hook.errors import DiscoveryError

_HEADER, _SECTION = 20, 40


def is_import_library(path: Path) -> bool:
    """Whether the archive at `path` only says which DLL has the code.

    By name (``.dll.lib``, ``.dll.a``) or by content: every member is a short import or an object
    with an `.idata$` section. Raises `ArchiveError` for what is no archive.
    """
    if path.name.endswith((".dll.lib", ".dll.a")):
        return True
    from cargo_strip_hook.archive import open_archive, parts_of

    parts = parts_of(path)
    if parts[0].architecture:  # a universal file: Darwin has no such libraries
        return False
    with open_archive(parts[0]) as archive:
        if not archive.members:
            return False
        for member in archive.members:
            with archive.data(member) as data:
                if not _is_import_member(data):
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


def _is_import_member(data: memoryview) -> bool:
    if len(data) < _HEADER:
        return False
    signature, second, version = struct.unpack_from("<HHH", data)
    if signature == 0 and second == 0xFFFF:
        # version 2 is a big object
        return bool(version == 0)
    sections, optional_size = second, struct.unpack_from("<H", data, 16)[0]
    start = _HEADER + optional_size
    if start + sections * _SECTION > len(data):
        return False
    names = (bytes(data[at : at + 8]) for at in range(start, start + sections * _SECTION, _SECTION))
    return any(name.startswith(b".idata$") for name in names)
