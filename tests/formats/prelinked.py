"""Small originals and stand-in results made by GNU ld, to be damaged in one way at a time.

`ld -r` puts the objects together without any change of meaning, and its map says where each piece
went: an independent source for the placement that an engine would claim.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from elftools.elf.elffile import ELFFile

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import Expectation
from cargo_strip_hook.verify.link_map import LINK_MAP
from tests.tools import need

MARKER = b"marked\n"

A_C = """
extern int puts(const char *);
extern int tuned(int) __attribute__((weak));
int other(int);
int shared_count = 3;
static int hidden_table[4] = {1, 2, 3, 4};
static int *pointers[2] = {&hidden_table[1], &shared_count};
static __thread int per_thread = 7;
int zeros[16];
__attribute__((noinline)) static int helper(int a) {
    return hidden_table[a & 3] + (per_thread += a);
}
int api_add(int a, int b) { return helper(a) + *pointers[b & 1] + other(b); }
int api_say(const char *what) { return puts(what) + (tuned ? tuned(1) : 0) + puts("constant"); }
__attribute__((constructor(101))) static void early(void) { shared_count++; }
__attribute__((destructor)) static void late(void) { shared_count--; }
"""
B_CC = """
struct Local { int *where; ~Local() { *where += 1; } };
extern "C" int puts(const char *);
extern "C" int other(int a) { return a * 2 + zeros_of(a); }
extern "C" int api_try(int a) {
    int count = 0;
    try { Local local = {&count}; if (a) throw a; }
    catch (int caught) { return caught + count; }
    return count;
}
""".replace("zeros_of(a)", "1")
C_S = """
    .section .note.GNU-stack,"",%progbits
    .text
    .globl api_asm
    .type api_asm, %function
api_asm:
    .cfi_startproc
    movq inner@GOTPCREL(%rip), %rax
    call *inner@GOTPCREL(%rip)
    jmp *inner@GOTPCREL(%rip)
    .cfi_endproc
    .size api_asm, .-api_asm
    .section .text.inner,"ax",@progbits
    .globl inner
    .hidden inner
    .type inner, %function
inner:
    .cfi_startproc
    call nearby
    call nearby@PLT
    ret
    .cfi_endproc
    .size inner, .-inner
    .globl nearby
    .hidden nearby
    .type nearby, %function
nearby:
    .cfi_startproc
    nop
    ret
    .cfi_endproc
    .size nearby, .-nearby
    .section .kept,"aR",@progbits
    .quad 0x1122334455667788
    .section .ordered,"ao",@progbits,.text.inner
    .quad 5
    .section .rodata.str1.1,"aMS",@progbits,1
.Lword:
    .string "word"
    .section .data.rel.ro.words,"aw",@progbits
    .quad .Lword
"""
EXPORTS = ("api_add", "api_asm", "api_say", "api_try", "shared_count")


def run(*argv: str | Path) -> str:
    """Run a tool; its output, or an assertion with what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Tools:
    """A GNU toolchain."""

    cc: str = "gcc"
    ld: str = "ld"
    objcopy: str = "objcopy"
    ar: str = "ar"
    flags: tuple[str, ...] = ()
    ld_flags: tuple[str, ...] = ()
    triple: str = "x86_64-unknown-linux-gnu"


@dataclass(frozen=True)
class Case:
    """An original archive, the object that stands for the result, and what is claimed of it."""

    folder: Path
    original: Path
    object: bytes
    expectation: Expectation
    tools: Tools = field(default_factory=Tools)

    def write(self, data: bytes | None = None, *, index: bool = True) -> Path:
        """An archive with the object (or `data` in its place)."""
        path = self.folder / "candidate.o"
        path.write_bytes(self.object if data is None else data)
        archive = self.folder / "candidate.a"
        archive.unlink(missing_ok=True)
        run(self.tools.ar, "rcDs" if index else "rcDS", archive, path)
        return archive

    def claiming(self, **changes: object) -> Case:
        """The same with another claim."""
        return replace(self, expectation=replace(self.expectation, **changes))  # type: ignore[arg-type]

    def objcopy(self, *options: str) -> Case:
        """The object changed by objcopy."""
        one, two = self.folder / "before.o", self.folder / "after.o"
        one.write_bytes(self.object)
        run(need(self.tools.objcopy), *options, one, two)
        return replace(self, object=two.read_bytes())


def compile_sources(folder: Path, sources: dict[str, str], tools: Tools) -> list[Path]:
    """Compile (or assemble) each source with its own functions and data in sections."""
    cc, objects = need(tools.cc), []
    for name, text in sources.items():
        source = folder / name
        source.write_text(text)
        target = source.with_suffix(".o")
        split = ("-ffunction-sections", "-fdata-sections")
        flags = ["-O1", "-fPIC", "-fno-ident", *split, *tools.flags]
        run(cc, "-c", *flags, source, "-o", target)
        objects.append(target)
    return objects


