"""The native engine's results pass, and hardly a bit of them can change without a finding."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import VerifyError
from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.verify import read_ahead, verify
from cargo_strip_hook.verify.marker import read_marker
from tests.formats.prelinked import A_C, B_CC, C_S, EXPORTS, MARKER, Case, Editor, Tools, build
from tests.formats.test_verify_elf import AARCH64, COMMON_C, SET_C
from tests.tools import need

SOURCES = {
    "a.c": A_C,
    "b.cc": B_CC,
    "c.s": C_S,
    "set.c": "\n".join(SET_C.splitlines()),
    "common.c": COMMON_C.replace("*f(", "*in_pool("),
}
ALL = (*EXPORTS, "count", "in_pool")


def prelinked(
    case: Case, exports: tuple[str, ...], strip: Strip, granularity: Granularity
) -> tuple[Case, Path]:
    output = case.folder / f"{strip.value}-{granularity.value}.a"
    target = case.expectation.target
    request = PrelinkRequest(case.original, output, target, exports, strip, granularity, MARKER)
    result = NativeEngine().prelink(request)
    expectation = replace(case.expectation, exports=exports, strip=strip, link_map=result.link_map)
    return replace(case, expectation=expectation), output


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Case:
    tools = Tools(flags=("-g", "-fcommon"))
    return build(tmp_path_factory.mktemp("engine"), SOURCES, ALL, tools)


@pytest.mark.parametrize(
    ("strip", "granularity"), list(itertools.product(Strip, Granularity)), ids=str
)
def test_result_passes(built: Case, strip: Strip, granularity: Granularity) -> None:
    case, output = prelinked(built, ALL, strip, granularity)
    done = verify(case.original, output, case.expectation)
    assert done.exports == tuple(sorted(ALL))
    assert done.functions >= 12
    assert done.resolved >= 1
    assert read_marker(output) == MARKER


def test_fewer_exports(built: Case) -> None:
    case, output = prelinked(built, ("api_say",), Strip.SYMBOLS, Granularity.CLASS)
    done = verify(case.original, output, case.expectation)
    assert done.exports == ("api_say",)
    assert "__gxx_personality_v0" not in done.undefined


def test_what_was_read_ahead_is_taken_if_it_is_the_right_thing(built: Case, tmp_path: Path) -> None:
    case, output = prelinked(built, ALL, Strip.SYMBOLS, Granularity.CLASS)
    link_map = case.expectation.link_map
    assert link_map is not None
    used = sorted(set(link_map["member"].tolist()))
    alone = verify(case.original, output, case.expectation)
    for members in (used, used[::-1], used[:1], [99], []):
        ahead = read_ahead(case.original, members)
        assert len(ahead) == (members not in ([99], []))
        assert verify(case.original, output, case.expectation, *ahead) == alone
    damaged = tmp_path / "damaged.a"
    damaged.write_bytes(case.original.read_bytes().replace(b"\x7fELF\x02", b"\x7fELF\x07"))
    assert read_ahead(damaged, used) == []


def test_aarch64(tmp_path: Path) -> None:
    need("aarch64-linux-gnu-g++")
    names = ("api_add", "api_say", "api_try", "shared_count")
    sources = {"a.c": A_C, "b.cc": B_CC}
    case, output = prelinked(
        build(tmp_path, sources, names, AARCH64), names, Strip.SYMBOLS, Granularity.CLASS
    )
    verify(case.original, output, case.expectation)


def test_hardly_a_bit_can_change(built: Case, tmp_path: Path) -> None:
    """Single bits of contents, relocations and unwind tables: each is noticed."""
    case, output = prelinked(built, ALL, Strip.SYMBOLS, Granularity.CLASS)
    data = output.read_bytes()
    start = data.index(b"\x7fELF")
    object_ = Editor(data[start:])
    numbers = random.Random(7)
    places = []
    for i, name in enumerate(object_.names):
        header = object_.section(i)
        loaded = header["flags"] & 2 and header["type"] != 8
        if header["size"] and (loaded or name.startswith(".rela")):
            # padding between pieces is nobody's; relocations and unwind tables have none
            dense = name.startswith((".rela", ".eh_frame"))
            inside = range(header["size"]) if dense else _pieces(case, i)
            chosen = numbers.sample(list(inside), min(len(inside), 12))
            places += [(name, start + header["offset"] + at) for at in chosen]
    assert len(places) > 150
    changed = tmp_path / "changed.a"
    survived = []
    for name, at in places:
        damaged = bytearray(data)
        damaged[at] ^= 1 << numbers.randrange(8)
        changed.write_bytes(damaged)
        try:
            verify(case.original, changed, case.expectation)
        except VerifyError:
            continue
        survived.append((name, at - start))
    assert survived == []


def _pieces(case: Case, section: int) -> list[int]:
    """Offsets in a section of the result that a piece covers."""
    rows = case.expectation.link_map
    assert rows is not None
    mine = rows[rows["out_section"] == section]
    return [
        at
        for begin, size in zip(mine["out_offset"].tolist(), mine["size"].tolist(), strict=True)
        for at in range(begin, begin + size)
    ]
