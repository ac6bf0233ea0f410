"""Which target a library was built for, from the library itself and from this machine."""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import replace

from cargo_strip_hook.archive import Archive, Member
from cargo_strip_hook.core.errors import ArchiveError, InputError, ObjectError, UsageError
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.sniff import (
    CALLED,
    coff_machine,
    elf_machine,
    foreign,
    macho_machine,
    macho_platforms,
    passed_over,
    sniff,
)

# ELF e_machine, bits, byte order -> architecture and environment as rustc names them: gABI
# "e_machine" and rustc's target specifications
_ELF = {
    (62, 64, "little"): ("x86_64", "gnu"),
    (62, 32, "little"): ("x86_64", "gnux32"),
    (183, 64, "little"): ("aarch64", "gnu"),
    (183, 64, "big"): ("aarch64_be", "gnu"),
    (3, 32, "little"): ("i686", "gnu"),
    (40, 32, "little"): ("armv7", "gnueabihf"),
    (243, 64, "little"): ("riscv64gc", "gnu"),
    (243, 32, "little"): ("riscv32gc", "gnu"),
    (258, 64, "little"): ("loongarch64", "gnu"),
    (21, 64, "little"): ("powerpc64le", "gnu"),
    (21, 64, "big"): ("powerpc64", "gnu"),
    (20, 32, "big"): ("powerpc", "gnu"),
    (22, 64, "big"): ("s390x", "gnu"),
    (8, 32, "big"): ("mips", "gnu"),
    (8, 32, "little"): ("mipsel", "gnu"),
    (8, 64, "little"): ("mips64el", "gnuabi64"),
    (8, 64, "big"): ("mips64", "gnuabi64"),
    (2, 32, "big"): ("sparc", "gnu"),
    (18, 32, "big"): ("sparc", "gnu"),
    (43, 64, "big"): ("sparc64", "gnu"),
    (4, 32, "big"): ("m68k", "gnu"),
    (40, 32, "big"): ("armeb", "gnueabi"),
    (164, 32, "little"): ("hexagon", "musl"),
    (252, 32, "little"): ("csky", "gnuabiv2"),
}
# cputype and cpusubtype of a Mach-O header: mach/machine.h
_MACHO = {
    (0x0100000C, 0): "aarch64",
    (0x0100000C, 1): "aarch64",
    (0x0100000C, 2): "arm64e",
    (0x0200000C, 0): "arm64_32",
    (0x0200000C, 1): "arm64_32",
    (0x01000007, 3): "x86_64",
    (0x01000007, 8): "x86_64h",
    (7, 3): "i686",
    (12, 9): "armv7",
    (12, 11): "armv7s",
    (12, 12): "armv7k",
}
_HELP_TARGET = "name the library's own target with `--target`"
_HEADER, _SECTION = 20, 40  # bytes of a COFF file's header, and of a section's
# how the architectures of universal files are called in targets, where that differs
_SLICES = {"arm64": "aarch64", "arm64v8": "aarch64", "i386": "i686"}
# Machine of a COFF header: PE format, "Machine Types"
_COFF = {0x8664: "x86_64", 0xAA64: "aarch64", 0x14C: "i686", 0xA641: "arm64ec", 0x1C4: "thumbv7a"}


def is_import_member(data: memoryview) -> bool:
    """Whether a member of an archive only says which DLL has the code.

    Source: the Microsoft PE/COFF specification, "Import Library Format": short imports begin with
    0x0000 0xFFFF and version 0; the others are objects with `.idata$` sections.
    """
    if len(data) < _HEADER:
        return False
    signature, second, version = struct.unpack_from("<HHH", data)
    if signature == 0 and second == 0xFFFF:
        return bool(version == 0)  # version 2 is a big object
    sections, optional_size = second, struct.unpack_from("<H", data, 16)[0]
    start = _HEADER + optional_size
    if start + sections * _SECTION > len(data):
        return False
    offsets = range(start, start + sections * _SECTION, _SECTION)
    names = (bytes(data[offset : offset + 8]) for offset in offsets)
    return any(name.startswith(b".idata$") for name in names)


