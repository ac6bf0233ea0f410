"""Sets of universal libraries: each slice shares what it has in common with that of the others."""

from __future__ import annotations

import json
import plistlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from cargo_strip_hook.archive.xcframework import variants
from cargo_strip_hook.cli.main import main
from tests.consumers import darwin_set
from tests.formats import darwin_kit as kit
from tests.formats import universal_kit as fat
from tests.formats.test_share_command import killed_at
from tests.formats.test_share_macho import c_libraries
from tests.formats.test_share_output import expected, main_text


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with universal libraries a, b and c, and a plain one of c."""
    folder = tmp_path_factory.mktemp("universal")
    parts = {arch: c_libraries(folder / arch, arch) for arch in kit.ARCHES}
    for n, name in enumerate("abc"):
        fat.fat(folder / "libs" / f"lib{name}.a", [parts[arch][n][0] for arch in kit.ARCHES])
    shutil.copy(parts["arm64"][2][0], folder / "libs" / "plain.a")
    return folder / "libs"


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(built, tmp_path / "libs"))


def share(folder: Path, *more: str, command: str = "share", names: str = "abc") -> int:
    words = [str(folder / f"lib{n}.a") for n in names]
    common = () if {"--common", "-o"} & set(more) else ("--common", str(folder / "libcommon.a"))
    return main([command, *words, *common, "--export", "?", *more])


def runs(
    folder: Path, inputs: Sequence[Path], names: str, arches: Sequence[str] = kit.ARCHES
) -> None:
    """Programs of these files do what they should, for each processor."""
    for arch in arches:
        out = darwin_set.output(
            folder / "program", kit.triple(arch), main_text(names), list(inputs), "-dead_strip"
        )
        assert out == expected(names)


def test_slices_are_shared_and_fresh_then(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.stat().st_size for p in folder.iterdir()}
    assert share(folder, "--dry-run", "--json") == 0
    would = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {p.name: p.stat().st_size for p in folder.iterdir()} == before
    assert share(folder, "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [m["reason"] for m in said] == ["shared"] * 3 + ["common", "finished"]
    for message, other, name in zip(said, would, "abc", strict=False):
        assert message["before"] == before[f"lib{name}.a"] > message["after"]
        assert message["after"] == (folder / f"lib{name}.a").stat().st_size
        assert message["exports"] == [f"_{name}"]
        assert message["with"] == other["with"]
    assert said[3]["size"] == (folder / "libcommon.a").stat().st_size
    for name in ("a", "common"):
        assert len(fat.slices(folder / f"lib{name}.a")) == 2
    inputs = [folder / f"lib{name}.a" for name in ("a", "b", "c", "common")]
    runs(folder.parent, inputs, "abc")
    done = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert share(folder, "--json") == 0
    assert all(json.loads(line)["fresh"] for line in capsys.readouterr().out.splitlines()[:4])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == done


def test_universal_libraries_are_joined(folder: Path) -> None:
    joined = folder / "libjoined.a"
    assert share(folder, "-o", str(joined), command="join") == 0
    assert len(fat.slices(joined)) == 2
    runs(folder.parent, [joined], "ac")


def test_other_slices_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "liba.a"), str(folder / "plain.a")]
    common = ["--common", str(folder / "x.a"), "--export", "?"]
    assert main(["share", *words, *common, "--target", kit.triple("arm64")]) == 2
    said = capsys.readouterr().err
    assert "liba.a is for arm64, x86_64" in said
    assert "slice by slice" in said
    assert not (folder / "x.a").exists()


def test_errors_speak_of_the_slice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert share(folder, names="ab") == 0
    capsys.readouterr()
    assert share(folder, "--common", str(folder / "other.a"), names="bc") == 1
    assert f"{folder / 'libb.a'}(x86_64): this library was stripped" in capsys.readouterr().err


def test_whatever_there_is_when_a_run_is_killed_works(folder: Path, tmp_path: Path) -> None:
    """The results are replaced by those of other libraries, step by step."""
    out, newer = tmp_path / "out", tmp_path / "newer"
    out.mkdir()
    shutil.copytree(folder, newer)
    for arch in kit.ARCHES:
        parts = c_libraries(tmp_path / "again" / arch, arch, "-O0")
        for name, (path, _) in zip("abc", parts, strict=True):
            shutil.copy(path, path.with_name(f"{name}-{arch}.a"))
    for name in "abc":
        again = [tmp_path / "again" / arch / name / f"{name}-{arch}.a" for arch in kit.ARCHES]
        fat.fat(newer / f"lib{name}.a", again)
    words = ["--common", str(out / "libcommon.a"), "-o", str(out)]
    assert share(newer, *words) == 0
    wanted = {p.name: p.read_bytes() for p in out.iterdir()}
    assert share(folder, *words) == 0
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    assert first.keys() == wanted.keys()
    assert first != wanted
    states = [first]
    step = 0
    while killed_at(step, lambda: share(newer, *words)):
        step += 1
        there = {p.name: p.read_bytes() for p in out.iterdir() if not p.name.startswith(".")}
        if there == states[-1]:
            continue  # it was not yet at the files themselves
        states.append(there)
        for name in "abc":
            inputs = [out / f"lib{name}.a", out / "libcommon.a"]
            runs(tmp_path, inputs, name, ("x86_64",))
        for name, data in first.items():
            (out / name).write_bytes(data)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == wanted
    # the common library for both, one library after the other, the common library for the new ones
    assert len(states) == 5


def test_a_run_that_was_killed_in_place_is_finished_by_the_next(folder: Path) -> None:
    originals = {p: p.read_bytes() for p in folder.iterdir()}
    assert share(folder) == 0
    wanted = {p: p.read_bytes() for p in folder.iterdir()}
    step, partly = 0, 0
    while partly < 2:
        (folder / "libcommon.a").unlink(missing_ok=True)
        for path, data in originals.items():
            path.write_bytes(data)
        assert killed_at(step, lambda: share(folder))
        step += 1
        if all(p.read_bytes() == originals[p] for p in originals):
            continue
        partly += 1
        assert (folder / "libcommon.a").read_bytes() == wanted[folder / "libcommon.a"]
        assert share(folder) == 0
        assert {p: p.read_bytes() for p in folder.iterdir()} == wanted


# xcframeworks

NAMES = ("one", "two")
USE = "int two(int); int two_again(int); int NAME_api(int x) { return two(x) + two_again(x + 1); }"
SHARED = "int calls; __attribute__((noinline)) int two(int a) { return a * 3 + ++calls; }"
SHARED += "__attribute__((noinline)) int two_again(int a) { return a * 5 + ++calls; }"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two xcframeworks."""
    folder = tmp_path_factory.mktemp("frameworks")
    for name in NAMES:
        sources = {"two.c": SHARED, "use.c": USE.replace("NAME", name)}
        header = f"int {name}_api(int x);\n"
        place = folder / f"{name.title()}.xcframework"
        fat.xcframework(place, folder / "work" / name, sources, header, f"lib{name}.a")
    return folder


