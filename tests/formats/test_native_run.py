"""Programs linked with stripped libraries behave as they were written to, with every linker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import native_kit as kit
from tests.formats.native_cases import CASES, Case

BY_NAME = {c.name: c for c in CASES}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], tuple[Path, Path]]:
    """(original library, object of the program) of a case, compiled once."""
    known: dict[str, tuple[Path, Path]] = {}

    def get(case: Case) -> tuple[Path, Path]:
        if case.name not in known:
            folder = tmp_path_factory.mktemp(case.name)
            library = kit.library(folder, case.sources, *case.flags, compiler=case.compiler)
            cxx_main = "#include <c" in case.main
            model = ["-fno-pie"] if "-no-pie" in case.link else ["-fPIE"]
            name = "main.cc" if cxx_main else "main.c"
            (main,) = kit.build(folder, {name: case.main}, "-O1", *model)
            known[case.name] = library, main
        return known[case.name]

    return get


def run(case: Case, out: Path, main: Path, library: Path, linker: str, *flags: str) -> str:
    driver = "g++" if case.cxx else "gcc"
    kit.link(out, [main, library], linker, *case.link, *flags, driver=driver)
    return kit.output(out)


@pytest.mark.parametrize("linker", kit.LINKERS)
@pytest.mark.parametrize("name", BY_NAME)
def test_runs(
    name: str, linker: str, built: Callable[[Case], tuple[Path, Path]], tmp_path: Path
) -> None:
    case = BY_NAME[name]
    if linker not in case.linkers:
        pytest.skip(f"{linker} does not link the original")
    original, main = built(case)
    if linker == "bfd":
        assert run(case, tmp_path / "original", main, original, linker) == case.expected
    stripped, result = kit.strip(original, case.exports)
    assert set(result.exports) == set(case.exports)
    assert run(case, tmp_path / "p", main, stripped, linker) == case.expected
    collected = run(case, tmp_path / "gc", main, stripped, linker, "-Wl,--gc-sections")
    assert collected == case.expected


COMBINATIONS = [
    (g, s) for g in Granularity for s in Strip if (g, s) != (Granularity.CLASS, Strip.DEBUGINFO)
]


@pytest.mark.parametrize("name", BY_NAME)
def test_runs_with_every_option(
    name: str, built: Callable[[Case], tuple[Path, Path]], tmp_path: Path
) -> None:
    case = BY_NAME[name]
    original, main = built(case)
    linker = "mold" if "mold" in case.linkers else "bfd"
    for granularity, strip in COMBINATIONS:
        stripped, _ = kit.strip(original, case.exports, strip, granularity)
        got = run(case, tmp_path / f"{granularity.value}-{strip.value}", main, stripped, linker)
        assert got == case.expected, (granularity, strip)


@pytest.mark.parametrize("name", BY_NAME)
def test_only_the_exports_are_global(name: str, built: Callable[[Case], tuple[Path, Path]]) -> None:
    """GNU nm sees as external definitions what was asked for, and nothing else."""
    case = BY_NAME[name]
    original, _ = built(case)
    stripped, result = kit.strip(original, case.exports)
    seen = kit.tool(["nm", "-g", "--defined-only", "--format=posix", stripped])
    names = {line.split()[0] for line in seen.splitlines() if not line.endswith(":")}
    assert names == set(case.exports)
    undefined = kit.tool(["nm", "-u", "--format=posix", stripped])
    wanted = {line.split()[0] for line in undefined.splitlines() if not line.endswith(":")}
    assert wanted == set(result.undefined)
    index = kit.tool(["nm", "--print-armap", stripped])
    listed = {line.split()[0] for line in index.splitlines() if " in " in line}
    assert listed == set(case.exports)


@pytest.mark.parametrize("name", BY_NAME)
def test_readers_have_nothing_to_say(
    name: str, built: Callable[[Case], tuple[Path, Path]], tmp_path: Path
) -> None:
    """`readelf`, `strip -g` and `ld -r` accept the object without a word."""
    case = BY_NAME[name]
    original, _ = built(case)
    stripped, _ = kit.strip(original, case.exports)
    report = kit.tool(["readelf", "-aW", stripped])
    assert "Warning" not in report and "Error" not in report, report
    copy = tmp_path / "copy.a"
    copy.write_bytes(stripped.read_bytes())
    assert kit.tool(["strip", "-g", copy]) == ""
    assert kit.tool(["strip", "--strip-unneeded", copy]) == ""
    out = tmp_path / "r.o"
    undefined = [f"-u{e}" for e in case.exports]
    assert kit.tool(["ld.bfd", "-r", *undefined, "-o", out, stripped]) == ""
