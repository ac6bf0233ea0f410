"""What a section is for, as its name and characteristics tell.

Sources: Microsoft, "PE Format", "Special Sections" and "Grouped Sections"; GNU ld's scripts for
PE (`pep.sc`); LLVM's lld, `COFF/MarkLive.cpp` (what is no COMDAT lives); GCC,
`i386_pe_unique_section` (how it names the section of one function or variable).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from cargo_strip_hook.formats.coff import layouts as coff

PDATA, XDATA = b".pdata", b".xdata"
EH_FRAME = b".eh_frame"
TLS = b".tls"
# What follows the dollar says where such a part stands.
_GROUPED = (b".text", b".rdata", b".data", b".bss")
# Their parts may stand in any order, and need a reference to live.
_PLAIN = (*_GROUPED, XDATA, PDATA, EH_FRAME, b".gcc_except_table", b".rodata")
# Compilers' own parts of code: how often it runs.
_HOW_OFTEN = re.compile(rb"(?:unlikely|hot|unknown|startup|exit)(?:[$.]|$)")
_DECORATED = re.compile(rb"@[0-9]+$")  # i686: the size of the parameters
_DROPPED = frozenset(
    (b".llvm_addrsig", b".llvmbc", b".llvmcmd", b".llvm.call-graph-profile", b".drectve")
)
# They hold numbers of symbols, four bytes each.
GUARDED_FUNCTIONS = b".gfids$y"
SYMBOL_TABLES = (b".sxdata", GUARDED_FUNCTIONS, b".giats$y", b".gljmp$y", b".gehcont$y")
_INITIALISERS = (b".CRT$", b".ctors", b".dtors", b".rtc$")

_RESERVED = (b".idata$", b".didat$", b".rsrc$", b".edata", b".tls$", b".00cfg")


class Shape(IntEnum):
    """How a linker takes a section: `ALONE` is one of GCC's own for each function or variable,
    which is no COMDAT, either, but may go where nothing refers to it.
    """

    WHOLE = 0
    ALONE = 1
    COMDAT = 2
    ASSOCIATIVE = 3


@dataclass(frozen=True, slots=True)
class SectionKind:
    """Name and characteristics (without `coff.SCN_OF_FILE`) of an output section.

    `root`: lives whenever the object is loaded, and so is no COMDAT. `selection`: of an exported
    leader whose other definitions may take its place; 0 for sections of our own. `parent`: output
    section that a table of unwind entries belongs to, -1 for none.
    """

    name: bytes
    flags: int
    root: bool = False
    selection: int = 0
    parent: int = -1


def is_dropped(name: bytes, flags: int) -> bool:
    """Whether a section says nothing that the new object could use, as it stands."""
    return name in _DROPPED or flags & (coff.SCN_LNK_REMOVE | coff.SCN_LNK_INFO) != 0


def is_debug(name: bytes) -> bool:
    return name.startswith((b".debug$", b".debug_", b".zdebug_", b".stab"))


def kind_of(name: bytes, flags: int, shape: Shape) -> SectionKind:
    """The kind of an input section.

    The part of a group keeps its name, and lives unless it is a COMDAT, or of GCC's own shape.
    """
    flags &= ~coff.SCN_OF_FILE
    whole = shape is Shape.WHOLE
    base, dollar, order = name.partition(b"$")
    if base in _GROUPED and order:
        if shape is Shape.ALONE or (not whole and _HOW_OFTEN.match(order)):
            return SectionKind(base, flags)
        return SectionKind(name, flags, root=whole)
    for base in _PLAIN:
        if name == base or name.startswith((base + b"$", base + b".")):
            return SectionKind(base, flags)
    if name == TLS or name.startswith(TLS + b"$"):
        return SectionKind(name, flags, root=whole and order != b"" and dollar != b"")
    return SectionKind(name, flags, root=shape is not Shape.ASSOCIATIVE)


def may_be_alone(name: bytes) -> bool:
    """Whether a section's name is like those that GCC gives to one function or variable."""
    base, _, order = name.partition(b"$")
    return base in _GROUPED and order != b""


def is_alone(name: bytes, symbols: set[bytes]) -> bool:
    """Whether a section called `name` holds what is called so, and nothing else: its `symbols`.

    Functions that how often they run is told of have that before their name.
    """
    order = name.partition(b"$")[2]
    order = order[match.end() :] if (match := _HOW_OFTEN.match(order)) else order
    wanted = _DECORATED.sub(b"", order)
    plain = {_DECORATED.sub(b"", symbol) for symbol in symbols}
    return bool(plain & {wanted, b"_" + wanted, b"@" + wanted, wanted + b".cold"})


def is_grouped(name: bytes) -> bool:
    """Whether it is a part of a group whose ends are not in the C runtime or made by the linker."""
    return b"$" in name[1:] and not name.startswith((*_INITIALISERS, *_RESERVED))


def is_own_set(name: bytes) -> bool:
    """Whether it is a part of a group that is none of the usual sections: a set of somebody's."""
    return is_grouped(name) and name.partition(b"$")[0] not in _GROUPED


def is_exactly_plain(name: bytes) -> bool:
    """Whether it is one of the sections that all that has no section of its own is in."""
    return name in _GROUPED


def is_initialiser(name: bytes) -> bool:
    return name.startswith(_INITIALISERS)
