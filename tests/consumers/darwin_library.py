"""Static libraries with a real std for Darwin, built without a Mac: no linker and no SDK needed.

Debian's rustc, cargo and rust-src build std from source; see `tests.fixtures` for the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from tests.fixtures import CACHE, CRATES
from tests.tools import missing

HEADER = CRATES / "apple" / "apple.h"
EXPORTS = (
    "_apl_constructed",
    "_apl_counter",
    "_apl_float",
    "_apl_format",
    "_apl_panic_code",
    "_apl_panic_drops",
    "_apl_panic_index",
    "_apl_thread_local_drops",
    "_apl_threads",
    "_apl_unused",
    "_apl_version",
)


def built(target: str) -> Path:
    """`libapple.a` of `crates/apple` for a Darwin target. Skips where the toolchain is missing."""
    rustc, cargo = Path("/usr/bin/rustc"), Path("/usr/bin/cargo")
    source = Path("/usr/lib/rustlib/src/rust/library/std")
    if not (rustc.exists() and cargo.exists() and source.exists()):
        missing("Debian's rustc, cargo and rust-src")
    version = subprocess.run([rustc, "-vV"], capture_output=True, check=True).stdout
    folder = CRATES / "apple"
    files = sorted([folder / "Cargo.toml", *(folder / "src").glob("*.rs")])
    digest = hashlib.sha256(version + b"".join(f.read_bytes() for f in files))
    key = f"apple-{digest.hexdigest()[:12]}"
    out = CACHE / "built" / key / target / "libapple.a"
    if out.exists():
        return out
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{key}.lock"):
        if not out.exists():
            _build(rustc, cargo, target, key, out)
    return out


def _build(rustc: Path, cargo: Path, target: str, key: str, out: Path) -> None:
    source = CACHE / "src" / key / "apple"
    shutil.copytree(CRATES / "apple", source, dirs_exist_ok=True)
    target_dir = CACHE / "target" / key
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CARGO", "RUST"))}
    argv: list[str | Path] = [cargo, "rustc", "--release", "-Zbuild-std=std,panic_unwind", "--lib"]
    argv += ["--target", target, "--crate-type", "staticlib", "--target-dir", target_dir]
    done = subprocess.run(
        argv,
        cwd=source,
        env={**env, "RUSTC_BOOTSTRAP": "1", "RUSTC": str(rustc)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    shutil.copyfile(target_dir / target / "release" / "libapple.a", part)
    part.rename(out)
