"""Reading archives of all dialects, without copying member data."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from cargo_strip_hook.archive.index import Entries, IndexKind, SymbolIndex, parse_index
from cargo_strip_hook.archive.model import (
    HEADER_END,
    HEADER_SIZE,
    MAGIC,
    NAME_ENCODING,
    SYMDEF,
    THIN_MAGIC,
    Dialect,
    Member,
    must_be_about_file,
)
from cargo_strip_hook.archive.sniff import READ, is_macho, what_instead
from cargo_strip_hook.core.errors import ArchiveError
from cargo_strip_hook.core.files import open_file
from cargo_strip_hook.core.requests import Slice

# tables of Microsoft's tools that describe members
_COFF_MAPS = frozenset({b"/<XFGHASHMAP>/", b"/<HYBRIDMAP>/"})
_INDEX_NAMES: dict[bytes, IndexKind] = {
    SYMDEF: "bsd",
    SYMDEF + b" SORTED": "bsd",
    SYMDEF + b"_64": "bsd64",
    SYMDEF + b"_64 SORTED": "bsd64",
}


class _Mapping:
    """A slice of a file, mapped read-only. The file may be closed, replaced or removed meanwhile.

    Raises `ArchiveError` where the file ends before the slice does.
    """

    def __init__(self, slice_: Slice) -> None:
        with open_file(slice_.path) as file:
            status = os.fstat(file.fileno())
            end = status.st_size if slice_.size is None else slice_.start + slice_.size
            self.identity = _identity(status, (slice_.start, end))
            empty = status.st_size == 0  # which cannot be mapped
            self.map = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.whole = memoryview(self.map or b"")
        self.view = self.whole[slice_.start : end]
        if end > len(self.whole):
            self.close()
            raise ArchiveError("the file ends before this slice does", path=str(slice_))

    def let_go(self) -> None:
        if self.map is not None and hasattr(self.map, "madvise"):
            self.map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        try:
            self.view.release()
            self.whole.release()
            if self.map is not None:
                self.map.close()
        except BufferError:
            pass  # views of it are still in use: the last one that is freed unmaps it


# A file that was changed less than this ago could change again and keep its time: the coarsest
# clock of a file system, FAT's, has steps of two seconds.
_CLOCK_STEP = 2_000_000_000  # ns
_Identity = tuple[int, ...]


def _identity(status: os.stat_result, extent: tuple[int, int]) -> _Identity | None:
    """What identifies a slice of a file; None where the file was changed too recently to say."""
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    if not status.st_ino or not 0 <= changed < time.time_ns() - _CLOCK_STEP:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        *extent,
    )


@dataclass(eq=False)
class _Contents:
    """What the headers of an archive say, and its index once it has been read."""

    dialect: Dialect
    thin: bool
    members: tuple[Member, ...]
    index: SymbolIndex | None
    outside: tuple[tuple[Path, bool], ...]
    symbols: dict[bytes, int] | None = None
    entries: dict[SymbolIndex, Entries] = field(default_factory=dict)


# The last archive that was read: a run opens the same one several times.
_last: list[tuple[_Identity, _Contents]] = []


@dataclass(frozen=True, eq=False)
class Archive:
    """An open archive; `members` are its files in order, without symbol and name tables.

    Data stays mapped until `close`, and as long as a view of it is in use.
    """

    slice: Slice
    _contents: _Contents = field(repr=False)
    _mapping: _Mapping = field(repr=False)
    _files: dict[Path, _Mapping] = field(repr=False, default_factory=dict)

    @property
    def path(self) -> Path:
        """The file that the archive is in."""
        return self.slice.path

    @property
    def dialect(self) -> Dialect:
        return self._contents.dialect

    @property
    def thin(self) -> bool:
        return self._contents.thin

    @property
    def outside(self) -> tuple[Path, ...]:
        """The files with the members of a thin archive."""
        return tuple(dict.fromkeys(path for path, _ in self._contents.outside))

    @property
    def members(self) -> tuple[Member, ...]:
        return self._contents.members

    def data(self, member: Member) -> memoryview:
        """The bytes of a member, read-only and not copied.

        Raises `ArchiveError` where the file of a thin archive's member is missing, or has another
        size than the archive says.
        """
        start, end = member.offset, member.offset + member.size
        if not self._contents.thin:
            return self._mapping.view[start:end]
        path, whole = self._contents.outside[member.index]
        mapping = self._files.get(path)
        if mapping is None:
            try:
                mapping = self._files[path] = _Mapping(Slice(path))
            except (OSError, ValueError) as e:
                must_be_about_file(e)
                raise ArchiveError(
                    f"the thin archive's member cannot be read: {e}",
                    path=str(self.slice),
                    member=member.name,
                    help="a thin archive needs the files it was made of; build it again",
                ) from e
        size = len(mapping.view)
        if size < end or (whole and size != end):
            raise ArchiveError(
                f"`{path}` has {size} bytes, the thin archive says {end}",
                path=str(self.slice),
                member=member.name,
                offset=member.header_offset,
                help="the file has changed since the thin archive was made; build it again",
            )
        return mapping.view[start:end]

    def symbols(self) -> dict[bytes, int] | None:
        """The archive's index: symbol name -> position in `members` of its first definition.

        None where the archive has no index. It is shared: do not change it. Raises `ArchiveError`
        for a damaged index.
        """
        contents = self._contents
        if contents.symbols is None:
            entries = self.entries()
            contents.symbols = None if entries is None else entries.first()
        return contents.symbols

    def entries(self, *, plain: bool = False) -> Entries | None:
        """The entries of the archive's index in their order, None where it has no index.

        `plain`: of a COFF archive the first index, which GNU's tools read, not the sorted one.
        They are shared: do not change them. Raises `ArchiveError` for a damaged index.
        """
        contents = self._contents
        index = contents.index
        if index is not None and plain and index.plain is not None:
            index = index.plain
        if index is None:
            return None
        if index not in contents.entries:
            contents.entries[index] = parse_index(
                self._mapping.view, index, contents.members, str(self.slice)
            )
        return contents.entries[index]

    def let_go(self) -> None:
        """Free what can be read again: the index, and the pages of the mapped file."""
        self._contents.entries.clear()
        self._contents.symbols = None
        for mapping in (self._mapping, *self._files.values()):
            mapping.let_go()

    def close(self) -> None:
        """Unmap the data, as far as no view of it is in use."""
        for mapping in (self._mapping, *self._files.values()):
            mapping.close()
        self._files.clear()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_archive(where: Path | Slice) -> Archive:
    """Map an archive and read its member headers. The symbol index is read when it is asked for.

    Reads GNU (System V), BSD, Darwin and COFF archives, and GNU's thin ones. Raises `ArchiveError`,
    which names the member and the offset, for everything else.
    """
    return _open(where if isinstance(where, Slice) else Slice(where), ())


def _open(slice_: Slice, outer: tuple[str, ...]) -> Archive:
    """`outer` are the thin archives that led to this one, which may not be listed again."""
    try:
        mapping = _Mapping(slice_)
    except (OSError, ValueError) as e:
        must_be_about_file(e)
        raise ArchiveError(f"cannot be read: {e}", path=str(slice_)) from e
    for identity, contents in _last:
        if identity == mapping.identity:
            return Archive(slice_, contents, mapping)
    try:
        contents = _Scan(slice_, mapping, outer).run()
    except BaseException:
        mapping.close()
        raise
    # a thin archive's members may change while it stays as it is
    if mapping.identity is not None and not contents.thin:
        _last[:] = [(mapping.identity, contents)]
    return Archive(slice_, contents, mapping)


class _Scan:
    """One pass over the member headers."""

    def __init__(self, slice_: Slice, mapping: _Mapping, outer: tuple[str, ...]) -> None:
        self.slice, self.path, self.outer = slice_, slice_.path, outer
        self.view = mapping.view
        self.end = len(self.view)
        self.offset = len(MAGIC)  # of the header that is being read
        self.thin = False
        self.dialect: Dialect | None = None
        self.index: SymbolIndex | None = None
        self.special: list[bytes] = []
        self.names: bytes | None = None  # the contents of the `//` member
        self.members: list[Member] = []
        self.outside: list[tuple[Path, bool]] = []
        self.nested: dict[Path, Archive] = {}

    def fail(
        self, what: str, member: str | None = None, help: str | tuple[str, ...] = ()
    ) -> NoReturn:
        raise ArchiveError(what, path=str(self.slice), member=member, offset=self.offset, help=help)

    def read(self, start: int, end: int) -> bytes:
        return bytes(self.view[start:end])

    def run(self) -> _Contents:
        magic = self.read(0, len(MAGIC))
        if magic not in (MAGIC, THIN_MAGIC):
            what, help = what_instead(self.read(0, READ), self.path.suffix)
            raise ArchiveError(what, path=str(self.slice), help=help)
        self.thin = magic == THIN_MAGIC
        try:
            for raw, size in self.headers():
                self.member(raw, size)
        finally:
            for archive in self.nested.values():
                archive.close()
        return _Contents(
            self.decide_dialect(),
            self.thin,
            tuple(self.members),
            self.index,
            tuple(self.outside),
        )

    def headers(self) -> Iterator[tuple[bytes, int]]:
        """Raw name and size of each member; `offset` is that of its header meanwhile."""
        view, end = self.view, self.end
        while self.offset < end:
            header = bytes(view[self.offset : self.offset + HEADER_SIZE])
            if len(header) < HEADER_SIZE:
                self.fail(f"truncated: {len(header)} bytes are no member header")
            raw = header[:16].rstrip(b" ")
            if header[58:] != HEADER_END:
                self.fail("the member header has a wrong end mark", _show(raw))
            digits = header[48:58].rstrip(b" ")
            if not digits.isdigit():
                self.fail(f"the member's size `{_show(digits)}` is no number", _show(raw))
            size = int(digits)
            inline = not self.thin or raw in (b"/", b"//", b"/SYM64/")
            data = self.offset + HEADER_SIZE
            after = data + (size if inline else 0)
            if after > end:
                self.fail(
                    f"truncated: the member has {size} bytes and the archive {end - data} more",
                    _show(raw),
                )
            yield raw, size
            self.offset = after + (after & 1)  # a missing last padding byte is common

    def member(self, raw: bytes, size: int) -> None:
        data = self.offset + HEADER_SIZE
        if raw.startswith(b"/") and not (raw[1:2].isdigit()):
            self.table(raw, size)
            return
        if raw.startswith(b"#1/"):
            self.dialect = self.dialect or "bsd"
            length = self.number(raw[3:], "length of the name", raw)
            if self.thin or length > size:
                self.fail(f"the name of {length} bytes does not fit the member", _show(raw))
            name = self.read(data, data + length).rstrip(b"\0")
            data, size = data + length, size - length
        elif raw.startswith(b"/"):
            self.dialect = self.dialect or "gnu"
            where, colon, origin = raw[1:].partition(b":")
            name = self.long_name(self.number(where, "position of the name", raw), raw)
            if colon:
                self.proxy(name, self.number(origin, "position in the archive", raw))
                return
        elif raw.endswith(b"/"):
            self.dialect = self.dialect or "gnu"
            name = raw[:-1]
        else:
            self.dialect = self.dialect or "bsd"
            name = raw
        kind = _INDEX_NAMES.get(name)
        if kind is not None and not raw.endswith(b"/"):
            if self.members or self.special:
                self.fail("a symbol table that is not the first member", _show(name))
            self.special.append(name)
            self.index = SymbolIndex(kind, self.offset, data, size)
            if kind == "bsd64" or name.endswith(b"SORTED"):
                self.dialect = "darwin"
            return
        if not name:
            self.fail("a member without a name")
        self.add(name, data, size)

    def add(self, name: bytes, data: int, size: int) -> None:
        text = name.decode(*NAME_ENCODING)
        if self.thin:
            if "\0" in text:
                self.fail("no file can have this name", _show(name))
            self.outside.append((self.path.parent / text, True))
            data = 0
        self.members.append(Member(text, len(self.members), self.offset, data, size))

    def table(self, raw: bytes, size: int) -> None:
        """Read a member whose name is a slash, or a word between slashes: a table, not a file."""
        data = self.offset + HEADER_SIZE
        if raw == b"/<ECSYMBOLS>/":
            self.fail(
                "an ARM64EC library (it has a map of EC symbols)",
                _show(raw),
                help="ARM64EC is not supported; build for aarch64-pc-windows-msvc or x86_64",
            )
        if self.members and raw not in _COFF_MAPS:
            self.fail("a table that is not before the members", _show(raw))
        if raw == b"/" and not self.special:
            self.index = SymbolIndex("gnu", self.offset, data, size)
        elif raw == b"/SYM64/" and not self.special:
            self.index = SymbolIndex("gnu64", self.offset, data, size)
        elif raw == b"/" and self.special == [b"/"] and not self.thin:
            self.index = SymbolIndex("coff", self.offset, data, size, self.index)
            self.dialect = "coff"
        elif raw == b"//" and self.names is None:
            self.names = self.read(data, data + size)
        elif raw not in _COFF_MAPS or self.thin:
            self.fail("a special member that is unknown or misplaced", _show(raw))
        self.dialect = self.dialect or "gnu"
        self.special.append(raw)

    def number(self, digits: bytes, what: str, raw: bytes) -> int:
        if not digits.isdigit():
            self.fail(f"the {what}, `{_show(digits)}`, is no number", _show(raw))
        return int(digits)

    def long_name(self, where: int, raw: bytes) -> bytes:
        """The name at a position of the `//` member.

        GNU ends it with slash and newline, Microsoft with a zero byte.
        """
        if self.names is None:
            self.fail("a long name without a table of long names", _show(raw))
        if where >= len(self.names):
            self.fail(
                f"the name is at {where} of {len(self.names)} bytes of long names",
                _show(raw),
            )
        zero = self.names.find(b"\0", where)
        newline = -1 if self.dialect == "coff" else self.names.find(b"\n", where)
        stops = [stop for stop in (zero, newline) if stop >= 0]
        if not stops:
            self.fail(f"the long name at {where} has no end", _show(raw))
        name = self.names[where : min(stops)]
        return name[:-1] if min(stops) == newline and name.endswith(b"/") else name

    def proxy(self, name: bytes, origin: int) -> None:
        """A member of another archive, as GNU's thin archives list them (`/NAME:OFFSET`)."""
        text = name.decode(*NAME_ENCODING)
        if not self.thin or not name or b"\0" in name:
            self.fail("only a thin archive can list members of other archives", text)
        path = self.path.parent / text
        archive = self.nested.get(path)
        if archive is None:
            outer = (*self.outer, os.path.realpath(self.path))
            if os.path.realpath(path) in outer:
                self.fail("thin archives that list each other", text)
            try:
                archive = self.nested[path] = _open(Slice(path), outer)
            except ArchiveError as e:
                self.fail(f"an archive it lists cannot be used: {e.what}", text, e.help)
        for member in archive.members:
            if member.header_offset == origin:
                break
        else:
            self.fail(f"no member begins at offset {origin:#x} of `{path}`", text)
        contents = archive._contents
        self.outside.append(contents.outside[member.index] if contents.thin else (path, False))
        self.members.append(
            Member(member.name, len(self.members), self.offset, member.offset, member.size)
        )

    def decide_dialect(self) -> Dialect:
        """BSD and Darwin archives differ only in alignment: Darwin's have Mach-O members."""
        if self.dialect == "bsd":
            for member in self.members:
                if is_macho(self.read(member.offset, member.offset + 4)):
                    return "darwin"
        return self.dialect or "gnu"


def _show(raw: bytes) -> str:
    """Bytes of a damaged file, as text for a message."""
    return raw.decode("ascii", "backslashreplace").encode("unicode_escape").decode("ascii")
