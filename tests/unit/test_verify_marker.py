"""The marker: the same bytes for the same request, and found again in an object's section."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cargo_strip_hook.verify.marker import SECTION_NAME, make_marker, read_marker

NAMES = b"\0.shstrtab\0" + SECTION_NAME.encode() + b"\0"


def elf(marker: bytes, *, wide: bool = True, order: str = "<", **section: int) -> bytes:
    """An object with two sections, written by hand from the gABI's figures."""
    form = order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
    head = 64 if wide else 52
    table = head + len(NAMES) + len(marker)
    kind, flags = section.get("type", 1), section.get("flags", 0)
    size = section.get("size", len(marker))
    headers = struct.pack(form, *[0] * 10)
    headers += struct.pack(form, 1, 3, 0, 0, head, len(NAMES), 0, 0, 1, 0)
    headers += struct.pack(form, 11, kind, flags, 0, head + len(NAMES), size, 0, 0, 1, 0)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    words = (1, 62, 1, 0, 0, table, 0, head, 0, 0, len(headers) // 3, 3, 1)
    header = struct.pack(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), *words)
    return ident + header + NAMES + marker + headers


def archive(*members: tuple[bytes, bytes]) -> bytes:
    """A plain archive of (16-byte name, contents)."""
    out = b"!<arch>\n"
    for name, data in members:
        out += name.ljust(16) + b"0           0     0     644     " + b"%-10d`\n" % len(data)
        out += data + b"\n" * (len(data) & 1)
    return out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib.a"


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_found_in_every_class_and_order(path: Path, wide: bool, order: str) -> None:
    path.write_bytes(archive((b"/", bytes(4)), (b"x.o/", elf(b"the mark", wide=wide, order=order))))
    assert read_marker(path) == b"the mark"


def test_found_behind_bsd_names_and_index(path: Path) -> None:
    named = b"__.SYMDEF SORTED\0\0\0\0" + bytes(8)
    member = b"long name.o\0" + elf(b"the mark")
    path.write_bytes(archive((b"#1/20", named), (b"#1/12", member)))
    assert read_marker(path) == b"the mark"


def test_empty_marker_is_a_marker(path: Path) -> None:
    path.write_bytes(archive((b"x.o/", elf(b""))))
    assert read_marker(path) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"!<arch>\n",
        b"not an archive",
        archive((b"x.o/", elf(b"m", type=8))),
        archive((b"x.o/", elf(b"m", flags=2))),
        archive((b"x.o/", elf(b"m", size=1 << 20))),
        archive((b"x.o/", b"text")),
        archive((b"x.o/", elf(b"m")[:70])),
        archive((b"x.o/", elf(b"m").replace(b".cargo-strip-hook", b".cargo-strip-haak"))),
        # an original has many members: only the first one says anything
        archive((b"x.o/", b"text"), (b"y.o/", elf(b"m"))),
    ],
)
def test_none(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert read_marker(path) is None


def test_none_for_damage_anywhere(path: Path) -> None:
    whole = archive((b"/", bytes(4)), (b"x.o/", elf(b"the mark")))
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert read_marker(path) in (None, b"the mark")
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        read_marker(path)


def test_none_where_nothing_can_be_read(tmp_path: Path) -> None:
    assert read_marker(tmp_path / "nothing") is None
    assert read_marker(tmp_path) is None


def test_content() -> None:
    made = make_marker(["b", "a", "b"], "symbols", "class", "native", "1.2.3")
    assert made == make_marker(("a", "b"), "symbols", "class", "native", "1.2.3")
    assert made.endswith(b"\n")
    assert json.loads(made) == {
        "format": 1,
        "engine": "native",
        "exports": ["a", "b"],
        "granularity": "class",
        "strip": "symbols",
        "version": "1.2.3",
    }


@pytest.mark.parametrize(
    "other",
    [
        (["a"], "symbols", "class", "native", "1"),
        (["a", "b"], "none", "class", "native", "1"),
        (["a", "b"], "symbols", "whole", "native", "1"),
        (["a", "b"], "symbols", "class", "system", "1"),
        (["a", "b"], "symbols", "class", "native", "2"),
        (["a", "b"], "symbols", "class", "native", "1", ["malloc"]),
    ],
)
def test_another_request_has_another_marker(other: tuple[list[str], str, str, str, str]) -> None:
    assert make_marker(["a", "b"], "symbols", "class", "native", "1") != make_marker(*other)


def test_reading_imports_nothing_big() -> None:
    code = "import sys, cargo_strip_hook.verify.marker; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
