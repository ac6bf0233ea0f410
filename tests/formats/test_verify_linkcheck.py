"""A C compiler links a program that needs every export."""

from __future__ import annotations

from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ToolError, VerifyError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify.linkcheck import link_check
from tests.formats.prelinked import Tools, compile_sources, run
from tests.tools import need

TARGET = Target.parse("x86_64-unknown-linux-gnu")
SOURCE = "int one(void) { return 1; } int two = 2; __thread int three = 3; int absent(void);"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    objects = compile_sources(tmp_path, {"a.c": SOURCE}, Tools())
    run(need("ar"), "rcDs", tmp_path / "liba.a", *objects)
    return tmp_path / "liba.a"


def test_links(library: Path) -> None:
    link_check(library, ["one", "two"], TARGET, cc=["gcc"], libs=[])


def test_missing_export(library: Path) -> None:
    with pytest.raises(VerifyError, match="does not link") as caught:
        link_check(library, ["one", "gone", "lost"], TARGET, cc=["gcc"], libs=[])
    assert set(caught.value.findings) == {"undefined: gone", "undefined: lost"}


def test_needs_what_nobody_has(tmp_path: Path) -> None:
    source = "int absent(void); int one(void) { return absent(); }"
    objects = compile_sources(tmp_path, {"b.c": source}, Tools())
    run(need("ar"), "rcDs", tmp_path / "libb.a", *objects)
    with pytest.raises(VerifyError) as caught:
        link_check(tmp_path / "libb.a", ["one"], TARGET, cc=["gcc"], libs=[])
    assert caught.value.findings == ("undefined: absent",)


def test_library_that_is_not_there(library: Path) -> None:
    with pytest.raises(ToolError) as caught:
        link_check(library, ["one"], TARGET, cc=["gcc"], libs=["-lno_such_library"])
    assert "no_such_library" in caught.value.failure.stderr


def test_no_compiler(library: Path) -> None:
    with pytest.raises(ToolError, match="not installed"):
        link_check(library, ["one"], TARGET, cc=["no-such-compiler"], libs=[])


def test_nothing_to_link(library: Path) -> None:
    link_check(library, [], TARGET, cc=["no-such-compiler"])
