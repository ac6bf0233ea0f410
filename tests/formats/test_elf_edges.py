"""ELF objects that are rare, and right all the same; and damaged ones that are named as such."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import pytest

import cargo_strip_hook
from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.verify.elf import damage
from cargo_strip_hook.verify.elf.read import read_objects
from tests.formats import native_kit as kit
from tests.tools import need

ENGINES: tuple[Literal["native"], Literal["system"]] = ("native", "system")

ALIGNED = """
__attribute__((aligned(65536))) char api_buf[100] = {1};
__attribute__((aligned(2097152))) static char big[10] = {3};
__attribute__((aligned(16384))) static char zeros[10];
char *api_big(void) { return big; } char *api_zeros(void) { return zeros; }
"""
ALIGNED_MAIN = """
#include <stdio.h>
#include <stdint.h>
extern char api_buf[], *api_big(void), *api_zeros(void);
int main(void) { printf("%d %d %d %d\\n", (int)((uintptr_t)api_buf % 65536),
  (int)((uintptr_t)api_big() % 2097152), (int)((uintptr_t)api_zeros() % 16384), *api_big()); }
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_alignments_above_a_page(engine: Literal["native", "system"], tmp_path: Path) -> None:
    library = kit.library(tmp_path, {"a.c": ALIGNED}, "-O1", "-fPIC")
    out, main = tmp_path / "out.a", tmp_path / "main.c"
    cargo_strip_hook.strip(library, output=out, exports="api_*", engine=engine)
    main.write_text(ALIGNED_MAIN)
    for linker in kit.LINKERS:
        kit.link(tmp_path / "p", [main, out], linker)
        assert kit.output(tmp_path / "p") == "0 0 0 3\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_but_commons_and_values(
    engine: Literal["native", "system"], tmp_path: Path
) -> None:
    source = 'int api_pool[10]; __asm__(".globl api_value\\n.set api_value, 0x1234\\n");'
    library = kit.library(tmp_path, {"a.c": source}, "-fcommon")
    out, main = tmp_path / "out.a", tmp_path / "main.c"
    cargo_strip_hook.strip(library, output=out, exports="api_*", engine=engine)
    main.write_text("""#include <stdio.h>
extern int api_pool[10]; extern char api_value[];
int main(void) { api_pool[9] = 5; printf("%d %lx\\n", api_pool[9], (long)api_value); }""")
    kit.link(tmp_path / "p", [main, out], "bfd", "-no-pie")
    assert kit.output(tmp_path / "p") == "5 1234\n"


COMMONS = """
    .text
    .globl api_private, api_big
    .type api_private, @function
api_private: movq private@gottpoff(%rip), %rax
    addq %fs:0, %rax
    ret
    .type api_big, @function
api_big: movabsq $big, %rax
    ret
    .globl private, big, api_own, api_wide
    .type private, @object
    .type private, @tls_object
    .tls_common private, 8, 8
    .tls_common api_own, 4, 4
    .largecomm big, 4000, 32
    .largecomm api_wide, 800, 32
    .section .note.GNU-stack,"",@progbits
"""
COMMONS_MAIN = """
#include <stdio.h>
long *api_private(void); char *api_big(void); extern __thread int api_own;
int main(void) { *api_private() += 2; api_own = 3; api_big()[3999] = 4;
  printf("%ld %d %d\\n", *api_private(), api_own, api_big()[3999]); }
"""


def test_commons_of_threads_and_large_ones(tmp_path: Path) -> None:
    library = kit.library(tmp_path, {"a.s": COMMONS.replace(".tls_common", ".comm")})
    data = bytearray(library.read_bytes())
    _make_thread_local(data, (b"private", b"api_own"))
    library.write_bytes(data)
    out = tmp_path / "out.a"
    cargo_strip_hook.strip(library, output=out, exports="api_*", strip="none")
    listed = kit.tool([need("readelf"), "-sSW", out])
    assert " .tbss " in listed and " .lbss " in listed
    [wide] = [line.split() for line in listed.splitlines() if line.endswith(" api_wide")]
    assert wide[-2] == "LARGE_COM"
    [private] = [line.split() for line in listed.splitlines() if line.endswith(" private")]
    assert private[3:5] == ["TLS", "LOCAL"]
    main = tmp_path / "main.c"
    main.write_text(COMMONS_MAIN)
    for linker in ("bfd", "gold"):
        kit.link(tmp_path / "p", [main, out], linker, "-no-pie")
        assert kit.output(tmp_path / "p") == "2 3 4\n"


def _sections(data: bytes, at: int) -> list[tuple[int, ...]]:
    """The section headers (64 bits, little-endian) of the object at an offset."""
    (start,) = struct.unpack_from("<Q", data, at + 40)
    (count,) = struct.unpack_from("<H", data, at + 60)
    return [struct.unpack_from("<IIQQQQIIQQ", data, at + start + 64 * i) for i in range(count)]


