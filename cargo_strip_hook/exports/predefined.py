"""The macros that a target's usual compiler predefines, and its ``__has_…`` operators.

GCC for GNU/Linux, MinGW and bare metal, clang for Apple, Android, the BSDs and wasm: two tables
beside this module have their output with ``-dM -E`` (a test compares them). For MSVC it is what
Microsoft documents for cl.exe ("Predefined macros") without options. The versions are those of
the compilers that were run; Apple's oldest systems are rustc's where the target names none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.macros import architecture, data_model
from cargo_strip_hook.exports.words import words

# Macro-like operators of ``#if``; ``#ifdef`` finds them defined where the compiler has them.
QUERIES_GCC = words(
    """__has_include __has_include_next __has_attribute __has_builtin __has_c_attribute
    __has_cpp_attribute"""
)
QUERIES_CLANG = QUERIES_GCC | words(
    """__has_constexpr_builtin __has_declspec_attribute __has_embed __has_extension __has_feature
    __has_warning __is_identifier __building_module __is_target_arch __is_target_environment
    __is_target_os __is_target_vendor __is_target_variant_environment __is_target_variant_os"""
)
_CXX_ONLY = frozenset({"__has_constexpr_builtin", "__has_cpp_attribute"})  # in clang
_C_ONLY = frozenset({"__has_c_attribute"})

_CL = """__STDC_HOSTED__=1 _INTEGRAL_MAX_BITS=64 _MSC_BUILD=1 _MSC_EXTENSIONS=1 _MSC_VER=1933
    _MSC_FULL_VER=193331629 _MSVC_EXECUTION_CHARACTER_SET=1252 _MSVC_TRADITIONAL=1
    _MSVC_WARNING_LEVEL=1 _MT=1 _M_FP_PRECISE=1 _WIN32=1"""
_CL_CXX = """__cplusplus=199711L _MSVC_LANG=201402L _CPPRTTI=1 _CPPUNWIND=1 __BOOL_DEFINED=1
    _NATIVE_WCHAR_T_DEFINED=1 _WCHAR_T_DEFINED=1 _MSVC_CONSTEXPR_ATTRIBUTE=1
    __STDCPP_DEFAULT_NEW_ALIGNMENT__=16ull
    __STDCPP_THREADS__=1 __cpp_aggregate_nsdmi=201304L __cpp_alias_templates=200704L
    __cpp_attributes=200809L __cpp_binary_literals=201304L __cpp_constexpr=201304L
    __cpp_decltype=200707L __cpp_decltype_auto=201304L __cpp_delegating_constructors=200604L
    __cpp_digit_separators=201309L __cpp_exceptions=199711L __cpp_generic_lambdas=201304L
    __cpp_inheriting_constructors=200802L __cpp_init_captures=201304L
    __cpp_initializer_lists=200806L __cpp_lambdas=200907L __cpp_nsdmi=200809L
    __cpp_range_based_for=200907L __cpp_raw_strings=200710L __cpp_ref_qualifiers=200710L
    __cpp_return_type_deduction=201304L __cpp_rtti=199711L __cpp_rvalue_references=200610L
    __cpp_sized_deallocation=201309L __cpp_static_assert=200410L
    __cpp_threadsafe_static_init=200806L __cpp_unicode_characters=200704L
    __cpp_unicode_literals=200710L __cpp_user_defined_literals=200809L
    __cpp_variable_templates=201304L __cpp_variadic_templates=200704L"""
_CL_ARCHITECTURES = {
    "x86_64": "_M_X64=100 _M_AMD64=100 _WIN64=1",
    "x86": "_M_IX86=600 _M_IX86_FP=2",
    "aarch64": "_M_ARM64=1 _WIN64=1 _ISO_VOLATILE=1",
    "arm": "_M_ARM=7 _M_ARM_FP=31 _M_ARM_NT=1 _M_ARMT=7 _M_THUMB=7 _ISO_VOLATILE=1",
}

_LOWEST = re.compile(r"__ENVIRONMENT_\w*OS(_X)?_VERSION_MIN_REQUIRED__")  # of Apple's

_UNIX = "__unix__ __unix unix"
# The macros of systems, for architectures that the table has for Linux only.
_LINUX = "linux __linux __linux__ __gnu_linux__ unix __unix __unix__ _STDC_PREDEF_H"
_SYSTEMS = {
    "freebsd": f"__FreeBSD__=14 __clang__ {_UNIX}",
    "openbsd": f"__OpenBSD__ __clang__ {_UNIX}",
    "netbsd": "__NetBSD__ __unix__",
    "dragonfly": f"__DragonFly__ {_UNIX}",
    "solaris": f"__sun__ __sun sun __svr4__ __SVR4 {_UNIX}",
    "illumos": f"__sun__ __sun sun __svr4__ __SVR4 {_UNIX}",
    "haiku": f"__HAIKU__ {_UNIX}",
    "hurd": f"__GNU__ __gnu_hurd__ __MACH__ {_UNIX}",
    "redox": f"__redox__ {_UNIX}",
    "hermit": "__hermit__",
    "vxworks": "__vxworks __VXWORKS__",
    "fuchsia": "__Fuchsia__ __clang__",
    "cygwin": f"__CYGWIN__ {_UNIX}",
    "nto": "__QNX__ __QNXNTO__",
    "aix": "_AIX __unix__",
}

# Macros of compilers, languages and C libraries that are not in the table, or that stand for what
# a user switches on: no warning is due where they are missing.
_OTHERS = words(
    """__ICC __INTEL_COMPILER __INTEL_LLVM_COMPILER __ECC __SUNPRO_C __SUNPRO_CC __xlC__ __xlc__
    __IBMC__ __IBMCPP__ __ibmxl__ __HP_aCC __HP_cc __DECC __DECCXX __BORLANDC__ __TURBOC__
    __CODEGEARC__ __WATCOMC__ __DMC__ __LCC__ __TINYC__ __PGI __PGIC__ __NVCOMPILER __PATHCC__
    __PATHSCALE__ __OPEN64__ __ghs__ __CC_ARM __ARMCC_VERSION __ICCARM__ __TI_COMPILER_VERSION__
    __IAR_SYSTEMS_ICC__ __SNC__ __MWERKS__ __CUDACC__ __CUDA_ARCH__ __HIP__ __HIPCC__ __NVCC__
    __OPENCL_VERSION__ __OBJC__ __OBJC2__ __cplusplus __cplusplus_cli __cplusplus_winrt
    __ASSEMBLER__ __ASSEMBLY__ __OPTIMIZE__ __OPTIMIZE_SIZE__ __NO_INLINE__ _OPENMP _OPENACC
    __STRICT_ANSI__ __EXCEPTIONS __cpp_exceptions __CHAR_UNSIGNED__ __COVERITY__ __KLOCWORK__
    __clang_analyzer__ _PREFAST_ __FRAMAC__ __LINT__ __lint__ __CPPCHECK__ __CDT_PARSER__
    __INTELLISENSE__ __RESHARPER__ __JETBRAINS_IDE__ __DOXYGEN__ _DOXYGEN_ __GTK_DOC_IGNORE__
    __GI_SCANNER__ __SWIG__ __SANITIZE_ADDRESS__ __SANITIZE_THREAD__ __SANITIZE_HWADDRESS__
    __STDC__ __STDC_VERSION__ __STDC_HOSTED__ __STDC_LIB_EXT1__ __STDC_WANT_LIB_EXT1__
    __STDC_LIMIT_MACROS __STDC_CONSTANT_MACROS __STDC_FORMAT_MACROS __STDC_NO_ATOMICS__
    __STDC_NO_COMPLEX__ __STDC_NO_THREADS__ __STDC_NO_VLA__ __STDC_ANALYZABLE__
    __STDC_MB_MIGHT_NEQ_WC__ __STDC_ISO_10646__ __STDC_IEC_559__ __STDC_IEC_559_COMPLEX__
    __COUNTER__ __INCLUDE_LEVEL__ __BASE_FILE__ __FILE__ __LINE__ __DATE__ __TIME__
    __TIMESTAMP__ __FILE_NAME__ __VA_OPT__ __VA_ARGS__
    __GLIBC__ __GLIBC_MINOR__ __GNU_LIBRARY__ __UCLIBC__ __BIONIC__ __NEWLIB__ __DIETLIBC__
    __MUSL__ _LIBCPP_VERSION __GLIBCXX__ __GLIBCPP__ _CRTIMP __MSVCRT_VERSION__ _UCRT
    __MINGW64_VERSION_MAJOR __MINGW32_MAJOR_VERSION __CYGWIN__ __CYGWIN32__ __MSYS__ __INTERIX
    _GNU_SOURCE _POSIX_SOURCE _POSIX_C_SOURCE _XOPEN_SOURCE _XOPEN_SOURCE_EXTENDED _BSD_SOURCE
    _SVID_SOURCE _DEFAULT_SOURCE _ISOC99_SOURCE _ISOC11_SOURCE _DARWIN_C_SOURCE _NETBSD_SOURCE
    __EXTENSIONS__ _ALL_SOURCE _REENTRANT _THREAD_SAFE _LARGEFILE_SOURCE _LARGEFILE64_SOURCE
    _FILE_OFFSET_BITS _TIME_BITS _LFS64_LARGEFILE _FORTIFY_SOURCE __USE_GNU __USE_MISC
    __USE_POSIX __USE_BSD __USE_XOPEN __USE_LARGEFILE64
    _DEBUG _DLL _UNICODE _MBCS _WINDLL _WINDOWS _USRDLL _CONSOLE _MFC_VER _AFXDLL _ATL_DLL _LIB
    _WIN32_WINNT _WIN32_WINDOWS _WIN32_IE _WINSOCKAPI_ _WINDOWS_ _INC_WINDOWS _WINDEF_ _WINNT_
    _WIN32_WCE __WIN32__ __TOS_WIN__ __NT__ __OS2__ __DOS__ _M_CEE _M_CEE_PURE _M_CEE_SAFE
    _M_ARM _M_ARM64 _M_ARM64EC _M_ARM_NT _M_IA64 _M_IX86 _M_IX86_FP _M_X64 _M_AMD64 _M_PPC
    _M_ALPHA _M_MRX000 _M_HYBRID_X86_ARM64 __STDC_SECURE_LIB__ _HAS_EXCEPTIONS _HAS_CXX17
    _HAS_CXX20 _HAS_CXX23 _HAS_NODISCARD _CPPRTTI _CPPUNWIND _CHAR_UNSIGNED
    _NATIVE_WCHAR_T_DEFINED _WCHAR_T_DEFINED _KERNEL_MODE _PREFIX_ _VC_NODEFAULTLIB
    _CONTROL_FLOW_GUARD _ISO_VOLATILE __AVX__ __AVX2__ __AVX512F__ __SSE3__ __SSSE3__
    __SSE4_1__ __SSE4_2__ __FMA__ __F16C__ __POPCNT__ __BMI__ __BMI2__ __LZCNT__ __AES__
    __PCLMUL__ __SHA__ __RDRND__ __ARM_NEON __ARM_NEON__ __ARM_FEATURE_CRC32
    __ARM_FEATURE_CRYPTO __ARM_FEATURE_SVE __ARM_FEATURE_DOTPROD __ALTIVEC__ __VSX__
    __mips_msa __wasm_simd128__ __riscv_vector __e2k__ __alpha__ __alpha __hppa__ __hppa
    __ia64__ __ia64 _IA64 __m68k__ __sh__ __arc__ __nios2__ __xtensa__ __avr__ __MSP430__
    __hexagon__ __bpf__ __BPF__ __nvptx__ __AMDGCN__ __SPIRV__ __vax__ __microblaze__ __or1k__
    __csky__ __tile__ __tilegx__ __sparc __sparc__ __sparcv9 __sparc64__ __s390__ __s390x__
    __APPLE__ __MACH__ __linux __linux__ __ANDROID__ __ANDROID_API__ __FreeBSD__ __NetBSD__
    __OpenBSD__ __DragonFly__ __FreeBSD_kernel__ __sun __sun__ __SVR4 __svr4__ __hpux _hpux
    __sgi __osf__ __osf _AIX __TOS_AIX__ __minix __QNX__ __QNXNTO__ __BEOS__ __HAIKU__ __CYGWIN__
    __EMSCRIPTEN__ __wasi__ __native_client__ __pnacl__ __ORBIS__ __PROSPERO__ __VITA__ __PSP__
    __SWITCH__ __NX__ __3DS__ __WII__ __GAMECUBE__ __PS3__ __PPU__ _XBOX_ONE _DURANGO _GAMING_XBOX
    __TIZEN__ __OHOS__ __RTEMS__ __ZEPHYR__ __vxworks __VXWORKS__ __INTEGRITY __MVS__ __OS400__
    __redox__ __riscos__ __amigaos__ __MORPHOS__ __AROS__ __GNU__ __gnu_hurd__ __Fuchsia__
    __bsdi__ __ultrix __SCO_VERSION__ _SCO_DS __SYLLABLE__ __ELF__ __COFF__ __KERNEL__ _KERNEL
    __PIC__ __pic__ __PIE__ __pie__ __ILP32__ _ILP32 __LP64__ _LP64 __LLP64__ __CHERI__
    __CHERI_PURE_CAPABILITY__ __SOFTFP__ __SOFT_FP__ __CODEMODEL__ __BIG_ENDIAN __LITTLE_ENDIAN
    __BYTE_ORDER _BIG_ENDIAN _LITTLE_ENDIAN _BYTE_ORDER __BIG_ENDIAN__ __LITTLE_ENDIAN__
    _MIPSEB _MIPSEL __MIPSEB__ __MIPSEL__ __ARMEB__ __ARMEL__ __AARCH64EB__ __AARCH64EL__
    __THUMBEB__ __THUMBEL__ __MICROBLAZEEL__ __WORDSIZE __BEGIN_DECLS __END_DECLS __THROW
    __GXX_EXPERIMENTAL_CXX0X__ __GXX_RTTI __RTTI __LIBRARY__ __GCC_HAVE_DWARF2_CFI_ASM
    __BLOCKS__ __apple_build_version__
    __IPHONE_OS_VERSION_MIN_REQUIRED __MAC_OS_X_VERSION_MIN_REQUIRED
    __TV_OS_VERSION_MIN_REQUIRED __WATCH_OS_VERSION_MIN_REQUIRED
    __VISION_OS_VERSION_MIN_REQUIRED __MAC_OS_X_VERSION_MAX_ALLOWED
    __IPHONE_OS_VERSION_MAX_ALLOWED __has_include __has_include_next __has_attribute
    __has_builtin __has_c_attribute __has_cpp_attribute"""
)


@lru_cache(maxsize=1)
def _blocks() -> tuple[tuple[bool, frozenset[str], bool, str], ...]:
    """The blocks of the table: for C++ alone?, the keys, for all but these?, the text."""
    out = []
    text = Path(__file__).with_name("predefined.txt").read_text(encoding="utf-8")
    for block in text.split("\n@ ")[1:]:
        head, _, body = block.rstrip("\n").partition("\n")
        keys = head.split()
        cxx = keys[0] == "+"
        keys = keys[cxx:]
        inverted = bool(keys) and keys[0] == "-"
        out.append((cxx, frozenset(keys[inverted:]), inverted, body))
    return tuple(out)


def is_known(name: str) -> bool:
    """Whether some compiler predefines a name, whatever the target."""
    return name in _OTHERS or name in _known()


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    names = set(QUERIES_CLANG)
    for _, _, _, body in _blocks():
        lines = body.splitlines()
        names |= {line.partition(" ")[0].partition("(")[0].lstrip("-") for line in lines}
    names |= {word.partition("=")[0] for word in f"{_CL} {_CL_CXX}".split()}
    return frozenset(names)


@lru_cache(maxsize=1)
def _keys() -> frozenset[str]:
    return frozenset().union(*(keys for _, keys, _, _ in _blocks()))


def _arm(target: Target) -> str:
    version = (target.arch.lstrip("armthub")[1:2] or "6") if target.arch != "arm" else "6"
    hard = target.environment.endswith("hf")
    if version >= "7":
        return "arm" if hard else "armv7soft"
    if target.system == "none":
        return "armv6"
    return "armv6" if hard and version == "6" else "armv5"


def _linux_like(target: Target, family: str) -> str:
    """The architecture's name in the keys of Linux and of bare metal."""
    arch, environment = target.arch, target.environment
    if environment in {"gnux32", "muslx32"}:
        return "x32"
    if family == "arm":
        return _arm(target)
    if family == "powerpc64":
        if arch.startswith("powerpc64le"):
            return "powerpc64le"
        return "powerpc64musl" if environment.startswith("musl") else "powerpc64"
    if family in {"mips", "mips64"}:
        return family + ("el" if arch.endswith("el") else "")
    return "aarch64_be" if arch.startswith("aarch64_be") else family


