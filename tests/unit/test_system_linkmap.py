"""The placement that GNU ld's map tells, on maps as ld 2.40 writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.engines.system.linkmap import link_map
from cargo_strip_hook.engines.system.machines import MACHINES
from cargo_strip_hook.engines.system.probe import probe_object
from cargo_strip_hook.engines.system.view import view
from cargo_strip_hook.link.prelink import Input

DATA = probe_object(MACHINES["x86_64"])
MEMBERS = {4: Input(4, "one.o", memoryview(DATA)), 7: Input(7, "two.o", memoryview(DATA))}
NUMBER = {name.decode(): i for i, name in enumerate(view(DATA, "probe").names)}

MAP = """
Discarded input sections

 .text.dead     0x0000000000000000       0x10 lib.a(one.o)

Memory Configuration

Linker script and memory map

LOAD lib.a
.text.live      0x0000000000000000       0x40
 .text.live     0x0000000000000000       0x20 lib.a(one.o)
                0x0000000000000000                strip_hook_probe
 *fill*         0x0000000000000020       0x0
 .text.live     0x0000000000000020       0x20 lib.a(two.o)

strip_hook_probe_set
                0x0000000000000000        0x8
 *(strip_hook_probe_set)
 strip_hook_probe_set
                0x0000000000000000        0x8 /a (folder)/lib.a(two.o)
.eh_frame       0x0000000000000000       0x3c
 .eh_frame      0x0000000000000000       0x3c lib.a(one.o)
"""


def test_what_a_map_tells() -> None:
    result = view(DATA, "result")
    names = tuple(b"other" if n == b"strip_hook_probe_set" else n for n in result.names)
    result = replace(result, names=names)
    found = link_map(MAP, MEMBERS, result, {b"strip_hook_probe_set": b"other"})
    assert found is not None
    live, element = NUMBER[".text.live"], NUMBER["strip_hook_probe_set"]
    assert found.tolist() == [
        (4, live, 0, 32, live, 0),
        (7, live, 0, 32, live, 32),
        (7, element, 0, 8, element, 0),
    ]


def test_a_name_that_is_no_text() -> None:
    """The map is read with its bytes kept; the section is none that could be looked for."""
    odd = MAP.replace(
        "strip_hook_probe_set\n                0x", "odd\udcff\n                0x", 1
    )
    found = link_map(odd, MEMBERS, view(DATA, "result"), {})
    assert found is None or len(found)


def test_sections_that_are_gone_again() -> None:
    result = view(DATA, "result")
    found = link_map(MAP, MEMBERS, result, {b"strip_hook_probe_set": b"other"})
    assert found is not None
    assert np.unique(found["out_section"]).tolist() == [NUMBER[".text.live"]]


def test_a_map_that_leaves_it_open() -> None:
    twins = {i: Input(i, "one.o", memoryview(DATA)) for i in (4, 7)}
    assert link_map(MAP.replace("two.o", "three.o"), twins, view(DATA, "result"), {}) is None
    other_size = MAP.replace("0x20 lib.a(two.o)", "0x30 lib.a(two.o)")
    assert link_map(other_size, MEMBERS, view(DATA, "result"), {}) is None
    assert link_map("no map", MEMBERS, view(DATA, "result"), {}) is None
