"""A debug twin is the same program: crash addresses of the one are known to the other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.toolbox import AARCH64, link, run, run_program, strip
from tests.tools import need


def _contents(program: Path) -> dict[str, tuple[int, bytes]]:
    """Address and contents of the sections that a linker gives no time or identity."""
    found = {}
    for name in (".text", ".rodata", ".data.rel.ro", ".eh_frame", ".gcc_except_table", ".data"):
        out = program.with_suffix(name)
        run(need("objcopy"), "-O", "binary", "-j", name, program, out)
        header = next(
            line
            for line in run(need("readelf"), "-SW", program).stdout.splitlines()
            if f" {name} " in line
        )
        address = header.split(f" {name} ")[1].split()[1]
        found[name] = (int(address, 16), out.read_bytes())
    return found


@pytest.mark.parametrize("linker", ["bfd", "lld"])
def test_a_crash_is_told_by_the_twin(linker: str, tmp_path: Path) -> None:
    built = fixtures.library("behaviour", "dev")
    twin = tmp_path / "twin.a"
    stripped = strip(built, tmp_path / "out", "--strip", "symbols", "--debug-twin", twin)
    assert stripped.stat().st_size < twin.stat().st_size / 2
    shipped = link("behaviour.c", [stripped], [built], tmp_path / "a", linker=linker)
    kept = link("behaviour.c", [twin], [built], tmp_path / "b", linker=linker)
    assert _contents(shipped) == _contents(kept)
    assert run_program(shipped).stdout == run_program(kept).stdout

    names = run(need("nm"), "--defined-only", kept).stdout
    functions = {
        m[2]: int(m[1], 16)
        for m in re.finditer(r"^([0-9a-f]+) [tT] (\S*behaviour\S*)$", names, re.M)
    }
    assert len(functions) > 20
    asked = "".join(f"{address:#x}\n" for address in functions.values())
    tool = need("llvm-symbolizer-22", "llvm-symbolizer")
    places = run(tool, "--obj", kept, "--functions=none", stdin=asked).stdout.strip().split("\n\n")
    assert sum(p.startswith("??") for p in places) < 0.05 * len(places)
    gone = run(tool, "--obj", shipped, "--functions=none", stdin=asked).stdout
    assert "behaviour" not in gone


def _crash(program: Path, target: str | None) -> list[int]:
    """The addresses that a crash report has: of each frame of the program itself."""
    said = run_program(program, target=target, exit_code=3).stdout
    header = run(need("readelf"), "-lW", program).stdout
    spans = [
        (int(m[1], 16), int(m[1], 16) + int(m[2], 16))
        for m in re.finditer(r"LOAD +\S+ 0x(\w+) \S+ \S+ 0x(\w+) R E", header)
    ]
    addresses = [int(word, 16) for word in said.split()]
    return [a for a in addresses if any(first <= a < end for first, end in spans)]


def _frames(program: Path, addresses: list[int]) -> list[list[str]]:
    """Function and `file:line` of each address, frames of inlined functions first."""
    # they are where the call returns to, one behind the call itself
    asked = "".join(f"{address - 1:#x}\n" for address in addresses)
    tool = need("llvm-symbolizer-22", "llvm-symbolizer")
    said = run(tool, "--obj", program, "--inlines", stdin=asked).stdout
    return [answer.split("\n") for answer in said.strip().split("\n\n")]


@pytest.mark.parametrize(
    ("target", "linker"),
    [
        (None, "bfd"),
        (None, "lld"),
        (None, "mold"),
        pytest.param(AARCH64, "bfd", marks=pytest.mark.target(AARCH64)),
        pytest.param(AARCH64, "lld", marks=pytest.mark.target(AARCH64)),
    ],
)
def test_every_address_of_a_crash_report_is_known(
    target: str | None, linker: str, tmp_path: Path
) -> None:
    """The stripped program crashes; the twin's says what the original's says."""
    built = fixtures.library("behaviour", "dev", target, "debian" if target else "rustup")
    twin = tmp_path / "twin.a"
    stripped = strip(built, tmp_path / "out", "--strip", "symbols", "--debug-twin", twin)
    flags = ("-no-pie", "-Wl,--gc-sections")
    shipped, kept, whole = (
        link("crash.c", [library], [built], tmp_path / name, *flags, linker=linker)
        for name, library in (("a", stripped), ("b", twin), ("c", built.library))
    )
    run(need("llvm-strip-22", "llvm-strip"), shipped)
    addresses = _crash(shipped, target)
    found = _frames(kept, addresses)
    assert found == _frames(whole, _crash(whole, target))
    told = "\n".join("\n".join(frame) for frame in found)
    assert "\ncrash\n" in told and "bhv_map" in told and "state.rs:70" in told
    assert "core/src" in told  # std's frames between them
    known = [frame for frame in found if not any("??" in line for line in frame)]
    # what is before main has no debug information in the original either
    assert len(known) >= len(found) - 1 and len(known) > 5


def _refused(*words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cargo_strip_hook", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr


def test_a_stripped_library_has_no_twin(tmp_path: Path) -> None:
    built = fixtures.library("alpha", "release")
    library = built.copy_to(tmp_path / "copy")
    words = ["strip", library, "--header", built.header]
    run(sys.executable, "-m", "cargo_strip_hook", *words)
    before = library.read_bytes()
    twin = tmp_path / "twin.a"
    assert "was stripped before" in _refused(*words, "--debug-twin", twin)
    assert library.read_bytes() == before
    assert not twin.exists()


def test_the_system_engine_makes_none(tmp_path: Path) -> None:
    built = fixtures.library("alpha", "release")
    twin, out = tmp_path / "twin.a", tmp_path / "out.a"
    words = ["strip", built.library, "--header", built.header, "-o", out, "--debug-twin", twin]
    assert "cannot make a debug twin" in _refused(*words, "--engine", "system")
    assert not twin.exists()
    assert not out.exists()
