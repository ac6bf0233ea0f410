"""Which members of an archive a linker loads, and in which order: a reading of its own, plain.

It is done where a name has several definitions, so that the order decides which of them counts. The
program is one that refers to every export.

Sources: GNU binutils, `bfd/elflink.c` (`elf_link_add_archive_symbols`); LLVM, `lld`:
`ELF/Symbols.cpp`, `MachO/SymbolTable.cpp`, `COFF/SymbolTable.cpp` and `COFF/Driver.cpp`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.target import Linker
from cargo_strip_hook.verify.expectation import Expectation


class Strength(IntEnum):
    """How a definition competes; a strong one of data takes the place of a common in an archive."""

    WANTED = 0
    WEAK = 1
    COMMON = 2
    STRONG = 3
    DATA = 4


@dataclass(frozen=True, slots=True)
class Member:
    """What an object defines, and what it refers to strongly, in its order."""

    defines: Mapping[bytes, Strength]
    needs: Sequence[bytes]


class Loading:
    """The loading of an archive; nothing is read or done before somebody asks.

    `entries` are (name, member) in the order of the index, None where there is none; `members`
    reads all that may be loaded. `single`: each name has one entry. `always` are the members that
    are loaded whatever refers to them, before all others.
    """

    def __init__(
        self,
        linker: Linker,
        entries: tuple[Sequence[bytes], Sequence[int]] | None,
        members: Callable[[], Mapping[int, Member]],
        roots: Sequence[bytes],
        *,
        single: bool = False,
        always: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self._always = always
        self._linker, self._entries, self._read, self._roots = linker, entries, members, roots
        self._single = single

    @cached_property
    def repeated(self) -> frozenset[bytes]:
        """The names that several entries of the index have."""
        if self._single:
            return frozenset()
        names = self._entries[0] if self._entries else [n for n, _ in self._own()]
        if len(set(names)) == len(names):
            return frozenset()
        seen: set[bytes] = set()
        return frozenset(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]

    @cached_property
    def rank(self) -> Mapping[int, int]:
        """The place in the order of loading of each member that is loaded."""
        walk = _Walk(self._sound(), self._members, self._roots)
        for member in self._always():
            if member in self._members:
                walk.add(member)
        if self._linker in ("gnu", "gnu-pe"):
            walk.again_and_again(commons=self._linker == "gnu")
        elif self._linker == "lld-link":
            walk.in_a_queue()
        elif self._linker == "ld64":
            walk.in_rounds()
        else:
            walk.at_need()
        return {member: n for n, member in enumerate(walk.loaded)}

    def winner(self, name: bytes) -> tuple[int, Strength]:
        """The member whose definition of a name counts, a strong one or the first; -1 for none."""
        definitions = [(m, self._members[m].defines[name]) for m in self.rank if self._has(m, name)]
        strong = [(m, how) for m, how in definitions if how >= Strength.STRONG]
        common = [(m, how) for m, how in definitions if how is Strength.COMMON]
        return next(iter(strong or common or definitions), (-1, Strength.WANTED))

    def takes(self, name: bytes, members: Collection[int]) -> bool:
        """Whether the definition of a name that a linker takes is among those of `members`.

        It would have to load them all: a strong definition counts wherever it stands. Commons are
        all one.
        """
        winner, how = self.winner(name)
        loaded = all(member in self.rank for member in members)
        return loaded and (how is Strength.COMMON or winner in members)

    def _has(self, member: int, name: bytes) -> bool:
        return name in self._members[member].defines

    @cached_property
    def _members(self) -> Mapping[int, Member]:
        return self._read()

    def _own(self) -> list[tuple[bytes, int]]:
        return [(n, m) for m in sorted(self._members) for n in self._members[m].defines]

    def _sound(self) -> list[tuple[bytes, int]]:
        """The index, or what it should say where it is seen to be wrong."""
        own = self._own()
        listed = list(zip(*self._entries, strict=True)) if self._entries else []
        silent = {m for _, m in own} - {m for _, m in listed}
        unknown = set(self._roots) - {n for n, _ in listed}
        wrong = any(m in self._members and not self._has(m, n) for n, m in listed)
        return own if silent or unknown or wrong else listed


class _Walk:
    """What a linker knows while it walks: the names heard of, and the members loaded."""

    def __init__(
        self,
        entries: Sequence[tuple[bytes, int]],
        members: Mapping[int, Member],
        roots: Sequence[bytes],
    ) -> None:
        self.entries, self.members = entries, members
        self.loaded: dict[int, None] = {}
        self.known: dict[bytes, Strength] = dict.fromkeys(roots, Strength.WANTED)
        self.listed = 0  # how often a name came to be wanted or common

    def wanted(self, name: bytes) -> bool:
        return self.known.get(name) is Strength.WANTED

    def add(self, member: int) -> Sequence[bytes]:
        """Load a member; the names that it wants."""
        self.loaded[member] = None
        loaded = self.members[member]
        for name, how in loaded.defines.items():
            old = self.known.get(name)
            if old is None and how is Strength.COMMON:
                self.listed += 1
            if old is None or how > old:
                self.known[name] = how
        for name in loaded.needs:
            if name not in self.known:
                self.known[name] = Strength.WANTED
                self.listed += 1
        return loaded.needs

    def again_and_again(self, *, commons: bool) -> None:
        finished: set[int] = set()
        before = -1
        while before != self.listed:
            before = self.listed
            for i, (name, member) in enumerate(self.entries):
                how = self.known.get(name)
                if how is None or i in finished:
                    continue
                if how is Strength.COMMON and commons:
                    other = self.members.get(member)
                    if other is None or other.defines.get(name) is not Strength.DATA:
                        continue
                elif how is not Strength.WANTED:
                    finished.add(i)
                    continue
                if member not in self.members:
                    self.known[name] = Strength.STRONG  # it comes from elsewhere
                elif member not in self.loaded:
                    self.add(member)

    def at_need(self) -> None:
        passed: dict[bytes, int] = {}
        for name, member in self.entries:
            if self.wanted(name) and member in self.members and member not in self.loaded:
                self._deep(member, passed)
            passed.setdefault(name, member)

    def _deep(self, member: int, passed: Mapping[bytes, int]) -> None:
        stack = [iter(self.add(member))]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
            elif self.wanted(name) and name in passed:
                other = passed[name]
                if other in self.members and other not in self.loaded:
                    stack.append(iter(self.add(other)))

    def in_rounds(self) -> None:
        first: dict[bytes, int] = {}
        for name, member in self.entries:
            first.setdefault(name, member)
        before = -1
        while before != len(self.loaded):
            before = len(self.loaded)
            for sought in (Strength.WANTED, Strength.COMMON):
                for name in sorted(n for n, how in self.known.items() if how is sought):
                    member = first.get(name, -1)
                    if member not in self.members or member in self.loaded:
                        continue
                    how = self.members[member].defines.get(name)
                    if self.known[name] is sought and (
                        sought is Strength.WANTED or how is Strength.DATA
                    ):
                        self.add(member)

    def in_a_queue(self) -> None:
        first: dict[bytes, int] = {}
        queue: dict[int, None] = {}
        for name, member in self.entries:
            if first.setdefault(name, member) == member and self.wanted(name):
                queue.setdefault(member)
        done = 0
        while done < len(queue):
            member = list(queue)[done]
            done += 1
            for name in self.add(member) if member in self.members else ():
                if self.wanted(name) and name in first:
                    queue.setdefault(first[name])


def loading(
    original: Archive,
    expectation: Expectation,
    members: Callable[[], Mapping[int, Member]],
    always: Callable[[], Sequence[int]] = tuple,
) -> Loading:
    """The loading of the original by the linker of the target."""
    linker = expectation.target.linker
    entries = original.entries(plain=linker == "gnu-pe")
    roots = [name.encode("utf-8", "surrogateescape") for name in expectation.exports]
    listed = None if entries is None else (entries.names, entries.members)
    single = entries is not None and len(original.symbols() or ()) == len(entries.names)
    return Loading(linker, listed, members, roots, single=single, always=always)


__all__ = ["Loading", "Member", "Strength", "loading"]
