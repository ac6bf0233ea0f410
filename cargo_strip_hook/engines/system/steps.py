"""The two steps for ELF: a relocatable link, then objcopy."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cargo_strip_hook.core.errors import LinkError, ObjectError, StripHookError, ToolError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.engines.system.machines import Machine
from cargo_strip_hook.engines.system.tools import NATIVE_HELP, Tool
from cargo_strip_hook.engines.system.view import (
    COMMON,
    STB_GLOBAL,
    STB_GNU_UNIQUE,
    Symbol,
    View,
    view,
)

MAP = "linked.map"
MARKER_SECTION = b".cargo-strip-hook"

# bitcode beside machine code, and lists of symbols by number, which removing symbols makes wrong:
# llvm/include/llvm/BinaryFormat/ELF.h, SHT_LLVM_*; GCC's lto-section-names.h
_USELESS = (b".llvmbc", b".llvmcmd", b".llvm.lto", MARKER_SECTION)
_USELESS_PREFIXES = (b".gnu.lto_", b".gnu.debuglto_")
_STALE_TYPES = (0x6FFF4C02, 0x6FFF4C03, 0x6FFF4C09)
# symbols by which instrumented code controls the profile runtime: llvm/ProfileData/InstrProf.h
SHARED = frozenset(
    b"__llvm_profile_" + name
    for name in (b"raw_version", b"filename", b"counter_bias", b"bitmap_bias")
)
_SET_SYMBOL = re.compile(rb"__(?:start|stop)_([A-Za-z_][A-Za-z0-9_]*)")
_OLD_CONSTRUCTORS = re.compile(rb"\.[cd]tors(?:\.[0-9]+)?(?=\0)")
_LOADED = re.compile(r"^(?:\(.+\)\S.*|.+\(.+\))$", re.M)  # `(lib.a)member.o`, `lib.a(member.o)`
_TWICE = re.compile(
    r"multiple definition of [`'\"](?P<gnu>.+?)'[^\n]*|duplicate symbol: (?P<llvm>.+)"
)


@dataclass(frozen=True, slots=True)
class LinkJob:
    """What to link. `roots` are the exports; `collect` asks the linker to drop dead code."""

    input: Path
    roots: tuple[str, ...]
    machine: Machine
    collect: bool
    keep: tuple[bytes, ...] = ()  # sections that are roots by their name
    sets: tuple[bytes, ...] = ()  # sections whose `__start_` and `__stop_` are to be defined
    listed: tuple[bytes, ...] = ()  # sections that a program may find by their names
    place_commons: bool = False
    keep_commons: bool = False  # for those that no code refers to


@dataclass(frozen=True, slots=True)
class Linked:
    """The linked object. `sets` are the linker sets that live code uses and that are in it."""

    path: Path
    view: View
    members: int
    sets: tuple[bytes, ...]
    data: bytearray


def link(linker: Tool, job: LinkJob, folder: Path) -> Linked:
    """Link until everything that live code needs is in the result.

    A linker that drops dead code under -r drops linker sets, too, and constructors in `.ctors`. So
    these are named as roots, the sets only where live code refers to them. The start and stop
    symbols of a set are defined here, since another library's set may have the same name. Each of
    these takes one more link, in the rare library that has sets.

    Raises `LinkError` for symbols that are defined twice, `ToolError` for other failures.
    """
    keep = _old_constructors(job.input) | _profile(job.input) if job.collect else set()
    sets: set[bytes] = set()
    while True:
        full = replace(job, keep=tuple(sorted(keep)), sets=tuple(sorted(sets)))
        try:
            done = _link_once(linker, full, folder)
        except ToolError as e:
            # GNU ld drops commons that only debug information refers to, and then fails over that
            if "removed by garbage collection" in e.failure.stderr and not job.keep_commons:
                job = replace(job, keep_commons=True)
                continue
            raise
        except ObjectError:
            # to GNU ld, commons and absolute symbols are no roots
            if not job.collect:
                raise
            job, keep = replace(job, collect=False), set()
            continue
        needed = done.view.needed()
        ends = [(s, _SET_SYMBOL.fullmatch(s.name)) for s in done.view.undefined()]
        listed = {*job.listed} - keep - {m[1] for _, m in ends if m}
        if job.collect and listed:
            keep |= listed
            continue
        wanted = {m[1] for s, m in ends if m and s.number in needed}
        if job.collect and not wanted <= keep:
            keep |= wanted
            continue
        there = {s.name for s in done.view.defined()}
        if (
            job.collect
            and not job.keep_commons
            and any(r.encode(errors="surrogateescape") not in there for r in job.roots)
        ):
            job = replace(job, keep_commons=True)
            continue
        if not job.place_commons and _private_commons(done.view, job.roots):
            if linker.family != "gnu":
                raise LinkError(
                    "the library has common symbols, which lld cannot make private",
                    help=("compile its C code with -fno-common", "use GNU ld", NATIVE_HELP),
                )
            job = replace(job, place_commons=True)
            continue
        in_object = wanted & set(done.view.names)  # the consumer may have others
        if in_object <= sets:
            return replace(done, sets=full.sets)
        sets |= in_object


def _link_once(linker: Tool, job: LinkJob, folder: Path) -> Linked:
    output = folder / "linked.o"
    arguments: list[str | Path] = ["-m", job.machine.emulation, "-r", "--force-group-allocation"]
    if job.collect:
        arguments += ["--gc-sections"]
    if job.collect or job.sets:
        script = folder / "more.ld"
        script.write_bytes(_script(job))
        arguments += ["-T", script]
    if job.place_commons:
        arguments += ["-d"]
    roots = folder / "roots.txt"
    words = "".join(f"{_quote('--undefined=' + r)}\n" for r in job.roots)
    roots.write_bytes(words.encode(errors="surrogateescape"))
    # once for files, twice for members of archives: GNU ld
    arguments += ["-t", "-t"] if linker.family == "gnu" else ["-t"]
    arguments += [f"-Map={folder / MAP}"]
    try:
        said = linker.run([*arguments, f"@{roots}", "-o", output, job.input]).stdout
    except ToolError as e:
        raise _explain(e) from e
    data = bytearray(output.read_bytes())
    return Linked(output, view(data, output.name), len(_LOADED.findall(said)), (), data)


def _script(job: LinkJob) -> bytes:
    """An addition to the linker's default script (GNU ld manual, "INSERT")."""
    discard = b" ".join(b"*(%b)" % name for name in _USELESS)
    lines = [b"  /DISCARD/ : { %b }\n" % discard]
    if job.keep_commons:
        lines.append(b"  .bss.common 0 : { KEEP(*(COMMON)) }\n")
    for name in sorted({*job.keep, *job.sets}):
        inside = b"KEEP(*(%b))" % name
        if name in job.sets:
            inside = b"__start_%b = .; %b __stop_%b = .;" % (name, inside, name)
        lines.append(b"  %b 0 : { %b }\n" % (name, inside))
    return b"SECTIONS\n{\n%b}\nINSERT AFTER .bss;\n" % b"".join(lines)


