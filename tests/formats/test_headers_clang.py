"""What a header declares is what clang's syntax tree of the same header says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import object_name
from cargo_strip_hook.exports.headers import read_header
from tests.tools import need

HOST = "x86_64-unknown-linux-gnu"
TRIPLES = (
    HOST,
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
    "i686-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
)

PREAMBLE = """
#ifndef SAMPLE_H
#define SAMPLE_H
#pragma once
/* Generated with cbindgen:0.29 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
"""

C_HEADERS = {
    "functions": """
/** Adds. 'Don't' stop here: "*/
int32_t add(int32_t a, int32_t b);
void nothing(void);
#ifndef __cplusplus
struct made { int x, y; } make_struct(int x, int y);
#endif
extern uint8_t *bytes(size_t *len,
                      const char *const *names,
                      va_list args);
unsigned long long int wide(unsigned, signed char c, long double d);
int variadic(const char *format, ...);
struct point { int x, y; };
struct point make_point(int x, int y);
struct opaque *opaque_new(void); void opaque_free(struct opaque *opaque);
static inline int helper(int x) { return x + 1; }
static int private_one(void);
inline int inlined(int a) { return a; }
int defined_here(void) { return 3; }
""",
    "declarators": """
typedef int32_t (*callback)(void *user, int32_t code);
typedef int handler(int), *pointer, table[4];
int (*select_one(int which))(int a, int b);
int (*(*deep(void))(int))[3];
void (*signal_like(int sig, void (*func)(int)))(int);
extern int (*vtable[3])(int), counter, *where, grid[2][3];
handler handle_a, handle_b;
callback get_callback(callback previous);
extern callback current;
int (parenthesised)(int (*)(void), int (named)(void));
const char *const messages[] ;
extern const struct { int a; } anonymous;
enum color { RED, GREEN = 1 << 3 } favourite(enum color c);
int old_style();
table shared_table;
extern const int32_t VERSION;
static const int32_t PRIVATE = 3;
int tentative, also_tentative[2];
int initialised = 4;
char const *after(char const *, char const);
uint8_t (*rows(void))[sizeof(int) * 2];
""",
    "attributes": """
#define DEPRECATED __attribute__((deprecated))
#define DEPRECATED_WITH_NOTE(note) __attribute__((deprecated(note)))
#define MUST_USE_FUNC __attribute__((warn_unused_result))
#if defined(_WIN32)
# define API __declspec(dllimport)
#elif defined(__GNUC__) && __GNUC__ >= 4
# define API __attribute__((visibility("default")))
#else
# define API
#endif
#define NORETURN _Noreturn
#define NONNULL(...) __attribute__((nonnull(__VA_ARGS__)))
DEPRECATED void old(void);
DEPRECATED_WITH_NOTE("use 'new', (really) {") void noted(void);
MUST_USE_FUNC int32_t must(void);
API int exported(int a) NONNULL();
extern API const int exported_data;
API NORETURN void stop(int code) __attribute__((cold));
int after(int) __attribute__((const)), second(int);
__attribute__((aligned(16))) extern char buffer[16];
struct __attribute__((packed)) packed { char c; int i : 3; } __attribute__((aligned(8)));
typedef struct DEPRECATED_WITH_NOTE("t") { int x; } tagged;
void take(tagged *t __attribute__((unused)), const int *__restrict p, int *restrict q);
__extension__ typedef long long extended;
extended use_extended(extended e);
_Static_assert(sizeof(int) >= 2, "int; is {small");
_Alignas(16) extern int aligned_one;
#ifndef __APPLE__
_Thread_local extern int per_thread;
#endif
__inline int gone(void);
__typeof__(int) typed(__typeof__(1 + 2) x);
void array_sizes(int n, int a[static 3], int b[n], int c[const]);
""",
    "labels": """
int plain(void) __asm__("renamed");
extern int data __asm__("renamed" "_data"), unlabelled;
int both(int) __asm("other") __attribute__((pure));
""",
    "conditions": """
#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)
#define DECLARE(type, name, ...) type CONCAT(prefix_, name)(__VA_ARGS__)
DECLARE(int, one, int a, int b);
DECLARE(void,
        two,
        void);
