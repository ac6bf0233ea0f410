"""Writing archives: deterministic, streamed, with a correct symbol index.

The layout is that of LLVM's `llvm/lib/Object/ArchiveWriter.cpp`, which every linker on the four
platforms reads: it is what `rustc` and `llvm-ar` write.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import BinaryIO, TypeAlias, cast

from cargo_strip_hook.archive.model import (
    HEADER_END,
    HEADER_SIZE,
    MAGIC,
    NAME_ENCODING,
    SYMDEF,
    Chunk,
    Dialect,
    NewMember,
)
from cargo_strip_hook.core.errors import ArchiveError

_LIMIT_32 = 1 << 32  # a member that begins here or later needs a 64-bit index
_LIMIT_SIZE = 9_999_999_999  # ten digits
_LIMIT_COFF_MEMBERS = 0xFFFE  # indexes have 16 bits and begin with 1


@dataclass(frozen=True, slots=True)
class _Placed:
    """A member with the bytes around its data; `place` is the offset of its header."""

    member: NewMember
    header: bytes
    padding: bytes
    place: int


_Layout: TypeAlias = Callable[[NewMember, int], tuple[bytes, bytes]]  # at an offset
_Plan: TypeAlias = tuple[bytes, list[_Placed]]  # what comes before the members, and the members


def write_archive(file: BinaryIO, dialect: Dialect, members: Sequence[NewMember]) -> None:
    """Write a complete archive to `file`, from its current position on.

    Equal members give equal bytes: time, uid and gid are 0 and the mode is 644. (Darwin archives
    number members with repeated names in the time field, as LLVM does, because a debug map tells
    them apart by it.) Member data is written chunk by chunk. GNU and Darwin archives get a 64-bit
    index where a member begins beyond 4 GiB; the first member's data is 8-aligned in all but COFF
    archives, every one's in a Darwin archive.

    Raises `ArchiveError` for a name or size that the dialect cannot hold, and where the chunks of a
    member do not add up to its size.
    """
    for member in members:
        _check(member)
    lay_out = _bsd_like if dialect in ("bsd", "darwin") else _gnu_like
    head, placed = lay_out(dialect, members)
    _write(file, head)
    for one in placed:
        _write(file, one.header)
        written = 0
        for chunk in one.member.chunks:
            written += _write(file, chunk)
        if written != one.member.size:
            raise ArchiveError(
                f"{written} bytes of data, but {one.member.size} were announced",
                member=one.member.name,
            )
        _write(file, one.padding)


def _check(member: NewMember) -> None:
    name = member.name
    if not name or "\0" in name or "\n" in name or name.startswith(SYMDEF.decode()):
        raise ArchiveError(f"`{name!r}` cannot be the name of an archive member")
    if member.size < 0:
        raise ArchiveError(f"a size of {member.size} bytes", member=name)
    symbols = member.symbols
    if symbols and (not all(symbols) or b"\0".join(symbols).count(b"\0") != len(symbols) - 1):
        raise ArchiveError("a symbol name that is empty or holds a zero byte", member=name)


def _write(file: BinaryIO, chunk: Chunk) -> int:
    """Write all of it; an unbuffered file may take less at a time."""
    # NumPy arrays are buffers too, which typing can say from Python 3.12 on
    view = memoryview(cast(bytes, chunk))
    size = view.nbytes
    if size:
        done = file.write(view)
        while done < size:
            done += file.write(view.cast("B")[done:])
    return size


def _encode(member: NewMember) -> bytes:
    try:
        return member.name.encode(*NAME_ENCODING)
    except UnicodeEncodeError as e:
        raise ArchiveError(f"the member name {member.name!r} cannot be encoded: {e}") from e


def _header(name: bytes, size: int, mode: bytes = b"644", time: int = 0) -> bytes:
    if size > _LIMIT_SIZE:
        raise ArchiveError(
            f"{size} bytes are more than an archive member can have",
            member=name.decode(*NAME_ENCODING),
        )
    return b"%-16b%-12d%-6d%-6d%-8b%-10d%b" % (name, time, 0, 0, mode, size, HEADER_END)


def _padding(position: int, alignment: int) -> int:
    return -position % alignment


def _pack(order: str, width: int, numbers: Sequence[int]) -> bytes:
    code = {2: "H", 4: "I", 8: "Q"}[width]
    return struct.pack(f"{order}{len(numbers)}{code}", *numbers)


def _is_far(placed: Sequence[_Placed]) -> bool:
    return bool(placed) and placed[-1].place >= _LIMIT_32


def _offsets(placed: Sequence[_Placed]) -> Iterator[int]:
    """Where the member of each symbol begins, in the order of the names in `_names`."""
    return chain.from_iterable((one.place,) * len(one.member.symbols) for one in placed)


def _names(members: Sequence[NewMember]) -> list[bytes]:
    return [name for member in members for name in member.symbols]


def _terminated(names: Sequence[bytes]) -> bytes:
    return b"\0".join((*names, b""))


def _place(members: Sequence[NewMember], start: int, layout: _Layout) -> list[_Placed]:
    placed, position = [], start
    for member in members:
        header, padding = layout(member, position)
        placed.append(_Placed(member, header, padding, position))
        position += len(header) + member.size + len(padding)
    return placed


# GNU and COFF


def _gnu_like(dialect: Dialect, members: Sequence[NewMember]) -> _Plan:
    names, long_names = _long_names(dialect, members)

    def layout(member: NewMember, position: int) -> tuple[bytes, bytes]:
        header = _header(names[member.name], member.size)
        return header, b"\n" * _padding(position + len(header) + member.size, 2)

    if dialect == "coff":
        return _coff(members, long_names, layout)
    return _gnu(members, long_names, layout)


def _gnu(members: Sequence[NewMember], long_names: bytes, layout: _Layout, width: int = 4) -> _Plan:
    """With an index of numbers of `width` bytes: 4 (System V ABI, "Archive File") or 8 (MIPS)."""
    symbols = _names(members)
    texts = _terminated(symbols)
    size = width * (1 + len(symbols)) + len(texts)
    # zeros after the last name are harmless and align the first member's data
    start = len(MAGIC) + HEADER_SIZE + size + len(long_names)
    padding = _padding(start + HEADER_SIZE, 8)
    placed = _place(members, start + padding, layout)
    if width == 4 and _is_far(placed):
        return _gnu(members, long_names, layout, 8)
    head = (
        MAGIC,
        _header(b"/" if width == 4 else b"/SYM64/", size + padding, mode=b"0"),
        _pack(">", width, (len(symbols), *_offsets(placed))),
        texts,
        bytes(padding),
        long_names,
    )
    return b"".join(head), placed


def _long_names(dialect: Dialect, members: Sequence[NewMember]) -> tuple[dict[str, bytes], bytes]:
    """What stands in the header for each name, and the `//` member with those that do not fit."""
    fields: dict[str, bytes] = {}
    table = b""
    end = b"\0" if dialect == "coff" else b"/\n"
    for member in members:
        if member.name in fields:
            continue
        name = _encode(member)
        if len(name) < 16 and b"/" not in name and name != b"#1":  # that begins a BSD name
            fields[member.name] = name + b"/"
        else:
            fields[member.name] = b"/%d" % len(table)
            table += name + end
    if not table:
        return fields, b""
    table += b"\n" * _padding(len(table), 2)
    return fields, b"%-48b%-10d%b%b" % (b"//", len(table), HEADER_END, table)


def _coff(members: Sequence[NewMember], long_names: bytes, layout: _Layout) -> _Plan:
    """Two linker members: names in member order, then sorted (PE/COFF specification).

    A name is listed once, for the first member that has it: the second one has no room for more.
    """
    if len(members) > _LIMIT_COFF_MEMBERS:
        raise ArchiveError(
            f"{len(members)} members are more than a Windows library can have "
            f"({_LIMIT_COFF_MEMBERS})"
        )
    owner: dict[bytes, int] = {}
    for index, member in enumerate(members):
        for name in member.symbols:
            owner.setdefault(name, index)
    texts = _terminated(tuple(owner))
    first_size = 4 + 4 * len(owner) + len(texts)
    second_size = 8 + 4 * len(members) + 2 * len(owner) + len(texts)
    first_padding, second_padding = _padding(first_size, 2), _padding(second_size, 2)
    start = len(MAGIC) + 2 * HEADER_SIZE + len(long_names)
    start += first_size + first_padding + second_size + second_padding
    placed = _place(members, start, layout)
    if _is_far(placed):
        raise ArchiveError("a Windows library cannot be larger than 4 GiB")
    ordered = sorted(owner)
    head = (
        MAGIC,
        _header(b"/", first_size + first_padding, mode=b"0"),
        _pack(">", 4, (len(owner), *(placed[index].place for index in owner.values()))),
        texts,
        bytes(first_padding),
        _header(b"/", second_size + second_padding, mode=b"0"),
        _pack("<", 4, (len(placed), *(one.place for one in placed), len(ordered))),
        _pack("<", 2, [owner[name] + 1 for name in ordered]),
        _terminated(ordered),
        bytes(second_padding),
        long_names,
    )
    return b"".join(head), placed


# BSD and Darwin


def _bsd_like(dialect: Dialect, members: Sequence[NewMember], width: int = 4) -> _Plan:
    """Names stand before the data, padded with zeros so that the data is 8-aligned.

    Darwin: data is padded with newlines to a multiple of 8, which count as data ("ld64 expects the
    members to be 8-byte aligned"); the index is `__.SYMDEF` in member order, which its linkers take
    as well as a sorted one. Its numbers have `width` bytes.
    """
    darwin = dialect == "darwin"
    times = _repeated(members) if darwin else {}

    def layout(member: NewMember, position: int) -> tuple[bytes, bytes]:
        size = member.size + (_padding(member.size, 8) if darwin else 0)
        time = times.get(member.name, 0)
        if time:
            times[member.name] += 1
        header = _bsd_header(_encode(member), position, size, time=time)
        end = size + _padding(len(header) + size, 2)
        return header, b"\n" * (end - member.size)

    symbols = _names(members)
    texts = _terminated(symbols)
    size = width * (2 + 2 * len(symbols)) + len(texts)
    padding = _padding(size, 8)
    name = SYMDEF if width == 4 else SYMDEF + b"_64"
    header = _bsd_header(name, len(MAGIC), size + padding, mode=b"0")
    placed = _place(members, len(MAGIC) + len(header) + size + padding, layout)
    if width == 4 and _is_far(placed):
        if not darwin:
            raise ArchiveError("a BSD archive cannot be larger than 4 GiB")
        return _bsd_like(dialect, members, 8)
    starts = accumulate((len(symbol) + 1 for symbol in symbols), initial=0)
    pairs = chain.from_iterable(zip(starts, _offsets(placed), strict=False))
    head = (
        MAGIC,
        header,
        _pack("<", width, (2 * width * len(symbols), *pairs, len(texts))),
        texts,
        bytes(padding),
    )
    return b"".join(head), placed


def _repeated(members: Sequence[NewMember]) -> dict[str, int]:
    """The time of the first member of each name that comes more than once."""
    counts = Counter(member.name for member in members)
    return {name: 1 for name, count in counts.items() if count > 1}


def _bsd_header(
    name: bytes, position: int, size: int, mode: bytes = b"644", time: int = 0
) -> bytes:
    name += bytes(_padding(position + HEADER_SIZE + len(name), 8))
    return _header(b"#1/%d" % len(name), len(name) + size, mode, time) + name
