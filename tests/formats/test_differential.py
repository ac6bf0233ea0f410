"""What the engine keeps is what an independent marker keeps, and what GNU ld keeps."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cargo_strip_hook.core.requests import Granularity, PrelinkResult, Strip
from tests.formats import native_kit as kit
from tests.formats.generated import Plan, make, plans
from tests.formats.marker import live_sections
from tests.formats.native_cases import CASES

ALLOCATED, MERGE = 0x2, 0x10
BY_NAME = {c.name: c for c in CASES}


def placed(result: PrelinkResult) -> set[tuple[int, int]]:
    assert result.link_map is not None
    return {(int(r["member"]), int(r["section"])) for r in result.link_map}


def shown(objects: Sequence, sections: set[tuple[int, int]]) -> list[str]:  # type: ignore[type-arg]
    return sorted(f"{objects[m].name}:{objects[m].names[s]}" for m, s in sections)


def compare(library: Path, exports: Sequence[str], result: PrelinkResult) -> None:
    """The live set of the engine against the marker's."""
    objects, expected = live_sections(library, exports)
    # what is never loaded follows rules of its own
    got = {(m, s) for m, s in placed(result) if objects[m].flags[s] & ALLOCATED}
    assert shown(objects, got - expected) == [], "kept for nothing"
    assert shown(objects, expected - got) == [], "lost"
    assert result.link_map is not None
    for row in result.link_map:
        home = objects[row["member"]]
        if row["offset"] or row["size"] != home.sizes[row["section"]]:
            # an element of its own: of a section that linkers merge
            assert home.flags[row["section"]] & MERGE, home.names[row["section"]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    known: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in known:
            case = BY_NAME[name]
            folder = tmp_path_factory.mktemp(name)
            known[name] = kit.library(folder, case.sources, *case.flags, compiler=case.compiler)
        return known[name]

    return get


@pytest.mark.parametrize("name", BY_NAME)
def test_live_set_of_every_case(name: str, built: Callable[[str], Path]) -> None:
    exports = BY_NAME[name].exports
    for granularity in Granularity:
        _, result = kit.strip(built(name), exports, granularity=granularity)
        compare(built(name), exports, result)
    # and from each export alone: what the others need goes
    for export in exports:
        _, result = kit.strip(built(name), (export,))
        compare(built(name), (export,), result)


# What GNU ld 2.40 does otherwise under `-r --gc-sections`:
# - it drops the sections behind `__start_X`/`__stop_X` (and what only those need), which it keeps
#   in final links: compared without them;
# - of two COMDAT groups it may load the other one first: their sections are compared by name;
# - it reports sections by name only: those that share a name within a member are not compared;
# - it says nothing of sections of no size.


def ld_removed(library: Path, exports: Sequence[str], out: Path) -> set[tuple[str, str]]:
    """(member, section) of all sections that GNU ld says it removes."""
    argv = ["ld.bfd", "-r", "--gc-sections", "--print-gc-sections", "-o", out]
    argv += [f"-u{e}" for e in exports]
    said = kit.tool([*argv, library])
    found = re.findall(r"unused section '([^']+)' in file '[^']*\(([^)]+)\)'", said)
    # members of a group are shown with its signature: `.text.f[f]`
    return {(member, re.sub(r"\[[^\]]*\]$", "", section)) for section, member in found}


def compare_with_ld(library: Path, exports: Sequence[str], result: PrelinkResult, out: Path) -> int:
    """Live by ld: sections of loaded members that it does not say it removes. Returns how many."""
    objects, without_sets = live_sections(library, exports, follow_sets=False)
    removed = ld_removed(library, exports, out)
    got = placed(result)
    compared = 0
    loaded = sorted({m for m, _ in got})
    for m in loaded:
        obj = objects[m]
        grouped = {s for _, _, inside in obj.groups for s in inside}
        for s, name in enumerate(obj.names):
            if not obj.flags[s] & 2 or s in obj.frames or name == ".note.gnu.property":
                continue
            if obj.names.count(name) > 1 or not obj.sizes[s]:
                continue
            ours, theirs = (m, s) in got, (obj.name, name) not in removed
            if s in grouped:
                ours = any(objects[k].names[t] == name for k, t in got & without_sets)
                having = [objects[k].name for k in loaded if name in objects[k].names]
                theirs = any((its_member, name) not in removed for its_member in having)
            if ours and (m, s) not in without_sets and s not in grouped:
                continue
            compared += 1
            assert ours == theirs, f"{obj.name}:{name} is {'kept' if ours else 'lost'}"
    return compared


@pytest.mark.parametrize("name", BY_NAME)
def test_live_set_of_gnu_ld(name: str, built: Callable[[str], Path], tmp_path: Path) -> None:
    exports = BY_NAME[name].exports
    _, result = kit.strip(built(name), exports)
    assert compare_with_ld(built(name), exports, result, tmp_path / "ld.o")


QUIET = settings(
    deadline=None,
    derandomize=True,
    database=None,
    # making a failing program smaller would compile it for minutes
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(QUIET, max_examples=25)
@given(plan=plans())
def test_live_set_of_random_programs(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("random")
    program = make(plan)
    library = kit.library(folder, program.sources)
    _, result = kit.strip(library, program.exports, granularity=plan.granularity)
    compare(library, program.exports, result)
    compare_with_ld(library, program.exports, result, folder / "ld.o")


@settings(QUIET, max_examples=16)
@given(plan=plans(), choice=st.integers(0, 11))
def test_random_programs_run_alike(
    plan: Plan, choice: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    program = make(plan)
    library = kit.library(folder, program.sources)
    linker = kit.LINKERS[choice % 4]
    strip = list(Strip)[choice // 4]
    (main,) = kit.build(folder, {"main.c": program.main}, "-O1", "-fPIE")
    stripped, _ = kit.strip(library, program.exports, strip, plan.granularity)
    texts = []
    for used in (library, stripped):
        kit.link(folder / "p", [main, used], linker)
        texts.append(kit.output(folder / "p"))
    assert texts[1] == texts[0]
    assert texts[0] == program.expected
    kit.link(folder / "p", [main, stripped], linker, "-Wl,--gc-sections")
    assert kit.output(folder / "p") == program.expected


@settings(QUIET, max_examples=8)
@given(plan=plans())
def test_a_collecting_consumer_keeps_the_same_functions(
    plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From the section-granular and the class layout, by lld: it follows `.eh_frame` least."""
    folder = tmp_path_factory.mktemp("functions")
    program = make(plan)
    library = kit.library(folder, program.sources)
    one = random.Random(len(program.sources)).choice(program.functions)
    main = f"int {one}(void); int main(void) {{ return {one}() == -1; }}"
    (object_,) = kit.build(folder, {"main.c": main}, "-fPIE")

    flags = ("-Wl,--gc-sections", "-Wl,-z,nostart-stop-gc")

    def functions(used: Path) -> list[str]:
        kit.link(folder / "p", [object_, used], "lld", *flags)
        names = re.findall(r" [tTiIwW] (\w+)$", kit.tool(["nm", folder / "p"]), re.M)
        return sorted(n for n in names if re.match(r"(f|inl|local|setter)_?\d", n))

    stripped, _ = kit.strip(library, program.exports, Strip.DEBUGINFO, plan.granularity)
    got = set(functions(stripped))
    if plan.granularity is Granularity.WHOLE:
        assert got >= set(functions(library))
    else:
        # the constructors of members that no export of the original's consumer needs come besides
        # as what a set refers to that no function of the library goes through
        if not plan.elements or any(f.counts_set for f in plan.functions):
            assert got - set(functions(library)) <= program.needed_by_constructors
        assert got >= set(functions(library))
