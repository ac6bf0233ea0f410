"""Tells what a file is by its first bytes. The only place that does."""

from __future__ import annotations

from typing import Literal

Contents = Literal[
    "elf", "macho", "coff", "coff-import", "bitcode", "archive", "metadata", "unknown"
]

_MACHO = {
    b"\xfe\xed\xfa\xce",
    b"\xce\xfa\xed\xfe",
    b"\xfe\xed\xfa\xcf",
    b"\xcf\xfa\xed\xfe",
}
# IMAGE_FILE_MACHINE_* of the architectures that Rust has: PE format, "Machine Types"
_COFF_MACHINES = {0x14C, 0x8664, 0xAA64, 0xA641, 0x1C4}


def sniff(head: bytes) -> Contents:
    """What a file is whose first 20 bytes (fewer, if it is shorter) are `head`."""
    magic = head[:4]
    if magic == b"\x7fELF":
        return "elf"
    if magic in _MACHO:
        return "macho"
    if magic in (b"BC\xc0\xde", b"\xde\xc0\x17\x0b"):
        return "bitcode"
    if magic == b"\0\0\xff\xff" and len(head) >= 8:
        # version 0 is a short import, higher ones are /bigobj and anonymous objects
        return "coff-import" if head[4:6] == b"\0\0" else "coff"
    if head[:8] in (b"!<arch>\n", b"!<thin>\n"):
        return "archive"
    if magic == b"rust":
        return "metadata"
    if len(head) >= 20 and int.from_bytes(head[:2], "little") in _COFF_MACHINES:
        return "coff"
    return "unknown"


def elf_machine(head: bytes) -> tuple[int, int, str] | None:
    """(e_machine, bits, byte order) of an ELF file's first 20 bytes."""
    if len(head) < 20 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order: Literal["little", "big"] = "little" if head[5] == 1 else "big"
    return int.from_bytes(head[18:20], order), 32 * head[4], order


def macho_machine(head: bytes) -> tuple[int, int] | None:
    """(cputype, cpusubtype without its flags) of a Mach-O file's first 20 bytes."""
    if len(head) < 20:
        return None
    order: Literal["little", "big"] = "big" if head[0] == 0xFE else "little"
    cpu, subtype = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
    return cpu, subtype & 0xFFFFFF
