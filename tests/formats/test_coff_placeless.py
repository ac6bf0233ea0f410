"""Libraries of what has no place in an object, commons and values; symbols at the ends of sections.

lld-link says what a program made of them holds.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool
from tests.formats.test_coff_engine import X64


def _results(original: Path, target: str, exports: tuple[str, ...]) -> list[Path]:
    """A result of each strip level and each granularity, verified."""
    found = []
    for strip, granularity in zip(Strip, Granularity, strict=True):
        out, made = kit.strip(original, target, exports, strip, granularity)
        kit.check(original, out, target, made, strip)
        found.append(out)
    return found


def _value(library: Path, name: str) -> tuple[str, str]:
    """(section, value) of an external symbol, by llvm-readobj."""
    text = tool([kit.llvm("readobj"), "--symbols", library])
    found = re.search(rf"Name: {name}\n    Value: (\S+)\n    Section: (\S+)", text)
    assert found
    return found[1], found[2]


@pytest.mark.parametrize("target", kit.TARGETS)
@pytest.mark.parametrize("more", ["", "int other(int a) { return a; }"], ids=["alone", "beside"])
def test_commons(tmp_path: Path, target: str, more: str) -> None:
    """As large as the largest that is loaded."""
    sources = {"a.c": "int one[4], two;", "b.c": "int one[9], three[2];"}
    exports: tuple[str, ...] = ("one", "three")
    if more:
        sources["c.c"] = more
        exports += ("other",)
    original = kit.library(tmp_path, target, sources, "-O1", "-fcommon")
    for out in _results(original, target, exports):
        assert _value(out, kit.prefix(target) + "one") == ("36", "IMAGE_SYM_UNDEFINED")
        assert _value(out, kit.prefix(target) + "three") == ("8", "IMAGE_SYM_UNDEFINED")
    kit.link_dll(tmp_path / "x.dll", target, [out], [f"{n},DATA" for n in exports[:2]])


@pytest.mark.parametrize("target", kit.TARGETS)
@pytest.mark.parametrize("more", ["", "other: ret"], ids=["alone", "beside"])
def test_values(tmp_path: Path, target: str, more: str) -> None:
    prefix = kit.prefix(target)
    sources = {"a.s": f".globl {prefix}k, {prefix}m\n{prefix}k = 0x1234\n{prefix}m = -2\n"}
    exports: tuple[str, ...] = ("k", "m")
    if more:
        sources["b.s"] = f".text\n.globl {prefix}other\n{prefix}{more}\n"
        exports += ("other",)
    original = kit.library(tmp_path, target, sources)
    wanted = [_value(original, prefix + name) for name in ("k", "m")]
    for out in _results(original, target, exports):
        assert [_value(out, prefix + name) for name in ("k", "m")] == wanted


def test_zeros_alone(tmp_path: Path) -> None:
    original = kit.library(tmp_path, X64, {"a.c": "int zeros[5];"}, "-fno-common")
    for out in _results(original, X64, ("zeros",)):
        assert _value(out, "zeros") == ("0", ".bss")


@pytest.mark.parametrize("target", kit.TARGETS)
def test_a_private_common_of_a_member_of_its_own(tmp_path: Path, target: str) -> None:
    sources = {
        "a.c": "extern int p[]; int one[3]; int api(int a) { return p[a]; }",
        "b.c": "int p[30], one[7];",
    }
    original = kit.library(tmp_path, target, sources, "-O1", "-fcommon")
    for out in _results(original, target, ("api", "one")):
        assert _value(out, kit.prefix(target) + "one")[0] == "28"


def test_a_private_value_of_a_member_of_its_own(tmp_path: Path) -> None:
    sources = {
        "a.s": ".text\n.globl api\napi: movl $k, %eax\nret\n",
        "b.s": ".globl k\nk = 0x1234\n",
    }
    original = kit.library(tmp_path, X64, sources)
    for library in (original, *_results(original, X64, ("api",))):
        kit.link_dll(tmp_path / "x.dll", X64, [library], ["api"])
        assert kit.call(tmp_path / "x.dll", ("api", 0)) == [0x1234]


ENDS = """
.text
.globl api
api: leaq END(%rip), %rax
leaq table(%rip), %rcx
subq %rcx, %rax
ret
.section .rdata,"dr"
.globl table
table: .quad 1, 2, 3
.globl end
end = table + DISTANCE
"""


def test_a_symbol_at_the_end_of_its_section(tmp_path: Path) -> None:
    more = '.section .rdata,"dr"\n.globl other\nother: .quad 1\n'
    text = ENDS.replace("END", "end").replace("DISTANCE", "24")
    original = kit.library(tmp_path, X64, {"a.s": text, "b.s": more})
    for library in (original, *_results(original, X64, ("api", "end", "other"))):
        kit.link_dll(tmp_path / "x.dll", X64, [library], ["api"])
        assert kit.call(tmp_path / "x.dll", ("api", 0)) == [24]


def test_a_symbol_beyond_its_section_is_refused(tmp_path: Path) -> None:
    text = ENDS.replace("END", "end").replace("DISTANCE", "100")
    original = kit.library(tmp_path, X64, {"a.s": text})
    with pytest.raises(ObjectError, match=r"a symbol lies outside of its section"):
        kit.strip(original, X64, ("api", "end"))


@pytest.mark.parametrize("align", [4096, 8192])
def test_sections_aligned_to_pages(tmp_path: Path, align: int) -> None:
    aligned = f"__attribute__((aligned({align})))"
    sources = {
        "a.c": f"{aligned} static char room[{align} * 2]; {aligned} static int table[4] = {{1, 2}};"
        "extern int more[];"
        "int api(int a) { room[a] += a; return room[a] + table[a & 3]++ + more[a & 1]; }",
        "b.c": f"{aligned} int more[2] = {{1}}; int after = 3;",
    }
    original = kit.library(tmp_path, X64, sources, "-O1", "-fdata-sections")
    wanted = f"IMAGE_SCN_ALIGN_{align}BYTES"
    count = tool([kit.llvm("readobj"), "--sections", original]).count(wanted)
    assert count == 3
    for out in _results(original, X64, ("api", "more")):
        text = tool([kit.llvm("readobj"), "--sections", "--symbols", out])
        assert wanted in text
        assert int(_value(out, "more")[0]) % align == 0
        kit.link_dll(tmp_path / "x.dll", X64, [out], ["api"], "/align:8192", "/driver")
