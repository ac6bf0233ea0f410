"""Names that only directives name, and what stands for them; weak functions; imports of DLLs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool
from tests.formats.test_coff_engine import SECTIONS, X64

API = "__attribute__((sysv_abi)) "


def _directive(text: str) -> str:
    return f'#pragma comment(linker, "{text}")\n'


def _stripped(
    folder: Path, sources: dict[str, str], exports: tuple[str, ...], *flags: str
) -> tuple[Path, Path]:
    """(original, result), for each granularity verified; the result is the classes'."""
    original = kit.library(folder, X64, sources, "-O1", *SECTIONS, *flags)
    for granularity in reversed(Granularity):
        out, made = kit.strip(original, X64, exports, Strip.NONE, granularity)
        kit.check(original, out, X64, made, Strip.NONE)
    return original, out


def _directives(library: Path) -> list[str]:
    said = tool([kit.llvm("readobj"), "--coff-directives", kit.first_object(library)])
    return re.findall(r"[/-]\S+", said.partition("Directive(s):")[2])


@pytest.mark.parametrize("word", ["/INCLUDE:asked", "-include:asked", '/include:\\"asked\\"'])
def test_a_name_that_only_a_directive_names(tmp_path: Path, word: str) -> None:
    sources = {"a.c": _directive(word) + API + "int api(int a) { return a; }"}
    _, out = _stripped(tmp_path, sources, ("api",))
    assert _directives(out) == [word.replace("\\\\", "").replace("\\", "")]
    assert "asked" in kit.externals(kit.first_object(out))[1]
    rest = kit.compile(tmp_path, X64, {"rest.c": "int asked = 3;"})
    kit.link_dll(tmp_path / "x.dll", X64, [out, *rest], ["api"])
    assert kit.call(tmp_path / "x.dll", ("api", 4)) == [4]


def test_a_directive_names_what_another_member_defines(tmp_path: Path) -> None:
    sources = {
        "a.c": _directive("/INCLUDE:asked") + API + "int api(int a) { return a; }",
        "b.c": "int more(void); int asked(void) { return more(); } int unasked;",
        "c.c": "int more(void) { return 4; }",
    }
    _, out = _stripped(tmp_path, sources, ("api",))
    assert not _directives(out)
    names = tool([kit.llvm("nm"), kit.first_object(out)])
    assert "asked" in names
    assert "more" in names
    assert "unasked" not in names


def test_a_directive_names_an_import(tmp_path: Path) -> None:
    text = _directive("/INCLUDE:imported") + API + "int api(int a) { return a; }"
    objects = kit.compile(tmp_path, X64, {"a.c": text})
    definition, imports = tmp_path / "s.def", tmp_path / "s.lib"
    definition.write_text("LIBRARY s.dll\nEXPORTS\n imported\n")
    tool([kit.llvm("dlltool"), "-m", "i386:x86-64", "-d", definition, "-l", imports])
    folder = tmp_path / "members"
    folder.mkdir()
    tool([kit.llvm("ar"), "x", imports, "--output", folder])
    original = kit.archive(tmp_path / "t.lib", X64, [*objects, *sorted(folder.iterdir())])
    out, made = kit.strip(original, X64, ("api",))
    kit.check(original, out, X64, made)
    assert len(made.import_members) >= 1
    kit.link_dll(tmp_path / "x.dll", X64, [out], ["api"])


def test_directives_of_a_member_that_nothing_lives_of(tmp_path: Path) -> None:
    sources = {
        "a.c": "int b(void); int gone(void) { return b(); }" + API + "int api(int a) { return a; }",
        "b.c": _directive("/DEFAULTLIB:other")
        + _directive("/INCLUDE:asked")
        + "int b(void) { return 1; }",
    }
    _, out = _stripped(tmp_path, sources, ("api",))
    assert _directives(out) == ["/DEFAULTLIB:other", "/INCLUDE:asked"]


ALTERNATES = {
    "function": ("/alternatename:a=b", "int a(void); int b(void) { return 30; }", "a()", 30),
    "data": ("/alternatename:a=b", "extern const int a; const int b = 5;", "a", 5),
    "pointer": (
        "/alternatename:__imp_a=b",
        "__declspec(dllimport) int a(void); static int f(void) { return 4; }"
        "int (*const b)(void) = f;",
        "a()",
        4,
    ),
    "chain": (
        "/alternatename:a=m /alternatename:m=b",
        "int a(void); int b(void) { return 6; }",
        "a()",
        6,
    ),
    "defined": (
        "/alternatename:a=b",
        "int a(void); int b(void) { return 30; }",
        "a()",
        7,
    ),
    "elsewhere": ("/alternatename:a=b", "int a(void);", "a()", 8),
    "chain elsewhere": ("/alternatename:a=m /alternatename:m=b", "int a(void);", "a()", 8),
}


@pytest.mark.parametrize("name", ALTERNATES)
@pytest.mark.parametrize("exported", [False, True], ids=["private", "exported"])
def test_what_stands_for_a_name(tmp_path: Path, name: str, exported: bool) -> None:
    words, text, value, expected = ALTERNATES[name]
    asked = "".join(map(_directive, words.split()))
    main = f"{asked}{text} {API}int api(int x) {{ return {value} + x; }}"
    sources = {"a.c": main}
    if name == "defined":
        sources["c.c"] = "int a(void) { return 7; }"
    if "elsewhere" in name:
        sources["c.c"] = "int b(void) { return 8; }"
    exports = ("api", "b") if exported else ("api",)
    original, out = _stripped(tmp_path, sources, exports)
    # lld does not follow chains in the original
    for library in (out,) if "chain" in name else (original, out):
        kit.link_dll(tmp_path / "x.dll", X64, [library], ["api"], "/opt:ref")
        assert kit.call(tmp_path / "x.dll", ("api", 1)) == [expected + 1]


