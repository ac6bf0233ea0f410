"""Static libraries: read every dialect of `ar` over `mmap`, write one deterministically.

A library is one archive, or several in a universal file: `read_slices` and `write_universal`.
"""

from cargo_strip_hook.archive.model import Dialect, Member, NewMember, object_name
from cargo_strip_hook.archive.reader import Archive, open_archive
from cargo_strip_hook.archive.universal import read_slices, write_universal
from cargo_strip_hook.archive.writer import write_archive

__all__ = [
    "Archive",
    "Dialect",
    "Member",
    "NewMember",
    "object_name",
    "open_archive",
    "read_slices",
    "write_archive",
    "write_universal",
]
