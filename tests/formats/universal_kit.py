"""Universal libraries and xcframeworks of small objects, for the tests of the pipeline."""

from __future__ import annotations

import plistlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.formats import darwin_kit as kit
from tests.formats.native_kit import tool
from tests.tools import need

SOURCES = {
    "one.c": """
extern int two(int), undefined_later(void);
int one_api(int a) { return two(a) + 1; }
int one_dead(void) { return undefined_later(); }
#if defined(__aarch64__)
int only_arm(void) { return 64; }
#elif defined(__x86_64__)
int only_intel(void) { return 86; }
#endif
""",
    "two.c": "int two(int a) { return a * 3; }\nint two_dead(int a) { return a; }\n",
}
HEADER = """#include <TargetConditionals.h>
int one_api(int a);
#if defined(__APPLE__) && defined(__aarch64__)
int only_arm(void);
#elif TARGET_OS_OSX || TARGET_OS_SIMULATOR || TARGET_OS_MACCATALYST
int only_intel(void);
#endif
"""


def lipo() -> Path:
    return need("llvm-lipo-22", "llvm-lipo")


def thin(
    folder: Path, arch: str, platform: str = "macos13", sources: Mapping[str, str] = SOURCES
) -> Path:
    """A library for one architecture, called `libt.a`."""
    return kit.library(folder / f"{platform}-{arch}", arch, sources, "-O1", platform=platform)


def fat(out: Path, parts: Sequence[Path], *flags: str) -> Path:
    """What `lipo -create` makes of libraries."""
    out.parent.mkdir(parents=True, exist_ok=True)
    tool([lipo(), "-create", *flags, *parts, "-output", out])
    return out


def slices(library: Path) -> list[tuple[int, int, bytes]]:
    """cputype, alignment (exponent) and contents of each slice, read once more."""
    data = library.read_bytes()
    form = {0xCAFEBABE: ">IIIII", 0xCAFEBABF: ">IIQQII"}[struct.unpack_from(">I", data)[0]]
    found = []
    for i in range(struct.unpack_from(">I", data, 4)[0]):
        cpu, _, start, size, align, *_ = struct.unpack_from(
            form, data, 8 + i * struct.calcsize(form)
        )
        found.append((cpu, align, data[start : start + size]))
    return found


# what Xcode calls a variant: identifier, platform and its variant, architectures, clang's system
VARIANTS = (
    ("ios-arm64", "ios", None, ("arm64",), "ios15"),
    ("ios-arm64_x86_64-simulator", "ios", "simulator", kit.ARCHES, "ios15-simulator"),
    ("ios-arm64_x86_64-maccatalyst", "ios", "maccatalyst", kit.ARCHES, "ios15-macabi"),
    ("macos-arm64_x86_64", "macos", None, kit.ARCHES, "macos13"),
)


def xcframework(
    folder: Path,
    work: Path,
    sources: Mapping[str, str] = SOURCES,
    header: str = HEADER,
    name: str = "libt.a",
) -> Path:
    """An xcframework with a device, a simulator, a Catalyst and a macOS variant."""
    entries = []
    for identifier, platform, variant, arches, system in VARIANTS:
        parts = [thin(work / identifier, arch, system, sources) for arch in arches]
        library = folder / identifier / name
        fat(library, parts) if len(parts) > 1 else copy(parts[0], library)
        headers = folder / identifier / "Headers"
        headers.mkdir()
        (headers / "t.h").write_text(header)
        (headers / "module.modulemap").write_text('module t { header "t.h" }\n')
        entry = {
            "BinaryPath": name,
            "HeadersPath": "Headers",
            "LibraryIdentifier": identifier,
            "LibraryPath": name,
            "SupportedArchitectures": list(arches),
            "SupportedPlatform": platform,
        }
        entries.append(entry | ({"SupportedPlatformVariant": variant} if variant else {}))
    content = {
        "AvailableLibraries": entries,
        "CFBundlePackageType": "XFWK",
        "XCFrameworkFormatVersion": "1.0",
    }
    (folder / "Info.plist").write_bytes(plistlib.dumps(content))
    return folder


def copy(source: Path, out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(source.read_bytes())
    return out
