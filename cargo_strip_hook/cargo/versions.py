"""Which versions of cargo-c and rustc are known to work."""

from __future__ import annotations

import re

from packaging.version import InvalidVersion, Version

from cargo_strip_hook.cargo.rustc import Rustc
from cargo_strip_hook.core.errors import ToolError
from cargo_strip_hook.core.run import run

# from the first to before the second
CARGO_C = ("0.9", "0.11")
RUSTC = ("1.63", "2")


def check_version(program: str, text: str, supported: tuple[str, str]) -> str | None:
    """A sentence about version `text` of `program`; None where it is supported.

    A pre-release (``1.97.0-nightly``) counts as the release it leads to.
    """
    first, end = supported
    known = f"versions known to work: {first} or newer, before {end}"
    try:
        version = Version(re.split(r"[-+]", text, maxsplit=1)[0])
    except InvalidVersion:
        return f"{program} says its version is `{text}`, which is no version number ({known})"
    if version < Version(first):
        return f"{program} {text} is too old ({known})"
    if version >= Version(end):
        return f"{program} {text} is too new ({known})"
    return None


def parse_cargo_c_version(stdout: str) -> str:
    """The version in ``cargo-c 0.10.24+cargo-0.98.0``, "" where there is none.

    After the plus is the version of the cargo that it contains.
    """
    match = re.search(r"^cargo-c v?(\d\S*)", stdout, re.MULTILINE)
    return match[1].partition("+")[0] if match else ""


def cargo_c_version() -> str | None:
    """The version of the installed cargo-c; None where there is none.

    Not called in every run: cargo-c runs rustc and dpkg before it prints its version (0.1 s).
    """
    from cargo_strip_hook.cargo.wrap import wrap_argv

    try:
        done = run(wrap_argv("cbuild", ["--version"]), timeout=60)
    except ToolError:
        return None
    return parse_cargo_c_version(done.stdout)


def rustc_warnings(rustc: Rustc) -> tuple[str, ...]:
    """A sentence where rustc is older or newer than the versions that are known to work."""
    said = check_version("rustc", rustc.release, RUSTC)
    return (said,) if said else ()


def cargo_c_warnings() -> tuple[str, ...]:
    """The same for cargo-c; nothing where it is not installed."""
    version = cargo_c_version()
    said = None if version is None else check_version("cargo-c", version, CARGO_C)
    return (said,) if said else ()
