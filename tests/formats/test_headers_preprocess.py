"""The preprocessor does what clang's does."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.preprocess import preprocess
from tests.tools import need

HOST = Target.parse("x86_64-unknown-linux-gnu")


def clang_tokens(path: Path) -> list[str]:
    argv = [need("clang-22", "clang"), "-target", HOST.triple]
    return compiler_tokens(argv, path)


def compiler_tokens(argv: Sequence[str | Path], path: Path) -> list[str]:
    done = subprocess.run(
        [*argv, "-E", "-P", "-w", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return split(done.stdout)


def split(text: str) -> list[str]:
    return re.findall(r'"(?:[^"\\]|\\.)*"|\w+|\.\.\.|[^\w\s]', text)


def our_tokens(path: Path) -> list[str]:
    return split(" ".join(t.text for t in preprocess(path, target=HOST).tokens))


ATOMS = (
    *(
        "0",
        "1",
        "2u",
        "017",
        "0x7f",
        "0b101",
        "'a'",
        "'\\n'",
        "UNKNOWN",
        "ONE",
        "TWO",
        "3UL",
        "5ll",
    ),
    *("__INT_MAX__", "9223372036854775807", "18446744073709551615u", "0xffffffffffffffff"),
    *("(-1)", "!defined(NONE)", "defined ONE", "defined(ONE)", "PLUS(1, 2)"),
)


def expression(rng: random.Random, depth: int) -> str:
    """A random constant expression; divisors are never zero."""
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(ATOMS)
    kind = rng.random()
    left, right = expression(rng, depth - 1), expression(rng, depth - 1)
    if kind < 0.15:
        return f"{rng.choice('-~!+')}({left})"
    if kind < 0.25:
        return f"({left} ? {right} : {expression(rng, depth - 1)})"
    if kind < 0.32:
        return f"({left}) {rng.choice('/%')} {rng.choice(['3', '7u', '(-2)'])}"
    if kind < 0.4:
        return f"((({left}) & 0xff) {rng.choice(['<<', '>>'])} {rng.choice(['1', '3', '8u'])})"
    operators = ["+", "-", "*", "&", "|", "^", "&&", "||", "==", "!=", "<", ">", "<=", ">="]
    text = f"{left} {rng.choice(operators)} {right}"
    return f"({text})" if rng.random() < 0.5 else text


@pytest.mark.parametrize("seed", range(4))
def test_conditions(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    lines = ["#define ONE 1", "#define TWO (ONE + ONE)", "#define PLUS(a, b) ((a) + (b))"]
    for n in range(400):
        lines += [f"#if {expression(rng, 4)}", f"yes_{n}", "#else", f"no_{n}", "#endif"]
    path = tmp_path / "conditions.c"
    path.write_text("\n".join(lines) + "\n")
    assert our_tokens(path) == clang_tokens(path)


MACROS = {
    "standard example 3": """
#define x 3
#define f(a) f(x * (a))
#undef x
#define x 2
#define g f
#define z z[0]
#define h g(~
#define m(a) a(w)
#define w 0,1
#define t(a) a
#define p() int
#define q(x) x
#define r(x,y) x ## y
#define str(x) # x
f(y+1) + f(f(z)) % t(t(g)(0) + t)(1);
g(x+(3,4)-w) | h 5) & m
    (f)^m(m);
p() i[q()] = { q(1), r(2,3), r(4,), r(,5), r(,) };
char c[2][6] = { str(hello), str() };
""",
    "standard example 4": """
#define str(s) # s
#define xstr(s) str(s)
#define debug(s, t) printf("x" # s "= %d, x" # t "= %s", \\
 x ## s, x ## t)
#define INCFILE(n) vers ## n
#define glue(a, b) a ## b
#define xglue(a, b) glue(a, b)
#define HIGHLOW "hello"
#define LOW LOW ", world"
debug(1, 2);
fputs(str(strncmp("abc\\0d", "abc", '\\4') // this goes away
 == 0) str(: @\\n), s);
xstr(INCFILE(2).h)
glue(HIGH, LOW);
xglue(HIGH, LOW)
""",
    "standard example 5": """
#define t(x,y,z) x ## y ## z
int j[] = { t(1,2,3), t(,4,5), t(6,,7), t(8,9,), t(10,,), t(,11,), t(,,12), t(,,) };
""",
    "hash hash": """
#define hash_hash # ## #
#define mkstr(a) # a
#define in_between(a) mkstr(a)
#define join(c, d) in_between(c hash_hash d)
char p[] = join(x, y);
""",
    "variadic": """
