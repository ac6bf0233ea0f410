"""Debug information that rustc split off: the result finds it, and the user is told of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import fixtures
from tests.consumers.toolbox import command, run
from tests.tools import need

MANIFEST = """
[package]
name = "splitty"
version = "0.1.0"
edition = "2021"
[lib]
crate-type = ["staticlib"]
[workspace]
"""
SOURCES = {
    "lib.rs": """
mod part;
#[no_mangle]
pub extern "C" fn splitty_sum(count: u32) -> u32 {
    let mut total = 0;
    for i in 0..count {
        total += part::step(i);
    }
    total
}
#[no_mangle]
pub extern "C" fn splitty_dead(n: u32) -> u32 {
    part::dead(n)
}
""",
    "part.rs": """
#[inline(always)]
fn inlined(factor: u32) -> u32 {
    factor.wrapping_mul(3)
}
#[inline(never)]
pub fn step(argument: u32) -> u32 {
    inlined(argument) ^ 1
}
#[inline(never)]
pub fn dead(i: u32) -> u32 {
    i / 3
}
""",
}
MAIN = "unsigned splitty_sum(unsigned); int main(void) { return splitty_sum(4) == 0; }\n"
NATIVE = ("-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc")


@dataclass(frozen=True)
class Crate:
    """A crate that cargo built with split debug information."""

    folder: Path
    library: Path

    def link(self, library: Path, name: str) -> Path:
        source, program = self.folder / "main.c", self.folder / name
        source.write_text(MAIN)
        drop = "-Wl,--gc-sections"
        run(need("gcc"), "-g0", source, library, *NATIVE, drop, "-o", program)
        return program

    def strip(self, name: str, *words: str | Path, export: str = "splitty_sum") -> tuple[Path, str]:
        """The result, and what the command said."""
        out = self.folder / name
        done = command("strip", self.library, "--export", export, *words, "-o", out)
        return out, done.stderr


def build(folder: Path, split: str, *config: str) -> Crate:
    (folder / "src").mkdir(parents=True)
    (folder / "Cargo.toml").write_text(MANIFEST)
    for name, text in SOURCES.items():
        (folder / "src" / name).write_text(text)
    words = [
        word
        for c in (f"profile.dev.split-debuginfo='{split}'", *config)
        for word in ("--config", c)
    ]
    target = folder / "target"
    run(
        fixtures.cargo(),
        "build",
        "--offline",
        *words,
        "--target-dir",
        target,
        cwd=folder,
        env={"RUSTUP_TOOLCHAIN": "stable"},
    )
    return Crate(folder, target / "debug" / "libsplitty.a")


@pytest.fixture(scope="module", params=["unpacked", "packed"])
def crate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Crate:
    made = build(tmp_path_factory.mktemp(request.param) / "splitty", request.param)
    # what is said of it rests on where rustc puts the files
    beside = list((made.folder / "target" / "debug" / "deps").glob("*.dwo"))
    assert bool(beside) is (request.param == "unpacked")
    assert ".dwo\n" in run(need("ar"), "t", made.library).stdout
    return made


def put_files(crate: Crate) -> list[Path]:
    """The files, taken out of the original library where they are in it only, as users are told."""
    deps = crate.folder / "target" / "debug" / "deps"
    members = [m for m in run(need("ar"), "t", crate.library).stdout.split() if m.endswith(".dwo")]
    if not list(deps.glob("*.dwo")):
        run(need("ar"), "x", crate.library, *members, cwd=deps)
    return [deps / member for member in members]


def places(program: Path) -> dict[str, str]:
    """Names, files and lines, inlined frames too, of every instruction of the crate's functions."""
    found = {}
    for row in run(need("nm"), "-S", "--defined-only", program).stdout.splitlines():
        words = row.split()
        if len(words) == 4 and "splitty" in words[3]:
            start, size = int(words[0], 16), int(words[1], 16)
            asked = "".join(f"{start + i:#x}\n" for i in range(size))
            tool = need("llvm-symbolizer-22", "llvm-symbolizer")
            name = re.sub(r"17h[0-9a-f]{16}E$", "", words[3])
            found[name] = run(tool, "--obj", program, "--inlines", stdin=asked).stdout
    return found


def debugged(program: Path) -> str:
    words = ["-nx", "-batch", "-ex", "break splitty::part::step", "-ex", "run", "-ex", "info args"]
    words += ["-ex", "up", "-ex", "info locals"]
    return run(need("gdb"), *words, program, exit_code=None).stdout


def test_the_user_is_told_and_debuggers_find_it(crate: Crate) -> None:
    stripped, said = crate.strip("out.a", "--strip", "none")
    found = re.search(
        r"warning: debug information is split off into (\d+) files .*\(`(.*)`\)", said
    )
    assert found, said
    assert "`ar x`" in said and 'split-debuginfo = "off"' in said
    files = put_files(crate)
    assert Path(found[2]) in files
    assert 1 < int(found[1]) <= len(files)

    before, after = crate.link(crate.library, "before"), crate.link(stripped, "after")
    expected, now = places(before), places(after)
    assert {"splitty_sum", "_ZN7splitty4part4step"} <= now.keys()
    assert now == {name: expected[name] for name in now}
    step = now["_ZN7splitty4part4step"]
    assert "splitty::part::inlined" in step and "part.rs:4" in step and "part.rs:8" in step

    answer = debugged(after)
    assert "argument = 0" in answer and "total = 0" in answer
    # all of it in one file, as users are told
    unwind_output = after.with_name("after.dwp")
    run(need("llvm-dwp-22", "llvm-dwp"), "-e", after, "-o", unwind_output)
    hidden = {file: file.with_suffix(".hidden") for file in files}
    for file, other in hidden.items():
        file.rename(other)
    try:
        assert "argument = 0" in debugged(after)
        assert places(after) == now
        unwind_output.unlink()
        assert "argument = 0" not in debugged(after)  # so it was the file that told
    finally:
        for file, other in hidden.items():
            other.rename(file)


def test_only_where_debug_information_is_kept(crate: Crate) -> None:
    _, said = crate.strip("plain.a", "--strip", "debuginfo")
    assert "split off" not in said
    _, said = crate.strip("plain.a", "--strip", "symbols", "--debug-twin", crate.folder / "twin.a")
    assert said.count("is split off into") == 1
    _, said = crate.strip("plain.a", "--strip", "none", "--engine", "system")
    assert said.count("is split off into") == 1


def test_nothing_is_told_of_what_is_whole(tmp_path: Path) -> None:
    whole = build(tmp_path / "splitty", "off")
    for engine in ("native", "system"):
        _, said = whole.strip("out.a", "--strip", "none", "--engine", engine)
        assert "split" not in said.replace("splitty", "")
