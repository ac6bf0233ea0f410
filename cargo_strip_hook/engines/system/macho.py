"""The steps for Darwin as Apple documents them: `ld -r` with a list of exports, then libtool.

Two things need care. A CIE refers to its personality routine by name, so that the routine has to
stay external: it is exported, and changed into a private weak definition afterwards, which
coalesces with that of other libraries. And `ld -r` keeps no debug information, only a debug map
to the files that it read.

Sources: ld(1) and libtool(1); ld64, `Options.cpp`, `OutputFile.cpp`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cargo_strip_hook.archive import object_name, open_archive
from cargo_strip_hook.core.errors import (
    InputError,
    LinkError,
    ObjectError,
    StripHookError,
    ToolError,
    ToolFailure,
    UsageError,
)
from cargo_strip_hook.core.requests import PrelinkRequest, PrelinkResult, Statistics, Strip
from cargo_strip_hook.engines.system import apple, nlist
from cargo_strip_hook.engines.system.tools import NATIVE_HELP, Tool
from cargo_strip_hook.formats.macho import versions
from cargo_strip_hook.formats.macho.commands import read_commands
from cargo_strip_hook.formats.macho.section_keys import personalities
from cargo_strip_hook.formats.members import Loadable, load
from cargo_strip_hook.link.model import Input, SpecialIndex
from cargo_strip_hook.link.reading import InputFile
from cargo_strip_hook.link.resolve import resolve
from cargo_strip_hook.link.symbols import symbol_name

if TYPE_CHECKING:
    from cargo_strip_hook.core.run import Finished
    from cargo_strip_hook.formats.macho.versions import Version

MARKER = ("__DWARF", "__strip_hook")
# what `ld -platform_version` calls the platforms: ld(1)
_PLATFORMS = {
    1: "macos",
    2: "ios",
    3: "tvos",
    4: "watchos",
    6: "mac-catalyst",
    7: "ios-simulator",
    8: "tvos-simulator",
    9: "watchos-simulator",
    11: "xros",
    12: "xros-simulator",
}
_STRIP = {Strip.DEBUGINFO: ("-S",), Strip.SYMBOLS: ("-S", "-x")}
_MISSING = re.compile(r'^\s*"([^"\n]+)", referenced from:\n\s*-exported_symbol', re.M)
_TWICE = re.compile(r"^duplicate symbol '?([^'\n]+?)'? in:$", re.M)
_IGNORED = re.compile(r"warning: ignoring file (\S+?),? (.+)")
_IN_FILE = re.compile(r"^ld: (.+?),? (?:in|file) '([^'\n]+)'", re.M)
_WARNING = re.compile(r"^ld: warning: (?!directory not found for option)(.+)$", re.M)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to link: members of the archive by number, and the platform versions of all of them.

    `personalities` are routines that stay external besides the exports.
    """

    members: tuple[int, ...]
    personalities: tuple[str, ...]
    versions: tuple[Version, ...]


def prelink(request: PrelinkRequest) -> PrelinkResult:
    """See `SystemEngine.prelink`."""
    if request.strip is Strip.NONE:
        raise UsageError(
            "Apple's linker cannot keep debug information in a prelinked object",
            help="use `--engine native`, or another `--strip`",
        )
    with (
        open_archive(request.archive) as archive,
        tempfile.TemporaryDirectory(prefix="cargo-strip-hook-", dir=request.folder) as temporary,
    ):
        folder = Path(temporary)
        loadable = load(archive, request.target)
        plan = _plan(loadable, request)
        linker = apple.choose("ld", request.target)
        libtool = apple.choose("libtool", request.target)
        names = _extract(loadable.members, plan, folder)
        said = _link(linker, plan, names, request, folder)
        seen = _finish(linker, plan, request, folder)
        library = folder / "out.a"
        name = object_name(request.name or request.archive)
        (folder / "linked.o").rename(folder / name)
        libtool = Tool(libtool.command, "apple", libtool.version, env=(("ZERO_AR_DATE", "1"),))
        _run(libtool, ["-static", "-o", "out.a", name], folder)
        nlist.make_anonymous(library)
        request.output.write_bytes(library.read_bytes())
        total = len(archive.members)
    warnings = [_named(text, names) for text in _WARNING.findall(said.stderr)]
    if any(n.startswith("section$start$") for n in seen.undefined):
        warnings.append(
            "the library has sets of elements (section$start$…): a program shares them "
            "with other libraries that have sets of the same name"
        )
    return PrelinkResult(
        exports=request.exports,
        undefined=seen.undefined,
        statistics=Statistics(
            members_total=total,
            members_used=len(plan.members),
            sections_live=seen.sections,
            symbols_hidden=seen.locals,
        ),
        warnings=tuple(warnings),
    )