def _key(target: Target) -> str:
    family, system = architecture(target), target.system
    if target.object_format == "macho":
        platform = "macos" if system in {"darwin", "macos"} else system
        catalyst = target.environment == "macabi"
        # x86_64-apple-ios and the like are simulators, although they do not say so
        simulator = target.environment.startswith("sim") or family in {"x86_64", "x86"}
        if catalyst:
            platform = "macabi"
        elif platform != "macos" and simulator:
            platform += "-sim"
        arch = "arm64_32" if target.arch == "arm64_32" else family
        return f"{platform}:{arch}"
    if system == "windows":
        gcc = target.environment == "gnu" and family in {"x86_64", "x86"}
        return f"{'mingw' if gcc else 'gnullvm'}:{family}"
    if target.environment.startswith("android") or system == "android":
        return f"android:{family}"
    if family == "wasm32":
        return f"{'emscripten' if system == 'emscripten' else 'wasi'}:wasm32"
    if system in {"linux", "none"}:
        return f"{system}:{_linux_like(target, family)}"
    system = "solaris" if system == "illumos" else system
    return f"{system}:{family}"


def predefined(target: Target, *, cxx: bool) -> dict[str, str]:
    """Name and value of the macros that are defined before the first line of a header.

    A macro with parameters has them in its name, as in ``NAME(a)``.
    """
    return dict(_predefined(target, cxx=cxx))


