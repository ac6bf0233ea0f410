"""The commands as functions: the same results, and the same failures, without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cargo_strip_hook
from cargo_strip_hook.core.errors import (
    DiscoveryError,
    LinkError,
    StripHookError,
    UsageError,
    VerifyError,
)
from tests.formats.native_kit import archive, build, tool

SOURCES = {
    "a.c": "int inner(void); int shown(void) { return inner(); }",
    "b.c": "int inner(void) { return 42; } int unused(void) { return 7; }",
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    objects = build(tmp_path, SOURCES, "-ffunction-sections", "-g")
    return archive(tmp_path / "libab.a", objects)


def test_strip_is_the_command(library: Path, capfd: pytest.CaptureFixture[str]) -> None:
    by_function, by_command = library.with_name("f.a"), library.with_name("c.a")
    outcome = cargo_strip_hook.strip(library, output=by_function, exports="shown", strip="symbols")
    assert capfd.readouterr() == ("", "")
    words = ["-m", "cargo_strip_hook", "strip", library, "--export", "shown", "--strip", "symbols"]
    tool([sys.executable, *words, "-o", by_command])
    # the object is named after the library that was stripped
    assert by_function.read_bytes() == by_command.read_bytes()
    assert (outcome.before, outcome.after) == (library.stat().st_size, by_function.stat().st_size)
    assert [e.name for e in outcome.exports.exports] == ["shown"]


def test_headers_and_a_program(library: Path, tmp_path: Path) -> None:
    header = tmp_path / "ab.h"
    header.write_text("int shown(void);\n")
    assert not cargo_strip_hook.strip(str(library), headers=str(header)).fresh
    assert cargo_strip_hook.strip(library, headers=[header]).fresh
    main = tmp_path / "main.c"
    main.write_text("int shown(void); int main(void) { return shown() != 42; }")
    tool(["gcc", "-o", tmp_path / "main", main, library])
    tool([tmp_path / "main"])


def set_of_two(folder: Path) -> list[Path]:
    """Two libraries with a function in common; what `odd` needs nobody has."""
    inner = "int n; int inner(void) { return ++n; }"
    text = "int inner(void); int %s(void) { return inner() + %d; }"
    odd = "int missing(void); int odd(void) { return missing(); }"
    sources = {
        "one": {"inner.c": inner, "one.c": text % ("one", 1)},
        "two": {"inner.c": inner, "two.c": text % ("two", 2), "odd.c": odd},
    }
    made = []
    for name, source in sources.items():
        (folder / name).mkdir()
        objects = build(folder / name, source, "-ffunction-sections", "-fdata-sections", "-O1")
        made.append(archive(folder / f"lib{name}.a", objects))
    return made


def test_share_and_join_are_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    libraries = set_of_two(tmp_path)
    both = ("one", "two")
    common = tmp_path / "libcommon.a"
    would = cargo_strip_hook.share(libraries, common=common, exports=both, dry_run=True)
    assert not common.exists()
    for part in would.parts:
        assert part.parts is not None
        assert [others for others, _ in part.parts.shared] == [1]
        assert {kept.reason for kept in part.parts.kept} == {"public, or refers to what is public"}
    joined = tmp_path / "libjoined.a"
    outcome = cargo_strip_hook.join(libraries, output=str(joined), exports=both, strip="symbols")
    assert outcome.common == joined.stat().st_size
    assert sorted(name for part in outcome.parts for name in part.exports) == ["one", "two"]
    made = cargo_strip_hook.share(libraries, common=common, exports=both, link_check=True)
    assert (made.fresh, made.common) == (False, common.stat().st_size)
    assert [part.after for part in made.parts] == [p.stat().st_size for p in libraries]
    assert cargo_strip_hook.share(libraries, common=common, exports=both).fresh
    assert capfd.readouterr() == ("", "")
    main = tmp_path / "main.c"
    # one counter of both: 1 + 1, 2 + 2
    main.write_text("int one(void), two(void); int main(void) { return one() * 10 + two() - 24; }")
    for number, inputs in enumerate(([*libraries, common], [joined])):
        tool(["gcc", "-o", tmp_path / f"main{number}", main, *inputs])
        tool([tmp_path / f"main{number}"])
    with pytest.raises(UsageError, match="nothing to share with"):
        cargo_strip_hook.share([joined], common=common)


def test_a_set_that_does_not_link_is_left_alone(tmp_path: Path) -> None:
    libraries = set_of_two(tmp_path)
    before = {p: p.read_bytes() for p in libraries}
    names = ("one", "two", "odd")
    common = tmp_path / "libcommon.a"
    with pytest.raises(VerifyError) as caught:
        cargo_strip_hook.share(libraries, common=common, exports=names, link_check=True)
    assert caught.value.findings == ("undefined: missing",)
    with pytest.raises(VerifyError, match="does not link"):
        cargo_strip_hook.join(libraries, output=common, exports=names, link_check=True)
    assert not common.exists()
    assert {p: p.read_bytes() for p in libraries} == before
    support = archive(
        tmp_path / "libsupport.a", build(tmp_path, {"s.c": "int missing(void) { return 1; }"})
    )
    cargo_strip_hook.share(
        libraries, common=common, exports=names, link_check=True, link_args=str(support)
    )


def test_check(library: Path, tmp_path: Path) -> None:
    [found] = cargo_strip_hook.check(library, exports=["shown"])
    assert {f.kind for f in found.findings} >= {"leaked", "debug-info", "members"}
    other = archive(tmp_path / "libother.a", [tmp_path / "a.o"])
    cargo_strip_hook.strip(library, exports=["shown"])
    [found] = cargo_strip_hook.check(library)  # it says itself what is public
    assert not found.findings
    [found] = cargo_strip_hook.check(library, against=other)
    assert [(f.kind, f.symbols) for f in found.findings] == [("collision", ("shown",))]


def test_failures_leave_the_library(library: Path) -> None:
    before = library.read_bytes()
    with pytest.raises(StripHookError, match="nothing"):
        cargo_strip_hook.strip(library, exports="nothing_like_it")
    with pytest.raises(UsageError, match="granularity is `fine`"):
        cargo_strip_hook.strip(library, exports="shown", granularity="fine")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="steam"):
        cargo_strip_hook.strip(library, exports="shown", engine="steam")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="header"):
        cargo_strip_hook.strip(library, header="ab.h")  # type: ignore[call-arg]
    with pytest.raises(DiscoveryError):
        cargo_strip_hook.strip(library.with_name("none.a"))
    twice = archive(library.with_name("twice.a"), [library.with_name("b.o")] * 2)
    assert issubclass(LinkError, cargo_strip_hook.StripHookError)
    assert cargo_strip_hook.check(twice, exports="inner")
    assert library.read_bytes() == before


def test_importing_costs_nothing() -> None:
    script = (
        "import sys, cargo_strip_hook as c\n"
        "loaded = [m for m in sys.modules if m.startswith('cargo_strip_hook.') or m == 'numpy']\n"
        "assert loaded == [], loaded\n"
        "assert {'strip', 'check'} <= set(dir(c))\n"
        "from cargo_strip_hook import strip, check\n"
        "assert 'numpy' not in sys.modules\n"
        # a room of the same name would take a function's place once it is imported
        "import pkgutil, importlib\n"
        "names = [m.name for m in pkgutil.walk_packages(c.__path__, 'cargo_strip_hook.')]\n"
        "[importlib.import_module(n) for n in names if not n.endswith('__main__')]\n"
        "assert c.strip is strip and c.check is check\n"
        "try: c.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('an attribute that is not there')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
