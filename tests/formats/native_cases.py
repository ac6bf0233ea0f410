"""Small libraries, each with a feature that prelinkers get wrong, and a program that uses it.

`expected` is what the program writes, worked out by hand from its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """A library (`sources`, `flags`), its public symbols, and a program (`main`)."""

    name: str
    sources: Mapping[str, str]
    exports: tuple[str, ...]
    main: str
    expected: str
    flags: tuple[str, ...] = ("-O1", "-fPIC", "-ffunction-sections", "-fdata-sections")
    link: tuple[str, ...] = ()
    compiler: str | None = None
    cxx: bool = False
    linkers: tuple[str, ...] = ("bfd", "lld", "gold", "mold")
    warnings: tuple[str, ...] = field(default=())


_SHAPES = """
#pragma once
struct Shape { virtual ~Shape() {} virtual int area() const { return 0; } };
struct Square : Shape {
  int s; explicit Square(int s) : s(s) {} int area() const override { return s * s; }
};
struct Failure { int code; };
template <class T> inline T clamp_to(T x, T top) { static int calls; ++calls;
  if (x > top) throw Failure{(int)top}; return x + calls; }
inline int shared_counter() { static int n = 100; return ++n; }
"""

CASES: list[Case] = []


def case(*args: object, **kwargs: object) -> None:
    CASES.append(Case(*args, **kwargs))  # type: ignore[arg-type]


case(
    "cxx",
    {
        "shapes.h": _SHAPES,
        "a.cc": """#include "shapes.h"
extern "C" int square_area(int n) { Shape *s = new Square(n); int a = s->area();
  bool is = dynamic_cast<Square *>(s) != nullptr; delete s; return is ? a : -1; }
extern "C" int limited(int x) { try { return clamp_to(x, 10); } catch (const Failure &f) {
  return -f.code; } }
extern "C" int count_a() { return shared_counter(); }
""",
        "b.cc": """#include "shapes.h"
int thrower(int);
extern "C" int count_b() { return shared_counter(); }
extern "C" int crossing(int x) { try { return thrower(x); } catch (const Failure &f) {
  return 1000 + f.code; } catch (...) { return -1; } }
extern "C" int is_square(int n) { Square q(n); Shape &s = q; return dynamic_cast<Square &>(s).s; }
extern "C" int unused_api() { return clamp_to(3L, 4L); }
""",
        "c.cc": """#include "shapes.h"
struct Guard { int &r; ~Guard() { r++; } };
int thrower(int x) { int n = 0; { Guard g{n}; if (x > 5) throw Failure{x}; } return n + x; }
int never_used() { return shared_counter(); }
""",
    },
    ("square_area", "limited", "count_a", "count_b", "crossing", "is_square", "unused_api"),
    """#include <stdio.h>
int square_area(int), limited(int), count_a(void), count_b(void), crossing(int), is_square(int);
int main(void) {
  printf("%d ", square_area(7)); printf("%d ", limited(3)); printf("%d ", limited(30));
  printf("%d ", count_a()); printf("%d ", count_b()); printf("%d ", count_a());
  printf("%d %d %d\\n", crossing(2), crossing(9), is_square(4));
}""",
    "49 4 -10 101 102 103 3 1009 4\n",
    cxx=True,
)

case(
    "callback-throws",
    {
        "lib.cc": """extern "C" int destroyed; int destroyed;
struct Guard { ~Guard() { destroyed++; } };
extern "C" int walk(int (*f)(int), int n) { Guard g; return f(n) + 1; }
""",
        "plain.c": """int walk(int (*)(int), int);
int walk_c(int (*f)(int), int n) { return walk(f, n) * 2; }""",
    },
    ("walk", "walk_c", "destroyed"),
    """#include <cstdio>
