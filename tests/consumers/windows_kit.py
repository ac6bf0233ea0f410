"""Linking and running programs for Windows on whatever machine this is.

windows-gnu: MinGW's gcc, or clang with lld. windows-msvc: lld-link with MinGW's import libraries
and `c/windows/shim.c`, the part of Microsoft's runtime that is linked into programs; C is compiled
with the few declarations of `c/windows/include`. Programs run under Wine, which in Debian 12 has no
bcryptprimitives.dll: `c/windows/bcryptprimitives.c` is put beside them. What cannot run here is
linked and compared: there is no Wine for aarch64, and 32-bit Wine only where it is installed.
Import libraries for aarch64 are made from the names that a library leaves undefined.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from tests import fixtures
from tests.consumers.toolbox import SOURCES, run
from tests.fixtures import CACHE, CRATES, Built
from tests.targets import QUICK_WINDOWS, WINDOWS
from tests.tools import TIER, missing, need

HERE = SOURCES / "windows"
GNU = tuple(t for t, w in WINDOWS.items() if not w.msvc)
MSVC = tuple(t for t, w in WINDOWS.items() if w.msvc)
RUNNING = tuple(t for t, w in WINDOWS.items() if w.wine)
HEADERS = (CRATES / "behaviour" / "behaviour.h", CRATES / "windows" / "windows.h")
# what a program for MSVC needs, by the names of MinGW's import libraries
_IMPORTS = ("kernel32", "ntdll", "ucrt", "ws2_32", "userenv", "dbghelp")
_DLLTOOL = {"x64": "i386:x86-64", "x86": "i386", "arm64": "arm64"}
_NATIVE = ("-lkernel32", "-lntdll", "-luserenv", "-lws2_32", "-ldbghelp")
_STATIC_CXX = ("-static", "-lstdc++", "-lgcc", "-lgcc_eh", "-lpthread")


def built_for(name: str, target: str) -> Built:
    """The library; the tier says whether it may be built now."""
    wanted = TIER == "all" or (TIER == "ci" and target in QUICK_WINDOWS)
    if not wanted and not fixtures.is_built(name, "release", target, "debian"):
        pytest.skip(f"{name} was not built for {target} (STRIP_HOOK_TESTS=all does)")
    return fixtures.library(name, "release", target, "debian")


def exports(target: str, headers: Iterable[Path] = HEADERS) -> tuple[str, ...]:
    """The functions and variables of the headers by the names in objects, sorted."""
    found = set()
    for header in headers:
        text = re.sub(r"/\*.*?\*/|^#.*?$", "", header.read_text(), flags=re.S | re.M)
        for match in re.finditer(r"\b([a-z]+_\w+)(?=\(|;|\[)", text):
            declaration = text[text.rfind(";", 0, match.start()) + 1 : match.end()]
            if "typedef" not in declaration:
                found.add(_decorated(match[1], declaration, target))
    return tuple(sorted(found))


def _decorated(name: str, declaration: str, target: str) -> str:
    """The name in an object; all parameters here have four bytes."""
    if not target.startswith("i686"):
        return name
    size = {"bhv_std": 8, "bhv_fast": 8}.get(name)
    if "__fastcall" in declaration:
        return f"@{name}@{size}"
    return f"_{name}@{size}" if "__stdcall" in declaration else f"_{name}"


# Wine


def wine(target: str) -> list[str | Path]:
    """The words before a program. Skips the test where there is no Wine for the target."""
    name = WINDOWS[target].wine
    usual = {"wine64": "/usr/lib/wine/wine64", "wine32": "/usr/lib/wine/wine"}[name]
    places = [os.environ.get(f"STRIP_HOOK_{name.upper()}"), usual, name]
    found = next((f for p in places if p and (f := shutil.which(p))), None)
    if not found and name == "wine32":
        pytest.skip("there is no 32-bit Wine: programs for i686 are linked and compared only")
    if not found:
        missing(name)
    return [str(found)]


@cache
def _environment(target: str) -> dict[str, str]:
    """Wine's settings, with a folder of its own for what it takes for a disk."""
    prefix = CACHE / f"{WINDOWS[target].wine}-prefix"
    env = {
        "WINEPREFIX": str(prefix),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=",
        "WINEARCH": "win64" if WINDOWS[target].wine == "wine64" else "win32",
        "HOME": str(CACHE),
    }
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{prefix.name}.lock"):
        if not (prefix / "ready").exists():
            shutil.rmtree(prefix, ignore_errors=True)
            run(*wine(target), "wineboot", "-i", env=env)
            (prefix / "ready").touch()
    return env


