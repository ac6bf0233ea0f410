"""Tiny Cargo packages, written on the spot: no std, so that each builds in a blink."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARY = """\
#![no_std]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {{ loop {{}} }}
/// Returns one.
#[no_mangle]
pub extern "C" fn {symbol}() -> i32 {{ 1 }}
"""
# no unwinding without std
ABORT = '[profile.dev]\npanic = "abort"\n[profile.release]\npanic = "abort"\n'


def write(path: Path, text: str) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def package(
    root: Path,
    name: str,
    manifest: str = "",
    *,
    version: str = "1.2.3",
    capi: bool = True,
    files: Mapping[str, str] | None = None,
    workspace: bool = False,
) -> Path:
    """A library package with one C function `<name>_one`; `workspace` makes it its own root."""
    text = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n'
    text += "[features]\ncapi = []\n" if capi else ""
    text += ABORT + "[workspace]\n" if workspace else ""
    write(root / "Cargo.toml", text + manifest)
    write(root / "src/lib.rs", LIBRARY.format(symbol=name.replace("-", "_") + "_one"))
    for path, content in (files or {}).items():
        write(root / path, content)
    return root


def call(
    argv: Sequence[str | os.PathLike[str]], cwd: Path, env: Mapping[str, str] | None = None
) -> str:
    """Run a program without network; its standard output."""
    done = subprocess.run(
        [os.fspath(a) for a in argv],
        cwd=cwd,
        env={**os.environ, "CARGO_NET_OFFLINE": "true", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout
