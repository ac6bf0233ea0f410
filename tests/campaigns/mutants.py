"""Damaged inputs by the thousand: each is done, or refused in words, quickly, and left as it was.

``python -m tests.campaigns.mutants`` runs them, ``--only NUMBER`` repeats one and shows it. What a
mutant is depends on the campaign's seed, its number and the compilers alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.campaigns import mutations, seeds
from tests.campaigns.records import Places, places
from tests.campaigns.seeds import Seed

LIMIT = 60.0  # seconds until a mutant is ended: a machine may be busy
SLOW = 3.0  # seconds of the processor
MEMORY = 1 << 30  # bytes
_ROOM = MEMORY + (1 << 28)  # of address space, above what the parent has: numpy's own is there
# kinds of input, and how often each is taken
SHARES = {"library": 74, "cdylib": 6, "header": 10, "list": 5, "toml": 3, "plist": 2}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One damaged input and the command line that reads it."""

    number: int
    seed: Seed
    data: bytes
    done: str  # what was done to it
    argv: tuple[str, ...]
    alone: bool  # in one process

    @property
    def in_place(self) -> bool:
        return self.argv[:1] == ("strip",) and "-o" not in self.argv


@dataclass(frozen=True, slots=True)
class Result:
    """How a mutant ended. `faults` are what may not be; seconds, bytes."""

    number: int
    seed: str
    done: str
    argv: str
    ended: str
    said: str = ""
    faults: tuple[str, ...] = ()
    seconds: float = 0.0
    memory: int = 0
    trace: str = ""


@dataclass
class Campaign:
    """All mutants of one seed."""

    name: str
    inputs: tuple[Seed, ...]
    known: dict[str, Places] = field(default_factory=dict)

    def mutant(self, number: int) -> Mutant:
        chance = random.Random(f"{self.name} {number}")
        kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
        seed = chance.choice([s for s in self.inputs if s.kind == kind])
        data, done = self._damaged(chance, seed)
        alone = chance.random() < 0.95
        return Mutant(number, seed, data, done, tuple(_words(chance, seed)), alone)

    def _damaged(self, chance: random.Random, seed: Seed) -> tuple[bytes, str]:
        if seed.kind in ("header", "list", "toml") or seed.name == "plist-xml":
            return mutations.text(chance, seed.data), "text"
        if seed.name not in self.known:
            self.known[seed.name] = places(seed.data) if seed.kind == "library" else {}
        return mutations.binary(chance, seed.data, self.known[seed.name])


def _words(chance: random.Random, seed: Seed) -> Iterator[str]:
    """A command line; the library is `lib.a`."""
    if seed.kind == "toml":
        return
    public = list(seed.exports)
    if seed.kind == "library" and chance.random() < 0.3:
        public = ["--export", "api_*"]
    library = "t.xcframework" if seed.kind == "plist" else "lib.a"
    command = chance.choices(("strip", "check", "exports", "report", "why"), (60, 10, 8, 12, 10))[0]
    if seed.kind == "plist":
        command = chance.choice(("strip", "check", "exports"))
    elif seed.kind != "library":
        command = chance.choices(("exports", "check", "strip"), (70, 15, 15))[0]
    yield command
    yield library
    if command == "why":
        yield chance.choice(("api_name", "outside", "inner", "twice", "unused"))
        if chance.random() < 0.3:
            yield "--all-roots"
    if command == "report":
        yield from chance.choice(((), ("--json",), ("--html", "page.html"), ("--markdown",)))
        return
    yield from public
    if chance.random() < 0.2:
        yield "--message-format=json"
    if command != "strip":
        return
    if chance.random() < 0.05:
        yield "--dry-run"
    if library == "lib.a" and chance.random() < 0.7:
        yield from ("-o", "out.a")
    yield from ("--strip", chance.choice(("none", "none", "debuginfo", "symbols")))
    yield from ("--granularity", chance.choice(("class", "class", "section", "whole")))
    if library == "lib.a" and chance.random() < 0.12:
        yield from ("--debug-twin", "twin.a")
    if chance.random() < 0.15:
        yield from ("--compress-debug", chance.choice(("zlib", "zstd")))
    if chance.random() < 0.03:
        yield from ("--engine", "system")


def run(campaign: Campaign, number: int, root: Path, *, show: bool = False) -> Result:
    """Run one mutant in a process of its own."""
    mutant = campaign.mutant(number)
    folder = root / str(number)
    _write(mutant, folder)
    reader, writer = os.pipe()
    begin = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(mutant, folder, writer)
    os.close(writer)
    said = _read(reader, child)
    seconds = time.perf_counter() - begin
    _, status, usage = os.wait4(child, 0)
    memory = usage.ru_maxrss << 10
    blank = Result(number, mutant.seed.name, mutant.done, " ".join(mutant.argv), "")
    if said is None:
        result = replace(blank, ended="hang", faults=("hang",))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    elif not said:
        ended = f"signal {-os.waitstatus_to_exitcode(status)}"
        result = replace(blank, ended=ended, faults=(ended,))
    else:
        told = json.loads(said)
        result = replace(blank, **{**told, "faults": tuple(told["faults"])})
    faults = list(result.faults)
    if usage.ru_utime + usage.ru_stime > SLOW and "hang" not in faults:
        faults.append("slow")
    if memory > MEMORY:
        faults.append("memory")
    if show:
        print(f"{folder}\n{result.said}\n{result.trace}")
    else:
        shutil.rmtree(folder)
    return replace(result, faults=tuple(faults), seconds=seconds, memory=memory)


