"""Deciding what is public: which source counts, the cross-checks, the words for the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.core.errors import ExportsError
from cargo_strip_hook.core.requests import DefinedSymbol, ExportSet, Origin
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.crate import crate_of, is_public_name
from cargo_strip_hook.exports.decide import ExportRequest, Index, decide

LINUX = Target.parse("x86_64-unknown-linux-gnu")
OWN = "demo.demo.ce4c782d196b77e7-cgu.0.rcgu.o"
HASHED = "demo-4927763190b7e47c.demo.fe2e795a42d303e6-cgu.0.rcgu.o"
DEP = "libc-59956da84d5fde33.libc.485c0ed57eba8deb-cgu.0.rcgu.o"


def symbols(**members: str) -> dict[str, DefinedSymbol]:
    return {n: DefinedSymbol(n, m, False, False, "function") for n, m in members.items()}


ARCHIVE = symbols(demo_a=OWN, demo_b=OWN, other=OWN, dep_c=DEP, from_c="c.o", demo_z="c.o")


def never() -> Mapping[str, DefinedSymbol]:
    raise AssertionError("the whole list is not needed here")


def made(
    request: dict[str, Any],
    defined: Callable[[], Mapping[str, DefinedSymbol]] = lambda: ARCHIVE,
    target: Target = LINUX,
    index: Index | None = None,
) -> ExportSet:
    sources = {"patterns": "export", "presets": "preset", "files": "exports-file"}
    named = {name: request[key] for key, name in sources.items() if key in request}
    request = {key: value for key, value in request.items() if key not in sources}
    return decide(ExportRequest(target, named=named, **request), defined, index)


def index(*names: str) -> Index:
    """The index of an archive that has these names, and says that it has all."""
    return Index(lambda: set(names), lambda: list(names))


@pytest.fixture
def header(tmp_path: Path) -> Path:
    path = tmp_path / "demo.h"
    path.write_text("int demo_b(void);\n\nint demo_a(void);\n")
    return path


def test_header_first_and_only_the_index_is_asked(header: Path) -> None:
    found = made({"headers": (header,)}, never, index=index("demo_a", "demo_b", "other"))
    assert found.names() == ("demo_a", "demo_b")
    assert found.exports[0].origins == (Origin("header", f"{header}:3"),)
    assert found.source == "2 symbols from demo.h"
    assert found.warnings == found.missing == ()


def test_what_looks_missing_may_be_a_macro_of_a_lost_file(header: Path) -> None:
    header.write_text("#include <gui/gui.h>\nint demo_a(void);\nGUI_DECLARE(gone);\n")
    with pytest.raises(ExportsError, match="1 symbol declared but not defined") as caught:
        made({"headers": (header,)})
    assert caught.value.help[0].startswith("`gui/gui.h` (")
    assert caught.value.help[0].endswith("-I DIR names its folder")


def test_a_symbol_of_two_headers_has_two_origins(header: Path, tmp_path: Path) -> None:
    second = tmp_path / "more.h"
    second.write_text('#include "demo.h"\nint demo_a(void);\nint other(void);')
    found = made({"headers": (header, second)})
    assert found.names() == ("demo_a", "demo_b", "other")
    assert found.exports[0].origins == (
        Origin("header", f"{header}:3"),
        Origin("header", f"{second}:2"),
    )
    assert found.source == "3 symbols from demo.h, more.h"


def test_missing_symbols_are_all_listed(header: Path) -> None:
    header.write_text("int demo_a(void);\nint gone(void),\n lost;\n")
    with pytest.raises(ExportsError) as caught:
        made({"headers": (header,)})
    assert f"gone ({header}:2)" in caught.value.what
    assert f"lost ({header}:3)" in caught.value.what
    assert "demo_a" not in caught.value.what
    assert any("--allow-missing" in h for h in caught.value.help)
    found = made({"headers": (header,), "allow_missing": True})
    assert found.names() == ("demo_a",)
    assert [e.name for e in found.missing] == ["gone", "lost"]
    assert len(found.warnings) == 1 and "gone" in found.warnings[0]


def test_a_stale_index_is_no_error(header: Path) -> None:
    stale = index("demo_a")
    assert made({"headers": (header,)}, index=stale).names() == ("demo_a", "demo_b")
    assert (
        made({"patterns": ("demo_*", "dep_c")}, index=stale).names()
        == made({"patterns": ("demo_*", "dep_c")}).names()
    )


def test_patterns_and_presets_need_no_object_where_the_index_has_all() -> None:
    whole = index(*ARCHIVE, "Java_demo_a")
    assert made({"patterns": ("demo_?",)}, never, index=whole).names() == (
        "demo_a", "demo_b", "demo_z",
    )  # fmt: skip
    found = made({"patterns": ("/d.*c/",), "keep": ("oth*",)}, never, index=whole)
    assert [e.name for e in found.exports] == ["dep_c"]
    assert [e.name for e in found.keep] == ["other"]
    # JNI_OnLoad is not there: that is no reason to look further
    assert made({"presets": ("jni",)}, never, index=whole).names() == ("Java_demo_a",)


def test_objects_are_read_where_the_index_does_not_have_all() -> None:
    partial = Index(lambda: {"demo_a"}, lambda: None)
    assert made({"patterns": ("demo_*",)}, index=partial).names() == ("demo_a", "demo_b", "demo_z")


def test_a_few_patterns_are_one_search_and_the_same_as_each_alone() -> None:
    names = ["_a_x", "a_y", "_b", "_ab", "__a_z", "_c.d", "_[x]"]
    library = symbols(**dict.fromkeys(names, "c.o"))
    darwin = Target.parse("aarch64-apple-darwin")
    for texts in (["a_*"], ["a*", "?b"], ["*", "c.d"], ["[!a]*", "*z"], ["_a_?", "a_?"]):
        together = made({"patterns": tuple(texts)}, lambda: library, darwin).names()
        alone = {
            n for t in texts for n in made({"patterns": (t,)}, lambda: library, darwin).names()
        }
        assert set(together) == alone


def test_found_header_gives_way_to_patterns_and_a_named_one_does_not(header: Path) -> None:
    request = {"headers": (header,), "patterns": ("oth*",)}
    assert made(request).names() == ("other",)
    found = made({**request, "headers_explicit": True})
    assert found.names() == ("demo_a", "demo_b", "other")
    assert found.source == "2 symbols from demo.h and 1 symbol from `oth*`"


def test_every_origin_is_kept(header: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("demo_a\n")
    found = made(
        {
            "headers": (header,),
            "headers_explicit": True,
            "patterns": ("demo_a", "/demo_[ab]/"),
            "files": (listed,),
        }
    )
    assert [o.kind for o in found.exports[0].origins] == ["file", "header", "pattern", "pattern"]


def test_idle_patterns_are_all_listed(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("other\nnope_*\n")
    with pytest.raises(ExportsError) as caught:
        made({"patterns": ("demo_*", "demo_q", "zzz*"), "files": (listed,)})
    what = caught.value.what
    assert "demo_q" in what and "zzz*" in what and f"nope_* ({listed}:2)" in what
    assert "demo_*" not in what and "other" not in what
    assert "did you mean" in caught.value.help[0]


def test_local_names_in_a_version_script(tmp_path: Path) -> None:
    listed = tmp_path / "v.map"
    listed.write_text("{ global: demo_*; local: demo_z; *; };")
    assert made({"files": (listed,)}).names() == ("demo_a", "demo_b")
    listed.write_text("{ global: demo_*; demo_z; local: demo_z*; *; };")
    assert made({"files": (listed,)}).names() == ("demo_a", "demo_b", "demo_z")


def test_presets() -> None:
    archive = symbols(gst_plugin_x_register=OWN, gst_plugin_x_get_desc=OWN, gst_init="g.o")
    found = made({"presets": ("gst",)}, lambda: archive)
    assert found.names() == ("gst_plugin_x_get_desc", "gst_plugin_x_register")
    assert found.exports[0].origins[0].kind == "preset"
    with pytest.raises(ExportsError, match="gst"):
        made({"presets": ("gst",)})


def test_keep_is_apart(header: Path) -> None:
    found = made({"headers": (header,), "keep": ("from_c", "demo_*")})
    assert [e.name for e in found.exports] == ["demo_a", "demo_b"]
    assert [e.name for e in found.keep] == ["demo_z", "from_c"]
    with pytest.raises(ExportsError, match=r"--keep(.|\n)*nope"):
        made({"headers": (header,), "keep": ("nope",)})


def test_crate() -> None:
    found = made({"crate_name": "demo"})
    assert found.names() == ("demo_a", "demo_b", "other")
    assert found.exports[0].origins == (Origin("crate", OWN),)
    assert "crate demo" in found.source
    assert made({}).names() == found.names()
    assert made({"crate_name": "libc"}).names() == ("dep_c",)
    with pytest.raises(ExportsError, match=r"absent.*demo, libc"):
        made({"crate_name": "absent"})
    with pytest.raises(ExportsError):
        made({}, lambda: symbols(a="c.o"))


def test_hidden_symbols_of_the_crate_are_not_public() -> None:
    archive = {"a": DefinedSymbol("a", OWN, False, True, "function")}
    with pytest.raises(ExportsError, match="no public symbol"):
        made({}, lambda: archive)


@pytest.mark.parametrize(
    ("member", "crate"),
    [
        (OWN, "demo"),
        (HASHED, "demo"),
        (DEP, "libc"),
        ("imagequant.0sjyqqef6oqpgo3jms48vksjk.0x97gnh.rcgu.o", "imagequant"),
        ("demo.f5aqfhjdxmi1vsssfnllgjtrx.rcgu.o", "demo"),
        ("e6d7a2-probe.o", None),
        ("x.S.o", None),
    ],
)
def test_members(member: str, crate: str | None) -> None:
    assert crate_of(member) == crate


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("demo_start", True),
        ("_Reader_new", True),
        ("_init_demo", True),
        ("R_init", True),
        ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", False),
        ("_ZN4demo3fooE", False),
        ("_RNvCs1234_7mycrate3foo", False),
        ("_RINvNtC3std3mem8align_ofdE", False),
        ("__rust_alloc", False),
        ("__rustc_debug_gdb_scripts_section__", False),
        ("_RNvCsdBezzDwma51_7___rustc12___rust_alloc", False),
        ("__rdl_alloc", False),
        ("rust_eh_personality", False),
        ("rust_eh_personality_mine", True),
        ("rust_begin_unwind", False),
        ("DW.ref.rust_eh_personality", False),
        ("anon.0123456789abcdef0123456789abcdef.3", False),
        ("switch.table.demo", False),
        ("alloc_0123456789abcdef0123456789abcdef", False),
        ("alloc_table", True),
    ],
)
def test_public_names(name: str, public: bool) -> None:
    assert is_public_name(name, "") is public
    assert is_public_name(f"_{name}", "_") is public


def test_symbol_prefix_and_labels(tmp_path: Path) -> None:
    header = tmp_path / "demo.h"
    header.write_text('int a(void);\nint b(void) __asm__("_$b");\n')
    darwin = Target.parse("aarch64-apple-darwin")
    archive = symbols(_a=OWN) | symbols(**{"_$b": OWN, "_c": OWN})
    found = made({"headers": (header,), "keep": ("c",)}, lambda: archive, darwin)
    assert found.names() == ("_$b", "_a", "_c")


def test_decorations_of_32_bit_windows(tmp_path: Path) -> None:
    header = tmp_path / "demo.h"
    header.write_text(
        "int a(int);\nint __stdcall b(int, char);\nint __fastcall c(int);\n"
        "int __vectorcall d(int);\nint __cdecl e(void);\n"
    )
    names = ["_a", "_b@8", "_b@x", "@c@4", "d@@4", "_e", "_b"]
    archive = symbols(**dict.fromkeys(names, OWN))
    target = Target.parse("i686-pc-windows-msvc")
    found = made({"headers": (header,)}, lambda: archive, target)
    assert found.names() == ("@c@4", "_a", "_b@8", "_e", "d@@4")
    wide = symbols(a=OWN, b=OWN, c=OWN, d=OWN, e=OWN)
    found = made({"headers": (header,)}, lambda: wide, Target.parse("x86_64-pc-windows-msvc"))
    assert found.names() == ("a", "b", "c", "d", "e")


def test_cdylib(header: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = ("demo_a", "demo_b", "other")
    monkeypatch.setattr("cargo_strip_hook.exports.dynamic.exported_names", lambda *_: exported)
    cdylib = Path("libdemo.so")
    found = made({"cdylib": cdylib})
    assert found.names() == exported
    assert found.exports[0].origins == (Origin("cdylib", "libdemo.so"),)
    assert found.source == "3 symbols from libdemo.so"
    found = made({"cdylib": cdylib, "headers": (header,)})
    assert found.names() == ("demo_a", "demo_b")
    assert len(found.warnings) == 1
    assert "other" in found.warnings[0] and "demo_a" not in found.warnings[0]
    assert made({"cdylib": cdylib, "patterns": ("demo_z",)}).names() == ("demo_z",)
    found = made({"cdylib": cdylib, "cdylib_explicit": True, "patterns": ("demo_z",)})
    assert found.names() == ("demo_a", "demo_b", "demo_z", "other")
    with pytest.raises(ExportsError, match=r"other \(libdemo\.so\)"):
        made({"cdylib": cdylib}, lambda: symbols(demo_a=OWN, demo_b=OWN))


def test_nothing_public(tmp_path: Path) -> None:
    header = tmp_path / "empty.h"
    header.write_text("struct s;\n")
    with pytest.raises(ExportsError, match=r"0 symbols from empty\.h"):
        made({"headers": (header,)})


CXX_HEADER = (
    "namespace org { namespace demo {\nstruct Thing { void poke() const; int gone(); };\n"
    "int make(int);\nint make(char);\n}}\nint free_one();\n"
)


@pytest.mark.parametrize(
    ("triple", "names", "patterns"),
    [
        (
            "x86_64-unknown-linux-gnu",
            ["_ZNK3org4demo5Thing4pokeEv", "_ZN3org4demo4makeEi", "_ZN3org4demo4makeEc",
             "_Z8free_onev", "_ZN3org4demo5makerEv", "_Z9free_onesv"],
            ["_ZNK3org4demo5Thing4pokeE*", "_ZN3org4demo4makeE*", "_Z8free_one*"],
        ),
        (
            "aarch64-apple-darwin",
            ["__ZNK3org4demo5Thing4pokeEv", "__ZN3org4demo4makeEi", "__ZN3org4demo4makeEc",
             "__Z8free_onev", "__ZN3org4demo5makerEv", "__Z9free_onesv"],
            ["_ZNK3org4demo5Thing4pokeE*", "_ZN3org4demo4makeE*", "_Z8free_one*"],
        ),
        (
            "x86_64-pc-windows-msvc",
            ["?poke@Thing@demo@org@@QEBAXXZ", "?make@demo@org@@YAHH@Z", "?make@demo@org@@YAHD@Z",
             "?free_one@@YAHXZ", "?maker@demo@org@@YAHXZ", "?free_ones@@YAHXZ"],
            ["?poke@Thing@demo@org@@*", "?make@demo@org@@*", "?free_one@@*"],
        ),
    ],
)  # fmt: skip
def test_cxx_names(triple: str, names: list[str], patterns: list[str], tmp_path: Path) -> None:
    """They are named with patterns that keep them, alone and beside a C function."""
    target = Target.parse(triple)
    archive = symbols(**dict.fromkeys([*names, f"{target.symbol_prefix}mine"], OWN))
    header = tmp_path / "demo.hpp"
    header.write_text(CXX_HEADER)
    with pytest.raises(ExportsError) as caught:
        made({"headers": (header,)}, lambda: archive, target)
    said = caught.value.what
    for name in ("org::demo::Thing::poke", "org::demo::make", "free_one"):
        assert f"{name} ({header}:" in said
    assert "gone" not in said
    assert caught.value.help[0].endswith(" ".join(f"--export '{p}'" for p in patterns))
    header.write_text(CXX_HEADER + 'extern "C" int mine();\n')
    found = made({"headers": (header,)}, lambda: archive, target)
    assert len(found.exports) == 1
    assert "org::demo::Thing::poke" in found.warnings[0] and patterns[0] in found.warnings[0]
    request = {"headers": (header,), "headers_explicit": True, "patterns": tuple(patterns)}
    found = made(request, lambda: archive, target)
    assert set(found.names()) == {*names[:4], f"{target.symbol_prefix}mine"}
    assert found.warnings == ()


def test_another_calling_convention_is_named(tmp_path: Path) -> None:
    header = tmp_path / "demo.h"
    header.write_text("int f(int);\nint __stdcall g(int);\n")
    archive = symbols(**dict.fromkeys(["_f@4", "_g"], OWN))
    with pytest.raises(ExportsError) as caught:
        made({"headers": (header,)}, lambda: archive, Target.parse("i686-pc-windows-msvc"))
    assert any("`_f@4` is defined: declare `f` with __stdcall" in h for h in caught.value.help)


def test_a_dlls_plain_names_are_decorated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("_f", "_g")
    monkeypatch.setattr("cargo_strip_hook.exports.dynamic.exported_names", lambda *_: names)
    archive = symbols(**dict.fromkeys(["_f@4", "_g", "_h"], OWN))
    target = Target.parse("i686-pc-windows-gnu")
    assert made({"cdylib": Path("a.dll")}, lambda: archive, target).names() == ("_f@4", "_g")


def test_the_name_that_was_given_is_not_proposed() -> None:
    with pytest.raises(ExportsError) as caught:
        made(
            {"patterns": ("?f@@YAXXZ", "demo_q", "@x@4")},
            target=Target.parse("i686-pc-windows-gnu"),
        )
    for line in caught.value.help:
        first, _, second = line.partition(": did you mean that for ")
        assert first.split("`")[1] != second.split("`")[1]


def test_a_list_may_repeat_itself(tmp_path: Path) -> None:
    """Thousands of lines that mean the same symbols: the time is not their square."""
    listed = tmp_path / "l.txt"
    listed.write_text("demo_*\n" * 6000)
    start = time.process_time()
    found = made({"files": (listed,)})
    assert time.process_time() - start < 3
    assert found.names() == ("demo_a", "demo_b", "demo_z")
    assert len(found.exports[0].origins) == 6000
