"""Small Darwin objects of clang's through the native engine, judged by LLVM's tools and linker."""

from __future__ import annotations

import re
import struct
from collections import Counter
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import LinkError, ObjectError
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.verify.marker import read_marker
from tests.consumers import darwin_image
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool

pytestmark = pytest.mark.parametrize("arch", kit.ARCHES)

C_ONE = """
extern int two_used(int), two_weak(int), undefined_later(void);
extern int maybe(void) __attribute__((weak_import));
__attribute__((weak)) int shared(int a) { return a * 3; }
__attribute__((visibility("hidden"))) int hidden_counter = 5;
__thread int per_thread = 7;
static __thread int per_thread_zero;
int common_one, common_two[40];
static const char *words[] = { "alpha", "beta", "gamma" };
static int zero[16];
const int exported_data = 42;
__attribute__((noinline)) static double scale(double x) { return x * 3.25 + 1e10; }
int one_api(int a) {
  common_one += a; common_two[a & 31]++; zero[a & 15]++; per_thread_zero++;
  return two_used(a) + shared(a) + per_thread + hidden_counter + (int)scale(a)
    + words[a % 3][0] + (maybe ? maybe() : 0);
}
int one_other(int a) { return two_weak(a) + shared(a) + per_thread_zero; }
int one_dead(int a) { return undefined_later() + a; }
"""
C_TWO = """
int common_one;
__attribute__((weak)) int shared(int a) { return a * 3; }
int two_used(int a) { return a + 1; }
int two_weak(int a) { return shared(a) + common_one; }
int two_dead(void) { return 9; }
static volatile int made;
__attribute__((constructor)) static void make(void) { made = 3; }
__attribute__((used)) static int kept_by_the_compiler = 77;
int two_made(void) { return made; }
"""
MAIN = """
extern int one_api(int), one_other(int);
extern const int exported_data;
int main(void) { return one_api(3) + one_other(4) + exported_data; }
"""
EXPORTS = ("_one_api", "_one_other", "_exported_data")


def _library(folder: Path, arch: str) -> Path:
    return kit.library(folder, arch, {"one.c": C_ONE, "two.c": C_TWO}, "-O1", "-fcommon")


def _symbols(library: Path) -> list[tuple[str, int, int, int, int]]:
    """name, type, section, n_desc, value of each symbol of the only object."""
    data = library.read_bytes()
    return darwin_image.load(data[data.index(b"\xcf\xfa\xed\xfe") :]).symbols


@pytest.mark.parametrize("granularity", Granularity)
def test_only_the_exports_are_external(tmp_path: Path, arch: str, granularity: Granularity) -> None:
    out, result, seen = kit.strip(_library(tmp_path, arch), arch, EXPORTS, granularity=granularity)
    found = kit.globals_of(out)
    assert {n for n, letter in found.items() if letter not in "Uu"} == set(EXPORTS)
    undefined = {n for n, letter in found.items() if letter in "Uu"}
    assert undefined == {"__tlv_bootstrap", "_maybe"}
    assert set(result.undefined) == undefined == set(seen.undefined)
    by_name = {name: (kind, desc) for name, kind, _, desc, _ in _symbols(out)}
    assert by_name["_maybe"] == (0x01, 0x40), "the weak reference is one no more"
    assert read_marker(out) == kit.MARKER


