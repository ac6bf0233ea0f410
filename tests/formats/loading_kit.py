"""Small libraries whose members define the same names, and programs that tell which were taken.

Members, drawn at random once, define functions `x…` and data `c…` weakly, strongly or as commons,
refer to others, and have a constructor each. A library is some of them in some order. The program
refers to all exports and writes what each of them sees, then the constructors in their order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.formats.native_kit import tool

FUNCTIONS, DATA, MEMBERS = 5, 3, 28

_MAIN = r"""
extern void (*__init_array_start[])(void) __attribute__((weak, visibility("hidden")));
extern void (*__init_array_end[])(void) __attribute__((weak, visibility("hidden")));
extern int (*__start_tab[])(int), (*__stop_tab[])(int);
static char out[4096]; static int used, loaded[64], count;
void note(int member) { loaded[count++] = member; }
static void put(int n) {
  char text[12]; int at = 0;
  do text[at++] = (char)('0' + n % 10); while (n /= 10);
  while (at) out[used++] = text[--at];
  out[used++] = ' ';
}
static long call(long number, long a, long b, long c) {
  long r; __asm__ volatile("syscall" : "=a"(r) : "a"(number), "D"(a), "S"(b), "d"(c)
    : "rcx", "r11", "memory");
  return r;
}
__attribute__((force_align_arg_pointer)) void _start(void) {
  for (void (**f)(void) = __init_array_start; f < __init_array_end; f++) (*f)();
  for (int (**f)(int) = __start_tab; f < __stop_tab; f++) for (int i = 0; i < 4; i++) put((*f)(i));
  out[used++] = '/';
  for (int i = 0; i < count; i++) put(loaded[i]);
  call(1, 1, (long)out, used); call(60, 0, 0, 0);
}
"""


@dataclass(frozen=True)
class Drawn:
    """One library: `members` in order, and what of it a program refers to, in its order."""

    members: tuple[str, ...]
    exports: tuple[str, ...]


def _member(number: int, chance: random.Random, fallback: bool) -> str:
    """The source of a member. A `fallback` defines what it has weakly, and refers to nothing."""
    lines = ["void note(int);"]
    functions = chance.sample(range(FUNCTIONS), chance.randint(1 if fallback else 0, 2))
    data = chance.sample(range(DATA), chance.randint(1 if fallback else 0, 1))
    kinds = ("weak",) if fallback else ("weak", "weak", "weak", "strong")
    for n in range(FUNCTIONS):
        if n not in functions:
            lines.append(f"int x{n}(int);")
            continue
        weak = "__attribute__((weak)) " if chance.choice(kinds) == "weak" else ""
        lines.append(f"{weak}int x{n}(int i) {{ return {number * 10 + n}; }}")
    for n in range(DATA):
        if n not in data:
            lines.append(f"extern int c{n};")
            continue
        how = chance.choice(("common", "weak") if fallback else ("common", "weak", "strong"))
        value = {"common": "", "weak": f" = {number * 10 + n}", "strong": f" = {number * 10 + n}"}
        weak = "__attribute__((weak)) " if how == "weak" else ""
        lines.append(f"{weak}int c{n}{value[how]};")
    seen = [f"x{n}(i)" for n in range(FUNCTIONS)] + [f"c{n}" for n in range(DATA)]
    parts = [] if fallback else chance.sample(seen, chance.randint(1, 4))
    parts += ["0"] * (4 - len(parts))
    cases = " ".join(f"case {i}: return {part};" for i, part in enumerate(parts))
    lines.append(f"int t{number}(int i) {{ switch (i) {{ {cases} }} return 0; }}")
    lines.append(f"__attribute__((constructor)) static void begin(void) {{ note({number}); }}")
    return "\n".join(lines) + "\n"


def sources(seed: int) -> dict[str, str]:
    """The members, and the program's own objects: `main`, and one that refers to each export."""
    chance = random.Random(seed)
    found = {f"m{n}": _member(n, chance, n % 4 == 3) for n in range(MEMBERS)}
    tab = '__attribute__((section("tab"), used)) static int (*const p)(int) ='
    for name in [f"t{n}" for n in range(MEMBERS)] + [f"x{n}" for n in range(FUNCTIONS)]:
        found[f"u{name}"] = f"int {name}(int); {tab} {name};\n"
    for n in range(DATA):
        see = f"extern int c{n}; static int see(int i) {{ return i ? 0 : c{n}; }}"
        found[f"uc{n}"] = f"{see} {tab} see;\n"
    return found | {"main": _MAIN}


