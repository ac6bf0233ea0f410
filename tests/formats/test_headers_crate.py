"""What the crate's own units define is what rustc exports from the cdylib of the same crate."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import DefinedSymbol
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest, decide
from tests.fixtures import library
from tests.tools import need

HOST = Target.parse("x86_64-unknown-linux-gnu")


def nm(*argv: str | Path) -> list[list[str]]:
    # LLVM's: GNU nm fails on the bitcode of a newer LLVM.
    done = subprocess.run(
        [need("llvm-nm-22"), "--defined-only", "--extern-only", *argv],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split() for line in done.stdout.splitlines() if line]


def definitions(archive: Path) -> dict[str, DefinedSymbol]:
    out: dict[str, DefinedSymbol] = {}
    for member, *rest in nm("-A", archive):
        name = rest[-1]
        where = member.removesuffix(":").rpartition(":")[2]
        out.setdefault(name, DefinedSymbol(name, where, False, False, "unknown"))
    return out


@pytest.mark.parametrize("profile", ["release", "dev"])
@pytest.mark.parametrize("name", ["imagequant-sys", "dolby_vision", "gst-plugin-fallbackswitch"])
def test_crate_symbols_are_those_of_the_cdylib(name: str, profile: str) -> None:
    built = library(name, profile)
    assert built.cdylib is not None
    expected = {fields[-1] for fields in nm("-D", built.cdylib)}
    defined = definitions(built.library)
    crate = built.library.name.removeprefix("lib").removesuffix(".a")
    for request in (
        ExportRequest(HOST, crate_name=crate),
        ExportRequest(HOST),
        ExportRequest(HOST, cdylib=built.cdylib),
    ):
        assert set(decide(request, lambda: defined).names()) == expected
    if name.startswith("gst"):
        found = decide(ExportRequest(HOST, named={"preset": ("gst",)}), lambda: defined)
        assert set(found.names()) == expected
