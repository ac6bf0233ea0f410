"""What the bytes of a COFF object are for, section by section.

Source: Microsoft, "PE Format", "Section Flags", "Special Sections" and "COFF Relocations".
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.reader import CoffUnit, coff_unit
from cargo_strip_hook.link.model import SIZE, Array, Contents, Unit

_UNWIND = (kinds.PDATA, b".xdata", kinds.EH_FRAME, b".gcc_except_table")
_BITCODE = (b".llvmbc", b".llvmcmd")
_DIRECTIVES = b".drectve"


def sizes(unit: Unit) -> Array:
    """SIZE of each section, then of relocations, and of symbols with their names."""
    native = coff_unit(unit)
    sections = native.sections
    count = len(sections)
    rows = np.zeros(count + 2, SIZE)
    flags = sections["flags"]
    kind = rows["kind"][:count]
    kind[:] = Contents.CONSTANTS
    kind[flags & coff.SCN_MEM_WRITE != 0] = Contents.DATA
    kind[flags & (coff.SCN_CNT_CODE | coff.SCN_MEM_EXECUTE) != 0] = Contents.CODE
    empty = flags & coff.SCN_CNT_UNINITIALIZED_DATA != 0
    kind[empty] = Contents.ZEROS
    gone = flags & (coff.SCN_LNK_REMOVE | coff.SCN_LNK_INFO) != 0
    kind[gone] = Contents.OTHER
    debug = {n for n, name in enumerate(native.names) if kinds.is_debug(name)}
    for n, name in enumerate(native.names):
        if n in debug:
            kind[n] = Contents.DEBUG
        elif name.startswith(_UNWIND):
            kind[n] = Contents.UNWIND
        elif name in _BITCODE:
            kind[n] = Contents.BITCODE
        elif name == _DIRECTIVES:  # GCC does not mark them as the linker's
            kind[n] = Contents.OTHER
    loaded = kind <= Contents.UNWIND
    rows["size"][:count][loaded] = sections["size"][loaded]
    rows["stored"][:count][~empty] = sections["size"][~empty]
    rows["kind"][count:] = Contents.RELOCATIONS, Contents.SYMBOLS
    rows["stored"][count] = _relocations(native, unit.data)
    rows["stored"][count + 1] = _symbols(unit)
    return rows


def _relocations(native: CoffUnit, data: memoryview) -> int:
    counts = native.sections["relocation_count"].astype(np.int64)
    # more than fit into the field: the first record has their number, itself included
    for n in np.flatnonzero(native.sections["flags"] & coff.SCN_LNK_NRELOC_OVFL).tolist():
        offset = int(native.sections["relocations"][n])
        if counts[n] == 0xFFFF:
            counts[n] = int.from_bytes(data[offset : offset + 4], "little")
    return coff.RELOCATION.itemsize * int(counts.sum())


def _symbols(unit: Unit) -> int:
    """The symbol table and the string table behind it."""
    data = unit.data
    big = bytes(data[:4]) == b"\0\0\xff\xff"
    head, record = (48, 20) if big else (8, 18)
    table = int.from_bytes(data[head : head + 4], "little")
    strings = table + record * len(coff_unit(unit).numbers)
    if not table:
        return 0
    return strings - table + int.from_bytes(data[strings : strings + 4], "little")
