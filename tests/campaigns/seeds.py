"""Small valid inputs of every kind: what mutants are made from.

Libraries for many machines with debug information, exceptions, thread-local variables, COMDATs,
constructors, merged strings and coverage, in every kind of archive; shared libraries; headers,
lists of exports and property lists.
"""

from __future__ import annotations

import plistlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.tools import need

C = """
struct Pair { int first; const char *name; struct Pair *next; };
enum Color { red, green };
typedef int (*callback)(struct Pair *);
extern int outside(int);
extern _Thread_local int elsewhere;
_Thread_local int api_tls = 3;
static _Thread_local int counter;
static int zeros[5];
int api_common;
int api_data[2] = {1, 2};
static const char *const words[] = {"zero", "one", "a longer word", "one"};
const char *api_name(int n) { counter++; return words[n & 3]; }
static __attribute__((noinline)) int inner(struct Pair *p) { return p->first + zeros[p->first]; }
static const callback table[] = {inner, 0};
__attribute__((constructor)) static void begin(void) { zeros[1] = counter; }
__attribute__((weak)) int api_weak(int n) { return n + 1; }
extern int maybe(int) __attribute__((weak));
int api_call(struct Pair *p, enum Color c) {
  switch (c + p->first) {
  case 0: return outside(1) + api_weak(2);
  case 1: return table[0](p->next);
  case 2: return elsewhere;
  case 3: return outside(7) * 5;
  case 4: return zeros[3] - outside(2);
  default: return (long)maybe ? api_common : api_data[1];
  }
}
int unused(int n) { return outside(n) * 3; }
"""
CXX = """
struct Base { virtual int value(); virtual ~Base() {} int kept = 1; };
template <class T> inline T twice(T a) { static T last; last = a; return a + last; }
inline int shared = 5;
struct Guard { Guard(); ~Guard(); };
extern "C" int outside(int);
int Base::value() { return twice(kept) + shared; }
struct Other : Base { int value() override { return 9; } };
extern "C" int api_cxx(int n) {
  Guard guard;
  try {
    Guard again;
    if (outside(n)) throw n;
    return twice(2.5) > 3;
  } catch (int caught) {
    return caught + Other().value();
  }
}
extern "C" int api_size() { return sizeof(Base); }
void operator delete(void *, decltype(sizeof 0)) noexcept {}
"""
ASSEMBLY_SET = """
    .section my_set,"aw"
    .global api_set
api_set:
    .long 1
"""


@dataclass(frozen=True, slots=True)
class Seed:
    """One valid input.

    `kind`: "library", "cdylib", "header", "list", "toml", "plist" or "regex". `files` are written
    by their names; the mutant is of the first one. `exports` are options that say what is public.
    """

    name: str
    kind: str
    files: tuple[tuple[str, bytes], ...]
    exports: tuple[str, ...] = ()

    @property
    def data(self) -> bytes:
        return self.files[0][1]


@dataclass(frozen=True, slots=True)
class Build:
    """How objects of one target are made: `flags` of clang, the archive's format for llvm-ar."""

    name: str
    target: str
    flags: tuple[str, ...] = ()
    form: str = "gnu"
    cxx: bool = True
    sources: str = "c"
    options: str = "rcsD"
    files: int = 2


