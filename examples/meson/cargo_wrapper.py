#!/usr/bin/env python3
"""What Meson asks of Cargo: a library of a crate, and what std needs of the system.

``cargo_wrapper.py build MANIFEST NAME TARGET_DIR OUTPUT DEPFILE``
``cargo_wrapper.py native-libraries``
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def build(manifest: str, name: str, target_dir: str, output: str, depfile: str) -> None:
    """`cargo cbuild`; the library is copied, since what cargo-c made must stay as it is."""
    where = ["--manifest-path", manifest, "--target-dir", target_dir]
    kind = ["--release", "--library-type", "staticlib"]
    subprocess.run(["cargo", "cbuild", *kind, *where], check=True)
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    triple = re.search(r"^host: (\S+)$", version, re.M)
    assert triple, version
    folder = Path(target_dir) / triple[1] / "release"
    shutil.copyfile(folder / f"lib{name}.a", output)
    sources = (folder / f"lib{name}.d").read_text().partition(".a: ")[2]
    Path(depfile).write_text(f"{output}: {sources}")


def native_libraries() -> None:
    """As rustc says it for a static library with std."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.rs"
        source.touch()
        argv = ["rustc", "--crate-type", "staticlib", "--print", "native-static-libs", source]
        done = subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True)
    found = re.search(r"native-static-libs: (.*)", done.stderr)
    print(found[1] if found else "")


if __name__ == "__main__":
    {"build": build, "native-libraries": native_libraries}[sys.argv[1]](*sys.argv[2:])