extern "C" { extern int destroyed; int walk(int (*)(int), int); int walk_c(int (*)(int), int); }
int boom(int n) { if (n > 3) throw n; return n; }
int main() {
  int caught = 0;
  try { walk(boom, 5); } catch (int n) { caught += n; }
  try { walk_c(boom, 7); } catch (int n) { caught += n; }
  int last = walk_c(boom, 1);
  std::printf("%d %d %d\\n", last, caught, destroyed);
}""",
    "4 12 3\n",
    flags=("-O1", "-fPIC", "-fexceptions", "-ffunction-sections", "-fdata-sections"),
    cxx=True,
)

case(
    "symbols",
    {
        "a.c": """
int weak_here(void) __attribute__((weak)); int weak_here(void) { return 1; }
__attribute__((visibility("hidden"))) int hidden_one(void);
__attribute__((visibility("protected"))) int prot(void) { return 40; }
__attribute__((visibility("internal"))) int intern(void) { return 300; }
extern int tentative; extern int tentative_big[];
int absent(void) __attribute__((weak));
int present(void) __attribute__((weak));
int api(void) { return weak_here() + hidden_one() + prot() + intern() + tentative
  + tentative_big[3] + (absent ? absent() : 0) + (present ? 0 : 5000); }
int prot_twice(void) { return prot() * 2; }
int aliased(void) __attribute__((alias("prot_twice")));
int tentative_big[2];
""",
        "b.c": """
int weak_here(void) { return 2; }
__attribute__((visibility("hidden"))) int hidden_one(void) { return 10; }
int tentative; int tentative_big[8];
int *big(void) { return tentative_big; }
""",
        "c.c": "int present(void) { return 1; }",
    },
    ("api", "prot", "aliased", "weak_here", "big"),
    """#include <stdio.h>
int api(void), prot(void), aliased(void), weak_here(void), *big(void);
int main(void) { big()[3] = 7; printf("%d %d %d %d\\n", api(), prot(), aliased(), weak_here()); }
""",
    # a.o has the weak definition, b.o is loaded for hidden_one and brings the strong one
    f"{2 + 10 + 40 + 300 + 0 + 7 + 5000} 40 80 2\n",
    flags=("-O1", "-fPIC", "-fcommon", "-ffunction-sections", "-fdata-sections"),
)

for _model in ("global-dynamic", "local-dynamic", "initial-exec", "local-exec"):
    case(
        f"tls-{_model}",
        {
            "a.c": """
static __thread int own = 3; static __thread int zero[4];
__thread int exported_tls = 20;
extern __thread int other __attribute__((visibility("hidden")));
int bump(int by) { own += by; zero[2] += by; other += by; return own + zero[2] + other; }
int *where(void) { return &exported_tls; }
""",
            "b.c": """__thread int other __attribute__((visibility("hidden"))) = 500;
__thread int dead_tls = 9; int dead(void) { return dead_tls; }""",
        },
        ("bump", "where", "exported_tls"),
        """#include <stdio.h>
#include <pthread.h>
extern __thread int exported_tls; int bump(int); int *where(void);
static int inner;
static void *run(void *p) { exported_tls = 1; inner = bump(1); return p; }
int main(void) {
  pthread_t t; bump(10); exported_tls++;
  pthread_create(&t, 0, run, 0); pthread_join(t, 0);
  printf("%d %d %d %d\\n", bump(1), inner, *where(), where() == &exported_tls);
}""",
        f"{14 + 11 + 511} {4 + 1 + 501} 21 1\n",
        flags=(
            "-O1",
            "-fPIE" if _model == "local-exec" else "-fPIC",
            f"-ftls-model={_model}",
            "-ffunction-sections",
            "-fdata-sections",
        ),
        link=("-pthread",),
    )

case(
    "ifunc",
    {
        "a.c": """
