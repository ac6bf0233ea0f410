"""A clean environment for cargo: nothing of the user's decides where things go."""

from __future__ import annotations

import pytest

_DECIDING = (
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_BUILD_DIR",
    "CARGO",
    "RUSTFLAGS",
    "DESTDIR",
    "DEB_HOST_RUST_TYPE",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _DECIDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CARGO_NET_OFFLINE", "true")
