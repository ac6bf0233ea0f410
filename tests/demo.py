"""The library of `examples/demo`, built once for the tests of pages and examples."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from pathlib import Path

from filelock import FileLock

from tests.fixtures import CACHE
from tests.tools import need

ROOT = Path(__file__).resolve().parents[1]
CRATE = ROOT / "examples" / "demo"


def target_folder() -> Path:
    """A target folder for this crate: what is built there once is there for all tests."""
    names = ("Cargo.toml", "Cargo.lock", "src/lib.rs")
    said = subprocess.run([need("rustc"), "-vV"], capture_output=True, check=True).stdout
    key = hashlib.sha256(said + b"".join((CRATE / name).read_bytes() for name in names))
    return CACHE / f"demo-{key.hexdigest()[:12]}"


@functools.cache
def library() -> Path:
    """The static library in release mode. Copy it before you change it."""
    folder = target_folder()
    CACHE.mkdir(parents=True, exist_ok=True)
    argv = [
        need("cargo"),
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        CRATE / "Cargo.toml",
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CARGO_TARGET", "CARGO_BUILD"))}
    with FileLock(f"{folder}.lock"):
        subprocess.run([*argv, "--target-dir", folder], check=True, capture_output=True, env=env)
    return folder / "release" / "libdemo.a"
