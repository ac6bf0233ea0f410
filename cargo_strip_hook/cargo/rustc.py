"""Asking rustc for its version, its host and the cfg options of a target."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cargo_strip_hook.cargo.cfg import CfgSet, builtin_cfg, parse_rustc_cfg
from cargo_strip_hook.cargo.config import CargoConfig
from cargo_strip_hook.core.errors import DiscoveryError, ToolError
from cargo_strip_hook.core.run import run
from cargo_strip_hook.core.target import Target


@dataclass(frozen=True, slots=True)
class Rustc:
    """The compiler that cargo uses; `release` is like ``1.95.0`` or ``1.97.0-nightly``."""

    program: str
    release: str
    host: str


def find_rustc(config: CargoConfig) -> Rustc:
    """RUSTC, else `build.rustc` (CARGO_BUILD_RUSTC), else ``rustc``; run with `-vV`.

    Raises `ToolError` where it cannot be run, `DiscoveryError` for an unexpected answer.
    """
    configured = config.get("build", "rustc")
    program = config.environ.get("RUSTC") or (configured if isinstance(configured, str) else "")
    program = program or "rustc"
    done = run([program, "-vV"], help="install Rust, or set RUSTC to the compiler")
    fields = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    if not fields.get("host") or not fields.get("release"):
        raise DiscoveryError(f"`{program} -vV` does not tell its host and release: {done.stdout!r}")
    return Rustc(program, fields["release"], fields["host"])


def cfg_of(target: Target, rustc: Rustc | None) -> CfgSet:
    """What `rustc --print cfg` says for `target`; by our own tables where it cannot be run."""
    if rustc is None:
        return builtin_cfg(target)
    try:
        done = run([rustc.program, "--print", "cfg", "--target", target.triple])
    except ToolError:
        return builtin_cfg(target)
    return parse_rustc_cfg(done.stdout)


def configured_target(config: CargoConfig, rustc: Rustc) -> str | None:
    """`build.target` (CARGO_BUILD_TARGET), None where it is not set.

    Raises `DiscoveryError` where it lists several, which cargo-c refuses, too.
    """
    value = config.get("build", "target")
    if isinstance(value, list):
        if len(value) > 1:
            names = ", ".join(map(str, value))
            raise DiscoveryError(
                f"`build.target` in cargo's configuration names several targets: {names}",
                help="choose one with --target",
            )
        value = value[0] if value else None
    if not isinstance(value, str) or not value:
        return None
    return target_name(value, rustc.host)


def target_name(text: str, host: str) -> str:
    """The triple that a `--target` value means: itself, the host's, or a specification's stem."""
    if text == "host-tuple":
        return host
    return os.path.basename(text)[: -len(".json")] if text.endswith(".json") else text  # noqa: PTH119
