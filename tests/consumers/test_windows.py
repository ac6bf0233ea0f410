"""Rust libraries with a real std for Windows, stripped, linked and run under Wine."""

from __future__ import annotations

import re
from bisect import bisect
from functools import cache
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.verify import Expectation, verify
from tests import fixtures
from tests.consumers import windows_image as image
from tests.consumers import windows_kit as kit
from tests.consumers.expected import BEHAVIOUR_MINGW, BEHAVIOUR_MSVC, DOLBY_VISION, IMAGEQUANT
from tests.consumers.toolbox import SOURCES, command, run
from tests.fixtures import Built
from tests.targets import QUICK_WINDOWS, WINDOWS
from tests.tools import need

X64_GNU, X64_MSVC = QUICK_WINDOWS
TARGETS = [pytest.param(t, marks=pytest.mark.target(t)) for t in WINDOWS]
RUNNING = [
    pytest.param(t, linker, marks=pytest.mark.target(t))
    for t in kit.RUNNING
    for linker in (("",) if WINDOWS[t].msvc else ("bfd", "lld"))
]
NAMES = ("alpha", "beta", "gamma")
VARIANTS = [
    (Strip.NONE, Granularity.CLASS),
    (Strip.DEBUGINFO, Granularity.CLASS),
    (Strip.SYMBOLS, Granularity.CLASS),
    (Strip.SYMBOLS, Granularity.SECTION),
    (Strip.SYMBOLS, Granularity.WHOLE),
]


def strip(
    built: Built,
    folder: Path,
    exports: tuple[str, ...],
    remove: Strip = Strip.SYMBOLS,
    granularity: Granularity = Granularity.CLASS,
) -> Path:
    """The library as the engine writes it, verified."""
    folder.mkdir(parents=True, exist_ok=True)
    out, target = folder / built.library.name, Target.parse(built.target)
    request = PrelinkRequest(built.library, out, target, exports, remove, granularity, b"marked\n")
    made = NativeEngine().prelink(request)
    assert set(made.exports) == set(exports)
    link_map, beside = made.link_map, made.import_members
    expectation = Expectation(target, exports, remove, link_map, b"marked\n", import_members=beside)
    done = verify(built.library, out, expectation)
    assert done.piece_bytes > 50_000
    return out


def kept(target: str, *flags: str) -> tuple[str, ...]:
    """Flags that let the linker drop what is unused, warn of nothing, and fold nothing."""
    if WINDOWS[target].msvc:
        return ("/opt:ref,noicf", *flags)
    return ("-Wl,--gc-sections", *flags)


def strict(target: str) -> str:
    return "/wx" if WINDOWS[target].msvc else "-Wl,--fatal-warnings"


def behaviour(target: str, folder: Path) -> list[Path]:
    includes = [f"-I{h.parent}" for h in kit.HEADERS]
    return [kit.compile(target, kit.HERE / "behaviour.c", folder, *includes)]


@pytest.mark.parametrize(("target", "linker"), RUNNING)
def test_the_program_does_the_same(target: str, linker: str, tmp_path: Path) -> None:
    built = kit.built_for("windows", target)
    objects = behaviour(target, tmp_path)
    # GNU ld and lld drop the original's sets of elements with --gc-sections
    flags = kept(target) if WINDOWS[target].msvc else ()
    original = tmp_path / "original.exe"
    first, _ = kit.link(target, objects, [built.library], original, *flags, linker=linker)
    before = kit.output(target, first, "a", "b")
    assert before == (BEHAVIOUR_MSVC if WINDOWS[target].msvc else BEHAVIOUR_MINGW)
    for remove, granularity in VARIANTS:
        folder = tmp_path / f"{remove.value}-{granularity.value}"
        library = strip(built, folder, kit.exports(target), remove, granularity)
        for flags in (kept(target), ("/opt:noref",) if WINDOWS[target].msvc else ()):
            out = folder / f"program{len(flags)}.exe"
            linked, said = kit.link(
                target, objects, [library], out, *flags, strict(target), linker=linker
            )
            assert said.strip() == ""
            assert kit.output(target, linked, "a", "b") == before, (remove, granularity, flags)


