"""Every architecture: a program linked from our result is, byte for byte, that from the original.

The objects are made by clang and linked by lld, both for every target. All of the library is
reached from its exports, in the order of the input, so that a right result changes no address.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from cargo_strip_hook.core.errors import LinkError, ObjectError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, PrelinkResult, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from tests.tools import need

TARGETS = (
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "i686-unknown-linux-gnu",
    "armv7-unknown-linux-gnueabihf",
    "thumbv7-unknown-linux-gnueabihf",
    "riscv64-unknown-linux-gnu",
    "riscv32-unknown-linux-gnu",
    "powerpc64le-unknown-linux-gnu",
    "powerpc-unknown-linux-gnu",  # no table: e_machine 20, big endian, RELA
    "s390x-unknown-linux-gnu",
    "loongarch64-unknown-linux-gnu",
    "x86_64-unknown-linux-gnux32",
    "aarch64_be-unknown-linux-gnu",
    "armebv7-unknown-linux-gnueabihf",
    "powerpc64-unknown-linux-musl",  # ELFv2, big endian
    "hexagon-unknown-linux-musl",  # no table: e_machine 164
)
ONE = """
#pragma GCC visibility push(hidden)
int other(int);
int (*callback(int))(int);
extern int shared_count;
static int counts[5] = {1, 2, 3, 4, 5};
static int *const pointers[3] = {&counts[1], &shared_count, &counts[4]};
static const int table[7] = {3, 1, 4, 1, 5, 9, 2};
static int zeros[40];
static __thread int per_thread[2] = {7, 8};
static __thread int per_thread_zero;
__attribute__((noinline)) static int helper(int a) {
    return counts[a & 3] + (per_thread[0] += a) + table[a & 3] + zeros[a & 7];
}
__attribute__((noinline)) static int choose(int a) {
    switch (a) {
    case 0: return other(3);
    case 1: return helper(9);
    case 2: return other(helper(1));
    case 3: return zeros[2] + a;
    case 4: return per_thread_zero++;
    case 5: return shared_count;
    case 6: return table[3] * a;
    default: return -1;
    }
}
__attribute__((noinline)) static int rarely(int a) { return other(a) - 1; }
#pragma GCC visibility pop
int api(int a, int b) {
    if (a > 1000) return rarely(a);
    return helper(a) + *pointers[b % 3] + choose(b) + callback(a)(b) + other(b);
}
"""
TWO = """
#pragma GCC visibility push(hidden)
int shared_count = 3;
static int twice(int a) { return a * 2; }
static int thrice(int a) { return a * 3 + shared_count; }
int other(int a) { return twice(a) + 1; }
int (*callback(int a))(int) { return a ? twice : thrice; }
__attribute__((constructor)) static void early(void) { shared_count++; }
"""
STRINGS = """
const char *name(int a) { return a == 1 ? "one name" : a == 2 ? "name" : "another name"; }
int api(int a, int b) { return name(a)[b] + name(b)[a]; }
"""
# what lld fills gaps between functions with, where it is another trap than ours (udf #0)
BRK = bytes.fromhex("200020d4")
PARTS = (
    *(".text", ".rodata", ".data", ".data.rel.ro", ".bss", ".tdata", ".tbss", ".init_array"),
    *(".got", ".got.plt", ".toc", ".sdata", ".sbss", ".dynsym", ".dynamic"),
    *(".rela.dyn", ".rel.dyn", ".rela.plt", ".rel.plt", ".eh_frame", ".ARM.exidx", ".ARM.extab"),
)


@dataclass(frozen=True, slots=True)
class Linked:
    """A shared library: contents and address of its sections, e_flags, EI_OSABI, attributes."""

    sections: dict[str, tuple[int, bytes]]
    flags: int
    osabi: str
    attributes: bytes


def compile_c(target: str, text: str, folder: Path, name: str, *flags: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    source, out = folder / f"{name}.c", folder / f"{name}.o"
    source.write_text(text)
    words = [f"--target={target}", "-c", "-O2", "-ffreestanding", "-fno-ident", *flags]
    _run(need("clang-22", "clang"), *words, source, "-o", out)
    return out


def _run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def archive(folder: Path, *objects: Path) -> Path:
    out = folder / "libit.a"
    out.unlink(missing_ok=True)
    _run(need("llvm-ar-22", "llvm-ar"), "rcsD", out, *objects)
    return out


def prelink(library: Path, out: Path, granularity: str, strip: str = "symbols") -> PrelinkResult:
    # the target decides the names of files only: what the objects are, they say themselves
    triple = Target.parse("x86_64-unknown-linux-gnu")
    return NativeEngine().prelink(
        PrelinkRequest(
            library, out, triple, ("api",), Strip(strip), Granularity(granularity), b"m\n"
        )
    )


def link(library: Path, out: Path, *flags: str) -> Linked:
    """All members, in their order, as a shared library that exports the API only."""
    script = out.with_suffix(".map")
    script.write_text("{ global: api; local: *; };\n")
    words = ["-shared", "--whole-archive", library, "--no-whole-archive", "--hash-style=sysv"]
    # entries that say the same are joined only across sections
    words.append("--no-merge-exidx-entries")
    _run(need("ld.lld-22", "ld.lld"), *words, f"--version-script={script}", *flags, "-o", out)
    with out.open("rb") as file:
        elf = ELFFile(file)
        found = {s.name: (s["sh_addr"], s.data()) for s in elf.iter_sections()}
        if elf["e_machine"] == "EM_AARCH64":
            address, text = found[".text"]
            found[".text"] = address, text.replace(BRK, bytes(4))
        attributes = next((d for n, (_, d) in found.items() if n.endswith(".attributes")), b"")
        return Linked(found, elf["e_flags"], elf["e_ident"]["EI_OSABI"], attributes)


def assert_same(before: Linked, after: Linked, names: Sequence[str] = PARTS) -> None:
    assert before.sections[".text"][1]
    for name in names:
        a, b = before.sections.get(name), after.sections.get(name)
        if a is None and b is None:
            continue
        assert a is not None and b is not None, name
        assert (hex(a[0]), a[1].hex(" ", 4)) == (hex(b[0]), b[1].hex(" ", 4)), name
    assert before.flags == after.flags
    assert before.osabi == after.osabi


@pytest.mark.parametrize("granularity", ["class", "section", "whole"])
@pytest.mark.parametrize("sections", [True, False], ids=["split", "joined"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_linked_program_is_the_same(
    target: str, sections: bool, granularity: str, tmp_path: Path
) -> None:
    flags = ["-fPIC", "-fasynchronous-unwind-tables"]
    if sections:
        flags += ["-ffunction-sections", "-fdata-sections"]
    objects = [
        compile_c(target, text, tmp_path, name, *flags)
        for name, text in (("one", ONE), ("two", TWO))
    ]
    library = archive(tmp_path, *objects)
    # lld makes ADR of ADRP and ADD only where the addend is 0
    relax = ["--no-relax"] if target.startswith("aarch64") and granularity != "section" else []
    before = link(library, tmp_path / "before.so", *relax)
    for strip in ("none", "symbols"):
        out = tmp_path / f"{strip}.a"
        result = prelink(library, out, granularity, strip)
        assert result.exports == ("api",)
        assert_same(before, link(out, tmp_path / f"{strip}.so", *relax))


@pytest.mark.parametrize("granularity", ["class", "section"])
@pytest.mark.parametrize("target", TARGETS)
def test_merged_strings_stay_right(target: str, granularity: str, tmp_path: Path) -> None:
    library = archive(tmp_path, compile_c(target, STRINGS, tmp_path, "strings", "-fPIC"))
    out = tmp_path / "out.a"
    prelink(library, out, granularity)
    # lld shortens addresses of strings only where they have symbols of their own
    flags = ("-O2", "--no-relax")
    before = link(library, tmp_path / "before.so", *flags)
    after = link(out, tmp_path / "after.so", *flags)
    text = b"\0" + after.sections[".rodata"][1]
    alone = all(b"\0" + name + b"\0" in text for name in (b"one name", b"name", b"another name"))
    if "v7-" in target:  # not merged any more, since REL addends of MOVT could not follow
        assert alone
    elif granularity == "section" or not alone:  # in a class each string is there once already
        assert_same(before, after)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.startswith(("armv7", "thumbv7"))])
def test_arm_unwind_indices_stand_in_the_order_of_the_code(target: str, tmp_path: Path) -> None:
    parts = [
        f"__attribute__((noinline)) int f{i}(int a) {{ return g(a) + {i}; }}\n" for i in range(6)
    ]
    code = "extern int g(int);\n" + "".join(reversed(parts))
    code += "int api(int a) { return " + "+".join(f"f{i}(a)" for i in range(6)) + "; }\n"
    objects = [compile_c(target, code, tmp_path, "one", "-ffunction-sections", "-funwind-tables")]
    assembly = tmp_path / "g.s"
    # code without an index: what comes before it must not be taken for it
    assembly.write_text(
        ".text\n.globl g\n.hidden g\n.type g,%function\ng: bx lr\n"
        '.section .text.more,"ax",%progbits\nmore: bx lr\n'
    )
    _run(need("clang-22"), f"--target={target}", "-c", assembly, "-o", tmp_path / "g.o")
    library = archive(tmp_path, *objects, tmp_path / "g.o")
    out = tmp_path / "out.a"
    prelink(library, out, "whole", "none")
    covers_debug = []
    with (tmp_path / "out.o").open("wb") as file:
        file.write(subprocess.check_output([need("llvm-ar-22", "llvm-ar"), "p", out]))
    with (tmp_path / "out.o").open("rb") as file:
        elf = ELFFile(file)
        for section in elf.iter_sections():
            if section.name == ".ARM.exidx":
                assert section["sh_flags"] == 0x82
                linked = elf.get_section(section["sh_link"])
                assert linked.name == ".text" and linked["sh_flags"] == 6
                covers_debug.append((linked["sh_size"], section["sh_size"] // 8))
        texts = [s for s in elf.iter_sections() if s.name == ".text"]
    assert len(covers_debug) == 1 and covers_debug[0][1] == 7
    assert len(texts) == 2, "the assembly's code has no index and a section of its own"
    for path in (library, out):
        linked = link(path, tmp_path / "linked.so")
        entries = dict(_index(linked))
        assert list(entries) == sorted(entries)
        places = _functions(tmp_path / "linked.so")
        assert set(places) >= {"api", "g", *(f"f{i}" for i in range(6))}
        for name, place in places.items():
            found = max(start for start in entries if start <= place)
            assert found == place, f"{name} is covered by the entry of another function"
            assert (entries[found] == CANTUNWIND) == (name in ("g", "more")), name


CANTUNWIND = 1


def _index(linked: Linked) -> list[tuple[int, int]]:
    """(address of the code, second word) of the index's entries. Source: EHABI32, section 5."""
    address, data = linked.sections[".ARM.exidx"]
    found = []
    for at in range(0, len(data), 8):
        first, second = (int.from_bytes(data[i : i + 4], "little") for i in (at, at + 4))
        offset = first - (1 << 31) if first & (1 << 30) else first
        found.append((address + at + offset, second))
    return found


