"""`share` as a command: files, locks, markers, messages, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.cli import main
from cargo_strip_hook.replace import io
from tests.formats.native_kit import LINKERS, library, link, output
from tests.formats.share_kit import FLAGS
from tests.formats.test_share_output import c_libraries, expected, main_of
from tests.unit.schema import problems

SCHEMA = json.loads((Path(main.__file__).parents[1] / "present/schema.json").read_text())
PUBLIC = ("--export", "?")  # names of one letter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with liba.a, libb.a and libc.a."""
    (tmp_path / "libs").mkdir()
    for path, _ in c_libraries(tmp_path / "build"):
        shutil.copy(path, tmp_path / "libs")
    return tmp_path / "libs"


def files(folder: Path) -> list[str]:
    return [str(folder / f"lib{name}.a") for name in "abc"]


def share(folder: Path, *more: str, libraries: Sequence[str] | None = None) -> int:
    words = libraries if libraries is not None else files(folder)
    common = () if "--common" in more else ("--common", str(folder / "libcommon.a"))
    return main.main(["share", *words, *common, *PUBLIC, *more])


def messages(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for message in found:
        assert not list(problems(message, SCHEMA, SCHEMA)), message
    return found


def runs(folder: Path, names: str = "abc", place: Path | None = None) -> None:
    """A program of these libraries and the common one works."""
    of = [folder / f"lib{name}.a" for name in names]
    inputs = [main_of(folder.parent, names), *of, (place or folder) / "libcommon.a"]
    assert output(link(folder.parent / "program", inputs)) == expected(names)


def test_a_set_is_made_and_is_fresh_then(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert share(folder, "--json") == 0
    first = messages(capsys)
    assert [m["reason"] for m in first] == ["shared"] * 3 + ["common", "finished"]
    assert all(not m["fresh"] and m["after"] < m["before"] for m in first[:3])
    assert first[0]["exports"] == ["a"]
    assert [w["others"] for w in first[0]["with"]] == [2]
    assert "public, or refers to what is public" in {k["reason"] for k in first[0]["kept"]}
    assert first[3]["size"] == (folder / "libcommon.a").stat().st_size
    runs(folder)
    before = [Path(f).read_bytes() for f in files(folder)]
    assert share(folder, "--json") == 0
    assert all(m["fresh"] for m in messages(capsys)[:4])
    assert [Path(f).read_bytes() for f in files(folder)] == before
    assert sorted(p.name for p in folder.iterdir()) == [
        "liba.a", "libb.a", "libc.a", "libcommon.a",
    ]  # fmt: skip


def test_the_order_on_the_command_line_changes_nothing(folder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for out, libraries in ((one, files(folder)), (two, files(folder)[::-1])):
        out.mkdir()
        common = str(out / "libcommon.a")
        assert share(folder, "-o", str(out), "--common", common, libraries=libraries) == 0
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_a_number_of_jobs_changes_nothing(folder: Path, tmp_path: Path) -> None:
    made = []
    for jobs in ("1", "3"):
        out = tmp_path / jobs
        out.mkdir()
        assert share(folder, "-o", str(out), "--common", str(out / "libcommon.a"), "-j", jobs) == 0
        made.append({p.name: p.read_bytes() for p in out.iterdir()})
    assert made[0] == made[1]


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in folder.iterdir()}
    assert share(folder, "--dry-run", "--json") == 0
    found = messages(capsys)
    assert [m["reason"] for m in found] == ["shareable"] * 3 + ["finished"]
    assert all(m["with"] for m in found[:3])
    assert share(folder, "--dry-run") == 0
    said = capsys.readouterr().err
    assert said.count(" Would share ") == 3
    assert re.search(r"Keeping \(C objects\): \d+ bytes, public, or refers to what is public", said)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_what_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, _ = files(folder)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(a, other)
    lone = library(tmp_path / "lone", {"z.c": "int z(void) { return 3; }"}, *FLAGS, name="libz.a")
    before = {p: p.read_bytes() for p in folder.iterdir()}
    for words, said, code in (
        ([a], "one library has nothing to share with", 2),
        ([a, a], "is named twice", 2),
        ([a, b, "--common", b], "is one of the libraries", 2),
        ([a, str(other / "liba.a"), "-o", str(tmp_path)], "have the same name", 2),
        ([a, b, "--common", str(tmp_path / "no" / "x.a")], "there is no folder", 1),
        ([a, str(lone)], "have nothing in common", 1),
        ([a, str(folder / "libq.a")], "there is no file", 1),
    ):
        common = [] if "--common" in words else ["--common", str(tmp_path / "libx.a")]
        assert main.main(["share", *words, *common, *PUBLIC]) == code, words
        assert said in capsys.readouterr().err
        assert not (tmp_path / "libx.a").exists()
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_a_library_that_was_stripped_before_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, _ = files(folder)
    assert main.main(["strip", b, *PUBLIC]) == 0
    assert share(folder) == 1
    err = capsys.readouterr().err
    assert f"{b}: this library was stripped before" in err
    assert "build it again" in err
    assert main.main(["share", a, b, "--common", str(folder / "x.a"), *PUBLIC]) == 1


def killed_at(rename: int, work: Callable[[], object]) -> bool:
    """Do something in another process, which is gone before its n-th renaming; False: it ended."""
    child = os.fork()
    if child == 0:
        left, really = [rename], io.rename

        def counted(source: Path, target: Path) -> None:
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            really(source, target)

        io.rename = counted
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_run_that_is_killed_leaves_all_that_libraries_need(folder: Path, tmp_path: Path) -> None:
    """A set is made again from changed libraries; whatever there is at any moment works."""
    out = tmp_path / "out"
    out.mkdir()
    words = ["-o", str(out), "--common", str(out / "libcommon.a")]
    newer = tmp_path / "newer"
    newer.mkdir()
    for path, _ in c_libraries(tmp_path / "again", "abc", "-O2", "-fno-inline"):
        shutil.copy(path, newer)
    assert share(newer, *words) == 0
    wanted = {p.name: p.read_bytes() for p in out.iterdir()}
    step = 0
    while True:
        assert share(folder, *words) == 0
        before = {p.name: p.read_bytes() for p in out.iterdir()}
        assert before.keys() == wanted.keys()
        assert before != wanted
        if not killed_at(step, lambda: share(newer, *words)):
            break
        for name in "abc":  # an old one and a new one have no state in common
            runs(out, name)
        step += 1
        assert share(newer, *words) == 0
        assert {p.name: p.read_bytes() for p in out.iterdir()} == wanted
    assert step == 5  # the common library, three others, the common library


def join(folder: Path, *more: str, libraries: Sequence[str] | None = None) -> int:
    words = libraries if libraries is not None else files(folder)
    return main.main(["join", *words, "-o", str(folder / "libjoined.a"), *PUBLIC, *more])


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("flags", [(), ("-Wl,--gc-sections",)], ids=["plain", "gc"])
def test_several_libraries_become_one(folder: Path, linker: str, flags: tuple[str, ...]) -> None:
    before = [Path(f).read_bytes() for f in files(folder)]
    assert join(folder) == 0
    for names in ("a", "ac", "abc"):
        inputs = [main_of(folder.parent, names), folder / "libjoined.a"]
        program = link(folder.parent / "program", inputs, linker, *flags)
        assert output(program) == expected(names)
    assert [Path(f).read_bytes() for f in files(folder)] == before


def test_what_join_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert join(folder, "--json") == 0
    (told, _) = messages(capsys)
    assert told["exports"] == ["a", "b", "c"]
    assert told["after"] == (folder / "libjoined.a").stat().st_size < told["before"]
    assert join(folder, "--json", "--dry-run") == 0
    assert [m["reason"] for m in messages(capsys)] == ["shareable"] * 3 + ["finished"]


def test_libraries_that_have_nothing_in_common_are_joined(folder: Path, tmp_path: Path) -> None:
    lone = library(tmp_path / "lone", {"z.c": "int z(void) { return 3; }"}, *FLAGS, name="libz.a")
    assert join(folder, libraries=[files(folder)[0], str(lone)]) == 0
    main_file = tmp_path / "main.c"
    main_file.write_text("int a(void), z(void); int main(void) { a(); return z() - 3; }")
    output(link(tmp_path / "program", [main_file, folder / "libjoined.a"]))


def test_a_name_that_is_public_twice_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = library(tmp_path / "again", {"z.c": "int a(void) { return 3; }"}, *FLAGS, name="libz.a")
    assert join(folder, libraries=[files(folder)[0], str(again)]) == 1
    assert "`a` is public in" in capsys.readouterr().err
    assert not (folder / "libjoined.a").exists()


def test_options_may_speak_of_some_of_the_libraries(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each pattern, list or header is of one library; what nobody defines is an error."""
    originals = shutil.copytree(folder, tmp_path / "originals")
    common = ["--common", str(tmp_path / "libx.a"), "--json", "--dry-run"]
    words = ["share", *files(folder), *common]
    assert main.main([*words, "--export", "a", "--export", "b", "--export", "[cd]"]) == 0
    assert [m["exports"] for m in messages(capsys)[:3]] == [["a"], ["b"], ["c"]]
    lists = [tmp_path / f"{name}.list" for name in "abc"]
    for path in lists:
        path.write_text(f"{path.stem}\n")
    given = [w for path in lists for w in ("--exports-file", str(path))]
    assert main.main([*words, *given]) == 0
    assert [m["exports"] for m in messages(capsys)[:3]] == [["a"], ["b"], ["c"]]
    lists[2].write_text("nobody\n")
    assert main.main([*words, *given, "--export", "?"]) == 1
    assert "nobody" in str(messages(capsys)[0])
    header = tmp_path / "api.h"
    header.write_text("int a(void); int b(void); int c(void);")
    assert main.main([*words, "--header", str(header)]) == 0
    assert [m["exports"] for m in messages(capsys)[:3]] == [["a"], ["b"], ["c"]]
    each = ("--export", "a", "--export", "b", "--export", "c")
    made = ["share", *files(folder), "--common", str(tmp_path / "libx.a"), *each, "--json"]
    for fresh in (False, True):  # what is done is asked the same
        assert main.main(made) == 0
        assert all(m["fresh"] is fresh for m in messages(capsys)[:4])
    shutil.copytree(originals, folder, dirs_exist_ok=True)
    assert main.main([*words, "--export", "a", "--export", "b"]) == 1
    assert "libc.a" in messages(capsys)[0]["message"]
    assert main.main([*words, "--export", "?", "--export", "nobody"]) == 1
    assert "nobody" in str(messages(capsys)[0])
    header.write_text("int a(void); int b(void); int c(void); int d(void);")
    assert main.main([*words, "--header", str(header)]) == 1
    assert "declared" in messages(capsys)[0]["message"]


def test_a_run_that_was_killed_in_place_is_finished_by_the_next(folder: Path) -> None:
    originals = {p: p.read_bytes() for p in folder.iterdir()}
    assert share(folder) == 0
    wanted = {p: p.read_bytes() for p in folder.iterdir()}
    for step in range(4):
        (folder / "libcommon.a").unlink()
        for path, data in originals.items():
            path.write_bytes(data)
        assert killed_at(step, lambda: share(folder))
        done = [p for p in originals if p.read_bytes() != originals[p]]
        assert len(done) == max(0, step - 1)
        assert not done or (folder / "libcommon.a").read_bytes() == wanted[folder / "libcommon.a"]
        assert share(folder) == 0
        assert {p: p.read_bytes() for p in folder.iterdir()} == wanted


def test_what_was_built_again_is_not_replaced_by_what_waits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    originals = {p: p.read_bytes() for p in folder.iterdir()}
    assert killed_at(2, lambda: share(folder))
    (last,) = [p for p in originals if p.name == "libc.a"]
    last.write_bytes(originals[last])
    assert share(folder) == 1
    assert "liba.a: this library was stripped before" in capsys.readouterr().err
    assert last.read_bytes() == originals[last]


def test_a_common_library_that_another_one_needs_is_not_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    originals = shutil.copytree(folder, tmp_path / "originals")
    assert share(folder) == 0
    before = {p: p.read_bytes() for p in folder.iterdir()}
    two = files(folder)[:2]
    for path in two:
        shutil.copy(originals / Path(path).name, path)
    assert share(folder, libraries=two) == 1
    assert "libc.a needs it as it is" in capsys.readouterr().err
    assert before[folder / "libcommon.a"] == (folder / "libcommon.a").read_bytes()
    runs(folder, "c")
    shutil.copy(originals / "libc.a", folder)
    assert share(folder, libraries=two) == 0
    runs(folder, "ab")


def test_other_commands_know_libraries_of_a_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert share(folder) == 0
    before = {p: p.read_bytes() for p in folder.iterdir()}
    capsys.readouterr()
    assert main.main(["strip", *files(folder), *PUBLIC]) == 0
    assert capsys.readouterr().err.count(" Fresh ") == 3
    assert main.main(["check", *files(folder), str(folder / "libcommon.a")]) == 0
    assert main.main(["strip", str(folder / "libcommon.a")]) == 0
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    capsys.readouterr()
    assert share(folder) == 0
    assert capsys.readouterr().err.count(" Fresh ") == 4


def test_a_report_says_what_is_shared_and_what_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = files(folder)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with_both = ["report", a, "--share-with", b, "--share-with", c, *PUBLIC]
    assert main.main([*with_both, "--json"]) == 0
    told, _ = messages(capsys)
    assert share(folder, "--dry-run", "--json") == 0
    would = messages(capsys)[0]
    assert (told["with"], told["kept"]) == (would["with"], would["kept"])
    assert main.main([*with_both, "--markdown"]) == 0
    said = capsys.readouterr().out
    assert f"| with 2 others | {told['with'][0]['size']:,} |" in said
    assert any(": public, or refers to what is public |" in line for line in said.splitlines())
    assert main.main(["report", a, b, "--share-with", c, *PUBLIC]) == 2
    assert "--share-with is for a report about one library" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert share(folder, "-v") == 0
    assert "      Shared " in capsys.readouterr().err
