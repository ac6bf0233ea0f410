"""Files that a run reads and writes: none is both, and all of them are files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cargo_strip_hook import strip
from cargo_strip_hook.cli.main import main
from cargo_strip_hook.core.errors import UsageError
from tests.formats.native_kit import tool
from tests.tools import need

posix = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs")
Link = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("made")
    (folder / "a.c").write_text("int api(int a) { return a; }\nint other(int a) { return -a; }\n")
    clang = need("clang-22", "clang")
    tool([clang, "-c", "--target=x86_64-linux-gnu", folder / "a.c", "-o", folder / "a.o"])
    tool([need("llvm-ar-22", "llvm-ar"), "rcsD", folder / "l.a", folder / "a.o"])
    return (folder / "l.a").read_bytes()


@pytest.fixture(autouse=True)
def place(made: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "lib"
    (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("l.a", "m.a"):
        (folder / name).write_bytes(made)
    (folder / "api.h").write_text("int api(int);\n")
    (folder / "list").write_text("api\n")
    (folder / "symbolic.a").symlink_to("l.a")
    os.link("l.a", "hard.a")
    (folder / "linked").symlink_to(".")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@posix
@pytest.mark.parametrize(
    "words",
    [
        ["l.a", "--debug-twin", "l.a"],
        ["l.a", "--debug-twin", "./sub/../l.a"],
        ["l.a", "--debug-twin", "linked/l.a"],
        ["linked/l.a", "--debug-twin", "l.a"],
        ["l.a", "--debug-twin", "symbolic.a"],
        ["symbolic.a", "--debug-twin", "l.a"],
        ["l.a", "--debug-twin", "hard.a"],
        ["l.a", "-o", "out.a", "--debug-twin", "out.a"],
        ["l.a", "-o", "out.a", "--debug-twin", "linked/out.a"],
        ["l.a", "-o", "out.a", "--debug-twin", "l.a"],
        ["l.a", "-o", "out.a", "--debug-twin", "hard.a"],
        ["l.a", "-o", "hard.a", "--debug-twin", "m.a", "--header", "m.a"],
        ["l.a", "--debug-twin", "api.h", "--header", "api.h"],
        ["l.a", "-o", "linked/api.h", "--header", "api.h"],
        ["l.a", "-o", "list", "--exports-file", "list"],
        ["l.a", "--debug-twin", "m.a", "--cdylib", "m.a"],
        ["l.a", "m.a", "linked/l.a"],
        ["l.a", "symbolic.a"],
        # names that are used on the way
        ["l.a", "--debug-twin", ".l.a.strip-hook"],
        ["l.a", "-o", "m.a", "--debug-twin", ".m.a.strip-hook-old"],
        ["l.a", "--exports-file", ".l.a.strip-hook"],
    ],
)
def test_no_result_is_written_over_another_file_of_the_run(
    place: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(place)
    for more in ([], ["--dry-run"]):
        assert main(["strip", *words, "--export", "api", *more]) == 2
        assert contents(place) == before
    assert capsys.readouterr().err.startswith("error: ")


@posix
def test_a_member_of_a_thin_archive_is_an_input(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ar = need("ar")
    tool([ar, "x", "l.a"])
    tool([ar, "rcsD", "--thin", "thin.a", "a.o"])
    before = contents(place)
    for option in ("--debug-twin", "-o"):
        assert main(["strip", "thin.a", "--export", "api", option, "a.o"]) == 2
        assert "a member of the thin archive" in capsys.readouterr().err
    assert contents(place) == before
    # and what becomes of the archive is said
    assert main(["strip", "thin.a", "--export", "api", "--dry-run"]) == 0
    assert "thin archive; the result is a normal one" in capsys.readouterr().err
    assert main(["strip", "thin.a", "--export", "api"]) == 0
    assert "thin archive; the result is a normal one" in capsys.readouterr().err
    assert (place / "thin.a").read_bytes().startswith(b"!<arch>\n")
    assert main(["strip", "thin.a", "--export", "api"]) == 0
    assert "thin" not in capsys.readouterr().err.replace("thin.a", "")


def test_the_library_itself_may_be_the_output(place: Path, made: bytes) -> None:
    assert main(["strip", "l.a", "--export", "api", "-o", "./l.a"]) == 0
    assert (place / "l.a").read_bytes() != made


@posix
@pytest.mark.parametrize("words", [["l.a", "hard.a"], ["l.a", "-o", "hard.a"]])
def test_hard_links_among_libraries_are_fine(place: Path, made: bytes, words: list[str]) -> None:
    """Cargo makes them; each name gets a file of its own."""
    assert main(["strip", *words, "--export", "api"]) == 0
    assert (place / "hard.a").read_bytes() != made
    assert ((place / "l.a").read_bytes() == made) is ("-o" in words)


@posix
@pytest.mark.parametrize("twin", ["l.a", "symbolic.a", "hard.a"])
def test_by_the_python_api(place: Path, made: bytes, twin: str) -> None:
    with pytest.raises(UsageError, match="are the same file"):
        strip("l.a", exports="api", debug_twin=twin)
    assert (place / "l.a").read_bytes() == made


@posix
@pytest.mark.parametrize("page", ["l.a", "symbolic.a", "hard.a", "m.a", "api.h", "list"])
def test_a_report_is_written_over_nothing_that_it_reads(place: Path, page: str) -> None:
    before = contents(place)
    options = ["--header", "api.h", "--exports-file", "list"]
    assert main(["report", "l.a", "m.a", *options, "--html", page]) == 2
    assert contents(place) == before


# ---- no files


@pytest.fixture(params=["fifo", "socket", "device"])
def irregular(request: pytest.FixtureRequest, place: Path) -> Iterator[str]:
    if request.param == "device":
        yield "/dev/zero"
    elif request.param == "fifo":
        os.mkfifo(place / "pipe")
        yield "pipe"
    else:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("pipe")
            yield "pipe"


@posix
@pytest.mark.parametrize(
    "words",
    [
        "strip @ --export api",
        "strip l.a --header @",
        "strip l.a --exports-file @",
        "strip l.a --cdylib @",
        "strip l.a m.a @ --export api -j 2",
        "check @",
        "check l.a --export api --against @",
        "exports @",
        "report @",
        "report l.a @",
        "why @ api",
        "strip thin.a --export api",
        "strip T.xcframework",
    ],
)
def test_what_is_no_file_is_refused_at_once(
    place: Path, irregular: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = Path(irregular).absolute()
    if "thin.a" in words:
        tool([need("ar"), "x", "l.a"])
        tool([need("ar"), "rcsD", "--thin", "thin.a", "a.o"])
        (place / "a.o").unlink()
        (place / "a.o").symlink_to(where)
    if "xcframework" in words:
        (place / "T.xcframework").mkdir()
        (place / "T.xcframework" / "Info.plist").symlink_to(where)
    before = (place / "l.a").read_bytes()
    assert main([w.replace("@", irregular) for w in words.split()]) == 1
    said = capsys.readouterr().err
    assert "no regular file" in said or "No such device" in said  # which is a socket
    if "m.a" not in words:
        assert (place / "l.a").read_bytes() == before


@posix
def test_a_baseline_that_is_no_file(place: Path) -> None:
    from cargo_strip_hook.analysis.budget import Budget, check_budget
    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.core.amounts import Growth

    os.mkfifo(place / "pipe")
    library = place / "l.a"
    budget = Budget(None, Growth(1.0, True, "1 %"), place / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        check_budget(library, target_of(library, None), budget)
