"""Finding the platform's linker and objcopy, and checking their versions.

A program that the user names in the environment (`STRIP_HOOK_LD` or `LD`, `STRIP_HOOK_OBJCOPY` or
`OBJCOPY`) is the only candidate. Else: the GNU tools for the target, the plain names, LLVM's, and
those that come with Rust.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version

from cargo_strip_hook.core.errors import StripHookError, ToolError, ToolFailure
from cargo_strip_hook.core.run import Finished, run
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.system.machines import prefixes

Kind = Literal["ld", "objcopy"]
Family = Literal["gnu", "llvm", "apple"]

NATIVE_HELP = "or use `--engine native`, which needs no such program"

# --force-group-allocation is new in ld 2.29 and lld 19; older objcopy has bugs with names
_OLDEST: dict[tuple[Kind, Family], Version] = {
    ("ld", "gnu"): Version("2.30"),
    ("ld", "llvm"): Version("19"),
    ("objcopy", "gnu"): Version("2.30"),
    ("objcopy", "llvm"): Version("13"),
}
_VARIABLES: dict[Kind, tuple[str, str]] = {
    "ld": ("STRIP_HOOK_LD", "LD"),
    "objcopy": ("STRIP_HOOK_OBJCOPY", "OBJCOPY"),
}
_INSTALL: dict[Kind, str] = {
    "ld": "install GNU binutils (or lld) for {triple}, or name the linker in STRIP_HOOK_LD",
    "objcopy": "install GNU binutils (or llvm-objcopy) for {triple}, "
    "or name the program in STRIP_HOOK_OBJCOPY",
}
# the number at the end of the first line, or before a distribution's suffix
_GNU = re.compile(r"^GNU (?:ld|objcopy)\b.*?(?:\)|version)? (\d+(?:\.\d+)+)", re.M)
_LLVM: dict[Kind, re.Pattern[str]] = {
    "ld": re.compile(r"\bLLD (\d+(?:\.\d+)*)"),
    "objcopy": re.compile(r"^llvm-objcopy\b(?:.|\n)*?LLVM version (\d+(?:\.\d+)*)", re.M),
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that may be used. `env` is added to its environment."""

    command: tuple[str, ...]
    family: Family
    version: Version
    env: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.command[0]} {self.version}"

    def run(self, arguments: Sequence[str | Path]) -> Finished:
        """Run it in the C locale, in which its messages are known. Raises `ToolError`."""
        return run([*self.command, *arguments], env={**dict(self.env), "LC_ALL": "C"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A command that may be such a tool; `named` is the variable in which the user named it."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    named: str = ""


def parse_version(kind: Kind, said: str) -> tuple[Family, Version] | None:
    """Family and version from what a program says about itself; None for another program.

    >>> parse_version("ld", "GNU ld (GNU Binutils for Debian) 2.40")
    ('gnu', <Version('2.40')>)
    """
    match = _LLVM[kind].search(said)
    if match:
        return "llvm", Version(match[1])
    match = _GNU.search(said)
    return ("gnu", Version(match[1])) if match else None


def judge(kind: Kind, candidate: Candidate) -> Tool:
    """Ask a candidate for its version. Raises `ToolError`, with a reason, if it cannot be used."""
    done = run([*candidate.command, "--version"], env={**dict(candidate.env), "LC_ALL": "C"})
    name = f"{candidate.command[0]}`" + (f" (from {candidate.named})" if candidate.named else "")
    parsed = parse_version(kind, done.stdout + done.stderr)
    if parsed is None:
        first = (done.stdout or done.stderr).partition("\n")[0]
        wanted = "GNU ld or lld" if kind == "ld" else "GNU objcopy or llvm-objcopy"
        raise unfit(f"`{name} is not {wanted} (it says `{first}`)", done)
    family, version = parsed
    oldest = _OLDEST[kind, family]
    if version < oldest:
        raise unfit(f"`{name} is version {version}; {oldest} is the oldest that will do", done)
    return Tool(candidate.command, family, version, candidate.env)


def usable(kind: Kind, target: Target, tried: list[StripHookError]) -> Iterator[Tool]:
    """The candidates that can be used; the reasons why others cannot are added to `tried`."""
    for candidate in candidates(kind, target):
        try:
            tool = judge(kind, candidate)
        except ToolError as e:
            tried.append(e)
        else:
            yield tool


def unfit(what: str, done: Finished) -> ToolError:
    """The error for a program that cannot be used, with what it said of itself."""
    return ToolError(what, ToolFailure(done.argv, done.exit_code, done.stdout, done.stderr))


def candidates(kind: Kind, target: Target) -> Iterator[Candidate]:
    """The programs to try, best first; those that are not installed are left out."""
    for variable in _VARIABLES[kind]:
        words = shlex.split(os.environ.get(variable, ""))
        if words:
            yield Candidate(tuple(words), named=variable)
            return
    seen: set[Path] = set()
    for name in _names(kind, target):
        program = shutil.which(name)
        if program and Path(program).resolve() not in seen:
            seen.add(Path(program).resolve())
            yield Candidate((program,))
    yield from _from_rust(kind)


def _names(kind: Kind, target: Target) -> Iterator[str]:
    plain = ("ld.bfd", "ld") if kind == "ld" else ("objcopy",)
    for prefix in (*prefixes(target), ""):
        for name in plain:
            yield prefix + name
    llvm = "ld.lld" if kind == "ld" else "llvm-objcopy"
    yield llvm
    for major in range(40, _OLDEST[kind, "llvm"].major - 1, -1):
        yield f"{llvm}-{major}"  # as Debian calls them


def _from_rust(kind: Kind) -> Iterator[Candidate]:
    """`rust-lld` and `rust-objcopy` of rustup's toolchains (the latter with llvm-tools)."""
    try:
        done = run([os.environ.get("RUSTC") or "rustc", "--print", "sysroot"])
    except ToolError:
        return
    sysroot = Path(done.stdout.strip())
    name, more = ("rust-lld", ("-flavor", "gnu")) if kind == "ld" else ("rust-objcopy", ())
    for program in sorted(sysroot.glob(f"lib/rustlib/*/bin/{name}")):
        # they need the compiler's LLVM, which is not where they look for it
        paths = (str(sysroot / "lib"), os.environ.get("LD_LIBRARY_PATH", ""))
        library = os.pathsep.join(filter(None, paths))
        yield Candidate((str(program), *more), (("LD_LIBRARY_PATH", library),))


def none_found(kind: Kind, target: Target, tried: Sequence[StripHookError]) -> ToolError:
    """The error where no program can be used; `tried` has the reason for each."""
    reasons = "; ".join(e.what for e in tried)
    what = "linker" if kind == "ld" else "objcopy"
    failure = ToolFailure((), None, "", reasons)
    for error in tried:
        if isinstance(error, ToolError):
            failure = error.failure
    said = f"there is no {what} for {target.triple} that can be used"
    return ToolError(
        f"{said}: {reasons}" if reasons else said,
        failure,
        help=(_INSTALL[kind].format(triple=target.triple), NATIVE_HELP),
    )


__all__ = [
    "NATIVE_HELP",
    "Candidate",
    "Kind",
    "Tool",
    "candidates",
    "judge",
    "none_found",
    "parse_version",
    "unfit",
    "usable",
]
