"""Damaged objects of Windows end in an error of ours at every phase, never in another one."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cargo_strip_hook.cli.main import main
from cargo_strip_hook.core.errors import ObjectError, StripHookError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats import format_for
from cargo_strip_hook.link.model import Image
from cargo_strip_hook.link.prelink import Input, prelink
from tests.formats import windows_objects as kit
from tests.formats.test_coff_engine import C_ONE, SECTIONS, X64

FLAGS = ("-O1", "-fcommon", "-fasynchronous-unwind-tables", *SECTIONS)
C_API = ("one_api", "one_other", "exported_data")


def _run(target: str, data: bytes, names: tuple[str, ...], strip: Strip = Strip.DEBUGINFO) -> None:
    _image(target, data, tuple(kit.prefix(target) + n for n in names), strip)


def _image(target: str, data: bytes, exports: tuple[str, ...], strip: Strip) -> Image:
    """The object, all of it made. `exports` are names in objects."""
    request = PrelinkRequest(
        Path("in"), Path("out"), Target.parse(target), exports, strip, Granularity.CLASS, b"mark"
    )
    member = {0: Input(0, "m.o", memoryview(data))}
    index = {n.encode(): 0 for n in exports}
    room = format_for("coff")
    image = prelink(member, index, room, request).image(room, request)
    assert sum(len(c) for c in image.chunks) == image.size
    return image


@pytest.mark.parametrize("target", kit.TARGETS)
@pytest.mark.parametrize("strip", [Strip.NONE, Strip.DEBUGINFO])
def test_random_damage(tmp_path: Path, target: str, strip: Strip) -> None:
    debug = "-gdwarf-4" if target.endswith("gnu") else "-gcodeview"
    flags = (*FLAGS, "-g", debug, "-Xclang", "-cfguard", "-faddrsig")
    (file,) = kit.compile(tmp_path, target, {"one.c": C_ONE}, *flags)
    good = file.read_bytes()
    _run(target, good, C_API, strip)
    tables = struct.unpack_from("<I", good, 8)[0]
    chance = random.Random(f"{target} {strip}")
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(good)) :]
        else:
            for _ in range(chance.choice((1, 1, 2, 5))):
                start, end = chance.choice(((0, 1200), (tables, len(good)), (0, len(good))))
                damaged[chance.randrange(start, end)] = chance.choice((0, 1, 128, 255))
        try:
            _run(target, bytes(damaged), C_API, strip)
        except StripHookError:
            refused += 1
    assert refused > 30


TEXT = """
    .section .text,"xr",one_only,api
    .globl api
    .seh_proc api
api:
    subq $40, %rsp
    .seh_stackalloc 40
    .seh_endprologue
    call outside
    leaq text(%rip), %rax
    addq $40, %rsp
    ret
    .seh_endproc
    .section .rdata,"dr",discard,text
    .globl text
text:
    .asciz "some words"
    .section .rdata,"dr",associative,api
    .long 1
    .weak maybe
    .data
    .quad maybe
    .section .gfids$y,"dr"
    .symidx api
