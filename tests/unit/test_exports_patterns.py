"""Patterns, presets and symbol-list files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cargo_strip_hook.errors import ExportsError, UsageError
from cargo_strip_hook.exports.patterns import Pattern, preset, read_list
from cargo_strip_hook.target import Target

LINUX = Target.parse("x86_64-unknown-linux-gnu")
DARWIN = Target.parse("aarch64-apple-darwin")
NAMES = ["foo", "foo_bar", "Foo", "bar", "foo.x", "_foo", "__foo"]


@pytest.mark.parametrize(
    ("text", "prefix", "expected"),
    [
        ("foo", "", ["foo"]),
        ("foo*", "", ["foo", "foo_bar", "foo.x"]),
        ("?oo", "", ["foo", "Foo"]),
        ("[fF]oo", "", ["foo", "Foo"]),
        ("[!f]*", "", ["Foo", "bar", "_foo", "__foo"]),
        ("FOO", "", []),
        ("/foo|bar/", "", ["foo", "bar"]),
        ("/foo.+/", "", ["foo_bar", "foo.x"]),
        ("/oo/", "", []),
        ("foo", "_", ["_foo"]),
        ("_foo", "_", ["__foo"]),
        ("*oo", "_", ["_foo", "__foo"]),
    ],
)
def test_selection(text: str, prefix: str, expected: list[str]) -> None:
    assert Pattern(text).select(dict.fromkeys(NAMES), prefix) == expected


def test_bad_regex() -> None:
    with pytest.raises(UsageError, match="regular expression"):
        Pattern("/(/").select(NAMES, "")


@pytest.mark.parametrize("text", ["", " ", "foo bar", "foo[", "[a-z][0-9", "foo[]"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(UsageError):
        Pattern(text).select(NAMES, "")
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
    found = {n for p in preset(name) for n in p.select([*matching, *others], "")}
    assert found == set(matching)
    prefixed = [f"_{n}" for n in matching]
    assert {n for p in preset(name) for n in p.select(prefixed, "_")} == set(prefixed)


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="gts") as caught:
        preset("gts")
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
    assert read_list(path, DARWIN).patterns[0].select(NAMES, "_") == ["_foo"]
    path.write_text("foo\nbar*\n")
    assert read_list(path, DARWIN).patterns[0].select(NAMES, "_") == ["_foo"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no symbol"),
        ("# nothing\n", "names no symbol"),
        ("{ local: *; };", "names no symbol"),
        ("two words\n", "two words"),
        ("V1 { global: a;\n", "braces"),
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
