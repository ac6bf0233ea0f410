"""Architectures and sizes of types by target, and the system headers, which are never read."""

from __future__ import annotations

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.words import words

# Never read, even where they exist: the parser knows their types.
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
    minwindef.h winbase.h wtypes.h winuser.h objbase.h unknwn.h ole2.h oleauto.h sal.h specstrings.h
    ntdef.h guiddef.h combaseapi.h WinSock2.h Winsock2.h WinDef.h process.h direct.h intrin.h
    Foundation/Foundation.h CoreFoundation/CFBase.h objc/NSObjCRuntime.h AvailabilityInternal.h
    Availability/Availability.h dispatch/dispatch.h CoreGraphics/CoreGraphics.h
    Security/Security.h Block.h os/base.h os/object.h xpc/xpc.h jni.h jni_md.h
    algorithm array atomic cassert cctype cerrno cfloat chrono cinttypes climits cmath concepts
    csetjmp csignal cstdarg cstdbool cstddef cstdint cstdio cstdlib cstring ctime cuchar cwchar
    exception functional initializer_list iosfwd iostream iterator limits list map memory mutex
    new numeric optional ostream set span sstream stdexcept string string_view tuple type_traits
    typeindex typeinfo unordered_map unordered_set utility variant vector version"""
)

_BIG_ENDIAN = ("powerpc-", "powerpc64-", "s390x-", "sparc", "aarch64_be-", "armeb", "m68k")
_BIG_ENDIAN_MIPS = ("mips-", "mips64-", "mipsisa32r6-", "mipsisa64r6-")
_SIXTY_FOUR = ("64", "s390x", "sparcv9")


def architecture(target: Target) -> str:
    """The family for which a compiler has macros: ``arm`` for ``armv7s``, ``x86`` for ``i686``."""
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
    """The bits of a pointer."""
    if target.arch == "arm64_32" or target.environment in {"gnux32", "gnu_ilp32"}:
        return 32
    return 64 if any(word in target.arch for word in _SIXTY_FOUR) else 32


def data_model(target: Target) -> dict[str, str]:
    """Macros of sizes, limits and byte order, for targets that are in no table."""
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
    if pointer == 64:
        out["__SIZEOF_INT128__"] = "16"
    if pointer == 32:
        out |= {"__ILP32__": "1", "_ILP32": "1"}
    elif not windows:
        out |= {"__LP64__": "1", "_LP64": "1"}
    return out
