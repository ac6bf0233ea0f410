"""Finding and judging the system engine's programs, with scripts in their place."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from packaging.version import Version

from cargo_strip_hook.core.errors import KilledError, LinkError, ObjectError, ToolError, UsageError
from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines import engine
from cargo_strip_hook.engines.system import SystemEngine, elf, tools
from cargo_strip_hook.engines.system.machines import MACHINES, machine_of, prefixes
from cargo_strip_hook.engines.system.probe import EXPORT, SET, linker_faults, probe_object
from cargo_strip_hook.engines.system.tools import Kind
from cargo_strip_hook.engines.system.view import view

X86 = Target.parse("x86_64-unknown-linux-gnu")
ARM = Target.parse("aarch64-unknown-linux-gnu")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with one empty folder, and no tool named in the environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("LD", "OBJCOPY", "STRIP_HOOK_LD", "STRIP_HOOK_OBJCOPY", "RUSTC"):
        monkeypatch.delenv(name, raising=False)
    return folder


def script(path: Path, says: str, *, then: int = 1) -> Path:
    """A program that says this for --version and fails with `then` for anything else."""
    path.write_text(
        f"#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{says}'; exit 0; fi\n"
        f"echo refused >&2\nexit {then}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("kind", "said", "family", "version"),
    [
        ("ld", "GNU ld (GNU Binutils for Debian) 2.40\nCopyright", "gnu", "2.40"),
        ("ld", "GNU ld version 2.30-123.el8", "gnu", "2.30"),
        ("ld", "GNU ld (GNU Binutils) 2.41.0.20230926", "gnu", "2.41.0.20230926"),
        ("ld", "GNU ld (Linux/GNU Binutils) 2.45.1", "gnu", "2.45.1"),
        ("ld", "Debian LLD 22.1.8 (compatible with GNU linkers)", "llvm", "22.1.8"),
        ("ld", "LLD 22.1.2 (/src 1cb4e38) (compatible with GNU linkers)", "llvm", "22.1.2"),
        ("objcopy", "GNU objcopy (GNU Binutils for Debian) 2.40", "gnu", "2.40"),
        (
            "objcopy",
            "llvm-objcopy, compatible with GNU objcopy\n"
            "LLVM (http://llvm.org/):\n  LLVM version 22.1.2-rust-1.95.0-stable",
            "llvm",
            "22.1.2",
        ),
        (
            "objcopy",
            "llvm-objcopy, compatible with GNU objcopy\nDebian LLVM version 14.0.6",
            "llvm",
            "14.0.6",
        ),
    ],
)
def test_versions_are_read(kind: Kind, said: str, family: str, version: str) -> None:
    assert tools.parse_version(kind, said) == (family, Version(version))


@pytest.mark.parametrize(
    "said",
    [
        "GNU gold (GNU Binutils for Debian 2.40) 1.16",
        "mold 1.10.1 (compatible with GNU ld)",
        "@(#)PROGRAM:ld PROJECT:ld64-951.9",
        "",
    ],
)
def test_other_linkers_are_not_taken_for_one_of_ours(said: str) -> None:
    assert tools.parse_version("ld", said) is None


def test_cross_tools_come_first(bare: Path) -> None:
    says = "GNU ld (GNU Binutils) 2.44"
    for name in ("ld", "ld.lld", "ld.lld-21", "aarch64-linux-gnu-ld", "x86_64-linux-gnu-ld"):
        script(bare / name, says + name)
    found = [Path(c.command[0]).name for c in tools.candidates("ld", ARM)]
    assert found == ["aarch64-linux-gnu-ld", "ld", "ld.lld", "ld.lld-21"]


def test_one_program_under_two_names_is_tried_once(bare: Path) -> None:
    script(bare / "ld.bfd", "GNU ld 2.44")
    (bare / "ld").symlink_to("ld.bfd")
    assert len(list(tools.candidates("ld", X86))) == 1


def test_the_environment_names_the_only_candidate(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(bare / "ld", "GNU ld 2.44")
    monkeypatch.setenv("LD", "other-ld --one")
    (only,) = tools.candidates("ld", X86)
    assert only.command == ("other-ld", "--one")
    monkeypatch.setenv("STRIP_HOOK_LD", "ours")
    (only,) = tools.candidates("ld", X86)
    assert only.command == ("ours",)


def test_rust_brings_tools(bare: Path, tmp_path: Path) -> None:
    sysroot = tmp_path / "sysroot"
    folder = sysroot / "lib" / "rustlib" / "a-host" / "bin"
    folder.mkdir(parents=True)
    linker = script(folder / "rust-lld", "LLD 21.0.0")
    rustc = bare / "rustc"
    rustc.write_text(f'#!/bin/sh\n[ "$*" = "--print sysroot" ] && echo "{sysroot}"\n')
    rustc.chmod(0o755)
    (only,) = tools.candidates("ld", X86)
    assert only.command == (str(linker), "-flavor", "gnu")
    assert dict(only.env)["LD_LIBRARY_PATH"].split(":")[0] == str(sysroot / "lib")
    assert list(tools.candidates("objcopy", X86)) == []


def test_no_tool_at_all(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no linker for aarch64-unknown-linux-gnu") as error:
        elf.choose(ARM, machine_of(ARM), tmp_path)
    assert any("--engine native" in h for h in error.value.help)
    assert any("STRIP_HOOK_LD" in h for h in error.value.help)
    assert bare.is_dir()


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("GNU ld (GNU Binutils) 2.29.1", r"is version 2\.29\.1; 2\.30 is the oldest"),
        ("LLD 18.1.8 (compatible with GNU linkers)", r"is version 18\.1\.8; 19 is the oldest"),
        ("GNU gold (GNU Binutils 2.40) 1.16", r"is not GNU ld or lld \(it says `GNU gold"),
        ("GNU ld (GNU Binutils) 2.44", r"fails \(refused\)"),
    ],
)
def test_each_reason_is_told(bare: Path, tmp_path: Path, says: str, reason: str) -> None:
    script(bare / "ld", says)
    with pytest.raises(ToolError, match=reason):
        elf.choose(X86, machine_of(X86), tmp_path)


@pytest.mark.parametrize("when", ["--version", "-r"])
def test_a_program_that_was_killed_is_not_passed_over(
    bare: Path, tmp_path: Path, when: str
) -> None:
    """Another linker would do, and make another library of the same input."""
    others = script(bare / "ld.lld", "LLD 22.1.8 (compatible with GNU linkers)")
    first = script(bare / "ld", "GNU ld (GNU Binutils) 2.44")
    text = first.read_text().replace("if [", f'case "$*" in *{when}*) kill -9 $$;; esac\nif [', 1)
    first.write_text(text)
    with pytest.raises(KilledError, match="SIGKILL"):
        elf.choose(X86, machine_of(X86), tmp_path)
    assert others.exists()


def test_a_named_program_that_is_missing(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(bare / "ld", "GNU ld (GNU Binutils) 2.44")
    monkeypatch.setenv("STRIP_HOOK_LD", "no-such-ld")
    with pytest.raises(ToolError, match="`no-such-ld` is not installed"):
        elf.choose(X86, machine_of(X86), tmp_path)


@pytest.mark.parametrize(
    ("triple", "first"),
    [
        ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu-"),
        ("aarch64-unknown-linux-musl", "aarch64-linux-musl-"),
        ("aarch64-linux-android", "aarch64-linux-android-"),
        ("x86_64-unknown-freebsd", "x86_64-freebsd-"),
        ("aarch64-unknown-none", "aarch64-none-elf-"),
    ],
)
def test_gnu_prefixes(triple: str, first: str) -> None:
    found = prefixes(Target.parse(triple))
    assert first in found[:2]  # the triple itself may come before
    assert "aarch64-linux-gnu-" in found or "x86_64-linux-gnu-" in found


@pytest.mark.parametrize(
    "triple",
    ["armv7-unknown-linux-gnueabihf", "x86_64-unknown-linux-gnux32", "x86_64-pc-windows-msvc"],
)
def test_other_targets_are_refused(triple: str, tmp_path: Path) -> None:
    target = Target.parse(triple)
    request = PrelinkRequest(tmp_path / "a", tmp_path / "b", target, ("f",), Strip.NONE)
    with pytest.raises(UsageError, match=triple) as error:
        SystemEngine().prelink(request)
    assert "--engine native" in " ".join(error.value.help)


def test_nothing_to_export(tmp_path: Path) -> None:
    request = PrelinkRequest(tmp_path / "a", tmp_path / "b", X86, (), Strip.NONE)
    with pytest.raises(LinkError, match="nothing to export"):
        SystemEngine().prelink(request)


def test_engines_by_name() -> None:
    assert engine("system").name == "system"
    assert engine("native").name == "native"
    with pytest.raises(UsageError, match="no engine `magic`"):
        engine("magic")


def test_engines_are_imported_when_asked_for() -> None:
    code = "import sys, cargo_strip_hook.engines; print('numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_the_probe_is_a_sound_object(machine: object) -> None:
    """As pyelftools reads it."""
    data = probe_object(machine)  # type: ignore[arg-type]
    file = ELFFile(io.BytesIO(data))
    assert file.header["e_type"] == "ET_REL"
    names = [s.name for s in file.iter_sections()]
    assert names == [n.decode() for n in view(data, "probe").names]
    table = file.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    symbols = {s.name: s for s in table.iter_symbols()}
    assert symbols[EXPORT]["st_info"]["bind"] == "STB_GLOBAL"
    assert symbols["probe_unique"]["st_info"]["bind"] == "STB_LOOS"  # STB_GNU_UNIQUE
    assert symbols[f"__start_{SET.decode()}"]["st_shndx"] == "SHN_UNDEF"
    (_, live, dead) = file.get_dwarf_info().EH_CFI_entries()
    assert (live["address_range"], dead["address_range"]) == (16, 16)
    assert live.cie["augmentation"] == b"zR"
    places = [r["r_offset"] for r in file.get_section_by_name(".rela.eh_frame").iter_relocations()]
    # after length, CIE pointer of a frame: Linux Standard Base, "Exception Frames"
    assert places == [live.offset + 8, dead.offset + 8]


def test_the_probe_as_it_is_has_faults() -> None:
    """What no linker went over: dead code and groups are still there, sets have no ends."""
    unlinked = view(probe_object(MACHINES["x86_64"]), "probe")
    assert set(linker_faults(unlinked, collected=True)) == {
        "keeps dead code",
        "does not define __start_ and __stop_ symbols as asked",
        "keeps section groups",
    }


@pytest.mark.parametrize("size", [0, 5, 63, 64, 600, 1300])
def test_damaged_objects(size: int) -> None:
    with pytest.raises(ObjectError, match="no 64-bit little-endian ELF object"):
        view(probe_object(MACHINES["x86_64"])[:size], "damaged")
