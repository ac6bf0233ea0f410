"""What a C compiler for a target predefines, as far as headers ask for it.

The tables follow what clang prints with ``-dM -E`` for the same target (a test compares them),
except that `__clang__` is left out where GCC is the usual compiler.
"""

from __future__ import annotations

from cargo_strip_hook.exports.words import words
from cargo_strip_hook.target import Target

# Macro-like operators of ``#if``; ``#ifdef`` finds them defined.
QUERIES = frozenset(
    {
        "__has_include",
        "__has_include_next",
        "__has_attribute",
        "__has_builtin",
        "__has_c_attribute",
        "__has_constexpr_builtin",
        "__has_cpp_attribute",
        "__has_declspec_attribute",
        "__has_embed",
        "__has_extension",
        "__has_feature",
        "__has_warning",
        "__is_identifier",
    }
)

# Never read even where they are found: their types are injected.
SYSTEM_HEADERS = words(
    """assert.h complex.h ctype.h errno.h fenv.h float.h inttypes.h iso646.h limits.h locale.h
    math.h setjmp.h signal.h stdalign.h stdarg.h stdatomic.h stdbit.h stdbool.h stdckdint.h
    stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h string.h strings.h tgmath.h threads.h time.h
    uchar.h wchar.h wctype.h unistd.h pthread.h fcntl.h poll.h dlfcn.h endian.h features.h
    malloc.h memory.h alloca.h byteswap.h elf.h netdb.h sched.h semaphore.h termios.h
    sys/cdefs.h sys/types.h sys/time.h sys/stat.h sys/socket.h sys/uio.h sys/ioctl.h sys/mman.h
    sys/select.h sys/param.h sys/wait.h sys/un.h netinet/in.h arpa/inet.h
    TargetConditionals.h Availability.h AvailabilityMacros.h os/availability.h
    CoreFoundation/CoreFoundation.h mach/mach.h objc/objc.h
    windows.h Windows.h winsock2.h ws2tcpip.h windef.h winnt.h BaseTsd.h basetsd.h io.h
    algorithm array atomic cassert cctype cerrno cfloat chrono cinttypes climits cmath concepts
    csetjmp csignal cstdarg cstdbool cstddef cstdint cstdio cstdlib cstring ctime cuchar cwchar
    exception functional initializer_list iosfwd iostream iterator limits list map memory mutex
    new numeric optional ostream set span sstream stdexcept string string_view tuple type_traits
    typeindex typeinfo unordered_map unordered_set utility variant vector version"""
)

_X86_64 = "__x86_64__ __x86_64 __amd64__ __amd64 __SSE__ __SSE2__"
_MIPS = "__mips__ mips _mips"
_ARCHITECTURES: dict[str, str] = {
    "x86_64": _X86_64,
    "x86": "__i386__ __i386 i386",
    "aarch64": "__aarch64__ __ARM_NEON __ARM_ARCH=8",
    "arm": "__arm__ __arm",
    "riscv32": "__riscv __riscv_xlen=32",
    "riscv64": "__riscv __riscv_xlen=64",
    "powerpc": "__powerpc__ __POWERPC__ __ppc__ __PPC__ _ARCH_PPC",
    "powerpc64": "__powerpc64__ __powerpc__ __POWERPC__ __ppc__ __PPC__ __PPC64__ _ARCH_PPC "
    "_ARCH_PPC64",
    "s390x": "__s390__ __s390x__ __zarch__",
    "loongarch64": "__loongarch__ __loongarch64 __loongarch_grlen=64 __loongarch_lp64",
    "mips": f"{_MIPS} __mips=32",
    "mips64": f"{_MIPS} __mips=64 __mips64 __mips64__",
    "sparc64": "__sparc__ __sparc sparc __sparc64__ __sparcv9 __sparc_v9__",
    "wasm32": "__wasm__ __wasm __wasm32__ __wasm32",
}
_MSVC_ARCHITECTURES = {
    "x86_64": "_M_X64=100 _M_AMD64=100",
    "x86": "_M_IX86=600",
    "aarch64": "_M_ARM64=1",
    "arm": "_M_ARM=7",
}
_UNIX = "__unix__ __unix unix"
_LINUX = f"__linux__ __linux linux {_UNIX} __ELF__"
_SYSTEMS = {
    "linux": _LINUX,
    "freebsd": f"__FreeBSD__=13 {_UNIX} __ELF__",
    "netbsd": "__NetBSD__ __unix__ __ELF__",
    "openbsd": f"__OpenBSD__ {_UNIX} __ELF__",
    "dragonfly": f"__DragonFly__ {_UNIX} __ELF__",
    "solaris": f"__sun__ __sun sun __svr4__ __SVR4 {_UNIX} __ELF__",
    "illumos": f"__sun__ __sun sun __svr4__ __SVR4 {_UNIX} __ELF__",
    "haiku": f"__HAIKU__ {_UNIX} __ELF__",
    "fuchsia": "__Fuchsia__ __ELF__",
    "emscripten": "__EMSCRIPTEN__ __unix__ __unix unix",
}
_DARWIN = "__APPLE__ __MACH__ __APPLE_CC__=6000 __clang__"
# TargetConditionals.h; clang predefines them for Darwin.
_TARGET_OS = {
    "darwin": "OSX",
    "macos": "OSX",
    "ios": "IOS",
    "tvos": "TV",
    "watchos": "WATCH",
    "visionos": "VISION",
}
_TARGET_OS_NAMES = words(
    "OSX IOS TV WATCH VISION IPHONE SIMULATOR MACCATALYST EMBEDDED DRIVERKIT WIN32 LINUX UNIX"
)

