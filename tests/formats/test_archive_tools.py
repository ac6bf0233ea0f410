"""Archives made by real tools are read, and archives of ours are taken by real tools."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from cargo_strip_hook.archive import Archive, Dialect, NewMember, open_archive, write_archive
from tests.tools import need

LONG_NAME = "a_rather_long_name_of_it.o"
SOURCES = {
    "a.o": "int foo(void) { return 3; } int foo2(void) { return 3; }",
    LONG_NAME: "int bar(void) { return 4; } int common_one = 1;",
    "c.o": "int foo(void) { return 5; } int baz(void) { return 5; }",
}
MAIN = "int foo(void), bar(void); int main(void) { return foo() + bar() - 7; }"
INDEX = {b"foo": "a.o", b"foo2": "a.o", b"bar": LONG_NAME, b"common_one": LONG_NAME, b"baz": "c.o"}
SYMBOLS = {
    "a.o": [b"foo", b"foo2"],
    LONG_NAME: [b"bar", b"common_one"],
    "c.o": [b"foo", b"baz"],
}


def run(*argv: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(a) for a in argv], cwd=cwd, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def clang() -> Path:
    return need("clang-22", "clang")


def compiled(folder: Path, target: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in {**SOURCES, "main.o": MAIN}.items():
        file = folder / f"{name}.c"
        file.write_text(source + "\n")
        run(clang(), f"--target={target}", "-c", file, "-o", folder / name)
    return folder


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("elf"), "x86_64-linux-gnu")


@pytest.fixture(scope="module")
def macho(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("macho"), "arm64-apple-macos11")


@pytest.fixture(scope="module")
def coff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("coff"), "x86_64-pc-windows-msvc")


@dataclass(frozen=True)
class Made:
    """A format's objects and the archive that the platform wants."""

    objects: Path
    dialect: Dialect
    prefix: bytes


@pytest.fixture(params=["gnu", "bsd", "darwin", "coff"])
def made(request: pytest.FixtureRequest) -> Made:
    objects = {"gnu": "elf", "bsd": "elf", "darwin": "macho", "coff": "coff"}[request.param]
    prefix = b"_" if request.param == "darwin" else b""
    return Made(request.getfixturevalue(objects), request.param, prefix)


def check(archive: Archive, folder: Path, prefix: bytes = b"") -> None:
    """All three members with their bytes, and the index as the sources have it."""
    assert [Path(member.name).name for member in archive.members] == list(SOURCES)
    for member, name in zip(archive.members, SOURCES, strict=True):
        data, expected = bytes(archive.data(member)), (folder / name).read_bytes()
        assert data[: len(expected)] == expected
        assert data[len(expected) :].strip(b"\n") == b""
        if archive.dialect != "darwin":
            assert len(data) == len(expected)
    symbols = archive.symbols()
    assert symbols is not None
    expected_index = {prefix + symbol: list(SOURCES).index(name) for symbol, name in INDEX.items()}
    assert {name: symbols.get(name) for name in expected_index} == expected_index
    assert len(symbols) == len(expected_index)


def members_of(folder: Path, prefix: bytes = b"") -> list[NewMember]:
    members = []
    for name, symbols in SYMBOLS.items():
        data = (folder / name).read_bytes()
        chunks: list[bytes | memoryview] = [data[:100], memoryview(data)[100:]]
        members.append(NewMember(name, len(data), chunks, [prefix + s for s in symbols]))
    return members


def write(path: Path, dialect: Dialect, members: list[NewMember]) -> Path:
    with path.open("wb") as file:
        write_archive(file, dialect, members)
    return path


# reading what others write


@pytest.mark.parametrize("flags", ["rcD", "rcU", "rcsD", "qcD", "rcSD"])
def test_gnu_ar(elf: Path, tmp_path: Path, flags: str) -> None:
    library = tmp_path / "lib.a"
    run(need("ar"), flags, library, *(elf / name for name in SOURCES))
    with open_archive(library) as archive:
        assert (archive.dialect, archive.thin) == ("gnu", False)
        if "S" in flags:
            assert archive.symbols() is None
        else:
            check(archive, elf)


