"""Chains, dominators and sets of exports, against other readers, networkx and the engine itself."""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import cargo_strip_hook
from cargo_strip_hook.analysis.check import decide_or_remember
from cargo_strip_hook.analysis.graphs import edges, immediate_dominators
from cargo_strip_hook.analysis.program import Library, as_objects, resolve_library
from cargo_strip_hook.analysis.why import Step, explain
from cargo_strip_hook.archive import Archive, open_archive
from cargo_strip_hook.core.errors import StripHookError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.link.symbols import local_names
from tests.fixtures import library
from tests.formats import native_kit as kit
from tests.formats.native_kit import build, tool
from tests.formats.relocated import Seen, see
from tests.tools import need

REAL = {
    "x86_64-unknown-linux-gnu": ("imagequant-sys", "rustup"),
    "aarch64-apple-darwin": ("apple", "debian"),
    "x86_64-pc-windows-msvc": ("windows", "debian"),
}
CRATES = ("std", "core", "alloc")
WRITTEN = ("panicking::panic_fmt", "raw_vec::handle_error")
ABOVE = -1  # a node before all roots


@cache
def _real(triple: str) -> tuple[Path, tuple[str, ...]]:
    """A real library, and what its own crate makes public."""
    name, toolchain = REAL[triple]
    path = library(name, "release", triple, toolchain).library  # type: ignore[arg-type]
    with open_archive(path) as opened:
        return path, decide_or_remember(opened, ExportRequest(Target.parse(triple))).names()


def _resolve(opened: Archive, triple: str, exports: Sequence[str]) -> Library:
    return resolve_library(opened, Target.parse(triple), exports)


def _drawn(resolved: Library) -> nx.DiGraph:
    """The graph for networkx, with a node above all exports and initialisers."""
    graph = nx.DiGraph()
    graph.add_edges_from((ABOVE, root) for root in resolved.roots.tolist())
    sources, targets = edges(resolved.graph)
    graph.add_edges_from(zip(sources.tolist(), targets.tolist(), strict=True))
    return graph


@pytest.mark.parametrize("triple", REAL)
def test_chains_of_real_libraries(tmp_path: Path, triple: str) -> None:
    """Each edge is a relocation that another reader sees, and no chain is shorter."""
    path, exports = _real(triple)
    seen: set[str] = set()
    with open_archive(path) as opened:
        reader = _Reader(opened, tmp_path)
        resolved = _resolve(opened, triple, exports)
        lengths = nx.single_source_shortest_path_length(_drawn(resolved), ABOVE)
        asked = [(c, True) for c in CRATES] + [(w, False) for w in (*WRITTEN, *_some(resolved, 40))]
        for what, is_crate in asked:
            reason = explain(opened, resolved, what, crate=is_crate)
            assert reason.kind == ("crate" if is_crate else "symbol")
            assert reason.chain[0].by in ("export", "initialiser")
            assert reason.chain[-1].symbol in reason.symbols
            named = {n.encode() for n in reason.symbols}
            meant = _atoms(resolved, named)
            assert len(reason.chain) == min(lengths[a] for a in meant if a in lengths)
            for step, following in pairwise(reason.chain):
                seen.add(following.by)
                if following.by == "together":
                    continue
                ends = (following, step) if following.by == "support" else (step, following)
                assert reader.refers(*ends), (what, step, following)
            assert reason.size <= reason.retained <= reason.total
    assert seen <= {"reference", "support", "together"}
    assert "reference" in seen


