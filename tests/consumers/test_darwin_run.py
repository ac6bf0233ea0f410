"""Programs for Darwin, from the original and from the stripped library, executed here.

`darwin_machine` says how: x86_64 by the processor, arm64 by qemu-user, and LLVM's unwinder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.consumers import darwin_image, darwin_machine
from tests.consumers import darwin_library as darwin
from tests.consumers.darwin_library import CASES, FIVE, PLATFORMS, PROGRAMS
from tests.consumers.expected import DARWIN_FIVE
from tests.formats.share_kit import verified_set
from tests.targets import DARWIN

VARIANTS = [
    (Strip.NONE, Granularity.CLASS),
    (Strip.DEBUGINFO, Granularity.CLASS),
    (Strip.SYMBOLS, Granularity.CLASS),
    (Strip.SYMBOLS, Granularity.SECTION),
    (Strip.SYMBOLS, Granularity.WHOLE),
]


def _flags(target: str) -> tuple[str | Path, ...]:
    return darwin_machine.link_flags(PLATFORMS[target].zig)


def _run(out: Path, target: str, source: str, names: tuple[str, ...], libraries: list[Path]) -> str:
    program = darwin.program(out, target, source, names, libraries, *_flags(target))
    return darwin_machine.run(program, PLATFORMS[target].arch)


@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_original_does_what_its_source_says(tmp_path: Path, name: str, target: str) -> None:
    source, expected, _ = PROGRAMS[name]
    library = darwin.built_for(name, target).library
    assert _run(tmp_path / "program", target, source, (name,), [library]) == expected


@pytest.mark.parametrize(("strip", "granularity"), VARIANTS)
@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_stripped_one_does_the_same(
    tmp_path: Path, name: str, target: str, strip: Strip, granularity: Granularity
) -> None:
    """Panics that are caught, threads, destructors of thread-locals, constructors, C++ throws."""
    source, expected, _ = PROGRAMS[name]
    library = darwin.stripped(tmp_path, name, target, strip, granularity)
    assert _run(tmp_path / "program", target, source, (name,), [library]) == expected


@pytest.mark.parametrize("target", DARWIN)
@pytest.mark.parametrize("strip", [Strip.DEBUGINFO, Strip.SYMBOLS])
def test_five_libraries_in_one_program(tmp_path: Path, target: str, strip: Strip) -> None:
    """Each has its own std and catches its own panic; the personality routine is one."""
    libraries = [darwin.stripped(tmp_path / n, n, target, strip) for n in FIVE]
    flags = (*_flags(target), "-export_dynamic")
    program = darwin.program(tmp_path / "five", target, "darwin_five.c", FIVE, libraries, *flags)
    assert darwin_machine.run(program, PLATFORMS[target].arch) == DARWIN_FIVE
    image = darwin_image.load(program.read_bytes())
    routines = [s for s in image.symbols if s[0] == "_rust_eh_personality"]
    assert len(routines) == 1
    assert not routines[0][1] & 1, "the program exports the personality"
    compact, framed = darwin_image.personalities(image)
    # of Rust, C and C++; newer compilers name that of Rust in `__eh_frame` only
    assert len(compact) <= 3
    assert len(compact | framed) == 3


@pytest.mark.parametrize("target", DARWIN)
@pytest.mark.parametrize("strip", [Strip.NONE, Strip.SYMBOLS])
def test_five_libraries_of_a_set_in_one_program(tmp_path: Path, target: str, strip: Strip) -> None:
    """They have one std, and do what they did; with C++ and thread-locals in some of them."""
    libraries = [(darwin.built_for(n, target).library, darwin.exports(n, target)) for n in FIVE]
    for seen in verified_set(tmp_path / "set", libraries, strip, triple=target):
        assert seen.functions > 1000
    inputs = [tmp_path / "set" / f"lib{name}.a" for name in (*FIVE, "common")]
    flags = (*_flags(target), "-export_dynamic")
    program = darwin.program(tmp_path / "five", target, "darwin_five.c", FIVE, inputs, *flags)
    assert darwin_machine.run(program, PLATFORMS[target].arch) == DARWIN_FIVE
    image = darwin_image.load(program.read_bytes())
    assert not any(name.startswith("__csh_") and kind & 1 for name, kind, *_ in image.symbols)
    compact, framed = darwin_image.personalities(image)
    assert len(compact) <= 3
    # a routine may have two pointers to it, by its own name and by that of the set
    assert len({_pointer(image, slot) for slot in compact | framed}) == 3


def _pointer(image: darwin_image.Image, slot: int) -> bytes:
    """What a pointer holds, or where it is while only the loader knows that."""
    for start, size, offset in image.sections.values():
        if start <= slot < start + size:
            held = image.data[offset + slot - start : offset + slot - start + 8]
            return held if any(held) else b"%d" % slot
    raise AssertionError(f"{slot:#x} is in no section")
