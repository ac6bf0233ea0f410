"""Whatever fails: the library is the old one or the new one, whole, and the next run cleans up."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ReplaceError
from tests.formats.faults import OPERATIONS, Step, strip, watched
from tests.formats.prelinked import A_C, B_CC, Tools, compile_sources, run
from tests.tools import need

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")
TRIPLE = "x86_64-unknown-linux-gnu"
EXPORTS = ("api_add", "api_say", "api_try")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    # large enough that contents are written in several pieces
    big = "const char big[100000] = {1}; const char *touch(void) { return big; }"
    sources = {"a.c": A_C, "b.cc": B_CC, "big.c": big}
    objects = compile_sources(folder, sources, Tools())
    path = folder / "original.a"
    run(need("ar"), "rcDs", path, *objects)
    return path


@pytest.fixture
def library(original: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    path = folder / "libdemo.a"
    path.write_bytes(original.read_bytes())
    return path


@pytest.fixture(scope="module")
def expected(original: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("expected") / "libdemo.a"
    path.write_bytes(original.read_bytes())
    strip(path, TRIPLE, (*EXPORTS, "touch"))
    return path.read_bytes()


def again(library: Path, expected: bytes) -> None:
    """The next run does the work, and leaves one file."""
    strip(library, TRIPLE, (*EXPORTS, "touch"))
    assert library.read_bytes() == expected
    assert [p.name for p in library.parent.iterdir()] == [library.name]


def fail_at(wanted: str, number: int, code: int) -> tuple[Step, list[int]]:
    """A step that fails the `number`th time that `wanted` comes up, and where that was."""
    seen: list[int] = []

    def step(name: str, offset: int) -> None:
        if name == wanted:
            seen.append(offset)
            if len(seen) == number + 1:
                raise OSError(code, os.strerror(code))

    return step, seen


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=["io", "full", "ro"])
@pytest.mark.parametrize("operation", [*OPERATIONS, "open", "flush"])
def test_each_operation_fails(
    library: Path, original: Path, expected: bytes, operation: str, code: int
) -> None:
    fired = 0
    for number in range(20):
        library.write_bytes(original.read_bytes())
        step, seen = fail_at(operation, number, code)
        try:
            with watched(step):
                strip(library, TRIPLE, (*EXPORTS, "touch"))
        except ReplaceError as e:
            assert os.strerror(code) in e.what
            assert library.read_bytes() == original.read_bytes()
        else:
            # only what comes after the renaming, or before anything, may fail in silence
            assert library.read_bytes() == expected
            assert len(seen) <= number or operation in ("sync_folder", "remove")
        if len(seen) <= number:
            break
        fired += 1
    assert fired
    library.write_bytes(original.read_bytes())
    again(library, expected)


def test_each_write_fails(library: Path, original: Path, expected: bytes) -> None:
    offsets = []
    for number in range(1000):
        step, seen = fail_at("write", number, errno.ENOSPC)
        try:
            with watched(step):
                strip(library, TRIPLE, (*EXPORTS, "touch"))
        except ReplaceError as e:
            assert e.help == ("the disk is full",)
            offsets.append(seen[-1])
            assert library.read_bytes() == original.read_bytes()
            assert [p.name for p in library.parent.iterdir()] == [library.name]
        else:
            break
    assert library.read_bytes() == expected
    # the archive's magic, its index, the object's contents in several pieces
    assert offsets[0] == 0
    assert len(offsets) >= 8
    assert max(offsets) > 100_000


def test_keyboard_interrupt(library: Path, original: Path, expected: bytes) -> None:
    def step(name: str, offset: int) -> None:
        if name == "write" and offset > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched(step):
        strip(library, TRIPLE, (*EXPORTS, "touch"))
    assert library.read_bytes() == original.read_bytes()
    assert [p.name for p in library.parent.iterdir()] == [library.name]
    again(library, expected)


def test_killed_before_each_step(original: Path, expected: bytes) -> None:
    argv = [sys.executable, "-W", "ignore", "-m", "tests.formats.faults"]
    argv += [str(original), TRIPLE, *EXPORTS, "touch"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [line[0] for line in lines]
    assert set(steps) >= {"create", "open", "write", "flush", "sync", "rename", "sync_folder", ""}
    renamed = steps.index("rename")
    for i, (step, state, names, after, good) in enumerate(lines):
        assert state == ("old" if i <= renamed else "new"), (i, step)
        assert set(names) <= {"libcopy.a", ".libcopy.a.strip-hook"}
        assert after == ["libcopy.a"]
        assert good, (i, step)
    # the check above means something: some runs did leave litter
    assert any(len(names) == 2 for _, _, names, _, _ in lines)
    assert expected


LIMITED = """
import resource, sys
from pathlib import Path
from cargo_strip_hook.core.errors import ReplaceError
from tests.formats.faults import strip
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    strip(Path(sys.argv[1]), sys.argv[3], tuple(sys.argv[4:]))
except ReplaceError as e:
    print(e.what, e.help)
    sys.exit(7)
