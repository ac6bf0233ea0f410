"""Whether the working tree makes the same of its inputs, byte for byte, as another revision.

``python -m tests.same_bytes REV [--quick]`` takes the package of the git revision REV (or of a
folder that holds `cargo_strip_hook/`) and that of the working tree, gives both the same command
lines, and compares all that comes of them: the files, the exit code, each line on stdout and
stderr, and what the verifier finds in damaged copies of the results. It is run before a change that
only moves code is committed. No results are recorded: they would hold for one toolchain alone.

The inputs (`tests.campaigns.same_inputs`) are compiled here, drawn at random from fixed seeds, or
libraries of the tests' cache. Each version is a process that lives long
(`tests.campaigns.same_worker`), so that starting up is paid once. Where something differs, the
command line that repeats it alone is printed, and the exit code is 1.

A complete run takes ten minutes on two processors, ``--quick`` one and a half.
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from tests.campaigns.same_inputs import MAKERS, Job

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "cargo_strip_hook"
SIDES = ("before", "now")
LIMIT = 300.0  # seconds for a job: then its worker is ended
AHEAD = 8  # jobs that one worker may be ahead of the other
SHOWN = 30  # differences that are told in full
LINES = 12  # of a difference of texts
COLUMNS = ("bytes", "strip", "check", "exports", "report", "why", "refused", "findings")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same. `kind` is a column of the summary, `what` tells where."""

    job: str
    kind: str
    what: str
    details: tuple[str, ...] = ()


@dataclass
class Summary:
    """How much was compared: by format, kind of input and column; and what differs."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    differing: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    passed_over: int = 0  # findings in copies of results that differ themselves
    armed: int = 0  # results of which the verifier should have seen damaged copies

    def table(self) -> str:
        """A row for each format and kind of input: comparisons, and differences after a slash."""
        head = f"{'format':8}{'inputs':10}" + "".join(f"{c:>12}" for c in COLUMNS)
        lines = [head]
        for row in sorted({key[:2] for key in self.counts}):
            cells = []
            for column in COLUMNS:
                key = (*row, column)
                bad = f"/{self.differing[key]}" if self.differing[key] else ""
                cells.append(f"{self.counts[key]}{bad}" if self.counts[key] else "-")
            lines.append(f"{row[0]:8}{row[1]:10}" + "".join(f"{c:>12}" for c in cells))
        total = sum(self.counts.values())
        lines.append(f"{total} comparisons, {sum(self.differing.values())} differences")
        return "\n".join(lines)


# ---- the two versions


def package_of(revision: str, root: Path) -> Path:
    """Copy the package of a revision, or of a folder that holds one, into the folder `root`.

    The working tree's is copied, too: it may be edited while this runs.
    """
    if (Path(revision) / PACKAGE).is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(revision) / PACKAGE, root / PACKAGE, ignore=ignored)
    else:
        words = ["git", "-C", str(ROOT), "archive", "--format=tar", revision, PACKAGE]
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"no package of `{revision}`: {done.stderr.decode().strip()}")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            tar.extractall(root)
    _tell_the_same_version(root / PACKAGE / "__init__.py")
    return root


def _tell_the_same_version(file: Path) -> None:
    """A result tells the version that made it: a release must not differ in all of them."""
    line = re.compile(r"^__version__ = .*$", re.M)
    here = line.search((ROOT / PACKAGE / "__init__.py").read_text())
    assert here, "the package has no version"
    file.write_text(line.sub(lambda _: here[0], file.read_text()))


class Side:
    """A worker with one version of the package; started again where it ends."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        folder.mkdir(parents=True)
        self.process: subprocess.Popen[str] | None = None

    def ask(self, job: Job, name: str) -> dict[str, Any]:
        """The outcome of a job, in a folder of that name; `died` tells how the worker ended."""
        process = self.process or self._start()
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            question = {**asdict(job), "folder": name}
            _of(process.stdin).write(json.dumps(question, default=str) + "\n")
            _of(process.stdin).flush()
            line = _of(process.stdout).readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.process = None
        ended = process.wait()
        if ended > 0:  # by a mistake of its own, and not by a signal
            raise RuntimeError(f"the worker failed in {self.folder / name}")
        return {"died": ended, "runs": [], "files": {}}

    def _start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join((str(self.root), str(ROOT)))
        env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"COLUMNS": "100", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
        for name in ("STRIP_HOOK_BACKTRACE", "FORCE_COLOR", "CARGO_TERM_COLOR"):
            env.pop(name, None)
        words = [sys.executable, "-m", "tests.campaigns.same_worker", self.root, self.folder]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words, cwd=self.folder, env=env, stdin=pipe, stdout=pipe, encoding="utf-8"
        )
        return self.process

    def end(self) -> None:
        if self.process is not None:
            _of(self.process.stdin).close()
            self.process.wait()
            _of(self.process.stdout).close()


