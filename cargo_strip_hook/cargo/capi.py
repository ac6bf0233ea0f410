"""``[package.metadata.capi]``: the names and folders of what cargo-c 0.10 builds.

Source of every rule: cargo-c 0.10.24, `src/build.rs` (`load_manifest_capi_config`,
`InstallTargetPaths`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from cargo_strip_hook.cargo.metadata import Package
from cargo_strip_hook.cargo.tomlfile import sub_table, type_name
from cargo_strip_hook.core.errors import DiscoveryError, UsageError


@dataclass(frozen=True, slots=True)
class IncludeFiles:
    """Headers that the package ships: `pattern` below the package's root, or if `generated` below
    its build script's OUT_DIR; `to` is the folder below the include directory."""

    pattern: str
    to: str
    generated: bool


@dataclass(frozen=True, slots=True)
class Capi:
    """The keys of `metadata.capi` that decide which files there are, and where.

    `header_name` may lack its extension; `header_generation` says that cbindgen writes that header;
    `library_version` is that of the shared library.
    """

    library_name: str
    library_version: str
    install_subdir: str | None
    versioning: bool
    header_enabled: bool
    header_generation: bool
    header_name: str
    header_subdirectory: str
    include: tuple[IncludeFiles, ...]
    pkg_config_name: str
    pkg_config_filename: str

    @property
    def crate_name(self) -> str:
        """The library's name: cargo-c renames the library target to it, and so the crate."""
        return self.library_name.replace("-", "_")

    @property
    def header_file(self) -> PurePath:
        """The generated header, relative to the folder it is written to."""
        return PurePath(self.header_name).with_suffix(".h")


def load_capi(package: Package) -> Capi:
    """Read a package's `metadata.capi`, with cargo-c's defaults for missing keys.

    A value of the wrong type is ignored where cargo-c ignores it; where cargo-c fails, raises
    `UsageError`. Raises `DiscoveryError` for a package without a library.
    """
    if package.crate_name is None:
        raise DiscoveryError(f"package `{package.name}` has no library target")
    crate = package.crate_name
    capi = sub_table(package.metadata, "capi")
    header = sub_table(capi, "header")
    library = sub_table(capi, "library")
    pkg_config = sub_table(capi, "pkg_config")

    subfolder = header.get("subdirectory", True)
    if isinstance(subfolder, bool):
        subfolder = crate if subfolder else ""
    subdirectory: str = _typed(subfolder, str, "header.subdirectory", package)
    # `header_name` beside the tables is the old form, which 0.10 still accepts
    name = header.get("name", capi.get("header_name", crate))
    name = _typed(name, str, "header.name", package)
    if not name:
        raise UsageError(f"`package.metadata.capi.header.name` in {package.manifest} is empty")

    asset = name if name.endswith(".h") else f"{name}.h"
    include = [
        IncludeFiles("assets/capi/include/**/*", subdirectory, False),
        IncludeFiles(f"assets/{asset}", subdirectory, False),
        IncludeFiles("capi/include/**/*", subdirectory, True),
    ]
    custom = sub_table(capi, "install", "include")
    include += _custom(custom, "asset", subdirectory, package)
    include += _custom(custom, "generated", subdirectory, package)

    subdir = library.get("install_subdir")
    versioning = library.get("versioning")
    return Capi(
        library_name=_string_or(library.get("name"), crate),
        library_version=_string_or(library.get("version"), package.version),
        install_subdir=subdir if isinstance(subdir, str) else None,
        versioning=versioning if isinstance(versioning, bool) else True,
        header_enabled=_typed(header.get("enabled", True), bool, "header.enabled", package),
        header_generation=_typed(
            header.get("generation", True), bool, "header.generation", package
        ),
        header_name=name,
        header_subdirectory=subdirectory,
        include=tuple(include),
        pkg_config_name=_string_or(pkg_config.get("name"), crate),
        pkg_config_filename=_string_or(pkg_config.get("filename"), crate),
    )


def _string_or(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) else otherwise


def _typed(value: object, kind: type, key: str, package: Package) -> Any:
    if not isinstance(value, kind):
        wanted = "a boolean" if kind is bool else "a string"
        raise UsageError(
            f"`package.metadata.capi.{key}` in {package.manifest} must be {wanted}, "
            f"not {type_name(value)}"
        )
    return value


def _custom(
    table: Mapping[str, Any], kind: str, default_to: str, package: Package
) -> list[IncludeFiles]:
    entries = table.get(kind)
    include: list[IncludeFiles] = []
    for entry in entries if isinstance(entries, list) else []:
        pattern = entry.get("from") if isinstance(entry, dict) else None
        if not isinstance(pattern, str):
            raise UsageError(
                f"`package.metadata.capi.install.include.{kind}` in {package.manifest} has an "
                "entry without `from`"
            )
        include.append(
            IncludeFiles(pattern, _string_or(entry.get("to"), default_to), kind == "generated")
        )
    return include


def shipped_headers(files: IncludeFiles, root: Path) -> list[tuple[Path, PurePath]]:
    """The files that a pattern finds below `root`, each with its path in the include directory."""
    parts = PurePath(files.pattern).parts
    if "/**" in files.pattern:
        base = root.joinpath(*parts[: parts.index("**")] if "**" in parts else parts)
    else:
        base = (root / files.pattern).parent
    pattern = os.path.join(glob.escape(os.fspath(root)), files.pattern)  # noqa: PTH118
    headers: list[tuple[Path, PurePath]] = []
    for text in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        path = Path(text)
        if path.is_file() and path.is_relative_to(base):
            headers.append((path, PurePath(files.to) / path.relative_to(base)))
    return headers
