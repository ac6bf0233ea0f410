"""Debug sections that are compressed: those we write, and those that inputs have."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import types
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from cargo_strip_hook.archive import NewMember, open_archive, write_archive
from cargo_strip_hook.core.errors import ObjectError, UsageError, VerifyError
from cargo_strip_hook.core.requests import Compression, PrelinkResult, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.elf import compress
from cargo_strip_hook.verify import Expectation, verify
from cargo_strip_hook.verify.elf.compressed import header_of, inflate
from tests.formats import native_kit as kit
from tests.formats.prelinked import Editor
from tests.formats.test_native_debug import MAIN, SOURCES, functions, lines
from tests.tools import need
from tests.unit import macho_objects

EXPORTS = ("outer", "cxx", "other")
HOW = (Compression.ZLIB, Compression.ZSTD)
VARIANTS = {
    "gcc": ("gcc", "-gdwarf-5", "-g3", "-ffunction-sections"),
    "gcc-4": ("gcc", "-gdwarf-4", "-O1", "-ffunction-sections"),
    "clang": ("clang-22", "-gdwarf-5", "-ffunction-sections", "-O1"),
}
# word size and byte order of the header in front of the stream
CROSS = {
    "armv7-unknown-linux-gnueabihf": "<III",
    "aarch64-unknown-linux-gnu": "<I4xQQ",
    "s390x-unknown-linux-gnu": ">I4xQQ",
}


def expectation(result: PrelinkResult, how: Compression, triple: str = kit.TRIPLE) -> Expectation:
    target = Target.parse(triple)
    exports, link_map = result.exports, result.link_map
    return Expectation(target, exports, Strip.NONE, link_map, b"marker", compress_debug=how)


def member(library: Path, folder: Path) -> Path:
    """The only object of a library, as a file."""
    with open_archive(library) as archive:
        (only,) = archive.members
        path = folder / f"{library.parent.name}.o"
        path.write_bytes(archive.data(only))
    return path


def debug_sections(path: Path) -> dict[str, tuple[str, int, int]]:
    """Flags, size and alignment of each section of debug information, by readelf."""
    said = kit.tool([need("readelf"), "-SW", path])
    row = r"\] (\.debug_\S+) +PROGBITS +\w+ \w+ (\w+) \w+ ([A-Zap ]*?) +\d+ +\d+ +(\d+)$"
    return {m[1]: (m[3], int(m[2], 16), int(m[4])) for m in re.finditer(row, said, re.M)}


def contents(path: Path, name: str) -> bytes:
    out = path.with_suffix(".section")
    out.unlink(missing_ok=True)
    tool = need("llvm-objcopy-22", "llvm-objcopy")
    kit.tool([tool, "--dump-section", f"{name}={out}", path, path.with_suffix(".copy")])
    return out.read_bytes()


@pytest.fixture(scope="module", params=VARIANTS)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler, *flags = VARIANTS[request.param]
    given = None if compiler == "gcc" else compiler
    folder = tmp_path_factory.mktemp(request.param)
    return kit.library(folder, SOURCES, "-fPIC", *flags, compiler=given)


@pytest.mark.parametrize("how", HOW)
def test_other_tools_read_the_same(how: Compression, original: Path, tmp_path: Path) -> None:
    """LLVM's objcopy undoes it: contents and relocations are those of the plain result."""
    plain, _ = kit.strip(original, EXPORTS, Strip.NONE)
    packed, _ = kit.strip(original, EXPORTS, Strip.NONE, compress=how)
    one, two = member(plain, tmp_path), member(packed, tmp_path)
    was, now = debug_sections(one), debug_sections(two)
    assert was.keys() == now.keys()
    compressed = {name for name, (flags, _, _) in now.items() if "C" in flags}
    assert {".debug_info", ".debug_line", ".debug_str", ".debug_abbrev"} <= compressed
    for name, (_, size, align) in now.items():
        assert (size < was[name][1]) is (name in compressed), "compressed where that is smaller"
        assert align == 8 or name not in compressed
    undone = tmp_path / "undone.o"
    tool = need("llvm-objcopy-22", "llvm-objcopy")
    kit.tool([tool, "--decompress-debug-sections", two, undone])
    again = debug_sections(undone)
    assert again == was  # flags and alignment, too
    for name in was:
        assert contents(undone, name) == contents(one, name), name
    relocations = [
        kit.tool([need("readelf"), "-rW", path]).partition("Relocation")[2] for path in (one, two)
    ]
    entries = [re.findall(r"^[0-9a-f]{12,} .*$", text, re.M) for text in relocations]
    assert entries[0] == entries[1] and len(entries[0]) > 50


