"""Targets that libraries are built for from this machine, and how a C program for each is made.

What runs: GNU/Linux targets under qemu-user with the distribution's cross C libraries, musl as it
is. Android's are linked with lld against glibc and one function that only Bionic has
(`c/bionic.c`): names, layout, unwinding and threads are put to the test, Bionic itself is not. For
the others there is no C library to be had: they are linked with lld, and looked at.
Windows: see `consumers/windows_kit.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.tools import need


@dataclass(frozen=True, slots=True)
class Foreign:
    """One target.

    `gnu`: the GNU name of the compiler and the C library that its programs use, "" where there is
    none. `emulator`: of qemu-user, "" for the machine's own processor. `clang`: C in the library
    is compiled with clang, which needs no C library for that. `sources`, `flags`: what a program
    needs besides.
    """

    triple: str
    gnu: str = ""
    emulator: str = ""
    clang: bool = False
    sources: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc")

    def compiler(self) -> Path:
        """The compiler of programs. Skips the test where it is missing."""
        return need("musl-gcc" if self.gnu.endswith("musl") else f"{self.gnu}-gcc")

    def build_environment(self) -> dict[str, str]:
        """What cargo has to know to compile the C in a library."""
        if not self.clang:
            self.compiler()
            return {}
        name = self.triple.replace("-", "_")
        return {
            f"CC_{name}": str(need("clang-22", "clang")),
            f"AR_{name}": str(need("llvm-ar-22", "llvm-ar")),
            f"CFLAGS_{name}": "-ffreestanding",
        }

    def emulation(self) -> tuple[str | Path, ...]:
        """The words before a program that run it."""
        if not self.emulator:
            return ()
        tool = need(f"qemu-{self.emulator}-static", f"qemu-{self.emulator}")
        home = f"/usr/{self.gnu}"
        # the machine's own cache of libraries may know others for i386, of another glibc
        return (tool, "-L", home, "-E", f"LD_LIBRARY_PATH={home}/lib")


# glibc's libgcc_eh refers weakly to these; musl's members are not loaded for weak references
_THREADS = "once mutex_lock mutex_unlock getspecific setspecific key_create"
_MUSL = (
    "-static",
    "-Wl,--eh-frame-hdr",
    *(f"-Wl,-u,pthread_{name}" for name in _THREADS.split()),
)
_STATIC = ("-lgcc_eh", "-lgcc", "-lc")
_BIONIC = ("bionic.c",)

FOREIGN = {
    target.triple: target
    for target in (
        Foreign("armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf", "arm"),
        Foreign("aarch64-unknown-linux-gnu", "aarch64-linux-gnu", "aarch64"),
        Foreign("i686-unknown-linux-gnu", "i686-linux-gnu", "i386"),
        Foreign("riscv64gc-unknown-linux-gnu", "riscv64-linux-gnu", "riscv64"),
        Foreign("powerpc64le-unknown-linux-gnu", "powerpc64le-linux-gnu", "ppc64le"),
        Foreign("s390x-unknown-linux-gnu", "s390x-linux-gnu", "s390x"),
        Foreign(
            "x86_64-unknown-linux-musl",
            "x86_64-linux-musl",
            sources=("find_object.c",),
            flags=_MUSL,
            libraries=_STATIC,
        ),
        Foreign(
            "armv7-linux-androideabi", "arm-linux-gnueabihf", "arm", clang=True, sources=_BIONIC
        ),
        Foreign(
            "aarch64-linux-android", "aarch64-linux-gnu", "aarch64", clang=True, sources=_BIONIC
        ),
        Foreign("i686-linux-android", "i686-linux-gnu", "i386", clang=True, sources=_BIONIC),
        Foreign("x86_64-linux-android", "x86_64-linux-gnu", clang=True, sources=_BIONIC),
        Foreign("loongarch64-unknown-linux-gnu", clang=True),
        Foreign("x86_64-unknown-freebsd", clang=True),
    )
}
# Libraries for Darwin need no SDK; their std has line tables, as the one that rustup installs has.
DARWIN = (
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "aarch64-apple-ios",
    "aarch64-apple-ios-sim",
)
RUNNING = tuple(t for t, foreign in FOREIGN.items() if foreign.gnu)
LINKED = tuple(t for t, foreign in FOREIGN.items() if not foreign.gnu)
# What the tier `ci` builds: 32 bits with REL relocations, and 64 bits.
QUICK = ("armv7-unknown-linux-gnueabihf", "aarch64-unknown-linux-gnu")
QUICK_DARWIN = DARWIN[:2]


@dataclass(frozen=True, slots=True)
class Windows:
    """One target of Windows.

    `machine`: as `lld-link /machine:` spells it; `gnu`: the GNU name of MinGW's tools and import
    libraries, "" where there are none. `wine`: the Wine that runs the target's programs, "" for
    none; that for 32 bits is used where it is there, and no tier promises it.
    """

    triple: str
    machine: str
    gnu: str = ""
    wine: str = ""

    @property
    def msvc(self) -> bool:
        return self.triple.endswith("msvc")

    def build_environment(self) -> dict[str, str]:
        """What cargo has to know to compile the C and C++ in a library."""
        name = self.triple.replace("-", "_")
        if not self.msvc:
            tools = {"CC": "gcc", "CXX": "g++", "AR": "ar"}
            return {f"{k}_{name}": str(need(f"{self.gnu}-{v}")) for k, v in tools.items()}
        return {
            f"CC_{name}": str(need("clang-22", "clang")),
            f"CXX_{name}": str(need("clang++-22", "clang++")),
            f"AR_{name}": str(need("llvm-lib-22", "llvm-lib")),
            f"CFLAGS_{name}": "-ffreestanding",
            f"CXXFLAGS_{name}": "-ffreestanding",
        }


WINDOWS = {
    target.triple: target
    for target in (
        Windows("x86_64-pc-windows-gnu", "x64", "x86_64-w64-mingw32", "wine64"),
        Windows("x86_64-pc-windows-msvc", "x64", "x86_64-w64-mingw32", "wine64"),
        Windows("i686-pc-windows-gnu", "x86", "i686-w64-mingw32", "wine32"),
        Windows("i686-pc-windows-msvc", "x86", "i686-w64-mingw32", "wine32"),
        Windows("aarch64-pc-windows-msvc", "arm64"),
    )
}
QUICK_WINDOWS = ("x86_64-pc-windows-gnu", "x86_64-pc-windows-msvc")


def build_environment(triple: str) -> dict[str, str]:
    """What cargo has to know to build a library for a target that is not this machine's."""
    if triple in WINDOWS:
        return WINDOWS[triple].build_environment()
    if triple not in DARWIN:
        return FOREIGN[triple].build_environment()
    name = triple.replace("-", "_")
    return {
        **Foreign(triple, clang=True).build_environment(),
        f"CXX_{name}": str(need("clang++-22", "clang++")),
        f"CXXFLAGS_{name}": "-ffreestanding",
        "SDKROOT": "/usr",  # any folder but the root keeps the crate cc from asking Xcode
        "IPHONEOS_DEPLOYMENT_TARGET": "14.0",  # C's default has no thread-local variables
        "CARGO_PROFILE_RELEASE_DEBUG": "1",
    }