static int one(void) { return 1; } static int two(void) { return 2; }
static void *pick_one(void) { return one; } static void *pick_two(void) { return two; }
int exported_if(void) __attribute__((ifunc("pick_one")));
__attribute__((visibility("hidden"))) int hidden_if(void) __attribute__((ifunc("pick_two")));
static int local_if(void) __attribute__((ifunc("pick_two")));
int (*table[])(void) = {exported_if, hidden_if, local_if};
int sum(void) { return exported_if() * 100 + hidden_if() * 10 + local_if() + table[0]() * 1000
  + table[1]() * 10000 + table[2]() * 100000; }
"""
    },
    ("sum", "exported_if"),
    """#include <stdio.h>
int sum(void), exported_if(void); int main(void) { printf("%d %d\\n", sum(), exported_if()); }""",
    "221122 1\n",
)

case(
    "no-plt",
    {
        "a.c": """
#include <string.h>
int helper(int); int tail(int); extern int shared[4]; extern int (*hook)(int);
int api(const char *s) { return (int)strlen(s) + helper(3) + shared[1]; }
int jumps(int x) { return tail(x + 1); }
void *address(void) { return (void *)helper; }
int through(int x) { return hook ? hook(x) : -1; }
int compare(void *p) { return p == (void *)helper; }
""",
        "b.c": """int shared[4] = {1, 20, 3, 4};
int helper(int x) { return x * 100; } int tail(int x) { return x * 7; } int (*hook)(int) = tail;""",
    },
    ("api", "jumps", "address", "through", "compare"),
    """#include <stdio.h>
int api(const char *), jumps(int), through(int), compare(void *); void *address(void);
int main(void) { printf("%d %d %d %d\\n", api("four"), jumps(2), through(5), compare(address())); }
""",
    "324 21 35 1\n",
    flags=("-O2", "-fPIC", "-fno-plt", "-ffunction-sections", "-fdata-sections"),
)

case(
    "init-order",
    {
        "a.c": """
char trace[32]; static int at;
static void put(char c) { trace[at++] = c; }
__attribute__((constructor(300))) static void c3(void) { put('c'); }
__attribute__((constructor(101))) static void c1(void) { put('a'); }
__attribute__((constructor)) static void c9(void) { put('z'); }
__attribute__((constructor(200))) static void c2(void) { put('b'); }
extern int puts(const char *);
__attribute__((destructor)) static void d(void) { puts("bye"); }
const char *order(void) { return trace; }
""",
        "b.c": """int not_loaded;
__attribute__((constructor)) static void c(void) { not_loaded = 1; }""",
    },
    ("order",),
    "#include <stdio.h>\nconst char *order(void); int main(void) { puts(order()); }",
    "abcz\nbye\n",
)

case(
    "init-array-by-hand",
    {
        "a.c": "int seen; int get(void) { return seen; } extern void tie(void); void *p = tie;",
        "b.s": """
 .text
 .globl tie
 .type tie,@function
tie: ret
first: movl seen@GOTPCREL(%rip), %eax
 movq seen@GOTPCREL(%rip), %rax
 addl $1, (%rax)
 ret
second: movq seen@GOTPCREL(%rip), %rax
 shll $4, (%rax)
 ret
 .section .init_array.00200,"aw",@init_array
 .balign 8
 .quad second
 .section .init_array.00100,"aw",@progbits
 .balign 8
 .quad first
 .section .note.GNU-stack,"",@progbits
""",
    },
    ("get",),
    '#include <stdio.h>\nint get(void); int main(void) { printf("%d\\n", get()); }',
    "16\n",
)

case(
    "strings",
    {
        "a.c": """
#include <wchar.h>
const char *long_one(void) { return "the suffix of this"; }
const char *suffix(void) { return "of this"; }
const wchar_t *wide(void) { return L"breit"; }
const char *const list[] = {"alpha", "beta", "the suffix of this", "this"};
const char *item(int i) { return list[i]; }
double scale(double x) { return x * 1.25 + 0.1; }
""",
        "b.c": """