@pytest.mark.parametrize("how", HOW)
def test_the_same_twice_and_verified(how: Compression, original: Path, tmp_path: Path) -> None:
    first, result = kit.strip(original, EXPORTS, Strip.NONE, compress=how)
    again = tmp_path / "again.a"
    kit.strip(original, EXPORTS, Strip.NONE, compress=how, output=again)
    assert again.read_bytes() == first.read_bytes()
    verify(original, first, expectation(result, how))


@pytest.mark.parametrize("linker", ["bfd", "lld", "mold"])
@pytest.mark.parametrize("how", HOW)
def test_linkers_take_it(how: Compression, linker: str, original: Path, tmp_path: Path) -> None:
    plain, _ = kit.strip(original, EXPORTS, Strip.NONE)
    packed, _ = kit.strip(original, EXPORTS, Strip.NONE, compress=how)
    (main,) = kit.build(tmp_path, {"main.c": MAIN}, "-fPIE")
    programs = [
        kit.link(tmp_path / name, [main, library], linker, "-Wl,--gc-sections", driver="g++")
        for name, library in (("plain", plain), ("packed", packed))
    ]
    was, now = (functions(program) for program in programs)
    assert was == now and {"inner", "outer", "cxx", "other"} <= now.keys()
    asked = [start + i for start, size in now.values() for i in range(size)]
    expected, found = (lines(program, asked) for program in programs)
    assert found == expected
    assert not any("??:0:0" in line for line in found)
    assert kit.tool([programs[0]], accept=(0, 1)) == kit.tool([programs[1]], accept=(0, 1))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("triple", CROSS)
@pytest.mark.parametrize("given", ["none", "zlib"])
def test_other_machines(given: str, triple: str, how: Compression, tmp_path: Path) -> None:
    """Words of 4 bytes, addends in the contents, the other byte order; inputs compressed or not."""
    source = {"a.c": SOURCES["a.c"]}
    flags = ("-fPIC", "-g", "-ffunction-sections", f"--target={triple}", f"-gz={given}")
    original = kit.library(tmp_path, source, *flags, compiler="clang-22")
    exports = ("outer",)
    plain, _ = kit.strip(original, exports, Strip.NONE, triple=triple)
    packed, result = kit.strip(original, exports, Strip.NONE, triple=triple, compress=how)
    verify(original, packed, expectation(result, how, triple))
    one, two = member(plain, tmp_path), member(packed, tmp_path)
    was, now = debug_sections(one), debug_sections(two)
    assert any("C" in flags for flags, _, _ in now.values())
    undone = tmp_path / "undone.o"
    tool = need("llvm-objcopy-22", "llvm-objcopy")
    kit.tool([tool, "--decompress-debug-sections", two, undone])
    assert debug_sections(undone) == was
    for name in was:
        assert contents(undone, name) == contents(one, name), name
    header = struct.Struct(CROSS[triple])
    raw = contents(two, ".debug_info")
    kind = {Compression.ZLIB: 1, Compression.ZSTD: 2}[how]
    assert header.unpack_from(raw) == (kind, *was[".debug_info"][1:])


# ---- what inputs have

INPUTS = ("zlib", "zstd", "zlib-gnu")


@pytest.mark.parametrize("how", INPUTS)
def test_compressed_inputs_are_as_plain_ones(how: str, tmp_path: Path) -> None:
    objects = kit.build(tmp_path, SOURCES, "-fPIC", "-g", "-ffunction-sections")
    plain = kit.archive(tmp_path / "libt.a", objects)
    packed = []
    for path in objects:
        packed.append(path.with_suffix(f".{how}.o"))
        kit.tool([need("objcopy"), f"--compress-debug-sections={how}", path, packed[-1]])
    marks = {p.read_bytes().count(b".zdebug_info\0") for p in packed}
    assert marks == ({1} if how == "zlib-gnu" else {0})
    folder = tmp_path / "packed"
    folder.mkdir()
    original = kit.archive(folder / "libt.a", packed)
    expected, _ = kit.strip(plain, EXPORTS, Strip.NONE)
    found, result = kit.strip(original, EXPORTS, Strip.NONE)
    verify(original, found, expectation(result, Compression.NONE))
    one, two = member(expected, tmp_path), member(found, folder)
    assert debug_sections(one) == debug_sections(two)
    for name in debug_sections(one):
        assert contents(one, name) == contents(two, name), name
    again, result = kit.strip(original, EXPORTS, Strip.NONE, compress=Compression.ZLIB)
    verify(original, again, expectation(result, Compression.ZLIB))


