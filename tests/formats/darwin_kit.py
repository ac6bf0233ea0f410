"""Compiling for Darwin, stripping and linking with ld64.lld, for the tests of the Mach-O room."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, PrelinkResult, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.verify import Expectation, Verified, verify
from tests.formats.native_kit import tool
from tests.tools import missing, need

ARCHES = ("arm64", "x86_64")
MARKER = b'{"format":1}\n'


def triple(arch: str) -> str:
    return f"{arch.replace('arm64', 'aarch64')}-apple-darwin"


def clang() -> Path:
    return need("clang-22", "clang")


def linker() -> Path:
    own = Path("/usr/lib/llvm-22/bin/ld64.lld")
    return own if own.exists() else need("ld64.lld", "ld64.lld-22")


def llvm(name: str) -> Path:
    return need(f"llvm-{name}-22", f"llvm-{name}")


def compile(
    folder: Path,
    arch: str,
    sources: Mapping[str, str],
    *flags: str | Path,
    platform: str = "macos13",
) -> list[Path]:
    """Compile or assemble each source (name with suffix -> text) for Darwin."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name, text in sources.items():
        file = folder / name
        file.write_text(text)
        out = file.with_suffix(".o")
        tool([clang(), "-target", f"{arch}-apple-{platform}", "-c", *flags, "-o", out, file])
        objects.append(out)
    return objects


def archive(path: Path, objects: Sequence[Path]) -> Path:
    path.unlink(missing_ok=True)
    tool([llvm("ar"), "--format=darwin", "rcsD", path, *objects])
    return path


def library(
    folder: Path, arch: str, sources: Mapping[str, str], *flags: str, platform: str = "macos13"
) -> Path:
    """Compile and archive."""
    return archive(folder / "libt.a", compile(folder, arch, sources, *flags, platform=platform))


def strip(
    original: Path,
    arch: str,
    exports: Sequence[str],
    strip: Strip = Strip.DEBUGINFO,
    granularity: Granularity = Granularity.CLASS,
    *,
    target: str = "",
) -> tuple[Path, PrelinkResult, Verified]:
    """Prelink with the native engine and verify; the library, what was said and what was seen."""
    folder = original.parent / f"{granularity.value}-{strip.value}"
    folder.mkdir(exist_ok=True)
    request = PrelinkRequest(
        original,
        folder / original.name,
        Target.parse(target or triple(arch)),
        tuple(sorted(exports)),
        strip,
        granularity,
        MARKER,
    )
    result = NativeEngine().prelink(request)
    asked = (request.target, request.exports, strip, result.link_map, MARKER)
    expectation = Expectation(*asked, granularity=granularity)
    return request.output, result, verify(original, request.output, expectation)


def _stub(library: str, names: str, platform: str = "macos") -> str:
    """The text of a `.tbd` file."""
    quoted = ", ".join(f"'{n}'" for n in names.split())
    targets = f"[ x86_64-{platform}, arm64-{platform} ]"
    return (
        f"--- !tapi-tbd\ntbd-version: 4\ntargets: {targets}\n"
        f"install-name: '/usr/lib/{library}'\nexports:\n"
        f"  - targets: {targets}\n    symbols: [ {quoted} ]\n...\n"
    )


def cxx_stub(platform: str) -> str:
    """The text of a `libc++.tbd` with the names that C++ in the tests' libraries needs."""
    names = "___gxx_personality_v0 ___cxa_throw ___cxa_allocate_exception ___cxa_begin_catch "
    names += "___cxa_end_catch __ZTIi __ZTVN10__cxxabiv117__class_type_infoE "
    names += "__ZTVN10__cxxabiv120__si_class_type_infoE"
    return _stub("libc++.1.dylib", names, platform)


@cache
def system_stub(more: str = "") -> str:
    """The text of a `libSystem.tbd` with the names that the tests' programs need, and `more`."""
    names = "dyld_stub_binder __tlv_bootstrap __Unwind_Resume ___cxa_begin_catch ___cxa_end_catch "
    names += "___gxx_personality_v0 ___cxa_throw ___cxa_allocate_exception __ZTIi __ZSt9terminatev "
    names += "_printf _memcpy _abort _puts __tlv_atexit ___cxa_rethrow ___cxa_atexit __ZTVN10__"
    names += "cxxabiv117__class_type_infoE ___gcc_personality_v0 _system_call _atexit"
    return _stub("libSystem.B.dylib", f"{names} {more}")


def stub_for(platform: str) -> str:
    """The text of a `libSystem.tbd` of another platform, as `.tbd` files call it."""
    return _stub("libSystem.B.dylib", "dyld_stub_binder __tlv_bootstrap _printf", platform)


def link(
    out: Path,
    arch: str,
    inputs: Sequence[Path],
    *flags: str | Path,
    stub: str = "",
    platform: str = "macos",
) -> Path:
    """Link a program with ld64.lld. `platform` as the linker calls it."""
    folder = out.parent / "sdk"
    folder.mkdir(exist_ok=True)
    (folder / "libSystem.tbd").write_text(stub or system_stub())
    version = ("-platform_version", platform, "14.0", "14.0")
    # hints rewrite instructions of the original only: the result has none
    plain = ("-ignore_optimization_hints", "-L", folder, "-lSystem")
    tool([linker(), "-arch", arch, *version, *plain, "-o", out, *inputs, *flags])
    return out


def ziglang() -> Path:
    """The folder of the package ziglang: installed here, or named by STRIP_HOOK_ZIGLANG."""
    named = os.environ.get("STRIP_HOOK_ZIGLANG", "")
    spec = importlib.util.find_spec("ziglang")
    folder = named or (spec.origin and str(Path(spec.origin).parent) if spec else "")
    if not folder or not Path(folder).is_dir():
        missing("ziglang")
    return Path(str(folder))


def ziglang_stub(platform: str = "macos") -> str:
    """All of libSystem, as ziglang has it, without the targets that LLVM 22 does not know.

    macOS' names stand for those of the other platforms.
    """
    file = ziglang() / "lib" / "libc" / "darwin" / "libSystem.tbd"
    text = re.sub(r",?\s*arm64e\.x1-[a-z]+", "", file.read_text())
    return text.replace("-macos", f"-{platform}")


def headers() -> tuple[str | Path, ...]:
    """What makes clang find the headers of Darwin's C library."""
    folder = ziglang() / "lib" / "libc" / "include" / "any-darwin-any"
    return ("-nostdlibinc", "-isystem", folder)


def globals_of(library: Path) -> dict[str, str]:
    """Name -> letter of each external symbol, by llvm-nm."""
    said = tool([llvm("nm"), "-g", library])
    found = {}
    for line in said.splitlines():
        words = line.split()
        if len(words) >= 2 and len(words[-2]) == 1:
            found[words[-1]] = words[-2]
    return found
