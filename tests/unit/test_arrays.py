"""Array operations that many rooms share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.link import arrays

ROWS = st.lists(
    st.tuples(
        st.sampled_from([b"", b".text", b".text.unlikely.a", b".text.unlikely.b"]),
        st.integers(0, 3) | st.just(1 << 63),
        st.booleans(),
    ),
    max_size=40,
)


def columns(rows: list[tuple[bytes, int, bool]]) -> list[arrays.Array]:
    names, numbers, flags = zip(*rows, strict=True) if rows else ((), (), ())
    return [np.array(names, "S16"), np.array(numbers, np.uint64), np.array(flags, np.bool_)]


@given(ROWS)
def test_alike_groups_rows_that_are_equal(rows: list[tuple[bytes, int, bool]]) -> None:
    group, first = arrays.equal_rows(columns(rows))
    wanted = {row: i for i, row in reversed(list(enumerate(rows)))}
    assert first[group].tolist() == [wanted[row] for row in rows]
    assert len(first) == len(wanted)


@given(ROWS)
def test_rows_whose_hashes_collide_stay_apart(rows: list[tuple[bytes, int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_words", lambda column: [np.zeros(len(column), np.uint64)])
        group, first = arrays.equal_rows(columns(rows))
    assert [rows[i] for i in first[group].tolist()] == rows