def _functions(path: Path) -> dict[str, int]:
    """The addresses of functions, without the bit for Thumb."""
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {
            s.name: s["st_value"] & ~1
            for s in table.iter_symbols()
            if s["st_info"]["type"] == "STT_FUNC"
        }


def test_build_attributes_of_arm_are_joined(tmp_path: Path) -> None:
    target = "armv7-unknown-linux-gnueabihf"
    one = compile_c(target, ONE, tmp_path, "one", "-mfpu=vfpv3-d16")
    two = compile_c(target, TWO, tmp_path, "two", "-march=armv7ve", "-mfpu=neon-vfpv4")
    library = archive(tmp_path, one, two)
    before = _attributes(need("arm-linux-gnueabihf-ld"), library, tmp_path)
    out = tmp_path / "out.a"
    prelink(library, out, "class")
    after = _attributes(need("arm-linux-gnueabihf-ld"), out, tmp_path)
    assert before and after == before


def test_instruction_sets_of_riscv_are_joined(tmp_path: Path) -> None:
    target = "riscv64-unknown-linux-gnu"
    one = compile_c(target, ONE, tmp_path, "one", "-fPIC", "-march=rv64imafdc_zba")
    two = compile_c(target, TWO, tmp_path, "two", "-fPIC", "-march=rv64imafd_zbb_zicond")
    library = archive(tmp_path, one, two)
    out = tmp_path / "out.a"
    prelink(library, out, "class")
    before, after = link(library, tmp_path / "b.so"), link(out, tmp_path / "a.so")
    assert before.attributes == after.attributes
    assert b"_zba1p0_zbb1p0" in after.attributes
    assert after.flags & 1, "EF_RISCV_RVC"


