"""Kept debug information says of the linked program what that of the original said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import native_kit as kit
from tests.formats.prelinked import Editor
from tests.tools import need

SOURCES = {
    "a.c": """
struct pair { int first; long second; };
static __thread int per_thread = 3;
__attribute__((noinline)) static int inner(struct pair *p, int by) {
  for (int i = 0; i < by; i++)
    p->first += i * by;
  return p->first + per_thread++;
}
int dead_function(int x) {
  return inner(0, x) + 1;
}
int outer(int by) {
  struct pair p = {1, 2};
  int r = inner(&p, by);
  return r + (int)p.second;
}
""",
    "b.cc": """
#define TWICE(x) ((x) + (x))
template <class T> struct Box { T value; int get(int k); };
template <class T> int Box<T>::get(int k) {
  return TWICE(value) + k;
}
inline int shared_inline(int x) {
  Box<long> b{x};
  return b.get(x) * 3;
}
int dead_cxx(int x) { return shared_inline(x) - 1; }
extern "C" int cxx(int x) {
  if (x > 3)
    return shared_inline(x);
  return shared_inline(x + 1);
}
""",
    "c.cc": """
template <class T> struct Box { T value; int get(int k); };
template <class T> int Box<T>::get(int k) {
  return value + value + k;
}
extern "C" int other(int x) {
  Box<long> b{x};
  return b.get(x);
}
""",
}
MAIN = """
int outer(int), cxx(int), other(int);
int main(void) { return outer(4) + cxx(2) + other(5) == 1; }
"""
VARIANTS = {
    "dwarf-5": ("gcc", "-gdwarf-5"),
    "dwarf-4": ("gcc", "-gdwarf-4"),
    "dwarf-4-sections": ("gcc", "-gdwarf-4", "-ffunction-sections"),
    "dwarf-5-sections": ("gcc", "-gdwarf-5", "-ffunction-sections", "-O2"),
    "zlib": ("gcc", "-gdwarf-5", "-gz=zlib", "-ffunction-sections"),
    "split": ("gcc", "-gdwarf-5", "-gsplit-dwarf", "-ffunction-sections"),
    "types": ("gcc", "-gdwarf-5", "-fdebug-types-section", "-ffunction-sections"),
    "macros": ("gcc", "-gdwarf-5", "-g3", "-ffunction-sections"),
    "clang": ("clang-22", "-gdwarf-5", "-ffunction-sections", "-O1"),
    "clang-4": ("clang-22", "-gdwarf-4", "-ffunction-sections", "-O2"),
    "clang-split": ("clang-22", "-gdwarf-5", "-gsplit-dwarf", "-ffunction-sections"),
}


@pytest.fixture(scope="module", params=VARIANTS)
def linked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A program from the original, and one from the library with kept debug information."""
    folder = tmp_path_factory.mktemp(request.param)
    compiler, *flags = VARIANTS[request.param]
    given = None if compiler == "gcc" else compiler
    original = kit.library(folder, SOURCES, "-fPIC", *flags, compiler=given)
    stripped, _ = kit.strip(original, ("outer", "cxx", "other"), Strip.NONE)
    (main,) = kit.build(folder, {"main.c": MAIN}, "-fPIE")
    before = kit.link(folder / "before", [main, original], "bfd", "-Wl,--gc-sections", driver="g++")
    after = kit.link(folder / "after", [main, stripped], "bfd", "-Wl,--gc-sections", driver="g++")
    return before, after


@pytest.mark.parametrize("variant", VARIANTS)
def test_split_off_files_are_told(variant: str, tmp_path: Path) -> None:
    """Those of live members, and nothing where nothing is split off."""
    compiler, *flags = VARIANTS[variant]
    given = None if compiler == "gcc" else compiler
    original = kit.library(tmp_path, SOURCES, "-fPIC", *flags, compiler=given)
    _, result = kit.strip(original, ("outer", "cxx"), Strip.NONE)
    told = [w for w in result.warnings if "is split off into 2 files" in w]
    assert len(told) == ("split" in variant)
    if told:
        (name,) = re.findall(r"`(\S+\.dwo)`", told[0])
        assert Path(tmp_path, name).name == "a.dwo"