SPLIT = ("-ffunction-sections", "-fdata-sections")
GNU = ("x86_64", "aarch64", "i686", "riscv64", "powerpc64le", "s390x", "loongarch64")
BUILDS = (
    Build("elf-x86_64", "x86_64-linux-gnu", ("-gdwarf-5", *SPLIT, "-fPIC", "-faddrsig")),
    Build(
        "elf-x86_64-dwarf4", "x86_64-linux-gnu", ("-gdwarf-4", "-fcommon", "-fdebug-types-section")
    ),
    Build("elf-x86_64-zlib", "x86_64-linux-gnu", ("-gdwarf-5", *SPLIT, "-gz=zlib"), options="rcSD"),
    Build("elf-x86_64-zstd", "x86_64-linux-gnu", ("-gdwarf-4", *SPLIT, "-gz=zstd"), "bsd"),
    Build("elf-x86_64-bare", "x86_64-linux-gnu", ("-fno-asynchronous-unwind-tables",), cxx=False),
    Build("elf-x86_64-thin", "x86_64-linux-gnu", ("-g1", *SPLIT), options="rcsDT"),
    Build(
        "elf-x86_64-coverage",
        "x86_64-linux-gnu",
        ("-g", *SPLIT, "-fprofile-instr-generate", "-fcoverage-mapping"),
    ),
    Build("elf-x86_64-sanitized", "x86_64-linux-gnu", ("-fsanitize=address", *SPLIT), cxx=False),
    Build("elf-aarch64", "aarch64-linux-gnu", ("-gdwarf-5", *SPLIT)),
    Build("elf-i686", "i686-linux-gnu", ("-gdwarf-5", *SPLIT, "-fPIC", "-gz=zlib")),
    Build("elf-armv7", "armv7-linux-gnueabihf", ("-gdwarf-4", *SPLIT)),
    Build("elf-armv7-thumb", "thumbv7-linux-gnueabihf", ("-gdwarf-5", "-fcommon"), cxx=False),
    Build(
        "elf-riscv64", "riscv64-linux-gnu", ("-gdwarf-5", *SPLIT, "-march=rv64gc", "-mabi=lp64d")
    ),
    Build("elf-ppc64le", "powerpc64le-linux-gnu", ("-gdwarf-5", *SPLIT)),
    Build("elf-s390x", "s390x-linux-gnu", ("-gdwarf-4", *SPLIT, "-gz=zstd")),
    Build("elf-s390x-whole", "s390x-linux-gnu", ("-gdwarf-5", "-fPIC")),
    Build("elf-loongarch64", "loongarch64-linux-gnu", ("-gdwarf-5", *SPLIT)),
    Build("macho-arm64", "arm64-apple-macos13", ("-gdwarf-4",), "darwin"),
    Build("macho-arm64-dwarf5", "arm64-apple-ios15", ("-gdwarf-5", "-fcommon"), "darwin"),
    Build("macho-arm64-bsd", "arm64-apple-macos13", (), "bsd", cxx=False),
    Build("macho-arm64-noindex", "arm64-apple-macos13", ("-g1",), "darwin", options="rcSD"),
    Build(
        "macho-arm64-coverage",
        "arm64-apple-macos13",
        ("-g", "-fprofile-instr-generate", "-fcoverage-mapping"),
        "darwin",
    ),
    Build("macho-x86_64", "x86_64-apple-macos13", ("-gdwarf-4", "-fcommon"), "darwin"),
    Build("macho-x86_64-old", "x86_64-apple-macosx10.12", ("-gdwarf-2",), "darwin"),
    Build("coff-x86_64-msvc", "x86_64-pc-windows-msvc", ("-gcodeview", "-g", *SPLIT), "coff"),
    Build(
        "coff-x86_64-guard",
        "x86_64-pc-windows-msvc",
        ("-gcodeview", "-g", *SPLIT, "-Xclang", "-cfguard", "-faddrsig"),
        "coff",
    ),
    Build("coff-x86_64-dwarf", "x86_64-pc-windows-msvc", ("-gdwarf", "-g", *SPLIT), "gnu"),
    Build("coff-i686-msvc", "i686-pc-windows-msvc", ("-gcodeview", "-g", *SPLIT), "coff"),
    Build("coff-aarch64-msvc", "aarch64-pc-windows-msvc", ("-gcodeview", "-g", *SPLIT), "coff"),
    Build("coff-x86_64-mingw", "x86_64-w64-windows-gnu", ("-gdwarf-5", *SPLIT)),
    Build("coff-i686-mingw", "i686-w64-windows-gnu", ("-gdwarf-4", "-fcommon"), cxx=False),
    Build(
        "coff-x86_64-noindex",
        "x86_64-pc-windows-msvc",
        ("-gcodeview", "-g"),
        "coff",
        options="rcSD",
    ),
)
# compilers of other people make other objects
GCCS = (
    ("elf-gcc-x86_64", "gcc", ("-gdwarf-5", *SPLIT, "-fexceptions")),
    ("elf-gcc-s390x", "s390x-linux-gnu-gcc", ("-gdwarf-5", "-fexceptions")),
    ("elf-gcc-arm", "arm-linux-gnueabihf-gcc", ("-gdwarf-4", *SPLIT, "-fexceptions")),
    ("elf-gcc-gz", "gcc", ("-gdwarf-4", *SPLIT, "-Wa,--compress-debug-sections=zlib-gnu")),
    ("coff-gcc-x86_64", "x86_64-w64-mingw32-gcc", ("-gdwarf-5", *SPLIT)),
)
NAMES = ("api_call", "api_name", "api_data", "api_weak")