def _write(mutant: Mutant, folder: Path) -> None:
    for position, (name, data) in enumerate(mutant.seed.files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if position else mutant.data)


def _read(reader: int, child: int) -> bytes | None:
    """All that the child says; None where it takes too long, and is ended."""
    end = time.monotonic() + LIMIT
    said = b""
    with open(reader, "rb", buffering=0) as pipe:
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                os.kill(child, signal.SIGKILL)
                return None
            chunk = pipe.read(1 << 16)
            if not chunk:
                return said
            said += chunk


def _child(mutant: Mutant, folder: Path, writer: int) -> None:
    """Never returns."""
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if mutant.alone and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        told = json.dumps(_judge(mutant, folder)).encode()
        with open(writer, "wb") as pipe:
            pipe.write(told)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _judge(mutant: Mutant, folder: Path) -> dict[str, Any]:
    """Run the command in this process, and look at what it said and left."""
    if mutant.seed.kind == "toml":
        return _settings(folder)
    before = _files(folder)
    code, said, errors = _main(mutant.argv)
    faults = _said(code, said + errors)
    after = _files(folder)
    allowed = {"page.html"} | (
        {"out.a", "twin.a"} if not code and mutant.argv[0] == "strip" else set()
    )
    kept = {n: d for n, d in after.items() if n in before}
    library = (not code or mutant.seed.kind == "plist") and mutant.in_place
    if {n: d for n, d in kept.items() if not (library and n.endswith(".a"))} != {
        n: d for n, d in before.items() if not (library and n.endswith(".a"))
    }:
        faults.append("input changed")
    litter = sorted(set(after) - set(before) - allowed)
    if litter:
        faults.append(f"litter {litter}")
    if not code and mutant.argv[0] == "strip" and mutant.seed.kind == "library":
        faults += _result(mutant, errors)
    trace = errors if any(f.startswith("internal") for f in faults) else ""
    return {
        "ended": _ended(code, errors),
        "said": _first(errors) if code else "",
        "faults": faults,
        "trace": trace,
    }


