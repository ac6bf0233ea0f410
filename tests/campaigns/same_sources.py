"""Small sources with what compilers seldom write, for ``tests.campaigns.same_inputs``.

A library is two or more sources, in C, C++, Objective-C or assembly, for some targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Odd:
    """One library. `names` are its public symbols as C writes them; `form` is llvm-ar's format."""

    name: str
    targets: tuple[str, ...]
    form: str
    sources: Mapping[str, str]
    names: tuple[str, ...]
    flags: tuple[str, ...] = ()


ELF = ("x86_64-linux-gnu", "i686-linux-gnu", "aarch64-linux-gnu", "thumbv7-linux-gnueabihf")
ELF += ("riscv64-linux-gnu", "powerpc64le-linux-gnu", "s390x-linux-gnu", "loongarch64-linux-gnu")
MACHO = ("arm64-apple-macos13", "x86_64-apple-macos13")
MSVC = ("x86_64-pc-windows-msvc", "i686-pc-windows-msvc", "aarch64-pc-windows-msvc")
MINGW = ("x86_64-w64-windows-gnu", "i686-w64-windows-gnu")

# the same inline functions, tables and variables in two members, one of them compiled otherwise
_SHARED = """
struct Shape { virtual ~Shape() {} virtual int area() { return 1; } };
template <class T> struct Box : Shape { T a, b; int area() override { return a * b + sizeof(T); } };
inline int counted = 3;
inline int next() { static int n = 7; return ++n + counted; }
template <class T> T larger(T a, T b) { return a > b ? a : b; }
void operator delete(void *, decltype(sizeof 0)) noexcept;
"""
_ONE = (
    _SHARED
    + """
struct Guard { int *where; ~Guard() { *where += next(); } };
int other_area(Shape *);
extern "C" int api_one(int n) {
  int left = 0; { Guard g{&left}; try { if (n > 3) throw n; Box<int> b; b.a = n; b.b = 2;
  left += other_area(&b); } catch (int e) { left += larger(e, 2); } }
  return left; }
"""
)
_TWO = (
    _SHARED
    + """
int other_area(Shape *s) { Box<char> c; c.a = c.b = 1; return s->area() + c.area() + next(); }
extern "C" double api_two(double n) { return larger(n, 2.0) + counted; }
extern "C" int api_unused() { throw 4; }
"""
)
_FREE = "void operator delete(void *, decltype(sizeof 0)) noexcept {}\n"
_CXX = {"one.cpp": _ONE, "two.cpp": _TWO, "free.cpp": _FREE}
_CXX_FLAGS = ("-std=c++17", "-fexceptions", "-fcxx-exceptions", "-O1", "-g")

_ELF_SET = """
typedef int (*entry)(int);
extern const entry __start_things[], __stop_things[] __attribute__((weak));
int api_sum(int n) { int s = 0; for (const entry *e = __start_things; e < __stop_things; e++)
  s += (*e)(n); return s; }
extern int implementation(int) __attribute__((weak));
int api_maybe(int n) { return implementation ? implementation(n) : 0; }
static _Thread_local int tls[3]; extern _Thread_local int api_tls;
int *api_address(int n) { tls[n]++; return n ? &tls[n] : &api_tls; }
"""
_ELF_ENTRIES = """
typedef int (*entry)(int);
_Thread_local int api_tls = 5; int api_zero[100]; const char *api_words[] = {"one", "two", "three"};
static int first(int n) { return n + 1; }
static int second(int n) { return n * api_zero[n]; }
__attribute__((section("things"), used, retain)) static const entry a = first;
__attribute__((section("things"), used)) static const entry b = second;
__attribute__((constructor(200))) static void early(void) { api_zero[1] = 1; }
__attribute__((destructor)) static void late(void) { api_zero[1] = 2; }
__attribute__((visibility("hidden"))) int inner(int n) { return n - 4; }
extern int again(int) __attribute__((alias("inner")));
__attribute__((visibility("protected"))) int api_protected(int n) { return inner(n) + again(n); }
__attribute__((cold, noinline)) static int unlikely(int n) { return n ^ 99; }
int api_cold(int n) { return __builtin_expect(n == 8, 0) ? unlikely(n) : again(n); }
"""
_ELF_ASSEMBLY = """
 .section .gnu.linkonce.t.once,"ax",@progbits
 .weak once
once: .long 1
 .section .text.api_asm,"ax",@progbits
 .globl api_asm
 .type api_asm,@function
api_asm: .long once - .
 .size api_asm,.-api_asm
 .section .ordered,"ao",@progbits,.text.api_asm
 .long 5
 .section .ctors,"aw",@progbits
 .quad api_asm
 .section .rodata.cst8,"aM",@progbits,8
.Lc: .quad 8, 9, 8
 .section .rodata.str1.1,"aMS",@progbits,1
.Ls: .string "again"
.Lt: .string "again"
 .data
 .globl api_table
 .type api_table,@object
 .type api_unique,@gnu_unique_object
api_table: .quad .Lc + 8, .Ls, .Lt + 2
api_unique: .quad 1
 .size api_table,24
 .size api_unique,8
 .section .note.GNU-stack,"",@progbits
"""
_ELF_IFUNC = """
static int plain(int n) { return n; }
static int (*chosen(void))(int) { return plain; }
int api_ifunc(int) __attribute__((ifunc("chosen")));
int api_calls(int n) { return api_ifunc(n) + 1; }
"""

