"""Measures a set of libraries that share code: eight published GStreamer plugins of one build.

``python benchmarks/sets.py [--rounds N] [--libraries DIR] [--json FILE] [--markdown]``

The plugins are those of `tests/consumers/crates/plugins`, built by cargo (minutes, once), or the
libgst*.a of a folder; its liball.a is one crate that depends on all. Each way to ship them is done
as a whole, in processes of its own: each library stripped alone, the set shared, joined, and that
one crate stripped. Then C programs that register all, five small ones, and one of the plugins are
linked with ``--gc-sections``. Needs GStreamer's development files.

Time is wall time; memory is the largest resident set of any process; a program's size is what
`size` says that is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import Contender, machine, ours, output_of, run_once, versions

ROOT = Path(__file__).resolve().parents[1]
CRATE = ROOT / "tests" / "consumers" / "crates" / "plugins"
SMALL = ("fallbackswitch", "json", "livesync", "textwrap", "togglerecord")
PLUGINS = (*SMALL, "regex", "rsrtp", "threadshare")
PROGRAMS = (("all", PLUGINS), ("five", SMALL), ("one", ("textwrap",)))
PACKAGES = (
    *("gstreamer-1.0", "gstreamer-base-1.0", "gstreamer-audio-1.0", "gstreamer-video-1.0"),
    *("gstreamer-net-1.0", "gstreamer-rtp-1.0", "gio-2.0"),
)


@dataclass(frozen=True)
class Way:
    """One way to ship a set: what is run, and what comes of it. `last` is linked behind it all."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    libraries: dict[str, Path]
    last: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        """Every file of the set."""
        return [*self.libraries.values(), *self.last]


@dataclass(frozen=True)
class Result:
    """Sizes and memory in bytes; `programs` by their names."""

    way: str
    files: int
    programs: dict[str, int]
    seconds: tuple[float, ...]
    peak: int


def build() -> Path:
    """Build the plugins; the folder with their libraries."""
    sys.path.insert(0, str(ROOT))
    from tests.fixtures import CACHE

    target = CACHE / "plugins"
    argv = ["cargo", "build", "--release", "--examples", "--locked", "--target-dir", str(target)]
    subprocess.run(argv, cwd=CRATE, check=True)
    return target / "release" / "examples"


def locate(folder: Path) -> dict[str, Path]:
    """The library of each plugin; "all" is that of the crate with all of them, where it is."""
    found = {}
    for name in (*PLUGINS, "all"):
        for path in (folder / f"libgst{name}.a", folder / f"lib{name}.a"):
            if path.is_file():
                found[name] = path
    lacking = set(PLUGINS) - found.keys()
    if lacking:
        sys.exit(f"{folder} has no library of {', '.join(sorted(lacking))}")
    return found


def ways(found: dict[str, Path], scratch: Path) -> list[Way]:
    """All ways; each writes into a folder of its own."""
    options = ("--preset", "gst", "--strip", "symbols", "-q")
    folders = {name: scratch / name for name in ("alone", "shared", "joined", "crate")}
    for folder in folders.values():
        folder.mkdir()
    originals = [str(found[name]) for name in PLUGINS]

    def small(folder: str) -> dict[str, Path]:
        return {name: folders[folder] / found[name].name for name in PLUGINS}

    alone = small("alone")
    strip = [
        (*ours(), "strip", str(found[name]), *options, "-o", str(alone[name])) for name in PLUGINS
    ]
    common = folders["shared"] / "libcommon.a"
    out = ("--common", str(common), "-o", str(folders["shared"]))
    share = (*ours(), "share", *originals, *options, *out)
    joined = folders["joined"] / "libjoined.a"
    join = (*ours(), "join", *originals, *options, "-o", str(joined))
    made = [
        Way("each stripped alone", tuple(strip), alone),
        Way("shared", (share,), small("shared"), (common,)),
        Way("joined", (join,), {}, (joined,)),
    ]
    if "all" in found:
        one = folders["crate"] / "liball.a"
        command = (*ours(), "strip", str(found["all"]), *options, "-o", str(one))
        made.append(Way("one crate with all", (command,), {}, (one,)))
    return made


def program(way: Way, plugins: Sequence[str], scratch: Path) -> int:
    """Link a program that registers plugins; how much of it is loaded."""
    source, out = scratch / "program.c", scratch / "program"
    names = [f"gst_plugin_{name}_register" for name in plugins]
    declared = "".join(f"void {name}(void);\n" for name in names)
    calls = "".join(f"    {name}();\n" for name in names)
    text = f"#include <gst/gst.h>\n{declared}int main(int n, char **words) {{\n"
    source.write_text(f"{text}    gst_init(&n, &words);\n{calls}    return 0;\n}}\n")
    flags = output_of(["pkg-config", "--cflags", "--libs", *PACKAGES]).split()
    inputs = [path for name, path in way.libraries.items() if name in plugins]
    argv: list[str | Path] = [
        "cc",
        source,
        *inputs,
        *way.last,
        *flags,
        "-lm",
        "-Wl,--gc-sections",
        "-o",
        out,
    ]
    output_of(argv)
    output_of([out], {"GST_REGISTRY": str(scratch / "registry"), "GST_REGISTRY_FORK": "no"})
    return int(output_of(["size", out]).splitlines()[1].split()[3])


def measure(way: Way, rounds: int, scratch: Path) -> Result:
    """Run all commands of a way, several times, and link the programs."""
    seconds, peak = [], 0
    for _ in range(rounds):
        for path in way.files:
            path.unlink(missing_ok=True)
        # none of the files is the one output of such a contender: there are several
        contender = Contender(way.name, False, way.commands, scratch / "no-such-file")
        spent, used, failure = run_once(contender, scratch)
        if failure:
            sys.exit(f"{way.name}: {failure}")
        seconds.append(spent)
        peak = max(peak, used)
    files = sum(path.stat().st_size for path in way.files)
    programs = {name: program(way, plugins, scratch) for name, plugins in PROGRAMS}
    return Result(way.name, files, programs, tuple(seconds), peak)


def rows(original: int, results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The table; sizes in MB."""
    heads = ("eight GStreamer plugins", "files", *(f"program: {n}" for n, _ in PROGRAMS))
    lines = [(*heads, "time min", "memory"), ("as built", f"{original / 1e6:.1f}", *[""] * 5)]
    for one in results:
        sizes = (f"{one.files / 1e6:.2f}", *(f"{v / 1e6:.2f}" for v in one.programs.values()))
        lines.append((one.way, *sizes, f"{min(one.seconds):.1f} s", f"{one.peak / 1e6:.0f}"))
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="rounds that count (default: 1)")
    parser.add_argument("--libraries", type=Path, metavar="DIR", help="libraries that are built")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    args = parser.parse_args(argv)
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    found = locate(args.libraries or build())
    original = sum(found[name].stat().st_size for name in PLUGINS)
    results = []
    with tempfile.TemporaryDirectory(prefix="strip-hook-sets-") as folder:
        for way in ways(found, Path(folder)):
            print(f"measuring: {way.name}", file=sys.stderr, flush=True)
            results.append(measure(way, args.rounds, Path(folder)))
    if args.json:
        report = {"machine": machine(), "versions": versions(), "original": original}
        report["results"] = [asdict(one) for one in results]
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lines = rows(original, results)
    if args.markdown:
        lines.insert(1, ("---", *["--:"] * (len(lines[0]) - 1)))
        print("".join(f"| {' | '.join(line)} |\n" for line in lines), end="")
    else:
        widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
        for line in lines:
            print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
