"""Budgets: whether a library is larger than allowed, and if so, what grew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cargo_strip_hook.analysis.sizes import (
    Change,
    Crate,
    MemberSize,
    Sizes,
    compare,
    measure_library,
)
from cargo_strip_hook.core.amounts import Growth
from cargo_strip_hook.core.errors import BudgetError, UsageError
from cargo_strip_hook.core.files import read_text
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.core.text import size

_SHOWN = 5  # crates that are named


@dataclass(frozen=True, slots=True)
class Budget:
    """How large a library may be. Sizes in bytes, of the file.

    `baseline` is a file with an earlier report of it (`report --json`); `max_growth` is relative to
    that.
    """

    max_size: int | None = None
    max_growth: Growth | None = None
    baseline: Path | None = None


def check_budget(library: Path, target: Target, budget: Budget) -> None:
    """Raise `BudgetError` where a library is too large; it says what grew most.

    Raises `UsageError` for a baseline that is missing, or has no report of this library.
    """
    now = library.stat().st_size
    before = _baseline(budget, library) if budget.baseline is not None else []
    if budget.max_growth is not None and budget.baseline is None:
        raise UsageError(
            "`max-growth` is measured against a `baseline`, and there is none",
            help=f"name the file: `cargo strip-hook report {library} --json > FILE`",
        )
    breaches = []
    if budget.max_size is not None and now > budget.max_size:
        breaches.append(f"more than the {size(budget.max_size)} of `max-size`")
    if budget.max_growth is not None:
        old = sum(s.size for s in before)
        if now > budget.max_growth.limit(old):
            words = f"it was {size(old)}, and `max-growth` is {budget.max_growth.text}"
            breaches.append(f"{size(now - old)} more than before: {words}")
    if breaches:
        sizes = measure_library(library, target)
        raise BudgetError(
            f"{library.name} is {size(now)}, {'; '.join(breaches)}", help=_largest(before, sizes)
        )


def _largest(before: Sequence[Sizes], after: Sequence[Sizes]) -> list[str]:
    """What grew most; what is largest, where there is no baseline."""
    old = {s.architecture: s for s in before}
    lines = []
    for sizes in after:
        of = f" ({sizes.architecture})" if sizes.architecture else ""
        if sizes.architecture in old:
            changes = compare(old[sizes.architecture], sizes)
            for what, candidates in (("crates", changes.crates), ("of the file", changes.file)):
                grown = [_grew(c) for c in candidates if c.by > 0][:_SHOWN]
                if grown:
                    lines.append(f"grew most{of}, {what}: {', '.join(grown)}")
        else:
            largest = [f"{c.name} {size(c.size)}" for c in sizes.crates[:_SHOWN]]
            lines.append(f"largest{of}: {', '.join(largest)}")
    return [*lines, "`cargo strip-hook why LIB CRATE`, of the original, says what needs a crate"]


def _grew(change: Change) -> str:
    return f"{change.name} +{size(change.by)}" + ("" if change.before else " (new)")


def _baseline(budget: Budget, library: Path) -> list[Sizes]:
    assert budget.baseline is not None
    help = f"make it with `cargo strip-hook report {library} --json > {budget.baseline}`"
    try:
        lines = read_text(budget.baseline).splitlines()
    except FileNotFoundError:
        raise UsageError(f"there is no baseline {budget.baseline}", help=help) from None
    except OSError as e:
        raise UsageError(
            f"the baseline {budget.baseline} cannot be read: {e.strerror}", help=help
        ) from e
    try:
        messages = [json.loads(line) for line in lines if line.strip()]
        sizes = [_read(m) for m in messages if m["reason"] == "sizes"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{budget.baseline} is no report in JSON", help=help) from None
    sizes = [s for s in sizes if s.library.name == library.name]
    if not sizes:
        raise UsageError(f"{budget.baseline} says nothing of {library.name}", help=help)
    return sizes


def _target(name: str) -> Target:
    try:
        return Target.parse(name)
    except UsageError:  # a specification, which may have any name
        return Target(name, name, "unknown", "none", "")


def _read(message: dict[str, Any]) -> Sizes:
    return Sizes(
        Path(message["library"]),
        message.get("architecture", ""),
        _target(str(message["target"])),
        int(message["size"]),
        dict(message["file"]),
        dict(message["loaded"]),
        tuple(Crate(c["name"], dict(c["kinds"])) for c in message["crates"]),
        tuple(MemberSize(m["name"], m["size"], m["loaded"]) for m in message["members"]),
    )


__all__ = ["Budget", "check_budget"]
