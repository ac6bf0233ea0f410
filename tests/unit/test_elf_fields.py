"""Fields of relocations, and build attributes: values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.formats.elf.attributes import join_arch
from cargo_strip_hook.formats.elf.machine import machine
from cargo_strip_hook.link.fields import FIELDS, Field, decode, encode, fits, width


@pytest.mark.parametrize(
    ("field", "order", "value", "before", "after"),
    [
        (Field.BITS8, "<", -2, "00", "fe"),
        (Field.BITS16, ">", 0x1234, "0000", "1234"),
        (Field.BITS32, "<", -4, "00000000", "fcffffff"),
        (Field.BITS32, ">", 0x80000000, "00000000", "80000000"),
        (Field.BITS64, "<", -1, "00" * 8, "ff" * 8),
        # the top bit of an index table's entry stays
        (Field.LOW31, "<", -8, "00000080", "f8ffffff"),
        (Field.LOW31, "<", -8, "00000000", "f8ffff7f"),
        # larl %r1,.+10: the displacement counts halfwords
        (Field.HALVES32, ">", 10, "00000000", "00000005"),
        (Field.HALVES16, ">", -4, "0000", "fffe"),
        # bl .-4 and bl .+8, b.eq .+16, tbz x1,#3,.-8 (as llvm-mc writes them)
        (Field.A64_BRANCH26, "<", -4, "00000094", "ffffff97"),
        (Field.A64_BRANCH26, "<", 8, "ffffff97", "02000094"),
        (Field.A64_BRANCH19, "<", 16, "00000054", "80000054"),
        (Field.A64_BRANCH14, "<", -8, "01001836", "c1ff1f36"),
    ],
)
def test_a_value_in_its_field(
    field: Field, order: str, value: int, before: str, after: str
) -> None:
    old = np.frombuffer(bytes.fromhex(before), np.uint8).reshape(1, -1)
    new = encode(field, np.array([value], np.int64), old, order)
    assert new.tobytes().hex() == after
    signed = value - (1 << 32) if field is Field.BITS32 and value >= 1 << 31 else value
    assert decode(field, new, order).tolist() == [signed]


@given(
    st.sampled_from(FIELDS),
    st.sampled_from("<>"),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.binary(min_size=8, max_size=8),
)
def test_what_fits_comes_back_and_the_rest_stays(
    field: Field, order: str, value: int, around: bytes
) -> None:
    old = np.frombuffer(around[: width(field)], np.uint8).reshape(1, -1)
    number = np.array([value], np.int64)
    if fits(field, number)[0]:
        new = encode(field, number, old, order)
        assert decode(field, new, order)[0] == value
        # what was there can be put back: no other bit has changed
        again = encode(field, decode(field, old, order), new, order)
        assert again.tobytes() == old.tobytes()


def test_an_instruction_set_has_the_extensions_of_both() -> None:
    # canonical order: RISC-V ISA manual, "ISA Extension Naming Conventions"
    assert (
        join_arch(b"rv64i2p1_m2p0_a2p1_zicsr2p0_zba1p0", b"rv64i2p1_f2p2_c2p0_zmmul1p0_xthead1p0")
        == b"rv64i2p1_m2p0_a2p1_f2p2_c2p0_zicsr2p0_zmmul1p0_zba1p0_xthead1p0"
    )
    assert join_arch(b"rv64i2p0_m2p0", b"rv64i2p1") == b"rv64i2p1_m2p0"


def test_what_is_known_of_machines() -> None:
    assert machine(8, 64, "<") is None, "MIPS64 lays r_info out in another way"
    unknown = machine(4711, 64, ">")
    assert unknown is not None and not unknown.direct and not unknown.relative
    big = machine(183, 64, ">")
    little = machine(183, 64, "<")
    assert big is not None and little is not None
    assert little.relative and not big.relative, "instructions stay little endian"
    assert machine(183, 64, "<") is little
