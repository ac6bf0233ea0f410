"""Why something is in a library, in words and as JSON. Sizes in bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cargo_strip_hook.core.text import size
from cargo_strip_hook.present.plain import plain

if TYPE_CHECKING:
    from cargo_strip_hook.analysis.why import Reason

_BY = {
    "export": "public",
    "initialiser": "runs when the library is loaded",
    "reference": "refers to",
    "support": "comes with",
    "together": "comes with",
}
_SHOWN = 20  # names that are listed


def text(reason: Reason) -> str:
    """The answer, the chain with what each step costs, and the exports if they were asked for."""
    lines = [*_answer(reason), ""]
    if reason.chain:
        lines.append(f"{'bytes':>12} {'retained':>12}")
    for position, step in enumerate(reason.chain):
        words = f"{_BY[step.by]} {step.name}" if position else f"{step.name} ({_BY[step.by]})"
        member = f"  [{step.member}]" if step.member else ""
        lines.append(f"{step.size:12,} {step.retained:12,}  {words}{member}")
    if reason.exports is not None:
        count = len(reason.exports)
        lines += ["", f"{count} of {reason.all_exports} public symbols need it:" if count else ""]
        shown = reason.exports[:_SHOWN]
        lines += [f"  {name}" for name in shown]
        if count > len(shown):
            lines.append(f"  … and {count - len(shown)} more (--json has them all)")
    return "\n".join(map(plain, lines)).rstrip() + "\n"


def _answer(reason: Reason) -> list[str]:
    slice = f"({reason.architecture})" if reason.architecture else ""
    where = reason.library.name + slice
    if not reason.chain:
        return [f"nothing public needs `{reason.what}`: a stripped {where} does not have it"]
    count = len(reason.symbols)
    many = "" if count == 1 else f", {count} symbols"
    share = 100 * reason.retained / reason.total if reason.total else 0
    return [
        f"{reason.kind} `{reason.what}` in {where}{many}: {size(reason.size)}",
        f"without it {size(reason.retained)} would go, {share:.1f} % of what a program loads",
    ]


def message(reason: Reason) -> dict[str, Any]:
    """The same as JSON."""
    fields: dict[str, Any] = {"reason": "why", "library": str(reason.library)}
    if reason.architecture:
        fields["architecture"] = reason.architecture
    fields |= {
        "what": reason.what,
        "kind": reason.kind,
        "symbols": list(reason.symbols),
        "size": reason.size,
        "retained": reason.retained,
        "total": reason.total,
        "chain": [
            {
                "symbol": step.symbol,
                "name": step.name,
                "member": step.member,
                "by": step.by,
                "size": step.size,
                "retained": step.retained,
                "section": step.section,
                "offset": step.offset,
            }
            for step in reason.chain
        ],
        "all-exports": reason.all_exports,
    }
    return fields if reason.exports is None else {**fields, "exports": list(reason.exports)}


__all__ = ["message", "text"]
