"""Names of symbols: numbers for them, and how they are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


def shown(name: bytes) -> str:
    """A name in a message."""
    return name.decode("utf-8", "replace")


def quoted(name: bytes) -> str:
    """A name in a message, set apart from its words."""
    return f"`{shown(name)}`"


def encoded(names: Iterable[str]) -> set[bytes]:
    """Names as objects have them; see `texts`."""
    return {name.encode("utf-8", "surrogateescape") for name in names}


def texts(names: Iterable[bytes]) -> tuple[str, ...]:
    """Names as text, sorted; bytes that are no UTF-8 survive the way back."""
    return tuple(sorted(name.decode("utf-8", "surrogateescape") for name in names))


@dataclass
class Names:
    """Numbers for names, shared by both sides."""

    number: dict[bytes, int] = field(default_factory=dict)
    text: list[bytes] = field(default_factory=list)

    def of(self, name: bytes) -> int:
        """The number of a name, a new one the first time."""
        found = self.number.setdefault(name, len(self.text))
        if found == len(self.text):
            self.text.append(name)
        return found


__all__ = ["Names", "encoded", "quoted", "shown", "texts"]
