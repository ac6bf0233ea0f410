"""The native engine: our own prelinker, which needs nothing but Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cargo_strip_hook.archive import Archive, NewMember, object_name, open_archive, write_archive
from cargo_strip_hook.core.errors import InputError, LinkError, UsageError
from cargo_strip_hook.core.requests import Compression, PrelinkRequest, PrelinkResult, Strip
from cargo_strip_hook.formats.members import load
from cargo_strip_hook.link.model import Image, ImportMember
from cargo_strip_hook.link.prelink import prelink


class NativeEngine:
    """`Engine` over `prelink`.

    It keeps its last result until it begins the next: freeing so much memory takes a while, and
    the caller need not wait for that.
    """

    name = "native"

    def __init__(self) -> None:
        self._last: object = None

    def prelink(
        self, request: PrelinkRequest, loaded: Callable[[Sequence[int]], None] | None = None
    ) -> PrelinkResult:
        self._last = None
        if not request.exports:
            raise LinkError(
                "there is nothing to export: every symbol of the library would be dropped",
                help="name the public symbols with `--header`, `--export` or `--cdylib`",
            )
        with open_archive(request.archive) as archive:
            loadable = load(archive, request.target)
            format = loadable.format
            if request.twin is not None and not format.twins:
                raise UsageError(
                    f"there can be no debug twin of a library for {request.target.triple}",
                    help="keep debug information in the library, with `--strip none`",
                )
            if request.compress_debug is not Compression.NONE and not format.compresses:
                raise UsageError(
                    f"debug sections of {request.target.triple} cannot be compressed: "
                    "linkers take that for ELF only",
                    help="leave `--compress-debug` out, or the key `compress-debug` for this "
                    "target",
                )
            if not loadable.members:
                raise InputError("the archive holds no object files", path=archive.path.name)
            prelinked = prelink(loadable.members, loadable.index, format, request, loaded)
            image = prelinked.image(format, request)
            self._last = prelinked, image
            needed = _needed(loadable.imports, image)
            copies = [_copy(archive, c) for c in needed]
            _write(request, request.output, image, copies)
            twin = None
            if request.twin is not None:
                twin = prelinked.image(format, replace(request, strip=Strip.NONE))
                _write(request, request.twin, twin, copies)
            total = len(archive.members)
        return PrelinkResult(
            tuple(_text(n) for n in image.defined),
            tuple(_text(n) for n in image.undefined),
            replace(image.statistics, members_total=total),
            tuple(dict.fromkeys(image.warnings + (twin.warnings if twin is not None else ()))),
            image.link_map,
            twin.link_map if twin is not None else None,
            tuple(c.index for c in needed),
        )


def _needed(import_members: Sequence[ImportMember], image: Image) -> list[ImportMember]:
    """The import members that the object needs, and those that these need, in their order."""
    owners: dict[bytes, list[ImportMember]] = {}
    for import_member in import_members:
        for name in import_member.defines:
            owners.setdefault(name, []).append(import_member)
    chosen: set[int] = set()
    wanted = list(image.undefined)
    while wanted:
        for import_member in owners.get(wanted.pop(), ())[:1]:  # the first one, as for a linker
            if import_member.index not in chosen:
                chosen.add(import_member.index)
                wanted += import_member.needs
    return [c for c in import_members if c.index in chosen]


def _copy(archive: Archive, import_member: ImportMember) -> NewMember:
    member = archive.members[import_member.index]
    data = archive.data(member)
    return NewMember(member.name, len(data), [data], import_member.defines)


def _write(request: PrelinkRequest, path: Path, image: Image, copies: list[NewMember]) -> None:
    name = object_name(request.name or request.archive)
    member = NewMember(name, image.size, image.chunks, image.defined)
    with path.open("wb") as file:
        write_archive(file, request.target.archive_dialect, [member, *copies])


def _text(name: bytes) -> str:
    """A symbol's name as text, from which all its bytes can be recovered, UTF-8 or not."""
    return name.decode("utf-8", "surrogateescape")
