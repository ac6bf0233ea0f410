"""An xcframework comes back with the same layout, each variant for its platform."""

from __future__ import annotations

import errno
import os
import plistlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook import strip
from cargo_strip_hook.cli.main import main
from cargo_strip_hook.core.errors import ReplaceError
from cargo_strip_hook.replace import io
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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def not_even_an_archive(data: bytes) -> bytes:
    return data[:100]


def no_such_symbol(data: bytes) -> bytes:
    return data.replace(b"_one_api", b"_two_api")


@pytest.mark.parametrize("jobs", ["1", "3"])
@pytest.mark.parametrize("damage", [not_even_an_archive, no_such_symbol])
def test_one_bad_variant_keeps_all_as_they_were(
    framework: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
    jobs: str,
) -> None:
    """Found before any work, or by one of the workers while others wait with their results."""
    bad = framework / "ios-arm64_x86_64-simulator" / "libt.a"
    bad.write_bytes(damage(bad.read_bytes()))
    before = contents(framework)
    assert main(["strip", str(framework), "-j", jobs]) == 1
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    for identifier, *_ in fat.VARIANTS:
        is_bad = identifier == bad.parent.name
        assert (f"   Unchanged {identifier}/libt.a: " in said) is not is_bad
        assert (f"      Failed {identifier}/libt.a\n" in said) is is_bad
    assert contents(framework) == before


@pytest.mark.parametrize("number", range(len(fat.VARIANTS)))
@pytest.mark.parametrize("operation", ["rename", "link"])
def test_a_variant_that_cannot_be_replaced_brings_the_others_back(
    framework: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    seen = []
    really = getattr(io, operation)

    def fails(source: Path, target: Path) -> None:
        seen.append(target)
        if len(seen) == number + 1:
            raise OSError(errno.EIO, "the disk is broken")
        really(source, target)

    before = contents(framework)
    monkeypatch.setattr(io, operation, fails)
    assert main(["strip", str(framework), "-j", "1"]) == 1
    assert contents(framework) == before
    monkeypatch.undo()
    assert main(["strip", str(framework)]) == 0
    assert contents(framework).keys() == before.keys()


def test_what_a_killed_run_left_goes_with_the_next(framework: Path) -> None:
    before = contents(framework)
    for folder in (framework / v[0] for v in fat.VARIANTS):
        (folder / ".libt.a.strip-hook").write_bytes(b"half")
        (folder / ".libt.a.strip-hook-old").write_bytes(b"as it was")
        (folder / ".libt.a.strip-hook-work" / "deep").mkdir(parents=True)
        (folder / ".libt.a.strip-hook-work" / "deep" / "0.a").write_bytes(b"half")
    assert main(["strip", str(framework)]) == 0
    assert contents(framework).keys() == before.keys()


def test_each_variant_is_named(framework: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("Stripping", "Fresh"):
        assert main(["strip", str(framework)]) == 0
        said = capsys.readouterr().err
        assert all(f"{verb:>12} {v[0]}/libt.a" in said for v in fat.VARIANTS)


# ---- signatures


@pytest.mark.parametrize(
    "place",
    [
        "_CodeSignature/CodeResources",
        "_CodeSignature/CodeSignature",
        "macos-arm64_x86_64/_CodeSignature/CodeResources",
    ],
)
def test_what_is_signed_is_not_changed(
    framework: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    seal = framework / place
    seal.parent.mkdir()
    seal.write_bytes(b"sealed")
    before = contents(framework)
    assert main(["strip", str(framework)]) == 1
    said = capsys.readouterr().err
    assert "is signed" in said and "--allow-signed" in said and "codesign" in said
    assert main(["strip", str(framework), "--dry-run"]) == 1
    library = framework / "macos-arm64_x86_64" / "libt.a"
    argv = ["strip", str(library), "--export", "one_api"]
    assert main(argv) == 1  # the signature is for each file in the bundle
    with pytest.raises(ReplaceError, match="is signed"):
        strip(library, exports="one_api")
    assert contents(framework) == before
    assert main(["check", str(framework)]) == 1  # which changes nothing
    out = framework.parent / "out.a"
    assert main([*argv, "-o", str(out)]) == 0
    assert contents(framework) == before
    capsys.readouterr()
    assert main(["strip", str(framework), "--allow-signed"]) == 0
    assert "sign it again" in capsys.readouterr().err
    assert seal.read_bytes() == b"sealed"
    assert library.stat().st_size < len(before["macos-arm64_x86_64/libt.a"])
    assert main(["strip", str(framework)]) == 0  # nothing is left to change


# one object, at offset 8; the table of offsets is at 18
TRAILER = b"\x08" + bytes(6) + b"\x01\x01" + bytes(7) + b"\x01" + bytes(15) + b"\x12"


def _with_nul(content: dict[str, Any]) -> dict[str, Any]:
    """A path that no file has; only a binary list can say it."""
    first, *rest = content["AvailableLibraries"]
    return {**content, "AvailableLibraries": [{**first, "LibraryPath": "x\0y.a"}, *rest]}


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
        (lambda c: plistlib.dumps(_with_nul(c), fmt=plistlib.FMT_BINARY), "no path inside"),
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


@pytest.mark.parametrize(
    "place",
    [
        "ios-arm64",
        "ios-arm64/Headers",
        "ios-arm64/Headers/t.h",
        "ios-arm64/libt.a",
        "ios-arm64/deep/er",
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_no_folder_leads_out(
    framework: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, relative: bool
) -> None:
    file = framework / "Info.plist"
    if place.endswith("er"):  # the library lies two folders further down
        content = plistlib.loads(file.read_bytes())
        content["AvailableLibraries"][0]["LibraryPath"] = "deep/er/libt.a"
        file.write_bytes(plistlib.dumps(content))
        (framework / place).mkdir(parents=True)
        shutil.move(framework / "ios-arm64" / "libt.a", framework / place / "libt.a")
    outside = tmp_path / "outside"
    shutil.move(framework / place, outside)
    where = os.path.relpath(outside, (framework / place).parent) if relative else outside
    (framework / place).symlink_to(where)
    before = contents(tmp_path)
    assert main(["strip", str(framework)]) == 1
    assert "symbolic link" in capsys.readouterr().err
    assert {k: v for k, v in contents(tmp_path).items() if not k.startswith("cache")} == before


def test_links_that_stay_inside_are_fine(framework: Path) -> None:
    shutil.move(framework / "ios-arm64" / "Headers", framework / "headers")
    (framework / "ios-arm64" / "Headers").symlink_to("../headers")
    shutil.move(framework / "ios-arm64", framework / "elsewhere")
    (framework / "ios-arm64").symlink_to("elsewhere")
    (framework / "headers").rename(framework / "elsewhere" / "h")
    (framework / "elsewhere" / "Headers").unlink()
    (framework / "elsewhere" / "Headers").symlink_to("h")
    before = contents(framework)
    assert main(["strip", str(framework)]) == 0
    after = contents(framework)
    assert len(after["elsewhere/libt.a"]) < len(before["elsewhere/libt.a"])


def test_there_is_no_output_for_a_folder(
    framework: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["strip", str(framework), "-o", str(tmp_path / "out")]) == 2
    assert "copy the xcframework" in capsys.readouterr().err
