"""Macros of system headers, which are not read: limits, and annotations of declarations."""

from __future__ import annotations

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.macros import pointer_width
from cargo_strip_hook.exports.predefined import predefined
from cargo_strip_hook.exports.words import words

_WINDOWS_HEADERS = words(
    """windows.h windef.h minwindef.h winnt.h winbase.h wtypes.h winuser.h winsock2.h ws2tcpip.h
    objbase.h unknwn.h ole2.h oleauto.h combaseapi.h"""
)
# minwindef.h, winnt.h, objbase.h
_CONVENTIONS = {
    "__stdcall": "WINAPI APIENTRY CALLBACK PASCAL pascal NTAPI WSAAPI STDMETHODCALLTYPE "
    "STDAPICALLTYPE APIPRIVATE",
    "__cdecl": "WINAPIV CDECL cdecl STDMETHODVCALLTYPE STDAPIVCALLTYPE",
}
# Microsoft's annotations (sal.h), without and with arguments.
_SAL = words(
    """_In_ _In_opt_ _In_z_ _In_opt_z_ _Out_ _Out_opt_ _Outptr_ _Outptr_opt_ _Outptr_result_z_
    _Outptr_result_maybenull_ _Outptr_opt_result_maybenull_ _Inout_ _Inout_opt_ _Inout_z_
    _Inout_opt_z_ _Ret_z_ _Ret_maybenull_ _Ret_maybenull_z_ _Ret_notnull_ _Check_return_
    _Must_inspect_result_ _Reserved_ _Null_terminated_ _Notnull_ _Maybenull_ _Printf_format_string_
    _Pre_notnull_ _Post_notnull_ _Post_invalid_ _Frees_ptr_ _Frees_ptr_opt_ _COM_Outptr_
    _COM_Outptr_opt_ _Const_ _Use_decl_annotations_ __RPC__in __RPC__out __in __out __inout
    __in_opt __out_opt __inout_opt __reserved"""
)
_SAL_CALLS = words(
    """_In_reads_ _In_reads_opt_ _In_reads_z_ _In_reads_bytes_ _In_reads_bytes_opt_
    _In_reads_or_z_ _Out_writes_ _Out_writes_opt_ _Out_writes_z_ _Out_writes_bytes_
    _Out_writes_bytes_opt_ _Out_writes_to_ _Out_writes_bytes_to_ _Out_writes_all_ _Inout_updates_
    _Inout_updates_opt_ _Inout_updates_z_ _Inout_updates_bytes_ _Inout_updates_bytes_opt_
    _Inout_updates_to_ _Outptr_result_buffer_ _Outptr_result_bytebuffer_ _Ret_range_ _In_range_
    _Out_range_ _Field_size_ _Field_size_opt_ _Field_size_bytes_ _Field_range_ _Success_ _When_
    _At_ _Pre_ _Post_ _Deref_out_ _Return_type_success_ _Struct_size_bytes_ __success"""
)
# <os/availability.h>, <Availability.h>, CFBase.h, NSObjCRuntime.h
_APPLE = words(
    """NS_ASSUME_NONNULL_BEGIN NS_ASSUME_NONNULL_END CF_ASSUME_NONNULL_BEGIN
    CF_ASSUME_NONNULL_END CF_IMPLICIT_BRIDGING_ENABLED CF_IMPLICIT_BRIDGING_DISABLED
    CF_EXTERN_C_BEGIN CF_EXTERN_C_END NS_HEADER_AUDIT_BEGIN CF_RETURNS_RETAINED
    CF_RETURNS_NOT_RETAINED CF_CONSUMED NS_RETURNS_RETAINED NS_RETURNS_NOT_RETAINED NS_NOESCAPE
    CF_NOESCAPE NS_REFINED_FOR_SWIFT CF_REFINED_FOR_SWIFT NS_SWIFT_NOTHROW
    NS_REQUIRES_NIL_TERMINATION NS_UNAVAILABLE CF_UNAVAILABLE OS_NOTHROW OS_NONNULL_ALL
    OS_WARN_RESULT OS_PURE OS_CONST
    OS_MALLOC OS_ASSUME_NONNULL_BEGIN OS_ASSUME_NONNULL_END DISPATCH_NOTHROW DISPATCH_NONNULL_ALL
    SPI_AVAILABLE_BEGIN API_AVAILABLE_END API_UNAVAILABLE_END API_DEPRECATED_END
    __WATCHOS_PROHIBITED __TVOS_PROHIBITED __IOS_PROHIBITED"""
)
_APPLE_CALLS = words(
    """API_AVAILABLE API_AVAILABLE_BEGIN API_DEPRECATED API_DEPRECATED_BEGIN
    API_DEPRECATED_WITH_REPLACEMENT API_DEPRECATED_WITH_REPLACEMENT_BEGIN API_OBSOLETED
    API_UNAVAILABLE API_UNAVAILABLE_BEGIN SPI_AVAILABLE SPI_DEPRECATED __API_AVAILABLE
    __API_DEPRECATED __API_UNAVAILABLE __API_DEPRECATED_WITH_REPLACEMENT __OSX_AVAILABLE
    __IOS_AVAILABLE __TVOS_AVAILABLE __WATCHOS_AVAILABLE __OSX_AVAILABLE_STARTING
    __OSX_AVAILABLE_BUT_DEPRECATED __OSX_AVAILABLE_BUT_DEPRECATED_MSG __OSX_DEPRECATED
    __IOS_DEPRECATED NS_AVAILABLE NS_AVAILABLE_MAC NS_AVAILABLE_IOS NS_DEPRECATED NS_DEPRECATED_MAC
    NS_DEPRECATED_IOS NS_SWIFT_NAME NS_SWIFT_UNAVAILABLE CF_SWIFT_NAME CF_SWIFT_UNAVAILABLE
    CF_AVAILABLE CF_AVAILABLE_MAC CF_AVAILABLE_IOS CF_DEPRECATED CF_DEPRECATED_MAC
    CF_DEPRECATED_IOS CF_FORMAT_FUNCTION NS_FORMAT_FUNCTION CF_BRIDGED_TYPE CF_RELATED_TYPE
    __deprecated_msg __swift_unavailable OS_SWIFT_NAME OS_FORMAT_PRINTF OS_NONNULL1 OS_NONNULL2
    DISPATCH_NONNULL1 __printflike __scanflike"""
)
_ENUMS = {
    f"{prefix}_{kind}(t, n)": "enum n : t n; enum n : t"
    for prefix in ("NS", "CF")
    for kind in ("ENUM", "OPTIONS", "CLOSED_ENUM", "ERROR_ENUM")
}
_SDK = {"MAC_OS_X": "150000", "IPHONE_OS": "180000", "TV_OS": "180000", "WATCH_OS": "110000"}
_SDK["VISION_OS"] = "20000"


