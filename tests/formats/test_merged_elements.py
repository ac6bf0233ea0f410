"""Strings and constants that linkers merge: unused ones go, equal ones are one, none is mixed up.

What programs see of them is in `native_cases`, "merged-elements".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.verify import verify
from tests.formats import native_kit as kit
from tests.formats.native_cases import CASES
from tests.formats.prelinked import Case, Editor, build
from tests.formats.test_verify_engine import prelinked

ELEMENTS = next(c for c in CASES if c.name == "merged-elements")
NAMES = ELEMENTS.exports
# references from a section that is not loaded
DEBUG = """
 .section .rodata.str1.1,"aMS",@progbits,1
 .asciz "dead"
.Lword: .asciz "word"
 .asciz "other"
 .section .text.api,"ax",@progbits
 .globl api
api: leaq .Lword(%rip), %rax
 movabsq $.rodata.str1.1+10, %rcx
 ret
 .section .debug_words,"",@progbits
 .quad .Lword, .Lword+1, .rodata.str1.1+10, .rodata.str1.1+12
 .section .note.GNU-stack,"",@progbits
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return build(tmp_path_factory.mktemp("elements"), dict(ELEMENTS.sources), NAMES)


@pytest.fixture(scope="module")
def result(built: Case) -> tuple[Case, Path]:
    return prelinked(built, NAMES, Strip.DEBUGINFO, Granularity.WHOLE)


@pytest.mark.parametrize("strip", list(Strip))
@pytest.mark.parametrize("granularity", list(Granularity))
def test_result_passes(built: Case, strip: Strip, granularity: Granularity) -> None:
    case, output = prelinked(built, NAMES, strip, granularity)
    verify(case.original, output, case.expectation)
    kept = output.read_bytes()
    assert b"unused of" not in kept and b"alone" not in kept and b"begin" not in kept
    assert b"W\0\0\0X" not in kept
    # in classes and sections of their own the two members keep one each
    once = 1 if granularity is Granularity.WHOLE else 2
    four = np.array([1, 20, 3, 400], "<i4").tobytes()
    assert [kept.count(t) for t in (b"\0word\0", b"\0aligned\0", four)] == [once] * 3


def rejected(case: Case, output: Path) -> str:
    with pytest.raises(VerifyError) as caught:
        verify(case.original, output, case.expectation)
    return "\n".join(caught.value.findings)


def element(case: Case, text: bytes) -> int:
    """The row of the placement that tells of the first element with this text."""
    rows = case.expectation.link_map
    assert rows is not None
    data = case.original.read_bytes()
    at = data.index(b"\x7fELF")
    member = Editor(data[at:])
    for i, row in enumerate(rows):
        if row["member"] == rows["member"].min() and row["size"] == len(text):
            start = int(row["offset"])
            if member.contents(int(row["section"]))[start : start + len(text)] == text:
                return i
    raise AssertionError(text)


def _torn(rows: np.ndarray, i: int) -> None:
    rows["offset"][i] += 1
    rows["out_offset"][i] += 1
    rows["size"][i] -= 1


def _short(rows: np.ndarray, i: int) -> None:
    rows["size"][i] -= 1


def _beyond(rows: np.ndarray, i: int) -> None:
    rows["size"][i] += 1000


def _moved(rows: np.ndarray, i: int) -> None:
    rows["out_offset"][i] += 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_torn, "is torn in the middle of an element"),
        (_short, "is torn in the middle of an element"),
        (_beyond, "cannot come in these pieces"),
        (_moved, "pieces overlap"),
    ],
)
def test_claim_of_other_pieces(
    result: tuple[Case, Path], change: Callable[[np.ndarray, int], None], text: str
) -> None:
    case, output = result
    assert case.expectation.link_map is not None
    rows = case.expectation.link_map.copy()
    change(rows, element(case, b"word\0"))
    assert text in rejected(case.claiming(link_map=rows), output)


@pytest.mark.parametrize("text", [b"word\0", b"second\0", b"aligned\0", b"last\0"])
def test_an_element_in_use_is_not_lost(result: tuple[Case, Path], text: bytes) -> None:
    case, output = result
    assert case.expectation.link_map is not None
    rows = np.delete(case.expectation.link_map, element(case, text))
    assert rejected(case.claiming(link_map=rows), output)


def test_a_reference_to_another_element(result: tuple[Case, Path], tmp_path: Path) -> None:
    case, output = result
    data = bytearray(output.read_bytes())
    start = data.index(b"\x7fELF")
    object_ = Editor(bytes(data[start:]))
    name = next(n for n in object_.names if n.startswith(".rela.data.rel.ro"))
    header = object_.section(name)
    for at in range(header["offset"], header["offset"] + header["size"], 24):
        damaged = bytearray(data)
        damaged[start + at + 16] ^= 2  # the addend
        changed = tmp_path / "changed.a"
        changed.write_bytes(damaged)
        assert "another target" in rejected(case, changed)


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("linker", kit.LINKERS)
def test_references_from_sections_that_are_not_loaded(
    linker: str, granularity: Granularity, tmp_path: Path
) -> None:
    library = kit.library(tmp_path, {"a.s": DEBUG})
    main = "int api(void); int main(void) { return api() == 1; }"
    (program,) = kit.build(tmp_path, {"main.c": main}, "-fno-pie")
    stripped, _ = kit.strip(library, ("api",), Strip.NONE, granularity)
    for inputs in (library, stripped):
        out = kit.link(tmp_path / "p", [program, inputs], linker, "-no-pie")
        with out.open("rb") as file:
            elf = ELFFile(file)
            words = elf.get_section_by_name(".debug_words")
            assert words is not None
            found = []
            for address in np.frombuffer(words.data(), "<u8").tolist():
                section = next(
                    s
                    for s in elf.iter_sections()
                    if s["sh_flags"] & 2 and 0 <= address - s["sh_addr"] < s["sh_size"]
                )
                text = section.data()[address - section["sh_addr"] :]
                found.append(text.partition(b"\0")[0].decode())
        assert found == ["word", "ord", "other", "her"], inputs


DISTANCE = """
 .section .rodata.str1.1,"aMS",@progbits,1
 .asciz "dead"
 .asciz "word"
.Lother: .asciz "other"
 .section .text.api,"ax",@progbits
 .globl api
api: leaq .rodata.str1.1+5(%rip), %rax
 ret
 .globl other
other: leaq .Lother(%rip), %rax
 ret
 .section .note.GNU-stack,"",@progbits
"""


@pytest.mark.parametrize("linker", kit.LINKERS)
def test_a_distance_to_a_section_keeps_it_whole(linker: str, tmp_path: Path) -> None:
    # the relocation says section + 1: for linkers an element of which nobody speaks
    library = kit.library(tmp_path, {"a.s": DISTANCE})
    main = """#include <stdio.h>
const char *api(void), *other(void); int main(void) { printf("%s %s\\n", api(), other()); }"""
    (program,) = kit.build(tmp_path, {"main.c": main}, "-fPIE")
    said = [
        kit.output(kit.link(tmp_path / "p", [program, inputs], linker))
        for inputs in (library, kit.strip(library, ("api", "other"))[0])
    ]
    assert said[1] == said[0]
    assert "other" in said[0]
