"""Every target that can be built from here: a real standard library, stripped, linked and run.

The engine is called itself: what is asked here is whether its result is right. One test asks
whether the whole command, with the checker, takes these results for right.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, PrelinkResult, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from tests import fixtures
from tests.consumers.expected import BEHAVIOUR_MINIMAL
from tests.consumers.toolbox import COMMAND, SOURCES, linker_flags, run
from tests.fixtures import Built
from tests.targets import FOREIGN, LINKED, QUICK, RUNNING
from tests.tools import TIER, missing, need

ANDROID = tuple(t for t in RUNNING if "android" in t)
# std knows the program's arguments only from glibc's way of starting, and how far a backtrace
# goes in C depends on what the compiler of the target writes for unwinders
VARIES = re.compile(r"^(arguments|backtrace): .*\n", re.M)
VARIANTS = [
    ("none", "class", ()),
    ("debuginfo", "class", ("-Wl,--gc-sections",)),
    ("symbols", "class", ("-Wl,--gc-sections",)),
    ("symbols", "section", ("-Wl,--gc-sections",)),
    ("symbols", "whole", ()),
]


def built_for(target: str) -> Built:
    """The library; the tier says whether it may be built now."""
    name, profile = "behaviour-minimal", "release"
    wanted = TIER == "all" or (TIER == "ci" and target in QUICK)
    if not wanted and not fixtures.is_built(name, profile, target, "debian"):
        pytest.skip(f"no standard library for {target} was built (STRIP_HOOK_TESTS=all does)")
    return fixtures.library(name, profile, target, "debian")


def exports(built: Built) -> tuple[str, ...]:
    """The functions and variables of the header, but for those in C++."""
    assert built.header
    text = re.sub(r"/\*.*?\*/", "", built.header.read_text(), flags=re.S)
    names = set(re.findall(r"\b(bhv_\w+)(?=\(|;|\[)", text)) - {"bhv_operation"}
    return tuple(sorted(n for n in names if not n.startswith("bhv_cxx")))


def strip(built: Built, out: Path, remove: str, granularity: str) -> PrelinkResult:
    request = PrelinkRequest(
        built.library,
        out,
        Target.parse(built.target),
        exports(built),
        Strip(remove),
        Granularity(granularity),
        b"marked\n",
    )
    return NativeEngine().prelink(request)


def program(built: Built, library: Path, folder: Path, *flags: str) -> Path:
    """A C program that uses everything, linked for the target."""
    foreign = FOREIGN[built.target]
    folder.mkdir(parents=True, exist_ok=True)
    assert built.header
    compiler = foreign.compiler()
    linker = linker_flags("lld", folder) if built.target in ANDROID else []
    sources = [SOURCES / name for name in ("behaviour.c", *foreign.sources)]
    out = folder / "program"
    words = ["-O1", "-DWITHOUT_CXX", f"-I{built.header.parent}", *foreign.flags, *linker, *flags]
    run(compiler, *words, *sources, library, *foreign.libraries, "-o", out)
    return out


def output(built: Built, path: Path) -> str:
    return run(*FOREIGN[built.target].emulation(), path, "a", "b").stdout


@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=pytest.mark.target(t)) for t in (*RUNNING, *LINKED)]
)
@pytest.mark.parametrize(
    ("remove", "granularity"), [("none", "class"), ("debuginfo", "section"), ("symbols", "whole")]
)
def test_the_checker_accepts_it(target: str, remove: str, granularity: str, tmp_path: Path) -> None:
    built = built_for(target)
    assert built.header
    out = tmp_path / built.library.name
    words = ["--allow-missing", "--target", target, "--strip", remove, "--granularity", granularity]
    paths = ("--header", built.header, "-o", out)
    done = run(*COMMAND, "strip", built.library, *paths, *words, "--message-format", "json")
    said = json.loads(done.stdout.splitlines()[0])
    assert said["reason"] == "stripped"
    assert said["exports"] == list(exports(built))
    # the same result as the engine's own, which the other tests run
    alone = strip(built, tmp_path / "alone.a", remove, granularity)
    assert said["undefined"] == list(alone.undefined)


@pytest.mark.parametrize("target", [pytest.param(t, marks=pytest.mark.target(t)) for t in RUNNING])
def test_the_program_does_the_same(target: str, tmp_path: Path) -> None:
    built = built_for(target)
    before = output(built, program(built, built.library, tmp_path / "original"))
    assert VARIES.sub("", before) == VARIES.sub("", BEHAVIOUR_MINIMAL)
    assert "backtrace: text 1" in before
    for remove, granularity, flags in VARIANTS:
        folder = tmp_path / f"{remove}-{granularity}"
        folder.mkdir()
        stripped = folder / built.library.name
        result = strip(built, stripped, remove, granularity)
        assert result.exports == exports(built)
        after = output(built, program(built, stripped, folder, *flags))
        assert after == before, (remove, granularity)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(t, marks=pytest.mark.target(t))
        for t in RUNNING
        if t.endswith(("linux-gnu", "gnueabihf"))
    ],
)
@pytest.mark.parametrize("flag", ["-static", "-no-pie"])
def test_other_kinds_of_programs(target: str, flag: str, tmp_path: Path) -> None:
    built = built_for(target)
    stripped = tmp_path / built.library.name
    strip(built, stripped, "symbols", "class")
    foreign = FOREIGN[target]
    assert built.header
    words = ["-O1", "-DWITHOUT_CXX", f"-I{built.header.parent}", flag]
    libraries = [n for n in foreign.libraries if n != "-lgcc_s"] if flag == "-static" else []
    path = tmp_path / "program"
    run(
        foreign.compiler(),
        *words,
        SOURCES / "behaviour.c",
        stripped,
        *(libraries or foreign.libraries),
        "-o",
        path,
    )
    assert "panic through assembly: 106" in output(built, path)


@pytest.mark.target("x86_64-unknown-linux-musl")
def test_the_c_library_inside_of_a_musl_archive_stays_out(tmp_path: Path) -> None:
    built = built_for("x86_64-unknown-linux-musl")
    libc = Path("/usr/lib/x86_64-linux-musl/libc.a")
    if not libc.exists():
        missing("musl's libc.a")
    # as rustup's std for musl brings it
    tool = need("llvm-ar-22", "llvm-ar")
    members = run(tool, "t", libc).stdout.split()
    assert all(m.endswith(".lo") for m in members) and "malloc.lo" in members
    both = tmp_path / "both" / built.library.name
    both.parent.mkdir()
    run(tool, "qcsL", both, built.library, libc)
    alone = tmp_path / built.library.name
    strip(built, alone, "symbols", "class")
    mixed = tmp_path / "mixed.a"
    request = PrelinkRequest(
        both,
        mixed,
        Target.parse(built.target),
        exports(built),
        Strip.SYMBOLS,
        Granularity.CLASS,
        b"marked\n",
    )
    result = NativeEngine().prelink(request)
    assert {"malloc", "memcpy", "pthread_create"} <= set(result.undefined)
    object_alone, object_mixed = (
        subprocess.run([tool, "p", p], capture_output=True, check=True).stdout
        for p in (alone, mixed)
    )
    assert object_alone == object_mixed
    ran = output(built, program(built, mixed, tmp_path / "program"))
    assert "panic through C: 105" in ran


class Facts:
    """What a shared library is for others."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            elf = ELFFile(file)
            dynamic = elf.get_section_by_name(".dynsym")
            assert isinstance(dynamic, SymbolTableSection)
            symbols = [s for s in dynamic.iter_symbols() if s.name]
            self.exported = [s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF"]
            self.undefined = sorted(s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF")
            self.osabi = elf["e_ident"]["EI_OSABI"]
            self.machine_flags = elf["e_flags"]
            text = elf.get_section_by_name(".text")
            assert text is not None
            self.text = text["sh_size"]


@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=pytest.mark.target(t)) for t in (*LINKED, *ANDROID)]
)
def test_lld_links_it_to_a_shared_library(target: str, tmp_path: Path) -> None:
    built = built_for(target)
    names = exports(built)
    linked = {}
    script = tmp_path / "exports.map"
    script.write_text("{ global: bhv_*; local: *; };\n")
    roots = [word for name in names for word in ("-u", name)]
    for which in ("original", "class", "section"):
        library = built.library
        if which != "original":
            library = tmp_path / f"{which}.a"
            strip(built, library, "none", which)
        shared = tmp_path / f"{which}.so"
        # `nostart-stop-gc`: for the original, whose sets would be dropped
        flags = ("--gc-sections", "-z", "nostart-stop-gc", f"--version-script={script}")
        tool = need("ld.lld-22", "ld.lld")
        said = run(tool, "-shared", *flags, *roots, library, "-o", shared)
        assert not said.stderr
        linked[which] = Facts(shared)
    before = linked["original"]
    for which in ("class", "section"):
        after = linked[which]
        assert set(names) <= set(after.exported)
        if target.startswith("loongarch64"):
            # lld keeps more of the original: it takes all that an FDE refers to for live
            assert set(after.undefined) <= set(before.undefined)
        else:
            assert after.undefined == before.undefined
            assert after.text >= before.text * 0.9
        assert after.osabi == before.osabi
        assert after.machine_flags == before.machine_flags
        assert after.text <= before.text * 1.02
