"""Code that the runtimes of Objective-C and Swift find by its sections, linked with `-ObjC`.

What ld64.lld makes of the original is what it has to make of the result.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.errors import LinkError, VerifyError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.system import macho
from cargo_strip_hook.formats.members import load
from cargo_strip_hook.verify import Expectation, verify
from tests.consumers import darwin_image
from tests.formats import darwin_kit as kit

pytestmark = pytest.mark.parametrize("arch", kit.ARCHES)

ROOT = "__attribute__((objc_root_class)) @interface"
CLASS = f"""
{ROOT} Lone {{ int v; }} + (int)make; @end
@implementation Lone + (int)make {{ return 41; }} @end
"""
CATEGORY = f"""
{ROOT} Other + (int)make; @end
@interface Other (Extra) + (int)extra; @end
@implementation Other (Extra) + (int)extra {{ return 7; }} + (void)load {{}} @end
"""
OTHER = f"""
@protocol Said - (int)value; @end
{ROOT} Other <Said> + (int)make; - (int)value; @property (class) int shared; @end
@implementation Other
+ (int)make {{ return 41; }} - (int)value {{ return 1; }}
+ (int)shared {{ return 3; }} + (void)setShared:(int)n {{}} + (void)load {{}}
@end
int other_make(void) {{ return [Other make]; }}
"""
SWIFT = """
.section __TEXT,__swift5_types,regular,no_dead_strip
.p2align 2
l_type: .long _described-l_type
.section __TEXT,__const
.globl _described
.p2align 2
_described: .long 1, 2, 3
.section __TEXT,__swift5_proto,regular,no_dead_strip
.p2align 2
l_proto: .long _described-l_proto
.subsections_via_symbols
"""
CATLIST2 = """
.section __DATA,__objc_catlist2,regular,no_dead_strip
.p2align 3
.quad _category
.section __DATA,__objc_const
.p2align 3
_category: .quad 0, 0, 0
.subsections_via_symbols
"""
PLAIN = "int unused(void) { return 9; }"
API = "int helper(void); int api(void) { return helper() + 1; }"
SOURCES = {
    "api.c": API,
    "helper.c": "int helper(void) { return 2; }",
    "class.m": CLASS,
    "category.m": CATEGORY,
    "other.m": OTHER,
    "swift.s": SWIFT,
    "plain.c": PLAIN,
}
MAIN = "int api(void); int main(void) { return api(); }"
STUB = kit.system_stub("_objc_msgSend __objc_empty_cache _objc_opt_class _objc_msgSend$make")


def _compile(folder: Path, arch: str, sources: dict[str, str]) -> list[Path]:
    objective = {n: t for n, t in sources.items() if n.endswith(".m")}
    others = {n: t for n, t in sources.items() if n not in objective}
    made = kit.compile(folder, arch, others, "-O1")
    made += kit.compile(folder, arch, objective, "-O1", "-fobjc-runtime=macosx-13.0")
    by_name = {o.stem: o for o in made}
    return [by_name[Path(n).stem] for n in sources]


def _runtime(folder: Path, arch: str, library: Path, *flags: str) -> dict[str, tuple[int, bytes]]:
    """Size of each section of the runtimes' in a program, with the contents of the image's info."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = kit.compile(folder, arch, {"main.c": MAIN})
    program = kit.link(folder / "program", arch, [*objects, library], "-ObjC", *flags, stub=STUB)
    image = darwin_image.load(program.read_bytes())
    found = {}
    for (_, name), (address, size, *_) in image.sections.items():
        if name.startswith(("__objc_", "__swift")):
            data = image.bytes_at(address, size) if name == "__objc_imageinfo" else b""
            found[name] = size, data
    return found


@pytest.mark.parametrize(
    ("strip", "granularity"),
    [
        (Strip.NONE, Granularity.WHOLE),
        (Strip.DEBUGINFO, Granularity.CLASS),
        (Strip.SYMBOLS, Granularity.SECTION),
    ],
)
def test_what_objc_loads_is_in_the_program(
    tmp_path: Path, arch: str, strip: Strip, granularity: Granularity
) -> None:
    """Members that nothing refers to: a class, a category, records of Swift's."""
    original = kit.archive(tmp_path / "libt.a", _compile(tmp_path / "o", arch, SOURCES))
    out, result, _ = kit.strip(original, arch, ["_api"], strip, granularity)
    assert result.statistics.members_used == 6, "and the plain one that nobody needs is not loaded"
    for flags in ([], ["-dead_strip"]):
        wanted = _runtime(tmp_path / "first", arch, original, *flags)
        assert {"__objc_classlist", "__objc_catlist", "__objc_nlcatlist"} <= wanted.keys()
        assert {"__objc_nlclslist", "__objc_protolist"} <= wanted.keys()
        assert {"__swift5_types", "__swift5_proto"} <= wanted.keys()
        assert _runtime(tmp_path / "second", arch, out, *flags) == wanted


