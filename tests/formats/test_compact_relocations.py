"""Compact relocations (SHT_CREL) in the input: what they say is what a table of RELA says."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cargo_strip_hook
from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.formats.elf import layouts
from cargo_strip_hook.formats.elf.crel import read_compact
from cargo_strip_hook.verify.elf.crel import BadTable, read_tables
from tests.formats import native_kit as kit
from tests.tools import need

CLANG = "clang-22"
COMPACT = "-Wa,--crel,--allow-experimental-crel"
TYPE = 0x40000014  # SHT_CREL, as LLVM writes it
TARGETS = ("x86_64", "i686", "aarch64", "riscv64", "s390x")
SOURCE = """
int puts(const char *);
extern int count;
static const int table[] = {1, 2, 3};
static __thread int own = 5;
static int helper(int x) { return table[x % 3] + count + own++; }
__attribute__((noinline)) int api_one(int x) { if (x > 9) puts("large"); return helper(x); }
int api_two(void) { return helper(7); }
int unused(void) { return helper(8); }
int count = 40;
int (*api_table[])(int) = {helper, api_one};
"""
MAIN = """
#include <stdio.h>
int api_one(int), api_two(void); extern int (*api_table[])(int);
int main(void) {
    int a = api_one(10), b = api_two(), c = api_table[0](2);
    printf("%d %d %d\\n", a, b, c);
    return 0;
}
"""
# the number of one of them, its type and what is added; and how far apart they are
ENTRY = st.tuples(
    st.integers(0, 2**34), st.integers(0, 2**31), st.integers(0, 300), st.integers(-(2**40), 2**40)
)


def _leb(value: int, signed: bool) -> bytes:
    out = bytearray()
    while True:
        octet, value = value & 0x7F, value >> 7
        last = value in ((0,) if not signed else (-1 if octet & 0x40 else 0,))
        out.append(octet | (0 if last else 0x80))
        if last:
            return bytes(out)


def _encode(entries: list[tuple[int, int, int, int]], addends: bool, shift: int) -> bytes:
    """As the format's description says; offsets are those of fields, of 64-bit objects."""
    out = _leb(len(entries) << 3 | addends << 2 | shift, False)
    bits = 3 if addends else 2
    before = (0, 0, 0, 0)
    for entry in entries:
        steps = [new - old for new, old in zip(entry, before, strict=True)]
        flags = sum((step != 0) << n for n, step in enumerate(steps[1 : bits + 1]))
        distance = ((entry[0] >> shift) - (before[0] >> shift)) % 2**64
        out += _leb(distance << bits | flags, False)
        out += b"".join(_leb(step, True) for step in steps[1 : bits + 1] if step)
        before = entry
    return out


def _both(*tables: bytes) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """What the engine reads, and what the verifier does."""
    octets = np.frombuffer(b"\xff" + b"".join(tables), np.uint8)
    size = np.array([len(table) for table in tables])
    start = 1 + np.cumsum(size) - size
    read = read_compact(octets, start, size, layouts.records(64, "<"))
    assert not read.damaged.any()
    rows = read.rows
    columns = rows["offset"], rows["info"] >> np.uint64(32), rows["info"] & np.uint64(0xFFFFFFFF)
    mine = zip(*(c.tolist() for c in (*columns, rows["addend"])), strict=True)
    counts, others, addends = read_tables(octets, start, size)
    assert counts.tolist() == read.counts.tolist()
    assert addends.tolist() == read.addends.tolist()
    return list(mine), list(zip(*(column.tolist() for column in others), strict=True))


@given(st.lists(st.lists(ENTRY, max_size=12), min_size=1, max_size=4), st.integers(0, 3))
def test_both_readers_read_what_was_written(
    tables: list[list[tuple[int, int, int, int]]], shift: int
) -> None:
    wide = [[(e[0] << shift, *e[1:]) for e in table] for table in tables]
    wanted = [entry for table in wide for entry in table]
    mine, others = _both(*(_encode(table, True, shift) for table in wide))
    assert mine == others == wanted
    mine, others = _both(*(_encode(table, False, shift) for table in wide))
    assert mine == others == [(*entry[:3], 0) for entry in wanted]


