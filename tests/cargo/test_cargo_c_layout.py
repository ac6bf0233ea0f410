"""What we compute, against what cargo-c wrote: one workspace, built and installed once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from cargo_strip_hook.cargo.discover import Artefact, find_libraries
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.wrap import wrap
from cargo_strip_hook.core.errors import DiscoveryError, UsageError
from cargo_strip_hook.core.requests import Strip
from tests.cargo.workspaces import ABORT, call, package, write
from tests.tools import need

BUILD_RS = """\
fn main() {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").unwrap());
    for name in ["capi/include/made.h", "more/deep/er.h", "more/not-a-header.txt"] {
        let path = out.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "void made(void);\\n").unwrap();
    }
    println!("cargo:rerun-if-changed=build.rs");
}
"""

# package -> (manifest, other files)
PACKAGES: dict[str, tuple[str, dict[str, str]]] = {
    "plain-name": ("", {}),
    "renamed": (
        '[package.metadata.capi.library]\nname = "other-name"\nversion = "7.8.9"\n'
        '[package.metadata.capi.header]\nname = "fancy.v2"\n',
        {},
    ),
    "plugin": (
        "[package.metadata.capi.header]\nenabled = false\n"
        '[package.metadata.capi.library]\ninstall_subdir = "plugins-1.0"\nversioning = false\n',
        {},
    ),
    "flat": (
        '[package.metadata.capi.header]\nname = "flat_api"\nsubdirectory = false\n'
        '[package.metadata.capi.pkg_config]\nname = "flat pc"\nfilename = "flat-2.0"\n',
        {},
    ),
    "prebuilt": (
        "[package.metadata.capi.header]\ngeneration = false\n"
        "[package.metadata.capi.install.include]\n"
        'asset = [{ from = "extra/*.h", to = "elsewhere" }, { from = "tree/**/*.h" }]\n',
        {
            "assets/capi/include/shipped.h": "void shipped(void);\n",
            "assets/capi/include/sub/below.h": "void below(void);\n",
            "assets/capi/include/README": "no header\n",
            "assets/prebuilt.h": "void legacy(void);\n",
            "extra/one.h": "void one(void);\n",
            "extra/deeper/two.h": "not matched\n",
            "tree/a/b.h": "void b(void);\n",
        },
    ),
    "made": (
        "[package.metadata.capi.install.include]\n"
        'generated = [{ from = "more/**/*.h", to = "from-script" }]\n',
        {"build.rs": BUILD_RS},
    ),
    "old-style": (
        '[package.metadata.capi]\nheader_name = "old_name"\n'
        '[package.metadata.capi.header]\nsubdirectory = "custom/dir"\n',
        {},
    ),
}

# written down from reading cargo-c's rules, checked below against what it wrote
STATIC = {
    "plain-name": "libplain_name.a",
    "renamed": "libother-name.a",
    "plugin": "libplugin.a",
    "flat": "libflat.a",
    "prebuilt": "libprebuilt.a",
    "made": "libmade.a",
    "old-style": "libold_style.a",
}
HEADERS = {
    "plain-name": ["plain_name/plain_name.h"],
    "renamed": ["renamed/fancy.h"],
    "plugin": [],
    "flat": ["flat_api.h"],
    "prebuilt": [
        "elsewhere/one.h",
        "prebuilt/a/b.h",
        "prebuilt/prebuilt.h",
        "prebuilt/shipped.h",
        "prebuilt/sub/below.h",
    ],
    "made": ["from-script/deep/er.h", "made/made.h"],
    "old-style": ["custom/dir/old_name.h"],
}


@dataclass(frozen=True)
class Built:
    root: Path
    output: Path
    destdir: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    need("cargo")
    cbuild, cinstall = need("cargo-cbuild"), need("cargo-cinstall")
    root = tmp_path_factory.mktemp("layout") / "work space"
    for name, (manifest, files) in PACKAGES.items():
        package(root / name, name, manifest, files=files)
    package(root / "no-capi", "no-capi", '[lib]\ncrate-type = ["staticlib"]\n', capi=False)
    write(
        root / "Cargo.toml",
        '[workspace]\nresolver = "2"\n'
        f"members = [{', '.join(repr(n) for n in [*PACKAGES, 'no-capi'])}]\n{ABORT}"
        '[profile.custom]\ninherits = "release"\n',
    )
    destdir = root.parent / "dest"
    common = ["--workspace", "--exclude", "no-capi", "--offline"]
    call([cbuild, "cbuild", *common], root)
    call(
        [cinstall, "cinstall", *common, "--prefix", "/opt/x", "--destdir", destdir],
        root,
        {"DESTDIR": os.fspath(root.parent / "unused")},
    )
    host = call(["rustc", "--print", "host-tuple"], root).strip()
    return Built(root, root / "target" / host, destdir)


def select(built: Built, **fields: object) -> dict[str, Artefact]:
    defaults: dict[str, object] = {
        "manifest_path": built.root,
        "workspace": True,
        "exclude": ("no-capi",),
    }
    selection = Selection(**{**defaults, **fields})  # type: ignore[arg-type]
    return {a.package: a for a in find_libraries(selection)}


def test_every_library_that_cbuild_wrote_is_found(built: Built) -> None:
    found = select(built)
    assert {p: a.library for p, a in found.items()} == {
        p: built.output / "debug" / name for p, name in STATIC.items()
    }
    written = {p.name for p in (built.output / "debug").glob("*.a")}
    # the one with a dash is a copy of the one cargo wrote
    assert written - {a.library.name for a in found.values()} == {"libother_name.a"}
    assert [a.warnings for a in found.values()] == [()] * len(found)
    assert not any(a.is_installed for a in found.values())


def test_cdylib_beside_the_library(built: Built) -> None:
    for artefact in select(built).values():
        assert artefact.cdylib == artefact.library.with_suffix(".so")
    for name, artefact in select(built, installed=True, **_installed(built)).items():
        assert artefact.cdylib is not None
        # links are links to the full version, as written by cargo-c
        expected = {"plugin": "libplugin.so", "renamed": "libother-name.so.7.8.9"}
        stem = STATIC[name].removesuffix(".a")
        assert artefact.cdylib.resolve().name == expected.get(name, f"{stem}.so.1.2.3")


def test_versioned_cdylib_without_its_links(built: Built, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "dest"
    shutil.copytree(built.destdir, copy, symlinks=True)
    for link in [p for p in copy.rglob("*.so*") if p.is_symlink()]:
        link.unlink()
    found = select(built, installed=True, destdir=copy, prefix=Path("/opt/x"))
    assert {p: a.cdylib.name for p, a in found.items() if a.cdylib} == {
        **{p: n.removesuffix(".a") + ".so.1.2.3" for p, n in STATIC.items()},
        "plugin": "libplugin.so",
        "renamed": "libother-name.so.7.8.9",
    }


def test_the_library_is_a_hard_link_into_deps(built: Built) -> None:
    deps = built.output / "debug/deps"
    assert (deps / "libflat.a").stat().st_ino == select(built)["flat"].library.stat().st_ino


def test_crate_name_is_the_one_compiled_under(built: Built) -> None:
    ar = need("ar", "llvm-ar", "llvm-ar-22")
    for artefact in select(built).values():
        members = call([ar, "t", artefact.library], built.root).split()
        assert any(m.startswith(f"{artefact.crate_name}.") and ".rcgu.o" in m for m in members)


@pytest.mark.parametrize("name", PACKAGES)
def test_headers_of_the_build(built: Built, name: str) -> None:
    include = built.output / "debug/include"
    found = select(built)[name]
    assert sorted(h.relative_to(include).as_posix() for h in found.headers) == HEADERS[name]
    assert found.header_expected == bool(HEADERS[name])


def test_no_header_that_cbuild_wrote_is_overlooked(built: Built) -> None:
    include = built.output / "debug/include"
    found = {h for a in select(built).values() for h in a.headers}
    assert found == set(include.rglob("*.h"))


def test_the_generated_header_comes_first(built: Built) -> None:
    assert select(built)["made"].headers[0].name == "made.h"
    assert "made_one" in select(built)["made"].headers[0].read_text()


def test_headers_of_a_build_in_another_folder(built: Built, tmp_path: Path) -> None:
    # a profile that the workspace's own target directory has nothing of
    words = ["-p", "made", "--profile", "custom", "--offline", "--target-dir", os.fspath(tmp_path)]
    call([need("cargo-cbuild"), "cbuild", *words], built.root)
    (found,) = find_libraries(
        Selection(
            manifest_path=built.root, packages=("made",), target_dir=tmp_path, profile="custom"
        )
    )
    include = found.library.parent / "include"
    assert sorted(h.relative_to(include).as_posix() for h in found.headers) == HEADERS["made"]


def test_a_copy_older_than_its_header_is_passed_over(built: Built) -> None:
    source = built.root / "prebuilt/extra/one.h"
    before = source.stat()
    os.utime(source, (before.st_mtime + 1000, before.st_mtime + 1000))
    try:
        headers = select(built)["prebuilt"].headers
        assert source in headers
        assert [h for h in headers if h.name == "one.h"] == [source]
    finally:
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


def _installed(built: Built) -> dict[str, object]:
    return {"destdir": built.destdir, "prefix": Path("/opt/x")}


def test_every_library_that_cinstall_wrote_is_found(built: Built) -> None:
    found = select(built, installed=True, **_installed(built))
    assert {a.library for a in found.values()} == set(built.destdir.rglob("*.a"))
    assert {p: a.library.name for p, a in found.items()} == STATIC
    assert found["plugin"].library.parent.name == "plugins-1.0"
    assert all(a.is_installed for a in found.values())


@pytest.mark.parametrize("name", PACKAGES)
def test_installed_headers(built: Built, name: str) -> None:
    include = built.destdir / "opt/x/include"
    found = select(built, installed=True, **_installed(built))[name]
    assert sorted(h.relative_to(include).as_posix() for h in found.headers) == HEADERS[name]


def test_no_installed_header_is_overlooked(built: Built) -> None:
    found = select(built, installed=True, **_installed(built))
    assert {h for a in found.values() for h in a.headers} == set(built.destdir.rglob("*.h"))


def test_strip_defaults_follow_the_profile(built: Built) -> None:
    assert select(built)["flat"].strip_default is Strip.NONE
    installed = select(built, installed=True, **_installed(built))
    assert installed["flat"].strip_default is Strip.DEBUGINFO


def test_default_selection_of_a_virtual_workspace_is_every_capi_member(built: Built) -> None:
    found = find_libraries(Selection(manifest_path=built.root / "Cargo.toml"))
    assert [a.package for a in found] == list(PACKAGES)


def test_member_folder_selects_that_member(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(built.root / "flat/src")
    assert [a.package for a in find_libraries(Selection())] == ["flat"]


def test_no_library_names_every_path_and_the_one_elsewhere(built: Built) -> None:
    with pytest.raises(DiscoveryError) as caught:
        select(built, packages=("flat",), workspace=False, exclude=(), profile="custom")
    assert os.fspath(built.output / "custom/libflat.a") in caught.value.what
    assert os.fspath(built.root / "target/custom/libflat.a") in caught.value.what
    help = "\n".join(caught.value.help)
    assert os.fspath(built.output / "debug/libflat.a") in help
    assert "--profile" in help


def test_no_installed_library_names_the_one_elsewhere(built: Built) -> None:
    with pytest.raises(DiscoveryError) as caught:
        select(built, installed=True, **_installed(built), libdir=Path("lib-x"))
    assert os.fspath(built.destdir / "opt/x/lib-x/libplain_name.a") in caught.value.what
    (there,) = built.destdir.rglob("libplain_name.a")
    assert os.fspath(there) in "\n".join(caught.value.help)


def test_unknown_package_gets_a_suggestion(built: Built) -> None:
    with pytest.raises(UsageError) as caught:
        select(built, packages=("flatt",), workspace=False, exclude=())
    assert caught.value.help == ("did you mean `flat`?",)


def test_member_without_capi_is_plain_cargos(built: Built) -> None:
    plain = Selection(manifest_path=built.root, packages=("no-capi",))
    with pytest.raises(DiscoveryError, match="no static library of package `no-capi`") as caught:
        find_libraries(plain)
    assert any("`capi` feature" in h for h in caught.value.help)
    call(["cargo", "build", "-p", "no-capi", "--offline"], built.root)
    (found,) = find_libraries(plain)
    assert found.library == built.root / "target/debug/libno_capi.a"
    assert (found.crate_name, found.headers, found.header_expected) == ("no_capi", (), False)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("cbuild", ["-pflat", "--target-dir=td", "--profile", "custom"]),
        ("cbuild", ["-rp", "flat", "--config", "build.target-dir='from-config'"]),
        ("cbuild", ["-p", "flat", "--profile=test", "--target-dir", "td2"]),
        ("cbuild", ["-p", "flat", "--profile=bench", "--target-dir", "td3"]),
        ("cbuild", ["--manifest-path", "flat", "--target", "HOST", "-v", "-j", "1"]),
        (
            "cinstall",
            ["--path", "plugin/Cargo.toml", "--destdir", "d1", "--libdir=/abs/lib", "--debug"],
        ),
        ("cinstall", ["-p", "renamed", "--destdir", "d2", "--prefix=/p"]),
        ("cinstall", ["-p=plain-name", "--target", "HOST", "--destdir=d3", "-F", "capi"]),
        ("cinstall", ["-p", "made@1.2.3", "--library-type", "staticlib", "--destdir", "d4"]),
    ],
)
def test_wrapped_command_and_its_output(
    built: Built, command: str, args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run what `wrap` says, then find what it made: the newest .a files, no other."""
    monkeypatch.chdir(built.root)
    # an alias of that name must not matter
    monkeypatch.setenv("CARGO_ALIAS_CBUILD", "no-such-command")
    words = [built.output.name if a == "HOST" else a for a in args]
    wrapped = wrap(command, [*words, "--offline"])  # type: ignore[arg-type]
    assert wrapped.selection is not None
    before = {p: p.stat().st_mtime_ns for p in _archives(built.root)}
    call(wrapped.argv, built.root)
    found = [a.library for a in find_libraries(wrapped.selection)]
    made = [p for p in _archives(built.root) if before.get(p) != p.stat().st_mtime_ns]
    assert len(found) == 1
    assert found[0] in made
    if command == "cinstall":
        assert found == [p for p in made if "target" not in p.parts]


def _archives(root: Path) -> list[Path]:
    return [p for p in root.rglob("*.a") if p.parent.name != "deps"]


def test_newer_source_is_a_warning(built: Built) -> None:
    source = built.root / "flat/src/lib.rs"
    library = select(built)["flat"].library
    later = library.stat().st_mtime + 10
    before = source.stat()
    os.utime(source, (later, later))
    try:
        (warning,) = select(built)["flat"].warnings
        assert os.fspath(source) in warning and os.fspath(library) in warning
        assert select(built)["plugin"].warnings == ()
    finally:
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_newer_build_script_is_a_warning(built: Built) -> None:
    script = built.root / "made/build.rs"
    before = script.stat()
    os.utime(script, (before.st_mtime + 1000, before.st_mtime + 1000))
    try:
        (warning,) = select(built)["made"].warnings
        assert os.fspath(script) in warning
    finally:
        os.utime(script, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_libraries_survive_pickling(built: Built) -> None:
    import pickle

    found = select(built)
    assert pickle.loads(pickle.dumps(found)) == found
