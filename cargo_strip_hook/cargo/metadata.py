"""The workspace as `cargo metadata` describes it, and the selection of its packages."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.suggest import did_you_mean
from cargo_strip_hook.core.errors import DiscoveryError, UsageError
from cargo_strip_hook.core.run import run

_LIBRARY_KINDS = frozenset({"lib", "rlib", "dylib", "cdylib", "staticlib", "proc-macro"})


@dataclass(frozen=True, slots=True)
class Package:
    """A workspace member. `crate_name` is that of its library (None: it has no library)."""

    id: str
    name: str
    version: str
    manifest: Path
    crate_name: str | None
    crate_types: tuple[str, ...]
    features: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, Any]

    @property
    def root(self) -> Path:
        """The folder of its Cargo.toml."""
        return self.manifest.parent

    @property
    def has_capi(self) -> bool:
        """Whether cargo-c builds it: it has a library and a `capi` feature (`src/build.rs`)."""
        return self.crate_name is not None and "capi" in self.features


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace. Paths are absolute; `build_dir` differs from `target_dir` only with
    `build.build-dir`.
    """

    root: Path
    target_dir: Path
    build_dir: Path
    members: tuple[Package, ...]
    default_members: tuple[str, ...]
    metadata: Mapping[str, Any]

    @property
    def manifest(self) -> Path:
        """The workspace's root Cargo.toml, which holds its profiles."""
        return self.root / "Cargo.toml"


def manifest_file(path: Path) -> Path:
    """The file of a `--manifest-path`, which for cargo-c may be a folder, too (`src/cli.rs`)."""
    return path / "Cargo.toml" if path.is_dir() else path


def metadata_argv(selection: Selection) -> list[str]:
    """The `cargo metadata` call for the same workspace as cargo-c's."""
    argv = [os.environ.get("CARGO") or "cargo", "metadata", "--format-version", "1", "--no-deps"]
    if selection.manifest_path is not None:
        argv += ["--manifest-path", os.fspath(manifest_file(selection.manifest_path))]
    for option in ("locked", "offline", "frozen"):
        if getattr(selection, option):
            argv.append(f"--{option}")
    for value in selection.config:
        argv += ["--config", value]
    for value in selection.unstable:
        argv += ["-Z", value]
    return argv


def load_workspace(selection: Selection) -> Workspace:
    """Run `cargo metadata` (by the program in CARGO, if set). Raises `ToolError` where it fails."""
    done = run(metadata_argv(selection), help="run it in a Cargo package, or give --manifest-path")
    try:
        workspace = parse_metadata(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError) as e:
        program = done.argv[0]
        raise DiscoveryError(f"`{program} metadata` answered something unexpected: {e!r}") from e
    if selection.target_dir is None:
        return workspace
    chosen = selection.target_dir.absolute()
    build = chosen if workspace.build_dir == workspace.target_dir else workspace.build_dir
    return replace(workspace, target_dir=chosen, build_dir=build)


def parse_metadata(data: Mapping[str, Any]) -> Workspace:
    """Format version 1 of `cargo metadata`. Raises KeyError or TypeError for anything else."""
    by_id = {entry["id"]: _package(entry) for entry in data["packages"]}
    members = tuple(by_id[i] for i in data["workspace_members"])
    root = Path(data["workspace_root"])
    target = Path(data["target_directory"])
    # both keys are newer than the oldest cargo that is supported (1.71 and 1.91)
    defaults = data.get("workspace_default_members")
    if defaults is None:
        at_root = [p.id for p in members if p.root == root]
        defaults = at_root or [p.id for p in members]
    build = Path(data.get("build_directory") or target)
    return Workspace(root, target, build, members, tuple(defaults), data.get("metadata") or {})


def _package(entry: Mapping[str, Any]) -> Package:
    library = next((t for t in entry["targets"] if _LIBRARY_KINDS & set(t["kind"])), None)
    return Package(
        id=entry["id"],
        name=entry["name"],
        version=entry["version"],
        manifest=Path(entry["manifest_path"]),
        crate_name=library["name"].replace("-", "_") if library else None,
        crate_types=tuple(library["crate_types"]) if library else (),
        features={name: tuple(needs) for name, needs in entry["features"].items()},
        metadata=entry.get("metadata") or {},
    )


