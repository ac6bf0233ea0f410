"""The last proof: a C compiler links a program that needs every export."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.core.errors import ToolError, VerifyError
from cargo_strip_hook.core.run import run

if TYPE_CHECKING:
    from cargo_strip_hook.core.target import Target


def default_libs(target: Target) -> tuple[str, ...]:
    """What rustc's `--print native-static-libs` says of a library that has only std in it."""
    if target.system in {"linux", "hurd"} and target.environment.startswith("musl"):
        return ("-lc",)
    if target.system == "android" or target.environment.startswith("android"):
        return ("-ldl", "-llog", "-lm", "-lc")
    if target.system in {"linux", "hurd"}:
        return ("-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc")
    if target.system in {"freebsd", "dragonfly"}:
        return ("-lexecinfo", "-lpthread", "-lgcc_s", "-lm", "-lrt", "-lutil", "-lc")
    if target.object_format == "macho":
        return ("-lSystem", "-lc", "-lm")
    return ()


def compiler(target: Target, host: bool) -> tuple[str, ...]:
    """The C compiler for a target: the system's, or the cross compiler with the GNU prefix."""
    if host:
        return ("cc",)
    triple = f"{target.arch}-{target.system}" + f"-{target.environment}" * bool(target.environment)
    prefixed = f"{triple}-gcc"
    if shutil.which(prefixed):
        return (prefixed,)
    if shutil.which("clang"):
        return ("clang", f"--target={target.triple}")
    return (prefixed,)


def probe(exports: Sequence[str], prefix: str = "") -> str:
    """A C program that needs every export, by the name in the object file whatever that is."""
    lines = [f"/* {len(exports)} exports */"]
    for i, name in enumerate(exports):
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'extern char export_{i}[] __asm__("{quoted}");')
    table = ", ".join(f"export_{i}" for i in range(len(exports)))
    lines.append(f"char *const volatile table[] = {{ {table} }};")
    lines.append(f"int main(void) {{ return table[0] == 0; }} /* prefix `{prefix}` */")
    return "\n".join(lines) + "\n"


def link_check(
    candidate: Path,
    exports: Sequence[str],
    target: Target,
    cc: Sequence[str] | None = None,
    libs: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
) -> None:
    """Link a probe that references every export of `candidate`.

    `cc` are the words of the compiler (the system's `cc` where it is None), `libs` the linker
    options for what the library needs (std's own where it is None). `folder` is for files on the
    way, the compiler's own, too (the system's where it is None). Raises `VerifyError` for
    symbols that do not resolve, `ToolError` where the compiler cannot be used at all.
    """
    if not exports:
        return
    words = tuple(cc) if cc is not None else compiler(target, host=True)
    with tempfile.TemporaryDirectory(prefix="cargo-strip-hook-", dir=folder) as within:
        source, program = Path(within, "probe.c"), Path(within, "probe")
        text = probe(exports, target.symbol_prefix)
        source.write_bytes(text.encode(errors="surrogateescape"))
        # a thread-local export is linked like any other: only its address is not taken that way
        argv = [*words, "-w", str(source), str(candidate), "-o", str(program)]
        try:
            words = (*argv, *(default_libs(target) if libs is None else libs))
            run(words, env={"TMPDIR": within, "TMP": within, "TEMP": within})
        except ToolError as e:
            if e.failure.exit_code is None:
                raise
            said = e.failure.stdout + e.failure.stderr
            findings = _unresolved(said)
            if not findings:
                raise
            raise VerifyError(
                f"{candidate.name}: a program that needs every export does not link",
                findings,
                help="the libraries it needs can be given if they are more than std's",
            ) from e


# GNU ld, gold; lld, mold; Apple's linkers
_UNRESOLVED = re.compile(
    r"undefined reference to [`']?([^'\n]+)'?|undefined symbol: ([^\n]+)"
    r'|^\s*"([^"\n]+)", referenced from:|multiple definition of [`\']?([^\'\n;]+)\'?'
    r"|duplicate symbol: ([^\n]+)",
    re.MULTILINE,
)


def _unresolved(said: str) -> tuple[str, ...]:
    """What a linker could not resolve, from what it printed."""
    found: dict[str, None] = {}
    for match in _UNRESOLVED.finditer(said):
        undefined, twice = match[1] or match[2] or match[3], match[4] or match[5]
        found[f"undefined: {undefined}" if undefined else f"defined twice: {twice}"] = None
    return tuple(found)
