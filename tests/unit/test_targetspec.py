"""Targets that a file specifies."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.core.targetspec import named_target


def spec(folder: Path, **keys: object) -> str:
    path = folder / "kernel.json"
    path.write_text(json.dumps({key.replace("_", "-"): value for key, value in keys.items()}))
    return str(path)


@pytest.mark.parametrize(
    ("llvm", "more", "like"),
    [
        ("x86_64-unknown-none", {"arch": "x86_64", "os": "none"}, "x86_64-unknown-none"),
        ("x86_64-unknown-none-elf", {"arch": "x86_64"}, "x86_64-unknown-none"),
        ("x86_64-unknown-linux-musl", {"env": "musl"}, "x86_64-unknown-linux-musl"),
        ("arm64-apple-macosx11.0.0", {"os": "macos"}, "aarch64-apple-macos"),
        ("arm64-apple-ios14.0-simulator", {}, "aarch64-apple-ios-sim"),
        ("x86_64-pc-windows-msvc", {"os": "windows"}, "x86_64-pc-windows-msvc"),
        ("thumbv7em-none-eabihf", {"arch": "arm"}, "thumbv7em-none-eabihf"),
        ("aarch64-linux-android", {"os": "android"}, "aarch64-linux-android"),
        ("x86_64-unknown-unknown", {"os": "windows", "env": "gnu"}, "x86_64-pc-windows-gnu"),
    ],
)
def test_what_it_is(tmp_path: Path, llvm: str, more: dict[str, str], like: str) -> None:
    found = named_target(spec(tmp_path, llvm_target=llvm, **more), environ={})
    known = Target.parse(like)
    assert (found.arch, found.system) == (known.arch, known.system)
    assert found.object_format == known.object_format
    assert found.is_msvc == known.is_msvc
    assert found.apple_platform == known.apple_platform
    assert found.environment.startswith("musl") == known.environment.startswith("musl")


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    spec(tmp_path, llvm_target="x86_64-unknown-none")
    assert named_target("kernel.json", [tmp_path], {}).system == "none"
    assert named_target("kernel", (), {"RUST_TARGET_PATH": str(tmp_path)}).arch == "x86_64"
    assert named_target("i686-unknown-linux-gnu", (), {}).arch == "i686"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is no JSON"),
        ("[1]", "has no `llvm-target`"),
        ('{"llvm-target": 1}', "has no `llvm-target`"),
        ('{"llvm-target": "x"}', "has no `llvm-target`"),
        ('{"arch": "x86_64"}', "has no `llvm-target`"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str | None, what: str) -> None:
    path = tmp_path / "t.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=what):
        named_target(str(path), environ={})


def test_rustc_says_the_same(tmp_path: Path) -> None:
    """Specifications that rustc prints of its own targets are those targets."""
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("rustc is not installed")
    for triple in ("x86_64-unknown-linux-gnu", "aarch64-apple-ios-sim", "i686-pc-windows-gnu"):
        done = subprocess.run(
            [rustc, "-Zunstable-options", "--print", "target-spec-json", "--target", triple],
            capture_output=True,
            text=True,
            check=False,
            env={"RUSTC_BOOTSTRAP": "1", "PATH": "/usr/bin", "HOME": str(Path.home())},
        )
        if done.returncode:
            pytest.skip("this rustc cannot print specifications")
        path = tmp_path / f"{triple}.json"
        path.write_text(done.stdout)
        found, known = named_target(str(path), environ={}), Target.parse(triple)
        assert found.arch == known.arch
        assert found.object_format == known.object_format
        assert found.apple_platform == known.apple_platform
