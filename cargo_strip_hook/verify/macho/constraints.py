"""What linkers demand of a Mach-O object, ld64 first of all; nothing of the original is needed.

Sources: ld64, `macho_relocatable_file.cpp`; ld64.lld, `InputFiles.cpp` and
`UnwindInfoSection.cpp`; mach-o/compact_unwind_encoding.h (two bits for the personality).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.expectation import Expectation, Findings
from cargo_strip_hook.verify.macho.forms import odd_forms
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, BY_SYMBOLS, WEAK_DEF, Object
from cargo_strip_hook.verify.macho.unwind import Records

MARKER = (b"__DWARF", b"__strip_hook")
_MAX_SECTIONS, _MAX_PERSONALITIES = 255, 3
_PEXT = 0x10


def check_structure(o: Object, findings: Findings) -> None:
    """Sections, relocations, symbols and their order."""
    for home, offset in odd_forms(o):
        name = o.sections[home - 1].name.decode("utf-8", "replace")
        findings.add("a relocation of unknown form", f"at {name}+{offset:#x}")
    if not o.flags & BY_SYMBOLS:
        findings.add("structure", "MH_SUBSECTIONS_VIA_SYMBOLS is not set: nothing could be dropped")
    if len(o.sections) > _MAX_SECTIONS:
        findings.add("structure", f"{len(o.sections)} sections, more than {_MAX_SECTIONS}")
    end = 0
    for s in o.sections:
        if s.address < end or s.address % (1 << min(s.align, 62)):
            findings.add(
                "structure",
                f"section {s.name.decode('utf-8', 'replace')} overlaps or is not aligned",
            )
        end = s.address + s.size
    _check_symbols(o, findings)


def _check_symbols(o: Object, findings: Findings) -> None:
    entries, count = o.entries, len(o.entries)
    external = entries["type"] & 1 != 0
    locals_ = count - int(external.sum())
    if o.groups is not None:  # ld64 itself writes none under -r
        first_local, many, first_defined, defined, first_undefined, undefined = o.groups
        sound = (first_local, first_defined, first_undefined) == (0, many, many + defined)
        if not sound or many != locals_ or first_undefined + undefined != count:
            findings.add("structure", "LC_DYSYMTAB does not match the symbol table")

    def each(bad: Array, what: str) -> None:
        for name in o.names(np.flatnonzero(bad)):
            findings.add("structure", f"{name.decode('utf-8', 'replace')} {what}")

    stab = entries["type"] & 0xE0 != 0
    each(stab, "is a symbol of a debug map")
    each(~stab & (external != (np.arange(count) >= locals_)), "is among the wrong symbols")
    nowhere = o.placed & (entries["section"] == 0)
    each(nowhere, "is in no section")
    placed = np.flatnonzero(o.placed & ~nowhere)
    section, value = entries["section"][placed] - 1, entries["value"][placed]
    start = o.table["address"][section]
    outside = np.zeros(count, np.bool_)
    outside[placed] = (value < start) | (value > start + o.table["size"][section])
    each(outside, "lies outside of its section")
    inner = entries["desc"][placed] & ALT_ENTRY != 0
    lowest = np.full(len(o.table), np.iinfo(np.int64).max)
    np.minimum.at(lowest, section[~inner], value[~inner])
    for _ in np.flatnonzero(inner & (value < lowest[section])).tolist():
        findings.add("structure", "an alternate entry begins a section: ld64 refuses that")


def check_unwound(o: Object, unwound: Records, findings: Findings) -> None:
    """Each function with unwind information has a symbol at its very address."""
    value = o.entries["value"]
    inner = o.entries["desc"] & ALT_ENTRY != 0
    function, lsda = unwound.rows["function"], unwound.rows["lsda"]
    for at in function[~is_among(function, value[o.placed])].tolist():
        findings.add("unwind", f"no symbol at the function {at:#x}")
    known = is_among(lsda, value[o.placed & ~inner])
    for at in lsda[(lsda >= 0) & ~known].tolist():
        findings.add("unwind", f"no subsection begins at the LSDA {at:#x}")


def check_personalities(o: Object, unwound: Records, findings: Findings) -> set[bytes]:
    """Personality routines are external; the names of those that are defined, for coalescing."""
    allowed: set[bytes] = set()
    used: set[bytes] = set()
    for _ in np.flatnonzero(unwound.rows["personality_address"] >= 0).tolist():
        findings.add("personality", "a compact-unwind entry has one without a name")
    numbers = unwound.rows["personality"]
    for number in unique(numbers[numbers >= 0]).tolist():
        symbol = o.symbols[number]
        shown = symbol.name.decode("utf-8", "replace")
        used.add(symbol.name)
        if not symbol.external:
            findings.add("personality", f"{shown} is local, but ld64 binds it by name")
        elif symbol.placed and symbol.type & _PEXT:
            if not symbol.desc & WEAK_DEF:
                findings.add("personality", f"{shown} does not coalesce with other libraries'")
            allowed.add(symbol.name)
    if len(used) > _MAX_PERSONALITIES:
        findings.add("personality", f"{len(used)} routines, more than one image can have")
    return allowed


def check_marker(o: Object, expectation: Expectation, findings: Findings) -> None:
    if not expectation.marker:
        return
    found = [s for s in o.sections if (s.segment, s.name) == MARKER]
    if len(found) != 1 or bytes(o.contents(found[0])) != expectation.marker:
        findings.add("marker", "is missing or another one")
    elif found[0].loaded:
        findings.add("marker", "would become a part of programs")


def _versions(members: Iterable[Object]) -> dict[int, tuple[int, int]]:
    """Platform -> the highest of the minimums, and of the SDKs."""
    found: dict[int, tuple[int, int]] = {}
    for member in members:
        for platform, minimum, sdk in member.versions:
            old = found.get(platform, (0, 0))
            found[platform] = max(minimum, old[0]), max(sdk, old[1])
    return found


def check_versions(
    o: Object,
    members: Sequence[Object],
    others: Callable[[], list[Object]] | None,
    findings: Findings,
) -> None:
    """The platform is that of the members, the lowest version their highest.

    `others` gives all members of the original, for one may be loaded and have no part in the
    result; None where the lowest version may be higher, as a linker of the platform makes it.
    """
    wanted, found = _versions(members), _versions([o])
    same = found == wanted if others is not None else found.keys() == wanted.keys()
    if not same and others is not None:
        most = _versions(others())
        said = {(p, n, v) for m in others() for p, *both in m.versions for n, v in enumerate(both)}
        same = found.keys() == wanted.keys() and all(
            wanted[p][n] <= found[p][n] <= most[p][n] and (p, n, found[p][n]) in said
            for p in found
            for n in (0, 1)
        )
    elif same:
        same = all(found[p][0] >= wanted[p][0] for p in wanted)
    if not same:
        findings.add("platform", f"{sorted(found.items())} instead of {sorted(wanted.items())}")


def check_options(
    o: Object, members: Sequence[Object], others: Callable[[], list[Object]], findings: Findings
) -> None:
    """The options for the linker are those of the members. `others`: see `check_versions`."""
    found = {option for c in o.commands for option in c.options}
    wanted = {option for m in members for c in m.commands for option in c.options}
    more = found - wanted
    if more:
        more -= {option for m in others() for c in m.commands for option in c.options}
    for option in sorted((wanted - found) | more):
        text = option.replace(b"\0", b" ").decode("utf-8", "replace")
        what = "is lost" if option in wanted else "was none before"
        findings.add("linker option", f"{text} {what}")


def check_header(o: Object, members: Sequence[Object], findings: Findings) -> None:
    """The processor is one that members are for, down to its subtype."""
    subtypes = {c.subtype for m in members for c in m.commands}
    if subtypes and o.commands[0].subtype not in subtypes:
        findings.add("the file header", f"the subtype {o.commands[0].subtype:#x} is no member's")
