"""A Rust library with a real std for macOS, stripped and linked on whatever machine this is."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from cargo_strip_hook.job import Granularity, Strip
from tests.consumers import darwin_image
from tests.consumers.darwin_library import EXPORTS, HEADER, built
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.formats.test_macho_debug import lines

C = Path(__file__).resolve().parent / "c"
ONE = "int apl_panic_code(int); int main(void) { return apl_panic_code(3); }"


@cache
def _original(arch: str) -> Path:
    return built(kit.triple(arch))


def _stripped(folder: Path, arch: str, strip: Strip, exports: tuple[str, ...] = EXPORTS) -> Path:
    """The library as the engine writes it, verified."""
    link = folder / "libapple.a"
    if not link.exists():
        link.symlink_to(_original(arch))
    return kit.strip(link, arch, exports, strip)[0]


def _program(
    folder: Path, name: str, arch: str, libraries: list[Path], text: str = "", *flags: str
) -> Path:
    source = text or (C / "darwin_main.c").read_text()
    objects = kit.compile(folder, arch, {f"{name}.c": source}, "-O1", "-ffreestanding")
    flags = ("-dead_strip", *flags)
    stub = kit.ziglang_stub()
    return kit.link(folder / name, arch, [*objects, *libraries], *flags, stub=stub)


def _sizes(program: Path) -> dict[tuple[str, str], int]:
    return {k: v[1] for k, v in darwin_image.load(program.read_bytes()).sections.items()}


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize("text", ["", ONE])
def test_the_program_is_the_same(tmp_path: Path, arch: str, text: str) -> None:
    """All functions, what unwinds them, and the sizes of all sections."""
    original = _program(tmp_path, "first", arch, [_original(arch)], text)
    library = _stripped(tmp_path, arch, Strip.DEBUGINFO)
    result = _program(tmp_path, "second", arch, [library], text)
    functions = darwin_image.program(original, kit.llvm("objdump"))
    assert darwin_image.program(result, kit.llvm("objdump")) == functions
    assert sum(functions.values()) > 500
    before, after = _sizes(original), _sizes(result)
    assert before.keys() == after.keys()
    for name, size in before.items():
        assert abs(after[name] - size) <= max(size // 100, 32), name
    without = _program(tmp_path, "third", arch, [_stripped(tmp_path, arch, Strip.SYMBOLS)], text)
    assert _sizes(without) == after
    assert _unwinding_without_names(without) == _unwinding_without_names(result)


def _unwinding_without_names(program: Path) -> list[int]:
    """The compact encodings in the order of the functions, offsets of FDEs left out."""
    image = darwin_image.load(program.read_bytes())
    entries, _, _ = darwin_image.unwind_entries(image)
    mode = darwin_image.DWARF_MODE[image.cpu]
    return sorted(mode if e & 0x0F000000 == mode else e for _, e in entries)


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_five_libraries_share_one_personality(tmp_path: Path, arch: str) -> None:
    names = [n for n in EXPORTS if "panic" in n or "thread" in n][:5]
    assert len(names) == 5
    libraries = []
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        libraries.append(_stripped(folder, arch, Strip.DEBUGINFO, (name,)))
    calls = "".join(f"int {n[1:]}(int); " for n in names)
    text = calls + "int main(void) { return " + " + ".join(f"{n[1:]}(1)" for n in names) + "; }"
    program = _program(tmp_path, "five", arch, libraries, text, "-export_dynamic")
    image = darwin_image.load(program.read_bytes())
    routines = [s for s in image.symbols if s[0] == "_rust_eh_personality"]
    assert len(routines) == 1
    assert not routines[0][1] & 1, "the program exports the personality"
    assert len(darwin_image.unwind_entries(image)[2]) <= 3
    slots = {frame.personality for frame in darwin_image.frames(image).values()}
    assert len(slots - {0}) == 1


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize("strip", [Strip.DEBUGINFO, Strip.SYMBOLS])
def test_zig_links_it_too(tmp_path: Path, arch: str, strip: Strip) -> None:
    python = next(
        (
            p
            for p in (kit.ziglang().parents[2] / ".." / "bin" / "python", Path(sys.executable))
            if p.exists()
        ),
    )
    library = _stripped(tmp_path, arch, strip)
    programs = []
    names = ("first", "second")
    for name, one in zip(names, (_original(arch), library), strict=True):
        out = tmp_path / name
        target = f"{arch.replace('arm64', 'aarch64')}-macos"
        argv: list[str | Path] = [python, "-m", "ziglang", "cc", "-target", target, "-o", out]
        argv += [C / "darwin_main.c", one, "-Wl,-dead_strip"]
        subprocess.run(argv, check=True, capture_output=True)
        programs.append(darwin_image.load(out.read_bytes()))
    first, second = programs
    counts = [len(darwin_image.unwind_entries(i)[0]) for i in programs]
    assert abs(counts[0] - counts[1]) <= counts[0] // 100  # neighbours of one encoding are one
    assert len(darwin_image.frames(first)) == len(darwin_image.frames(second))
    if strip is Strip.DEBUGINFO:
        before, after = (darwin_image.program(tmp_path / n, kit.llvm("objdump")) for n in names)
        # zig relaxes loads by what happens to be near: a handful of instructions may differ
        assert sum((before - after).values()) <= 4
        assert sum((after - before).values()) <= 4
    text = [i.sections["__TEXT", "__text"][1] for i in programs]
    assert abs(text[0] - text[1]) <= text[0] // 100


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_it_is_small(tmp_path: Path, arch: str) -> None:
    """Against the dead-stripped dylib of the same crate, with all of its local names removed."""
    out = tmp_path / "libapple.dylib"
    folder = tmp_path / "sdk"
    folder.mkdir()
    (folder / "libSystem.tbd").write_text(kit.ziglang_stub())
    exported = [w for n in EXPORTS for w in ("-exported_symbol", n, "-u", n)]
    version = ("-platform_version", "macos", "13.0", "13.0", "-dylib", "-dead_strip", "-x")
    tool(
        [
            kit.linker(),
            "-arch",
            arch,
            *version,
            "-L",
            folder,
            "-lSystem",
            "-o",
            out,
            *exported,
            _original(arch),
        ]
    )
    floor = out.stat().st_size
    for strip, factor in ((Strip.SYMBOLS, 1.5), (Strip.DEBUGINFO, 2.2)):
        assert _stripped(tmp_path, arch, strip).stat().st_size <= factor * floor


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_the_command_does_it_from_the_header(tmp_path: Path, arch: str) -> None:
    out = tmp_path / "libapple.a"
    words: list[str | Path] = ["strip", _original(arch), "--header", HEADER, "--target"]
    words += [kit.triple(arch), "-o", out]
    subprocess.run(
        [sys.executable, "-m", "cargo_strip_hook", *words], check=True, capture_output=True
    )
    found = kit.globals_of(out)
    defined = {n for n, letter in found.items() if letter not in "Uu"}
    assert defined == {*EXPORTS, "_rust_eh_personality"}
    before = kit.globals_of(_original(arch))
    assert {n for n, letter in found.items() if letter in "Uu"} <= before.keys()


@pytest.mark.parametrize("granularity", Granularity)
def test_the_same_bytes_twice(tmp_path: Path, granularity: Granularity) -> None:
    results = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "libapple.a").symlink_to(_original("arm64"))
        out = kit.strip(folder / "libapple.a", "arm64", EXPORTS, granularity=granularity)[0]
        results.append(out.read_bytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_debug_information_is_found_from_the_program(tmp_path: Path, arch: str) -> None:
    original = _program(tmp_path, "first", arch, [_original(arch)])
    library = _stripped(tmp_path, arch, Strip.NONE)
    result = _program(tmp_path, "second", arch, [library])
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
