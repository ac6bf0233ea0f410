"""`python -m tests.campaigns.results --format elf --count 4000 --seed 1`; see `--help`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.results", description=__doc__)
    parser.add_argument(
        "--format", choices=FORMATS, action="append", help="all where none is given"
    )
    parser.add_argument("--count", type=int, default=1000, help="mutants of each format")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", type=int, help="the mutant of this number alone")
    parser.add_argument("--bugs", type=int, help="bugs of the engine instead, each so many times")
    parser.add_argument("--no-link-map", action="store_true", help="as with the system's linker")
    parser.add_argument("--harmless", action="store_true", help="show what is on the list, too")
    parser.add_argument("--folder", type=Path, help="where files are made, and kept")
    given = parser.parse_args(argv)
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.format or FORMATS:
            folder = (given.folder or Path(temporary)) / name
            folder.mkdir(parents=True)
            made = cases.make(folder, name)
            if given.no_link_map:
                made = [case.by_system() or case.without_map() for case in made]
            if given.bugs is not None:
                bad += _bugs(name, made, given.bugs, show=given.harmless)
                continue
            campaign = Campaign(made, given.seed)
            numbers = range(given.count) if given.only is None else [given.only]
            told: list[Told] = []
            for number in numbers:
                one = campaign.run(number)
                told.append(one)
                if (
                    one.harmful
                    or one.crashed
                    or given.only is not None
                    or (given.harmless and one.listed)
                ):
                    print(one, flush=True)
            print(summary(name, told))
            bad += sum(one.harmful or one.crashed for one in told)
            if given.harmless:
                for reason, times in Counter(o.listed for o in told if o.listed).most_common():
                    print(f"  {times:5} {reason}")
    return int(bad > 0)


def _bugs(name: str, made: Sequence[cases.Case], times: int, *, show: bool) -> int:
    told: list[Struck] = []
    for one in all_bugs(made, times) if name != "universal" else ():
        told.append(one)
        if one.harmful or (show and not one.refused and one.harm):
            print(one, flush=True)
    print(bug_summary(name, told))
    return sum(one.harmful for one in told)


if __name__ == "__main__":
    sys.exit(main())
