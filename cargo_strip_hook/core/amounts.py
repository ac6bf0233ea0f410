"""Amounts of bytes, as people write them in a configuration file."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*|%)", re.I)


@dataclass(frozen=True, slots=True)
class Growth:
    """How much something may grow: by so many bytes, or by so many per cent."""

    amount: float
    is_percent: bool
    text: str

    def limit(self, before: int) -> int:
        """The size in bytes that something of size `before` may grow to."""
        by = before * self.amount / 100 if self.is_percent else self.amount
        return before + int(by)


def parse_size(text: str) -> int | None:
    """The bytes of ``2 MB``, ``1.5MiB`` or ``300``; None where the text is no size."""
    amount = _AMOUNT.fullmatch(text.strip())
    if amount is None or amount[2].lower() not in _UNITS:
        return None
    return int(float(amount[1]) * _UNITS[amount[2].lower()])


def parse_growth(text: str) -> Growth | None:
    """The growth of ``5 %``, or of a size; None where the text is neither."""
    amount = _AMOUNT.fullmatch(text.strip())
    if amount is not None and amount[2] == "%":
        return Growth(float(amount[1]), True, text)
    size = parse_size(text)
    return None if size is None else Growth(size, False, text)