def placement_of(map_text: str, objects: Sequence[Path], linked: Path) -> np.ndarray:
    """Where the pieces went: addresses from ld's map, section numbers from pyelftools."""
    with linked.open("rb") as file:
        numbers = {s.name: i for i, s in enumerate(ELFFile(file).iter_sections())}
    text = re.sub(r"(?m)^ (\S+)\n +0x", r" \1 0x", map_text)
    rows = []
    for member, path in enumerate(objects):
        with path.open("rb") as file:
            sections = list(enumerate(ELFFile(file).iter_sections()))
        for number, section in sections:
            if not section["sh_flags"] & 2 or section.name in (".eh_frame", ".note.gnu.property"):
                continue
            place = 0
            if section["sh_size"]:
                found = re.search(
                    rf"(?m)^ {re.escape(section.name)} +0x([0-9a-f]+) +0x[0-9a-f]+ "
                    rf"{re.escape(str(path))}$",
                    text,
                )
                assert found, f"{section.name} of {path} is not in the map"
                place = int(found[1], 16)
            elif section.name not in numbers:
                continue
            rows.append((member, number, 0, section["sh_size"], numbers[section.name], place))
    return np.array(rows, LINK_MAP)


def build(
    folder: Path,
    sources: dict[str, str],
    exports: Sequence[str],
    tools: Tools | None = None,
    extra: Sequence[Path] = (),
    link: Sequence[str] = (),
) -> Case:
    """Compile the sources, make the original archive, and link the stand-in result."""
    tools = tools or Tools()
    for tool in (tools.ld, tools.objcopy, tools.ar):
        need(tool)
    objects = compile_sources(folder, sources, tools)
    original = folder / "original.a"
    run(tools.ar, "rcDs", original, *objects)
    linked, map_text = folder / "linked.o", folder / "linked.map"
    options = ["-r", "--force-group-allocation", "-d", f"-Map={map_text}", *tools.ld_flags, *link]
    run(tools.ld, *options, *objects, *extra, "-o", linked)
    marker, done = folder / "marker", folder / "done.o"
    marker.write_bytes(MARKER)
    keep = [f"--keep-global-symbol={name}" for name in exports]
    run(
        tools.objcopy,
        *keep,
        "--remove-section=.comment",
        f"--add-section=.cargo-strip-hook={marker}",
        linked,
        done,
    )
    link_map = placement_of(map_text.read_text(), objects, done)
    expectation = Expectation(
        Target.parse(tools.triple), tuple(exports), Strip.DEBUGINFO, link_map, MARKER
    )
    return Case(folder, original, done.read_bytes(), expectation, tools)


class Editor:
    """Changes single fields of a 64-bit little-endian ELF object."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        (self.table,) = struct.unpack_from("<Q", data, 40)
        (self.count, names) = struct.unpack_from("<HH", data, 60)
        strings = self.section(names)["offset"]
        self.names = [self.text(strings + self.section(i)["name"]) for i in range(self.count)]

    def text(self, at: int) -> str:
        return self.data[at : self.data.index(0, at)].decode()

    _FIELDS: ClassVar = {
        "name": (0, "I"),
        "type": (4, "I"),
        "flags": (8, "Q"),
        "address": (16, "Q"),
        "offset": (24, "Q"),
        "size": (32, "Q"),
        "link": (40, "I"),
        "info": (44, "I"),
        "align": (48, "Q"),
        "entsize": (56, "Q"),
    }

    def section(self, which: int | str) -> dict[str, int]:
        """The header of a section, by number or name."""
        at = self.table + 64 * self.number(which)
        return {
            name: struct.unpack_from(f"<{code}", self.data, at + offset)[0]
            for name, (offset, code) in self._FIELDS.items()
        }

    def number(self, which: int | str) -> int:
        return which if isinstance(which, int) else self.names.index(which)

    def set_section(self, which: int | str, **fields: int) -> None:
        at = self.table + 64 * self.number(which)
        for name, value in fields.items():
            offset, code = self._FIELDS[name]
            struct.pack_into(f"<{code}", self.data, at + offset, value)

    def flip(self, which: int | str, offset: int) -> None:
        """Change one byte of a section's contents."""
        self.data[self.section(which)["offset"] + offset] ^= 0x40

    def contents(self, which: int | str) -> bytes:
        header = self.section(which)
        return bytes(self.data[header["offset"] : header["offset"] + header["size"]])

    # symbols: (name, info, other, shndx, value, size) as in Elf64_Sym
    def symbol_at(self, number: int) -> int:
        return self.section(".symtab")["offset"] + 24 * number

    def symbol(self, number: int) -> list[int]:
        return list(struct.unpack_from("<IBBHQQ", self.data, self.symbol_at(number)))

    def set_symbol(self, number: int, fields: Sequence[int]) -> None:
        struct.pack_into("<IBBHQQ", self.data, self.symbol_at(number), *fields)

    def symbol_names(self) -> list[str]:
        strings = self.section(".strtab")["offset"]
        count = self.section(".symtab")["size"] // 24
        return [self.text(strings + self.symbol(i)[0]) for i in range(count)]

    def find_symbol(self, name: str) -> int:
        return self.symbol_names().index(name)

    # relocations: [offset, type, symbol, addend]
    def relocations(self, of: str) -> list[list[int]]:
        found = []
        header = self.section(f".rela{of}")
        for at in range(header["offset"], header["offset"] + header["size"], 24):
            offset, kind, symbol, addend = struct.unpack_from("<QIIq", self.data, at)
            found.append([offset, kind, symbol, addend])
        return found

    def set_relocation(self, of: str, position: int, fields: Sequence[int]) -> None:
        at = self.section(f".rela{of}")["offset"] + 24 * position
        struct.pack_into("<QIIq", self.data, at, *fields)

    def change_relocation(
        self, of: str, change: Callable[[list[int]], None], position: int = 0
    ) -> None:
        fields = self.relocations(of)[position]
        change(fields)
        self.set_relocation(of, position, fields)