def deduce_target(archive: Archive) -> Target:
    """The target of an archive's first object; this machine's where no object says it.

    An ELF object names its machine, not its operating system: the library is taken for one for
    Linux (with musl where the archive brings musl's own objects). A Mach-O object names its
    platform as well; where none does (assembly), macOS is taken.

    Raises `ArchiveError` where a slice of a universal file holds objects for another architecture
    than the file says.
    """
    target = _deduce(archive)
    said = archive.slice.architecture
    if said and target.arch != architecture_of(archive.slice):
        raise ArchiveError(
            f"the slice for {said} holds objects for {target.arch}", path=str(archive.slice)
        )
    return target


def architecture_of(slice_: Slice) -> str:
    """The architecture that a universal file says a slice is for, as targets call it."""
    return _SLICES.get(slice_.architecture, slice_.architecture)


def slice_target(archive: Archive, named: Target) -> Target:
    """The target of one slice of a universal file, `named` being that of the whole file.

    No triple names two architectures: one that was named holds for its own, and what the others
    are for their objects say. Raises as `deduce_target` does.
    """
    target = deduce_target(archive)
    return named if named.arch == target.arch else target


def must_be_for(archive: Archive, target: Target) -> None:
    """Raise `InputError` where the first object is not for a target, or there is nothing at all.

    Of what says no processor that is known here nothing is said; readers look at every object.
    Raises also as `must_have_objects`.
    """
    must_have_objects(archive)
    if any(m.name == "lib.rmeta" for m in archive.members):
        raise InputError(
            "this is a library for rustc (.rlib), not a static library for others",
            path=archive.slice.name,
            help='build it with `crate-type = ["staticlib"]`, or with cargo-c',
        )
    for member in archive.members:
        head = bytes(archive.data(member)[:20])
        kind = sniff(head)
        if kind not in ("elf", "macho", "coff"):
            continue
        must_be_format(archive, member.name, kind, target)
        arch = _architecture(kind, head)
        if arch and _family(arch) != _family(target.arch):
            raise InputError(
                f"this object is for {arch}, but the target is {target.triple}",
                path=archive.slice.name,
                member=member.name,
                help=_HELP_TARGET,
            )
        return


_HELP_FOREIGN = {
    "WebAssembly objects": "use the original: wasm-ld leaves out what is not needed",
    "programs or shared libraries": "name the static library; `strip` makes others smaller",
    "packages of Go's compiler": "build with `go build -buildmode=c-archive`",
    "archives (no linker looks into them)": "take them out with `ar x`, and name one of these",
    "files of metadata for rustc": 'build it with `crate-type = ["staticlib"]`, or with cargo-c',
}
_HELP_BITCODE = (
    "build without linker-plugin LTO (no `-C linker-plugin-lto`), "
    "or set `lto = true` in the profile so that rustc makes machine code"
)


def must_have_objects(archive: Archive) -> None:
    """Raise `InputError` or `ObjectError` where a library has no objects that can be prelinked.

    Or where it has some of another kind besides, of which linkers differ in what they do.
    """
    if not archive.members:
        raise InputError(
            "the archive is empty", path=archive.slice.name, help="build the library again"
        )
    objects: list[Member] = []
    others: dict[str, Member] = {}
    bitcode: Member | None = None
    imports = False
    for member in archive.members:
        data = archive.data(member)
        head = bytes(data[:20])
        kind, what = sniff(head), foreign(head)
        if what:
            others.setdefault(what, member)
        elif kind == "coff-import" or (kind == "coff" and not objects and is_import_member(data)):
            imports = True
        elif kind in ("elf", "macho", "coff"):
            objects.append(member)
        elif kind == "bitcode":
            bitcode = bitcode or member
    if objects and others:
        what, member = next(iter(others.items()))
        raise InputError(
            f"the archive mixes objects of different kinds: {objects[0].name} and {member.name}, "
            f"which is one of {what}",
            path=archive.slice.name,
            member=member.name,
            help=f"linkers differ about it: take it out with `ar d LIB {member.name}`",
        )
    if objects:
        return
    if bitcode is not None:
        raise only_bitcode(archive, bitcode)
    if imports:
        raise InputError(
            "this is the import library of a DLL, not a static library",
            path=archive.slice.name,
            help="it holds no code and must stay as it is; name the static library: "
            "lib<name>.a for MinGW (not .dll.a), <name>.lib for MSVC (not .dll.lib)",
        )
    passed = (passed_over(bytes(archive.data(m)[:20])) for m in archive.members)
    what = next(iter(others), "") or next((p for p in passed if p), "")
    raise InputError(
        f"the members are {what}, which are not supported"
        if what
        else "the archive holds no object files",
        path=archive.slice.name,
        help=_HELP_FOREIGN.get(what, "use the original, or build the library again"),
    )


