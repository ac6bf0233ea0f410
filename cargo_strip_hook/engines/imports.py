"""Where the import members of a set of libraries go.

Those that one library needs stay in it. What several need is in the common library, once, with all
that imports from the same DLL: linkers order the parts of its table by the archives they are in.
Source: GNU ld's scripts for PE (`SORT(*)(.idata$4)`), LLVM's lld, `Writer::fixGnuImportChunks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from cargo_strip_hook.archive import Archive, NewMember
from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.link.model import ImportMember

_Place = tuple[int, int]  # library, number in its archive


@dataclass(frozen=True, slots=True)
class Divided:
    """`small`: the numbers of each library's own, in its order; `common`: (library, number)."""

    small: tuple[tuple[int, ...], ...]
    common: tuple[_Place, ...]


class Imports:
    """The import members of one archive."""

    def __init__(self, archive: Archive, members: Sequence[ImportMember]) -> None:
        self.archive = archive
        self.members = {member.index: member for member in members}
        self.owner: dict[bytes, int] = {}  # the first one, as for a linker
        for member in members:
            for name in member.defines:
                self.owner.setdefault(name, member.index)

    def needed(self, names: Iterable[bytes]) -> list[int]:
        """The members that these names need, and those that they need, in the archive's order."""
        chosen: set[int] = set()
        wanted = list(names)
        while wanted:
            number = self.owner.get(wanted.pop())
            if number is not None and number not in chosen:
                chosen.add(number)
                wanted += self.members[number].needs
        return sorted(chosen)

    def identity(self, number: int) -> bytes:
        """What a member is: its name and its contents."""
        member = self.archive.members[number]
        digest = blake2b(member.name.encode() + b"\0", digest_size=16)
        digest.update(self.archive.data(member))
        return digest.digest()

    def digests(self) -> dict[bytes, bytes]:
        """For each name a digest of all that comes with it."""
        return {
            name: b"".join(sorted(self.identity(n) for n in self.needed([name])))
            for name in self.owner
        }

    def copy(self, number: int) -> NewMember:
        """A member as it is written into another archive."""
        member = self.archive.members[number]
        data = self.archive.data(member)
        return NewMember(member.name, len(data), [data], self.members[number].defines)


def divide(libraries: Sequence[Imports], wanted: Sequence[Iterable[bytes]]) -> Divided:
    """Divide what the libraries need. `wanted`: the undefined names of all objects of each.

    Raises `LinkError` where two libraries import one name from one DLL in different ways.
    """
    chosen = [one.needed(names) for one, names in zip(libraries, wanted, strict=True)]
    first: dict[bytes, bytes] = {}

    def root(identity: bytes) -> bytes:
        while first.setdefault(identity, identity) != identity:
            identity = first[identity]
        return identity

    known = [{n: one.identity(n) for n in chosen[k]} for k, one in enumerate(libraries)]
    for one, mine in zip(libraries, known, strict=True):
        for number, identity in mine.items():
            for name in one.members[number].needs:
                other = one.owner.get(name)
                if other is not None:
                    first[root(identity)] = root(mine[other])
    users: dict[bytes, set[int]] = {}
    for library, mine in enumerate(known):
        for identity in mine.values():
            users.setdefault(root(identity), set()).add(library)
    small: list[tuple[int, ...]] = []
    common: dict[bytes, _Place] = {}
    names: dict[bytes, bytes] = {}
    for library, mine in enumerate(known):
        several = [n for n, identity in mine.items() if len(users[root(identity)]) > 1]
        small.append(tuple(n for n in mine if n not in several))
        for number in several:
            common.setdefault(mine[number], (library, number))
            for name in libraries[library].members[number].defines:
                if names.setdefault(name, mine[number]) != mine[number]:
                    raise LinkError(
                        f"`{name.decode(errors='replace')}` is imported in different ways",
                        help="build all libraries of the set with one toolchain",
                    )
    return Divided(tuple(small), tuple(common.values()))


__all__ = ["Divided", "Imports", "divide"]
