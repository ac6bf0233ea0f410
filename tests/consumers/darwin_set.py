"""Sets of Rust libraries for Darwin, of one workspace with std from source, and their programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests import fixtures
from tests.consumers import darwin_library, darwin_machine
from tests.consumers.darwin_library import PLATFORMS
from tests.formats import darwin_kit as kit
from tests.formats.test_share_rules import RUST_DEPENDENCY, RUST_LIBRARY
from tests.targets import build_environment

_WORKSPACE = '[workspace]\nresolver = "2"\nmembers = [%s]\n'
_PACKAGE = '[package]\nname = "%s"\nversion = "0.0.0"\nedition = "2021"\n[lib]\npath = "lib.rs"\n'
_DEPENDS = '[dependencies]\ndep = { path = "../dep" }\n'


@dataclass(frozen=True, slots=True)
class RustSet:
    """Libraries by name, for one target."""

    target: str
    libraries: Mapping[str, Path]

    def exports(self, name: str) -> list[str]:
        return [f"_{name}_{what}" for what in ("bump", "hook", "panic")]


def rust_set(folder: Path, target: str, more: Mapping[str, str]) -> RustSet:
    """Libraries that depend on one that counts; `more` is what else each of them holds, by name.

    Skips the test where nothing was built for the target yet, and the tier does not say so.
    """
    darwin_library.built_for("apple", target)
    folder.mkdir(parents=True)
    names = ("dep", *more)
    (folder / "Cargo.toml").write_text(_WORKSPACE % ", ".join(f'"{n}"' for n in names))
    for name in names:
        (folder / name).mkdir()
        text = RUST_DEPENDENCY if name == "dep" else RUST_LIBRARY.replace("NAME", name) + more[name]
        (folder / name / "lib.rs").write_text(text)
        manifest = _PACKAGE % name + ("" if name == "dep" else _DEPENDS)
        (folder / name / "Cargo.toml").write_text(manifest)
    env = {**fixtures.environment("debian"), "RUSTC_BOOTSTRAP": "1", **build_environment(target)}
    home = fixtures.CACHE / "target" / fixtures.std_key("debian")
    libraries = {}
    with FileLock(fixtures.CACHE / f"{home.name}-{target}.lock"):
        for name in more:
            argv: list[str | Path] = [fixtures.cargo("debian"), "rustc", "-p", name, "--lib"]
            argv += ["--profile", "release", "--crate-type", "staticlib", "--target", target]
            argv += ["-Zbuild-std=std,panic_unwind", "--target-dir", home]
            subprocess.run(argv, cwd=folder, env=env, check=True, capture_output=True)
            made = home / target / "release" / f"lib{name}.a"
            libraries[name] = made.rename(folder / made.name)
    return RustSet(target, libraries)


def output(out: Path, target: str, source: str, inputs: list[Path], *flags: str) -> str:
    """What a program of C with these libraries says; linked with ld64.lld."""
    platform = PLATFORMS[target]
    objects = kit.compile(
        out.parent,
        platform.arch,
        {f"{out.name}.c": source},
        "-O1",
        *kit.headers(),
        platform=platform.clang,
    )
    program = kit.link(
        out,
        platform.arch,
        [*objects, *inputs],
        *flags,
        *darwin_machine.link_flags(platform.zig),
        stub=kit.ziglang_stub(platform.linker),
        platform=platform.linker,
    )
    return darwin_machine.run(program, platform.arch)
