"""Universal libraries through the command: every slice stripped, or the file as it was."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cargo_strip_hook
from cargo_strip_hook.cli.main import main
from cargo_strip_hook.core.errors import ReplaceError, VerifyError
from cargo_strip_hook.core.requests import Slice
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.pipeline import strip as pipeline
from cargo_strip_hook.verify import verify_universal
from cargo_strip_hook.verify.marker import read_marker
from tests.formats import darwin_kit as kit
from tests.formats import universal_kit as fat
from tests.formats.faults import OPERATIONS, watched
from tests.formats.native_kit import tool
from tests.unit.schema import problems

API = ("--export", "one_api")
SCHEMA = json.loads(
    (Path(cargo_strip_hook.__file__).parent / "present" / "schema.json").read_text(encoding="utf-8")
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("thin")
    return {arch: fat.thin(folder, arch) for arch in kit.ARCHES}


@pytest.fixture
def library(thin: dict[str, Path], tmp_path: Path) -> Path:
    return fat.fat(tmp_path / "lib" / "libt.a", list(thin.values()))


def messages(out: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in out.splitlines()]
    for message in found:
        assert not list(problems(message, SCHEMA, SCHEMA)), message
    return found


@pytest.mark.parametrize("flags", [(), ("-fat64",)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_each_slice_is_what_it_is_alone(
    thin: dict[str, Path], tmp_path: Path, flags: tuple[str, ...], order: tuple[int, int]
) -> None:
    parts = [list(thin.values())[n] for n in order]
    library = fat.fat(tmp_path / "lib" / "libt.a", parts, *flags)
    before = fat.slices(library)
    assert main(["strip", str(library), *API]) == 0
    after = fat.slices(library)
    assert [s[:2] for s in after] == [s[:2] for s in before]
    said = tool([fat.lipo(), "-archs", library]).split()
    for arch, path in thin.items():
        alone = fat.copy(path, tmp_path / arch / "libt.a")
        assert main(["strip", str(alone), *API]) == 0
        assert alone.stat().st_size < path.stat().st_size
        assert alone.read_bytes() == after[said.index(arch)][2]
        taken = tmp_path / f"{arch}.a"
        tool([fat.lipo(), library, "-thin", arch, "-output", taken])
        assert taken.read_bytes() == alone.read_bytes()
    assert [p.name for p in library.parent.iterdir()] == [library.name]


def test_again_it_is_fresh(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strip", str(library), *API]) == 0
    data = library.read_bytes()
    capsys.readouterr()
    words = ["strip", str(library), *API, "--message-format", "json"]
    assert main(words) == 0
    told, _ = messages(capsys.readouterr().out)
    assert told["fresh"]
    assert [s["fresh"] for s in told["slices"]] == [True, True]
    assert library.read_bytes() == data
    assert main(["strip", str(library), *API, "--strip", "symbols"]) == 0
    assert library.read_bytes() != data, "another wish is no reason to do anything"


def test_a_slice_that_was_done_stays_as_it_is(thin: dict[str, Path], tmp_path: Path) -> None:
    done = fat.copy(thin["arm64"], tmp_path / "done" / "libt.a")
    assert main(["strip", str(done), *API]) == 0
    # a mark of the same wishes, in contents that another run would not make
    marked = bytearray(done.read_bytes())
    place = marked.index(b"_two\0")
    marked[place : place + 4] = b"_TWO"
    done.write_bytes(marked)
    library = fat.fat(tmp_path / "libt.a", [thin["x86_64"], done])
    assert main(["strip", str(library), *API]) == 0
    sizes = {cpu: len(body) for cpu, _, body in fat.slices(library)}
    assert bytes(marked) in [body for _, _, body in fat.slices(library)]
    assert sizes[0x01000007] < thin["x86_64"].stat().st_size


def test_programs_link_with_it(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.a"
    assert main(["strip", str(library), *API, "-o", str(out)]) == 0
    for arch in kit.ARCHES:
        text = "extern int one_api(int); int main(void) { return one_api(3); }"
        (program,) = kit.compile(tmp_path / arch, arch, {"main.c": text})
        kit.link(tmp_path / f"p-{arch}", arch, [program, out], "-dead_strip")
    with pytest.raises(AssertionError, match="undefined symbol"):
        text = "extern int two(int); int main(void) { return two(3); }"
        (program,) = kit.compile(tmp_path / "hidden", "arm64", {"main.c": text})
        kit.link(tmp_path / "p-hidden", "arm64", [program, out])


def test_a_header_is_read_for_each_slice(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = tmp_path / "t.h"
    header.write_text(fat.HEADER)
    words = [str(library), "--header", str(header)]
    assert main(["exports", *words, "--message-format", "json"]) == 0
    found = {(m["architecture"], m["symbol"]) for m in messages(capsys.readouterr().out)[:-1]}
    assert found == {
        ("arm64", "_one_api"),
        ("arm64", "_only_arm"),
        ("x86_64", "_one_api"),
        ("x86_64", "_only_intel"),
    }
    assert main(["strip", *words, "--message-format", "json"]) == 0
    told, _ = messages(capsys.readouterr().out)
    assert told["exports"] == ["_one_api", "_only_arm", "_only_intel"]
    by_name = {s["architecture"]: s for s in told["slices"]}
    assert by_name["arm64"]["exports"] == ["_one_api", "_only_arm"]
    assert by_name["x86_64"]["target"] == "x86_64-apple-darwin"
    assert told["before"] > sum(s["before"] for s in told["slices"])
    assert told["after"] == library.stat().st_size


def test_slices_of_different_platforms_keep_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As libraries for iOS were before xcframeworks: a device and a simulator."""
    parts = [fat.thin(tmp_path, "arm64", "ios15"), fat.thin(tmp_path, "x86_64", "ios15-simulator")]
    library = fat.fat(tmp_path / "lib" / "libt.a", parts)
    assert main(["strip", str(library), *API, "--message-format", "json"]) == 0
    told, _ = messages(capsys.readouterr().out)
    targets = {s["architecture"]: s["target"] for s in told["slices"]}
    assert targets == {"arm64": "aarch64-apple-ios", "x86_64": "x86_64-apple-ios"}
    said = tool([kit.llvm("objdump"), "--macho", "--universal-headers", library])
    assert said.count("architecture") >= 2
    assert platforms(library) == {0x0100000C: {2}, 0x01000007: {7}}


