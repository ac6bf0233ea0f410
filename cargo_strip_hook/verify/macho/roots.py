"""What lives though nothing refers to it: all of it is in the result, initialisers in their order.

Sources: mach-o/loader.h and mach-o/nlist.h; objc4, `objc-file.mm` (the lists that it walks over).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.objc import always_listed
from cargo_strip_hook.verify.macho.order import Choice
from cargo_strip_hook.verify.macho.read import Object
from cargo_strip_hook.verify.macho.sections import INITIALISERS

_KEPT, _DYNAMIC, _KEPT_SECTION = 0x20, 0x10, 0x10000000
_PROFILE_HOOK = b"___llvm_profile_runtime_user"
_OTHERS = bytes(n for n in range(256) if n not in INITIALISERS)
_MAGIC = b"\xcf\xfa\xed\xfe"


def living(before: Object, where: Locations) -> tuple[Array, Array]:
    """(bool for each piece: whether no linker drops its section; the symbols that none drops)."""
    table, e = before.table, before.entries
    kind = table["flags"] & 0xFF
    root = is_among(kind, INITIALISERS) | (kind == 0xD) | (table["flags"] & _KEPT_SECTION != 0)
    root |= always_listed(before)
    mine = before.placed & (e["desc"] & (_KEPT | _DYNAMIC) != 0)
    if _PROFILE_HOOK in before.text:
        numbers = np.flatnonzero(before.placed)
        names = np.array([name == _PROFILE_HOOK for name in before.names(numbers)], np.bool_)
        mine[numbers[names]] = True
    return root[where.section - 1], np.flatnonzero(mine)


def check_roots(
    before: Object, where: Locations, titles: Sequence[str], findings: Findings
) -> None:
    """Of each member that is used, all that no linker drops is in the result."""
    table = before.table
    placed = np.bincount(where.section, where.size, len(table) + 1)[1:].astype(np.int64)
    kind = table["flags"] & 0xFF
    root = is_among(kind, INITIALISERS) | (kind == 0xD) | (table["flags"] & _KEPT_SECTION != 0)
    root |= always_listed(before)
    root &= table["loaded"] & (table["name"] != b"__compact_unwind")
    root &= table["name"] != b"__eh_frame"
    for row in np.flatnonzero(root & (placed < table["size"])).tolist():
        name = shown(bytes(table["name"][row]))
        text = f"{name} of {titles[int(table['file'][row])]} is not all there"
        first = bool(is_among(kind[[row]], INITIALISERS)[0])
        findings.add("an initialiser is missing" if first else "what must live is missing", text)
    e = before.entries
    marked = np.flatnonzero(before.placed & (e["desc"] & _KEPT != 0))
    marked = marked[table["loaded"][np.maximum(e["section"][marked], 1) - 1]]
    at = where.of_symbols(marked)
    for lost in before.names(marked[at < 0]):
        findings.add("what must live is missing", shown(lost))


def check_order(
    before: Object, after: Object, where: Locations, choice: Choice, findings: Findings
) -> None:
    """Initialisers run in the order in which a linker loads their members."""
    mine = np.flatnonzero(is_among(after.table["flags"][where.home - 1] & 0xFF, INITIALISERS))
    if len(mine) < 2:
        return
    file = before.table["file"][where.section[mine] - 1].astype(np.int64)
    if len(unique(file)) > 1:
        rank = choice.loading.rank
        file = np.array([rank.get(choice.used[f], -1) for f in file.tolist()], np.int64)
    order = np.lexsort((where.address[mine], where.home[mine]))
    home = where.home[mine][order]
    keys = [c[order] for c in (file, where.section[mine], where.start[mine])]
    same = home[1:] == home[:-1]
    back = np.zeros(len(same), np.bool_)
    tied = same.copy()
    for key in keys:
        back |= tied & (key[1:] < key[:-1])
        tied &= key[1:] == key[:-1]
    for at in where.address[mine][order][1:][back].tolist():
        findings.add("out of order", f"the initialiser at {at:#x}")


def check_other_members(
    original: Archive, used: Sequence[int], choice: Choice, findings: Findings
) -> None:
    """No member that a linker loads, and that has initialisers, is left out altogether."""
    for member in original.members:
        if member.index in used:
            continue
        data = original.data(member)
        if bytes(data[:4]) == _MAGIC and _initialises(data) and member.index in choice.loading.rank:
            findings.add("an initialiser is missing", f"all of {member.name}")


def _initialises(data: memoryview) -> bool:
    """Whether an object has initialisers, by the types in its section headers alone."""
    head = bytes(data[: 32 + int.from_bytes(data[20:24], "little")])
    at = 32
    while at + 72 <= len(head):
        command, length = struct.unpack_from("<2I", head, at)
        if command == 0x19:
            types = head[at + 72 + 64 : at + length : 80]
            return bool(types.translate(None, _OTHERS))
        at += max(length, 8)
    return False
