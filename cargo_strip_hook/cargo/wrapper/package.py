"""The package whose library is compiled, by its Cargo.toml alone.

`cargo metadata` would say more, but cargo would have to run while another cargo waits. Rules:
the Cargo Book, "The Manifest Format" and "Workspaces" (where the root is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cargo_strip_hook.cargo.metadata import Package
from cargo_strip_hook.cargo.tomlfile import Table, read_table, sub_table
from cargo_strip_hook.core.errors import DiscoveryError


@dataclass(frozen=True, slots=True)
class Origin:
    """A package and the manifest of its workspace's root (its own where it has none)."""

    package: Package
    root: Path
    root_table: Table

    @property
    def manifests(self) -> tuple[Path, ...]:
        """The Cargo.toml files of both."""
        return tuple(dict.fromkeys((self.package.manifest, self.root)))


def find_package(environ: Mapping[str, str], crate_name: str) -> Origin:
    """The package that cargo names in the environment of rustc.

    Raises `DiscoveryError` where cargo names no package, and for a manifest that cannot be read.
    """
    folder = environ.get("CARGO_MANIFEST_DIR")
    named = environ.get("CARGO_MANIFEST_PATH")  # since cargo 1.84
    if not folder and not named:
        raise DiscoveryError(
            "cargo does not say which package this is (CARGO_MANIFEST_DIR is not set)",
            help="cargo-strip-hook-rustc is for `build.rustc-workspace-wrapper`; elsewhere use "
            "`cargo strip-hook strip LIB`",
        )
    manifest = Path(named) if named else Path(str(folder), "Cargo.toml")
    table = read_table(manifest)
    root = _root(manifest, table)
    root_table = table if root == manifest else read_table(root)
    package = sub_table(table, "package")
    metadata = package.get("metadata")
    features = sub_table(table, "features")
    return Origin(
        Package(
            id="",
            name=environ.get("CARGO_PKG_NAME") or str(package.get("name", crate_name)),
            version=environ.get("CARGO_PKG_VERSION", "0.0.0"),
            manifest=manifest,
            crate_name=_library_name(table, crate_name),
            crate_types=(),
            features={name: tuple(map(str, needs)) for name, needs in features.items()},
            metadata=metadata if isinstance(metadata, dict) else {},
        ),
        root,
        root_table,
    )


def _library_name(table: Table, crate_name: str) -> str:
    """The library's name in Cargo.toml. (cargo-c calls rustc with another one.)"""
    named = sub_table(table, "lib").get("name") or sub_table(table, "package").get("name")
    return (named if isinstance(named, str) else crate_name).replace("-", "_")


def workspace_metadata(origin: Origin) -> Mapping[str, Any]:
    """The table `workspace.metadata` of the root."""
    return sub_table(origin.root_table, "workspace", "metadata")


def _root(manifest: Path, table: Table) -> Path:
    """The Cargo.toml with the `[workspace]` that a package belongs to."""
    if isinstance(table.get("workspace"), dict):
        return manifest
    named = sub_table(table, "package").get("workspace")
    if isinstance(named, str):
        return manifest.parent / named / "Cargo.toml"
    for folder in manifest.parent.parents:
        candidate = folder / "Cargo.toml"
        if candidate.is_file():
            workspace = read_table(candidate).get("workspace")
            if isinstance(workspace, dict) and not _excluded(workspace, folder, manifest.parent):
                return candidate
    return manifest


def _excluded(workspace: Table, root: Path, package: Path) -> bool:
    names = workspace.get("exclude")
    return any(
        package.is_relative_to(root / name)
        for name in (names if isinstance(names, list) else [])
        if isinstance(name, str)
    )


__all__ = ["Origin", "find_package", "workspace_metadata"]