def platforms(library: Path) -> dict[int, set[int]]:
    """The platforms in the objects of each slice, by llvm-objdump's reading."""
    found = {}
    names = {0x0100000C: "arm64", 0x01000007: "x86_64"}
    for cpu, _, _ in fat.slices(library):
        arguments = ["--macho", "--private-headers", f"--arch={names[cpu]}", library]
        lines = [line.split() for line in tool([kit.llvm("objdump"), *arguments]).splitlines()]
        numbers = {"macos": 1, "ios": 2, "maccatalyst": 6, "iossimulator": 7}
        found[cpu] = {numbers[w[1].lower()] for w in lines if w[:1] == ["platform"]}
    return found


def test_what_is_planned(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = library.read_bytes()
    assert main(["strip", str(library), *API, "--dry-run", "--message-format", "json"]) == 0
    seen = capsys.readouterr()
    told, _ = messages(seen.out)
    assert told["reason"] == "planned"
    assert [s["architecture"] for s in told["slices"]] == ["x86_64", "arm64"]
    assert "x86_64-apple-darwin, aarch64-apple-darwin" in seen.err
    assert library.read_bytes() == data


def test_check_looks_at_each_slice(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.a"
    assert main(["strip", str(library), *API, "-o", str(out)]) == 0
    capsys.readouterr()
    assert main(["check", str(out), "--message-format", "json"]) == 0
    assert main(["check", str(library), *API, "--message-format", "json"]) == 1
    told = messages(capsys.readouterr().out)
    leaked = [m for m in told if m.get("kind") == "leaked"]
    assert {m["architecture"] for m in leaked} == {"arm64", "x86_64"}
    assert "_only_arm" in next(m for m in leaked if m["architecture"] == "arm64")["symbols"]
    # of the other library only the slice for the same architecture is in one program with it
    argv = ["check", str(out), "--against", str(library), "--message-format", "json"]
    assert main(argv) == 1
    collisions = [m for m in messages(capsys.readouterr().out) if m.get("kind") == "collision"]
    assert [m["architecture"] for m in collisions] == ["x86_64", "arm64"]


# What fails ---------------------------------------------------------------------------------------


def refused(library: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The library cannot be stripped, and is as it was; what was said."""
    data = library.read_bytes()
    assert main(["strip", str(library), *words]) in (1, 2)
    assert library.read_bytes() == data
    assert [p.name for p in library.parent.iterdir()] == [library.name]
    return capsys.readouterr().err


def test_one_bad_slice_leaves_all_of_the_file(
    thin: dict[str, Path], library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(library, "--export", "only_arm", capsys=capsys)
    assert "libt.a(x86_64)" in said and "only_arm" in said
    bad = bytearray(thin["arm64"].read_bytes())
    at = bad.index(b"\xcf\xfa\xed\xfe", bad.index(b"\xcf\xfa\xed\xfe") + 4)
    struct.pack_into("<I", bad, at + 20, 1 << 30)  # sizeofcmds of the second object
    (tmp_path / "bad.a").write_bytes(bad)
    both = tmp_path / "bad" / "libt.a"
    both.parent.mkdir()
    both.write_bytes(
        universal([(0x01000007, 3, thin["x86_64"]), (0x0100000C, 0, tmp_path / "bad.a")])
    )
    said = refused(both, *API, capsys=capsys)
    assert re.search(r"libt\.a\(arm64\): \(\w+\.o\) at offset 0x14: the load commands", said)
    plain = tmp_path / "plain" / "libt.a"
    plain.parent.mkdir()
    plain.write_bytes(bad)
    said = refused(plain, *API, "--target", "aarch64-apple-darwin", capsys=capsys)
    assert re.search(rf"{re.escape(str(plain))}\(\w+\.o\) at offset 0x14: the load comm", said)


def test_other_processors_are_refused(
    thin: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arch, subtype in (("arm64e", 2), ("arm64_32", 0)):
        data = bytearray(thin["arm64"].read_bytes())
        at = data.find(b"\xcf\xfa\xed\xfe")
        while at >= 0:
            cpu = 0x0200000C if arch == "arm64_32" else 0x0100000C
            struct.pack_into("<III", data, at, 0xFEEDFACF, cpu, subtype)
            at = data.find(b"\xcf\xfa\xed\xfe", at + 4)
        bad = tmp_path / f"{arch}.a"
        bad.write_bytes(data)
        library = tmp_path / arch / "libt.a"
        library.parent.mkdir()
        library.write_bytes(universal([(0x01000007, 3, thin["x86_64"]), (cpu, subtype, bad)]))
        said = refused(library, *API, capsys=capsys)
        assert f"libt.a({arch})" in said
        assert f"{arch} are not supported" in said or "32-bit" in said


def universal(slices: list[tuple[int, int, Path]]) -> bytes:
    """A universal file made by hand."""
    out = b""
    at = 8 + 20 * len(slices)
    header = struct.pack(">II", 0xCAFEBABE, len(slices))
    for cpu, subtype, path in slices:
        out += bytes(-(at + len(out)) % 8)
        body = path.read_bytes()
        header += struct.pack(">5I", cpu, subtype, at + len(out), len(body), 3)
        out += body
    return header + out


def test_a_header_that_says_another_architecture(
    thin: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "lib" / "libt.a"
    library.parent.mkdir()
    library.write_bytes(
        universal([(0x01000007, 3, thin["x86_64"]), (0x0100000C, 0, thin["x86_64"])])
    )
    assert "the slice for arm64 holds objects for x86_64" in refused(library, *API, capsys=capsys)


def test_a_slice_that_is_no_archive(
    thin: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (single,) = kit.compile(tmp_path / "o", "arm64", {"o.c": "int f(void) { return 1; }"})
    library = tmp_path / "lib" / "libt.a"
    library.parent.mkdir()
    library.write_bytes(universal([(0x01000007, 3, thin["x86_64"]), (0x0100000C, 0, single)]))
    said = refused(library, *API, capsys=capsys)
    assert "libt.a(arm64)" in said and "not an archive" in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:20], "cut short"),
        (lambda d: d[:4] + struct.pack(">I", 99) + d[8:], "a Java class, not an archive"),
        (lambda d: d[:4] + struct.pack(">I", 0) + d[8:], "no architecture"),
        (lambda d: d[:16] + struct.pack(">I", 1 << 31) + d[20:], "beyond the end"),
        (lambda d: d[:16] + struct.pack(">I", 57) + d[20:], "impossible alignment"),
        (lambda d: d[:28] + d[8:28] + d[48:], "architecture twice"),
        (lambda d: d[:36] + d[16:24] + d[44:], "overlap"),
        (lambda d: d[: len(d) // 2], "beyond the end"),
    ],
)
def test_damage_is_told(
    library: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
    message: str,
) -> None:
    library.write_bytes(damage(library.read_bytes()))
    said = refused(library, *API, capsys=capsys)
    assert message in said
    assert "internal error" not in said


def test_what_is_asked_of_it_has_to_make_sense(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(library, *API, "--target", "aarch64-apple-ios", capsys=capsys)
    assert "libt.a(arm64)" in said and "the target aarch64-apple-ios is iOS" in said
    said = refused(library, *API, "--target", "riscv64gc-unknown-linux-gnu", capsys=capsys)
    assert "no slice for riscv64gc-unknown-linux-gnu (it has x86_64, arm64)" in said
    said = refused(library, *API, "--debug-twin", str(tmp_path / "twin.a"), capsys=capsys)
    assert "no debug twin of a universal library" in said
    assert not (tmp_path / "twin.a").exists()


def job(library: Path) -> pipeline.Job:
    target = Target.parse("aarch64-apple-darwin")
    return pipeline.Job(library, target, ExportRequest(target, named={"export": ("one_api",)}))


@pytest.mark.parametrize("operation", [*OPERATIONS, "write", "flush"])
def test_each_operation_fails(library: Path, operation: str) -> None:
    old = library.read_bytes()
    pipeline.strip_library(job(library))
    new = library.read_bytes()
    fired = 0
    for number in range(40):
        library.write_bytes(old)
        left = [number]

        def step(name: str, _: int, left: list[int] = left) -> None:
            if name == operation:
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        try:
            with watched(step):
                pipeline.strip_library(job(library))
        except ReplaceError as e:
            assert os.strerror(errno.ENOSPC) in e.what
            assert library.read_bytes() == old
        else:
            assert library.read_bytes() == new
        if left[0] >= 0:
            break
        fired += 1
    assert fired
    library.write_bytes(old)
    pipeline.strip_library(job(library))
    assert library.read_bytes() == new
    assert [p.name for p in library.parent.iterdir()] == [library.name]


def test_a_full_disk_while_slices_are_joined(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = library.read_bytes()

    def full(file: Any, *_: object) -> None:
        file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline, "write_universal", full)
    with pytest.raises(ReplaceError, match="No space left"):
        pipeline.strip_library(job(library))
    assert library.read_bytes() == old


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d + b"\0", "after the slices"),
        (lambda d: d[:28] + d[28:48].replace(b"\0\0\0\3", b"\0\0\0\2") + d[48:], "alignment"),
        (lambda d: d[:8] + d[28:48] + d[8:28] + d[48:], "order"),
        (lambda d: d[:-1] + bytes((d[-1] ^ 1,)), "another one than was verified"),
        (lambda d: d[:4] + struct.pack(">I", 1) + d[8:], "something between"),
        (lambda d: d[:30], "cut short"),
        (lambda d: b"!<arch>\n" + d[8:], "only one of"),
    ],
)
def test_a_wrong_universal_file_is_found(
    library: Path, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    original = fat.copy(library, tmp_path / "original.a")
    outcome = pipeline.strip_library(job(library))
    good = library.read_bytes()
    parts = []
    for number, (_, _, body) in enumerate(fat.slices(library)):
        path = tmp_path / f"{number}.a"
        path.write_bytes(body)
        parts.append(Slice(path))
    assert len(outcome.slices) == 2
    verify_universal(original, library, parts)
    library.write_bytes(damage(good))
    with pytest.raises(VerifyError) as caught:
        verify_universal(original, library, parts)
    assert message in "\n".join(caught.value.findings)


def test_the_mark_of_a_slice_is_its_own(library: Path) -> None:
    pipeline.strip_library(job(library))
    data = library.read_bytes()
    marks = []
    for i in range(2):
        start, size = struct.unpack_from(">II", data, 8 + 20 * i + 8)
        marks.append(read_marker(Slice(library, start, size)))
    assert marks[0] is not None and marks[0] == marks[1]
    assert read_marker(library) is None