def test_the_original_needs_the_linker_to_settle_imports(tmp_path: Path) -> None:
    """The linker warns of the original, where the stripped library leaves it nothing to settle."""
    built = kit.built_for("windows", X64_MSVC)
    objects = behaviour(X64_MSVC, tmp_path)
    _, said = kit.link(X64_MSVC, objects, [built.library], tmp_path / "program.exe")
    assert "LNK4217" in said


LINKED = [
    pytest.param(t, linker, marks=pytest.mark.target(t))
    for t, w in WINDOWS.items()
    if w.wine != "wine64"
    for linker in (("",) if w.msvc else ("bfd", "lld"))
]


@pytest.mark.parametrize(("target", "linker"), LINKED)
def test_programs_that_do_not_run_here_are_the_same(
    target: str, linker: str, tmp_path: Path
) -> None:
    """Function by function, unwind data included."""
    built = kit.built_for("windows", target)
    objects = behaviour(target, tmp_path)
    library = strip(built, tmp_path / "stripped", kit.exports(target), Strip.NONE)
    flags = ("/opt:ref,noicf", "/debug:symtab") if WINDOWS[target].msvc else ()
    before, _ = kit.link(
        target, objects, [built.library], tmp_path / "old.exe", *flags, linker=linker
    )
    after, said = kit.link(
        target, objects, [library], tmp_path / "new.exe", *flags, strict(target), linker=linker
    )
    assert said.strip() == ""
    shared = frozenset(image.code(before)) & frozenset(image.code(after))
    old, new = image.code(before, shared), image.code(after, shared)
    if not WINDOWS[target].msvc:  # of the runtime not all functions have names
        shared = frozenset(n for n in shared if n.startswith(("__R", "_bhv_", "@bhv_")))
    assert set(kit.exports(target)) - {"_bhv_c_common"} - image.variables(before) <= shared
    assert len(shared) > 800
    # jump tables of x86, and what fills the room behind a function, may be taken for code
    exact = target.startswith("aarch64")
    for name in sorted(shared):
        size = min(len(old[name]), len(new[name]))
        assert old[name][:size] == new[name][:size], name
        assert not exact or len(old[name]) == len(new[name]), name
    if exact:
        one, two = image.unwinding(before), image.unwinding(after)
        both = one.keys() & two.keys()
        assert len(both) > 600
        assert {n: one[n] for n in both} == {n: two[n] for n in both}


# Three libraries in one program


@cache
def _three(target: str) -> list[Built]:
    return [kit.built_for(name, target) for name in NAMES]


def three(target: str, folder: Path, *flags: str) -> list[Path]:
    includes = [f"-I{b.header.parent}" for b in _three(target) if b.header]
    return [kit.compile(target, kit.HERE / "lookup.c", folder, *includes, *flags)]


def own(built: Built, target: str) -> tuple[str, ...]:
    assert built.header
    return kit.exports(target, [built.header])


def report(names: tuple[str, ...]) -> str:
    """Each has run its own hook twice, bumped its own counter, and sees one element."""
    lines = []
    for name in names:
        lines += [f"{name} hooked before: 0", f"{name} panic: 20", f"{name} panic: 30"]
        lines += [f"{name} hooked: 2", f"{name} bumps: 1", f"{name} items: 1"]
        lines += [f"{name} std: PATH"]
    lines += [f"{name} unwinds: 1" for name in names for _ in range(2)]
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(("target", "linker"), RUNNING)
def test_two_and_three_libraries_each_run_their_own_copy(
    target: str, linker: str, tmp_path: Path
) -> None:
    for remove in (Strip.DEBUGINFO, Strip.SYMBOLS):
        libraries = [
            strip(b, tmp_path / f"{remove.value}-{b.name}", own(b, target), remove)
            for b in _three(target)
        ]
        for count, defines in ((2, ["-DWITHOUT_GAMMA"]), (3, [])):
            objects = three(target, tmp_path / str(count), *defines)
            for number, flags in enumerate((kept(target), ())):
                out = tmp_path / f"{remove.value}-{count}-{number}.exe"
                flags = (*flags, strict(target))
                program, said = kit.link(
                    target, objects, libraries[:count], out, *flags, linker=linker
                )
                assert said.strip() == ""
                text = re.sub(r"std: \S*time\.rs", "std: PATH", kit.output(target, program))
                assert text == report(NAMES[:count])


