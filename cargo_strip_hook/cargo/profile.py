"""What Cargo's profiles say about debug information and stripping.

Rules: the Cargo Book, "Profiles"; cargo 0.98 `core/profiles.rs` (inheritance, `strip`) and
`ops/cargo_compile/mod.rs` (deferred `strip`: std's debug information is stripped where no crate has
any).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cargo_strip_hook.cargo.config import CargoConfig
from cargo_strip_hook.cargo.tomlfile import Table, sub_table
from cargo_strip_hook.core.errors import DiscoveryError
from cargo_strip_hook.core.requests import Strip

_PARENTS = {"test": "dev", "doc": "dev", "bench": "release"}
_ROOT_DEBUG: Mapping[str, object] = {"dev": 2, "release": 0}


def profile_folder(name: str) -> str:
    """The folder of a profile's output under the target directory.

    dev and test share ``debug``, release and bench ``release``; any other profile has its name
    (cargo `core/profiles.rs`, `get_dir_name`).
    """
    return {"dev": "debug", "test": "debug", "bench": "release"}.get(name, name)


def default_strip(name: str, manifest: Table, config: CargoConfig) -> Strip:
    """What the profile `name` implies for a library, which cargo itself does not strip.

    `manifest` is the workspace's root Cargo.toml. An explicit `strip` decides; without one, Cargo
    strips debug information where no crate of the build has any of its own.
    Raises `DiscoveryError` for a profile that does not exist, or inherits from none or itself.
    """
    chain = _chain(name, manifest, config)
    strip: object = None
    debug: object = _ROOT_DEBUG[chain[-1]]
    for profile in reversed(chain):
        strip = _first(_value(profile, "strip", manifest, config), strip)
        debug = _first(_value(profile, "debug", manifest, config), debug)
    if strip is not None:
        return _explicit(strip, name)
    if _is_on(debug) or any(_overrides(profile, manifest, config) for profile in chain):
        return Strip.NONE
    return Strip.DEBUGINFO


def _chain(name: str, manifest: Table, config: CargoConfig) -> list[str]:
    """The profile and those it inherits from; the last is dev or release."""
    chain = [name]
    while chain[-1] not in _ROOT_DEBUG:
        current = chain[-1]
        parent = _first(_value(current, "inherits", manifest, config), _PARENTS.get(current))
        if not isinstance(parent, str):
            known = {*_tables(manifest, config), *_PARENTS, *_ROOT_DEBUG}
            if current not in known:
                raise DiscoveryError(
                    f"profile `{current}` is not defined",
                    help="known profiles: " + ", ".join(sorted(known)),
                )
            raise DiscoveryError(f"profile `{current}` is missing an `inherits` directive")
        if parent in chain:
            raise DiscoveryError(f"profile `{current}` inherits from itself over `{parent}`")
        chain.append(parent)
    return chain


def _tables(manifest: Table, config: CargoConfig) -> set[str]:
    return {*sub_table(manifest, "profile"), *config.tables("profile")}


def _value(profile: str, key: str, manifest: Table, config: CargoConfig) -> Any:
    """A key of one profile: configuration (CARGO_PROFILE_... included) over the manifest."""
    return _first(
        config.get("profile", profile, key), sub_table(manifest, "profile", profile).get(key)
    )


def _first(value: object, otherwise: object) -> object:
    return otherwise if value is None else value


def _overrides(profile: str, manifest: Table, config: CargoConfig) -> bool:
    """Whether a `[profile.X.package.Y]` turns debug information on for some dependency."""
    packages = {
        **sub_table(manifest, "profile", profile, "package"),
        **config.tables("profile", profile, "package"),
    }
    return any(_is_on(sub_table(packages, p).get("debug", False)) for p in packages)


def _is_on(debug: object) -> bool:
    return debug not in (False, 0, "0", "false", "none", "")


def _explicit(strip: object, profile: str) -> Strip:
    if strip in (True, "true", "symbols"):
        return Strip.SYMBOLS
    if strip in (False, "false", "none"):
        return Strip.NONE
    if strip == "debuginfo":
        return Strip.DEBUGINFO
    raise DiscoveryError(
        f"profile `{profile}` has strip = {strip!r}", help="none, debuginfo, symbols or a boolean"
    )
