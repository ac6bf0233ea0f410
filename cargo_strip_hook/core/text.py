"""Amounts in words, for people."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes for people, in decimal units: ``23.1 MB``, ``870 kB``, ``12 bytes``."""
    if count < 1000:
        return f"{count} byte" + ("s" if count != 1 else "")
    # what would round up to 1000 of a unit is given in the next one
    if count < 999_500:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 999_950_000 else f"{count / 1e9:.2f} GB"


def change(before: int, after: int) -> str:
    """``-95 %`` of `before` bytes; never -100 % where something is left."""
    if before == 0:
        return "+0 %"
    percent = round(100 * (after - before) / before)
    if after and percent == -100:
        percent = -99
    return f"{percent:+d} %"
