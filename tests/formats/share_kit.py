"""Libraries of a set, resolved, and what of them is shared, for the tests of sharing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.sharing import SharedLibrary, ShareRequest, join, share
from cargo_strip_hook.formats import format_for
from cargo_strip_hook.formats.elf.sharing import ElfSharing
from cargo_strip_hook.formats.members import load
from cargo_strip_hook.link.model import Format
from cargo_strip_hook.link.reach import always_live, build_graph, follow, mark
from cargo_strip_hook.link.resolve import resolve
from cargo_strip_hook.link.share.find import Shared, find_shared
from cargo_strip_hook.link.share.model import Library, Sharing
from cargo_strip_hook.link.share.rules import Reason
from cargo_strip_hook.verify import Expectation, Verified
from cargo_strip_hook.verify.sharing import SetMember, verify_set
from tests.formats.native_kit import TRIPLE, library

FLAGS = ("-O1", "-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables")


def resolved(path: Path, exports: Sequence[str], format: Format) -> Library:
    """A library as the phases before sharing leave it."""
    target = Target.parse(TRIPLE)
    archive = open_archive(path).__enter__()  # it stays open for as long as the test runs
    loadable = load(archive, target)
    names = [name.encode() for name in exports]
    program = resolve(loadable.members, loadable.index, names, format, target.linker)
    rows = np.array([program.globals[name] for name in names])
    program = replace(program, exported=frozenset(rows.tolist()))
    atoms = program.symbols["atom"][rows]
    roots = np.concatenate([atoms[atoms >= 0], always_live(program)])
    live = mark(build_graph(program), roots, len(program.atoms))
    return Library(path.name, program, follow(program, live), loadable.members)


@dataclass
class Found:
    """What is shared, to be asked by name."""

    shared: Shared
    sharing: Sharing = field(default_factory=ElfSharing)

    def names(self, library: int) -> dict[str, list[int]]:
        """The atoms of a library by the names of their symbols."""
        joined = self.shared.joined
        one = joined.libraries[library]
        out: dict[str, list[int]] = {}
        rows = np.flatnonzero(one.program.symbols["atom"] >= 0)
        for row, name in zip(rows.tolist(), self.sharing.names(one.program, rows), strict=True):
            atom = int(one.program.symbols["atom"][row]) + int(joined.atom_base[library])
            if name and joined.live[atom]:
                out.setdefault(name.decode(), []).append(atom)
        return out

    def classes(self, name: str) -> list[list[int]]:
        """For each library the classes of what has a name; -1 for what is not shared."""
        count = len(self.shared.joined.libraries)
        named = [self.names(n).get(name, []) for n in range(count)]
        return [[int(self.shared.number[a]) for a in atoms] for atoms in named]

    def one(self, name: str, libraries: Sequence[int] | None = None) -> bool:
        """Whether what has a name is one in these libraries (all of them)."""
        found = self.classes(name)
        chosen = [found[n] for n in libraries] if libraries is not None else found
        assert all(len(f) == 1 for f in chosen), (name, found)
        numbers = {f[0] for f in chosen}
        return len(numbers) == 1 and -1 not in numbers

    def reasons(self, name: str) -> list[Reason]:
        """Why each that has a name is not shared."""
        count = len(self.shared.joined.libraries)
        atoms = [a for n in range(count) for a in self.names(n).get(name, [])]
        return [Reason(int(self.shared.reason[a])) for a in atoms]

    def state(self) -> set[str]:
        """The names of all state that is shared."""
        joined = self.shared.joined
        found = set()
        for number in range(len(joined.libraries)):
            for name, atoms in self.names(number).items():
                for atom in atoms:
                    if joined.described.sort[atom] == 2 and self.shared.number[atom] >= 0:
                        found.add(name)
        return found


def find(libraries: Sequence[tuple[Path, Sequence[str]]]) -> Found:
    """Find what libraries share; each with its exports."""
    format = format_for("elf")
    return Found(
        find_shared([resolved(path, names, format) for path, names in libraries], ElfSharing())
    )


def c_set(
    folder: Path,
    sources: Sequence[Mapping[str, str]],
    exports: Sequence[Sequence[str]],
    *flags: str,
    compiler: str | None = None,
) -> Found:
    """The same for libraries of C, compiled of sources by name."""
    paths = [
        library(folder / str(n), one, *FLAGS, *flags, compiler=compiler, name=f"lib{n}.a")
        for n, one in enumerate(sources)
    ]
    return find(list(zip(paths, exports, strict=True)))


def shared_set(
    folder: Path,
    libraries: Sequence[tuple[Path, Sequence[str]]],
    strip: Strip = Strip.SYMBOLS,
    granularity: Granularity = Granularity.CLASS,
    triple: str = TRIPLE,
) -> tuple[list[Path], Path]:
    """Write a set; (the small libraries in their order, the common one)."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = tuple(SharedLibrary(path, folder / path.name, tuple(e)) for path, e in libraries)
    common = folder / "libcommon.a"
    target = Target.parse(triple)
    share(ShareRequest(asked, common, target, strip, granularity, lambda *_: b"marker", lean=False))
    return [one.output for one in asked], common


def verified_set(
    folder: Path,
    libraries: Sequence[tuple[Path, Sequence[str]]],
    strip: Strip = Strip.SYMBOLS,
    granularity: Granularity = Granularity.CLASS,
    triple: str = TRIPLE,
    *,
    lean: bool = False,
) -> list[Verified]:
    """Write a set and verify it; raises what the verifier has against it.

    Small things are shared as well, unless the set is to be `lean`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = tuple(SharedLibrary(path, folder / path.name, tuple(e)) for path, e in libraries)
    common = folder / "libcommon.a"
    target = Target.parse(triple)
    made = share(
        ShareRequest(asked, common, target, strip, granularity, lambda *_: b"marker", lean=lean)
    )
    return verify_set(
        [
            SetMember(
                one.archive, one.output, Expectation(target, one.exports, strip, rows, b"marker")
            )
            for one, rows in zip(asked, made.link_maps, strict=True)
        ],
        common,
        Expectation(target, (), strip, None, b"marker"),
    )


def joined_set(
    path: Path,
    libraries: Sequence[tuple[Path, Sequence[str]]],
    strip: Strip = Strip.SYMBOLS,
    granularity: Granularity = Granularity.CLASS,
    triple: str = TRIPLE,
) -> list[Verified]:
    """Write one library of a set and verify it; raises what the verifier has against it."""
    asked = tuple(SharedLibrary(one, path, tuple(e)) for one, e in libraries)
    target = Target.parse(triple)
    made = join(ShareRequest(asked, path, target, strip, granularity, lambda *_: b"marker"))
    return verify_set(
        [
            SetMember(one.archive, path, Expectation(target, one.exports, strip, rows, b"marker"))
            for one, rows in zip(asked, made.link_maps, strict=True)
        ],
        None,
        Expectation(target, (), strip, None, b"marker"),
    )
