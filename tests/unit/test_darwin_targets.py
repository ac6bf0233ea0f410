"""Darwin's targets: triple and platform, what objects say they were built for, names in headers."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from cargo_strip_hook.archive import NewMember, open_archive, write_archive
from cargo_strip_hook.core.errors import ArchiveError, LinkError, UsageError
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import object_name
from cargo_strip_hook.exports.headers import read_header
from cargo_strip_hook.formats.detect import architecture_of, deduce_target, slice_target
from cargo_strip_hook.formats.macho import reader, versions
from cargo_strip_hook.link.model import Input
from cargo_strip_hook.verify.macho import read as second
from tests.unit.macho_objects import ARM64, TEXT, X86_64, Section, build

# rustc's targets, and the platform of mach-o/loader.h that their objects are for
TARGETS = [
    ("aarch64-apple-darwin", 1),
    ("x86_64-apple-darwin", 1),
    ("x86_64h-apple-darwin", 1),
    ("arm64e-apple-darwin", 1),
    ("aarch64-apple-ios", 2),
    ("aarch64-apple-ios-sim", 7),
    ("x86_64-apple-ios", 7),
    ("aarch64-apple-ios-macabi", 6),
    ("x86_64-apple-ios-macabi", 6),
    ("aarch64-apple-tvos", 3),
    ("aarch64-apple-tvos-sim", 8),
    ("x86_64-apple-tvos", 8),
    ("arm64_32-apple-watchos", 4),
    ("aarch64-apple-watchos", 4),
    ("aarch64-apple-watchos-sim", 9),
    ("x86_64-apple-watchos-sim", 9),
    ("aarch64-apple-visionos", 11),
    ("aarch64-apple-visionos-sim", 12),
]
CPUS = {
    "aarch64": (ARM64, 0),
    "arm64e": (ARM64, 2),
    "x86_64": (X86_64, 3),
    "x86_64h": (X86_64, 8),
}


def build_version(platform: int) -> bytes:
    return struct.pack("<6I", 0x32, 24, platform, 13 << 16, 14 << 16, 0)


def version_min(command: int) -> bytes:
    return struct.pack("<4I", command, 16, 10 << 16, 0)


def an_object(extra: bytes = b"", *, cpu: int = ARM64, subtype: int = 0) -> bytes:
    text = Section(b"__TEXT", b"__text", bytes(8), TEXT, 2)
    count = 1 if extra else 0
    return build([text], extra=extra, extra_count=count, cpu=cpu, subtype=subtype)


def library(folder: Path, *objects: bytes) -> Path:
    path = folder / "libt.a"
    file = io.BytesIO()
    write_archive(file, "darwin", [NewMember(f"{n}.o", len(o), [o]) for n, o in enumerate(objects)])
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize(("triple", "platform"), TARGETS)
def test_triple_and_platform(triple: str, platform: int) -> None:
    target = Target.parse(triple)
    assert target.apple_platform == platform
    assert Target.apple(target.arch, platform) == target
    assert target.object_format == "macho"
    assert (target.symbol_prefix, target.archive_dialect) == ("_", "darwin")


def test_other_platforms() -> None:
    assert Target.parse("x86_64-unknown-linux-gnu").apple_platform is None
    assert Target.parse("aarch64-apple-macos").apple_platform == 1
    with pytest.raises(UsageError, match="platform 10"):
        Target.apple("aarch64", 10)


@pytest.mark.parametrize(("triple", "platform"), [t for t in TARGETS if "arm64_32" not in t[0]])
def test_objects_say_their_target(tmp_path: Path, triple: str, platform: int) -> None:
    cpu, subtype = CPUS[triple.partition("-")[0]]
    first = an_object(cpu=cpu, subtype=subtype)  # assembly: says nothing
    path = library(tmp_path, first, an_object(build_version(platform), cpu=cpu, subtype=subtype))
    with open_archive(path) as archive:
        assert deduce_target(archive).triple == triple


@pytest.mark.parametrize(
    ("command", "cpu", "triple", "platform"),
    [
        (0x24, X86_64, "x86_64-apple-darwin", 1),
        (0x25, ARM64, "aarch64-apple-ios", 2),
        (0x25, X86_64, "x86_64-apple-ios", 7),
        (0x2F, X86_64, "x86_64-apple-tvos", 8),
        (0x30, X86_64, "x86_64-apple-watchos-sim", 9),
    ],
)
def test_old_commands_mean_the_simulator_on_intel(
    tmp_path: Path, command: int, cpu: int, triple: str, platform: int
) -> None:
    data = an_object(version_min(command), cpu=cpu, subtype=3 if cpu == X86_64 else 0)
    with open_archive(library(tmp_path, data)) as archive:
        assert deduce_target(archive).triple == triple
    [unit] = reader.read([Input(0, "m.o", memoryview(data))])
    assert [v.platform for v in unit.native.versions] == [platform]
    versions.check_target(unit.native.versions, cpu, Target.parse(triple))
    # old and new statements of one platform go together, and those of a device do not
    new = versions.Version(platform, 13 << 16, 0)
    assert versions.merge([("a", unit.native.versions), ("b", (new,))])[0].platform == platform
    assert [p for p, *_ in second.read(memoryview(data)).versions] == [platform]
    if platform == 7:
        with pytest.raises(LinkError, match="iOS Simulator"):
            device = versions.Version(2, 13 << 16, 0)
            versions.merge([("a", unit.native.versions), ("b", (device,))])


def test_without_a_word_it_is_macos(tmp_path: Path) -> None:
    with open_archive(library(tmp_path, an_object())) as archive:
        assert deduce_target(archive).triple == "aarch64-apple-darwin"
    # nobody's triple: what reads the objects tells that it is none of ours
    with open_archive(library(tmp_path, an_object(build_version(10)))) as archive:
        assert deduce_target(archive).triple == "aarch64-apple-darwin"


def test_watches_with_32_bit_pointers_are_told_apart(tmp_path: Path) -> None:
    commands = build_version(4)
    head = struct.pack("<7I", 0xFEEDFACE, 0x0200000C, 1, 1, 1, len(commands), 0)
    with open_archive(library(tmp_path, head + commands)) as archive:
        assert deduce_target(archive).triple == "arm64_32-apple-watchos"


def test_damaged_commands_say_nothing(tmp_path: Path) -> None:
    good = an_object(build_version(2))
    for cut in range(300):
        with open_archive(library(tmp_path, good[:cut] + bytes(-cut % 8))) as archive:
            target = deduce_target(archive)
        assert target.arch, cut
    endless = bytearray(good)
    struct.pack_into("<I", endless, 16, 0xFFFFFFFF)
    struct.pack_into("<II", endless, 32, 0x19, 0)
    with open_archive(library(tmp_path, bytes(endless))) as archive:
        assert deduce_target(archive).triple == "aarch64-apple-darwin"


def test_slices_have_the_target_that_was_named_or_their_own(tmp_path: Path) -> None:
    path = library(tmp_path, an_object(build_version(7)))
    part = Slice(path, 0, path.stat().st_size, "arm64")
    assert architecture_of(part) == "aarch64"
    with open_archive(part) as archive:
        named = Target.parse("aarch64-apple-ios")
        assert slice_target(archive, named) == named
        other = Target.parse("x86_64-apple-ios")
        assert slice_target(archive, other).triple == "aarch64-apple-ios-sim"
    wrong = Slice(path, 0, path.stat().st_size, "x86_64")
    with open_archive(wrong) as archive, pytest.raises(ArchiveError, match="objects for aarch64"):
        deduce_target(archive)


GUARDS = """
#include <TargetConditionals.h>
#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define ALIAS(name) __asm__(STRING(__USER_LABEL_PREFIX__) name)
#ifdef __APPLE__
int apple(const char *_Nonnull text);
#endif
#if TARGET_OS_OSX
int mac(void);
#elif TARGET_OS_MACCATALYST
int catalyst(void);
#elif TARGET_OS_SIMULATOR
int simulator(void);
#elif TARGET_OS_IPHONE
int device(void);
#endif
#if TARGET_OS_TV
int tv(void);
#elif TARGET_OS_WATCH
int watch(void);
#elif TARGET_OS_VISION
int vision(void);
#elif TARGET_OS_IOS
int ios(void);
#endif
int renamed(int) ALIAS("renamed$INODE64");
int also(int) __asm("_" "also" "$UNIX2003");
int verbatim(int) __asm__("plain_name");
"""


@pytest.mark.parametrize(
    ("triple", "words"),
    [
        ("aarch64-apple-darwin", "mac"),
        ("aarch64-apple-ios", "device ios"),
        ("aarch64-apple-ios-sim", "simulator ios"),
        ("x86_64-apple-ios", "simulator ios"),
        ("x86_64-apple-ios-macabi", "catalyst ios"),
        ("aarch64-apple-tvos", "device tv"),
        ("x86_64-apple-tvos", "simulator tv"),
        ("aarch64-apple-watchos", "device watch"),
        ("aarch64-apple-visionos-sim", "simulator vision"),
    ],
)
def test_headers_ask_for_the_platform(tmp_path: Path, triple: str, words: str) -> None:
    header = tmp_path / "t.h"
    header.write_text(GUARDS)
    target = Target.parse(triple)
    names = [object_name(s, target) for s in read_header(header, target=target).symbols]
    fixed = ["_renamed$INODE64", "_also$UNIX2003", "plain_name"]
    assert names == ["_apple", *(f"_{w}" for w in words.split()), *fixed]


def test_the_prefix_of_other_systems(tmp_path: Path) -> None:
    header = tmp_path / "t.h"
    header.write_text(GUARDS)
    for triple, name in (
        ("x86_64-unknown-linux-gnu", "renamed$INODE64"),
        ("i686-pc-windows-gnu", "_renamed$INODE64"),
    ):
        target = Target.parse(triple)
        found = [object_name(s, target) for s in read_header(header, target=target).symbols]
        assert found[0] == name
