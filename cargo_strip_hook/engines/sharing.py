"""The native engine for a set of libraries: what they have in common goes into one more library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from cargo_strip_hook.archive import Archive, NewMember, object_name, open_archive, write_archive
from cargo_strip_hook.core.errors import InputError, LinkError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Slice, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.imports import Imports, divide
from cargo_strip_hook.formats import format_for, sharing_for
from cargo_strip_hook.formats.members import load
from cargo_strip_hook.link.layout import lay_out
from cargo_strip_hook.link.model import Array, Bool, Format, Image, Int32, Program
from cargo_strip_hook.link.pages import release_all
from cargo_strip_hook.link.reach import always_live, build_graph, follow, mark
from cargo_strip_hook.link.resolve import resolve
from cargo_strip_hook.link.share.find import Shared, find_shared
from cargo_strip_hook.link.share.lean import lean
from cargo_strip_hook.link.share.model import Library
from cargo_strip_hook.link.share.placed import link_maps, maps_of_one
from cargo_strip_hook.link.share.reduce import without_dead
from cargo_strip_hook.link.share.report import SharedParts, report
from cargo_strip_hook.link.share.split import Part, Split, set_digest, split, without_tables
from cargo_strip_hook.link.share.together import together
from cargo_strip_hook.link.write import write


@dataclass(frozen=True, slots=True)
class SharedLibrary:
    """One library of a set: where it is, where the small one goes, and its public symbols."""

    archive: Path | Slice
    output: Path
    exports: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class ShareRequest:
    """What is asked for: libraries of one target, and where what they share goes.

    `marker` makes the marker of an object, of the exports of its library and a text that tells the
    set from others.
    """

    libraries: tuple[SharedLibrary, ...]
    common: Path
    target: Target
    strip: Strip
    granularity: Granularity = Granularity.CLASS
    marker: Callable[[tuple[str, ...], str], bytes] = lambda *_: b""
    name: str = ""
    may_be_empty: bool = False  # the common library, where nothing is shared
    lean: bool = True  # what a name takes more for than it saves is not shared


@dataclass(frozen=True, slots=True, eq=False)
class ShareResult:
    """What is known of each library, in the order of the request.

    `link_maps` are arrays of SET_MAP, `warnings` those of the small libraries, `parts` what they
    share. `markers` has that of the common library at its end. `imports`: the members of its
    original that follow a small library's object; `common_imports`: those that follow the common
    library's, each with the number of the library that it is from.
    """

    link_maps: tuple[Array, ...]
    markers: tuple[bytes, ...]
    warnings: tuple[tuple[str, ...], ...]
    parts: tuple[SharedParts, ...]
    imports: tuple[tuple[int, ...], ...]
    common_imports: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What libraries have in common: `order` are their numbers in the request, in the set's."""

    shared: Shared
    order: tuple[int, ...]
    format: Format
    imports: tuple[Imports, ...]  # in the set's order


@contextmanager
def _found(request: ShareRequest) -> Iterator[_Found]:
    """What the libraries have in common, while their archives are open."""
    format = format_for(request.target.object_format)
    sharing = sharing_for(request.target.object_format)
    with ExitStack() as stack:
        archives = [stack.enter_context(open_archive(one.archive)) for one in request.libraries]
        order = sorted(range(len(archives)), key=lambda n: _rank(request.libraries[n], archives[n]))
        loaded = [_load(archives[n], request.libraries[n], request.target) for n in order]
        shared = find_shared([one for one, _ in loaded], sharing)
        yield _Found(shared, tuple(order), format, tuple(imports for _, imports in loaded))


def survey(request: ShareRequest) -> list[SharedParts]:
    """What would be shared of each library, and what not; nothing is written."""
    with _found(request) as found:
        shared = found.shared
        if request.lean:
            shared = lean(shared, sharing_for(request.target.object_format))
        reports = report(shared)
        return [reports[found.order.index(number)] for number in range(len(found.order))]


def share(request: ShareRequest) -> ShareResult:
    """Write a small library for each, and the common one.

    The result does not depend on the order of the libraries. Raises `LinkError` where they share
    nothing, and what the phases raise.
    """
    with _found(request) as found:
        shared, order, format = found.shared, found.order, found.format
        if not shared.classes and not request.may_be_empty:
            raise LinkError(
                "the libraries have nothing in common that could be shared",
                help="strip each of them alone; `--dry-run` says why nothing is shared",
            )
        sharing = sharing_for(request.target.object_format)
        if request.lean:
            shared = lean(shared, sharing)
        digest = set_digest(shared).hex()
        markers = [request.marker(one.exports, digest) for one in request.libraries]
        markers.append(request.marker((), digest))
        made = split(shared, sharing, format)
        images, small = {}, []
        held: dict[int, NewMember] = {}
        for number, imports, part in zip(order, found.imports, made.small, strict=True):
            one = request.libraries[number]
            asked = _request(request, one.output, markers[number], one.exports)
            images[number] = _image(part, format, asked)
            own = _member(object_name(one.name or one.archive), images[number])
            if imports.members:  # which of them follow is known at the end
                held[number] = replace(own, chunks=tuple(own.chunks))
            else:
                _write(one.output, request.target, [own])
            images[number] = replace(images[number], chunks=())
            small.append(without_tables(part))
        # one mark is enough for a library: in its first object
        marks = [b"" if number else markers[-1] for number in range(len(made.common))]
        common, parts = [], []
        for part, mark in zip(made.common, marks, strict=True):
            common.append(_image(part, format, _request(request, request.common, mark, ())))
            parts.append(without_tables(part))
        made = replace(made, small=small, common=parts)
        beside = divide(found.imports, _undefined(made, [images[n] for n in order], common))
        for number, imports, mine in zip(order, found.imports, beside.small, strict=True):
            if number in held:
                behind = [imports.copy(n) for n in mine]
                _write(request.libraries[number].output, request.target, [held[number], *behind])
        stem = object_name(request.name or request.common).removesuffix(".o")
        members = [_member(f"{stem}.{n}.o", image) for n, image in enumerate(common)]
        members += [found.imports[library].copy(n) for library, n in beside.common]
        _write(request.common, request.target, members)
        maps = link_maps(
            shared,
            made,
            [images[n].link_map for n in order],
            [one.link_map for one in common],
            sharing.first_section,
        )
        reports = report(shared)
    position = [order.index(number) for number in range(len(order))]
    return ShareResult(
        tuple(maps[n] for n in position),
        tuple(markers),
        tuple(images[n].warnings for n in range(len(order))),
        tuple(reports[n] for n in position),
        tuple(beside.small[n] for n in position),
        tuple((order[library], n) for library, n in beside.common),
    )


