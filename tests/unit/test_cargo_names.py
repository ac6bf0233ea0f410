"""Names, folders, versions and arguments that need no tool to be checked."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import pytest

from cargo_strip_hook.cargo.capi import IncludeFiles, load_capi, shipped_headers
from cargo_strip_hook.cargo.cbindgen import active_defines, load_defines
from cargo_strip_hook.cargo.config import load_config
from cargo_strip_hook.cargo.implib import is_import_library, refuse_import_library
from cargo_strip_hook.cargo.metadata import Package, enabled_features, matches_spec
from cargo_strip_hook.cargo.paths import (
    LibraryNames,
    default_libdir,
    install_tree,
    library_names,
    under_destdir,
)
from cargo_strip_hook.cargo.profile import default_strip
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.stale import newer_source, parse_dep_info
from cargo_strip_hook.cargo.versions import check_version, parse_cargo_c_version
from cargo_strip_hook.cargo.wrap import wrap_argv, wrap_selection
from cargo_strip_hook.core.errors import DiscoveryError, UsageError
from cargo_strip_hook.core.target import Target

HOST = Target.parse("x86_64-unknown-linux-gnu")


# the table of cargo-c's own tests (src/build_targets.rs), installed names from the same file
@pytest.mark.parametrize(
    ("triple", "meson", "expected"),
    [
        ("x86_64-unknown-linux-gnu", False, ("libferris.a", "libferris.so", None)),
        ("x86_64-unknown-linux-gnu", True, ("libferris.a", "libferris.so", None)),
        ("aarch64-linux-android", False, ("libferris.a", "libferris.so", None)),
        ("aarch64-apple-darwin", False, ("libferris.a", "libferris.dylib", None)),
        ("aarch64-apple-ios", False, ("libferris.a", "libferris.dylib", None)),
        ("x86_64-pc-windows-msvc", False, ("ferris.lib", "ferris.dll", "ferris.dll.lib")),
        ("x86_64-pc-windows-msvc", True, ("ferris.lib", "ferris.dll", "ferris.lib")),
        ("x86_64-pc-windows-gnu", False, ("libferris.a", "ferris.dll", "ferris.dll.a")),
        ("x86_64-pc-windows-gnu", True, ("libferris.a", "ferris.dll", "libferris.dll.a")),
        ("x86_64-pc-cygwin", False, ("libferris.a", "ferris.dll", "libferris.dll.a")),
    ],
)
def test_file_names(triple: str, meson: bool, expected: tuple[str, str, str | None]) -> None:
    names = library_names(Target.parse(triple), "ferris", meson_paths=meson)
    assert (names.static, names.shared, names.import_library) == expected


def test_installed_names_differ_on_windows() -> None:
    msvc, gnu = "x86_64-pc-windows-msvc", "x86_64-pc-windows-gnu"

    def installed(triple: str, meson: bool) -> tuple[str, str]:
        names: LibraryNames = library_names(Target.parse(triple), "f", meson_paths=meson)
        return names.installed_static, names.installed_shared

    assert installed(msvc, False) == ("f.lib", "f.dll")
    assert installed(msvc, True) == ("libf.a", "f.dll")
    assert installed(gnu, True) == ("libf.a", "libf.dll")
    assert installed("x86_64-pc-cygwin", False) == ("libf.a", "cygf.dll")


def _libdir(root: Path, triple: str, **fields: Any) -> str:
    target = Target.parse(triple)
    environ = fields.pop("environ", {})
    overridden = fields.pop("overridden", False)
    return default_libdir(
        target, HOST, overridden=overridden, environ=environ, root=root
    ).as_posix()


def test_default_libdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand from cargo-c's `src/target.rs`."""
    linux, arm = HOST.triple, "aarch64-unknown-linux-gnu"
    assert _libdir(tmp_path, linux) == "lib"
    (tmp_path / "usr/lib64").mkdir(parents=True)
    assert _libdir(tmp_path, linux) == "lib64"
    assert _libdir(tmp_path, linux, overridden=True) == "lib"
    assert _libdir(tmp_path, arm) == "lib"
    (tmp_path / "usr/lib64").rename(tmp_path / "usr/libx")
    (tmp_path / "usr/lib64").symlink_to("libx")
    assert _libdir(tmp_path, linux) == "lib"

    fake = tmp_path / "bin/dpkg-architecture"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ "$1" = -qDEB_HOST_MULTIARCH ] && echo arch-triplet\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/debian_version").touch()
    assert _libdir(tmp_path, linux) == "lib/arch-triplet"
    assert _libdir(tmp_path, arm, overridden=True) == "lib"
    cross = {"DEB_HOST_RUST_TYPE": arm}
    assert _libdir(tmp_path, arm, overridden=True, environ=cross) == "lib/arch-triplet"
    assert _libdir(tmp_path, linux, overridden=True, environ=cross) == "lib"
    assert _libdir(tmp_path, "x86_64-unknown-freebsd") == "lib"
    fake.write_text("#!/bin/sh\nexit 1\n")
    assert _libdir(tmp_path, linux) == "lib"


