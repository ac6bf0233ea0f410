"""One mutant after the other: refused, the same program, harmless for a reason, or let through."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from cargo_strip_hook.core.errors import StripHookError
from tests.campaigns.results.bugs import AFTERS, BUGS, After, Bug, with_bug
from tests.campaigns.results.cases import Case
from tests.campaigns.results.harmless import bug_reason, reason
from tests.campaigns.results.judge import Judge
from tests.campaigns.results.mutants import Mutant, Mutants

FORMATS = ("elf", "macho", "coff", "universal")


@dataclass(frozen=True)
class Told:
    """What came of a mutant. `found`: the verifier's findings; `harm`: how the program differs.

    `listed`: why that is no harm.
    """

    number: int
    case: str
    mutant: Mutant
    found: str
    harm: str = ""
    listed: str = ""

    @property
    def harmful(self) -> bool:
        return bool(self.harm and not self.listed)

    @property
    def crashed(self) -> bool:
        return self.found.startswith("CRASH")

    def __str__(self) -> str:
        what = f"{self.number} {self.case}: {self.mutant}"
        if self.found:
            return f"{what}\n    refused: {self.found[:300]}"
        return f"{what}\n    passed; {self.harm or 'the same program'}; {self.listed or '-'}"


class Campaign:
    """The mutants of several cases, in turn."""

    def __init__(self, cases: Sequence[Case], seed: str) -> None:
        self.cases = list(cases)
        self.mutants = [Mutants(case, seed) for case in self.cases]
        self.judge = cache(lambda n: Judge(self.cases[n]))

    def run(self, number: int) -> Told:
        which = number % len(self.cases)
        case, mutant = self.cases[which], self.mutants[which].mutant(number)
        found = case.findings(mutant.data)
        if found:
            return Told(number, case.name, mutant, found)
        if case.name == "universal":
            return Told(number, case.name, mutant, "", "it is another file")
        harm = self.judge(which).harm(mutant.data)
        listed = reason(case, mutant) if harm else ""
        return Told(number, case.name, mutant, "", harm, listed)


@dataclass(frozen=True)
class Struck:
    """What came of a bug: `refused` by whom and why; `harm` and `listed` as for mutants."""

    case: str
    bug: str
    number: int
    refused: str
    harm: str = ""
    listed: str = ""

    @property
    def harmful(self) -> bool:
        return bool(self.harm and not self.listed)

    def __str__(self) -> str:
        what = f"{self.case}: {self.bug} {self.number}"
        if self.refused:
            return f"{what}\n    refused: {self.refused[:300]}"
        return f"{what}\n    passed; {self.harm or 'the same program'}; {self.listed or '-'}"


def strike(case: Case, judge: Callable[[], Judge], bug: Bug | After, number: int) -> Struck | None:
    """Put a bug into the engine, and look at what it makes; None where it changes nothing."""
    chance = random.Random(f"{case.name} {bug.__name__} {number}")
    output = case.folder / "bug.a"
    try:
        with with_bug(bug, chance) as struck:
            made = case.made(output)
    except StripHookError as e:
        return Struck(case.name, bug.__name__, number, f"the engine: {e}")
    except Exception as e:
        return Struck(case.name, bug.__name__, number, f"the engine: {type(e).__name__} {e}")
    data = output.read_bytes()
    claimed = case.expectation(made)
    same = data == case.good.data and claimed.link_map is not None
    good = case.good.expectation.link_map
    if not any(one.hit for one in struck) or (same and np.array_equal(claimed.link_map, good)):
        return None
    if case.good.expectation.link_map is None:
        claimed = replace(claimed, link_map=None, covers_debug=False)
    found = case.findings(data, claimed)
    if found:
        return Struck(case.name, bug.__name__, number, found)
    harm = judge().harm(data)
    listed = bug_reason(case, struck[0], data, claimed) if harm else ""
    return Struck(case.name, bug.__name__, number, "", harm, listed)


def all_bugs(cases: Sequence[Case], times: int) -> Iterator[Struck]:
    """Each bug in each case, so many times with another choice."""
    for case in cases:
        judge = cache(lambda case=case: Judge(case))
        for bug in (*BUGS, *AFTERS):
            for number in range(times):
                one = strike(case, judge, bug, number)
                if one is not None:
                    yield one


def bug_summary(name: str, told: Sequence[Struck]) -> str:
    """Counts of one format."""
    passed = [one for one in told if not one.refused]
    same = sum(not one.harm for one in passed)
    bad = [one for one in passed if one.harmful]
    engine = sum(one.refused.startswith("the engine") for one in told)
    lines = [
        f"{name}: {len(told)} bugs, {engine} stopped by the engine itself, "
        f"{len(told) - engine - len(passed)} refused, {same} the same program, "
        f"{len(passed) - same - len(bad)} harmless, {len(bad)} harmful ones passed"
    ]
    kinds = Counter(one.bug for one in bad)
    lines += [f"  {times:5} {kind}" for kind, times in kinds.most_common()]
    return "\n".join(lines)


def summary(name: str, told: Sequence[Told]) -> str:
    """Counts of one format."""
    passed = [one for one in told if not one.found]
    same = sum(not one.harm for one in passed)
    listed = sum(bool(one.listed) for one in passed)
    bad = [one for one in passed if one.harmful]
    lines = [
        f"{name}: {len(told)} mutants, {len(told) - len(passed)} refused, {same} the same program, "
        f"{listed} harmless, {len(bad)} harmful ones passed, {sum(o.crashed for o in told)} crashed"
    ]
    kinds = Counter(one.mutant.kind for one in bad)
    lines += [f"  {times:5} {kind}" for kind, times in kinds.most_common()]
    return "\n".join(lines)


__all__ = ["FORMATS", "Campaign", "Struck", "Told", "all_bugs", "bug_summary", "summary"]