_MACHO_C = """
extern int before __asm("section$start$__DATA$__things");
extern int after __asm("section$end$__DATA$__things");
long api_count(void) { return &after - &before; }
__attribute__((section("__DATA,__things"), used)) static int a = 1, b = 2;
__attribute__((constructor)) static void begin(void) { a++; }
__attribute__((weak)) int api_weak(int n) { return n; }
extern int missing(int) __attribute__((weak_import));
int api_missing(int n) { return missing ? missing(n) : 0; }
__attribute__((visibility("hidden"))) int hidden(int n) { return n * 5; }
static _Thread_local int t = 4; int *api_tls(void) { return &t; }
const char *api_word(int n) { static const char *w[] = {"x", "y", "x"}; return w[n]; }
double api_literal(double x) { return x * 3.25 + 1e100; }
int api_switch(int n) { switch (n) { case 0: return hidden(3); case 1: return api_missing(4);
  case 2: return api_weak(5); case 3: return n / 3; case 4: return 77; default: return 0; } }
"""
_MACHO_ASSEMBLY = """
 .section __TEXT,__text,regular,pure_instructions
 .globl _api_asm, _api_alt
 .p2align 2
_api_asm:
 .cfi_startproc
 .long 1
 .alt_entry _api_alt
_api_alt:
 .long 2
 .data_region jt32
 .long _api_asm - _api_alt
 .end_data_region
 .cfi_endproc
 .private_extern _quiet
 .p2align 2
_quiet: .long 3
 .no_dead_strip _kept
_kept: .long 4
 .section __DATA,__data
 .globl _api_pointer
 .p2align 3
_api_pointer: .quad _api_asm + 4, _quiet - _api_asm
 .section __LD,__live,regular,live_support
 .p2align 3
 .quad _quiet
 .linker_option "-framework", "Security"
"""
_OBJC = """
__attribute__((objc_root_class)) @interface Root { int field; }
+ (int)make; - (int)field; @end
@implementation Root
+ (int)make { return 5; } - (int)field { return field; } @end
@interface Root (More) - (int)more; @end
@implementation Root (More) - (int)more { return [self field] + [Root make]; } @end
@protocol Speaks - (void)speak; @end
__attribute__((objc_root_class)) @interface Unused <Speaks> @end
@implementation Unused - (void)speak { } @end
int api_objc(Root *r) { return [r more]; }
"""

