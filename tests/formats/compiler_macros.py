"""The predefined macros of compilers, and the table that the package has of them.

``python -m tests.formats.compiler_macros`` writes the table again from the compilers here: what
GCC says where there is one for the target, else what clang says without the names that are its
own and with what all GCCs have in common.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import cargo_strip_hook.exports

Macros = dict[str, str]

TABLE = Path(cargo_strip_hook.exports.__file__).with_name("predefined.txt")
# Key of the table: clang's target, the compiler whose words count, its command if it is here.
REFERENCES: dict[str, tuple[str, str, str]] = {}


def _add(system: str, compiler: str, targets: Mapping[str, str], end: str = "") -> None:
    for arch, target in targets.items():
        REFERENCES[f"{system}:{arch}"] = (target + end, compiler, "")


_X86 = {"x86_64": "x86_64", "x86": "i686"}
_add(
    "linux",
    "gcc",
    {
        **_X86,
        "aarch64": "aarch64",
        "powerpc64le": "powerpc64le",
        "riscv64": "riscv64",
        "s390x": "s390x",
        "aarch64_be": "aarch64_be",
        "powerpc64": "powerpc64",
        "powerpc": "powerpc",
        "loongarch64": "loongarch64",
        "mips": "mips",
        "mipsel": "mipsel",
        "sparc64": "sparc64",
        "riscv32": "riscv32",
    },
    "-unknown-linux-gnu",
)
_add(
    "linux",
    "gcc",
    {
        "arm": "armv7-unknown-linux-gnueabihf",
        "armv7soft": "armv7-unknown-linux-gnueabi",
        "armv6": "armv6-unknown-linux-gnueabihf",
        "armv5": "armv5te-unknown-linux-gnueabi",
        "x32": "x86_64-unknown-linux-gnux32",
        "powerpc64musl": "powerpc64-unknown-linux-musl",
        "mips64": "mips64-unknown-linux-gnuabi64",
        "mips64el": "mips64el-unknown-linux-gnuabi64",
    },
)
_add("mingw", "gcc", _X86, "-pc-windows-gnu")
_add("gnullvm", "clang", {**_X86, "aarch64": "aarch64", "arm": "armv7"}, "-pc-windows-gnu")
_add(
    "android",
    "clang",
    {
        "aarch64": "aarch64-linux-android21",
        "arm": "armv7-linux-androideabi21",
        "x86": "i686-linux-android21",
        "x86_64": "x86_64-linux-android21",
        "riscv64": "riscv64-linux-android35",
    },
)
# The oldest systems that rustc builds for ("Platform Support" in its book).
_add("macos", "clang", {"aarch64": "arm64-apple-macosx11.0.0"})
_add("macos", "clang", _X86, "-apple-macosx10.12.0")
_add("ios", "clang", {"aarch64": "arm64", "arm": "armv7s"}, "-apple-ios10.0.0")
_add("ios-sim", "clang", {"aarch64": "arm64-apple-ios14.0.0-simulator"})
_add("ios-sim", "clang", {"x86_64": "x86_64", "x86": "i386"}, "-apple-ios10.0.0-simulator")
_add("macabi", "clang", {"aarch64": "arm64-apple-ios14.0.0-macabi"})
_add("macabi", "clang", {"x86_64": "x86_64-apple-ios13.1.0-macabi"})
_add("tvos", "clang", {"aarch64": "arm64-apple-tvos10.0.0"})
_add("tvos-sim", "clang", {"aarch64": "arm64-apple-tvos14.0.0-simulator"})
_add("tvos-sim", "clang", {"x86_64": "x86_64-apple-tvos10.0.0-simulator"})
_add("watchos", "clang", {"aarch64": "arm64-apple-watchos26.0.0"})
_add("watchos", "clang", {"arm64_32": "arm64_32", "arm": "armv7k"}, "-apple-watchos5.0.0")
_add("watchos-sim", "clang", {"aarch64": "arm64-apple-watchos7.0.0-simulator"})
_add("watchos-sim", "clang", {"x86_64": "x86_64-apple-watchos5.0.0-simulator"})
_add("visionos", "clang", {"aarch64": "arm64-apple-xros1.0.0"})
_add("visionos-sim", "clang", {"aarch64": "arm64-apple-xros1.0.0-simulator"})
_add("freebsd", "clang", {**_X86, "aarch64": "aarch64"}, "-unknown-freebsd")
_add("openbsd", "clang", {**_X86, "aarch64": "aarch64"}, "-unknown-openbsd")
_add("fuchsia", "clang", {"x86_64": "x86_64", "aarch64": "aarch64"}, "-unknown-fuchsia")
_add("netbsd", "gcc", {"x86_64": "x86_64", "aarch64": "aarch64"}, "-unknown-netbsd")
_add("dragonfly", "gcc", {"x86_64": "x86_64-unknown-dragonfly"})
_add("solaris", "gcc", {"x86_64": "x86_64-pc-solaris"})
_add("haiku", "gcc", {"x86_64": "x86_64-unknown-haiku"})
_add(
    "none",
    "gcc",
    {
        **_X86,
        "aarch64": "aarch64",
        "riscv32": "riscv32",
        "riscv64": "riscv64",
        "arm": "thumbv7em",
    },
    "-unknown-none-elf",
)
_add("none", "gcc", {"arm": "thumbv7em-none-eabihf", "armv7soft": "thumbv7m-none-eabi"})
_add("none", "gcc", {"armv6": "thumbv6m-none-eabi"})
_add("wasi", "clang", {"wasm32": "wasm32-wasip1"})
_add("emscripten", "clang", {"wasm32": "wasm32-unknown-emscripten"})
_add("uefi", "clang", {"x86_64": "x86_64-unknown-uefi"})
for _key, _command in {
    "linux:x86_64": "x86_64-linux-gnu-gcc",
    "linux:x86": "i686-linux-gnu-gcc",
    "linux:aarch64": "aarch64-linux-gnu-gcc",
    "linux:arm": "arm-linux-gnueabihf-gcc",
    "linux:powerpc64le": "powerpc64le-linux-gnu-gcc",
    "linux:riscv64": "riscv64-linux-gnu-gcc",
    "linux:s390x": "s390x-linux-gnu-gcc",
    "mingw:x86_64": "x86_64-w64-mingw32-gcc",
    "mingw:x86": "i686-w64-mingw32-gcc",
}.items():
    REFERENCES[_key] = (*REFERENCES[_key][:2], _command)
# GCC's own, of machines that no GCC here is for (config/rs6000/sysv4.h, config/mips/mips.h).
_BY_HAND = {"powerpc": {"__BIG_ENDIAN__": "1", "_BIG_ENDIAN": "1"}}


def dumped(argv: Iterable[str], language: str) -> Macros | None:
    """What ``-dM -E`` prints; None where the compiler has not this language."""
    command = [*argv, "-dM", "-E", "-x", language, "-"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    out = {}
    for line in done.stdout.splitlines():
        _, name, *value = line.split(" ", 2)
        out[name] = value[0] if value else ""
    return out


def clang(key: str, language: str) -> Macros:
    found = dumped(["clang-22", "-target", REFERENCES[key][0]], language)
    assert found is not None
    return found


def gcc(key: str, language: str) -> Macros | None:
    command = REFERENCES[key][2]
    return dumped([command], language) if command and shutil.which(command) else None


def _common(tables: Iterable[Macros]) -> Macros:
    first, *rest = tables
    return {n: v for n, v in first.items() if all(t.get(n) == v for t in rest)}


def reference_macros(language: str) -> dict[str, Macros]:
    """For each key what its usual compiler predefines, or what it would, by the rule above."""
    by_clang = {key: clang(key, language) for key in REFERENCES}
    by_gcc = {key: found for key in REFERENCES if (found := gcc(key, language))}
    known = set().union(*(by_clang[k] for k in by_gcc))
    clangs = {n for n in known if not any(n in t for t in by_gcc.values())}
    of_linux = [k for k in by_gcc if k.startswith("linux")]
    out = {}
    for key, (_, compiler, _) in REFERENCES.items():
        if compiler == "clang":
            out[key] = by_clang[key]
        elif key in by_gcc:
            out[key] = by_gcc[key]
        else:
            like = of_linux if key.startswith("linux") else list(by_gcc)
            theirs, ours = _common(by_gcc[k] for k in like), _common(by_clang[k] for k in like)
            made = {n: v for n, v in by_clang[key].items() if n not in clangs}
            made |= {n: v for n, v in theirs.items() if n not in made or ours.get(n) == made[n]}
            arch = key.partition(":")[2]
            if arch.startswith("powerpc") and not arch.endswith("le"):
                made |= _BY_HAND["powerpc"]
            out[key] = made
    return out


def table() -> str:
    """The text of the package's table."""
    plain = reference_macros("c")
    cxx = reference_macros("c++")
    delta: dict[str, Macros] = {}
    for key, macros in cxx.items():
        delta[key] = {n: v for n, v in macros.items() if plain[key].get(n) != v}
        delta[key] |= {f"-{n}": "" for n in plain[key] if n not in macros}
    # Not every GCC here has C++: what all have in common.
    gccs = [k for k, r in REFERENCES.items() if r[1] == "gcc"]
    have = [k for k in gccs if gcc(k, "c++")]
    of_gcc = _common(delta[k] for k in have)
    for key in gccs:
        if key not in have:  # config/gnu-user.h
            more = {"_GNU_SOURCE": "1"} if key.startswith("linux") else {}
            delta[key] = of_gcc | more
    lines = [
        "# What compilers predefine: `@` and the keys of targets, then their macros. `@ -` and",
        "# keys: all but these. A `+` before the keys: for C++, on top (`-NAME`: not in C++).",
        "# Made by `python -m tests.formats.compiler_macros`.",
    ]
    for mark, tables in (("", plain), ("+ ", delta)):
        sets: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, macros in tables.items():
            for pair in macros.items():
                sets[pair].append(key)
        groups: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
        for pair, keys in sets.items():
            groups[tuple(keys)].append(pair)
        for group, pairs in sorted(groups.items(), key=lambda g: (-len(g[0]), g[0])):
            shown = list(group)
            if len(group) > len(REFERENCES) // 2:
                shown = ["-", *(k for k in REFERENCES if k not in group)]
            lines.append(f"@ {mark}{' '.join(shown)}")
            lines += [f"{n} {v}".rstrip() for n, v in sorted(pairs)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table())
