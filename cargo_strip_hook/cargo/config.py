"""Cargo's configuration: `.cargo/config.toml` here and above, CARGO_HOME, environment, `--config`.

Rules: the Cargo Book, "Configuration". Precedence: `--config`, then the environment, then files,
the file nearest to the working directory first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cargo_strip_hook.cargo.tomlfile import Table, parse_assignment, read_table, sub_table
from cargo_strip_hook.core.errors import DiscoveryError, UsageError


@dataclass(frozen=True, slots=True)
class CargoConfig:
    """The configuration in force, by its sources."""

    cli: Table
    files: Table
    environ: Mapping[str, str] = field(repr=False)

    def get(self, *keys: str) -> Any:
        """The value at `keys`; None where nothing sets it. Environment values are strings."""
        value = _lookup(self.cli, keys)
        if value is None:
            name = "CARGO_" + "_".join(k.upper().replace("-", "_") for k in keys)
            value = self.environ.get(name)
        return _lookup(self.files, keys) if value is None else value

    def tables(self, *keys: str) -> Table:
        """The table at `keys`, files and `--config` merged (without the environment)."""
        return _merge(sub_table(self.files, *keys), sub_table(self.cli, *keys))


def load_config(
    arguments: Sequence[str] = (),
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> CargoConfig:
    """Read the configuration that cargo has in `cwd`. `arguments` are the values of `--config`.

    Raises `DiscoveryError` for a file that is not TOML, `UsageError` for a bad argument.
    """
    here = (cwd or Path.cwd()).absolute()
    environ = os.environ if environ is None else environ
    files: Table = {}
    for path in reversed(config_files(here, cargo_home(environ))):
        files = _merge(files, _load(path, path.parent.parent, ()))
    cli: Table = {}
    for text in arguments:
        path = here / text
        if text and path.is_file():
            table = _load(path, path.parent, ())
        else:
            table = _with_includes(_absolute_rustc(parse_assignment(text), here), here, here, ())
        cli = _merge(cli, table)
    return CargoConfig(cli, files, environ)


def cargo_home(environ: Mapping[str, str]) -> Path:
    """The folder CARGO_HOME, or `.cargo` in the home folder."""
    home = environ.get("CARGO_HOME")
    return Path(home) if home else Path(os.path.expanduser("~")) / ".cargo"  # noqa: PTH111


def config_files(here: Path, home: Path) -> list[Path]:
    """The configuration files in force, nearest first."""
    folders = [folder / ".cargo" for folder in (here, *here.parents)]
    resolved = {folder.resolve() for folder in folders}
    if home.resolve() not in resolved:
        folders.append(home)
    paths: list[Path] = []
    for folder in folders:
        # where both exist, cargo takes the one without extension
        for name in ("config", "config.toml"):
            if (folder / name).is_file():
                paths.append(folder / name)
                break
    return paths


def _load(path: Path, base: Path, seen: tuple[Path, ...]) -> Table:
    if path in seen:
        raise DiscoveryError(f"{path} includes itself")
    return _with_includes(_absolute_rustc(read_table(path), base), path.parent, base, (*seen, path))


def _with_includes(table: Table, folder: Path, base: Path, seen: tuple[Path, ...]) -> Table:
    """`table`, over the files that its `include` key names (relative to `folder`)."""
    entries = table.pop("include", [])
    result: Table = {}
    for entry in [entries] if isinstance(entries, str) else entries:
        name = entry.get("path") if isinstance(entry, dict) else entry
        if not isinstance(name, str):
            raise UsageError(f"`include` in {seen[-1] if seen else '--config'} names no file")
        path = folder / name
        if isinstance(entry, dict) and entry.get("optional") is True and not path.exists():
            continue
        result = _merge(result, _load(path, base, seen))
    return _merge(result, table)


def _absolute_rustc(table: Table, base: Path) -> Table:
    """Make a `build.rustc` with a slash absolute: it is relative to the folder with `.cargo`."""
    rustc = _lookup(table, ("build", "rustc"))
    if isinstance(rustc, str) and "/" in rustc:
        table["build"]["rustc"] = os.fspath(base / rustc)
    return table


def _lookup(table: Table, keys: Sequence[str]) -> Any:
    value: Any = table
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _merge(low: Table, high: Table) -> Table:
    """The values of `high`, else those of `low`; tables key by key."""
    result = dict(low)
    for key, value in high.items():
        under = result.get(key)
        both = isinstance(under, dict) and isinstance(value, dict)
        result[key] = _merge(under, value) if both and isinstance(under, dict) else value
    return result
