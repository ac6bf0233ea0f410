"""Our reading of cargo's and rustc's rules, against what they say themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.cargo.cfg import builtin_cfg, parse_rustc_cfg
from cargo_strip_hook.cargo.config import load_config
from cargo_strip_hook.cargo.metadata import load_workspace, select_packages
from cargo_strip_hook.cargo.profile import default_strip
from cargo_strip_hook.cargo.rustc import cfg_of, find_rustc
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.tomlfile import read_table
from cargo_strip_hook.cargo.versions import (
    cargo_c_version,
    cargo_c_warnings,
    check_version,
    rustc_warnings,
)
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from tests.cargo.workspaces import call, package, write
from tests.tools import need

# what only nightly prints, a stable cargo prints under this variable
UNSTABLE = {"RUSTC_BOOTSTRAP": "1"}

_TARGETS = """
x86_64-unknown-linux-gnu x86_64-unknown-linux-musl x86_64-unknown-linux-gnux32
aarch64-unknown-linux-gnu aarch64-unknown-linux-gnu_ilp32 aarch64_be-unknown-linux-gnu
armv7-unknown-linux-gnueabihf arm-unknown-linux-musleabihf thumbv7neon-unknown-linux-gnueabihf
i686-unknown-linux-gnu i586-unknown-linux-musl riscv64gc-unknown-linux-gnu
powerpc64le-unknown-linux-gnu powerpc64-unknown-linux-gnu powerpc-unknown-linux-gnu
s390x-unknown-linux-gnu loongarch64-unknown-linux-gnu sparc64-unknown-linux-gnu
mips64el-unknown-linux-gnuabi64 mipsel-unknown-linux-musl mips-unknown-linux-gnu
aarch64-linux-android armv7-linux-androideabi i686-linux-android x86_64-linux-android
aarch64-unknown-linux-ohos x86_64-unknown-freebsd x86_64-unknown-netbsd x86_64-unknown-openbsd
x86_64-unknown-dragonfly x86_64-unknown-illumos x86_64-pc-solaris x86_64-unknown-haiku
i686-unknown-hurd-gnu wasm32-unknown-emscripten x86_64-unknown-redox x86_64-unknown-fuchsia
x86_64-apple-darwin aarch64-apple-darwin aarch64-apple-ios aarch64-apple-ios-sim
aarch64-apple-tvos aarch64-apple-watchos arm64_32-apple-watchos aarch64-apple-visionos
aarch64-apple-ios-macabi arm64e-apple-darwin
x86_64-pc-windows-msvc i686-pc-windows-msvc aarch64-pc-windows-msvc arm64ec-pc-windows-msvc
x86_64-pc-windows-gnu i686-pc-windows-gnu x86_64-pc-windows-gnullvm x86_64-uwp-windows-msvc
x86_64-win7-windows-msvc x86_64-pc-cygwin x86_64-unknown-uefi
thumbv7em-none-eabihf riscv32imac-unknown-none-elf aarch64-unknown-none x86_64-unknown-none
"""
TARGETS = _TARGETS.split()
DECIDED = frozenset(
    {"unix", "windows", "target_family", "target_os", "target_arch", "target_env"}
    | {"target_vendor", "target_pointer_width", "target_endian"}
)


@pytest.mark.parametrize("triple", TARGETS)
def test_tables_agree_with_rustc(triple: str) -> None:
    known = call([need("rustc"), "--print", "target-list"], Path.cwd()).split()
    if triple not in known:
        pytest.skip(f"this rustc has no {triple}")
    said = parse_rustc_cfg(call(["rustc", "--print", "cfg", "--target", triple], Path.cwd()))
    expected = {(name, value) for name, value in said if name in DECIDED}
    # rustc leaves an empty target_env in the list, and so do we
    assert builtin_cfg(Target.parse(triple)) == expected


def test_rustc_is_asked_where_it_is_there() -> None:
    need("rustc")
    rustc = find_rustc(load_config())
    assert ("panic", "unwind") in cfg_of(Target.parse(rustc.host), rustc)
    odd = Target.parse("x86_64-nobody-linux-gnu")
    assert cfg_of(odd, rustc) == builtin_cfg(odd)


PROFILES = """
[profile.plain]
inherits = "release"
[profile.lines]
inherits = "plain"
debug = "line-tables-only"
[profile.nodebug]
inherits = "dev"
debug = false
[profile.symbols]
inherits = "release"
strip = true
[profile.kept]
inherits = "symbols"
strip = "none"
[profile.half]
inherits = "lines"
strip = "debuginfo"
[profile.again]
inherits = "nodebug"
debug = 1
[profile.string]
inherits = "release"
debug = "none"
"""


def _resolved(strip: Any) -> str:
    """`strip` of a unit graph: {"resolved": {"Named": "debuginfo"}}, {"deferred": "None"} …"""
    (value,) = strip.values()
    return "none" if value == "None" else str(value["Named"])


@pytest.mark.parametrize(
    ("name", "environ", "config", "arguments"),
    [
        *((n, {}, "", ()) for n in ("dev", "release", "test", "bench", "plain", "lines")),
        *((n, {}, "", ()) for n in ("nodebug", "symbols", "kept", "half", "again", "string")),
        ("release", {"CARGO_PROFILE_RELEASE_DEBUG": "1"}, "", ()),
        ("release", {"CARGO_PROFILE_RELEASE_DEBUG": "true"}, "", ()),
        ("release", {"CARGO_PROFILE_RELEASE_STRIP": "symbols"}, "", ()),
        ("release", {"CARGO_PROFILE_RELEASE_STRIP": "false"}, "", ()),
        ("dev", {"CARGO_PROFILE_DEV_DEBUG": "0"}, "", ()),
        ("release", {}, "[profile.release]\nstrip = true\n", ()),
        ("release", {}, "[profile.release]\ndebug = 2\n", ()),
        ("release", {"CARGO_PROFILE_RELEASE_STRIP": "none"}, "[profile.release]\nstrip=true", ()),
        ("release", {"CARGO_PROFILE_RELEASE_DEBUG": "0"}, "", ("profile.release.debug=1",)),
        ("new-one", {}, '[profile.new-one]\ninherits = "release"\nstrip = true\n', ()),
        ("release", {}, "", ("profile.release.package.dep.debug=2",)),
        ("release", {}, "", ("profile.release.package.'*'.debug=2",)),
    ],
)
def test_strip_default_agrees_with_cargos_unit_graph(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environ: dict[str, str],
    config: str,
    arguments: tuple[str, ...],
) -> None:
    need("cargo")
    root = package(
        tmp_path / "crate",
        "tiny",
        PROFILES + '[dependencies]\ndep = { path = "../dep" }\n',
        workspace=True,
    )
    package(tmp_path / "dep", "dep")
    write(root / ".cargo/config.toml", config)
    monkeypatch.chdir(root)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    words = [word for a in arguments for word in ("--config", a)]
    graph = json.loads(
        call(
            ["cargo", "build", "--profile", name, "--unit-graph", "-Zunstable-options", *words],
            root,
            UNSTABLE,
        )
    )
    (unit,) = [u for u in graph["units"] if u["target"]["name"] == "tiny"]
    said = default_strip(name, read_table(root / "Cargo.toml"), load_config(arguments))
    assert said is Strip(_resolved(unit["profile"]["strip"]))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cargo")
    root = tmp_path_factory.mktemp("members")
    for name in ("root", "aa", "ab", "b-c"):
        package(root if name == "root" else root / name, name, version="1.2.3")
    manifest = root / "Cargo.toml"
    text = '[workspace]\nresolver = "2"\nmembers = ["aa", "ab", "b-c"]\n'
    manifest.write_text(text + 'default-members = ["aa", "."]\n' + manifest.read_text())
    return root


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ([], "."),
        ([], "ab"),
        (["-p", "aa"], "."),
        (["-p", "a*"], "."),
        (["-p", "a?", "-p", "root"], "."),
        (["-p", "[!a]*"], "."),
        (["-p", "b-c@1.2.3"], "."),
        (["-p", "b-c@1.2"], "."),
        (["-p", "ab:1"], "."),
        (["-p", "file://ROOT/ab"], "."),
        (["-p", "path+file://ROOT/ab"], "."),
        (["-p", "path+file://ROOT/ab#1.2.3"], "."),
        (["-p", "file://ROOT#root@1.2.3"], "."),
        (["--workspace"], "ab"),
        (["--workspace", "--exclude", "a*", "--exclude", "root"], "."),
        (["--workspace", "--exclude", "b-c@1.2.3"], "aa"),
        (["--manifest-path", "ROOT/ab/Cargo.toml"], "."),
    ],
)
def test_selection_agrees_with_cargos_unit_graph(
    workspace: Path, words: list[str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cargo_strip_hook.cargo.wrap import wrap_selection

    monkeypatch.chdir(workspace / folder)
    words = [w.replace("ROOT", str(workspace)) for w in words]
    argv = ["cargo", "build", "--unit-graph", "-Zunstable-options", "--offline", *words]
    graph = json.loads(call(argv, workspace / folder, UNSTABLE))
    built = {graph["units"][i]["pkg_id"] for i in graph["roots"]}
    selection = wrap_selection("cbuild", words)
    assert selection is not None
    assert {p.id for p in select_packages(load_workspace(selection), selection)} == built


def test_configuration_agrees_with_cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("cargo")
    here = tmp_path / "a/b"
    write(here / ".cargo/config.toml", '[build]\ntarget = "near"\ninclude = 1\n')
    write(tmp_path / "a/.cargo/config", '[build]\ntarget = "middle"\nrustc = "middle/rustc"\n')
    write(tmp_path / "a/.cargo/config.toml", '[build]\ntarget = "not-this-one"\n')
    write(tmp_path / ".cargo/config.toml", '[build]\ntarget = "far"\njobs = 3\n')
    write(tmp_path / "home/config.toml", "[build]\njobs = 5\n[term]\nverbose = true\n")
    write(here / "extra.toml", '[profile.release]\nstrip = "symbols"\n')
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(here)
    config = load_config(("extra.toml", "build.jobs=7"))
    argv = ["cargo", "config", "get", "--format", "json", "-Zunstable-options"]
    argv += ["--config", "extra.toml", "--config", "build.jobs=7"]
    for keys in (("build", "target"), ("build", "jobs"), ("profile", "release", "strip")):
        said: Any = json.loads(call([*argv, ".".join(keys)], here, UNSTABLE))
        for key in keys:
            said = said[key]
        assert config.get(*keys) == said
    assert config.get("build", "target") == "near"
    assert config.get("build", "rustc") == str(tmp_path / "a/middle/rustc")
    assert config.get("term", "verbose") is True
    assert config.get("term", "quiet") is None


def test_this_machines_versions_are_known() -> None:
    need("rustc")
    rustc = find_rustc(load_config())
    assert call(["rustc", "--version"], Path.cwd()).split()[1] == rustc.release
    assert rustc_warnings(rustc) == ()


def test_cargo_c_version() -> None:
    listed = call([need("cargo"), "install", "--list"], Path.cwd())
    need("cargo-cbuild")
    version = cargo_c_version()
    assert version
    if "cargo-c v" in listed:
        assert f"cargo-c v{version}" in listed
    assert cargo_c_warnings() == tuple(
        filter(None, [check_version("cargo-c", version, ("0.9", "0.11"))])
    )


def test_selection_without_workspace_key(workspace: Path) -> None:
    """cargo before 1.71 does not tell the default members."""
    from cargo_strip_hook.cargo.metadata import metadata_argv, parse_metadata

    argv = metadata_argv(Selection(manifest_path=workspace))
    data = json.loads(call(argv, workspace))
    del data["workspace_default_members"]
    parsed = parse_metadata(data)
    assert [p.name for p in parsed.members if p.id in parsed.default_members] == ["root"]
