"""Runs that are killed at a moment that a seed chooses, and what is left of them.

`python -m tests.campaigns.kills NUMBER [SEED]` kills so many runs and says what came of each.

After each: every library is the old or the new one, whole; the libraries of an xcframework are all
old or all new, but where the run was killed (KILL) just between two renames; no process of the run
is there two seconds later; the next run gives the expected libraries and leaves nothing else,
neither beside them nor in the folder for temporary files.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.formats import universal_kit as fat
from tests.formats.native_kit import tool
from tests.tools import need

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WHOM = ("parent", "child", "group")
# no functions of its own that a linker's default would not keep: enough of them to take a moment
_MANY = "".join(f"int many_{i}(int a) {{ return a * {i} + {i}; }}\n" for i in range(1500))
_CALLS = "int api(int a) { return " + "".join(f"many_{i}(a) + " for i in range(0, 1500, 2)) + "0; }"


@dataclass(frozen=True)
class Case:
    """A folder with libraries, and the command that strips all of them, seen from that folder."""

    name: str
    folder: Path
    words: tuple[str, ...]


@dataclass(frozen=True)
class Known(Case):
    """With what all files are before and after a run, and how long one takes (seconds)."""

    old: dict[str, bytes] = field(default_factory=dict)
    new: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Kill:
    """What was done to a run, and what came of it; `wrong` is what must not be."""

    case: str
    whom: str
    number: int
    exit_code: int
    state: str
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        said = f"{self.case} {self.whom} {name}: {self.state}, exit {self.exit_code}"
        return said + "".join(f"\n    {w}" for w in self.wrong)


def cases(folder: Path) -> list[Case]:
    """One library, by either engine; a universal one; an xcframework; six at a time."""
    source = folder / "many.c"
    folder.mkdir(parents=True, exist_ok=True)
    source.write_text(_MANY + _CALLS)
    made = folder / "many.o"
    tool(
        [
            need("clang-22", "clang"),
            "-c",
            "-g",
            "-O1",
            "-ffunction-sections",
            "-w",
            source,
            "-o",
            made,
        ]
    )
    library = folder / "libmany.a"
    tool([need("llvm-ar-22", "llvm-ar"), "rcsD", library, made])
    found = []

    def add(name: str, words: Sequence[str], files: dict[str, Path]) -> None:
        place = folder / name
        for to, file in files.items():
            fat.copy(file, place / to)
        found.append(Case(name, place, ("strip", *words)))

    one = ("l.a", "--export", "api", "--strip", "none")
    add("single", one, {"l.a": library})
    add("twin", ("l.a", "--export", "api", "--debug-twin", "t.a"), {"l.a": library})
    add("linked", (*one, "--link-check"), {"l.a": library})
    add("system", (*one, "--engine", "system"), {"l.a": library})
    names = [f"l{i}.a" for i in range(6)]
    add("several", (*names, "--export", "api", "-j", "3"), dict.fromkeys(names, library))
    parts = [fat.thin(folder / "parts", arch) for arch in fat.kit.ARCHES]
    both = fat.fat(folder / "libfat.a", parts)
    add("universal", ("f.a", "--export", "one_api"), {"f.a": both})
    fat.xcframework(folder / "xcframework" / "T.xcframework", folder / "work")
    add("xcframework", ("T.xcframework", "-j", "2"), {})
    return found


class Range:
    """Where the runs take place: folders for temporary files and caches of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(ROOT),
            "CARGO_TERM_PROGRESS_WHEN": "never",
        }

    def start(self, words: Sequence[str], place: Path) -> subprocess.Popen[str]:
        """Start a run, as a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "cargo_strip_hook", *words],
            cwd=place,
            env=self.environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            # a shell may have had it ignored for all that it runs in the background
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def know(self, case: Case) -> Known:
        """Find out what a run makes."""
        place = self.folder / "known" / case.name
        shutil.copytree(case.folder, place, symlinks=True)
        old = contents(place)
        begin = time.monotonic()
        with self.start(case.words, place) as run:
            said = run.communicate(timeout=300)[1]
        assert run.returncode == 0, said
        taken = time.monotonic() - begin
        return Known(case.name, case.folder, case.words, old, contents(place), taken)

    def kill(self, case: Known, chance: random.Random) -> Kill:
        """One run, killed at a moment, and the one after it."""
        place = self.folder / "killed"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(case.folder, place, symlinks=True)
        number, whom = chance.choice(SIGNALS), chance.choice(WHOM)
        moment = self._moment(case, place, chance)
        wrong: list[str] = []
        with self.start(case.words, place) as run:
            moment()
            _send(run, whom, number, chance)
            try:
                said = run.communicate(timeout=60)[1]
            except subprocess.TimeoutExpired:
                wrong.append("it did not end within a minute")
                os.killpg(run.pid, signal.SIGKILL)
                said = run.communicate()[1]
        left = _left(run.pid, 2.0)
        wrong += [f"still there: {p}" for p in left]
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        # the interpreter's own words, before there is anything of ours
        starting = said.rstrip().endswith("KeyboardInterrupt") and "/cargo_strip_hook/" not in said
        if (
            ("Traceback" in said and not starting)
            or "internal error" in said
            or "Exception ignored" in said
        ):
            wrong.append(f"it said: {said}")
        if run.returncode not in (0, 1, -number, 128 + number):
            wrong.append(f"exit code {run.returncode}")
        if whom != "child" and run.returncode == 1 and not starting:
            wrong.append(f"it failed: {said}")
        state = _state(case, contents(place), wrong)
        if state == "mixed" and "xcframework" in case.name and number != signal.SIGKILL:
            wrong.append("some libraries of the xcframework are new")
        wrong += [f"in TMPDIR: {p.name}" for p in self.temporary.iterdir()]
        if number != signal.SIGKILL and whom != "child":
            litter = contents(place).keys() - case.new.keys()
            wrong += [f"left behind by a run that could tidy up: {name}" for name in litter]
        self._again(case, place, state, wrong)
        return Kill(case.name, whom, number, run.returncode, state, tuple(wrong))

    def _moment(self, case: Known, place: Path, chance: random.Random) -> Callable[[], None]:
        """Waits for any moment of a run, or for one when something is being written."""
        if chance.random() < 0.5:
            return lambda: time.sleep(chance.uniform(0, case.seconds * 1.1))
        after = chance.uniform(0, case.seconds * 0.4)

        def wait() -> None:
            end = time.monotonic() + 3 * case.seconds
            while time.monotonic() < end and not any(place.rglob(".*.strip-hook*")):
                time.sleep(0.001)
            time.sleep(after)

        return wait

    def _again(self, case: Known, place: Path, state: str, wrong: list[str]) -> None:
        with self.start(case.words, place) as run:
            said = run.communicate(timeout=300)[1]
        # of a library that is done no twin can be made any more
        if run.returncode and not (case.name == "twin" and state == "new"):
            wrong.append(f"the next run failed: {said}")
        after = contents(place)
        if after.keys() != case.new.keys():
            wrong.append(f"left behind: {sorted(after.keys() ^ case.new.keys())}")
        wrong += [
            f"{name} is another one" for name, data in case.new.items() if after.get(name) != data
        ]
        wrong += [f"in TMPDIR after the next run: {p.name}" for p in self.temporary.iterdir()]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder; of folders only that they are there."""
    return {
        str(p.relative_to(folder)): b"" if p.is_dir() else p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() or p.name.startswith(".")
    }


