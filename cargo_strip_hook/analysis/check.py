"""What is wrong with a static library as something that others link against."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cargo_strip_hook.archive import Archive, open_archive, read_slices
from cargo_strip_hook.core.errors import InputError
from cargo_strip_hook.core.requests import ExportSet, Slice
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.formats.detect import architecture_of, must_have_objects
from cargo_strip_hook.formats.sniff import sniff
from cargo_strip_hook.link.share.split import crosses
from cargo_strip_hook.verify.marker import read_marker, set_of

FindingKind = Literal[
    "leaked",
    "missing",
    "bitcode",
    "debug-info",
    "members",
    "collision",
    "merged",
    "constructors",
    "one-object",
    "type-information",
    "unasked",
    "builtins",
    "linkers",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a library; a `note` is a consequence to know of, not a fault."""

    kind: FindingKind
    severity: Literal["finding", "note"]
    message: str
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that was found in one library, or in one slice of a universal one."""

    library: Path
    target: Target
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    architecture: str = ""

    def all(self) -> tuple[Finding, ...]:
        return (*self.findings, *self.notes)


@dataclass(frozen=True, slots=True)
class Facts:
    """A library as a linker sees it. Sizes in bytes.

    `strong` and `weak` are the global definitions; `constructors` counts the entries of
    initialiser arrays; `private_types` are local C++ type information symbols; `unasked` are the
    members that linkers load whatever refers to them.
    """

    objects: int
    strong: frozenset[str]
    weak: frozenset[str]
    bitcode: int
    debug: int
    constructors: int
    private_types: tuple[str, ...]
    unasked: tuple[str, ...] = ()


def decide_or_remember(archive: Archive, request: ExportRequest) -> ExportSet:
    """What is public: from the sources given, else what a stripped library says of itself."""
    from cargo_strip_hook.exports.decide import remembered
    from cargo_strip_hook.exports.library import decide_exports

    must_have_objects(archive)
    marker = read_marker(archive.slice)
    return remembered(request, marker, archive.path.name) or decide_exports(archive, request)


def inspect(
    library: Path | Slice, target: Target, exports: ExportSet, against: Sequence[Path] = ()
) -> Inspection:
    """Look at a library, or at one slice of a universal one, as its users' linkers do.

    `against` are libraries that are to be linked into the same program. Raises `InputError` for
    damaged libraries and for formats that are not supported.
    """
    part = library if isinstance(library, Slice) else Slice(library)
    facts, names = read_facts(part), set(exports.names())
    in_set = bool(set_of(read_marker(part)))
    if in_set:  # what crosses to others of the set has names of its own
        strong, weak = (
            frozenset(n for n in s if not crosses(n)) for s in (facts.strong, facts.weak)
        )
        facts = replace(facts, strong=strong, weak=weak)
    findings = [
        *_api(facts, names, exports),
        *_contents(facts, in_set),
        *(f for other in _beside(target, against) for f in _collisions(facts, part, other)),
    ]
    if facts.objects == 1:
        findings += _one_object(facts, names)
    else:
        findings += _linkers(part, target, sorted(names & (facts.strong | facts.weak)))
    findings += _unasked(facts)
    if target.system == "none":
        findings += _builtins(facts, names)
    return Inspection(
        part.path,
        target,
        tuple(f for f in findings if f.severity == "finding"),
        tuple(f for f in findings if f.severity == "note"),
        part.architecture,
    )


def _beside(target: Target, others: Sequence[Path]) -> list[Slice]:
    """What of other libraries gets into one program with `target`'s: of universal ones a slice."""
    slices = [p for other in others for p in read_slices(other)]
    return [p for p in slices if architecture_of(p) in ("", target.arch)]


def _api(facts: Facts, names: set[str], exports: ExportSet) -> list[Finding]:
    findings = []
    leaked = tuple(sorted((facts.strong | facts.weak) - names))
    if leaked:
        words = f"{_count(len(leaked), 'global symbol')} besides the {len(names)} public ones"
        findings.append(Finding("leaked", "finding", words, leaked))
    missing = {e.name for e in exports.missing} | (names - facts.strong - facts.weak)
    if missing:
        words = f"{_count(len(missing), 'public symbol')} not defined"
        findings.append(Finding("missing", "finding", words, tuple(sorted(missing))))
    return findings


def _contents(facts: Facts, in_set: bool) -> list[Finding]:
    findings = []
    if facts.objects > 1 and not in_set:  # a common library has one for each group of libraries
        words = f"{facts.objects} objects instead of one"
        findings.append(Finding("members", "finding", words))
    if facts.bitcode:
        words = f"{facts.bitcode} bytes of LLVM bitcode, which a C linker has no use for"
        findings.append(Finding("bitcode", "finding", words))
    if facts.debug:
        words = f"{facts.debug} bytes of debug information"
        findings.append(Finding("debug-info", "finding", words))
    return findings


