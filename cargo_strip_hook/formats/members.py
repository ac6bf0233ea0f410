"""The members of an archive that a link may load, and the index that finds them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.core.errors import InputError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats import format_for
from cargo_strip_hook.formats.detect import must_be_format, only_bitcode
from cargo_strip_hook.formats.sniff import machine_of, sniff
from cargo_strip_hook.link.model import Format, ImportMember, Input

_OBJECTS = ("elf", "macho", "coff")


@dataclass(frozen=True, slots=True)
class Loadable:
    """What a link may take from an archive.

    `members` are objects by number; `imports` stay members of their own; `index` finds them, None
    where the archive has none.
    """

    format: Format
    members: dict[int, Input]
    imports: tuple[ImportMember, ...]
    index: Entries | None


def is_bundled(member: str) -> bool:
    """Whether a member is the C library's own, which Rust's musl targets bundle."""
    return member.endswith(".lo")


def _inputs(archive: Archive, target: Target) -> dict[int, Input]:
    """The objects and imports of a target, which must be of one format and machine."""
    inputs: dict[int, Input] = {}
    seen: dict[object, str] = {}
    for member in archive.members:
        data = archive.data(member)
        head = bytes(data[:20])
        contents = sniff(head).removesuffix("-import")
        if contents == "bitcode":
            raise only_bitcode(archive, member)
        if contents not in _OBJECTS:
            continue
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
            inputs[member.index] = Input(member.index, member.name, data)
    if not inputs:
        raise InputError("the archive holds no object files", path=archive.slice.name)
    return inputs


def load(archive: Archive, target: Target) -> Loadable:
    """What a link for a target may take from an archive.

    The C library's own objects, which Rust's musl targets bundle, are left out: a private copy of
    them inside of a C program would be a second C library. Raises `ObjectError` for members that
    no linker could take, `InputError` for a mixture and for objects that are not the target's,
    `UsageError` for a target of no supported format, `ArchiveError` for a damaged index.
    """
    members = _inputs(archive, target)
    format = format_for(target.object_format)
    objects, imports = _set_apart(format, members.values())
    return Loadable(format, {i.index: i for i in objects}, imports, entries_of(archive, target))


def objects_of(archive: Archive, *, bundled: bool = True) -> Iterator[tuple[Format, list[Input]]]:
    """All objects of an archive, whatever it is for, by format; without imports.

    `bundled`: with the C library's own. Raises `ObjectError` for what may be an import and is
    damaged.
    """
    inputs: dict[str, list[Input]] = {}
    for member in archive.members:
        data = archive.data(member)
        contents = sniff(bytes(data[:20]))
        if contents in _OBJECTS and (bundled or not is_bundled(member.name)):
            inputs.setdefault(contents, []).append(Input(member.index, member.name, data))
    for kind, items in inputs.items():
        format = format_for(kind)
        yield format, _set_apart(format, items)[0]


def _set_apart(
    format: Format, members: Collection[Input]
) -> tuple[list[Input], tuple[ImportMember, ...]]:
    """The objects among `members`, and the members that are never joined with others."""
    imports = format.import_members(list(members))
    beside = {member.index for member in imports}
    return [item for item in members if item.index not in beside], tuple(imports)


def entries_of(archive: Archive, target: Target) -> Entries | None:
    """The entries of the index that the target's linker reads. Raises `ArchiveError`."""
    return archive.entries(plain=target.linker == "gnu-pe")
