"""Loading: which members of the archive are loaded, and in which order, as a linker does.

The order decides which of several weak definitions wins, and in which order initialisers run. It is
that of a program that refers to every root before the linker comes to the archive.

Sources: GNU binutils, `bfd/elflink.c` (`elf_link_add_archive_symbols`) and `bfd/linker.c`
(`_bfd_generic_link_add_archive_symbols`); LLVM, `lld/ELF/Symbols.cpp` and `InputFiles.cpp`,
`lld/MachO/SymbolTable.cpp` (`addLazyArchive`), `lld/COFF/SymbolTable.cpp` (`addLazyArchive`,
`addUndefined`) and `Driver.cpp` (the queue of tasks); ld64, `Resolver.cpp` (`resolveUndefines`)
and `SymbolTable.cpp` (`undefines`).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.core.target import Linker


class Names:
    """Where names stand among the entries of an index."""

    def __init__(self, entries: Entries) -> None:
        names = entries.names
        self.entries, self.owner = entries, entries.members
        self.count = len(names)
        self._first = dict(zip(reversed(names), range(self.count - 1, -1, -1), strict=True))
        self._others: dict[bytes, list[int]] = {}
        if len(self._first) < self.count:
            first = np.fromiter(map(self._first.__getitem__, names), np.int64, self.count)
            for entry in np.flatnonzero(first != np.arange(self.count)).tolist():
                self._others.setdefault(names[entry], []).append(entry)

    def listed(self) -> Iterator[tuple[bytes, int]]:
        """Each entry: a name, and the member that the index says defines it."""
        return zip(self.entries.names, self.owner, strict=True)

    def first(self, name: bytes) -> int | None:
        """The position of a name's first entry."""
        return self._first.get(name)

    def member(self, name: bytes) -> int | None:
        """The member of a name's first entry."""
        entry = self._first.get(name)
        return None if entry is None else self.owner[entry]

    def members(self, names: Iterable[bytes]) -> set[int]:
        """The members of the first entries of names."""
        return {self.owner[entry] for entry in map(self._first.get, names) if entry is not None}

    def single(self, name: bytes) -> int | None:
        """The position of a name's only entry; None for several, and for none."""
        return None if name in self._others else self._first.get(name)

    def positions(self, name: bytes) -> list[int]:
        """The positions of all entries of a name."""
        entry = self._first.get(name)
        return [] if entry is None else [entry, *self._others.get(name, ())]

    def after(self, name: bytes, position: int) -> int | None:
        """The first entry of a name behind a position."""
        return next((entry for entry in self.positions(name) if entry > position), None)


class State(Protocol):
    """What the search asks whoever resolves names."""

    def new(self) -> list[bytes]:
        """Names that came to be wanted, or common, since the last time, in their order."""
        ...

    def wanted(self, name: bytes) -> bool:
        """Whether nobody defines a name so far."""
        ...

    def overrides(self, name: bytes, member: int) -> bool:
        """Whether a name is only common, and a member that is not loaded really defines it."""
        ...

    def common(self, name: bytes) -> bool:
        """Whether a name is only common so far."""
        ...

    def replaced(self, name: bytes) -> int | None:
        """The member with the weak definition that a common took the place of."""
        ...

    def load(self, member: int, name: bytes) -> bool:
        """Load a member that defines a name; False where it is not for loading."""
        ...


Search = Callable[[], None]  # go on with what is new; may be called again


def search(linker: Linker, names: Names, state: State) -> Search:
    """The search of a linker in one archive."""
    if linker == "gnu":
        return _Passes(names, state, commons=True).run
    if linker in ("gnu-pe", "gold"):
        return _Passes(names, state, commons=False).run
    if linker == "lld-link":
        return _Turns(names, state).run
    if linker == "ld64":
        return _Rounds(names, state).run
    return _Need(names, state).run


