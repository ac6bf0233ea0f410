"""Static libraries with a real std for Darwin, stripped and linked on whatever machine this is."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests import fixtures
from tests.consumers import darwin_image
from tests.consumers.expected import DARWIN_APPLE, DARWIN_MIXED, DOLBY_VISION, IMAGEQUANT
from tests.fixtures import PUBLISHED, Built
from tests.formats import darwin_kit as kit
from tests.targets import DARWIN, QUICK_DARWIN
from tests.tools import TIER

C = Path(__file__).resolve().parent / "c"
# name: a program that uses all of it and what that prints; one that uses a single function
PROGRAMS = {
    "apple": ("darwin_main.c", DARWIN_APPLE, "one_apple.c"),
    "mixed": ("darwin_mixed.c", DARWIN_MIXED, "one_mixed.c"),
    "imagequant-sys": ("imagequant.c", IMAGEQUANT, "one_imagequant.c"),
    "dolby_vision": ("dolby_vision.c", DOLBY_VISION, "one_dolby_vision.c"),
}
FIVE = ("alpha", "beta", "gamma", "apple", "mixed")


@dataclass(frozen=True, slots=True)
class Platform:
    """What the tools call a target: the processor, ld64's platform, clang's and zig's targets."""

    arch: str
    linker: str
    clang: str
    zig: str


PLATFORMS = {
    "x86_64-apple-darwin": Platform("x86_64", "macos", "macos13", "x86_64-macos.13.0"),
    "aarch64-apple-darwin": Platform("arm64", "macos", "macos13", "aarch64-macos.13.0"),
    "aarch64-apple-ios": Platform("arm64", "ios", "ios14", "aarch64-ios.14.0"),
    "aarch64-apple-ios-sim": Platform(
        "arm64", "ios-simulator", "ios14-simulator", "aarch64-ios.14.0-simulator"
    ),
}
CASES = [(name, target) for target in DARWIN for name in PROGRAMS]


def built_for(name: str, target: str) -> Built:
    """The library; the tier says whether it may be built now."""
    quick = QUICK_DARWIN[:1] if name in PUBLISHED else QUICK_DARWIN
    wanted = TIER == "all" or (TIER == "ci" and target in quick)
    if not wanted and not fixtures.is_built(name, "release", target, "debian"):
        pytest.skip(f"{name} for {target} was not built (STRIP_HOOK_TESTS=all does)")
    return fixtures.library(name, "release", target, "debian")


@cache
def exports(name: str, target: str) -> tuple[str, ...]:
    """The names of the header that the library defines."""
    found = kit.globals_of(built_for(name, target).library)
    text = re.sub(r"/\*.*?\*/", "", header(name, target).read_text(), flags=re.S)
    defined = {n for n, letter in found.items() if letter != "U"}
    return tuple(sorted(defined & {f"_{word}" for word in re.findall(r"\w+", text)}))


def header(name: str, target: str) -> Path:
    """The public header. Only cargo-c makes that of dolby_vision, with the host's library."""
    built = built_for(name, target) if name != "dolby_vision" else fixtures.library(name)
    assert built.header
    return built.header


def stripped(
    folder: Path,
    name: str,
    target: str,
    strip: Strip,
    granularity: Granularity = Granularity.CLASS,
    only: tuple[str, ...] = (),
) -> Path:
    """The library as the engine writes it, verified. `only`: these exports instead of all."""
    original = built_for(name, target).library
    link = folder / original.name
    if not link.exists():
        folder.mkdir(parents=True, exist_ok=True)
        link.symlink_to(original)
    names = only or exports(name, target)
    return kit.strip(link, PLATFORMS[target].arch, names, strip, granularity, target=target)[0]


def compiled(out: Path, target: str, source: str, names: tuple[str, ...]) -> list[Path]:
    """`c/SOURCE` with the headers of `names`; `out` names the object."""
    folders = {header(n, target).parent for n in names}
    include = [w for f in sorted(folders) for w in ("-I", f)]
    platform = PLATFORMS[target]
    return kit.compile(
        out.parent,
        platform.arch,
        {f"{out.name}.c": (C / source).read_text()},
        "-O1",
        *kit.headers(),
        *include,
        platform=platform.clang,
    )


def program(
    out: Path,
    target: str,
    source: str,
    names: tuple[str, ...],
    libraries: list[Path],
    *flags: str | Path,
) -> Path:
    """A program of `c/SOURCE` with the headers of `names`, linked with ld64.lld -dead_strip."""
    platform = PLATFORMS[target]
    objects = compiled(out, target, source, names)
    stub = kit.ziglang_stub(platform.linker)
    cxx = out.with_name("libc++.tbd")
    cxx.write_text(kit.cxx_stub(platform.linker))
    flags = ("-dead_strip", *flags, cxx)
    inputs = [*objects, *libraries]
    return kit.link(out, platform.arch, inputs, *flags, stub=stub, platform=platform.linker)


def floor(folder: Path, name: str, target: str) -> int:
    """The size of the dead-stripped dylib of the crate without any local name, in bytes."""
    platform = PLATFORMS[target]
    exported = [w for n in exports(name, target) for w in ("-exported_symbol", n, "-u", n)]
    out = folder / "floor.dylib"
    stub = kit.ziglang_stub(platform.linker)
    flags = ("-dylib", "-dead_strip", "-x", "-S", "-undefined", "dynamic_lookup", *exported)
    inputs = [built_for(name, target).library]
    kit.link(out, platform.arch, inputs, *flags, stub=stub, platform=platform.linker)
    assert not [s for s in darwin_image.load(out.read_bytes()).symbols if not s[1] & 1]
    return out.stat().st_size


def main(argv: list[str]) -> None:
    """For benchmarks: where the library and its header are, and the size of the dylib."""
    name, target, folder = argv
    library = fixtures.library(name, "release", target, "debian").library
    print(library, header(name, target), floor(Path(folder), name, target))


if __name__ == "__main__":
    main(sys.argv[1:])
