"""The documentation: it builds without a warning, and says what the program says."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cargo_strip_hook.cargo import settings
from cargo_strip_hook.cli.parser import PARSERS
from cargo_strip_hook.core import errors
from tests import demo
from tests.tools import missing

HERE = Path(__file__).resolve().parents[2]
DOCS = HERE / "docs"
PACKAGE = HERE / "cargo_strip_hook"
FORMATS = PACKAGE / "formats"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    try:
        importlib.import_module("material")
    except ImportError:
        missing("mkdocs-material")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


class _Needs(HTMLParser):
    """What a browser loads for a page by itself, and the page's text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        by_name = dict(attrs)
        name = {"link": "href", "script": "src", "img": "src", "iframe": "src"}.get(tag)
        if name and by_name.get(name) and by_name.get("rel") != "canonical":
            self.loaded.append(str(by_name[name]))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def text(self) -> str:
        return " ".join("".join(self.words).split())


def read(page: Path) -> _Needs:
    parser = _Needs()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 11
    for page in pages:
        for name in read(page).loaded:
            assert not re.match(r"(\w+:)?//", name), (page, name)
        assert "<!-- made:" not in page.read_text(encoding="utf-8")


def test_each_option_is_on_the_page(site: Path) -> None:
    said = read(site / "options.html").text()
    words = set(re.findall(r"(?<!\S)--?\w[\w-]*", said.replace(",", " ")))
    for name, make in PARSERS.items():
        for action in make()._actions:
            assert set(action.option_strings) <= words, name
            assert str(action.help).replace("`", "").replace("*", "") in said.replace("*", "")


def test_each_message_and_function_is_on_its_page(site: Path) -> None:
    import json

    (file,) = PACKAGE.glob("*/schema.json")
    said = read(site / "json.html").text()
    kinds = json.loads(file.read_text())["$defs"]
    for kind in kinds.values():
        if "reason" in kind.get("properties", {}):
            assert all(name in said for name in kind["properties"])
    said = read(site / "python.html").text()
    import cargo_strip_hook

    for name in cargo_strip_hook.__all__:
        function = getattr(cargo_strip_hook, name)
        if inspect.isfunction(function):
            # highlighting makes words of the code, in their order
            parameters = [p for p in inspect.signature(function).parameters if p != "public"]
            assert re.search(r".*".join([name, *parameters]), said, re.S), name


def test_each_key_of_the_configuration() -> None:
    """In the table of the page both ways, and on the manual page."""
    from cargo_strip_hook.cli import manual

    table = text("configuration.md").partition("| key |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"^\| `([\w-]+)`", table, re.M))
    assert documented == {*settings._READERS, "targets"}
    page = manual.page().replace("\\-", "-")
    assert all(key in page for key in documented)


def test_each_environment_variable() -> None:
    """Ours and cargo's for terminals, on both pages; and no other than the source names."""
    from cargo_strip_hook.cli import manual

    source = "\n".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))
    page = text("configuration.md").partition("## Environment")[2]
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", page))
    for name in documented:
        assert f'"{name}"' in source, name
    read = set(re.findall(r'"(CARGO_TERM_(?:COLOR|QUIET|VERBOSE|PROGRESS_WHEN))"', source))
    read |= set(re.findall(r'"(STRIP_HOOK_[A-Z]+)"', source)) | {"NO_COLOR", "FORCE_COLOR"}
    assert read <= documented
    assert all(name in manual.page() for name in read)


def test_the_example_of_the_configuration_is_accepted(tmp_path: Path) -> None:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    (block,) = re.findall(r"```toml\n(.*?)```", text("configuration.md"), re.S)
    table = tomllib.loads(block)["package"]["metadata"]["strip-hook"]
    from cargo_strip_hook.core.target import Target

    manifest = tmp_path / "Cargo.toml"
    found = settings.load_settings(
        settings.SettingsTable(table, "package.metadata.strip-hook", manifest),
        settings.SettingsTable(None, "workspace.metadata.strip-hook", manifest),
        Target.parse("x86_64-unknown-linux-gnu"),
        lambda: frozenset({("unix", None)}),  # type: ignore[arg-type, return-value]
    )
    public = found.named["export"]
    assert (public, str(found.strip and found.strip.value)) == (("foo_*",), "symbols")


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", text("troubleshooting.md"), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_each_class_of_errors_has_a_section_and_each_section_a_class() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.StripHookError)
    }
    assert {name for name in sections() if name.endswith("Error")} == classes