@lru_cache(maxsize=4)
def _predefined(target: Target, *, cxx: bool) -> dict[str, str]:
    if target.is_msvc:
        listed = f"{_CL} {_CL_ARCHITECTURES.get(architecture(target), '')}"
        return _listed(f"{listed} {_CL_CXX}" if cxx else listed)
    key = _key(target)
    if key in _keys():
        out = dict(_of_key(key, cxx=cxx))
    else:
        out = _derived(target, cxx=cxx)
    if architecture(target) == "arm" and target.object_format == "elf":
        version = target.arch.lstrip("armthub")[1:2]
        if version.isdigit():
            out["__ARM_ARCH"] = version
    if target.lowest is not None:
        lowest = _version(target, target.lowest)
        out |= {name: lowest for name in out if _LOWEST.fullmatch(name)}
    return out


def _version(target: Target, version: tuple[int, int, int]) -> str:
    """The oldest system as clang writes it (lib/Basic/Targets/OSTargets.cpp, getDarwinDefines)."""
    major, minor, patch = version
    if target.system in {"darwin", "macos"} and version < (10, 10, 0):
        return f"{major}{min(minor, 9)}{min(patch, 9)}"
    return f"{major}{minor:02}{patch:02}"


def _derived(target: Target, *, cxx: bool) -> dict[str, str]:
    """The macros of a target that is not in the table: Linux's, or bare metal's, with changes."""
    arch = _linux_like(target, architecture(target))
    near = next((k for k in (f"linux:{arch}", f"none:{arch}") if k in _keys()), "")
    if near:
        out = {n: v for n, v in _of_key(near, cxx=cxx) if n not in _LINUX.split()}
    else:
        common = "linux:s390x" if "64" in target.arch else "none:armv6"
        odd = re.compile("__(s390|zarch|ARCH|arm|ARM|thumb|THUMB)")
        out = {n: v for n, v in _of_key(common, cxx=cxx) if not odd.match(n)}
        out = {n: v for n, v in out.items() if n not in _LINUX.split()}
        out |= data_model(target)
    if target.system == "linux":
        out |= _listed(_LINUX)
    return out | _listed(_SYSTEMS.get(target.system, ""))


