"""Names say nothing but themselves: whatever they contain, no command lets it reach a terminal."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cargo_strip_hook.archive import NewMember, write_archive
from cargo_strip_hook.cli.main import main
from cargo_strip_hook.present.plain import json_line, markdown, plain
from tests.tools import need

FORMATS = {
    "elf": ("x86_64-unknown-linux-gnu", "gnu", ""),
    "macho": ("arm64-apple-macos13", "darwin", "_"),
    "coff": ("x86_64-pc-windows-msvc", "coff", ""),
}
# each begins with an x, so that one pattern takes them all
NAMES = [
    b"x\x1b[31mred\x1b]0;title\x07",
    b"x\nerror: forged by a name",
    b"x\r\x1b[2K\x1b[1Aerror: forged",
    b"x\x7f\x08\x08\x08\x08rubbed out",
    "x\u009b31mC1 and \u0085 next".encode(),
    "x\u202egnorw\u202c \u2066\u2069\u200f\u061c".encode(),
    "x\u200bzero\u200d\ufeff\u2060width".encode(),
    "x\u2028error: forged\u2029".encode(),
    b"x[red]rich[/red] [link=file:///]it[/link] :skull:",
    b"x|y`z`*b*_u_[a](b)![i](h)<script>\\",
    b'x"></td></table></script><script>alert(1)</script>',
    b"x\xff\xfe\xc3( not UTF-8",
    "x\U000e0041\U000e0042 tags".encode(),
]
PLAIN = [b"one_more_name", b"_ZN9evil\x1b[4me3foo17h0123456789abcdefE"]
SECTION = b".x\x1b[7m\nerr"
FILE = b"m\x1b[32m\nerror: forged\x07\xff.o"

OWN = re.compile(rb"\x1b\[(?:0|1|3[0-7]|1;3[0-7])m")
FORGED = re.compile(rb"(?m)^ {0,3}(?:error|warning|help|note): forged")
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def stand_in(number: int, name: bytes) -> bytes:
    return b"x%02d" % number + b"q" * (len(name) - 3)


def objects(folder: Path, format: str) -> bytes:
    """An object that defines all names, each function calling the next one, with one section."""
    triple, _, prefix = FORMATS[format]
    names = [*NAMES, *PLAIN]
    lines = [".text"]
    for number, name in enumerate(names):
        label = prefix + stand_in(number, name).decode()
        after = prefix + stand_in(number + 1, names[(number + 1) % len(names)]).decode()
        if number + 1 < len(names) and format != "macho":
            lines += [f".globl {label}", f"{label}:", f"call {after}", "ret"]
        else:
            lines += [f".globl {label}", f"{label}:", "ret"]
    if format == "elf":
        lines += ['.section .xAAAAAAAA,"aw",@progbits', ".quad 1"]
    source, made = folder / "names.s", folder / "names.o"
    source.write_text("\n".join([*lines, ""]))
    clang = need("clang-22", "clang")
    subprocess.run([clang, f"--target={triple}", "-c", source, "-o", made], check=True)
    data = made.read_bytes()
    for number, name in enumerate(names):
        assert data.count(stand_in(number, name)) == 1
        data = data.replace(stand_in(number, name), name)
    return data.replace(b".xAAAAAAAA", SECTION)


def library(path: Path, format: str, data: bytes) -> Path:
    prefix = FORMATS[format][2].encode()
    symbols = [prefix + name for name in (*NAMES, *PLAIN)]
    member = NewMember(os.fsdecode(FILE.replace(b"\n", b"")), len(data), [data], symbols)
    with path.open("wb") as file:
        write_archive(file, FORMATS[format][1], [member])
    return path


def run(words: Sequence[str | Path], monkeypatch: pytest.MonkeyPatch) -> tuple[int, bytes, bytes]:
    """(exit code, stdout, stderr) of a command line; both streams have UTF-8 as a terminal does."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    code = main([os.fspath(word) for word in words])
    found = []
    for stream in streams:
        stream.flush()
        found.append(stream.buffer.getvalue())  # type: ignore[attr-defined]
    monkeypatch.undo()
    return code, found[0], found[1]