"""


def _put(form: str, where: str, value: int) -> Callable[[kit.Parts], None]:
    """A change of one field: "section", "relocation" or "symbol", a name, an offset."""
    kind, name, offset = where.replace("+", " ").split()

    def change(p: kit.Parts) -> None:
        at = getattr(p, kind)(name.encode())
        struct.pack_into(form, p.raw, at + int(offset), value)

    return change


def _selection(p: kit.Parts) -> None:
    # the first .text is no COMDAT; what the second is, its definition says
    p.raw[p.symbol(b".text", 1) + 18 + 14] = 9


CASES: dict[str, tuple[Callable[[kit.Parts], None], str]] = {
    "machine": (lambda p: struct.pack_into("<H", p.raw, 0, 0x1C4), "not supported"),
    "sections": (lambda p: struct.pack_into("<H", p.raw, 2, 60000), "the sections reach"),
    "symbols": (lambda p: struct.pack_into("<I", p.raw, 12, 1 << 24), "symbol table reach"),
    "strings": (lambda p: struct.pack_into("<I", p.raw, p.strings, 1 << 24), "string table"),
    "contents": (_put("<I", "section .text+16", 1 << 24), "reaches beyond"),
    "alignment": (_put("<I", "section .data+36", 0xC0F00040), "alignment"),
    "relocations": (_put("<H", "section .data+32", 60000), "relocations reach beyond"),
    "relocation's place": (_put("<I", "relocation .data+0", 99999), "outside of its section"),
    "relocation's symbol": (_put("<I", "relocation .data+4", 99999), "refers to no symbol"),
    "relocation's type": (_put("<H", "relocation .data+8", 0x77), "is unknown"),
    "symbol's section": (_put("<h", "symbol api+12", 999), "section is out of range"),
    "symbol's value": (_put("<I", "symbol api+8", 99999), "outside of its section"),
    "symbol's auxiliary": (_put("<B", "symbol maybe+17", 255), "auxiliary records reach"),
    "weak external": (_put("<I", "symbol maybe+18", 99999), "to stand for no symbol"),
    "selection": (_selection, "selection that is unknown"),
    "unwind entries": (_put("<I", "section .pdata+16", 11), "whole number"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_record(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, words = CASES[name]
    (file,) = kit.compile(tmp_path, X64, {"a.s": TEXT})
    _run(X64, file.read_bytes(), ("api",))
    parts = kit.Parts(file.read_bytes())
    change(parts)
    with pytest.raises(ObjectError, match=words):
        _run(X64, bytes(parts.raw), ("api",))
    good = kit.archive(tmp_path / "good.lib", X64, [file])
    contents = file.read_bytes()
    damaged = tmp_path / "damaged.lib"
    damaged.write_bytes(good.read_bytes().replace(contents, bytes(parts.raw)))
    before, out = damaged.read_bytes(), tmp_path / "out.lib"
    asked = ["--export", "api", "--target", X64]
    assert main(["strip", str(damaged), *asked, "-o", str(out)]) == 1
    assert not out.exists()
    assert damaged.read_bytes() == before
    assert main(["strip", str(damaged), *asked]) == 1
    assert damaged.read_bytes() == before
    assert "a.o" in capsys.readouterr().err


CODEVIEW_C = """
enum Color { red, green };
struct Pair { int first; enum Color second; struct Pair *next; };
static __attribute__((noinline)) int inner(struct Pair *p) { return p->first + p->second; }
int api(struct Pair *p) { struct Pair q = *p; return inner(&q) + inner(p->next); }
"""


@pytest.mark.parametrize("where", [b".debug$S", b".debug$T"])
@pytest.mark.parametrize("target", [t for t in kit.TARGETS if t.endswith("msvc")])
def test_damaged_codeview(tmp_path: Path, target: str, where: bytes) -> None:
    """Each byte and each end of a table: an error of ours, a warning, or a whole object."""
    flags = ("-O1", "-g", "-gcodeview", *SECTIONS)
    (file,) = kit.compile(tmp_path, target, {"one.c": CODEVIEW_C}, *flags)
    good = kit.Parts(file.read_bytes())
    export = (f"{kit.prefix(target)}api",)
    headers = [h for h in range(20, 20 + 40 * good.count, 40) if good.name(h) == where]
    assert headers
    ended = {"refused": 0, "left out": 0, "written": 0}
    for header in headers:
        size, start = struct.unpack_from("<II", good.raw, header + 16)
        changes = [(at, value) for at in range(size) for value in (0, 0xFF)]
        for at, value in [*changes, *((end, -1) for end in range(0, size, 3))]:
            damaged = bytearray(good.raw)
            if value < 0:
                struct.pack_into("<I", damaged, header + 16, at)
            elif damaged[start + at] == value:
                continue
            else:
                damaged[start + at] = value
            try:
                warnings = _image(target, bytes(damaged), export, Strip.NONE).warnings
            except StripHookError:
                ended["refused"] += 1
            else:
                ended["left out" if warnings else "written"] += 1
    assert ended["left out"] > 50, ended
    assert sum(ended.values()) > 500, ended


def test_the_relocation_that_is_bad_is_told_of(tmp_path: Path) -> None:
    (file,) = kit.compile(tmp_path, X64, {"a.c": "int a, b; int *api[] = {&a, &b};"})
    parts = kit.Parts(file.read_bytes())
    second = parts.relocation(b".data") + 10
    struct.pack_into("<I", parts.raw, second + 4, 99999)
    with pytest.raises(ObjectError, match="refers to no symbol") as raised:
        _run(X64, bytes(parts.raw), ("api",))
    assert raised.value.offset == second


def test_the_record_of_unwind_information_that_is_damaged_is_told_of(tmp_path: Path) -> None:
    target = "i686-pc-windows-gnu"
    text = ".globl _api\n_api:\n.cfi_startproc\n.cfi_def_cfa_offset 8\nret\n.cfi_endproc\n"
    (file,) = kit.compile(tmp_path, target, {"a.s": text})
    parts = kit.Parts(file.read_bytes())
    begin = parts.contents(b".eh_frame")
    struct.pack_into("<I", parts.raw, begin, 99999)
    with pytest.raises(ObjectError, match=r"\.eh_frame is damaged") as raised:
        _run(target, bytes(parts.raw), ("_api",))
    assert raised.value.offset is not None
    assert raised.value.offset >= begin
