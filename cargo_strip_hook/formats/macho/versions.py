"""The platform and its lowest version: what objects were built for, together.

Source: mach-o/loader.h, struct build_version_command and struct version_min_command.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.macho import layouts as mo

PLATFORMS = {
    1: "macOS",
    2: "iOS",
    3: "tvOS",
    4: "watchOS",
    6: "Mac Catalyst",
    7: "iOS Simulator",
    8: "tvOS Simulator",
    9: "watchOS Simulator",
    10: "DriverKit",
    11: "visionOS",
    12: "visionOS Simulator",
}


@dataclass(frozen=True, slots=True)
class Version:
    """One statement: `minimum` and `sdk` are X.Y.Z as 16, 8 and 8 bits.

    `command` is the load command it came from.
    """

    platform: int
    minimum: int
    sdk: int
    command: int = mo.LC_BUILD_VERSION

    def encode(self) -> bytes:
        """The load command."""
        if self.command == mo.LC_BUILD_VERSION:
            words = (self.command, 24, self.platform, self.minimum, self.sdk, 0)
            return struct.pack("<6I", *words)
        return struct.pack("<4I", self.command, 16, self.minimum, self.sdk)


def merge(units: Iterable[tuple[str, tuple[Version, ...]]]) -> tuple[Version, ...]:
    """The highest minimum of all; objects that say nothing (assembly) are left out.

    Raises `LinkError` where they are for different platforms.
    """
    merged: dict[int, Version] = {}
    first: tuple[str, frozenset[int]] | None = None
    for name, versions in units:
        platforms = frozenset(v.platform for v in versions)
        if not platforms:
            continue
        if first is None:
            first = name, platforms
        elif platforms != first[1]:
            raise LinkError(
                f"{first[0]} was built for {_names(first[1])}, {name} for {_names(platforms)}",
                help="make one library for each platform; the simulator is a platform of its own",
            )
        for version in versions:
            old = merged.get(version.platform)
            if old is None:
                merged[version.platform] = version
                continue
            same = old.command == version.command
            merged[version.platform] = Version(
                version.platform,
                max(old.minimum, version.minimum),
                max(old.sdk, version.sdk),
                old.command if same else mo.LC_BUILD_VERSION,
            )
    return tuple(merged[p] for p in sorted(merged))


def check_target(versions: tuple[Version, ...], cputype: int, target: Target) -> None:
    """Raises `LinkError` where the objects are for another platform or processor than `target`."""
    arch = {mo.CPU_TYPE_ARM64: ("aarch64", "arm64"), mo.CPU_TYPE_X86_64: ("x86_64", "x86_64h")}
    help = "name the library's own target with `--target`"
    if target.arch not in arch[cputype]:
        raise LinkError(
            f"the objects are for {arch[cputype][-1 if cputype == mo.CPU_TYPE_ARM64 else 0]}, "
            f"but the target is {target.triple}",
            help=help,
        )
    wanted = target.apple_platform
    platforms = {v.platform for v in versions}
    if wanted is None or not platforms:
        return
    if wanted not in platforms:
        raise LinkError(
            f"the objects are for {_names(frozenset(platforms))}, "
            f"but the target {target.triple} is {PLATFORMS[wanted]}",
            help=help,
        )


def _names(platforms: frozenset[int]) -> str:
    return " and ".join(PLATFORMS.get(p, f"platform {p}") for p in sorted(platforms))