def functions(program: Path) -> dict[str, tuple[int, int]]:
    rows = kit.tool(["nm", "-S", "--defined-only", program]).splitlines()
    found = {}
    for row in rows:
        words = row.split()
        if len(words) == 4 and words[2] in "tTwW":
            found[words[3]] = int(words[0], 16), int(words[1], 16)
    return {n: f for n, f in found.items() if re.search(r"inner|outer|cxx|other|shared|Box", n)}


def lines(program: Path, addresses: list[int]) -> list[str]:
    argv = [need("llvm-symbolizer-22", "llvm-symbolizer"), f"--obj={program}", "--inlines"]
    return kit.tool([*argv, *(hex(a) for a in addresses)]).split("\n\n")


def test_every_instruction_symbolises_as_before(linked: tuple[Path, Path]) -> None:
    before, after = linked
    old, new = functions(before), functions(after)
    assert new.keys() == old.keys()
    assert {"inner", "outer", "cxx", "other"} <= new.keys()
    for name, (start, size) in old.items():
        assert new[name][1] == size
        expected = lines(before, [start + i for i in range(size)])
        got = lines(after, [new[name][0] + i for i in range(size)])
        assert not any("??:0:0" in line for line in expected), name
        assert got == expected, name


def test_gdb_stops_by_function_and_by_line(linked: tuple[Path, Path]) -> None:
    answers = []
    for program in linked:
        argv = [need("gdb"), "-nx", "-batch", "-ex", "set confirm off"]
        argv += ["-ex", "break inner", "-ex", "break c.cc:7", "-ex", "run", "-ex", "bt"]
        argv += ["-ex", "info args", "-ex", "print *p", "-ex", "continue", "-ex", "info locals"]
        said = kit.tool([*argv, program])
        said = re.sub(r"0x[0-9a-f]+|Thread debugging.*\n|Using host.*\n", "", said)
        answers.append(said)
    assert "inner (p=" in answers[0] and "first = 1" in answers[0], answers[0]
    assert answers[1] == answers[0]


def test_dwarfdump_finds_nothing_new(linked: tuple[Path, Path]) -> None:
    errors = []
    for program in linked:
        argv = [need("llvm-dwarfdump-22", "llvm-dwarfdump"), "--verify", program]
        said = kit.tool(argv, accept=(0, 1))
        found = re.findall(r"^error: (.*)$", said, re.M)
        errors.append({re.sub(r"0x[0-9a-f]+|\d+", "N", e) for e in found})
    assert errors[1] <= errors[0]


@pytest.mark.parametrize("granularity", list(Granularity))
def test_dead_functions_have_a_tombstone(granularity: Granularity, tmp_path: Path) -> None:
    """No address that a live function has is claimed by a dead one; lists do not end early."""
    for version in ("-gdwarf-4", "-gdwarf-5"):
        original = kit.library(tmp_path, SOURCES, "-fPIC", "-O1", version, "-ffunction-sections")
        exports = ("outer", "cxx", "other")
        stripped, _ = kit.strip(original, exports, Strip.NONE, granularity)
        (main,) = kit.build(tmp_path, {"main.c": MAIN}, "-fPIE")
        for linker in ("bfd", "lld", "mold"):
            program = kit.link(tmp_path / "p", [main, stripped], linker, driver="g++")
            found = functions(program)
            for name, (start, _) in found.items():
                # frames of inlined functions come first: the last one is the function itself
                frames = lines(program, [start])[0].split("\n")[:-1:2]
                wanted = "Box" if "Box" in name else name.replace("_Z13", "")[:5]
                assert wanted in frames[-1], (name, frames, linker, version)
            said = kit.tool(["readelf", "--debug-dump=Ranges", program])
            assert "Warning" not in said


def test_relocations_of_another_size_are_refused(tmp_path: Path) -> None:
    (path,) = kit.build(tmp_path, {"a.c": SOURCES["a.c"]}, "-fPIC", "-g")
    editor = Editor(path.read_bytes())
    where = editor.section(".rela.debug_info")["offset"]
    editor.set_section(".rela.debug_info", entsize=23)
    path.write_bytes(editor.data)
    original = kit.archive(tmp_path / "libt.a", [path])
    with pytest.raises(ObjectError, match="entries of an unknown size") as caught:
        kit.strip(original, ("outer",), Strip.NONE)
    assert (caught.value.member, caught.value.offset) == ("a.o", where)
