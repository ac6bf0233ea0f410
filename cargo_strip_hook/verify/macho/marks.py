"""What n_desc says of definitions, external or not: resolvers, and what linkers have to keep.

Source: mach-o/nlist.h.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, Object

RESOLVER, _NO_DEAD_STRIP = 0x0100, 0x0020
_KEPT_SECTION = 0x10000000  # S_ATTR_NO_DEAD_STRIP
_INITIALISERS = np.array([0x9, 0xA, 0x15, 0x16], np.uint32)  # which no linker drops


def check_marks(before: Object, after: Object, where: Locations, findings: Findings) -> Array:
    """Resolvers are resolvers, and what is never dropped still is not; the resolvers' addresses."""
    wanted = _addresses(before, where, RESOLVER)
    found = unique(after.entries["value"][_marked(after, RESOLVER)])
    for at in wanted[~is_among(wanted, found)].tolist():
        findings.add("structure", f"the function at {at:#x} is a resolver no more")
    for at in found[~is_among(found, wanted)].tolist():
        findings.add("structure", f"the function at {at:#x} was no resolver")
    _check_kept(after, _addresses(before, where, _NO_DEAD_STRIP), findings)
    return wanted


def _marked(o: Object, bit: int) -> Array:
    return np.flatnonzero(o.placed & (o.entries["desc"] & bit != 0))


def _addresses(before: Object, where: Locations, bit: int) -> Array:
    """Where the definitions with a mark went."""
    at = where.of_symbols(_marked(before, bit))
    return unique(at[at >= 0])


def _check_kept(after: Object, addresses: Array, findings: Findings) -> None:
    """The subsection at each address is one that no linker drops."""
    entries = after.entries
    starts = np.flatnonzero(after.placed & (entries["desc"] & ALT_ENTRY == 0))
    starts = starts[np.argsort(entries["value"][starts], kind="stable")]
    values = entries["value"][starts]
    marked = unique(entries["value"][_marked(after, _NO_DEAD_STRIP)])
    section = after.sections_at(addresses)
    flags = after.table["flags"][np.maximum(section, 1) - 1]
    kept = (flags & _KEPT_SECTION != 0) | is_among(flags & 0xFF, _INITIALISERS)
    begin = np.searchsorted(values, addresses, side="right") - 1
    held = (begin >= 0) & is_among(values[np.maximum(begin, 0)], marked) if len(values) else kept
    for at in addresses[~kept & ~held & (section > 0)].tolist():
        findings.add("structure", f"what is at {at:#x} could be dropped, but must never be")


def check_bound(
    wanted: Array,
    target: Array,
    location: Array,
    symbol: Array,
    after: Object,
    findings: Findings,
) -> None:
    """References to `wanted` resolvers are by a symbol that is one.

    Of each reference: `target`, the address that it is to; `location`, where it is; and `symbol`,
    the number of its symbol in the result, -1 where it was settled or is by address.
    """
    mine = is_among(target, wanted)
    marked = np.append(after.entries["desc"] & RESOLVER != 0, False)
    for at in location[mine & ~marked[symbol]].tolist():
        findings.add("relocation", f"at {at:#x} is to a resolver, and not to what it returns")
