"""Which of several definitions a library keeps, against what linkers take from the original."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from cargo_strip_hook.analysis.linkers import differences
from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.core.errors import LinkError, StripHookError, VerifyError
from cargo_strip_hook.core.requests import (
    Engine,
    Granularity,
    PrelinkRequest,
    PrelinkResult,
    Slice,
    Strip,
)
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.engines.system import SystemEngine
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import loading_kit as kit
from tests.formats.native_kit import archive, link, output, tool
from tests.tools import need

LINUX, ANDROID = "x86_64-unknown-linux-gnu", "x86_64-linux-android"


@cache
def _linker(name: str) -> str:
    return need({"bfd": "ld.bfd", "gold": "ld.gold", "lld": "ld.lld-22", "mold": "mold"}[name])


def _said(linker: str, inputs: Sequence[Path], out: Path) -> str | None:
    """What the program writes; None where the linker does not make one."""
    words = [_linker(linker), "-o", out, *inputs]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        return None
    return subprocess.run([out], capture_output=True, check=True, encoding="ascii").stdout


def make(
    library: Path,
    output: Path,
    exports: tuple[str, ...],
    triple: str,
    granularity: Granularity = Granularity.CLASS,
    engine: Engine | None = None,
) -> PrelinkResult:
    target = Target.parse(triple)
    request = PrelinkRequest(
        Slice(library), output, target, exports, Strip.DEBUGINFO, granularity, b"marker"
    )
    return (engine or NativeEngine()).prelink(request)


def verified(
    library: Path, output: Path, exports: tuple[str, ...], triple: str, made: PrelinkResult
) -> None:
    expectation = Expectation(
        Target.parse(triple),
        exports,
        Strip.DEBUGINFO,
        made.link_map,
        b"marker",
        covers_debug=made.covers_debug,
    )
    verify(library, output, expectation)


def _objects(tmp_path_factory: pytest.TempPathFactory, *flags: str) -> Path:
    folder = tmp_path_factory.mktemp("members")
    kit.compile_all(folder, kit.sources(1), *flags)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _objects(tmp_path_factory)


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _objects(tmp_path_factory, "-ffunction-sections", "-fdata-sections")


COUNT = 400 if os.environ.get("STRIP_HOOK_TESTS") == "all" else 60


@pytest.mark.parametrize("layout", ["whole", "sections"])
def test_the_definitions_are_those_that_linkers_take(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str
) -> None:
    folder = request.getfixturevalue(layout)
    agreed = differed = caught = 0
    for n, drawn in enumerate(kit.draw(len(layout), kit.sources(1), COUNT)):
        library = archive(tmp_path / f"l{n}.a", [folder / f"{m}.o" for m in drawn.members])
        program, out = tmp_path / "program", tmp_path / f"r{n}.a"
        from_original = {
            name: _said(name, kit.program(folder, drawn, library), program)
            for name in ("bfd", "gold", "lld", "mold")
        }
        for triple, linker in ((LINUX, "bfd"), (ANDROID, "lld")):
            granularity = list(Granularity)[n % 3]
            wanted = from_original[linker]
            if wanted is None:
                with pytest.raises(LinkError):
                    make(library, out, drawn.exports, triple, granularity)
                continue
            made = make(library, out, drawn.exports, triple, granularity)
            verified(library, out, drawn.exports, triple, made)
            # by any linker: the choice was made
            for other in ("bfd", "mold"):
                assert _said(other, kit.program(folder, drawn, out), program) == wanted, drawn
        said = set(from_original.values())
        if None not in said:
            # whoever is told of no difference sees none
            with open_archive(library) as opened:
                told = differences(opened, Target.parse(LINUX), drawn.exports)
            assert told or len({_seen(one) for one in said}) == 1, drawn
        agreed, differed = agreed + (len(said) == 1), differed + (len(said) > 1)
        if None not in said and _seen(from_original["bfd"]) != _seen(from_original["lld"]):
            # the verifier knows without the engine which definition it has to be
            made = make(library, out, drawn.exports, ANDROID)
            with pytest.raises(VerifyError):
                verified(library, out, drawn.exports, LINUX, made)
            caught += 1
    assert min(agreed, differed) > COUNT // 5
    assert caught


def _seen(said: str | None) -> str:
    """What exports see, without the constructors."""
    return (said or "").partition("/")[0]


def test_the_system_engine_takes_the_same_ones(whole: Path, tmp_path: Path) -> None:
    done = 0
    for n, drawn in enumerate(kit.draw(7, kit.sources(1), COUNT // 6)):
        library = archive(tmp_path / f"l{n}.a", [whole / f"{m}.o" for m in drawn.members])
        program, out = tmp_path / "program", tmp_path / f"r{n}.a"
        wanted = _said("bfd", kit.program(whole, drawn, library), program)
        try:
            made = make(library, out, drawn.exports, LINUX, engine=SystemEngine())
        except StripHookError:
            assert wanted is None
            continue
        verified(library, out, drawn.exports, LINUX, made)
        assert _said("bfd", kit.program(whole, drawn, out), program) == wanted
        done += 1
    assert done


@pytest.mark.parametrize("wrong", ["empty", "stale", "moved"])
@pytest.mark.parametrize("engine", [NativeEngine(), SystemEngine()], ids=["native", "system"])
def test_an_index_that_is_wrong_is_not_followed(wrong: str, engine: Engine, tmp_path: Path) -> None:
    """As lld, which never looks at it."""
    texts = {
        "a": "int helper(void); int root(void) { return helper(); }",
        "b": "int helper(void) { return 3; }",
        "c": "int moved(void) { return 4; }",
    }
    kit.compile_all(tmp_path, texts)
    library, ar = tmp_path / "lib.a", need("ar")
    if wrong == "empty":
        tool([ar, "rcs", library])
        tool([ar, "qS", library, tmp_path / "a.o", tmp_path / "b.o"])
    elif wrong == "stale":
        tool([ar, "rcs", library, tmp_path / "a.o"])
        tool([ar, "qS", library, tmp_path / "b.o"])
    else:  # the index says that the second member defines `moved`
        (tmp_path / "b.o").rename(tmp_path / "new.o")
        (tmp_path / "c.o").rename(tmp_path / "b.o")
        tool([ar, "rcs", library, tmp_path / "a.o", tmp_path / "b.o"])
        (tmp_path / "new.o").rename(tmp_path / "b.o")
        tool([ar, "rS", library, tmp_path / "b.o"])
    out = tmp_path / "out.a"
    made = make(library, out, ("root",), LINUX, engine=engine)
    verified(library, out, ("root",), LINUX, made)
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\nint root(void); int main(void) { printf("%d", root()); }'
    )
    for linker in ("bfd", "lld"):
        assert output(link(tmp_path / "p", [tmp_path / "main.c", out], linker)) == "3"