@pytest.mark.parametrize(("target", "linker"), LINKED)
def test_two_and_three_libraries_each_bring_their_own_copy(
    target: str, linker: str, tmp_path: Path
) -> None:
    """Where nothing runs: the functions are those of the originals, std is there for each."""
    stripped = [strip(b, tmp_path / b.name, own(b, target), Strip.NONE) for b in _three(target)]
    originals = [b.library for b in _three(target)]
    flags = ("/opt:ref,noicf", "/debug:symtab") if WINDOWS[target].msvc else ()
    for count, defines in ((2, ["-DWITHOUT_GAMMA"]), (3, [])):
        objects = three(target, tmp_path / str(count), *defines, "-DWITHOUT_ITEMS")
        old, new = tmp_path / f"old{count}.exe", tmp_path / f"new{count}.exe"
        before, _ = kit.link(target, objects, originals[:count], old, *flags, linker=linker)
        after, said = kit.link(
            target, objects, stripped[:count], new, *flags, strict(target), linker=linker
        )
        assert said.strip() == ""
        names = run(need("llvm-nm-22", "llvm-nm"), "--format=just-symbols", after).stdout.split()
        hook = re.compile(r"_?_RNvNtCs\w+_3std9panicking12default_hook(\.llvm\.\d+)?")
        hooks = [n for n in names if hook.fullmatch(n)]
        assert len(hooks) == count
        shared = frozenset(image.code(before)) & frozenset(image.code(after))
        one, two = image.code(before, shared), image.code(after, shared)
        mine = sorted(n for n in shared if any(name in n for name in NAMES))
        wanted = {n for b in _three(target)[:count] for n in own(b, target) if "items" not in n}
        assert wanted - image.variables(before) <= set(mine)
        for name in mine:
            size = min(len(one[name]), len(two[name]))
            assert size
            assert one[name][:size] == two[name][:size], name
        if target.startswith("aarch64"):
            entries, others = image.unwinding(before), image.unwinding(after)
            both = entries.keys() & set(mine)
            assert len(both) > 5 * count
            assert {n: entries[n] for n in both} == {n: others.get(n) for n in both}


@pytest.mark.parametrize(("target", "linker"), [*RUNNING, *LINKED[-1:]])
def test_originals_collide(target: str, linker: str, tmp_path: Path) -> None:
    """The second binds to the std of the first without a word; taken whole, they do not link."""
    originals = [b.library for b in _three(target)][:2]
    objects = three(target, tmp_path, "-DWITHOUT_GAMMA", "-DWITHOUT_ITEMS")
    program, _ = kit.link(target, objects, originals, tmp_path / "two.exe", linker=linker)
    whole = ["-Wl,--whole-archive"]
    if WINDOWS[target].msvc:
        whole = [f"/wholearchive:{path}" for path in originals]
    with pytest.raises(AssertionError, match=r"duplicate symbol|multiple definition"):
        kit.link(target, objects, originals, tmp_path / "whole.exe", *whole, linker=linker)
    if WINDOWS[target].wine:
        said = kit.output(target, program)
        assert "alpha hooked: 0\n" in said
        assert "beta hooked before: 3\n" in said


# Published crates


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("imagequant-sys", "imagequant.c", IMAGEQUANT),
        ("dolby_vision", "dolby_vision.c", DOLBY_VISION),
    ],
)
@pytest.mark.parametrize("target", QUICK_WINDOWS)
def test_published_crates(
    name: str, source: str, expected: str, target: str, tmp_path: Path
) -> None:
    built = kit.built_for(name, target)
    header = fixtures.library(name).header
    assert header
    include = f"-I{header.parent}"
    objects = [kit.compile(target, SOURCES / source, tmp_path, include)]
    original, _ = kit.link(target, objects, [built.library], tmp_path / "original.exe")
    assert kit.output(target, original) == expected
    out = tmp_path / "stripped" / built.library.name
    out.parent.mkdir()
    command("strip", built.library, "--header", header, "--target", target, "-o", out)
    flags = (*kept(target), strict(target))
    program, said = kit.link(target, objects, [out], tmp_path / "program.exe", *flags)
    assert said.strip() == ""
    assert kit.output(target, program) == expected


