"""Runs command lines with one version of the package, for ``tests.same_bytes``.

``python -m tests.campaigns.same_worker ROOT FOLDER`` takes the package from the folder ROOT. A job
is a line of JSON on stdin, its outcome one on stdout. Each job has a folder of its own in FOLDER,
which stays until the driver removes it. Nothing here comes from the package but what `ENTRIES` and
`VERIFIERS` name, since two versions of it are run by this one file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from tests.campaigns import mutations
from tests.campaigns.records import places

# The only names of the package that are used here: module, function. The first that exists counts.
# The command line: takes the words, gives the exit code.
ENTRIES = (("cargo_strip_hook.cli.main", "main"),)
# The verifier: called with the original, then the file that is looked at; raises with `findings`.
VERIFIERS = (
    ("cargo_strip_hook.verify", "verify"),
    ("cargo_strip_hook.verify", "verify_universal"),
    ("cargo_strip_hook.verify", "verify_twin"),
)
MEMORY = 8 << 30  # bytes of address space: a damaged size must not take the machine's memory
_DAMAGED = "damaged"
_SECONDS = re.compile(r"\b\d+\.\d+s\b")
_TIMES = re.compile(r'(?<="seconds": \{)[^}]*')
# phases are told of where they take long
_PHASES = re.compile(r"^ *(Deciding|Prelinking|Verifying|Replacing) \S+ \([\d.]+ \w+\)\n", re.M)
# names of folders that Python's `tempfile` draws
_DRAWN = re.compile(r"\b(cargo-strip-hook-|tmp)[a-z0-9_]{8}\b")
# where Python gives up depends on how deep the program was
_DEPTH = re.compile(r"(?<=maximum recursion depth exceeded)( while| in)[\w ]+")


class Worker:
    """Does jobs one after the other. `folder` is where their folders are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damage = ""  # what the damaged results are drawn from; "" for none
        self.count = 0
        self.findings: list[list[str]] = []
        self._install()
        self.main = _entry(ENTRIES)
        self._processors = getattr(os, "sched_getaffinity", None)

    def _install(self) -> None:
        """Put `_watched` in the verifiers' places, before another module imports them."""
        for module, name in VERIFIERS:
            with contextlib.suppress(ImportError):
                home = importlib.import_module(module)
                if hasattr(home, name):
                    setattr(home, name, self._watched(getattr(home, name), name))

    def _watched(self, real: Callable[..., object], name: str) -> Callable[..., object]:
        """The verifier, which is shown damaged copies first where a job asks for that."""

        def call(original: Any, candidate: Any, *more: Any, **named: Any) -> object:
            if self.damage:
                for file, done in self._copies(candidate):
                    said = [f"{len(self.findings)} ({name}, {done})"]
                    try:
                        real(original, file, *more, **named)
                        said.append("nothing found")
                    except Exception as e:
                        said += _told(e)
                    self.findings.append([self._same(s) for s in said])
            return real(original, candidate, *more, **named)

        return call

    def _copies(self, candidate: Any) -> Iterator[tuple[Any, str]]:
        """Damaged copies of a result, as the verifier takes them, and what was done to each."""
        part = not isinstance(candidate, Path)  # a part says in which file it lies
        data = (candidate.path if part else candidate).read_bytes()
        known = places(data)
        file = Path(_DAMAGED)
        for _ in range(self.count):
            chance = random.Random(f"{self.damage} {len(self.findings)}")
            damaged, done = mutations.binary(chance, data, known)
            file.write_bytes(damaged)
            yield (dataclasses.replace(candidate, path=file) if part else file), done
        file.unlink(missing_ok=True)

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """The outcome of a job."""
        folder = self.folder / job["folder"]
        folder.mkdir()
        os.chdir(folder)
        for name, source in job["files"]:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(source) if job["linked"] else shutil.copyfile(source, path)
        self._have_one_processor(not job["apart"])
        runs = [self._run(job, n) for n in range(len(job["runs"]))]
        files = {}
        for path in sorted(p for p in Path().rglob("*") if p.is_file() and not p.is_symlink()):
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            files[str(path)] = [path.stat().st_size, digest.hexdigest()]
        os.chdir(self.folder)
        return {"runs": runs, "files": files}

    def _have_one_processor(self, one: bool) -> None:
        """With one processor the package does everything in this process, which is quicker here."""
        if self._processors is not None:
            only: Callable[[int], set[int]] = lambda _: {0}  # noqa: E731
            os.sched_getaffinity = only if one else self._processors

    def _run(self, job: dict[str, Any], number: int) -> dict[str, Any]:
        run = job["runs"][number]
        self.count, self.findings = run["damaged"], []
        self.damage = f"{job['name']} {number}" if self.count else ""
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                code = self.main(list(run["words"]))
            except SystemExit as e:
                code = e.code if isinstance(e.code, int) else 1
            except Exception as e:
                code = -1
                errors.write(f"{type(e).__name__}: {e}\n")
        said = {"out": self._same(out.getvalue()), "errors": self._same(errors.getvalue())}
        return {"code": code, **said, "findings": self.findings}

    def _same(self, text: str) -> str:
        """The text without what differs from run to run: times, folders, names drawn at random."""
        text = text.replace(str(self.folder), "FOLDER")
        text = _PHASES.sub("", _TIMES.sub(lambda m: re.sub(r": [\d.e-]+", ": 0", m[0]), text))
        text = _DEPTH.sub("", text)
        return _DRAWN.sub(r"\1DRAWN", _SECONDS.sub("0.0s", text))


def _entry(table: Sequence[tuple[str, str]]) -> Callable[[list[str]], int]:
    for module, name in table:
        with contextlib.suppress(ImportError, AttributeError):
            entry: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
            return entry
    raise SystemExit(f"none of {table} exists: name the new place there")


def _told(error: Exception) -> list[str]:
    """An error of the verifier: its findings, or what else it says."""
    lines = [f"{type(error).__name__}: {error}"]
    for name in ("findings", "help"):
        told = getattr(error, name, ())
        lines += [told] if isinstance(told, str) else [str(t) for t in told]
    return lines


def serve(worker: Worker, jobs: TextIO, answers: TextIO) -> None:
    for line in jobs:
        answers.write(json.dumps(worker.do(json.loads(line))) + "\n")
        answers.flush()


def main(argv: Sequence[str]) -> int:
    root, folder = Path(argv[0]).resolve(), Path(argv[1]).resolve()
    # nothing else may write where the answers go
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.insert(0, str(root))
    import cargo_strip_hook

    taken = Path(str(cargo_strip_hook.__file__)).resolve()
    assert taken.is_relative_to(root), f"{taken} is not the package of {root}"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    serve(Worker(folder), sys.stdin, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
