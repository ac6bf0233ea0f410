"""The public symbols of a crate with neither a header nor a shared library.

rustc names a code-generation unit ``CRATE[-HASH].….rcgu.o`` (``CRATE`` with underscores; the hash
is ``-C extra-filename``; cargo-c sets none), as rustc 1.95 and 1.96 do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cargo_strip_hook.core.errors import ExportsError
from cargo_strip_hook.core.requests import DefinedSymbol

_HASH = re.compile(r"-[0-9a-f]{16}$")
# Legacy mangling and C++ (_Z), v0 mangling (RFC 2603: _R, a version, an upper-case path tag),
# and names that rustc and LLVM generate.
_INTERNAL = re.compile(
    r"_Z|_R[0-9]*[A-Z]|__rust|__rdl_|__rg_|rust_eh_personality$|rust_begin_unwind$|rust_panic$"
    r"|rust_metadata_|alloc_[0-9a-f]{32}|__start_|__stop_|__imp_|\?|__real@|__[xyz]mm@|_CT\?|_TI[0-9]"
)

# std and its dependencies: `library/` and its Cargo.lock, rustc 1.63 to 1.96
_TOOLCHAIN = frozenset(
    {
        *("std", "core", "alloc", "proc_macro", "test", "std_detect", "portable_simd", "sysroot"),
        *("panic_abort", "panic_unwind", "unwind", "compiler_builtins", "profiler_builtins"),
        *("rustc_std_workspace_alloc", "rustc_std_workspace_core", "rustc_std_workspace_std"),
        *("rustc_demangle", "rustc_literal_escaper", "addr2line", "gimli", "object", "adler"),
        *("adler2", "miniz_oxide", "hashbrown", "memchr", "cfg_if", "libc", "getopts"),
        *("unicode_width", "fortanix_sgx_abi", "hermit_abi", "wasi", "r_efi", "r_efi_alloc"),
        *("windows_targets", "windows_link", "dlmalloc", "vex_sdk", "moto_rt", "safety"),
    }
)


def crate_of(member: str) -> str | None:
    """The crate that a member belongs to, None for an object that is not rustc's."""
    name = member.rpartition("/")[2]
    if not name.endswith(".rcgu.o"):
        return None
    return _HASH.sub("", name.partition(".")[0])


def crate_symbols(
    defined: Iterable[DefinedSymbol], crate_name: str | None, prefix: str
) -> tuple[str, list[DefinedSymbol]]:
    """The crate's name and its unmangled global definitions.

    Without a `crate_name` it is the crate of rustc's first member: rustc puts the crate's own units
    first. Raises `ExportsError` where no member belongs to the crate.
    """
    wanted = crate_name.replace("-", "_") if crate_name else None
    own: list[DefinedSymbol] = []
    crates: dict[str, None] = {}
    for symbol in defined:
        crate = crate_of(symbol.member)
        if crate is None:
            continue
        crates[crate] = None
        if wanted is None:
            wanted = crate
        if crate == wanted:
            own.append(symbol)
    if wanted is None or wanted not in crates:
        known = ", ".join(list(crates)[:8]) or "none"
        what = f"the crate `{wanted}`" if wanted else "any Rust crate"
        raise ExportsError(
            f"the archive has no code-generation unit of {what} (found: {known})",
            help="name the public symbols with --export PATTERN, --header FILE or --cdylib FILE",
            absent=True,
        )
    return wanted, [s for s in own if not s.hidden and is_public_name(s.name, prefix)]


def every_crate_symbols(
    defined: Iterable[DefinedSymbol], crate_name: str | None, prefix: str
) -> list[DefinedSymbol]:
    """What a cdylib of the library would export: unmangled definitions of all crates but std's.

    rustc exports the `#[no_mangle]` and `#[export_name]` items of all crates that are linked, and
    nothing of C objects (`rustc_codegen_ssa/src/back/symbol_export.rs`, `linker.rs`). With fat LTO
    all Rust code is in one member, so that only names can tell. The crate itself (`crate_name`)
    may have the same name as one of std's.
    """
    wanted = crate_name.replace("-", "_") if crate_name else None
    return [
        symbol
        for symbol in defined
        if not symbol.hidden
        and (crate := crate_of(symbol.member)) is not None
        and (crate == wanted or crate not in _TOOLCHAIN)
        and is_public_name(symbol.name, prefix)
    ]


def is_public_name(name: str, prefix: str) -> bool:
    """Whether a person chose a definition's name: it is neither mangled nor rustc's own."""
    if prefix and name.startswith(prefix):
        name = name[len(prefix) :]
    # A dot: DW.ref.…, anon.…, switch.table.…, str.0, f.llvm.123
    return "." not in name and _INTERNAL.match(name) is None