#if defined(__APPLE__)
void apple_only(void);
#  if TARGET_OS_OSX && !TARGET_OS_IPHONE
void mac_only(void);
#  endif
#elif defined _WIN32
void windows_only(void);
# ifdef _WIN64
void windows64_only(void);
# endif
#else
void other_only(void);
#endif
#ifdef __linux__
void linux_only(void);
#endif
#if UINTPTR_MAX == 0xffffffff
void pointers32(void);
#elif UINTPTR_MAX > 0xffffffffu && (-1 < 0) && -1 > 0u
void pointers64(void);
#endif
#if __SIZEOF_POINTER__ == 8 ? 1 : 0
void eight(void);
#endif
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
void big(void);
#else
void little(void);
#endif
#if defined(FEATURE_A) && FEATURE_LEVEL >= 3
void feature_a(void);
#endif
#ifdef NOPE
#error "never"
#bogus
it's a mess
#endif
#define FUNCTION(x) void x(void)
#undef FUNCTION
#define FUNCTION(x) \\
    int x(int)
FUNCTION(spliced);
#define EMPTY
EMPTY int after_empty EMPTY (void);
#define f(x) f(x + 1)
#define SELF SELF
extern int SELF;
#define STR(x) #x
extern char stringised[sizeof(STR(a "b" \\n))];
#define OPTIONAL(type, ...) type optional(int first __VA_OPT__(,) __VA_ARGS__)
OPTIONAL(void);
#define GNU(fmt, args...) int gnu(const char *, ##args)
GNU("x");
#if 'A' == 65 && '\\n' == 10 && 0x10 == 020
#endif
#if __has_include(<stdint.h>)
void has_stdint(void);
#endif
#if __has_include(<no/such/header.h>)
void has_no_such(void);
#endif
""",
    "cpp_compat": """
#ifdef __cplusplus
namespace ffi {
extern "C" {
#endif // __cplusplus
typedef enum Tag
#ifdef __cplusplus
  : uint8_t
#endif // __cplusplus
 {
  First,
  Second,
} Tag;
#ifndef __cplusplus
typedef uint8_t Tag8;
#endif
typedef struct Value {
  Tag tag; union { struct { int32_t first; }; struct { bool second; }; }; } Value;
struct Value value_new(Tag tag, bool (*check)(const struct Value*, void*));
extern const uintptr_t SIZES[3];
#ifdef __cplusplus
}  // extern "C"
}  // namespace ffi
#endif  // __cplusplus
""",
}

CXX_HEADERS = {
    "cbindgen": """