@pytest.mark.parametrize("ranlib", ["ranlib", "gcc-ranlib", "llvm-ranlib-22"])
def test_ranlib_adds_the_index(elf: Path, tmp_path: Path, ranlib: str) -> None:
    library = tmp_path / "lib.a"
    run(need("ar"), "rcSD", library, *(elf / name for name in SOURCES))
    run(need(ranlib, "llvm-ranlib" if "llvm" in ranlib else ranlib), library)
    with open_archive(library) as archive:
        check(archive, elf)


def test_repeated_names(elf: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib.a"
    other = tmp_path / "a.o"
    other.write_bytes((elf / "c.o").read_bytes())
    run(need("ar"), "qcD", library, elf / "a.o", other, elf / "a.o")
    with open_archive(library) as archive:
        assert [member.name for member in archive.members] == ["a.o"] * 3
        assert bytes(archive.data(archive.members[1])) == other.read_bytes()
        assert archive.symbols() == {b"foo": 0, b"foo2": 0, b"baz": 1}


@pytest.mark.parametrize("tool", ["ar", "llvm-ar-22"])
def test_thin(elf: Path, tmp_path: Path, tool: str) -> None:
    inner, library = tmp_path / "sub" / "lib.a", tmp_path / "nested.a"
    inner.parent.mkdir()
    files = [os.path.relpath(elf / name, inner.parent) for name in SOURCES]
    run(need(tool), "rcsTD", inner.name, *files, cwd=inner.parent)
    with open_archive(inner) as archive:
        assert archive.thin
        check(archive, elf)
    flags = "rcsTD" if tool == "ar" else "qcsTDL"
    run(need(tool), flags, library, inner)
    with open_archive(library) as archive:
        assert archive.thin
        check(archive, elf)


def test_thin_of_a_regular_archive(elf: Path, tmp_path: Path) -> None:
    inner, library = tmp_path / "inner.a", tmp_path / "lib.a"
    run(need("ar"), "rcD", inner, *(elf / name for name in SOURCES))
    run(need("ar"), "rcTD", library, inner)
    with open_archive(library) as archive:
        assert archive.thin
        check(archive, elf)


def test_llvm_ar(made: Made, tmp_path: Path) -> None:
    library = tmp_path / "lib.a"
    files = [made.objects / name for name in SOURCES]
    run(need("llvm-ar-22"), "rcsD", f"--format={made.dialect}", library, *files)
    with open_archive(library) as archive:
        assert archive.dialect == made.dialect
        check(archive, made.objects, made.prefix)


def test_llvm_lib(coff: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib.lib"
    # it puts them in the opposite order
    run(need("llvm-lib-22"), f"/out:{library}", *reversed(SOURCES), cwd=coff)
    with open_archive(library) as archive:
        assert archive.dialect == "coff"
        check(archive, coff)


def test_sym64_of_llvm_ar(elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "lib.a"
    monkeypatch.setenv("SYM64_THRESHOLD", "100")
    run(need("llvm-ar-22"), "rcsD", "--format=gnu", library, *(elf / name for name in SOURCES))
    assert library.read_bytes()[8:15] == b"/SYM64/"
    with open_archive(library) as archive:
        check(archive, elf)


def test_symdef_64_of_llvm_ar(macho: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "lib.a"
    monkeypatch.setenv("SYM64_THRESHOLD", "100")
    files = [macho / name for name in SOURCES]
    run(need("llvm-ar-22"), "rcsD", "--format=darwin", library, *files)
    assert b"__.SYMDEF_64" in library.read_bytes()[:100]
    with open_archive(library) as archive:
        assert archive.dialect == "darwin"
        check(archive, macho, b"_")


def test_rust_static_library(tmp_path: Path) -> None:
    (tmp_path / "lib.rs").write_text('#[no_mangle] pub extern "C" fn rust_fn() -> i32 { 7 }\n')
    run(need("rustc"), "--crate-type=staticlib", "-O", "lib.rs", "-o", "lib.a", cwd=tmp_path)
    listed = run(need("llvm-ar-22"), "t", tmp_path / "lib.a").splitlines()
    armap = dict(line.rsplit(" in ", 1) for line in reversed(armap_lines(tmp_path / "lib.a")))
    with open_archive(tmp_path / "lib.a") as archive:
        assert [member.name for member in archive.members] == listed
        symbols = archive.symbols()
        assert symbols is not None
        named = {name.decode(): archive.members[index].name for name, index in symbols.items()}
        assert named == armap
        by_member: dict[int, list[bytes]] = {}
        for symbol, index in symbols.items():
            by_member.setdefault(index, []).append(symbol)
        again = [
            NewMember(m.name, m.size, [archive.data(m)], by_member.get(m.index, []))
            for m in archive.members
        ]
        write(tmp_path / "again.a", "gnu", again)
    (tmp_path / "main.c").write_text("int rust_fn(void); int main(void) { return rust_fn(); }\n")
    run(need("cc"), "main.c", "again.a", "-o", "main", "-lpthread", "-ldl", "-lm", cwd=tmp_path)
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 7


# writing what others read


def armap_lines(library: Path) -> list[str]:
    printed = run(need("llvm-nm-22"), "--print-armap", library)
    block = printed.split("Archive map\n")[1].split("\n\n")[0]
    return [line for line in block.splitlines() if " in " in line]


def globals_of(file: Path) -> list[bytes]:
    """Global definitions in the order of the object's own table."""
    flags = ["-p", "-g", "-U", "--format=just-symbols"]
    return run(need("llvm-nm-22"), *flags, file).encode().split()


@pytest.mark.parametrize("count", [1, 3])
def test_bytes_are_those_of_llvm_ar(made: Made, tmp_path: Path, count: int) -> None:
    files = [made.objects / name for name in list(SOURCES)[:count]]
    theirs, ours = tmp_path / "theirs.a", tmp_path / "ours.a"
    run(need("llvm-ar-22"), "rcsD", f"--format={made.dialect}", theirs, *files)
    members = []
    for file in files:
        data = file.read_bytes()
        members.append(NewMember(file.name, len(data), [data], globals_of(file)))
    expected, found = theirs.read_bytes(), write(ours, made.dialect, members).read_bytes()
    if made.dialect == "gnu":
        # zeros at the end of our index align the first member, all after it is the same
        with open_archive(theirs) as archive:
            first = archive.members[0].header_offset
        shift = len(found) - len(expected)
        assert 0 <= shift < 8
        assert found[first + shift :] == expected[first:]
    else:
        assert found == expected


def test_listed_and_extracted(made: Made, tmp_path: Path) -> None:
    library = write(tmp_path / "lib.a", made.dialect, members_of(made.objects, made.prefix))
    assert run(need("llvm-ar-22"), "t", library).split() == list(SOURCES)
    run(need("llvm-ar-22"), "x", library, cwd=tmp_path)
    for name in SOURCES:
        expected = (made.objects / name).read_bytes()
        assert (tmp_path / name).read_bytes()[: len(expected)] == expected
    expected_map = [
        f"{made.prefix.decode()}{symbol.decode()} in {name}"
        for name, symbols in SYMBOLS.items()
        for symbol in symbols
    ]
    if made.dialect == "coff":  # sorted, and each name once
        expected_map = sorted(f"{symbol.decode()} in {name}" for symbol, name in INDEX.items())
    assert armap_lines(library) == expected_map


def test_gnu_tools_read_it(elf: Path, tmp_path: Path) -> None:
    library = write(tmp_path / "lib.a", "gnu", members_of(elf))
    assert run(need("ar"), "t", library).split() == list(SOURCES)
    printed = run(need("nm"), "-s", library).split("Archive index:\n")[1].split("\n\n")[0]
    assert printed.splitlines() == [
        f"{symbol.decode()} in {name}" for name, symbols in SYMBOLS.items() for symbol in symbols
    ]
    details = run(need("ar"), "tv", library).splitlines()
    assert all(line.startswith("rw-r--r-- 0/0 ") for line in details)
    assert all("1970" in line for line in details)


@pytest.mark.parametrize("ranlib", ["ranlib", "llvm-ranlib-22"])
def test_ranlib_changes_no_entry(elf: Path, tmp_path: Path, ranlib: str) -> None:
    library = write(tmp_path / "lib.a", "gnu", members_of(elf))
    run(need(ranlib), "-D", library)
    with open_archive(library) as archive:
        check(archive, elf)


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld-22", "mold"])
@pytest.mark.parametrize("name", ["x.o", LONG_NAME])
def test_elf_links_through_the_index(elf: Path, tmp_path: Path, linker: str, name: str) -> None:
    linker_path = need(f"ld.{linker}")
    library = write(tmp_path / "lib.a", "gnu", members_of(elf))
    # a single member as we make it: every amount of padding in the index
    padded = []
    for count in range(8):
        data = (elf / LONG_NAME).read_bytes()
        path = tmp_path / f"one{count}.a"
        member = NewMember(name, len(data), [data], [b"bar", b"x" * (count + 1)])
        padded.append(write(path, "gnu", [member]))
    program = tmp_path / "main"
    for libraries in ([library], *([path, library] for path in padded)):
        run(linker_path, "-e", "main", "-o", program, elf / "main.o", *libraries)
        symbols = run(need("nm"), program)
        assert re.search(r" [Tt] foo\n", symbols)
        assert re.search(r" [Tt] bar\n", symbols)
        assert "baz" not in symbols


def test_darwin_links_through_the_index(macho: Path, tmp_path: Path) -> None:
    linker = need("ld64.lld-22", "ld64.lld")
    library = write(tmp_path / "lib.a", "darwin", members_of(macho, b"_"))
    platform = ["-arch", "arm64", "-platform_version", "macos", "11.0", "11.0"]
    run(linker, *platform, "-dylib", "-o", tmp_path / "out", macho / "main.o", library)
    symbols = run(need("llvm-nm-22"), tmp_path / "out")
    assert " T _bar" in symbols
    assert "_baz" not in symbols


def test_coff_links_through_the_index(coff: Path, tmp_path: Path) -> None:
    library = write(tmp_path / "lib.lib", "coff", members_of(coff))
    flags = ["/entry:main", "/subsystem:console", "/nodefaultlib", f"/map:{tmp_path / 'map'}"]
    run(need("lld-link-22"), *flags, f"/out:{tmp_path / 'out.exe'}", coff / "main.o", library)
    symbols = (tmp_path / "map").read_text()
    assert "bar" in symbols
    assert "baz" not in symbols


def test_an_index_without_symbols(elf: Path, tmp_path: Path) -> None:
    data = (elf / "a.o").read_bytes()
    library = write(tmp_path / "lib.a", "gnu", [NewMember("a.o", len(data), [data])])
    other = write(tmp_path / "other.a", "gnu", members_of(elf))
    assert run(need("ar"), "t", library) == "a.o\n"
    run(need("nm"), "-s", library)
    for linker in ("bfd", "gold", "lld-22", "mold"):
        path = need(f"ld.{linker}")
        run(path, "-e", "main", "-o", tmp_path / "main", elf / "main.o", library, other)


class Sparse(io.FileIO):
    """Leaves a hole where a large chunk is written."""

    def write(self, chunk: bytes) -> int:  # type: ignore[override]
        size = memoryview(chunk).nbytes
        if size < 1 << 20:
            return super().write(chunk)
        self.seek(size, io.SEEK_CUR)
        return size


def test_more_than_4_gib(elf: Path, tmp_path: Path) -> None:
    data, hole = (elf / "a.o").read_bytes(), bytes(1 << 26)
    members = [
        NewMember("hole", 1 << 32, itertools.repeat(hole, 64)),
        NewMember("a.o", len(data), [data], [b"foo", b"foo2"]),
    ]
    library = tmp_path / "lib.a"
    with Sparse(library, "w") as file:
        write_archive(cast(BinaryIO, file), "gnu", members)
    # it says that the hole is no object file, and goes on
    printed = subprocess.run(
        [need("nm"), "-s", library], capture_output=True, encoding="utf-8", check=False
    ).stdout
    assert "foo in a.o\nfoo2 in a.o\n" in printed
    assert armap_lines(library) == ["foo in a.o", "foo2 in a.o"]
    with open_archive(library) as archive:
        assert archive.symbols() == {b"foo": 1, b"foo2": 1}
        assert bytes(archive.data(archive.members[1])) == data
