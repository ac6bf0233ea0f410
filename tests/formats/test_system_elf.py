"""The system engine with the linkers and objcopies of this machine: link what it made, and run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.errors import InputError, LinkError, ObjectError, ToolError
from cargo_strip_hook.core.requests import PrelinkRequest, PrelinkResult, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.system import SystemEngine, elf, steps, tools
from cargo_strip_hook.engines.system.machines import MACHINES
from cargo_strip_hook.engines.system.probe import EXPORT, linker_faults, probe_object
from cargo_strip_hook.verify import Expectation, verify
from tests.tools import missing, need

MARKER = b"made by a test"


@dataclass(frozen=True)
class Chain:
    """Programs for one target. `collects`: what the engine may ask of the linker."""

    triple: str
    ld: str
    objcopy: str
    compiler: str
    collects: bool

    def choose(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STRIP_HOOK_LD", str(need(*self.ld.split("|"))))
        monkeypatch.setenv("STRIP_HOOK_OBJCOPY", str(need(*self.objcopy.split("|"))))
        need(self.compiler)


LLD, LLVM_OBJCOPY = "ld.lld-22|ld.lld", "llvm-objcopy-22|llvm-objcopy"
GNU = Chain("x86_64-unknown-linux-gnu", "ld.bfd", "objcopy", "gcc", True)
CHAINS = {
    "gnu": GNU,
    "gnu-llvm": Chain("x86_64-unknown-linux-gnu", "ld.bfd", LLVM_OBJCOPY, "gcc", True),
    "lld-gnu": Chain("x86_64-unknown-linux-gnu", LLD, "objcopy", "gcc", False),
    "lld": Chain("x86_64-unknown-linux-gnu", LLD, LLVM_OBJCOPY, "gcc", False),
    "aarch64": Chain(
        "aarch64-unknown-linux-gnu",
        "aarch64-linux-gnu-ld",
        "aarch64-linux-gnu-objcopy",
        "aarch64-linux-gnu-gcc",
        True,
    ),
    "aarch64-lld": Chain(
        "aarch64-unknown-linux-gnu", LLD, LLVM_OBJCOPY, "aarch64-linux-gnu-gcc", False
    ),
}


@pytest.fixture(params=CHAINS, ids=str)
def chain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Chain:
    found = CHAINS[request.param]
    found.choose(monkeypatch)
    return found


@pytest.fixture
def gnu(monkeypatch: pytest.MonkeyPatch) -> Chain:
    GNU.choose(monkeypatch)
    return GNU


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(folder: Path, chain: Chain, sources: dict[str, str], *flags: str) -> Path:
    """A static library with one member for each source, in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name, text in sources.items():
        (folder / name).write_text(text)
        objects.append(folder / f"{Path(name).stem}.o")
        compiler = need(chain.compiler.replace("gcc", "g++")) if name.endswith("cc") else None
        argv = [compiler or chain.compiler, "-O1", "-g", "-ffunction-sections", "-fdata-sections"]
        run(*argv, *flags, "-c", folder / name, "-o", objects[-1])
    library = folder / "libfixture.a"
    library.unlink(missing_ok=True)
    run(need("llvm-ar-22", "llvm-ar"), "rcsD", library, *objects)
    return library


def prelink(
    library: Path,
    chain: Chain,
    exports: Sequence[str],
    strip: Strip = Strip.DEBUGINFO,
    out: str = "stripped.a",
) -> tuple[Path, PrelinkResult]:
    output = library.with_name(out)
    target = Target.parse(chain.triple)
    request = PrelinkRequest(library, output, target, tuple(exports), strip, marker=MARKER)
    return output, SystemEngine().prelink(request)


def execute(folder: Path, chain: Chain, main: str, *libraries: Path, linker: str = "") -> str:
    """What a program of one C file and these libraries prints."""
    (folder / "main.c").write_text(main)
    program = folder / "program"
    flags = [f"-fuse-ld={linker}"] if linker else []
    natives = ("-lstdc++", "-lpthread", "-ldl", "-lm")
    run(chain.compiler, folder / "main.c", *libraries, *natives, *flags, "-o", program)
    if chain.triple.startswith("aarch64"):
        sysroot = "/usr/aarch64-linux-gnu"
        return run(need("qemu-aarch64-static", "qemu-aarch64"), "-L", sysroot, program)
    return run(program)


