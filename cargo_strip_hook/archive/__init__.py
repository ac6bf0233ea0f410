"""Static libraries: read every dialect of `ar` over `mmap`, write one deterministically."""

from cargo_strip_hook.archive.model import Dialect, Member, NewMember
from cargo_strip_hook.archive.reader import Archive, open_archive
from cargo_strip_hook.archive.writer import write_archive

__all__ = [
    "Archive",
    "Dialect",
    "Member",
    "NewMember",
    "open_archive",
    "write_archive",
]
