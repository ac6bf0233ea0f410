"""Each source of public symbols has its option, its key, its keyword and its module."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from cargo_strip_hook import api
from cargo_strip_hook.cargo import settings
from cargo_strip_hook.cli.parser import strip_parser
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.sources import SOURCES, Source, named_files

LINUX = Target.parse("x86_64-unknown-linux-gnu")


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_a_row_is_a_source_everywhere(source: Source, tmp_path: Path) -> None:
    value = source.choices[0] if source.choices else "x_*"
    if source.kind is Path:
        (tmp_path / "list").write_text("x_*\n")
        value = str(tmp_path / "list")
    args = strip_parser().parse_args(["lib.a", f"--{source.name}", value])
    assert getattr(args, source.name.replace("-", "_")) == [source.kind(value)]
    assert source.name in settings._READERS
    assert source.keyword in api.Public.__annotations__
    named = source.read(source.kind(value), LINUX)
    assert named.patterns and named.shown
    home = import_module(f"cargo_strip_hook.exports.sources.{source.module}")
    assert home.__doc__


def test_files_among_the_values() -> None:
    values = {"export": ("a",), "exports-file": (Path("x"), Path("y"))}
    assert named_files(values) == {Path("x"): "a list of symbols", Path("y"): "a list of symbols"}