def changed_input(folder: Path, change: str) -> Path:
    """A library whose member has one compressed section that is not what it should be."""
    (path,) = kit.build(folder, {"a.c": SOURCES["a.c"]}, "-fPIC", "-g", "-gz=zlib")
    editor = Editor(path.read_bytes())
    at = editor.section(".debug_info")["offset"]
    if change == "kind":
        struct.pack_into("<I", editor.data, at, 77)
    elif change == "size":
        struct.pack_into("<Q", editor.data, at + 8, 3)
    elif change == "huge":
        struct.pack_into("<Q", editor.data, at + 8, 1 << 60)
    elif change == "align":
        struct.pack_into("<Q", editor.data, at + 16, 3)
    elif change == "stream":
        editor.data[at + 40] ^= 0xFF
    elif change == "short":
        editor.set_section(".debug_info", size=20)
    path.write_bytes(editor.data)
    return kit.archive(folder / "libt.a", [path])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("kind", "compressed in a way that is not supported (type 77)"),
        ("size", "another size than it says|out of range"),
        ("huge", "compressed to [0-9]+ bytes says that it has 1152921504606846976"),
        ("align", "no power of two"),
        ("stream", "a compressed section is damaged"),
        ("short", "no header"),
    ],
)
def test_damaged_inputs_are_refused(change: str, said: str, tmp_path: Path) -> None:
    original = changed_input(tmp_path, change)
    before = original.read_bytes()
    with pytest.raises(ObjectError) as caught:
        kit.strip(original, ("outer",), Strip.NONE)
    assert caught.value.member == "a.o"
    assert re.search(said.replace("(", r"\(").replace(")", r"\)"), str(caught.value))
    assert original.read_bytes() == before
    # nobody asks what is in it where it is not kept
    kit.strip(original, ("outer",), Strip.DEBUGINFO)


def bomb(folder: Path, how: str, sections: dict[str, tuple[int, int]]) -> Path:
    """A library with compressed sections of zeros: (what each says that it holds, what it does)."""
    (path,) = kit.build(folder, {"a.c": SOURCES["a.c"]}, "-fPIC", "-g")
    editor = Editor(path.read_bytes())
    for name, (says, holds) in sections.items():
        encoder = zlib.compressobj(1) if how != "zstd" else compress.zstd().ZstdCompressor()
        block = bytes(1 << 20)
        stream = b"".join(encoder.compress(block) for _ in range(holds >> 20)) + encoder.flush()
        header = struct.pack("<I4xQQ", 2 if how == "zstd" else 1, says, 1)
        place = -(-len(editor.data) // 8) * 8
        editor.data += bytes(place - len(editor.data)) + header + stream
        flags = editor.section(name)["flags"] | 0x800  # SHF_COMPRESSED
        size = len(header) + len(stream)
        editor.set_section(name, offset=place, size=size, flags=flags, align=8)
    path.write_bytes(editor.data)
    return kit.archive(folder / "libt.a", [path])


def measured(library: Path) -> tuple[int, int, str]:
    """Exit code, the most memory in bytes, and what was said of stripping a library."""
    argv = [sys.executable, "-m", "cargo_strip_hook", "strip", library, "--export", "outer"]
    argv += ["--strip", "none", "-o", library.with_name("out.a")]
    # Linux counts what a process was before it became another program: a small one starts it
    between = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:]).returncode\n"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", between, *argv], capture_output=True, text=True, check=True
    )
    code, memory = map(int, done.stdout.split()[-2:])
    return code, memory << 10, done.stderr


MANY = (".debug_info", ".debug_line", ".debug_str", ".debug_abbrev")