def symbols(library: Path) -> dict[str, str]:
    """Name to nm's letter of the global symbols."""
    lines = run(need("llvm-nm-22", "llvm-nm"), "-g", "-P", library).splitlines()
    words = [line.split() for line in lines if " " in line]
    return {w[0]: w[1] for w in words if len(w) >= 2}


def sections(library: Path) -> list[tuple[str, int]]:
    """Names and flags of the sections of the only member, by pyelftools."""
    import io

    with open_archive(library) as archive:
        (member,) = archive.members
        file = ELFFile(io.BytesIO(bytes(archive.data(member))))
    return [(s.name, int(s["sh_flags"])) for s in file.iter_sections()]


LIFE = """
#include <stdio.h>
int helper(int);
extern int not_there(void);
int api(int a) { return helper(a) + 1; }
int other(void) { return 2; }
int dead(void) { return not_there(); }
__attribute__((constructor(101))) static void first(void) { puts("first"); }
__attribute__((constructor)) static void second(void) { puts("second"); }
__attribute__((destructor)) static void last(void) { puts("last"); }
"""
HELPER = """
#include <stdexcept>
template <class T> struct Counter { static T count; static T next() { return count++; } };
template <class T> T Counter<T>::count = 40;
inline int thrower(int a) { if (a > 9) throw std::runtime_error("big"); return a; }
extern "C" int unused_api() { return 3; }
extern "C" int helper(int a) {
    try { thrower(a); } catch (const std::exception &) { return Counter<int>::next(); }
    return a;
}
"""
LIFE_MAIN = """
#include <stdio.h>
int api(int);
int main(void) {
    int a = api(1), b = api(10), c = api(11);
    printf("%d %d %d\\n", a, b, c);
    return 0;
}
"""


@pytest.mark.parametrize("strip", Strip)
def test_a_program_runs(chain: Chain, strip: Strip, tmp_path: Path) -> None:
    """Constructors with and without priority, an exception, COMDAT groups, unique symbols."""
    library = build(tmp_path, chain, {"life.c": LIFE, "helper.cc": HELPER})
    # what dead code refers to is needed where dead code stays
    main = LIFE_MAIN + ("" if chain.collects else "int not_there(void) { return 0; }\n")
    expected = "first\nsecond\n2 41 42\nlast\n"
    stripped, result = prelink(library, chain, ["api"], strip)
    assert execute(tmp_path, chain, main, stripped) == expected
    shown = symbols(stripped)
    assert {n for n, kind in shown.items() if kind != "U"} == {"api"}
    assert set(result.undefined) == {n for n, kind in shown.items() if kind == "U"}
    assert result.exports == ("api",)
    assert ("not_there" in shown) is not chain.collects
    assert (result.statistics.members_total, result.statistics.members_used) == (2, 2)
    assert (result.link_map is not None) is chain.collects
    if chain.collects:
        target = Target.parse(chain.triple)
        expectation = Expectation(
            target, result.exports, strip, result.link_map, MARKER, covers_debug=result.covers_debug
        )
        assert not result.covers_debug  # GNU ld's map is read for code and data
        assert verify(library, stripped, expectation).pieces == len(result.link_map)
    names = [name for name, _ in sections(stripped)]
    assert (".text.dead" in names) is not chain.collects
    assert any(n.startswith(".debug_") for n in names) is (strip is Strip.NONE)
    assert not any(flags & 0x200 for _, flags in sections(stripped))  # SHF_GROUP
    if chain.collects:
        assert result.warnings == ()
    else:
        (warning,) = result.warnings
        assert "dead code stays" in warning
        assert "drops .eh_frame" in warning


