"""Sections of a COFF result of which a linker could have dropped a part of the original's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Granularity, PrelinkResult
from cargo_strip_hook.formats.coff import FORMAT
from tests.formats import windows_objects as kit
from tests.formats.test_coff_engine import SECTIONS

TARGET = "x86_64-pc-windows-msvc"
FOUND = "parts of a section that linkers could tell apart"


def refused(original: Path, out: Path, made: PrelinkResult) -> bool:
    """Whether the verifier finds that, and nothing else."""
    try:
        kit.check(original, out, TARGET, made)
    except VerifyError as e:
        assert all(text.startswith(FOUND) for text in e.findings), e.findings
        return True
    return False


@contextmanager
def shared_sections() -> Iterator[None]:
    """The engine takes no section for one that has to be alone."""
    right = FORMAT.section_keys

    def joined(*given: Any) -> Any:
        numbers, keys = right(*given)
        return numbers, tuple(replace(key, single=False) for key in keys)

    object.__setattr__(FORMAT, "section_keys", joined)  # it is frozen
    try:
        yield
    finally:
        object.__setattr__(FORMAT, "section_keys", right)


@pytest.mark.parametrize("granularity", Granularity)
def test_comdats_that_linkers_choose_are_alone(granularity: Granularity, tmp_path: Path) -> None:
    """Another file's could take the place of all that is in one section."""
    text = "inline int one(int a) { return a + 1; }\ninline int two(int a) { return a * 3; }\n"
    text += "int (*first)(int) = one, (*second)(int) = two;\n"
    original = kit.library(tmp_path, TARGET, {"a.cpp": text}, "-O1", *SECTIONS)
    asked = (original, TARGET, ("?one@@YAHH@Z", "?two@@YAHH@Z"))
    out, made = kit.strip(*asked, granularity=granularity)
    kit.check(original, out, TARGET, made)
    with shared_sections():
        out, made = kit.strip(*asked, granularity=granularity)
    # unless everything is one, each of them is needed by another export
    assert refused(original, out, made) == (granularity is Granularity.WHOLE)


@pytest.mark.parametrize("granularity", Granularity)
def test_what_another_export_needs_is_in_another_section(
    granularity: Granularity, tmp_path: Path
) -> None:
    """A result of one granularity is none of a finer one."""
    text = "int outside(int); int mine(int a) { return outside(a) * 3; }\n"
    text += "int theirs(int a) { return outside(a) - 3; }\n"
    text += "int one(int a) { return mine(a); } int two(int a) { return theirs(a); }\n"
    original = kit.library(tmp_path, TARGET, {"a.c": text}, "-O1", "-fno-inline", *SECTIONS)
    out, made = kit.strip(original, TARGET, ("one", "two"), granularity=granularity)
    kit.check(original, out, TARGET, made)
    whole = out.rename(tmp_path / "whole.lib")
    for claimed in Granularity:
        target = tmp_path / f"{claimed.value}-claimed" / original.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(whole.read_bytes())
        coarser = {
            Granularity.SECTION: granularity is not Granularity.SECTION,
            Granularity.CLASS: granularity is Granularity.WHOLE,
            Granularity.WHOLE: False,
        }[claimed]
        assert refused(original, target, made) == coarser
