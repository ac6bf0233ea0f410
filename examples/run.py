"""The whole job on a small crate: build it, strip the library, use the result from C.

``python examples/run.py`` needs Python, Rust and a C compiler. With cargo-c installed the crate is
built by ``cargo cbuild``, otherwise by ``cargo rustc --crate-type staticlib``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE / "demo"
EXPECTED = """\
8 different words, `the` 2 times
9 words, counted by two threads
a panic was caught inside the library: yes
"""


def say(argv: Sequence[str | Path]) -> None:
    """Show a command before it runs."""
    print("$", shlex.join(map(str, argv)), flush=True)


def call(argv: Sequence[str | Path], env: dict[str, str] | None = None) -> str:
    """Run a program and return its standard output; end with its own words where it fails."""
    say(argv)
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True
        )
    except FileNotFoundError:
        sys.exit(f"error: `{argv[0]}` is not installed")
    except subprocess.CalledProcessError as e:
        sys.exit(f"error: `{argv[0]}` ended with {e.returncode}\n{e.stdout}")
    return done.stdout


def host() -> str:
    """The triple that rustc builds for."""
    found = re.search(r"^host: (\S+)$", call(["rustc", "-vV"]), re.M)
    return found[1] if found else sys.exit("error: `rustc -vV` names no host")


def build(triple: str, target_dir: Path) -> Path:
    """Build the crate in release mode; returns the static library."""
    where: list[str | Path] = ["--manifest-path", DEMO / "Cargo.toml", "--target-dir", target_dir]
    if shutil.which("cargo-cbuild"):
        call(["cargo-cbuild", "cbuild", "--release", *where])
    else:
        kind = ["--lib", "--crate-type", "staticlib"]
        call(["cargo", "rustc", "--release", *kind, "--target", triple, *where])
    return target_dir / triple / "release" / "libdemo.a"


def native_libraries(target_dir: Path) -> list[str]:
    """What std needs of the system, as rustc says it for a static library."""
    source, out = target_dir / "empty.rs", target_dir / "libempty.a"
    source.write_text("")
    kind = ["--crate-type", "staticlib", "--print", "native-static-libs"]
    argv: list[str | Path] = ["rustc", *kind, source, "-o", out]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    found = re.search(r"native-static-libs: (.*)", said)
    return found[1].split() if found else []


def main() -> None:
    """Build, strip, link, run."""
    environment_dir = os.environ.get("CARGO_TARGET_DIR")
    default = Path(tempfile.gettempdir()) / "cargo-strip-hook-example"
    target_dir = Path(environment_dir) if environment_dir else default
    target_dir.mkdir(parents=True, exist_ok=True)

    triple = host()
    library = build(triple, target_dir)
    stripped = target_dir / "stripped" / library.name
    stripped.parent.mkdir(exist_ok=True)
    # Run from a checkout that is not installed, too.
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    command: list[str | Path] = [sys.executable, "-m", "cargo_strip_hook", "strip", library]
    call(
        [*command, "--header", DEMO / "demo.h", "-o", stripped], {**os.environ, "PYTHONPATH": path}
    )

    cc = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "cc")
    natives = native_libraries(target_dir)
    program = target_dir / "demo-program"
    call([cc, f"-I{DEMO}", HERE / "main.c", stripped, *natives, "-o", program])
    # What the panic hook prints is part of the demonstration; a backtrace is not.
    said = call([program], {**os.environ, "RUST_BACKTRACE": "0"})
    print(said, end="")
    if said != EXPECTED:
        sys.exit("error: the program printed something else than with the original library")
    before, after = library.stat().st_size, stripped.stat().st_size
    print(f"{library.name}: {before:,} bytes before, {after:,} bytes after")


if __name__ == "__main__":
    main()
