"""What the writer makes, against bytes laid out by hand; and round trips of anything."""

from __future__ import annotations

import io
import itertools
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.archive import Dialect, NewMember, open_archive, write_archive
from cargo_strip_hook.core.errors import ArchiveError

DIALECTS: tuple[Dialect, ...] = ("gnu", "bsd", "darwin", "coff")


def header(name: str, size: int, mode: int = 644, time: int = 0) -> bytes:
    return f"{name:<16}{time:<12}{0:<6}{0:<6}{mode:<8}{size:<10}`\n".encode()


def written(dialect: Dialect, *members: NewMember) -> bytes:
    file = io.BytesIO()
    write_archive(file, dialect, members)
    return file.getvalue()


SHORT = NewMember("a.o", 5, [b"AA", b"", b"AAA"], [b"foo", b"bar"])
LONG = NewMember("a_name_of_17_b.oo", 2, [b"BB"], [b"zip", b"foo"])


def test_gnu() -> None:
    # the first member's data, not its header, is at a multiple of 8: 8 + 60 + 40 + 60 + 20 + 60
    names = b"foo\0bar\0zip\0foo\0"
    assert written("gnu", SHORT, LONG) == b"".join(
        [
            b"!<arch>\n",
            header("/", 40, 0),
            struct.pack(">IIIII", 4, 188, 188, 254, 254) + names + bytes(4),
            b"//" + b" " * 46 + b"20        `\n" + b"a_name_of_17_b.oo/\n\n",
            header("a.o/", 5),
            b"AAAAA\n",
            header("/0", 2),
            b"BB",
        ]
    )


def test_bsd() -> None:
    assert written("bsd", SHORT, LONG) == b"".join(
        [
            b"!<arch>\n",
            header("#1/12", 12 + 56, 0),  # data at 80
            b"__.SYMDEF\0\0\0",
            struct.pack("<I8I", 32, 0, 136, 4, 136, 8, 206, 12, 206),
            struct.pack("<I", 16) + b"foo\0bar\0zip\0foo\0",
            header("#1/4", 9),  # at 136
            b"a.o\0" + b"AAAAA\n",
            header("#1/22", 24),  # at 206, so data at 288
            b"a_name_of_17_b.oo\0\0\0\0\0" + b"BB",
        ]
    )


def test_darwin() -> None:
    assert written("darwin", SHORT, LONG) == b"".join(
        [
            b"!<arch>\n",
            header("#1/12", 12 + 56, 0),
            b"__.SYMDEF\0\0\0",
            struct.pack("<I8I", 32, 0, 136, 4, 136, 8, 208, 12, 208),
            struct.pack("<I", 16) + b"foo\0bar\0zip\0foo\0",
            header("#1/4", 12),  # at 136, data at 200
            b"a.o\0" + b"AAAAA\n\n\n",
            header("#1/20", 28),  # at 208, data at 288
            b"a_name_of_17_b.oo\0\0\0" + b"BB\n\n\n\n\n\n",
        ]
    )


def test_coff() -> None:
    assert written("coff", SHORT, LONG) == b"".join(
        [
            b"!<arch>\n",
            header("/", 28, 0),  # at 8
            struct.pack(">IIII", 3, 268, 268, 334) + b"foo\0bar\0zip\0",
            header("/", 34, 0),  # at 96
            struct.pack("<III", 2, 268, 334),
            struct.pack("<IHHH", 3, 1, 1, 2) + b"bar\0foo\0zip\0",
            b"//" + b" " * 46 + b"18        `\n" + b"a_name_of_17_b.oo\0",  # at 190
            header("a.o/", 5),  # at 268
            b"AAAAA\n",
            header("/0", 2),  # at 334
            b"BB",
        ]
    )


def test_repeated_long_names_are_stored_once() -> None:
    data = written("gnu", LONG, LONG)
    assert data.count(b"a_name_of_17_b.oo/\n") == 1
    assert data.count(header("/0", 2)) == 2


def test_darwin_numbers_repeated_names() -> None:
    # LLVM's ArchiveWriter: a debug map tells members of one name apart by time, and 0 is any
    other = NewMember("b.o", 0, [])
    data = written("darwin", SHORT, other, SHORT)
    assert header("#1/4", 12, time=1) in data
    assert header("#1/4", 12, time=2) in data
    assert header("#1/4", 4) in data


@pytest.mark.parametrize("dialect", DIALECTS)
def test_first_data_is_aligned(dialect: Dialect, tmp_path: Path) -> None:
    path = tmp_path / "lib.a"
    for symbols, name in itertools.product(
        ([], [b"a"], [b"ab", b"abcde"]), ("a.o", "a_long_name_of_a_member.o")
    ):
        path.write_bytes(written(dialect, NewMember(name, 3, [b"AAA"], symbols)))
        with open_archive(path) as archive:
            assert archive.members[0].offset % (2 if dialect == "coff" else 8) == 0


def test_chunks_of_every_kind_and_short_writes() -> None:
    class Slow(io.BytesIO):
        def write(self, data: object) -> int:
            return super().write(bytes(cast(bytes, data))[:7])

    numbers = np.arange(6, dtype="<u4").reshape(2, 3)
    chunks = (numbers, bytearray(b"xyz"), memoryview(b"12"), np.empty((0, 4)))
    member = NewMember("a.o", 29, chunks)
    slow = Slow()
    write_archive(slow, "gnu", [member])
    assert slow.getvalue() == written("gnu", member)
    assert slow.getvalue().endswith(struct.pack("<6I", *range(6)) + b"xyz12\n")