def must_be_plain(said: bytes) -> None:
    without = OWN.sub(b"", said)
    assert b"\x1b" not in without, without
    assert not UNSEEN.search(without.decode("utf-8")), without
    assert not FORGED.search(without), without


@pytest.fixture(scope="module", params=list(FORMATS))
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / os.fsdecode(b"d\x1b[1m\nerror: forged\xff")
    folder.mkdir()
    data = objects(folder, request.param)
    library(
        folder / os.fsdecode(b"lib\x1b[31m\nerror: forged \xe2\x80\xae\xff.a"), request.param, data
    )
    library(folder / "bad.a", request.param, data[: len(data) - 9])
    (folder / "h.h").write_bytes(b"int x(void); \x1b[31m \x07 int ] ;\n")
    return folder


def commands(folder: Path) -> list[list[str | Path]]:
    good = next(p for p in folder.iterdir() if p.name.startswith("lib"))
    out = folder / "out.a"
    forged = "zz\x1b[31m\nerror: forged\u202e"
    one = os.fsdecode(NAMES[1])
    return [
        ["strip", good, "-o", out, "--export", "x*", "-v"],
        ["strip", good, "-o", out, "--export", one, "--strip", "none"],
        ["strip", good, "-o", out, "--export", "x*", "--dry-run", "-v"],
        ["strip", good, "-o", out, "--export", "x*", "--engine", "system"],
        ["strip", good, "-o", out, "--export", forged],
        ["strip", good, "-o", out, "--header", folder / "h.h"],
        ["strip", good, "-o", out, "--header", folder / forged],
        ["strip", good, "-o", out, "--exports-file", folder / forged],
        ["strip", good, "-o", out, "--export", "x*", "--target", forged],
        ["strip", folder / "bad.a", "--export", "x*"],
        ["strip", folder / forged, "--export", "x*"],
        ["strip", folder, "--export", "x*"],
        ["strip", good, "--no-such" + forged],
        [forged],
        ["check", good, "--export", "x*"],
        ["check", good, "--export", one, "-v", "--against", good],
        ["check", folder / "bad.a", "--export", "x*"],
        ["exports", good, "--export", "x*"],
        ["exports", good],
        ["report", good],
        ["report", good, good],
        ["report", good, "--markdown"],
        ["report", good, "--html", folder / f"{forged}.html", "--export", "x*"],
        ["report", folder / "bad.a"],
        ["why", good, os.fsdecode(NAMES[3]), "--export", "x*", "--all-roots"],
        ["why", good, forged, "--export", "x*"],
        ["why", good, "-", "--crate", "--export", "x*"],
    ]


@pytest.mark.parametrize("way", ["plain", "colour", "json"])
def test_no_command_says_more_than_names(
    hostile: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"plain": [], "colour": ["--color", "always"], "json": ["--message-format", "json"]}[way]
    for words in commands(hostile):
        code, out, err = run([*words, *more], monkeypatch)
        assert code in (0, 1, 2)
        must_be_plain(err)
        assert b"internal error" not in err, err
        if way != "json" or not out.startswith(b"{"):
            must_be_plain(out)
            continue
        must_be_plain(out)
        for line in out.splitlines():
            json.loads(line)


