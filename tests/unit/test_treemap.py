"""Rectangles of a treemap: they fill their place, in proportion, and do not overlap."""

from __future__ import annotations

import re
from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.present.treemap import Box, Leaf, Rectangle, drawing, squarify

SIZES = st.lists(st.integers(1, 10**6), min_size=1, max_size=25)


@given(SIZES, st.integers(50, 1500), st.integers(50, 1500))
def test_areas(sizes: list[int], width: int, height: int) -> None:
    sizes.sort(reverse=True)
    found = squarify(sizes, Rectangle(3, 4, width, height))
    unit = width * height / sum(sizes)
    for size, one in zip(sizes, found, strict=True):
        assert isclose(one.width * one.height, size * unit, rel_tol=1e-6)
        assert one.x >= 3 - 1e-6 and one.x + one.width <= 3 + width + 1e-6
        assert one.y >= 4 - 1e-6 and one.y + one.height <= 4 + height + 1e-6
    for n, a in enumerate(found):
        for b in found[:n]:
            across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            along = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            assert across < 1e-5 or along < 1e-5


def test_the_paper_s_example() -> None:
    """Areas 6, 6, 4, 3, 2, 2, 1 in 6 by 4, as figure 1 of the paper ends."""
    found = squarify([6, 6, 4, 3, 2, 2, 1], Rectangle(0, 0, 6, 4))
    shapes = [(round(r.width, 2), round(r.height, 2)) for r in found]
    assert shapes == [
        (3, 2),
        (3, 2),
        (1.71, 2.33),
        (1.29, 2.33),
        (1.2, 1.67),
        (1.2, 1.67),
        (0.6, 1.67),
    ]


def test_names_are_escaped_and_shortened() -> None:
    boxes = [
        Box("<script>", "words & more", (Leaf("code", 90), Leaf("data", 0))),
        Box("a_very_long_name_of_a_crate", "long", (Leaf("code", 10),)),
        Box("nothing", "none", ()),
    ]
    found = drawing(boxes, 300, 100, 'the "label"', "wide")
    assert "&lt;script&gt;" in found and "<script>" not in found
    assert 'aria-label="words &amp; more"' in found and "&quot;label&quot;" in found
    assert found.count("<g ") == 2
    assert len(re.findall('class="leaf', found)) == 2
