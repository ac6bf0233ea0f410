"""Records what Apple's linker makes of two small objects, for the tests of the system engine.

``python -m tests.formats.ld64_record /path/to/ld``. What lies in `ld64/` was made so by ld64 951.9
(the classic linker, built on Linux) from objects of clang 22: `a.o`, `b.o` for each architecture,
and what `ld -r` wrote under `-S` and under `-S -x`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from cargo_strip_hook.engines.system import nlist
from tests.formats import darwin_kit as kit

FOLDER = Path(__file__).parent / "ld64"
EXPORTS = ("_api", "_more")
ROUTINE = "_rust_eh_personality"
STRIP = {"debuginfo": ("-S",), "symbols": ("-S", "-x")}
SOURCES = {
    "a.s": """
.globl _api
.p2align 4
_api:
  .cfi_startproc
  .cfi_personality 155, _rust_eh_personality
  .cfi_lsda 16, L_lsda
  %(call)s _helper
  %(ret)s
  .cfi_endproc
.private_extern _rust_eh_personality
.globl _rust_eh_personality
.p2align 4
_rust_eh_personality:
  .cfi_startproc
  %(ret)s
  .cfi_endproc
.section __TEXT,__gcc_except_tab
.p2align 2
L_lsda:
GCC_except_table0:
  .byte 255, 255, 1, 0
.subsections_via_symbols
""",
    "b.c": """
extern int outside(const char *);
static int counter = 7;
static const char *const words[] = {"alpha", "beta"};
__attribute__((noinline)) int helper(int a) { counter += a; return outside(words[a & 1]); }
int more(int a) { return helper(a) + counter; }
int leaked(void) { return 1; }
""",
}
TURNS = {"arm64": {"call": "b", "ret": "ret"}, "x86_64": {"call": "jmp", "ret": "ret"}}


def command(arch: str, strip: str, files: list[str]) -> list[str]:
    """The whole command line that the engine is to use, without the linker's name."""
    return [
        *("-r", "-arch", arch, "-platform_version", "macos", "13.0", "13.0", *STRIP[strip]),
        *("-sectcreate", "__DWARF", "__strip_hook", "marker"),
        *("-exported_symbols_list", "exports.txt", "-o", "linked.o", *files),
    ]


def main(linker: str) -> None:
    for arch in kit.ARCHES:
        out = FOLDER / arch
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            sources = {k: v % TURNS[arch] if k == "a.s" else v for k, v in SOURCES.items()}
            for made in kit.compile(folder, arch, sources, "-O1"):
                (out / made.name).write_bytes(made.read_bytes())
            shown = bytearray((folder / "a.o").read_bytes())
            nlist.show(shown, [ROUTINE.encode()])  # it is hidden, and ld exports no such symbol
            (folder / "a.o").write_bytes(shown)
            (folder / "marker").write_bytes(kit.MARKER)
            names = "".join(f"{n}\n" for n in sorted((*EXPORTS, ROUTINE)))
            (folder / "exports.txt").write_text(names)
            for strip in STRIP:
                subprocess.run(
                    [linker, *command(arch, strip, ["a.o", "b.o"])], cwd=folder, check=True
                )
                (out / f"{strip}.o").write_bytes((folder / "linked.o").read_bytes())


if __name__ == "__main__":
    main(sys.argv[1])
