"""A squarified treemap as SVG.

Source: Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cargo_strip_hook.present.plain import html as escape

_LETTER = 6.6  # width of one, in units of the drawing
_LINE = 16


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A place in the drawing, whose area is in proportion to a size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part of a box: what kind it is of, and its size."""

    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Box:
    """One thing of the map, drawn as the parts that it consists of; `words` tell of it."""

    name: str
    words: str
    leaves: tuple[Leaf, ...]

    @property
    def size(self) -> int:
        return sum(leaf.size for leaf in self.leaves)


def squarify(sizes: Sequence[int], place: Rectangle) -> list[Rectangle]:
    """A rectangle for each size, none of them zero, the largest first; they fill `place`."""
    total = sum(sizes)
    if not total:
        return []
    scale = place.width * place.height / total
    areas = [s * scale for s in sizes]
    rectangles: list[Rectangle] = []
    left, begin = place, 0
    while begin < len(areas):
        side = min(left.width, left.height)
        end = begin + 1
        while end < len(areas) and _worst(areas[begin : end + 1], side) <= _worst(
            areas[begin:end], side
        ):
            end += 1
        row = areas[begin:end]
        # what is left is filled to its end: nothing is lost to rounding
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
    """How far from a square the worst of a row's rectangles is."""
    total = sum(row)
    return max(side * side * max(row) / total**2, total**2 / (side * side * min(row)))


def drawing(boxes: Sequence[Box], width: int, height: int, label: str, style: str) -> str:
    """The map as an `svg` element of class `style`, a list of boxes for screen readers."""
    shown = sorted((b for b in boxes if b.size), key=lambda b: (-b.size, b.name))
    parts = [
        f'<svg class="map {style}" viewBox="0 0 {width} {height}" role="list" '
        f'aria-label="{escape(label)}">'
    ]
    places = squarify([b.size for b in shown], Rectangle(0, 0, width, height))
    for number, (box, place) in enumerate(zip(shown, places, strict=True)):
        parts.append(
            f'<g role="listitem" tabindex="{-1 if number else 0}" '
            f'aria-label="{escape(box.words)}" data-size="{box.size}">'
            f"<title>{escape(box.words)}</title>"
        )
        leaves = sorted((x for x in box.leaves if x.size), key=lambda x: -x.size)
        for leaf, inner in zip(leaves, squarify([x.size for x in leaves], place), strict=True):
            parts.append(_rectangle(inner, f"leaf {leaf.kind}", f' data-size="{leaf.size}"'))
        parts.append(_rectangle(place, "frame", ""))
        text = _label(box.name, place)
        if text:
            parts.append(
                f'<text x="{place.x + 5:.2f}" y="{place.y + 15:.2f}">{escape(text)}</text>'
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _rectangle(place: Rectangle, style: str, more: str) -> str:
    return (
        f'<rect class="{style}" x="{place.x:.4f}" y="{place.y:.4f}" width="{place.width:.4f}" '
        f'height="{place.height:.4f}"{more}/>'
    )


def _label(name: str, place: Rectangle) -> str:
    """As much of a name as there is room for."""
    letters = int((place.width - 10) / _LETTER)
    if place.height < _LINE + 4 or letters < 3:
        return ""
    return name if len(name) <= letters else name[: letters - 1] + "…"


__all__ = ["Box", "Leaf", "Rectangle", "drawing", "squarify"]
