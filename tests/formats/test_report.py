"""Sizes against other readers, for every format; and the tables made of them."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import cargo_strip_hook
from cargo_strip_hook.analysis.sizes import Sizes, compare, measure_library
from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.demangle import crate_of
from tests.fixtures import library
from tests.formats.native_kit import archive, build, tool
from tests.tools import need

REAL = {
    "x86_64-unknown-linux-gnu": ("imagequant-sys", "rustup"),
    "aarch64-apple-darwin": ("apple", "debian"),
    "x86_64-pc-windows-gnu": ("windows", "debian"),
    "x86_64-pc-windows-msvc": ("windows", "debian"),
}


def _built(triple: str) -> Path:
    name, toolchain = REAL[triple]
    return library(name, "release", triple, toolchain).library  # type: ignore[arg-type]


def _measured(path: Path, triple: str) -> Sizes:
    [found] = measure_library(path, Target.parse(triple))
    return found


_UNLOADED = ("debug", "llvm", "comment", "note.GNU-stack", "drectve", "group", "apple_")


def _kind(name: str) -> str | None:
    """What a section is for, by the name that llvm-size shows; None for what is not loaded."""
    name = name.lstrip("._")
    if name.startswith(_UNLOADED):
        return None
    if name.startswith(("eh_frame", "gcc_except_tab", "compact_unwind", "pdata", "xdata")):
        return "unwind"
    if name.startswith("text"):
        return "code"
    if name.startswith(("bss", "tbss", "thread_bss", "common", "zerofill")):
        return "zeros"
    return "constants or data"


def _told_by_llvm(path: Path, without: set[str]) -> Counter[str]:
    """Sums of what sections are for, those of some members left out."""
    counts: Counter[str] = Counter()
    member = ""
    for line in tool([need("llvm-size-22"), "-A", path]).splitlines():
        if line.endswith("):"):
            member = line.split()[0]
        found = re.fullmatch(r"(\S+)\s+(\d+)\s+\d+", line.strip())
        if found and found[1] != "Total" and member not in without:
            counts[_kind(found[1]) or "none"] += int(found[2])
    return counts


@pytest.mark.parametrize("triple", REAL)
def test_sums_of_real_libraries(triple: str) -> None:
    path = _built(triple)
    sizes = _measured(path, triple)
    assert sum(sizes.file.values()) == sizes.size == path.stat().st_size
    assert min(sizes.file.values()) >= 0
    for kind, total in sizes.loaded.items():
        assert sum(c.kinds[kind] for c in sizes.crates) == total
    everything = sum(sizes.loaded.values())
    assert all(min(c.kinds.values()) >= 0 for c in sizes.crates)
    other = sum(c.size for c in sizes.crates if c.name == "(other)")
    assert other <= 0.02 * everything
    assert {c.name for c in sizes.crates} >= {"core", "alloc", "std", "compiler_builtins"}
    with open_archive(path) as opened:
        assert sorted(m.size for m in sizes.members) == sorted(m.size for m in opened.members)
    assert sum(m.loaded for m in sizes.members) == everything

    # members of import libraries stay what they are: nothing of them is looked at
    told = _told_by_llvm(path, {m.name for m in sizes.members if not m.loaded})
    assert sizes.loaded["unwind"] == told["unwind"]
    assert sizes.loaded["code"] == told["code"]
    assert sizes.loaded["zeros"] == told["zeros"]
    assert sizes.loaded["constants"] + sizes.loaded["data"] == told["constants or data"]


def test_crates_by_another_reader(tmp_path: Path) -> None:
    """Each function has a section of its name: pyelftools adds up those of each crate."""
    path = _built("x86_64-unknown-linux-gnu")
    sizes = _measured(path, "x86_64-unknown-linux-gnu")
    expected: Counter[str] = Counter()
    with open_archive(path) as opened:
        for number, member in enumerate(opened.members):
            file = tmp_path / f"{number}.o"
            file.write_bytes(opened.data(member))
            with file.open("rb") as stream:
                for section in ELFFile(stream).iter_sections():
                    name = section.name.removeprefix(".text.").removeprefix("unlikely.")
                    crate = crate_of(name) if section.name.startswith(".text.") else None
                    if crate:
                        expected[crate] += section["sh_size"]
            file.unlink()
    found = {c.name: c.kinds["code"] for c in sizes.crates}
    # where a crate has no names of C, its code is that of its mangled names, to the byte
    for crate in ("core", "alloc", "gimli", "object", "addr2line", "miniz_oxide", "rayon_core"):
        assert found[crate] == expected[crate] > 1000, crate
    assert all(found[crate] >= size for crate, size in expected.items())


def test_a_stripped_library_keeps_its_shares(tmp_path: Path) -> None:
    """What lives has the owners it had: code by names, the rest by what refers to it."""
    triple = "x86_64-unknown-linux-gnu"
    built = library("imagequant-sys", "release")
    out = tmp_path / "out.a"
    assert built.header is not None
    cargo_strip_hook.strip(built.library, headers=built.header, output=out)
    sizes = _measured(out, triple)
    assert sum(sizes.file.values()) == out.stat().st_size
    assert sum(c.size for c in sizes.crates if c.name == "(other)") < 0.001 * sizes.size
    before = {c.name: c.size for c in _measured(built.library, triple).crates}
    for crate in sizes.crates:
        assert crate.size <= before.get(crate.name, 0) or crate.name[0] == "(", crate
    functions: dict[tuple[int, int], tuple[str, int]] = {}
    with open_archive(out) as opened:
        file = tmp_path / "out.o"
        file.write_bytes(opened.data(opened.members[0]))
    with file.open("rb") as stream:
        for symbol in ELFFile(stream).get_section_by_name(".symtab").iter_symbols():
            if symbol["st_info"]["type"] == "STT_FUNC" and isinstance(symbol["st_shndx"], int):
                place = symbol["st_shndx"], symbol["st_value"]
                functions[place] = crate_of(symbol.name) or "", symbol["st_size"]
    expected: Counter[str] = Counter()
    for crate_name, size in functions.values():
        expected[crate_name] += size
    for crate in sizes.crates[:6]:
        # besides the functions themselves: up to 15 bytes behind each, for alignment
        assert expected[crate.name] <= crate.kinds["code"] <= 1.1 * expected[crate.name]


SOURCES = {
    "a.c": 'const char text[100] = "x"; int words[25] = {1}; char zeros[4096];\n'
    "extern int other(const char *); int first(void) { return other(text) + words[3]; }",
    "b.c": "int other(const char *p) { return p[0]; }",
}


@pytest.mark.parametrize(
    "triple", ["x86_64-linux-gnu", "aarch64-apple-macos11", "x86_64-pc-windows-gnu"]
)
def test_small_objects(tmp_path: Path, triple: str) -> None:
    objects = build(
        tmp_path, SOURCES, f"--target={triple}", "-O1", "-ffunction-sections", compiler="clang-22"
    )
    path = tmp_path / "libab.a"
    tool([need("llvm-ar-22"), "rcsD", path, *objects])
    [sizes] = cargo_strip_hook.report(path)
    assert (sizes.loaded["data"], sizes.loaded["zeros"]) == (100, 4096)
    assert sizes.loaded["constants"] == 100
    assert sizes.loaded["code"] > 0
    assert [(c.name, c.size) for c in sizes.crates] == [("(C objects)", sum(sizes.loaded.values()))]


def test_difference_and_output(tmp_path: Path) -> None:
    one = build(tmp_path / "one", SOURCES, "-ffunction-sections")
    more = SOURCES | {"c.c": "int third(int x) { return x * 3; } int fourth[1000] = {4};"}
    two = build(tmp_path / "two", more, "-ffunction-sections")
    before, after = archive(tmp_path / "a.a", one), archive(tmp_path / "b.a", two)
    [old], [new] = cargo_strip_hook.report(before), cargo_strip_hook.report(after)
    changes = {c.name: c for c in compare(old, new).loaded}
    assert (changes["data"].before, changes["data"].after) == (100, 4100)
    assert changes["zeros"].by == 0

    program = [sys.executable, "-m", "cargo_strip_hook", "report"]
    text = tool([*program, after])
    total = re.search(r"total .* ([\d,]+) +100\.0", text)
    assert total and int(total[1].replace(",", "")) == sum(new.loaded.values())
    shortened = tool([*program, after, "--top", "1"])
    assert "… 2 more" in shortened
    markdown = tool([*program, before, after, "--markdown"])
    assert "| data | 100 | 4,100 | +4,000 |" in re.sub(r"(\+4,000 \|).*", r"\1", markdown)
    assert f"{before.stat().st_size:,}" in markdown
    messages = [json.loads(line) for line in tool([*program, before, after, "--json"]).splitlines()]
    assert [m["reason"] for m in messages] == ["sizes-changed", "finished"]
    assert (messages[0]["before"], messages[0]["after"]) == (old.size, new.size)
    same = tool([*program, after, after])
    assert "+0 %" in same


def test_what_cannot_be_read(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "cargo_strip_hook", "report"]
    nothing = tmp_path / "nothing.a"
    nothing.write_bytes(b"!<arch>\n")
    assert "no file" in tool([*program, tmp_path / "none.a"], accept=[1])
    [sizes] = cargo_strip_hook.report(nothing)
    assert (sizes.size, sum(sizes.loaded.values()), sizes.crates) == (8, 0, ())
    assert tool([*program, nothing])
    [obj, _] = build(tmp_path, SOURCES)
    damaged = archive(tmp_path / "damaged.a", [obj])
    data = bytearray(damaged.read_bytes())
    at = data.index(b"\x7fELF")
    data[at + 40 : at + 48] = b"\xff" * 8
    damaged.write_bytes(data)
    assert "a.o" in tool([*program, damaged], accept=[1])
