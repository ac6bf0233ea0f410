"""Kept debug information is right in the program that the consumer links."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.toolbox import link, run, strip
from tests.tools import need

SOURCES = {
    "behaviour": "behaviour.c",
    "imagequant-sys": "imagequant.c",
    "dolby_vision": "dolby_vision.c",
}


def _functions(program: Path) -> dict[str, int]:
    """The functions of a program whose name only one of them has, with their addresses."""
    found: list[tuple[str, int]] = []
    for line in run(need("readelf"), "-sW", program).stdout.splitlines():
        words = line.split()
        # Num: Value Size Type Bind Vis Ndx Name
        if len(words) >= 8 and words[3] == "FUNC" and words[6].isdigit():
            found.append((words[7], int(words[1], 16)))
    count = Counter(name for name, _ in found)
    return {name: address for name, address in found if count[name] == 1}


def _places(program: Path, functions: dict[str, int]) -> dict[str, str]:
    """`file:line:column` of where each function starts, innermost inlined frame included."""
    asked = "".join(f"{address:#x}\n" for address in functions.values())
    tool = need("llvm-symbolizer-22", "llvm-symbolizer")
    said = run(tool, "--obj", program, "--functions=none", stdin=asked).stdout
    return dict(zip(functions, said.strip().split("\n\n"), strict=True))


@pytest.mark.parametrize("gc", [(), ("-Wl,--gc-sections",)], ids=["all", "gc"])
@pytest.mark.parametrize("linker", ["bfd", "lld"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_function_is_where_it_was_in_the_sources(
    name: str, linker: str, gc: tuple[str, ...], tmp_path: Path
) -> None:
    built = fixtures.library(name, "dev")
    stripped = strip(built, tmp_path / "out", "--strip", "none")
    flags = (*gc,)
    before = link(SOURCES[name], [built.library], [built], tmp_path / "a", *flags, linker=linker)
    after = link(SOURCES[name], [stripped], [built], tmp_path / "b", *flags, linker=linker)
    was, now = _functions(before), _functions(after)
    both = now.keys() & was.keys()
    assert len(both) > 1000
    assert len(both) >= 0.99 * len(now), "functions without a name, or with another"
    expected = _places(before, {name: was[name] for name in sorted(both)})
    found = _places(after, {name: now[name] for name in sorted(both)})
    known = [place for place in expected.values() if not place.startswith("??")]
    assert len(known) > 0.9 * len(expected)
    wrong = {name: (expected[name], found[name]) for name in both if expected[name] != found[name]}
    assert not wrong


def test_the_debug_information_is_well_formed(tmp_path: Path) -> None:
    # A small library: the verifier needs minutes for a large one. Compilers leave findings of
    # their own, so only what is new is ours.
    built = fixtures.library("alpha")
    stripped = strip(built, tmp_path / "out", "--strip", "none")
    tool = need("llvm-dwarfdump-22", "llvm-dwarfdump")
    before = link("one_alpha.c", [built.library], [built], tmp_path / "a")
    after = link("one_alpha.c", [stripped], [built], tmp_path / "b")

    def findings(program: Path) -> int:
        said = run(tool, "--verify", "--quiet", program, exit_code=None)
        return (said.stdout + said.stderr).count("error:")

    assert findings(after) <= findings(before)