def _of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


# ---- running and comparing


def run(jobs: Sequence[Job], pairs: Sequence[tuple[Side, Side]], done: Summary, keep: bool) -> None:
    """Have both versions do all jobs, each pair of workers its share, and compare the outcomes."""
    lock = threading.Lock()
    threads = []
    failures: list[BaseException] = []
    for position, pair in enumerate(pairs):
        share = jobs[position :: len(pairs)]
        progress = _Progress()
        for which in (0, 1):

            def work(
                which: int = which,
                pair: tuple[Side, Side] = pair,
                share: Sequence[Job] = share,
                progress: _Progress = progress,
            ) -> None:
                try:
                    for number, job in enumerate(share):
                        outcome = pair[which].ask(job, str(number))
                        other = progress.finished(which, number, outcome)
                        if other is None:
                            continue
                        both = (outcome, other) if which == 0 else (other, outcome)
                        folders = tuple(s.folder / str(number) for s in pair)
                        with lock:
                            compare(job, both, folders, done)
                        for folder in () if keep else folders:
                            shutil.rmtree(folder, ignore_errors=True)
                except BaseException as e:
                    failures.append(e)
                    progress.give_up()

            threads.append(threading.Thread(target=work, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class _Progress:
    """Keeps two workers near each other, and an outcome until the other one is there."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._done = [-1, -1]
        self._waiting: dict[int, dict[str, Any]] = {}
        self._over = False

    def finished(self, which: int, number: int, outcome: dict[str, Any]) -> dict[str, Any] | None:
        """The other worker's outcome of the same job, if it has one already."""
        with self._condition:
            self._done[which] = number
            self._condition.notify_all()
            other = self._waiting.pop(number, None)
            if other is None:
                self._waiting[number] = outcome
            self._condition.wait_for(lambda: self._over or number - self._done[1 - which] < AHEAD)
            return other

    def give_up(self) -> None:
        with self._condition:
            self._over = True
            self._condition.notify_all()


def compare(
    job: Job,
    outcomes: tuple[dict[str, Any], dict[str, Any]],
    folders: tuple[Path, ...],
    done: Summary,
) -> None:
    """Compare what two versions made of a job; the folders are as the workers left them."""
    before, now = outcomes

    def count(kind: str, differs: bool, what: str, details: Callable[[], list[str]]) -> None:
        key = (job.format, job.inputs, kind)
        done.counts[key] += 1
        if differs:
            done.differing[key] += 1
            shown = tuple(details()) if len(done.differences) < SHOWN else ()
            done.differences.append(Difference(job.name, kind, what, shown))

    if "died" in before or "died" in now:
        ends = [str(o.get("died", "done")) for o in outcomes]
        count("strip", ends[0] != ends[1], "the worker ended", lambda: [" -> ".join(ends)])
        return
    changed = False
    for name in sorted({*before["files"], *now["files"]}):
        one, other = before["files"].get(name), now["files"].get(name)
        changed |= one != other
        paths = [folder / name for folder in folders]
        count("bytes", one != other, name, lambda p=paths: _bytes(*p))
    for run, one, other in zip(job.runs, before["runs"], now["runs"], strict=True):
        words = " ".join(run.words)
        failed = "error: " in one["errors"] and "error: " in other["errors"]
        kind = "refused" if failed else run.words[0]
        texts = [_lines(r) for r in (one, other)]
        count(kind, texts[0] != texts[1], words, lambda t=texts: _diff(*t))
        done.armed += bool(run.damaged and not one["code"] and "Fresh" not in one["errors"])
        if changed and one["findings"] != other["findings"]:
            done.passed_over += len(one["findings"])  # damaged copies of them differ, too
            continue
        found = [{f[0]: f for f in r["findings"]} for r in (one, other)]
        for name in sorted({*found[0], *found[1]}):
            pair = [f.get(name, ["not there"]) for f in found]
            what = f"{words}: {name}"
            count("findings", pair[0] != pair[1], what, lambda p=pair: _diff(*p))


def _lines(run: dict[str, Any]) -> list[str]:
    said = [f"exit code {run['code']}", *run["errors"].splitlines()]
    return said + [f"stdout: {line}" for line in run["out"].splitlines()]


def _diff(before: Sequence[str], now: Sequence[str]) -> list[str]:
    lines = list(difflib.unified_diff(before, now, *SIDES, lineterm="", n=0))
    short = [line if len(line) < 300 else f"{line[:300]} …" for line in lines[:LINES]]
    for pair in zip(before, now, strict=False):  # of long lines of JSON, the place
        if pair[0] != pair[1] and len(pair[0]) > 300:
            at = len(os.path.commonprefix(pair))  # noqa: RUF071
            short.append(f"from character {at}:")
            short += [f"  {text[max(0, at - 60) : at + 100]}" for text in pair]
            break
    return short


def _bytes(before: Path, now: Path) -> list[str]:
    """Where two files differ first."""
    for path, side in ((before, SIDES[1]), (now, SIDES[0])):
        if not path.exists():
            return [f"there is one {side} only"]
    one, other = (np.fromfile(p, np.uint8) for p in (before, now))
    common = min(len(one), len(other))
    differs = np.flatnonzero(one[:common] != other[:common])
    at = int(differs[0]) if len(differs) else common
    lines = [
        f"{len(one)} -> {len(other)} bytes; {len(differs)} of the common ones differ, "
        f"first that at {at} ({at:#x})"
    ]
    for side, data in zip(SIDES, (one, other), strict=True):
        lines.append(f"  {side}: {bytes(data[at : at + 16]).hex(' ')}")
    return lines


# ---- the command line


def main(argv: Sequence[str]) -> int:
    """Compare; 1 where something differs."""
    parser = argparse.ArgumentParser(prog="same_bytes", description=__doc__.split("\n\n")[0])
    parser.add_argument("revision", help="a git revision, or a folder with the package")
    parser.add_argument("--quick", action="store_true", help="fewer inputs of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="pairs of processes (default: 1)")
    parser.add_argument("--only", action="append", metavar="JOB", help="these alone (a pattern)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave what was made in DIR")
    parser.add_argument("--now", default=str(ROOT), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    begin = time.monotonic()
    if args.keep:
        args.keep.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="same-") as name:
        done = compare_versions(args, args.keep.resolve() if args.keep else Path(name).resolve())
    print(done.table())
    if done.passed_over:
        print(f"{done.passed_over} findings of results that differ were not compared")
    for line in done.skipped:
        print(line)
    quick = " --quick" if args.quick else ""
    for difference in done.differences[:SHOWN]:
        print(f"\n{difference.job}: {difference.kind}: {difference.what}")
        print("".join(f"    {line}\n" for line in difference.details), end="")
        print(
            f"  alone: python -m tests.same_bytes {args.revision}{quick} "
            f"--only '{difference.job}' --keep DIR"
        )
    more = dict.fromkeys(d.job for d in done.differences[SHOWN:])
    if more:
        print(f"\n{len(done.differences) - SHOWN} more, in:", *more)
    findings = sum(n for key, n in done.counts.items() if key[2] == "findings")
    if done.armed and not findings:
        print("the verifier saw no damaged result: name its new place in same_worker.VERIFIERS")
        return 1
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{time.monotonic() - begin:.0f} s, "
        f"{spent.ru_utime + spent.ru_stime:.0f} s of processors in other processes"
    )
    return int(bool(done.differences) or not done.counts)


def compare_versions(args: argparse.Namespace, folder: Path) -> Summary:
    """Make the inputs kind by kind, and have both versions work on them."""
    done = Summary()
    patterns: list[str] = args.only or ["*"]
    given = (args.revision, args.now)
    roots = [package_of(r, folder / f"package-{s}") for r, s in zip(given, SIDES, strict=True)]
    pairs = [
        (Side(roots[0], folder / f"{SIDES[0]}-{n}"), Side(roots[1], folder / f"{SIDES[1]}-{n}"))
        for n in range(args.jobs)
    ]
    for name, maker in MAKERS.items():
        if not any(p.startswith("*") or p.split("/")[0] == name for p in patterns):
            continue
        begin = time.monotonic()
        place = folder / "inputs" / name
        place.mkdir(parents=True)
        jobs: list[Job] = []
        try:
            jobs.extend(maker(place, args.quick))
        except (pytest.skip.Exception, pytest.fail.Exception) as e:  # a tool
            done.skipped.append(f"{name}: left out after {len(jobs)} inputs: {e}")
        jobs = [j for j in jobs if any(fnmatch.fnmatchcase(j.name, p) for p in patterns)]
        made = time.monotonic()
        run(jobs, pairs, done, bool(args.keep))
        spent = time.monotonic() - made
        print(
            f"{name}: {len(jobs)} inputs ({made - begin:.0f} s) compared in {spent:.0f} s, "
            f"{len(done.differences)} differences so far",
            file=sys.stderr,
            flush=True,
        )
        if not args.keep:
            shutil.rmtree(place, ignore_errors=True)
    for pair in pairs:
        for side in pair:
            side.end()
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
