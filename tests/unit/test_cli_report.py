"""Lines, colours and JSON: what people and programs get to read."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cargo_strip_hook.analysis.check import Finding, Inspection
from cargo_strip_hook.analysis.sizes import (
    FILE_KINDS,
    LOADED_KINDS,
    Crate,
    MemberSize,
    Sizes,
    compare,
)
from cargo_strip_hook.analysis.why import Reason, Step
from cargo_strip_hook.cli.console import Console
from cargo_strip_hook.core.errors import (
    ArchiveError,
    StripHookError,
    ToolError,
    ToolFailure,
    UsageError,
    VerifyError,
)
from cargo_strip_hook.core.requests import Export, ExportSet, Origin, Slice, Statistics
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.link.share.report import NotShared, SharedParts
from cargo_strip_hook.pipeline.sharing import SetJob, SetOutcome, SetPart
from cargo_strip_hook.pipeline.strip import Job, Outcome, Plan, Seconds, SlicePlan
from cargo_strip_hook.present import messages, text, why
from cargo_strip_hook.present import sizes as size_messages
from cargo_strip_hook.present.terminal import (
    Shell,
    Verbosity,
    choose_color,
    choose_verbosity,
)
from tests.unit.schema import problems

TARGET = Target.parse("x86_64-unknown-linux-gnu")
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "cargo_strip_hook/present/schema.json").read_text())
EXPORTS = ExportSet(
    (Export("foo", (Origin("header", "foo.h:3"),)),),
    keep=(Export("_ZTI3Foo", (Origin("keep", "_ZTI*"),)),),
    missing=(Export("bar", (Origin("header", "foo.h:4"),)),),
    source="1 symbol from foo.h",
    warnings=("bar is not there",),
)
JOB = Job(Path("out/libfoo.a"), TARGET, ExportRequest(TARGET))
OUTCOME = Outcome(
    JOB,
    Path("out/libfoo.a"),
    23_058_256,
    1_153_000,
    False,
    EXPORTS,
    ("malloc",),
    Statistics(10, 3, 200, 50, 7),
    ("careful",),
    Seconds(0.1, 0.2, 0.1, 0.01, 0.62),
)
SLICE = SlicePlan(Slice(JOB.library), TARGET, EXPORTS, b"{}", False)
REASON = Reason(
    JOB.library,
    "",
    "regex",
    "crate",
    ("_ZN5regex3new17h0123456789abcdefE", "_ZN5regex4find17h0123456789abcdefE"),
    300_000,
    412_000,
    1_000_000,
    (
        Step("foo", "foo", "a.o", "export", 10, 500_000, 1, 0),
        Step("_ZN5regex3new17h0123456789abcdefE", "regex::new", "b.o", "reference", 20, 20, 2, 16),
    ),
    ("foo",),
    3,
)
PLAN = Plan(JOB, EXPORTS, (SLICE,), 100)


def shell(**kwargs: Any) -> tuple[Shell, io.StringIO]:
    stream = io.StringIO()
    return Shell(stream, **kwargs), stream


# Colour and verbosity -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "environment", "terminal", "colored"),
    [
        (None, {}, True, True),
        (None, {}, False, False),
        (None, {"TERM": "dumb"}, True, False),
        (None, {"NO_COLOR": "1"}, True, False),
        (None, {"NO_COLOR": ""}, True, True),
        (None, {"FORCE_COLOR": "1"}, False, True),
        (None, {"FORCE_COLOR": "0"}, False, False),
        (None, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        (None, {"CARGO_TERM_COLOR": "always"}, False, True),
        (None, {"CARGO_TERM_COLOR": "always", "NO_COLOR": "1"}, False, True),
        (None, {"CARGO_TERM_COLOR": "never", "FORCE_COLOR": "1"}, True, False),
        (None, {"CARGO_TERM_COLOR": "auto"}, True, True),
        ("always", {"CARGO_TERM_COLOR": "never"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("auto", {"CARGO_TERM_COLOR": "always"}, False, False),
    ],
)
def test_color(
    flag: str | None, environment: dict[str, str], terminal: bool, colored: bool
) -> None:
    assert choose_color(flag, environment, is_terminal=terminal) is colored


def test_color_of_no_kind() -> None:
    with pytest.raises(UsageError, match="CARGO_TERM_COLOR"):
        choose_color(None, {"CARGO_TERM_COLOR": "blue"}, is_terminal=True)
    # an option decides before the environment is looked at
    assert choose_color("always", {"CARGO_TERM_COLOR": "blue"}, is_terminal=False)


def test_verbosity() -> None:
    assert choose_verbosity(0, False, {}) is Verbosity.NORMAL
    assert choose_verbosity(0, False, {"CARGO_TERM_VERBOSE": "true"}) is Verbosity.VERBOSE
    assert choose_verbosity(0, False, {"CARGO_TERM_QUIET": "true"}) is Verbosity.QUIET
    assert choose_verbosity(0, True, {"CARGO_TERM_VERBOSE": "true"}) is Verbosity.QUIET
    assert choose_verbosity(1, False, {"CARGO_TERM_QUIET": "true"}) is Verbosity.VERBOSE
    for arguments in (
        (1, True, {}),
        (0, False, {"CARGO_TERM_QUIET": "true", "CARGO_TERM_VERBOSE": "true"}),
        (0, False, {"CARGO_TERM_QUIET": "yes"}),
    ):
        with pytest.raises(UsageError):
            choose_verbosity(*arguments)


# Lines ----------------------------------------------------------------------------------------


def test_lines_are_cargo_s() -> None:
    plain, stream = shell()
    plain.status("Fresh", "libfoo.a")
    plain.warning("odd", help=("look",))
    plain.detail("Hidden", "unless verbose")
    plain.error("bad", help=("one", "two"))
    # the same columns as cargo's `   Compiling foo v1.0.0`
    assert stream.getvalue() == (
        "       Fresh libfoo.a\nwarning: odd\n  help: look\nerror: bad\n  help: one\n  help: two\n"
    )
    colored, stream = shell(color=True)
    colored.status("Fresh", "libfoo.a")
    assert stream.getvalue() == "\x1b[1m\x1b[32m       Fresh\x1b[0m libfoo.a\n"


def test_quiet_says_errors_only() -> None:
    quiet, stream = shell(verbosity=Verbosity.QUIET)
    quiet.status("Fresh", "libfoo.a")
    quiet.warning("odd", help=("look",))
    quiet.note("by the way")
    quiet.error("bad")
    assert stream.getvalue() == "error: bad\n"


def test_a_terminal_without_unicode() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Shell(stream).status("Stripping", "a (2 MB → 1 MB) ü")
    assert raw.getvalue() == b"   Stripping a (2 MB -> 1 MB) \\xfc\n"
    # kept until here: closing the wrapper closes the bytes
    stream.detach()


def test_the_line_of_a_stripped_library() -> None:
    # the example of the documentation
    assert text.stripped(OUTCOME) == "libfoo.a (23.1 MB → 1.2 MB, -95 %) in 0.6s"


def test_a_reason_in_words() -> None:
    assert why.text(REASON) == (
        "crate `regex` in libfoo.a, 2 symbols: 300 kB\n"
        "without it 412 kB would go, 41.2 % of what a program loads\n"
        "\n"
        "       bytes     retained\n"
        "          10      500,000  foo (public)  [a.o]\n"
        "          20           20  refers to regex::new  [b.o]\n"
        "\n"
        "1 of 3 public symbols need it:\n"
        "  foo\n"
    )
    nothing = replace(REASON, chain=(), exports=())
    assert why.text(nothing).startswith("nothing public needs `regex`")


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (129_400_000, "129.4 MB"),
        (999_949_999, "999.9 MB"),
        (999_950_000, "1.00 GB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert text.size(count) == shown


def test_changes_and_durations() -> None:
    assert text.change(100, 5) == "-95 %"
    assert text.change(100, 100) == "+0 %"
    assert text.change(100, 150) == "+50 %"
    assert text.change(1_000_000, 1) == "-99 %"
    assert text.change(0, 10) == "+0 %"
    assert text.duration(0.04) == "0.0s"
    assert text.duration(59.94) == "59.9s"
    assert text.duration(59.96) == "1m 00s"
    assert text.duration(62) == "1m 02s"


def test_the_tail_of_a_long_output() -> None:
    failure = ToolFailure(("ld",), 1, "out\n", "\n".join(f"line {n}" for n in range(100)))
    lines = text.tail(failure)
    assert lines[0] == "… 61 lines before this"
    assert lines[1] == "line 60"
    assert lines[-1] == "line 99"
    assert text.tail(ToolFailure(("ld",), 1, "", "")) == []


def test_a_tool_error_shows_all_there_is() -> None:
    stream = io.StringIO()
    failure = ToolFailure(("ld", "-o", "a b"), 3, "", "ld: cannot find x\n")
    Console(Shell(stream)).problem(ToolError("`ld` failed", failure, help="install x"))
    assert stream.getvalue() == (
        "error: `ld` failed\n"
        "  command:\n    ld -o 'a b'\n"
        "  exit code: 3\n"
        "  output:\n    ld: cannot find x\n"
        "  help: install x\n"
    )


def test_the_findings_of_the_verifier_are_shown() -> None:
    stream = io.StringIO()
    Console(Shell(stream)).problem(VerifyError("not right", ["leaked: foo", "missing: bar"]))
    assert "  found:\n    leaked: foo\n    missing: bar\n" in stream.getvalue()


# JSON -----------------------------------------------------------------------------------------


def sizes(count: int) -> Sizes:
    """Of a library with one crate and one member."""
    loaded = dict.fromkeys(LOADED_KINDS, count)
    file = dict.fromkeys(FILE_KINDS, count)
    crate, member = Crate("core", loaded), MemberSize("a.o", count, count)
    return Sizes(JOB.library, "", TARGET, count, file, loaded, (crate,), (member,))


PARTS = SharedParts(500, ((1, 300), (2, 100)), (NotShared("foo", "code differs", 100),))
SET = SetOutcome(
    SetJob((JOB, JOB), Path("libcommon.a")),
    False,
    400,
    (SetPart(JOB, Path("libfoo.a"), 900, 200, ("foo",), ("malloc",), PARTS, ("odd",)),),
    0.25,
)


def test_a_set_in_words() -> None:
    assert text.shared(SET.parts[0]) == "libfoo.a (900 bytes → 200 bytes, -78 %)"
    assert text.would_share(SET.parts[0]) == (
        "libfoo.a (400 bytes of 500 bytes: 300 bytes with 1 other, 100 bytes with 2 others)"
    )
    assert text.not_shared(SET.parts[0]) == ["foo: 100 bytes, code differs"]
    assert text.common(SET) == "libcommon.a (400 bytes) in 0.2s"
    assert text.joined(SET) == "1 libraries into libcommon.a (900 bytes → 400 bytes, -56 %) in 0.2s"


def every_message() -> list[dict[str, Any]]:
    finding = Finding("leaked", "finding", "two", ("a", "b"))
    note = Finding("one-object", "note", "one object")
    tool = ToolError("failed", ToolFailure(("ld",), None, "", "no such file"), help="install it")
    return [
        messages.stripped(OUTCOME),
        messages.stripped(replace(OUTCOME, fresh=True, undefined=())),
        messages.planned(PLAN),
        *messages.shared(SET, dry=True),
        *messages.shared(SET, dry=False),
        messages.joined(SET),
        *messages.exports("libfoo.a", EXPORTS),
        *messages.checked(Inspection(Path("libfoo.a"), TARGET, (finding,), (note,))),
        size_messages.message(sizes(10)),
        size_messages.message(replace(sizes(10), architecture="arm64")),
        size_messages.message(sizes(10), SET.parts[0]),
        size_messages.difference_message(compare(sizes(10), replace(sizes(5), crates=()))),
        why.message(REASON),
        why.message(replace(REASON, architecture="arm64", chain=(), exports=None)),
        messages.warning("odd"),
        messages.error(StripHookError("bad", help=("one", "two"))),
        messages.error(VerifyError("bad", ("leaked: x",))),
        messages.error(tool),
        messages.finished(0),
        messages.finished(1),
    ]


def test_every_message_keeps_to_the_schema() -> None:
    seen = set()
    for message in every_message():
        # through JSON, as programs read it
        read = json.loads(json.dumps(message))
        found = list(problems(read, SCHEMA["$defs"][read["reason"]], SCHEMA))
        assert not found, (read, found)
        assert not list(problems(read, SCHEMA, SCHEMA))
        seen.add(read["reason"])
    documented = {one["$ref"].rpartition("/")[2] for one in SCHEMA["oneOf"]}
    assert seen == documented


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": "finished"},
        {"reason": "finished", "success": 1},
        {"reason": "finished", "success": True, "more": 1},
        {"reason": "unheard of", "success": True},
        {"reason": "checked", "library": "a", "target": "t", "findings": -1, "notes": 0},
    ],
)
def test_the_schema_refuses(wrong: dict[str, Any]) -> None:
    assert list(problems(wrong, SCHEMA, SCHEMA))


def test_the_readme_names_every_reason() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for one in SCHEMA["oneOf"]:
        name = one["$ref"].rpartition("/")[2]
        assert f"`{name}`" in readme, name


def test_stdout_has_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    Console(Shell(stream), json=True).outcome(OUTCOME)
    Console(Shell(stream), json=False).outcome(OUTCOME)
    out = capsys.readouterr().out
    assert out.endswith("}\n")
    (line,) = out.splitlines()
    assert json.loads(line)["exports"] == ["foo"]
    assert stream.getvalue().count("Stripping") == 2


# Errors between processes ---------------------------------------------------------------------


def test_errors_come_whole_from_another_process() -> None:
    import pickle

    errors: list[StripHookError] = [
        UsageError("bad", help="good"),
        ArchiveError("cut", path="a.a", member="m.o", offset=16, help=("x", "y")),
        VerifyError("bad", ("one", "two"), help="report it"),
        ToolError("bad", ToolFailure(("ld",), 1, "o", "e")),
    ]
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
        assert copy.exit_code == error.exit_code
