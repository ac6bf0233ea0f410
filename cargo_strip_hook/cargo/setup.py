"""Turning the hook on and off: the line in cargo's configuration, and what is built again.

Rules: the Cargo Book, "Configuration" (`build.rustc-workspace-wrapper`, `build.rustc-wrapper`; an
environment variable goes over every file, an empty one turns a wrapper off).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cargo_strip_hook.cargo.cfg import builtin_cfg
from cargo_strip_hook.cargo.config import cargo_home, config_files
from cargo_strip_hook.cargo.metadata import Package, Workspace
from cargo_strip_hook.cargo.settings import settings_of
from cargo_strip_hook.cargo.tomlfile import read_table, sub_table
from cargo_strip_hook.core.errors import DiscoveryError, UsageError
from cargo_strip_hook.core.run import run
from cargo_strip_hook.formats.detect import host_target

WRAPPER = "cargo-strip-hook-rustc"
KEY = "rustc-workspace-wrapper"
_VARIABLES = ("RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER")
_OTHER_VARIABLES = ("RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER")


@dataclass(frozen=True, slots=True)
class Wrappers:
    """What cargo calls instead of rustc: `workspace` for members, `every` for all crates.

    Each is a program, and the file or variable that names it; None where there is none.
    """

    workspace: tuple[str, str] | None
    every: tuple[str, str] | None

    @property
    def ours(self) -> str | None:
        """The file or variable that names the hook; None where another program is named or none."""
        return self.workspace[1] if self.workspace and is_ours(self.workspace[0]) else None

    @property
    def sccache(self) -> tuple[str, str] | None:
        """sccache, where it is the wrapper of all crates: it refuses the hook, or bypasses it."""
        if self.every and Path(self.every[0]).name.removesuffix(".exe") == "sccache":
            return self.every
        return None

    @property
    def active(self) -> bool:
        """Whether cargo calls the hook."""
        return self.ours is not None and self.sccache is None


def is_ours(program: str) -> bool:
    """Whether a wrapper is the hook, whatever its path."""
    return Path(program).name.removesuffix(".exe") == WRAPPER


def wrappers(root: Path, environ: Mapping[str, str]) -> Wrappers:
    """The wrappers in force for a cargo that runs in `root`. Raises `DiscoveryError`."""
    return Wrappers(
        _in_force(root, environ, _VARIABLES, KEY),
        _in_force(root, environ, _OTHER_VARIABLES, "rustc-wrapper"),
    )


def _in_force(
    root: Path, environ: Mapping[str, str], variables: Sequence[str], key: str
) -> tuple[str, str] | None:
    for name in variables:
        if name in environ:
            return (environ[name], name) if environ[name] else None
    for path in config_files(root, cargo_home(environ)):
        value = sub_table(read_table(path), "build").get(key)
        if isinstance(value, str):
            return (value, os.fspath(path)) if value else None
    return None


def state(calls: Wrappers, environ: Mapping[str, str]) -> tuple[bool, str]:
    """Whether cargo calls the hook, and the file or variable that names it, or why not."""
    program = calls.workspace[0] if calls.workspace else WRAPPER
    if calls.active and shutil.which(program, path=environ.get("PATH")) is None:
        return False, f"{calls.ours} names `{program}`, which is not on PATH: cargo will fail"
    return calls.active, _state(calls)


def _state(calls: Wrappers) -> str:
    if calls.sccache is not None and calls.ours is not None:
        return f"{calls.sccache[1]} names `{calls.sccache[0]}`, which goes around {calls.ours}"
    if calls.ours is not None:
        return f"by {calls.ours}"
    if calls.workspace is not None:
        return f"{calls.workspace[1]} names `{calls.workspace[0]}`"
    return "no file and no variable names it"


def hooked_packages(workspace: Workspace) -> tuple[Package, ...]:
    """The members of which cargo or cargo-c builds static libraries."""
    return tuple(p for p in workspace.members if p.has_capi or "staticlib" in p.crate_types)


def left_alone(workspace: Workspace, packages: Sequence[Package]) -> dict[str, list[str]]:
    """The names of packages that share code, by that of the set: the hook leaves them alone.

    Settings for this machine's own target count. Raises `UsageError` for those that make no sense.
    """
    host = host_target()
    sets: dict[str, list[str]] = {}
    for package in packages:
        settings = settings_of(
            package, workspace.metadata, workspace.manifest, host, lambda: builtin_cfg(host)
        )
        if settings.share:
            sets.setdefault(settings.share, []).append(package.name)
    return sets


def config_file(root: Path) -> Path:
    """The workspace's own configuration file; cargo prefers the one without extension."""
    old = root / ".cargo" / "config"
    return old if old.is_file() else root / ".cargo" / "config.toml"