def _attributes(linker: Path, library: Path, folder: Path) -> list[str]:
    """The build attributes that GNU ld writes for a library, as readelf shows them."""
    linked = folder / "linked.o"
    _run(linker, "-r", "--whole-archive", library, "-o", linked)
    return _run(need("arm-linux-gnueabihf-readelf"), "-A", linked).splitlines()


def test_floats_passed_in_two_ways_are_refused(tmp_path: Path) -> None:
    one = compile_c("armv7-unknown-linux-gnueabihf", ONE, tmp_path, "one")
    two = compile_c("armv7-unknown-linux-gnueabi", TWO, tmp_path, "two", "-mfloat-abi=softfp")
    library = archive(tmp_path, one, two)
    with pytest.raises(LinkError, match="floating-point"):
        prelink(library, tmp_path / "out.a", "class")


@pytest.mark.parametrize("target", ["mips-unknown-linux-gnu", "mips64-unknown-linux-gnuabi64"])
def test_what_cannot_be_done_is_refused(target: str, tmp_path: Path) -> None:
    library = archive(tmp_path, compile_c(target, TWO, tmp_path, "two", "-fPIC"))
    request_name = "other"
    with pytest.raises(ObjectError, match=r"objects for MIPS .* are not supported"):
        NativeEngine().prelink(
            PrelinkRequest(
                library,
                tmp_path / "out.a",
                Target.parse(target),
                (request_name,),
                Strip.NONE,
                Granularity.CLASS,
                b"",
            )
        )


