"""Finding what a test needs: a missing tool skips it, or fails it in the tiers that promise it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

TIER = os.environ.get("STRIP_HOOK_TESTS", "")  # "", "ci" or "all"


def missing(what: str) -> None:
    """Skip the running test, or fail it where the tier promises that nothing is missing."""
    if TIER:
        pytest.fail(f"{what} is missing, and the tier `{TIER}` promises it", pytrace=False)
    pytest.skip(f"{what} is not installed")


def need(*names: str) -> Path:
    """The first of `names` that is installed."""
    for name in names:
        found = shutil.which(name)
        if found:
            return Path(found)
    missing(" or ".join(names))
    raise AssertionError("unreachable")