def test_install_folders(tmp_path: Path) -> None:
    root = tmp_path / "nothing"
    given = Selection(
        installed=True,
        destdir=tmp_path / "d",
        prefix=Path("/usr"),
        libdir=Path("lib/x"),
        includedir=Path("/abs/include"),
    )
    tree = install_tree(given, HOST, HOST, environ={"DESTDIR": "/no"}, root=root)
    assert tree.libdir == tmp_path / "d/usr/lib/x"
    assert tree.includedir == tmp_path / "d/abs/include"
    assert tree.pkgconfigdir == tmp_path / "d/usr/lib/x/pkgconfig"
    elsewhere = replace(given, pkgconfigdir=Path("share/pkgconfig"))
    tree = install_tree(elsewhere, HOST, HOST, environ={}, root=root)
    assert tree.pkgconfigdir == tmp_path / "d/usr/share/pkgconfig"
    plain = install_tree(Selection(installed=True), HOST, HOST, environ={}, root=root)
    assert (plain.libdir, plain.includedir) == (Path("/usr/local/lib"), Path("/usr/local/include"))
    haiku = Target.parse("x86_64-unknown-haiku")
    tree = install_tree(Selection(installed=True), haiku, HOST, environ={}, root=root)
    assert tree.includedir == Path("/boot/system/non-packaged/develop/headers")


# the cases of cargo-c's own test (src/install.rs)
@pytest.mark.parametrize(
    ("destdir", "path", "expected"),
    [("/foo", "/bar/./..", "/foo/bar/./.."), ("foo", "bar", "foo/bar"), ("", "", "")],
)
def test_under_destdir(destdir: str, path: str, expected: str) -> None:
    assert under_destdir(Path(destdir), Path(path)) == Path(expected).absolute()


def _package(metadata: dict[str, Any] | None = None, **fields: Any) -> Package:
    values: dict[str, Any] = {
        "id": "path+file:///w/my-lib#1.2.3",
        "name": "my-lib",
        "version": "1.2.3",
        "manifest": Path("/w/my-lib/Cargo.toml"),
        "crate_name": "my_lib",
        "crate_types": ("lib",),
        "features": {"capi": ()},
        "metadata": {"capi": metadata} if metadata is not None else {},
    }
    return Package(**{**values, **fields})


def test_capi_defaults() -> None:
    capi = load_capi(_package())
    assert (capi.library_name, capi.crate_name, capi.library_version) == (
        "my_lib",
        "my_lib",
        "1.2.3",
    )
    assert (capi.header_file, capi.header_subdirectory) == (PurePath("my_lib.h"), "my_lib")
    assert (capi.header_enabled, capi.header_generation, capi.versioning) == (True, True, True)
    assert capi.include[1].pattern == "assets/my_lib.h"


@pytest.mark.parametrize(
    ("value", "subdirectory"), [(True, "my_lib"), (False, ""), ("a/b", "a/b"), ("", "")]
)
def test_header_subdirectory(value: object, subdirectory: str) -> None:
    capi = load_capi(_package({"header": {"subdirectory": value}}))
    assert capi.header_subdirectory == subdirectory
    assert {i.to for i in capi.include} == {subdirectory}


def test_header_name_new_form_over_old() -> None:
    both = load_capi(_package({"header_name": "old", "header": {"name": "new.h"}}))
    assert both.header_file == PurePath("new.h")
    assert both.include[1].pattern == "assets/new.h"


