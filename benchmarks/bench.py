"""Measures cargo-strip-hook against what else there is, on published crates built by cargo-c.

``python benchmarks/bench.py [--rounds N] [--json FILE] [--markdown] [LIBRARY[:PROFILE[:TARGET]]…]``

One run, interleaved: in every round each contender does the whole job once, in processes of its
own, on the same library with the page cache warm.

* ours: ``cargo-strip-hook strip`` with its default options (verification on), and with debug
  information kept;
* GNU ld: ``ld -r --gc-sections -u EXPORT…``, then LLVM's objcopy and ar;
* for targets of Darwin and Windows ours alone, without names too; the floor is the dylib that
  ld64.lld makes of the library with ``-dead_strip -x -S``, or the DLL of lld-link ``/opt:ref`` or
  of MinGW's gcc ``-s -Wl,--gc-sections``;
* armerge 2.2.2, where it is installed (with RANLIB and OBJCOPY set to LLVM's, else it fails).

Time is wall time; memory is the largest resident set of any process of the job (``wait4``).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    ("imagequant-sys", "release", ""),
    ("imagequant-sys", "dev", ""),
    ("dolby_vision", "release", ""),
    ("dolby_vision", "dev", ""),
    ("gst-plugin-fallbackswitch", "release", ""),
    ("gst-plugin-fallbackswitch", "dev", ""),
    ("rav1e", "release", ""),
    ("imagequant-sys", "release", "aarch64-apple-darwin"),
    ("imagequant-sys", "release", "x86_64-apple-darwin"),
    ("dolby_vision", "release", "aarch64-apple-darwin"),
    ("dolby_vision", "release", "x86_64-apple-darwin"),
    ("imagequant-sys", "release", "x86_64-pc-windows-msvc"),
    ("imagequant-sys", "release", "x86_64-pc-windows-gnu"),
    ("dolby_vision", "release", "x86_64-pc-windows-msvc"),
    ("dolby_vision", "release", "x86_64-pc-windows-gnu"),
)
# their headers declare functions of other processors, too: the cdylib says what there is
BY_CDYLIB = ("rav1e",)


@dataclass(frozen=True)
class Library:
    """What is measured on; `floor` is the size of the stripped cdylib in bytes.

    `target` is empty for this machine's own.
    """

    name: str
    profile: str
    target: str
    path: Path
    source: tuple[str, ...]  # our options that say what is public
    exports: tuple[str, ...]
    floor: int | None


@dataclass(frozen=True)
class Contender:
    """One way to do the job: commands run one after another. `debug`: debug information stays."""

    name: str
    debug: bool
    commands: tuple[tuple[str, ...], ...]
    output: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """All rounds of one contender on one library. Sizes and memory in bytes."""

    library: str
    profile: str
    target: str
    contender: str
    debug: bool
    original: int
    size: int | None
    floor: int | None
    exports: int
    seconds: tuple[float, ...]
    peak: int
    failure: str = ""

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def output_of(argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
    """A program's standard output; ends the benchmark where it fails."""
    words = [os.fspath(a) for a in argv]
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"`{' '.join(words)}` ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def find(*names: str) -> str | None:
    """The first of `names` that is installed."""
    return next((found for name in names if (found := shutil.which(name))), None)


def ours() -> tuple[str, ...]:
    """The command of this checkout."""
    return (sys.executable, "-m", "cargo_strip_hook")


def locate(name: str, profile: str, target: str, scratch: Path) -> Library:
    """Build a library (or take it from the cache of the tests) and decide what is public."""
    source: tuple[str, ...]
    if target:
        windows = "-windows-" in target
        module = f"tests.consumers.{'windows_kit' if windows else 'darwin_library'}"
        said = output_of([sys.executable, "-m", module, name, target, scratch])
        path, header, size = said.split()
        source = ("--header", header, "--target", target)
        return Library(name, profile, target, Path(path), source, _exports(path, source), int(size))
    # in a process of its own: memory of this one would count for those that it starts
    words = output_of([sys.executable, "-m", "tests.fixtures", name, profile]).split()
    path, header, cdylib = words[2:5]
    by_header = header != "None" and name not in BY_CDYLIB
    source = ("--header", header) if by_header else ("--cdylib", cdylib)
    exports = _exports(path, source)
    floor = None
    strip = find("strip")
    if cdylib != "None" and strip:
        stripped = scratch / "floor.so"
        output_of([strip, "-o", stripped, cdylib])
        floor = stripped.stat().st_size
        stripped.unlink()
    return Library(name, profile, target, Path(path), source, exports, floor)


