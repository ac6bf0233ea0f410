"""Static libraries: read every dialect of `ar` over `mmap`, write one deterministically.

A library is one archive, or several in a universal file: `parts_of` and `join_parts`.
"""

from cargo_strip_hook.archive.model import Dialect, Member, NewMember, object_name
from cargo_strip_hook.archive.reader import Archive, open_archive
from cargo_strip_hook.archive.universal import join_parts, parts_of
from cargo_strip_hook.archive.writer import write_archive

__all__ = [
    "Archive",
    "Dialect",
    "Member",
    "NewMember",
    "join_parts",
    "object_name",
    "open_archive",
    "parts_of",
    "write_archive",
]
