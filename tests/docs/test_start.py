"""The page for newcomers: its commands, in their order, as they stand there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tests.examples import kit
from tests.tools import need

PAGE = (kit.REPOSITORY / "docs" / "start.md").read_text(encoding="utf-8")


def blocks() -> dict[str, list[str]]:
    """The shell code below each heading."""
    parts = re.split(r"^## (.*)$", PAGE, flags=re.M)[1:]
    headings = zip(parts[::2], parts[1::2], strict=True)
    return {name: re.findall(r"```sh\n(.*?)```", body, re.S) for name, body in headings}


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    for tool in ("cargo", "cargo-cbuild", "cc", "pkg-config", "bash"):
        need(tool)
    found = blocks()
    assert list(found) == ["Install", "Strip a library", "With cargo-c", "Your own crate"]
    # all but how it is installed, for which the program stands on PATH here
    install, version = found["Install"]
    assert "pip install ." in install
    script = "\n".join([version, *found["Strip a library"], *found["With cargo-c"]])
    assert script.count("demo-program") == 2

    demo = kit.example("demo", tmp_path)
    said = dataclasses.replace(demo, folder=tmp_path).sh(script)
    # by both programs
    assert said.count(kit.WORDS) == 2, said
    for line in re.findall(r"```text\n(.*?)```", PAGE, re.S)[0].splitlines():
        assert line.partition("…")[0] in said
    built = tmp_path / "build"
    assert (built / "libdemo.a").stat().st_size * 10 < (
        built / "demo/release/libdemo.a"
    ).stat().st_size
