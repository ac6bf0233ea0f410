"""Arguments, exit codes and errors of the command, without any library."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.settings import Settings
from cargo_strip_hook.cli import commands, main, options, parser
from cargo_strip_hook.cli.batch import run_jobs
from cargo_strip_hook.cli.console import Console
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.pipeline.strip import Job
from cargo_strip_hook.present.terminal import Shell

LINUX = Target.parse("x86_64-unknown-linux-gnu")


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARGO_TERM_COLOR", "CARGO_TERM_QUIET", "CARGO_TERM_VERBOSE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


# Words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ([], None, [])),
        (["--release"], (["--release"], None, [])),
        (["strip", "a.a"], ([], "strip", ["a.a"])),
        (["-v", "strip", "a.a", "-q"], (["-v"], "strip", ["a.a", "-q"])),
        # values of options are no commands, whatever they are
        (["--profile", "strip"], (["--profile", "strip"], None, [])),
        (["-p", "check", "check", "x"], (["-p", "check"], "check", ["x"])),
        (["--profile=strip", "check"], (["--profile=strip"], "check", [])),
        # what follows belongs to cargo-c, also our own words and options
        (
            ["--strip", "none", "cinstall", "--release", "strip"],
            (["--strip", "none"], "cinstall", ["--release", "strip"]),
        ),
    ],
)
def test_the_command_among_the_words(
    argv: list[str], expected: tuple[list[str], str | None, list[str]]
) -> None:
    assert parser.split_command(argv) == expected


@pytest.mark.parametrize(
    ("argv", "help"),
    [
        (["cbiuld"], "did you mean `cbuild`?"),
        (["libfoo.a"], "cargo strip-hook strip libfoo.a"),
        (["--release", "nothing"], "--help"),
    ],
)
def test_no_such_command(argv: list[str], help: str) -> None:
    with pytest.raises(UsageError) as e:
        parser.split_command(argv)
    assert any(help in line for line in e.value.help)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["strip"], "LIB"),
        (["strip", "a.a", "--engine", "steam"], "steam"),
        (["strip", "a.a", "-j0"], "not a number of jobs"),
        (["strip", "a.a", "--out", "x"], "unrecognized arguments"),  # no abbreviations
        (["-v", "-q"], "both --verbose and --quiet"),
        (["strip", "a.a", "b.a", "-o", "c.a"], "one library"),
        (["--prefix", "/usr"], "--installed"),
        (["--release", "--profile", "dev"], "cannot be used together"),
        (["--exclude", "x"], "--workspace"),
        (["strip", "x.a", "--target", "nonsense"], "not a target triple"),
        (["help", "nothing"], "no such command"),
    ],
)
def test_mistakes_are_usage_errors(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "argv", [["--help"], ["strip", "--help"], ["help"], ["help", "cbuild"], ["strip-hook", "-h"]]
)
def test_help(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main.main(argv) == 0
    except SystemExit as e:
        assert e.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: cargo strip-hook")
    assert "--engine" in out


# Values ---------------------------------------------------------------------------------------


def test_strip_takes_everything_from_its_arguments() -> None:
    words = "lib.a --header a.h --header b.h --export x_* --preset gst --keep _ZTI* -D A=1 -I inc "
    words += "--exports-file f.txt --cdylib l.so --strip none --granularity section "
    words += "--engine system --allow-missing --link-check --link-arg=-lz --crate-name c -o out.a"
    args = parser.strip_parser().parse_args(words.split())
    job = options.job_for_file(args, options.Subject(args.library[0]), LINUX)
    request = job.request
    assert job.library == Path("lib.a")
    assert job.output == Path("out.a")
    assert (job.strip, job.granularity, job.engine) == (
        Strip.NONE,
        Granularity.SECTION,
        "system",
    )
    assert (job.link_check, job.link_args) == (True, ("-lz",))
    assert request.headers == (Path("a.h"), Path("b.h"))
    assert request.headers_explicit
    assert request.cdylib_explicit
    assert request.named["export"] == ("x_*",)
    assert request.named["preset"] == ("gst",)
    assert request.keep == ("_ZTI*",)
    assert request.defines == ("A=1",)
    assert request.include_dirs == (Path("inc"),)
    assert request.named["exports-file"] == (Path("f.txt"),)
    assert request.crate_name == "c"
    assert request.allow_missing


def test_strip_by_default_removes_debug_information() -> None:
    args = parser.strip_parser().parse_args(["lib.a"])
    job = options.job_for_file(args, options.Subject(Path("lib.a")), LINUX)
    assert job.strip is Strip.DEBUGINFO
    assert job.granularity is Granularity.CLASS
    assert job.engine == "native"
    assert not job.request.headers_explicit


def artefact(settings: Settings) -> object:
    from cargo_strip_hook.cargo.discover import Artefact

    return Artefact(
        package="p",
        version="1.0.0",
        library=Path("libp.a"),
        target=LINUX,
        headers=(Path("p.h"),),
        header_expected=True,
        cdylib=Path("libp.so"),
        crate_name="p",
        defines={},
        active_defines=("WITH_X",),
        settings=settings,
        strip_default=Strip.NONE,
        warnings=(),
        is_installed=False,
    )


def test_options_over_settings_over_what_was_found() -> None:
    settings = Settings(
        {"export": ("s_*",)}, strip=Strip.SYMBOLS, engine="system", allow_missing=True
    )
    found = artefact(settings)

    def job(*words: str):  # type: ignore[no-untyped-def]
        args = parser.bare_parser().parse_args(words)
        return options.job_for_artefact(args, found)  # type: ignore[arg-type]

    plain = job()
    assert plain.strip is Strip.SYMBOLS
    assert plain.engine == "system"
    assert plain.request.named == {"export": ("s_*",)}
    assert plain.request.headers == (Path("p.h"),)
    assert not plain.request.headers_explicit
    assert plain.request.cdylib == Path("libp.so")
    assert plain.request.defines == ("WITH_X",)
    assert plain.request.allow_missing
    given = job("--strip", "debuginfo", "--engine", "native", "--export", "o_*", "--header", "o.h")
    assert given.strip is Strip.DEBUGINFO
    assert given.engine == "native"
    assert given.request.named == {"export": ("o_*",)}
    assert given.request.headers == (Path("o.h"),)
    assert given.request.headers_explicit
    # nothing said: Cargo's profile
    found = artefact(Settings())
    assert job().strip is Strip.NONE


def test_selection() -> None:
    words = "-p one --package two --release --target t --target-dir d --config a=1 -F x --offline"
    words += " --installed --destdir D --prefix P --libdir L --includedir I --meson-paths --locked"
    args = parser.bare_parser().parse_args(words.split())
    assert options.selection_of(args) == Selection(
        packages=("one", "two"),
        target="t",
        target_dir=Path("d"),
        profile="release",
        config=("a=1",),
        features=("x",),
        offline=True,
        locked=True,
        meson_paths=True,
        installed=True,
        destdir=Path("D"),
        prefix=Path("P"),
        libdir=Path("L"),
        includedir=Path("I"),
    )


# Errors ---------------------------------------------------------------------------------------


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def failing(*_: object) -> int:
        raise error

    monkeypatch.setattr(commands, "strip", failing)


def test_an_internal_error_has_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STRIP_HOOK_BACKTRACE", raising=False)
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    assert main.main(["strip", "x.a"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: internal error: ZeroDivisionError: division by zero\n  help: ")
    assert "Traceback" not in err
    monkeypatch.setenv("STRIP_HOOK_BACKTRACE", "1")
    assert main.main(["strip", "x.a"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main.main(["strip", "x.a"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, PermissionError(13, "Permission denied", "/x/liba.a"))
    assert main.main(["strip", "x.a"]) == 1
    assert capsys.readouterr().err == "error: /x/liba.a: Permission denied\n"


def test_json_of_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "libmissing.a"
    assert main.main(["--message-format", "json", "strip", str(missing)]) == 1
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["reason"] == "error"
    assert first["kind"] == "DiscoveryError"
    assert str(missing) in first["message"]
    assert last == {"reason": "finished", "success": False}
    # before the options are known
    assert main.main(["--message-format=json", "--nonsense"]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[0])["kind"] == "UsageError"


def test_what_is_no_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "libtext.a"
    text.write_text("hello")
    assert main.main(["strip", str(text), str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.count("error: ") == 2
    assert "not an archive" in err
    assert "folder" in err
    assert text.read_text() == "hello"


def test_starting_up_is_light() -> None:
    code = (
        "import sys; from cargo_strip_hook.cli.main import main; main(['strip', 'no such.a']);"
        "print([m for m in ('numpy', 'rich', 'pycparser', 'elftools', 'filelock', 'packaging',"
        "'multiprocessing', 'subprocess', 'json', 'concurrent') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    # the marker is JSON
    assert loaded <= {"json"}


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors as a shell does")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    (tmp_path / "libtext.a").write_text("hello")
    words = f'"{sys.executable}" -m cargo_strip_hook strip "{tmp_path / "libtext.a"}"'
    done = subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=Path.cwd(), check=False)
    assert done.returncode == 1
    assert (tmp_path / "libtext.a").read_text() == "hello"
    done = subprocess.run(["sh", "-c", f"{words} --help {closed}"], cwd=Path.cwd(), check=False)
    assert done.returncode == 0


def test_octets_of_a_path_that_are_no_text_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    name = b"lib\xff\xc3\xa9.a".decode("utf-8", "surrogateescape")
    console = Console(Shell(io.StringIO()), json=True)
    console.send([{"library": name}, {"library": "é.a"}])
    escaped, plain = capsys.readouterr().out.splitlines()
    assert escaped.isascii()
    assert json.loads(escaped) == {"library": name}
    assert plain == '{"library": "é.a"}'


def test_what_the_system_refuses_one_library_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(job: Job, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(job.library))

    monkeypatch.setattr("cargo_strip_hook.cli.batch.strip_library", refused)
    said = io.StringIO()
    paths = [tmp_path / "a.a", tmp_path / "b.a"]
    jobs = [Job(path, LINUX, ExportRequest(LINUX)) for path in paths]
    assert run_jobs(jobs, Console(Shell(said), json=False), at_a_time=1, dry=False) == 1
    assert [f"error: {path}: Permission denied" for path in paths] == said.getvalue().splitlines()


@pytest.mark.skipif(os.name != "posix", reason="a program that is a script")
@pytest.mark.parametrize("words", [["--library-type", "cdylib"], ["--library-type=CDYLIB"]])
@pytest.mark.parametrize("command", ["cbuild", "cinstall"])
def test_nothing_to_strip_is_no_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    words: list[str],
) -> None:
    program = tmp_path / f"cargo-{command}"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert main.main([command, *words]) == 0
    assert "no static library was asked for: nothing to strip" in capsys.readouterr().err