"""


@pytest.mark.parametrize("room", [0, 1, 30, 100, 1000, 50_000, -1])
def test_file_size_limit(library: Path, original: Path, expected: bytes, room: int) -> None:
    """The system's own refusal to write more, whatever buffers there are. -1: one byte short."""
    limit = len(expected) - 1 if room < 0 else room
    argv = [sys.executable, "-c", LIMITED, str(library), str(limit), TRIPLE, *EXPORTS, "touch"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "File too large" in done.stdout
    assert "ulimit -f" in done.stdout
    assert library.read_bytes() == original.read_bytes()
    assert [p.name for p in library.parent.iterdir()] == [library.name]
    again(library, expected)


@pytest.fixture
def small_disk(original: Path) -> Iterator[Path]:
    """A file system of its own with room for the original and a little more."""
    pages = (original.stat().st_size + 40_000) // 4096
    with tempfile.TemporaryDirectory() as name:
        argv = ["mount", "-t", "tmpfs", "-o", f"size={pages * 4}k", "tmpfs", name]
        try:
            done = subprocess.run(argv, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("mount is not installed")
        if done.returncode:
            pytest.skip("this user cannot mount a tmpfs")
        try:
            yield Path(name)
        finally:
            run("umount", "-l", name)


def test_disk_full(small_disk: Path, original: Path) -> None:
    library = small_disk / "libdemo.a"
    library.write_bytes(original.read_bytes())
    with pytest.raises(ReplaceError, match="No space left") as caught:
        strip(library, TRIPLE, (*EXPORTS, "touch"))
    assert caught.value.help == ("the disk is full",)
    assert library.read_bytes() == original.read_bytes()
    assert [p.name for p in small_disk.iterdir()] == ["libdemo.a"]


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from cargo_strip_hook.core.errors import ReplaceError
from tests.formats.faults import strip
# everything is imported before the rights go: the interpreter may be in a private folder
strip(Path(sys.argv[1]), sys.argv[3], tuple(sys.argv[4:]), Path(os.environ["TMPDIR"], "first.a"))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
output = Path(sys.argv[2]) if sys.argv[2] else None
try:
    strip(Path(sys.argv[1]), sys.argv[3], tuple(sys.argv[4:]), output)
except ReplaceError as e:
    print(e.what, e.help)
    sys.exit(7)
"""


def test_read_only_folder(original: Path, expected: bytes) -> None:
    """Permissions do not bind root, so the run is made by another user."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        folder, free = base / "lib", base / "out"
        folder.mkdir()
        free.mkdir()
        free.chmod(0o777)
        library = folder / "libdemo.a"
        library.write_bytes(original.read_bytes())
        library.chmod(0o644)
        folder.chmod(0o555)

        def attempt(output: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-c", UNPRIVILEGED, str(library), output, TRIPLE, *EXPORTS]
            return subprocess.run(
                [*argv, "touch"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "TMPDIR": str(free)},
            )

        done = attempt("")
        assert done.returncode == 7, done.stderr
        assert "Permission denied" in done.stdout
        assert "--output" in done.stdout
        assert library.read_bytes() == original.read_bytes()
        assert [p.name for p in folder.iterdir()] == ["libdemo.a"]
        done = attempt(str(free / "libdemo.a"))
        assert done.returncode == 0, done.stderr
        assert (free / "libdemo.a").read_bytes() == expected
        folder.chmod(0o755)