@pytest.fixture
def frameworks(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [f"{name.title()}.xcframework" for name in NAMES]
    return [Path(shutil.copytree(made / name, tmp_path / name)) for name in names]


def test_xcframeworks_share_variant_by_variant(
    frameworks: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = frameworks[0].parent
    common = folder / "Common.xcframework"
    words = ["share", *map(str, frameworks), "--common", str(common)]
    assert main([*words, "--dry-run"]) == 0
    assert not common.exists()
    assert main(words) == 0
    assert "ios-arm64/libone.a" in capsys.readouterr().err
    listed = {v.identifier: v for v in variants(common)}
    assert listed.keys() == {v[0] for v in fat.VARIANTS}
    for identifier, _, _, arches, system in fat.VARIANTS:
        library = common / identifier / "libCommon.a"
        assert listed[identifier].library == library
        plain = len(arches) == 1
        assert plain or [s[0] for s in fat.slices(library)] == [
            s[0] for s in fat.slices(frameworks[0] / identifier / "libone.a")
        ]
        inputs = [f / identifier / f"lib{n}.a" for f, n in zip(frameworks, NAMES, strict=True)]
        if system != "macos13":
            continue
        main_text = (
            "#include <stdio.h>\nint one_api(int), two_api(int);"
            'int main(void) { printf("%d %d\\n", one_api(1), two_api(1)); return 0; }'
        )
        for arch in arches:
            program = folder / "program"
            said = darwin_set.output(program, kit.triple(arch), main_text, [*inputs, library])
            assert said == "16 20\n"
    done = {p: p.read_bytes() for p in folder.rglob("*.a")}
    assert main([*words, "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:-1]]
    assert all(m["fresh"] for m in said if m["reason"] in ("shared", "common"))
    assert {p: p.read_bytes() for p in folder.rglob("*.a")} == done


def test_xcframeworks_that_cannot_be_a_set(
    frameworks: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = frameworks[0].parent
    library = frameworks[1] / "ios-arm64" / "libtwo.a"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    common = ["--common", str(folder / "C.xcframework")]
    both = [str(f) for f in frameworks]
    for words, said, code in (
        ([both[0], str(library), *common], "is no xcframework", 2),
        ([*both, "--common", str(folder / "c.a")], "has to be one", 2),
        ([*both, *common, "-o", str(folder)], "not for xcframeworks", 2),
    ):
        assert main(["share", *words]) == code
        assert said in capsys.readouterr().err
    assert main(["join", *both, "-o", str(folder / "j.a")]) == 2
    assert "cannot be joined" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    (frameworks[0] / "_CodeSignature").mkdir()
    assert main(["share", *both, *common]) == 1
    assert "is signed" in capsys.readouterr().err
    (frameworks[0] / "_CodeSignature").rmdir()
    library.write_bytes(library.read_bytes().replace(b"_two_api", b"_six_api"))
    assert main(["share", *both, *common]) == 1
    assert not (folder / "C.xcframework").exists()
    shutil.rmtree(frameworks[1] / "ios-arm64")
    listing = plistlib.loads((frameworks[1] / "Info.plist").read_bytes())
    del listing["AvailableLibraries"][0]
    (frameworks[1] / "Info.plist").write_bytes(plistlib.dumps(listing))
    capsys.readouterr()
    assert main(["share", *both, *common]) == 2
    assert "has the variants" in capsys.readouterr().err