def test_the_operating_system_of_freebsd_stays(tmp_path: Path) -> None:
    target = "x86_64-unknown-freebsd"
    objects = [compile_c(target, t, tmp_path, n) for n, t in (("one", ONE), ("two", TWO))]
    library = archive(tmp_path, *objects)
    out = tmp_path / "out.a"
    prelink(library, out, "class")
    member = subprocess.check_output([need("llvm-ar-22", "llvm-ar"), "p", out])
    assert member[7] == 9  # ELFOSABI_FREEBSD


@pytest.mark.parametrize(
    ("target", "size", "branch"),
    [
        ("thumbv7-unknown-linux-gnueabihf", 7 << 20, "bl"),
        ("powerpc64le-unknown-linux-gnu", 14 << 20, "bl"),
        ("aarch64-unknown-linux-gnu", 56 << 20, "bl"),
    ],
)
def test_code_is_split_where_branches_do_not_reach(
    target: str, size: int, branch: str, tmp_path: Path
) -> None:
    # six functions: together farther apart than a branch goes, so that the linker needs thunks
    names = ["api", *(f"f{i}" for i in range(5))]
    text = ".syntax unified\n.thumb\n" if "thumb" in target else ""
    for i, name in enumerate(names):
        visibility = "" if name == "api" else f".hidden {name}\n"
        thumb = ".thumb_func\n" if "thumb" in target else ""
        text += (
            f'.section .text.{name},"ax",%progbits\n.p2align 2\n.globl {name}\n{visibility}'
            f".type {name},%function\n{thumb}{name}:\n"
            f"{branch} {names[(i + 1) % 6]}\n{branch} {names[(i + 3) % 6]}\n"
            f".space {size}\n"
        )
    source = tmp_path / "big.s"
    source.write_text(text)
    _run(need("clang-22"), f"--target={target}", "-c", source, "-o", tmp_path / "big.o")
    library = archive(tmp_path, tmp_path / "big.o")
    out = tmp_path / "out.a"
    prelink(library, out, "class")
    (tmp_path / "out.o").write_bytes(
        subprocess.check_output([need("llvm-ar-22", "llvm-ar"), "p", out])
    )
    with (tmp_path / "out.o").open("rb") as file:
        sizes = [s["sh_size"] for s in ELFFile(file).iter_sections() if s.name == ".text"]
    assert len(sizes) == 6 and sum(sizes) >= 6 * size
    linked = tmp_path / "linked.so"
    _run(need("ld.lld-22", "ld.lld"), "-shared", "--whole-archive", out, "-o", linked)
    assert linked.stat().st_size > 6 * size
    for large in tmp_path.iterdir():
        large.unlink()
