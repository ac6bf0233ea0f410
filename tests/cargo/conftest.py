"""A clean environment for cargo: nothing of the user's decides where things go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cargo.hooked import Space, make_space

_DECIDING = (
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_BUILD_DIR",
    "CARGO",
    "RUSTFLAGS",
    "DESTDIR",
    "DEB_HOST_RUST_TYPE",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_TERM_VERBOSE",
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
    "STRIP_HOOK",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _DECIDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CARGO_NET_OFFLINE", "true")


@pytest.fixture
def space(tmp_path: Path) -> Space:
    """A package with a C header, and the hook's programs beside it."""
    return make_space(tmp_path)
