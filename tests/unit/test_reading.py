"""What readers of all formats share: errors that tell the place, and tables of many files."""

from __future__ import annotations

import numpy as np
import pytest

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.dwarf import initial_length
from cargo_strip_hook.link.contributions import collected, stacked
from cargo_strip_hook.link.model import Input
from cargo_strip_hook.link.reading import InputFile, InputFiles, by_file, numbered, per_file

WORDS = memoryview(np.arange(4, dtype="<u4").tobytes())
WORD = np.dtype("<u4")


def test_a_table_is_read_where_it_is() -> None:
    assert InputFile("a.o", WORDS).table(WORD, 4, 2, "the words reach").tolist() == [1, 2]
    assert not len(InputFile("a.o", WORDS).table(WORD, 16, 0, "the words reach"))


@pytest.mark.parametrize(("offset", "count"), [(4, 4), (17, 0), (-4, 1), (0, -1), (1 << 63, 1)])
def test_a_table_outside_of_its_file_is_refused(offset: int, count: int) -> None:
    with pytest.raises(ObjectError, match="the words reach beyond the end") as error:
        InputFile("a.o", WORDS).table(WORD, offset, count, "the words reach")
    assert (error.value.member, error.value.offset) == ("a.o", offset)


def test_the_first_that_is_bad_is_told_with_its_member_and_place() -> None:
    bad, places = np.array([False, True, True]), np.array([5, 6, 7])
    with pytest.raises(ObjectError) as error:
        InputFile("a.o", WORDS).check(bad, "no", places)
    assert (error.value.member, error.value.offset) == ("a.o", 6)
    files = InputFiles([Input(0, "a.o", WORDS), Input(1, "b.o", WORDS)])
    with pytest.raises(ObjectError) as error:
        files.check(bad, np.array([0, 1, 1]), "no", places)
    assert (error.value.member, error.value.offset) == ("b.o", 6)
    files.check(np.zeros(3, np.bool_), np.zeros(3, np.int64), "no")


def test_tables_of_many_files_come_apart_as_they_were() -> None:
    first, owner = numbered([2, 0, 1])
    assert (first.tolist(), owner.tolist()) == ([0, 2, 2, 3], [0, 0, 2])
    table = np.array([10, 11, 12])
    assert [part.tolist() for part in per_file(table, first)] == [[10, 11], [], [12]]
    mixed = by_file(table, np.array([2, 0, 2]), 3)
    assert [part.tolist() for part in mixed] == [[11], [], [10, 12]]


def test_contributions_stand_by_name_and_unit_each_aligned() -> None:
    rows, names = collected(
        [(b".x", 1, 5, 1, 3), (b".y", 1, 6, 4, 2), (b".y", 2, 3, 8, 4), (b".x", 0, 7, 4, 1)]
    )
    assert names == (b".x", b".y")
    assert rows[["out", "unit", "section"]].tolist() == [(0, 0, 7), (0, 1, 5), (1, 1, 6), (1, 2, 3)]
    offsets, ends, aligns = stacked(rows, rows["size"], len(names))
    assert offsets.tolist() == [0, 1, 0, 8]
    assert (ends.tolist(), aligns.tolist()) == ([4, 12], [4, 8])
    assert [len(column) for column in (*collected([]), *stacked(rows[:0], ends[:0], 0))] == [0] * 5


def test_lengths_of_both_forms() -> None:
    assert initial_length(b"\x05\0\0\0", 0) == (4, 9)
    assert initial_length(b"\0\0\0\x05", 0, ">") == (4, 9)
    assert initial_length(b"?\xff\xff\xff\xff\x05" + bytes(7), 1) == (13, 18)