def _make_thread_local(data: bytearray, names: tuple[bytes, ...]) -> None:
    """Give symbols of the only object the type STT_TLS, as old compilers do for commons."""
    at = data.index(b"\x7fELF")
    headers = _sections(data, at)
    [table] = [h for h in headers if h[1] == 2]
    strings = at + headers[table[6]][4]
    for entry in range(at + table[4], at + table[4] + table[5], 24):
        (name,) = struct.unpack_from("<I", data, entry)
        end = data.index(b"\0", strings + name)
        if bytes(data[strings + name : end]) in names:
            data[entry + 4] = data[entry + 4] & 0xF0 | 6


BEYOND = """
    .text
    .globl api_f
api_f: lea over(%rip), %rax
    ret
    .section .data.x,"aw"
    .set over, .+100
    .globl over
    .byte 1
    .section .note.GNU-stack,"",@progbits
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_symbol_beyond_its_section(engine: Literal["native", "system"], tmp_path: Path) -> None:
    library = kit.library(tmp_path, {"a.s": BEYOND})
    with pytest.raises(ObjectError, match=r"libt\.a\(a\.o\).*`over` lies beyond the end of"):
        cargo_strip_hook.strip(library, output=tmp_path / "o.a", exports="api_f", engine=engine)


def test_a_size_that_goes_over_the_end(tmp_path: Path) -> None:
    """Hand-written: linkers only copy the size, and so do we. A label may be at the very end."""
    text = ".globl api_f, api_end\n.type api_f, @function\napi_f: ret\n.size api_f, 9\napi_end:\n"
    library = kit.library(tmp_path, {"a.s": text})
    for granularity in ("class", "whole"):
        out = tmp_path / "out.a"
        cargo_strip_hook.strip(library, output=out, exports="api_*", granularity=granularity)  # type: ignore[arg-type]
        assert " 9 FUNC " in kit.tool([need("readelf"), "-sW", out])


def _damage(library: Path, name: bytes, field: int, value: int) -> None:
    """Set a field (offset in its header, eight bytes) of a section by its name."""
    data = bytearray(library.read_bytes())
    at = data.index(b"\x7fELF")
    headers = _sections(data, at)
    (names,) = struct.unpack_from("<H", data, at + 62)
    (start,) = struct.unpack_from("<Q", data, at + 40)
    for number, header in enumerate(headers):
        text = at + headers[names][4] + header[0]
        if data[text : data.index(b"\0", text)] == name:
            struct.pack_into("<Q", data, at + start + 64 * number + field, value)
    library.write_bytes(data)


def test_debug_relocations_of_odd_size_are_the_library_s_fault(tmp_path: Path) -> None:
    source = "int api_f(int i) { return i; } int api_g(int i) { return api_f(i) + 1; }"
    library = kit.library(tmp_path, {"a.c": source}, "-g", "-O1")
    _damage(library, b".rela.debug_info", 56, 23)
    with pytest.raises(ObjectError) as caught:
        cargo_strip_hook.strip(library, output=tmp_path / "o.a", exports="api_*", strip="none")
    assert "libt.a(a.o) at offset 0x" in caught.value.what
    assert ".rela.debug_info" in caught.value.what


def test_overlapping_relocations_are_found(tmp_path: Path) -> None:
    text = """
    .globl api_f
api_f: .quad other
    .reloc api_f+4, R_X86_64_32, third
    .section .note.GNU-stack,"",@progbits
    """
    [path] = kit.build(tmp_path, {"a.s": text})
    data = path.read_bytes()
    wrong = damage.find(read_objects(data, [0], [len(data)]))
    assert wrong is not None
    assert wrong.what == ".text+0x4: two relocations overlap"


def test_a_sound_object_has_no_damage(tmp_path: Path) -> None:
    [path] = kit.build(tmp_path, {"a.c": ALIGNED}, "-g", "-fcommon")
    data = path.read_bytes()
    assert damage.find(read_objects(data, [0], [len(data)])) is None


KINDS = r"""
static int hid(int i) { return i * 3; } static int tab[4] = {1, 2, 3, 4};
const char *api_s(int i) { return i ? "hello" : "world"; }
int api_f(int i) { return hid(i) + tab[i & 3]; } int dead(void) { return 1; }
static __thread int t; int *api_t(void) { return &t; }
__attribute__((section(".mysec"))) int api_v = 3;
__attribute__((ifunc("res"))) int api_i(int);
static int im(int i) { return i; } static void *res(void) { return im; }
__asm__(".pushsection .rodata.str1.1,\"aMS\",@progbits,1\n"
  "lab_str: .asciz \"labelled\"\n .popsection\n"
  ".pushsection .text.api_g,\"ax\"\n .globl api_g\napi_g: nop\n"
  "lab_in: lea lab_str(%rip),%rax\n ret\nlab_end:\n .popsection\n");
