"""Whether two results are the same program: a library and its twin with debug information."""

from __future__ import annotations

from pathlib import Path

from cargo_strip_hook.verify.index import read_listing

_SHF_ALLOC = 2


def differences(candidate: Path, twin: Path) -> tuple[str, ...]:
    """What is not the same in the allocated sections of two archives with one ELF object each.

    Relocations are not compared: each archive was verified against the original on its own.
    """
    first, second = (_allocated(path) for path in (candidate, twin))
    if [s[0] for s in first] != [s[0] for s in second]:
        return ("the twin has other allocated sections",)
    return tuple(
        f"the twin's {name} {what}"
        for (name, *old), (_, *new) in zip(first, second, strict=True)
        for what, a, b in (
            ("has another type, size or alignment", old[0], new[0]),
            ("has other contents", old[1], new[1]),
        )
        if a != b
    )


def _allocated(path: Path) -> list[tuple[str, tuple[object, ...], bytes]]:
    """Name, header fields and contents of each allocated section, by pyelftools."""
    import io

    from elftools.elf.elffile import ELFFile

    data = path.read_bytes()
    _, offset, size = read_listing(data).members[0]
    if data[offset : offset + 4] != b"\x7fELF":
        return []
    found = []
    for section in ELFFile(io.BytesIO(data[offset : offset + size])).iter_sections():
        if section["sh_flags"] & _SHF_ALLOC:
            facts = ("sh_size", "sh_addralign", "sh_flags", "sh_entsize")
            kind = section["sh_type"]
            body = b"" if kind == "SHT_NOBITS" else section.data()
            found.append((section.name, (str(kind), *(section[f] for f in facts)), body))
    return found