@pytest.mark.parametrize("linker", ["bfd", "gold", "mold"])
def test_other_linkers_take_it(gnu: Chain, linker: str, tmp_path: Path) -> None:
    need({"bfd": "ld.bfd", "gold": "ld.gold", "mold": "mold"}[linker])
    library = build(tmp_path, gnu, {"life.c": LIFE, "helper.cc": HELPER})
    stripped, _ = prelink(library, gnu, ["api"], Strip.SYMBOLS)
    said = execute(tmp_path, gnu, LIFE_MAIN, stripped, linker=linker)
    assert said == "first\nsecond\n2 41 42\nlast\n"


def test_local_names_stay_or_go(gnu: Chain, tmp_path: Path) -> None:
    library = build(tmp_path, gnu, {"life.c": LIFE, "helper.cc": HELPER})
    kept, _ = prelink(library, gnu, ["api"], Strip.DEBUGINFO, "kept.a")
    gone, _ = prelink(library, gnu, ["api"], Strip.SYMBOLS, "gone.a")
    local = [run(need("llvm-nm-22", "llvm-nm"), "-P", path) for path in (kept, gone)]
    assert ["first t" in said for said in local] == [True, False]


SET_C = """
static int one = 1;
__attribute__((section("numbers"), used)) static int *element_1 = &one;
extern int *__start_numbers[], *__stop_numbers[];
int more(void);
int %s_count(void) { more(); return __stop_numbers - __start_numbers; }
int %s_sum(void) {
    int sum = 0;
    for (int **p = __start_numbers; p < __stop_numbers; p++) sum += **p;
    return sum;
}
"""
SET_MORE_C = """
static int value = %d;
__attribute__((section("numbers"), used)) static int *element_2 = &value;
__attribute__((section("unused"), used)) static int *element_3 = &value;
int more(void) { return 0; }
"""
SET_MAIN = """
#include <stdio.h>
int a_count(void), a_sum(void), b_count(void), b_sum(void);
int main(void) { printf("%d %d %d %d\\n", a_count(), a_sum(), b_count(), b_sum()); return 0; }
"""


def test_linker_sets_are_private(chain: Chain, tmp_path: Path) -> None:
    """Two libraries with a set of one name each see their own two elements."""
    stripped = []
    for name, value in (("a", 10), ("b", 20)):
        sources = {"set.c": SET_C.replace("%s", name), "more.c": SET_MORE_C % value}
        library = build(tmp_path / name, chain, sources)
        stripped.append(prelink(library, chain, [f"{name}_count", f"{name}_sum"])[0])
    assert execute(tmp_path, chain, SET_MAIN, *stripped) == "2 11 2 21\n"
    names = [{n for n, _ in sections(path)} for path in stripped]
    ours = [{n for n in found if n.startswith("numbers")} for found in names]
    assert [len(found) for found in ours] == [1, 1]
    assert ours[0] != ours[1]
    assert not any("numbers" in n for path in stripped for n in symbols(path))


def test_old_constructors_and_retained_sections(chain: Chain, tmp_path: Path) -> None:
    source = """
        static void old(void) {}
        __attribute__((section(".ctors.65000"), used)) static void (*c)(void) = old;
        __attribute__((section(".dtors"), used)) static void (*d)(void) = old;
        __asm__(".section .kept,\\"awR\\",%progbits\\n.quad old\\n.text\\n");
        int api(void) { return 0; }
    """
    library = build(tmp_path, chain, {"old.c": source})
    stripped, _ = prelink(library, chain, ["api"], Strip.SYMBOLS)
    names = {name for name, _ in sections(stripped)}
    assert {".ctors.65000", ".dtors", ".kept", ".text.old"} <= names


