"""Kept debug information is right in the program that the consumer links."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.toolbox import AARCH64, link, run, strip
from tests.fixtures import Built
from tests.tools import need

SOURCES = {
    "behaviour": "behaviour.c",
    "imagequant-sys": "imagequant.c",
    "dolby_vision": "dolby_vision.c",
    "gst-plugin-fallbackswitch": "fallbackswitch.c",
}
CASES = [
    *(
        pytest.param((name, profile, None), id=f"{name}-{profile}")
        for name in SOURCES
        for profile in ("dev", "release")
    ),
    pytest.param(("behaviour", "dev", AARCH64), id="aarch64", marks=pytest.mark.target(AARCH64)),
]
DROP = "-Wl,--gc-sections"
_ADDRESS = re.compile(r"(?:DW_AT_low_pc.*|^ +\[)0x([0-9a-f]{16})\b")


@dataclass(frozen=True)
class Case:
    """A library as it was built, and stripped but for its debug information."""

    source: str
    built: Built
    stripped: Path
    folder: Path
    release: bool

    def link(self, library: Path, linker: str, *flags: str) -> Path:
        # The program's own file has no debug information: llvm-dwarfdump does not come to an end
        # over a call site below a lexical block.
        words = ["-g0", *flags]
        if self.source == "fallbackswitch.c":
            words += run(need("pkg-config"), "--cflags", "gstreamer-1.0").stdout.split()
        folder = self.folder / f"{library.parent.name}{len(flags)}"
        return link(self.source, [library], [self.built], folder, *words, linker=linker)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, profile, target = request.param
    built = fixtures.library(name, profile, target, "debian" if target else "rustup")
    folder = tmp_path_factory.mktemp("case")
    return Case(
        SOURCES[name],
        built,
        strip(built, folder / "out", "--strip", "none"),
        folder,
        profile == "release",
    )


def _functions(program: Path) -> list[tuple[str, int]]:
    """The names of a program's functions, with their addresses."""
    found = []
    for line in run(need("readelf"), "-sW", program).stdout.splitlines():
        words = line.split()
        # Num: Value Size Type Bind Vis Ndx Name
        if len(words) >= 8 and words[3] == "FUNC" and words[6].isdigit():
            found.append((words[7], int(words[1], 16)))
    return found


def _places(program: Path) -> Counter[tuple[str, str]]:
    """Each function and `file:line:column` of its start, frames of inlined functions included."""
    functions = _functions(program)
    asked = "".join(f"{address:#x}\n" for _, address in functions)
    tool = need("llvm-symbolizer-22", "llvm-symbolizer")
    said = run(tool, "--obj", program, "--functions=none", "--inlines", stdin=asked).stdout
    answers = said.strip().split("\n\n")
    return Counter(zip((name for name, _ in functions), answers, strict=True))


def _errors(program: Path) -> Counter[str]:
    """The errors of each kind that llvm-dwarfdump finds in what describes live code.

    Linkers put all dead functions at the address 0 (range lists: 1), where they overlap.
    """
    sections = run(need("readelf"), "-SW", program).stdout
    found_text = re.search(r" \.text +PROGBITS +([0-9a-f]+) ", sections)
    assert found_text
    first = int(found_text[1], 16)
    tool = need("llvm-dwarfdump-22", "llvm-dwarfdump")
    words = [str(tool), "--verify", "--error-display=details", str(program)]
    found: Counter[str] = Counter()
    kind, addresses, end = "", set(), ""
    with subprocess.Popen(words, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("error: "):
                found[kind] += not addresses or max(addresses) >= first
                kind, addresses = re.sub(r"0x[0-9a-f]+", "N", line), set()
            elif line.startswith("0x"):  # of several entries the last one is it
                addresses = set()
            elif where := _ADDRESS.search(line):
                addresses.add(int(where[1], 16))
            elif line.startswith("Verifying "):
                end = line
        found[kind] += not addresses or max(addresses) >= first
    assert process.returncode in (0, 1) and "Verifying .debug_str_offsets" in end
    del found[""]
    return +found


@pytest.mark.parametrize(("linker", "flags"), [("bfd", (DROP,)), ("lld", ())], ids=["gc", "all"])
def test_every_function_is_where_it_was_in_the_sources(
    case: Case, linker: str, flags: tuple[str, ...]
) -> None:
    expected = _places(case.link(case.built.library, linker, *flags))
    found = _places(case.link(case.stripped, linker, *flags))
    assert found.total() > 500
    known = sum(n for (_, place), n in found.items() if not place.startswith("??"))
    # released crates have none of their own, but std's is there
    assert known > (200 if case.release else 0.9 * found.total())
    assert not found - expected


@pytest.mark.parametrize("linker", ["bfd", "lld"])
def test_the_debug_information_is_well_formed(case: Case, linker: str) -> None:
    expected = _errors(case.link(case.built.library, linker))
    for flags in ((), (DROP,)):
        assert _errors(case.link(case.stripped, linker, *flags)) <= expected


def test_gdb_stops_by_function_and_by_line(tmp_path: Path) -> None:
    built = fixtures.library("behaviour", "dev")
    stripped = strip(built, tmp_path / "out", "--strip", "none")
    words = ["-nx", "-batch", "-ex", "set confirm off", "-ex", "break behaviour::panics::descend"]
    words += ["-ex", "break state.rs:25", "-ex", "run", "-ex", "bt 3", "-ex", "info args"]
    words += ["-ex", "info locals", "-ex", "up", "-ex", "info locals", "-ex", "delete 2"]
    words += ["-ex", "continue", "-ex", "bt 2", "-ex", "info args", "-ex", "list"]
    answers = []
    for name, library in (("before", built.library), ("after", stripped)):
        program = link("behaviour.c", [library], [built], tmp_path / name)
        said = run(need("gdb"), *words, program).stdout
        answers.append(re.sub(r"0x[0-9a-f]+|Thread debugging.*\n|Using host.*\n", "", said))
    assert "behaviour::panics::descend (" in answers[1]
    assert "bhv_bump" in answers[1] and "state.rs:25" in answers[1]
    assert answers[1] == answers[0]
