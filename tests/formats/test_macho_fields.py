"""Addends of every kind: the linked value has to be the same from the result."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity
from tests.consumers import darwin_image
from tests.formats import darwin_kit as kit

X86 = """
.globl _api
.globl _one
_dead: .space 24
_api:
  movb $0x12, _table+3(%rip)
  movw $0x1234, _table+2(%rip)
  movl $0x12345678, _table(%rip)
  cmpl $-3, _table+4(%rip)
  movb $1, L_local(%rip)
  movl $1, L_local+4(%rip)
  leaq L_text(%rip), %rdi
  leaq _table+40(%rip), %rsi
  movq _other@GOTPCREL(%rip), %rax
  jmp _one
  ret
_one: ret
.cstring
  .asciz "dead string"
L_text: .asciz "live string"
.data
.globl _other
  .quad 0x1111
_before: .quad 0x2222
L_local: .quad 0x3333, 0x4444
_table: .quad _one + 8, L_local, _table + 16, 0x5555
  .long _table - _one
  .long _one - _table + 5
  .quad L_text, L_text + 5, _before + 8
_other: .quad _api
.subsections_via_symbols
"""
ARM = """
.globl _api
.globl _one
.p2align 2
_dead: .space 24
_api:
  adrp x0, _table@PAGE+24
  add x0, x0, _table@PAGEOFF+24
  adrp x1, _table@PAGE+4096
  ldr x1, [x1, _table@PAGEOFF+4096]
  adrp x2, l_text@PAGE
  add x2, x2, l_text@PAGEOFF
  adrp x3, _other@GOTPAGE
  ldr x3, [x3, _other@GOTPAGEOFF]
  b _one+4
  bl _one
  ret
.p2align 2
_one: nop
  ret
.cstring
  .asciz "dead string"
l_text: .asciz "live string"
.data
.globl _other
  .p2align 3
  .quad 0x1111
_before: .quad 0x2222
_local: .quad 0x3333, 0x4444
_table: .quad _one + 8, _local + 8, _table + 16, 0x5555
  .long _table - _one
  .long _one - _table + 5
  .quad l_text, l_text + 5, _before + 8
  .long _other@GOT - .
  .long 0
_other: .quad _api
.subsections_via_symbols
"""
MAIN = ".globl _main\n_main: %s _api\n.subsections_via_symbols\n"


def _facts(program: Path) -> dict[str, bytes]:
    """The bytes of each data section, and of `_api` and `_one` by disassembly."""
    image = darwin_image.load(program.read_bytes())
    return {name: image.data[o : o + s] for (_, name), (_, s, o) in image.sections.items() if s}


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("arch", kit.ARCHES)
def test_linked_values_are_the_same(tmp_path: Path, arch: str, granularity: Granularity) -> None:
    """Without dead code the two programs must be alike to the byte: so it is taken out before."""
    text = ARM if arch == "arm64" else X86
    original = kit.library(tmp_path, arch, {"a.s": text})
    out, _, seen = kit.strip(original, arch, ["_api"], granularity=granularity)
    assert seen.pieces >= 6
    branch = "b" if arch == "arm64" else "jmp"
    main = kit.compile(tmp_path, arch, {"main.s": MAIN % branch})
    programs = [
        kit.link(tmp_path / f"p{n}", arch, [*main, library], "-dead_strip", "-order_file", order)
        for order in [_order(tmp_path)]
        for n, library in enumerate((original, out))
    ]
    images = [darwin_image.load(p.read_bytes()) for p in programs]
    assert images[0].sections.keys() == images[1].sections.keys()
    for image in images:
        assert b"dead string" not in image.data
    disassembled = [darwin_image.program(p, kit.llvm("objdump")) for p in programs]
    assert disassembled[0] == disassembled[1]
    first, second = (_values(i, arch) for i in images)
    assert first == second


def _order(folder: Path) -> Path:
    file = folder / "order"
    file.write_text("_main\n_api\n_one\n")
    return file


def _values(image: darwin_image.Image, arch: str) -> list[object]:
    """What `_table` and the instructions of `_api` come to: names for addresses."""
    by_name = {n: v for n, k, _, _, v in image.symbols if k & 0xE == 0xE}
    start, size, offset = image.sections["__DATA", "__data"]
    data = image.data[offset : offset + size]
    # chained fixups: the target is in the low 36 bits, from the image's base
    words = struct.unpack_from(f"<{len(data) // 8}Q", data)
    marks = [i for i, w in enumerate(words) if w == 0x5555]
    assert len(marks) == 1, "the table is there once"
    table = start + 8 * (marks[0] - 3)
    names = {by_name["_one"]: "one", by_name["_api"]: "api", table: "table"}

    def shown(address: int) -> object:
        for base, name in names.items():
            if 0 <= address - base < (100 if name == "table" else 65):
                return (name, address - base)
        for (_, section), (at, length, place) in image.sections.items():
            if at <= address < at + length:
                text = image.data[place + address - at : place + length]
                return (section, text[:12])
        return ("nowhere", address)

    at = marks[0] - 3
    quads = [shown(image.base + (w & 0xFFFFFFFFF)) for w in words[at : at + 3]]
    low, high = struct.unpack("<ii", struct.pack("<Q", words[at + 4]))
    differences = [low - (table - by_name["_one"]), high - (by_name["_one"] - table + 5)]
    more = [shown(image.base + (w & 0xFFFFFFFFF)) for w in words[at + 5 : at + 8]]
    found: list[object] = [quads, differences, more]
    code, _, place = image.sections["__TEXT", "__text"]
    body = by_name["_api"] - code + place
    if arch == "arm64":
        opcodes = struct.unpack_from("<8I", image.data, body)
        for i in (0, 2, 4):
            page = (opcodes[i] >> 29 & 3) | (opcodes[i] >> 3 & 0x1FFFFC)
            page = (page ^ 0x100000) - 0x100000
            low = opcodes[i + 1] >> 10 & 0xFFF
            low *= 8 if i == 2 else 1
            target = ((by_name["_api"] + 4 * i) & ~0xFFF) + (page << 12) + low
            found.append((target - table) if i < 4 else shown(target))
        (branch,) = struct.unpack_from("<I", image.data, body + 32)
        distance = ((branch & 0x3FFFFFF) ^ 0x2000000) - 0x2000000
        found.append(by_name["_api"] + 32 + 4 * distance - by_name["_one"])
        return found
    for field, rest in ((2, 1), (11, 2), (19, 4), (29, 1), (36, 1), (43, 4), (54, 0), (61, 0)):
        (value,) = struct.unpack_from("<i", image.data, body + field)
        target = by_name["_api"] + field + 4 + rest + value
        inside = -32 <= target - table < 100
        found.append(target - table if inside else shown(target))
    return found
