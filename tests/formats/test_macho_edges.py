"""Mach-O objects that compilers here do not make, or not for every platform, through the engine."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.sniff import macho_platforms
from tests.consumers import darwin_image
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.unit.macho_objects import TEXT, Section, build


def test_hints_and_tables_of_symbols_are_gone(tmp_path: Path) -> None:
    """Both hold places of the original: what they say would be wrong of the result."""
    text = """
    int outside(int *);
    static int value = 3, other;
    int api(int a) { return outside(&value) + outside(&other) + a; }
    """
    original = kit.library(tmp_path, "arm64", {"a.c": text}, "-O2", "-faddrsig")
    out, _, _ = kit.strip(original, "arm64", ["_api"])
    said = [
        tool([kit.llvm("objdump"), "--macho", "--private-headers", "--link-opt-hints", library])
        for library in (original, out)
    ]
    for what in ("LC_LINKER_OPTIMIZATION_HINT", "AdrpAdd", "__llvm_addrsig"):
        assert what in said[0], what
        assert what not in said[1], what


@pytest.mark.parametrize("strip", Strip)
def test_a_debug_map_is_gone(tmp_path: Path, strip: Strip) -> None:
    """As `ld -r` leaves one: names of object files that nobody has any more."""
    text = Section(b"__TEXT", b"__text", b"\xc0\x03\x5f\xd6" * 4, TEXT, 2)
    symbols = [
        (b"/gone/", 0x64, 0, 0, 0),  # N_SO
        (b"file.c", 0x64, 0, 0, 0),
        (b"/gone/file.o", 0x66, 0, 1, 1234),  # N_OSO
        (b"", 0x2E, 1, 0, 0),  # N_BNSYM
        (b"_inner", 0x24, 1, 0, 0),  # N_FUN
        (b"", 0x24, 0, 0, 8),
        (b"", 0x4E, 1, 0, 8),  # N_ENSYM
        (b"", 0x64, 1, 0, 0),
        (b"_inner", 0x0E, 1, 0, 0),
        (b"_api", 0x0F, 1, 0, 8),
    ]
    version = struct.pack("<6I", 0x32, 24, 1, 13 << 16, 13 << 16, 0)
    (tmp_path / "a.o").write_bytes(build([text], symbols, extra=version, extra_count=1))
    original = kit.archive(tmp_path / "libt.a", [tmp_path / "a.o"])
    assert "OSO" in tool([kit.llvm("nm"), "-a", original])
    out, _, _ = kit.strip(original, "arm64", ["_api"], strip)
    said = tool([kit.llvm("nm"), "-a", out])
    assert " T _api" in said
    assert not re.search(r" - |/gone/|OSO|BNSYM", said)


@pytest.mark.parametrize("more", [0, 1])
def test_255_sections_are_written_and_256_refused(tmp_path: Path, more: int) -> None:
    """One of them is ours."""
    version = struct.pack("<6I", 0x32, 24, 1, 13 << 16, 13 << 16, 0)
    objects, left = [], 253 + more
    for name, count in (("a", 200), ("b", left - 200)):
        sections = [Section(b"__TEXT", b"__text", b"\xc0\x03\x5f\xd6", TEXT, 2)]
        sections += [
            Section(b"__DATA", b"__%s%d" % (name.encode(), n), bytes(8), 0x10000000, 3)
            for n in range(count)
        ]
        symbols = [(b"_" + name.encode(), 0x0F, 1, 0, 0)]
        objects.append(tmp_path / f"{name}.o")
        objects[-1].write_bytes(build(sections, symbols, extra=version, extra_count=1))
    original = kit.archive(tmp_path / "libt.a", objects)
    if more:
        with pytest.raises(LinkError, match="needs 256 sections"):
            kit.strip(original, "arm64", ["_a", "_b"])
        return
    out, _, _ = kit.strip(original, "arm64", ["_a", "_b"])
    said = tool([kit.llvm("readobj"), "--sections", out])
    assert len(re.findall(r"^ +Index: ", said, re.M)) == 255
    main = "int a(void), b(void); int main(void) { a(); b(); return 0; }"
    kit.link(tmp_path / "program", "arm64", [*kit.compile(tmp_path, "arm64", {"m.c": main}), out])


PLATFORMS = [
    ("arm64", "tvos15.0", "aarch64-apple-tvos", "tvos"),
    ("arm64", "tvos15.0-simulator", "aarch64-apple-tvos-sim", "tvos-simulator"),
    ("x86_64", "tvos15.0-simulator", "x86_64-apple-tvos", "tvos-simulator"),
    ("arm64", "xros1.0", "aarch64-apple-visionos", "xros"),
    ("arm64", "xros1.0-simulator", "aarch64-apple-visionos-sim", "xros-simulator"),
    ("arm64", "watchos9.0-simulator", "aarch64-apple-watchos-sim", "watchos-simulator"),
    ("x86_64", "watchos9.0-simulator", "x86_64-apple-watchos-sim", "watchos-simulator"),
    ("arm64", "ios15.0-macabi", "aarch64-apple-ios-macabi", "mac-catalyst"),
    ("x86_64", "ios15.0-macabi", "x86_64-apple-ios-macabi", "mac-catalyst"),
    ("arm64", "ios15.0-simulator", "aarch64-apple-ios-sim", "ios-simulator"),
    ("x86_64", "ios15.0-simulator", "x86_64-apple-ios", "ios-simulator"),
]


@pytest.mark.parametrize(("processor", "platform", "target", "linked"), PLATFORMS)
def test_every_platform_of_apples(
    tmp_path: Path, processor: str, platform: str, target: str, linked: str
) -> None:
    """All of them are one code: what differs is what the objects say they are for."""
    text = """
    int printf(const char *, ...);
    static _Thread_local int calls;
    static int inner(int a) { return a + ++calls; }
    int dead(int a) { return inner(a) * 3; }
    int api(int a) { return printf("%d", inner(a)); }
    """
    original = kit.library(tmp_path, processor, {"a.c": text}, "-O1", platform=platform)
    out, _, done = kit.strip(original, processor, ["_api"], target=target)
    assert done.functions >= 1
    wanted = Target.parse(target).apple_platform
    assert wanted is not None
    with open_archive(out) as archive:
        (member,) = archive.members
        assert [number for number, _ in macho_platforms(archive.data(member))] == [wanted]
    (main,) = kit.compile(
        tmp_path,
        processor,
        {"main.c": "int api(int); int main(void) { return api(1); }"},
        platform=platform,
    )
    images = []
    for name, library in (("first", original), ("second", out)):
        stub = kit.stub_for(linked.replace("mac-catalyst", "maccatalyst"))
        program = kit.link(
            tmp_path / name, processor, [main, library], "-dead_strip", stub=stub, platform=linked
        )
        images.append(darwin_image.load(program.read_bytes()).sections)
    assert images[0].keys() == images[1].keys()
    sizes = [{k: v[1] for k, v in image.items()} for image in images]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("strip", Strip)
@pytest.mark.parametrize("arch", kit.ARCHES)
def test_a_library_that_is_in_no_section(tmp_path: Path, arch: str, strip: Strip) -> None:
    """Nothing but commons and absolute symbols."""
    sources = {"a.c": "int one; char many[100];", "b.s": ".globl _fixed\n_fixed = 0x1234\n"}
    original = kit.library(tmp_path, arch, sources, "-fcommon")
    out, _, done = kit.strip(original, arch, ["_one", "_many", "_fixed"], strip)
    assert done.exports == ("_fixed", "_many", "_one")
    said = [tool([kit.llvm("nm"), "-m", "--defined-only", library]) for library in (original, out)]
    pattern = r"^([0-9a-f]{16}) \((common|absolute)\) .*external (\w+)$"
    rows = [sorted(re.findall(pattern, text, re.M)) for text in said]
    assert rows[0] == rows[1]
    assert len(rows[1]) == 3


COVERED = "int api(int a) { return a > 3 ? a * 2 : a + 1; }"
COVERED_TOO = "int api(int); int other(int a) { return a ? api(a) : 7; }"


@pytest.mark.parametrize("strip", Strip)
@pytest.mark.parametrize("arch", kit.ARCHES)
def test_coverage_of_a_program(tmp_path: Path, arch: str, strip: Strip) -> None:
    """llvm-cov tells the same, and the runtime that writes profiles is asked for as before."""
    flags = ("-O1", "-fprofile-instr-generate", "-fcoverage-mapping")
    sources = {"a.c": COVERED, "b.c": COVERED_TOO}
    original = kit.library(tmp_path, arch, sources, *flags)
    out, result, _ = kit.strip(original, arch, ["_api", "_other"], strip)
    assert result.undefined == ("___llvm_profile_runtime",)
    main = "int other(int); int main(void) { return other(1); }"
    runtime = "int __llvm_profile_runtime = 1;"
    objects = kit.compile(tmp_path, arch, {"main.c": main, "runtime.c": runtime})
    told = []
    for name, library in (("first", original), ("second", out)):
        program = kit.link(tmp_path / name, arch, [*objects, library], "-dead_strip")
        argv = [kit.llvm("cov"), "export", "--empty-profile", "--arch", arch, program]
        told.append(tool(argv))
        sections = darwin_image.load(program.read_bytes()).sections
        told.append(str({k: v[1] for k, v in sections.items() if "__llvm" in k[1]}))
    assert told[:2] == told[2:]
    assert "api" in told[0]
    assert "__llvm_prf_data" in told[1]
