"""Telling by its first bytes what a file is that should have been an archive."""

from __future__ import annotations

_MACHO = frozenset(
    {b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf"}
)
_UNIVERSAL = frozenset({b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"})
_BITCODE = frozenset({b"BC\xc0\xde", b"\xde\xc0\x17\x0b"})
# IMAGE_FILE_MACHINE_*: i386, AMD64, ARMNT, ARM64, ARM64EC
_COFF_MACHINES = frozenset({b"\x4c\x01", b"\x64\x86", b"\xc4\x01", b"\x64\xaa", b"\x41\xa6"})

_WANTED = "a static library is wanted (lib<name>.a or <name>.lib), as cargo-c builds it"


def is_macho(magic: bytes) -> bool:
    """Whether these are the first four bytes of a Mach-O file, thin or universal."""
    return magic in _MACHO or magic in _UNIVERSAL


def what_instead(start: bytes) -> tuple[str, str]:
    """What a file is that starts like this and is no archive, and what to do about it."""
    magic = start[:4]
    if not start:
        return "an empty file, not an archive", "the build may have been interrupted; run it again"
    if magic in _UNIVERSAL:
        return "a universal (fat) file, not an archive for one architecture", _WANTED
    if magic in _BITCODE:
        return (
            "LLVM bitcode, not an archive",
            "build without linker-plugin LTO (no `-C linker-plugin-lto`, no `--emit llvm-bc`)",
        )
    if magic == b"\x7fELF" or magic in _MACHO:
        return "an object file, program or shared library, not an archive", _WANTED
    if start[:2] == b"MZ":
        return "a Windows program or DLL, not an archive", _WANTED
    if start.startswith(b"<bigaf>\n"):
        return "an AIX archive, which is not supported", _WANTED
    if start[:2] in _COFF_MACHINES or start[:4] == b"\0\0\xff\xff":
        return "a COFF object file, not an archive", _WANTED
    if start.startswith((b"/* GNU ld script", b"INPUT", b"GROUP", b"OUTPUT_FORMAT")):
        return "a linker script, not an archive", "use the library that the script names"
    return "not an archive", _WANTED