def test_values_cargo_c_passes_over() -> None:
    capi = load_capi(_package({"library": {"name": 3, "install_subdir": [], "versioning": "no"}}))
    assert (capi.library_name, capi.install_subdir, capi.versioning) == ("my_lib", None, True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"header": {"name": 1}}, "capi.header.name` in /w/my-lib/Cargo.toml must be a string"),
        ({"header": {"enabled": "no"}}, "capi.header.enabled` in"),
        ({"header": {"generation": 1}}, "must be a boolean, not an integer"),
        ({"header": {"subdirectory": 1}}, "capi.header.subdirectory` in"),
        ({"header": {"name": ""}}, "is empty"),
        ({"install": {"include": {"asset": [{"to": "x"}]}}}, "without `from`"),
    ],
)
def test_values_cargo_c_fails_on(table: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_capi(_package(table))
    assert said in caught.value.what


def test_capi_of_a_package_without_library() -> None:
    with pytest.raises(DiscoveryError, match="no library target"):
        load_capi(_package(crate_name=None))


def test_shipped_headers_in_an_odd_folder(tmp_path: Path) -> None:
    root = tmp_path / "we[i]rd*"
    for name in ("inc/a.h", "inc/deep/b.h", "other.h"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()

    def places(pattern: str) -> list[str]:
        found = shipped_headers(IncludeFiles(pattern, "to", False), root)
        return [to.as_posix() for _, to in found]

    assert places("inc/**/*") == ["to/a.h", "to/deep/b.h"]
    assert places("inc/*.h") == ["to/a.h"]
    assert places("inc/*/b.h") == []
    assert places("nothing/**/*.h") == []


@pytest.mark.parametrize(
    ("spec", "matches"),
    [
        ("my-lib", True),
        ("my_lib", False),
        ("my-*", True),
        ("my-lib@1", True),
        ("my-lib@1.2.3", True),
        ("my-lib:1.2", True),
        ("my-lib@1.2.30", False),
        ("my-lib@1.20", False),
        ("file:///w/my-lib", True),
        ("path+file:///w/my-lib#my-lib@1.2.3", True),
        ("file:///w/my-lib#other", False),
        ("file:///w/my-lib#1.2.3", True),
        ("file:///w/other#my-lib", False),
    ],
)
def test_package_specifications(spec: str, matches: bool) -> None:
    assert matches_spec(spec, _package()) is matches


def test_enabled_features() -> None:
    features = {"default": ("a",), "a": ("b", "dep:x"), "b": (), "c": ("b",), "capi": ("c",)}
    package = _package(features=features)
    assert enabled_features(package, Selection()) == {"default", "a", "b", "c", "capi"}
    bare = Selection(no_default_features=True, features=("a,z other/q", "my-lib/default"))
    assert enabled_features(package, bare) == {"a", "b", "c", "capi", "default"}
    assert enabled_features(package, Selection(all_features=True)) == set(features)
    assert enabled_features(package, Selection(no_default_features=True)) == {"capi", "c", "b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.9.32", None),
        ("0.10.24", None),
        ("0.8.9", "cargo-c 0.8.9 is too old"),
        ("0.11.0", "cargo-c 0.11.0 is too new"),
        ("1.0.0-beta.1", "cargo-c 1.0.0-beta.1 is too new"),
        ("unknown", "no version number"),
    ],
)
def test_versions(text: str, said: str | None) -> None:
    warning = check_version("cargo-c", text, ("0.9", "0.11"))
    assert warning is None if said is None else said in (warning or "")


def test_rustc_nightly_counts_as_its_release() -> None:
    assert check_version("rustc", "1.63.0-nightly", ("1.63", "2")) is None
    assert "too old" in (check_version("rustc", "1.62.1", ("1.63", "2")) or "")


def test_cargo_c_version_text() -> None:
    assert parse_cargo_c_version("cargo-c 0.10.24+cargo-0.98.0\n") == "0.10.24"
    assert parse_cargo_c_version("cargo 1.95.0") == ""


def test_dep_info() -> None:
    text = "/t/lib a.a: /s/a\\ b.rs /s/c.rs\n/t/liba.so: /s/c.rs C:\\x.rs\n"
    assert parse_dep_info(text) == ("/s/a b.rs", "/s/c.rs", "C:\\x.rs")


