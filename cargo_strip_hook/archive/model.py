"""Members, and the constants of the format that reader and writer share.

Sources: ar(5) of FreeBSD (member header, BSD names and `__.SYMDEF`); System V ABI, chapter 7,
"Archive File" (`/`, `//`); Microsoft PE/COFF specification, "Archive (Library) File Format" (the
two linker members); LLVM's `lib/Object/Archive.cpp` and `ArchiveWriter.cpp` (what tools accept).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cargo_strip_hook.core.requests import Slice

if TYPE_CHECKING:
    import numpy.typing as npt

Dialect = Literal["gnu", "bsd", "darwin", "coff"]
Chunk: TypeAlias = "bytes | bytearray | memoryview | npt.NDArray[Any]"

MAGIC = b"!<arch>\n"
THIN_MAGIC = b"!<thin>\n"
HEADER_SIZE = 60
HEADER_END = b"`\n"
SYMDEF = b"__.SYMDEF"

# names are bytes without an encoding: this keeps all of them
NAME_ENCODING = ("utf-8", "surrogateescape")


def object_name(library: Path | Slice | str) -> str:
    """The name of the one object in the result for a library, or after another name.

    An archive member's name has no line feed.
    """
    stem = library if isinstance(library, str) else library.stem
    name = stem.removeprefix("lib").replace("\n", "_")
    return f"{name}.o" if not name.startswith(SYMDEF.decode()) else f"_{name}.o"


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive; `index` distinguishes members of one name.

    `header_offset` is where its header starts in the archive. `offset` and `size` (bytes) say where
    its data is: in the archive (counted from the start of its slice), or in a file of its own where
    the archive is thin. A Darwin archive counts up to seven bytes of padding as data.
    """

    name: str
    index: int
    header_offset: int
    offset: int
    size: int


def must_be_about_file(error: OSError | ValueError) -> None:
    """Raise `MemoryError` where a file could not be mapped for lack of memory."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        raise MemoryError from error


@dataclass(frozen=True, slots=True)
class NewMember:
    """A file to write into an archive: its `chunks`, in their order, have `size` bytes together.

    `symbols` are the names that the index lists for it, as bytes of the object's string table.
    """

    name: str
    size: int
    chunks: Iterable[Chunk]
    symbols: Sequence[bytes] = ()