def _state(case: Known, found: dict[str, bytes], wrong: list[str]) -> str:
    """Which libraries there are: the "old" ones, the "new" ones, or both ("mixed")."""
    states = set()
    for name, new in case.new.items():
        old = case.old.get(name)
        if found.get(name) == new and new != old:
            states.add("new")
        elif name in found and found[name] != old:
            wrong.append(f"{name} is neither the old nor the new one")
        elif new != old:
            states.add("old")
    return states.pop() if len(states) == 1 else "mixed"


def _send(run: subprocess.Popen[str], whom: str, number: int, chance: random.Random) -> None:
    with contextlib.suppress(ProcessLookupError):
        if whom == "group":
            os.killpg(run.pid, number)
        elif whom == "parent":
            run.send_signal(number)
        else:
            others = [p for p in _session(run.pid) if p != run.pid]
            if others:
                os.kill(chance.choice(others), number)


def _left(session: int, seconds: float) -> list[int]:
    """The processes of a session that are there after so many seconds."""
    end = time.monotonic() + seconds
    while found := _session(session):
        if time.monotonic() > end:
            return found
        time.sleep(0.02)
    return []


def _session(number: int) -> list[int]:
    """The living processes of a session, by proc(5)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                if fields[0] not in "ZX" and int(fields[3]) == number:
                    found.append(int(entry.name))
    return sorted(found)


def campaign(folder: Path, number: int, seed: int) -> list[Kill]:
    """Kill so many runs, of all kinds in turn."""
    chance = random.Random(seed)
    place = Range(folder / "range")
    known = [place.know(case) for case in cases(folder / "cases")]
    return [place.kill(known[i % len(known)], chance) for i in range(number)]


def main(argv: Sequence[str]) -> int:
    """See above. Exit code 1 where anything was wrong."""
    number, seed = int(argv[0]), int(argv[1]) if len(argv) > 1 else 1
    with tempfile.TemporaryDirectory() as name:
        done = campaign(Path(name), number, seed)
    for kill in done:
        print(kill)
    count = Counter((k.case, k.state) for k in done)
    for (case, state), times in sorted(count.items()):
        print(f"{case:12} {state:6} {times}")
    bad = sum(bool(k.wrong) for k in done)
    print(f"{len(done)} runs killed, {bad} with something wrong")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