# What tools say of a result


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("remove", Strip)
def test_readers_have_no_complaint(target: str, remove: Strip, tmp_path: Path) -> None:
    built = kit.built_for("windows", target)
    library = strip(built, tmp_path, kit.exports(target), remove)
    readers: list[tuple[str | Path, ...]] = [
        (need("llvm-readobj-22", "llvm-readobj"), "--all", "--codeview"),
        (need("llvm-objdump-22", "llvm-objdump"), "-x", "-d", "-r"),
        (need("llvm-nm-22", "llvm-nm"), "--print-armap"),
    ]
    if WINDOWS[target].gnu:
        readers.append((need(f"{WINDOWS[target].gnu}-objdump"), "-x", "-d"))
        readers.append((need(f"{WINDOWS[target].gnu}-nm"), "--print-armap"))
    for argv in readers:
        done = run(*argv, library)
        assert not done.stderr, argv
        assert not re.search(r"^[^ ]*: (warning|error):", done.stdout, re.M), argv


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_does_it_from_the_headers(target: str, tmp_path: Path) -> None:
    built = kit.built_for("windows", target)
    out = tmp_path / built.library.name
    headers = [word for header in kit.HEADERS for word in ("--header", header)]
    command("strip", built.library, *headers, "--target", target, "-o", out)
    said = run(need("llvm-nm-22", "llvm-nm"), "-g", "--defined-only", "--format=just-symbols", out)
    names = {n for n in said.stdout.split() if not n.endswith((":", ".o"))}
    imports = {n for n in names if n.startswith("__imp_") or "IMPORT_DESCRIPTOR" in n}
    assert names - imports >= set(kit.exports(target))
    first = run(need("llvm-ar-22", "llvm-ar"), "t", out).stdout.splitlines()[0]
    alone = tmp_path / "alone.o"
    alone.write_bytes(kit.member(out, first))
    said = run(need("llvm-nm-22", "llvm-nm"), "-g", "--defined-only", alone)
    lines = [line.split() for line in said.stdout.splitlines()]
    strong = sorted(words[-1] for words in lines if words[-2] not in "wW")
    assert strong == list(kit.exports(target))


FUNCLET = r"\?(?:dtor|catch)\$\d+@\?0\?(.*)@4HA"


def _functions(library: Path, storage: str = "Static") -> list[tuple[int, int, str]]:
    """Section number, address and name of each function of the object, sorted."""
    said = run(need("llvm-readobj-22", "llvm-readobj"), "--symbols", library).stdout
    found = []
    for symbol in said.split("\nFile: ")[1].split("\n  Symbol {\n")[1:]:
        name, value, section = re.findall(r"^    (?:Name|Value|Section): (.*)$", symbol, re.M)
        place = re.search(r"\((\d+)\)$", section)
        if "ComplexType: Function" in symbol and f"StorageClass: {storage}" in symbol and place:
            found.append((int(place[1]), int(value), name))
    return sorted(found)