def _plan(loadable: Loadable, request: PrelinkRequest) -> Plan:
    """The members that a linker would load, as our resolver finds them."""
    inputs, format = loadable.members, loadable.format
    roots = [name.encode("utf-8", "surrogateescape") for name in request.exports]
    program = resolve(inputs, loadable.index, roots, format, request.target.linker)
    routines = personalities(program, np.ones(len(program.atoms), np.bool_))
    extra = {
        symbol_name(program, row).decode(errors="surrogateescape") for row in routines.tolist()
    }
    commands = [(m.name, read_commands(InputFile(m.name, m.data))) for m in inputs.values()]
    merged = versions.merge((name, c.versions) for name, c in commands)
    versions.check_target(merged, commands[0][1].cputype, request.target)
    members = tuple(u.index for u in program.units if u.index >= 0)
    rows = np.flatnonzero(program.symbols["atom"] == SpecialIndex.COMMON)
    commons = {symbol_name(program, row) for row in rows.tolist()} - set(roots)
    if commons:
        names = ", ".join(sorted(f"`{n.decode(errors='replace')}`" for n in commons)[:4])
        raise LinkError(
            f"the library has common symbols ({names}), which Apple's linker cannot make private",
            help=("compile its C code with -fno-common", NATIVE_HELP),
        )
    return Plan(members, tuple(sorted(extra - set(request.exports))), merged)


def _extract(inputs: Mapping[int, Input], plan: Plan, folder: Path) -> dict[str, str]:
    """Write each member to a file of its own. Returns file -> the member's name."""
    (folder / "members").mkdir()
    routines = [name.encode(errors="surrogateescape") for name in plan.personalities]
    names = {}
    for number in plan.members:
        member = inputs[number]
        file = f"members/{number:05}.o"
        data = bytearray(member.data)
        nlist.show(data, routines)
        (folder / file).write_bytes(data)
        names[file] = member.name
    return names


def export_list(names: Sequence[str]) -> bytes:
    """The file for -exported_symbols_list. Raises `LinkError` for names that it would expand."""
    for name in names:
        if not name or set(name) & set("*?[] \t\r\n") or name.startswith("#"):
            raise LinkError(
                f"`{name}` cannot stand in a list of exports for Apple's linker",
                help=NATIVE_HELP.removeprefix("or "),
            )
    return "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")


def arguments(plan: Plan, files: Sequence[str], request: PrelinkRequest) -> list[str]:
    """The linker's command line, relative to the folder with all files."""
    words = ["-r", "-arch", apple.architecture(request.target)]
    for version in plan.versions:
        if version.platform not in _PLATFORMS:
            raise UsageError(
                f"the system engine does not know the platform {version.platform}",
                help="use `--engine native`",
            )
        minimum, sdk = version.minimum, max(version.minimum, version.sdk)
        words += ["-platform_version", _PLATFORMS[version.platform], _text(minimum), _text(sdk)]
    words += _STRIP[request.strip]
    if request.marker:
        words += ["-sectcreate", *MARKER, "marker"]
    return [*words, "-exported_symbols_list", "exports.txt", "-o", "linked.o", *files]


