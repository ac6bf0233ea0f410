"""Results with one field changed, one record left out, doubled or in another's place."""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tests.campaigns.results.cases import Case
from tests.campaigns.results.fields import Fields, fields


@dataclass(frozen=True)
class Mutant:
    """A wrong result. `kind`: the field's; `at` and `width`: where it is, bytes."""

    kind: str
    how: str
    at: int
    width: int
    old: int
    new: int
    data: bytes

    def __str__(self) -> str:
        if self.how != "value":
            return f"{self.kind} at {self.at:#x}: {self.how}"
        return f"{self.kind} at {self.at:#x}: {self.old:#x} -> {self.new:#x}"


class Mutants:
    """The mutants of one case: they depend on the seed, the number and the result alone."""

    def __init__(self, case: Case, seed: str) -> None:
        self.case, self.seed = case, seed
        self.data = case.good.data

    @cached_property
    def known(self) -> Fields:
        return fields(self.data)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The kinds of fields, by what they begin with."""
        found: dict[str, list[str]] = defaultdict(list)
        for kind, places in self.known.fields.items():
            if places:
                found[kind.partition(".")[0].partition("[")[0]].append(kind)
        return found

    def mutant(self, number: int) -> Mutant:
        chance = random.Random(f"{self.seed} {self.case.name} {number}")
        while True:
            made = self._record(chance) if chance.random() < 0.12 else self._field(chance)
            if made is not None and made.data != self.data:
                return made

    def _field(self, chance: random.Random) -> Mutant:
        group = chance.choice(sorted(self.groups))
        kind = chance.choice(self.groups[group])
        places = self.known.fields[kind]
        at, width = chance.choice(places)
        order = "little" if self.known.order == "<" else "big"
        if kind.startswith(("index", "second")) and self.case.format != "macho":
            order = "big" if kind.startswith("index") else "little"
        raw = self.data[at : at + width]
        old = int.from_bytes(raw, order)
        if kind.startswith("member.") and kind != "member.end":
            new = self._text(chance, raw)
        else:
            new = self._value(chance, old, width, places, order).to_bytes(width, order)
        out = bytearray(self.data)
        out[at : at + width] = new
        return Mutant(kind, "value", at, width, old, int.from_bytes(new, order), bytes(out))

    def _text(self, chance: random.Random, raw: bytes) -> bytes:
        word = chance.choice(
            (b"0", b"1", b"9", b"644", b"17", b"/0", b"x.o/", b"-1", raw.strip() + b"0")
        )
        return word[: len(raw)].ljust(len(raw))

    def _value(
        self, chance: random.Random, old: int, width: int, places: list[tuple[int, int]], order: str
    ) -> int:
        limit = 1 << 8 * width
        how = chance.randrange(8)
        if how < 2:
            return (old + chance.choice((1, -1, 4, -4, 8, -8, 16, 2))) % limit
        if how < 5:
            return old ^ 1 << chance.randrange(8 * min(width, 8))
        if how == 5:  # that of another one
            at, size = chance.choice(places)
            return int.from_bytes(self.data[at : at + size], order) % limit  # type: ignore[arg-type]
        if how == 6:
            return chance.choice((0, 1, 2, 3, 0xFF, limit - 1, limit >> 1)) % limit
        return (
            chance.randrange(limit) if chance.random() < 0.3 else chance.randrange(min(limit, 40))
        )

    def _record(self, chance: random.Random) -> Mutant | None:
        tables = sorted(self.known.tables)
        if not tables:
            return None
        kind = chance.choice(tables)
        start, size, count = chance.choice(self.known.tables[kind])
        how: Callable[..., bytes | None] = chance.choice((_without, _swapped, _doubled))
        first = chance.randrange(count)
        out = how(self.data, (start, size, count), first, chance.randrange(count))
        if out is None:
            return None
        name = f"record of {kind}"
        return Mutant(name, f"{how.__name__[1:]} {first} of {count}", start, size, 0, 0, out)


def _table(data: bytes, table: tuple[int, int, int]) -> list[bytes]:
    start, size, count = table
    return [data[start + n * size : start + (n + 1) * size] for n in range(count)]


def _put(data: bytes, start: int, records: list[bytes]) -> bytes:
    made = b"".join(records)
    return data[:start] + made + data[start + len(made) :]


def _without(data: bytes, table: tuple[int, int, int], first: int, _: int) -> bytes:
    """The record is lost; the last one is there twice, since the table's size stays."""
    rows = _table(data, table)
    return _put(data, table[0], [*rows[:first], *rows[first + 1 :], rows[-1]])


def _swapped(data: bytes, table: tuple[int, int, int], first: int, second: int) -> bytes:
    rows = _table(data, table)
    rows[first], rows[second] = rows[second], rows[first]
    return _put(data, table[0], rows)


def _doubled(data: bytes, table: tuple[int, int, int], first: int, second: int) -> bytes:
    """One record takes the place of another."""
    rows = _table(data, table)
    rows[second] = rows[first]
    return _put(data, table[0], rows)


def word(data: bytes, at: int, form: str = "<I") -> int:
    """A number of the file."""
    found: int = struct.unpack_from(form, data, at)[0]
    return found


__all__ = ["Mutant", "Mutants", "word"]
