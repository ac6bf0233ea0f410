"""The exported names of shared libraries are those that other readers see."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ExportsError, InputError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.dynamic import exported_names
from tests.tools import need

SOURCE = """
int external(void);
int alpha_one(void) { return external(); }
int alpha_two = 3;
__attribute__((visibility("protected"))) int beta(void) { return 1; }
__attribute__((visibility("hidden"))) int hidden(void) { return 2; }
__attribute__((weak)) int weak_one(void) { return 3; }
static int local(void) { return 4; }
_Thread_local int per_thread;
int (*use(void))(void) { return local; }
int element __attribute__((section("linker_set"), used)) = 1;
extern int __start_linker_set[], __stop_linker_set[];
int *begin(void) { return __start_linker_set; }
int *end_of(void) { return __stop_linker_set; }
"""
EXPECTED = {"alpha_one", "alpha_two", "beta", "weak_one", "per_thread", "use", "begin", "end_of"}
EXPECTED |= {"element"}


def tool(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def compiled(tmp_path: Path, triple: str, source: str) -> Path:
    (tmp_path / "a.c").write_text(source)
    out = tmp_path / "a.o"
    pic = [] if "windows" in triple else ["-fPIC"]
    tool(need("clang-22", "clang"), "-target", triple, *pic, "-ffreestanding", "-c",
         tmp_path / "a.c", "-o", out)  # fmt: skip
    return out


@pytest.mark.parametrize(
    "triple",
    ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "i686-unknown-linux-gnu",
     "s390x-unknown-linux-gnu", "powerpc-unknown-linux-gnu"],
)  # fmt: skip
@pytest.mark.parametrize("versioned", [False, True])
def test_elf(triple: str, versioned: bool, tmp_path: Path) -> None:
    from elftools.elf.elffile import ELFFile

    out = tmp_path / "liba.so"
    script = tmp_path / "v.map"
    script.write_text("V1 { global: alpha_*; }; V2 { global: beta; local: weak_one; } V1;\n")
    version = [f"--version-script={script}"] if versioned else []
    tool(need("ld.lld-22", "ld.lld"), "-shared", *version, "-z", "undefs",
         compiled(tmp_path, triple, SOURCE), "-o", out)  # fmt: skip
    found = exported_names(out, Target.parse(triple))
    assert set(found) == EXPECTED - ({"weak_one"} if versioned else set())
    with out.open("rb") as file:
        symbols = [
            s.name
            for s in ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
            if s["st_shndx"] not in {"SHN_UNDEF"} and s["st_info"]["bind"] != "STB_LOCAL"
        ]
    linker_made = {n for n in symbols if n.startswith(("__start_", "__stop_"))}
    assert set(found) == set(symbols) - linker_made - {"V1", "V2"}


MACHO = SOURCE.replace('"protected"', '"default"').split("int element")[0]


@pytest.mark.parametrize("triple", ["aarch64-apple-darwin", "x86_64-apple-darwin"])
def test_macho(triple: str, tmp_path: Path) -> None:
    source = MACHO.replace("_Thread_local ", "")
    out = tmp_path / "liba.dylib"
    arch = triple.partition("-")[0].replace("aarch64", "arm64")
    tool(need("ld64.lld-22", "ld64.lld"), "-arch", arch, "-platform_version", "macos", "11", "11",
         "-dylib", "-undefined", "dynamic_lookup", compiled(tmp_path, triple, source),
         "-o", out)  # fmt: skip
    found = exported_names(out, Target.parse(triple))
    assert set(found) == {f"_{n}" for n in EXPECTED - {"begin", "end_of", "element"}}
    said = tool(need("llvm-objdump-22"), "--macho", "--exports-trie", out)
    assert set(found) == set(re.findall(r"^0x[0-9A-F]+\s+(\S+)", said, re.M))
    fat = tmp_path / "fat.dylib"
    tool(need("llvm-lipo-22"), "-create", out, "-output", fat)
    assert exported_names(fat, Target.parse(triple)) == found
    other = "x86_64" if arch == "arm64" else "aarch64"
    with pytest.raises(InputError, match=other):
        exported_names(fat, Target.parse(f"{other}-apple-darwin"))


@pytest.mark.parametrize("triple", ["x86_64-pc-windows-msvc", "i686-pc-windows-msvc"])
def test_pe(triple: str, tmp_path: Path) -> None:
    source = (
        "__declspec(dllexport) int one(void) { return 1; } __declspec(dllexport) int two = 2;\n"
        "int not_exported(void) { return 3; } int _fltused;\n"
    )
    out = tmp_path / "a.dll"
    tool(need("lld-link-22", "lld-link"), "/dll", "/noentry", "/nodefaultlib", f"/out:{out}",
         compiled(tmp_path, triple, source))  # fmt: skip
    target = Target.parse(triple)
    prefix = "_" if triple.startswith("i686") else ""
    assert exported_names(out, target) == (f"{prefix}one", f"{prefix}two")
    said = tool(need("llvm-readobj-22"), "--coff-exports", out)
    assert re.findall(r"Name: (\S+)", said) == ["one", "two"]


def test_not_a_shared_library(tmp_path: Path) -> None:
    target = Target.parse("x86_64-unknown-linux-gnu")
    with pytest.raises(ExportsError, match=r"none\.so"):
        exported_names(tmp_path / "none.so", target)
    text = tmp_path / "text.so"
    text.write_text("INPUT(libreal.so)\n")
    with pytest.raises(ExportsError, match="unknown"):
        exported_names(text, target)
    obj = compiled(tmp_path, target.triple, "int f(void) { return 1; }")
    with pytest.raises(InputError, match="dynamic symbol table"):
        exported_names(obj, target)
    with pytest.raises(ExportsError, match="ELF"):
        exported_names(obj, Target.parse("aarch64-apple-darwin"))


def test_damaged_files_have_one_way_to_fail(tmp_path: Path) -> None:
    target = Target.parse("x86_64-unknown-linux-gnu")
    out = tmp_path / "liba.so"
    tool(need("ld.lld-22", "ld.lld"), "-shared", "-z", "undefs",
         compiled(tmp_path, target.triple, SOURCE), "-o", out)  # fmt: skip
    whole = out.read_bytes()
    for length in range(4, len(whole), 61):
        out.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"liba\.so"):
            exported_names(out, target)
