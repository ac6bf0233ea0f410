"""Which of several definitions a library keeps, for Apple's and Windows' objects.

Programs do not run here: libraries of data are linked, and pointers are followed in the image.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import StripHookError
from tests.consumers import darwin_image
from tests.formats import loading_kit as kit
from tests.formats.native_kit import tool
from tests.formats.test_loading import COUNT, make, verified
from tests.tools import need

Seen = dict[str, tuple[int, ...]]  # of each export the numbers that it points to


@dataclass(frozen=True)
class Platform:
    triple: str
    clang: str
    weak: str
    archive: tuple[str, ...]
    linker: tuple[str, ...]
    other: str  # a target whose linker has another order
    prefix: str = ""

    def link(self, folder: Path, drawn: kit.Drawn, library: Path, out: Path) -> Seen | None:
        """What the program sees; None where the linker does not make one."""
        objects = [folder / f"u{name}.o" for name in drawn.exports]
        pointers = [name.replace("t", "p") for name in drawn.exports]
        (folder / "list.def").write_text("EXPORTS\n" + "".join(f"{p} DATA\n" for p in pointers))
        words = [need(self.linker[0]), *self.linker[1:]]
        more = [folder / "list.def"] if "mingw" in self.linker[0] else []
        if self.linker[0].startswith("lld-link"):
            more = [f"/def:{folder / 'list.def'}"]
        out_flag = [f"/out:{out}"] if self.linker[0].startswith("lld-link") else ["-o", out]
        done = subprocess.run(
            [*words, *out_flag, *objects, library, *more], capture_output=True, check=False
        )
        if done.returncode:
            return None
        read = _darwin if self.prefix else _windows
        where, word = read(out)
        return {
            p: tuple(word(word(word(where[p], 8) + 8 * i, 8), 4) for i in (0, 1)) for p in where
        }


Image = tuple[dict[str, int], Callable[[int, int], int]]


def _darwin(path: Path) -> Image:
    image = darwin_image.load(path.read_bytes())

    def word(address: int, size: int) -> int:
        value = int.from_bytes(image.bytes_at(address, size), "little")
        return value & ((1 << 36) - 1)  # without the links of chained fixups

    return {n[1:]: at for n, _, _, _, at in image.symbols if n.startswith("_p")}, word


def _windows(path: Path) -> Image:
    data = path.read_bytes()
    (pe,) = struct.unpack_from("<I", data, 60)
    count, size = struct.unpack_from("<H12xH", data, pe + 6)
    (base,) = struct.unpack_from("<Q", data, pe + 24 + 24)
    table = [struct.unpack_from("<8x4I", data, pe + 24 + size + 40 * i) for i in range(count)]

    def word(address: int, width: int) -> int:
        rva = address - base
        length, start, held, offset = next(s for s in table if s[1] <= rva < s[1] + s[0])
        assert rva - start < held or not length
        return int.from_bytes(data[offset + rva - start :][:width], "little")

    said = tool([need("llvm-readobj-22"), "--coff-exports", path])
    found = re.findall(r"Name: (p\d+)\s+RVA: (0x[0-9A-F]+)", said, re.I)
    return {name: int(rva, 16) + base for name, rva in found}, word


_DARWIN = ("ld64.lld-22", "-dylib", "-arch", "arm64", "-platform_version", "macos", "11.0", "11.0")
PLATFORMS = [
    Platform(
        "aarch64-apple-darwin",
        "arm64-apple-macos11",
        "__attribute__((weak))",
        ("llvm-ar-22", "rcs", "--format=darwin"),
        _DARWIN,
        "",
        "_",
    ),
    Platform(
        "x86_64-pc-windows-msvc",
        "x86_64-pc-windows-msvc",
        "__declspec(selectany)",
        ("llvm-lib-22",),
        ("lld-link-22", "/dll", "/noentry", "/nodefaultlib"),
        "x86_64-pc-windows-gnu",
    ),
    Platform(
        "x86_64-pc-windows-gnu",
        "x86_64-w64-mingw32",
        "__declspec(selectany)",
        ("x86_64-w64-mingw32-ar", "rcs"),
        ("x86_64-w64-mingw32-ld", "-shared", "-e", "0"),
        "x86_64-pc-windows-msvc",
    ),
]


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: p.triple)
def test_the_definitions_are_those_that_the_linker_takes(
    platform: Platform, tmp_path: Path
) -> None:
    texts = kit.data_sources(3, platform.weak, commons=False)
    kit.compile_all(tmp_path, texts, "-target", platform.clang, compiler=need("clang-22"))
    done = 0
    for n, drawn in enumerate(kit.draw_data(5, texts, COUNT // 2)):
        library, out = tmp_path / f"l{n}.a", tmp_path / f"r{n}.a"
        into = [f"/out:{library}"] if platform.archive[0].startswith("llvm-lib") else [library]
        members = [tmp_path / f"{m}.o" for m in drawn.members]
        tool([need(platform.archive[0]), *platform.archive[1:], *into, *members])
        wanted = platform.link(tmp_path, drawn, library, tmp_path / "image")
        exports = tuple(platform.prefix + name for name in drawn.exports)
        if wanted is None:
            with pytest.raises(StripHookError):
                made = make(library, out, exports, platform.triple)
                verified(library, out, exports, platform.triple, made)
            continue
        made = make(library, out, exports, platform.triple)
        verified(library, out, exports, platform.triple, made)
        assert platform.link(tmp_path, drawn, out, tmp_path / "image") == wanted, drawn
        done += 1
    assert done > COUNT // 6
