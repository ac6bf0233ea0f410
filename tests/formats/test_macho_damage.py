"""Damaged objects end in an error of ours at every phase, never in another one."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from cargo_strip_hook.cli.main import main
from cargo_strip_hook.core.errors import ObjectError, StripHookError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.formats import format_for
from cargo_strip_hook.link.prelink import Input, prelink
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import darwin_kit as kit
from tests.formats.test_macho_engine import C_ONE, CXX, EXPORTS
from tests.formats.test_macho_fields import ARM, X86

SOURCES = {
    "c": ({"c.c": C_ONE}, ("-O1", "-fcommon"), EXPORTS),
    "cxx": ({"x.cpp": CXX}, ("-O1", "-fno-inline"), ("_cxx_api",)),
    "assembly": ({"f.s": ""}, (), ("_api",)),
}


def _run(arch: str, data: bytes, exports: tuple[str, ...]) -> None:
    target = Target.parse(kit.triple(arch))
    request = PrelinkRequest(
        Path("in"), Path("out"), target, exports, Strip.DEBUGINFO, Granularity.CLASS, b"mark"
    )
    member = {0: Input(0, "m.o", memoryview(data))}
    index = {n.encode(): 0 for n in exports}
    room = format_for("macho")
    image = prelink(member, index, room, request).image(room, request)
    assert sum(len(c) for c in image.chunks) == image.size


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize("name", SOURCES)
def test_random_damage(tmp_path: Path, arch: str, name: str) -> None:
    sources, flags, exports = SOURCES[name]
    if name == "assembly":
        sources = {"f.s": ARM if arch == "arm64" else X86}
    (file,) = kit.compile(tmp_path, arch, sources, *flags)
    good = file.read_bytes()
    _run(arch, good, exports)
    chance = random.Random(f"{arch} {name}")
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(good)) :]
        else:
            for _ in range(chance.choice((1, 1, 2, 5))):
                end = min(len(good), 2500) if chance.random() < 0.7 else len(good)
                damaged[chance.randrange(end)] = chance.choice((0, 1, 128, 255))
        try:
            _run(arch, bytes(damaged), exports)
        except StripHookError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("number", [b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x7f"])
def test_a_length_that_no_register_holds(tmp_path: Path, number: bytes) -> None:
    """Of the augmentation data of an FDE, in LEB128: neither engine nor verifier goes on."""
    flags = ("-O1", "-fno-inline", "-femit-dwarf-unwind=always")
    library = kit.library(tmp_path, "x86_64", {"x.cpp": CXX}, *flags)
    out, result, _ = kit.strip(library, "x86_64", ["_cxx_api"])
    data = bytearray(library.read_bytes())
    start = data.index(b"\xcf\xfa\xed\xfe")
    header = data.index(b"__eh_frame\0", start)
    size, offset = struct.unpack_from("<QI", data, header + 40)
    at, done = start + offset, 0
    while at < start + offset + size:
        length, cie = struct.unpack_from("<II", data, at)
        if cie and length >= 40:  # behind an address and a size of 8 bytes
            data[at + 24 : at + 34] = number
            done += 1
        at += 4 + length
    assert done
    library.write_bytes(data)
    target, exports = Target.parse(kit.triple("x86_64")), ("_cxx_api",)
    request = PrelinkRequest(library, tmp_path / "o.a", target, exports, Strip.DEBUGINFO)
    with pytest.raises(ObjectError, match="cut short"):
        NativeEngine().prelink(request)
    claimed = (target, exports, Strip.DEBUGINFO, result.link_map, kit.MARKER)
    with pytest.raises(ObjectError, match="cut short"):
        verify(library, out, Expectation(*claimed))


ALL_COMMANDS = """
extern int outside(int);
static int table[3] = {1, 2, 3};
int api(int a) {
  switch (a) {
  case 0: return outside(a) + 1;
  case 1: return outside(a) * 7;
  case 2: return outside(a) - 9;
  case 3: return outside(a) ^ 3;
  case 4: return outside(a) | 64;
  case 5: return table[outside(a)];
  default: return 0;
  }
}
__asm__(".linker_option \\"-lz\\"\\n.section __DATA,__nl_ptr,non_lazy_symbol_pointers\\n"
        ".p2align 3\\n_pointer: .indirect_symbol _outside\\n.quad 0\\n.no_dead_strip _pointer");
"""
SEGMENT, SYMTAB, DYSYMTAB, OPTION, DATA, BUILD, MINIMUM = 0x19, 0x2, 0xB, 0x2D, 0x29, 0x32, 0x24
# (command, offset of the field in it) of what cannot be a number this large
REFUSED = {
    *((c, 4) for c in (SEGMENT, SYMTAB, DYSYMTAB, OPTION)),  # cmdsize
    (SEGMENT, 64),  # nsects
    *((SEGMENT, 72 + at) for at in (32, 36, 40, 44, 48, 52, 60)),  # of the first section: addr,
    # size, offset, align, nreloc; reloff counts with it
    (SEGMENT, 72 + 56),
    *((SYMTAB, at) for at in (8, 12, 16, 20)),
    *((DYSYMTAB, at) for at in (56, 60)),  # indirectsymoff, nindirectsyms
    (OPTION, 8),  # count
}


@pytest.mark.parametrize(
    ("arch", "platform"), [("arm64", "macos13"), ("x86_64", "macos13"), ("x86_64", "macosx10.12")]
)
def test_each_load_command(
    tmp_path: Path, arch: str, platform: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clear error and nothing written, or a result that does not depend on the field."""
    sources = {"c.c": ALL_COMMANDS}
    library = kit.library(tmp_path, arch, sources, "-O1", "-fno-pic", platform=platform)
    good = library.read_bytes()
    start = good.index(b"\xcf\xfa\xed\xfe")
    out = tmp_path / "out.a"
    words = ["strip", str(library), "-o", str(out), "--export", "api", "--target", kit.triple(arch)]
    assert main(words) == 0
    out.unlink()
    capsys.readouterr()
    refused: set[tuple[int, int]] = set()
    met: set[int] = set()
    at = start + 32
    for _ in range(struct.unpack_from("<I", good, start + 16)[0]):
        command, size = struct.unpack_from("<II", good, at)
        met.add(command)
        for field in range(4, min(size, 72 + 80), 4):
            damaged = bytearray(good)
            struct.pack_into("<I", damaged, at + field, 0xFFFFFFF0)
            library.write_bytes(damaged)
            code = main(words)
            said = capsys.readouterr().err
            if code:
                assert "error" in said
                assert f"{library}(c.o)" in said or "the objects are for platform" in said
                assert not out.exists()
                refused.add((command, field))
            out.unlink(missing_ok=True)
            assert library.read_bytes() == damaged
        at += size
    assert {SEGMENT, SYMTAB, DYSYMTAB, OPTION, BUILD if platform == "macos13" else MINIMUM} <= met
    assert refused >= REFUSED, REFUSED - refused
    assert {(c, 4) for c in met} <= refused
    if DATA in met:
        assert {(DATA, 8), (DATA, 12)} <= refused
