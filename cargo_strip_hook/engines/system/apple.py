"""Finding Apple's linker and libtool, and checking their versions.

A program that the user names in the environment (`STRIP_HOOK_LD` or `LD`, `STRIP_HOOK_LIBTOOL` or
`LIBTOOL`; options may follow it) is the only candidate. Else: what `xcrun --find` finds, then
cross tools with the target's name, then the plain name.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from typing import Literal

from packaging.version import Version

from cargo_strip_hook.core.errors import ToolError, ToolFailure
from cargo_strip_hook.core.run import run
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.system.tools import NATIVE_HELP, Candidate, Tool, unfit

Kind = Literal["ld", "libtool"]

_VARIABLES: dict[Kind, tuple[str, str]] = {
    "ld": ("STRIP_HOOK_LD", "LD"),
    "libtool": ("STRIP_HOOK_LIBTOOL", "LIBTOOL"),
}
# "PROJECT:ld64-951.9", Xcode 15's "PROJECT:ld-1053.12" and "PROJECT:dyld-1015.7"
_LINKER = re.compile(r"PROGRAM:ld\s+PROJECT:(?P<project>[a-z0-9]+?)-(?P<version>\d+(?:\.\d+)*)")
_LIBTOOL = re.compile(
    r"\bcctools[^\d\s]*-(?P<version>\d+(?:\.\d+)*)|\bLLVM version (?P<llvm>[\d.]+)"
)
# the first with -platform_version (Xcode 11)
_OLDEST_LD64 = Version("520")
_INSTALL = {
    "ld": "install Xcode's command line tools, or name Apple's linker in STRIP_HOOK_LD",
    "libtool": "install Xcode's command line tools, or name Apple's libtool in STRIP_HOOK_LIBTOOL",
}


def candidates(
    kind: Kind, target: Target, environment: Mapping[str, str] = os.environ
) -> Iterator[Candidate]:
    """The programs to try, best first; those that are not installed are left out."""
    for variable in _VARIABLES[kind]:
        words = shlex.split(environment.get(variable, ""))
        if words:
            yield Candidate(tuple(words), named=variable)
            return
    seen: set[str] = set()
    for program in (_xcrun(kind), *map(shutil.which, _names(kind, target))):
        if program and program not in seen:
            seen.add(program)
            yield Candidate((program,))


def _xcrun(kind: Kind) -> str | None:
    """The path of a program of Xcode's; None where there is no Xcode."""
    try:
        return run(["xcrun", "--find", kind]).stdout.strip() or None
    except ToolError:
        return None


def _names(kind: Kind, target: Target) -> list[str]:
    arch = architecture(target)
    return [f"{target.triple}-{kind}", f"{arch}-apple-darwin-{kind}", kind]


def architecture(target: Target) -> str:
    """What Apple's tools call a target's architecture."""
    return "arm64" if target.arch == "aarch64" else target.arch


def judge(kind: Kind, candidate: Candidate) -> Tool:
    """Ask a candidate what it is. Raises `ToolError`, with the reason, if it cannot be used."""
    name = f"`{candidate.command[0]}`" + (f" (from {candidate.named})" if candidate.named else "")
    done = run([*candidate.command, "-v" if kind == "ld" else "-V"], accept=())
    said = done.stdout + done.stderr
    described = (_LINKER if kind == "ld" else _LIBTOOL).search(said)
    if described is None:
        first = said.strip().partition("\n")[0]
        raise unfit(f"{name} is not Apple's {kind} (it says `{first}`)", done)
    if kind == "libtool":
        return Tool(candidate.command, "apple", Version(described["version"] or described["llvm"]))
    version = Version(described["version"])
    if described["project"] == "ld64" and version < _OLDEST_LD64:
        raise unfit(f"{name} is version {version}; {_OLDEST_LD64} is the oldest that will do", done)
    return Tool(candidate.command, "apple", version)


def choose(kind: Kind, target: Target) -> Tool:
    """The first candidate that can be used. Raises `ToolError`, with a reason for each other."""
    tried: list[ToolError] = []
    for candidate in candidates(kind, target):
        try:
            return judge(kind, candidate)
        except ToolError as e:
            tried.append(e)
    what = f"there is no {kind} of Apple's that can be used"
    reasons = "; ".join(e.what for e in tried)
    failure = tried[-1].failure if tried else ToolFailure((kind,), None, "", "not found")
    raise ToolError(
        f"{what}: {reasons}" if reasons else what, failure, help=(_INSTALL[kind], NATIVE_HELP)
    )
