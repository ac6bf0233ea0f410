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

# what people call processors: gABI, "e_machine"
ELF_MACHINES = {
    2: "SPARC",
    4: "m68k",
    8: "MIPS",
    3: "x86",
    15: "PA-RISC",
    18: "SPARC",
    20: "PowerPC",
    21: "PowerPC",
    22: "IBM Z",
    40: "ARM",
    42: "SuperH",
    43: "SPARC",
    50: "Itanium",
    62: "x86-64",
    83: "AVR",
    92: "OpenRISC",
    93: "ARC",
    94: "Xtensa",
    105: "MSP430",
    113: "Nios II",
    164: "Hexagon",
    183: "AArch64",
    189: "MicroBlaze",
    190: "CUDA",
    195: "ARC",
    203: "XCore",
    224: "AMDGPU",
    243: "RISC-V",
    244: "Lanai",
    247: "BPF",
    251: "VE",
    252: "C-SKY",
    258: "LoongArch",
    0x9026: "Alpha",
}

# how messages call an object of each format
CALLED: dict[str, str] = {"elf": "an ELF", "macho": "a Mach-O", "coff": "a COFF"}


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


# first bytes of members that linkers for another kind of object take, and what they are
_FOREIGN = (
    (b"\0asm", "WebAssembly objects"),
    (b"\x01\xdf", "XCOFF objects (AIX)"),
    (b"\x01\xf7", "XCOFF objects (AIX)"),
    (b"\x03\xf0\0", "GOFF objects (z/OS)"),
    (b"MZ", "Windows programs or DLLs"),
)
# those that linkers pass over, where others are there, too
_PASSED = (
    (b"!<arch>\n", "archives (no linker looks into them)"),
    (b"!<thin>\n", "archives (no linker looks into them)"),
    (b"rust", "files of metadata for rustc"),
    (b"go object ", "packages of Go's compiler"),
    (b"\xca\xfe\xba\xbe", "Java classes"),
    (b"\0\0\0\0\x20\0\0\0\xff\xff\0\0", "Windows resource files"),
)


def foreign(head: bytes) -> str:
    """What an object is, in words, that no linker for ELF, Mach-O or COFF objects could take.

    That are objects of other formats, and what is linked already; "" for all else.
    """
    contents = sniff(head)
    if contents == "elf" and len(head) >= 18:
        order: Literal["little", "big"] = "big" if head[5] == 2 else "little"
        kind = int.from_bytes(head[16:18], order)
        return "programs or shared libraries" if kind in (2, 3) else ""
    if contents == "macho" and len(head) >= 16:
        kind = int.from_bytes(head[12:16], "big" if head[0] == 0xFE else "little")
        return "programs or shared libraries" if kind in (2, 6, 8, 9) else ""
    if contents in ("unknown", "archive"):
        return next((what for begin, what in _FOREIGN if head.startswith(begin)), "")
    return ""


def passed_over(head: bytes) -> str:
    """What a member is, in words, that linkers pass over; "" where that is not known."""
    return next((what for begin, what in _PASSED if head.startswith(begin)), "")


def elf_name(machine: tuple[int, int, str]) -> str:
    """How people call the processor of an ELF object, with what else tells it from others."""
    number, bits, order = machine
    name = ELF_MACHINES.get(number, f"ELF machine {number}")
    return f"{name} ({bits}-bit, {order}-endian)"


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
    cpu, subtype = (int.from_bytes(head[offset : offset + 4], order) for offset in (4, 8))
    return cpu, subtype & 0xFFFFFF


def coff_machine(head: bytes) -> int | None:
    """Machine of a COFF object's or short import's first 20 bytes."""
    if len(head) < 20:
        return None
    offset = 6 if head[:4] == b"\0\0\xff\xff" else 0
    return int.from_bytes(head[offset : offset + 2], "little")


def machine_of(contents: str, head: bytes) -> object:
    """What tells the processor in the first 20 bytes of an "elf", "macho" or "coff" object."""
    if contents == "elf":
        return elf_machine(head)
    return macho_machine(head) if contents == "macho" else coff_machine(head)


# LC_VERSION_MIN_MACOSX and its like, and the platforms that they are of
VERSION_MIN = {0x24: 1, 0x25: 2, 0x2F: 3, 0x30: 4}
# Intel's processors in the days of these commands: a simulator
_SIMULATORS = {2: 7, 3: 8, 4: 9}


def minimum_platform(command: int, *, intel: bool) -> int:
    """The platform that one of the LC_VERSION_MIN commands means."""
    platform = VERSION_MIN[command]
    return _SIMULATORS.get(platform, platform) if intel else platform


def macho_platforms(data: memoryview) -> tuple[tuple[int, tuple[int, int, int]], ...]:
    """The platforms that a Mach-O object was built for, in the file's order.

    Each with its number and the version of the oldest system.

    None are told of damaged objects and of those that do not say it. Source: mach-o/loader.h,
    struct build_version_command, struct version_min_command.
    """
    head = bytes(data[:32])
    if head[:4] not in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe") or len(head) < 32:
        return ()
    platforms: list[tuple[int, tuple[int, int, int]]] = []
    position = 32 if head[:1] == b"\xcf" else 28
    intel = head[4:5] == b"\x07"
    for _ in range(int.from_bytes(head[16:20], "little")):
        words = bytes(data[position : position + 16])
        command, size, platform = (int.from_bytes(words[i : i + 4], "little") for i in (0, 4, 8))
        if size < 8 or len(words) < 16:
            break
        if command == 0x32:  # LC_BUILD_VERSION
            platforms.append((platform, (words[14] | words[15] << 8, words[13], words[12])))
        elif command in VERSION_MIN:
            platform = minimum_platform(command, intel=intel)
            platforms.append((platform, (words[10] | words[11] << 8, words[9], words[8])))
        position += size
    return tuple(platforms)
