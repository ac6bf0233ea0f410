"""The rows of `cargo_strip_hook/verify/README.md`: what is read, its check, and a wrong result."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cargo_strip_hook
from tests.campaigns.results.bugs import AFTERS, BUGS, with_bug
from tests.campaigns.results.cases import Case
from tests.campaigns.results.fields import fields
from tests.campaigns.results.kinds import Kind

README = Path(cargo_strip_hook.__file__).parent / "verify" / "README.md"
TITLES = {"ELF": "elf", "Mach-O": "macho", "COFF": "coff", "Universal files": "universal"}
_FIELD = re.compile(r"(\d+): (.+) #(\d+) = (0x[0-9a-f]+)")
_BUG = re.compile(r"(\d+): bug (\w+) (\d+)")
_OWN = re.compile(r"own: (.+)")


@dataclass(frozen=True)
class Row:
    """`checks`: how findings may begin; `wrong`: a wrong result, as the page writes it down."""

    format: str
    read: str
    checks: tuple[str, ...]
    wrong: str


def rows(text: str | None = None) -> Iterator[Row]:
    """The rows of all tables of formats."""
    format = ""
    for line in (text or README.read_text("utf-8")).splitlines():
        if line.startswith("## "):
            format = TITLES.get(line[3:], "")
        elif format and line.startswith("| ") and not line.startswith(("| ---", "| what is read")):
            read, checks, wrong = (cell.strip() for cell in line.strip("|").split("|"))
            yield Row(format, read, tuple(re.findall(r"`([^`]+)`", checks)), wrong.strip("`"))


def findings(cases: Sequence[Case], wrong: str) -> str:
    """What the verifier says of a wrong result. Raises `ValueError` for one that is none."""
    if found := _FIELD.fullmatch(wrong):
        number, kind, nth, value = found.groups()
        case = cases[int(number)]
        known = fields(case.good.data)
        places = known.fields.get(kind, [])
        if int(nth) >= len(places):
            raise ValueError(f"{case.name} has {len(places)} fields of {kind}")
        at, width = places[int(nth)]
        order = "little" if known.order == "<" else "big"
        if kind.startswith(("member", "index")) and case.format != "macho":
            order = "big"
        new = int(value, 16).to_bytes(width, order)
        data = case.good.data
        if data[at : at + width] == new:
            raise ValueError(f"{kind} #{nth} of {case.name} has that value already")
        return case.findings(data[:at] + new + data[at + width :])
    if found := _BUG.fullmatch(wrong):
        number, name, choice = found.groups()
        case = cases[int(number)]
        bug = next(b for b in (*BUGS, *AFTERS) if b.__name__ == name)
        output = case.folder / "row.a"
        with with_bug(bug, random.Random(f"{case.name} {name} {choice}")):
            made = case.made(output)
        return case.findings(output.read_bytes(), case.expectation(made))
    if (found := _OWN.fullmatch(wrong)) and cases:
        home: Any = import_module(f"tests.formats.{cases[0].format}_mutants")
        if found[1] not in home.ROWS:
            raise ValueError(f"no mutant is called {found[1]}")
        return "\n".join(home.mutant(found[1], cases[0].folder / "own").findings())
    raise ValueError(f"no wrong result: {wrong}")


def fault(cases: Sequence[Case], row: Row) -> str:
    """What is wrong with a row; "" for nothing."""
    try:
        found = findings(cases, row.wrong)
    except (ValueError, StopIteration) as e:
        return f"{row.read}: {e}"
    if not found:
        return f"{row.read}: nothing notices {row.wrong}"
    others = [line for line in found.splitlines() if not line.startswith(row.checks)]
    return f"{row.read}: {row.wrong} is noticed by another check: {others[0]}" if others else ""


def without_a_row(found: Iterable[Kind], rows: Sequence[Row], room: str) -> list[Kind]:
    """The kinds of findings that no row of a room's format begins with; of any format for others.

    A row may say more of what is found than its kind.
    """
    formats = (room,) if room in TITLES.values() else tuple(TITLES.values())
    known = [check for row in rows if row.format in formats for check in row.checks]

    def has(kind: str) -> bool:
        return bool(kind) and any(kind.startswith(one) or one.startswith(kind) for one in known)

    return [one for one in found if not has(one.text)]


__all__ = ["README", "Row", "fault", "findings", "rows", "without_a_row"]