def _quote(word: str) -> str:
    """A word in a response file (GNU libiberty, `expandargv`; LLVM reads the same)."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _old_constructors(path: Path) -> set[bytes]:
    """The names of `.ctors` and `.dtors` sections that may be in a file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b".ctors") < 0 and data.find(b".dtors") < 0:
            return set()
        return {match[0] for match in _OLD_CONSTRUCTORS.finditer(data)}


def _profile(path: Path) -> set[bytes]:
    """The sections of `SHARED` symbols that may be in a file: no code refers to them."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        present = [name for name in sorted(SHARED) if data.find(b"\0" + name + b"\0") >= 0]
    return {kind + name for name in present for kind in (b".rodata.", b".data.", b".bss.")}


def _private_commons(linked: View, roots: Sequence[str]) -> bool:
    exported = {r.encode(errors="surrogateescape") for r in roots}
    return any(s.section == COMMON and s.name not in exported for s in linked.symbols)


def _explain(error: ToolError) -> StripHookError:
    """The error for a link that failed."""
    said = error.failure.stderr
    twice = sorted({m["gnu"] or m["llvm"] for m in _TWICE.finditer(said)})
    if twice:
        lines = [line.strip() for line in said.splitlines() if any(n in line for n in twice)]
        return LinkError(
            f"the library defines {', '.join(f'`{n}`' for n in twice)} more than once",
            help=lines[:4],
        )
    # exports were looked up in the archive's index, and gcc-ar lists what only GCC can read
    if "requires a defined symbol root" in said or "plugin needed" in said:
        return slim_error()
    if "no index" in said or "run ranlib" in said:
        return LinkError("the archive has no symbol index", help="run `ranlib` on it")
    return error


def slim_error() -> ObjectError:
    """The error for objects that only GCC itself can link."""
    return ObjectError(
        "the library holds objects that GCC compiled to its intermediate language only",
        help="compile its C code with -ffat-lto-objects or without -flto",
    )


def private_name(name: bytes, exports: Iterable[str]) -> bytes:
    """A name for a linker set that no other library has.

    It is made of the exports: two libraries with the same ones cannot be linked together.
    """
    digest = hashlib.sha256(
        "\0".join(sorted(exports)).encode(errors="surrogateescape")
    ).hexdigest()[:16]
    return name + b"_" + digest.encode()


@dataclass(frozen=True, slots=True)
class FinishJob:
    """How to finish the linked object."""

    exports: tuple[str, ...]
    strip: Strip
    marker: bytes


def finish(objcopy: Tool, linked: Linked, job: FinishJob, folder: Path) -> Path:
    """Hide, strip, rename and mark. Returns the finished object. Raises `ToolError`."""
    _demote_unique(linked, job.exports)
    output, keep, unneeded = folder / "finished.o", folder / "keep.txt", folder / "unneeded.txt"
    shared = sorted(n.decode() for n in {s.name for s in linked.view.defined()} & SHARED)
    words = "".join(f"{name}\n" for name in (*job.exports, *shared))
    keep.write_bytes(words.encode(errors="surrogateescape"))
    arguments: list[str | Path] = [f"--keep-global-symbols={keep}"]
    arguments += [f"--weaken-symbol={name}" for name in shared if name not in job.exports]
    if job.strip is Strip.SYMBOLS:
        arguments += ["--strip-unneeded"]
    else:
        if job.strip is Strip.DEBUGINFO:
            arguments += ["--strip-debug"]
        names = _unneeded(linked.view)
        if names:
            unneeded.write_bytes(b"".join(name + b"\n" for name in names))
            arguments += [f"--strip-unneeded-symbols={unneeded}"]
    for name in _useless(linked.view):
        arguments += ["--remove-section", name.decode(errors="surrogateescape")]
    for old in linked.sets:
        new = private_name(old, job.exports)
        arguments += [
            "--rename-section",
            f"{old.decode(errors='surrogateescape')}={new.decode(errors='surrogateescape')}",
        ]
    if job.marker:
        marker = folder / "marker"
        marker.write_bytes(job.marker)
        arguments += ["--add-section", f"{MARKER_SECTION.decode()}={marker}"]
    objcopy.run([*arguments, linked.path, output])
    return output


def _demote_unique(linked: Linked, exports: Sequence[str]) -> None:
    """Make unique symbols plain global ones, in the file: GNU objcopy does not hide them."""
    exported = {name.encode(errors="surrogateescape") for name in exports}
    entries = [
        s for s in linked.view.symbols if s.binding == STB_GNU_UNIQUE and s.name not in exported
    ]
    if not entries:
        return
    with linked.path.open("r+b") as file:
        for entry in entries:
            file.seek(entry.offset + 4)  # st_info
            kind = linked.data[entry.offset + 4] & 0xF
            file.write(bytes((STB_GLOBAL << 4 | kind,)))


def _unneeded(linked: View) -> list[bytes]:
    needed = linked.needed()
    wanted: set[bytes] = {s.name for s in linked.undefined() if s.number in needed}
    idle: list[Symbol] = [s for s in linked.undefined() if s.number not in needed]
    return sorted({s.name for s in idle} - wanted)


def _useless(linked: View) -> list[bytes]:
    kinds = linked.sections["type"].tolist()
    return sorted(
        {
            name
            for name, kind in zip(linked.names, kinds, strict=True)
            if name in _USELESS or name.startswith(_USELESS_PREFIXES) or kind in _STALE_TYPES
        }
    )
