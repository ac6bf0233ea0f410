"""The steps for ELF: `ld -r` from the exports, then objcopy, then our own archive writer."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.archive import Archive, NewMember, object_name, open_archive, write_archive
from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.core.errors import (
    InputError,
    KilledError,
    LinkError,
    ObjectError,
    StripHookError,
    ToolError,
    ToolFailure,
)
from cargo_strip_hook.core.requests import PrelinkRequest, PrelinkResult, Statistics, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.system import linkmap, probe, steps, tools
from cargo_strip_hook.engines.system.machines import Machine, machine_of
from cargo_strip_hook.engines.system.view import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_LINK_ORDER,
    View,
    view,
)
from cargo_strip_hook.formats.elf import split
from cargo_strip_hook.formats.members import Loadable, load
from cargo_strip_hook.formats.sniff import elf_machine, sniff
from cargo_strip_hook.link.entries import names_for
from cargo_strip_hook.link.prelink import Input

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_C_NAME = re.compile(rb"(?!__llvm_prf_)[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The programs to use. `collect`: the linker can drop dead code.

    `faults` says why it cannot, in a few words each.
    """

    linker: tools.Tool
    objcopy: tools.Tool
    collect: bool
    faults: tuple[str, ...] = ()


def prelink(request: PrelinkRequest) -> PrelinkResult:
    """See `SystemEngine.prelink`."""
    machine = machine_of(request.target)
    with (
        open_archive(request.archive) as archive,
        tempfile.TemporaryDirectory(prefix="cargo-strip-hook-", dir=request.folder) as temporary,
    ):
        folder = Path(temporary)
        loadable = load(archive, request.target)
        members = loadable.members
        _check_machine(archive, members.values(), machine, request.target)
        roots = [name.encode("utf-8", "surrogateescape") for name in request.exports]
        entries = _entries(loadable, roots)
        named = zip(entries.names, entries.members, strict=True)
        _check_exports(frozenset(n for n, m in named if m in members), request)
        source = _linkable(archive, members, entries, folder)
        with tempfile.TemporaryDirectory(dir=folder) as trial:
            box = choose(request.target, machine, Path(trial))
        job = steps.LinkJob(
            source, request.exports, machine, box.collect, listed=_listed(members.values())
        )
        linked = steps.link(box.linker, job, folder)
        _check_exports(frozenset(s.name for s in linked.view.defined()), request)
        wishes = steps.FinishJob(request.exports, request.strip, request.marker)
        finished = steps.finish(box.objcopy, linked, wishes, folder)
        data = finished.read_bytes()
        result = view(data, finished.name)
        defined = _defined(result, request, box)
        placed = _placement(box, folder, members, linked, result, request)
        name = object_name(request.name or request.archive)
        new = NewMember(name, len(data), [data], defined)
        with request.output.open("wb") as file:
            write_archive(file, request.target.archive_dialect, [new])
        total = len(archive.members)
    hidden = {s.name for s in linked.view.defined()} - set(defined)
    live = int((result.sections["flags"] & SHF_ALLOC != 0).sum())
    return PrelinkResult(
        exports=tuple(n.decode(errors="surrogateescape") for n in defined),
        undefined=tuple(
            sorted({s.name.decode(errors="surrogateescape") for s in result.undefined()})
        ),
        statistics=Statistics(
            members_total=total,
            members_used=linked.members,
            sections_live=live,
            symbols_hidden=len(hidden),
        ),
        warnings=_warnings(box) + _split_off(result, request.strip),
        link_map=placed,
        covers_debug=False,
    )


def _entries(loadable: Loadable, roots: list[bytes]) -> Entries:
    """The entries to go by. What only GCC itself can read is for the linker to tell."""
    try:
        return names_for(loadable.members, loadable.index, roots, loadable.format).entries
    except ObjectError:
        if loadable.index is None:
            raise
        return loadable.index


def _check_machine(
    archive: Archive, members: Iterable[Input], machine: Machine, target: Target
) -> None:
    for member in members:
        its_machine = elf_machine(bytes(member.data[:20]))
        if its_machine != (machine.number, 64, "little"):
            raise InputError(
                f"this object is not for {target.triple}",
                path=archive.path.name,
                member=member.name,
                help="name the library's own target with `--target`",
            )


def _listed(members: Iterable[Input]) -> tuple[bytes, ...]:
    """The sections that a program finds by `__start_X`: plain data with C names."""
    names: set[bytes] = set()
    others = SHF_EXECINSTR | SHF_LINK_ORDER
    for member in members:
        seen = view(member.data, member.name, symbols=False)
        plain = seen.sections["flags"] & (SHF_ALLOC | others) == SHF_ALLOC
        names.update(seen.names[i] for i in plain.nonzero()[0].tolist())
    return tuple(sorted(name for name in names if _C_NAME.fullmatch(name)))


def _linkable(archive: Archive, members: dict[int, Input], entries: Entries, folder: Path) -> Path:
    """An archive for the linker: the library itself, or a copy of the members that may be loaded.

    The copy leaves out the C library's own objects: a private copy would be a second C library. It
    has a new index, since GNU ld goes by the index and the library's may be wrong.
    """
    rest = (m for m in archive.members if m.index not in members)
    if entries is archive.entries() and all(
        sniff(bytes(archive.data(m)[:20])) != "elf" for m in rest
    ):
        return archive.path.absolute()
    names: dict[int, list[bytes]] = {number: [] for number in members}
    for name, number in zip(entries.names, entries.members, strict=True):
        if number in names:
            names[number].append(name)
    path = folder / "input.a"
    with path.open("wb") as file:
        write_archive(
            file,
            "gnu",
            [NewMember(m.name, len(m.data), [m.data], names[n]) for n, m in members.items()],
        )
    return path


