"""Which of several definitions of a name counts, where that is for the order of loading to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.elf.mapping import Pair, Resolution
from cargo_strip_hook.verify.elf.read import (
    IN_COMMON,
    SHF_GROUP,
    STB_GLOBAL,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_GNU_IFUNC,
    Objects,
)
from cargo_strip_hook.verify.loading import Member, Strength


def contents(
    original: Archive, read: Callable[[Archive, Sequence[int]], Objects]
) -> dict[int, Member]:
    """What each member defines and needs. A bundled C library's are not for loading."""
    numbers = [
        m.index
        for m in original.members
        if bytes(original.data(m)[:4]) == b"\x7fELF" and not m.name.endswith(".lo")
    ]
    objects = read(original, numbers)
    s = objects.symbols
    strength = np.full(len(s), Strength.DATA)
    strength[np.isin(s["kind"], (STT_FUNC, STT_GNU_IFUNC))] = Strength.STRONG
    strength[s["binding"] != STB_GLOBAL] = Strength.WEAK
    strength[s["section"] == IN_COMMON] = Strength.COMMON
    strength[s["undefined"]] = Strength.WANTED
    found: dict[int, Member] = {}
    base = objects.symbol_base.tolist()
    for n, number in enumerate(numbers):
        mine = np.arange(base[n], base[n + 1])[1:]
        mine = mine[s["binding"][mine] != STB_LOCAL]
        needed = s["undefined"][mine] & (s["binding"][mine] != STB_WEAK)
        defined = mine[~s["undefined"][mine]]
        names = objects.strings(s["name"][defined])
        found[number] = Member(
            dict(zip(names, map(Strength, strength[defined].tolist()), strict=True)),
            objects.strings(s["name"][mine[needed]]),
        )
    return found


def check_winners(pair: Pair, resolution: Resolution, referenced: Array) -> None:
    """Where several members define a name, the result has the definition that a linker takes.

    `referenced`: bool for each symbol of the original, whether anything in the result refers to it.
    """
    names = pair.loading.repeated & resolution.definitions.keys() if pair.complete else frozenset()
    if not names:
        return
    s = pair.before.symbols
    used = set(pair.before.names[np.flatnonzero(referenced & (s["binding"] != STB_LOCAL))].tolist())
    used |= {name.encode("utf-8", "surrogateescape") for name in pair.expectation.exports}
    for name in sorted(names & used):
        found = resolution.definitions[name]
        section = s["section"][found]
        # copies of a COMDAT group are as good as one another
        grouped = pair.before.sections["flags"][np.maximum(section, 0)] & SHF_GROUP != 0
        if (grouped & (section > 0)).all():
            continue
        if not pair.loading.takes(name, {pair.numbers[i] for i in s["object"][found]}):
            text = name.decode("utf-8", "replace")
            pair.findings.add("a linker takes another definition", f"of `{text}`")
