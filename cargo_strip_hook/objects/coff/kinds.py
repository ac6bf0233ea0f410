"""What a section is for, as its name and characteristics tell.

Sources: Microsoft, "PE Format", "Special Sections" and "Grouped Sections"; GNU ld's scripts for
PE (`pep.sc`); LLVM's lld, `COFF/MarkLive.cpp` (what is no COMDAT lives).
"""

from __future__ import annotations

from dataclasses import dataclass

from cargo_strip_hook.objects.coff import layouts as coff

# Their parts may stand in any order, and need a reference to live.
_PLAIN = (b".text", b".rdata", b".data", b".bss", b".xdata", b".gcc_except_table", b".rodata")
PDATA, XDATA = b".pdata", b".xdata"
EH_FRAME = b".eh_frame"
TLS = b".tls"
_DROPPED = frozenset(
    (b".llvm_addrsig", b".llvmbc", b".llvmcmd", b".llvm.call-graph-profile", b".drectve")
)
# They hold numbers of symbols, four bytes each.
SYMBOL_TABLES = (b".sxdata", b".gfids$y", b".giats$y", b".gljmp$y", b".gehcont$y")
_INITIALISERS = (b".CRT$", b".ctors", b".dtors", b".rtc$")
# Groups whose ends are in the C runtime or made by the linker.
_RESERVED = (*_INITIALISERS, b".idata$", b".didat$", b".rsrc$", b".edata", b".tls$", b".00cfg")


@dataclass(frozen=True, slots=True)
class SectionKind:
    """Name and characteristics (without `coff.SCN_OF_FILE`) of an output section.

    `root`: lives whenever the object is loaded, and so is no COMDAT. `order`: the part of a
    joined group's name that its pieces are sorted by. `selection`: of an exported leader whose
    other definitions may take its place; 0 for sections of our own. `parent`: output section
    that a table of unwind entries belongs to, -1 for none.
    """

    name: bytes
    flags: int
    root: bool = False
    order: bytes = b""
    selection: int = 0
    parent: int = -1


def is_dropped(name: bytes, flags: int) -> bool:
    """Whether a section says nothing that the new object could use, as it stands."""
    return name in _DROPPED or flags & (coff.SCN_LNK_REMOVE | coff.SCN_LNK_INFO) != 0


def is_debug(name: bytes) -> bool:
    return name.startswith((b".debug$", b".debug_", b".zdebug_", b".stab"))


def kind_of(name: bytes, flags: int, associative: bool) -> SectionKind:
    """The kind of an input section."""
    flags &= ~coff.SCN_OF_FILE
    comdat_less = not associative
    for base in (*_PLAIN, PDATA, EH_FRAME):
        if name == base or name.startswith((base + b"$", base + b".")):
            return SectionKind(base, flags)
    if name == TLS or name.startswith(TLS + b"$"):
        return SectionKind(name, flags)
    return SectionKind(name, flags, root=comdat_less)


def is_initialiser(name: bytes) -> bool:
    return name.startswith(_INITIALISERS)


def group_of(name: bytes) -> tuple[bytes, bytes] | None:
    """(base, order) of a section that is one of a group with ends of its own."""
    if name.startswith(_RESERVED) or b"$" not in name[1:]:
        return None
    base, _, order = name.partition(b"$")
    return base, order
