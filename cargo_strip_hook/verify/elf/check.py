"""The order of the checks of an ELF result."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.verify.arrays import Array, unique
from cargo_strip_hook.verify.elf import (
    aside,
    comdat,
    commons,
    order,
    pieces,
    relocations,
    structure,
    symbols,
    unwind,
)
from cargo_strip_hook.verify.elf.elements import cut
from cargo_strip_hook.verify.elf.frames import Frames, read_frames
from cargo_strip_hook.verify.elf.groups import beaten
from cargo_strip_hook.verify.elf.infer import infer_placement
from cargo_strip_hook.verify.elf.machine import machine
from cargo_strip_hook.verify.elf.mapping import Pair, Resolution, resolve
from cargo_strip_hook.verify.elf.read import (
    SHF_ALLOC,
    STB_LOCAL,
    STEP,
    Damaged,
    Objects,
    let_go,
    read_objects,
)
from cargo_strip_hook.verify.expectation import (
    Expectation,
    Findings,
    Reading,
    Verified,
    compares_debug,
    taken,
)
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit.frames import BadFrames
from cargo_strip_hook.verify.kit.names import encoded, texts
from cargo_strip_hook.verify.kit.surface import check_index
from cargo_strip_hook.verify.loading import loading

_X86_FEATURE_1_AND, _AARCH64_FEATURE_1_AND = 0xC0000002, 0xC0000000


def check(
    original: Archive,
    listing: Listing,
    candidate: bytes | mmap.mmap,
    expectation: Expectation,
    findings: Findings,
    ahead: Reading | None = None,
) -> Verified:
    """Compare the only object of `candidate` with the members of `original` it was made of.

    `ahead` is what `read_original` gave for some members. What is wrong goes to `findings`. Raises
    `ObjectError` for a damaged original.
    """
    nothing = Verified((), ())
    _, offset, size = listing.members[0]
    try:
        after = read_objects(candidate, [offset], [size])
        if not len(after.symbols):
            raise Damaged(0, "there is no symbol table")
        structure.check_structure(after, expectation, findings)
    except (Damaged, IndexError) as e:
        findings.add("damaged", str(e))
        return nothing
    let_go(candidate)
    image = memoryview(candidate)[offset : offset + size]
    properties = structure.second_reading(after, image, findings)
    if findings:  # what follows relies on a sound object
        return nothing
    pair = _pair(original, after, expectation, findings, ahead)
    if pair is None:
        return nothing
    structure.check_identity(pair.before, after, findings)
    if pair.complete:
        structure.check_against_members(pair.before, after, findings)
        structure.check_stack_note(pair.before, after, findings)
        check_properties(pair, properties)
    try:
        return compare(pair, listing)
    except (Damaged, BadFrames) as e:
        findings.add("damaged", str(e))
        return nothing


def _object_error(original: Archive, member: str, wrong: Damaged) -> ObjectError:
    return ObjectError(
        wrong.what,
        path=original.slice.name,
        member=member,
        offset=wrong.offset,
        help="the library is damaged, and was not changed: build it again",
    )


def _used(original: Archive, expectation: Expectation) -> list[int]:
    """The numbers of the members that a result was made of, as far as the link map says."""
    if expectation.link_map is None:
        return [m.index for m in original.members if bytes(original.data(m)[:4]) == b"\x7fELF"]
    used: list[int] = unique(expectation.link_map["member"]).tolist()
    # only commons, or values: these have no place
    return used or _defining(original, expectation)


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """The members that are used, and what is told of them.

    `frames` are their unwind tables, None where those cannot be read; `kinds` see `pieces.kinds`;
    `index` has the names of all members, None where the archive has no index.
    """

    objects: Objects
    frames: Frames | None
    kinds: Array
    index: Mapping[bytes, int] | None


def read_original(original: Archive, used: Sequence[int]) -> Original:
    """Read members by their numbers. Raises `ObjectError`."""
    objects = read_members(original, used)
    try:
        frames = read_frames(objects, objects.frame_sections)
    except (BadFrames, Damaged, IndexError):
        frames = None
    _ = objects.names, objects.targets, objects.compressed  # kept: they will be asked for
    kinds = pieces.kinds(objects)
    let_go(objects.buffer)
    return Original(objects, frames, kinds, original.symbols())


def _pair(
    original: Archive,
    after: Objects,
    expectation: Expectation,
    findings: Findings,
    ahead: Reading | None,
) -> Pair | None:
    """Read the members that are used, and index the placement by their sections."""
    used = _used(original, expectation)
    if used and not 0 <= used[0] <= used[-1] < len(original.members):
        findings.add("placement", "names a member that the original has not")
        return None
    if not used:
        findings.add("placement", "nothing of the original is in the result")
        return None
    read = taken(ahead, used, Original) or read_original(original, used)
    before = read.objects
    if before.machine != after.machine or before.layouts != after.layouts:
        findings.add("damaged", "made for another processor than the original")
        return None
    if expectation.link_map is None:
        rows, section = infer_placement(before, after, findings)
    else:
        rows = expectation.link_map
        position = np.searchsorted(np.array(used), rows["member"])
        count = np.diff(before.section_base)[position]
        bad = (rows["section"] <= 0) | (rows["section"] >= count)
        bad |= (rows["out_section"] <= 0) | (rows["out_section"] >= len(after.sections))
        if bad.any():
            findings.add("placement", f"row {int(np.flatnonzero(bad)[0])} names no section")
            return None
        section = before.section_base[position] + rows["section"]
    covers_debug = before.is_debug[section]
    about, about_section = rows[covers_debug], section[covers_debug]
    rows, section = rows[~covers_debug], section[~covers_debug]
    whole = (rows["offset"] == 0) & (rows["size"] == before.sections["size"][section])
    location = (rows["out_section"].astype(np.int64) << STEP) + rows["out_offset"]
    pieces_of = cut(before, rows[~whole], section[~whole], location[~whole], findings)
    placed = section[whole]
    if len(unique(placed)) != len(placed) or pieces_of.is_cut[placed].any():
        findings.add("placement", "a section is placed twice")
    row = np.full(len(before.sections), -1, np.int64)
    row[placed] = np.flatnonzero(whole)
    if findings:
        return None
    return Pair(
        expectation,
        findings,
        before,
        after,
        tuple(original.members[i].name for i in used),
        tuple(used),
        loading(original, expectation, lambda: order.contents(original, read_members)),
        rows,
        section,
        row,
        location,
        pieces_of,
        expectation.link_map is not None,
        machine(after.machine, after.layouts.order),
        defined_among(original, read.index, symbols_of(after)),
        about,
        about_section,
        read.frames,
        read.kinds,
        beaten(before, row, findings if expectation.link_map is not None else None),
    )


def _defining(original: Archive, expectation: Expectation) -> list[int]:
    """The members that the exports are in, all of them where the archive has no index."""
    index = original.symbols()
    if index is None:
        return [m.index for m in original.members if bytes(original.data(m)[:4]) == b"\x7fELF"]
    found = (index.get(name) for name in encoded(expectation.exports))
    return sorted({number for number in found if number is not None})


def symbols_of(after: Objects) -> frozenset[bytes]:
    """The names of the result's undefined symbols."""
    s = after.symbols
    undefined = np.flatnonzero(s["undefined"] & (s["binding"] != STB_LOCAL))
    return frozenset(after.string(int(at)) for at in s["name"][undefined].tolist())


