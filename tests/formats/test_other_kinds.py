"""What is no static library that can be stripped is called by its name, by every command."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cargo_strip_hook.archive import NewMember, write_archive
from cargo_strip_hook.cli.main import main
from tests.tools import need

C = "int outside(int); int f(int n) { return outside(n) + 1; }\n"


def compile(folder: Path, target: str = "x86_64-linux-gnu", name: str = "f.o") -> Path:
    source, out = folder / "f.c", folder / name
    source.write_text(C)
    clang = need("clang-22", "clang")
    subprocess.run([clang, f"--target={target}", "-O1", "-c", source, "-o", out], check=True)
    return out


def archive(path: Path, *members: tuple[str, bytes, tuple[bytes, ...]]) -> Path:
    with path.open("wb") as file:
        write_archive(file, "gnu", [NewMember(n, len(d), [d], s) for n, d, s in members])
    return path


def object_of(folder: Path, target: str = "x86_64-linux-gnu") -> tuple[str, bytes, tuple[bytes]]:
    return "f.o", compile(folder, target).read_bytes(), (b"f",)


def shared(folder: Path) -> Path:
    out = folder / "libf.so"
    lld = need("ld.lld-22", "ld.lld")
    subprocess.run([lld, "-shared", compile(folder), "-o", out], check=True)
    return out


COMMANDS = {
    "strip": ["strip", "-o", "out.a", "--export", "f"],
    "strip without": ["strip", "-o", "out.a"],
    "check": ["check", "--export", "f"],
    "exports": ["exports"],
    "report": ["report"],
    "why": ["why", "f", "--export", "f"],
}


@pytest.fixture(params=list(COMMANDS))
def said(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Path], str]:
    def run(library: Path) -> str:
        words = [*COMMANDS[request.param]]
        words.insert(1, str(library))
        monkeypatch.chdir(tmp_path)
        assert main(words) == 1
        assert not (tmp_path / "out.a").exists()
        return capsys.readouterr().err

    return run


def foreign(what: str) -> bytes:
    return {
        "WebAssembly objects": b"\0asm\1\0\0\0",
        "XCOFF objects (AIX)": b"\x01\xf7\0\0",
        "GOFF objects (z/OS)": b"\x03\xf0\0\0",
        "packages of Go's compiler": b"go object linux amd64\n",
        "Java classes": b"\xca\xfe\xba\xbe\0\0\0\x34",
        "Windows resource files": bytes.fromhex("0000000020000000ffff0000ffff0000"),
        "archives (no linker looks into them)": b"!<arch>\n",
        "Windows programs or DLLs": b"MZ\x90\0",
    }[what] + bytes(40)


@pytest.mark.parametrize("what", ["WebAssembly objects", "XCOFF objects (AIX)", "Java classes"])
def test_members_of_another_kind(said: Callable[[Path], str], tmp_path: Path, what: str) -> None:
    text = said(archive(tmp_path / "libo.a", ("a.o", foreign(what), (b"f",))))
    assert f"error: libo.a: the members are {what}, which are not supported\n" in text.replace(
        f"{tmp_path}/", ""
    )
    assert "  help: " in text


@pytest.mark.parametrize(
    "what",
    [
        "GOFF objects (z/OS)",
        "packages of Go's compiler",
        "Windows resource files",
        "archives (no linker looks into them)",
        "Windows programs or DLLs",
    ],
)
def test_more_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    library = archive(tmp_path / "libo.a", ("a.o", foreign(what), ()))
    assert main(["strip", str(library), "--export", "f"]) == 1
    assert f"the members are {what}, which are not supported" in capsys.readouterr().err


def test_what_a_compiler_makes_for_webassembly(said: Callable[[Path], str], tmp_path: Path) -> None:
    try:
        library = archive(tmp_path / "libw.a", object_of(tmp_path, "wasm32"))
    except subprocess.CalledProcessError:
        pytest.skip("this clang has no WebAssembly")
    assert "the members are WebAssembly objects, which are not supported" in said(library)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["WebAssembly objects", "programs or shared libraries"])
def test_objects_and_others(
    said: Callable[[Path], str], tmp_path: Path, first: bool, kind: str
) -> None:
    data = shared(tmp_path).read_bytes() if "shared" in kind else foreign(kind)
    members = [("other.o", data, ()), object_of(tmp_path)]
    text = said(archive(tmp_path / "libm.a", *members[:: 1 if first else -1]))
    assert f"mixes objects of different kinds: f.o and other.o, which is one of {kind}" in text
    assert "`ar d LIB other.o`" in text


def test_what_linkers_pass_over_does_no_harm(tmp_path: Path) -> None:
    """A text, Java and resources beside an object: lld and GNU ld link the archive, too."""
    members = [("README", b"text\n", ()), ("A.class", foreign("Java classes"), ())]
    library = archive(tmp_path / "libt.a", *members, object_of(tmp_path))
    assert main(["strip", str(library), "--export", "f"]) == 0


def test_import_libraries(said: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "f.def").write_text("LIBRARY f.dll\nEXPORTS\nf\n")
    tool = [need("llvm-dlltool-22", "llvm-dlltool"), "-m", "i386:x86-64"]
    library = tmp_path / "f.lib"
    subprocess.run([*tool, "-d", tmp_path / "f.def", "-l", library], check=True)
    text = said(library)
    assert "this is the import library of a DLL, not a static library" in text
    assert "lib<name>.a for MinGW (not .dll.a), <name>.lib for MSVC" in text


def test_import_libraries_of_mingw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Theirs are objects with the tables of an import."""
    (tmp_path / "f.def").write_text("LIBRARY f.dll\nEXPORTS\nf\n")
    library = tmp_path / "libf.dll.a"
    tool = need("x86_64-w64-mingw32-dlltool")
    subprocess.run([tool, "-d", tmp_path / "f.def", "-l", library], check=True)
    assert main(["strip", str(library), "--export", "f"]) == 1
    assert "the import library of a DLL" in capsys.readouterr().err


