"""What the user selected, in the terms of cargo and cargo-c, independent of any parser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Selection:
    """Which libraries are selected, and where they are.

    Each field is the option of cargo-c 0.10 with the same name (`src/cli.rs`); None or empty: the
    option was not given. Relative paths are relative to the working directory.
    `profile` is the name of a profile (`--release` is ``release``, cinstall's `--debug` ``dev``).
    `installed`: the files that `cargo cinstall` installed to `destdir`/`prefix`, not those in the
    target directory; then the default profile is ``release``, not ``dev``.
    """

    packages: tuple[str, ...] = ()
    workspace: bool = False
    exclude: tuple[str, ...] = ()
    manifest_path: Path | None = None
    target: str | None = None
    target_dir: Path | None = None
    profile: str | None = None
    config: tuple[str, ...] = ()
    unstable: tuple[str, ...] = ()
    locked: bool = False
    offline: bool = False
    frozen: bool = False
    features: tuple[str, ...] = ()
    all_features: bool = False
    no_default_features: bool = False
    library_types: tuple[str, ...] = ()
    meson_paths: bool = False
    installed: bool = False
    destdir: Path | None = None
    prefix: Path | None = None
    libdir: Path | None = None
    includedir: Path | None = None
    bindir: Path | None = None
    pkgconfigdir: Path | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for combinations that cargo refuses, too."""
        if self.exclude and not self.workspace:
            raise UsageError("--exclude can only be used together with --workspace")
        if self.profile == "doc":
            raise UsageError("profile `doc` is reserved and not allowed to be explicitly specified")

    @property
    def profile_name(self) -> str:
        """The profile, with cargo-c's default: ``dev`` for cbuild, ``release`` for cinstall."""
        return self.profile or ("release" if self.installed else "dev")
