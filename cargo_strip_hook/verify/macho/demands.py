"""What linkers demand of a Mach-O object, ld64 first of all; nothing of the original is needed.

Sources: ld64, `macho_relocatable_file.cpp`; ld64.lld, `InputFiles.cpp` and
`UnwindInfoSection.cpp`; mach-o/compact_unwind_encoding.h (two bits for the personality).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cargo_strip_hook.verify.claim import Claim, Findings
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, WEAK_DEF, Object
from cargo_strip_hook.verify.macho.unwind import Record

MARKER = (b"__DWARF", b"__strip_hook")
_MAX_SECTIONS, _MAX_PERSONALITIES = 255, 3
_PEXT = 0x10


def check_structure(o: Object, findings: Findings) -> None:
    """Sections, symbols and their order."""
    if not o.flags & 0x2000:
        findings.add("structure", "MH_SUBSECTIONS_VIA_SYMBOLS is not set: nothing could be dropped")
    if len(o.sections) > _MAX_SECTIONS:
        findings.add("structure", f"{len(o.sections)} sections, more than {_MAX_SECTIONS}")
    end = 0
    for s in o.sections:
        if s.address < end or s.address % (1 << s.align):
            findings.add(
                "structure",
                f"section {s.name.decode('utf-8', 'replace')} overlaps or is not aligned",
            )
        end = s.address + s.size
    locals_ = sum(not s.external for s in o.symbols)
    if o.groups is not None:  # ld64 itself writes none under -r
        first_local, count, first_defined, defined, first_undefined, undefined = o.groups
        sound = (first_local, first_defined, first_undefined) == (0, count, count + defined)
        if not sound or count != locals_ or first_undefined + undefined != len(o.symbols):
            findings.add("structure", "LC_DYSYMTAB does not match the symbol table")
    lowest: dict[int, int] = {}
    for number, symbol in enumerate(o.symbols):
        shown = symbol.name.decode("utf-8", "replace")
        if symbol.stab:
            findings.add("structure", f"{shown} is a symbol of a debug map")
            continue
        if symbol.external != (number >= locals_):
            findings.add("structure", f"{shown} is among the wrong symbols")
        if not symbol.placed:
            continue
        if not 0 < symbol.section <= len(o.sections):
            findings.add("structure", f"{shown} is in no section")
            continue
        home = o.sections[symbol.section - 1]
        if not home.address <= symbol.value <= home.address + home.size:
            findings.add("structure", f"{shown} lies outside of its section")
        if not symbol.desc & ALT_ENTRY:
            lowest[symbol.section] = min(lowest.get(symbol.section, 1 << 62), symbol.value)
    for symbol in o.symbols:
        inner = symbol.placed and symbol.desc & ALT_ENTRY
        if inner and symbol.value < lowest.get(symbol.section, 1 << 62):
            findings.add("structure", "an alternate entry begins a section: ld64 refuses that")


def check_unwound(o: Object, unwound: Iterable[Record], findings: Findings) -> None:
    """Each function with unwind information has a symbol at its very address."""
    known = {s.value for s in o.symbols if s.placed}
    plain = {s.value for s in o.symbols if s.placed and not s.desc & ALT_ENTRY}
    for record in unwound:
        if record.function not in known:
            findings.add("unwind", f"no symbol at the function {record.function:#x}")
        if record.lsda >= 0 and record.lsda not in plain:
            findings.add("unwind", f"no subsection begins at the LSDA {record.lsda:#x}")


def check_personalities(o: Object, unwound: Iterable[Record], findings: Findings) -> set[bytes]:
    """Personality routines are external; the names of those that are defined, for coalescing."""
    allowed: set[bytes] = set()
    used: set[bytes] = set()
    for record in unwound:
        if record.personality_address >= 0:
            findings.add("personality", "a compact-unwind entry has one without a name")
        if record.personality < 0:
            continue
        symbol = o.symbols[record.personality]
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


def check_marker(o: Object, claim: Claim, findings: Findings) -> None:
    if not claim.marker:
        return
    found = [s for s in o.sections if (s.segment, s.name) == MARKER]
    if len(found) != 1 or bytes(o.contents(found[0])) != claim.marker:
        findings.add("marker", "is missing or another one")
    elif found[0].loaded:
        findings.add("marker", "would become a part of programs")


def check_versions(o: Object, members: Mapping[int, Object], findings: Findings) -> None:
    """The platform is that of the members, the lowest version their highest."""
    wanted: dict[int, int] = {}
    for member in members.values():
        for platform, minimum in member.versions:
            wanted[platform] = max(minimum, wanted.get(platform, 0))
    found = dict(o.versions)
    if found.keys() != wanted.keys() or any(found[p] < wanted[p] for p in wanted):
        findings.add("platform", f"{sorted(found.items())} instead of {sorted(wanted.items())}")
