"""Apple's classic linker itself, where STRIP_HOOK_TEST_LD64 names a folder with `ld` and `libtool`.

It can be built on Linux (cctools-port); no tier promises it, so that these tests are skipped
elsewhere. What it did once is recorded in `ld64/`, for `test_system_macho`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.system import SystemEngine
from cargo_strip_hook.verify import Expectation, verify
from tests.consumers import darwin_image
from tests.formats import darwin_kit as kit
from tests.formats import ld64_record as record
from tests.formats.native_kit import tool
from tests.formats.test_macho_engine import C_ONE, C_TWO, CXX, EXPORTS

FOLDER = Path(os.environ.get("STRIP_HOOK_TEST_LD64", ""))
pytestmark = [
    pytest.mark.skipif(
        "STRIP_HOOK_TEST_LD64" not in os.environ,
        reason="STRIP_HOOK_TEST_LD64 names no folder with Apple's linker",
    ),
    pytest.mark.parametrize("arch", kit.ARCHES),
]
API = (*EXPORTS, "_cxx_api")
USER = """
extern int one_api(int), one_other(int), cxx_api(int);
int user(void) { return one_api(3) + one_other(4) + cxx_api(5); }
"""
MORE = 'extern int catcher(int); extern "C" int cxx_api(int a) { return catcher(a); }\n'


@pytest.fixture
def original(tmp_path: Path, arch: str) -> Path:
    no_common = C_TWO.replace("\nint common_one;", "\nextern int common_one;")
    c = kit.compile(tmp_path, arch, {"one.c": C_ONE, "two.c": no_common}, "-O1")
    cxx = {"cxx.cpp": CXX if "cxx_api" in CXX else CXX + MORE}
    return kit.archive(tmp_path / "libt.a", [*c, *kit.compile(tmp_path, arch, cxx, "-O1")])


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIP_HOOK_LD", str(FOLDER / "ld"))
    monkeypatch.setenv("STRIP_HOOK_LIBTOOL", str(FOLDER / "libtool"))


def system(original: Path, arch: str, strip: Strip) -> Path:
    out = original.parent / f"system-{strip.value}.a"
    target = Target.parse(kit.triple(arch))
    request = PrelinkRequest(original, out, target, API, strip, marker=kit.MARKER)
    result = SystemEngine().prelink(request)
    verify(original, out, Expectation(target, API, strip, result.link_map, kit.MARKER))
    return out


def bundle(folder: Path, arch: str, name: str, library: Path) -> Path:
    """Linked by Apple's linker; a stand-in for libSystem, which it insists on, by lld."""
    sources = {"user.c": USER, "stub.c": "void dyld_stub_binder(void) {}"}
    user, stub = kit.compile(folder, arch, sources, "-O1")
    version = ["-arch", arch, "-platform_version", "macos", "13.0", "13.0"]
    stand_in = folder / "libSystem.dylib"
    install = ["-install_name", "/usr/lib/libSystem.B.dylib"]
    tool([kit.linker(), *version, "-dylib", *install, stub, "-o", stand_in])
    out = folder / name
    flags = ["-bundle", "-undefined", "dynamic_lookup", "-dead_strip", "-exported_symbol", "_user"]
    tool([FOLDER / "ld", *version, *flags, user, library, stand_in, "-o", out])
    return out


@pytest.mark.parametrize("strip", [Strip.DEBUGINFO, Strip.SYMBOLS])
def test_it_makes_what_the_verifier_takes(original: Path, arch: str, strip: Strip) -> None:
    out = system(original, arch, strip)
    first = out.read_bytes()
    assert system(original, arch, strip).read_bytes() == first
    assert {n for n, k in kit.globals_of(out).items() if k not in "Uu"} == set(API)


def test_it_links_what_both_engines_make(tmp_path: Path, original: Path, arch: str) -> None:
    results = {
        "original": original,
        "native": kit.strip(original, arch, API)[0],
        "system": system(original, arch, Strip.DEBUGINFO),
    }
    programs = {
        name: darwin_image.program(bundle(tmp_path, arch, name, path), kit.llvm("objdump"))
        for name, path in results.items()
    }
    assert sum(programs["original"].values()) >= 6
    assert programs["native"] == programs["original"]
    assert programs["system"] == programs["original"]


@pytest.mark.parametrize("strip", ["debuginfo", "symbols"])
def test_the_record_is_true(tmp_path: Path, arch: str, strip: str) -> None:
    for name in ("a.o", "b.o"):
        data = bytearray((record.FOLDER / arch / name).read_bytes())
        if name == "a.o":
            from cargo_strip_hook.engines.system import nlist

            nlist.show(data, [record.ROUTINE.encode()])
        (tmp_path / name).write_bytes(data)
    (tmp_path / "marker").write_bytes(kit.MARKER)
    names = sorted((*record.EXPORTS, record.ROUTINE))
    (tmp_path / "exports.txt").write_text("".join(f"{n}\n" for n in names))
    words = record.command(arch, strip, ["a.o", "b.o"])
    tool(["env", "-C", tmp_path, FOLDER / "ld", *words])
    made = (tmp_path / "linked.o").read_bytes()
    assert made == (record.FOLDER / arch / f"{strip}.o").read_bytes()