#define debug(...) fprintf(stderr, __VA_ARGS__)
#define showlist(...) puts(#__VA_ARGS__)
#define report(test, ...) ((test)?puts(#test): printf(__VA_ARGS__))
debug("Flag"); debug("X = %d\\n", x);
showlist(The first, second, and third items.);
report(x>y, "x is %d but y is %d", x, y);
#define gnu(fmt, args...) f(fmt, ##args)
gnu("a"); gnu("a", 1, 2); gnu("a", );
#define opt(x, ...) f(x __VA_OPT__(,) __VA_ARGS__)
opt(1) opt(1, 2) opt(1, )
#define count(...) pick(__VA_ARGS__, 3, 2, 1)
#define pick(a, b, c, n, ...) n
count(x) count(x, y) count(x, y, z)
""",
    "nesting": """
#define EMPTY()
#define DEFER(id) id EMPTY()
#define EXPAND(...) __VA_ARGS__
#define A() 123
DEFER(A)() EXPAND(DEFER(A)())
#define foo(x) bar x
foo(foo) (2)
#define a() b
#define b() a
a()()()() b()()
#define NIL(xxx) xxx
#define G_0(arg) NIL(G_1)(arg)
#define G_1(arg) NIL(arg)
G_0(42)
#define AA BB
#define BB AA
AA BB
#define CALL(f, ...) f(__VA_ARGS__)
#define TWO(x, y) y x
CALL(TWO, 1, (2, 3)) CALL(CALL, TWO, 4, 5)
__LINE__ TWO(__LINE__,
 __LINE__)
""",
    "lines": """
#define A(x, y) [y x]
A(1
  ,2) trailing
# /* null directive */
#
/* a comment before */ #define B 1 /* and
 after */ B B
B // line comment \\
continued
"a // string" 'b' "/* c */" 1.5e+3 0x1p-2 .5
#define C \\
  multi \\
  line
C
#ifdef A
# if 0
#  error dead
#  if
#  endif
# elif 1
alive
# elif 1/0
# else
dead
# endif
#elif
#endif
#ifndef A
#elifdef B
elifdef
#endif
""",
    "conditions out of macros": """
#define A 1
#define USES_A (defined(A) && !defined B)
#if USES_A
uses_a
#endif
#define KNOWS(header) __has_include(header)
#define ID(x) x
#if KNOWS(<no/such.h>) || ID(defined(NONE))
never
#elif ID(KNOWS(<stddef.h>))
stddef
#endif
""",
    "the line of a call": """
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define NUMBERED(name) PASTE(name, __LINE__)
#define HERE __LINE__
NUMBERED(one_) HERE
NUMBERED(two_) HERE
""",
}


@pytest.mark.parametrize("name", MACROS)
def test_macros(name: str, tmp_path: Path) -> None:
    path = tmp_path / "macros.c"
    path.write_text(MACROS[name])
    assert our_tokens(path) == clang_tokens(path)


def test_includes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "once.h").write_text('#pragma once\nonce_h\n#include "guarded.h"\n')
    (tmp_path / "sub" / "guarded.h").write_text(
        "#ifndef G\n#define G\nguarded\n#include MACRO\n#endif\nafter_guard\n"
    )
    (tmp_path / "top.h").write_text("top_h __FILE_IS_NOT_SHOWN\n")
    path = tmp_path / "main.c"
    path.write_text(
        '#define MACRO "../top.h"\n#include "sub/once.h"\n#include "sub/once.h"\n'
        '#include "sub/guarded.h"\nend\n'
    )
    assert our_tokens(path) == clang_tokens(path)


@pytest.mark.parametrize("compiler", ["clang-22", "gcc"])
@pytest.mark.parametrize("end", ["\r", "\r\n", "mixed"])
def test_ends_of_lines(compiler: str, end: str, tmp_path: Path) -> None:
    """A lone carriage return ends a line too, in comments and after a backslash as well."""
    text = (
        "/* licence\n * text */\n#define TWO(a) a \\\n a\n// comment \\\n goes on\nTWO(1) TWO(2)\n"
        "#if 1 \\\n && 0\nnever\n#endif\n__LINE__ // end\nlast\fone\vline\n"
    )
    if end == "mixed":
        head, rest = text[:23], text[23:]
        text = head + rest.replace("\n", "\r", 5).replace("\n", "\r\n", 3)
    else:
        text = text.replace("\n", end)
    path = tmp_path / "ends.c"
    path.write_bytes(text.encode())
    expected = compiler_tokens([need(compiler)], path)
    assert expected[:4] == ["1", "1", "2", "2"]
    assert our_tokens(path) == expected