def _run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)


def objects(folder: Path, build: Build, more: Sequence[tuple[str, str]] = ()) -> list[Path]:
    """Compile the sources of a build, and `more`: names with their texts."""
    clang = need("clang-22", "clang")
    out = []
    sources = [("c.c", C), ("x.cpp", CXX)] if build.cxx else [("c.c", C)]
    for name, text in (*sources, *more):
        language = "c++" if name.endswith(".cpp") else "c"
        file = folder / name
        file.write_text(text)
        made = file.with_suffix(".o")
        cxx = ("-std=c++17", "-fexceptions", "-fcxx-exceptions") if language == "c++" else ()
        common = ("-ffreestanding", "-O1", "-w", "-c", "-o", made, "-x", language)
        # the paths in debug information do not depend on the folder
        same = ("-fdebug-compilation-dir=/b", f"-ffile-prefix-map={folder}=/b")
        _run(clang, f"--target={build.target}", *same, *build.flags, *common, *cxx, file)
        out.append(made)
    return out


def archive(folder: Path, build: Build, more: Sequence[tuple[str, str]] = ()) -> Path:
    """The library of a build, and of `more` sources."""
    library = folder / "lib.a"
    made = objects(folder, build, more)
    if build.target.endswith("windows-msvc"):
        definition = folder / "i.def"
        definition.write_text("LIBRARY other.dll\nEXPORTS\n outside\n imported DATA\n")
        machine = {"x86_64": "x64", "i686": "x86", "aarch64": "arm64"}[build.target.split("-")[0]]
        stub = folder / "imports.lib"
        _run(
            need("llvm-lib-22", "llvm-lib"),
            f"/def:{definition}",
            f"/machine:{machine}",
            f"/out:{stub}",
        )
        if build.form == "coff" and "s" in build.options:
            _run(need("llvm-lib-22", "llvm-lib"), f"/out:{library}", *made, stub)
            return library
    words = (need("llvm-ar-22", "llvm-ar"), f"--format={build.form}", build.options)
    _run(*words, library, *made)
    return library


def _libraries(folder: Path) -> Iterator[Seed]:
    for build in BUILDS:
        place = folder / build.name
        place.mkdir()
        library = archive(place, build)
        files = [("lib.a", library.read_bytes())]
        if "T" in build.options:
            files += [(o.name, o.read_bytes()) for o in sorted(place.glob("*.o"))]
        prefix = "" if not build.cxx else "api_cxx"
        yield Seed(build.name, "library", tuple(files), _public(NAMES, prefix))
        if "T" in build.options:  # a mutant of the member's file
            files = [files[1], files[0], *files[2:]]
            public = _public(NAMES, prefix)
            yield Seed(f"{build.name}-member", "library", tuple(files), public)
    for name, compiler, flags in GCCS:
        place = folder / name
        place.mkdir()
        source = place / "c.c"
        source.write_text(C)
        made = place / "c.o"
        same = (f"-ffile-prefix-map={place}=/b", "-ffreestanding", "-O1", "-w", "-c")
        _run(need(compiler), *same, *flags, "-o", made, source)
        library = place / "lib.a"
        _run(need("ar"), "rcsD", library, made)
        names = NAMES[:3] if name.startswith("coff") else NAMES  # no weak ones
        yield Seed(name, "library", (("lib.a", library.read_bytes()),), _public(names, ""))


def _public(names: Sequence[str], more: str) -> tuple[str, ...]:
    return tuple(w for n in (*names, more) if n for w in ("--export", n))


def _universal(folder: Path) -> Iterator[Seed]:
    thin = [folder / name / "lib.a" for name in ("macho-arm64", "macho-x86_64")]
    for name, flags in (("universal", ()), ("universal-64", ("-fat64",))):
        out = folder / f"{name}.a"
        _run(need("llvm-lipo-22", "llvm-lipo"), "-create", *flags, *thin, "-output", out)
        yield Seed(name, "library", (("lib.a", out.read_bytes()),), _public(NAMES, "api_cxx"))


SHARED = """
int api_data[2] = {1, 2};
int api_call(void *p, int c) { return api_data[c]; }
const char *api_name(int n) { return "name" + n; }
__attribute__((weak)) int api_weak(int n) { return n; }
"""


