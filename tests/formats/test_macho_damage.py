"""Damaged objects end in an error of ours at every phase, never in another one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cargo_strip_hook.errors import StripHookError
from cargo_strip_hook.job import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.objects import format_for
from cargo_strip_hook.prelink import Input, prelink
from cargo_strip_hook.target import Target
from tests.formats import darwin_kit as kit
from tests.formats.test_macho_engine import C_ONE, CXX, EXPORTS
from tests.formats.test_macho_fields import ARM, X86

SOURCES = {
    "c": ({"c.c": C_ONE}, ("-O1", "-fcommon"), EXPORTS),
    "cxx": ({"x.cpp": CXX}, ("-O1", "-fno-inline"), ("_cxx_api",)),
    "assembly": ({"f.s": ""}, (), ("_api",)),
}


def _run(arch: str, data: bytes, exports: tuple[str, ...]) -> None:
    target = Target.parse(kit.triple(arch))
    request = PrelinkRequest(
        Path("in"), Path("out"), target, exports, Strip.DEBUGINFO, Granularity.CLASS, b"mark"
    )
    member = {0: Input(0, "m.o", memoryview(data))}
    index = {n.encode(): 0 for n in exports}
    room = format_for("macho")
    image = prelink(member, index, room, request).image(room, request)
    assert sum(len(c) for c in image.chunks) == image.size


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize("name", SOURCES)
def test_random_damage(tmp_path: Path, arch: str, name: str) -> None:
    sources, flags, exports = SOURCES[name]
    if name == "assembly":
        sources = {"f.s": ARM if arch == "arm64" else X86}
    (file,) = kit.compile(tmp_path, arch, sources, *flags)
    good = file.read_bytes()
    _run(arch, good, exports)
    chance = random.Random(f"{arch} {name}")
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(good)) :]
        else:
            for _ in range(chance.choice((1, 1, 2, 5))):
                end = min(len(good), 2500) if chance.random() < 0.7 else len(good)
                damaged[chance.randrange(end)] = chance.choice((0, 1, 128, 255))
        try:
            _run(arch, bytes(damaged), exports)
        except StripHookError:
            refused += 1
    assert refused > 30
