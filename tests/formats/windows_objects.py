"""Compiling for Windows, stripping, linking with lld-link and running what needs no system.

A DLL without imports is only memory: `Image` puts one where it runs, in a child process, and calls
its functions, which have to be `sysv_abi` ones.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, PrelinkResult, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.verify import Expectation, Verified, verify
from tests.formats.native_kit import tool
from tests.tools import need

TARGETS = (
    "x86_64-pc-windows-msvc",
    "i686-pc-windows-msvc",
    "aarch64-pc-windows-msvc",
    "x86_64-pc-windows-gnu",
    "i686-pc-windows-gnu",
)
MACHINES = {"x86_64": "x64", "i686": "x86", "aarch64": "arm64"}
MARKER = b'{"format":1}\n'


def llvm(name: str) -> Path:
    return need(f"llvm-{name}-22", f"llvm-{name}")


def prefix(target: str) -> str:
    """What C names begin with in objects."""
    return "_" if target.startswith("i686") else ""


def compile(folder: Path, target: str, sources: Mapping[str, str], *flags: str) -> list[Path]:
    """Compile or assemble each source (name with suffix -> text)."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name, text in sources.items():
        file = folder / name
        file.write_text(text)
        out = file.with_suffix(".o")
        clang = need("clang-22", "clang")
        tool([clang, f"--target={target}", "-ffreestanding", "-c", *flags, "-o", out, file])
        objects.append(out)
    return objects


def archive(path: Path, target: str, members: Sequence[Path]) -> Path:
    """A library of the target's dialect."""
    path.unlink(missing_ok=True)
    form = "coff" if target.endswith("msvc") else "gnu"
    tool([llvm("ar"), f"--format={form}", "rcsD", path, *members])
    return path


def library(folder: Path, target: str, sources: Mapping[str, str], *flags: str) -> Path:
    """Compile and archive."""
    return archive(folder / "t.lib", target, compile(folder, target, sources, *flags))


def strip(
    original: Path,
    target: str,
    exports: Sequence[str],
    strip: Strip = Strip.DEBUGINFO,
    granularity: Granularity = Granularity.CLASS,
) -> tuple[Path, PrelinkResult]:
    """Prelink; the new library and what the engine says of it. `exports` are C names."""
    folder = original.parent / f"{granularity.value}-{strip.value}"
    folder.mkdir(exist_ok=True)
    out = folder / original.name
    names = tuple(prefix(target) + n for n in exports)
    request = PrelinkRequest(original, out, Target.parse(target), names, strip, granularity, MARKER)
    return out, NativeEngine().prelink(request)


def check(
    original: Path, out: Path, target: str, made: PrelinkResult, strip: Strip = Strip.DEBUGINFO
) -> Verified:
    """What the verifier says of a result of `strip`. Raises what it raises."""
    expectation = Expectation(
        Target.parse(target),
        made.exports,
        strip,
        made.link_map,
        MARKER,
        import_members=made.import_members,
        granularity=Granularity(out.parent.name.partition("-")[0]),  # as `strip` calls it
    )
    return verify(original, out, expectation)


def first_object(path: Path) -> Path:
    """The first member of an archive, as a file beside it."""
    name = tool([llvm("ar"), "t", path]).splitlines()[0]
    out = path.with_name("object.o")
    with out.open("wb") as file:
        subprocess.run([llvm("ar"), "p", path, name], stdout=file, check=True)
    return out


def externals(path: Path) -> tuple[set[str], set[str]]:
    """(defined, undefined) external symbols of an object or library, by llvm-nm."""
    lines = [line.split() for line in tool([llvm("nm"), "--extern-only", path]).splitlines()]
    undefined = {w[-1] for w in lines if len(w) > 1 and w[-2] in "UwW"}
    return {w[2] for w in lines if len(w) == 3} - undefined, undefined


def sections(path: Path) -> list[dict[str, str]]:
    """Of each section: name, selection ("" for none), associated section's number, flags."""
    text = tool([llvm("readobj"), "--sections", "--symbols", path])
    out = []
    for block in re.findall(r"  Section \{(.*?)\n  \}", text, re.S):
        name = re.search(r"Name: (\S+)", block)
        flags = re.search(r"Characteristics \[ \((0x\w+)\)", block)
        assert name and flags
        out.append({"name": name[1], "flags": flags[1], "selection": "", "parent": ""})
    for section, block in re.findall(
        r"Section: \S+ \((\d+)\)\n(?:(?!Section:).)*?AuxSectionDef \{(.*?)\n    \}", text, re.S
    ):
        chosen = re.search(r"Selection: (\w+)", block)
        parent = re.search(r"AssocSection: \S+ \((\d+)\)", block)
        if chosen and chosen[1] != "0x0":
            out[int(section) - 1]["selection"] = chosen[1]
            out[int(section) - 1]["parent"] = parent[1] if parent else ""
    return out


