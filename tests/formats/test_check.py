"""What `check` says of libraries whose every symbol is known, because a C compiler made them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cargo_strip_hook.analysis.check import decide_or_remember, inspect, read_facts
from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.cli.main import main
from cargo_strip_hook.core.errors import DiscoveryError, ExportsError, InputError
from cargo_strip_hook.core.requests import ExportSet, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.formats.detect import deduce_target
from cargo_strip_hook.pipeline.strip import Job, plan_library, strip_library
from tests.tools import need

LINUX = Target.parse("x86_64-unknown-linux-gnu")
TRIPLE = "x86_64-linux-gnu"

API = """\
int helper(int);
int api_one(int n) { return helper(n) + 1; }
int api_two(int n) { return helper(n) + 2; }
"""
HELPER = (
    "int helper(int n) { return 2 * n; }\n__attribute__((weak)) int shared(void) { return 0; }\n"
)


def build(
    folder: Path,
    sources: Mapping[str, str],
    flags: Sequence[str] = ("-ffunction-sections",),
    target: str = TRIPLE,
    name: str = "libapi.a",
) -> Path:
    """Compile each source and put the objects into an archive."""
    folder.mkdir(exist_ok=True)
    objects = []
    for file, text in sources.items():
        source = folder / file
        source.write_text(text)
        objects.append(source.with_suffix(".o"))
        language = ["-x", "c++"] if source.suffix == ".cpp" else []
        compiler = need("clang-22", "clang")
        argv = [compiler, f"--target={target}", "-O1", *language, *flags]
        subprocess.run([*argv, "-c", source, "-o", objects[-1]], check=True)
    library = folder / name
    library.unlink(missing_ok=True)
    subprocess.run([need("llvm-ar-22", "llvm-ar"), "rcsD", library, *objects], check=True)
    return library


def request(*patterns: str) -> ExportRequest:
    return ExportRequest(LINUX, named={"export": patterns})


def look(library: Path, *patterns: str, against: Sequence[Path] = ()) -> dict[str, tuple[str, ...]]:
    """Kind -> symbols of everything that was found."""
    with open_archive(library) as archive:
        exports = decide_or_remember(archive, request(*patterns))
    found = inspect(library, LINUX, exports, against)
    assert all(f.severity == "finding" for f in found.findings)
    assert all(f.severity == "note" for f in found.notes)
    return {f.kind: f.symbols for f in found.all()}


def test_a_library_as_the_compiler_made_it(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER}, ["-g"])
    found = look(library, "api_*")
    assert found == {"leaked": ("helper", "shared"), "members": (), "debug-info": ()}


def test_the_same_library_stripped(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER}, ["-g"])
    strip_library(Job(library, LINUX, request("api_*")))
    # it remembers what is public
    assert look(library) == {"one-object": ()}
    kept = build(tmp_path, {"api.c": API, "helper.c": HELPER}, ["-g"])
    strip_library(Job(kept, LINUX, request("api_*"), Strip.NONE))
    assert look(kept) == {"one-object": (), "debug-info": ()}


def test_missing_symbols(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER})
    header = tmp_path / "api.h"
    header.write_text("int api_one(int);\nint api_two(int);\nint api_three(int);\n")
    argv = ["check", str(library), "--header", str(header)]
    assert main(argv) == 1
    with open_archive(library) as archive:
        decided = decide_or_remember(
            archive,
            ExportRequest(LINUX, headers=(header,), headers_explicit=True, allow_missing=True),
        )
    missing = [f for f in inspect(library, LINUX, decided).findings if f.kind == "missing"]
    assert [f.symbols for f in missing] == [("api_three",)]


def test_bitcode(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API}, ["-fembed-bitcode=all"])
    assert "bitcode" in look(library, "api_*")
    only = build(tmp_path / "lto", {"api.c": API}, ["-flto"])
    facts = read_facts(only)
    assert facts.objects == 0
    assert facts.bitcode == (tmp_path / "lto" / "api.o").stat().st_size


def test_two_libraries(tmp_path: Path) -> None:
    one = build(tmp_path / "one", {"api.c": API, "helper.c": HELPER})
    two = build(
        tmp_path / "two",
        {"other.c": "int helper(int); int other(int n) { return helper(n); }", "helper.c": HELPER},
    )
    found = look(one, "api_*", against=[two])
    assert found["collision"] == ("helper",)
    assert found["merged"] == ("shared",)
    # what stripping is for
    for library, pattern in ((one, "api_*"), (two, "other")):
        strip_library(Job(library, LINUX, request(pattern)))
    assert set(look(one, against=[two])) == {"one-object"}


def test_what_one_object_means(tmp_path: Path) -> None:
    constructor = "static void start(void) {}\n"
    constructor += '__attribute__((section(".init_array"), used)) static void (*p)(void) = start;\n'
    library = build(tmp_path, {"api.c": API + constructor + HELPER})
    assert look(library, "api_*") == {
        "leaked": ("helper", "shared"),
        "constructors": (),
        "one-object": (),
    }
    assert read_facts(library).constructors == 1
    # one public symbol: nothing that a program could redefine and still use the library
    single = build(tmp_path / "single", {"one.c": "int one(void) { return 1; }"})
    assert look(single, "one") == {}


def test_private_type_information(tmp_path: Path) -> None:
    source = "struct Base { virtual ~Base() {} virtual int f() { return 1; } };\n"
    source += 'extern "C" int api(int n) { if (n) throw Base(); return 0; }\n'
    library = build(tmp_path, {"api.cpp": source})
    strip_library(Job(library, LINUX, request("api"), Strip.NONE))
    assert look(library)["type-information"] == ("_ZTI4Base",)
    kept = build(tmp_path, {"api.cpp": source})
    job = ExportRequest(LINUX, named={"export": ("api",)}, keep=("_ZT[IS]*",))
    strip_library(Job(kept, LINUX, job, Strip.NONE))
    assert "type-information" not in look(kept)


CXX_TARGETS = [
    ("x86_64-linux-gnu", "x86_64-unknown-linux-gnu", "api", "_ZTI4Base"),
    ("arm64-apple-macos13", "aarch64-apple-darwin", "_api", "__ZTI4Base"),
    ("x86_64-pc-windows-gnu", "x86_64-pc-windows-gnu", "api", "_ZTI4Base"),
    ("i686-pc-windows-gnu", "i686-pc-windows-gnu", "_api", "__ZTI4Base"),
    ("x86_64-pc-windows-msvc", "x86_64-pc-windows-msvc", "api", "??_R0?AUBase@@@8"),
]


@pytest.mark.parametrize(("triple", "rust", "api", "name"), CXX_TARGETS)
def test_type_information_of_every_format(
    tmp_path: Path, triple: str, rust: str, api: str, name: str
) -> None:
    """`strip` warns of it, and `check` where the name is still there."""
    source = "struct Base { virtual ~Base() {} virtual int f() { return 1; } };\n"
    source += 'extern "C" int api(int n) { if (n) throw Base(); return 0; }\n'
    flags = ["-fexceptions", "-fcxx-exceptions"]
    library = build(tmp_path, {"api.cpp": source}, flags, triple)
    target = Target.parse(rust)
    asked = ExportRequest(target, named={"export": ("api",)})
    done = strip_library(Job(library, target, asked, Strip.NONE))
    (warning,) = done.warnings
    assert "C++ symbols with an identity across libraries become local" in warning
    assert name in warning
    with open_archive(library) as archive:
        exports = decide_or_remember(archive, ExportRequest(target))
    assert exports.names() == (api,)
    found = {f.kind: f.symbols for f in inspect(library, target, exports).notes}
    assert found["type-information"] == (name,)


@pytest.mark.parametrize(
    ("triple", "rust"), [(triple, rust) for triple, rust, *_ in CXX_TARGETS if "i686" not in rust]
)
def test_bitcode_of_every_format(tmp_path: Path, triple: str, rust: str) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER}, ["-fembed-bitcode=all"], triple)
    said = run(need("llvm-readobj-22", "llvm-readobj"), "--sections", library)
    names = r"Name: (__bitcode|__cmdline|\.llvmbc|\.llvmcmd) .*?(?: Size|RawDataSize): (\w+)"
    sizes = [int(size, 0) for _, size in re.findall(names, said, re.S)]
    assert len(sizes) == 4
    assert read_facts(library).bitcode == sum(sizes)
    target = Target.parse(rust)
    strip_library(Job(library, target, ExportRequest(target, named={"export": ("api_*",)})))
    assert read_facts(library).bitcode == 0


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, encoding="utf-8").stdout


@pytest.mark.parametrize(("triple", "rust"), [(triple, rust) for triple, rust, *_ in CXX_TARGETS])
def test_a_stripped_library_remembers_what_is_public(
    tmp_path: Path, triple: str, rust: str
) -> None:
    """Stripped again without options it is fresh; another level is made of the same symbols."""
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER}, [], triple)
    target = Target.parse(rust)
    first = strip_library(Job(library, target, ExportRequest(target, named={"export": ("api_*",)})))
    made = library.read_bytes()
    again = strip_library(Job(library, target, ExportRequest(target)))
    assert again.fresh
    assert again.exports.names() == first.exports.names()
    assert library.read_bytes() == made
    other = strip_library(Job(library, target, ExportRequest(target), Strip.SYMBOLS))
    assert not other.fresh
    assert other.exports.names() == first.exports.names()
    with pytest.raises(ExportsError):  # more than it has cannot become public
        strip_library(Job(library, target, ExportRequest(target, keep=("helper",))))


def test_routines_of_compilers_that_firmware_may_take(tmp_path: Path) -> None:
    """There is often no other library that has them."""
    source = "unsigned long long __aeabi_uldivmod(void) { return 1; }\n"
    source += "void *memcpy(void *to, const void *from, unsigned size) { return to; }\n"
    source += "int __udivsi3(int a, int b) { return a; }\n"
    flags = ["-ffreestanding", "-mcpu=cortex-m4"]
    sources = {"api.c": API, "helper.c": HELPER, "builtins.c": source}
    library = build(tmp_path, sources, flags, "thumbv7em-none-eabi")
    seen = []
    for triple in ("thumbv7em-none-eabi", "armv7-unknown-linux-gnueabihf"):
        target = Target.parse(triple)
        asked = ExportRequest(target, named={"export": ("api_*",)}, keep=("__aeabi_*",))
        with open_archive(library) as archive:
            exports = decide_or_remember(archive, asked)
        notes = inspect(library, target, exports).notes
        seen.append({f.kind: f.symbols for f in notes}.get("builtins"))
    assert seen == [("__udivsi3", "memcpy"), None]


def test_members_that_objc_loads(tmp_path: Path) -> None:
    text = """
    __attribute__((objc_root_class)) @interface Other + (int)make; @end
    @interface Other (Extra) + (int)extra; @end
    @implementation Other (Extra) + (int)extra { return 7; } @end
    """
    target = Target.parse("aarch64-apple-darwin")
    build(tmp_path, {"category.m": text}, ["-fobjc-runtime=macosx-13.0"], "arm64-apple-macos13")
    library = build(
        tmp_path, {"api.c": API, "helper.c": HELPER}, ["-O1"], "arm64-apple-macos13", "libother.a"
    )
    argv = [need("llvm-ar-22", "llvm-ar"), "rsD", library, tmp_path / "category.o"]
    subprocess.run(argv, check=True)
    asked = ExportRequest(target, named={"export": ("api_*",)})
    words = []
    for _ in range(2):
        with open_archive(library) as archive:
            exports = decide_or_remember(archive, asked)
        (note,) = [f for f in inspect(library, target, exports).notes if f.kind == "unasked"]
        words.append((note.symbols, note.message))
        strip_library(Job(library, target, asked))
    assert words[0][0] == ("category.o",)
    assert "1 member that programs linked with -ObjC get" in words[0][1]
    assert "every program that uses any part of it gets them all" in words[1][1]


@pytest.mark.parametrize(
    ("triple", "flags", "deduced"),
    [
        ("x86_64-linux-gnu", [], "x86_64-unknown-linux-gnu"),
        ("aarch64-linux-gnu", [], "aarch64-unknown-linux-gnu"),
        ("i686-linux-gnu", [], "i686-unknown-linux-gnu"),
        ("riscv64-linux-gnu", [], "riscv64gc-unknown-linux-gnu"),
        ("powerpc64le-linux-gnu", [], "powerpc64le-unknown-linux-gnu"),
        ("powerpc64-linux-gnu", [], "powerpc64-unknown-linux-gnu"),
        ("s390x-linux-gnu", [], "s390x-unknown-linux-gnu"),
        ("arm64-apple-macos11", [], "aarch64-apple-darwin"),
        ("x86_64-apple-macos11", [], "x86_64-apple-darwin"),
        ("x86_64-pc-windows-gnu", [], "x86_64-pc-windows-gnu"),
    ],
)
def test_the_target_is_told_from_the_objects(
    tmp_path: Path, triple: str, flags: list[str], deduced: str
) -> None:
    library = build(tmp_path, {"one.c": "int one(void) { return 1; }"}, flags, triple)
    with open_archive(library) as archive:
        assert deduce_target(archive).triple == deduced


# The pipeline on the same libraries -----------------------------------------------------------


def test_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER})
    job = Job(library, LINUX, request("api_*"))
    first = strip_library(job)
    assert not first.fresh
    assert first.after == library.stat().st_size
    assert first.undefined == ()
    stamp = library.stat().st_mtime_ns
    second = strip_library(job)
    assert second.fresh
    assert library.stat().st_mtime_ns == stamp
    assert plan_library(job).fresh
    # asked for something else: not fresh
    other = Job(library, LINUX, request("api_*"), Strip.SYMBOLS)
    assert not plan_library(other).fresh
    assert not strip_library(other).fresh


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(
    ("triple", "said"),
    [
        ("aarch64-unknown-linux-gnu", "for x86_64, but the target is aarch64-"),
        ("i686-unknown-linux-gnu", "for x86_64, but the target is i686-"),
        ("x86_64-apple-darwin", "an ELF object, but the target is x86_64-apple"),
        ("x86_64-pc-windows-msvc", "an ELF object, but the target is x86_64-pc"),
    ],
)
def test_another_target_is_refused(triple: str, said: str, done: bool, tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER})
    if done:
        strip_library(Job(library, LINUX, request("api_*")))
    before = library.read_bytes()
    target = Target.parse(triple)
    wrong = replace(request("api_*"), target=target)
    with pytest.raises(InputError, match=said) as caught:
        strip_library(Job(library, target, wrong))
    assert caught.value.member
    assert library.read_bytes() == before


def test_an_archive_without_members(tmp_path: Path) -> None:
    library = tmp_path / "libt.a"
    library.write_bytes(b"!<arch>\n")
    with pytest.raises(InputError, match="is empty"):
        strip_library(Job(library, LINUX, request("api_*")))


def test_only_what_the_library_lost_is_blamed_on_stripping(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER})
    strip_library(Job(library, LINUX, request("api_*")))
    with pytest.raises(ExportsError) as caught:
        plan_library(Job(library, LINUX, request("gone")))
    assert "stripped before" in caught.value.help[0]
    listed = replace(request(), named={"exports-file": (tmp_path / "nothere",)})
    with pytest.raises(ExportsError, match="cannot be read") as caught:
        plan_library(Job(library, LINUX, listed))
    assert not caught.value.help


def test_output_leaves_the_library_alone(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER})
    before = library.read_bytes()
    out = tmp_path / "out.a"
    outcome = strip_library(Job(library, LINUX, request("api_*"), output=out))
    assert outcome.output == out
    assert outcome.before == len(before)
    assert library.read_bytes() == before
    assert read_facts(out).strong == {"api_one", "api_two"}
    # no litter
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["api.c", "api.o", "helper.c", "helper.o", "libapi.a", "out.a"]
    )
    # a library that is done is copied all the same
    again = tmp_path / "again.a"
    strip_library(Job(out, LINUX, request("api_*"), output=again))
    assert read_facts(again).strong == {"api_one", "api_two"}


def test_more_cannot_become_public_again(tmp_path: Path) -> None:
    library = build(tmp_path, {"api.c": API, "helper.c": HELPER})
    strip_library(Job(library, LINUX, request("api_one")))
    with pytest.raises(ExportsError) as e:
        strip_library(Job(library, LINUX, request("api_one", "api_two")))
    assert any("build it again" in line for line in e.value.help)


def test_a_failure_leaves_everything(tmp_path: Path) -> None:
    # two strong definitions: no linker takes that
    twice = "int helper(int n) { return n; }\nint both(void) { return helper(1); }\n"
    library = build(
        tmp_path, {"api.c": API + "int both(void); int x(void) { return both(); }",
                   "helper.c": HELPER, "twice.c": twice}
    )  # fmt: skip
    before = library.read_bytes()
    files = sorted(tmp_path.iterdir())
    assert main(["strip", str(library), "--export", "api_*", "--export", "x"]) == 1
    assert library.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files


def test_link_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    need("cc")
    source = "int elsewhere(int);\nint api(int n) { return elsewhere(n); }\n"
    library = build(tmp_path, {"api.c": source}, ["-fPIC"])
    before = library.read_bytes()
    words = ["strip", str(library), "--export", "api", "--link-check"]
    assert main(words) == 1
    assert library.read_bytes() == before
    other = build(
        tmp_path / "other", {"e.c": "int elsewhere(int n) { return n; }"}, ["-fPIC"], name="libe.a"
    )
    assert main([*words, f"--link-arg={other}"]) == 0
    assert library.read_bytes() != before


def test_what_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(DiscoveryError):
        plan_library(Job(tmp_path / "no.a", LINUX, request("x")))
    with pytest.raises(InputError, match="folder"):
        plan_library(Job(tmp_path, LINUX, request("x")))
    thin = tmp_path / "thin.a"
    build(tmp_path, {"api.c": API})
    subprocess.run(
        [need("llvm-ar-22", "llvm-ar"), "rcs", "--thin", thin, tmp_path / "api.o"], check=True
    )
    with pytest.raises(InputError, match="thin"):
        inspect(thin, LINUX, ExportSet(()))


def test_long_lists_are_cut_and_mangled_names_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mangled = "_ZN7mycrate3one17h0123456789abcdefE"
    names = [mangled, *(f"other_{n:02}" for n in range(19))]
    text = "\n".join(f'int f{n}(void) __asm__("{name}");' for n, name in enumerate(names))
    text += "\n" + "\n".join(f"int f{n}(void) {{ return {n}; }}" for n in range(len(names)))
    library = build(tmp_path, {"a.c": text + "\nint api(void) { return 1; }\n"})
    assert main(["check", str(library), "--export", "api"]) == 1
    said = capsys.readouterr().err
    assert f"    {mangled} (mycrate::one)\n" in said
    assert "    other_08\n    … and 10 more (-v lists them)\n" in said
    assert main(["check", str(library), "--export", "api", "-v"]) == 1
    assert "    other_18\n" in capsys.readouterr().err
    wanted = [word for n in range(30) for word in ("--export", f"none_{n:02}")]
    assert main(["strip", str(library), *wanted]) == 1
    said = capsys.readouterr().err
    assert "does not define:\n  none_00\n" in said
    assert "  none_09\n  … and 20 more (-v lists them)\n" in said


def test_where_linkers_differ_is_told(tmp_path: Path) -> None:
    sources = {
        "first.c": "__attribute__((weak)) int pick(void) { return 5; } "
        "int api_one(void) { return pick(); }",
        "second.c": "int pick(void) { return 6; }",
        "third.c": "int pick(void); int api_two(void) { return pick(); }",
    }
    # measured: a program of both gets 5 5 from GNU ld, gold and lld, 6 6 from mold
    library = build(tmp_path, sources)
    assert look(library, "api_*")["linkers"] == ("pick",)
    with open_archive(library) as archive:
        exports = decide_or_remember(archive, request("api_*"))
    notes = {n.kind: n.message for n in inspect(library, LINUX, exports).notes}
    assert "GNU ld and gold and lld from first.o; mold from second.o" in notes["linkers"]
    agreed = build(tmp_path, {k: sources[k] for k in ("first.c", "third.c")})
    assert "linkers" not in look(agreed, "api_*")
