"""The page of `report --html`, in a browser: what is drawn, sorted, said and loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cargo_strip_hook
from cargo_strip_hook.analysis.sizes import Sizes
from tests.fixtures import library
from tests.formats.browser import Page, browser
from tests.formats.native_kit import archive, build, tool

MAPS = "[...document.querySelectorAll('svg.map')].filter(m => m.getBoundingClientRect().width)"
# The first column of the table with such a heading, and the state of its headings.
COLUMN = """(title, n) => {
  const heads = [...document.querySelectorAll("h2")];
  const table = heads.find(h => h.textContent === title).nextElementSibling.firstChild;
  return [[...table.tBodies[0].rows].map(r => r.cells[n].textContent),
          [...table.tHead.rows[0].cells].map(c => c.getAttribute("aria-sort"))];
}"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sizes]:
    """A page of a real library, and the sizes it is of."""
    built = library("imagequant-sys", "release")
    assert built.header is not None
    file = tmp_path_factory.mktemp("page") / "page with space.html"
    program = [sys.executable, "-m", "cargo_strip_hook", "report", built.library]
    tool([*program, "--html", file, "--header", built.header])
    return file, cargo_strip_hook.report(built.library)[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def shown(page: Page, written: tuple[Path, Sizes]) -> Page:
    """The page, as it is when it was just opened."""
    page.size(1440, 900)
    page.open(written[0])
    return page


def test_nothing_is_loaded_and_nothing_complains(shown: Page, written: tuple[Path, Sizes]) -> None:
    text = written[0].read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    shown.requests.clear()
    shown.log.clear()
    shown.open(written[0])
    shown.click("th button")
    assert shown.requests == [written[0].as_uri()]
    assert shown.log == []
    # the page's own policy refuses what would be loaded; this also shows that refusals are seen
    shown.run("new Image().src = 'https://example.invalid/x.png'; 0")
    shown.run("new Promise(done => setTimeout(done, 100))")
    shown.call("Runtime.evaluate", expression="0")
    assert any("Content Security Policy" in line for line in shown.log)


@pytest.mark.parametrize("width", [390, 1440])
def test_the_treemap_is_drawn_in_proportion(
    shown: Page, written: tuple[Path, Sizes], width: int
) -> None:
    shown.size(width, 900)
    sizes = written[1]
    assert shown.run(f"{MAPS}.length") == 1
    boxes = shown.run(
        f"[...{MAPS}[0].querySelectorAll('g')].map(g => ["
        " g.getAttribute('aria-label').split(':')[0], Number(g.dataset.size),"
        " [...g.querySelectorAll('.leaf')].map(r => {"
        " const b = r.getBBox(); return [b.width * b.height, Number(r.dataset.size),"
        " getComputedStyle(r).fill]; })])"
    )
    assert {name: size for name, size, _ in boxes} == {c.name: c.size for c in sizes.crates}
    leaves = [leaf for _, _, found in boxes for leaf in found]
    total = sum(sizes.loaded.values())
    assert sum(size for _, size, _ in leaves) == total
    drawn = shown.run(f"(b => b.width * b.height)({MAPS}[0].viewBox.baseVal)")
    assert sum(area for area, _, _ in leaves) == pytest.approx(drawn, rel=1e-3)
    for area, size, color in leaves:
        assert area == pytest.approx(drawn * size / total, rel=0.02, abs=0.2)
        assert color.startswith("rgb(")
    assert len({color for _, _, color in leaves}) == len([n for n in sizes.loaded.values() if n])


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(shown: Page, width: int, dark: bool) -> None:
    shown.size(width, 900, dark=dark)
    assert shown.run("document.documentElement.scrollWidth") <= width
    # every heading and table is inside of the window, also what scrolls on its own
    outside = "[...document.querySelectorAll('h1,h2,.scroll,svg,output')].filter(e => {"
    outside += " const r = e.getBoundingClientRect(); return r.left < 0 || r.right > innerWidth })"
    assert shown.run(f"{outside}.length") == 0
    for text, back in (
        ("body", "body"),
        (".map text", ".leaf.code"),
        (".map text", ".leaf.unwind"),
    ):
        script = "(s => getComputedStyle(document.querySelector(s)))"
        front = "fill" if text != "body" else "color"
        behind = "fill" if back != "body" else "backgroundColor"
        colors = shown.run(f"[{script}('{text}').{front}, {script}('{back}').{behind}]")
        assert _contrast(*colors) >= 4.5, (text, back, colors)


def _contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2, "contrast ratio")."""

    def light(color: str) -> float:
        parts = [int(c) / 255 for c in color.removeprefix("rgb(").rstrip(")").split(",")]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dim, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dim + 0.05)


def test_tables_sort_by_click_and_by_keyboard(shown: Page, written: tuple[Path, Sizes]) -> None:
    title = "By crate, in a program"
    names, states = shown.run(f"({COLUMN})('{title}', 0)")
    assert names == [c.name for c in written[1].crates]
    assert set(states) == {"none"}
    at = "h2 + .scroll table[data-x] th"
    shown.run(
        f"[...document.querySelectorAll('h2')].find(h => h.textContent === '{title}')"
        ".nextElementSibling.firstChild.dataset.x = 1; 0"
    )
    shown.click(f"{at}:nth-child(1) button")
    names, states = shown.run(f"({COLUMN})('{title}', 0)")
    assert states[0] == "ascending" and set(states[1:]) == {"none"}
    letters = [n.lower() for n in names if n[0].isalpha() and "_" not in n]
    assert letters == sorted(letters)
    # the second heading by keyboard: numbers begin with the largest, and turn
    shown.press("Tab")
    assert shown.run("document.activeElement.textContent") == "code"
    for key, state in (("Enter", "descending"), (" ", "ascending")):
        shown.press(key)
        texts, states = shown.run(f"({COLUMN})('{title}', 1)")
        code = [int(t.replace(",", "")) for t in texts]
        assert (states[0], states[1]) == ("none", state)
        assert code == sorted(code, reverse=state == "descending")
        assert code[0] != code[-1]


def test_the_map_by_keyboard(shown: Page, written: tuple[Path, Sizes]) -> None:
    """One stop of the Tab key; arrows go from crate to crate, and what it is is said."""
    crates = written[1].crates
    said = "document.querySelector('output').textContent"
    shown.press("Tab")
    assert shown.run(said).startswith(f"{crates[0].name}: ")
    shown.press("ArrowRight")
    assert shown.run(said).startswith(f"{crates[1].name}: ")
    shown.press("End")
    assert shown.run(said).startswith(f"{crates[-1].name}: ")
    shown.press("Tab")
    assert shown.run("document.activeElement.closest('svg') === null")
    roles = shown.run(
        "[...document.querySelectorAll('svg.map.wide, svg.map.wide g')].map(e => e.role)"
    )
    assert roles == ["list", *["listitem"] * len(crates)]


def test_exports_and_where_they_come_from(shown: Page) -> None:
    names, _ = shown.run(f"({COLUMN})('Exports', 0)")
    origins, _ = shown.run(f"({COLUMN})('Exports', 1)")
    assert "liq_attr_create" in names and len(names) > 40
    assert all(origin.startswith("header ") and ".h:" in origin for origin in origins)


def test_a_page_of_what_changed(page: Page, tmp_path: Path) -> None:
    one = archive(tmp_path / "a.a", build(tmp_path / "one", {"a.c": "int f(void) { return 1; }"}))
    source = {"a.c": "int f(void) { return 1; } int x[50] = {1}; // <b>"}
    two = archive(tmp_path / "b<i>.a", build(tmp_path / "two", source))
    file = tmp_path / "page.html"
    program = [sys.executable, "-m", "cargo_strip_hook", "report", one, two]
    said = tool([*program, "--html", file, "--export", "f"])
    assert "Wrote" in said
    page.open(file)
    assert "b<i>.a" in page.run("document.querySelector('h1').textContent")
    names, _ = page.run(f"({COLUMN})('By kind, in the file', 0)")
    changes, _ = page.run(f"({COLUMN})('By kind, in the file', 3)")
    assert dict(zip(names, changes, strict=True))["data"] == "+200"
    # no public symbols can be told: the page is without them, and says so
    said = tool([*program, "--html", file, "--export", "nothing_*"])
    assert "warning: the page has no public symbols" in said
    assert "--markdown and --html" in tool([*program, "--html", file, "--markdown"], accept=[2])
