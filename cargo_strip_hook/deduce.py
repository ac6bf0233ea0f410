"""Which target a library was built for, from the library itself and from this machine."""

from __future__ import annotations

import re
import sys

from cargo_strip_hook.archive import Archive, Part
from cargo_strip_hook.errors import ArchiveError, InputError, UsageError
from cargo_strip_hook.objects.sniff import (
    CALLED,
    coff_machine,
    elf_machine,
    macho_machine,
    macho_platforms,
    sniff,
)
from cargo_strip_hook.target import Target

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
# how the architectures of universal files are called in targets, where that differs
_SLICES = {"arm64": "aarch64", "arm64v8": "aarch64", "i386": "i686"}
# Machine of a COFF header: PE format, "Machine Types"
_COFF = {0x8664: "x86_64", 0xAA64: "aarch64", 0x14C: "i686", 0xA641: "arm64ec", 0x1C4: "thumbv7a"}


def deduce_target(archive: Archive) -> Target:
    """The target of an archive's first object; this machine's where no object says it.

    An ELF object names its machine, not its operating system: the library is taken for one for
    Linux (with musl where the archive brings musl's own objects). A Mach-O object names its
    platform as well; where none does (assembly), macOS is taken.

    Raises `ArchiveError` where a slice of a universal file holds objects for another architecture
    than the file says.
    """
    found = _deduce(archive)
    said = archive.part.architecture
    if said and found.arch != architecture_of(archive.part):
        raise ArchiveError(
            f"the slice for {said} holds objects for {found.arch}", path=str(archive.part)
        )
    return found


def architecture_of(part: Part) -> str:
    """The architecture that a universal file says a slice is for, as targets call it."""
    return _SLICES.get(part.architecture, part.architecture)


def slice_target(archive: Archive, named: Target) -> Target:
    """The target of one slice of a universal file, `named` being that of the whole file.

    No triple names two architectures: one that was named holds for its own, and what the others
    are for their objects say. Raises as `deduce_target` does.
    """
    found = deduce_target(archive)
    return named if named.arch == found.arch else found


def must_be_for(archive: Archive, target: Target) -> None:
    """Raise `InputError` where the first object is not for a target, or there is nothing at all.

    Of what says no processor that is known here nothing is said; readers look at every object.
    """
    if not archive.members:
        raise InputError(
            "the archive is empty", path=archive.part.name, help="build the library again"
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
                path=archive.part.name,
                member=member.name,
                help=_HELP_TARGET,
            )
        return


def must_be_format(archive: Archive, member: str, kind: str, target: Target) -> None:
    """Raise `InputError` where the format of a member is not a target's."""
    if kind != target.object_format:
        raise InputError(
            f"this is {CALLED[kind]} object, but the target is {target.triple}",
            path=archive.part.name,
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
                return _apple(macho, platforms[0])
        elif kind == "coff":
            arch = _architecture(kind, head)
            if arch:
                environment = "msvc" if archive.path.suffix == ".lib" else "gnu"
                return Target.parse(f"{arch}-pc-windows-{environment}")
    return _apple(macho, 1) if macho else host_target()


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
