"""Object files of every format, read to and written from one common model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cargo_strip_hook.core.errors import UsageError

if TYPE_CHECKING:
    from cargo_strip_hook.link.model import Format
    from cargo_strip_hook.link.share.model import Sharing


def format_for(name: str) -> Format:
    """The room of a format: "elf", "macho" or "coff". Raises `UsageError` for another name."""
    if name == "elf":
        from cargo_strip_hook.formats.elf import FORMAT as ELF

        return ELF
    if name == "macho":
        from cargo_strip_hook.formats.macho import FORMAT as MACHO

        return MACHO
    if name == "coff":
        from cargo_strip_hook.formats.coff import FORMAT as COFF

        return COFF
    raise _unknown(name)


def sharing_for(name: str) -> Sharing:
    """What a format's room offers for sharing. Raises `UsageError` as `format_for` does."""
    if name == "elf":
        from cargo_strip_hook.formats.elf.sharing import ElfSharing

        return ElfSharing()
    if name == "macho":
        from cargo_strip_hook.formats.macho.sharing import MachoSharing

        return MachoSharing()
    if name == "coff":
        from cargo_strip_hook.formats.coff.sharing import CoffSharing

        return CoffSharing()
    raise _unknown(name)


def _unknown(name: str) -> UsageError:
    return UsageError(
        f"libraries of the object format {name} are not supported",
        help="supported are ELF (Linux, Android, BSD), Mach-O (Darwin) and COFF (Windows)",
    )
