"""Why something is in a library: what needs it, by the shortest chain, and what it costs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cargo_strip_hook.analysis.graphs import (
    chain,
    immediate_dominators,
    reached,
    retained,
    turned,
    walk,
)
from cargo_strip_hook.analysis.objects import Objects, read_objects
from cargo_strip_hook.analysis.program import Library, as_objects, loading, resolve_library
from cargo_strip_hook.archive import Archive, open_archive
from cargo_strip_hook.core.errors import InputError
from cargo_strip_hook.demangle import crate_of, demangle
from cargo_strip_hook.formats.slices import about, slices_of
from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import Binding, Contents, Int64, Reach

if TYPE_CHECKING:
    from cargo_strip_hook.exports.decide import ExportRequest

By = Literal["export", "initialiser", "reference", "support", "together"]
_WORD = re.compile(r"\w+")
_WORDS = {
    Contents.CODE: "code without a name",
    Contents.CONSTANTS: "a constant",
    Contents.DATA: "data without a name",
    Contents.ZEROS: "data without a name",
    Contents.UNWIND: "unwind tables",
}
# Words of Rust that mangled names encode otherwise.
_SIGNS = frozenset(
    (
        *("closure", "shim", "vtable", "impl", "as", "dyn", "for", "mut", "const", "unsafe"),
        *("bool", "char", "str", "f32", "f64", "isize", "usize", "extern", "fn"),
        *(f"{sign}{bits}" for sign in "iu" for bits in (8, 16, 32, 64, 128)),
    )
)
_NEEDS = np.array([Reach.FORWARD, Reach.BOTH])
_SUPPORTS = np.array([Reach.REVERSE, Reach.BOTH])


@dataclass(frozen=True, slots=True)
class Step:
    """One atom of a chain. Sizes in bytes.

    `symbol` is its name in the object file (empty where it has none), `name` the same demangled, or
    what it is. `by` says why it is there: it is public; it runs when the library is loaded; the
    step before refers to it; it supports the step before (unwind tables); or the two must stay
    together. `retained` is the size of what would go with it: itself, and what nothing else needs.
    `section` is the position in the table of sections of its object, from 0, -1 for what has no
    section, and `offset` where it begins there.
    """

    symbol: str
    name: str
    member: str
    by: By
    size: int
    retained: int
    section: int
    offset: int


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a symbol, or all symbols of a crate, are in a library. Sizes in bytes, as loaded.

    `symbols` are the names that were meant. `size` is their own size, `retained` the size of what
    would go if nothing needed them any more, and `total` that of all. `chain` leads to one of them
    from an export or initialiser, in the fewest steps; it is empty where nothing public needs any.
    Each of `exports`, out of `all_exports`, needs one of them: all these would have to go for them
    to go. None where that was not asked for.
    """

    library: Path
    architecture: str
    what: str
    kind: Literal["symbol", "crate"]
    symbols: tuple[str, ...]
    size: int
    retained: int
    total: int
    chain: tuple[Step, ...]
    exports: tuple[str, ...] | None
    all_exports: int


def explain_library(
    library: Path,
    what: str,
    request: ExportRequest,
    *,
    all_roots: bool = False,
    crate: bool = False,
) -> tuple[Reason, ...]:
    """Explain each slice of a library; `request` says what is public. See `explain`."""
    from cargo_strip_hook.analysis.check import decide_or_remember

    reasons = []
    for slice_, target in slices_of(library, request.target):
        with about(slice_), open_archive(slice_) as archive:
            decided = decide_or_remember(archive, replace(request, target=target))
            resolved = resolve_library(archive, target, decided.names())
            reasons.append(explain(archive, resolved, what, all_roots=all_roots, crate=crate))
    return tuple(reasons)


def explain(
    archive: Archive, library: Library, what: str, *, all_roots: bool = False, crate: bool = False
) -> Reason:
    """Why `what` is in the library.

    That is a symbol by its name in the object files, a crate, or a symbol as it is written in
    Rust, from any `::` on (several, where there are instances of it); with `crate` never a symbol.
    Raises `InputError` where the library has no such thing.
    """
    objects = as_objects(library)
    kind: Literal["symbol", "crate"] = "symbol"
    symbols = np.zeros(0, np.int64) if crate else _named(objects, what)
    if not len(symbols) and _WORD.fullmatch(what):
        kind, symbols = "crate", _of_crate(objects, what)
    if not len(symbols) and not crate:
        kind, symbols = "symbol", _written(objects, what)
    atoms = unique(objects.symbols["atom"][symbols].astype(np.int64))
    if not len(atoms):
        _must_be_there(archive, what, crate)
    sizes = np.where(library.live, library.program.atoms["size"], 0)
    left = reached(library.graph, library.roots, atoms)
    return Reason(
        archive.path,
        archive.slice.architecture,
        what,
        kind,
        tuple(sorted({_text(objects, n) for n in symbols.tolist()})),
        int(sizes[atoms].sum()),
        int(sizes[~left].sum()) if len(atoms) else 0,
        int(sizes.sum()),
        _chain(library, objects, atoms, sizes, set(symbols.tolist())) if len(atoms) else (),
        _exports(library, atoms) if all_roots else None,
        len(library.exports),
    )


def _text(objects: Objects, symbol: int) -> str:
    return objects.names[symbol].decode("utf-8", "surrogateescape")