_BIG_ENDIAN = ("powerpc-", "powerpc64-", "s390x-", "sparc", "aarch64_be-", "armeb", "m68k")
_BIG_ENDIAN_MIPS = ("mips-", "mips64-", "mipsisa32r6-", "mipsisa64r6-")
_UNSIGNED_CHAR = frozenset(
    {"arm", "aarch64", "powerpc", "powerpc64", "riscv32", "riscv64", "s390x"}
)
_SIXTY_FOUR = ("64", "s390x", "sparcv9")


def architecture(target: Target) -> str:
    """The family a compiler tells apart by its macros: ``armv7s`` is ``arm``, ``i686`` ``x86``."""
    arch = target.arch
    if arch in {"i386", "i486", "i586", "i686"}:
        return "x86"
    if arch in {"sparc64", "sparcv9"}:
        return "sparc64"
    prefixes = ("x86_64", "aarch64", "riscv32", "riscv64", "powerpc64", "powerpc", "loongarch64")
    for prefix in (*prefixes, "mips64", "mipsisa64", "mips", "wasm32"):
        if arch.startswith(prefix):
            return prefix.replace("mipsisa64", "mips64")
    if arch.startswith("arm64"):  # arm64e, arm64_32, arm64ec
        return "aarch64"
    return "arm" if arch.startswith(("arm", "thumb")) else arch


def pointer_width(target: Target) -> int:
    """Bits of a pointer."""
    if target.arch == "arm64_32" or target.environment in {"gnux32", "gnu_ilp32"}:
        return 32
    return 64 if any(part in target.arch for part in _SIXTY_FOUR) else 32


def predefined(target: Target, *, cxx: bool) -> dict[str, str]:
    """Name and value of the macros that are there before the first line of a header."""
    family = architecture(target)
    out: dict[str, str] = {"__STDC__": "1", "__STDC_HOSTED__": "1"}
    if target.is_msvc:
        del out["__STDC__"]  # cl.exe and clang define it only with /Za
    if cxx:
        out["__cplusplus"] = "201402L" if target.is_msvc else "201703L"
        if not target.is_msvc:
            out["__GNUG__"] = "4"
        if target.system in {"linux", "android", "fuchsia", "emscripten"}:
            out["_GNU_SOURCE"] = "1"  # libstdc++ and libc++ need it
    else:
        out["__STDC_VERSION__"] = "201710L"
    listed = _ARCHITECTURES.get(family, "") + " " + _system(target, family)
    for word in listed.split():
        name, equals, value = word.partition("=")
        out[name] = value if equals else "1"
    if target.is_msvc and cxx:
        out.pop("i386", None)
    if not target.is_msvc:
        out |= {"__GNUC__": "4", "__GNUC_MINOR__": "2", "__GNUC_PATCHLEVEL__": "1"}
    out["__USER_LABEL_PREFIX__"] = target.symbol_prefix
    out |= _data_model(target, family)
    if target.object_format == "macho":
        out |= _target_conditionals(target)
    return out


def _system(target: Target, family: str) -> str:
    if target.object_format == "macho":
        listed = _DARWIN + (" __arm64__ __arm64" if family == "aarch64" else "")
    elif target.system == "windows":
        wide = pointer_width(target) == 64
        listed = "_WIN32" + (" _WIN64" if wide else "")
        if target.is_msvc:
            listed += f" _MSC_VER=1933 _MSC_EXTENSIONS {_MSVC_ARCHITECTURES.get(family, '')}"
        else:
            listed += " WIN32 __WIN32 __WIN32__ WINNT __WINNT __WINNT__ __MINGW32__ __MSVCRT__"
            listed += " WIN64 __WIN64 __WIN64__ __MINGW64__" if wide else " _X86_"
    else:
        listed = _SYSTEMS.get(target.system, "__ELF__" if target.object_format == "elf" else "")
        if target.environment.startswith("android") or target.system == "android":
            listed = f"{_LINUX} __ANDROID__ __clang__"
        elif target.system == "linux":
            listed += " __gnu_linux__"
    if family == "arm":
        version = target.arch.lstrip("armthub")[1:2] or "4"
        listed += f" __ARM_ARCH={version}"
        if target.object_format == "elf":
            listed += " __ARM_EABI__"
    if family == "powerpc64" and target.object_format == "elf":
        big = target.triple.startswith(_BIG_ENDIAN) and not target.environment.startswith("musl")
        listed += f" _CALL_ELF={1 if big else 2}"
    return listed