def choose(target: Target, machine: Machine, folder: Path) -> Toolbox:
    """The first linker and objcopy that treat the probe right.

    A linker that can drop dead code is preferred. Raises `ToolError`, with a reason for each
    program that was found, where none can be used.
    """
    source = folder / "probe.o"
    source.write_bytes(probe.probe_object(machine))
    tried: list[StripHookError] = []
    second: tuple[tools.Tool, tuple[str, ...]] | None = None
    for linker in tools.usable("ld", target, tried):
        linked, faults = _try_link(linker, source, machine, folder, collect=True)
        if linked is not None and not faults:
            return Toolbox(linker, _choose_objcopy(target, linked, folder, collect=True), True)
        if second is None:
            linked, worse = _try_link(linker, source, machine, folder, collect=False)
            if linked is not None and not worse:
                second = linker, faults
            else:
                tried.append(_unfit(linker, worse))
    if second is None:
        raise tools.none_found("ld", target, tried)
    linker, faults = second
    again, _ = _try_link(linker, source, machine, folder, collect=False)
    assert again is not None  # as a moment ago
    return Toolbox(linker, _choose_objcopy(target, again, folder, collect=False), False, faults)


def _try_link(
    linker: tools.Tool, source: Path, machine: Machine, folder: Path, *, collect: bool
) -> tuple[steps.Linked | None, tuple[str, ...]]:
    try:
        linked = steps.link(
            linker, steps.LinkJob(source, (probe.EXPORT,), machine, collect), folder
        )
    except KilledError:
        raise
    except StripHookError as e:
        return None, (f"fails ({_first_words(e)})",)
    return linked, probe.linker_faults(linked.view, collected=collect)


def _choose_objcopy(
    target: Target, linked: steps.Linked, folder: Path, *, collect: bool
) -> tools.Tool:
    tried: list[StripHookError] = []
    wishes = steps.FinishJob((probe.EXPORT,), Strip.SYMBOLS, probe.MARKER)
    new = steps.private_name(probe.SET, wishes.exports)
    for objcopy in tools.usable("objcopy", target, tried):
        try:
            path = steps.finish(objcopy, linked, wishes, folder)
            faults = probe.objcopy_faults(
                view(path.read_bytes(), path.name), new, collected=collect
            )
        except KilledError:
            raise
        except StripHookError as e:
            faults = (f"fails ({_first_words(e)})",)
        if not faults:
            return objcopy
        tried.append(_unfit(objcopy, faults))
    raise tools.none_found("objcopy", target, tried)


def _first_words(error: StripHookError) -> str:
    said = error.failure.stderr.strip() if isinstance(error, ToolError) else ""
    return (said or error.what).partition("\n")[0]


def _unfit(tool: tools.Tool, faults: tuple[str, ...]) -> ToolError:
    said = ", ".join(faults)
    return ToolError(f"`{tool}` {said}", ToolFailure(tool.command, None, "", said))


def _check_exports(there: frozenset[bytes], request: PrelinkRequest) -> None:
    """Raise an error for exports that are not in `there`, the names that are defined.

    Linkers do not mind a root that nothing defines.
    """
    missing = [
        name for name in request.exports if name.encode(errors="surrogateescape") not in there
    ]
    if b"__gnu_lto_slim" in there and missing:
        raise steps.slim_error()
    if missing:
        raise LinkError(
            f"the archive does not define {', '.join(f'`{n}`' for n in missing)}",
            help="is it declared, but not compiled in? `--allow-missing` leaves it out",
        )


def _defined(result: View, request: PrelinkRequest, box: Toolbox) -> tuple[bytes, ...]:
    """The global definitions of the finished object, which must be those that were asked for."""
    there = {s.name for s in result.defined()}
    wanted = {name.encode(errors="surrogateescape") for name in request.exports}
    wanted |= there & steps.SHARED
    if there != wanted:
        names = ", ".join(sorted(n.decode(errors="surrogateescape") for n in there ^ wanted))
        failure = ToolFailure(box.objcopy.command, 0, "", "")
        raise ToolError(
            f"`{box.objcopy}` did not show exactly the exports: {names}",
            failure,
            help=tools.NATIVE_HELP.removeprefix("or "),
        )
    return tuple(sorted(there))


def _placement(
    box: Toolbox,
    folder: Path,
    members: dict[int, Input],
    linked: steps.Linked,
    result: View,
    request: PrelinkRequest,
) -> npt.NDArray[np.void] | None:
    """The link map by GNU ld's map. lld merges strings even under -r, and does not say where to."""
    if box.linker.family != "gnu":
        return None
    text = (folder / steps.MAP).read_text("utf-8", "surrogateescape")
    renamed = {name: steps.private_name(name, request.exports) for name in linked.sets}
    return linkmap.link_map(text, members, result, renamed)


def _warnings(box: Toolbox) -> tuple[str, ...]:
    if box.collect:
        return ()
    return (
        f"dead code stays in the library, as `{box.linker}` cannot be asked to drop it: "
        f"it then {', '.join(box.faults)}",
    )


def _split_off(result: View, strip: Strip) -> tuple[str, ...]:
    """The warning about debug information in files of its own."""
    if strip is not Strip.NONE:
        return ()
    contents: dict[bytes, list[memoryview]] = {}
    for name, header in zip(result.names, result.sections, strict=True):
        start = int(header["offset"])
        contents.setdefault(name, []).append(result.data[start : start + int(header["size"])])
    strings = contents.get(b".debug_str", []) + contents.get(b".debug_info", [])
    return split.warning(split.file_names(contents.get(b".debug_abbrev", []), strings))
