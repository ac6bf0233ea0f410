"""An xcframework comes back with the same layout, each variant for its platform."""

from __future__ import annotations

import plistlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.cli.main import main
from tests.formats import darwin_kit as kit
from tests.formats import universal_kit as fat
from tests.formats.native_kit import tool
from tests.formats.test_universal_strip import messages

PLATFORMS = {
    "ios-arm64": {"aarch64-apple-ios"},
    "ios-arm64_x86_64-simulator": {"aarch64-apple-ios-sim", "x86_64-apple-ios"},
    "ios-arm64_x86_64-maccatalyst": {"aarch64-apple-ios-macabi", "x86_64-apple-ios-macabi"},
    "macos-arm64_x86_64": {"aarch64-apple-darwin", "x86_64-apple-darwin"},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xc")
    return fat.xcframework(folder / "T.xcframework", folder / "work")


@pytest.fixture
def framework(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "T.xcframework"))


def layout(folder: Path) -> dict[str, bytes | None]:
    """All files, and the contents of those that are no libraries."""
    return {
        str(p.relative_to(folder)): None if p.suffix == ".a" else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def commands(library: Path, arch: str) -> list[tuple[str, ...]]:
    """The values of LC_BUILD_VERSION in a slice, by llvm-objdump, each kind once."""
    said = tool([kit.llvm("objdump"), "--macho", "--private-headers", f"--arch={arch}", library])
    rows = [line.split() for line in said.splitlines()]
    return sorted({tuple(r) for r in rows if r[:1] in (["platform"], ["minos"])})


def test_the_folder_goes_through_with_its_own_headers(
    framework: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["strip", str(framework), "--message-format", "json"]) == 0
    told = messages(capsys.readouterr().out)[:-1]
    assert [Path(m["library"]).parent.name for m in told] == [v[0] for v in fat.VARIANTS]
    for message in told:
        name = Path(message["library"]).parent.name
        targets = {s["target"] for s in message.get("slices", [])} or {message["target"]}
        assert targets == PLATFORMS[name]
        assert message["after"] < message["before"]
        assert message["source"].endswith("from t.h")
        arm, intel = "_only_arm", "_only_intel"
        wanted = ["_one_api", arm] + ([intel] if "x86_64" in name else [])
        assert message["exports"] == wanted
    assert layout(framework) == layout(made)
    for identifier, _, _, arches, _ in fat.VARIANTS:
        old, new = (f / identifier / "libt.a" for f in (made, framework))
        for arch in arches:
            assert commands(new, arch) == commands(old, arch)
        if len(arches) > 1:
            assert [s[:2] for s in fat.slices(new)] == [s[:2] for s in fat.slices(old)]
    assert main(["strip", str(framework), "--message-format", "json"]) == 0
    assert all(m["fresh"] for m in messages(capsys.readouterr().out)[:-1])


def test_pointing_at_each_file_is_the_same(framework: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(framework, tmp_path / "other"))
    header = str(framework / "ios-arm64" / "Headers" / "t.h")
    files = [str(other / v[0] / "libt.a") for v in fat.VARIANTS]
    assert main(["strip", *files, "--header", header]) == 0
    assert main(["strip", str(framework)]) == 0
    for identifier, *_ in fat.VARIANTS:
        first, second = (f / identifier / "libt.a" for f in (framework, other))
        assert first.read_bytes() == second.read_bytes()


def test_options_go_over_the_headers_of_the_folder(
    framework: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["exports", str(framework), "--export", "one_api", "--message-format", "json"]
    assert main(argv) == 0
    assert {m["symbol"] for m in messages(capsys.readouterr().out)[:-1]} == {"_one_api"}
    assert main(["check", str(framework)]) == 1
    assert "libt.a(arm64)" in capsys.readouterr().err


def test_a_static_framework_has_its_binary_inside(framework: Path, made: Path) -> None:
    """`LibraryPath` names a bundle; on macOS its binary is a link into a version of it."""
    content = plistlib.loads((framework / "Info.plist").read_bytes())
    entry = content["AvailableLibraries"][3]
    place = framework / entry["LibraryIdentifier"]
    version = place / "T.framework" / "Versions" / "A"
    version.mkdir(parents=True)
    (place / "libt.a").rename(version / "T")
    (place / "Headers").rename(version / "Headers")
    (version.parent / "Current").symlink_to("A")
    for name in ("T", "Headers"):
        (place / "T.framework" / name).symlink_to(f"Versions/Current/{name}")
    del entry["BinaryPath"], entry["HeadersPath"]
    entry["LibraryPath"] = "T.framework"
    (framework / "Info.plist").write_bytes(plistlib.dumps(content))
    assert main(["strip", str(framework)]) == 0
    old = made / entry["LibraryIdentifier"] / "libt.a"
    assert (version / "T").stat().st_size < old.stat().st_size
    assert (place / "T.framework" / "T").is_symlink()


def test_one_bad_variant_does_not_keep_the_others(
    framework: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = framework / "ios-arm64" / "libt.a"
    bad.write_bytes(bad.read_bytes()[:100])
    assert main(["strip", str(framework)]) == 1
    assert "ios-arm64/libt.a" in capsys.readouterr().err
    sizes = [(f / "macos-arm64_x86_64" / "libt.a").stat().st_size for f in (framework, made)]
    assert sizes[0] < sizes[1]


# one object, at offset 8; the table of offsets is at 18
TRAILER = b"\x08" + bytes(6) + b"\x01\x01" + bytes(7) + b"\x01" + bytes(15) + b"\x12"


def _key(name: str, value: Any) -> Callable[[dict[str, Any]], bytes]:
    def change(content: dict[str, Any]) -> bytes:
        content["AvailableLibraries"][0][name] = value
        return plistlib.dumps(content)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: b"not a list", "no property list"),
        (lambda _: b"<?xml version='1.0'?><plist><dict>", "no property list"),
        (lambda _: b"bplist00\xff\xff", "no property list"),
        # an integer of 2**62 bytes
        (lambda _: b"bplist00\x4f\x13" + b"\x40" + bytes(7) + TRAILER, "no property list"),
        (lambda _: b"<plist>" + b"<array>" * 90_000, "no property list"),
        (_key("LibraryIdentifier", "x" * 5000), "File name too long"),
        (lambda _: plistlib.dumps(["x"]), "lists no libraries"),
        (lambda c: plistlib.dumps({**c, "AvailableLibraries": []}), "lists no libraries"),
        (lambda c: plistlib.dumps({**c, "AvailableLibraries": ["x"]}), "no LibraryIdentifier"),
        (_key("LibraryPath", "../../x.a"), "no path inside"),
        (_key("LibraryPath", "/etc/passwd"), "no path inside"),
        (_key("LibraryPath", 7), "no path inside"),
        (_key("LibraryIdentifier", ".."), "no path inside"),
        (_key("LibraryPath", "libnone.a"), "there is no file"),
    ],
)
def test_a_damaged_list_is_told(
    framework: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], bytes],
    message: str,
) -> None:
    file = framework / "Info.plist"
    file.write_bytes(change(plistlib.loads(file.read_bytes())))
    assert main(["strip", str(framework)]) == 1
    said = capsys.readouterr().err
    assert message in said and "internal error" not in said


def test_links_do_not_lead_out(framework: Path, tmp_path: Path) -> None:
    outside = fat.copy(framework / "ios-arm64" / "libt.a", tmp_path / "outside.a")
    before = outside.read_bytes()
    library = framework / "ios-arm64" / "libt.a"
    library.unlink()
    library.symlink_to(outside)
    assert main(["strip", str(framework)]) == 1
    assert outside.read_bytes() == before


def test_there_is_no_output_for_a_folder(
    framework: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["strip", str(framework), "-o", str(tmp_path / "out")]) == 2
    assert "copy the xcframework" in capsys.readouterr().err
