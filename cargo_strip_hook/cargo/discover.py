"""Finding the static libraries that cargo-c built for a `Selection`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from cargo_strip_hook.cargo.capi import Capi, load_capi
from cargo_strip_hook.cargo.cbindgen import active_defines, load_defines
from cargo_strip_hook.cargo.cfg import CfgSet, feature_cfg
from cargo_strip_hook.cargo.config import CargoConfig, load_config
from cargo_strip_hook.cargo.implib import refuse_import_library
from cargo_strip_hook.cargo.metadata import (
    Package,
    Workspace,
    enabled_features,
    load_workspace,
    select_packages,
)
from cargo_strip_hook.cargo.paths import (
    BuildTree,
    InstallTree,
    LibraryNames,
    build_tree,
    built_headers,
    header_paths,
    install_tree,
    installed_headers,
    installed_shared,
    library_names,
)
from cargo_strip_hook.cargo.profile import default_strip
from cargo_strip_hook.cargo.rustc import Rustc, cfg_of, configured_target, find_rustc, target_name
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.settings import Settings, settings_of
from cargo_strip_hook.cargo.stale import newer_source
from cargo_strip_hook.cargo.tomlfile import read_table
from cargo_strip_hook.core.errors import DiscoveryError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.core.targetspec import named_target

__all__ = ["Artefact", "Selection", "find_libraries"]


@dataclass(frozen=True, slots=True)
class Artefact:
    """The static library of a package, and what belongs to it. Picklable.

    `headers`: the C headers that exist for it (the generated one first). `header_expected`: the
    package asks cargo-c for one, so that its absence is worth a warning. `cdylib`: the shared
    library beside it, where there is one. `crate_name`: the crate's name in code-generation units.
    `defines`: C define -> cfg expression, from cbindgen.toml's `[defines]`; `active_defines` are
    those whose expression holds for the target and features.
    `settings`: `[package.metadata.strip-hook]` over the workspace's, with overrides for the target.
    `strip_default`: what Cargo's profile implies. `folder` is for libraries that are no plugins.
    `pkg_config`: the .pc files that speak of it; of a build also the one for programs beside it.
    """

    package: str
    version: str
    library: Path
    target: Target
    headers: tuple[Path, ...]
    header_expected: bool
    cdylib: Path | None
    crate_name: str
    defines: Mapping[str, str]
    active_defines: tuple[str, ...]
    settings: Settings
    strip_default: Strip
    warnings: tuple[str, ...]
    is_installed: bool
    folder: Path = Path()
    pkg_config: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Context:
    """What all packages of a call share."""

    selection: Selection
    workspace: Workspace
    config: CargoConfig
    rustc: Rustc
    target: Target
    tree: BuildTree

    @cached_property
    def cfg(self) -> CfgSet:
        return cfg_of(self.target, self.rustc)

    @cached_property
    def strip(self) -> Strip:
        manifest = read_table(self.workspace.manifest)
        return default_strip(self.selection.profile_name, manifest, self.config)

    @cached_property
    def installed(self) -> InstallTree:
        return install_tree(self.selection, self.target, Target.parse(self.rustc.host))


@dataclass(frozen=True, slots=True)
class _File:
    """A library file and how it was built; `crate` is the name of its crate for rustc."""

    library: Path
    crate: str
    cdylib: Path
    by_cargo_c: bool
    warnings: tuple[str, ...] = ()


def find_libraries(selection: Selection) -> tuple[Artefact, ...]:
    """The libraries of the selected packages, in workspace order.

    Where cargo-c built none, the one that plain cargo built (``crate-type = ["staticlib"]``) is
    taken. Raises `DiscoveryError`, which names every path that was tried, where there is none,
    where there are several, and for a DLL's import library; `UsageError` for selections and
    settings that make no sense; `ToolError` where cargo or rustc fails.
    """
    from cargo_strip_hook.cargo.versions import rustc_warnings

    if selection.library_types and "staticlib" not in selection.library_types:
        raise DiscoveryError(
            "--library-type cdylib makes no static library", help="add --library-type staticlib"
        )
    config = load_config(selection.config)
    workspace = load_workspace(selection)
    packages = select_packages(workspace, selection)
    rustc = find_rustc(config)
    asked = target_name(selection.target, rustc.host) if selection.target else None
    triple = asked or configured_target(config, rustc)
    target = _target(triple or rustc.host, selection, config, workspace)
    tree = build_tree(workspace, selection, target.triple, rustc.host, explicit=triple is not None)
    context = _Context(selection, workspace, config, rustc, target, tree)
    artefacts = [_artefact(package, context) for package in packages]
    _refuse_shared_paths(artefacts)
    warnings = rustc_warnings(rustc)
    if warnings:
        artefacts[0] = replace(artefacts[0], warnings=(*warnings, *artefacts[0].warnings))
    return tuple(artefacts)


def _target(name: str, selection: Selection, config: CargoConfig, workspace: Workspace) -> Target:
    """The target that cargo calls `name`, which may be the file of a specification."""
    text = selection.target or config.get("build", "target")
    if isinstance(text, list):
        text = text[0] if text else None
    is_file = isinstance(text, str) and text.endswith(".json")
    target = named_target(str(text) if is_file else name, [workspace.manifest.parent])
    return replace(target, triple=name)  # by which cargo names its folder


def _refuse_shared_paths(artefacts: list[Artefact]) -> None:
    owners: dict[Path, str] = {}
    for artefact in artefacts:
        other = owners.setdefault(artefact.library, artefact.package)
        if other != artefact.package:
            raise DiscoveryError(
                f"packages `{other}` and `{artefact.package}` have the same library "
                f"{artefact.library}, and the last one built is in it",
                help="choose one with -p, or give one another "
                "`[package.metadata.capi.library] name`",
            )


def _artefact(package: Package, context: _Context) -> Artefact:
    selection, target = context.selection, context.target
    workspace = context.workspace
    settings = settings_of(
        package, workspace.metadata, workspace.manifest, target, lambda: context.cfg
    )
    capi = load_capi(package)
    names = library_names(target, capi.library_name, meson_paths=selection.meson_paths)
    if selection.installed:
        file = _find_installed(package, capi, names, context)
        headers = installed_headers(capi, package, context.tree, context.installed)
    else:
        file = _find_built(package, capi, names, context)
        headers = built_headers(capi, package, context.tree, by_cargo_c=file.by_cargo_c)
    if target.object_format == "coff":
        refuse_import_library(file.library)
    warnings = list(file.warnings)
    source = newer_source(file.library, _dep_infos(file, context), package.root)
    if source is not None:
        again = "cinstall" if selection.installed else "cbuild"
        warnings.append(
            f"{file.library} is older than {source}: run `cargo {again}` again before stripping"
        )
    defines = load_defines(package.root)
    active: tuple[str, ...] = ()
    if defines:
        options = context.cfg | feature_cfg(enabled_features(package, selection))
        active, odd = active_defines(defines, options)
        warnings += [
            f"{package.root / 'cbindgen.toml'}: `{text}` under [defines] is not understood"
            for text in odd
        ]
    return Artefact(
        package=package.name,
        version=package.version,
        library=file.library,
        target=target,
        headers=headers,
        header_expected=file.by_cargo_c and bool(header_paths(capi, package, context.tree)),
        cdylib=file.cdylib if file.cdylib.is_file() else None,
        crate_name=file.crate,
        defines=defines,
        active_defines=active,
        settings=settings,
        strip_default=context.strip,
        warnings=tuple(warnings),
        is_installed=selection.installed,
        folder=context.installed.libdir if selection.installed else file.library.parent,
        pkg_config=_pkg_config(file, capi, context),
    )


def _pkg_config(file: _File, capi: Capi, context: _Context) -> tuple[Path, ...]:
    """The .pc files of a library; those of a build are beside it (cargo-c `src/build.rs`)."""
    name = capi.pkg_config_filename
    if context.selection.installed:
        paths = [context.installed.pkgconfigdir / f"{name}.pc"]
    elif file.by_cargo_c:
        folder = file.library.parent
        paths = [folder / f"{name}.pc", folder / f"{name}-uninstalled.pc"]
    else:
        paths = []
    return tuple(path for path in paths if path.is_file())


def _dep_infos(file: _File, context: _Context) -> list[Path]:
    """The files in which cargo may list the library's sources: beside its outputs."""
    names = (f"lib{file.crate}.d", f"{file.crate}.d")
    folders = (file.library.parent, context.tree.output)
    return [folder / name for folder in folders for name in names]