const char *b_first(void) { return "prefix"; }
const char *b_suffix(void) { return "of this"; }
const char *b_middle(const char *s) { return s ? "fix" : "alpha"; }
double b_scale(double x) { return x * 2.5 + 0.1; }
""",
    },
    ("long_one", "suffix", "wide", "item", "scale", "b_first", "b_suffix", "b_middle", "b_scale"),
    """#include <stdio.h>
#include <wchar.h>
const char *long_one(void), *suffix(void), *item(int), *b_first(void), *b_suffix(void);
const char *b_middle(const char *); const wchar_t *wide(void);
double scale(double), b_scale(double);
int main(void) {
  printf("%s|%s|%ls|", long_one(), suffix(), wide());
  printf("%s|%s|%s|%s|", item(0), item(1), item(2), item(3));
  printf("%s|%s|%s|%s|%.2f|%.2f\\n", b_first(), b_suffix(), b_middle("x"), b_middle(0), scale(4),
    b_scale(4));
}""",
    "the suffix of this|of this|breit|alpha|beta|the suffix of this|this|"
    "prefix|of this|fix|alpha|5.10|10.10\n",
    flags=("-O2", "-fPIC", "-ffunction-sections", "-fdata-sections"),
)

_SWITCH = """
int pick(int n) { switch (n) { case 0: return 11; case 1: return 7; case 2: return 93;
  case 3: return pick(1) * 3; case 4: return 5; case 5: return pick(2) - 1; case 6: return 42; }
  return -1; }
const char *word(int n) { switch (n) { case 0: return "zero"; case 1: return "one";
  case 2: return "two"; case 3: return "three"; case 4: return "four"; } return "many"; }
int machine(const unsigned char *p) {
  static void *const go[] = {&&stop, &&inc, &&dbl, &&neg}; int a = 1;
  goto *go[*p++];
 inc: a++; goto *go[*p++];
 dbl: a *= 2; goto *go[*p++];
 neg: a = -a; goto *go[*p++];
 stop: return a; }
int relative(const unsigned char *p) {
  static const int go[] = {&&stop - &&stop, &&inc - &&stop, &&dbl - &&stop}; int a = 1;
  goto *(&&stop + go[*p++]);
 inc: a++; goto *(&&stop + go[*p++]);
 dbl: a *= 2; goto *(&&stop + go[*p++]);
 stop: return a; }
"""
_SWITCH_MAIN = """#include <stdio.h>
int pick(int), machine(const unsigned char *), relative(const unsigned char *);
const char *word(int);
int main(void) {
  for (int i = 0; i < 8; i++) printf("%d ", pick(i));
  for (int i = 0; i < 6; i++) printf("%s ", word(i));
  unsigned char code[] = {1, 2, 2, 3, 1, 0}, rel[] = {1, 2, 1, 0};
  printf("%d %d\\n", machine(code), relative(rel));
}"""
for _name, _compiler, _flags, _link in (
    ("switch-gcc", None, ("-fPIC", "-ffunction-sections", "-fdata-sections"), ()),
    ("switch-clang", "clang-22", ("-fPIC", "-ffunction-sections", "-fdata-sections"), ()),
    ("switch-plain", None, ("-fno-pic", "-fno-pie"), ("-no-pie",)),
    ("switch-large", None, ("-fno-pic", "-mcmodel=large", "-ffunction-sections"), ("-no-pie",)),
    ("switch-large-pic", None, ("-fPIC", "-mcmodel=large", "-ffunction-sections"), ()),
    ("switch-medium", None, ("-fPIC", "-mcmodel=medium", "-ffunction-sections"), ()),
    ("switch-cet", None, ("-fPIC", "-fcf-protection=full", "-ffunction-sections"), ()),
):
    case(
        _name,
        {"a.c": _SWITCH},
        ("pick", "word", "machine", "relative"),
        _SWITCH_MAIN,
        "11 7 93 21 5 92 42 -1 zero one two three four many -7 5\n",
        flags=("-O2", *_flags),
        link=_link,
        compiler=_compiler,
    )

case(
    "medium-data",
    {
        "a.c": """