class _Passes:
    """GNU ld: the index is walked again and again, until nothing more is loaded.

    In a heap are times of the walk, and whose entry it comes to: that of a name, with the time when
    it has seen all of the name's, or the next one of a member of which several names are wanted.
    """

    def __init__(self, names: Names, state: State, *, commons: bool) -> None:
        self.names, self.state, self.commons = names, state, commons
        self.now = -1  # the walk's place, as if the index stood behind itself again and again
        self.heap: list[tuple[int, bytes, int]] = []
        # of each member that is to be loaded, when the walk comes to which wanted name
        self.waiting: dict[int, list[tuple[int, bytes]]] = {}
        self.times: dict[int, int] = {}  # when each member was loaded
        # GNU's list of undefined and common names, and the pass in which it last grew: only then is
        # there one more
        self.listed: set[bytes] = set()
        self.grew = 0

    def push(self, name: bytes, end: int) -> None:
        """Note when the walk comes to the next entry of a name, unless that is after `end`."""
        first = self.names.first(name)
        if first is None:
            return
        count = self.names.count
        begin = max(self.now, 0) // count * count
        following = self.names.after(name, self.now - begin)
        when = begin + count + first if following is None else begin + following
        if when <= end:
            heapq.heappush(self.heap, (when, name, end))

    def take(self) -> None:
        """Take note of the names that came to be wanted or common."""
        names, state, listed, waiting = self.names, self.state, self.listed, self.waiting
        count, now, owner = names.count, self.now, self.names.owner
        begin = max(now, 0) // max(count, 1) * count
        for name in state.new():
            replaced = state.replaced(name)
            if replaced is not None:
                # entries that were come by while there was a definition are not looked at again
                self.push(name, self.times[replaced] + count)
                continue
            known = name in listed
            if not known:
                listed.add(name)
                self.grew = begin
            entry = None if known or state.common(name) else names.single(name)
            if entry is None:
                self.push(name, now + count)
                continue
            when = begin + entry if begin + entry > now else begin + count + entry
            mine = waiting.setdefault(owner[entry], [])
            if not mine or when < mine[0][0]:
                heapq.heappush(self.heap, (when, name, _MEMBER))
            heapq.heappush(mine, (when, name))

    def member(self, number: int) -> None:
        """The walk has come to the next entry of a member."""
        mine, state = self.waiting[number], self.state
        while mine and (mine[0][0] < self.now or not state.wanted(mine[0][1])):
            heapq.heappop(mine)
        if mine and mine[0][0] == self.now:
            _, name = heapq.heappop(mine)
            self.times.setdefault(number, self.now)
            state.load(number, name)
        while mine and not state.wanted(mine[0][1]):
            heapq.heappop(mine)
        if mine:  # of another name, if that is still wanted then
            heapq.heappush(self.heap, (*mine[0], _MEMBER))

    def run(self) -> None:
        names, state = self.names, self.state
        while True:
            self.take()
            if not self.heap or self.heap[0][0] >= self.grew + 2 * names.count:
                return
            self.now, name, end = heapq.heappop(self.heap)
            member = names.owner[self.now % names.count]
            if end == _MEMBER:
                self.member(member)
                continue
            if state.wanted(name) or (self.commons and state.overrides(name, member)):
                self.times.setdefault(member, self.now)
                if not state.load(member, name):
                    continue
            elif not (self.commons and state.common(name)):
                continue
            if state.wanted(name) or state.common(name):
                self.push(name, end)


_MEMBER = -1  # instead of an end


class _Need:
    """lld for ELF and Mach-O: one walk over the index loads what is wanted where it comes to it.

    What a loaded member wants is loaded at once where the walk has come by it already.
    """

    def __init__(self, names: Names, state: State) -> None:
        self.names, self.state = names, state
        self.at = -1
        self.heap: list[tuple[int, bytes]] = []

    def run(self) -> None:
        while True:
            self.apply()
            if not self.heap:
                return
            self.at, name = heapq.heappop(self.heap)
            if self.state.wanted(name):
                self.state.load(self.names.owner[self.at], name)

    def apply(self) -> None:
        """Load what is new and was come by, and what that wants before what else is new."""
        stack = [iter(self.state.new())]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
                continue
            first = self.names.first(name)
            if first is None or not self.state.wanted(name):
                continue
            if first > self.at:
                heapq.heappush(self.heap, (first, name))
            elif self.state.load(self.names.owner[first], name):
                stack.append(iter(self.state.new()))


class _Turns:
    """lld-link: members stand in a queue from the moment that a name of theirs is wanted."""

    def __init__(self, names: Names, state: State) -> None:
        self.names, self.state = names, state
        self.queue: deque[tuple[int, bytes]] = deque()
        self.asked: set[int] = set()
        self.walked = False

    def ask(self, wanted: Iterable[bytes]) -> None:
        for name in wanted:
            first = self.names.first(name)
            if first is None or not self.state.wanted(name):
                continue
            member = self.names.owner[first]
            if member not in self.asked:
                self.asked.add(member)
                self.queue.append((member, name))

    def run(self) -> None:
        wanted = self.state.new()
        if not self.walked:  # what is wanted before the archive is read: in the index's order
            self.walked = True
            wanted = sorted(wanted, key=lambda name: self.names.first(name) or 0)
        self.ask(wanted)
        while self.queue:
            self.state.load(*self.queue.popleft())
            self.ask(self.state.new())


class _Rounds:
    """Apple's classic linker: what is undefined is looked for in the order of the alphabet.

    What comes to be undefined meanwhile waits for the next round. For what is only common a
    definition of data is looked for behind each round.
    """

    def __init__(self, names: Names, state: State) -> None:
        self.names, self.state = names, state
        self.commons: set[bytes] = set()

    def run(self) -> None:
        state = self.state
        wanted = set(state.new())
        while wanted:
            for name in sorted(wanted):
                first = self.names.first(name)
                if first is not None and state.wanted(name):
                    state.load(self.names.owner[first], name)
            more = set(state.new())
            self.commons.update(filter(state.common, wanted | more))
            for name in sorted(self.commons):
                first = self.names.first(name)
                if first is not None and state.overrides(name, self.names.owner[first]):
                    state.load(self.names.owner[first], name)
            wanted = more.union(state.new())


__all__ = ["Names", "Search", "State", "search"]
