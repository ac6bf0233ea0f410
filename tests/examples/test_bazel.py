"""The Bazel rule: built, linked and run; then taken from a cache in another checkout."""

from __future__ import annotations

from pathlib import Path

from tests.examples.kit import REPOSITORY, Example, assert_public, example, need_heavy
from tests.examples.test_build_files import THREE
from tests.tools import need

LIBRARIES = ("luhn", "roman", "rot13")


def _settings(here: Example, folder: Path, cache: Path) -> dict[str, str]:
    """No server that stays, outputs of its own, and a cache that several checkouts share."""
    (here.folder / ".bazelrc").write_text(
        f"startup --batch --output_user_root={folder}/bazel\n"
        f"build --disk_cache={cache} --color=no --curses=no\n"
    )
    return {"STRIP_HOOK_REQUIREMENT": str(REPOSITORY)}


def test_bazel(tmp_path: Path) -> None:
    need("cargo-cbuild")
    need_heavy("bazel")
    first = example("bazel", tmp_path / "first")
    said = first.follow(_settings(first, tmp_path / "first", tmp_path / "cache"))
    assert THREE in said
    assert "cache hit" not in said
    for name in LIBRARIES:
        library = first.folder / f"bazel-bin/stripped/lib{name}.a"
        assert_public(library, first.folder / f"libs/{name}.h")

    # Another folder, another installation of the tool: nothing but the inputs names the action.
    second = example("bazel", tmp_path / "second")
    env = _settings(second, tmp_path / "second", tmp_path / "cache")
    second.sh(f"cp -r {first.folder}/libs libs")
    assert "3 remote cache hit" in second.sh("bazel build //:fleet", env)
    for name in LIBRARIES:
        path = f"bazel-bin/stripped/lib{name}.a"
        assert (second.folder / path).read_bytes() == (first.folder / path).read_bytes()

    # A change of one header is one action anew.
    header = second.folder / "libs/rot13.h"
    header.write_text(header.read_text() + "/* the end */\n")
    assert "2 remote cache hit" in second.sh("bazel clean && bazel build //:fleet", env)
