"""Damage anywhere gives an archive that can be read whole, or an `ArchiveError`: nothing else."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cargo_strip_hook.archive import Dialect, NewMember, open_archive, write_archive
from cargo_strip_hook.core.errors import ArchiveError


def written(dialect: Dialect) -> bytes:
    members = [
        NewMember("a.o", 5, [b"AAAAA"], [b"foo", b"bar"]),
        NewMember("a_name_that_is_too_long.o", 4, [b"\xcf\xfa\xed\xfe"], [b"zip"]),
        NewMember("another_long_name.o", 0, [], []),
        NewMember("a.o", 1, [b"B"], [b"foo"]),
    ]
    file = io.BytesIO()
    write_archive(file, dialect, members)
    return file.getvalue()


def header(name: str, size: int) -> bytes:
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{size:<10}`\n".encode()


THIN = b"".join(
    [
        b"!<thin>\n" + header("/", 24),
        struct.pack(">III", 2, 172, 232) + b"foo\0bar\0" + bytes(4),
        header("//", 20) + b"in.a/\na.o/\nlib.a/\n\n\n",
        header("/0:100", 3),
        header("/6", 3),
        header("/6", 3),
    ]
)
SYM64 = (
    b"!<arch>\n" + header("/SYM64/", 20) + struct.pack(">QQ", 1, 88) + b"foo\0" + header("a/", 0)
)
SYMDEF64 = b"".join(
    [
        b"!<arch>\n" + header("__.SYMDEF_64", 36),
        struct.pack("<QQQQ", 16, 0, 104, 4) + b"_fo\0",
        header("a.o", 0),
    ]
)
SEEDS = [*(written(d) for d in ("gnu", "bsd", "darwin", "coff")), THIN, SYM64, SYMDEF64]

# what headers are made of finds more than any byte does
interesting = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from(
        (
            *(b"/", b"//", b"/0", b"/999", b"/0:8", b"#1/", b"#1/99", b"__.SYMDEF", b"/SYM64/"),
            *(b"`\n", b"\n", b" ", b"\0", b"9", b"-1", b"\xff\xff\xff\xff", b"!<thin>\n"),
        )
    ),
)
edits = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), interesting, st.sampled_from("rid")), max_size=4
)


def damaged(seed: bytes, changes: list[tuple[float, bytes, str]], cut: float) -> bytes:
    data = bytearray(seed)
    for where, new, how in changes:
        at = int(where * len(data))
        if how == "d":
            del data[at : at + len(new)]
        else:
            data[at : at + (len(new) if how == "r" else 0)] = new
    return bytes(data[: int(len(data) * cut)])


def read_whole(folder: Path, data: bytes) -> int:
    """How many members could be read; or an `ArchiveError` that says where."""
    path = folder / "lib.a"
    path.write_bytes(data)
    try:
        with open_archive(path) as archive:
            for member in archive.members:
                assert len(archive.data(member)) == member.size
                assert member.name
            archive.symbols()
            return len(archive.members)
    except ArchiveError as e:
        assert str(folder) in str(e)
        return 0


@pytest.mark.parametrize("seed", SEEDS)
def test_undamaged(seed: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.o").write_bytes(b"AAA")
    (tmp_path / "in.a").write_bytes(SYM64.replace(b"a/", b"x/"))
    data = seed.replace(b"/0:100", b"/0:88 ")
    assert read_whole(tmp_path, data) in (1, 3, 4)


@given(
    st.sampled_from(SEEDS),
    edits,
    st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=400, deadline=None)
@example(THIN.replace(b"/0:100", b"/11:8 "), [], 1.0)
def test_damaged(seed: bytes, changes: list[tuple[float, bytes, str]], cut: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.o").write_bytes(b"AAA")
        (folder / "in.a").write_bytes(SEEDS[0])
        read_whole(folder, damaged(seed, changes, cut))


@pytest.mark.parametrize("seed", SEEDS)
def test_cut_anywhere(seed: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.o").write_bytes(b"AAA")
    (tmp_path / "in.a").write_bytes(SEEDS[0])
    whole = read_whole(tmp_path, seed)
    for size in range(len(seed)):
        assert read_whole(tmp_path, seed[:size]) <= whole