extern char huge[200000]; extern int few; static int local_big[50000] = {7};
int read_huge(int i) { return huge[i] + local_big[0] + few; }
char *base(void) { return huge; }
""",
        "b.c": "char huge[200000] = {1, 2, 3}; int few = 1000;",
    },
    ("read_huge", "base"),
    """#include <stdio.h>
int read_huge(int); char *base(void);
int main(void) { base()[150000] = 5; printf("%d %d\\n", read_huge(2), read_huge(150000)); }""",
    "1010 1012\n",
    flags=("-O1", "-fPIC", "-mcmodel=medium", "-ffunction-sections"),
)

case(
    "large-common",
    {
        "a.c": """
extern char lazy[300000]; int get(int i) { return lazy[i]; } void set(int i, int v) { lazy[i] = v; }
""",
        "b.c": "char lazy[300000];",
    },
    ("get", "set"),
    """#include <stdio.h>
int get(int); void set(int, int);
int main(void) { set(299999, 5); printf("%d\\n", get(299999)); }""",
    "5\n",
    flags=("-O1", "-fPIC", "-mcmodel=medium", "-fcommon"),
    linkers=("bfd", "gold"),
)

case(
    "setjmp",
    {
        "a.c": """
#include <setjmp.h>
static jmp_buf env; static void deep(int n) { if (!n) longjmp(env, 9); deep(n - 1); }
void (*volatile go)(int) = deep;
int jump(void) { int r = setjmp(env); if (r) return r; go(3); return -1; }
"""
    },
    ("jump",),
    '#include <stdio.h>\nint jump(void); int main(void) { printf("%d\\n", jump()); }',
    "9\n",
)

case(
    "cfi-by-hand",
    {
        "a.cc": """
extern "C" int asm_call(int (*)(int), int); extern "C" int asm_frame(int (*)(int), int);
static int boom(int n) { if (n > 1) throw n; return n; }
extern "C" int guarded(int n) { try { return asm_call(boom, n); } catch (int x) { return x * 10; } }
extern "C" int framed(int n) { try { return asm_frame(boom, n); } catch (int x) { return x * 11; } }
""",
        "b.s": """
 .section .text.asm_call,"ax",@progbits
 .globl asm_call
 .type asm_call,@function
asm_call:
 .cfi_startproc
 subq $40, %rsp
 .cfi_adjust_cfa_offset 40
 movq %rdi, %rax
 movl %esi, %edi
 call *%rax
 addq $40, %rsp
 .cfi_adjust_cfa_offset -40
 ret
 .cfi_endproc
 .size asm_call,.-asm_call
 .section .text.asm_frame,"ax",@progbits
 .globl asm_frame
 .hidden asm_frame
 .type asm_frame,@function
asm_frame:
 .cfi_startproc simple
 .cfi_def_cfa 7, 8
 .cfi_offset 16, -8
 pushq %rbp
 .cfi_def_cfa_offset 16
 .cfi_offset 6, -16
 movq %rsp, %rbp
 .cfi_def_cfa_register 6
 .cfi_remember_state
 movq %rdi, %rax
 movl %esi, %edi
 call *%rax
 nop
 leave
 .cfi_def_cfa 7, 8
 ret
 .cfi_endproc
 .section .text.dead,"ax",@progbits
dead:
 .cfi_startproc
 ret
 .cfi_endproc
 .section .note.GNU-stack,"",@progbits
""",
    },
    ("guarded", "framed"),
    """#include <stdio.h>
int guarded(int), framed(int);
int main(void) { printf("%d %d %d %d\\n", guarded(1), guarded(4), framed(1), framed(4)); }""",
    "1 40 1 44\n",
    cxx=True,
)

case(
    "tables-by-hand",
    {
        "a.s": """
 .section .text.f,"ax",@progbits
 .globl f