_COFF_C = """
__attribute__((section(".CRT$XCU"), used)) static void (*const begins)(void);
static int n; static void begin(void) { n++; }
__attribute__((section(".CRT$XCU"), used)) static void (*const start)(void) = begin;
__attribute__((section("things$a"))) const int first[1] = {0};
__attribute__((section("things$z"))) const int last[1] = {0};
extern const int mine[]; int api_count(void) { return (int)(last - first) + n + mine[0]; }
__declspec(dllimport) int outside(int); int api_outside(int a) { return outside(a); }
int api_common; static _Thread_local int t = 3; int *api_tls(void) { return &t; }
__declspec(selectany) int api_any = 4;
int api_switch(int a) { switch (a) { case 0: return outside(1); case 1: return 5; case 2: return n;
  case 3: return api_any * 9; case 4: return api_common; default: return outside(7) * 3; } }
"""
_COFF_MORE = """
__attribute__((section("things$m"), used)) static const int element = 5;
__attribute__((section("things$m"))) const int mine[2] = {6, 7};
extern int optional(int) __attribute__((weak)); int api_optional(int a) { return (long long)optional
  ? optional(a) : 1; }
int unused_more(int a) { return a + element; }
"""
_DIRECTIVES = """
#pragma comment(linker, "/include:api_kept")
#pragma comment(linker, "/alternatename:absent=api_kept")
#pragma comment(lib, "other")
extern int absent(int); int api_kept(int n) { return n; }
int api_absent(int n) { return absent(n); }
"""
_SEH = """
int outside(int);
int api_guarded(int n) { int r = 0; __try { r = outside(n); } __except (1) { r = -1; } return r; }
int api_finally(int n) { int r = n; __try { r += outside(n); } __finally { r++; } return r; }
"""

_C = ("-O1", "-g", "-ffunction-sections", "-fdata-sections", "-w")
ODD = (
    Odd("cxx-elf", ELF, "gnu", _CXX, ("api_one", "api_two"), (*_CXX_FLAGS, "-ffunction-sections")),
    Odd("cxx-macho", MACHO, "darwin", _CXX, ("api_one", "api_two"), _CXX_FLAGS),
    Odd("cxx-msvc", MSVC, "coff", _CXX, ("api_one", "api_two"), (*_CXX_FLAGS, "-gcodeview")),
    Odd("cxx-mingw", MINGW, "gnu", _CXX, ("api_one", "api_two"), _CXX_FLAGS),
    Odd(
        "sets-elf",
        ELF,
        "gnu",
        {"a.c": _ELF_SET, "b.c": _ELF_ENTRIES},
        ("api_sum", "api_maybe", "api_address", "api_tls", "api_protected", "api_cold"),
        (*_C, "-fPIC"),
    ),
    Odd(
        "sets-elf-plain",
        ELF[:4],
        "gnu",
        {"a.c": _ELF_SET, "b.c": _ELF_ENTRIES},
        ("api_sum", "api_address", "api_words"),
        ("-O2", "-w", "-fno-pic"),
    ),
    Odd(
        "assembly-elf",
        ("x86_64-linux-gnu", "aarch64-linux-gnu", "riscv64-linux-gnu"),
        "gnu",
        {"a.s": _ELF_ASSEMBLY, "b.s": _ELF_ASSEMBLY.replace("api_", "other_")},
        ("api_asm", "api_table", "api_unique"),
    ),
    Odd(
        "ifunc",
        ("x86_64-linux-gnu", "aarch64-linux-gnu"),
        "gnu",
        {"a.c": _ELF_IFUNC},
        ("api_calls",),
        ("-O0", "-w"),
    ),
    Odd(
        "details-macho",
        MACHO,
        "darwin",
        {"a.c": _MACHO_C, "b.s": _MACHO_ASSEMBLY, "c.s": ".text\n.globl _api_c\n_api_c: .long 1\n"},
        ("api_count", "api_missing", "api_switch", "api_asm", "api_alt", "api_pointer", "api_c"),
        _C,
    ),
    Odd(
        "details-macho-subsections",
        MACHO,
        "darwin",
        {"a.c": _MACHO_C, "b.s": _MACHO_ASSEMBLY + ".subsections_via_symbols\n"},
        ("api_count", "api_word", "api_literal", "api_tls", "api_asm"),
        _C,
    ),
    Odd("objc", MACHO, "darwin", {"a.m": _OBJC, "b.c": _MACHO_C}, ("api_objc",), _C),
    Odd(
        "details-coff",
        (*MSVC, *MINGW),
        "coff",
        {"a.c": _COFF_C, "b.c": _COFF_MORE},
        ("api_count", "api_outside", "api_tls", "api_any", "api_switch", "api_optional"),
        _C,
    ),
    Odd(
        "directives",
        (*MSVC, *MINGW),
        "gnu",
        {"a.c": _DIRECTIVES, "b.c": _COFF_MORE},
        ("api_absent", "api_optional"),
        _C,
    ),
    Odd("seh", MSVC[:1], "coff", {"a.c": _SEH}, ("api_guarded",), (*_C, "-fms-extensions")),
)