def test_bitcode_and_stale_lists_go(gnu: Chain, tmp_path: Path) -> None:
    source = """
        __asm__(".section .llvmbc,\\"e\\",%progbits\\n.ascii \\"BC\\"\\n"
                ".section .llvmcmd,\\"e\\",%progbits\\n.ascii \\"-O\\"\\n.text\\n");
        int api(void) { return 0; }
    """
    library = build(tmp_path, gnu, {"bits.c": source})
    clang = need("clang-22", "clang")
    (tmp_path / "more.c").write_text("int g(void) { return 1; } int (*p)(void) = g;")
    run(clang, "-faddrsig", "-c", tmp_path / "more.c", "-o", tmp_path / "more.o")
    run(need("llvm-ar-22", "llvm-ar"), "rcs", library, tmp_path / "more.o")
    stripped, _ = prelink(library, gnu, ["api", "p"], Strip.NONE)
    names = {name for name, _ in sections(stripped)}
    assert not names & {".llvmbc", ".llvmcmd", ".llvm_addrsig"}


def test_the_marker(chain: Chain, tmp_path: Path) -> None:
    """A section that is not allocated, and only one of it after a second run."""
    library = build(tmp_path, chain, {"a.c": "int api(void) { return 0; }"})
    once, _ = prelink(library, chain, ["api"])
    twice, _ = prelink(once, chain, ["api"], out="twice.a")
    for path in (once, twice):
        (flags,) = [flags for name, flags in sections(path) if name == ".cargo-strip-hook"]
        assert not flags & 2  # SHF_ALLOC
        assert path.read_bytes().count(MARKER) == 1


def test_the_same_bytes_again(chain: Chain, tmp_path: Path) -> None:
    """Whatever the folder is called; no name of a temporary file is in it."""
    sources = {"life.c": LIFE, "helper.cc": HELPER}
    library = build(tmp_path / "made", chain, sources)
    found = []
    for name in ("one", "another-folder"):
        (tmp_path / name).mkdir()
        copy = Path(shutil.copy(library, tmp_path / name / "libfixture.a"))
        found.append(prelink(copy, chain, ["api"])[0].read_bytes())
    assert found[0] == found[1]
    assert b"cargo-strip-hook-" not in found[0]
    assert str(tmp_path).encode() not in found[0]