f: leaq table(%rip), %rdx
 movslq (%rdx,%rdi,4), %rax
 addq %rdx, %rax
 jmp *%rax
one: movl $1, %eax
 ret
 .section .text.other,"ax",@progbits
two: movl $2, %eax
 ret
 .section .rodata.table,"a",@progbits
 .balign 4
table: .long one - table
 .long two - table
 .long .text.other - table + 0
 .section .data.rel.ptr,"aw",@progbits
 .globl ends
 .balign 8
ends: .quad table, table_end - 4, buffer + 8, buffer - 8
 .section .rodata.end,"a",@progbits
 .long 0
table_end:
 .section .bss.buffer,"aw",@nobits
 .balign 16
buffer: .zero 64
 .section .note.GNU-stack,"",@progbits
"""
    },
    ("f", "ends"),
    """#include <stdio.h>
int f(long); extern char *ends[4];
int main(void) { printf("%d %d %d %ld\\n", f(0), f(1), f(2), (long)(ends[2] - ends[3])); }""",
    "1 2 2 16\n",
)

case(
    "got-relaxations",
    {
        "a.s": """
 .section .text.api,"ax",@progbits
 .globl api
 .type api,@function
api: pushq %rbx
 call *leaf@GOTPCREL(%rip)
 movl %eax, %ebx
 movq value@GOTPCREL(%rip), %r11
 addl (%r11), %ebx
 movq value@GOTPCREL(%rip), %rax
 cmpq value@GOTPCREL(%rip), %rax
 jne 1f
 addl $1000, %ebx
1: addq value@GOTPCREL(%rip), %rax
 subq value@GOTPCREL(%rip), %rax
 addl (%rax), %ebx
 pushq leaf@GOTPCREL(%rip)
 popq %rax
 call *%rax
 addl %eax, %ebx
 movl %ebx, %eax
 popq %rbx
 cmpl $0, %eax
 je 2f
 testq %rax, value@GOTPCREL(%rip)
 notrack jmp *finish@GOTPCREL(%rip)
2: ret
 .section .text.leaf,"ax",@progbits
 .globl leaf
leaf: movl $3, %eax
 ret
 .section .text.finish,"ax",@progbits
 .globl finish
finish: addl $500000, %eax
 ret
 .section .data.value,"aw",@progbits
 .globl value
 .balign 4
value: .long 40
 .section .note.GNU-stack,"",@progbits
"""
    },
    ("api",),
    '#include <stdio.h>\nint api(void); int main(void) { printf("%d\\n", api()); }',
    f"{3 + 40 + 1000 + 40 + 3 + 500000}\n",
)

case(
    "absolute",
    {
        "a.s": """
 .globl magic
 .set magic, 0x1234
 .globl inner
 .set inner, 77
 .set own, 5
 .section .text.api,"ax",@progbits
 .globl api
api: movl $inner, %eax
 addl $own, %eax
 ret
 .section .text.use,"ax",@progbits
 .globl uses_outer
uses_outer: movl $outer_abs, %eax
 ret
 .section .note.GNU-stack,"",@progbits
""",
        "b.s": ' .globl outer_abs\n .set outer_abs, 900\n .section .note.GNU-stack,"",@progbits\n',
    },
    ("api", "magic", "uses_outer"),
    """#include <stdio.h>
int api(void), uses_outer(void); extern char magic[];
int main(void) { printf("%d %lx %d\\n", api(), (unsigned long)magic, uses_outer()); }""",
    "82 1234 900\n",
    link=("-no-pie",),
)

case(
    "set",
    {
        "a.c": """
