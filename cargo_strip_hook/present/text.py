"""Outcomes in words: sizes, savings, durations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cargo_strip_hook.core.text import change, size

if TYPE_CHECKING:
    from cargo_strip_hook.core.errors import ToolFailure
    from cargo_strip_hook.pipeline.sharing import SetOutcome, SetPart
    from cargo_strip_hook.pipeline.strip import Outcome, Plan

TAIL = 40  # lines of a program's output that an error shows


def duration(seconds: float) -> str:
    """``0.6s`` or ``1m 02s``, as cargo does."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    return f"{whole // 60}m {whole % 60:02}s"


def stripped(outcome: Outcome) -> str:
    """What follows ``Stripping``: ``libfoo.a (23.1 MB → 1.2 MB, -95 %) in 0.6s``."""
    return (
        f"{outcome.job.shown} ({size(outcome.before)} → {size(outcome.after)}, "
        f"{change(outcome.before, outcome.after)}) in {duration(outcome.seconds.total)}"
    )


def slices(outcome: Outcome) -> list[str]:
    """The result of each slice of a universal library: ``libfoo.a(arm64): 23.1 MB → …``."""
    return [
        f"{outcome.job.shown}({one.architecture}): "
        + ("as it was" if one.fresh else f"{size(one.before)} → {size(one.after)}")
        + f", {one.target.triple}"
        for one in outcome.slices
    ]


def details(outcome: Outcome) -> str:
    """Counts and times of a run, for -v."""
    counts, spent = outcome.statistics, outcome.seconds
    phases = ", ".join(
        f"{name} {getattr(spent, name):.2f}s"
        for name in ("exports", "prelink", "verify", "replace")
    )
    return (
        f"{_part(counts.members_used, counts.members_total)} members, "
        f"{_part(counts.sections_live, counts.sections_total)} sections, "
        f"{counts.symbols_hidden} symbols hidden, {len(outcome.undefined)} undefined ({phases})"
    )


def _part(some: int, total: int) -> str:
    # not every engine knows the total
    return f"{some} of {total}" if total else f"{some}"


def planned(plan: Plan) -> str:
    """What follows ``Would strip``."""
    job = plan.job
    targets = ", ".join(one.target.triple for one in plan.slices)
    name = job.library.name if job.bundle is None else job.shown
    words = f"{name} ({size(plan.before)}; {plan.exports.source}; {targets}, "
    words += f"engine {job.engine}, strip {job.strip.value}, granularity {job.granularity.value})"
    return words + (f" to {job.output}" if job.output else "")


def shared(part: SetPart) -> str:
    """What follows ``Sharing``: ``libfoo.a (23.1 MB → 0.3 MB, -99 %)``."""
    sizes = f"{size(part.before)} → {size(part.after)}, {change(part.before, part.after)}"
    return f"{part.job.shown} ({sizes})"


def would_share(part: SetPart) -> str:
    """What follows ``Would share``: how many of the live bytes, and with whom."""
    assert part.parts is not None
    total = sum(count for _, count in part.parts.shared)
    others = ", ".join(shared_with(part))
    words = f"{part.job.shown} ({size(total)} of {size(part.parts.live)}"
    return f"{words}: {others})" if others else f"{words})"


def shared_with(part: SetPart) -> list[str]:
    """How much so many others need, too."""
    return [
        f"{size(count)} with {n} other{'s' if n > 1 else ''}"
        for n, count in (part.parts.shared if part.parts else ())
    ]


def not_shared(part: SetPart) -> list[str]:
    """What a library keeps, by crate and reason."""
    if part.parts is None:
        return []
    return [f"{k.crate}: {size(k.size)}, {k.reason}" for k in part.parts.kept]


def common(outcome: SetOutcome) -> str:
    """What follows ``Common``: ``libcommon.a (1.2 MB) in 0.6s``."""
    name = outcome.job.common.name
    return f"{name} ({size(outcome.common)}) in {duration(outcome.seconds)}"


def joined(outcome: SetOutcome) -> str:
    """What follows ``Joining``: ``3 libraries into libfoo.a (69.3 MB → 1.2 MB, -98 %) in 0.6s``."""
    before = sum(part.before for part in outcome.parts)
    sizes = f"{size(before)} → {size(outcome.common)}, {change(before, outcome.common)}"
    what = f"{len(outcome.parts)} libraries into {outcome.job.common.name}"
    return f"{what} ({sizes}) in {duration(outcome.seconds)}"


def tail(failure: ToolFailure) -> Sequence[str]:
    """The last lines of a failed program's output, stdout and stderr."""
    said = (failure.stdout.rstrip() + "\n" + failure.stderr.rstrip()).strip()
    lines = [line.rstrip("\r").expandtabs() for line in said.split("\n")] if said else []
    left = len(lines) - TAIL
    return [f"… {left} lines before this", *lines[-TAIL:]] if left > 0 else lines
