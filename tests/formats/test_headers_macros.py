"""The predefined macros are those of the usual compiler for the target."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.archive import NewMember, open_archive, write_archive
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.exports.headers import read_header
from cargo_strip_hook.exports.library import decide_exports
from cargo_strip_hook.exports.predefined import _answers, predefined
from cargo_strip_hook.formats.detect import deduce_target, with_lowest
from tests.formats.compiler_macros import REFERENCES, clang, gcc
from tests.tools import need

# Rust's triple and the key of the compiler that is asked about it.
TARGETS = {
    "x86_64-unknown-linux-gnu": "linux:x86_64",
    "x86_64-unknown-linux-musl": "linux:x86_64",
    "i686-unknown-linux-gnu": "linux:x86",
    "aarch64-unknown-linux-gnu": "linux:aarch64",
    "armv7-unknown-linux-gnueabihf": "linux:arm",
    "thumbv7neon-unknown-linux-gnueabihf": "linux:arm",
    "powerpc64le-unknown-linux-gnu": "linux:powerpc64le",
    "riscv64gc-unknown-linux-gnu": "linux:riscv64",
    "s390x-unknown-linux-gnu": "linux:s390x",
    "x86_64-pc-windows-gnu": "mingw:x86_64",
    "i686-pc-windows-gnu": "mingw:x86",
    "aarch64-linux-android": "android:aarch64",
    "armv7-linux-androideabi": "android:arm",
    "thumbv7neon-linux-androideabi": "android:arm",
    "i686-linux-android": "android:x86",
    "x86_64-linux-android": "android:x86_64",
    "aarch64-pc-windows-gnullvm": "gnullvm:aarch64",
    "x86_64-pc-windows-gnullvm": "gnullvm:x86_64",
    "x86_64-unknown-freebsd": "freebsd:x86_64",
    "x86_64-unknown-openbsd": "openbsd:x86_64",
    "aarch64-unknown-fuchsia": "fuchsia:aarch64",
    "wasm32-unknown-emscripten": "emscripten:wasm32",
    "wasm32-wasip1": "wasi:wasm32",
    "x86_64-unknown-uefi": "uefi:x86_64",
    "x86_64-apple-darwin": "macos:x86_64",
    "aarch64-apple-darwin": "macos:aarch64",
    "arm64e-apple-darwin": "macos:aarch64",
    "aarch64-apple-ios": "ios:aarch64",
    "aarch64-apple-ios-sim": "ios-sim:aarch64",
    "x86_64-apple-ios": "ios-sim:x86_64",
    "aarch64-apple-ios-macabi": "macabi:aarch64",
    "x86_64-apple-ios-macabi": "macabi:x86_64",
    "aarch64-apple-tvos": "tvos:aarch64",
    "aarch64-apple-watchos-sim": "watchos-sim:aarch64",
    "arm64_32-apple-watchos": "watchos:arm64_32",
    "aarch64-apple-visionos": "visionos:aarch64",
}
# No compiler here is the usual one: what clang says of the machine and the system is compared.
NEAR = {
    "x86_64-unknown-linux-gnux32": "linux:x32",
    "aarch64_be-unknown-linux-gnu": "linux:aarch64_be",
    "powerpc64-unknown-linux-gnu": "linux:powerpc64",
    "powerpc-unknown-linux-gnu": "linux:powerpc",
    "loongarch64-unknown-linux-gnu": "linux:loongarch64",
    "loongarch64-unknown-linux-musl": "linux:loongarch64",
    "mips64el-unknown-linux-gnuabi64": "linux:mips64el",
    "mips-unknown-linux-gnu": "linux:mips",
    "sparc64-unknown-linux-gnu": "linux:sparc64",
    "riscv32gc-unknown-linux-gnu": "linux:riscv32",
    "armv5te-unknown-linux-gnueabi": "linux:armv5",
    "arm-unknown-linux-gnueabihf": "linux:armv6",
    "x86_64-unknown-netbsd": "netbsd:x86_64",
    "x86_64-unknown-dragonfly": "dragonfly:x86_64",
    "x86_64-pc-solaris": "solaris:x86_64",
    "x86_64-unknown-illumos": "solaris:x86_64",
    "x86_64-unknown-haiku": "haiku:x86_64",
    "thumbv7em-none-eabihf": "none:arm",
    "thumbv6m-none-eabi": "none:armv6",
    "riscv32imac-unknown-none-elf": "none:riscv32",
    "aarch64-unknown-none": "none:aarch64",
    "x86_64-unknown-none": "none:x86_64",
}
# Which change from release to release and from one packager to the next.
VERSIONS = ("__VERSION__", "__clang_version__", "__ARM_ARCH")


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("triple", TARGETS)
def test_predefined_macros_are_the_compilers(triple: str, language: str) -> None:
    key = TARGETS[triple]
    if REFERENCES[key][1] == "clang":
        need("clang-22")
        theirs = clang(key, language)
    else:
        command = REFERENCES[key][2]
        need(command)
        found = gcc(key, language)
        if found is None:
            pytest.skip(f"{command} does not compile {language}")
        theirs = found
    ours = predefined(Target.parse(triple), cxx=language == "c++")
    assert {n: v for n, v in ours.items() if n not in VERSIONS} == {
        n: v for n, v in theirs.items() if n not in VERSIONS
    }


@pytest.mark.parametrize("triple", NEAR)
def test_machine_and_system(triple: str) -> None:
    """The macros that tell machines and systems apart, and the data model."""
    need("clang-22")
    theirs = clang(NEAR[triple], "c")
    ours = predefined(Target.parse(triple), cxx=False)
    same = [n for n in theirs if n.startswith("__SIZEOF_") and n != "__SIZEOF_FLOAT128__"]
    same += ["__BYTE_ORDER__", "__CHAR_BIT__", "__LONG_MAX__", "__INT64_TYPE__", "__SIZE_TYPE__"]
    same += [n for n in ("__LP64__", "__ILP32__", "__ELF__", "__CHAR_UNSIGNED__") if n in theirs]
    for word in ("linux", "unix", "x86", "amd64", "arm", "aarch64", "powerpc", "PPC", "mips"):
        same += [n for n in theirs if n in {f"__{word}__", f"__{word}64__", f"__{word}_64__"}]
    same += [n for n in theirs if n.startswith(("__riscv_xlen", "__sparc", "__loong", "__sun"))]
    same += [n for n in theirs if n.startswith(("__NetBSD", "__Dragon", "__HAIKU", "__thumb__"))]
    for name in same:
        assert ours.get(name) == theirs[name], name
    assert "__clang__" not in ours and int(ours["__GNUC__"]) >= 12


@pytest.mark.parametrize("arch", ["x86_64", "i686", "aarch64"])
@pytest.mark.parametrize("cxx", [False, True])
def test_what_cl_predefines(arch: str, cxx: bool) -> None:
    """Nothing of clang's and GCC's; what clang says too in its place is the same."""
    need("clang-22")
    triple = f"{arch}-pc-windows-msvc"
    ours = predefined(Target.parse(triple), cxx=cxx)
    for name in ("__GNUC__", "__clang__", "__x86_64__", "__STDC__", "__SIZEOF_LONG__", "__LP64__"):
        assert name not in ours
    assert ("__cplusplus" in ours) == cxx
    argv = ["clang-22", "-target", triple, "-dM", "-E", "-x", "c++" if cxx else "c", "-"]
    done = subprocess.run(argv, input="", capture_output=True, text=True, check=True)
    theirs = {w[1]: " ".join(w[2:]) for w in map(str.split, done.stdout.splitlines())}
    for name in ("_WIN32", "_WIN64", "_M_X64", "_M_AMD64", "_M_IX86", "_M_ARM64", "_MSC_VER"):
        assert ours.get(name) == theirs.get(name), name
    assert ours["_INTEGRAL_MAX_BITS"] == theirs["_INTEGRAL_MAX_BITS"] == "64"


QUERIED = {
    "apple": (["clang-22", "-target", "arm64-apple-macosx11"], "aarch64-apple-darwin"),
    "android": (["clang-22", "-target", "aarch64-linux-android21"], "aarch64-linux-android"),
    "gcc": (["x86_64-linux-gnu-gcc"], "x86_64-unknown-linux-gnu"),
    "mingw": (["x86_64-w64-mingw32-gcc"], "x86_64-pc-windows-gnu"),
    "gccarm": (["aarch64-linux-gnu-gcc"], "aarch64-unknown-linux-gnu"),
}


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("compiler", QUERIED)
def test_operators_answer_as_the_compilers_do(compiler: str, language: str, tmp_path: Path) -> None:
    """Each name that any compiler knows, asked of this one: as a header that declares on 1."""
    argv, triple = QUERIED[compiler]
    need(argv[0])
    lines = []
    asked = sorted(
        {(op, name) for (op, _), names in _answers().items() for name in names}
        | {("__has_attribute", "no_such_thing"), ("__has_builtin", "__builtin_no_such_thing")}
    )
    for number, (operator, name) in enumerate(asked):
        value = f"#if {operator}({name})\nint v{number}[{operator}({name})];\n#endif"
        lines.append(f"#ifdef {operator}\n#undef {name}\n{value.splitlines()[0]}\nint v{number};")
        lines.append("#endif\n#endif")
    for number, name in enumerate(("noreturn", "__noreturn__", "gnu::pure", "clang::no_such")):
        if "::" not in name or language == "c++":
            lines.append("#ifdef __has_cpp_attribute")
            lines.append(f"#if __has_cpp_attribute({name})\nint cpp{number};\n#endif\n#endif")
    path = tmp_path / ("a.hpp" if language == "c++" else "a.h")
    text = "\n".join(lines)
    path.write_text(f'extern "C" {{\n{text}\n}}\n' if language == "c++" else text)
    command = [*argv, "-E", "-P", "-w", "-x", language, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = {
        line.split()[1].rstrip(";") for line in done.stdout.splitlines() if line[:4] == "int "
    }
    seen = read_header(path, target=Target.parse(triple))
    assert {s.name for s in seen.symbols} == theirs


# clang's targets; the objects of older systems say it with another load command
APPLE = [
    "x86_64-apple-macos10.9.5",
    "x86_64-apple-macos10.15.4",
    "arm64-apple-macos13.1",
    "arm64-apple-ios9.3",
    "arm64-apple-ios17.2-simulator",
    "arm64-apple-ios15.2-macabi",
    "arm64-apple-tvos16.1",
    "arm64_32-apple-watchos7.4",
    "arm64-apple-xros1.2",
]


def for_apple(folder: Path, triple: str, *names: str) -> Path:
    """A library with an object for each of the targets, of which the last defines `names`."""
    objects = []
    for at, one in enumerate((triple, triple.replace("13.1", "12.0"))[::-1]):
        source, made = folder / f"{at}.c", folder / f"{at}.o"
        source.write_text(" ".join(f"int {name}(void) {{ return 1; }}" for name in names if at))
        argv = [str(need("clang-22", "clang")), "-target", one, "-c", str(source), "-o", str(made)]
        subprocess.run(argv, check=True)
        objects.append(NewMember(made.name, made.stat().st_size, [made.read_bytes()]))
    path = folder / "liba.a"
    with path.open("wb") as file:
        write_archive(file, "darwin", objects)
    return path


@pytest.mark.parametrize("triple", APPLE)
def test_the_oldest_system_is_that_of_the_objects(triple: str, tmp_path: Path) -> None:
    argv = [str(need("clang-22", "clang")), "-target", triple, "-dM", "-E", "-x", "c", "/dev/null"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    wanted = dict(line.split(" ", 2)[1:] for line in said if "_VERSION_MIN_REQUIRED__" in line)
    with open_archive(Slice(for_apple(tmp_path, triple, "one"))) as archive:
        macros = predefined(with_lowest(archive, deduce_target(archive)), cxx=False)
    assert {n: v for n, v in macros.items() if "_VERSION_MIN_REQUIRED__" in n} == wanted


def test_headers_are_read_for_the_oldest_system(tmp_path: Path) -> None:
    header = tmp_path / "demo.h"
    header.write_text(
        "#include <Availability.h>\n#if __ENVIRONMENT_OS_VERSION_MIN_REQUIRED__ >= 130000\n"
        "int one(void);\n#endif\n#if __MAC_OS_X_VERSION_MIN_REQUIRED >= 130100\nint two(void);\n"
        "#endif\n#if __MAC_OS_X_VERSION_MIN_REQUIRED >= 140000\nint three(void);\n#endif\n"
        "#ifdef __apple_build_version__\n#endif\n"
    )
    library = for_apple(tmp_path, "arm64-apple-macos13.1", "one", "two", "three")
    with open_archive(Slice(library)) as archive:
        request = ExportRequest(Target.parse("aarch64-apple-darwin"), headers=(header,))
        seen = decide_exports(archive, request)
    assert [e.name for e in seen.exports] == ["_one", "_two"]
    assert not seen.warnings
