"""Stripping, linking and running as a user of the library would."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import fixtures
from tests.fixtures import Built
from tests.tools import missing, need

SOURCES = Path(__file__).resolve().parent / "c"
COMMAND = (sys.executable, "-m", "cargo_strip_hook")
LINKERS = ("bfd", "gold", "lld", "mold")
AARCH64 = "aarch64-unknown-linux-gnu"

# The same on every machine: no colours, no settings of the developer's, no backtraces unasked.
_DROP = re.compile(
    r"CARGO|RUST|STRIP_HOOK_(?!CACHE|TESTS)|PYTHONHASHSEED|NO_COLOR|FORCE_COLOR|GST_|LD_"
)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not _DROP.match(k)}
    return {**env, "LC_ALL": "C", **extra}


def run(
    *argv: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    exit_code: int | None = 0,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program; fails the test, with all the program said, where the exit code is another."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=_environment(env or {}),
        input=stdin or "",
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        check=False,
    )
    if exit_code is not None and done.returncode != exit_code:
        words = " ".join(map(str, argv))[:2000]
        raise AssertionError(
            f"`{words}` ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


def command(
    *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`cargo-strip-hook` with these words; fails the test where it does."""
    repository = str(Path(__file__).resolve().parents[2])
    return run(*COMMAND, *words, cwd=cwd, env={"PYTHONPATH": repository, **(env or {})})


def strip(
    built: Built,
    folder: Path,
    *words: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Path:
    """The stripped library in `folder`: exports from the header, or the cdylib without one."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / built.library.name
    source: tuple[str | Path, ...] = ()
    if "--cdylib" not in words and built.header:
        source = ("--header", built.header)
    elif "--cdylib" not in words and built.cdylib:
        source = ("--cdylib", built.cdylib)
    target = ("--target", built.target)
    command("strip", built.library, *source, *target, *words, "-o", out, cwd=cwd, env=env)
    assert out.is_file(), "the command ended well and wrote nothing"
    return out


def linker_flags(linker: str, folder: Path) -> list[str]:
    """What tells the C compiler to use this linker."""
    if linker != "lld":
        need({"bfd": "ld.bfd", "gold": "ld.gold", "mold": "mold"}[linker])
        return [f"-fuse-ld={linker}"]
    # Distributions install it with a version in its name, which GCC does not look for.
    tools = folder / "lld"
    tools.mkdir(parents=True, exist_ok=True)
    link = tools / "ld.lld"
    if not link.exists():
        link.symlink_to(need("ld.lld", "ld.lld-22"))
    return ["-fuse-ld=lld", f"-B{tools}"]


def compiler(target: str) -> Path:
    """The C compiler for a target."""
    if target == fixtures.host():
        return need("cc", "gcc")
    return need(target.replace("-unknown-", "-") + "-gcc")


def link(
    source: str | Path,
    libraries: Sequence[Path],
    built: Sequence[Built],
    folder: Path,
    *flags: str | Path,
    linker: str | None = None,
    exit_code: int | None = 0,
) -> Path:
    """A program of one C file and these libraries, named by their paths.

    `built` supplies headers and native libraries. Compiled and linked in one go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = built[0].target
    includes = [f"-I{b.header.parent}" for b in built if b.header]
    # libgcc_s is the compiler's own business: there is none in a static link.
    natives = [n for n in dict.fromkeys(n for b in built for n in b.native_libs) if n != "-lgcc_s"]
    using = linker_flags(linker, folder) if linker else []
    path = SOURCES / source
    program = folder / f"{path.stem}-{linker or 'default'}"
    argv: list[str | Path] = [compiler(target), "-O1", "-g", "-Wall", "-Wextra", *includes, path]
    run(*argv, "-o", program, *using, *flags, *libraries, *natives, exit_code=exit_code)
    return program


def run_program(
    program: Path,
    *words: str,
    target: str | None = None,
    env: Mapping[str, str] | None = None,
    exit_code: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Run a program of the target, under an emulator where it is not the machine's own."""
    arch = (target or fixtures.host()).partition("-")[0]
    emulate: tuple[str | Path, ...] = ()
    if arch != platform.machine():
        sysroot = Path(f"/usr/{arch}-linux-gnu")
        if not sysroot.is_dir():
            missing(f"the C library for {arch}")
        emulate = (need(f"qemu-{arch}-static", f"qemu-{arch}"), "-L", sysroot)
    return run(*emulate, program, *words, env=env, exit_code=exit_code)


def dynamic_exports(shared: Path) -> list[str]:
    """The names a shared library defines for others, by nm."""
    said = run(need("nm"), "-D", "--defined-only", "-j", shared).stdout
    return sorted({line.partition("@")[0] for line in said.split()})


def gnu_ld(built: Built, exports: Sequence[str], folder: Path, *objcopy: str) -> Path:
    """What can be had by hand: `ld -r --gc-sections`, then objcopy, in an archive."""
    folder.mkdir(parents=True, exist_ok=True)
    merged, names = folder / "merged.o", folder / "names"
    names.write_text("".join(f"{name}\n" for name in exports))
    roots = [word for name in exports for word in ("-u", name)]
    run(need("ld.bfd"), "-r", "--gc-sections", *roots, built.library, "-o", merged)
    tool = need("llvm-objcopy-22", "llvm-objcopy")
    removed = ("-R", ".llvmbc", "-R", ".llvmcmd")
    run(tool, *removed, f"--keep-global-symbols={names}", merged)
    if objcopy:
        run(tool, *objcopy, merged)
    archive = folder / built.library.name
    run(need("llvm-ar-22", "llvm-ar"), "rcsD", archive, merged)
    return archive
