"""The machines that the system engine supports, by their names in the platform's tools."""

from __future__ import annotations

from dataclasses import dataclass

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.target import Target


@dataclass(frozen=True, slots=True)
class Machine:
    """Names and numbers of an architecture.

    `number` is `e_machine`; `absolute` and `relative` are the relocation types for a 64-bit address
    and for a 32-bit distance: System V ABI processor supplements, "Relocation Types". `emulation`
    is what `ld -m` takes, `gnu` the first part of the GNU triple.
    """

    arch: str
    number: int
    absolute: int
    relative: int
    emulation: str
    gnu: str


MACHINES = {
    m.arch: m
    for m in (
        Machine("x86_64", 62, 1, 2, "elf_x86_64", "x86_64"),
        Machine("aarch64", 183, 257, 261, "aarch64linux", "aarch64"),
    )
}


def machine_of(target: Target) -> Machine:
    """The row of a target's architecture. Raises `UsageError` where there is none."""
    if target.environment.endswith(("x32", "ilp32")) or target.arch not in MACHINES:
        known = " and ".join(MACHINES)
        raise UsageError(
            f"the system engine does not know the architecture of {target.triple}",
            help=f"it knows {known}; use `--engine native` for others",
        )
    return MACHINES[target.arch]


def prefixes(target: Target) -> tuple[str, ...]:
    """Prefixes of GNU tools for a target, the likeliest first: ``aarch64-linux-gnu-`` …

    A tool for another C library can be used: it matters to neither linker nor objcopy here.
    """
    gnu = machine_of(target).gnu
    if target.system == "none":
        systems = ["none-elf", "elf", "linux-gnu"]
    elif target.environment.startswith("musl"):
        systems = ["linux-musl", "linux-gnu"]
    else:
        systems = [f"{target.system}-{target.environment}".rstrip("-"), "linux-gnu", "linux-musl"]
    names = [target.triple, *(f"{gnu}-{s}" for s in systems), f"{gnu}-unknown-linux-gnu"]
    return tuple(f"{name}-" for name in dict.fromkeys(names))
