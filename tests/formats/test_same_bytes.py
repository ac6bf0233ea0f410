"""That ``tests.same_bytes`` sees what differs, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import same_bytes
from tests.campaigns.same_inputs import Job, Run, strip
from tests.formats.native_kit import tool
from tests.same_bytes import PACKAGE, ROOT
from tests.tools import need

SOURCE = """
struct Base { virtual int value() { return 1; } virtual ~Base() {} };
extern "C" Base api_one(int n) { if (n) throw n; return Base(); }
extern "C" void __gxx_personality_v0() {}
"""


def one_library(folder: Path, _: bool) -> Iterator[Job]:
    """A result with a warning, damaged copies of it, a refusal and what looks at the library."""
    (folder / "a.cc").write_text(SOURCE)
    clang = need("clang-22", "clang")
    flags = ("--target=x86_64-linux-gnu", "-O1", "-w", "-g", "-ffunction-sections", "-fexceptions")
    tool([clang, *flags, "-c", folder / "a.cc", "-o", folder / "a.o"])
    library = folder / "lib.a"
    tool([need("llvm-ar-22", "llvm-ar"), "rcsD", library, folder / "a.o"])
    public = ("--export", "api_one")
    runs = (
        strip("lib.a", 3, public, damaged=20),
        Run(("strip", "lib.a", "--export", "api_two")),
        Run(("check", "lib.a", "--message-format", "json", *public)),
    )
    yield Job("one/library", "elf", "compiled", (("lib.a", library),), runs)


@pytest.fixture(autouse=True)
def only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_bytes, "MAKERS", {"one": one_library})


def planted(folder: Path, old: str, new: str) -> Path:
    """A copy of the package in which a text stands for another, wherever that is."""
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    changed = 0
    for file in (folder / PACKAGE).rglob("*.py"):
        text = file.read_text()
        if old in text:
            file.write_text(text.replace(old, new))
            changed += 1
    assert changed, f"nothing says {old} any more: plant something else"
    return folder


def test_a_version_is_like_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert same_bytes.main([str(ROOT)]) == 0
    said = capsys.readouterr().out
    assert " 0 differences" in said
    # the library and the result, three command lines and twenty damaged copies
    assert "25 comparisons" in said


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        ('b"644"', 'b"640"', {"bytes"}),
        ("become local ", "turn local ", {"strip"}),
        ("other bytes", "wrong bytes", {"findings"}),
        ("names symbols that", "says names that", {"refused"}),
        ("bytes of debug information", "bytes of DWARF", {"check"}),
    ],
)
def test_what_differs_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, kinds: set[str]
) -> None:
    copy = planted(tmp_path, old, new)
    assert same_bytes.main([str(ROOT), "--now", str(copy)]) == int(bool(kinds))
    said = capsys.readouterr().out
    found = {line.split(": ")[1] for line in said.splitlines() if line.startswith("one/library: ")}
    assert found == kinds
    if kinds:
        assert f"python -m tests.same_bytes {ROOT} --only 'one/library' --keep DIR" in said


def test_a_revision_that_git_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no package of `no-such-revision`"):
        same_bytes.main(["no-such-revision", "--keep", str(tmp_path / "kept")])