struct item { const char *name; int value; };
#define ITEM(n, v) static const struct item n \\
  __attribute__((section("registry"), used, aligned(16))) = {#n, v}
ITEM(one, 1);
extern const struct item __start_registry[], __stop_registry[];
int b_tie(void);
int total(void) { int sum = b_tie(); for (const struct item *i = __start_registry;
  i < __stop_registry; i++) sum += i->value; return sum; }
int count(void) { return __stop_registry - __start_registry; }
""",
        "b.c": """
struct item { const char *name; int value; };
#define ITEM(n, v) static const struct item n \\
  __attribute__((section("registry"), used, aligned(16))) = {#n, v}
ITEM(two, 20); ITEM(three, 300);
int b_tie(void) { return 0; }
""",
    },
    ("total", "count"),
    """#include <stdio.h>
int total(void), count(void); int main(void) { printf("%d %d\\n", total(), count()); }""",
    "321 3\n",
)

case(
    "patchable",
    {
        "a.c": """
int helper(int); int api(int x) { return helper(x) + 1; } int api2(int x) { return x - 1; }
int dead(int x) { return x * 3; }
""",
        "b.c": "int helper(int x) { return x * 10; } int dead_b(void) { return 1; }",
    },
    ("api", "api2"),
    "#include <stdio.h>\nint api(int), api2(int);\n"
    'int main(void) { printf("%d %d\\n", api(4), api2(4)); }',
    "41 3\n",
    flags=("-O1", "-fPIC", "-ffunction-sections", "-fpatchable-function-entry=4,2"),
)

case(
    "link-order-to-nothing",
    {
        "a.s": ' .section .text.early,"ax",@progbits\n .globl early\nearly: movl $1, %eax\n ret\n'
        ' .section .note.GNU-stack,"",@progbits\n',
        "b.s": """
 .section .text.api,"ax",@progbits
 .globl api
api: pushq %rbx
 call early
 leaq meta(%rip), %rdx
 addl (%rdx), %eax
 popq %rbx
 ret
 .section meta_data,"ao",@progbits,0
meta: .long 41
 .section .note.GNU-stack,"",@progbits
""",
    },
    ("api",),
    '#include <stdio.h>\nint api(void); int main(void) { printf("%d\\n", api()); }',
    "42\n",
    compiler="clang-22",
    flags=("-Wa,--noexecstack",),
)

case(
    "odd-merge-sections",
    {
        "a.s": """
 .section .text.api,"ax",@progbits
 .globl api
api: movl first(%rip), %eax
 addl second(%rip), %eax
 addl third+12(%rip), %eax
 ret
 .section .rodata.one,"aM",@progbits,24
 .balign 16
first: .long 1, 0, 0, 0, 0, 0
 .section .rodata.two,"aM",@progbits,24
 .balign 16
second: .long 20, 0, 0, 0, 0, 0
 .section .rodata.three,"aM",@progbits,24
 .balign 16
third: .long 0, 0, 0, 300, 0, 0
 .section .note.GNU-stack,"",@progbits
"""
    },
    ("api",),
    '#include <stdio.h>\nint api(void); int main(void) { printf("%d\\n", api()); }',
    "321\n",
)

case(
    "merged-elements",
    {
        f"{name}.s": f"""
 .macro function of
 .section .text.\\of\\()_{name},"ax",@progbits
 .globl \\of\\()_{name}
\\of\\()_{name}:
 .endm
 function word
 leaq .Lword(%rip), %rax
 ret
 function tail
 leaq .Lword+2(%rip), %rax
 ret
 function before
 leaq .Lword-3(%rip), %rax
 addq $3, %rax
 ret
 function pointer
 movslq %edi, %rdi
 leaq .Lpointers(%rip), %rax
 movq (%rax,%rdi,8), %rax
 ret
 function wide
 leaq .Lwide(%rip), %rax
 ret
 function aligned
 leaq .Laligned(%rip), %rax
 testq $15, %rax
 je 1f
 ud2
1: ret
 function sum
 movaps .Lfour(%rip), %xmm0
 paddd .Lsame(%rip), %xmm0
 movd %xmm0, %eax
 addl .Lfour+4(%rip), %eax
 addl .Lfour+12(%rip), %eax
 ret
 function rest
 leaq .Lrest(%rip), %rax
 ret
 function empty
 leaq .Lempty(%rip), %rax
 ret
 .section .data.rel.ro.pointers,"aw",@progbits
 .balign 8
.Lpointers:
 .quad .Lsection, .rodata.other.str1.1+7, .rodata.other.str1.1+9, .Lword+1, .Lunused{name}
 .section .rodata.str1.1,"aMS",@progbits,1
 .ascii "unused of {name}\\0"
.Lword: .asciz "word"
 .asciz "{name} alone"
.Lempty: .asciz ""
.Lunused{name}: .asciz "last"
 .section .rodata.other.str1.1,"aMS",@progbits,1
.Lsection: .asciz "second"
 .asciz "third"
 .section .rodata.str4.4,"aMS",@progbits,4
 .balign 4
.Lgap: .long 0x57, 0x58, 0
.Lwide: .long 0x77, 0x69, 0x64, 0x65, 0
 .section .rodata.str1.16,"aMS",@progbits,1
 .balign 16
 .asciz "first {name}"
 .balign 16
.Laligned: .asciz "aligned"
 .section .rodata.cst16,"aM",@progbits,16
 .balign 16
 .long 9, 9, 9, 9
.Lfour: .long 1, 20, 3, 400
.Lsame: .long 1, 20, 3, 400
 .section .rodata.rest,"aMS",@progbits,1
 .asciz "begin"
.Lrest: .ascii "no end"
 .byte 0
 .section .note.GNU-stack,"",@progbits
"""
        for name in ("a", "b")
    },
    tuple(
        f"{of}_{name}"
        for name in ("a", "b")
        for of in (
            *("word", "tail", "before", "pointer", "wide", "aligned", "sum", "rest", "empty"),
        )
    ),
    """#include <stdio.h>
#include <wchar.h>
#define USE(N) const char *word_##N(void), *tail_##N(void), *before_##N(void), \\
  *pointer_##N(int), *aligned_##N(void), *rest_##N(void), *empty_##N(void); \\
  const wchar_t *wide_##N(void); int sum_##N(void); \\
  static void show_##N(void) { \\
    printf("%s %s %s %ls %s %d %s (%s):", word_##N(), tail_##N(), before_##N(), wide_##N(), \\
      aligned_##N(), sum_##N(), rest_##N(), empty_##N()); \\
    for (int i = 0; i < 5; i++) printf(" %s", pointer_##N(i)); putchar('\\n'); }
USE(a) USE(b)
int main(void) { show_a(); show_b(); }""",
    2 * "word rd word wide aligned 422 no end (): second third ird ord last\n",
)

case(
    "setup-in-a-group",
    {
        "a.cc": """
extern "C" int made; int made;
template <int N> struct Once { static int value; };
template <int N> int Once<N>::value = (made += N, N);
extern "C" int first() { return Once<5>::value; }
extern "C" int second() { return Once<6>::value; }
""",
        "b.cc": """
extern "C" int made;
template <int N> struct Once { static int value; };
template <int N> int Once<N>::value = (made += N, N);
extern "C" int third() { return Once<5>::value * 100; }
""",
    },
    ("first", "second", "third", "made"),
    """#include <stdio.h>
int first(void), second(void), third(void); extern int made;
int main(void) { printf("%d %d %d %d\\n", first(), second(), third(), made); }""",
    "5 6 500 11\n",
    cxx=True,
)

case(
    "common-and-definition",
    {
        "a.c": "int tie(void); int shared; int api(void) { return shared + tie(); }",
        "b.c": "int shared; int tie(void) { return 1; }",
        "c.c": "int shared = 70;",
    },
    ("api",),
    '#include <stdio.h>\nint api(void); int main(void) { printf("%d\\n", api()); }',
    "71\n",
    flags=("-O1", "-fPIC", "-fcommon"),
    linkers=("bfd",),
)
