"""`strip-hook` tables: types, unknown keys, overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.cargo.cfg import builtin_cfg
from cargo_strip_hook.cargo.settings import Settings, SettingsTable, load_settings
from cargo_strip_hook.core.amounts import Growth, parse_growth
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.requests import Compression, Granularity, Strip
from cargo_strip_hook.core.target import Target

LINUX = Target.parse("x86_64-unknown-linux-gnu")
MAC = Target.parse("aarch64-apple-darwin")


def load(package: Any, workspace: Any = None, target: Target = LINUX) -> Settings:
    return load_settings(
        SettingsTable(package, "package.metadata.strip-hook", Path("/ws/p/Cargo.toml")),
        SettingsTable(workspace, "workspace.metadata.strip-hook", Path("/ws/Cargo.toml")),
        target,
        lambda: builtin_cfg(target),
    )


def test_nothing_is_nothing() -> None:
    assert load(None) == Settings() == load({})


def test_every_key() -> None:
    table = {
        "export": ["a_*", "b"],
        "exports-file": "api.txt",
        "header": ["one.h", "/abs/two.h"],
        "strip": "debuginfo",
        "engine": "native",
        "preset": ["gst", "jni"],
        "keep": "type_info",
        "allow-missing": True,
        "granularity": "whole",
        "compress-debug": "zstd",
        "max-size": "1.5 MB",
        "max-growth": "5 %",
        "baseline": "sizes.json",
    }
    assert load(table) == Settings(
        {
            "export": ("a_*", "b"),
            "exports-file": (Path("/ws/p/api.txt"),),
            "preset": ("gst", "jni"),
        },
        header=(Path("/ws/p/one.h"), Path("/abs/two.h")),
        strip=Strip.DEBUGINFO,
        engine="native",
        keep=("type_info",),
        allow_missing=True,
        granularity=Granularity.WHOLE,
        compress_debug=Compression.ZSTD,
        max_size=1_500_000,
        max_growth=Growth(5.0, True, "5 %"),
        baseline=Path("/ws/p/sizes.json"),
    )


@pytest.mark.parametrize(
    ("value", "size"),
    [(300, 300), ("300", 300), ("2 MB", 2_000_000), ("1kB", 1000), ("1.5 MiB", 1_572_864)],
)
def test_sizes(value: object, size: int) -> None:
    assert load({"max-size": value}).max_size == size


def test_growth_is_of_what_was_or_in_bytes() -> None:
    percent, bytes = parse_growth("5 %"), parse_growth("20 kB")
    assert percent and bytes
    assert (percent.limit(1000), bytes.limit(1000)) == (1050, 21_000)


@pytest.mark.parametrize(("value", "strip"), [(True, Strip.SYMBOLS), (False, Strip.NONE)])
def test_strip_takes_booleans_as_cargo_does(value: bool, strip: Strip) -> None:
    assert load({"strip": value}).strip is strip


def test_paths_are_relative_to_the_manifest_that_says_them() -> None:
    settings = load({"header": "h.h"}, {"header": "w.h", "exports-file": "w.txt"})
    assert settings.header == (Path("/ws/p/h.h"),)
    assert settings.named["exports-file"] == (Path("/ws/w.txt"),)


def test_a_list_replaces_and_an_empty_one_counts() -> None:
    assert load({"export": []}, {"export": ["x"]}).named == {"export": ()}


def test_the_package_goes_over_the_workspaces_targets() -> None:
    workspace = {"strip": "none", "targets": {"cfg(unix)": {"strip": "symbols", "keep": "k"}}}
    settings = load({"strip": "debuginfo"}, workspace)
    assert (settings.strip, settings.keep) == (Strip.DEBUGINFO, ("k",))


def test_targets() -> None:
    table = {
        "keep": "plain",
        "targets": {
            "cfg(unix)": {"keep": "unix"},
            'cfg(target_os = "macos")': {"strip": "none"},
            "x86_64-unknown-linux-gnu": {"keep": "exact"},
            "cfg(windows)": {"keep": "windows"},
        },
    }
    assert load(table).keep == ("exact",)
    assert load(table).strip is None
    assert load(table, target=MAC) == Settings(keep=("unix",), strip=Strip.NONE)
    assert load(table, target=Target.parse("x86_64-pc-windows-gnu")).keep == ("windows",)


def test_two_targets_may_agree_but_not_differ() -> None:
    one, other = {"strip": "none"}, {"strip": False}
    table = {"targets": {"cfg(unix)": one, "cfg(not(windows))": other}}
    assert load(table).strip is Strip.NONE
    other["strip"] = True
    with pytest.raises(UsageError) as caught:
        load(table)
    assert "cfg(unix)" in caught.value.what and "cfg(not(windows))" in caught.value.what
    assert caught.value.help == ("decide it under targets.x86_64-unknown-linux-gnu",)


def test_cfg_is_decided_only_where_needed() -> None:
    def refuse() -> Any:
        raise AssertionError("asked")

    source = SettingsTable({"targets": {LINUX.triple: {"keep": "k"}}}, "k", Path("Cargo.toml"))
    none = SettingsTable(None, "w", Path("Cargo.toml"))
    assert load_settings(source, none, LINUX, refuse).keep == ("k",)


@pytest.mark.parametrize(
    ("table", "what", "help"),
    [
        ({"exprt": []}, "strip-hook.exprt`", "did you mean `export`?"),
        ({"allow_missing": True}, "strip-hook.allow_missing`", "did you mean `allow-missing`?"),
        ({"target": {}}, "strip-hook.target`", "did you mean `targets`?"),
        ({"zzz": 1}, "strip-hook.zzz`", "known keys: allow-missing, baseline, compress-debug"),
        ({"max-size": "2 apples"}, "must be a size such as `2 MB`, not `2 apples`", ""),
        ({"max-size": True}, "must be a size such as `2 MB`, not a boolean", ""),
        ({"max-growth": "-1 %"}, "must be `5 %` or a size such as `20 kB`, not `-1 %`", ""),
        ({"strip": "debug-info"}, "cannot be `debug-info`", "did you mean `debuginfo`?"),
        ({"compress-debug": "gzip"}, "cannot be `gzip`", "it is one of none, zlib, zstd"),
        ({"compress-debug": True}, "must be one of none, zlib, zstd, not a boolean", ""),
        ({"engine": "gold"}, "cannot be `gold`", "it is one of native, system"),
        ({"preset": ["gst", "uniff"]}, "cannot be `uniff`", "did you mean `uniffi`?"),
        ({"export": 3}, "must be a string or an array of strings, not an integer", ""),
        ({"export": ["a", True]}, "must hold strings only, not a boolean", ""),
        ({"allow-missing": "yes"}, "must be a boolean, not a string", ""),
        ({"targets": []}, "strip-hook.targets` in", ""),
        ({"targets": {"cfg(unix)": 1}}, "targets.'cfg(unix)'` in", ""),
        ({"targets": {"cfg(windows)": {"hedder": "x"}}}, "'.hedder`", "did you mean `header`?"),
        ({"targets": {"cfg(": {}}}, "neither a target triple nor cfg", "for example"),
        ({"targets": {"cfg(unix)": {"targets": {}}}}, "'.targets`", "known keys"),
        ([], "must be a table, not an array", ""),
    ],
)
def test_errors_name_the_key_and_the_file(table: Any, what: str, help: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(table)
    assert what in caught.value.what
    assert "/ws/p/Cargo.toml" in caught.value.what
    assert "package.metadata.strip-hook" in caught.value.what
    if help:
        assert caught.value.help[0].startswith(help)
    with pytest.raises(UsageError, match=r"workspace\.metadata\.strip-hook"):
        load(None, table)


def test_the_name_of_a_common_library() -> None:
    assert load(None, {"share": "gst-common"}).share == "gst-common"
    assert load({"share": False}, {"share": "common"}).share == ""
    assert load({"targets": {"cfg(unix)": {"share": False}}}, {"share": "common"}).share == ""
    for value, help in (
        ("libcommon.a", "for libcommon.a write `common`"),
        ("a/b", ""),
        ("-x", ""),
        ("x.pc", ""),
        ("", ""),
    ):
        with pytest.raises(UsageError, match="no name of a library") as caught:
            load(None, {"share": value})
        assert caught.value.help == ((help,) if help else ())
    with pytest.raises(UsageError, match="must be the name of a library, or false, not a boolean"):
        load(None, {"share": True})