def test_nothing_is_left_behind(
    gnu: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build(tmp_path / "made", gnu, {"a.c": "int api(void) { return 0; }"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = {p.name for p in library.parent.iterdir()}
    prelink(library, gnu, ["api"])
    with pytest.raises(LinkError):
        prelink(library, gnu, ["missing"], out="failed.a")
    assert {p.name for p in library.parent.iterdir()} == before | {"stripped.a"}
    assert list(scratch.iterdir()) == []


def test_lazily_loaded(chain: Chain, tmp_path: Path) -> None:
    """Members that nothing needs are not linked; of two members with one name both may be."""
    library = build(
        tmp_path,
        chain,
        {"a.c": "int b(void); int api(void) { return b(); }", "c.c": "int c(void) { return 3; }"},
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.c").write_text("int b(void) { return 2; }")
    run(chain.compiler, "-c", tmp_path / "sub" / "a.c", "-o", tmp_path / "sub" / "a.o")
    run(need("llvm-ar-22", "llvm-ar"), "qcs", library, tmp_path / "sub" / "a.o")
    stripped, result = prelink(library, chain, ["api"])
    assert (result.statistics.members_total, result.statistics.members_used) == (3, 2)
    main = '#include <stdio.h>\nint api(void); int main(void) { printf("%d\\n", api()); }'
    assert execute(tmp_path, chain, main, stripped) == "2\n"


def test_an_archive_without_index(gnu: Chain, tmp_path: Path) -> None:
    library = build(tmp_path, gnu, {"life.c": LIFE, "helper.cc": HELPER})
    run(need("llvm-ar-22", "llvm-ar"), "rcSD", library)
    bare = tmp_path / "bare.a"
    run(need("llvm-ar-22", "llvm-ar"), "rcSD", bare, tmp_path / "life.o", tmp_path / "helper.o")
    stripped, _ = prelink(bare, gnu, ["api"])
    said = execute(tmp_path, gnu, LIFE_MAIN, stripped)
    assert said == "first\nsecond\n2 41 42\nlast\n"


def test_the_c_library_stays_outside(chain: Chain, tmp_path: Path) -> None:
    """musl's objects are called `*.lo`: what they define is left to the consumer."""
    library = build(
        tmp_path, chain, {"a.c": "int open64x(void); int api(void) {return open64x();}"}
    )
    (tmp_path / "libc.c").write_text("int open64x(void) { return 1; }")
    run(chain.compiler, "-c", tmp_path / "libc.c", "-o", tmp_path / "open.lo")
    run(need("llvm-ar-22", "llvm-ar"), "rcs", library, tmp_path / "open.lo")
    _, result = prelink(library, chain, ["api"])
    assert result.undefined == ("open64x",)


@pytest.mark.parametrize("name", ["gnu", "lld"])
def test_two_definitions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = CHAINS[name]
    chain.choose(monkeypatch)
    a = "int b(void); int same(void) { return 1; } int api(void) { return b() + same(); }"
    b = "int same(void) { return 2; } int b(void) { return same(); }"
    library = build(tmp_path, chain, {"a.c": a, "b.c": b})
    with pytest.raises(LinkError, match="`same` more than once") as error:
        prelink(library, chain, ["api"])
    said = " ".join(error.value.help)
    assert "a.o" in said
    assert "b.o" in said


def test_an_export_that_is_not_there(chain: Chain, tmp_path: Path) -> None:
    source = "extern int gone(void); int api(void) { return gone(); }"
    library = build(tmp_path, chain, {"a.c": source})
    with pytest.raises(LinkError, match="does not define `absent`, `gone`"):
        prelink(library, chain, ["absent", "api", "gone"])


def test_private_commons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "int mine[9], idle[3]; int api(void) { return ++mine[3]; }"
    main = '#include <stdio.h>\nint api(void); int main(void) { api(); printf("%d\\n", api()); }'
    GNU.choose(monkeypatch)
    library = build(tmp_path, GNU, {"a.c": source}, "-fcommon")
    stripped, _ = prelink(library, GNU, ["api"])
    assert execute(tmp_path, GNU, main, stripped) == "2\n"
    assert "mine" not in symbols(stripped)
    lld = CHAINS["lld"]
    lld.choose(monkeypatch)
    with pytest.raises(LinkError, match="lld cannot make private"):
        prelink(library, lld, ["api"])


def test_exported_commons(gnu: Chain, tmp_path: Path) -> None:
    """They stay common, of the largest size, even if nothing refers to them."""
    sources = {
        "a.c": "int used[2], unused[3]; int more(void); int api(void) { return more(); }",
        "b.c": "int used[9]; int more(void) { return used[8]; }",
    }
    library = build(tmp_path, gnu, sources, "-fcommon")
    stripped, _ = prelink(library, gnu, ["api", "unused", "used"])
    assert symbols(stripped) == {"api": "T", "unused": "C", "used": "C"}
    said = run(need("llvm-nm-22", "llvm-nm"), "-S", "-P", stripped)
    sizes = {w[0]: int(w[3], 16) for w in map(str.split, said.splitlines()) if len(w) == 4}
    assert (sizes["used"], sizes["unused"]) == (36, 12)


def test_members_that_cannot_be_linked(gnu: Chain, tmp_path: Path) -> None:
    clang = need("clang-22", "clang")
    library = build(tmp_path, gnu, {"a.c": "int api(void) { return 0; }"})
    ar = need("llvm-ar-22", "llvm-ar")
    cases = {
        "bits": (["-flto"], ObjectError, "bitcode"),
        "arm": (["--target=aarch64-linux-gnu"], InputError, "different kinds"),
    }
    for name, (flags, kind, words) in cases.items():
        (tmp_path / "other.c").write_text("int other(void) { return 0; }")
        run(clang, *flags, "-c", tmp_path / "other.c", "-o", tmp_path / f"{name}.o")
        mixed = Path(shutil.copy(library, tmp_path / f"{name}.a"))
        run(ar, "rcs", mixed, tmp_path / f"{name}.o")
        with pytest.raises(kind, match=words) as error:
            prelink(mixed, gnu, ["api"], out=f"{name}-out.a")
        assert error.value.member == f"{name}.o"


def test_another_architecture(gnu: Chain, tmp_path: Path) -> None:
    library = build(tmp_path, gnu, {"a.c": "int api(void) { return 0; }"})
    request = PrelinkRequest(
        library,
        tmp_path / "out.a",
        Target.parse("aarch64-unknown-linux-gnu"),
        ("api",),
        Strip.NONE,
    )
    with pytest.raises(InputError, match=r"libfixture\.a\(a\.o\).*not for aarch64"):
        SystemEngine().prelink(request)


def test_gcc_intermediate_language(gnu: Chain, tmp_path: Path) -> None:
    slim = build(tmp_path / "slim", gnu, {"a.c": "int api(void) { return 0; }"}, "-flto")
    with pytest.raises(ObjectError, match="intermediate language"):
        prelink(slim, gnu, ["api"])
    slim.unlink()
    run(need("gcc-ar"), "rcs", slim, slim.with_name("a.o"))  # whose index says more
    with pytest.raises(ObjectError, match="intermediate language"):
        prelink(slim, gnu, ["api"])
    flags = ("-flto", "-ffat-lto-objects")
    fat = build(tmp_path / "fat", gnu, {"a.c": "int api(void) { return 0; }"}, *flags)
    stripped, _ = prelink(fat, gnu, ["api"], Strip.NONE)
    assert not any("lto_" in name for name, _ in sections(stripped))


@pytest.mark.parametrize(
    ("names", "faults"),
    [
        ("ld.bfd", set()),
        ("ld.lld-22|ld.lld", {"drops .eh_frame, so that a panic would abort"}),
    ],
)
def test_what_linkers_get_wrong(names: str, faults: set[str], tmp_path: Path) -> None:
    """The reason for the probe: measured with GNU ld 2.40 and lld 22."""
    linker = tools.judge("ld", tools.Candidate((str(need(*names.split("|"))),)))
    machine = MACHINES["x86_64"]
    source = tmp_path / "probe.o"
    source.write_bytes(probe_object(machine))
    job = steps.LinkJob(source, (EXPORT,), machine, collect=True)
    linked = steps.link(linker, job, tmp_path)
    assert set(linker_faults(linked.view, collected=True)) == faults
    whole = steps.link(linker, steps.LinkJob(source, (EXPORT,), machine, False), tmp_path)
    assert linker_faults(whole.view, collected=False) == ()


def test_sets_and_old_constructors_must_be_named(tmp_path: Path) -> None:
    """Without its list of roots GNU ld drops them: the list is not there for nothing."""
    machine = MACHINES["x86_64"]
    source, linked = tmp_path / "probe.o", tmp_path / "linked.o"
    source.write_bytes(probe_object(machine))
    run(need("ld.bfd"), "-r", "--gc-sections", "-u", EXPORT, source, "-o", linked)
    names = run(need("llvm-readelf-22", "llvm-readelf"), "-SW", linked)
    assert ".init_array.00101" in names
    assert " strip_hook_probe_set" not in names
    assert ".ctors.65000" not in names


def test_unique_symbols_and_objcopy(tmp_path: Path) -> None:
    """GNU objcopy leaves STB_GNU_UNIQUE global: measured with 2.40."""
    path, out = tmp_path / "probe.o", tmp_path / "out.o"
    path.write_bytes(probe_object(MACHINES["x86_64"]))
    (tmp_path / "keep").write_text(f"{EXPORT}\n")
    run(need("objcopy"), f"--keep-global-symbols={tmp_path / 'keep'}", path, out)
    assert "probe_unique" in symbols(out)


def test_a_better_linker_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lld first on the list, GNU ld after it: the one that can drop dead code is taken."""
    commands = [str(need("ld.lld-22", "ld.lld")), str(need("ld.bfd"))]
    real = tools.candidates
    monkeypatch.setattr(
        tools,
        "candidates",
        lambda kind, target: (
            [tools.Candidate((c,)) for c in commands] if kind == "ld" else real(kind, target)
        ),
    )
    target = Target.parse("x86_64-unknown-linux-gnu")
    box = elf.choose(target, MACHINES["x86_64"], tmp_path)
    assert (box.linker.family, box.collect, box.faults) == ("gnu", True, ())


def test_an_objcopy_for_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = CHAINS["aarch64"]
    chain.choose(monkeypatch)
    library = build(tmp_path, chain, {"a.c": "int api(void) { return 0; }"})
    monkeypatch.setenv("STRIP_HOOK_OBJCOPY", str(need("x86_64-linux-gnu-objcopy")))
    with pytest.raises(ToolError, match=r"no objcopy for aarch64.*Unable to recognise"):
        prelink(library, chain, ["api"])


RUST = """
use std::cell::Cell;
struct Guard(i32);
thread_local! { static SEEN: Cell<i32> = const { Cell::new(0) }; }
impl Drop for Guard { fn drop(&mut self) { SEEN.with(|s| s.set(s.get() + self.0)); } }
#[no_mangle]
pub extern "C" fn rust_catch(value: i32) -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    let caught = std::panic::catch_unwind(|| { let _g = Guard(value); panic!("{value}") });
    let told = caught.unwrap_err().downcast::<String>().unwrap().parse::<i32>().unwrap();
    told * 100 + SEEN.with(|s| s.get())
}
#[no_mangle]
pub extern "C" fn rust_thread() -> i32 { std::thread::spawn(|| 5).join().unwrap() }
#[no_mangle]
pub extern "C" fn rust_internal() -> i32 { 1 }
"""
RUST_MAIN = """
#include <stdio.h>
int rust_catch(int), rust_thread(void);
int rust_internal(void) { return 0; } /* the library's own may not be in the way */
int main(void) { printf("%d %d\\n", rust_catch(7), rust_thread()); return rust_internal(); }
"""


@pytest.fixture(scope="module")
def rust_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rust")
    (folder / "lib.rs").write_text(RUST)
    library = folder / "librust.a"
    argv = ["--crate-type", "staticlib", "-O", "--crate-name", "fixture", "--edition", "2021"]
    run(need("rustc"), *argv, folder / "lib.rs", "-o", library)
    return library


@pytest.mark.parametrize("name", ["gnu", "gnu-llvm", "lld"])
@pytest.mark.parametrize("strip", [Strip.DEBUGINFO, Strip.SYMBOLS])
def test_rust_panics(
    name: str, strip: Strip, rust_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = CHAINS[name]
    chain.choose(monkeypatch)
    library = Path(shutil.copy(rust_library, tmp_path))
    stripped, _ = prelink(library, chain, ["rust_catch", "rust_thread"], strip)
    assert execute(tmp_path, chain, RUST_MAIN, stripped) == "707 5\n"
    small = 0.1 if chain.collects else 0.4
    assert stripped.stat().st_size < small * library.stat().st_size


def test_with_what_rust_brings(
    rust_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rust-lld and rust-objcopy, where the toolchain has them and nothing else is installed."""
    rustc = need("rustc")
    sysroot = Path(run(rustc, "--print", "sysroot").strip())
    if not list(sysroot.glob("lib/rustlib/*/bin/rust-lld")):
        missing("rust-lld")
    if not list(sysroot.glob("lib/rustlib/*/bin/rust-objcopy")):
        missing("rust-objcopy")
    library = Path(shutil.copy(rust_library, tmp_path))
    with monkeypatch.context() as m:
        (tmp_path / "bin").mkdir()
        m.setenv("PATH", str(tmp_path / "bin"))
        m.setenv("RUSTC", str(sysroot / "bin" / "rustc"))
        for variable in ("LD", "OBJCOPY", "STRIP_HOOK_LD", "STRIP_HOOK_OBJCOPY"):
            m.delenv(variable, raising=False)
        stripped, result = prelink(library, GNU, ["rust_catch", "rust_thread"])
    assert "rust-lld" in result.warnings[0]
    assert execute(tmp_path, GNU, RUST_MAIN, stripped) == "707 5\n"