def _some(resolved: Library, count: int) -> list[str]:
    """So many names of live symbols, from all over the library."""
    symbols = as_objects(resolved)
    live = np.flatnonzero(symbols.symbols["atom"] >= 0).tolist()
    names = sorted({symbols.names[n].decode() for n in live})
    names = [n for n in names if re.match(r"[a-z_]", n)]  # an engine need not keep labels' names
    return names[:: len(names) // count]


def _atoms(resolved: Library, names: set[bytes]) -> set[int]:
    """The atoms that define any of these names, by way of the units themselves."""
    found = set()
    program = resolved.program
    for number, unit in enumerate(program.units):
        first = int(program.atom_base[number])
        every = [*local_names(unit), *unit.names] if unit.index >= 0 else unit.names
        skip = 0 if unit.index >= 0 else unit.first_global
        for name, atom in zip(every, unit.symbols["atom"][skip:].tolist(), strict=False):
            if name in names and atom >= 0:
                found.add(first + atom)
    return found


class _Reader:
    """What another reader sees in the members of an archive, by their names."""

    def __init__(self, opened: Archive, folder: Path) -> None:
        self.opened, self.folder = opened, folder
        self.seen: dict[str, list[Seen]] = {}

    def member(self, name: str) -> list[Seen]:
        if name not in self.seen:
            found = [m for m in self.opened.members if m.name == name]
            self.seen[name] = [see(bytes(self.opened.data(m)), self.folder) for m in found]
        return self.seen[name]

    def refers(self, source: Step, target: Step) -> bool:
        """Whether a relocation leads from one step to the other."""
        end = source.offset + source.size
        for here in self.member(source.member):
            symbols = here.targets(source.section, source.offset, end)
            for there in self.member(target.member):
                # what has no name is known in its own object only
                known = [s for s in symbols if here is there or not s.startswith("#")]
                places = (target.section, target.offset, target.offset + target.size)
                if any(there.defines(s, *places) for s in known):
                    return True
        return False


@pytest.mark.parametrize("triple", REAL)
def test_dominators_of_real_libraries(triple: str) -> None:
    path, exports = _real(triple)
    with open_archive(path) as opened:
        resolved = _resolve(opened, triple, exports)
    found = immediate_dominators(resolved.graph, resolved.roots)
    expected = nx.immediate_dominators(_drawn(resolved), ABOVE)
    count = len(found)
    mine = {n: int(d) if d < count else ABOVE for n, d in enumerate(found.tolist()) if d >= 0}
    theirs = {n: d for n, d in expected.items() if n != ABOVE}
    assert len(mine) > 1000
    assert mine == theirs
    assert set(mine) == set(np.flatnonzero(resolved.live).tolist())


def _symbols(path: Path) -> set[str]:
    """The names that an archive defines, local ones, too."""
    return set(tool([need("llvm-nm-22"), "--defined-only", "--format=just-symbols", path]).split())


@pytest.mark.parametrize("triple", REAL)
def test_the_exports_that_keep_something(tmp_path: Path, triple: str) -> None:
    """The engine itself, without those exports, drops it; with any one of them it does not."""
    path, exports = _real(triple)
    tried = 0
    with open_archive(path) as opened:
        resolved = _resolve(opened, triple, exports)
        for what in _some(resolved, 200):
            reason = explain(opened, resolved, what, all_roots=True)
            wanted = reason.exports
            assert wanted
            if len(wanted) > 4 or what in wanted:
                continue
            tried += 1
            rest = [e for e in exports if e not in wanted]
            out = tmp_path / "out.a"
            kit.strip(path, rest, Strip.NONE, output=out, triple=triple)
            assert what not in _symbols(out), (what, wanted)
            for one in wanted:
                kit.strip(path, [*rest, one], Strip.NONE, output=out, triple=triple)
                assert what in _symbols(out), (what, one)
            if tried == 3:
                return
    assert tried


CONSTRUCTED = {
    "a.c": "int g(void); int f1(void) { return g(); } int f3(void) { return 3; }",
    "b.c": "extern int counted; void h(void); int g(void) { return 2; }\n"
    "__attribute__((constructor)) static void begin(void) { h(); }",
    "c.c": "int counted; void deep(void) { counted++; } void h(void) { deep(); }",
    "d.c": "int f2(void) { return 2; } int unused(void) { return 5; }",
}


@pytest.mark.parametrize(
    "triple", ["x86_64-linux-gnu", "x86_64-apple-macos11", "x86_64-pc-windows-gnu"]
)
def test_what_a_constructor_needs(tmp_path: Path, triple: str) -> None:
    """It runs since its object is loaded; so the exports that load the object keep it."""
    flags = (f"--target={triple}", "-O1", "-ffunction-sections", "-fno-inline")
    objects = build(tmp_path, CONSTRUCTED, *flags, compiler="clang-22")
    path = tmp_path / "libabcd.a"
    tool([need("llvm-ar-22"), "rcsD", path, *objects])
    mark = "_" if "apple" in triple else ""
    public = ["f1", "f2", "f3"]
    [reason] = cargo_strip_hook.why(path, "deep", exports=public, all_roots=True)
    names = [s.symbol.removeprefix(mark) for s in reason.chain]
    assert reason.chain[0].by == "initialiser"
    assert names[-2:] == ["h", "deep"]
    # f3 is in the object that refers to the constructor's
    assert reason.exports == (f"{mark}f1", f"{mark}f3")
    assert reason.all_exports == 3
    # all that only the constructor needs goes with what it calls
    [caller] = cargo_strip_hook.why(path, "h", exports=public)
    assert caller.retained >= caller.size + reason.retained > reason.size

    [nothing] = cargo_strip_hook.why(path, "unused", exports=public, all_roots=True)
    assert (nothing.chain, nothing.retained, nothing.exports) == ((), 0, ())
    with pytest.raises(StripHookError, match="no symbol and no crate `nowhere`"):
        cargo_strip_hook.why(path, "nowhere", exports=public)


def test_the_command(tmp_path: Path) -> None:
    path = kit.library(tmp_path, CONSTRUCTED, "-O1", "-ffunction-sections", "-fno-inline")
    program = [sys.executable, "-m", "cargo_strip_hook", "why", path]
    said = tool([*program, "g", "--export", "f?", "--all-roots"])
    assert "symbol `g` in libt.a" in said
    assert [line.split("  ")[-2] for line in said.splitlines() if line.endswith("]")] == [
        "f1 (public)",
        "refers to g",
    ]
    assert "1 of 3 public symbols need it:\n  f1\n" in said
    lines = tool([*program, "g", "--export", "f?", "--json"]).splitlines()
    message, finished = map(json.loads, lines[-2:])
    assert [s["symbol"] for s in message["chain"]] == ["f1", "g"]
    assert finished == {"reason": "finished", "success": True}
    assert "nothing public needs" in tool([*program, "unused", "--export", "f?"])
    assert "no crate `g`" in tool([*program, "g", "--export", "f?", "--crate"], accept=[1])


def test_a_large_library() -> None:
    """129 MB: sums are exact, and neither command takes more than two seconds of a processor."""
    built = library("gst-plugin-fallbackswitch", "dev")
    program = [sys.executable, "-m", "cargo_strip_hook"]
    asked = {
        "report": [*program, "report", built.library, "--json"],
        "why": [*program, "why", built.library, "memchr", "--preset", "gst", "--json"],
    }
    said = {}
    for name, argv in asked.items():
        spent = []
        for _ in range(3):  # the least of three: other programs run, too
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            said[name] = json.loads(tool(argv).splitlines()[0])
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert min(spent) < 2, (name, spent)
    sizes, reason = said["report"], said["why"]
    assert sum(sizes["file"].values()) == sizes["size"] == built.library.stat().st_size
    for kind, total in sizes["loaded"].items():
        assert sum(c["kinds"][kind] for c in sizes["crates"]) == total
    other = sum(c["size"] for c in sizes["crates"] if c["name"] == "(other)")
    assert other <= 0.02 * sum(sizes["loaded"].values())
    assert (reason["kind"], reason["all-exports"]) == ("crate", 2)
    assert reason["chain"][0]["symbol"].startswith("gst_plugin_fallbackswitch_")


@pytest.mark.parametrize(
    ("written", "last"),
    [
        ("std::panicking::panic_handler::{closure#0}", "panic_handler::{closure#0}"),
        ("panicking::panic_fmt", "core::panicking::panic_fmt"),
        ("<u64 as core::fmt::Display>::fmt", "<u64 as core::fmt::Display>::fmt"),
        ("Formatter::pad_integral", "<core::fmt::Formatter>::pad_integral"),
    ],
)
def test_names_as_rust_writes_them(written: str, last: str) -> None:
    built = library("imagequant-sys", "release")
    assert built.header is not None
    [reason] = cargo_strip_hook.why(built.library, written, headers=built.header)
    assert reason.kind == "symbol"
    assert reason.chain[-1].name.endswith(last)


def test_a_stripped_library(tmp_path: Path) -> None:
    """It names its own exports, and its chains are the original's, as far as it has parts."""
    built = library("imagequant-sys", "release")
    assert built.header is not None
    out = tmp_path / "out.a"
    cargo_strip_hook.strip(built.library, headers=built.header, output=out, granularity="section")
    [before] = cargo_strip_hook.why(built.library, "gimli", headers=built.header)
    [after] = cargo_strip_hook.why(out, "gimli")
    assert after.all_exports == before.all_exports > 40
    assert len(after.chain) == len(before.chain)
    assert after.chain[-1].symbol in before.symbols
    assert set(after.symbols) == set(before.symbols)
