"""What is wrong with a Mach-O object by itself: asked for where a result is not what it should be.

Sources: mach-o/loader.h, mach-o/nlist.h, mach-o/reloc.h.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.expectation import Damage
from cargo_strip_hook.verify.macho.forms import odd_forms
from cargo_strip_hook.verify.macho.read import Damaged, Object, read
from cargo_strip_hook.verify.macho.unwind import records

_MAGIC = b"\xcf\xfa\xed\xfe"
_FEW = 4


def damages(original: Archive, used: Collection[int] | None) -> Iterator[Damage]:
    """What is wrong with the members `used`; with all objects where that is None."""
    for member in original.members:
        data = original.data(member)
        if member.index in used if used is not None else bytes(data[:4]) == _MAGIC:
            try:
                for what in _of_object(read(data)):
                    yield Damage(member.name, what)
            except (Damaged, IndexError, ValueError) as e:
                yield Damage(member.name, str(e))


def _of_object(o: Object) -> Iterator[str]:
    yield from _sections(o)
    yield from _symbols(o)
    yield from _relocations(o)
    yield from _unwinding(o)


def _name(raw: bytes) -> str:
    return "`" + raw.decode("utf-8", "surrogateescape") + "`"


def _section(o: Object, number: int) -> str:
    row = o.table[number - 1]
    return (bytes(row["segment"]) + b"," + bytes(row["name"])).decode("utf-8", "surrogateescape")


def _sections(o: Object) -> Iterator[str]:
    t = o.table
    number = np.flatnonzero(t["size"] > 0) + 1
    number = number[np.argsort(t["address"][number - 1], kind="stable")]
    end = (t["address"] + t["size"])[number - 1]
    for i in np.flatnonzero(end[:-1] > t["address"][number[1:] - 1])[:_FEW].tolist():
        both = f"{_section(o, int(number[i]))} and {_section(o, int(number[i + 1]))}"
        yield f"the sections {both} have the same addresses"


def _symbols(o: Object) -> Iterator[str]:
    e = o.entries
    if o.groups is not None and any(sum(o.groups[i : i + 2]) > len(e) for i in (0, 2, 4)):
        yield "LC_DYSYMTAB names symbols that are not there"
    number = np.flatnonzero(o.placed)
    lost = number[e["section"][number] == 0]
    for i in lost[:_FEW].tolist():
        yield f"the symbol {_name(o.symbols[i].name)} is in a section that is not there"
    number = number[e["section"][number] > 0]
    home = e["section"][number] - 1
    offset = e["value"][number] - o.table["address"][home]
    for i in number[(offset < 0) | (offset > o.table["size"][home])][:_FEW].tolist():
        yield f"the symbol {_name(o.symbols[i].name)} lies outside of its section"
    plain = e["type"] & 0xE0 == 0
    kind = e["type"] & 0xE
    odd = plain & ~np.isin(kind, (0x0, 0x2, 0xA, 0xE))
    odd |= plain & (kind == 0) & (e["type"] & 1 == 0)
    for i in np.flatnonzero(odd)[:_FEW].tolist():
        yield f"the symbol {_name(o.symbols[i].name)} has the type {int(e['type'][i]):#x}"


def _relocations(o: Object) -> Iterator[str]:
    t = o.table
    for home, offset in odd_forms(o)[:_FEW]:
        where = f"{_section(o, home)}+{offset:#x}"
        yield f"the relocation at {where} is of a type and width that there is not"
    all_of = np.flatnonzero(t["count"] > 0) + 1
    rows = o.relocations(all_of)  # raises Damaged
    order = np.lexsort((rows["offset"], rows["section"]))
    first, second = order[:-1], order[1:]
    same = rows["section"][first] == rows["section"][second]
    over = (rows["offset"] + rows["width"])[first] > rows["offset"][second]
    for i in second[same & over][:_FEW].tolist():
        yield f"two relocations overlap at {_at(o, rows[i])}"
    by_address = np.flatnonzero((rows["symbol"] < 0) & t["loaded"][rows["section"] - 1])
    nowhere = by_address[o.sections_at(rows["addend"][by_address]) == 0]
    ends = (t["address"] + t["size"])[t["loaded"]]
    nowhere = nowhere[~np.isin(rows["addend"][nowhere], ends)]
    for i in nowhere[:_FEW].tolist():
        yield f"the relocation at {_at(o, rows[i])} names an address that is in no section"


def _at(o: Object, row: np.void) -> str:
    return f"{_section(o, int(row['section']))}+{int(row['offset']):#x}"


def _unwinding(o: Object) -> Iterator[str]:
    found = records(o)  # raises Damaged
    rows = found.rows[found.rows["function"] >= 0]
    home = o.sections_at(rows["function"])
    for i in np.flatnonzero(home == 0)[:_FEW].tolist():
        yield f"an unwind record is for {int(rows['function'][i]):#x}, where no function is"
    inside = np.flatnonzero(home > 0)
    section = o.table[home[inside] - 1]
    room = section["address"] + section["size"] - rows["function"][inside]
    for i in inside[rows["size"][inside] > room.astype(np.uint64)][:_FEW].tolist():
        yield f"the unwind record of {int(rows['function'][i]):#x} reaches over its section's end"
