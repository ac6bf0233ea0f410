"""Reading TOML with errors that name the file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cargo_strip_hook.core.errors import DiscoveryError, UsageError
from cargo_strip_hook.core.files import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]


def read_table(path: Path) -> Table:
    """The whole of a TOML file. Raises `DiscoveryError` where it cannot be read or parsed."""
    try:
        return tomllib.loads(read_text(path, "utf-8-sig"))
    except OSError as e:
        raise DiscoveryError(f"{path} cannot be read: {e.strerror or e}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DiscoveryError(f"{path} is not TOML: {e}") from e


def parse_assignment(text: str) -> Table:
    """``KEY=VALUE`` as `--config` takes it. Raises `UsageError` for anything else."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(
            f"--config `{text}` is neither a file nor a TOML assignment: {e}",
            help="write it as cargo does, for example --config 'profile.release.debug=true'",
        ) from e


def sub_table(table: object, *keys: str) -> Table:
    """The table at `keys`, or an empty one where there is none."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def type_name(value: object) -> str:
    """What TOML calls the type of `value`, with its article."""
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        str: "a string",
        list: "an array",
        dict: "a table",
    }
    return names.get(type(value), "a date")
