"""What a wheel has besides the package: its programs, the manual page, and the hook for cargo.

cargo calls the hook for each rustc. On Unix it is a few lines of shell, which cost a millisecond;
on Windows cargo starts executables only, and the hook is one that pip makes. So a wheel that is
made on Windows is for Windows, and one that is made anywhere else is for all other systems.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGE = "share/man/man1/cargo-strip-hook.1"
HOOK = "cargo-strip-hook-rustc"


class Programs(MetadataHookInterface):
    """`project.scripts`, which differ by system."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the programs that pip makes."""
        metadata["scripts"] = {"cargo-strip-hook": "cargo_strip_hook.__main__:run"}
        if sys.platform == "win32":
            metadata["scripts"][HOOK] = "cargo_strip_hook_rustc:run"


class Besides(BuildHookInterface[Any]):
    """Needs nothing but this checkout: parsers import the standard library alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the page below `build/` and have it installed from there; add the hook."""
        root = Path(self.root)
        sys.path.insert(0, self.root)
        try:
            from cargo_strip_hook.cli.manual import page
        finally:
            sys.path.remove(self.root)
        made = root / "build" / Path(PAGE).name
        made.parent.mkdir(exist_ok=True)
        made.write_text(page(), encoding="utf-8")
        build_data["shared_data"][str(made)] = PAGE
        if sys.platform == "win32":
            build_data["tag"] = "py3-none-win32.win_amd64.win_arm64"
        else:
            build_data["shared_scripts"][str(root / "scripts" / HOOK)] = HOOK
