"""Puts the manual page into the wheel: it is made from the parsers, so that it is always true."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = "share/man/man1/cargo-strip-hook.1"


class ManualPage(BuildHookInterface[Any]):
    """Needs nothing but this checkout: parsers import the standard library alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the page below `build/` and have it installed from there."""
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