def draw(seed: int, chosen: dict[str, str], count: int) -> list[Drawn]:
    """Libraries of a few of the members, in which nothing is undefined."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        members = chance.sample(range(MEMBERS), chance.randint(2, 4))
        for kind, names in (("int x{}(int);", FUNCTIONS), ("extern int c{};", DATA)):
            for name in map(kind.format, range(names)):
                # what nobody defines is in no program
                if all(name in chosen[f"m{n}"] for n in members):
                    more = [n for n in range(MEMBERS) if name not in chosen[f"m{n}"]]
                    members.insert(chance.randint(0, len(members)), chance.choice(more))
        text = "".join(chosen[f"m{n}"] for n in members)
        exports = [f"t{n}" for n in members if chance.random() < 0.6] or [f"t{members[0]}"]
        more = [f"x{n}" for n in range(FUNCTIONS) if f"int x{n}(int i)" in text]
        more += [f"c{n}" for n in range(DATA) if f"\nint c{n}" in text]
        exports += [name for name in more if chance.random() < 0.2]
        chance.shuffle(exports)
        found.append(Drawn(tuple(f"m{n}" for n in members), tuple(exports)))
    return found


def compile_all(folder: Path, texts: dict[str, str], *flags: str, compiler: str = "gcc") -> None:
    """One object for each source, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.c").write_text(text)
    files = [f"{name}.c" for name in texts]
    words = [compiler, "-w", "-O1", "-fno-pic", "-fcommon", "-fno-stack-protector", *flags]
    tool(["env", "-C", folder, *words, "-c", *files])


def program(folder: Path, drawn: Drawn, library: Path) -> Sequence[Path]:
    """What is linked, in this order."""
    return [folder / "main.o", *(folder / f"u{name}.o" for name in drawn.exports), library]


def data_sources(seed: int, weak: str, *, commons: bool) -> dict[str, str]:
    """Members of nothing but data, for formats whose programs do not run here.

    `weak` is how the compiler is told that the first of several definitions counts. `t…` are
    pointers to what each member refers to.
    """
    chance = random.Random(seed)
    found = {}
    for n in range(MEMBERS):
        mine = chance.sample(range(FUNCTIONS), chance.randint(1, 2))
        lines = []
        for x in range(FUNCTIONS):
            how = chance.choice([*8 * [weak], "", "common"])
            if x not in mine:
                lines.append(f"extern int x{x};")
            elif how == "common" and commons:
                lines.append(f"int x{x};")
            else:
                lines.append(f"{'' if how == 'common' else how} int x{x} = {n * 10 + x + 1000};")
        seen = ", ".join(f"&x{x}" for x in chance.sample(range(FUNCTIONS), 2))
        lines.append(f"int *t{n}[] = {{ {seen} }};")
        found[f"m{n}"] = "\n".join(lines) + "\n"
        found[f"ut{n}"] = f"extern int *t{n}[]; int **p{n} = t{n};\n"
    return found


def draw_data(seed: int, chosen: dict[str, str], count: int) -> list[Drawn]:
    """Libraries of a few members of nothing but data, in which nothing is undefined."""
    chance = random.Random(seed)
    found = []
    while len(found) < count:
        members = chance.sample(range(MEMBERS), chance.randint(3, 7))
        text = "".join(chosen[f"m{n}"] for n in members)
        if all(f" int x{x} =" in text or f"\nint x{x};" in text for x in range(FUNCTIONS)):
            exports = tuple(f"t{n}" for n in members if chance.random() < 0.5)
            found.append(Drawn(tuple(f"m{n}" for n in members), exports or (f"t{members[0]}",)))
    return found


__all__ = ["Drawn", "compile_all", "data_sources", "draw", "draw_data", "program", "sources"]
