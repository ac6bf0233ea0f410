"""Symbols for which linkers would take different definitions from a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.target import Linker, Target
from cargo_strip_hook.formats.members import entries_of, load
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.batch import read_all
from cargo_strip_hook.link.entries import names_for
from cargo_strip_hook.link.model import Binding, Format, Input, Program, SpecialIndex, Unit
from cargo_strip_hook.link.resolve import resolve

# The linkers of each format by their usual names; the choice of the first one counts.
_LINKERS: dict[Linker, dict[str, Linker]] = {
    "gnu": {"GNU ld": "gnu", "gold": "gold", "lld": "lld"},
    "lld": {"lld": "lld", "GNU ld": "gnu", "gold": "gold"},
    "gnu-pe": {"GNU ld": "gnu-pe", "lld": "lld-link"},
    "lld-link": {"lld-link": "lld-link"},
    "ld64.lld": {"ld64.lld": "ld64.lld", "ld64": "ld64"},
}
_MOLD = "mold"


def differences(
    archive: Archive, target: Target, exports: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Symbols of which linkers take different definitions: the member of each, "" for none.

    Only those that the exports need. Copies of a COMDAT group count as one definition. Empty for a
    library that does not link. Raises `ObjectError` and `ArchiveError` for damaged ones.
    """
    index = entries_of(archive, target)
    if not exports or (index is not None and len(set(index.names)) == len(index.names)):
        return {}
    loaded = load(archive, target)
    members, format = loaded.members, loaded.format
    roots = [n.encode("utf-8", "surrogateescape") for n in exports]
    entries = names_for(members, index, roots, format).entries
    defined = list(entries.names)
    seen: set[bytes] = set()
    repeated = {n for n in defined if n in seen or seen.add(n)}  # type: ignore[func-returns-value]
    chosen: dict[str, dict[bytes, str]] = {}
    try:
        for called, linker in _LINKERS[target.linker].items():
            program = resolve(members, entries, roots, format, linker)
            if not chosen:
                repeated &= _needed(program) | set(roots)
            chosen[called] = _winners(program, repeated)
    except LinkError:
        return {}
    if target.object_format == "elf":
        chosen[_MOLD] = _by_rank(members, format, roots, repeated)
    differing: dict[str, dict[str, str]] = {}
    for name in sorted(repeated):
        takes = {called: of.get(name, "") for called, of in chosen.items()}
        if len(set(takes.values())) > 1:
            differing[name.decode(errors="replace")] = takes
    return differing


def _needed(program: Program) -> set[bytes]:
    """The names whose definitions something refers to, without those in COMDAT groups."""
    used = np.zeros(len(program.symbols), np.bool_)
    used[unique(program.definition[program.relocations["symbol"]])] = True
    copies = np.zeros(len(program.atoms), np.bool_)
    for base, unit in zip(program.atom_base.tolist(), program.units, strict=False):
        for group in unit.groups:
            if group.comdat:
                copies[[base + a for a in group.atoms]] = True
    atom = program.symbols["atom"]
    used &= ~((atom >= 0) & copies[np.maximum(atom, 0)])
    return {name for name, row in program.globals.items() if used[row]}


def _winners(program: Program, names: set[bytes]) -> dict[bytes, str]:
    """The member of each name's prevailing definition; commons together have none."""
    winners = {}
    for name in names & program.globals.keys():
        row = program.globals[name]
        if program.symbols["atom"][row] != SpecialIndex.UNDEFINED:
            unit = int(np.searchsorted(program.symbol_base, row, side="right")) - 1
            winners[name] = program.units[unit].name or _COMMON
    return winners


_COMMON = "all (common)"


def _by_rank(
    members: Mapping[int, Input], format: Format, roots: Sequence[bytes], names: set[bytes]
) -> dict[bytes, str]:
    """mold: strong definitions come before weak ones, whatever is loaded, then the first member.

    Source: mold's `input-files.cc` (`get_rank`, `mark_live_objects`).
    """
    units = list(read_all(format, [members[n] for n in sorted(members)]))
    ranked = [list(zip(unit.names, _ranks(unit), strict=True)) for unit in units]
    best: dict[bytes, tuple[int, int]] = {}
    for n, symbols in enumerate(ranked):
        for name, rank in symbols:
            if rank < _WEAK_REFERENCE:
                best[name] = min(best.get(name, (rank, n)), (rank, n))
    live: set[int] = set()
    todo = [best[name][1] for name in roots if name in best]
    while todo:
        n = todo.pop()
        if n in live:
            continue
        live.add(n)
        for name, rank in ranked[n]:
            known = best.get(name)
            if known and (rank == _REFERENCE or (rank == _COMMON_RANK and known[0] < rank)):
                todo.append(known[1])
    final: dict[bytes, tuple[int, int]] = {}
    for n in sorted(live):
        for name, rank in ranked[n]:
            if rank < _WEAK_REFERENCE and name in names:
                final[name] = min(final.get(name, (rank, n)), (rank, n))
    return {
        name: _COMMON if rank == _COMMON_RANK else units[n].name
        for name, (rank, n) in final.items()
    }


_STRONG_RANK, _WEAK_RANK, _COMMON_RANK, _WEAK_REFERENCE, _REFERENCE = range(5)


def _ranks(unit: Unit) -> list[int]:
    symbols = unit.globals
    is_global = symbols["binding"] == Binding.GLOBAL
    rank = np.where(is_global, _STRONG_RANK, _WEAK_RANK)
    rank[symbols["atom"] == SpecialIndex.COMMON] = _COMMON_RANK
    undefined = symbols["atom"] == SpecialIndex.UNDEFINED
    rank[undefined] = np.where(is_global[undefined], _REFERENCE, _WEAK_REFERENCE)
    ranks: list[int] = rank.tolist()
    return ranks


def describe(differing: Mapping[str, Mapping[str, str]]) -> str:
    """The differences in words: which linker takes which definition from where."""
    parts = []
    for name, takes in differing.items():
        owners: dict[str, list[str]] = {}
        for called, member in takes.items():
            owners.setdefault(member or "no member", []).append(called)
        ways = [f"{' and '.join(who)} from {member}" for member, who in owners.items()]
        parts.append(f"{name} ({'; '.join(ways)})")
    count = f"{len(differing)} symbol" if len(differing) == 1 else f"{len(differing)} symbols"
    return f"linkers take different definitions of {count}: {', '.join(parts)}"


__all__ = ["describe", "differences"]
