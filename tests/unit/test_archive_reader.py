"""Archives written by hand, byte for byte, in every dialect; and damaged ones."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from cargo_strip_hook.archive import Archive, Dialect, open_archive, read_slices
from cargo_strip_hook.core.errors import ArchiveError


def header(name: str, size: int | str) -> bytes:
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{size:<10}`\n".encode("latin-1")


GNU = b"".join(
    [
        b"!<arch>\n",
        header("/", 24),  # at 8
        struct.pack(">III", 2, 172, 236) + b"foo\0a_name\0\0",  # at 68
        header("//", 20),  # at 92
        b"sub/a_long_name.o/\n\n",  # at 152
        header("a.o/", 3),  # at 172
        b"AAA\n",
        header("/0", 2),  # at 236
        b"BB",
    ]
)

GNU64 = b"".join(
    [
        b"!<arch>\n",
        header("/SYM64/", 20),
        struct.pack(">QQ", 1, 88) + b"foo\0",  # 8 + 60 + 20
        header("a.o/", 1),
        b"A",  # the last padding byte may be missing
    ]
)

BSD = b"".join(
    [
        b"!<arch>\n",
        header("__.SYMDEF", 32),
        struct.pack("<I", 16),
        struct.pack("<II", 4, 100),  # the second name first
        struct.pack("<II", 0, 164),
        struct.pack("<I", 8) + b"foo\0bar\0",
        header("a.o", 3),  # at 8 + 60 + 32
        b"AAA\n",
        header("#1/20", 22),  # at 164
        b"a name with spaces\0\0" + b"BB",
    ]
)

DARWIN = b"".join(
    [
        b"!<arch>\n",
        header("#1/20", 20 + 20),
        b"__.SYMDEF SORTED\0\0\0\0",
        struct.pack("<III", 8, 0, 108) + struct.pack("<I", 4) + b"_fo\0",  # 8 + 60 + 40
        header("#1/8", 16),
        b"a.o\0\0\0\0\0" + b"\xcf\xfa\xed\xfe" + b"\n\n\n\n",
    ]
)

DARWIN64 = b"".join(
    [
        b"!<arch>\n",
        header("#1/12", 12 + 8 + 16 + 8 + 4),
        b"__.SYMDEF_64",
        struct.pack("<QQQ", 16, 0, 116) + struct.pack("<Q", 4) + b"_fo\0",  # 8 + 60 + 48
        header("#1/4", 8),
        b"a.o\0" + b"AAAA",
    ]
)


def coff(extra: bytes = b"") -> bytes:
    long_names = header("//", 22) + b"x/a_long_windows.obj\0\0"
    first_at = 8 + 60 + 16 + 60 + 24 + len(long_names) + len(extra)
    second_at = first_at + 60 + 2
    return b"".join(
        [
            b"!<arch>\n",
            header("/", 16),
            struct.pack(">III", 2, second_at, first_at) + b"a\0b\0",
            header("/", 24),
            struct.pack("<III", 2, first_at, second_at) + struct.pack("<IHH", 2, 2, 1) + b"a\0b\0",
            long_names,
            extra,
            header("/0", 1) + b"B\n",
            header("a.obj/", 2) + b"AA",
        ]
    )


def opened(tmp_path: Path, data: bytes) -> Archive:
    path = tmp_path / "lib.a"
    path.write_bytes(data)
    return open_archive(path)


def contents(archive: Archive) -> list[tuple[str, bytes]]:
    return [(member.name, bytes(archive.data(member))) for member in archive.members]


@pytest.mark.parametrize(
    ("data", "dialect", "members", "symbols"),
    [
        pytest.param(
            GNU,
            "gnu",
            [("a.o", b"AAA"), ("sub/a_long_name.o", b"BB")],
            {b"foo": 0, b"a_name": 1},
            id="gnu",
        ),
        pytest.param(GNU64, "gnu", [("a.o", b"A")], {b"foo": 0}, id="sym64"),
        pytest.param(
            BSD,
            "bsd",
            [("a.o", b"AAA"), ("a name with spaces", b"BB")],
            {b"bar": 0, b"foo": 1},
            id="bsd",
        ),
        pytest.param(
            DARWIN, "darwin", [("a.o", b"\xcf\xfa\xed\xfe\n\n\n\n")], {b"_fo": 0}, id="darwin"
        ),
        pytest.param(DARWIN64, "darwin", [("a.o", b"AAAA")], {b"_fo": 0}, id="darwin64"),
        pytest.param(
            coff(),
            "coff",
            [("x/a_long_windows.obj", b"B"), ("a.obj", b"AA")],
            {b"a": 1, b"b": 0},
            id="coff",
        ),
        pytest.param(
            coff(header("/<XFGHASHMAP>/", 3) + b"xxx\n" + header("/<HYBRIDMAP>/", 2) + b"yy"),
            "coff",
            [("x/a_long_windows.obj", b"B"), ("a.obj", b"AA")],
            {b"a": 1, b"b": 0},
            id="coff-maps",
        ),
        pytest.param(b"!<arch>\n", "gnu", [], None, id="empty"),
        pytest.param(
            b"!<arch>\n" + 2 * (header("a.o/", 1) + b"A\n"),
            "gnu",
            [("a.o", b"A"), ("a.o", b"A")],
            None,
            id="repeated-name",
        ),
        pytest.param(
            b"!<arch>\n" + header("a.o", 4) + b"\xcf\xfa\xed\xfe",
            "darwin",
            [("a.o", b"\xcf\xfa\xed\xfe")],
            None,
            id="macho-without-index",
        ),
        pytest.param(
            b"!<arch>\n" + header("\xff.o/", 0), "gnu", [("\udcff.o", b"")], None, id="not-utf8"
        ),
    ],
)
def test_dialects(
    tmp_path: Path,
    data: bytes,
    dialect: Dialect,
    members: list[tuple[str, bytes]],
    symbols: dict[bytes, int] | None,
) -> None:
    with opened(tmp_path, data) as archive:
        assert archive.dialect == dialect
        assert not archive.thin
        assert contents(archive) == members
        assert [member.index for member in archive.members] == list(range(len(members)))
        assert archive.symbols() == symbols


def test_offsets_are_those_of_the_file(tmp_path: Path) -> None:
    with opened(tmp_path, GNU) as archive:
        first, second = archive.members
    assert (first.header_offset, first.offset, first.size) == (172, 232, 3)
    assert (second.header_offset, second.offset, second.size) == (236, 296, 2)


def test_first_definition_wins(tmp_path: Path) -> None:
    index = struct.pack(">III", 2, 84, 146) + b"f\0f\0"
    members = header("a.o/", 1) + b"A\n" + header("b.o/", 1) + b"B\n"
    with opened(tmp_path, b"!<arch>\n" + header("/", 16) + index + members) as archive:
        assert archive.symbols() == {b"f": 0}


def test_data_outlives_the_archive(tmp_path: Path) -> None:
    archive = opened(tmp_path, GNU)
    view = archive.data(archive.members[0])
    archive.close()
    (tmp_path / "lib.a").unlink()
    assert bytes(view) == b"AAA"
    assert view.readonly


def test_data_is_not_copied(tmp_path: Path) -> None:
    with opened(tmp_path, GNU) as archive:
        first, again = (archive.data(archive.members[0]) for _ in range(2))
        assert first.obj is again.obj


# thin archives


def thin(name: str, size: int) -> bytes:
    table = name + "/\n" + "\n" * (len(name) % 2)
    return b"!<thin>\n" + header("//", len(table)) + table.encode() + header("/0", size)


def test_thin(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.o").write_bytes(b"AAA")
    (tmp_path / "empty.o").write_bytes(b"")
    data = b"!<thin>\n" + header("//", 20) + b"sub/a.o/\nempty.o/\n\n\n"
    data += header("/0", 3) + header("/9", 0)
    with opened(tmp_path, data) as archive:
        assert archive.thin
        assert archive.dialect == "gnu"
        assert contents(archive) == [("sub/a.o", b"AAA"), ("empty.o", b"")]
        assert (archive.members[0].offset, archive.members[0].header_offset) == (0, 88)


def test_thin_names_are_relative_to_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("sub", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other" / "a.o").write_bytes(b"AAA")
    (tmp_path / "sub" / "lib.a").write_bytes(thin("../other/a.o", 3))
    monkeypatch.chdir(tmp_path)
    with open_archive(Path("sub/lib.a")) as archive:
        assert contents(archive) == [("../other/a.o", b"AAA")]


def test_thin_member_of_another_archive(tmp_path: Path) -> None:
    (tmp_path / "in.a").write_bytes(GNU)
    data = thin("in.a", 2).replace(header("/0", 2), header("/0:236", 2))
    with opened(tmp_path, data) as archive:
        assert contents(archive) == [("sub/a_long_name.o", b"BB")]
        assert archive.members[0].offset == 296


@pytest.mark.parametrize(
    ("size", "present", "what"),
    [(3, None, "cannot be read"), (3, b"AAAA", "has 4 bytes"), (3, b"AA", "has 2 bytes")],
)
def test_thin_file_is_missing_or_changed(
    tmp_path: Path, size: int, present: bytes | None, what: str
) -> None:
    if present is not None:
        (tmp_path / "a.o").write_bytes(present)
    with (
        opened(tmp_path, thin("a.o", size)) as archive,
        pytest.raises(ArchiveError, match=what) as caught,
    ):
        archive.data(archive.members[0])
    assert caught.value.member == "a.o"
    assert caught.value.help


def test_thin_archives_in_a_circle(tmp_path: Path) -> None:
    data = thin("lib.a", 3).replace(header("/0", 3), header("/0:8", 3))
    with pytest.raises(ArchiveError, match="list each other"):
        opened(tmp_path, data)


def test_thin_member_at_no_member(tmp_path: Path) -> None:
    (tmp_path / "in.a").write_bytes(GNU)
    data = thin("in.a", 2).replace(header("/0", 2), header("/0:237", 2))
    with pytest.raises(ArchiveError, match="no member begins at offset 0xed"):
        opened(tmp_path, data)


# damage


ONE = b"!<arch>\n" + header("a.o/", 3) + b"AAA\n"


@pytest.mark.parametrize(
    ("data", "what", "offset", "member"),
    [
        pytest.param(ONE + b"x", "1 bytes are no member header", 72, None, id="end"),
        pytest.param(ONE[:40], "32 bytes are no member header", 8, None, id="header"),
        pytest.param(
            ONE[:69], "the member has 3 bytes and the archive 1 more", 8, "a.o/", id="cut"
        ),
        pytest.param(ONE.replace(b"`\n", b"`x"), "wrong end mark", 8, "a.o/", id="terminator"),
        pytest.param(
            b"!<arch>\n" + header("a.o/", "3x"), "size `3x` is no number", 8, "a.o/", id="size"
        ),
        pytest.param(b"!<arch>\n" + header("a.o/", ""), "is no number", 8, "a.o/", id="no-size"),
        pytest.param(b"!<arch>\n" + header("a.o/", -1), "is no number", 8, "a.o/", id="negative"),
        pytest.param(b"!<arch>\n" + header("a.o/", "1_0"), "is no number", 8, "a.o/", id="digits"),
        pytest.param(b"!<arch>\n" + header("", 0), "without a name", 8, None, id="no-name"),
        pytest.param(
            b"!<arch>\n" + header("/0", 0), "without a table", 8, "/0", id="no-long-names"
        ),
        pytest.param(
            b"!<arch>\n" + header("//", 4) + b"abc\n" + header("/4", 0),
            "the name is at 4 of 4 bytes",
            72,
            "/4",
            id="long-name-outside",
        ),
        pytest.param(
            b"!<arch>\n" + header("//", 4) + b"abcd" + header("/0", 0),
            "has no end",
            72,
            "/0",
            id="long-name-unterminated",
        ),
        pytest.param(
            b"!<arch>\n" + header("/0x", 0), "`0x`, is no number", 8, "/0x", id="long-name-number"
        ),
        pytest.param(
            b"!<arch>\n" + header("#1/9", 8) + b"12345678",
            "the name of 9 bytes does not fit",
            8,
            "#1/9",
            id="bsd-name",
        ),
        pytest.param(
            b"!<arch>\n" + header("#1/z", 8) + b"12345678", "is no number", 8, "#1/z", id="bsd-nan"
        ),
        pytest.param(ONE + header("/", 4) + bytes(4), "before the members", 72, "/", id="late"),
        pytest.param(
            b"!<arch>\n" + 3 * (header("/", 4) + bytes(4)),
            "unknown or misplaced",
            136,
            "/",
            id="three",
        ),
        pytest.param(
            b"!<arch>\n" + header("/<FOO>/", 0),
            "unknown or misplaced",
            8,
            "/<FOO>/",
            id="unknown-table",
        ),
        pytest.param(
            ONE + header("__.SYMDEF", 8) + bytes(8),
            "not the first member",
            72,
            "__.SYMDEF",
            id="late-symdef",
        ),
        pytest.param(
            ONE.replace(b"a.o/", b"/0:4"),
            "only a thin archive|without a table",
            8,
            "/0:4",
            id="proxy",
        ),
        pytest.param(
            coff(header("/<ECSYMBOLS>/", 4) + bytes(4)), "ARM64EC", 250, "/<ECSYMBOLS>/", id="ec"
        ),
    ],
)
def test_damage_is_named(
    tmp_path: Path, data: bytes, what: str, offset: int, member: str | None
) -> None:
    with pytest.raises(ArchiveError, match=what) as caught:
        opened(tmp_path, data)
    assert (caught.value.offset, caught.value.member) == (offset, member)
    assert caught.value.path == str(tmp_path / "lib.a")


def with_index(name: str, index: bytes) -> bytes:
    return b"!<arch>\n" + header(name, len(index)) + index + header("a.o/", 1) + b"A\n"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(with_index("/", b"\0\0"), "cut short", id="gnu-count"),
        pytest.param(with_index("/", b"\xff\xff\xff\xff"), "cut short", id="gnu-offsets"),
        pytest.param(with_index("/", struct.pack(">II", 1, 80)), "1 entries and 0", id="gnu-names"),
        pytest.param(
            with_index("/", struct.pack(">II", 1, 80) + b"abcd"), "1 entries and 0", id="gnu-end"
        ),
        pytest.param(
            with_index("/", struct.pack(">II", 1, 81) + b"abc\0"), "offset 0x51", id="gnu-place"
        ),
        pytest.param(with_index("/SYM64/", b"\xff" * 8), "cut short", id="sym64"),
        pytest.param(
            with_index("__.SYMDEF", struct.pack("<I", 6) + bytes(8)), "multiple", id="bsd"
        ),
        pytest.param(with_index("__.SYMDEF", struct.pack("<I", 8)), "cut short", id="bsd-table"),
        pytest.param(
            with_index("__.SYMDEF", struct.pack("<IIII", 8, 0, 88, 4)), "cut short", id="bsd-names"
        ),
        pytest.param(
            with_index("__.SYMDEF", struct.pack("<IIII", 8, 5, 88, 4) + b"foo\0"),
            "a name at 5 of 4",
            id="bsd-name",
        ),
    ],
)
def test_damaged_index(tmp_path: Path, data: bytes, what: str) -> None:
    with opened(tmp_path, data) as archive, pytest.raises(ArchiveError, match=what) as caught:
        archive.symbols()
    assert caught.value.offset is not None
    assert "ranlib" in caught.value.help[0]


@pytest.mark.parametrize("which", [0, 3])
def test_coff_index_outside_of_its_members(tmp_path: Path, which: int) -> None:
    data = coff().replace(struct.pack("<IHH", 2, 2, 1), struct.pack("<IHH", 2, 2, which))
    with opened(tmp_path, data) as archive, pytest.raises(ArchiveError, match="among its 2"):
        archive.symbols()


@pytest.mark.parametrize(
    ("start", "what", "help"),
    [
        (b"", "an empty file", "run it again"),
        (b"\xca\xfe\xba\xbe\0\0\0\2", "universal", "static library is wanted"),
        (b"\xca\xfe\xba\xbf\0\0\0\2", "universal", "static library is wanted"),
        (b"BC\xc0\xde", "LLVM bitcode", "linker-plugin LTO"),
        (b"\xde\xc0\x17\x0b", "LLVM bitcode", "linker-plugin LTO"),
        (b"\x7fELF\2\1\1", "object file", "static library is wanted"),
        (b"\xcf\xfa\xed\xfe", "object file", "static library is wanted"),
        (b"\x64\x86\3\0", "COFF object", "static library is wanted"),
        (b"\0\0\xff\xff\2\0", "COFF object", "static library is wanted"),
        (b"MZ\x90", "DLL", "static library is wanted"),
        (b"<bigaf>\n", "AIX", "static library is wanted"),
        (b"/* GNU ld script */", "linker script", "the script names"),
        (b"GROUP ( a b )", "linker script", "the script names"),
        (b"!<arch>", "not an archive", "static library is wanted"),
        (b"hello", "not an archive", "static library is wanted"),
    ],
)
def test_not_an_archive(tmp_path: Path, start: bytes, what: str, help: str) -> None:
    with pytest.raises(ArchiveError, match=what) as caught:
        opened(tmp_path, start)
    assert help in caught.value.help[0]


def test_no_file_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.a"):
        with pytest.raises(ArchiveError, match="cannot be read"):
            open_archive(path)


def test_thin_member_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "in.a").write_bytes(b"\x7fELF")
    data = thin("in.a", 2).replace(header("/0", 2), header("/0:8", 2))
    with pytest.raises(ArchiveError, match=r"an archive it lists.*in\.a: an object file") as caught:
        opened(tmp_path, data)
    assert (caught.value.path, caught.value.member) == (str(tmp_path / "lib.a"), "in.a")


@pytest.mark.parametrize("magic", [b"!<arch>\n", b"\xca\xfe\xba\xbe"])
def test_no_room_to_map_it_is_no_fault_of_the_file(
    magic: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lib.a"
    path.write_bytes(magic + bytes(100))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", full)
    with pytest.raises(MemoryError):
        open_archive(path) if magic.startswith(b"!") else read_slices(path)