def _main(argv: Sequence[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the program."""
    from cargo_strip_hook.cli.main import main

    os.environ["STRIP_HOOK_BACKTRACE"] = "1"
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main(list(argv))
        except SystemExit as e:
            code = int(e.code or 0)
        except BaseException:
            traceback.print_exc(file=errors)
            code = -1
    return code, out.getvalue(), errors.getvalue()


def _said(code: int, text: str) -> list[str]:
    faults = []
    if "internal error" in text or "Traceback" in text:
        places = re.findall(r'File "[^"]*?(\w+/\w+/?\w*\.py)", line (\d+), in (\w+)', text)
        kind = re.findall(r"^(\w+(?:\.\w+)*)(?:: (.*))?$", text, re.M)
        where = next((p for p in reversed(places) if "cargo_strip" in p[0] or 1), ("", "", ""))
        faults.append(f"internal {kind[-1] if kind else ''} {':'.join(where)}")
    if "not enough memory" in text:
        faults.append("memory refused")
    if code not in (0, 1, 2):
        faults.append(f"exit code {code}")
    if code and "error: " not in text and "warning: " not in text:
        faults.append("no word of the error")
    return faults


def _ended(code: int, errors: str) -> str:
    if not code:
        return "done"
    if "defect of the engine" in errors:
        return "verifier"
    return {1: "refused", 2: "usage"}.get(code, str(code)) if "error: " in errors else "found"


def _first(errors: str) -> str:
    lines = errors.splitlines()
    at = next((i for i, line in enumerate(lines) if line.lstrip().startswith("error")), 0)
    return "\n".join(lines[at : at + 6])


def _result(mutant: Mutant, errors: str) -> list[str]:
    """What is wrong with a library that was made of a mutant."""
    faults = []
    library = "lib.a" if mutant.in_place else "out.a"
    if "--dry-run" in mutant.argv or (mutant.in_place and "Fresh" in errors):
        return []
    again = [w for w in mutant.argv if w not in ("-o", "out.a", "--debug-twin", "twin.a")]
    again[1] = library
    made = Path(library).read_bytes()
    code, _, errors = _main(again)
    if code or "Fresh" not in errors:
        faults.append(f"not fresh: {_first(errors)}")
    if Path(library).read_bytes() != made:
        faults.append("the second run changed it")
    if mutant.number % 4 == 0:
        original = Path("lib.a")
        if mutant.in_place:
            original = Path("before.a")
            original.write_bytes(mutant.data)
        faults += _readers(Path(library), original)
    return faults


def _readers(library: Path, original: Path) -> list[str]:
    """What independent readers say of a result, and do not say of the original."""
    tool = shutil.which("llvm-readobj-22") or shutil.which("llvm-readobj")
    if tool is None:
        return []

    def complaints(file: Path) -> set[str]:
        words = [
            tool,
            "--file-headers",
            "--sections",
            "--section-relocations",
            "--symbols",
            "--unwind",
        ]
        done = subprocess.run([*words, str(file)], capture_output=True, check=False)
        said = done.stderr.decode(errors="replace").splitlines()
        found = [li for li in said if "error:" in li or "warning:" in li]
        found = [li for li in found if "failed to compute relocation" not in li]  # of TLS in DWARF
        # GNU ld leaves R_…_NONE, all at one place, where it drops entries of .eh_frame
        found = [li for li in found if "At most two relocations per offset" not in li]
        return {re.sub(r"0x[0-9a-fA-F]+|\d+|'[^']*'", "#", li.split(": ", 1)[-1]) for li in found}

    new = complaints(library)
    if new:
        new -= complaints(original)
    return [f"readobj: {sorted(new)[:2]}"] if new else []


def _settings(folder: Path) -> dict[str, Any]:
    """A package's settings, read as its Cargo.toml has them."""
    import tomllib

    from cargo_strip_hook.cargo.cfg import parse_rustc_cfg
    from cargo_strip_hook.cargo.settings import SettingsTable, load_settings
    from cargo_strip_hook.core.errors import StripHookError
    from cargo_strip_hook.core.target import Target

    file = folder / "settings.toml"
    try:
        table = tomllib.loads(file.read_text())
    except ValueError:  # cargo says it
        return {"ended": "no toml", "faults": []}
    try:
        load_settings(
            SettingsTable(table, "package.metadata.strip-hook", file),
            SettingsTable(None, "workspace.metadata.strip-hook", file),
            Target.parse("x86_64-unknown-linux-gnu"),
            lambda: parse_rustc_cfg('unix\ntarget_os="linux"\n'),
        )
    except StripHookError as e:
        return {"ended": "usage", "said": e.what[:300], "faults": []}
    except Exception:
        said = traceback.format_exc()
        return {"ended": "1", "faults": _said(1, said), "trace": said}
    return {"ended": "done", "faults": []}


def run_all(
    campaign: Campaign, numbers: Sequence[int], folder: Path, workers: int, seconds: float = 1e9
) -> list[Result]:
    """The results of mutants, as many as there is time for, by several processes."""
    import cargo_strip_hook.cli.commands
    import cargo_strip_hook.engines.native
    import cargo_strip_hook.pipeline.strip  # noqa: F401

    for name in ("elf", "macho", "coff"):
        from cargo_strip_hook.formats import format_for
        from cargo_strip_hook.verify import prepare

        format_for(name)
        prepare(name)
    end = time.monotonic() + seconds
    children = []
    for worker in range(workers):
        child = os.fork()
        if child == 0:
            try:
                with (folder / f"results-{worker}").open("w") as out:
                    for number in numbers[worker::workers]:
                        if time.monotonic() > end:
                            break
                        result = run(campaign, number, folder)
                        out.write(json.dumps(asdict(result)) + "\n")
                        out.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    lines = [
        json.loads(line)
        for worker in range(workers)
        for line in (folder / f"results-{worker}").read_text().splitlines()
    ]
    results = [Result(**{**row, "faults": tuple(row["faults"])}) for row in lines]
    return sorted(results, key=lambda r: r.number)


def summary(results: Sequence[Result]) -> str:
    """Numbers for people: outcomes by input, the worst times and sizes, faults by their kind."""
    ended: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for r in results:
        ended[r.seed][r.ended] += 1
        ended["all"][r.ended] += 1
    lines = [f"{name}: {mutations.count_kinds(counts)}" for name, counts in ended.items()]
    worst = max(results, key=lambda r: r.seconds)
    largest = max(results, key=lambda r: r.memory)
    lines.append(f"longest {worst.seconds:.1f} s ({worst.number})")
    lines.append(f"largest {largest.memory >> 20} MiB ({largest.number})")
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for r in results:
        for fault in r.faults:
            kinds[re.sub(r"0x[0-9a-f]+|\b\d{3,}\b(?!:)", "N", fault)[:300]].append(r.number)
    for fault, numbers in sorted(kinds.items(), key=lambda x: -len(x[1])):
        lines.append(f"FAULT {len(numbers):5} {fault}  e.g. {numbers[:6]}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, action="append")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="where results go as JSON lines")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        campaign = Campaign(args.seed, seeds.make(folder))
        if args.only:
            for number in args.only:
                keep = Path(tempfile.mkdtemp(prefix=f"mutant-{number}-"))
                print(run(campaign, number, keep, show=True))
            return 0
        numbers = range(args.first, args.first + args.count)
        results = run_all(campaign, numbers, folder, args.workers)
    if args.out:
        args.out.write_text("".join(json.dumps(asdict(r)) + "\n" for r in results))
    print(summary(results))
    return int(any(r.faults for r in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