def system_header_macros(target: Target, header: str, *, cxx: bool) -> dict[str, str]:
    """Macros that are defined once a file includes `header` ("": any system header).

    Keys are ``NAME`` or ``NAME(x)``.
    """
    if header:
        name = header.rpartition("/")[2].lower()
        windows = target.object_format == "coff" and name in _WINDOWS_HEADERS
        return _windows(cxx=cxx) if windows else {}
    out = _limits(target)
    if target.object_format == "macho":
        out |= _apple(target)
    elif target.object_format == "coff":
        out |= dict.fromkeys(_SAL, "")
        out |= {f"{name}(...)": "" for name in _SAL_CALLS}
    elif target.environment.startswith("gnu"):
        out |= {"__GLIBC__": "2", "__GLIBC_MINOR__": "36"}
        out |= {"__GLIBC_PREREQ(a, b)": "((2 << 16) + 36 >= ((a) << 16) + (b))"}
        out |= {"__GNU_LIBRARY__": "6"}
    elif target.environment.startswith("android"):
        out["__BIONIC__"] = "1"
    if target.object_format == "elf":
        out |= {"__GNUC_PREREQ(a, b)": "((__GNUC__ << 16) + __GNUC_MINOR__ >= ((a) << 16) + (b))"}
        out |= {f"__attribute_{n}__": "" for n in ("deprecated", "malloc", "pure", "const")}
        out |= {"__wur": "", "__nonnull(p)": "", "__THROWNL": "", "__attribute_malloc__": ""}
    return out


def _apple(target: Target) -> dict[str, str]:
    out = dict.fromkeys(_APPLE, "")
    out |= {f"{name}(...)": "" for name in _APPLE_CALLS}
    out |= _ENUMS
    external = ("CF_EXPORT", "FOUNDATION_EXPORT", "OBJC_EXPORT", "OS_EXPORT", "DISPATCH_EXPORT")
    out |= dict.fromkeys(external, "extern")
    lowest = predefined(target, cxx=False).get("__ENVIRONMENT_OS_VERSION_MIN_REQUIRED__", "")
    system = {"ios": "IPHONE_OS", "tvos": "TV_OS", "watchos": "WATCH_OS", "visionos": "VISION_OS"}
    name = system.get(target.system, "MAC_OS_X")
    out[f"__{name}_VERSION_MIN_REQUIRED"] = lowest
    out[f"__{name}_VERSION_MAX_ALLOWED"] = _SDK[name]
    if name == "MAC_OS_X":
        out |= {"MAC_OS_X_VERSION_MIN_REQUIRED": lowest, "MAC_OS_X_VERSION_MAX_ALLOWED": _SDK[name]}
    for minor in range(16):
        value = f"10{minor}0" if minor < 10 else f"10{minor}00"
        out |= {f"__MAC_10_{minor}": value, f"MAC_OS_X_VERSION_10_{minor}": value}
    for major in range(11, 16):
        out |= {f"__MAC_{major}_0": f"{major}0000", f"MAC_OS_VERSION_{major}_0": f"{major}0000"}
    for major in range(2, 19):
        out[f"__IPHONE_{major}_0"] = f"{major}0000"
    return out


def _windows(*, cxx: bool) -> dict[str, str]:
    out = {n: to for to, names in _CONVENTIONS.items() for n in names.split()}
    out |= dict.fromkeys(words("IN OUT OPTIONAL FAR NEAR far near"), "")
    external = 'extern "C"' if cxx else "extern"
    out |= {
        "CONST": "const",
        "VOID": "void",
        "EXTERN_C": external,
        "EXTERN_C_START": 'extern "C" {' if cxx else "",
        "EXTERN_C_END": "}" if cxx else "",
        "STDAPI": f"{external} HRESULT __stdcall",
        "STDAPI_(type)": f"{external} type __stdcall",
        "DECLSPEC_IMPORT": "__declspec(dllimport)",
        "DECLSPEC_EXPORT": "__declspec(dllexport)",
        "DECLSPEC_NORETURN": "__declspec(noreturn)",
        "DECLSPEC_ALIGN(n)": "__declspec(align(n))",
        "WINBASEAPI": "__declspec(dllimport)",
        "FORCEINLINE": "static __inline",
        "DECLARE_HANDLE(name)": "struct name##__; typedef struct name##__ *name",
        "DUMMYSTRUCTNAME": "",
        "DUMMYUNIONNAME": "",
    }
    return out


def _limits(target: Target) -> dict[str, str]:
    """Macros of <limits.h> and <stdint.h>, and common annotations of declarations."""
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
