"""Target triples, and what they decide: object format, file and symbol names, archive dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cargo_strip_hook.core.errors import UsageError

ObjectFormat = Literal["elf", "macho", "coff"]
ArchiveDialect = Literal["gnu", "darwin", "coff"]
Linker = Literal["gnu", "gold", "lld", "gnu-pe", "lld-link", "ld64.lld", "ld64"]

_DARWIN_SYSTEMS = frozenset({"darwin", "macos", "ios", "tvos", "watchos", "visionos"})
# Platforms of Apple's by their number in LC_BUILD_VERSION (mach-o/loader.h, PLATFORM_*), and
# system and environment of rustc's triples for them
_PLATFORMS = {
    1: ("darwin", ""),
    2: ("ios", ""),
    3: ("tvos", ""),
    4: ("watchos", ""),
    6: ("ios", "macabi"),
    7: ("ios", "sim"),
    8: ("tvos", "sim"),
    9: ("watchos", "sim"),
    11: ("visionos", ""),
    12: ("visionos", "sim"),
}
# these have been simulators since before Apple's own processors: their triples do not say so
_INTEL_SIMULATORS = frozenset({"ios", "tvos"})


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a Rust target triple; `environment` is "" where the triple has none.

    `lowest` is the version of the oldest Apple system that a library runs on, where its objects
    say so.
    """

    triple: str
    arch: str
    vendor: str
    system: str
    environment: str
    lowest: tuple[int, int, int] | None = None

    @classmethod
    def parse(cls, triple: str) -> Target:
        """Parse a triple as rustc spells it. Raises `UsageError` where it is no triple."""
        parts = triple.split("-")
        if len(parts) < 2 or not all(parts):
            raise UsageError(
                f"`{triple}` is not a target triple",
                help="write it as rustc does, for example x86_64-unknown-linux-gnu",
            )
        arch, rest = parts[0], parts[1:]
        # aarch64-linux-android and armv7-linux-androideabi have no vendor
        if rest[0] in {"linux", "none", "wasi"}:
            rest = ["unknown", *rest]
        vendor = rest[0]
        system = rest[1] if len(rest) > 1 else "none"
        return cls(triple, arch, vendor, system, "-".join(rest[2:]))

    @classmethod
    def apple(cls, arch: str, platform: int) -> Target:
        """The target of an architecture, as rustc calls it, and a platform of Apple's.

        Raises `UsageError` for a platform that rustc has no target for.
        """
        if platform not in _PLATFORMS:
            raise UsageError(f"there is no target for Apple's platform {platform}")
        system, environment = _PLATFORMS[platform]
        if environment == "sim" and system in _INTEL_SIMULATORS and arch == "x86_64":
            environment = ""
        return cls.parse("-".join(filter(None, (arch, "apple", system, environment))))

    @property
    def apple_platform(self) -> int | None:
        """The platform's number in LC_BUILD_VERSION; None for systems that are not Apple's."""
        if self.system not in _DARWIN_SYSTEMS:
            return None
        system = "darwin" if self.system == "macos" else self.system
        environment = self.environment
        if not environment and system in _INTEL_SIMULATORS and self.arch == "x86_64":
            environment = "sim"
        return next((n for n, p in _PLATFORMS.items() if p == (system, environment)), None)

    @property
    def object_format(self) -> ObjectFormat:
        if self.system in _DARWIN_SYSTEMS:
            return "macho"
        if self.system in {"windows", "uefi", "cygwin"}:
            return "coff"
        return "elf"

    @property
    def is_msvc(self) -> bool:
        return self.system == "windows" and self.environment.startswith("msvc")

    @property
    def linker(self) -> Linker:
        """The linker whose choice counts where linkers would make different programs.

        GNU's for ELF (`gnu`) and MinGW (`gnu-pe`); LLVM's for Android (`lld`), Microsoft's objects
        (`lld-link`) and Apple's: Apple's classic linker goes by the alphabet of names (`ld64`), and
        the order of its new one is not documented.
        """
        if self.object_format == "macho":
            return "ld64.lld"
        if self.object_format == "coff":
            gnu = self.system == "cygwin" or self.environment == "gnu"
            return "gnu-pe" if gnu else "lld-link"
        return "lld" if self.environment.startswith("android") else "gnu"

    @property
    def archive_dialect(self) -> ArchiveDialect:
        if self.object_format == "macho":
            return "darwin"
        return "coff" if self.is_msvc else "gnu"

    @property
    def symbol_prefix(self) -> str:
        """What the C compiler puts before a C name (i686 Windows adds decorations)."""
        if self.object_format == "macho":
            return "_"
        if self.object_format == "coff" and self.arch in {"i586", "i686"}:
            return "_"
        return ""

    def shared_library(self, name: str) -> str:
        """The file name of a cdylib called `name`, as Cargo writes it."""
        if self.object_format == "macho":
            return f"lib{name}.dylib"
        return f"{name}.dll" if self.system == "windows" else f"lib{name}.so"