def only_bitcode(archive: Archive, member: Member) -> ObjectError:
    """The error for a member without machine code."""
    return ObjectError(
        "this member is LLVM bitcode, which only LLVM's linker can read",
        path=archive.slice.name,
        member=member.name,
        help=_HELP_BITCODE,
    )


def must_be_format(archive: Archive, member: str, kind: str, target: Target) -> None:
    """Raise `InputError` where the format of a member is not a target's."""
    if kind != target.object_format:
        raise InputError(
            f"this is {CALLED[kind]} object, but the target is {target.triple}",
            path=archive.slice.name,
            member=member,
            help=_HELP_TARGET,
        )


def _architecture(kind: str, head: bytes) -> str:
    """The architecture of an object whose first 20 bytes are `head`; "" for one not known here."""
    if kind == "elf":
        machine = elf_machine(head)
        return _ELF.get(machine, ("", ""))[0] if machine else ""
    if kind == "macho":
        return _MACHO.get(macho_machine(head) or (0, 0), "")
    return _COFF.get(coff_machine(head) or 0, "")


def _family(arch: str) -> str:
    """What rustc's names of architectures have in common that use the same machine number."""
    if arch in ("arm64e", "arm64", "arm64ec"):  # readers refuse what they cannot do by its name
        return "aarch64"
    if re.fullmatch("i[3-6]86", arch):
        return "i686"
    for family in ("arm64_32", "arm", "thumb"):
        if arch.startswith(family):
            return "arm" if family == "thumb" else family
    for family in ("riscv32", "riscv64", "x86_64", "mips64", "mips"):
        if arch.startswith(family):
            return family
    return arch


def _deduce(archive: Archive) -> Target:
    macho = ""
    for member in archive.members:
        head = bytes(archive.data(member)[:20])
        kind = sniff(head)
        if kind == "elf":
            machine = elf_machine(head)
            known = _ELF.get(machine) if machine else None
            if known is not None:
                return Target.parse(f"{known[0]}-unknown-linux-{_c_library(archive, known[1])}")
        elif kind == "macho":
            macho = macho or _architecture(kind, head)
            platforms = macho_platforms(archive.data(member)) if macho else ()
            if platforms:
                return _apple(macho, platforms[0][0])
        elif kind == "coff":
            arch = _architecture(kind, head)
            if arch:
                environment = "msvc" if archive.path.suffix == ".lib" else "gnu"
                return Target.parse(f"{arch}-pc-windows-{environment}")
    return _apple(macho, 1) if macho else host_target()


def with_lowest(archive: Archive, target: Target) -> Target:
    """The target with the oldest system that the library can run on, which its objects say.

    The highest minimum of all is that of the result, too; other targets than Apple's stay as
    they are.
    """
    platform = target.apple_platform
    if platform is None:
        return target
    all_of = (macho_platforms(archive.data(member)) for member in archive.members)
    said = [version for platforms in all_of for number, version in platforms if number == platform]
    return replace(target, lowest=max(said)) if said else target


def _apple(arch: str, platform: int) -> Target:
    try:
        return Target.apple(arch, platform)
    except UsageError:
        return Target.apple(arch, 1)  # and what reads the objects refuses the platform by its name


def _c_library(archive: Archive, environment: str) -> str:
    # Rust's musl targets bundle libc, whose objects musl's makefile names *.lo
    if any(member.name.endswith(".lo") for member in archive.members):
        return environment.replace("gnu", "musl", 1)
    return environment


def host_target() -> Target:
    """This machine, without asking rustc."""
    import platform

    arch = platform.machine().lower()
    arch = {"amd64": "x86_64", "arm64": "aarch64", "i386": "i686"}.get(arch, arch) or "x86_64"
    if sys.platform == "darwin":
        return Target.parse(f"{arch}-apple-darwin")
    if sys.platform == "win32":
        return Target.parse(f"{arch}-pc-windows-msvc")
    return Target.parse(f"{arch}-unknown-linux-gnu")
