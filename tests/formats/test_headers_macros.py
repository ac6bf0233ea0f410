"""The predefined macros are those that clang predefines for the same target."""

from __future__ import annotations

import subprocess

import pytest

from cargo_strip_hook.exports.macros import predefined
from cargo_strip_hook.target import Target
from tests.tools import need

# Rust's triple and how clang spells it.
TARGETS = {
    "x86_64-unknown-linux-gnu": "",
    "x86_64-unknown-linux-musl": "",
    "x86_64-unknown-linux-gnux32": "",
    "i686-unknown-linux-gnu": "",
    "aarch64-unknown-linux-gnu": "",
    "aarch64_be-unknown-linux-gnu": "",
    "armv7-unknown-linux-gnueabihf": "",
    "thumbv7neon-unknown-linux-gnueabihf": "",
    "riscv64gc-unknown-linux-gnu": "riscv64-unknown-linux-gnu",
    "riscv32imac-unknown-none-elf": "riscv32-unknown-none-elf",
    "powerpc64le-unknown-linux-gnu": "",
    "powerpc64-unknown-linux-gnu": "",
    "powerpc64-unknown-linux-musl": "",
    "powerpc-unknown-linux-gnu": "",
    "s390x-unknown-linux-gnu": "",
    "loongarch64-unknown-linux-gnu": "",
    "mips64el-unknown-linux-gnuabi64": "",
    "mips-unknown-linux-gnu": "",
    "sparc64-unknown-linux-gnu": "",
    "aarch64-linux-android": "",
    "armv7-linux-androideabi": "",
    "x86_64-unknown-freebsd": "",
    "x86_64-unknown-netbsd": "",
    "x86_64-unknown-openbsd": "",
    "x86_64-unknown-dragonfly": "",
    "x86_64-pc-solaris": "",
    "x86_64-unknown-haiku": "",
    "aarch64-unknown-fuchsia": "",
    "wasm32-unknown-emscripten": "",
    "x86_64-pc-windows-msvc": "",
    "i686-pc-windows-msvc": "",
    "aarch64-pc-windows-msvc": "",
    "x86_64-pc-windows-gnu": "",
    "i686-pc-windows-gnu": "",
    "aarch64-pc-windows-gnullvm": "aarch64-pc-windows-gnu",
    "x86_64-apple-darwin": "",
    "aarch64-apple-darwin": "",
    "aarch64-apple-ios": "",
    "aarch64-apple-ios-sim": "arm64-apple-ios-simulator",
    "x86_64-apple-ios": "x86_64-apple-ios-simulator",
    "aarch64-apple-ios-macabi": "",
    "aarch64-apple-tvos": "",
    "aarch64-apple-watchos-sim": "arm64-apple-watchos-simulator",
    "arm64_32-apple-watchos": "",
    "aarch64-apple-visionos": "arm64-apple-xros",
}
# Said differently on purpose, by name: what is the usual compiler there is not clang, or the
# value is a version.
VALUES_DIFFER = {"__FreeBSD__", "_MSC_VER", "__ARM_ARCH"}
NOT_EVERYWHERE = {"__clang__"}

UNIVERSE = {
    name
    for triple in TARGETS
    for cxx in (False, True)
    for name in predefined(Target.parse(triple), cxx=cxx)
}


def clang_macros(triple: str, language: str) -> dict[str, str]:
    argv = [need("clang-22", "clang"), "-dM", "-E", "-target", triple, "-x", language, "-"]
    done = subprocess.run(argv, input="", capture_output=True, text=True, check=True)
    out = {}
    for line in done.stdout.splitlines():
        _, name, *value = line.split(" ", 2)
        out[name] = value[0] if value else ""
    return out


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("triple", TARGETS)
def test_predefined_macros_are_clangs(triple: str, language: str) -> None:
    theirs = clang_macros(TARGETS[triple] or triple, language)
    ours = predefined(Target.parse(triple), cxx=language == "c++")
    shown = {n: v for n, v in theirs.items() if n in UNIVERSE and n not in NOT_EVERYWHERE}
    mine = {n: v for n, v in ours.items() if n not in NOT_EVERYWHERE}
    assert {n: v for n, v in mine.items() if n not in shown} == {}, "clang has not"
    assert {n: v for n, v in shown.items() if n not in mine} == {}, "only clang has"
    different = {n: (v, shown[n]) for n, v in mine.items() if v != shown[n]}
    assert set(different) <= VALUES_DIFFER, different