def read_members(original: Archive, used: Sequence[int]) -> Objects:
    members = [original.members[i] for i in used]
    if original.thin:
        # the members are files of their own: put the used ones side by side
        parts = [bytes(original.data(m)) for m in members]
        sizes = [len(p) for p in parts]
        base = np.concatenate(([0], np.cumsum(sizes)))[:-1].tolist()
        buffer: bytes | mmap.mmap = b"".join(parts)
    else:
        base, sizes = [m.offset for m in members], [m.size for m in members]
        with original.path.open("rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        objects = read_objects(buffer, base, sizes)
        let_go(buffer)
        return objects
    except Damaged as e:
        raise _object_error(original, members[e.index].name, e) from e
    except (IndexError, ValueError, OverflowError) as e:
        raise ObjectError(str(e), path=str(original.path)) from e


def defined_among(
    original: Archive, index: Mapping[bytes, int] | None, names: frozenset[bytes]
) -> frozenset[bytes]:
    """Which of the names a member of the original defines: from its index, or from all members."""
    if not names:
        return names
    if index is not None:
        return names & index.keys()
    elf = [m.index for m in original.members if bytes(original.data(m)[:4]) == b"\x7fELF"]
    objects = read_members(original, elf)
    s = objects.symbols
    defining = np.flatnonzero((s["binding"] != STB_LOCAL) & ~s["undefined"])
    return names & {objects.string(int(at)) for at in s["name"][defining].tolist()}


def compare(
    pair: Pair, listing: Listing, seen: list[tuple[relocations.Sides, Resolution]] | None = None
) -> Verified:
    """All comparisons. The relocations and what names stand for are added to `seen`."""
    findings = pair.findings
    pieces.check_layout(pair)
    aside.check(pair)
    if findings:
        return Verified((), ())
    sides = relocations.collect(pair)
    frames = unwind.read(pair)
    referenced = np.zeros(len(pair.before.symbols), np.bool_)
    if (sides.before["symbol"] < 0).any() or (sides.asking["symbol"] < 0).any():
        findings.add("damaged", "the original has a relocation with a symbol that is not there")
        return Verified((), ())
    referenced[sides.before["symbol"]] = True
    referenced[sides.asking["symbol"]] = True
    if frames is not None:
        referenced |= frames.referenced
    let_go(pair.before.buffer)
    resolution = resolve(pair, referenced)
    if seen is not None:
        seen.append((sides, resolution))
    order.check_winners(pair, resolution, referenced)
    comdat.check(pair, sides)
    changed = relocations.check(pair, resolution, sides)
    functions = unwind.check(pair, frames, resolution) if frames is not None else 0
    compared = pieces.check_bytes(pair, changed)
    definitions = symbols.global_definitions(pair)
    undefined = symbols.undefined_names(pair)
    symbols.check_exports(pair, definitions, resolution)
    commons.check(pair, resolution, definitions)
    symbols.check_undefined(pair, undefined, resolution)
    symbols.check_locals(pair, resolution)
    if pair.complete and compares_debug(pair.expectation) and not findings:
        from cargo_strip_hook.verify.elf import debug

        debug.check(pair, resolution)
    header = listing.members[0][0]
    check_index(listing, [(name, header) for name in definitions], findings)
    return Verified(
        texts(definitions),
        texts(undefined),
        len(pair.link_map),
        compared,
        len(sides.before),
        changed.resolved,
        functions,
    )


def check_properties(pair: Pair, properties: dict[int, int], among: Array | None = None) -> None:
    """`.note.gnu.property`: a feature is promised only where all used members promise it.

    `among` are the members of the original that count, by their numbers among those that are used.
    """
    for kind in (_X86_FEATURE_1_AND, _AARCH64_FEATURE_1_AND):
        promised = properties.get(kind, 0)
        if not isinstance(promised, int) or not promised:
            continue
        common = _common_feature(pair.before, kind, among)
        if promised & ~common:
            pair.findings.add(
                ".note.gnu.property", f"promises {promised:#x}, the members only {common:#x}"
            )


def _common_feature(before: Objects, kind: int, among: Array | None) -> int:
    """The AND of a property over all objects; linux-abi gABI extensions, "GNU property"."""
    values = np.zeros(len(before.base), np.int64)
    order, step = before.layouts.order, before.layouts.bits // 8
    notes = np.flatnonzero(
        before.names_begin(b".note.gnu.property\0") & (before.sections["flags"] & SHF_ALLOC != 0)
    )
    for number in notes.tolist():
        words = np.frombuffer(before.contents(number)[16:], f"{order}u4").tolist()
        at = 0
        while at + 1 < len(words):
            if words[at] == kind and at + 2 < len(words):
                values[before.sections["object"][number]] = words[at + 2]
            at += 2 + -(-words[at + 1] // step) * step // 4
    return int(np.bitwise_and.reduce(values if among is None else values[among]))