def _shared(folder: Path) -> Iterator[Seed]:
    """Shared libraries, beside the static one that they tell the exports of."""
    lld = need("ld.lld-22", "ld.lld")
    own = Path("/usr/lib/llvm-22/bin/ld64.lld")
    apple = own if own.exists() else need("ld64.lld", "ld64.lld-22")
    version = ("-arch", "arm64", "-platform_version", "macos", "13.0", "13.0", "-dylib")
    names = tuple(f"/export:{n}" for n in NAMES)
    windows = (need("lld-link-22", "lld-link"), "/dll", "/noentry", "/nodefaultlib", *names, "")
    for name, of, file, words in (
        ("elf-sysv", "elf-x86_64", "lib.so", (lld, "-shared", "--hash-style=sysv", "-o")),
        ("elf-gnu", "elf-x86_64", "lib.so", (lld, "-shared", "--hash-style=gnu", "-o")),
        ("elf-i686", "elf-i686", "lib.so", (lld, "-shared", "-o")),
        ("pe", "coff-x86_64-msvc", "lib.dll", windows),
        ("macho", "macho-arm64", "lib.dylib", (apple, *version, "-o")),
        ("macho-chained", "macho-arm64", "lib.dylib", (apple, *version, "-fixup_chains", "-o")),
    ):
        place = folder / f"cdylib-{name}"
        place.mkdir()
        source, made, out = place / "s.c", place / "s.o", place / file
        source.write_text(SHARED)
        target = next(b.target for b in BUILDS if b.name == of)
        shared = () if name == "pe" else ("-fPIC",)
        plain = ("-ffreestanding", *shared, "-c", "-o", made, source)
        _run(need("clang-22", "clang"), f"--target={target}", *plain)
        _run(*words[:-1], *((f"/out:{out}",) if name == "pe" else ("-o", out)), made)
        library = (folder / of / "lib.a").read_bytes()
        yield _cdylib(f"cdylib-{name}", file, out.read_bytes(), library)


def _cdylib(name: str, file: str, data: bytes, library: bytes) -> Seed:
    return Seed(name, "cdylib", ((file, data), ("lib.a", library)), ("--cdylib", file))


C_HEADER = b"""/* A header */
#ifndef API_H
#define API_H
#pragma once
#include <stdint.h>
#include "more.h"
#if defined(_WIN32) && !defined(API_STATIC)
# define API __declspec(dllimport)
#elif __GNUC__ >= 4 || __has_attribute(visibility)
# define API __attribute__((visibility("default")))
#else
# define API
#endif
#define CONCAT(a, b) a##b
#define NAMED(x, ...) CONCAT(api_, x)(__VA_ARGS__)
#define STRING(x) #x
#ifdef __cplusplus
extern "C" {
#endif
typedef struct Pair { int first; const char *name; struct Pair *next; } Pair;
typedef enum Color { RED = 1, GREEN = (1 << 3) | 2, BLUE } Color;
typedef int (*callback)(Pair *, void *data);
struct Bits { unsigned a : 3; unsigned : 0; union { int i; float f; }; int many[2][3]; };
API int api_call(struct Pair *p, enum Color c);
API const char *NAMED(name, int n);
extern API int api_data[2];
extern API _Thread_local int api_tls;
API int (*api_get(int which))(int) __attribute__((nonnull(1), warn_unused_result));
static inline int helper(int a) { return a ? helper(a - 1) : sizeof(struct Bits); }
_Static_assert(sizeof(int) == 4, STRING(a "quoted" \\ word));
#if 0
int api_never(void);
#endif
int api_weak(int n), api_more(void) __asm__("api_" "cxx");
#define LIST(X) X(one) X(two) X(three)
#define DECLARE(n) int api_##n(void);
LIST(DECLARE)
#undef LIST
#line 100 "other.h"
_Noreturn void api_end(uint32_t a, ...);
#ifdef __cplusplus
}
#endif
#endif
"""
MORE_HEADER = b"#define MORE 1\nint api_more(void);\ntypedef unsigned long size;\n"
CXX_HEADER = b"""#pragma once
#include <cstdint>
namespace outer { inline namespace v1 {
enum class Color : std::uint8_t { red, green = 0x2'0 };
template <typename T, int N = (3 > 2)> struct Box {
  T value[N]; T get() const { return value[0]; } };
class Base { public:
  virtual ~Base() = default; virtual int value() = 0; int operator()(int) const; };
using callback = int (*)(Base &, const char *) noexcept;
extern "C" { int api_cxx(int n) noexcept; extern int api_data[2]; }
extern "C" int api_size();
extern "C" const char *api_name(int n);
auto later(int a) -> decltype(a + 1);
constexpr const char *raw = R"x(a "raw" )string)x";
[[nodiscard]] inline int twice(int a) { return a * 2; }
} }
#define DECLARE(n) extern "C" int api_##n(void)
DECLARE(weak);
extern "C" struct Opaque *api_open(struct Opaque **, int (*)(int), ...);
"""
LIST = b"# what is public\napi_call\napi_name\n\napi_*\n/api_(data|weak)/\n"
DEFINITION = b"""; comment
LIBRARY "other.dll" BASE=0x10000
DESCRIPTION 'a library'
EXPORTS
  api_call @1 NONAME
  renamed=api_name @2 PRIVATE
  api_data DATA
  api_weak
  api_cxx @7 NONAME DATA
"""
SCRIPT = b"""/* versions */
API_1.0 { global: api_call; api_name; extern "C++" { "outer::f(int)"; ns::*; }; local: *; };
API_2.0 { global: api_data; api_w*; } API_1.0;
"""
TOML = b"""export = ["api_call", "api_*", "/api_.+/"]
keep = "_ZTI*"
strip = "symbols"
engine = "native"
preset = ["gst"]
allow-missing = true
granularity = "section"
compress-debug = "zlib"
max-size = "20 MiB"
max-growth = "5%"
baseline = "base.json"
[targets.x86_64-unknown-linux-gnu]
strip = false
[targets.'cfg(all(unix, not(target_os = "macos"), any(feature = "a", windows)))']
export = "api_name"
"""


