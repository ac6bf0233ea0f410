"""Symbols that point into none of the bytes of their section.

Linkers keep the distance; in a joined section something else is there.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.elf.machine import Machine
from cargo_strip_hook.link.model import Int64, Program
from cargo_strip_hook.link.symbols import symbol_name


def refuse_beyond(program: Program, machine: Machine, symbols: Int64) -> None:
    """Raise `ObjectError` for the first of these symbols of the program that is such a one."""
    rows = program.symbols[symbols]
    inside = rows["atom"] >= 0
    value = rows["value"] & ~np.int64(machine.thumb)
    beyond = inside & (value > program.atoms["size"][np.where(inside, rows["atom"], 0)])
    if not beyond.any():
        return
    symbol = int(symbols[beyond.argmax()])
    unit = program.units[int(np.searchsorted(program.symbol_base, symbol, side="right")) - 1]
    name = symbol_name(program, symbol)
    raise ObjectError(
        f"the symbol `{name.decode(errors='replace')}` lies beyond the end of its section: what "
        "it points to depends on what a linker puts there",
        member=unit.name,
        help="define it in the section that it is meant to point into",
    )


__all__ = ["refuse_beyond"]
