"""The project's settings: ``[package.metadata.strip-hook]`` and the workspace's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cargo_strip_hook.cargo.cfg import CfgSet, holds, parse_platform
from cargo_strip_hook.cargo.metadata import Package
from cargo_strip_hook.cargo.suggest import did_you_mean
from cargo_strip_hook.cargo.tomlfile import type_name
from cargo_strip_hook.core.amounts import Growth, parse_growth, parse_size
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.requests import Compression, Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.sources import SOURCES, Source, Values

ENGINES = ("native", "system")
_Amount = TypeVar("_Amount")


@dataclass(frozen=True, slots=True)
class Settings:
    """What Cargo.toml says about the result; None where it says nothing. Paths are absolute.

    `named` has what it says of the sources of public symbols. `share` is the name of the common
    library, "" where there is to be none.
    """

    named: Values = field(default_factory=dict)
    header: tuple[Path, ...] | None = None
    strip: Strip | None = None
    engine: str | None = None
    keep: tuple[str, ...] | None = None
    allow_missing: bool | None = None
    granularity: Granularity | None = None
    compress_debug: Compression | None = None
    max_size: int | None = None
    max_growth: Growth | None = None
    baseline: Path | None = None
    profiles: tuple[str, ...] | None = None
    on_error: str | None = None
    debug_twin: Path | None = None
    verbose: bool | None = None
    share: str | None = None


@dataclass(frozen=True, slots=True)
class SettingsTable:
    """A `strip-hook` table: its contents, its key (``package.metadata.strip-hook``), its file."""

    table: object
    key: str
    manifest: Path


def load_settings(
    package: SettingsTable,
    workspace: SettingsTable,
    target: Target,
    cfg: Callable[[], CfgSet],
) -> Settings:
    """The settings in force: the package's over the workspace's, key by key.

    Within one of the two, a `targets` table that names the triple goes over those whose
    ``cfg(...)`` holds, and those over the plain keys. Values are replaced, lists are not joined.
    `cfg` is called only where a ``cfg(...)`` has to be decided. A missing table is None. Raises
    `UsageError`, which names the key and the file, for unknown keys (with a suggestion), wrong
    types, and two ``cfg(...)`` tables that disagree.
    """
    shared = _resolve(workspace, target, cfg)
    if "debug_twin" in shared:
        raise UsageError(
            f"`{workspace.key}.debug-twin` in {workspace.manifest} names one file for all packages",
            help=f"name one for each package, under `{package.key}`",
        )
    values = {**shared, **_resolve(package, target, cfg)}
    named = {
        s.name: values.pop(_attribute(s.name)) for s in SOURCES if _attribute(s.name) in values
    }
    return Settings(named, **values)


def settings_of(
    package: Package,
    workspace: Mapping[str, Any],
    root: Path,
    target: Target,
    cfg: Callable[[], CfgSet],
) -> Settings:
    """`load_settings` of a package; `workspace` is the metadata in `root`, the root Cargo.toml."""
    key = "metadata.strip-hook"
    return load_settings(
        SettingsTable(package.metadata.get("strip-hook"), f"package.{key}", package.manifest),
        SettingsTable(workspace.get("strip-hook"), f"workspace.{key}", root),
        target,
        cfg,
    )


def _resolve(source: SettingsTable, target: Target, cfg: Callable[[], CfgSet]) -> dict[str, Any]:
    if source.table is None:
        return {}
    table = _table(source.table, source.key, source.manifest)
    targets = table.pop("targets", {})
    values = _values(table, source.key, source.manifest, {"targets"})
    by_cfg: dict[str, tuple[Any, str]] = {}
    by_name: dict[str, Any] = {}
    key = f"{source.key}.targets"
    for platform, override in _table(targets, key, source.manifest).items():
        where = f"{key}.'{platform}'"
        # every table is checked, those for other targets, too
        try:
            expression = parse_platform(platform)
        except UsageError as e:
            raise UsageError(f"`{key}` in {source.manifest}: {e.what}", help=e.help) from e
        chosen = _values(_table(override, where, source.manifest), where, source.manifest, set())
        if isinstance(expression, str):
            if expression == target.triple:
                by_name = chosen
        elif holds(expression, cfg()):
            for name, value in chosen.items():
                other = by_cfg.setdefault(name, (value, where))
                if other[0] != value:
                    shown = name.replace("_", "-")
                    raise UsageError(
                        f"{source.manifest}: `{other[1]}.{shown}` and `{where}.{shown}` both apply "
                        f"to {target.triple} and differ",
                        help=f"decide it under targets.{target.triple}",
                    )
    return {**values, **{name: value for name, (value, _) in by_cfg.items()}, **by_name}


def _table(value: object, key: str, manifest: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, "a table", key, manifest)
    return dict(value)


def _wrong(value: object, wanted: str, key: str, manifest: Path) -> UsageError:
    return UsageError(f"`{key}` in {manifest} must be {wanted}, not {type_name(value)}")


def _strings(value: object, key: str, manifest: Path) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise _wrong(value, "a string or an array of strings", key, manifest)
    for item in value:
        if not isinstance(item, str):
            raise UsageError(f"`{key}` in {manifest} must hold strings only, not {type_name(item)}")
    return tuple(value)


def _paths(value: object, key: str, manifest: Path) -> tuple[Path, ...]:
    return tuple(manifest.parent / text for text in _strings(value, key, manifest))


def _choice(value: object, allowed: tuple[str, ...], key: str, manifest: Path) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "one of " + ", ".join(allowed), key, manifest)
    if value not in allowed:
        raise UsageError(
            f"`{key}` in {manifest} cannot be `{value}`",
            help=did_you_mean(value, allowed, "it is one of " + ", ".join(allowed)),
        )
    return value


def _strip(value: object, key: str, manifest: Path) -> Strip:
    # booleans as in a Cargo profile
    if isinstance(value, bool):
        return Strip.SYMBOLS if value else Strip.NONE
    return Strip(_choice(value, tuple(s.value for s in Strip), key, manifest))


def _engine(value: object, key: str, manifest: Path) -> str:
    return _choice(value, ENGINES, key, manifest)


def _on_error(value: object, key: str, manifest: Path) -> str:
    return _choice(value, ("fail", "warn"), key, manifest)


def _granularity(value: object, key: str, manifest: Path) -> Granularity:
    return Granularity(_choice(value, tuple(g.value for g in Granularity), key, manifest))


def _compression(value: object, key: str, manifest: Path) -> Compression:
    return Compression(_choice(value, tuple(c.value for c in Compression), key, manifest))


def _size(value: object, key: str, manifest: Path) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _amount(value, parse_size, "a size such as `2 MB`", key, manifest)


def _growth(value: object, key: str, manifest: Path) -> Growth:
    return _amount(value, parse_growth, "`5 %` or a size such as `20 kB`", key, manifest)


def _amount(
    value: object, parse: Callable[[str], _Amount | None], wanted: str, key: str, manifest: Path
) -> _Amount:
    amount = parse(value) if isinstance(value, str) else None
    if amount is None:
        shown = f"`{value}`" if isinstance(value, str) else type_name(value)
        raise UsageError(f"`{key}` in {manifest} must be {wanted}, not {shown}")
    return amount


def _path(value: object, key: str, manifest: Path) -> Path:
    if not isinstance(value, str):
        raise _wrong(value, "a path", key, manifest)
    return manifest.parent / value


def _boolean(value: object, key: str, manifest: Path) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "a boolean", key, manifest)
    return value


def _share(value: object, key: str, manifest: Path) -> str:
    if value is False:
        return ""
    if not isinstance(value, str):
        raise _wrong(value, "the name of a library, or false", key, manifest)
    if not is_library_name(value):
        plain = value.removesuffix(".a").removeprefix("lib")
        help = f"for lib{plain}.a write `{plain}`" if is_library_name(plain) else ()
        raise UsageError(f"`{key}` in {manifest} is no name of a library: `{value}`", help=help)
    return value


def is_library_name(text: str) -> bool:
    """Whether `-l` can name a library so, and a file can be called so everywhere."""
    named = re.fullmatch(r"[A-Za-z0-9_][\w+-]*(\.[\w+-]+)*", text, re.ASCII) is not None
    return named and not text.endswith((".a", ".lib", ".pc"))


def _named(
    source: Source, value: object, key: str, manifest: Path
) -> tuple[str, ...] | tuple[Path, ...]:
    if source.kind is Path:
        return _paths(value, key, manifest)
    texts = _strings(value, key, manifest)
    if source.choices:
        return tuple(_choice(text, source.choices, key, manifest) for text in texts)
    return texts


def _attribute(key: str) -> str:
    return key.replace("-", "_")


_Reader = Callable[[object, str, Path], Any]
_READERS: Mapping[str, _Reader] = {
    **{source.name: partial(_named, source) for source in SOURCES},
    "header": _paths,
    "strip": _strip,
    "engine": _engine,
    "keep": _strings,
    "allow-missing": _boolean,
    "granularity": _granularity,
    "compress-debug": _compression,
    "max-size": _size,
    "max-growth": _growth,
    "baseline": _path,
    "profiles": _strings,
    "on-error": _on_error,
    "debug-twin": _path,
    "verbose": _boolean,
    "share": _share,
}
assert {f.name for f in fields(Settings)} == {"named"} | {
    _attribute(name) for name in _READERS if name not in {source.name for source in SOURCES}
}


def _values(table: dict[str, Any], key: str, manifest: Path, also: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in table.items():
        reader = _READERS.get(name)
        if reader is None:
            known = (*_READERS, *also)
            raise UsageError(
                f"unknown key `{key}.{name}` in {manifest}",
                help=did_you_mean(
                    name.replace("_", "-").lower(), known, "known keys: " + ", ".join(sorted(known))
                ),
            )
        values[_attribute(name)] = reader(value, f"{key}.{name}", manifest)
    return values
