"""How a run ends when something from outside ends it: what is said, what is left, who goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaigns import kills
from tests.formats import universal_kit as fat
from tests.formats.native_kit import tool
from tests.tools import need

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and signals to its processes")
pytestmark = linux

# the command line with a change that a test chooses; what it waits for is a file called `go`
CHANGED = """
import mmap, os, sys, time
from pathlib import Path
import cargo_strip_hook.verify, cargo_strip_hook.engines.native as native
import cargo_strip_hook.__main__ as program

def wait(original=None, *_):
    Path(f"here-{os.getpid()}").touch()
    while not Path("go").exists():
        time.sleep(0.01)

def shorten(path):
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(path, 0)
    data[:]

def before(room, name, do):
    really = getattr(room, name)
    def changed(*words, **more):
        do(*words)
        return really(*words, **more)
    setattr(room, name, changed)

if sys.argv[1] == "wait":
    before(cargo_strip_hook.verify, "verify", wait)
elif sys.argv[1] == "wait in the engine":
    before(native.NativeEngine, "prelink", wait)
elif sys.argv[1] == "shorten":
    before(cargo_strip_hook.verify, "verify", lambda original, *_: shorten(original.path))
elif sys.argv[1] == "shorten in the engine":
    before(native.NativeEngine, "prelink", lambda _, asked, *__: shorten(asked.archive.path))
elif sys.argv[1] == "damage in the engine":
    before(native.NativeEngine, "prelink", lambda _, a, *__: os.truncate(a.archive.path, 99))
elif sys.argv[1] == "wait elsewhere":
    import cargo_strip_hook.core.lifetime
    cargo_strip_hook.core.lifetime.dies_with_parent = lambda _: None  # as no other system has it
    before(cargo_strip_hook.verify, "verify", wait)
elif sys.argv[1] == "no processes":
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    os.fork = fork
del sys.argv[1]
program.run()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("made")
    (folder / "a.c").write_text("int api(int a) { return a; }\nint other(int a) { return -a; }\n")
    tool([need("clang-22", "clang"), "-c", folder / "a.c", "-o", folder / "a.o"])
    tool([need("llvm-ar-22", "llvm-ar"), "rcsD", folder / "l.a", folder / "a.o"])
    return (folder / "l.a").read_bytes()


@pytest.fixture
def range_(tmp_path: Path) -> kills.Range:
    return kills.Range(tmp_path / "range")


@pytest.fixture
def place(made: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    for i in range(6):
        (folder / f"l{i}.a").write_bytes(made)
    return folder


def started(
    range_: kills.Range, place: Path, change: str, words: str, ignored: int | None = None
) -> subprocess.Popen[str]:
    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-c", CHANGED, change, *words.split()],
        cwd=place,
        env=range_.environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=prepare,  # noqa: PLW1509
    )


def until(there: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.005)


def waiting(place: Path, number: int = 1) -> list[int]:
    """The processes that wait, when there are so many."""
    until(lambda: len(list(place.glob("here-*"))) >= number)
    return [int(p.name.removeprefix("here-")) for p in place.glob("here-*")]