# What makes an `ObjectError` in the readers, and which of what it is given may be the message.
FAILING = {"fail": slice(0, 2), "bad_section": slice(2, 3)}  # "fail" may have a file's number first


@cache
def said_by(kind: str) -> list[str]:
    """The constant parts of what is raised as an error of a class, `\\0` where something varies."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and call.args):
                continue
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name == kind:
                found += [_constant(part) for part in ast.walk(call.args[0])]
            elif kind == "ObjectError" and name in FAILING and file.is_relative_to(FORMATS):
                given = call.args[FAILING[name]]
                found += [_constant(part) for one in given for part in ast.walk(one)]
    return [part for part in found if part]


def _constant(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_constant(part) or "\0" for part in node.values)
    return ""


# decided before it is raised, or said by a function that others call
ELSEWHERE = {
    "declared but not defined in the archive",
    "C++ functions of the header that the library defines are no C symbols",
    "more than the",
    "not found, so that what it defines is not known",
    "more than before:",
    "this is a folder, not a library",
    "this is a framework, a folder",
    ", not an archive",
    "of this kind are not supported",
}


def test_each_documented_message_is_in_the_source() -> None:
    checked = 0
    for kind, body in sections().items():
        if not kind.endswith("Error"):
            continue
        rows = re.findall(r"^\| `(.*?)` \| (.+) \|$", body, re.M)
        assert rows, kind
        for message, advice in rows:
            assert advice
            pieces = [p.strip() for p in message.split("…") if p.strip()]
            assert pieces, message
            place = said_by(kind)
            whole = re.compile(".*".join(re.escape(piece) for piece in pieces), re.S)
            known = any(whole.search(said.replace("`", "")) for said in place)
            if not known:  # what is decided before it is raised
                known = any(piece in ELSEWHERE for piece in pieces) and all(
                    any(piece in f.read_text() for f in PACKAGE.rglob("*.py")) for piece in pieces
                )
            assert known, f"no {kind} says `{message}`"
            checked += 1
    assert checked > 45


def test_numbers_of_the_comparison_are_those_that_were_measured() -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*\| [\d–].*$", text("alternatives.md"), re.M)
    numbers = re.findall(r"\d+\.\d+ (?:MB|s)\b", "\n".join(rows))
    assert len(numbers) >= 7
    assert "23.1 MB" in text("alternatives.md")
    for contender in ("cargo-strip-hook", "GNU ld + objcopy", "armerge"):
        (row,) = (r for r in rows if r.startswith(f"| {contender} |"))
        removed, kept, time = (c.strip() for c in row.split("|")[2:5])
        table = readme.partition("imagequant-sys, release (23.1 MB)")[2]
        table = table.partition("imagequant-sys, dev")[0]
        for state, size in (("removed", removed), ("kept", kept)):
            if size != "–":
                assert f"{contender} | {state} | {size} " in table
        assert f" {time} |" in table


def test_the_picture_is_sound() -> None:
    root = ET.parse(DOCS / "images" / "pipeline.svg").getroot()
    assert "href" not in ET.tostring(root, encoding="unicode")
    space = "{http://www.w3.org/2000/svg}"
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    for box in root.iter(f"{space}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height
    said = {str(t.text) for t in root.iter(f"{space}text")}
    assert {"ELF", "Mach-O", "COFF", "Verify"} <= said


def test_the_page_of_the_python_api_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first block of code, on the library of the demonstration."""
    shutil.copy(demo.library(), tmp_path / "libdemo.a")
    shutil.copy(demo.CRATE / "demo.h", tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"```python\n(.*?)```", text("python.md"), re.S)[0]
    exec(compile(block, "python.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ bytes before, \d+ after", said[0])
    assert said[1].startswith("error: --export names symbols that the archive does not define")
    assert len(said) == 3 or said[2].startswith("  no_such")
