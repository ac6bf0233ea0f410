"""Universal files as `lipo` makes them: read, laid out anew, and read by `lipo` again."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from cargo_strip_hook.archive.universal import encode, lay_out, read_universal
from cargo_strip_hook.core.errors import ArchiveError
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.tools import need


def _universal(folder: Path, *flags: str) -> tuple[Path, list[Path]]:
    libraries = [
        kit.library(folder / arch, arch, {"a.c": f"int f(void) {{ return {n}; }}"})
        for n, arch in enumerate(kit.ARCHES)
    ]
    out = folder / "fat.a"
    tool([need("llvm-lipo-22", "llvm-lipo"), "-create", *flags, *libraries, "-output", out])
    return out, libraries


@pytest.mark.parametrize("flags", [(), ("-fat64",)])
def test_slices_are_what_lipo_put_in(tmp_path: Path, flags: tuple[str, ...]) -> None:
    file, libraries = _universal(tmp_path, *flags)
    data = file.read_bytes()
    header = read_universal(memoryview(data))
    assert header.wide == bool(flags)
    found = {data[s.offset : s.offset + s.size] for s in header.slices}
    assert found == {one.read_bytes() for one in libraries}
    assert encode(header) == data[: len(encode(header))]
    assert lay_out(header, [s.size for s in header.slices]) == header


@pytest.mark.parametrize("flags", [(), ("-fat64",)])
def test_new_sizes_keep_order_and_alignment(tmp_path: Path, flags: tuple[str, ...]) -> None:
    file, _ = _universal(tmp_path, *flags)
    data = file.read_bytes()
    old = read_universal(memoryview(data))
    bodies = [data[s.offset : s.offset + s.size] for s in old.slices]
    new = lay_out(old, [len(b) for b in bodies])
    out = bytearray(encode(new))
    for one, body in zip(new.slices, bodies, strict=True):
        out += bytes(one.offset - len(out)) + body
    again = tmp_path / "again.a"
    again.write_bytes(out)
    said = tool([need("llvm-lipo-22", "llvm-lipo"), "-archs", again]).split()
    assert said == tool([need("llvm-lipo-22", "llvm-lipo"), "-archs", file]).split()
    assert [s.align for s in new.slices] == [s.align for s in old.slices]


def _words(*slices: tuple[int, int, int, int, int]) -> bytes:
    head = struct.pack(">II", 0xCAFEBABE, len(slices))
    return head + b"".join(struct.pack(">5I", *s) for s in slices)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xca\xfe\xba", "no universal file"),
        (struct.pack(">II", 0xCAFEBABE, 61), "no universal file"),
        (struct.pack(">II", 0xCAFEBABE, 2), "cut short"),
        (struct.pack(">II", 0xCAFEBABE, 0), "no architecture"),
        (_words((7, 3, 28, 100, 0)), "beyond the end"),
        (_words((7, 3, 4, 1, 0)), "beyond the end"),
        (_words((7, 3, 30, 1, 3)) + bytes(9), "alignment"),
        (_words((7, 3, 28, 1, 60)) + bytes(9), "alignment"),
        (_words((7, 3, 48, 2, 0), (7, 3, 50, 2, 0)) + bytes(9), "twice"),
        (_words((7, 3, 48, 4, 0), (12, 3, 50, 2, 0)) + bytes(9), "overlap"),
    ],
)
def test_damage_is_told(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=re.escape(message)):
        read_universal(memoryview(data))