def ended(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = run.communicate(timeout=60)
    assert not kills._left(run.pid, 2.0)
    assert "Traceback" not in stderr and "internal error" not in stderr
    return run.returncode, stdout, stderr


def names(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir() if not p.name.startswith("here-"))


ONE = "strip l0.a --export api"
ALL = "strip l0.a l1.a l2.a l3.a l4.a l5.a --export api -j 3"
SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


@pytest.mark.parametrize("words", [ONE, ALL], ids=["one", "all"])
@pytest.mark.parametrize("whom", ["parent", "group"])
@pytest.mark.parametrize("number", SAID)
def test_a_signal_ends_it_and_nothing_is_left(
    range_: kills.Range, place: Path, made: bytes, number: signal.Signals, whom: str, words: str
) -> None:
    run = started(range_, place, "wait", words)
    waiting(place, 1 if words == ONE else 3)
    (os.kill if whom == "parent" else os.killpg)(run.pid, number)
    code, _, said = ended(run)
    assert (code, said.splitlines()[-1]) == (128 + number, f"error: {SAID[number]}")
    assert names(place) == [f"l{i}.a" for i in range(6)]
    assert all((place / f"l{i}.a").read_bytes() == made for i in range(6))
    assert not list(range_.temporary.iterdir())


@pytest.mark.parametrize("change", ["wait", "wait in the engine", "wait elsewhere"])
@pytest.mark.parametrize("words", [ONE, ALL], ids=["one", "all"])
def test_nobody_goes_on_after_the_parent_was_killed(
    range_: kills.Range, place: Path, made: bytes, words: str, change: str
) -> None:
    run = started(range_, place, change, words)
    waiting(place, 1 if words == ONE else 3)
    run.kill()
    assert ended(run)[0] == -signal.SIGKILL
    assert all((place / f"l{i}.a").read_bytes() == made for i in range(6))
    again = started(range_, place, "", words)
    assert ended(again)[0] == 0
    assert names(place) == [f"l{i}.a" for i in range(6)]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_so(
    range_: kills.Range, place: Path, made: bytes, number: int
) -> None:
    """As `nohup` has it, and a shell for what runs in the background."""
    run = started(range_, place, "wait", ALL, ignored=number)
    waiting(place, 3)
    os.killpg(run.pid, number)
    (place / "go").touch()
    assert ended(run)[0] == 0
    assert all((place / f"l{i}.a").read_bytes() != made for i in range(6))


# ---- processes that are killed


@pytest.mark.parametrize("depth", [1, 2])
def test_an_engine_that_is_killed_at_once(
    range_: kills.Range, place: Path, made: bytes, depth: int
) -> None:
    """The processes that do the work: the one that is waited for, and the engine's."""
    run = started(range_, place, "", ONE)
    until(lambda: len(kills._session(run.pid)) > depth or run.poll() is not None)
    with contextlib.suppress(IndexError, ProcessLookupError):
        os.kill(kills._session(run.pid)[depth], signal.SIGKILL)
    code, _, said = ended(run)
    assert "the engine's process ended before its work was done" in said
    assert code == 1
    assert (place / "l0.a").read_bytes() == made
    assert ended(started(range_, place, "", ONE))[0] == 0
    assert names(place) == [f"l{i}.a" for i in range(6)]


def test_one_that_is_killed_does_not_keep_the_others(
    range_: kills.Range, place: Path, made: bytes
) -> None:
    run = started(range_, place, "wait", ALL)
    first = waiting(place, 3)[0]
    os.kill(first, signal.SIGKILL)
    (place / "go").touch()
    code, _, said = ended(run)
    assert code == 1
    assert said.count("error: ") == said.count("ended before its work was done") == 1
    assert sum((place / f"l{i}.a").read_bytes() == made for i in range(6)) == 1
    assert [n for n in names(place) if n.startswith(".")] == []


# ---- files that become shorter


@pytest.mark.parametrize("change", ["shorten", "shorten in the engine", "damage in the engine"])
@pytest.mark.parametrize("words", [ONE, ALL], ids=["one", "all"])
def test_a_library_that_becomes_shorter_while_it_is_read(
    range_: kills.Range, place: Path, change: str, words: str
) -> None:
    run = started(range_, place, change, f"{words} --message-format json")
    code, out, said = ended(run)
    assert code == 1
    assert "was changed while it was" in said and "strip again when it is done" in said
    assert json.loads(out.splitlines()[-1]) == {"reason": "finished", "success": False}
    # it is what the other made of it
    size = 99 if change.startswith("damage") else 0
    assert {(place / f"l{i}.a").stat().st_size for i in range(1 if words == ONE else 6)} == {size}


# ---- nothing to be had


@pytest.mark.parametrize("words", [ONE, ALL], ids=["one", "all"])
def test_no_room_for_a_process(range_: kills.Range, place: Path, made: bytes, words: str) -> None:
    assert ended(started(range_, place, "no processes", words))[0] == 0
    assert (place / "l0.a").read_bytes() != made


def limited(range_: kills.Range, place: Path, words: str, room: int) -> tuple[int, str]:
    shell = f"ulimit -v {room}; exec {sys.executable} -m cargo_strip_hook {words}"
    done = subprocess.run(
        ["sh", "-c", shell],
        cwd=place,
        env=range_.environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("room", [30, 45, 60, 75, 90, 105, 120])
def test_little_memory(range_: kills.Range, place: Path, made: bytes, room: int) -> None:
    """In MB of addresses: too few to start a thread, to load numpy, for the work itself."""
    code, said = limited(range_, place, ONE, room * 1000)
    assert "Traceback" not in said and "internal error" not in said
    if code:
        assert code == 1 and "enough memory" in said
        assert (place / "l0.a").read_bytes() == made
    assert names(place) == [f"l{i}.a" for i in range(6)]


@pytest.mark.parametrize(
    "words",
    [
        f"{ONE} --message-format json",
        f"{ALL} --message-format json",
        "strip no.a --message-format json",
        "exports l0.a --export api",
        "exports l0.a --export api --message-format json",
        "check l0.a --export api --message-format json",
        "report l0.a --json",
        "report l0.a --markdown",
        "report l0.a",
        "why l0.a api --export api",
        "completions bash",
        "man",
    ],
)
def test_stdout_is_full(range_: kills.Range, place: Path, words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cargo_strip_hook", *words.split()],
            cwd=place,
            env=range_.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_stderr_is_full(range_: kills.Range, place: Path, made: bytes) -> None:
    words = ONE.replace("strip", "strip -v").split()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cargo_strip_hook", *words],
            cwd=place,
            env=range_.environment,
            stderr=full,
            check=False,
        )
    assert done.returncode == 0
    assert (place / "l0.a").read_bytes() != made


@pytest.mark.parametrize("kind", ["universal", "system", "linked"])
def test_temporary_files_are_beside_the_library(
    range_: kills.Range, place: Path, kind: str
) -> None:
    """A TMPDIR without room is none of our business."""
    words = {"system": f"{ONE} --engine system", "linked": f"{ONE} --link-check"}.get(kind, "")
    if kind == "universal":
        parts = [fat.thin(place / "parts", arch) for arch in fat.kit.ARCHES]
        fat.fat(place / "l0.a", parts)
        words = "strip l0.a --export one_api"
    elif kind == "linked":
        need("cc")
    before = (place / "l0.a").read_bytes()
    room = "import tempfile, os; tempfile.tempdir = '/proc/self/fdinfo'\n"
    run = subprocess.run(
        [sys.executable, "-c", room + CHANGED, "", *words.split()],
        cwd=place,
        env={**range_.environment, "TMPDIR": "/proc/self/fdinfo"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (place / "l0.a").read_bytes() != before
    assert [n for n in names(place) if n.startswith(".")] == []


# ---- any moment


def test_random_moments(tmp_path: Path) -> None:
    """A few of those that `python -m tests.campaigns.kills` tries."""
    done = kills.campaign(tmp_path, 14, seed=11)
    assert not [str(kill) for kill in done if kill.wrong]


IN_A_CALLBACK = """
import os, signal, sys, time, weakref
from cargo_strip_hook.core.lifetime import Terminated, endings_raise

text = "def cb(_):\\n    os.kill(os.getpid(), signal.SIGTERM)\\n    time.sleep(0)\\n"
names = {"os": os, "signal": signal, "time": time}
exec(compile(text, "<frozen importlib._bootstrap>", "exec"), names)
class Lock: pass
lock = Lock()
reference = weakref.ref(lock, names["cb"])
try:
    with endings_raise():
        del lock  # what a callback raises is ignored
        time.sleep(5)
except Terminated as e:
    sys.exit(e.number)
"""


def test_a_signal_is_not_lost_where_exceptions_are() -> None:
    """Python's imports have such places: functions that are called when a lock is let go."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (signal.SIGTERM, "")
    assert time.monotonic() - began < 4


BEFORE_ITS_WORK = """
import os, signal, sys, time
from cargo_strip_hook.core.lifetime import endings_raise

with endings_raise():
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)  # as a group's, before a program is run in it
        time.sleep(5)
    status = os.waitpid(child, 0)[1]
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_child_that_has_not_begun_ends_silently() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_ITS_WORK], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
