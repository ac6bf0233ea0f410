"""Discovery beside cargo-c's usual case: plain cargo, configured folders and targets, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cargo_strip_hook.cargo.discover import Artefact, find_libraries
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.wrap import wrap_selection
from cargo_strip_hook.core.errors import DiscoveryError, ToolError, UsageError
from cargo_strip_hook.core.requests import Granularity, Strip
from tests.cargo.workspaces import call, package, write
from tests.tools import need


@pytest.fixture(scope="module")
def host() -> str:
    need("cargo")
    return call([need("rustc"), "--print", "host-tuple"], Path.cwd()).strip()


@pytest.fixture
def crate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    need("cargo")
    root = package(
        tmp_path / "crate",
        "tiny",
        workspace=True,
        files={"assets/capi/include/tiny.h": "int tiny_one(void);\n"},
    )
    monkeypatch.chdir(root)
    return root


def build(root: Path, *args: str) -> None:
    call(["cargo", "rustc", "--lib", "--crate-type", "staticlib", "--offline", *args], root)


def only(**fields: object) -> Artefact:
    (found,) = find_libraries(Selection(**fields))  # type: ignore[arg-type]
    return found


def test_library_of_plain_cargo(crate: Path) -> None:
    build(crate, "--release")
    found = only(profile="release")
    assert found.library == crate / "target/release/libtiny.a"
    assert found.headers == (crate / "assets/capi/include/tiny.h",)
    assert (found.header_expected, found.cdylib, found.crate_name) == (False, None, "tiny")
    assert found.strip_default is Strip.DEBUGINFO


def test_two_libraries_of_plain_cargo_are_ambiguous(crate: Path, host: str) -> None:
    build(crate)
    build(crate, "--target", host)
    with pytest.raises(DiscoveryError, match="several libraries") as caught:
        only()
    assert os.fspath(crate / "target/debug/libtiny.a") in caught.value.what
    assert os.fspath(crate / "target" / host / "debug/libtiny.a") in caught.value.what
    assert only(target=host).library == crate / "target" / host / "debug/libtiny.a"


def test_cargo_cs_library_wins_and_a_newer_other_is_told(crate: Path, host: str) -> None:
    call([need("cargo-cbuild"), "cbuild", "--offline"], crate)
    build(crate)
    found = only()
    assert found.library == crate / "target" / host / "debug/libtiny.a"
    (warning,) = found.warnings
    assert os.fspath(crate / "target/debug/libtiny.a") in warning


@pytest.mark.parametrize(
    ("environ", "config", "arguments", "expected"),
    [
        ({"CARGO_TARGET_DIR": "e1"}, "", [], "e1/debug"),
        ({"CARGO_BUILD_TARGET_DIR": "e2"}, "", [], "e2/debug"),
        ({}, '[build]\ntarget-dir = "c1"\n', [], "c1/debug"),
        ({}, "", ["--config", "build.target-dir='k1'"], "k1/debug"),
        ({"CARGO_TARGET_DIR": "e3"}, "", ["--target-dir", "t1"], "t1/debug"),
        ({}, '[build]\ntarget = "HOST"\n', [], "target/HOST/debug"),
        ({"CARGO_BUILD_TARGET": "HOST"}, '[build]\ntarget = "other"\n', [], "target/HOST/debug"),
        ({}, "", ["--config", "build.target='HOST'"], "target/HOST/debug"),
        ({}, '[profile.mine]\ninherits = "dev"\n', ["--profile", "mine"], "target/mine"),
    ],
)
def test_where_cargo_puts_it_is_where_we_look(
    crate: Path,
    host: str,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    config: str,
    arguments: list[str],
    expected: str,
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value.replace("HOST", host))
    if config:
        write(crate / ".cargo/config.toml", config.replace("HOST", host))
    words = [word.replace("HOST", host) for word in arguments]
    build(crate, *words)
    selection = wrap_selection("cbuild", words)
    assert selection is not None
    (found,) = find_libraries(selection)
    # cargo itself put it there: the folder is by hand, the file by cargo
    assert found.library == crate / expected.replace("HOST", host) / "libtiny.a"
    assert found.warnings == ()


def test_configuration_is_searched_upwards(crate: Path) -> None:
    write(crate.parent / ".cargo/config.toml", '[build]\ntarget-dir = "above"\n')
    build(crate)
    assert only().library == crate.parent / "above/debug/libtiny.a"


def test_build_dir_of_its_own(crate: Path) -> None:
    write(crate / ".cargo/config.toml", '[build]\nbuild-dir = "apart"\n')
    build(crate)
    assert only().library == crate / "target/debug/libtiny.a"


def test_configured_foreign_target(crate: Path, host: str) -> None:
    """Laid out by hand as measured with cargo-c 0.10.24: the header goes to the host's folder."""
    write(crate / ".cargo/config.toml", '[build]\ntarget = "riscv64gc-unknown-linux-gnu"\n')
    with pytest.raises(DiscoveryError) as caught:
        only()
    assert any("--target riscv64gc-unknown-linux-gnu" in h for h in caught.value.help)
    library = write(crate / "target/riscv64gc-unknown-linux-gnu/debug/libtiny.a", "!<arch>\n")
    header = write(crate / "target" / host / "debug/tiny.h", "int tiny_one(void);\n")
    write(crate / "target" / host / "debug/cargo-c-tiny.cache", "")
    found = only()
    assert (found.library, found.headers[0]) == (library, header)
    assert found.target.triple == "riscv64gc-unknown-linux-gnu"


