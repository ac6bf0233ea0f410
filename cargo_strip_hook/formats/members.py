"""The members of an archive that a link may load, and the index that finds them."""

from __future__ import annotations

from collections.abc import Mapping

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.core.errors import InputError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.detect import must_be_format, only_bitcode
from cargo_strip_hook.formats.sniff import machine_of, sniff
from cargo_strip_hook.link.model import Format, ImportMember, Input


def is_bundled(member: str) -> bool:
    """Whether a member is the C library's own, which Rust's musl targets bundle."""
    return member.endswith(".lo")


def loadable(archive: Archive, target: Target) -> dict[int, Input]:
    """The members that may be loaded: objects and imports of one format and machine.

    The C library's own objects, which Rust's musl targets bundle, are left out: a private copy of
    them inside of a C program would be a second C library. Raises `ObjectError` for members that
    no linker could take, `InputError` for a mixture and for objects that are not the target's.
    """
    found: dict[int, Input] = {}
    seen: dict[object, str] = {}
    for member in archive.members:
        data = archive.data(member)
        head = bytes(data[:20])
        contents = sniff(head)
        if contents == "bitcode":
            raise only_bitcode(archive, member)
        if contents not in ("elf", "macho", "coff", "coff-import"):
            continue
        if contents == "coff-import":
            contents = "coff"
        must_be_format(archive, member.name, contents, target)
        seen.setdefault((contents, machine_of(contents, head)), member.name)
        if len(seen) > 1:
            first, second = list(seen.values())[:2]
            raise InputError(
                f"the archive mixes objects of different kinds: {first} and {second}",
                path=archive.slice.name,
                member=member.name,
                help="make one library for each architecture",
            )
        if not is_bundled(member.name):
            found[member.index] = Input(member.index, member.name, data)
    if not found:
        raise InputError("the archive holds no object files", path=archive.slice.name)
    return found


def without_imports(
    members: Mapping[int, Input], format: Format
) -> tuple[dict[int, Input], list[ImportMember]]:
    """The objects among `members`, and the members that are never joined with others.

    Raises `ObjectError`.
    """
    imports = format.import_members(list(members.values()))
    beside = {import_member.index for import_member in imports}
    return {n: item for n, item in members.items() if n not in beside}, imports


def entries_of(archive: Archive, target: Target) -> Entries | None:
    """The entries of the index that the target's linker reads. Raises `ArchiveError`."""
    return archive.entries(plain=target.linker == "gnu-pe")
