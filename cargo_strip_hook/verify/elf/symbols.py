"""The names that the result shows: exactly the exports, and no more undefined than before."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.verify.arrays import Array, is_among
from cargo_strip_hook.verify.elf.mapping import Kind, Pair, Resolution, shared_names
from cargo_strip_hook.verify.elf.read import (
    IN_COMMON,
    SHF_ALLOC,
    SHT_NOTE,
    STB_LOCAL,
    STB_WEAK,
    STT_COMMON,
    STT_FUNC,
    STT_GNU_IFUNC,
    STT_OBJECT,
    STT_TLS,
)
from cargo_strip_hook.verify.kit import surface
from cargo_strip_hook.verify.kit.names import encoded, quoted


def global_definitions(pair: Pair) -> dict[bytes, int]:
    """Name and symbol number of each global definition of the result."""
    s = pair.after.symbols
    numbers = np.flatnonzero((s["binding"] != STB_LOCAL) & ~s["undefined"])
    found: dict[bytes, int] = {}
    for i in numbers.tolist():
        name = pair.after.string(int(s["name"][i]))
        if name in found:
            pair.findings.add("defined twice", quoted(name))
        found[name] = i
    return found


def undefined_names(pair: Pair) -> dict[bytes, int]:
    """Name and symbol number of each undefined symbol of the result."""
    s = pair.after.symbols
    numbers = np.flatnonzero((s["binding"] != STB_LOCAL) & s["undefined"])
    return {pair.after.string(int(s["name"][i])): i for i in numbers.tolist()}


def check_exports(pair: Pair, definitions: dict[bytes, int], resolution: Resolution) -> None:
    """The global definitions are the exports, with type, size, binding and visibility unchanged."""
    asked = encoded(pair.expectation.exports)
    shared = shared_names(pair)
    surface.check_exports(definitions.keys(), pair.expectation, pair.findings, shared)
    before, after = pair.before.symbols, pair.after.symbols
    names = resolution.names
    for name in sorted((asked | shared) & definitions.keys()):
        candidates = resolution.definitions.get(name, [])
        if not candidates:
            if pair.complete:
                pair.findings.add("an export that no used member defines", quoted(name))
            continue
        new = after[definitions[name]]
        if not any(_same_symbol(before[i], new, name in shared) for i in candidates):
            old = before[candidates[0]]
            facts = [
                f"{field} {int(old[field])}, now {int(new[field])}"
                for field in ("kind", "binding", "size", "other")
                if old[field] != new[field]
            ]
            pair.findings.add("an export changed", f"{quoted(name)}: {', '.join(facts)}")
        locations = {
            int(resolution.own.base[i])
            for i in candidates
            if resolution.own.kind[i] in (Kind.LOCATION, Kind.VALUE)
        }
        number = names.of(name)
        location = int(after["section"][definitions[name]] << 40) + int(new["value"])
        if new["section"] < 0:
            location = int(new["value"])
        wanted = resolution.export_location.get(number)
        if locations and (location not in locations or (wanted is not None and location != wanted)):
            pair.findings.add(
                "an export is at another place", f"{quoted(name)} at {pair.where_after(location)}"
            )


def _same_symbol(old: Array, new: Array, may_be_weak: bool) -> bool:
    kind = int(old["kind"])
    if old["section"] == IN_COMMON:
        # a common that got its place is plain data
        return int(new["kind"]) in (kind, STT_OBJECT, STT_COMMON) and old["size"] == new["size"]
    return bool(
        kind == new["kind"]
        and (old["binding"] == new["binding"] or may_be_weak)
        and old["size"] == new["size"]
        and old["other"] == new["other"]
    )


def check_undefined(pair: Pair, undefined: dict[bytes, int], resolution: Resolution) -> None:
    """What is undefined was undefined before, and is weak only if it was."""
    names, after = resolution.names, pair.after.symbols
    unused, new, defined = set(), set[bytes](), set()
    kinds = _undefined_kinds(pair, undefined)
    for name, number in sorted(undefined.items()):
        if after["kind"][number] not in kinds.get(name, {int(after["kind"][number])}):
            pair.findings.add("an undefined symbol changed its type", quoted(name))
        weak = after["binding"][number] == STB_WEAK
        if name in pair.defined_elsewhere and not weak:
            defined.add(name)
        known = names.number.get(name, -1)
        if known not in resolution.used_names:
            unused.add(name)
        elif int(after["other"][number]) not in resolution.visibility[known]:
            pair.findings.add("an undefined symbol changed its visibility", quoted(name))
        elif weak and known in resolution.strong_use and pair.complete:
            pair.findings.add("became weak", quoted(name))
        elif not weak and known not in resolution.strong_use and pair.complete:
            pair.findings.add("no longer weak", quoted(name))
    if unused:
        s = pair.before.symbols
        string = pair.before.string
        earlier = {string(int(at)) for at in s["name"][s["undefined"]].tolist()}
        new = unused - earlier
        # the assembler adds this name to every object that uses the GOT, and no relocation to it
        idle = unused & earlier - {b"_GLOBAL_OFFSET_TABLE_"}
        for name in sorted(idle) if pair.complete else ():
            pair.findings.add("undefined, and nothing needs it", quoted(name))
    surface.check_undefined(new, defined, pair.expectation, pair.findings)


def _undefined_kinds(pair: Pair, names: Container[bytes]) -> dict[bytes, set[int]]:
    """The types that the original's references to names give them."""
    s = pair.before.symbols
    found: dict[bytes, set[int]] = {}
    numbers = np.flatnonzero(s["undefined"] & (s["binding"] != STB_LOCAL))
    kinds = s["kind"][numbers].tolist()
    for name, kind in zip(pair.before.names[numbers].tolist(), kinds, strict=True):
        if name in names:
            found.setdefault(name, set()).add(kind)
    return found