def _text(version: int) -> str:
    """X.Y or X.Y.Z of a version with 16, 8 and 8 bits."""
    parts = [version >> 16, version >> 8 & 0xFF, version & 0xFF]
    return ".".join(map(str, parts if parts[2] else parts[:2]))


def _link(
    linker: Tool, plan: Plan, names: Mapping[str, str], request: PrelinkRequest, folder: Path
) -> Finished:
    exported = sorted({*request.exports, *plan.personalities})
    (folder / "exports.txt").write_bytes(export_list(exported))
    (folder / "marker").write_bytes(request.marker)
    try:
        done = _run(linker, arguments(plan, list(names), request), folder)
    except ToolError as e:
        raise _explain(e, names) from e
    ignored = _IGNORED.search(done.stderr)
    if ignored:
        raise _was_ignored(ignored, names)
    return done


def _run(tool: Tool, words: Sequence[str], folder: Path) -> Finished:
    from cargo_strip_hook.core.run import run

    env = {**dict(tool.env), "LC_ALL": "C"}
    return run([*tool.command, *words], cwd=folder, env=env, help=NATIVE_HELP)


def _named(text: str, names: Mapping[str, str]) -> str:
    """A message with the names of the members instead of those of our files."""
    return re.sub(r"members/\d{5}\.o", lambda m: names.get(m[0], m[0]), text)


def _was_ignored(ignored: re.Match[str], names: Mapping[str, str]) -> InputError:
    return InputError(
        f"Apple's linker would leave this member out: {ignored[2]}",
        member=names.get(ignored[1], ignored[1]),
        help="name the library's own target with `--target`",
    )


def _explain(error: ToolError, names: Mapping[str, str]) -> StripHookError:
    """The error for a link that failed."""
    said = error.failure.stderr
    ignored = _IGNORED.search(said)
    if ignored:
        return _was_ignored(ignored, names)
    twice = sorted(set(_TWICE.findall(said)))
    if twice:
        return LinkError(
            f"the library defines {', '.join(f'`{n}`' for n in twice)} more than once",
            help=[_named(line.strip(), names) for line in said.splitlines() if "members/" in line][
                :4
            ],
        )
    missing = sorted(set(_MISSING.findall(said)))
    if missing:
        return LinkError(
            f"the archive does not define {', '.join(f'`{n}`' for n in missing)}",
            help="is it declared, but not compiled in? `--allow-missing` leaves it out",
        )
    bad = _IN_FILE.search(said)
    if bad and bad[2] in names:
        if "building for" in bad[1]:
            return LinkError(f"{names[bad[2]]}: {bad[1]}", help=error.help)
        return ObjectError(bad[1], member=names[bad[2]], help=error.help)
    return error


def _finish(linker: Tool, plan: Plan, request: PrelinkRequest, folder: Path) -> nlist.Seen:
    """Make the personality routines coalesce, and check that only the exports are external."""
    path = folder / "linked.o"
    if not path.exists():
        raise _unfit(linker, "wrote no object")
    data = bytearray(path.read_bytes())
    try:
        seen = nlist.finish(
            data, [n.encode(errors="surrogateescape") for n in plan.personalities], MARKER
        )
    except ObjectError as e:
        raise _unfit(linker, f"wrote an object that cannot be read: {e.what}") from e
    if request.marker and not seen.marked:
        raise _unfit(linker, "left out the section that -sectcreate asks for")
    wanted = {*request.exports, *plan.personalities}
    if set(seen.defined) != wanted:
        wrong = ", ".join(sorted(set(seen.defined) ^ wanted))
        raise _unfit(linker, f"did not show exactly the exports: {wrong}")
    path.write_bytes(data)
    return seen


def _unfit(linker: Tool, what: str) -> ToolError:
    failure = ToolFailure(linker.command, 0, "", what)
    return ToolError(f"`{linker}` {what}", failure, help=NATIVE_HELP.removeprefix("or "))
