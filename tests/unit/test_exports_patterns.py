"""Patterns, presets and symbol-list files."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ExportsError, UsageError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.matching import Names
from cargo_strip_hook.exports.patterns import Pattern, select_all
from cargo_strip_hook.exports.sources import preset
from cargo_strip_hook.exports.sources.symbol_list import read as read_list

LINUX = Target.parse("x86_64-unknown-linux-gnu")
DARWIN = Target.parse("aarch64-apple-darwin")
WIN32 = Target.parse("i686-pc-windows-msvc")
WIN64 = Target.parse("x86_64-pc-windows-msvc")
NAMES = ["foo", "foo_bar", "Foo", "bar", "foo.x", "_foo", "__foo"]


def chosen(pattern: Pattern, names: Iterable[str], target: Target = LINUX) -> list[str]:
    return list(select_all([pattern], Names(dict.fromkeys(names), target))[0])


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("foo", LINUX, ["foo"]),
        ("foo*", LINUX, ["foo", "foo_bar", "foo.x"]),
        ("?oo", LINUX, ["foo", "Foo"]),
        ("[fF]oo", LINUX, ["foo", "Foo"]),
        ("[!f]*", LINUX, ["Foo", "bar", "_foo", "__foo"]),
        ("FOO", LINUX, []),
        ("/foo|bar/", LINUX, ["foo", "bar"]),
        ("/foo.+/", LINUX, ["foo_bar", "foo.x"]),
        ("/oo/", LINUX, []),
        ("foo", DARWIN, ["_foo"]),
        ("_foo", DARWIN, ["__foo"]),
        ("*oo", DARWIN, ["_foo", "__foo"]),
    ],
)
def test_selection(text: str, target: Target, expected: list[str]) -> None:
    assert chosen(Pattern(text), NAMES, target) == expected


# As clang writes them for i686-pc-windows-msvc and x86_64-pc-windows-msvc (llvm-nm).
DECORATED = ["_add@8", "@fast@12", "vec@@8", "_plain", "?f@@YAXXZ", "_both", "_both@4", "_tail@x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add", ["_add@8"]),
        ("add@8", ["_add@8"]),
        ("_add@8", ["_add@8"]),
        ("fast", ["@fast@12"]),
        ("@fast@12", ["@fast@12"]),
        ("vec", ["vec@@8"]),
        ("vec@@8", ["vec@@8"]),
        ("?f@@YAXXZ", ["?f@@YAXXZ"]),
        ("plain", ["_plain"]),
        ("_plain", ["_plain"]),
        ("both", ["_both"]),
        ("both*", ["_both", "_both@4"]),
        ("tail@x", ["_tail@x"]),
        ("f?s?", ["@fast@12"]),
        ("*c", ["vec@@8"]),
        ("*", DECORATED),
        ("/(add|fast|vec)/", ["_add@8", "@fast@12", "vec@@8"]),
        ("missing", []),
    ],
)
def test_names_of_32_bit_windows(text: str, expected: list[str]) -> None:
    """By the C name, with its decoration, and as it stands in the object file."""
    assert chosen(Pattern(text), DECORATED, WIN32) == expected


def test_names_of_64_bit_windows() -> None:
    names = ["vec@@16", "?f@@YAXXZ", "plain", "odd@8"]
    for text, expected in {
        "vec": ["vec@@16"],
        "vec@@16": ["vec@@16"],
        "v?c": ["vec@@16"],
        "?f@@YAXXZ": ["?f@@YAXXZ"],
        "plain": ["plain"],
        "odd": [],
    }.items():
        assert chosen(Pattern(text), names, WIN64) == expected


def test_cxx_names_of_darwin() -> None:
    names = ["__ZN3foo3barEv", "_foo"]
    assert chosen(Pattern("_ZN3foo3barEv"), names, DARWIN) == names[:1]
    assert chosen(Pattern("__ZN3foo3barEv"), names, DARWIN) == names[:1]
    assert chosen(Pattern("_ZN3foo*"), names, DARWIN) == names[:1]
    assert chosen(Pattern("__ZN3foo*"), names, DARWIN) == names[:1]


def test_module_definition_of_32_bit_windows(tmp_path: Path) -> None:
    """As link.exe takes it: undecorated names, renamed ones, ordinals, data."""
    path = tmp_path / "foo.def"
    path.write_text(
        "LIBRARY foo\nEXPORTS\n add\n plain @2\n quick=@fast@12\n vec @7 NONAME\n"
        " other == both\n ?f@@YAXXZ\n _tail@x PRIVATE\n"
    )
    found, idle = select_all(
        read_list(path, WIN32).patterns, Names(dict.fromkeys(DECORATED), WIN32)
    )
    assert list(found) == [
        *("_add@8", "_plain", "@fast@12", "vec@@8", "_both", "?f@@YAXXZ", "_tail@x")
    ]
    assert idle == []


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|aa)+$", "(a*)*b", "(.*)(.*)(.*)(.*)(.*)\\1x"])
def test_a_regex_that_does_not_end(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cargo_strip_hook.exports.regexes.TIME_LIMIT", 1)
    started = time.monotonic()
    with pytest.raises(UsageError) as caught:
        chosen(Pattern(f"/{expression}/"), ["a" * 3000 + "!"])
    assert f"`/{expression}/`" in caught.value.what and "1 s" in caught.value.what
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("([a-z]+_)*[a-z]+", ["foo", "foo_bar", "bar", "foobar"]),
        ("(foo|bar)+", ["foo", "bar", "foobar"]),
        (r"(.)(.)\2.*", ["foo", "foo_bar", "foobar"]),
        ("(?i:FOO).*", ["foo", "foo_bar", "foobar"]),
        (".*o.*b.*", ["foo_bar", "foobar"]),
    ],
)
def test_regexes_that_only_look_dangerous(expression: str, expected: list[str]) -> None:
    names = ["foo", "foo_bar", "bar", "foobar", "_x"]
    assert chosen(Pattern(f"/{expression}/"), names) == expected


def test_many_patterns() -> None:
    """Only those that a name can meet are asked; each that meets none is still told."""
    names = [f"demo_{n}_fn" for n in range(5000)] + ["end_x"]
    wanted = [Pattern(f"demo_{n}_*") for n in range(0, 40_000, 4)] + [Pattern("*_x"), Pattern("e*")]
    started = time.process_time()
    found, idle = select_all(wanted, Names(dict.fromkeys(names), LINUX))
    assert time.process_time() - started < 4
    assert sorted(found) == sorted([f"demo_{n}_fn" for n in range(0, 5000, 4)] + ["end_x"])
    assert [p.text for p in found["end_x"]] == ["*_x", "e*"]
    assert [p.text for p in idle] == [f"demo_{n}_*" for n in range(5000, 40_000, 4)]


def test_bad_regex() -> None:
    with pytest.raises(UsageError, match="regular expression"):
        chosen(Pattern("/(/"), NAMES)


@pytest.mark.parametrize("text", ["", " ", "foo bar", "foo[", "[a-z][0-9", "foo[]"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(UsageError):
        chosen(Pattern(text), NAMES)
    with pytest.raises(UsageError):
        Pattern(text).matcher()


@pytest.mark.parametrize(
    ("name", "matching", "others"),
    [
        (
            "gst",
            ["gst_plugin_fallbackswitch_get_desc", "gst_plugin_x264_register"],
            ["gst_init", "gst_plugin_load_file"],
        ),
        (
            "jni",
            ["JNI_OnLoad", "JNI_OnUnload", "Java_com_example_Native_run__I", "JNI_OnLoad_demo"],
            ["JNI_CreateJavaVM", "java_thing"],
        ),
        (
            "uniffi",
            ["uniffi_demo_fn_func_add", "ffi_demo_rustbuffer_alloc", "UNIFFI_META_NAMESPACE_DEMO",
             "uniffi_demo_checksum_func_add", "ffi_demo_uniffi_contract_version"],
            ["demo_ffi_add"],
        ),
    ],
)  # fmt: skip
def test_presets(name: str, matching: list[str], others: list[str]) -> None:
    found = {n for p in preset.read(name, LINUX).patterns for n in chosen(p, [*matching, *others])}
    assert found == set(matching)
    prefixed = [f"_{n}" for n in matching]
    assert {
        n for p in preset.read(name, LINUX).patterns for n in chosen(p, prefixed, DARWIN)
    } == set(prefixed)


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="gts") as caught:
        preset.read("gts", LINUX)
    assert "gst, jni, uniffi" in caught.value.help[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo\n\n# comment\nbar* # more\n/a{2}/\n", [("foo", 1), ("bar*", 4), ("/a{2}/", 5)]),
        ("{ global: a; b*; local: *; };", [("a", 1), ("b*", 1)]),
        ("LIB_1.0 {\n  global:\n    a; # first\n    b;\n  local:\n    *;\n};\n",
         [("a", 3), ("b", 4)]),
        ("V1 { a; };\nV2 { global: b; } V1;\n", [("a", 1), ("b", 2)]),
        ("/* { */ { a; \"b\"; extern \"C\" { c; d*; }; extern \"C++\" { e::f; }; };",
         [("a", 1), ("b", 1), ("c", 1), ("d*", 1)]),
        ("LIBRARY demo\nEXPORTS\n  a @1\n  b=real_b @2 NONAME ; note\n  c PRIVATE\n d = k.e\n",
         [("a", 3), ("real_b", 4), ("c", 5)]),
        ("exports a\n", [("a", 1)]),
        ("_a\n_b\n", [("_a", 1), ("_b", 2)]),
    ],
)  # fmt: skip
def test_files(text: str, expected: list[tuple[str, int]], tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    found = read_list(path, LINUX)
    assert [(p.text, p.where) for p in found.patterns] == [(n, f"{path}:{i}") for n, i in expected]
    assert found.excluded == ()
    assert not any(p.raw for p in found.patterns)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "lines",
    [
        ["# list", "a", "b # more"],
        ["EXPORTS", "a ; first", "b"],
        ["{ global:", "a; # first", "b; };"],
    ],
)
def test_ends_of_lines_and_encodings(
    lines: list[str], encoding: str, end: str, tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_bytes(end.join(lines).encode(encoding))
    found = read_list(path, LINUX).patterns
    assert [(p.text, p.where) for p in found] == [("a", f"{path}:2"), ("b", f"{path}:3")]


def test_only_line_feeds_and_carriage_returns_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes("a # \u2028b \x0c c \x85 d\ne\n".encode())
    assert [(p.text, p.where) for p in read_list(path, LINUX).patterns] == [
        ("a", f"{path}:1"),
        ("e", f"{path}:2"),
    ]


def test_local_names_of_a_version_script_are_excluded(tmp_path: Path) -> None:
    path = tmp_path / "v.map"
    path.write_text("{ global: demo_*; local: demo_private_*; *; };")
    found = read_list(path, LINUX)
    assert [p.text for p in found.patterns] == ["demo_*"]
    assert [p.text for p in found.excluded] == ["demo_private_*"]


def test_apples_list_has_the_names_of_the_object_file(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("_foo\n_bar*\n")
    assert all(p.raw for p in read_list(path, DARWIN).patterns)
    assert chosen(read_list(path, DARWIN).patterns[0], NAMES, DARWIN) == ["_foo"]
    path.write_text("foo\nbar*\n")
    assert chosen(read_list(path, DARWIN).patterns[0], NAMES, DARWIN) == ["_foo"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no symbol"),
        ("# nothing\n", "names no symbol"),
        ("{ local: *; };", "names no symbol"),
        ("two words\n", "two words"),
        ("V1 { global: a;\n", "braces"),
        ("a\0b\n", "zero byte"),
    ],
)
def test_bad_files(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(ExportsError, match=said):
        read_list(path, LINUX)


def test_folder_in_place_of_a_list(tmp_path: Path) -> None:
    with pytest.raises(ExportsError, match=r"cannot be read: (Is a directory|Permission denied)$"):
        read_list(tmp_path, LINUX)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExportsError, match="nothere"):
        read_list(tmp_path / "nothere", LINUX)


def test_a_name_may_be_empty(tmp_path: Path) -> None:
    """It is one that nothing defines."""
    path = tmp_path / "l.def"
    path.write_text('EXPORTS\n  ""\n  _f\n')
    found = read_list(path, Target.parse("i686-pc-windows-msvc"))
    assert [p.text for p in found.patterns] == ["", "_f"]
