"""Exports of COMDAT groups: linkers keep one of several libraries', as of the originals'."""

from __future__ import annotations

from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import native_kit as kit
from tests.tools import need

_SHARED = """
 .section .text.f,"axG",@progbits,f,comdat
 .globl f
 .type f,@function
f: .cfi_startproc
 lea d(%rip), %rax
 mov (%rax), %eax
 add .Lk(%rip), %eax
 ret
 .cfi_endproc
 .size f, .-f
 .section .rodata.f,"aG",@progbits,f,comdat
.Lk: .long 40
 .section .data.d,"awG",@progbits,d,comdat
 .globl d
 .type d,@object
 .size d, 4
d: .long 2
 .section .gnu.linkonce.d.once,"aw",@progbits
 .globl once
 .type once,@object
 .size once, 4
once: .long 7
 .section .note.GNU-stack,"",@progbits
"""
_USER = "int f(void); int {n}(void) {{ return f() + {k}; }} int (*p{n})(void) = f;"
_MAIN = """#include <stdio.h>
int a(void), b(void), f(void); extern int d, once; extern int (*pa)(void), (*pb)(void);
int main(void) { d += 100; once++;
  printf("%d %d %d %d %d\\n", a(), b(), f(), pa == f && pb == f, once); }
"""
_SAID = "1142 2142 142 1 8\n"


def _library(folder: Path, name: str, k: int, *flags: str) -> Path:
    sources = {f"{name}.c": _USER.format(n=name, k=k), "shared.s": _SHARED}
    return kit.library(folder / name, sources, "-O1", *flags, name=f"lib{name}.a")


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("strip", list(Strip))
def test_of_two_libraries_one_copy_is_kept(
    tmp_path: Path, granularity: Granularity, strip: Strip
) -> None:
    made = []
    for name, k in (("a", 1000), ("b", 2000)):
        library = _library(tmp_path, name, k, "-g")
        exports = (name, f"p{name}", "f", "d", "once")
        out, result = kit.strip(library, exports, strip, granularity)
        expectation = Expectation(
            Target.parse(kit.TRIPLE), exports, strip, result.link_map, b"marker"
        )
        verify(library, out, expectation)
        made.append(out)
    (tmp_path / "main.c").write_text(_MAIN)
    # linkonce sections and groups of other files do not know each other
    ordinary = _SHARED.partition(" .section .gnu.linkonce")[0]
    [shared] = kit.build(tmp_path, {"ordinary.s": ordinary})
    for linker in kit.LINKERS:
        for inputs in (made, made[::-1], [*made, shared], [shared, *made]):
            program = kit.link(tmp_path / "p", [tmp_path / "main.c", *inputs], linker)
            assert kit.output(program) == _SAID, (linker, inputs)


def test_a_group_with_another_way_in_is_none(tmp_path: Path) -> None:
    """A name of the group that is not public would be lost with the group."""
    more = _SHARED.replace(".Lk: ", " .globl inner\ninner:\n.Lk: ")
    user = "extern int inner; int f(void); int a(void) { return f() + inner; }"
    library = kit.library(tmp_path, {"a.c": user, "shared.s": more}, "-O1")
    out, result = kit.strip(library, ("a", "f"))
    verify(
        library,
        out,
        Expectation(
            Target.parse(kit.TRIPLE), ("a", "f"), Strip.DEBUGINFO, result.link_map, b"marker"
        ),
    )
    assert "GROUP" not in kit.tool([need("readelf"), "-SW", out])


def test_the_verifier_looks_at_groups(tmp_path: Path) -> None:
    exports = ("a", "pa", "f", "d", "once")
    library = _library(tmp_path, "a", 1000)
    out, result = kit.strip(library, exports)
    expectation = Expectation(
        Target.parse(kit.TRIPLE), exports, Strip.DEBUGINFO, result.link_map, b"marker"
    )
    verify(library, out, expectation)
    good = out.read_bytes()
    member = good.index(b"\x7fELF")
    groups = [
        member + int(line.split("GROUP")[1].split()[1], 16)
        for line in kit.tool([need("readelf"), "-SW", out]).splitlines()
        if " GROUP " in line
    ]
    assert len(groups) == 3
    for at in groups:
        for place, value in ((at, 0), (at + 4, good[at + 4] - 1), (at + 4, good[at + 4] + 1)):
            bad = bytearray(good)
            bad[place] = value
            out.write_bytes(bad)
            with pytest.raises(VerifyError):
                verify(library, out, expectation)