def test_newest_source_wins(tmp_path: Path) -> None:
    for number, name in enumerate(
        ["lib.a", "old.rs", "a.rs", "b.rs", "sub/Cargo.toml", "sub/c.rs"]
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        when = 50 if name == "old.rs" else 100 + number
        os.utime(path, (when, when))
    library = tmp_path / "lib.a"
    # a folder with a manifest is another package
    assert newer_source(library, [], tmp_path) == tmp_path / "b.rs"
    listed = tmp_path / "lib.d"
    listed.write_text(f"lib.a: {tmp_path}/old.rs a.rs gone.rs\n")
    assert newer_source(library, [tmp_path / "no.d", listed], tmp_path) == tmp_path / "a.rs"
    os.utime(library, (200, 200))
    assert newer_source(library, [], tmp_path) is None
    assert newer_source(tmp_path / "none", [], tmp_path) is None


def _member(name: bytes, data: bytes) -> bytes:
    header = b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"644", len(data))
    return header + data + b"\n" * (len(data) % 2)


def _coff(*sections: bytes) -> bytes:
    header = struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 0, 0)
    return header + b"".join(s.ljust(40, b"\0") for s in sections)


SHORT = struct.pack("<HHHHIIHH", 0, 0xFFFF, 0, 0x8664, 0, 10, 0, 4) + b"f\0foo.dll\0"
BIG = struct.pack("<HHHHI", 0, 0xFFFF, 2, 0x8664, 0) + bytes(44)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([SHORT, SHORT], True),
        ([_coff(b".debug$S", b".idata$2"), SHORT], True),
        ([_coff(b".text", b".idata$7"), _coff(b".idata$4")], True),
        ([SHORT, _coff(b".text")], False),
        ([_coff(b".text$x"), SHORT], False),
        ([BIG], False),
        ([b"\x7fELF" + bytes(60)], False),
        ([b"short"], False),
        ([], False),
    ],
)
def test_import_library_by_content(tmp_path: Path, members: list[bytes], expected: bool) -> None:
    path = tmp_path / "foo.lib"
    path.write_bytes(b"!<arch>\n" + b"".join(_member(b"m/", m) for m in members))
    assert is_import_library(path) is expected
    if expected:
        with pytest.raises(DiscoveryError, match="import library of a DLL"):
            refuse_import_library(path)
    else:
        refuse_import_library(path)


@pytest.mark.parametrize("name", ["foo.dll.lib", "foo.dll.a"])
def test_import_library_by_name(tmp_path: Path, name: str) -> None:
    assert is_import_library(tmp_path / name)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], Selection()),
        (["-r"], Selection(profile="release")),
        (["--profile=x", "--release"], Selection(profile="x")),
        (["-p", "a", "-pb", "-p=c", "--package=d"], Selection(packages=("a", "b", "c", "d"))),
        (["-p", "--release"], Selection(profile="release")),
        (["-vrp", "a"], Selection(packages=("a",), profile="release")),
        (["-j", "4", "-Zfoo", "-Z", "bar"], Selection(unstable=("foo", "bar"))),
        (["--workspace", "--exclude", "a"], Selection(workspace=True, exclude=("a",))),
        (["--target", "--locked"], Selection(locked=True)),
        (["--target", "t", "--target-dir", "d"], Selection(target="t", target_dir=Path("d"))),
        (["--config", "a.b=1", "--config=f"], Selection(config=("a.b=1", "f"))),
        (["--color", "--release"], Selection()),
        (["--library-type", "StaticLib"], Selection(library_types=("staticlib",))),
        (["-F", "a,b", "--all-features"], Selection(features=("a,b",), all_features=True)),
        (["--unheard-of", "--offline", "--", "-r"], Selection(offline=True)),
        (["--message-format", "json", "--meson-paths"], Selection(meson_paths=True)),
        (["--help"], None),
        (["-rh"], None),
        (["--release", "-V"], None),
        (["--explain", "E0001"], None),
    ],
)
def test_cbuild_arguments(args: list[str], expected: Selection | None) -> None:
    assert wrap_selection("cbuild", args) == expected


def test_cinstall_arguments(tmp_path: Path) -> None:
    args = ["--path", str(tmp_path), "--debug", "--destdir=d", "--prefix", "/p", "--bindir", "b"]
    assert wrap_selection("cinstall", args) == Selection(
        installed=True,
        profile="dev",
        manifest_path=tmp_path / "Cargo.toml",
        destdir=Path("d"),
        prefix=Path("/p"),
        bindir=Path("b"),
    )


