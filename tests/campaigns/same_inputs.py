"""What ``tests.same_bytes`` makes results of: command lines and the files that they read.

All is seeded: the same compilers give the same inputs. A maker is a function that writes its inputs
into a folder and gives the jobs on them; `MAKERS` has all of them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns import seeds
from tests.campaigns.mutants import Campaign
from tests.campaigns.same_sources import ODD
from tests.fixtures import CACHE
from tests.formats import loading_kit, universal_kit
from tests.formats.generated import Plan, make, plans
from tests.formats.native_cases import CASES
from tests.formats.native_kit import build, tool
from tests.tools import need

STRIPS = ("debuginfo", "none", "symbols")
GRANULARITIES = ("class", "section", "whole")
COMBINATIONS = tuple(itertools.product(STRIPS, GRANULARITIES))
FORMATS = ("elf", "macho", "coff")


@dataclass(frozen=True, slots=True)
class Run:
    """One command line; `damaged`: how many damaged copies of its result the verifier sees."""

    words: tuple[str, ...]
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """Command lines that are run one after the other in a folder with `files` (name, source).

    `inputs` is the kind of input, for the summary. `linked`: the files are too large to copy, and
    no command writes to them. `apart`: the engine may be a process of its own.
    """

    name: str
    format: str
    inputs: str
    files: tuple[tuple[str, Path], ...]
    runs: tuple[Run, ...]
    linked: bool = False
    apart: bool = False


def strip(library: str, number: int, public: Sequence[str], *more: str, damaged: int = 0) -> Run:
    """A run of `strip` with the level and the granularity of that number, into `out-NUMBER.a`."""
    level, granularity = COMBINATIONS[number % len(COMBINATIONS)]
    out = f"out-{number}{'-'.join(more)}.a".replace("/", "")
    words = ("strip", library, "-o", out, "--strip", level, "--granularity", granularity, *public)
    told = ("-v", *(("--message-format=json",) if number % 2 else ()))
    return Run((*words, *more, *told), damaged)


def looks(library: str, public: Sequence[str], symbols: Sequence[str]) -> tuple[Run, ...]:
    """Runs of the commands that only look at a library; `symbols` are what `why` is asked of."""
    what = [("why", library, s, *public) for s in symbols]
    rows = (
        ("check", library, "--message-format", "json", *public),
        ("check", library),
        ("exports", library, *public),
        ("report", library, "--json"),
        ("report", library, "--top", "7", *public),
        *((*w, "--json") if n % 2 else (*w, "--all-roots") for n, w in enumerate(what)),
    )
    return tuple(Run(row) for row in rows)


def _format(target: str) -> str:
    if "windows" in target or "mingw" in target:
        return "coff"
    return "macho" if "apple" in target else "elf"


# ---- libraries of real crates


def built(_: Path, quick: bool) -> Iterator[Job]:
    """All libraries of the tests' cache: each level and granularity where they are small."""
    found = sorted(CACHE.glob("built/*/*/built.json"), key=lambda p: p.parent.parts[-2:])
    seen: set[tuple[str, str]] = set()
    for number, path in enumerate(found):
        facts = json.loads(path.read_text())
        library = path.with_name(facts["library"])
        crate = path.parts[-3].rpartition("-")[0]
        profile, _, target = path.parts[-2].partition("-")
        size = library.stat().st_size
        form = _format(target)
        if quick and (size > 5_000_000 or number % 4):
            continue
        budget = 6_000_000 if quick else 24_000_000
        count = max(1, min(9, budget // size))
        if crate in ("beta", "gamma"):  # as alpha is, but for their names
            count = 1
        files = [(library.name, library)]
        public: tuple[str, ...] = ()
        if facts["header"]:
            files.append((facts["header"], path.with_name(facts["header"])))
            public = ("--header", facts["header"], "--allow-missing")
        elif facts["cdylib"]:
            files.append((facts["cdylib"], path.with_name(facts["cdylib"])))
            public = ("--cdylib", facts["cdylib"])
        chosen = [(number * 2 + i * (9 // count)) % 9 for i in range(count)]
        harm = 1 if count > 4 else 0
        runs = [strip(library.name, n, public, damaged=harm) for n in chosen]
        runs += _more(library.name, form, number, public) if size < 26_000_000 else ()
        new = (crate, form) not in seen
        seen.add((crate, form))
        all_looks = looks(library.name, public, ("std", "core::fmt::Formatter::pad"))
        if new and size < 26_000_000 and not quick:
            runs += all_looks
        else:
            runs.append(all_looks[number % len(all_looks)])
        name = f"built/{crate}/{profile}/{target}"
        yield Job(
            name, form, "crates", tuple(files), tuple(runs), linked=True, apart=number % 5 == 0
        )


def _more(library: str, form: str, number: int, public: Sequence[str]) -> list[Run]:
    """What only some formats have."""
    if form != "elf":
        return []
    options = (
        ("--compress-debug", "zlib"),
        ("--debug-twin", "twin.a"),
        ("--engine", "system"),
        ("--compress-debug", "zstd"),
    )
    level = 3 if number % 2 == 0 else 0  # none, debuginfo
    return [strip(library, level + number % 3, public, *options[number % len(options)])]


def universal(folder: Path, quick: bool) -> Iterator[Job]:
    """Universal libraries of two crates, and an xcframework of small objects."""
    lipo = need("llvm-lipo-22", "llvm-lipo")
    for crate in ("mixed",) if quick else ("mixed", "apple", "alpha"):
        parts = sorted(CACHE.glob(f"built/{crate}-*/release-*-apple-darwin/lib*.a"))
        if len(parts) < 2:
            continue
        fat = folder / f"lib{crate}.a"
        tool([lipo, "-create", *parts, "-output", fat])
        header = next(parts[0].parent.glob("*.h"))
        public = ("--header", header.name)
        files = ((fat.name, fat), (header.name, header))
        runs = [strip(fat.name, n, public) for n in ((3,) if quick else (0, 3, 8))]
        runs += [] if quick else looks(fat.name, public, ("std",))[:4]
        yield Job(f"universal/{crate}", "macho", "crates", files, tuple(runs), linked=True)
    work = folder / "work"
    bundle = universal_kit.xcframework(folder / "t.xcframework", work)
    files = tuple((str(p.relative_to(folder)), p) for p in sorted(bundle.rglob("*")) if p.is_file())
    for level, granularity in COMBINATIONS:
        words = ("strip", bundle.name, "--strip", level, "--granularity", granularity, "-v")
        runs = [Run((*words, "-j1"), damaged=4), Run(("check", bundle.name)), Run((*words, "-j1"))]
        name = f"universal/xcframework/{level}-{granularity}"
        yield Job(name, "macho", "compiled", files, tuple(runs))


# ---- small libraries that are compiled here


def compiled(folder: Path, quick: bool) -> Iterator[Job]:
    """For each machine and kind of archive: every option, every command, and damaged results."""
    for seed in seeds.make(folder):
        if seed.kind != "library":
            continue
        place = folder / "seeds" / seed.name
        files = tuple((n, _written(place / n, d)) for n, d in seed.files)
        form = seed.name.partition("-")[0]
        form = form if form in FORMATS else "macho"
        damaged = 5 if quick else 20
        for n in range(0, 9, 2 if quick else 1):
            runs = [strip("lib.a", n, seed.exports, damaged=damaged)]
            yield Job(f"compiled/{seed.name}/{n}", form, "compiled", files, tuple(runs))
        runs = list(_variants(seed.exports))
        if quick:
            runs = runs[:3]
        yield Job(f"compiled/{seed.name}/options", form, "compiled", files, tuple(runs))
        runs = list(looks("lib.a", seed.exports, ("api_name", "inner", "outside", "shared", "c.o")))
        runs += [
            Run(("strip", "lib.a", "--strip", "none", *seed.exports)),
            Run(("strip", "lib.a", "--strip", "none", *seed.exports)),
            Run(("strip", "lib.a", "--strip", "symbols", "-o", "again.a")),
            *looks("lib.a", (), ("api_name", "inner")),
            Run(("report", "lib.a", "again.a", "--markdown")),
            Run(("report", "lib.a", "--html", "page.html")),
            Run(("check", "lib.a", "--against", "again.a", *seed.exports)),
        ]
        yield Job(f"compiled/{seed.name}/looks", form, "compiled", files, tuple(runs), apart=True)


def _variants(public: Sequence[str]) -> Iterator[Run]:
    """Every option of `strip`, where it is understood and where it is refused."""
    yield strip("lib.a", 0, public, "--debug-twin", "twin.a", damaged=10)
    yield strip("lib.a", 3, public, "--compress-debug", "zlib", damaged=10)
    for n in (0, 3, 6):
        yield strip("lib.a", n, public, "--engine", "system", damaged=5)
    yield strip("lib.a", 3, public, "--compress-debug", "zstd")
    yield strip("lib.a", 7, public, "--debug-twin", "twin-1.a", "--compress-debug", "zlib")
    yield strip("lib.a", 0, public, "--keep", "_ZT*")
    yield strip("lib.a", 1, ("--export", "api_*"))
    yield strip("lib.a", 2, ("--export", "/unused|api_c.*/"))
    yield strip("lib.a", 0, ("--export", "unused"))
    yield strip("lib.a", 0, ("--export", "not_there"))
    yield strip("lib.a", 0, ("--export", "not_there", "--export", "api_name", "--allow-missing"))
    yield strip("lib.a", 0, ("--preset", "gst"))
    yield strip("lib.a", 0, ())
    for target in ("x86_64-unknown-linux-gnu", "x86_64-pc-windows-msvc", "aarch64-apple-ios"):
        yield Run(("strip", "lib.a", "-o", f"{target}.a", "--target", target, *public))
    yield Run(("strip", "lib.a", "--dry-run", *public))


def odd(folder: Path, quick: bool) -> Iterator[Job]:
    """What compilers seldom write, for each machine."""
    clang, ar = need("clang-22", "clang"), need("llvm-ar-22", "llvm-ar")
    common = ("-ffreestanding", "-fdebug-compilation-dir=/b", "-c")
    for one in ODD:
        for number, target in enumerate(one.targets):
            place = folder / f"{one.name}-{target}"
            for name, text in one.sources.items():
                _written(place / name, text.encode())
            words = [clang, f"--target={target}", *common]
            for name in one.sources:
                flags = one.flags if not name.endswith(".s") else ()
                flags = tuple(f for f in flags if name.endswith("pp") or not f.startswith("-std"))
                tool(["env", "-C", place, *words, *flags, name])
            objects = [place / f"{name.split('.')[0]}.o" for name in one.sources]
            library = place / "lib.a"
            tool([ar, f"--format={one.form}", "rcsD", library, *objects])
            prefix = _prefix(target)
            public = tuple(w for n in one.names for w in ("--export", prefix + n))
            chosen = (number % 9, (number + 4) % 9) if quick else range(9)
            runs = [strip("lib.a", n, public, damaged=5 if quick else 12) for n in chosen]
            runs.append(strip("lib.a", number, public[:2]))
            runs += _more("lib.a", _format(target), number, public)
            runs += looks("lib.a", public, (prefix + one.names[0],))
            files = (("lib.a", library),)
            name = f"odd/{one.name}/{target}"
            yield Job(name, _format(target), "compiled", files, tuple(runs))


def _prefix(target: str) -> str:
    """What C's names begin with in objects."""
    i686 = target.startswith("i686-") and _format(target) == "coff"
    return "_" if "apple" in target or i686 else ""


def cases(folder: Path, quick: bool) -> Iterator[Job]:
    """The features that prelinkers get wrong, each for every level and granularity."""
    for number, case in enumerate(CASES):
        place = folder / case.name
        objects = _compiled(place, case.sources, case.flags, case.compiler)
        library = place / "lib.a"
        tool([need("ar"), "rcsD", library, *objects])
        public = tuple(w for e in case.exports for w in ("--export", e))
        chosen = (number % 9,) if quick else range(9)
        runs = [strip("lib.a", n, public, damaged=1 if quick else 2) for n in chosen]
        runs.append(strip("lib.a", number, public, "--engine", "system"))
        runs += looks("lib.a", public, case.exports[:1])[:: 2 if quick else 1]
        files = (("lib.a", library),)
        yield Job(f"cases/{case.name}", "elf", "compiled", files, tuple(runs))


def _compiled(
    folder: Path, sources: Mapping[str, str], flags: Sequence[str], compiler: str | None
) -> list[Path]:
    """Objects that do not tell in which folder they were compiled."""
    same = (f"-ffile-prefix-map={folder}=/b",)
    return build(folder, sources, *flags, *same, compiler=compiler)


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# ---- small libraries that are drawn at random


def programs(folder: Path, quick: bool) -> Iterator[Job]:
    """Random programs in assembly: calls, sets, groups, constructors, unwind information."""
    for number, plan in enumerate(drawn_plans(60 if quick else 400)):
        program = make(plan)
        place = folder / str(number)
        place.mkdir()
        for name, text in program.sources.items():
            (place / name).write_text(text)
        objects = [place / f"{Path(name).stem}.o" for name in program.sources]
        for name, out in zip(program.sources, objects, strict=True):
            tool([need("as"), "-o", out, place / name])
        library = place / "lib.a"
        tool([need("ar"), "rcsD", library, *objects])
        public = tuple(w for e in program.exports for w in ("--export", e))
        runs = [strip("lib.a", number, public), strip("lib.a", number * 5 + 3, public)]
        if number % 10 == 0:
            runs += looks("lib.a", public, program.functions[:2])
        files = (("lib.a", library),)
        yield Job(f"programs/{number}", "elf", "drawn", files, tuple(runs))


def drawn_plans(count: int) -> list[Plan]:
    """The first plans that hypothesis draws, always the same."""
    from hypothesis import HealthCheck, Phase, given, settings

    drawn: list[Plan] = []
    quiet = settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )

    def draw(plan: Plan) -> None:
        drawn.append(plan)

    quiet(given(plan=plans())(draw))()
    return drawn[:count]


_LOADING = (
    # target, archive's format, flags; what makes a definition weak where there is only data
    ("x86_64-linux-gnu", "gnu", ("-fno-pic", "-fcommon"), ""),
    ("x86_64-linux-gnu", "bsd", ("-fPIC", "-ffunction-sections", "-fdata-sections", "-g"), ""),
    ("x86_64-linux-android", "gnu", ("-fPIC", "-ffunction-sections", "-fdata-sections"), ""),
    ("i686-linux-gnu", "gnu", ("-fcommon", "-ffunction-sections"), ""),
    ("aarch64-linux-gnu", "gnu", ("-fcommon", "-fdata-sections"), ""),
    ("s390x-linux-gnu", "gnu", ("-fPIC", "-ffunction-sections"), ""),
    ("thumbv7-linux-gnueabihf", "gnu", ("-ffunction-sections", "-fdata-sections", "-g"), ""),
    ("arm64-apple-macos13", "darwin", ("-fcommon", "-g"), ""),
    ("x86_64-apple-macos13", "darwin", ("-fcommon",), ""),
    ("arm64-apple-macos13", "darwin", ("-fcommon",), "__attribute__((weak))"),
    ("x86_64-pc-windows-msvc", "coff", ("-ffunction-sections",), "__declspec(selectany)"),
    ("i686-pc-windows-msvc", "coff", ("-g", "-gcodeview"), "__declspec(selectany)"),
    ("aarch64-pc-windows-msvc", "coff", ("-ffunction-sections",), "__declspec(selectany)"),
    ("x86_64-w64-windows-gnu", "gnu", ("-fcommon", "-g"), "__declspec(selectany)"),
)


def loading(folder: Path, quick: bool) -> Iterator[Job]:
    """Members that define the same names: which are loaded, and whose definition counts."""
    count = 20 if quick else 150
    for row, (target, form, flags, weak) in enumerate(_LOADING):
        if quick and row % 3:
            continue
        place = folder / str(row)
        if weak:
            texts = loading_kit.data_sources(row, weak, commons="-fcommon" in flags)
            drawn = loading_kit.draw_data(row, texts, count)
        else:
            texts = loading_kit.sources(row)
            drawn = loading_kit.draw(row, texts, count)
        texts = {n: t for n, t in texts.items() if n.startswith("m") and n != "main"}
        same = (f"--target={target}", "-fdebug-compilation-dir=/b", "-ffreestanding")
        clang = str(need("clang-22", "clang"))
        loading_kit.compile_all(place, texts, *same, *flags, compiler=clang)
        prefix = _prefix(target)
        libraries = _archives(place, form, [d.members for d in drawn])
        for n, (one, library) in enumerate(zip(drawn, libraries, strict=True)):
            public = tuple(w for e in one.exports for w in ("--export", prefix + e))
            runs = [strip("lib.a", n, public, damaged=1)]
            if n % 10 == 0:
                runs += looks("lib.a", public, (prefix + one.exports[0],))
            files = (("lib.a", library),)
            name = f"loading/{row}-{target}/{n}"
            yield Job(name, _format(target), "drawn", files, tuple(runs))


def _archives(folder: Path, form: str, chosen: Iterable[Sequence[str]]) -> list[Path]:
    """A library of each choice of members."""
    ar = need("llvm-ar-22", "llvm-ar")

    def archive(number: int, members: Sequence[str]) -> Path:
        out = folder / f"{number}.a"
        tool([ar, f"--format={form}", "rcsD", out, *(folder / f"{m}.o" for m in members)])
        return out

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(archive, itertools.count(), chosen))


# ---- damaged inputs


def damaged(folder: Path, quick: bool) -> Iterator[Job]:
    """Damaged libraries, headers, lists and property lists: what is said of them."""
    (folder / "seeds").mkdir()
    campaign = Campaign("same", seeds.make(folder / "seeds"))
    for number in range(400 if quick else 4000):
        mutant = campaign.mutant(number)
        if mutant.seed.kind == "toml":  # no command reads these
            continue
        place = folder / str(number)
        sources = [(n, d if i else mutant.data) for i, (n, d) in enumerate(mutant.seed.files)]
        files = tuple((n, _written(place / n, d)) for n, d in sources)
        form = mutant.seed.name.partition("-")[0]
        form = form if form in FORMATS and mutant.seed.kind == "library" else "others"
        runs = (Run(mutant.argv),)
        name = f"damaged/{number}"
        yield Job(name, form, "damaged", files, runs, apart=not mutant.alone)


Maker = Callable[[Path, bool], Iterator[Job]]
MAKERS: dict[str, Maker] = {
    "compiled": compiled,
    "odd": odd,
    "cases": cases,
    "programs": programs,
    "loading": loading,
    "damaged": damaged,
    "universal": universal,
    "built": built,
}
