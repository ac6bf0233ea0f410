"""A squarified treemap as SVG.

Source: Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cargo_strip_hook.present.plain import html as escape

_LETTER = 6.6  # width of a letter, in units of the drawing
_LINE = 16


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle of the drawing; its area is in proportion to a size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of a box: a kind of contents, and its size."""

    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Box:
    """A crate of the map, drawn as its leaves; `words` describe it."""

    name: str
    words: str
    leaves: tuple[Leaf, ...]

    @property
    def size(self) -> int:
        return sum(leaf.size for leaf in self.leaves)


def squarify(sizes: Sequence[int], frame: Rectangle) -> list[Rectangle]:
    """A rectangle for each size; together they fill `frame`. No size is 0, the largest is first."""
    total = sum(sizes)
    if not total:
        return []
    scale = frame.width * frame.height / total
    areas = [s * scale for s in sizes]
    rectangles: list[Rectangle] = []
    left, begin = frame, 0
    while begin < len(areas):
        side = min(left.width, left.height)
        end = begin + 1
        while end < len(areas) and _worst(areas[begin : end + 1], side) <= _worst(
            areas[begin:end], side
        ):
            end += 1
        row = areas[begin:end]
        # the last row takes all that is left: nothing is lost to rounding
        thick = sum(row) / side if end < len(areas) else max(left.width, left.height)
        along = 0.0
        for area in row:
            long = area / sum(row) * side
            if left.width >= left.height:
                rectangles.append(Rectangle(left.x, left.y + along, thick, long))
            else:
                rectangles.append(Rectangle(left.x + along, left.y, long, thick))
            along += long
        if left.width >= left.height:
            left = Rectangle(left.x + thick, left.y, left.width - thick, left.height)
        else:
            left = Rectangle(left.x, left.y + thick, left.width, left.height - thick)
        begin = end
    return rectangles


def _worst(row: Sequence[float], side: float) -> float:
    """The largest ratio of the sides of a row's rectangles."""
    total = sum(row)
    return max(side * side * max(row) / total**2, total**2 / (side * side * min(row)))


def drawing(boxes: Sequence[Box], width: int, height: int, label: str, style: str) -> str:
    """The map as an `svg` element of class `style`; for screen readers, a list of boxes."""
    shown = sorted((b for b in boxes if b.size), key=lambda b: (-b.size, b.name))
    parts = [
        f'<svg class="map {style}" viewBox="0 0 {width} {height}" role="list" '
        f'aria-label="{escape(label)}">'
    ]
    rectangles = squarify([b.size for b in shown], Rectangle(0, 0, width, height))
    for number, (box, frame) in enumerate(zip(shown, rectangles, strict=True)):
        parts.append(
            f'<g role="listitem" tabindex="{-1 if number else 0}" '
            f'aria-label="{escape(box.words)}" data-size="{box.size}">'
            f"<title>{escape(box.words)}</title>"
        )
        leaves = sorted((x for x in box.leaves if x.size), key=lambda x: -x.size)
        for leaf, inner in zip(leaves, squarify([x.size for x in leaves], frame), strict=True):
            parts.append(_rectangle(inner, f"leaf {leaf.kind}", f' data-size="{leaf.size}"'))
        parts.append(_rectangle(frame, "frame", ""))
        text = _label(box.name, frame)
        if text:
            parts.append(
                f'<text x="{frame.x + 5:.2f}" y="{frame.y + 15:.2f}">{escape(text)}</text>'
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _rectangle(frame: Rectangle, style: str, more: str) -> str:
    return (
        f'<rect class="{style}" x="{frame.x:.4f}" y="{frame.y:.4f}" width="{frame.width:.4f}" '
        f'height="{frame.height:.4f}"{more}/>'
    )


def _label(name: str, frame: Rectangle) -> str:
    """A name, cut to the width that there is."""
    letters = int((frame.width - 10) / _LETTER)
    if frame.height < _LINE + 4 or letters < 3:
        return ""
    return name if len(name) <= letters else name[: letters - 1] + "…"


__all__ = ["Box", "Leaf", "Rectangle", "drawing", "squarify"]