def link_dll(
    out: Path, target: str, inputs: Sequence[Path], exports: Sequence[str], *flags: str
) -> str:
    """A DLL that exports `exports`, by lld-link; what it said, warnings being errors."""
    machine = MACHINES[target.partition("-")[0]]
    argv: list[str | Path] = [need("lld-link-22", "lld-link"), f"/machine:{machine}", "/wx"]
    argv += ["/dll", "/noentry", "/nodefaultlib", f"/out:{out}", "/safeseh:no", *flags]
    argv += [f"/export:{name}" for name in exports]
    return tool([*argv, *inputs])


def call(dll: Path, *calls: tuple[str, int]) -> list[int]:
    """The results of functions of an x86_64 DLL, called one after another with one number."""
    words = [f"{name}={value}" for name, value in calls]
    said = tool([sys.executable, "-m", "tests.formats.windows_objects", dll, *words])
    return [int(word) for word in said.split()]


class Parts:
    """Where the records of a plain object are."""

    def __init__(self, data: bytes) -> None:
        self.raw = bytearray(data)
        self.machine, self.count = struct.unpack_from("<HH", data)
        self.table, self.symbols = struct.unpack_from("<II", data, 8)
        self.strings = self.table + 18 * self.symbols

    def section(self, name: bytes) -> int:
        """The header of the first section of that name."""
        headers = range(20, 20 + 40 * self.count, 40)
        return next(at for at in headers if self.name(at) == name)

    def name(self, header: int) -> bytes:
        """The name of the section with this header."""
        field = bytes(self.raw[header : header + 8]).rstrip(b"\0")
        if not field.startswith(b"/"):
            return field
        return bytes(self.raw[self.strings + int(field[1:]) :].partition(b"\0")[0])

    def contents(self, name: bytes) -> int:
        """Where the first section of that name has its contents."""
        return int(struct.unpack_from("<I", self.raw, self.section(name) + 20)[0])

    def relocation(self, name: bytes) -> int:
        """The first relocation of a section."""
        return int(struct.unpack_from("<I", self.raw, self.section(name) + 24)[0])

    def symbol(self, name: bytes, number: int = 0) -> int:
        """The record of a symbol of that name, which has eight bytes at the most."""
        return [
            at
            for at in range(self.table, self.strings, 18)
            if self.raw[at : at + 8].rstrip(b"\0") == name
        ][number]


class Image:
    """An x86_64 image in memory, at a place of its own. Source: Microsoft, "PE Format"."""

    def __init__(self, path: Path) -> None:
        import ctypes
        import mmap

        data = path.read_bytes()
        pe = struct.unpack_from("<I", data, 0x3C)[0]
        count, optional_size = struct.unpack_from("<H12xH", data, pe + 6)
        optional = pe + 24
        base, size = (
            struct.unpack_from("<Q", data, optional + 24)[0],
            struct.unpack_from("<I", data, optional + 56)[0],
        )
        directories = [struct.unpack_from("<II", data, optional + 112 + 8 * n) for n in range(16)]
        assert directories[1] == (0, 0), "the DLL imports something"
        access = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self.memory = mmap.mmap(-1, size, prot=access)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for n in range(count):
            header = optional + optional_size + 40 * n
            place, length, offset = struct.unpack_from("<III", data, header + 12)
            self.memory[place : place + length] = data[offset : offset + length]
        at, end = directories[5][0], sum(directories[5])
        while at < end:
            page, length = struct.unpack_from("<II", self.memory, at)
            for word in struct.unpack_from(f"<{(length - 8) // 2}H", self.memory, at + 8):
                if word >> 12 == 10:
                    place = page + (word & 0xFFF)
                    old = struct.unpack_from("<Q", self.memory, place)[0]
                    struct.pack_into("<Q", self.memory, place, old - base + self.start)
            at += length
        table = directories[0][0]
        total, functions, texts, numbers = struct.unpack_from("<IIII", self.memory, table + 24)
        self.exports = {}
        for n in range(total):
            text = struct.unpack_from("<I", self.memory, texts + 4 * n)[0]
            name = bytes(self.memory[text : text + 200]).partition(b"\0")[0].decode()
            number = struct.unpack_from("<H", self.memory, numbers + 2 * n)[0]
            self.exports[name] = struct.unpack_from("<I", self.memory, functions + 4 * number)[0]

    def call(self, name: str, value: int) -> int:
        import ctypes

        function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(self.start + self.exports[name])
        return int(function(value))


def main(argv: Sequence[str]) -> None:
    image = Image(Path(argv[0]))
    for word in argv[1:]:
        name, _, value = word.partition("=")
        print(image.call(name, int(value)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