def test_nothing_stands_for_a_name(tmp_path: Path) -> None:
    main = (
        _directive("/alternatename:a=b")
        + "int a(void); "
        + API
        + "int api(int x) { return a() + x; }"
    )
    original, out = _stripped(tmp_path, {"a.c": main}, ("api",))
    assert _directives(out) == ["/alternatename:a=b"]
    for given, expected in (("a", 11), ("b", 12)):
        rest = kit.compile(
            tmp_path, X64, {"rest.c": f"int {given}(void) {{ return {expected - 1}; }}"}
        )
        for library in (original, out):
            kit.link_dll(tmp_path / "x.dll", X64, [library, *rest], ["api"])
            assert kit.call(tmp_path / "x.dll", ("api", 1)) == [expected]


@pytest.mark.parametrize("exported", [False, True], ids=["private", "exported"])
def test_a_weak_function_with_codeview(tmp_path: Path, exported: bool) -> None:
    text = "__attribute__((weak, noinline)) int weak(int a) { return a + 17; }"
    text += API + "int api(int a) { return weak(a); }"
    exports = ("api", "weak") if exported else ("api",)
    original, out = _stripped(tmp_path, {"a.c": text}, exports, "-g", "-gcodeview")
    said = [tool([kit.llvm("readobj"), "--codeview", path]) for path in (original, out)]
    for what in ("DisplayName: weak", "LineNumberStart: 1"):
        assert said[0].count(what) == said[1].count(what) > 0


@pytest.mark.parametrize("flags", [(), ("-fno-function-sections",)], ids=["sections", "plain"])
@pytest.mark.parametrize("kind", ["__attribute__((weak)) ", ""], ids=["weak", "strong"])
def test_lines_of_a_weak_function_that_another_replaces(
    tmp_path: Path, flags: tuple[str, ...], kind: str
) -> None:
    """They are said of it itself, and go with it: the other one has its own."""
    sources = {
        "a.c": "int more(int); __attribute__((weak)) int weak(int a) {\n return a + 17; }\n\n\n"
        + API
        + "int api(int a) { return weak(a) + more(a); }",
        "b.c": f"\n\n{kind} int weak(int a) {{\n\n return a + 18; }}\n"
        "int more(int a) { return weak(a); }",
    }
    names = ("api", "weak")
    original, out = _stripped(tmp_path, sources, names, "-g", "-gcodeview", *flags)
    said = []
    for library in (original, out):
        dll = tmp_path / "x.dll"
        # lld takes two weak functions of a name for MinGW alone
        debug = ("/debug", "/lldmingw", f"/pdb:{tmp_path / 'x.pdb'}", "/opt:ref,noicf")
        kit.link_dll(dll, X64, [library], names, *debug)
        image = kit.Image(dll)
        base = int(re.findall(r"ImageBase: (\w+)", tool([kit.llvm("readobj"), "-h", dll]))[0], 0)
        asked = [f"{base + image.exports['weak'] + n:#x}" for n in range(12)]
        where = tool([kit.llvm("symbolizer"), "--relativenames", f"--obj={dll}", *asked])
        said.append((kit.call(dll, ("api", 1)), where))
    assert said[0] == said[1]
    assert said[0][0] == [2 * (18 if kind else 19)]
    assert ("a.c:2:" if kind else "b.c:5:") in said[0][1]


@pytest.mark.parametrize("dll", ["plain", "a.b", "some.long.name.of.a.library.dll", "x.dll"])
def test_import_libraries_of_any_name(tmp_path: Path, dll: str) -> None:
    """The descriptor, the null descriptor and the null thunk stay beside the import."""
    text = "__declspec(dllimport) int imported(int); int api(int a) { return imported(a); }"
    objects = kit.compile(tmp_path, X64, {"a.c": text})
    definition, imports = tmp_path / "s.def", tmp_path / "s.lib"
    definition.write_text(f'LIBRARY "{dll}"\nEXPORTS\n imported\n unused\n')
    tool([kit.llvm("lib"), f"/def:{definition}", f"/out:{imports}", "/machine:x64"])
    for member in ("a", "b", "c", "d", "e"):
        (tmp_path / member).unlink(missing_ok=True)
    lines = tool([kit.llvm("ar"), "t", imports]).splitlines()
    members = []
    for n in range(len(lines)):
        out = tmp_path / f"{n}.obj"
        out.write_bytes(_nth_member(imports, n))
        members.append(out)
    original = kit.archive(tmp_path / "t.lib", X64, [*objects, *members])
    out, made = kit.strip(original, X64, ("api",))
    kit.check(original, out, X64, made)
    # all but the import that nothing needs
    assert len(made.import_members) == len(members) - 1


def _nth_member(path: Path, number: int) -> bytes:
    from cargo_strip_hook.archive import open_archive

    with open_archive(path) as archive:
        return bytes(archive.data(archive.members[number]))