def _exports(path: str, source: tuple[str, ...]) -> tuple[str, ...]:
    listed = output_of([*ours(), "exports", path, *source, "-q"])
    return tuple(line.split("\t")[0] for line in listed.splitlines())


def contenders(library: Library, scratch: Path) -> list[Contender]:
    """Everything that can do the job on this machine."""
    found = []
    kinds: list[tuple[bool, tuple[str, ...]]] = [(False, ()), (True, ("--strip", "none"))]
    for debug, strip in kinds:
        out = scratch / f"ours-{debug}.a"
        argv = (*ours(), "strip", str(library.path), *library.source, *strip, "-q", "-o", str(out))
        found.append(Contender("cargo-strip-hook", debug, (argv,), out))
    if library.target:
        out = scratch / "ours-symbols.a"
        words = (*library.source, "--strip", "symbols", "-q", "-o", str(out))
        argv = (*ours(), "strip", str(library.path), *words)
        return [*found, Contender("cargo-strip-hook, no names", False, (argv,), out)]
    objcopy, ar = find("llvm-objcopy-22", "llvm-objcopy"), find("llvm-ar-22", "llvm-ar")
    ld = find("ld.bfd", "ld")
    if ld and objcopy and ar:
        keep = scratch / "exports.txt"
        keep.write_text("".join(f"{name}\n" for name in library.exports))
        roots = [word for name in library.exports for word in ("-u", name)]
        for debug in (False, True):
            merged, out = scratch / f"merged-{debug}.o", scratch / f"ld-{debug}.a"
            link = (ld, "-r", "--gc-sections", *roots, "-o", str(merged), str(library.path))
            copy: tuple[str, ...] = (
                objcopy,
                "-R",
                ".llvmbc",
                "-R",
                ".llvmcmd",
                f"--keep-global-symbols={keep}",
            )
            copy += () if debug else ("--strip-unneeded",)
            pack = (ar, "rcsD", str(out), str(merged))
            found.append(
                Contender("GNU ld + objcopy", debug, (link, (*copy, str(merged)), pack), out)
            )
    armerge = find("armerge")
    if armerge and objcopy and ar:
        out = scratch / "armerge.a"
        pattern = f"^({'|'.join(library.exports)})$"
        argv = (armerge, "--keep-symbols", pattern, "--output", str(out), str(library.path))
        ranlib = find("llvm-ranlib-22", "llvm-ranlib") or "llvm-ranlib"
        found.append(
            Contender("armerge", True, (argv,), out, {"RANLIB": ranlib, "OBJCOPY": objcopy})
        )
    return found


