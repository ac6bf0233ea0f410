"""Rust libraries with a real std for Darwin, stripped and linked on whatever machine this is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from macholib.MachO import MachO

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.consumers import darwin_image
from tests.consumers import darwin_library as darwin
from tests.consumers.darwin_library import CASES, PLATFORMS, PROGRAMS
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.formats.test_macho_debug import lines
from tests.targets import DARWIN

MACOS = [t for t in DARWIN if t.endswith("darwin")]


def _sizes(program: Path) -> dict[tuple[str, str], int]:
    return {k: v[1] for k, v in darwin_image.load(program.read_bytes()).sections.items()}


@pytest.mark.parametrize("whole", [True, False], ids=["all", "one"])
@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_program_is_the_same(tmp_path: Path, name: str, target: str, whole: bool) -> None:
    """All functions, what unwinds them, and the sizes of all sections.

    The programs export nothing: what is weak in the original could be replaced otherwise, and is
    loaded from a table of addresses.
    """
    flag = "-no_exported_symbols"
    source = PROGRAMS[name][0 if whole else 2]
    library = darwin.built_for(name, target).library
    original = darwin.program(tmp_path / "first", target, source, (name,), [library], flag)
    library = darwin.stripped(tmp_path, name, target, Strip.DEBUGINFO)
    result = darwin.program(tmp_path / "second", target, source, (name,), [library], flag)
    functions = darwin_image.program(original, kit.llvm("objdump"))
    assert darwin_image.program(result, kit.llvm("objdump")) == functions
    assert sum(functions.values()) > (500 if whole else 4)
    routines = {unwound[-2] for _, unwound in functions if len(unwound) > 1}
    assert "_rust_eh_personality" in routines or not whole
    before, after = _sizes(original), _sizes(result)
    assert before.keys() == after.keys()
    for section, size in before.items():
        # how much is in a page of unwind information hangs on the order of functions: linkers put
        # those that hardly ever run behind all others
        allowed = 4096 + 32 if section == ("__TEXT", "__unwind_info") else max(size // 100, 32)
        assert abs(after[section] - size) <= allowed, section
    library = darwin.stripped(tmp_path, name, target, Strip.SYMBOLS)
    without = darwin.program(tmp_path / "third", target, source, (name,), [library], flag)
    assert _sizes(without) == after
    assert _unwinding_without_names(without) == _unwinding_without_names(result)


def _unwinding_without_names(program: Path) -> list[int]:
    """The compact encodings in the order of the functions, offsets of FDEs left out."""
    image = darwin_image.load(program.read_bytes())
    entries, _, _ = darwin_image.unwind_entries(image)
    mode = darwin_image.DWARF_MODE[image.cpu]
    return sorted(mode if e & 0x0F000000 == mode else e for _, e in entries)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("target", MACOS)
@pytest.mark.parametrize("strip", [Strip.DEBUGINFO, Strip.SYMBOLS])
def test_zig_links_it_too(tmp_path: Path, name: str, target: str, strip: Strip) -> None:
    platform = PLATFORMS[target]
    library = darwin.stripped(tmp_path, name, target, strip)
    programs = []
    names = ("first", "second")
    originals = (darwin.built_for(name, target).library, library)
    include = darwin.header(name, target).parent
    for out, one in zip((tmp_path / n for n in names), originals, strict=True):
        argv: list[str | Path] = [kit.ziglang() / "zig", "c++", "-target", platform.zig, "-o", out]
        source = darwin.C / PROGRAMS[name][0]
        argv += ["-x", "c", "-I", include, source, "-x", "none", one, "-Wl,-dead_strip"]
        tool(argv)
        programs.append(darwin_image.load(out.read_bytes()))
    first, second = programs
    text = [i.sections["__TEXT", "__text"][1] for i in programs]
    assert abs(text[0] - text[1]) <= text[0] // 100
    # neighbours of one encoding are one entry, so their number says little
    before, after = _covered(first), _covered(second)
    assert before.keys() == after.keys()
    assert sum(abs(before[e] - after[e]) for e in before) <= text[0] // 100
    assert len(darwin_image.frames(first)) == len(darwin_image.frames(second))
    if strip is Strip.DEBUGINFO:
        # zig's table of indirect symbols names others for what is weak
        objdump = kit.llvm("objdump")
        bodies = [darwin_image.program(tmp_path / n, objdump, named=False) for n in names]
        # zig relaxes loads by what happens to be near: a handful of instructions may differ
        assert sum((bodies[0] - bodies[1]).values()) <= 4
        assert sum((bodies[1] - bodies[0]).values()) <= 4


@pytest.mark.parametrize("name", PROGRAMS)
def test_zig_links_it_for_the_simulator(tmp_path: Path, name: str) -> None:
    """Without a system to link with: zig has none. For devices it writes an empty file."""
    target = "aarch64-apple-ios-sim"
    libraries = (
        darwin.built_for(name, target).library,
        darwin.stripped(tmp_path, name, target, Strip.DEBUGINFO),
    )
    images = []
    for out, library in zip((tmp_path / "first", tmp_path / "second"), libraries, strict=True):
        objects = darwin.compiled(out, target, PROGRAMS[name][0], (name,))
        argv: list[str | Path] = [kit.ziglang() / "zig", "cc", "-target", PLATFORMS[target].zig]
        argv += ["-nostdlib", "-Wl,-undefined,dynamic_lookup", "-Wl,-dead_strip", "-o", out]
        tool([*argv, *objects, library])
        images.append(darwin_image.load(out.read_bytes()))
    text = [i.sections["__TEXT", "__text"][1] for i in images]
    assert text[0] > 10_000
    assert abs(text[0] - text[1]) <= text[0] // 100
    assert len(darwin_image.frames(images[0])) == len(darwin_image.frames(images[1]))
    before, after = (_covered(i) for i in images)
    assert before.keys() == after.keys()
    assert sum(abs(before[e] - after[e]) for e in before) <= text[0] // 100


def _covered(image: darwin_image.Image) -> Counter[int]:
    """Encoding -> how many bytes of code are unwound by it.

    Code without unwind information is left out: zig says so only of some files.
    """
    entries, _, _ = darwin_image.unwind_entries(image)
    mode = darwin_image.DWARF_MODE[image.cpu]
    start, size, _ = image.sections["__TEXT", "__text"]
    found: Counter[int] = Counter()
    for (address, encoding), (end, _) in pairwise([*entries, (start + size, 0)]):
        # which number a personality routine has is the linker's matter
        kind = encoding & ~(3 << 28) | bool(encoding >> 28 & 3) << 28
        found[mode if encoding & 0x0F000000 == mode else kind] += end - address
    del found[0]
    return found


@pytest.mark.parametrize(("name", "target"), CASES)
def test_it_is_small(tmp_path: Path, name: str, target: str) -> None:
    """Against the stripped, dead-stripped dylib of the same crate."""
    floor = darwin.floor(tmp_path, name, target)
    for strip, factor in ((Strip.SYMBOLS, 1.5), (Strip.DEBUGINFO, 2.2)):
        size = darwin.stripped(tmp_path, name, target, strip).stat().st_size
        assert size <= factor * floor, f"{size / floor:.2f} times the dylib"


@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_command_does_it_from_the_header(tmp_path: Path, name: str, target: str) -> None:
    original = darwin.built_for(name, target).library
    out = tmp_path / original.name
    words: list[str | Path] = ["strip", original, "--header", darwin.header(name, target)]
    words += ["--target", target, "-o", out, "--message-format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "cargo_strip_hook", *words], check=True, capture_output=True
    )
    found = kit.globals_of(out)
    defined = {n for n, letter in found.items() if letter not in "Uu"}
    assert defined == {*darwin.exports(name, target), "_rust_eh_personality"}
    before = kit.globals_of(original)
    undefined = {n for n, letter in found.items() if letter in "Uu"}
    assert undefined <= {n for n, letter in before.items() if letter in "Uu"}
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [s["undefined"] for s in said if s["reason"] == "stripped"] == [sorted(undefined)]


@pytest.mark.parametrize("target", DARWIN)
@pytest.mark.parametrize("name", ["apple", "mixed"])
@pytest.mark.parametrize("strip", Strip)
def test_tools_read_it_without_a_complaint(
    tmp_path: Path, name: str, target: str, strip: Strip
) -> None:
    out = darwin.stripped(tmp_path, name, target, strip)
    for words in (
        ("objdump", "-d", "-r", "-t", "--private-headers", "--unwind-info"),
        ("nm", "-a", "-m"),
        ("readobj", "--all"),
        ("size", "-m"),
    ):
        said = tool([kit.llvm(words[0]), *words[1:], out])
        assert not re.search(r"\b(warning|error|malformed|truncated)\b:", said, re.I), said[-3000:]
    assert "No errors." in tool([kit.llvm("dwarfdump"), "--verify", out])
    file = tmp_path / "member.o"
    data = out.read_bytes()
    file.write_bytes(data[data.index(b"\xcf\xfa\xed\xfe") :])
    (header,) = MachO(str(file)).headers
    names = [command.get_cmd_name() for command, _, _ in header.commands]
    versions = [n for n in names if n.startswith(("LC_VERSION_MIN", "LC_BUILD_VERSION"))]
    assert names[:1] + names[2:4] == ["LC_SEGMENT_64", "LC_SYMTAB", "LC_DYSYMTAB"]
    assert (names[1:2], set(names[4:])) in [(versions, set()), (versions, {"LC_DATA_IN_CODE"})]


@pytest.mark.parametrize("granularity", Granularity)
def test_the_same_bytes_twice(tmp_path: Path, granularity: Granularity) -> None:
    results = [
        darwin.stripped(
            tmp_path / folder, "apple", MACOS[1], Strip.DEBUGINFO, granularity
        ).read_bytes()
        for folder in ("a", "b")
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["apple", "mixed"])
@pytest.mark.parametrize("target", MACOS)
def test_debug_information_is_found_from_the_program(
    tmp_path: Path, name: str, target: str
) -> None:
    flag = "-no_exported_symbols"
    source = PROGRAMS[name][0]
    library = darwin.built_for(name, target).library
    original = darwin.program(tmp_path / "first", target, source, (name,), [library], flag)
    library = darwin.stripped(tmp_path, name, target, Strip.NONE)
    result = darwin.program(tmp_path / "second", target, source, (name,), [library], flag)
    expected, found = lines(original), lines(result)
    # of two names of one place only one stays
    places = [
        Counter(text for texts in one.values() for text in texts) for one in (expected, found)
    ]
    assert places[0] == places[1]
    assert sum(places[0].values()) > 500
    common = found.keys() & expected.keys()
    assert all(set(found[name]) == set(expected[name]) for name in common)
    functions = darwin_image.program(original, kit.llvm("objdump"))
    assert darwin_image.program(result, kit.llvm("objdump")) == functions