#define MUST_USE [[nodiscard]]
#define DEPRECATED __attribute__((deprecated))
namespace outer {
namespace inner {
constexpr static const int32_t LIMIT = 5;
static const float RATIO = 1.5;
enum class Color : uint8_t { Red, Green = 1, };
enum Plain { A, B };
template<typename T = void>
struct Box;
template<typename T>
struct Option {
  enum class Tag { None, Some, };
  struct Some_Body { T _0; };
  Tag tag;
  union { Some_Body some; };
  bool operator==(const Option& other) const { return tag == other.tag; }
  explicit operator bool() const { return tag == Tag::Some; }
};
using Callback = void(*)(int32_t, void*);
template<typename T> using Pointer = T*;
typedef struct Legacy { int x; } Legacy;
struct Point {
  int32_t x, y;
  constexpr static const int32_t ORIGIN = 0;
  static Point make();
  Point(int32_t x = 0, int32_t y = 0) : x(x), y(y) {}
  ~Point() {}
  bool operator<(const Point& other) const { return x < other.x; }
};
class Opaque final { public: void method() noexcept; private: int y; };
struct Derived : public Point { using Point::x; };
void cxx_linkage(int);
int overloaded(int), overloaded(char);
inline Color operator|(Color a, Color b) { return a; }
extern "C" {
extern const Point ZERO;
extern int32_t TABLE[3];
extern const char *const NAMES[2];
MUST_USE int32_t must();
DEPRECATED Option<Option<int32_t>> get(const Option<Point> &p, void (*cb)(int32_t a, void*),
                                    int32_t x = 3) noexcept;
void (*get_callback(int32_t which))(int32_t, void*);
Color (*VTABLE[3])(int32_t), *POINTER;
auto trailing(int32_t x) -> int32_t;
::outer::inner::Color qualified(outer::inner::Color c = outer::inner::Color::Red);
int (parenthesised)(void);
void reference(Point &&p, Point (&rows)[3], Box<Option<Box<int>>> *b);
const char *mutable_pointer;
const int32_t hidden = 3;
const Point *const also_hidden = nullptr;
static int private_one();
inline int inlined(int a) { return a; }
int renamed() __asm__("label_in_object");
typedef void (*handler)(int);
handler set_handler(handler h);
struct Value { int v; };
Value make_value(), *value_pointer;
extern "C++" { void cxx_again(long); template<typename T> T templated(T t); }
static_assert(sizeof(int) >= 2, "x;");
using namespace ::outer;
Callback last(Callback, decltype(3) number);
}  // extern "C"
extern "C" int single(const char *);
extern "C" const int single_constant;
extern "C" struct Point single_struct(struct Point), *single_pointer;
}}
namespace a = outer::inner;
extern template struct outer::inner::Option<int>;
template<> struct outer::inner::Option<char> { int x; };
constexpr int answer() { return 42; }
""",
    "compat_in_cxx": "namespace n {\n" + "}\n" + C_HEADERS["cpp_compat"],
}


def tree(path: Path, triple: str, language: str, defines: list[str]) -> dict[str, Any]:
    argv = [need("clang-22", "clang"), "-Xclang", "-ast-dump=json", "-fsyntax-only", "-w"]
    if triple.endswith("-msvc"):  # what clang has and cl.exe has not
        argv += ["-U__SIZEOF_POINTER__", "-U__BYTE_ORDER__", "-U__ORDER_BIG_ENDIAN__"]
    argv += ["-target", triple, "-ffreestanding", "-x", language, str(path)]
    argv += [f"-D{d}" for d in defines] + (["-std=c++17"] if language == "c++" else [])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def external(node: dict[str, Any], c_linkage: bool) -> Iterator[str]:
    """The object-file names of what the tree declares with C linkage and does not define."""
    for child in node.get("inner", []):
        kind = child["kind"]
        if kind == "LinkageSpecDecl":
            yield from external(child, child["language"] == "C")
        elif kind == "NamespaceDecl":
            yield from external(child, c_linkage)
        elif kind in {"FunctionDecl", "VarDecl"} and not child.get("isImplicit"):
            place = child["loc"].get("expansionLoc", child["loc"])
            if "includedFrom" in place:
                continue
            inner = child.get("inner", [])
            labelled = any(i["kind"] == "AsmLabelAttr" for i in inner)
            storage = child.get("storageClass")
            if storage == "static" or child.get("inline") or not (c_linkage or labelled):
                continue
            if "init" in child or any(i["kind"] == "CompoundStmt" for i in inner):
                continue
            yield child["mangledName"].removeprefix("\x01")


def check(path: Path, triple: str, language: str, defines: list[str]) -> list[str]:
    target = Target.parse(triple)
    seen = read_header(path, target=target, defines=defines)
    assert seen.language == {"c": "C", "c++": "C++"}[language]
    ours = {object_name(s, target) for s in seen.symbols}
    theirs = set(external(tree(path, triple, language, defines), language == "c"))
    assert ours == theirs
    return sorted(theirs)


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("name", C_HEADERS)
def test_c_header(name: str, triple: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.h"
    path.write_text(f"{PREAMBLE}{C_HEADERS[name]}\n#endif\n")
    assert check(path, triple, "c", ["FEATURE_A", "FEATURE_LEVEL=4"])


@pytest.mark.parametrize("name", CXX_HEADERS)
@pytest.mark.parametrize("suffix", [".h", ".hpp"])
@pytest.mark.parametrize("triple", [HOST, "aarch64-apple-darwin"])
def test_cxx_header(name: str, suffix: str, triple: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}{suffix}"
    path.write_text(f"{PREAMBLE}{CXX_HEADERS[name]}\n#endif\n")
    assert check(path, triple, "c++", [])


@pytest.mark.parametrize("name", ["functions", "labels", "conditions", "cpp_compat"])
def test_c_header_as_cxx(name: str, tmp_path: Path) -> None:
    """The C++ scanner on what a C compiler would read too."""
    path = tmp_path / f"{name}.hpp"
    text = C_HEADERS[name]
    if name != "cpp_compat":
        text = f'extern "C" {{\n{text}\n}}\n'
    path.write_text(f"{PREAMBLE}{text}\n#endif\n")
    assert check(path, HOST, "c++", [])


@pytest.mark.parametrize("name", ["imagequant-sys", "dolby_vision", "rav1e", "behaviour"])
def test_real_header(name: str) -> None:
    from tests.fixtures import library

    header = library(name).header
    assert header is not None
    assert len(check(header, HOST, "c", [])) > 20