def run_once(contender: Contender, scratch: Path) -> tuple[float, int, str]:
    """Wall time in seconds, peak memory in bytes, and what went wrong."""
    contender.output.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **contender.environment}
    # an installed package has its bytecode, and so has the checkout after the warm-up
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    log = scratch / "log"
    seconds, peak = 0.0, 0
    for argv in contender.commands:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        begin = time.perf_counter()
        process = os.posix_spawnp(argv[0], argv, environment, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        seconds += time.perf_counter() - begin
        peak = max(peak, usage.ru_maxrss * 1024)
        code = os.waitstatus_to_exitcode(status)
        if code:
            said = log.read_text(errors="replace").strip()[-400:]
            return seconds, peak, f"{Path(argv[0]).name} ended with {code}: {said}"
    return seconds, peak, ""


def measure(library: Library, rounds: int, scratch: Path) -> list[Result]:
    """All contenders on one library, interleaved; the first round warms up and does not count."""
    everyone = contenders(library, scratch)
    seconds: dict[int, list[float]] = {n: [] for n in range(len(everyone))}
    peaks = dict.fromkeys(seconds, 0)
    failures = dict.fromkeys(seconds, "")
    for number in range(rounds + 1):
        for who, contender in enumerate(everyone):
            if failures[who]:
                continue
            spent, peak, failures[who] = run_once(contender, scratch)
            if number:
                seconds[who].append(spent)
                peaks[who] = max(peaks[who], peak)
    results = []
    for who, contender in enumerate(everyone):
        failure = failures[who]
        results.append(
            Result(
                library.name,
                library.profile,
                library.target,
                contender.name,
                contender.debug,
                library.path.stat().st_size,
                None if failure else contender.output.stat().st_size,
                library.floor,
                len(library.exports),
                tuple(seconds[who]),
                peaks[who],
                failure,
            )
        )
    return results


def machine() -> dict[str, str]:
    """What the numbers depend on besides the programs."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "processor": model,
        "processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """The first line of each program's own words."""
    programs = {
        "rustc": ("rustc",),
        "GNU ld": ("ld.bfd", "ld"),
        "objcopy": ("llvm-objcopy-22", "llvm-objcopy"),
        "armerge": ("armerge",),
    }
    found = {"python": platform.python_version()}
    for name, candidates in programs.items():
        program = find(*candidates)
        if program:
            lines = [
                line for line in output_of([program, "--version"]).splitlines() if line.strip()
            ]
            known = [line.strip() for line in lines if any(c.isdigit() for c in line)]
            found[name] = known[0] if known else lines[0]
    return found


HEADINGS = (
    "library",
    "contender",
    "debug info",
    "size",
    "× cdylib",
    "time min",
    "median",
    "memory",
)


def row(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    debug = "kept" if result.debug else "removed"
    if result.failure or result.size is None:
        return ("", result.contender, debug, "failed", "", "", "", "")
    # a library with debug information has nothing to do with a stripped cdylib
    ratio = f"{result.size / result.floor:.2f}" if result.floor and not result.debug else ""
    return (
        "",
        result.contender,
        debug,
        f"{result.size / 1e6:.2f} MB",
        ratio,
        f"{result.best:.2f} s",
        f"{result.median:.2f} s",
        f"{result.peak / 1e6:.0f} MB",
    )


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """All lines: each library's name stands before the first of its contenders."""
    ordered: list[tuple[str, ...]] = []
    for key in dict.fromkeys((r.library, r.profile, r.target) for r in results):
        mine = [r for r in results if (r.library, r.profile, r.target) == key]
        title = f"{', '.join(filter(None, key))} ({mine[0].original / 1e6:.1f} MB)"
        for result in sorted(mine, key=lambda r: r.debug):
            ordered.append((title, *row(result)[1:]))
            title = ""
    return ordered


def show(results: Sequence[Result], title: str) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number < 3 else "right")
    for line in rows(results):
        table.add_row(*line, end_section=False)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for result in results:
        if result.failure:
            print(f"{result.contender} on {result.library}: {result.failure}", file=sys.stderr)


def markdown(results: Sequence[Result]) -> str:
    """The table for the README."""
    lines = [" | ".join(HEADINGS), " | ".join("---" if n < 3 else "--:" for n in range(8))]
    lines += [" | ".join(line) for line in rows(results)]
    return "".join(f"| {line} |\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library", nargs="*", metavar="LIBRARY[:PROFILE[:TARGET]]")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    args = parser.parse_args(argv)
    wanted = list(LIBRARIES)
    if args.library:
        words = [[*text.split(":"), "", ""][:3] for text in args.library]
        wanted = [(name, profile or "release", target) for name, profile, target in words]
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="strip-hook-bench-") as folder:
        for name, profile, target in wanted:
            print(f"measuring {name}, {profile} {target}", file=sys.stderr, flush=True)
            library = locate(name, profile, target, Path(folder))
            results += measure(library, args.rounds, Path(folder))
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    here, used = machine(), versions()
    title = f"{date}, {here['processor']}, {here['processors']} processors"
    if args.json:
        report = {
            "date": date,
            "machine": here,
            "versions": used,
            "rounds": args.rounds,
            "results": [asdict(r) for r in results],
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        print(f"{title}; " + ", ".join(used.values()) + "\n")
        print(markdown(results), end="")
    else:
        show(results, title)
    return 1 if any(r.failure for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