def output(target: str, program: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """What a program writes; it has to end with 0."""
    env = {**_environment(target), **(env or {})}
    return run(*wine(target), program, *words, env=env).stdout.replace("\r\n", "\n")


# Programs


def gcc(target: str, language: str = "gcc") -> Path:
    return need(f"{WINDOWS[target].gnu}-{language}")


def compile(target: str, source: Path, folder: Path, *flags: str | Path) -> Path:
    """A C source, by the compiler that belongs to the target."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{source.stem}.o"
    argv: list[str | Path] = [need("clang-22", "clang"), f"--target={target}", "-ffreestanding"]
    argv += ["-isystem", HERE / "include"]
    if not WINDOWS[target].msvc:
        argv = [gcc(target)]
    run(*argv, "-O1", "-Wall", "-Wextra", "-Werror", *flags, "-c", source, "-o", out)
    return out


def link(
    target: str,
    objects: Sequence[Path],
    libraries: Sequence[Path],
    out: Path,
    *flags: str,
    linker: str = "",
) -> tuple[Path, str]:
    """A program, and what the linker said. `linker`: for windows-gnu "bfd" or "lld"."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if WINDOWS[target].msvc:
        said = _lld_link(target, [*objects, *libraries], out, flags)
    else:
        argv: list[str | Path] = [gcc(target)]
        if linker == "lld":
            lld = need("ld.lld-22", "ld.lld")
            argv = [need("clang-22", "clang"), f"--target={target}", f"--ld-path={lld}"]
        done = run(*argv, *flags, *objects, *libraries, *_STATIC_CXX, *_NATIVE, "-o", out)
        said = done.stdout + done.stderr
    version = struct.unpack_from("<B", out.read_bytes(), _optional_header(out) + 2)[0]
    wanted = 14 if WINDOWS[target].msvc or linker == "lld" else 2
    assert version == wanted, f"linked by a linker of version {version}"
    provide_random(target, out.parent)
    return out, said


def _optional_header(program: Path) -> int:
    """Where IMAGE_OPTIONAL_HEADER begins; GNU ld calls itself version 2, lld version 14."""
    return int(struct.unpack_from("<I", program.read_bytes(), 0x3C)[0]) + 24


def _lld_link(target: str, inputs: Sequence[Path], out: Path, flags: Sequence[str]) -> str:
    folder = out.parent / "link"
    shim = compile(target, HERE / "shim.c", folder)
    argv: list[str | Path] = [
        need("lld-link-22", "lld-link"),
        f"/machine:{WINDOWS[target].machine}",
    ]
    argv += ["/nodefaultlib", "/subsystem:console", f"/out:{out}", *flags, *inputs, shim]
    argv += _unsafe(target)
    done = run(*argv, *import_libraries(target, [*inputs, shim], folder))
    return done.stdout + done.stderr


def _unsafe(target: str) -> list[str]:
    """MinGW's import libraries do not say that they are fit for SafeSEH."""
    return ["/safeseh:no"] if WINDOWS[target].machine == "x86" else []


def import_libraries(target: str, inputs: Sequence[Path], folder: Path) -> list[Path]:
    """MinGW's; where it has none, one of an invented DLL with all that the inputs miss."""
    gnu = WINDOWS[target].gnu
    if gnu:
        gcc(target)
        imports = [Path(f"/usr/{gnu}/lib/lib{name}.a") for name in _IMPORTS]
        for name in ("vcruntime140", "ucrtbase"):
            text = (HERE / f"{name}.def").read_text()
            if WINDOWS[target].machine != "x86":
                text = text.replace("@8", "")
            imports.append(_import_library(target, folder / name, text))
        return imports
    tool = need("llvm-nm-22", "llvm-nm")
    said = run(tool, "--no-sort", *inputs).stdout
    lines = [line.split() for line in said.splitlines()]
    defined = {w[-1] for w in lines if len(w) == 3 and w[1] in "TDRBWVA"} | {"__ImageBase"}
    needed = {w[-1].removeprefix("__imp_") for w in lines if len(w) == 2 and w[0] == "U"}
    names = "".join(f"  {name}\n" for name in sorted(needed - defined))
    return [_import_library(target, folder / "system", f"LIBRARY system.dll\nEXPORTS\n{names}")]


def _import_library(target: str, path: Path, text: str) -> Path:
    """What `text`, a module definition, says, as `path` with the suffix .lib."""
    definition, out = path.with_suffix(".def"), path.with_suffix(".lib")
    definition.write_text(text)
    tool = need("llvm-dlltool-22", "llvm-dlltool")
    run(tool, "-k", "-m", _DLLTOOL[WINDOWS[target].machine], "-d", definition, "-l", out)
    return out


def provide_random(target: str, folder: Path) -> None:
    """bcryptprimitives.dll beside the programs of a folder."""
    out = folder / "bcryptprimitives.dll"
    if WINDOWS[target].gnu and not out.exists():
        source = HERE / "bcryptprimitives.c"
        definition = folder / "bcryptprimitives.def"
        definition.write_text("EXPORTS\n  ProcessPrng\n")
        words = ("-shared", "-s", "-O1", source, definition, "-o", out, "-ladvapi32")
        run(gcc(target), *words)


def shared(target: str, library: Path, exports: Sequence[str], out: Path) -> Path:
    """The DLL of a library that exports these, without symbols and with what they need alone."""
    definition = out.with_suffix(".def")
    definition.write_text("EXPORTS\n" + "".join(f"  {name}\n" for name in exports))
    if WINDOWS[target].msvc:
        folder = out.parent / "link"
        shim = compile(target, HERE / "shim.c", folder, "-DDLL")
        argv: list[str | Path] = [need("lld-link-22", "lld-link"), "/nodefaultlib", "/dll"]
        argv += [f"/machine:{WINDOWS[target].machine}", f"/out:{out}", f"/def:{definition}"]
        argv += ["/entry:DllMain", "/opt:ref,noicf", library, shim, *_unsafe(target)]
        run(*argv, *import_libraries(target, [library, shim], folder))
    else:
        flags = ("-shared", "-s", "-Wl,--gc-sections")
        libraries = (*_STATIC_CXX, *_NATIVE)
        run(gcc(target), *flags, definition, library, *libraries, "-o", out)
    return out


def member(library: Path, name: str) -> bytes:
    """The contents of an archive's member."""
    tool = need("llvm-ar-22", "llvm-ar")
    return subprocess.run([tool, "p", library, name], capture_output=True, check=True).stdout


def measured(name: str, target: str, folder: Path) -> tuple[Path, Path, int]:
    """A published crate's library and header, and the size of its stripped DLL in bytes."""
    header = fixtures.library(name).header
    assert header
    library = fixtures.library(name, "release", target, "debian").library
    said = run(sys.executable, "-m", "cargo_strip_hook", "exports", library, "--header", header)
    names = [line.split("\t")[0] for line in said.stdout.splitlines()]
    return library, header, shared(target, library, names, folder / "floor.dll").stat().st_size


def main(argv: list[str]) -> None:
    """For benchmarks."""
    name, target, folder = argv
    print(*measured(name, target, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