def test_json_keeps_names(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = next(p for p in hostile.iterdir() if p.name.startswith("lib"))
    _, out, _ = run(["exports", good, "--export", "x*", "--message-format=json"], monkeypatch)
    lines = [json.loads(line) for line in out.splitlines()]
    told = {os.fsencode(line["symbol"]) for line in lines if line["reason"] == "export"}
    assert {name.removeprefix(b"_") for name in told} == set(NAMES)
    assert {line["library"] for line in lines if "library" in line} == {str(good)}
    made = hostile / "kept.a"
    _, out, _ = run(
        ["strip", good, "-o", made, "--export", "x*", "--message-format=json"], monkeypatch
    )
    (line,) = [m for m in map(json.loads, out.splitlines()) if m["reason"] == "stripped"]
    assert {os.fsencode(name).removeprefix(b"_") for name in line["exports"]} == set(NAMES)
    said = subprocess.run(
        [need("llvm-nm-22", "llvm-nm"), "-g", "--defined-only", made],
        capture_output=True,
        check=True,
    ).stdout
    assert all(name.split(b"\n")[0] in said for name in NAMES)


def test_the_page_has_the_elements_that_it_should(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser's reading: no name opens or closes anything."""

    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.counts: dict[str, int] = {}

        def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
            self.counts[tag] = self.counts.get(tag, 0) + 1

    good = next(p for p in hostile.iterdir() if p.name.startswith("lib"))
    page = hostile / "page.html"
    run(["report", good, "--html", page, "--export", "x*"], monkeypatch)
    text = page.read_text(encoding="utf-8")
    assert not UNSEEN.search(text)
    tags = Tags()
    tags.feed(text)
    assert tags.counts["script"] == 1
    assert tags.counts["table"] == 4
    assert "img" not in tags.counts


@pytest.mark.parametrize("words", [["exports"], ["check"], ["report"], ["report", "--markdown"]])
@pytest.mark.parametrize("more", [[], ["--message-format=json"]])
def test_streams_that_know_ascii_only(tmp_path: Path, words: list[str], more: list[str]) -> None:
    if words[-1] == "--markdown" and more:
        return
    data = objects(tmp_path, "elf")
    good = library(
        tmp_path / os.fsdecode("libä→\udcff.a".encode(errors="surrogateescape")), "elf", data
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cargo_strip_hook",
            words[0],
            good,
            *words[1:],
            *more,
            "--export=x*",
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
    )
    assert done.returncode in (0, 1), done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    if more:
        for line in done.stdout.splitlines():
            json.loads(line)


def test_markdown_is_no_markup() -> None:
    pytest.importorskip("markdown_it")
    from markdown_it import MarkdownIt

    name = "x|y`z`*b*_u_[a](b)![i](h)<script>\\ &amp; ~~s~~\n# h"
    text = f"| {markdown(name)} | b |\n| --- | --- |\n| {markdown(name)} | **1** |\n"
    made = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    tags = "table thead tr th th tbody tr td td strong"
    assert re.findall(r"<(\w+)", made) == tags.split()
    from html import unescape

    (cell,) = re.findall(r"<td>(.*?)</td>\n<td>", made)
    assert unescape(cell) == plain(name)


def test_what_plain_shows() -> None:
    assert plain("_ZN4core3fmtE <T as U>::f…→ äß漢") == "_ZN4core3fmtE <T as U>::f…→ äß漢"
    assert plain("a\x1b[31m\n\t\x7f\udcff\x9b\u202e\U000e0041") == (
        "a\\x1b[31m\\n\\t\\x7f\\xff\\u009b\\u202e\\U000e0041"
    )
    message = {"name": "a\x1b\x7f\x9b\u2028\udcff\U000e0041ä"}
    for encoding in ("utf-8", "ascii"):
        line = json_line(message, encoding)
        assert json.loads(line) == message
        assert not UNSEEN.search(line)
        line.encode(encoding)


def test_no_message_of_ours_has_lines_but_lists() -> None:
    """Names can have line feeds, so that a message's own could not be told from them."""
    package = Path(plain.__code__.co_filename).parents[1]
    for file in package.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if isinstance(call, ast.Call) and name.endswith(("Error", "warning", ".fail")):
                said = [n for a in call.args for n in ast.walk(a) if isinstance(n, ast.Constant)]
                assert not any("\n" in str(n.value) for n in said), (file, call.lineno)