def check_locals(pair: Pair, resolution: Resolution) -> None:
    """Functions and data that kept a local symbol: name, type and size as in the original."""
    old, new = pair.before.symbols, pair.after.symbols
    kinds = (STT_OBJECT, STT_FUNC, STT_TLS, STT_GNU_IFUNC)
    mine = np.flatnonzero(
        (new["binding"] == STB_LOCAL)
        & is_among(new["kind"], np.array(kinds))
        & (new["section"] > 0)
    )
    if pair.crossing is not None:
        mine = mine[~pair.crossing[mine]]
    if not pair.expectation.covers_debug:  # a platform's linker does not tell where the others went
        home = pair.after.sections[new["section"][mine]]
        mine = mine[(home["flags"] & SHF_ALLOC != 0) & (home["type"] != SHT_NOTE)]
    placed = np.flatnonzero((resolution.own.kind == Kind.LOCATION) & (old["section"] > 0))
    was = _facts(old[placed], resolution.own.base[placed])
    now = _facts(new[mine], resolution.after.base[mine])
    was_first, was_group, now_group = _alike(was, now)
    # most have one candidate, whose name is the same
    single = was_first[now_group] >= 0
    names, olds = pair.after.names[mine], np.full(len(mine), None, np.object_)
    olds[single] = pair.before.names[placed[was_first[now_group[single]]]]
    kept = single & (olds == names)
    for i in np.flatnonzero(single & ~kept).tolist():
        kept[i] = _kept_name(pair, olds[i], names[i])
    rest = np.flatnonzero(~kept)
    if not len(rest):
        return
    wanted = np.flatnonzero(is_among(was_group, now_group[rest]))
    # many may share a place: of each group the names, and whether one of them may have none now
    known: dict[int, tuple[set[bytes], bool]] = {}
    anonymous = pair.expectation.strip is Strip.SYMBOLS
    olds_wanted = pair.before.names[placed[wanted]].tolist()
    for group, text in zip(was_group[wanted].tolist(), olds_wanted, strict=True):
        there, nameless = known.get(group, (set(), anonymous))
        there.add(text)
        known[group] = there, nameless or _kept_name(pair, text, b"")
    # neither a common symbol nor the end of a set has a place in the original
    pools = old["name"][(old["section"] == IN_COMMON) & (old["binding"] != STB_LOCAL)]
    commons = {pair.before.string(at) for at in pools.tolist()}
    numbers = [resolution.names.number.get(name, -1) for name in commons]
    free = {resolution.export_location[n] for n in numbers if n in resolution.export_location}
    free |= resolution.set_ends
    bases = resolution.after.base[mine[rest]].tolist()
    for i, group, base in zip(rest.tolist(), now_group[rest].tolist(), bases, strict=True):
        name = names[i]
        candidates, nameless = known.get(group, (set(), False))
        if name in commons or base in free or (name in candidates if name else nameless):
            continue
        if pair.complete or candidates:
            pair.findings.add("a local symbol that the original has not", quoted(name))


def _facts(symbols: Array, base: Array) -> Array:
    """int64[n, 4]: place, type, size and st_other of symbols.

    A local symbol's visibility means nothing, and linkers merge it.
    """
    other = symbols["other"] & ~np.uint8(3)
    columns = (base, symbols["kind"], symbols["size"], other)
    return np.stack([np.asarray(c, np.int64) for c in columns], axis=1)


def _alike(was: Array, now: Array) -> tuple[Array, Array, Array]:
    """Groups of equal rows: (first row of `was` in each, -1 for none; group of each in both)."""
    both = np.concatenate([was, now])
    order = np.lexsort(both.T)
    new = np.ones(len(both), np.bool_)
    new[1:] = (both[order[1:]] != both[order[:-1]]).any(axis=1)
    group = np.empty(len(both), np.int64)
    group[order] = np.cumsum(new) - 1
    first = np.full(int(new.sum()), -1, np.int64)
    first[group[: len(was)][::-1]] = np.arange(len(was))[::-1]
    return first, group[: len(was)], group[len(was) :]


def _kept_name(pair: Pair, old: bytes, new: bytes) -> bool:
    """Whether a local name is still there; an assembler's own (`.L…`) tell people nothing."""
    if new:
        return new == old
    return pair.expectation.strip is Strip.SYMBOLS or not old or old.startswith(b".L")