@pytest.mark.parametrize("strip", Strip)
def test_a_program_is_the_same_function_by_function(
    tmp_path: Path, arch: str, strip: Strip
) -> None:
    original = _library(tmp_path, arch)
    out, _, _ = kit.strip(original, arch, EXPORTS, strip)
    (main,) = kit.compile(tmp_path, arch, {"main.c": MAIN}, "-O1")
    flags = ("-dead_strip", "-undefined", "dynamic_lookup")
    programs = [
        kit.link(tmp_path / f"p{n}", arch, [main, library], *flags)
        for n, library in enumerate((original, out))
    ]
    if strip is not Strip.SYMBOLS:
        first, second = (darwin_image.program(p, kit.llvm("objdump")) for p in programs)
        assert first == second
        assert sum(first.values()) >= 7
    images = [darwin_image.load(p.read_bytes()) for p in programs]
    sizes = [{k: v[1] for k, v in i.sections.items() if k[0] != "__LINKEDIT"} for i in images]
    assert sizes[0].keys() == sizes[1].keys(), "the marker or another section came along"
    for name, size in sizes[0].items():
        assert abs(sizes[1][name] - size) <= max(16, size // 100), name


def test_a_consumer_drops_what_it_does_not_use(tmp_path: Path, arch: str) -> None:
    out, _, _ = kit.strip(_library(tmp_path, arch), arch, (*EXPORTS, "_two_made"))
    text = "extern int two_made(void); int main(void) { return two_made(); }"
    (main,) = kit.compile(tmp_path, arch, {"main.c": text}, "-O1")
    flags = ("-dead_strip", "-undefined", "dynamic_lookup")
    program = kit.link(tmp_path / "p", arch, [main, out], *flags)
    names = set(darwin_image.load(program.read_bytes()).functions().values())
    assert {"_main", "_two_made", "_make"} <= names
    assert not names & {"_one_api", "_one_other", "_two_used", "_scale"}


def test_names_are_kept_as_asked(tmp_path: Path, arch: str) -> None:
    original = _library(tmp_path, arch)
    names = {}
    for strip in Strip:
        out, _, _ = kit.strip(original, arch, EXPORTS, strip)
        names[strip] = {n for n, kind, _, _, _ in _symbols(out) if not kind & 1}
    assert names[Strip.SYMBOLS] == {"l"}
    assert {"_two_used", "_scale", "_make"} <= names[Strip.DEBUGINFO]
    assert not names[Strip.DEBUGINFO] & {"_words", "_zero", "_hidden_counter"}
    assert {"_zero", "_hidden_counter", "_scale"} <= names[Strip.NONE]
    assert not names[Strip.NONE] & {"_one_dead", "_two_dead"}


def test_what_the_compiler_wants_kept_stays_kept(tmp_path: Path, arch: str) -> None:
    out, _, _ = kit.strip(_library(tmp_path, arch), arch, EXPORTS, Strip.NONE)
    by_name = {name: desc for name, _, _, desc, _ in _symbols(out)}
    assert by_name["_kept_by_the_compiler"] & 0x20


CXX = """
extern int outside(int);
struct Guard { int *p; ~Guard(); };
extern int *where;
int catcher(int a) { Guard g{where}; try { return outside(a); } catch (int x) { return x + 1; } }
int passer(int a) { Guard g{where}; return outside(a) + catcher(a); }
static int deep(int a) { Guard g{where}; return outside(a) * 2; }
int (*volatile pointer)(int) = deep;
extern "C" int cxx_api(int a) { return passer(a) + catcher(a) + pointer(a); }
extern "C" int cxx_dead(int a) { Guard g{where}; return outside(a); }
"""
CXX_MAIN = """
extern "C" int cxx_api(int);
struct Guard { int *p; ~Guard(); };
int *where; int drops;
Guard::~Guard() { drops++; }
int outside(int a) { if (a > 2) throw a; return a; }
int main() { return cxx_api(2) + drops; }
"""


def test_unwind_records_follow_their_functions(tmp_path: Path, arch: str) -> None:
    flags = ("-O1", "-fno-inline")
    original = kit.library(tmp_path, arch, {"cxx.cpp": CXX}, *flags)
    out, _, seen = kit.strip(original, arch, ["_cxx_api"])
    assert seen.functions >= 4
    found = kit.globals_of(out)
    assert found["___gxx_personality_v0"] == "U", "C++'s own personality is the consumer's"
    (main,) = kit.compile(tmp_path, arch, {"main.cpp": CXX_MAIN}, *flags)
    programs = [
        kit.link(
            tmp_path / f"p{n}", arch, [main, library], "-dead_strip", "-undefined", "dynamic_lookup"
        )
        for n, library in enumerate((original, out))
    ]
    first, second = (darwin_image.program(p, kit.llvm("objdump")) for p in programs)
    assert first == second
    with_lsda = [unwound for _, unwound in first if unwound[-1]]
    assert len(with_lsda) >= 3


def test_a_personality_in_the_library_coalesces(tmp_path: Path, arch: str) -> None:
    """Two libraries, each with a routine of its own name: one image, one routine, not exported."""
    text = """
    .globl _api_%(n)s
    .p2align 4
    _api_%(n)s:
      .cfi_startproc
      .cfi_personality 155, _my_personality
      .cfi_lsda 16, L_lsda
      %(ret)s
      .cfi_endproc
    .globl _my_personality
    .p2align 4
    _my_personality:
      %(ret)s
    .section __TEXT,__gcc_except_tab
    .p2align 2
    L_lsda:
    GCC_except_table0:
      .byte 255, 255, 1, 0
    .subsections_via_symbols
    """
    libraries = []
    for n in ("a", "b"):
        folder = tmp_path / n
        source = {"a.s": text % {"n": n, "ret": "ret"}}
        original = kit.library(folder, arch, source)
        libraries.append(kit.strip(original, arch, [f"_api_{n}"])[0])
        routine = [s for s in _symbols(libraries[-1]) if s[0] == "_my_personality"]
        assert [(kind, desc) for _, kind, _, desc, _ in routine] == [(0x1F, 0x80)]
    main = "extern int api_a(void), api_b(void); int main(void) { return api_a() + api_b(); }"
    objects = kit.compile(tmp_path, arch, {"main.c": main})
    program = kit.link(tmp_path / "p", arch, [*objects, *libraries], "-dead_strip")
    symbols = [s for s in darwin_image.load(program.read_bytes()).symbols if "personality" in s[0]]
    assert len(symbols) == 1
    assert not symbols[0][1] & 1 or symbols[0][1] & 0x10


WHOLE = """
.globl _first
.globl _second
_first:
  %(nop)s
_second:
  %(nop)s
  %(ret)s
.data
.globl _whole_data
_whole_data: .quad 1
"""


def test_objects_without_subsections_live_whole(tmp_path: Path, arch: str) -> None:
    original = kit.library(tmp_path, arch, {"whole.s": WHOLE % {"nop": "nop", "ret": "ret"}})
    out, _, _ = kit.strip(original, arch, ["_second"])
    symbols = {name: (kind, desc, value) for name, kind, _, desc, value in _symbols(out)}
    assert symbols["_first"][0] == 0x0E
    assert symbols["_second"][:2] == (0x0F, 0x200), "an entry inside of the whole"
    assert symbols["_second"][2] - symbols["_first"][2] == (4 if arch == "arm64" else 1)
    sizes = darwin_image.load(out.read_bytes()[out.read_bytes().index(b"\xcf\xfa\xed\xfe") :])
    assert sizes.sections["__DATA", "__data"][1] == 8


def test_labels_and_alternate_entries_are_no_borders(tmp_path: Path, arch: str) -> None:
    text = """
    .globl _api
    _api:
      nop
    L_label:
      nop
    .alt_entry _entry
    _entry:
      nop
      ret
    _after:
      ret
    .subsections_via_symbols
    """
    original = kit.library(tmp_path, arch, {"a.s": text})
    out, _, _ = kit.strip(original, arch, ["_api"])
    names = {n: desc for n, _, _, desc, _ in _symbols(out)}
    assert "_after" not in names
    assert names["_entry"] == 0x200
    image = darwin_image.load(out.read_bytes()[out.read_bytes().index(b"\xcf\xfa\xed\xfe") :])
    assert image.sections["__TEXT", "__text"][1] == (16 if arch == "arm64" else 4)


SECTION_SET = """
extern const int begin[] __asm("section$start$__DATA$my_set");
extern const int end[] __asm("section$end$__DATA$my_set");
__attribute__((used, section("__DATA,my_set"))) static int a = %d;
__attribute__((used, section("__DATA,my_set"))) static int b = %d;
int %s(void) { int sum = 0; for (const int *p = begin; p < end; p++) sum += *p; return sum; }
"""


def test_sets_belong_to_their_library(tmp_path: Path, arch: str) -> None:
    libraries = []
    for n, name in enumerate(("left", "right")):
        source = {"set.c": SECTION_SET % (n + 1, n + 10, name)}
        original = kit.library(tmp_path / name, arch, source, "-O1")
        libraries.append(kit.strip(original, arch, [f"_{name}"])[0])
        assert not any("section$" in n for n in kit.globals_of(libraries[-1]))
    main = "extern int left(void), right(void); int main(void) { return left() + right(); }"
    objects = kit.compile(tmp_path, arch, {"main.c": main})
    program = kit.link(tmp_path / "p", arch, [*objects, *libraries])
    image = darwin_image.load(program.read_bytes())
    _, size, offset = image.sections["__DATA", "my_set$set"]
    words = struct.unpack_from(f"<{size // 4}I", image.data, offset)
    assert [w for w in words if w] == [1, 10, 2, 11]


def test_versions_are_merged(tmp_path: Path, arch: str) -> None:
    old = kit.compile(
        tmp_path / "a", arch, {"a.c": "int a(void) { return 1; }"}, platform="macos11"
    )
    new = kit.compile(
        tmp_path / "b",
        arch,
        {"b.c": "int a(void); int b(void) { return a(); }"},
        platform="macos12.3",
    )
    library = kit.archive(tmp_path / "libt.a", [*old, *new])
    out, _, _ = kit.strip(library, arch, ["_b"])
    said = tool([kit.llvm("objdump"), "--private-headers", out])
    assert re.findall(r"minos (\S+)", said) == ["12.3"]


def test_platforms_do_not_mix(tmp_path: Path, arch: str) -> None:
    one = kit.compile(tmp_path / "a", arch, {"a.c": "int a(void) { return 1; }"})
    two = kit.compile(
        tmp_path / "b",
        arch,
        {"b.c": "int a(void); int b(void) { return a(); }"},
        platform="ios14-simulator",
    )
    library = kit.archive(tmp_path / "libt.a", [*one, *two])
    with pytest.raises(LinkError, match=r"macOS.*iOS Simulator|iOS Simulator.*macOS"):
        kit.strip(library, arch, ["_b"])
    with pytest.raises(LinkError, match="is iOS"):
        kit.strip(
            kit.archive(tmp_path / "libu.a", one),
            arch,
            ["_a"],
            target=f"{arch.replace('arm64', 'aarch64')}-apple-ios-sim",
        )


@pytest.mark.parametrize("other", ["ios15-simulator", "ios15-macabi", "tvos15"])
def test_a_device_does_not_mix_with_its_relatives(tmp_path: Path, arch: str, other: str) -> None:
    if arch == "x86_64":
        pytest.skip("no device has such a processor")
    one = kit.compile(tmp_path / "a", arch, {"a.c": "int a(void) { return 1; }"}, platform="ios15")
    text = "int a(void); int b(void) { return a(); }"
    two = kit.compile(tmp_path / "b", arch, {"b.c": text}, platform=other)
    library = kit.archive(tmp_path / "libt.a", [*one, *two])
    for target in ("aarch64-apple-ios", "aarch64-apple-ios-sim"):
        with pytest.raises(LinkError, match=r"[ab]\.o was built for .*iOS") as caught:
            kit.strip(library, arch, ["_b"], target=target)
        assert "b.o" in caught.value.what and "iOS" in caught.value.what


def test_linker_options_are_united(tmp_path: Path, arch: str) -> None:
    sources = {
        "a.s": '.linker_option "-lfirst"\n.linker_option "-framework", "Foo"\n'
        ".globl _a\n_a: ret\n.subsections_via_symbols\n",
        "b.s": '.linker_option "-framework", "Foo"\n.globl _b\n_b: '
        + ("b _a" if arch == "arm64" else "jmp _a")
        + "\n.subsections_via_symbols\n",
    }
    out, _, _ = kit.strip(kit.library(tmp_path, arch, sources), arch, ["_b"])
    said = tool([kit.llvm("objdump"), "--private-headers", out])
    assert Counter(re.findall(r"string #\d (\S+)", said)) == {
        "-lfirst": 1,
        "-framework": 1,
        "Foo": 1,
    }


def test_data_in_code_moves_with_its_function(tmp_path: Path, arch: str) -> None:
    text = """
    _dead: nop
      .data_region jt32
      .long 3
      .end_data_region
    .globl _api
      .p2align 2
    _api: ret
      .p2align 2
      .data_region jt32
      .long 1, 2
      .end_data_region
    .subsections_via_symbols
    """
    out, _, _ = kit.strip(kit.library(tmp_path, arch, {"a.s": text}), arch, ["_api"])
    said = tool([kit.llvm("objdump"), "--macho", "--data-in-code", out])
    rows = re.findall(r"^0x([0-9a-f]+)\s+(\d+)\s+(\S+)", said, re.M)
    assert rows == [("00000004", "8", "JUMP_TABLE32")]


def test_bitcode_and_debug_map_are_gone(tmp_path: Path, arch: str) -> None:
    text = """
    .globl _api
    _api: ret
    .section __LLVM,__bitcode
    .byte 1, 2, 3
    .section __LLVM,__cmdline
    .byte 1
    .subsections_via_symbols
    """
    out, _, _ = kit.strip(kit.library(tmp_path, arch, {"a.s": text}, "-g"), arch, ["_api"])
    names = re.findall(r"^ *\d+ (\S+)", tool([kit.llvm("objdump"), "-h", out]), re.M)
    assert names == ["__text", "__strip_hook"]


def test_processors_do_not_mix(tmp_path: Path, arch: str) -> None:
    other = "x86_64" if arch == "arm64" else "arm64"
    objects = kit.compile(tmp_path / "a", arch, {"a.c": "int a(void) { return 1; }"})
    objects += kit.compile(tmp_path / "b", other, {"b.c": "int b(void) { return 1; }"})
    with pytest.raises(Exception, match="mixes objects"):
        kit.strip(kit.archive(tmp_path / "libt.a", objects), arch, ["_a"])


@pytest.mark.parametrize(
    "target", ["arm64e-apple-ios14", "arm64_32-apple-watchos7", "i386-apple-macos10.13"]
)
def test_other_processors_are_refused(tmp_path: Path, arch: str, target: str) -> None:
    file = tmp_path / "a.c"
    file.write_text("int a(void) { return 1; }")
    out = tmp_path / "a.o"
    tool([kit.clang(), "-target", target, "-c", "-o", out, file])
    with pytest.raises(ObjectError, match="not supported") as caught:
        kit.strip(kit.archive(tmp_path / "libt.a", [out]), arch, ["_a"])
    assert caught.value.help == ("supported are 64-bit objects for arm64 and x86_64",)


def test_llvm_reads_the_result_without_a_complaint(tmp_path: Path, arch: str) -> None:
    out, _, _ = kit.strip(_library(tmp_path, arch), arch, EXPORTS)
    for words in (
        ("objdump", "-d", "-r", "--private-headers", "--unwind-info"),
        ("nm", "-a", "-m"),
        ("readobj", "--all"),
        ("size", "-m"),
    ):
        said = tool([kit.llvm(words[0]), *words[1:], out])
        assert not re.search(r"warning|error|malformed", said), said


def test_macholib_reads_the_result(tmp_path: Path, arch: str) -> None:
    from macholib.MachO import MachO

    out, _, _ = kit.strip(_library(tmp_path, arch), arch, EXPORTS)
    data = out.read_bytes()
    file = tmp_path / "member.o"
    file.write_bytes(data[data.index(b"\xcf\xfa\xed\xfe") :])
    (header,) = MachO(str(file)).headers
    commands = [(command.get_cmd_name(), body) for command, _, body in header.commands]
    names = [c for c, _ in commands]
    assert names[0] == "LC_SEGMENT_64"
    assert {"LC_BUILD_VERSION", "LC_SYMTAB", "LC_DYSYMTAB"} <= set(names)
    segment = header.commands[0][1]
    assert segment.nsects == len(header.commands[0][2]) <= 255


OBJECTIVE_C = """
__attribute__((objc_root_class)) @interface %(c)s { int x; }
+ (%(c)s *)make;
- (int)value;
@end
@implementation %(c)s
+ (%(c)s *)make { return 0; }
- (int)value { return x + 3; }
@end
@interface %(c)s (More)
- (int)more;
@end
@implementation %(c)s (More)
- (int)more { return [self value]; }
@end
int %(f)s(void) { return [[%(c)s make] value]; }
"""


@pytest.mark.parametrize("strip", Strip)
def test_objective_c_metadata_comes_along(tmp_path: Path, arch: str, strip: Strip) -> None:
    sources = {f"{c}.m": OBJECTIVE_C % {"c": c, "f": f} for c, f in (("Red", "f"), ("Blue", "g"))}
    original = kit.library(tmp_path, arch, sources, "-O1", "-fobjc-arc")
    out, _, _ = kit.strip(original, arch, ["_f", "_g"], strip)
    text = "int f(void), g(void); int main(void) { return f() + g(); }"
    (main,) = kit.compile(tmp_path, arch, {"main.c": text})
    flags = ("-dead_strip", "-undefined", "dynamic_lookup")
    sizes = []
    for name, library in (("first", original), ("second", out)):
        program = kit.link(tmp_path / name, arch, [main, library], *flags)
        image = darwin_image.load(program.read_bytes())
        sizes.append({k: v[1] for k, v in image.sections.items()})
    assert sizes[0].keys() == sizes[1].keys()
    assert ("__TEXT", "__objc_methlist") in sizes[0]
    for section, size in sizes[0].items():
        assert abs(sizes[1][section] - size) <= 16, section
    assert sizes[1]["__DATA_CONST", "__objc_imageinfo"] == 8
