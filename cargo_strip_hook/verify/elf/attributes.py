"""Build attributes of the result: each is one that a member has, and none that all have is lost.

Sources: Arm ABI Addenda, "Build Attributes"; RISC-V ELF psABI, "Attributes".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from operator import or_

import numpy as np

from cargo_strip_hook.verify.elf.read import Objects
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.frames import uleb

_FILE, _COMPATIBILITY = 1, 32
_TEXTS = (4, 5)  # of Arm's: names of processors; from 64 on odd tags are text
_ARCH, _RISCV = 5, 243
_FP_ARCH, _GOALS = 10, (30, 31)  # these are put together from parts, or given up


def check(before: Objects, after: Objects, kind: int, findings: Findings) -> None:
    """`kind`: the type of sections with attributes, 0 for none."""
    if not kind:
        return
    olds = np.flatnonzero(before.sections["type"] == kind).tolist()
    mine = np.flatnonzero(after.sections["type"] == kind).tolist()
    if len(mine) != bool(olds):
        findings.add("build attributes", f"are in {len(mine)} sections")
        return
    if not mine:
        return
    facts = after.sections[mine[0]]
    names = {before.section_name(number) for number in olds}
    if after.section_name(mine[0]) not in names or facts["flags"] or facts["entsize"]:
        findings.add("build attributes", "are in a section of another kind")
    contents = {bytes(before.contents(number)) for number in olds}
    contents = {one for one in contents if any(one)}  # GNU ld -r empties those that it joined
    found = bytes(after.contents(mine[0]))
    if len(contents) <= 1:
        if contents and found not in contents:
            findings.add("build attributes", "differ from those that all members have")
        return
    try:
        vendor, tags = _read(found, after.layouts.order, once=True)
        members = [_read(one, before.layouts.order) for one in contents]
    except (IndexError, ValueError):
        findings.add("build attributes", "cannot be read")
        return
    if any(vendor != other for other, _ in members):
        findings.add("build attributes", f"are {vendor!r}'s")
    for tag in sorted(tags.keys() | {tag for _, one in members for tag in one}):
        values = [one.get(tag) for _, one in members]
        alone = tag in tags and all(tag not in one for _, one in members)
        if alone or not _may_be(after.machine, tag, tags.get(tag), values):
            findings.add("build attributes", f"say {tags.get(tag)!r} for {tag}, members {values}")


def _may_be(machine: int, tag: int, value: object, values: list[int | bytes | None]) -> bool:
    """Whether members with these values give this one together; None: nothing is said."""
    if machine == _RISCV and tag == _ARCH and isinstance(value, bytes):
        parts = set().union(*(_extensions(v) for v in values if isinstance(v, bytes)))
        return _extensions(value) <= parts and {p.rstrip(b"0123456789p") for p in parts} == {
            p.rstrip(b"0123456789p") for p in _extensions(value)
        }
    if tag in _GOALS and value in (0, None):
        return True
    if tag == _FP_ARCH and isinstance(value, int):
        return value >= min(v for v in (*values, 0) if isinstance(v, int))
    texts = [v for v in values if isinstance(v, bytes)]
    if texts:  # a name holds only where all say the same
        return value in texts or (value is None and len(set(values)) > 1)
    numbers = {int(v or 0) for v in values}
    return (value or 0) in numbers | {reduce(or_, numbers, 0)}


def _extensions(text: bytes) -> set[bytes]:
    """The instruction sets that a RISC-V string names, with their versions."""
    return {text[:4], *re.sub(rb"^rv\d\d", b"", text).split(b"_")}


def _read(data: bytes, order: str, *, once: bool = False) -> tuple[bytes, dict[int, int | bytes]]:
    """The first vendor, and what is said of the whole file.

    Raises `IndexError`, `ValueError`, with `once` also for what is said twice: readers differ in
    what they take then.
    """
    little = "little" if order == "<" else "big"
    length = int.from_bytes(data[1:5], little)  # type: ignore[arg-type]
    if data[:1] != b"A" or length + 1 != len(data):
        raise ValueError("another format")
    end = data.index(b"\0", 5)
    vendor, at = data[5:end], end + 1
    tags: dict[int, int | bytes] = {}
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5], little)  # type: ignore[arg-type]
        if size < 5 or at + size > len(data):
            raise ValueError("a part does not fit")
        if data[at] == _FILE:
            for tag, value in _tags(data[at + 5 : at + size], vendor):
                if once and tag in tags:
                    raise ValueError("it is said twice")
                tags[tag] = value
        at += size
    return vendor, tags


def _tags(data: bytes, vendor: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = uleb(data, at)
        is_text = tag in _TEXTS if vendor == b"aeabi" and tag < 64 else tag % 2 == 1
        if is_text:
            end = data.index(b"\0", at)
            yield tag, data[at:end]
            at = end + 1
            continue
        value, at = uleb(data, at)
        if tag == _COMPATIBILITY:  # a number and a string, of toolchains that nobody has
            at = data.index(b"\0", at) + 1
        else:
            yield tag, value


__all__ = ["check"]