def turn_on(workspace: Workspace, environ: Mapping[str, str]) -> Path | None:
    """Write the line. Returns the file, None where it has the line already.

    Raises `UsageError` where there is another wrapper, `DiscoveryError` where the hook is not on
    PATH or the file cannot be parsed.
    """
    calls = wrappers(workspace.root, environ)
    _refuse_others(calls)
    if shutil.which(WRAPPER, path=environ.get("PATH")) is None:
        raise DiscoveryError(
            f"`{WRAPPER}` is not on PATH, so cargo would not find it",
            help="install cargo-strip-hook where its programs are on PATH, or add their folder",
        )
    path = config_file(workspace.root)
    document = _document(path)
    build = document.get("build")
    if build is None:
        build = document["build"] = _table()
    if not isinstance(build, dict):
        raise DiscoveryError(f"`build` in {path} is no table", help="correct the file first")
    if build.get(KEY) == WRAPPER:
        return None
    build[KEY] = WRAPPER
    _write(path, document)
    return path


def turn_off(workspace: Workspace) -> Path | None:
    """Remove the line. Returns the file, None where it has no such line."""
    path = config_file(workspace.root)
    if not path.is_file():
        return None
    document = _document(path)
    build = document.get("build")
    if not isinstance(build, dict) or not is_ours(str(build.get(KEY, ""))):
        return None
    del build[KEY]
    if not build:
        del document["build"]
    if document:
        _write(path, document)
    else:
        path.unlink()
    return path


def _refuse_others(calls: Wrappers) -> None:
    if calls.workspace is not None and not is_ours(calls.workspace[0]):
        program, where = calls.workspace
        raise UsageError(
            f"cargo calls `{program}` for this workspace ({where}), and it can call only one",
            help="use `cargo strip-hook cinstall …`, or `cargo strip-hook` after each build",
        )
    if calls.sccache is not None:
        program, where = calls.sccache
        raise UsageError(
            f"`{program}` is cargo's compiler wrapper ({where}), which does not run the hook or "
            "goes around it",
            help="use `cargo strip-hook cinstall …`, or `cargo strip-hook` after each build",
        )


def _document(path: Path) -> Any:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    if not path.is_file():
        return tomlkit.document()
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except (TOMLKitError, UnicodeDecodeError) as e:
        raise DiscoveryError(f"{path} is not TOML: {e}", help="correct the file first") from e


def _table() -> Any:
    import tomlkit

    return tomlkit.table()


def _write(path: Path, document: Any) -> None:
    """Write the file; an existing one is replaced atomically and keeps its attributes."""
    import tomlkit

    from cargo_strip_hook.replace import staging

    path.parent.mkdir(exist_ok=True)
    text = tomlkit.dumps(document)
    if not path.exists():
        path.write_text(text, encoding="utf-8")
        return
    with staging(path) as staged:
        staged.path.write_text(text, encoding="utf-8")
        staged.commit()


def build_again(workspace: Workspace, packages: Sequence[Package]) -> None:
    """Have cargo build `packages` again, in every profile and for every target.

    Otherwise a library that is a cdylib, too, would stay as it is.
    Raises `ToolError` where cargo fails.
    """
    for triple, profile in _outputs(workspace):
        argv = [os.environ.get("CARGO") or "cargo", "clean", "--quiet", "--offline"]
        argv += ["--manifest-path", os.fspath(workspace.manifest), "--profile", profile]
        argv += ["--target", triple] if triple else []
        for package in packages:
            argv += ["-p", package.name]
        run(argv, accept=())  # a profile that was removed cannot be cleaned, nor built


def _outputs(workspace: Workspace) -> list[tuple[str, str]]:
    """(triple or "", profile) of each folder that cargo has built in."""
    built: set[tuple[str, str]] = set()
    for pattern in ("*/.fingerprint", "*/*/.fingerprint", "*/build", "*/*/build"):
        for folder in workspace.build_dir.glob(pattern):
            profile, parent = folder.parent.name, folder.parent.parent
            triple = "" if parent == workspace.build_dir else parent.name
            built.add((triple, "dev" if profile == "debug" else profile))
    return sorted(built)


__all__ = [
    "WRAPPER",
    "Wrappers",
    "build_again",
    "hooked_packages",
    "left_alone",
    "state",
    "turn_off",
    "turn_on",
    "wrappers",
]