@pytest.mark.parametrize("name", ["class.m", "category.m", "swift.s"])
def test_one_member_that_objc_loads(tmp_path: Path, arch: str, name: str) -> None:
    sources = {n: SOURCES[n] for n in ("plain.c", name, "helper.c", "api.c")}
    if name == "category.m":
        sources["other.m"] = OTHER
    original = kit.archive(tmp_path / "libt.a", _compile(tmp_path / "o", arch, sources))
    out, _, _ = kit.strip(original, arch, ["_api"])
    wanted = _runtime(tmp_path / "first", arch, original)
    assert len(wanted) >= (2 if name.endswith(".m") else 1)
    assert _runtime(tmp_path / "second", arch, out) == wanted


def test_categories_of_classes_that_are_made_at_run_time(tmp_path: Path, arch: str) -> None:
    """Only Apple's linkers know their list; with all members loaded ld64.lld has it, too."""
    sources = {"api.c": "int api(void) { return 1; }", "list.s": CATLIST2}
    original = kit.library(tmp_path / "o", arch, sources)
    out, _, _ = kit.strip(original, arch, ["_api"])
    wanted = _runtime(tmp_path / "first", arch, original, "-all_load")
    assert list(wanted) == ["__objc_catlist2", "__objc_const"]
    assert _runtime(tmp_path / "second", arch, out) == wanted


def _info(flags: int) -> str:
    return f"""
    .section __DATA,__objc_imageinfo,regular,no_dead_strip
    L_OBJC_IMAGE_INFO: .long 0
    .long {flags}
    .text
    .globl _info{flags}
    _info{flags}: ret
    .subsections_via_symbols
    """


@pytest.mark.parametrize(
    "flags",
    [(0x40, 0x40), (0x40, 0), (0x40, 0x05090740), (0x05090740, 0x05080740, 0x40), (0, 0x700)],
)
def test_the_infos_of_images_are_merged(tmp_path: Path, arch: str, flags: tuple[int, ...]) -> None:
    """ld64.lld drops the version of Swift's language; ld64 writes the highest."""
    sources = {f"{n}.s": _info(f) for n, f in enumerate(flags)}
    calls = "".join(f"void info{f}(void);" for f in set(flags))
    calls += "int api(void) {" + "".join(f"info{f}();" for f in set(flags)) + " return 0; }"
    objects = kit.compile(tmp_path, arch, {"api.c": calls})
    made = [kit.compile(tmp_path, arch, {n: t})[0] for n, t in sources.items()]
    original = kit.archive(tmp_path / "libt.a", [*objects, *dict.fromkeys(made)])
    out, _, _ = kit.strip(original, arch, ["_api"])
    data = out.read_bytes()
    image = darwin_image.load(data[data.index(b"\xcf\xfa\xed\xfe") :])
    address, size, _ = image.sections["__DATA", "__objc_imageinfo"]
    assert size == 8
    said = struct.unpack("<II", image.bytes_at(address, 8))
    assert said == (0, said[1] & 0xFFFF | max(flags) & 0xFFFF0000)
    wanted = _runtime(tmp_path / "first", arch, original)
    assert _runtime(tmp_path / "second", arch, out) == wanted
    assert wanted["__objc_imageinfo"][1] == struct.pack("<II", 0, said[1] & 0xFFFF)


def test_two_versions_of_swift_are_refused(tmp_path: Path, arch: str) -> None:
    """As ld64 and ld64.lld do of the original."""
    calls = "void info1536(void), info1792(void); void api(void) { info1536(); info1792(); }"
    sources = {"api.c": calls, "a.s": _info(0x600), "b.s": _info(0x700)}
    original = kit.library(tmp_path, arch, sources)
    with pytest.raises(LinkError, match="Swift code of two versions"):
        kit.strip(original, arch, ["_api"])
    with pytest.raises(AssertionError, match="Swift version mismatch"):
        _runtime(tmp_path / "first", arch, original)


def test_apples_linker_gets_the_same_members(tmp_path: Path, arch: str) -> None:
    original = kit.archive(tmp_path / "libt.a", _compile(tmp_path / "o", arch, SOURCES))
    target = Target.parse(kit.triple(arch))
    request = PrelinkRequest(original, tmp_path / "out.a", target, ("_api",), Strip.DEBUGINFO)
    with open_archive(original) as archive:
        plan = macho._plan(load(archive, target), request)
        names = sorted(archive.members[n].name for n in plan.members)
    assert names == sorted({f"{Path(n).stem}.o" for n in SOURCES} - {"plain.o"})


def test_a_result_without_them_is_refused(tmp_path: Path, arch: str) -> None:
    """The verifier looks for the members itself."""
    original = kit.archive(tmp_path / "libt.a", _compile(tmp_path / "o", arch, SOURCES))
    few = {n: SOURCES[n] for n in ("api.c", "helper.c")}
    lesser = kit.archive(tmp_path / "few" / "libt.a", _compile(tmp_path / "few", arch, few))
    out, result, _ = kit.strip(lesser, arch, ["_api"])
    target = Target.parse(kit.triple(arch))
    expectation = Expectation(target, ("_api",), Strip.DEBUGINFO, result.link_map, kit.MARKER)
    with pytest.raises(VerifyError) as failed:
        verify(original, out, expectation)
    for name in ("class.o", "category.o", "swift.o"):
        assert f"-ObjC: a linker loads {name}, which is not in the result" in str(
            failed.value.findings
        )