def test_chunks_may_be_an_iterator() -> None:
    assert written("gnu", NewMember("a.o", 4, iter([b"ab", b"cd"]))).endswith(b"abcd")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("member", "what"),
    [
        (NewMember("", 0, []), "cannot be the name"),
        (NewMember("a\nb", 0, []), "cannot be the name"),
        (NewMember("a\0b", 0, []), "cannot be the name"),
        (NewMember("__.SYMDEF", 0, []), "cannot be the name"),
        (NewMember("\ud800", 0, []), "cannot be encoded"),
        (NewMember("a", 3, [b"ab"]), "2 bytes of data, but 3 were announced"),
        (NewMember("a", 1, [b"a", b"b"]), "2 bytes of data, but 1 were announced"),
        (NewMember("a", -1, []), "a size of -1"),
        (NewMember("a", 10**10, []), "more than an archive member can have"),
        (NewMember("a", 0, [], [b"foo", b""]), "symbol name"),
        (NewMember("a", 0, [], [b"f\0o"]), "symbol name"),
    ],
)
def test_what_does_not_fit(dialect: Dialect, member: NewMember, what: str) -> None:
    with pytest.raises(ArchiveError, match=what):
        written(dialect, member)


class Sink(io.RawIOBase):
    """Takes anything and keeps the first bytes."""

    def __init__(self) -> None:
        self.start = b""

    def write(self, data: object) -> int:
        view = memoryview(cast(bytes, data))
        if len(self.start) < 1000:
            self.start += bytes(view[:1000])
        return view.nbytes


def huge(dialect: Dialect, size: int) -> bytes:
    block = bytes(1 << 20)
    chunks = itertools.chain(itertools.repeat(block, size >> 20), [block[: size % (1 << 20)]])
    sink = Sink()
    last = NewMember("b.o", 1, [b"b"], [b"last"])
    write_archive(cast(BinaryIO, sink), dialect, [NewMember("a.o", size, chunks), last])
    return sink.start


def test_gnu_index_beyond_4_gib() -> None:
    # the second header is at 8 + 60 + 16 + 60 + size, padding of the index included
    below = huge("gnu", (1 << 32) - 2 - 144)
    assert below.startswith(
        b"!<arch>\n" + header("/", 16, 0) + struct.pack(">II", 1, (1 << 32) - 2)
    )
    beyond = huge("gnu", (1 << 32) - 144)
    assert beyond.startswith(b"!<arch>\n" + header("/SYM64/", 24, 0))
    assert beyond[68:].startswith(struct.pack(">QQ", 1, (1 << 32) + 8) + b"last\0")


def test_darwin_index_beyond_4_gib() -> None:
    data = huge("darwin", 1 << 32)
    assert data.startswith(b"!<arch>\n" + header("#1/12", 12 + 40, 0) + b"__.SYMDEF_64")
    # 8 + 60 + 52 is the first header, then 64 of it with its name
    assert data[80:].startswith(struct.pack("<QQQQ", 16, 0, 184 + (1 << 32), 5) + b"last\0")


@pytest.mark.parametrize("dialect", ["bsd", "coff"])
def test_too_large(dialect: Dialect) -> None:
    with pytest.raises(ArchiveError, match="4 GiB"):
        huge(dialect, 1 << 32)


def test_too_many_members_for_coff() -> None:
    members = [NewMember("a.obj", 0, [])] * 0xFFFF
    written("coff", *members[1:])
    with pytest.raises(ArchiveError, match="65535 members"):
        written("coff", *members)


names = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1)
symbol_names = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)


@st.composite
def new_members(draw: st.DrawFn) -> NewMember:
    name = draw(
        st.one_of(
            names,
            st.sampled_from(
                ["a/b", "/", "//", "#1", "#1/4", "a ", "/0", "x" * 15, "x" * 16, "\udcff"]
            ),
        ).filter(lambda name: not name.startswith("__.SYMDEF"))
    )
    chunks = draw(st.lists(st.binary(max_size=12), max_size=3))
    return NewMember(name, sum(map(len, chunks)), chunks, draw(st.lists(symbol_names, max_size=4)))


@given(st.sampled_from(DIALECTS), st.lists(new_members(), max_size=5))
def test_round_trip(dialect: Dialect, members: list[NewMember]) -> None:
    data = written(dialect, *members)
    assert data == written(dialect, *members)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lib.a"
        path.write_bytes(data)
        with open_archive(path) as archive:
            assert [member.name for member in archive.members] == [new.name for new in members]
            for member, new in zip(archive.members, members, strict=True):
                content = b"".join(cast("list[bytes]", new.chunks))
                padding = b"\n" * (-len(content) % 8) if dialect == "darwin" else b""
                assert bytes(archive.data(member)) == content + padding
            expected: dict[bytes, int] = {}
            for index, new in enumerate(members):
                for symbol in new.symbols:
                    expected.setdefault(symbol, index)
            assert archive.symbols() == expected
            if dialect in ("gnu", "coff"):
                assert archive.dialect == dialect
            else:
                assert archive.dialect in ("bsd", "darwin")