def test_exclude_without_workspace_is_refused_as_by_cargo() -> None:
    with pytest.raises(UsageError, match="--exclude can only be used together with --workspace"):
        wrap_selection("cbuild", ["--exclude", "a"])


def test_wrapped_argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "home"))
    args = ["--odd", "", "a b", "--", "-p"]
    assert wrap_argv("cbuild", args) == ("cargo-cbuild", "cbuild", *args)
    for folder in ("home/bin", "bin"):
        program = tmp_path / folder / "cargo-cinstall"
        program.parent.mkdir(parents=True)
        program.touch()
        program.chmod(0o755)
        assert wrap_argv("cinstall", args) == (str(program), "cinstall", *args)


def test_profile_default_and_refusals() -> None:
    assert Selection().profile_name == "dev"
    assert Selection(installed=True).profile_name == "release"
    assert Selection(installed=True, profile="dev").profile_name == "dev"
    with pytest.raises(UsageError, match="`doc` is reserved"):
        Selection(profile="doc")


@pytest.mark.parametrize(
    ("profiles", "said"),
    [
        ({}, "profile `x` is not defined"),
        ({"x": {}}, "missing an `inherits`"),
        ({"x": {"inherits": "y"}, "y": {"inherits": "x"}}, "inherits from itself"),
        ({"x": {"inherits": "dev", "strip": "all"}}, "has strip = 'all'"),
    ],
)
def test_profiles_that_mean_nothing(profiles: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = load_config(cwd=tmp_path, environ={"CARGO_HOME": str(tmp_path)})
    with pytest.raises(DiscoveryError) as caught:
        default_strip("x", {"profile": profiles}, config)
    assert said in caught.value.what


def test_configuration_includes(tmp_path: Path) -> None:
    folder = tmp_path / ".cargo"
    folder.mkdir()
    (folder / "config.toml").write_text(
        'include = ["a.toml", { path = "none.toml", optional = true }]\n[build]\njobs = 1\n'
    )
    (folder / "a.toml").write_text('[build]\njobs = 2\ntarget = "t"\nrustc = "rel/rustc"\n')
    config = load_config(cwd=tmp_path, environ={"CARGO_HOME": str(tmp_path / "h")})
    assert (config.get("build", "jobs"), config.get("build", "target")) == (1, "t")
    assert config.get("build", "rustc") == str(tmp_path / "rel/rustc")
    (folder / "a.toml").write_text('include = "config.toml"\n')
    with pytest.raises(DiscoveryError, match="includes itself"):
        load_config(cwd=tmp_path, environ={})


def test_broken_configuration_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("= 1\n")
    with pytest.raises(DiscoveryError, match=r"config\.toml is not TOML"):
        load_config(cwd=tmp_path, environ={"CARGO_HOME": str(tmp_path)})
    with pytest.raises(UsageError, match="neither a file nor a TOML assignment"):
        load_config(["nonsense"], cwd=tmp_path / "x", environ={"CARGO_HOME": "/none"})


def test_environment_between_file_and_argument(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[build]\ntarget = "file"\n')
    environ = {"CARGO_HOME": str(tmp_path), "CARGO_BUILD_TARGET": "environment"}
    there = tmp_path / "x"
    assert load_config(cwd=there, environ=environ).get("build", "target") == "environment"
    config = load_config(["build.target='argument'"], cwd=there, environ=environ)
    assert config.get("build", "target") == "argument"
    del environ["CARGO_BUILD_TARGET"]
    assert load_config(cwd=there, environ=environ).get("build", "target") == "file"


def test_cbindgen_defines(tmp_path: Path) -> None:
    assert load_defines(tmp_path) == {}
    (tmp_path / "cbindgen.toml").write_text(
        '[defines]\n"unix" = "A"\n"target_os = macos" = "A"\n"feature = x" = "B"\n"a b" = "C"\n'
    )
    defines = load_defines(tmp_path)
    assert defines == {"A": "any(unix, target_os = macos)", "B": "feature = x", "C": "a b"}
    cfg = frozenset({("target_os", "macos"), ("feature", "y")})
    assert active_defines(defines, cfg) == (("A",), ["a b"])