def _live_symbols(objects: Objects) -> list[int]:
    live: list[int] = np.flatnonzero(objects.symbols["atom"] >= 0).tolist()
    return live


def _named(objects: Objects, what: str) -> Int64:
    """The live symbols of that name in object files, with or without C's underscore."""
    live, names = _live_symbols(objects), objects.names
    exact = what.encode("utf-8", "surrogateescape")
    for wanted in (exact, b"_" + exact):
        matching = [n for n in live if names[n] == wanted]
        if matching:
            break
    return np.array(matching, np.int64)


def _of_crate(objects: Objects, crate: str) -> Int64:
    """The live symbols of a crate."""
    word = crate.encode()
    candidates = [n for n in _live_symbols(objects) if word in objects.names[n]]
    return np.array([n for n in candidates if crate_of(_text(objects, n)) == crate], np.int64)


def _written(objects: Objects, what: str) -> Int64:
    """The live symbols of that name in Rust's source."""
    # demangling all names would take long, but a mangled name contains the words of the Rust name
    words = [w for w in _WORD.findall(what) if w not in _SIGNS and not w[0].isdigit()]
    word = max(words, key=len, default="").encode()
    candidates = [n for n in _live_symbols(objects) if word in objects.names[n]]
    return np.array([n for n in candidates if _means(what, _text(objects, n))], np.int64)


def _means(what: str, name: str) -> bool:
    """Whether a mangled name is that of `what`."""
    text = demangle(name)
    if text == name:
        return False
    # `<core::fmt::Formatter>::pad` is what people call `Formatter::pad`
    plain = text.lstrip("<").replace(">::", "::")
    return what in (text, plain) or text.endswith("::" + what) or plain.endswith("::" + what)


def _must_be_there(archive: Archive, what: str, crate: bool) -> None:
    """Raise `InputError` where no object of the archive has it, live or not."""
    for name in set(read_objects(archive).names):
        text = name.decode("utf-8", "surrogateescape")
        if crate_of(text) == what:
            return
        if not crate and (text in (what, "_" + what) or _means(what, text)):
            return
    thing = "crate" if crate else "symbol and no crate"
    raise InputError(
        f"there is no {thing} `{what}`",
        path=archive.slice.name,
        help="`cargo strip-hook report` lists the crates, `nm` the symbols",
    )


def _chain(
    library: Library, objects: Objects, atoms: Int64, sizes: Int64, meant: set[int]
) -> tuple[Step, ...]:
    """The shortest chain to any of `atoms`."""
    before = walk(library.graph, library.roots)
    # of several shortest chains the first
    chains = [chain(before, n) for n in atoms.tolist()]
    shortest = min(chains, key=len)
    kept = retained(immediate_dominators(library.graph, library.roots), sizes)
    steps = []
    for position, atom in enumerate(shortest):
        if position:
            by = _link(library, shortest[position - 1], atom)
        else:
            by = "export" if atom in library.export_atoms else "initialiser"
        symbol = _symbol_of(library, objects, atom, meant)
        unit = objects.units[int(library.program.unit_of(np.array([atom]))[0])]
        name = demangle(symbol) if symbol else _described(objects, atom)
        row = objects.atoms[atom]
        where = int(row["section"]), int(row["offset"])
        steps.append(Step(symbol, name, unit.name, by, int(sizes[atom]), int(kept[atom]), *where))
    return tuple(steps)


def _link(library: Library, source: int, target: int) -> By:
    """Why `target` is live because `source` is."""
    program = library.program
    rows = program.relocations
    target_atom = program.symbols["atom"][program.definition[rows["symbol"]]]
    forward = (rows["atom"] == source) & (target_atom == target)
    if (forward & isin(rows["reach"], _NEEDS)).any():
        return "reference"
    backward = (rows["atom"] == target) & (target_atom == source)
    return "support" if (backward & isin(rows["reach"], _SUPPORTS)).any() else "together"


def _symbol_of(library: Library, objects: Objects, atom: int, meant: set[int]) -> str:
    """The name of an atom: one that was meant, else that of an export, a global or a local one."""
    symbols = library.program.symbols
    named = [n for n in np.flatnonzero(symbols["atom"] == atom).tolist() if objects.names[n]]
    if not named:
        return ""
    exported = set(library.exports)

    def rank(n: int) -> tuple[bool, bool, bool, int]:
        is_local = bool(symbols["binding"][n] == Binding.LOCAL)
        return n not in meant, _text(objects, n) not in exported, is_local, int(symbols["value"][n])

    return _text(objects, min(named, key=rank))


def _described(objects: Objects, atom: int) -> str:
    """A description of an atom without a name."""
    section = int(objects.section[atom])
    return _WORDS.get(Contents(int(objects.sections["kind"][section])), "something without a name")


def _exports(library: Library, atoms: Int64) -> tuple[str, ...]:
    """The exports that need any of `atoms`, by themselves or because their object is loaded."""
    needs = reached(turned(loading(library)), atoms)
    first = len(library.program.atoms)
    by_itself = (library.export_atoms >= 0) & needs[library.export_atoms]
    wanted = (by_itself | needs[first + library.export_units]).tolist()
    return tuple(name for name, is_wanted in zip(library.exports, wanted, strict=True) if is_wanted)


__all__ = ["Reason", "Step", "explain", "explain_library"]