def join(request: ShareRequest) -> ShareResult:
    """Write one library, with an object that is all of them, in place of the common one.

    There is one marker. What the libraries share is in it once; they need share nothing. For a
    format whose `Sharing` says that it `joins`, and that has no import members.
    """
    with _found(request) as found:
        shared, order, format = found.shared, found.order, found.format
        exports = sorted(name for one in request.libraries for name in one.exports)
        marker = request.marker(tuple(exports), set_digest(shared).hex())
        made = together(shared, sharing_for(request.target.object_format), format)
        asked = _request(request, request.common, marker, exports)
        numbers = made.classes if request.granularity is Granularity.CLASS else None
        image = _laid_out(made.program, made.live, numbers, format, asked)
        name = object_name(request.name or request.common)
        _write(request.common, request.target, [_member(name, image)])
        maps, reports = maps_of_one(shared, made, image.link_map), report(shared)
    position = [order.index(number) for number in range(len(order))]
    return ShareResult(
        tuple(maps[n] for n in position),
        (marker,),
        tuple(image.warnings if n == 0 else () for n in range(len(order))),
        tuple(reports[n] for n in position),
        ((),) * len(order),
        (),
    )


def _undefined(made: Split, small: Sequence[Image], common: Sequence[Image]) -> list[list[bytes]]:
    """For each library the names that its object, and those that it shares, leave undefined."""
    names = [list(image.undefined) for image in small]
    for part, image in zip(made.common, common, strict=True):
        for library in part.libraries:
            names[library] += image.undefined
    return names


def _rank(library: SharedLibrary, archive: Archive) -> tuple[str, tuple[str, ...], bytes]:
    """What a library's place among the others depends on: nothing of how it was named."""
    digest = blake2b(digest_size=16)
    for member in archive.members:
        digest.update(member.name.encode() + b"\0%d" % member.size)
    return object_name(library.name or library.archive), library.exports, digest.digest()


def _load(archive: Archive, library: SharedLibrary, target: Target) -> tuple[Library, Imports]:
    """Resolve one library, and find out what its exports need; with its import members."""
    format, sharing = format_for(target.object_format), sharing_for(target.object_format)
    loadable = load(archive, target)
    if not loadable.members:
        raise InputError("the archive holds no object files", path=archive.path.name)
    names = [name.encode("utf-8", "surrogateescape") for name in library.exports]
    program = resolve(loadable.members, loadable.index, names, format, target.linker)
    rows = np.array([program.globals[name] for name in names], np.int64)
    program = replace(program, exported=frozenset(rows.tolist()))
    atoms = program.symbols["atom"][rows]
    roots = np.concatenate([atoms[atoms >= 0], always_live(program)])
    live = follow(program, mark(build_graph(program), roots, len(program.atoms)))
    program, live = without_dead(program, live, sharing.speaking(program))
    imports = Imports(archive, loadable.imports)
    digests = imports.digests()
    archive.let_go()
    return Library(archive.path.name, program, live, loadable.members, digests), imports


def _request(
    request: ShareRequest, output: Path, marker: bytes, exports: Sequence[str]
) -> PrelinkRequest:
    return PrelinkRequest(
        output,
        output,
        request.target,
        tuple(exports),
        request.strip,
        request.granularity,
        marker,
    )


def _image(part: Part, format: Format, request: PrelinkRequest) -> Image:
    classes = part.classes if request.granularity is Granularity.CLASS else None
    return _laid_out(part.program, part.live, classes, format, request)


def _laid_out(
    program: Program, live: Bool, classes: Int32 | None, format: Format, request: PrelinkRequest
) -> Image:
    program = replace(program, granularity=request.granularity)
    if classes is None:
        classes = np.zeros(len(live), np.int32)
    layout = lay_out(program, format, live, classes, request.granularity)
    image = write(program, live, layout, format, request)
    release_all(unit.data for unit in program.units)
    return image


def _member(name: str, image: Image) -> NewMember:
    return NewMember(name, image.size, image.chunks, image.defined)


def _write(path: Path, target: Target, members: Sequence[NewMember]) -> None:
    with path.open("wb") as file:
        write_archive(file, target.archive_dialect, members)


__all__ = ["ShareRequest", "ShareResult", "SharedLibrary", "join", "share", "survey"]
