"""`.eh_frame` as its bytes say: records, the CIE of each FDE, what a CIE says of its FDEs."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.link.frames import (
    FrameRecords,
    FrameRules,
    augmentation_data,
    read_cie,
    read_records,
)

ENCODINGS = {0x10: 8, 0x1B: 4}
CIE = b"\x01zPLR\0\x01\x78\x10\x07\x9b\0\0\0\0\x10\x1b"


def record(pointer: int, body: bytes, order: str = "<") -> bytes:
    body = body.ljust(-(-len(body) // 4) * 4, b"\0")
    return struct.pack(f"{order}II", len(body) + 4, pointer) + body


def damaged(section: int, what: str, offset: int) -> ObjectError:
    return ObjectError(f"{section}: {what}", member="m.o", offset=offset)


def records_of(*sections: bytes, rules: FrameRules | None = None) -> FrameRecords:
    """The records of sections with the numbers 1, 3, 5 …, one byte apart."""
    size = np.zeros(2 * len(sections), np.int64)
    size[1::2] = [len(s) for s in sections]
    begin = np.cumsum(size) - size + np.arange(len(size)) // 2
    octets = np.frombuffer(b"\xee".join(sections), np.uint8)
    odd = np.arange(1, len(size), 2)
    return read_records(octets, odd, begin, size, rules or FrameRules(), damaged)


@pytest.mark.parametrize("order", ["<", ">"])
def test_each_fde_finds_its_cie(order: str) -> None:
    cie = record(0, b"12345678", order)
    one = cie + record(len(cie) + 4, bytes(8), order) + bytes(4)
    two = bytes(4) + cie + cie + record(len(cie) + 4, bytes(4), order)
    found = records_of(one, two, rules=FrameRules(order=order))
    assert found.section.tolist() == [1, 1, 3, 3, 3]
    assert found.start.tolist() == [0, 16, 4, 20, 36]
    assert found.size.tolist() == [16, 16, 16, 16, 12]
    fde, cie_of = found.fdes()
    assert (fde.tolist(), cie_of.tolist()) == ([1, 4], [0, 3])


def test_an_fde_may_not_point_out_of_its_section_or_at_another_fde() -> None:
    cie = record(0, bytes(8))
    far = record(4 + len(cie), bytes(8))
    wrong = [record(4, bytes(4)), record(8, bytes(4)), record(500, bytes(4))]
    _, cie_of = records_of(cie, *wrong, cie + far + record(4 + len(far), bytes(4))).fdes()
    assert cie_of.tolist() == [-1, -1, -1, 4, -1]


def test_which_record_holds_a_place() -> None:
    cie = record(0, bytes(8))
    found = records_of(cie + cie + bytes(4), bytes(4) + cie)
    section = np.array([1, 1, 1, 3, 3, 3, 2])
    offset = np.array([15, 16, 32, 3, 4, -1, 4])
    assert found.holding(section, offset).tolist() == [0, 1, -1, -1, 2, -1, -1]
    nothing = records_of(bytes(8))
    assert nothing.holding(section, offset).tolist() == [-1] * 7


@pytest.mark.parametrize(
    ("rules", "contents", "what", "offset"),
    [
        (FrameRules(), record(0, bytes(4)) + b"\x08\0\0\0\0\0\0", "a record does not fit", 12),
        (FrameRules(), b"\x04\0\0\0\0\0\0\0", "a record does not fit", 0),
        (FrameRules(unit=4), b"\x09\0\0\0" + bytes(12), "a record does not fit", 0),
        (FrameRules(), b"\xff" * 4 + bytes(20), "in the 64-bit form are not supported", 0),
        (FrameRules(ends=True), bytes(4) + record(0, bytes(4)), "records behind its end", 0),
    ],
)
def test_what_is_damaged_is_told(
    rules: FrameRules, contents: bytes, what: str, offset: int
) -> None:
    with pytest.raises(ObjectError, match=what) as caught:
        records_of(contents, rules=rules)
    assert caught.value.offset == offset


def test_what_some_formats_take() -> None:
    odd = struct.pack("<II", 9, 0) + bytes(5)
    assert records_of(odd).size.tolist() == [13]
    short = struct.pack("<II", 4, 7)
    assert records_of(short, rules=FrameRules(shortest=4)).pointer.tolist() == [7]
    assert records_of(
        record(0, bytes(4)) + bytes(8), rules=FrameRules(ends=True)
    ).size.tolist() == [12]


def test_a_cie_tells_how_wide_pointers_are() -> None:
    def fail(what: str) -> ObjectError:
        return ObjectError(what, member="m.o", offset=0)

    def sizes(cie: bytes) -> tuple[int, int]:
        return read_cie(memoryview(record(0, cie)), ".eh_frame", ENCODINGS, fail)

    assert sizes(CIE) == (4, 8)
    assert sizes(b"\x01zR\0\x01\x78\x10\x01\x10") == (8, 0)
    assert sizes(b"\x03zLR\0\x01\x78\x90\x01\x02\xff\x1b") == (4, 0)  # no LSDA; a long register
    for cie, what in (
        (CIE.replace(b"\x10\x1b", b"\x00\x1b"), "an unknown LSDA encoding"),
        (CIE.replace(b"\x10\x1b", b"\x10\x00"), "an unknown address encoding"),
        (CIE.replace(b"zPLR", b"zPLQ"), "an unknown augmentation"),
        (CIE.replace(b"zPLR", b"PLRS"), "no augmentation data"),
        (b"\x01zR" + b"\1" * 5, "is cut short"),
    ):
        with pytest.raises(ObjectError, match=what):
            sizes(cie)


def test_where_augmentation_data_is() -> None:
    octets = np.frombuffer(b"....\x05abcde" + b"\x81\x01" + b"\x80" * 4, np.uint8)
    begin, size = np.array([0, 0, 8, 12]), np.array([10, 4, 8, 4])
    start, length = augmentation_data(octets, begin, size, np.array([4, 4, 2, 0]))
    assert length.tolist() == [5, -1, 129, -1]
    assert (start[0], start[2]) == (5, 4)