def _shown(rows: list[tuple[int, int, str]], prefix: str) -> list[tuple[int, int, str]]:
    """As LLVM's demangler shows the names, without what ThinLTO put behind them; sorted."""
    plain = [re.sub(r"\.llvm\.\d+$", "", row[2].removeprefix(prefix)) for row in rows]
    tool = need("llvm-cxxfilt-22", "llvm-cxxfilt")
    names = run(tool, stdin="".join(f"{name}\n" for name in plain)).stdout.splitlines()
    return sorted((*row[:2], name) for row, name in zip(rows, names, strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_short_names_are_shown_like_the_long_ones(target: str, tmp_path: Path) -> None:
    built = kit.built_for("windows", target)
    long, short = (
        _functions(strip(built, tmp_path / s.value, kit.exports(target), s))
        for s in (Strip.NONE, Strip.DEBUGINFO)
    )
    funclets = {row: match[1] for row in long if (match := re.fullmatch(FUNCLET, row[2]))}
    kept = [row for row in long if row not in funclets]
    exported = _functions(tmp_path / "none" / built.library.name, "External")
    assert len(kept) > 400
    prefix = "_" if target.startswith("i686") else ""
    shown = _shown(kept, prefix)
    assert sum("::" in name for *_, name in shown) > 300
    # of several names of one place one is left
    found = _shown(short, prefix)
    assert set(found) <= set(shown)
    left = [row[:2] for row in found]
    assert len(set(left)) == len(left)
    assert {*left} | {row[:2] for row in exported} >= {row[:2] for row in kept}
    sizes = [sum(len(row[2]) for row in rows) for rows in (kept, short)]
    assert sizes[1] < 0.85 * sizes[0]
    # an address in a funclet is one of its function's
    if WINDOWS[target].msvc:
        assert len(funclets) > 50
    named = sorted([*kept, *exported])
    at: dict[tuple[int, int], set[str]] = {}
    for section, value, name in named:
        at.setdefault((section, value), set()).add(re.sub(r"@\d+$", "", name))
    for (section, value, _), function in funclets.items():
        before = named[bisect(named, (section, value, "")) - 1]
        assert before[0] == section
        assert {function, prefix + function} & at[before[:2]]


@pytest.mark.parametrize("granularity", Granularity)
def test_the_same_bytes_twice(granularity: Granularity, tmp_path: Path) -> None:
    built = kit.built_for("windows", X64_MSVC)
    exports = kit.exports(X64_MSVC)
    results = [
        strip(built, tmp_path / n, exports, granularity=granularity).read_bytes() for n in "ab"
    ]
    assert results[0] == results[1]


# Sizes


def _program(
    target: str, objects: list[Path], library: Path, out: Path, linker: str, *flags: str
) -> int:
    """The size of a program without its symbols, from which the unused was dropped."""
    flags = (*kept(target), *flags) if WINDOWS[target].msvc else (*kept(target), "-s", *flags)
    return kit.link(target, objects, [library], out, *flags, linker=linker)[0].stat().st_size


@pytest.mark.parametrize(("target", "linker"), [(X64_GNU, "bfd"), (X64_GNU, "lld"), (X64_MSVC, "")])
@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("windows", kit.HERE / "behaviour.c"),
        ("imagequant-sys", SOURCES / "imagequant.c"),
        ("imagequant-sys", SOURCES / "one_imagequant.c"),
        ("alpha", SOURCES / "one_alpha.c"),
    ],
)
def test_programs_are_no_larger(
    name: str, source: Path, target: str, linker: str, tmp_path: Path
) -> None:
    built = kit.built_for(name, target)
    assert built.header
    headers = kit.HEADERS if name == "windows" else (built.header,)
    objects = [kit.compile(target, source, tmp_path, *(f"-I{h.parent}" for h in headers))]
    before = _program(target, objects, built.library, tmp_path / "a.exe", linker)
    declared = [word for header in headers for word in ("--header", header)]
    for granularity in (Granularity.CLASS, Granularity.SECTION):
        library = tmp_path / granularity.value / built.library.name
        library.parent.mkdir()
        words = ("--target", target, "--granularity", granularity.value, "-o", library)
        command("strip", built.library, *declared, *words)
        after = _program(target, objects, library, tmp_path / "b.exe", linker)
        assert after <= before * 1.02, (granularity, before, after)


# × the stripped DLL of the same crate
LIMITS = [(Strip.DEBUGINFO, 1.5), (Strip.SYMBOLS, 1.35)]


@pytest.mark.parametrize(("remove", "limit"), LIMITS)
@pytest.mark.parametrize("target", QUICK_WINDOWS)
def test_it_is_small(target: str, remove: Strip, limit: float, tmp_path: Path) -> None:
    built = kit.built_for("windows", target)
    exports = kit.exports(target)
    library = strip(built, tmp_path, exports, remove)
    floor = kit.shared(target, built.library, exports, tmp_path / "windows.dll").stat().st_size
    assert library.stat().st_size <= limit * floor


@pytest.mark.parametrize(("remove", "limit"), LIMITS)
@pytest.mark.parametrize("name", ["imagequant-sys", "dolby_vision"])
@pytest.mark.parametrize("target", QUICK_WINDOWS)
def test_published_crates_are_small(
    target: str, name: str, remove: Strip, limit: float, tmp_path: Path
) -> None:
    library, header, floor = kit.measured(name, target, tmp_path)
    out = tmp_path / "out" / library.name
    out.parent.mkdir()
    words = ("--target", target, "--strip", remove.value)
    command("strip", library, "--header", header, *words, "-o", out)
    assert out.stat().st_size <= limit * floor