def _find_built(package: Package, capi: Capi, names: LibraryNames, context: _Context) -> _File:
    tree, target = context.tree, context.target
    crate = package.crate_name or ""
    own = tree.output / names.static
    plain_names = library_names(target, crate)
    plain = [folder / plain_names.static for folder in tree.plain_outputs]
    if package.has_capi and own.is_file():
        marks = (f"cargo-c-{package.name}.cache", f"{capi.pkg_config_filename}.pc")
        # cargo-c's own files may be with the header, see `BuildTree.header_outputs`
        by_cargo_c = any((d / mark).is_file() for d in tree.header_outputs for mark in marks)
        if by_cargo_c:
            newer = [p for p in plain if p != own and p.is_file() and _time(p) > _time(own)]
            warnings = tuple(
                f"{p} is newer than {own}, which cargo-c made and which is the one taken"
                for p in newer
            )
            return _File(own, capi.crate_name, tree.output / names.shared, True, warnings)
    looked_at = list(dict.fromkeys([own, *plain] if package.has_capi else plain))
    present = [p for p in dict.fromkeys(plain) if p.is_file()]
    if len(present) > 1:
        raise DiscoveryError(
            f"several libraries could be that of package `{package.name}`: "
            + ", ".join(map(os.fspath, present)),
            help=(
                f"choose one with --target ({target.triple} for the second)",
                "or name the file: cargo strip-hook strip LIB",
            ),
        )
    if present:
        return _File(present[0], crate, present[0].parent / plain_names.shared, False)
    if package.has_capi and own.is_file():
        return _File(own, capi.crate_name, own.parent / names.shared, True)
    raise _none_found(package, looked_at, names, context)


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