def _texts(folder: Path) -> Iterator[Seed]:
    library = ("lib.a", (folder / "elf-x86_64" / "lib.a").read_bytes())
    old = ("lib.a", (folder / "coff-i686-msvc" / "lib.a").read_bytes())
    more = ("more.h", MORE_HEADER)
    header = ("--allow-missing", "--header", "api.h")
    yield Seed("header-c", "header", (("api.h", C_HEADER), more, library), header)
    yield Seed("header-c-windows", "header", (("api.h", C_HEADER), more, old), header)
    yield Seed("header-cxx", "header", (("api.hpp", CXX_HEADER), library), (*header[:2], "api.hpp"))
    yield Seed("list", "list", (("l.txt", LIST), library), ("--exports-file", "l.txt"))
    yield Seed("def", "list", (("l.def", DEFINITION), old), ("--exports-file", "l.def"))
    yield Seed("script", "list", (("l.map", SCRIPT), library), ("--exports-file", "l.map"))
    yield Seed("toml", "toml", (("settings.toml", TOML),))
    darwin = (folder / "macho-arm64" / "lib.a").read_bytes()
    content = {
        "AvailableLibraries": [
            {
                "BinaryPath": "libt.a",
                "HeadersPath": "Headers",
                "LibraryIdentifier": "macos-arm64",
                "LibraryPath": "libt.a",
                "SupportedArchitectures": ["arm64"],
                "SupportedPlatform": "macos",
            }
        ],
        "CFBundlePackageType": "XFWK",
        "XCFrameworkFormatVersion": "1.0",
    }
    for form in (plistlib.FMT_XML, plistlib.FMT_BINARY):
        name = "plist-binary" if form == plistlib.FMT_BINARY else "plist-xml"
        info = ("t.xcframework/Info.plist", plistlib.dumps(content, fmt=form))
        inner = ("t.xcframework/macos-arm64/libt.a", darwin)
        inside = ("t.xcframework/macos-arm64/Headers/t.h", b"int api_call(void *, int);\n")
        yield Seed(name, "plist", (info, inner, inside))


MAKERS: tuple[Callable[[Path], Iterator[Seed]], ...] = (_libraries, _universal, _shared, _texts)


def make(folder: Path) -> tuple[Seed, ...]:
    """All seeds, always in the same order. Skips the test where a compiler is missing."""
    return tuple(seed for maker in MAKERS for seed in maker(folder))