def select_packages(workspace: Workspace, selection: Selection) -> tuple[Package, ...]:
    """The members that are selected, in workspace order.

    They are selected as by cargo (`ops/cargo_compile/packages.rs`); of these, the ones that cargo-c
    builds count. Where it builds none, plain cargo is assumed: the packages with
    `crate-type = ["staticlib"]` count, or the only one with a library.
    Raises `UsageError` for a specification that matches nothing, `DiscoveryError` where no library
    is left.
    """
    chosen = _requested(workspace, selection)
    buildable = [p for p in chosen if p.has_capi]
    if not buildable:
        libraries = [p for p in chosen if p.crate_name is not None]
        buildable = [p for p in libraries if "staticlib" in p.crate_types]
        if not buildable and len(libraries) == 1:
            buildable = libraries
    if not buildable:
        names = ", ".join(p.name for p in chosen) or "none"
        raise DiscoveryError(
            f"no selected package has a library with a C API (selected: {names})",
            help="cargo-c builds packages with a library target and a `capi` feature; "
            "select another with -p or --workspace",
        )
    return tuple(buildable)


def _requested(workspace: Workspace, selection: Selection) -> list[Package]:
    members = workspace.members
    if selection.workspace:
        for spec in selection.packages:
            _matching(spec, members)
        out = {p.id for spec in selection.exclude for p in _matching(spec, members)}
        return [p for p in members if p.id not in out]
    if selection.packages:
        ids = {p.id for spec in selection.packages for p in _matching(spec, members)}
        return [p for p in members if p.id in ids]
    return [p for p in members if p.id in workspace.default_members]


def _matching(spec: str, members: Sequence[Package]) -> list[Package]:
    matching = [p for p in members if matches_spec(spec, p)]
    if not matching:
        names = [p.name for p in members]
        raise UsageError(
            f"package `{spec}` is not in the workspace",
            help=did_you_mean(spec, names, "members: " + ", ".join(names)),
        )
    return matching


def matches_spec(spec: str, package: Package) -> bool:
    """Whether a package ID specification, or a glob, matches `package`.

    Grammar: the Cargo Book, "Package ID Specifications": ``name``, ``name@version`` (also with a
    colon, versions may be partial) and ``url#name@version``.
    """
    if any(c in spec for c in "*?["):
        return fnmatchcase(package.name, spec)
    if "://" in spec:
        url, _, fragment = spec.partition("#")
        source = package.id.partition("#")[0].removeprefix("path+")
        if url.removeprefix("path+").rstrip("/") != source.rstrip("/"):
            return False
        if not fragment:
            return True
        # `#1.2.3` is only a version
        if fragment[0].isdigit():
            return _matches_version(fragment, package.version)
        spec = fragment
    name, _, version = spec.replace(":", "@").partition("@")
    return name == package.name and (not version or _matches_version(version, package.version))


def _matches_version(partial: str, version: str) -> bool:
    if partial.count(".") >= 2:
        return partial == version or partial == version.partition("+")[0]
    return (version.partition("-")[0] + ".").startswith(partial + ".")


def enabled_features(package: Package, selection: Selection) -> frozenset[str]:
    """The package's own features that a cargo-c build of `selection` enables.

    cargo-c always adds `capi`. Features of dependencies and other members are not among them.
    """
    if selection.all_features:
        return frozenset(package.features)
    asked = {"capi"}
    if not selection.no_default_features:
        asked.add("default")
    for text in selection.features:
        for name in text.replace(",", " ").split():
            owner, slash, feature = name.rpartition("/")
            if not slash or owner == package.name:
                asked.add(feature)
    enabled: set[str] = set()
    while asked:
        name = asked.pop()
        if name in package.features and name not in enabled:
            enabled.add(name)
            asked.update(package.features[name])
    return frozenset(enabled)
