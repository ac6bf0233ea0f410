"""Runs programs for Darwin on Linux: `c/darwin_run.c` maps them and stands in for libSystem.

Programs for arm64 run in qemu-user. Unwinding is LLVM's own, the libunwind and libc++abi that
Darwin ships, compiled from the package ziglang and linked into the program: it reads the image's
compact unwind information as it does on a Mac.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from filelock import FileLock

from tests.fixtures import CACHE
from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.tools import need

C = Path(__file__).resolve().parent / "c"
_ABI = (
    "abort_message cxa_default_handlers cxa_exception cxa_exception_storage cxa_handlers "
    "cxa_personality cxa_virtual fallback_malloc private_typeinfo stdlib_exception "
    "stdlib_typeinfo"
)
_UNWIND = (
    "libunwind.cpp UnwindLevel1.c UnwindLevel1-gcc-ext.c gcc_personality_v0.c "
    "UnwindRegistersRestore.S UnwindRegistersSave.S"
)


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@cache
def runtime(target: str) -> Path:
    """A library of LLVM's unwinder and C++ runtime; `target` as zig calls it. Built once."""
    zig = kit.ziglang() / "zig"
    source = C / "darwin_runtime.c"
    key = _key(tool([zig, "version"]), source.read_text(), Path(__file__).read_text())
    out = _folder() / f"runtime-{key}-{target}" / "libruntime.a"
    with FileLock(_folder() / f"runtime-{target}.lock"):
        if not out.exists():
            part = out.parent.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            objects = _compile_runtime(zig, target, source, part)
            kit.archive(part / out.name, objects)
            part.rename(out.parent)
    return out


def _folder() -> Path:
    folder = CACHE / "darwin"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _compile_runtime(zig: Path, target: str, own: Path, folder: Path) -> list[Path]:
    library = kit.ziglang() / "lib"
    abi, unwind = library / "libcxxabi", library / "libunwind"
    includes = (unwind / "include", unwind / "src", library / "libcxx" / "src", abi / "src")
    flags: list[str | Path] = ["-O2", "-g0", "-w", "-DNDEBUG", "-fno-sanitize=all", "-c"]
    flags += [
        "-fno-stack-protector",
        "-D_LIBCXXABI_BUILDING_LIBRARY",
        "-DLIBCXX_BUILDING_LIBCXXABI",
    ]
    flags += ["-D_LIBCPP_ENABLE_CXX17_REMOVED_UNEXPECTED_FUNCTIONS", "-I", abi / "include"]
    flags += [word for i in includes for word in ("-I", i)]
    flags += ["-idirafter", library / "libc" / "include" / "any-darwin-any"]
    sources = [abi / "src" / f"{name}.cpp" for name in _ABI.split()]
    sources += [unwind / "src" / name for name in _UNWIND.split()]
    objects = []
    for source in (*sources, own):
        more = {".cpp": ["-std=c++23"], ".c": ["-fexceptions"]}.get(source.suffix, [])
        if source.name == "libunwind.cpp":
            more += ["-fno-exceptions", "-fno-rtti"]
        out = folder / f"{source.stem}.o"
        driver = "c++" if source.suffix == ".cpp" else "cc"
        tool([zig, driver, "-target", target, *flags, *more, "-o", out, source])
        objects.append(out)
    return objects


@cache
def _runner(arch: str) -> tuple[str | Path, ...]:
    """The words before a program that run it."""
    compiler = need("gcc") if arch == "x86_64" else need("aarch64-linux-gnu-gcc")
    source = C / "darwin_run.c"
    out = _folder() / f"run-{_key(source.read_text(), tool([compiler, '--version']))}-{arch}"
    with FileLock(_folder() / f"run-{arch}.lock"):
        if not out.exists():
            part = out.with_suffix(".part")
            tool([compiler, "-O1", "-Wall", "-Werror", "-static", "-o", part, source, "-lm"])
            part.rename(out)
    if arch == "x86_64":
        return (out,)
    return (need("qemu-aarch64-static", "qemu-aarch64"), out)


def link_flags(target: str) -> tuple[str | Path, ...]:
    """What makes ld64.lld link a program that can run here; `target` as zig calls it."""
    return ("-no_fixup_chains", "-force_load", runtime(target))


def run(program: Path, arch: str) -> str:
    """What a program writes; it has to end with 0."""
    done = subprocess.run(
        [*_runner(arch), program],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        env={**os.environ, "RUST_BACKTRACE": "0"},
        check=False,
    )
    assert done.returncode == 0, f"{program}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