def test_a_long_table() -> None:
    entries = [(8 * n, n % 3000, 2 + n % 7, -4) for n in range(20_000)]
    mine, others = _both(_encode(entries, True, 3), _encode(entries[:1], True, 0))
    assert mine == others == [*entries, entries[0]]


@pytest.mark.parametrize(
    "table",
    [
        b"\x80",  # a number without an end
        _encode([(8, 1, 2, 3), (16, 2, 2, 3)], True, 0)[:-1],
        b"\x14" + b"\x08",  # two entries are said to be there
        b"\x0c" + b"\x01",  # the symbol that the entry announces is not there
        b"\x0c" + b"\xff" * 10 + b"\x01" + b"\0\0\0",  # longer than any number
    ],
)
def test_a_damaged_table(table: bytes) -> None:
    octets = np.frombuffer(table, np.uint8)
    place = np.array([0]), np.array([len(table)])
    assert read_compact(octets, *place, layouts.records(64, "<")).damaged.tolist() == [True]
    with pytest.raises(BadTable):
        read_tables(octets, *place)


def _libraries(folder: Path, *flags: str) -> tuple[Path, Path]:
    """The same library with and without compact relocations."""
    need(CLANG)
    made = []
    for name, more in (("plain", ()), ("compact", (COMPACT,))):
        same = f"-ffile-prefix-map={folder / name}=."
        sources = {"a.c": SOURCE}
        made.append(kit.library(folder / name, sources, *flags, same, *more, compiler=CLANG))
    plain, compact = made
    data = (folder / "compact" / "a.o").read_bytes()
    order = "<" if data[5] == 1 else ">"
    assert struct.pack(f"{order}I", TYPE) in data
    return plain, compact


@pytest.mark.parametrize("strip", list(Strip))
@pytest.mark.parametrize("target", TARGETS)
def test_the_result_is_that_of_plain_relocations(target: str, strip: Strip, tmp_path: Path) -> None:
    flags = ["-g", "-O1", "-fPIC", "-ffunction-sections", f"--target={target}-linux-gnu"]
    if strip is Strip.NONE:
        flags.append("-gz")
    for library in _libraries(tmp_path, *flags):
        out = library.with_name("out.a")
        cargo_strip_hook.strip(library, output=out, exports="api_*", strip=strip)
    results = [(tmp_path / name / "out.a").read_bytes() for name in ("plain", "compact")]
    assert results[0] == results[1]


def test_it_runs(tmp_path: Path) -> None:
    _, compact = _libraries(tmp_path, "-g", "-O1", "-fPIC", "-ffunction-sections")
    out, main = tmp_path / "libout.a", tmp_path / "main.c"
    cargo_strip_hook.strip(compact, output=out, exports="api_*", strip="none")
    main.write_text(MAIN)
    for linker in kit.LINKERS:
        kit.link(tmp_path / "p", [main, out], linker)
        assert kit.output(tmp_path / "p") == "large\n47 48 50\n"


def test_reports_read_it(tmp_path: Path) -> None:
    plain, compact = _libraries(tmp_path, "-O1", "-fPIC", "-ffunction-sections")
    chains = []
    for library in (plain, compact):
        (reason,) = cargo_strip_hook.why(library, "helper", exports="api_*")
        chains.append([(step.name, step.by, step.retained) for step in reason.chain])
    assert chains[0] == chains[1]
    assert chains[0][0][0] == "api_table"


def test_arms_addends_in_instructions_are_refused(tmp_path: Path) -> None:
    target = "--target=armv7-linux-gnueabihf"
    _, compact = _libraries(tmp_path, "-O1", "-fPIC", "-marm", target)
    with pytest.raises(ObjectError, match="has an addend beside the code") as told:
        cargo_strip_hook.strip(compact, output=tmp_path / "out.a", exports="api_*")
    assert "--crel" in "".join(told.value.help)
