"""Whose fault it is that a result is not right: that of the input, or the engine's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.errors import ObjectError, VerifyError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, PrelinkResult, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.pipeline.strip import Job, strip_library
from cargo_strip_hook.verify import Expectation, verify
from cargo_strip_hook.verify.expectation import Damage
from tests.tools import need

SOURCE = """\
struct Guard { ~Guard(); };
static int table[] = {1, 2, 3};
int outside(int *);
thread_local int mine = 4;
extern "C" int api_one(int n) { Guard g; return outside(&table[n]) + mine; }
extern "C" int api_two(int n) { try { return outside(&mine); } catch (int e) { return e + n; } }
extern "C" int (*const api_table[2])(int) = {api_one, api_two};
"""
TARGETS = {
    "elf": "x86_64-unknown-linux-gnu",
    "elf-rel": "i686-unknown-linux-gnu",
    "macho": "aarch64-apple-darwin",
    "macho-x86": "x86_64-apple-darwin",
    "coff": "x86_64-pc-windows-msvc",
    "coff-x86": "i686-pc-windows-msvc",
    "coff-arm": "aarch64-pc-windows-msvc",
}
TRIPLES = {"macho": "arm64-apple-macos13", "macho-x86": "x86_64-apple-macos13"}


@dataclass(frozen=True)
class Sound:
    """A library of one object, a sound result of it and what is claimed of that."""

    format: str
    library: Path
    result: Path
    expectation: Expectation
    names: tuple[str, ...]


def made(folder: Path, kind: str) -> Sound:
    target = Target.parse(TARGETS[kind])
    (folder / "a.cpp").write_text(SOURCE)
    flags = ["-O1", "-g", "-ffunction-sections", "-fexceptions", "-ffreestanding"]
    clang = [need("clang-22", "clang"), f"--target={TRIPLES.get(kind, target.triple)}", *flags]
    subprocess.run([*clang, "-c", folder / "a.cpp", "-o", folder / "a.o"], check=True)
    library = folder / "liba.a"
    archiver = [need("llvm-ar-22", "llvm-ar"), "rcsD", library, folder / "a.o"]
    subprocess.run(archiver, check=True)
    names = tuple(target.symbol_prefix + n for n in ("api_one", "api_two", "api_table"))
    with open_archive(library) as archive:
        names = tuple(n for n in names if n.encode() in (archive.symbols() or {}))
    request = PrelinkRequest(library, folder / "out.a", target, names, Strip.NONE)
    result = NativeEngine().prelink(request)
    expectation = Expectation(target, names, Strip.NONE, result.link_map, request.marker)
    return Sound(target.object_format, library, request.output, expectation, names)


@pytest.fixture(scope="module", params=list(TARGETS))
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return made(tmp_path_factory.mktemp(request.param), request.param)


def damages(sound: Sound, library: Path) -> list[Damage]:
    room = import_module(f"cargo_strip_hook.verify.{sound.format}.damage")
    with open_archive(library) as archive:
        return list(room.damages(archive, None))


def test_nothing_is_wrong_with_what_a_compiler_wrote(sound: Sound) -> None:
    assert damages(sound, sound.library) == []
    with open_archive(sound.library) as archive:
        assert len(archive.members) == 1
    assert damages(sound, sound.result) == []


def member(library: Path) -> tuple[int, int]:
    with open_archive(library) as archive:
        (one,) = archive.members
        return one.offset, one.size


def word(data: bytes | bytearray, at: int, size: int = 4) -> int:
    return int.from_bytes(data[at : at + size], "little")


def elf_symbol(data: bytearray, start: int) -> None:
    """`api_two` lies far behind its section."""
    wide = data[start + 4] == 2
    shoff = word(data, start + (40 if wide else 32), 8 if wide else 4)
    step, offset, size = (64, 24, 32) if wide else (40, 16, 20)
    count = word(data, start + (60 if wide else 48), 2)
    headers = [start + shoff + step * n for n in range(count)]
    (table,) = (h for h in headers if word(data, h + 4) == 2)
    length = 24 if wide else 16
    width = 8 if wide else 4
    first = start + word(data, table + offset, width)
    last = first + word(data, table + size, width) - length
    strings = headers[word(data, table + (40 if wide else 24))]
    text = start + word(data, strings + offset, width)
    for at in range(first, last + 1, length):
        name = data[text + word(data, at) :].split(b"\0", 1)[0]
        if name == b"api_two":
            place = at + (8 if wide else 4)
            data[place : place + 4] = (0x10000).to_bytes(4, "little")


def macho_relocation(data: bytearray, start: int) -> None:
    """The first relocation of the first section has a width that its type has not."""
    place = start + word(data, start + 32 + 72 + 56)
    data[place + 7] ^= 0x06
    data[place + 7] |= 0x02


def coff_relocation(data: bytearray, start: int) -> None:
    """The first relocation that there is is of a type that there is not."""
    for number in range(word(data, start + 2, 2)):
        header = start + 20 + 40 * number
        if word(data, header + 32, 2):
            at = start + word(data, header + 24) + 8
            data[at : at + 2] = b"\x77\0"
            return


DAMAGE: dict[str, tuple[Callable[[bytearray, int], None], str]] = {
    "elf": (elf_symbol, "the symbol `api_two` lies beyond the end of the section"),
    "macho": (macho_relocation, "is of a type and width that there is not"),
    "coff": (coff_relocation, "has the type 119"),
}


def test_a_damaged_original_is_not_a_defect(sound: Sound, tmp_path: Path) -> None:
    do, text = DAMAGE[sound.format]
    data = bytearray(sound.library.read_bytes())
    do(data, member(sound.library)[0])
    assert data != sound.library.read_bytes()
    library = tmp_path / "libdamaged.a"
    library.write_bytes(data)
    assert any(text in one.what for one in damages(sound, library))
    # a name in the result is not what it was, so that there is something to find
    broken = sound.result.read_bytes().replace(b"api_one\0", b"api_xyz\0")
    result = tmp_path / ".staged"
    result.write_bytes(broken)
    with pytest.raises(VerifyError) as caught:
        verify(sound.library, result, sound.expectation)
    assert caught.value.defect
    assert str(sound.library) in caught.value.what
    assert "staged" not in caught.value.what
    assert "defect of the engine" in caught.value.help[0]
    with pytest.raises(ObjectError) as damaged:
        verify(library, result, sound.expectation)
    assert damaged.value.what.startswith("libdamaged.a(a.o)")
    assert text in damaged.value.what
    assert damaged.value.help == ("the library is damaged, and was not changed: build it again",)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"class"}, "until it is fixed, use `--granularity section`"),
        ({"class", "section"}, "until it is fixed, use `--engine system`"),
        ({"class", "section", "system"}, "use the original meanwhile"),
    ],
    ids=["class", "native", "all"],
)
def test_the_way_round_a_defect_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: set[str], said: str
) -> None:
    """An engine with a mistake that some options have, and others not."""
    need("ld", "x86_64-linux-gnu-ld")
    library = made(tmp_path, "elf").library
    from cargo_strip_hook.engines.system import SystemEngine

    def breaks(works: Callable[..., PrelinkResult], name: str) -> Callable[..., PrelinkResult]:
        def prelink(self: object, request: PrelinkRequest, *more: object) -> PrelinkResult:
            found = works(self, request, *more)
            if (name or request.granularity.value) in broken:
                data = request.output.read_bytes()
                request.output.write_bytes(data.replace(b"api_one\0", b"api_xyz\0"))
            return found

        return prelink

    monkeypatch.setattr(NativeEngine, "prelink", breaks(NativeEngine.prelink, ""))
    monkeypatch.setattr(SystemEngine, "prelink", breaks(SystemEngine.prelink, "system"))
    target = Target.parse(TARGETS["elf"])
    request = ExportRequest(target, named={"export": ("api_*",)})
    before = library.read_bytes()
    with pytest.raises(VerifyError) as caught:
        strip_library(Job(library, target, request, granularity=Granularity.CLASS))
    assert said in caught.value.help[1]
    assert caught.value.what == f"{library}: the result is not what it should be"
    assert library.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.cpp", "a.o", "liba.a", "out.a"]