def _collisions(facts: Facts, library: Slice, other: Slice) -> list[Finding]:
    theirs = read_facts(other)
    findings = []
    both = facts.strong & theirs.strong
    if both:
        words = f"{_count(len(both), 'symbol')} defined in {library.name} and in {other}"
        findings.append(Finding("collision", "finding", words, tuple(sorted(both))))
    merged = ((facts.strong | facts.weak) & (theirs.strong | theirs.weak)) - both
    if merged:
        words = (
            f"of {_count(len(merged), 'weak symbol')} a program takes one copy for {library.name}"
        )
        words += f" and {other}"
        findings.append(Finding("merged", "note", words, tuple(sorted(merged))))
    return findings


def _unasked(facts: Facts) -> list[Finding]:
    """What only the runtimes of Objective-C and Swift find."""
    if not facts.unasked:
        return []
    if facts.objects == 1:
        words = "the library has Objective-C classes or categories, or Swift types: every program "
        words += "that uses any part of it gets them all, linked with -ObjC or not"
    else:
        words = "Objective-C classes or categories, or Swift types, of "
        words += f"{_count(len(facts.unasked), 'member')} that programs linked with -ObjC get, "
        words += "whatever they use: a stripped library has them all, and needs what they need"
    return [Finding("unasked", "note", words, facts.unasked)]


# what compilers call and no header declares (Arm's run-time ABI; GCC internals, "libgcc")
_BUILTINS = re.compile(
    r"_?(__aeabi_\w+|mem(cpy|move|set|cmp|clr)|bcmp|strlen"
    r"|__(u?(div|mod|divmod)|mul|ashl|ashr|lshr|cmp|ucmp|neg|clz|ctz|popcount|bswap)[sdt]i\d"
    r"|__(add|sub|mul|div|neg|eq|ne|lt|le|gt|ge|unord|fix\w*|float\w*|extend|trunc)[sdtxh]f\w*)"
)


def _builtins(facts: Facts, names: set[str]) -> list[Finding]:
    """Firmware has often no other library that has them."""
    routines = tuple(sorted(n for n in facts.strong | facts.weak if _BUILTINS.fullmatch(n)))
    routines = tuple(n for n in routines if n not in names)
    if not routines:
        return []
    words = f"{_count(len(routines), 'routine')} of compilers (__aeabi_*, memcpy and their "
    words += "like) are not public: C code that takes them from here links no more once the "
    words += "library is stripped, unless --keep '__aeabi_*' (or their names) keeps them"
    return [Finding("builtins", "note", words, routines)]


def _linkers(part: Slice, target: Target, names: Sequence[str]) -> list[Finding]:
    """Symbols of which it depends on the linker what a program gets."""
    from cargo_strip_hook.analysis.linkers import describe, differences

    with open_archive(part) as archive:
        differing = differences(archive, target, names)
    return [Finding("linkers", "note", describe(differing), tuple(differing))] if differing else []


def _one_object(facts: Facts, names: set[str]) -> list[Finding]:
    """What it means for users that a linker takes all of the library or nothing."""
    notes = []
    if facts.constructors:
        words = "every program that uses any part of the library runs its "
        words += _count(facts.constructors, "constructor or destructor")
        notes.append(Finding("constructors", "note", words))
    if len(names) > 1:
        words = "the library is one object: a program that defines one of its public symbols "
        words += "itself gets a duplicate"
        notes.append(Finding("one-object", "note", words))
    if facts.private_types:
        words = f"C++ type information of {_count(len(facts.private_types), 'type')} is private: "
        words += "exceptions and dynamic_cast do not match it outside (make it public with --keep)"
        notes.append(Finding("type-information", "note", words, facts.private_types))
    return notes


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def read_facts(library: Path | Slice) -> Facts:
    """Read a library's symbols and sections.

    Raises `InputError` for damaged libraries, `UsageError` for formats that are not supported.
    """
    with open_archive(library) as archive:
        if archive.thin:
            raise InputError("a thin archive cannot be published", path=str(library))
        return _by_model(archive)


def _bitcode(archive: Archive) -> int:
    """The bytes of members that are bitcode alone."""
    members = archive.members
    return sum(m.size for m in members if sniff(bytes(archive.data(m)[:20])) == "bitcode")


def _by_model(archive: Archive) -> Facts:
    """What the common model tells of a library of any format."""
    from cargo_strip_hook.formats import summary

    defined, leftovers = summary.contents(archive)
    # Rust's personality routine is weak and hidden in a finished library, so that it coalesces
    symbols = [
        s
        for s in defined.values()
        if not (s.weak and s.hidden and s.name == "_rust_eh_personality")
    ]
    weak = frozenset(s.name for s in symbols if s.weak)
    strong = frozenset(s.name for s in symbols if not s.weak)
    return Facts(
        leftovers.objects,
        strong,
        weak,
        _bitcode(archive) + leftovers.bitcode,
        leftovers.debug,
        leftovers.initialisers,
        _private_types(leftovers.objects, leftovers.locals),
        leftovers.unasked,
    )


# type information: the Itanium C++ ABI's, on some systems with an underscore, and Microsoft's
_TYPES = ("_ZTI", "__ZTI", "??_R0")


def _private_types(objects: int, names: Iterable[str]) -> tuple[str, ...]:
    """The type information among the `names` of local symbols of a finished library."""
    return tuple(sorted(n for n in names if n.startswith(_TYPES))) if objects == 1 else ()