def _data_model(target: Target, family: str) -> dict[str, str]:
    """Sizes, limits and byte order."""
    pointer = pointer_width(target)
    windows = target.system == "windows"
    long = 32 if windows else pointer
    big = target.triple.startswith((*_BIG_ENDIAN, *_BIG_ENDIAN_MIPS))
    out = {
        "__ORDER_LITTLE_ENDIAN__": "1234",
        "__ORDER_BIG_ENDIAN__": "4321",
        "__ORDER_PDP_ENDIAN__": "3412",
        "__BYTE_ORDER__": "__ORDER_BIG_ENDIAN__" if big else "__ORDER_LITTLE_ENDIAN__",
        "__CHAR_BIT__": "8",
        "__SHRT_MAX__": "32767",
        "__INT_MAX__": "2147483647",
        "__LONG_MAX__": f"{(1 << (long - 1)) - 1}L",
        "__LONG_LONG_MAX__": "9223372036854775807LL",
        "__SIZEOF_SHORT__": "2",
        "__SIZEOF_INT__": "4",
        "__SIZEOF_FLOAT__": "4",
        "__SIZEOF_DOUBLE__": "8",
        "__SIZEOF_LONG__": str(long // 8),
        "__SIZEOF_LONG_LONG__": "8",
        "__SIZEOF_WCHAR_T__": "2" if windows else "4",
        "__POINTER_WIDTH__": str(pointer),
    }
    for name in ("POINTER", "SIZE_T", "PTRDIFF_T"):
        out[f"__SIZEOF_{name}__"] = str(pointer // 8)
    out["__BIG_ENDIAN__" if big else "__LITTLE_ENDIAN__"] = "1"
    if pointer == 64 or family in {"x86_64", "aarch64", "wasm32"}:
        out["__SIZEOF_INT128__"] = "16"
    if pointer == 32:
        out |= {"__ILP32__": "1", "_ILP32": "1"}
    elif not windows:
        out |= {"__LP64__": "1", "_LP64": "1"}
    if family in _UNSIGNED_CHAR and target.object_format == "elf":
        out["__CHAR_UNSIGNED__"] = "1"
    return out


def _target_conditionals(target: Target) -> dict[str, str]:
    out = {f"TARGET_OS_{name}": "0" for name in _TARGET_OS_NAMES}
    out |= {"TARGET_OS_MAC": "1", "TARGET_IPHONE_SIMULATOR": "0"}
    system = _TARGET_OS.get(target.system, "OSX")
    out[f"TARGET_OS_{system}"] = "1"
    catalyst = target.environment == "macabi"
    # x86_64-apple-ios and its like are simulators without saying so
    simulator = target.environment == "sim" or (
        system != "OSX" and not catalyst and architecture(target) in {"x86_64", "x86"}
    )
    if system != "OSX":
        out["TARGET_OS_IPHONE"] = "1"
        out["TARGET_OS_MACCATALYST"] = str(int(catalyst))
        out["TARGET_OS_EMBEDDED"] = str(int(not simulator and not catalyst))
    if simulator:
        out |= {"TARGET_OS_SIMULATOR": "1", "TARGET_IPHONE_SIMULATOR": "1"}
    return out


def system_header_macros(target: Target) -> dict[str, str]:
    """Macros of system headers that other headers compare with or write around declarations.

    They are there once a header includes anything that is not read.
    """
    pointer = pointer_width(target)
    long = 32 if target.system == "windows" else pointer
    out = {"NULL": "((void*)0)", "CHAR_BIT": "8", "true": "1", "false": "0", "EOF": "(-1)"}
    for bits in (8, 16, 32, 64):
        top = (1 << (bits - 1)) - 1
        out |= {f"INT{bits}_MAX": str(top), f"INT{bits}_MIN": f"(-{top}-1)"}
        out[f"UINT{bits}_MAX"] = f"{2 * top + 1}{'' if bits < 32 else 'u'}"
    limits = {"SCHAR": 8, "SHRT": 16, "INT": 32, "LONG": long, "LLONG": 64}
    limits |= {"INTPTR": pointer, "PTRDIFF": pointer, "INTMAX": 64, "SSIZE": pointer}
    for name, bits in limits.items():
        top = (1 << (bits - 1)) - 1
        out |= {f"{name}_MAX": str(top), f"{name}_MIN": f"(-{top}-1)"}
    small = {"UCHAR": 8, "USHRT": 16}  # these promote to int
    unsigned = {"UINT": 32, "ULONG": long, "ULLONG": 64}
    unsigned |= {"SIZE": pointer, "UINTPTR": pointer, "UINTMAX": 64}
    for name, bits in {**small, **unsigned}.items():
        out[f"{name}_MAX"] = f"{(1 << bits) - 1}{'' if name in small else 'u'}"
    for name in ("INT8", "INT16", "INT32", "INT64", "INTMAX"):
        out |= {f"{name}_C(c)": "c", f"U{name}_C(c)": "c##u"}
    for name in ("__BEGIN_DECLS", "__END_DECLS", "__THROW", "__NTHROW", "G_BEGIN_DECLS"):
        out[name] = ""
    out["G_END_DECLS"] = ""
    return out
