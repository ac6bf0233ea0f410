"""The preprocessor's errors, defines and queries; its agreement with clang is in tests/formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.core.errors import HeaderError, UsageError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.ctokens import Source, spell, tokenize
from cargo_strip_hook.exports.preprocess import preprocess


def run(
    tmp_path: Path, text: str, triple: str = "x86_64-unknown-linux-gnu", **options: object
) -> str:
    path = tmp_path / "demo.h"
    path.write_text(text)
    seen = preprocess(path, target=Target.parse(triple), **options)  # type: ignore[arg-type]
    return " ".join(t.text for t in seen.tokens)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\n#error no such platform\n", 2, "#error no such platform"),
        ("#if 1\n#else\n#error dead\n#endif\n#if 0\n#elif 2\n#error live\n#endif", 7, "live"),
        ("#if\n#endif", 1, "expression"),
        ("#if 1 +\n#endif", 1, "missing"),
        ("#if (1\n#endif", 1, "`)`"),
        ("#if 1 2\n#endif", 1, "`2`"),
        ("#if 1/0\n#endif", 1, "division by zero"),
        ("#if 1.5\n#endif", 1, "1.5"),
        ("#if CALLED(3)\n#endif", 1, "CALLED"),
        ('#if "s"\n#endif', 1, "not expected"),
        ("x\n#if 1\n", 2, "#endif"),
        ("#endif", 1, "without"),
        ("#else", 1, "without"),
        ("#if 0\n#else\n#else\n#endif", 3, "after `#else`"),
        ("#ifdef\n#endif", 1, "name"),
        ("#define", 1, "name"),
        ("#define 3 4", 1, "name"),
        ("#define f(x y", 1, "`)`"),
        ("#define f(+) y", 1, "malformed"),
        ("#define f(x) y\nf(1, 2)", 2, "1 arguments"),
        ("#define f(x) y\n\nf(1", 3, "`)`"),
        ("#bogus", 1, "bogus"),
        ("#include", 1, "names no file"),
        ("a\n/* open", 2, "comment"),
        ("#if defined()\n#endif", 1, "name"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(HeaderError) as caught:
        run(tmp_path, text)
    assert f"demo.h:{line}: " in caught.value.what or said == "name"
    assert said in caught.value.what


def test_a_header_that_includes_itself(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match="includes itself"):
        run(tmp_path, '#include "demo.h"\n')


def test_a_header_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match=r"nowhere\.h"):
        preprocess(tmp_path / "nowhere.h", target=Target.parse("x86_64-unknown-linux-gnu"))


@pytest.mark.parametrize(
    ("define", "expected"),
    [
        ("X", "1 Y NONE"),
        ("X=", "Y NONE"),
        ("X=a b", "a b Y NONE"),
        ("Y=2", "X 2 NONE"),
        ("NONE(a)=", "X Y NONE"),
        ("X(a)=<a>", "X Y NONE"),
    ],
)
def test_defines(tmp_path: Path, define: str, expected: str) -> None:
    assert run(tmp_path, "X Y NONE", defines=[define]) == expected


def test_a_define_may_replace_a_predefined_macro(tmp_path: Path) -> None:
    assert run(tmp_path, "__linux__", defines=["__linux__=7"]) == "7"


@pytest.mark.parametrize("define", ["", "=3", "3=4", "a\nb"])
def test_bad_defines(tmp_path: Path, define: str) -> None:
    with pytest.raises(UsageError):
        run(tmp_path, "X", defines=[define])


@pytest.mark.parametrize(
    ("triple", "expected"),
    [
        ("x86_64-unknown-linux-gnu", "lin x64 p64"),
        ("i686-pc-windows-msvc", "windows msvc x86"),
        ("x86_64-pc-windows-gnu", "windows mingw x64 p64"),
        ("aarch64-apple-ios-sim", "apple ios sim p64"),
        ("armv7-linux-androideabi", "lin android p32"),
    ],
)
def test_targets(tmp_path: Path, triple: str, expected: str) -> None:
    text = ""
    for condition, word in [
        ("defined(__linux__)", "lin"),
        ("defined(__ANDROID__)", "android"),
        ("defined(_WIN32)", "windows"),
        ("defined(_MSC_VER) && !defined(__GNUC__)", "msvc"),
        ("defined(__MINGW32__)", "mingw"),
        ("defined(__APPLE__)", "apple"),
        ("TARGET_OS_IOS", "ios"),
        ("TARGET_OS_SIMULATOR", "sim"),
        ("defined(__x86_64__) || defined(_M_X64)", "x64"),
        ("defined(_M_IX86)", "x86"),
        ("__SIZEOF_POINTER__ == 8", "p64"),
        ("__SIZEOF_POINTER__ == 4", "p32"),
    ]:
        text += f"#if {condition}\n{word}\n#endif\n"
    assert run(tmp_path, text, triple) == expected


def test_queries(tmp_path: Path) -> None:
    text = (
        "#ifdef __has_attribute\nknown\n#endif\n"
        "#if defined(__has_include) && __has_include(<stdint.h>)\nstdint\n#endif\n"
        '#if __has_include("demo.h")\nself\n#endif\n#if __has_include("other.h")\nother\n#endif\n'
        "#if __has_attribute(deprecated) || __has_feature(nullability)\nattribute\n#endif\n"
    )
    assert run(tmp_path, text) == "known stdint self attribute"


def test_limits_come_with_the_first_system_header(tmp_path: Path) -> None:
    text = "#ifdef UINT32_MAX\nbefore\n#endif\n#include <stdint.h>\n"
    text += "#if UINT32_MAX == 0xffffffff\nafter\n#endif\n"
    text += "#if UCHAR_MAX == 255 && SHRT_MIN == -32768 && -1 < USHRT_MAX\nsmall\n#endif\n"
    text += "#if UINT64_C(5) == 5u && -1 > UINT32_C(0) && INT8_C(-1) < 0\nconstants\n#endif"
    assert run(tmp_path, text) == "after small constants"


def test_cxx_mode(tmp_path: Path) -> None:
    text = "#ifdef __cplusplus\ncxx\n#endif\n#if true and not false\nwords\n#endif\n"
    assert run(tmp_path, text, cxx=True) == "cxx words"


RAW = """static const char *text = R"x(
" )" \\ ( #if 0
)x"; int one;
#define TEXT u8R"(a, b;)"
#define R
R"x" int two;
"""


@pytest.mark.parametrize(
    ("triple", "cxx"),
    [
        ("x86_64-unknown-linux-gnu", False),
        ("x86_64-unknown-linux-gnu", True),
        ("x86_64-pc-windows-msvc", True),
    ],
)
def test_raw_strings(tmp_path: Path, triple: str, cxx: bool) -> None:
    seen = run(tmp_path, RAW, triple, cxx=cxx)
    said = r'"\n\" )\" \\ ( #if 0\n"'
    assert seen == f'static const char * text = {said} ; int one ; "x" int two ;'


def test_places_after_a_raw_string() -> None:
    lines = tokenize('R"(\n\\\n\n)" a\nb', Source("f", True))
    assert [(t.text, t.line) for line in lines for t in line][1:] == [("a", 4), ("b", 5)]


def test_msvc_has_no_raw_strings_in_c(tmp_path: Path) -> None:
    text = '#define R\nconst char *one = R"(";\nint two;'
    assert run(tmp_path, text, "x86_64-pc-windows-msvc").endswith('= "(" ; int two ;')
    with pytest.raises(HeaderError, match=r"demo\.h:2: the raw string has no end"):
        run(tmp_path, text)


def test_lines_of_spliced_text() -> None:
    lines = tokenize('a \\\n b\n/* \\\n */ c "x\\\ny" d\ne', Source("f", True))
    assert [[(t.text, t.line) for t in line] for line in lines] == [
        [("a", 1), ("b", 2)],
        [("c", 4), ('"xy"', 4), ("d", 5)],
        [("e", 6)],
    ]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_places_for_all_ends_of_lines(tmp_path: Path, end: bytes, mark: bytes) -> None:
    path = tmp_path / "demo.h"
    path.write_bytes(
        mark + end.join([b"/* a", b"*/", b"", b"int a \\", b"b\xe2\x80\xa8c;", b"#error no"])
    )
    with pytest.raises(HeaderError, match=r"demo\.h:6: #error no"):
        preprocess(path, target=Target.parse("x86_64-unknown-linux-gnu"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_utf16(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "demo.h"
    path.write_text("int f(void);\n", encoding=encoding)
    with pytest.raises(HeaderError, match=r"demo\.h: the header is UTF-16") as caught:
        preprocess(path, target=Target.parse("x86_64-unknown-linux-gnu"))
    assert "UTF-8" in caught.value.help[0]
    if encoding == "utf-16":  # cl.exe reads it
        seen = preprocess(path, target=Target.parse("x86_64-pc-windows-msvc"))
        assert [t.text for t in seen.tokens][:2] == ["int", "f"]


@given(
    st.lists(st.sampled_from(["a", "b1", "+", "+=", "<<=", "(", '"s\\""', "'c'", "1.5e+3", "->"]))
)
def test_spelling_and_lexing_are_inverse(tokens: list[str]) -> None:
    lines = tokenize(" ".join(tokens), Source("f", True))
    flat = [t for line in lines for t in line]
    assert [t.text for t in flat] == tokens
    assert spell(flat) == " ".join(tokens)