def _of_key(key: str, *, cxx: bool) -> Iterator[tuple[str, str]]:
    macros: dict[str, str] = {}
    for for_cxx, keys, inverted, body in _blocks():
        if (key in keys) == inverted or (for_cxx and not cxx):
            continue
        for line in body.splitlines():
            if line[0] == "-":
                macros.pop(line[1:], None)
                continue
            # `__INT64_C(c) c##L`: the name ends at the parenthesis
            name, _, value = line.partition(" ")
            macros[name] = value
    return iter(macros.items())


def _listed(text: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in text.split())
    return {name: value if equals else "1" for name, equals, value in pairs}


# The operators --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _answers() -> dict[tuple[str, str], dict[str, str]]:
    """By operator and ``compiler:language``, the answer to each name."""
    out: dict[tuple[str, str], dict[str, str]] = {}
    text = Path(__file__).with_name("answers.txt").read_text(encoding="utf-8")
    for block in text.split("\n@ ")[1:]:
        head, _, body = block.partition("\n")
        operator, *keys = head.split()
        for key in keys:
            out.setdefault((f"__{operator}", key), {}).update(_listed(body))
    return out


class Queries:
    """The operators of ``#if`` that a target's compiler has, and their answers."""

    def __init__(self, target: Target, *, cxx: bool) -> None:
        self.target, self.cxx = target, cxx
        macros = {} if target.is_msvc else predefined(target, cxx=cxx)
        self.is_clang = "__clang__" in macros
        if target.is_msvc:
            self.names = words("__has_include" + " __has_cpp_attribute" * cxx)
        elif self.is_clang:
            self.names = QUERIES_CLANG - (_C_ONLY if cxx else _CXX_ONLY)
        else:
            self.names = QUERIES_GCC
        if self.is_clang:
            compiler = "apple" if target.object_format == "macho" else "android"
        elif target.object_format == "coff":
            compiler = "mingw"
        else:
            compiler = "gcc" if architecture(target) in {"x86_64", "x86"} else "gccarm"
        self.compiler = f"{compiler}:{'c++' if cxx else 'c'}"

    def answer(self, operator: str, name: str) -> str:
        """The answer of an operator to a name without spaces; ``0`` where it has none."""
        if operator not in self.names:
            return "0"
        if operator.startswith("__is_target_"):
            return str(int(self._is_target(operator.removeprefix("__is_target_"), name)))
        if operator == "__is_identifier":
            return str(int(name not in _KEYWORDS))
        if operator == "__has_warning":
            return "1"
        if operator == "__has_declspec_attribute":
            return "1" if name.strip("_") in _DECLSPECS else "0"
        scope, colons, plain = name.rpartition("::")
        plain = re.sub(r"^__(.+)__$", r"\1", plain) if "builtin" not in operator else plain
        if self.target.is_msvc:
            return _CL_ATTRIBUTES.get(plain, "0") if not scope else "0"
        if colons:
            known = {"clang", "gnu"} if self.is_clang else {"gnu"}
            if scope.strip("_") not in known:
                return "0"
            operator = "__has_attribute"
        elif operator == "__has_cpp_attribute" and not self.cxx:
            operator = "__has_attribute"
        elif operator == "__has_c_attribute" and self.cxx:
            operator = "__has_cpp_attribute"
        return _answers().get((operator, self.compiler), {}).get(plain, "0")

    def _is_target(self, part: str, name: str) -> bool:
        target = self.target
        name = name.lower()
        if part == "arch":
            same = {"aarch64": {"aarch64", "arm64"}, "x86": {"i386", "i686", "x86"}}
            family = architecture(target)
            return name in same.get(family, {family, target.arch})
        if part == "vendor":
            return name == target.vendor
        if part == "os":
            mine = {"darwin": {"macos", "macosx", "darwin"}, "visionos": {"xros", "visionos"}}
            return name in mine.get(target.system, {target.system})
        if part == "environment":
            simulated = {"sim": {"simulator"}}
            return name in simulated.get(target.environment, {target.environment} - {""})
        return False


_CL_ATTRIBUTES = {
    "carries_dependency": "200809L",
    "deprecated": "201309L",
    "fallthrough": "201603L",
    "maybe_unused": "201603L",
    "nodiscard": "201603L",
    "noreturn": "200809L",
}
_DECLSPECS = words(
    """align allocator code_seg dllexport dllimport naked noalias noinline noreturn nothrow novtable
    property restrict selectany thread uuid deprecated empty_bases"""
)
_KEYWORDS = words(
    """auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch typedef
    union unsigned void volatile while _Alignas _Alignof _Atomic _Bool _Complex _Float16 _Generic
    _Imaginary _Noreturn _Static_assert _Thread_local _BitInt _Nullable _Nonnull
    _Null_unspecified _Nullable_result __attribute__ __attribute __asm __asm__ __inline
    __inline__ __restrict __restrict__ __volatile__ __const __const__ __signed__ __typeof
    __typeof__ __extension__ __func__ __thread __int128 __float128 __fp16 __bf16 __auto_type
    __real __imag __alignof __alignof__ __label__ __builtin_va_arg __builtin_offsetof
    __builtin_types_compatible_p asm typeof __block __strong __weak __kindof"""
)