@pytest.mark.parametrize("how", ["zlib", "zstd"])
@pytest.mark.parametrize(
    "sections",
    [
        {".debug_str": (1 << 28, 1 << 28)},  # it tells the truth
        {".debug_str": (1 << 62, 1 << 20)},  # it does not
        dict.fromkeys(MANY, (40 << 20, 40 << 20)),  # each of them could be
    ],
    ids=["true", "untrue", "many"],
)
def test_what_would_fill_the_memory_is_refused(
    how: str, sections: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    library = bomb(tmp_path, how, sections)
    before = library.read_bytes()
    code, memory, said = measured(library)
    assert code == 1
    assert re.search(r"libt\.a\(a\.o\) at .* is compressed to \d+ bytes says that it has", said)
    assert memory < 200 << 20
    assert sorted(p.name for p in tmp_path.glob("*.a*")) == ["libt.a"]
    assert library.read_bytes() == before
    # nobody asks what is in it where it is not kept
    kit.strip(library, ("outer",), Strip.DEBUGINFO)


@pytest.mark.parametrize("how", ["zlib", "zstd"])
def test_no_more_is_inflated_than_a_section_says(how: str, tmp_path: Path) -> None:
    """The stream goes on for 256 times as long."""
    library = bomb(tmp_path, how, {".debug_str": (1 << 20, 1 << 28)})
    code, memory, said = measured(library)
    assert code == 1
    assert "it has another size than it says" in said
    assert memory < 200 << 20


def test_blank_tables_shrink_a_thousandfold(tmp_path: Path) -> None:
    """Fields of relocations are zeros: a real library may have as many."""
    library = bomb(tmp_path, "zlib", {".debug_str": (8 << 20, 8 << 20)})
    assert library.stat().st_size < 100 << 10
    out, result = kit.strip(library, ("outer",), Strip.NONE)
    verify(library, out, expectation(result, Compression.NONE))
    assert debug_sections(member(out, tmp_path))[".debug_str"][1] == 8 << 20


@pytest.mark.parametrize("kind", [1, 2])
def test_the_checker_inflates_no_more_than_it_is_told(kind: int) -> None:
    header = header_of("<", 64)
    block = bytes(1 << 20)
    if kind == 1:
        stream = zlib.compress(block)
    else:
        encoder = compress.zstd().ZstdCompressor()
        stream = encoder.compress(block) + encoder.flush()
    whole = memoryview(header.pack(kind, len(block), 1) + stream)
    assert inflate(whole, "<", 64) == block
    for size, said in (
        (1 << 40, "larger than"),
        (5, "another size"),
        (2 << 20, "another size|too"),
    ):
        with pytest.raises(ValueError, match=said):
            inflate(memoryview(header.pack(kind, size, 1) + stream), "<", 64)
    with pytest.raises(ValueError, match=r"another size|too early"):
        inflate(whole[:-3], "<", 64)


# ---- what the checker finds


@pytest.fixture(scope="module", params=HOW)
def packed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Expectation]:
    folder = tmp_path_factory.mktemp("packed")
    original = kit.library(folder, SOURCES, "-fPIC", "-g", "-ffunction-sections")
    stripped, result = kit.strip(original, EXPORTS, Strip.NONE, compress=request.param)
    return original, stripped, expectation(result, request.param)


def findings(packed: tuple[Path, Path, Expectation], change: str) -> str:
    original, stripped, claimed = packed
    whole = stripped.read_bytes()
    start = whole.index(b"\x7fELF")
    editor = Editor(whole[start:])
    header = editor.section(".debug_info")
    at = header["offset"]
    if change == "kind":
        (kind,) = struct.unpack_from("<I", editor.data, at)
        struct.pack_into("<I", editor.data, at, 3 - kind)
    elif change == "size":
        (size,) = struct.unpack_from("<Q", editor.data, at + 8)
        struct.pack_into("<Q", editor.data, at + 8, size + 1)
    elif change == "align":
        struct.pack_into("<Q", editor.data, at + 16, 3)
    elif change == "section align":
        editor.set_section(".debug_info", align=1)
    elif change == "stream":
        editor.data[at + header["size"] // 2] ^= 0xFF
    elif change == "alloc":
        editor.set_section(".debug_info", flags=header["flags"] | 2)
    elif change == "not asked for":
        claimed = replace(claimed, compress_debug=Compression.NONE)
    else:
        assert not change
    path = stripped.with_name("changed.a")
    path.write_bytes(whole[:start] + bytes(editor.data))
    with pytest.raises(VerifyError) as caught:
        verify(original, path, claimed)
    return "\n".join(caught.value.findings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("kind", "a compressed section cannot be read"),
        ("size", "a compressed section cannot be read"),
        ("align", "an alignment that is no power of two"),
        ("section align", "not aligned as its header is"),
        ("stream", "a compressed section cannot be read|other bytes"),
        ("alloc", "a section is compressed that cannot be"),
        ("not asked for", "a section is compressed as was not asked for"),
    ],
)
def test_what_is_wrong_is_found(
    change: str, said: str, packed: tuple[Path, Path, Expectation]
) -> None:
    assert re.search(said, findings(packed, change))


