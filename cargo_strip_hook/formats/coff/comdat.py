"""COMDAT sections: leaders, selections, and what is associated with what.

Source: Microsoft, "PE Format", "COMDAT Sections" and "Auxiliary Format 5: Section Definitions";
which symbol is the leader: LLVM's lld, `ObjFile::initializeSymbols`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.file import CoffFile
from cargo_strip_hook.link.arrays import rows_of
from cargo_strip_hook.link.model import EDGE, Array, ComdatSelection, Group, Int32, Int64

_GROUPED = (coff.COMDAT_ANY, coff.COMDAT_SAME_SIZE, coff.COMDAT_EXACT_MATCH, coff.COMDAT_LARGEST)


@dataclass(frozen=True, slots=True)
class Comdats:
    """Arrays by section, counted from 0.

    `selection` is 0 for sections that are no COMDAT; `parent` is the section that an associative
    one belongs to, -1 for none; `leader` is the index of the COMDAT symbol in the file's table,
    -1 for none.
    """

    selection: Int32
    parent: Int32
    leader: Int64

    def bind(
        self, f: CoffFile, section_atom: Int32, entries: Int32
    ) -> tuple[tuple[Group, ...], Array]:
        """Groups of which one in the program prevails, and edges from parents to children."""
        children = np.flatnonzero(self.parent >= 0)
        parents = self.parent[children]
        both = (section_atom[parents] >= 0) & (section_atom[children] >= 0)
        source, target = section_atom[parents[both]], section_atom[children[both]]
        edges = rows_of(EDGE, len(source), source=source, target=target)
        external = f.symbols["class"][np.maximum(self.leader, 0)] == coff.CLASS_EXTERNAL
        chosen = np.isin(self.selection, _GROUPED) & (self.leader >= 0)
        if len(f.symbols):
            chosen &= external
        sections = np.flatnonzero(chosen & (section_atom >= 0))
        if not len(sections):
            return (), edges
        of: dict[int, list[int]] = {}
        for parent, child in zip(parents.tolist(), children.tolist(), strict=True):
            of.setdefault(parent, []).append(child)
        names = f.symbol_names(self.leader[sections])
        groups = []
        for section, name in zip(sections.tolist(), names, strict=True):
            atoms: list[int] = []
            waiting = [section]
            while waiting:
                one = waiting.pop(0)
                waiting += of.get(one, [])
                if section_atom[one] >= 0:
                    atoms.append(int(section_atom[one]))
                elif entries[one] >= 0:
                    size = int(f.sizes[one]) // f.header.machine.entry
                    atoms += range(int(entries[one]), int(entries[one]) + size)
            groups.append(self._group(f, section, name, tuple(atoms)))
        return tuple(groups), edges

    def _group(self, f: CoffFile, section: int, name: bytes, atoms: tuple[int, ...]) -> Group:
        selection, size = int(self.selection[section]), int(f.sizes[section])
        equal: object = None
        if selection == coff.COMDAT_SAME_SIZE:
            equal = size
        elif selection == coff.COMDAT_EXACT_MATCH:
            equal = hashlib.sha256(f.contents(section)).digest()
        preference = size if selection == coff.COMDAT_LARGEST else 0
        return Group(name, atoms, True, False, ComdatSelection(preference, equal))


def read_comdats(f: CoffFile) -> Comdats:
    """Find the section definitions. Raises `ObjectError`."""
    count = len(f.sections)
    selection = np.zeros(count, np.int32)
    parent = np.full(count, -1, np.int32)
    leader = np.full(count, -1, np.int64)
    comdat = f.flags & coff.SCN_LNK_COMDAT != 0
    if not comdat.any():
        return Comdats(selection, parent, leader)
    rows = f.symbols[f.primary]
    section = rows["section"].astype(np.int64) - 1
    mine = np.flatnonzero((section >= 0) & comdat[np.maximum(section, 0)])
    order = mine[np.argsort(section[mine], kind="stable")]
    of = section[order]
    first = np.flatnonzero(np.r_[True, of[1:] != of[:-1]]) if len(of) else np.zeros(0, np.int64)
    heads = order[first]
    defines = (rows["class"][heads] == coff.CLASS_STATIC) & (rows["aux"][heads] > 0)
    if len(first) != int(comdat.sum()) or not defines.all():
        raise f.fail("a COMDAT section has no section definition", f.table_at)
    aux = f.auxiliary(f.primary[heads], coff.SECTION_AUX)
    chosen = aux["selection"].astype(np.int32)
    unknown = (chosen < coff.COMDAT_NODUPLICATES) | (chosen > coff.COMDAT_LARGEST)
    f.check(unknown, "a COMDAT section has a selection that is unknown", f.table_at)
    sections = of[first]
    number = aux["number"].astype(np.int64)
    if f.header.big:
        number |= aux["number_high"].astype(np.int64) << 16
    # the second symbol of the section is the one that is selected by
    second = first + 1
    led = second < len(of)
    led[led] = of[second[led]] == sections[led]
    number -= 1
    leaderless = ~led & (chosen == coff.COMDAT_ANY)
    if leaderless.any():
        named = _by_name(f, sections, leaderless)
        number = np.where(named >= 0, named, number)
        chosen = np.where(named >= 0, coff.COMDAT_ASSOCIATIVE, chosen).astype(np.int32)
    selection[sections] = chosen
    associative = chosen == coff.COMDAT_ASSOCIATIVE
    number = number[associative]
    children = sections[associative]
    nowhere = (number < 0) | (number >= count) | (number == children)
    f.check(nowhere, "a COMDAT section is associated with no other section", f.table_at)
    parent[children] = number
    _refuse_circles(f, parent)
    led &= ~associative
    lost = ~led & ~associative & ~leaderless
    f.check(lost, "a COMDAT section has no symbol to select it by", f.table_at)
    leader[sections[led]] = f.primary[order[second[led]]]
    return Comdats(selection, parent, leader)


def _by_name(f: CoffFile, sections: Int64, leaderless: Array) -> Int64:
    """For each of the `sections` the one that its name says it belongs to, -1 for none.

    `.pdata$f`, `.xdata$f` and `.eh_frame$f` belong to `.text$f`, as compilers for MinGW have it.
    Source: LLVM's lld, `maybeAssociateSEHForMingw`.
    """
    code = {
        name.partition(b"$")[2]: n
        for n, name in enumerate(f.names)
        if name.startswith(b".text$") and f.flags[n] & coff.SCN_LNK_COMDAT
    }
    parent = np.full(len(sections), -1, np.int64)
    for row in np.flatnonzero(leaderless).tolist():
        base, _, name = f.names[int(sections[row])].partition(b"$")
        if base in (b".pdata", b".xdata", b".eh_frame"):
            parent[row] = code.get(name, -1)
    return parent


def _refuse_circles(f: CoffFile, parent: Int32) -> None:
    """Raise `ObjectError` for sections that are associated with each other in a circle."""
    steps = 1
    after = np.append(parent, np.int32(-1)).astype(np.int64)  # so many steps up; -1 stays there
    while steps <= len(parent) and (after >= 0).any():
        after = after[after]
        steps *= 2
    in_circle = after >= 0
    f.check(in_circle, "COMDAT sections are associated with each other in a circle", f.table_at)
