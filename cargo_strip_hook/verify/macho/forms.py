"""The forms of relocations: which of its fields go together, and which bits of a field they set.

Sources: mach-o/reloc.h and the processors' reloc.h; ld64's `macho_relocatable_file.cpp` for the
widths that each type of relocation has.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import gather, spread
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown
from cargo_strip_hook.verify.macho.read import ARM64, ENTRY, SUBTRACTOR, X86_64, Object

# (type, pc-relative, exponent of the width in bytes) of the relocations that there are
_FORMS = {
    ARM64: {
        *((kind, 0, width) for kind in (0, 1) for width in (2, 3)),
        *((kind, 1, 2) for kind in (2, 3, 5, 7, 8)),
        *((kind, 0, 2) for kind in (4, 6, 9, 10)),
        (7, 0, 3),
        (11, 0, 3),
    },
    X86_64: {
        *((kind, 0, width) for kind in (0, 5) for width in (2, 3)),
        *((kind, 1, 2) for kind in (1, 2, 3, 4, 6, 7, 8, 9)),
        (2, 1, 0),
    },
}


def odd_forms(o: Object) -> list[tuple[int, int]]:
    """(section, offset) of the relocations of a type and width that there is not."""
    t = o.table
    all_of = np.flatnonzero(t["count"] > 0) + 1
    first, count = (t[name][all_of - 1] for name in ("relocations", "count"))
    raw = gather(o.octets, spread(first, count, 8), ENTRY)
    info, home = raw["info"].astype(np.int64), np.repeat(all_of, count)
    form = (info >> 28) << 3 | (info >> 24 & 1) << 2 | info >> 25 & 3
    known = np.zeros(128, np.bool_)
    known[[kind << 3 | relative << 2 | width for kind, relative, width in _FORMS[o.cpu]]] = True
    bad = ~known[form]
    # the first of a pair has the width of the second
    first = info >> 28 == SUBTRACTOR[o.cpu]
    first[-1:] = False
    pair = np.flatnonzero(first)
    bad[pair] |= (info[pair] ^ info[pair + 1]) >> 24 & 7 != 0
    odd = np.flatnonzero(bad)
    return list(zip(home[odd].tolist(), raw["address"][odd].tolist(), strict=True))


def check_sections_named(o: Object, findings: Findings) -> None:
    """A relocation by address names the section that the address is in. Debug information aside."""
    t = o.table
    numbers = np.flatnonzero((t["count"] > 0) & t["loaded"]) + 1
    first, count = (t[name][numbers - 1] for name in ("relocations", "count"))
    raw = gather(o.octets, spread(first, count, 8), ENTRY)
    info, home = raw["info"].astype(np.int64), np.repeat(numbers, count)
    kind = info >> 28
    before = np.append(False, kind[:-1] == SUBTRACTOR[o.cpu])[: len(kind)]
    # an address of 8 bytes; no other relocation of ours is by one
    mine = np.flatnonzero((info >> 27 & 1 == 0) & (kind != 10) & ~before)
    number, width = info[mine] & 0xFFFFFF, np.int64(1) << (info[mine] >> 25 & 3)
    offset = raw["address"][mine].astype(np.int64)
    value = o.stored(t["offset"][home[mine] - 1] + offset, width)
    inside = o.sections_at(value)
    row = np.minimum(np.maximum(number, 1), len(t)) - 1
    at_end = (inside == 0) & (value == t["address"][row] + t["size"][row])
    for n in np.flatnonzero((kind[mine] != 0) | ((inside != number) & ~at_end)).tolist():
        name = shown(bytes(t["name"][home[mine[n]] - 1]))
        findings.add("a relocation names another section", f"at {name}+{int(offset[n]):#x}")
