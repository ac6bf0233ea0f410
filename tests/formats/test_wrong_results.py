"""A part of the campaign of wrong results; all of it is `python -m tests.campaigns.results`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.results import cases
from tests.campaigns.results.campaign import (
    FORMATS,
    Campaign,
    Struck,
    Told,
    all_bugs,
    bug_summary,
    summary,
)
from tests.tools import TIER

COUNT = {"all": 4000, "ci": 300}.get(TIER, 60)
TIMES = 4 if TIER == "all" else 1
# without a tier a few builds are enough to see that the campaign itself works
ONLY = {"elf": ("elf-x86_64",), "macho": ("macho-arm64",), "coff": ("coff-x86_64-msvc",)}

# kinds that are known to pass, by format, as `verify/README.md` says
OPEN: dict[str, tuple[str, ...]] = {}


def _open(format: str, one: Told | Struck) -> bool:
    """Whether that is of a kind that is known to pass."""
    return any(kind in str(one) for kind in OPEN.get(format, ()))


def _cases(folder: Path, format: str) -> list[cases.Case]:
    return cases.make(folder, format, () if TIER else ONLY.get(format, ()))


@pytest.mark.parametrize("format", FORMATS)
def test_no_harmful_result_passes(format: str, tmp_path: Path) -> None:
    """Results with a wrong field: refused, or the same program to LLVM's linkers."""
    campaign = Campaign(_cases(tmp_path, format), "ci")
    told = [campaign.run(number) for number in range(COUNT)]
    wrong = [str(one) for one in told if (one.harmful or one.crashed) and not _open(format, one)]
    assert not wrong, "\n".join([summary(format, told), *wrong])
    assert sum(bool(one.found) for one in told) > COUNT // 2


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "universal"])
def test_no_bug_with_an_effect_passes(format: str, tmp_path: Path) -> None:
    """What the engine makes with each of the bugs: refused, or the same program."""
    told = list(all_bugs(_cases(tmp_path, format), TIMES))
    wrong = [str(one) for one in told if one.harmful and not _open(format, one)]
    assert not wrong, "\n".join([bug_summary(format, told), *wrong])
    assert len({one.bug for one in told}) > 30
    # the engine itself stops few of them: it has to get as far as writing a result
    assert sum(one.refused.startswith("the engine") for one in told) < len(told) // 3


def test_a_wrong_result_is_always_the_same(tmp_path: Path) -> None:
    made = _cases(tmp_path, "elf")[:1]
    first, again = Campaign(made, "same"), Campaign(made, "same")
    for number in range(30):
        one, two = first.mutants[0].mutant(number), again.mutants[0].mutant(number)
        assert one == two
        assert one.data != made[0].good.data


def test_a_verifier_that_sees_nothing_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge itself: without any check most wrong results are other programs."""
    (case, *_) = _cases(tmp_path, "elf")
    campaign = Campaign([case], "blind")
    monkeypatch.setattr(cases.Case, "findings", lambda *_: "")
    told = [campaign.run(number) for number in range(40)]
    assert sum(one.harmful for one in told) > 15