"""


def _kept(path: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """(names of sections with contents, type and name of the local symbols) of an object."""
    listed = kit.tool([need("readelf"), "-SsW", path]).splitlines()
    rows = [line.replace("[ ", "[").split() for line in listed]
    names = {
        r[1] for r in rows if len(r) > 8 and r[0][:1] == "[" and r[2] in ("PROGBITS", "NOBITS")
    }
    symbols = {(r[3], r[7]) for r in rows if len(r) == 8 and r[4] == "LOCAL" and r[3] != "SECTION"}
    return {n for n in names if not n.startswith((".debug", ".cargo"))}, symbols


@pytest.mark.parametrize("split", [True, False])
def test_a_result_keeps_the_names_that_a_linker_keeps(split: bool, tmp_path: Path) -> None:
    flags = ("-ffunction-sections", "-fdata-sections") if split else ()
    library = kit.library(tmp_path, {"k.c": KINDS}, "-O1", "-g", "-fPIC", *flags)
    exports = ["api_s", "api_f", "api_t", "api_v", "api_i", "api_g"]
    wanted = [word for name in exports for word in ("-u", name)]
    kit.tool(["ld.bfd", "-r", "--gc-sections", *wanted, library, "-o", tmp_path / "ld.o"])
    out = tmp_path / "out.a"
    sections, symbols = _kept(tmp_path / "ld.o")
    for granularity in ("section", "class", "whole"):
        cargo_strip_hook.strip(
            library,
            output=out,
            exports=exports,
            strip="none",
            granularity=granularity,  # type: ignore[arg-type]
        )
        mine = _kept(out)
        if granularity == "section":
            assert mine[0] == sections
        idle = {("NOTYPE", "_GLOBAL_OFFSET_TABLE_"), ("FILE", "")}  # GNU ld's own
        assert {s for s in symbols if s[1]} - mine[1] <= idle


ODD = r"""
 .section .gnu.linkonce.t.once,"ax",@progbits
 .globl once
once: ret
 .section .ctors.00100,"aw"
 .quad init1
 .section .dtors,"aw"
 .quad init1
 .section .preinit_array,"aw",@preinit_array
 .quad init1
 .section .init,"ax"
 nop
 .section .grp,"axG",@progbits,gsig
 .globl ingrp
ingrp: ret
 .section .excl,"e",@progbits
 .asciz "excluded"
 .section .excla,"ae",@progbits
 .asciz "excluded"
 .section marks_a,"aw"
mark_begin:
 .text
 .globl api_f,api_u
 .type api_f,@function
api_f: call once
 call ingrp
 lea mark_begin(%rip),%rax
 lea init1(%rip),%rax
 leaq tv@tlsdesc(%rip),%rax
 call *tv@tlscall(%rax)
 ret
init1: ret
 .type api_u,@gnu_unique_object
 .data
api_u: .quad 1
 .section .tbss,"awT",@nobits
tv: .zero 4
 .text
 .globl ver1
ver1: ret
 .symver ver1,api_v@@VER_1
 .symver ver1,api_v@VER_0
 .section .note.GNU-stack,"",@progbits
"""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("granularity", ["class", "section", "whole"])
def test_what_assembly_can_say(
    engine: Literal["native", "system"], granularity: str, tmp_path: Path
) -> None:
    """Old groups and constructors, marks of nothing, unique symbols, versions, descriptors."""
    library = kit.library(tmp_path, {"odd.s": ODD})
    out = tmp_path / "out.a"
    cargo_strip_hook.strip(
        library,
        output=out,
        exports="api_*",
        engine=engine,
        granularity=granularity,  # type: ignore[arg-type]
        strip="none",
    )
    listed = kit.tool([need("readelf"), "-SsW", out])
    for name in (".ctors.00100", ".preinit_array", ".init ", ".excl ", "api_v@@VER_1", "UNIQUE"):
        assert name in listed


@pytest.mark.parametrize("system", [3, 6, 9, 12, 97, 255])
def test_the_operating_system_stays(system: int, tmp_path: Path) -> None:
    """That of the members that name one: FreeBSD, OpenBSD and Solaris mark only some objects."""
    sources = {"a.c": "int other(void); int api_a(void) { return other(); }"}
    objects = kit.build(tmp_path, {**sources, "b.c": "int other(void) { return 3; }"}, "-O1")
    data = bytearray(objects[1].read_bytes())
    data[7:9] = system, 1
    objects[1].write_bytes(data)
    library, out = kit.archive(tmp_path / "libt.a", objects), tmp_path / "libout.a"
    cargo_strip_hook.strip(library, output=out, exports="api_*")
    assert out.read_bytes().count(bytes(data[:9])) == 1


def test_two_operating_systems_are_refused(tmp_path: Path) -> None:
    sources = {"a.c": "int other(void); int api_a(void) { return other(); }"}
    objects = kit.build(tmp_path, {**sources, "b.c": "int other(void) { return 3; }"}, "-O1")
    for file, system in zip(objects, (9, 12), strict=True):
        data = bytearray(file.read_bytes())
        data[7] = system
        file.write_bytes(data)
    library = kit.archive(tmp_path / "libt.a", objects)
    with pytest.raises(cargo_strip_hook.StripHookError, match="different operating systems"):
        cargo_strip_hook.strip(library, output=tmp_path / "libout.a", exports="api_*")
