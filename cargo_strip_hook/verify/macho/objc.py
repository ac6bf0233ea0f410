"""What Objective-C's and Swift's runtimes need of a result.

Sources: ld64.lld, `Driver.cpp` and `ObjC.cpp` (which members `-ObjC` loads) and
`SyntheticSections.cpp` (`ObjCImageInfoSection`); objc4, `objc-file.h` (flags).
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array, gather
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho.read import Damaged, Object, read

IMAGE_INFO = b"__objc_imageinfo"
_RECORDS = (b"__objc_classlist", b"__objc_catlist", b"__swift5_")
_LIVE_SUPPORT = 0x08000000
# lists that only the runtime reads
_LISTS = tuple(
    b"__objc_" + name
    for name in b"catlist classlist nlclslist nlcatlist protolist stublist imageinfo".split()
)


def check_loaded(
    original: Archive, listed: Iterable[int], used: Container[int], findings: Findings
) -> None:
    """Each member that `-ObjC` makes linkers load (`listed`) is among those of the result."""
    for number in listed:
        if number not in used:
            name = original.members[number].name
            findings.add("-ObjC", f"a linker loads {name}, which is not in the result")


def loaded_always(original: Archive) -> list[int]:
    """The numbers of the members that linkers load under `-ObjC`."""
    return [m.index for m in original.members if _has_records(original.data(m))]


def _has_records(data: memoryview) -> bool:
    """Whether an object has classes, categories or records of Swift's that always live."""
    head = bytes(data[: 32 + int.from_bytes(data[20:24], "little")])
    if head[:4] != b"\xcf\xfa\xed\xfe" or not (b"__objc_c" in head or b"__swift5_" in head):
        return False
    try:
        table = read(data).table
    except Damaged:
        return False
    names, segments = table["name"].tolist(), table["segment"].tolist()
    named = [
        name.startswith(_RECORDS) and (segment.startswith(b"__DATA") or name.startswith(b"__swift"))
        for name, segment in zip(names, segments, strict=True)
    ]
    alive = (table["size"] > 0) & (table["flags"] & _LIVE_SUPPORT == 0)
    return bool((np.array(named, np.bool_) & alive).any())


def always_listed(o: Object) -> Array:
    """bool for each section: whether a runtime walks over it, so that all of it lives."""
    every = o.table["name"].tobytes()
    if b"__objc_" not in every and b"__swift5_" not in every:
        return np.zeros(len(o.table), np.bool_)
    names, segments = o.table["name"].tolist(), o.table["segment"].tolist()
    support = (o.table["flags"] & _LIVE_SUPPORT != 0).tolist()
    found = [
        (name.startswith(_LISTS) and segment.startswith(b"__DATA"))
        or (name.startswith(b"__swift5_") and not alive_with)
        for name, segment, alive_with in zip(names, segments, support, strict=True)
    ]
    return np.array(found, np.bool_)


def check_info(
    before: Object, source: Array, after: Object, target: Array, findings: Findings
) -> None:
    """The merged `__objc_imageinfo` says what all members together do.

    `source` and `target` are places in the octets of both.
    """
    if not len(source):
        return
    flags = gather(before.octets, source + 4, np.dtype("<u4")).astype(np.int64)
    swift = int(np.bitwise_or.reduce(flags & 0xFF00))  # of all that have any it is the same
    wanted = int(np.bitwise_or.reduce(flags & 0xBF)) | int(np.bitwise_and.reduce(flags & 0x40))
    wanted |= swift | int((flags >> 16).max()) << 16
    for at in np.unique(target).tolist():
        found = int.from_bytes(after.data[at + 4 : at + 8], "little")
        if found != wanted:
            findings.add("contents", f"of {IMAGE_INFO.decode()} are not those of all members")