def test_newer_data_file_that_the_source_includes(crate: Path) -> None:
    """Only cargo's own list of sources knows of it."""
    data = write(crate / "data.txt", "text")
    source = crate / "src/lib.rs"
    include = 'pub static DATA: &str = include_str!("../data.txt");\n'
    source.write_text(source.read_text() + include)
    build(crate)
    assert only().warnings == ()
    later = only().library.stat().st_mtime + 10
    os.utime(data, (later, later))
    (warning,) = only().warnings
    assert os.fspath(data) in warning


def test_rustc_is_the_program_in_RUSTC(crate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = write(crate / "target/m68k-unknown-linux-gnu/debug/libtiny.a", "!<arch>\n")
    fake = write(
        crate / "bin/rustc",
        "#!/bin/sh\necho rustc 1.60.0\necho host: m68k-unknown-linux-gnu\necho release: 1.60.0\n",
    )
    fake.chmod(0o755)
    monkeypatch.setenv("RUSTC", os.fspath(fake))
    found = only()
    assert found.library == library
    (warning,) = found.warnings
    assert "rustc 1.60.0 is too old" in warning


def test_cargo_is_the_program_in_CARGO(crate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARGO", os.fspath(crate / "no-such-cargo"))
    with pytest.raises(ToolError, match="no-such-cargo` is not installed"):
        only()


@pytest.mark.usefixtures("host")
def test_no_manifest_is_cargos_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolError) as caught:
        only()
    assert "could not find `Cargo.toml`" in caught.value.failure.stderr


def test_several_configured_targets_need_a_choice(crate: Path) -> None:
    write(crate / ".cargo/config.toml", '[build]\ntarget = ["a-b-c", "d-e-f"]\n')
    with pytest.raises(DiscoveryError, match="a-b-c, d-e-f") as caught:
        only()
    assert caught.value.help == ("choose one with --target",)


def test_cdylib_alone_is_refused() -> None:
    with pytest.raises(DiscoveryError, match="no static library"):
        find_libraries(Selection(library_types=("cdylib",)))


def test_two_packages_with_one_library_name(tmp_path: Path, host: str) -> None:
    for name in ("one", "two"):
        manifest = '[package.metadata.capi.library]\nname = "same"\n'
        package(tmp_path / name, name, manifest)
    write(tmp_path / "Cargo.toml", '[workspace]\nresolver = "2"\nmembers = ["one", "two"]\n')
    output = tmp_path / "target" / host / "debug"
    write(output / "libsame.a", "!<arch>\n")
    write(output / "same.pc", "")
    with pytest.raises(DiscoveryError, match="packages `one` and `two` have the same library"):
        find_libraries(Selection(manifest_path=tmp_path, workspace=True))


def test_import_library_is_refused(crate: Path) -> None:
    """Made by llvm-dlltool, where --meson-paths has cargo-c put one: over the static library."""
    dlltool = need("llvm-dlltool", "llvm-dlltool-22")
    triple = "x86_64-pc-windows-msvc"
    output = crate / "target" / triple / "debug"
    definitions = write(output / "tiny.def", "LIBRARY tiny.dll\nEXPORTS\ntiny_one\ntiny_two\n")
    argv: list[str | Path] = [dlltool, "-m", "i386:x86-64", "-d", definitions, "-l"]
    call([*argv, output / "tiny.lib"], crate)
    with pytest.raises(DiscoveryError, match="import library") as caught:
        only(target=triple, meson_paths=True)
    assert any("--library-type staticlib" in h for h in caught.value.help)
    # without --meson-paths its name tells, and the search says that it saw it
    (output / "tiny.lib").rename(output / "tiny.dll.lib")
    with pytest.raises(DiscoveryError, match="no static library") as caught:
        only(target=triple)
    assert any("tiny.dll.lib is the import library" in h for h in caught.value.help)


SETTINGS = """
[workspace.metadata.strip-hook]
export = ["ws_*"]
keep = "ws_keep"
strip = "symbols"
header = "ws.h"
[workspace.metadata.strip-hook.targets.'cfg(unix)']
strip = "none"
[package.metadata.strip-hook]
export = ["pkg_*"]
engine = "system"
granularity = "section"
[package.metadata.strip-hook.targets.'cfg(target_os = "linux")']
granularity = "whole"
[package.metadata.strip-hook.targets.x86_64-pc-windows-msvc]
engine = "native"
"""


def test_settings_package_over_workspace_with_targets(crate: Path) -> None:
    build(crate)
    manifest = crate / "Cargo.toml"
    manifest.write_text(manifest.read_text().replace("[workspace]\n", "") + SETTINGS)
    settings = only().settings
    assert settings.named == {"export": ("pkg_*",)}
    assert settings.keep == ("ws_keep",)
    assert settings.header == (crate / "ws.h",)
    assert settings.strip is Strip.NONE
    assert settings.engine == "system"
    assert settings.granularity is Granularity.WHOLE
    assert settings.allow_missing is None


def test_unknown_setting_names_the_key_and_the_file(crate: Path) -> None:
    manifest = crate / "Cargo.toml"
    manifest.write_text(manifest.read_text() + "[package.metadata.strip-hook]\nexprt = []\n")
    with pytest.raises(UsageError) as caught:
        only()
    assert "package.metadata.strip-hook.exprt" in caught.value.what
    assert os.fspath(manifest) in caught.value.what
    assert caught.value.help == ("did you mean `export`?",)


def test_cbindgen_defines_that_hold(crate: Path) -> None:
    build(crate)
    write(
        crate / "cbindgen.toml",
        '[defines]\n"target_os = linux" = "ON_LINUX"\nwindows = "ON_WINDOWS"\n'
        '"feature = capi" = "WITH_CAPI"\n"feature = extra" = "WITH_EXTRA"\n'
        '"target_os = freebsd" = "ON_ANY"\n"unix" = "ON_ANY"\n',
    )
    found = only()
    assert found.defines["ON_LINUX"] == "target_os = linux"
    assert set(found.active_defines) == {"ON_LINUX", "WITH_CAPI", "ON_ANY"}
