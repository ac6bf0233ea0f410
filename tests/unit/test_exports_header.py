"""Reading C and C++ headers: names, places, what is left out, what is an error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.headers import HeaderSymbols, read_header

LINUX = Target.parse("x86_64-unknown-linux-gnu")


def read(tmp_path: Path, text: str, name: str = "demo.h", **options: object) -> HeaderSymbols:
    path = tmp_path / name
    path.write_text(text)
    return read_header(path, target=LINUX, **options)  # type: ignore[arg-type]


def names(tmp_path: Path, text: str, name: str = "demo.h", **options: object) -> list[str]:
    return [s.name for s in read(tmp_path, text, name, **options).symbols]


def test_place_is_the_line_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "include").mkdir()
    path = Path("include/demo.h")
    path.write_text(
        "/* one\n two */\n#define API \\\n  extern\n\nAPI\nconst char\n  *name(\n    int name2);\n"
        "int a,\n  b;\nstruct s { int x;\n} *after(void);\n#define D(n) int n(void)\nD(made);\n"
    )
    seen = read_header(path, target=LINUX)
    assert [(s.name, s.kind, s.where) for s in seen.symbols] == [
        ("name", "function", "include/demo.h:8"),
        ("a", "variable", "include/demo.h:10"),
        ("b", "variable", "include/demo.h:11"),
        ("after", "function", "include/demo.h:13"),
        ("made", "function", "include/demo.h:15"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unknown_t f(other_t *a, third_t b[2], const fourth_t, struct s t);", ["f"]),
        ("const unknown_t *const table[3], *f(unknown_t);", ["table", "f"]),
        ("void f(void (*)(unknown_t, const other_t *), unknown_t (*cb)(void));", ["f"]),
        ("typedef unknown_t (*cb_t)(other_t); cb_t f(cb_t cb);", ["f"]),
        ("typedef struct Foo Foo; Foo *foo(Foo *Foo);", ["foo"]),
        ("int f(void) UNKNOWN_MACRO; int g(void) WITH(1, (2)) AGAIN, h(void) X;", ["f", "g", "h"]),
        ("G_BEGIN_DECLS\nint f(void);\nG_END_DECLS", ["f"]),
        ("#include <sys/cdefs.h>\n__BEGIN_DECLS\nint f(void);\n__END_DECLS\n", ["f"]),
        ("typedef int fn_t(void); typedef fn_t again_t; fn_t f; again_t g;", ["f", "g"]),
        ("void f(void (^block)(int));", ["f"]),
        ("int class(int new, struct x *this); extern int template;", ["class", "template"]),
        ("[[nodiscard]] int f [[gnu::pure]] (int a [[maybe_unused]]);", ["f"]),
        ("enum e : unsigned char { A, B }; enum e f(void);", ["f"]),
        ("int f(FILE *, time_t), g(bool (*)(size_t, va_list), wchar_t);", ["f", "g"]),
        ("T (f)(void); T (*g)(U), *(*h(U))(V);", ["f", "g", "h"]),
        ("UNKNOWN_API int f(void);", ["f"]),
        ("int signal(int a, void (*sig)(siginfo_t *, const other_t));", ["signal"]),
        ("unsigned _BitInt(7) f(_Atomic(int) a, _Atomic int *b);", ["f"]),
        ("void f(int (*rows)[sizeof(struct { int a; })], int n, int vla[n][*]);", ["f"]),
    ],
)
def test_declarations(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert names(tmp_path, text) == expected


def test_function_typedefs_are_functions(tmp_path: Path) -> None:
    text = "typedef int fn_t(void); typedef fn_t again_t; again_t f; fn_t *p; fn_t g, *q;"
    kinds = {s.name: s.kind for s in read(tmp_path, text).symbols}
    assert kinds == {"f": "function", "p": "variable", "g": "function", "q": "variable"}


def test_calling_conventions(tmp_path: Path) -> None:
    text = (
        "int __stdcall a(int); void (__fastcall *b(void))(int); int c(int (__stdcall *)(void));\n"
        "__attribute__((__vectorcall__)) int d(int); extern int (__cdecl e)(void);\n"
    )
    found = {s.name: s.convention for s in read(tmp_path, text).symbols}
    assert found == {
        "a": "stdcall",
        "b": "cdecl",
        "c": "cdecl",
        "d": "vectorcall",
        "e": "cdecl",
    }


def test_labels_belong_to_their_declarator(tmp_path: Path) -> None:
    text = 'int a(void), b(int, int) __asm__("_" "real_b"), c;\nextern int d __asm("d$1");'
    found = [(s.name, s.label) for s in read(tmp_path, text).symbols]
    assert found == [("a", False), ("_real_b", True), ("c", False), ("d$1", True)]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("int ok(void);\nint broken(void;\n", 2, "broken"),
        ("int ok(void);\n\nint 3broken(void);\n", 3, "3broken"),
        ("PREFIX(T) lost(void);\n", 1, "lost"),
        ("implicit(void);\n", 1, "implicit"),
        ("int a(void) int b(void);\n", 1, "b(void)"),
        ("}\nint f(void);\n", 1, "}"),
        ("int f(void\n", 1, "("),
    ],
)
def test_nothing_is_lost_in_silence(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(HeaderError) as caught:
        read(tmp_path, text)
    assert f"demo.h:{line}: " in caught.value.what
    assert said in caught.value.what
    assert any("--export" in h for h in caught.value.help)


def test_sibling_headers_are_public_and_foreign_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "own" / "sub").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    own = tmp_path / "own"
    (own / "types.h").write_text("typedef int own_t;\nown_t from_sibling(void);\n")
    (own / "sub" / "more.h").write_text('#include "../types.h"\nvoid from_sub(void);\n')
    (tmp_path / "other" / "foreign.h").write_text("typedef int foreign_t;\nint foreign(void);\n")
    text = (
        '#include "types.h"\n#include <sub/more.h>\n#include <foreign.h>\n#include <gst/gst.h>\n'
        "foreign_t mine(own_t);\n"
    )
    path = own / "demo.h"
    path.write_text(text)
    seen = read_header(path, target=LINUX, include_dirs=[tmp_path / "other"])
    assert [s.name for s in seen.symbols] == ["from_sibling", "from_sibling", "from_sub", "mine"]
    assert seen.symbols[0].where == f"{own / 'types.h'}:2"
    assert seen.warnings == ()


def test_a_header_beside_the_c_librarys_own_does_not_drag_them_in(tmp_path: Path) -> None:
    for name in ("stdio.h", "zlib.h", "stdint.h"):
        (tmp_path / name).write_text("int not_ours(void);\n")
    assert names(tmp_path, "#include <stdint.h>\n#include <zlib.h>\nint f(void);") == ["f"]


def test_a_sibling_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    seen = read(tmp_path, '\n#include "gone.h"\nint f(gone_t);')
    assert [s.name for s in seen.symbols] == ["f"]
    assert len(seen.warnings) == 1
    assert "demo.h:2" in seen.warnings[0] and "gone.h" in seen.warnings[0]


@pytest.mark.parametrize(
    ("name", "text", "language"),
    [
        ("a.h", "int f(void);", "C"),
        ("a.h", '#ifdef __cplusplus\nextern "C" {\n#endif\nint f(void);\n'
         "#ifdef __cplusplus\n}\n#endif\n", "C"),
        ("a.h", 'extern "C" int f(void);', "C++"),
        ("a.h", 'namespace n { extern "C" { int f(void); } }', "C++"),
        ("a.h", 'enum class E { A }; extern "C" int f(E);', "C++"),
        ("a.h", 'template<typename T> struct S; extern "C" int f(S<int>);', "C++"),
        ("a.h", 'using T = int; extern "C" T f(T);', "C++"),
        ("a.hpp", 'extern "C" int f(void);', "C++"),
        ("a.hh", '#ifdef __cplusplus\nextern "C" int f(void);\n#endif\n', "C++"),
    ],
)  # fmt: skip
def test_language(tmp_path: Path, name: str, text: str, language: str) -> None:
    seen = read(tmp_path, text, name)
    assert ([s.name for s in seen.symbols], seen.language) == (["f"], language)


def test_cxx_linkage_is_told_apart(tmp_path: Path) -> None:
    text = (
        'namespace n {\nvoid plain(int);\nextern "C" void mine(int);\n'
        "struct S final : B<int> {\n S(int);\n ~S();\npublic: int m() const noexcept;\n"
        " int inl() { return 1; }\n S(const S &) = default;\n virtual void v() = 0;\n"
        " static int s;\n bool operator==(const S &) const;\n class In { void deep(); };\n"
        " template<class T> T t(T);\n friend void fr(S);\n int field;\n};\n}\n"
    )
    seen = read(tmp_path, text, "a.hpp")
    assert [s.name for s in seen.symbols] == ["mine"]
    found = [(f.text, f.where.rpartition(":")[2]) for f in seen.foreign]
    assert found == [
        ("n::plain", "2"),
        ("n::S::S", "5"),
        ("n::S::~S", "6"),
        ("n::S::m", "7"),
        ("n::S::s", "11"),
        ("n::S::operator==", "12"),
        ("n::S::In::deep", "13"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        'extern "C" {\nint f(;\n}',
        'extern "C" {\nint;x(;}',
        "namespace a {\nint f();\n",
        "namespace a {\nusing b }",
    ],
)
def test_broken_cxx_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(HeaderError, match=r"a\.hpp:\d+: "):
        read(tmp_path, text, "a.hpp")


# A random declaration is built inside out around a name, so that the name is known.
IDENTIFIERS = st.from_regex(r"[a-z_][a-z0-9_]{0,6}x", fullmatch=True)
BASES = st.sampled_from(
    [
        "int",
        "unsigned long",
        "const char",
        "struct tag",
        "enum tag",
        "uint8_t",
        "size_t",
        "void",
        "struct { int a, b; }",
        "union u { int (*a)(int); }",
        "signed char const",
        "opaque_t",
    ]
)
PARAMETERS = st.sampled_from(
    [
        "void",
        "",
        "int",
        "int a, char *b",
        "void (*cb)(int, void *), opaque_t *user",
        "va_list v",
        "const struct tag *const p, ...",
        "int (*)(int (*)(void))",
        "uint8_t a[4], opaque_t",
    ]
)


@st.composite
def declarators(draw: st.DrawFn, name: str) -> tuple[str, str]:
    """A declarator of `name` and whether it is a function or a variable."""
    text, kind = name, "variable"
    last = "name"
    for step in range(draw(st.integers(0, 4))):
        allowed = ["pointer"]
        if last != "function":
            allowed.append("array")
        if last not in {"function", "array"}:
            allowed.append("function")
        last = draw(st.sampled_from(allowed))
        if last == "pointer":
            text = f"*{draw(st.sampled_from(['', 'const ', 'restrict ']))}{text}"
            # Anything but another pointer around it needs parentheses.
            text = f"({text})"
        elif last == "array":
            text = f"{text}[{draw(st.sampled_from(['', '3', 'sizeof(int) * 2']))}]"
        else:
            text = f"{text}({draw(PARAMETERS)})"
            if step == 0:
                kind = "function"
    return text, kind


@st.composite
def declarations(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    found = draw(st.lists(IDENTIFIERS, min_size=1, max_size=3, unique=True))
    expected: dict[str, str] = {}
    parts = []
    for name in found:
        text, kind = draw(declarators(name))
        expected[name] = kind
        parts.append(text)
    prefix = draw(st.sampled_from(["extern ", "", "__attribute__((cold)) extern "]))
    ending = draw(st.sampled_from(["", ' __attribute__((x(1, "a;")))', "\n"]))
    return f"{prefix}{draw(BASES)} {', '.join(parts)}{ending};", expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(declarations(), min_size=1, max_size=3))
def test_random_declarators(tmp_path: Path, made: list[tuple[str, dict[str, str]]]) -> None:
    text = "\n".join(t for t, _ in made)
    expected = {(name, kind) for _, part in made for name, kind in part.items()}
    seen = read(tmp_path, f"#include <stdint.h>\n{text}\n")
    assert {(s.name, s.kind) for s in seen.symbols} == expected
    # The same text through the C++ scanner; `restrict` is not C++.
    wrapped = 'extern "C" {\n' + text.replace("restrict", "__restrict") + "\n}\n"
    seen = read(tmp_path, wrapped, "demo.hpp")
    # A constant without extern is private in C++.
    variables = {(n, k) for n, k in expected if k == "variable"}
    found = {(s.name, s.kind) for s in seen.symbols}
    assert found <= expected
    assert expected - found <= (variables if "const" in text else set())


@pytest.mark.parametrize(
    "text", ["#if (((1)))\n#endif", "int (((f)))(void);", "int f(int (((a))));"]
)
def test_absurd_nesting(tmp_path: Path, text: str) -> None:
    expected = names(tmp_path, text)
    deep = text.replace("(((", "(" * 5000).replace(")))", ")" * 5000)
    try:  # some versions of pycparser do not recurse
        assert names(tmp_path, deep) == expected
    except HeaderError as e:
        assert "demo.h" in e.what


KEYWORDS = ("int", "void", "struct", "enum", "extern", "static", "inline", "typedef", "const")
CXX_WORDS = ("namespace", "template", "class", "using", "operator", "noexcept", "decltype", "::")
OTHERS = ("T", "x", "f", '"C"', '"s"', "'c'", "3", "...", "->", "[[", "]]", "##", "\n", "\n#define")
DIRECTIVES = ("\n#if", "\n#endif", "\n#define T", "\n#define f(x)", "\n#include", "__asm__")
SOUP = st.lists(
    st.sampled_from(
        (*"()[]{};;,=:<>&*~^./-+?!%|@`\\$#", *KEYWORDS, *CXX_WORDS, *OTHERS, *DIRECTIVES)
    ),
    max_size=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(SOUP, st.sampled_from(["a.h", "a.hpp"]))
def test_anything_is_read_or_refused_with_its_place(
    tmp_path: Path, soup: list[str], name: str
) -> None:
    try:
        read(tmp_path, " ".join(soup), name)
    except HeaderError as e:
        assert name in e.what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('#include "made_export.h"\nMADE_EXPORT thing_t make(void);\n', "made_export.h` ("),
        ("#include <glib.h>\n#if GLIB_CHECK_VERSION(2, 4, 0)\n#endif\n", "glib.h` ("),
        ("#include <glib.h>\nGLIB_IN(2, 4) int\nf(void);\n", "glib.h` ("),
        ('extern "C++" {}\n#include <no/cxx.h>\nextern "C" { API_X(2) int; }\n', "no/cxx.h` ("),
    ],
)
def test_what_was_not_found_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HeaderError) as caught:
        read(tmp_path, text)
    assert said in caught.value.what and "demo.h:" in caught.value.what.partition(said)[2]
    assert any("-I" in h for h in caught.value.help)


def test_conditions_on_a_file_that_was_not_found(tmp_path: Path) -> None:
    hidden = "#if defined(FOO_X) && FOO_LEVEL > 2\nint f(void);\n#endif\n"
    others = (
        "#ifdef __cplusplus\n#endif\n#ifndef FOO_Y\nint g(void);\n#endif\n#ifdef LATE\n#endif\n"
        "#define LATE\n#if __has_attribute(odd)\n#elif __has_include(<a/b.h>)\n#endif\n"
    )
    lost = read(tmp_path, f"#ifdef EARLY\n#endif\n#include <foo/config.h>\n{hidden}{others}")
    warning = lost.warnings[0].replace(f"{tmp_path}/", "")
    assert len(lost.warnings) == 1
    assert "`FOO_X` (demo.h:4), `FOO_LEVEL` (demo.h:4); `foo/config.h` (demo.h:3)" in warning
    assert not read(tmp_path, f"#include <stdio.h>\n{hidden}{others}").warnings


def test_a_macro_of_windows_without_its_header(tmp_path: Path) -> None:
    path = tmp_path / "demo.h"
    path.write_text("int WINAPI f(int *a);\n")
    target = Target.parse("i686-pc-windows-msvc")
    with pytest.raises(HeaderError) as caught:
        read_header(path, target=target)
    assert any("-D WINAPI=__stdcall" in h for h in caught.value.help)
    path.write_text(
        "#include <windows.h>\nint WINAPI f(_In_ int *a);\nSTDAPI g(_Out_opt_ int *);\n"
    )
    seen = read_header(path, target=target)
    assert [(s.name, s.convention) for s in seen.symbols] == [("f", "stdcall"), ("g", "stdcall")]


def test_errors_show_one_line_and_nothing_of_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("topsecret:x:0:0\nother:y:topsecret\n")
    (tmp_path / "own" / "link.h").symlink_to(secret)
    for name in (str(secret), "../secret", "link.h"):
        with pytest.raises(HeaderError) as caught:
            read(tmp_path, f'#include "{name}"\nint f(void);\n', "own/demo.h")
        assert "topsecret" not in "\n".join([caught.value.what, *caught.value.help])
        assert ":1: " in caught.value.what
    secret.write_text("#if topsecret(\n")
    with pytest.raises(HeaderError, match=r"secret:1: in `#if`: something is called"):
        read(tmp_path, '#include "../secret"\n', "own/demo.h")
    (tmp_path / "own" / "near.h").write_text("first line here\nsecond topsecret(;\n")
    with pytest.raises(HeaderError) as caught:
        read(tmp_path, '#include "near.h"\nint f(void);\n', "own/demo.h")
    assert "first line here" in caught.value.what
    assert "topsecret" not in caught.value.what


MANY = 20_000
LARGE = {
    "declarators": ("int " + ", ".join(f"e{n}" for n in range(MANY)) + ";", MANY),
    "functions": ("int " + ", ".join(f"*e{n}(int)" for n in range(MANY // 4)) + ";", MANY // 4),
    "macros": (
        "#define a0 int f(void);\n"
        + "".join(f"#define a{n + 1} a{n}\n" for n in range(MANY))
        + f"a{MANY}\n",
        1,
    ),
    "enumerators": ("enum e {" + ",".join(f"A{n}" for n in range(MANY)) + "}; int f(enum e);", 1),
    "braces": ("struct s " + "{struct {" * MANY + "} x;};" * MANY + "int f(void);", 1),
    "dimensions": ("extern int f" + "[2]" * MANY + ";", 1),
    "condition": ("#if " + "+".join("1" * MANY) + "\nint f(void);\n#endif", 1),
    "quotes": ('#if 0\n"' + '\\"' * MANY + "\n#endif\nint f(void);", 1),
    "shift": ("#if 1 << 1000000 || 1\nint f(void);\n#endif", 1),
}


@pytest.mark.parametrize("name", LARGE)
def test_time_is_linear(tmp_path: Path, name: str) -> None:
    text, expected = LARGE[name]
    started = time.process_time()
    assert len(names(tmp_path, text)) == expected
    assert time.process_time() - started < 4
    if name == "declarators":
        assert len(names(tmp_path, f'extern "C" {{ {text} }}', "demo.hpp")) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "#define a0 x x x x x x x x x x\n"
            + "".join(f"#define a{n + 1} {f'a{n} ' * 10}\n" for n in range(12))
            + "a12\n",
            "limit of expansion",
        ),
        (
            "#define c(a, b) a##b\n#define d(a, b) c(a, b)\n#define p0 xxxxxxxxxxxxxxxx\n"
            + "".join(f"#define p{n + 1} d(p{n}, p{n})\n" for n in range(32))
            + "int p32;\n",
            "limit of expansion",
        ),
        (
            "#define c(a, b) a##b\n#define d(a, b) c(a, b)\n"
            + "".join(f"#define q{n + 1}(x) q{n}(d(x, x))\n" for n in range(20))
            + "#define q0(x) x\nint q14(xxxxxxxxxxxxxxxx);\n",
            "limit of expansion",
        ),
        ('#include "demo.h"\n', "limit of inclusion"),
        ('#if !defined(A)\n#define A\n#include "demo.h"\n#include "demo.h"\n#undef A\n'
         '#include "demo.h"\n#endif\n', "limit of inclusion"),
        ("#if " + "(" * 20_000 + "1" + ")" * 20_000 + "\n#endif\n", "too deeply"),
        ("#if " + "9" * 1_000_000 + "\n#endif\n", "too long"),
    ],
)  # fmt: skip
def test_limits(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HeaderError) as caught:
        read(tmp_path, text)
    assert said in caught.value.what and "demo.h" in caught.value.what
    assert len(caught.value.what) < 1000


def test_names_that_look_like_a_compilers(tmp_path: Path) -> None:
    """A warning, but not for guards, other compilers' macros and what the header defines itself."""
    text = (
        "#ifndef _DEMO_H\n#define _DEMO_H\n#if defined(__NO_SUCH__)\n#define __LATE__\n#endif\n"
        "#if _ALSO_NOT > 3 && !defined(__NO_SUCH__)\n#endif\n#ifdef __LATE__\n#endif\n"
        "#if defined(__APPLE__) || defined(_MSC_VER) || defined(__CUDACC__) || __has_feature(x)\n"
        "#endif\n#ifdef DEMO_FEATURE\n#endif\nint f(void);\n#endif\n"
    )
    seen = read(tmp_path, text)
    told = [w.split("`")[1] for w in seen.warnings]
    assert told == ["__NO_SUCH__", "_ALSO_NOT"]
    assert "demo.h:3: " in seen.warnings[0] and "-D __NO_SUCH__" in seen.warnings[0]
    assert len(read(tmp_path, text, defines=["__NO_SUCH__"]).warnings) == 1


def test_names_given_by_a_pragma(tmp_path: Path) -> None:
    text = "#pragma redefine_extname old new_name\nint old(void);\nint other(void);\n"
    assert names(tmp_path, text) == ["new_name", "other"]


def test_syntax_of_apple(tmp_path: Path) -> None:
    path = tmp_path / "demo.h"
    path.write_text(
        "#include <os/availability.h>\nNS_ASSUME_NONNULL_BEGIN\n"
        "void a(char *_Nullable p, void (^_Nonnull cb)(int)) API_AVAILABLE(macos(10.15));\n"
        "void b(int *) __attribute__((availability(macos, introduced = 10.12)));\n"
        "typedef NS_ENUM(int, E) { A, B };\nE c(__unsafe_unretained id x);\n"
        "CF_EXPORT int *_Nonnull const d;\nNS_ASSUME_NONNULL_END\n"
        "#if __MAC_OS_X_VERSION_MIN_REQUIRED >= __MAC_10_12\nint e(void);\n#endif\n"
    )
    seen = read_header(path, target=Target.parse("aarch64-apple-darwin"))
    assert [s.name for s in seen.symbols] == ["a", "b", "c", "d", "e"]
    assert seen.warnings == ()