def _find_installed(package: Package, capi: Capi, names: LibraryNames, context: _Context) -> _File:
    installed = context.installed
    folder = installed.libdir / capi.install_subdir if capi.install_subdir else installed.libdir
    library = folder / names.installed_static
    if not library.is_file():
        raise _none_found(package, [library], names, context)
    shared = installed_shared(installed, capi, context.target, names)
    return _File(library, capi.crate_name, shared, True)


def _none_found(
    package: Package, looked_at: list[Path], names: LibraryNames, context: _Context
) -> DiscoveryError:
    """The error that says which paths were tried, what is there instead, and what to do."""
    from cargo_strip_hook.cargo.versions import cargo_c_warnings

    selection = context.selection
    help: list[str] = []
    if names.import_library is not None:
        for path in looked_at:
            other = path.parent / names.import_library
            if other.is_file() and other not in looked_at:
                help.append(f"{other} is the import library of a DLL, not a static library")
    elsewhere = _elsewhere(names, context)
    if elsewhere:
        help.append("there is one in another place: " + ", ".join(map(os.fspath, elsewhere)))
        help.append(
            "choose it with --libdir and --prefix"
            if selection.installed
            else "choose it with --release, --profile, --target or --target-dir"
        )
    else:
        again = "cinstall" if selection.installed else "cbuild"
        help.append(f"build it first, for example with `cargo {again}`")
    if (
        context.tree.explicit
        and not selection.target
        and context.target.triple != (context.rustc.host)
    ):
        # cargo-c 0.10.24 fails, or leaves header and .pc in the host's folder
        help.append(
            "cargo-c overlooks `build.target` and CARGO_BUILD_TARGET when it places files: "
            f"give both commands --target {context.target.triple}"
        )
    if not package.has_capi:
        help.append(
            f"package `{package.name}` has no `capi` feature, so that cargo-c does not build it"
        )
    help += cargo_c_warnings()
    return DiscoveryError(
        f"no static library of package `{package.name}` "
        f"({selection.profile_name} profile, {context.target.triple})",
        lines=[f"looked at {path}" for path in looked_at],
        help=help,
    )


def _elsewhere(names: LibraryNames, context: _Context) -> list[Path]:
    """Libraries of that name in folders of other profiles and targets, or other library folders."""
    if context.selection.installed:
        # it may be in any of lib, lib64 and lib/<multiarch>
        libdir, name = context.installed.libdir, names.installed_static
        paths = {
            path
            for root in (libdir.parent, libdir.parent.parent)
            for pattern in (f"lib*/{name}", f"lib*/*/{name}")
            for path in root.glob(pattern)
        }
    else:
        target_dir = context.workspace.target_dir
        paths = {*target_dir.glob(f"*/{names.static}"), *target_dir.glob(f"*/*/{names.static}")}
    return sorted(p for p in paths if p.is_file() and p.parent.name != "deps")
