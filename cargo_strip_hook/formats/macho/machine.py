"""What a processor's relocations hold, and where. Tables by relocation type of the model.

Sources: mach-o/x86_64/reloc.h, mach-o/arm64/reloc.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Array

# by r_length
_PLAIN = {0: Field.BITS8, 1: Field.BITS16, 2: Field.BITS32, 3: Field.BITS64}


@dataclass(frozen=True, slots=True)
class Machine:
    """One processor.

    `subtractor`: the r_type of the first entry of a pair. `distance`: how types store the distance
    to their target, which is counted from `trailing` bytes behind the field's start. `embedded`:
    how types have their addend in the field; where it is `explicit`, an ADDEND entry has it.
    """

    subtractor: int
    distance: Array  # uint8 of `Field`
    trailing: int
    embedded: Array  # uint8 of `Field`
    explicit: Array  # bool


def _by_type(types: Iterable[int], fields: Mapping[int, Field]) -> Array:
    """uint8 by type of the model: of these r_types the field for each r_length."""
    table = np.zeros(mo.PC_RELATIVE_4 + 1, np.uint8)
    for native in types:
        for length, field in fields.items():
            table[[native | length << 5, native | 1 << 4 | length << 5]] = field
    return table


_X86_64_ADDING = sorted({*range(10)} - {mo.X86_64_SUBTRACTOR})
_ARM64_EXPLICIT = sorted({*range(11)} - {mo.UNSIGNED, mo.ARM64_SUBTRACTOR})
MACHINES = {
    mo.CPU_TYPE_X86_64: Machine(
        mo.X86_64_SUBTRACTOR,
        _by_type((mo.X86_64_SIGNED, mo.X86_64_BRANCH, *mo.X86_64_TRAILING), {2: Field.BITS32}),
        4,
        _by_type(_X86_64_ADDING, _PLAIN),
        _by_type((), {}) != 0,
    ),
    mo.CPU_TYPE_ARM64: Machine(
        mo.ARM64_SUBTRACTOR,
        _by_type((mo.ARM64_BRANCH26,), dict.fromkeys(range(4), Field.A64_BRANCH26)),
        0,
        _by_type((mo.UNSIGNED,), _PLAIN),
        _by_type(_ARM64_EXPLICIT, _PLAIN) != 0,
    ),
}