def test_bitcode_and_rlib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bitcode = archive(tmp_path / "libb.a", ("b.o", b"BC\xc0\xde" + bytes(40), ()))
    assert main(["strip", str(bitcode), "--export", "f"]) == 1
    assert "libb.a(b.o): this member is LLVM bitcode" in capsys.readouterr().err
    meta = ("lib.rmeta", b"rust\0\0\0\x09" + bytes(40), ())
    rlib = archive(tmp_path / "libr.rlib", meta, object_of(tmp_path))
    assert main(["strip", str(rlib), "--export", "f"]) == 1
    text = capsys.readouterr().err
    assert "this is a library for rustc (.rlib), not a static library" in text
    assert 'crate-type = ["staticlib"]' in text


FILES: dict[str, tuple[bytes, str, str]] = {
    "libf.a.gz": (b"\x1f\x8b\x08\0", "compressed with gzip", "gzip -d"),
    "libf.a.xz": (b"\xfd7zXZ\0", "compressed with xz", "xz -d"),
    "libf.a.zst": (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -d"),
    "f.zip": (b"PK\3\4", "a zip file", "unpack it"),
    "libs.a": (b"INPUT(libf.a)\n", "a linker script", "the script names"),
    "libs.so": (b"/* GNU ld script\n*/\nGROUP ( a )\n", "a linker script", "the script names"),
    "f.tbd": (b"--- !tapi-tbd\n", "a stub of a shared library (.tbd)", "static library"),
    "f.pc": (b"Name: f\nLibs: -lf\n", "a file for pkg-config", "`Libs`"),
    "libf.la": (b"# libf.la - a libtool library file\n", "a file of libtool's", "`old_library`"),
    "libh.a": (b"<!DOCTYPE html>\n", "a web page", "downloaded"),
    "libl.a": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "pull"),
    "t.a": ("grüße, a text\n".encode(), "a text file", "static library is wanted"),
    "f.wasm": (b"\0asm\1\0\0\0", "WebAssembly", "not supported"),
    "j.class": (b"\xca\xfe\xba\xbe\0\0\0\x34", "a Java class", "static library is wanted"),
    "f.dll": (b"MZ\x90\0", "a Windows program or DLL", "`strip`"),
    "x.a": (b"\x07\0binary", "not an archive", "static library is wanted"),
}


@pytest.mark.parametrize("name", list(FILES))
def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    data, what, help = FILES[name]
    path = tmp_path / name
    path.write_bytes(data + b"\n" * 30)
    for command in ("strip", "check", "report"):
        assert main([command, str(path)]) == 1
        text = capsys.readouterr().err
        assert f"{name}: {what}" in text
        assert help in text.partition("help: ")[2]


def test_files_of_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = shared(tmp_path)
    link = tmp_path / "liblink.so"
    link.symlink_to(library)
    packed = tmp_path / "f.tar"
    with tarfile.open(packed, "w") as file:
        file.add(library, "libf.so")
    for path, what, help in (
        (library, "a program or shared library, not an archive", "`strip`"),
        (link, "a program or shared library, not an archive", "`strip`"),
        (tmp_path / "f.o", "an object file, not an archive", "`ar rcs"),
        (packed, "a tar file, not an archive", "unpack it"),
        (compile(tmp_path, "arm64-apple-macos13", "m.o"), "an object file, not an", "`ar rcs"),
        (compile(tmp_path, "x86_64-pc-windows-msvc", "w.obj"), "a COFF object file", "`ar rcs"),
    ):
        assert main(["strip", str(path)]) == 1
        text = capsys.readouterr().err
        assert f"{path.name}: {what}" in text
        assert help in text


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(folder: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        assert main(["strip", str(tmp_path / folder)]) == 1
        return capsys.readouterr().err.replace(f"{tmp_path}/", "")

    assert "this is a framework, a folder\n  help: name the library in it, F.framework/F\n" in told(
        "F.framework"
    )
    assert "name a library in F.xcarchive/Products" in told("F.xcarchive")
    assert "name a file, or an xcframework" in told("empty")
    (tmp_path / "crate").mkdir()
    (tmp_path / "crate" / "Cargo.toml").touch()
    assert "`cargo strip-hook --manifest-path crate/Cargo.toml`" in told("crate")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "libf.a").touch()
    assert "name a library in it, like out/libf.a" in told("out")


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("mips64-linux-gnu", "MIPS (64-bit, big-endian)"),
        ("mips64el-linux-gnu", "MIPS (64-bit, little-endian)"),
        ("mips-linux-gnu", "MIPS (32-bit, big-endian)"),
        ("mipsel-linux-gnu", "MIPS (32-bit, little-endian)"),
        ("powerpc64-linux-gnu", "PowerPC (64-bit, big-endian)"),
        ("bpfel", "BPF (64-bit, little-endian)"),
    ],
)
def test_processors_have_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, what: str
) -> None:
    try:
        library = archive(tmp_path / "libm.a", object_of(tmp_path, target))
    except subprocess.CalledProcessError:
        pytest.skip(f"this clang does not know {target}")
    assert main(["strip", str(library), "--export", "f"]) == 1
    text = capsys.readouterr().err
    assert f"objects for {what} of this kind are not supported" in text
    assert "use the original" in text
