"""Compiling, stripping, linking and running small libraries, for the tests of the engines."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from cargo_strip_hook.core.requests import (
    Compression,
    Granularity,
    PrelinkRequest,
    PrelinkResult,
    Strip,
)
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from tests.tools import missing, need

LINKERS = ("bfd", "lld", "gold", "mold")
TRIPLE = "x86_64-unknown-linux-gnu"
_COMPILERS = {".c": "gcc", ".cc": "g++", ".s": "gcc", ".S": "gcc"}


def tool(argv: Sequence[object], *, accept: Iterable[int] = (0,)) -> str:
    """Run a program; what it wrote to both streams. Fails the test with it otherwise."""
    words = [str(a) for a in argv]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=600,  # zig builds a C++ library the first time
        check=False,
    )
    assert done.returncode in accept, f"{' '.join(words)}: {done.returncode}\n{done.stdout}"
    return done.stdout


def build(
    folder: Path, sources: Mapping[str, str], *flags: str, compiler: str | None = None
) -> list[Path]:
    """Compile each source (name with suffix -> text) into an object beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name, text in sources.items():
        file = folder / name
        file.write_text(text)
        if file.suffix == ".h":
            continue
        program = compiler or _COMPILERS[file.suffix]
        if file.suffix == ".cc" and compiler and compiler.startswith("clang-"):
            program = compiler.replace("clang", "clang++")
        flags_of = [] if file.suffix == ".s" else flags
        out = file.with_suffix(".o")
        tool([need(program), "-c", *flags_of, "-o", out, file])
        objects.append(out)
    return objects


def archive(path: Path, objects: Sequence[Path]) -> Path:
    """A static library of `objects`, in that order."""
    path.unlink(missing_ok=True)
    tool([need("ar"), "rcsD", path, *objects])
    return path


def library(
    folder: Path,
    sources: Mapping[str, str],
    *flags: str,
    compiler: str | None = None,
    name: str = "libt.a",
) -> Path:
    """Compile and archive."""
    return archive(folder / name, build(folder, sources, *flags, compiler=compiler))


def strip(
    original: Path,
    exports: Sequence[str],
    strip: Strip = Strip.DEBUGINFO,
    granularity: Granularity = Granularity.CLASS,
    *,
    output: Path | None = None,
    triple: str = TRIPLE,
    compress: Compression = Compression.NONE,
) -> tuple[Path, PrelinkResult]:
    """Prelink with the native engine; the new library and what the engine says of it."""
    if output is None:
        folder = original.parent / f"{granularity.value}-{strip.value}-{compress.value}"
        folder.mkdir(exist_ok=True)
        output = folder / original.name
    request = PrelinkRequest(
        original,
        output,
        Target.parse(triple),
        tuple(exports),
        strip,
        granularity,
        b"marker",
        compress_debug=compress,
    )
    return output, NativeEngine().prelink(request)


@cache
def linker_folder() -> Path:
    """A folder where gcc finds `ld.lld` by that name; distributions add a version to it."""
    folder = Path(tempfile.mkdtemp(prefix="linkers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = shutil.which("ld.lld") or shutil.which("ld.lld-22")
    if found:
        (folder / "ld.lld").symlink_to(found)
    return folder


def linker_flags(linker: str) -> list[str]:
    """What makes gcc and g++ link with `linker`, one of LINKERS."""
    if linker == "lld":
        if not (linker_folder() / "ld.lld").exists():
            missing("ld.lld")
    else:
        need({"bfd": "ld.bfd", "gold": "ld.gold", "mold": "mold"}[linker])
    return [f"-B{linker_folder()}", f"-fuse-ld={linker}"]


def link(
    out: Path,
    inputs: Sequence[Path | str],
    linker: str = "bfd",
    *flags: str,
    driver: str = "gcc",
) -> Path:
    """Link objects, sources and libraries in that order."""
    tool([need(driver), *linker_flags(linker), "-o", out, *inputs, *flags])
    return out


def output(program: Path, *arguments: str) -> str:
    """What a program writes; it has to end with 0."""
    return tool([program, *arguments])