def test_another_byte_below_the_compression_is_found(tmp_path: Path) -> None:
    """A sound stream of other contents."""
    original = kit.library(tmp_path, SOURCES, "-fPIC", "-g", "-ffunction-sections")
    stripped, result = kit.strip(original, EXPORTS, Strip.NONE, compress=Compression.ZLIB)
    whole = stripped.read_bytes()
    start = whole.index(b"\x7fELF")
    editor = Editor(whole[start:])
    header = editor.section(".debug_abbrev")
    at, end = header["offset"] + 24, header["offset"] + header["size"]
    plain = bytearray(zlib.decompress(editor.data[at:end]))
    plain[len(plain) // 2] ^= 1
    stream = zlib.compress(plain)
    # at the end of the file there is room for any length
    place = -(-len(editor.data) // 8) * 8
    editor.data += bytes(place - len(editor.data)) + editor.data[at - 24 : at] + stream
    editor.set_section(".debug_abbrev", offset=place, size=24 + len(stream))
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "t.o").write_bytes(editor.data)
    library = kit.archive(changed / "libt.a", [changed / "t.o"])
    with pytest.raises(VerifyError) as caught:
        verify(original, library, expectation(result, Compression.ZLIB))
    assert "other bytes: .debug_abbrev" in "\n".join(caught.value.findings)


# ---- who cannot


def test_the_module_of_newer_pythons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It comes first, and has the same interface."""
    module = compress.zstd()
    original = kit.library(tmp_path, {"a.c": SOURCES["a.c"]}, "-fPIC", "-g")
    expected, result = kit.strip(original, ("outer",), Strip.NONE, compress=Compression.ZSTD)
    monkeypatch.setitem(sys.modules, "compression", types.ModuleType("compression"))
    monkeypatch.setitem(sys.modules, "compression.zstd", module)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    again = tmp_path / "again.a"
    kit.strip(original, ("outer",), Strip.NONE, compress=Compression.ZSTD, output=again)
    assert again.read_bytes() == expected.read_bytes()
    verify(original, again, expectation(result, Compression.ZSTD))


def test_without_a_module_for_zstd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = kit.library(tmp_path, {"a.c": SOURCES["a.c"]}, "-fPIC", "-g")
    for name in ("compression", "compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"backports\.zstd") as caught:
        kit.strip(original, ("outer",), Strip.NONE, compress=Compression.ZSTD)
    assert "cargo-strip-hook[zstd]" in " ".join(caught.value.help)
    kit.strip(original, ("outer",), Strip.NONE, compress=Compression.ZLIB)
    # an input that is compressed so
    packed = tmp_path / "packed.o"
    kit.tool([need("objcopy"), "--compress-debug-sections=zstd", tmp_path / "a.o", packed])
    original = kit.archive(tmp_path / "libp.a", [packed])
    with pytest.raises(UsageError, match=r"backports\.zstd"):
        kit.strip(original, ("outer",), Strip.NONE)


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cargo_strip_hook", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_on_the_command_line(tmp_path: Path) -> None:
    original = kit.library(tmp_path, SOURCES, "-fPIC", "-g")
    words = ["strip", original, "--export", "outer", "--strip", "none", "--compress-debug", "zlib"]
    out, twin = tmp_path / "out.a", tmp_path / "twin.a"
    done = command(*words, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "C" in debug_sections(member(out, tmp_path))[".debug_info"][0]
    # the same request finds its work done, another one undoes it
    again = ["strip", out, *words[2:-1]]
    assert "Fresh" in command(*again, "zlib").stderr
    assert command(*again, "none").returncode == 0
    assert "C" not in debug_sections(member(out, tmp_path))[".debug_info"][0]
    # of a library without debug information it is the twin that is compressed
    words[5] = "symbols"
    done = command(*words, "-o", out, "--debug-twin", twin)
    assert done.returncode == 0, done.stderr
    assert not debug_sections(member(out, tmp_path))
    folder = tmp_path / "twin"
    folder.mkdir()
    assert "C" in debug_sections(member(twin, folder))[".debug_info"][0]


def test_the_system_engine_does_not(tmp_path: Path) -> None:
    original = kit.library(tmp_path, {"a.c": SOURCES["a.c"]}, "-fPIC", "-g")
    words = ["strip", original, "--export", "outer", "--compress-debug", "zlib"]
    done = command(*words, "--engine", "system", "-o", tmp_path / "out.a")
    assert done.returncode != 0 and "does not compress debug sections" in done.stderr
    assert not (tmp_path / "out.a").exists()


def test_other_formats_have_nothing_of_the_kind(tmp_path: Path) -> None:
    original = tmp_path / "libm.a"
    data = macho_objects.plain()
    with original.open("wb") as file:
        write_archive(file, "darwin", [NewMember("m.o", len(data), [data], [b"_outer"])])
    with pytest.raises(UsageError, match="cannot be compressed"):
        kit.strip(original, ("_outer",), triple="aarch64-apple-darwin", compress=Compression.ZLIB)
