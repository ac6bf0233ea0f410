"""The system engine for Darwin, with a stand-in that does what Apple's programs were seen to do."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cargo_strip_hook.archive import NewMember, open_archive, write_archive
from cargo_strip_hook.core.errors import (
    ArchiveError,
    InputError,
    LinkError,
    ObjectError,
    StripHookError,
    ToolError,
    UsageError,
    VerifyError,
)
from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines.system import SystemEngine, apple, macho, nlist
from cargo_strip_hook.formats.macho.versions import Version
from cargo_strip_hook.verify import Expectation, Verified, verify
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho import read as second
from cargo_strip_hook.verify.macho import unwind
from cargo_strip_hook.verify.macho.infer import check_by_names
from tests.formats import darwin_kit as kit
from tests.formats import ld64_record as record

STANDIN = Path(__file__).parent / "ld64_standin.py"
LEVELS = [Strip.DEBUGINFO, Strip.SYMBOLS]
MAGIC = b"\xcf\xfa\xed\xfe"


class Tools:
    """A folder with both programs; what they are to do, and how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.plan: dict[str, dict[str, Any]] = {"ld": {}, "libtool": {}}
        for name in self.plan:
            path = folder / name
            path.write_text(f"#!{sys.executable}\n{STANDIN.read_text()}")
            path.chmod(0o755)

    def set(self, who: str, **what: Any) -> None:
        self.plan[who] = what
        (self.folder / "plan.json").write_text(json.dumps(self.plan))

    def calls(self, who: str) -> list[dict[str, Any]]:
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [c for c in map(json.loads, lines) if c["who"] == who]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    made = Tools(tmp_path / "bin")
    for name in ("STRIP_HOOK_LD", "STRIP_HOOK_LIBTOOL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LD", str(made.folder / "ld"))
    monkeypatch.setenv("LIBTOOL", str(made.folder / "libtool"))
    return made


DEFINED = {"a.o": (b"_api", record.ROUTINE.encode()), "b.o": (b"_helper", b"_leaked", b"_more")}


def library(folder: Path, arch: str) -> Path:
    """The recorded objects in an archive as rustc writes it."""
    members = []
    for name, symbols in DEFINED.items():
        data = (record.FOLDER / arch / name).read_bytes()
        members.append(NewMember(name, len(data), [data], symbols))
    path = folder / "libt.a"
    with path.open("wb") as file:
        write_archive(file, "darwin", members)
    return path


def asked(original: Path, arch: str, strip: Strip = Strip.DEBUGINFO) -> PrelinkRequest:
    target = Target.parse(kit.triple(arch))
    out = original.parent / "out.a"
    return PrelinkRequest(original, out, target, record.EXPORTS, strip, marker=kit.MARKER)


def checked(request: PrelinkRequest) -> Verified:
    expectation = Expectation(request.target, request.exports, request.strip, None, request.marker)
    assert isinstance(request.archive, Path)
    return verify(request.archive, request.output, expectation)


def recorded(arch: str, strip: Strip) -> Path:
    return record.FOLDER / arch / f"{strip.value}.o"


# What is done -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize("strip", LEVELS)
def test_the_command_lines(tmp_path: Path, tools: Tools, arch: str, strip: Strip) -> None:
    tools.set("ld", output=str(recorded(arch, strip)))
    request = asked(library(tmp_path, arch), arch, strip)
    result = SystemEngine().prelink(request)
    (linked,) = tools.calls("ld")
    files = ["members/00000.o", "members/00001.o"]
    assert linked["words"] == record.command(arch, strip.value, files)
    for name, file in zip(("a.o", "b.o"), files, strict=True):
        given = bytes.fromhex(linked["files"][file])
        members = (record.FOLDER / arch / name).read_bytes()
        changed = [(a, b) for a, b in zip(given, members, strict=False) if a != b]
        # the routine is hidden, and ld exports no such symbol: n_type without N_PEXT
        assert changed == ([(0x0F, 0x1F)] if name == "a.o" else [])
    listed = bytes.fromhex(linked["files"]["exports.txt"]).decode()
    assert listed == "_api\n_more\n_rust_eh_personality\n"
    assert bytes.fromhex(linked["files"]["marker"]) == kit.MARKER
    (made,) = tools.calls("libtool")
    assert made["words"] == ["-static", "-o", "out.a", "t.o"]
    assert made["zero"] == "1"
    assert result.exports == record.EXPORTS
    assert result.undefined == ("_outside",)
    assert (result.statistics.members_used, result.statistics.members_total) == (2, 2)
    assert result.link_map is None
    seen = checked(request)
    assert seen.exports == record.EXPORTS
    assert seen.pieces >= (6 if strip is Strip.DEBUGINFO else 3)


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_the_personality_coalesces_and_the_mark_is_not_loaded(
    tmp_path: Path, tools: Tools, arch: str
) -> None:
    tools.set("ld", output=str(recorded(arch, Strip.DEBUGINFO)))
    request = asked(library(tmp_path, arch), arch)
    SystemEngine().prelink(request)
    with open_archive(request.output) as archive:
        data = bytearray(archive.data(archive.members[0]))
    with (
        pytest.raises(VerifyError, match="not what it should be") as caught,
    ):
        plain = recorded(arch, Strip.DEBUGINFO).read_bytes()
        _replace_member(request.output, plain)
        checked(request)
    assert "_rust_eh_personality" in "\n".join(caught.value.findings)
    differing = [i for i, (a, b) in enumerate(zip(data, plain, strict=False)) if a != b]
    assert len(differing) == 3, "more was changed than n_type, n_desc and the section's flags"
    names = kit.globals_of(_object(tmp_path, data))
    assert names["_rust_eh_personality"] in "Tt"


def _object(folder: Path, data: bytes) -> Path:
    path = folder / "member.o"
    path.write_bytes(data)
    return path


def _replace_member(archive: Path, data: bytes) -> None:
    raw = archive.read_bytes()
    at = raw.index(MAGIC)
    archive.write_bytes(raw[:at] + data + raw[at + len(data) :])


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_programs_link_with_two_of_them(tmp_path: Path, tools: Tools, arch: str) -> None:
    """Twice the same code under other names: one personality, exported by nothing."""
    out = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        tools.set("ld", output=str(recorded(arch, Strip.DEBUGINFO)))
        request = asked(library(folder, arch), arch)
        SystemEngine().prelink(request)
        data = request.output.read_bytes()
        if name == "two":
            data = data.replace(b"_api\0", b"_apj\0").replace(b"_more\0", b"_morf\0")
        request.output.write_bytes(data)
        out.append(request.output)
    text = "extern int api(int), apj(int), more(int), morf(int); int outside(const char *c) "
    text += "{ return *c; } int main(void) { return api(1) + apj(2) + more(1) + morf(2); }"
    (main,) = kit.compile(tmp_path, arch, {"main.c": text})
    program = kit.link(tmp_path / "p", arch, [main, *out], "-dead_strip", "-export_dynamic")
    said = kit.globals_of(program)
    assert "_rust_eh_personality" not in said
    assert {"_api", "_apj"} <= said.keys()


def test_the_same_bytes_twice(tmp_path: Path, tools: Tools) -> None:
    tools.set("ld", output=str(recorded("arm64", Strip.SYMBOLS)))
    request = asked(library(tmp_path, "arm64"), "arm64", Strip.SYMBOLS)
    SystemEngine().prelink(request)
    first = request.output.read_bytes()
    SystemEngine().prelink(request)
    assert request.output.read_bytes() == first
    # an older libtool, which knows nothing of ZERO_AR_DATE
    bare = bytearray(first)
    at = 8
    while at < len(bare):
        bare[at + 16 : at + 40] = b"%-12d%-6d%-6d" % (1700000000, 501, 20)
        at += 60 + int(bare[at + 48 : at + 58])
    old = tmp_path / "old.a"
    old.write_bytes(bare)
    tools.set("libtool", output=str(old))
    SystemEngine().prelink(request)
    assert request.output.read_bytes() == first


@pytest.mark.parametrize("words", [[], ["-no_compact_unwind"]])
def test_options_only_if_asked(
    tmp_path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    tools.set("ld", output=str(recorded("arm64", Strip.DEBUGINFO)))
    monkeypatch.setenv("STRIP_HOOK_LD", " ".join([str(tools.folder / "ld"), *words]))
    SystemEngine().prelink(asked(library(tmp_path, "arm64"), "arm64"))
    (linked,) = tools.calls("ld")
    assert linked["words"][: len(words) + 1] == [*words, "-r"]
    assert ("-no_compact_unwind" in linked["words"]) == bool(words)


@pytest.mark.parametrize(
    ("platform", "triple", "words"),
    [
        (1, "aarch64-apple-darwin", "macos 11.0 13.3"),
        (2, "aarch64-apple-ios", "ios 11.0 13.3"),
        (6, "aarch64-apple-ios-macabi", "mac-catalyst 11.0 13.3"),
        (7, "aarch64-apple-ios-sim", "ios-simulator 11.0 13.3"),
        (8, "aarch64-apple-tvos-sim", "tvos-simulator 11.0 13.3"),
        (11, "aarch64-apple-visionos", "xros 11.0 13.3"),
        (12, "aarch64-apple-visionos-sim", "xros-simulator 11.0 13.3"),
    ],
)
def test_platforms_as_ld_calls_them(tmp_path: Path, platform: int, triple: str, words: str) -> None:
    request = dataclasses.replace(
        asked(library(tmp_path, "arm64"), "arm64"), target=Target.parse(triple)
    )
    plan = macho.Plan((0,), (), (Version(platform, 11 << 16, 13 << 16 | 3 << 8),))
    found = macho.arguments(plan, ["x.o"], request)
    assert found[:3] == ["-r", "-arch", "arm64"]
    assert found[3:7] == ["-platform_version", *words.split()]
    exact = macho.Plan((0,), (), (Version(platform, 11 << 16 | 2 << 8 | 1, 0),))
    assert macho.arguments(exact, [], request)[5:7] == ["11.2.1", "11.2.1"]
    with pytest.raises(UsageError, match="platform 10"):
        macho.arguments(macho.Plan((0,), (), (Version(10, 0, 0),)), [], request)


def test_only_what_a_linker_would_load(tmp_path: Path, tools: Tools) -> None:
    """And members of one name are told apart."""
    sources = {"unused.c": "int unused(void) { extern int nowhere(void); return nowhere(); }"}
    (extra,) = kit.compile(tmp_path / "x", "arm64", sources)
    files = {extra: (b"_unused",)}
    files |= {record.FOLDER / "arm64" / name: symbols for name, symbols in DEFINED.items()}
    path = tmp_path / "libt.a"
    with path.open("wb") as file:
        members = [
            NewMember("same.o", f.stat().st_size, [f.read_bytes()], n) for f, n in files.items()
        ]
        write_archive(file, "darwin", members)
    tools.set("ld", output=str(recorded("arm64", Strip.DEBUGINFO)))
    result = SystemEngine().prelink(asked(path, "arm64"))
    (linked,) = tools.calls("ld")
    assert linked["words"][-2:] == ["members/00001.o", "members/00002.o"]
    assert (result.statistics.members_used, result.statistics.members_total) == (2, 3)
    assert checked(asked(path, "arm64")).undefined == ("_outside",)


# What goes wrong ----------------------------------------------------------------------------------

MISSING = """Undefined symbols for architecture arm64:
  "_more", referenced from:
     -exported_symbol[s_list] command line option
ld: symbol(s) not found for architecture arm64
"""
IGNORED = """ld: warning: ignoring file members/00001.o, building for macOS-x86_64 but \
attempting to link with file built for unknown-arm64
"""
TWICE = """duplicate symbol '_api' in:
    members/00000.o
    members/00001.o
ld: 1 duplicate symbols for architecture arm64
"""
CUT = """ld: load command #0 extends beyond the end of the file file 'members/00001.o' for \
architecture arm64
"""
BUILT = """ld: building for iOS, but linking in object file built for macOS, file \
'members/00000.o' for architecture arm64
"""
HIDDEN = "ld: cannot export hidden symbol _api file 'members/00000.o' for architecture arm64\n"
UNKNOWN = "ld: unknown option: -platform_version\n"


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (MISSING, LinkError, ["does not define `_more`"]),
        (IGNORED + MISSING, InputError, ["b.o", "would leave this member out", "macOS-x86_64"]),
        (TWICE, LinkError, ["`_api` more than once"]),
        (CUT, ObjectError, ["b.o", "load command #0 extends beyond"]),
        (BUILT, LinkError, ["a.o: building for iOS"]),
        (HIDDEN, ObjectError, ["a.o", "cannot export hidden symbol _api"]),
        (UNKNOWN, ToolError, ["failed with exit code 1"]),
    ],
)
def test_a_failed_link_is_explained(
    tmp_path: Path, tools: Tools, said: str, error: type[StripHookError], words: list[str]
) -> None:
    tools.set("ld", says=said, exit=1)
    request = asked(library(tmp_path, "arm64"), "arm64")
    with pytest.raises(error) as caught:
        SystemEngine().prelink(request)
    assert type(caught.value) is error
    for word in words:
        assert word in caught.value.what
    if error is ToolError:
        assert isinstance(caught.value, ToolError)
        assert caught.value.failure.stderr == said
    assert not request.output.exists()
    if said == TWICE:
        assert caught.value.help == ("a.o", "b.o")


def test_warnings_are_passed_on(tmp_path: Path, tools: Tools) -> None:
    said = "ld: warning: directory not found for option '-F/System/Library/Frameworks/'\n"
    said += "ld: warning: alignment lost in members/00001.o\n"
    tools.set("ld", says=said, output=str(recorded("arm64", Strip.DEBUGINFO)))
    result = SystemEngine().prelink(asked(library(tmp_path, "arm64"), "arm64"))
    assert result.warnings == ("alignment lost in b.o",)
    tools.set("ld", says=IGNORED, output=str(recorded("arm64", Strip.DEBUGINFO)))
    with pytest.raises(InputError, match="leave this member out"):
        SystemEngine().prelink(asked(library(tmp_path, "arm64"), "arm64"))


def _renamed(data: bytes) -> bytes:
    return data.replace(b"_more\0", b"_les\0\0")


def _unmarked(data: bytes) -> bytes:
    return data.replace(b"__strip_hook\0", b"__strip_none\0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "wrote no object"),
        (lambda d: d[:100], "cannot be read"),
        (lambda _: b"", "cannot be read"),
        (_renamed, "did not show exactly the exports: _les, _more"),
        (_unmarked, "left out the section"),
    ],
)
def test_a_linker_that_does_something_else(
    tmp_path: Path, tools: Tools, change: Callable[[bytes], bytes] | None, message: str
) -> None:
    if change is None:
        tools.set("ld")
    else:
        bad = tmp_path / "bad.o"
        bad.write_bytes(change(recorded("arm64", Strip.DEBUGINFO).read_bytes()))
        tools.set("ld", output=str(bad))
    request = asked(library(tmp_path, "arm64"), "arm64")
    with pytest.raises(ToolError, match=message):
        SystemEngine().prelink(request)
    assert not request.output.exists()


def test_libtool_fails(tmp_path: Path, tools: Tools) -> None:
    tools.set("ld", output=str(recorded("arm64", Strip.DEBUGINFO)))
    tools.set("libtool", says="error: libtool: no files specified\n", exit=1)
    with pytest.raises(ToolError, match="failed with exit code 1"):
        SystemEngine().prelink(asked(library(tmp_path, "arm64"), "arm64"))
    tools.set("libtool", output=str(recorded("arm64", Strip.DEBUGINFO)))
    with pytest.raises(ArchiveError, match="wrote no archive"):
        SystemEngine().prelink(asked(library(tmp_path, "arm64"), "arm64"))


def test_what_it_cannot_do(tmp_path: Path, tools: Tools) -> None:
    request = asked(library(tmp_path, "arm64"), "arm64")
    with pytest.raises(UsageError, match="cannot keep debug information"):
        SystemEngine().prelink(dataclasses.replace(request, strip=Strip.NONE))
    with pytest.raises(LinkError, match="_nothing"):
        SystemEngine().prelink(dataclasses.replace(request, exports=("_nothing",)))
    with pytest.raises(LinkError, match="the target aarch64-apple-ios is iOS"):
        ios = Target.parse("aarch64-apple-ios")
        SystemEngine().prelink(dataclasses.replace(request, target=ios))
    with pytest.raises(LinkError, match="cannot stand in a list"):
        macho.export_list(["_a*"])
    assert not tools.calls("ld")


def test_commons_cannot_be_private(tmp_path: Path, tools: Tools) -> None:
    """ld64 leaves them external, under `-d` as well (seen)."""
    text = "int shared[4]; int api(int a) { return shared[a]; } int more(void) { return 1; }"
    original = kit.library(tmp_path, "arm64", {"c.c": text}, "-fcommon")
    with pytest.raises(LinkError, match=r"common symbols \(`_shared`\)") as caught:
        SystemEngine().prelink(asked(original, "arm64"))
    assert "-fno-common" in caught.value.help[0]
    assert not tools.calls("ld")


# Finding the programs -----------------------------------------------------------------------------

DARWIN = Target.parse("aarch64-apple-darwin")


def test_xcrun_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD", "LIBTOOL", "STRIP_HOOK_LD", "STRIP_HOOK_LIBTOOL"):
        monkeypatch.delenv(name, raising=False)
    made = Tools(tmp_path / "xcode")
    made.set("ld")
    bin = tmp_path / "bin"
    bin.mkdir()
    xcrun = bin / "xcrun"
    xcrun.write_text(f'#!/bin/sh\n[ "$1" = --find ] && echo {made.folder}/$2\n')
    xcrun.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin))
    assert apple.choose("ld", DARWIN).command == (str(made.folder / "ld"),)
    tool = apple.choose("libtool", DARWIN)
    assert tool.command == (str(made.folder / "libtool"),)
    assert (tool.family, str(tool.version)) == ("apple", "1010.6")
    xcrun.unlink()
    with pytest.raises(ToolError, match="no ld of Apple's") as caught:
        apple.choose("ld", DARWIN)
    assert any("STRIP_HOOK_LD" in line for line in caught.value.help)
    assert any("--engine native" in line for line in caught.value.help)
    shutil.copy(made.folder / "ld", bin / "arm64-apple-darwin-ld")
    shutil.copy(made.folder / "plan.json", bin / "plan.json")
    (found,) = apple.candidates("ld", DARWIN)
    assert found.command == (str(bin / "arm64-apple-darwin-ld"),)


@pytest.mark.parametrize(
    ("who", "version", "message"),
    [
        ("ld", "GNU ld (GNU Binutils for Debian) 2.40\n", "is not Apple's ld"),
        ("ld", "LLD 22.1.8 (compatible with Apple's linkers)\n", "is not Apple's ld"),
        ("ld", "@(#)PROGRAM:ld  PROJECT:ld64-450.3\n", "520 is the oldest"),
        ("libtool", "libtool (GNU libtool) 2.4.7", "is not Apple's libtool"),
    ],
)
def test_other_programs_are_not_taken_for_apples(
    tmp_path: Path, tools: Tools, who: str, version: str, message: str
) -> None:
    tools.set("ld", output=str(recorded("arm64", Strip.DEBUGINFO)))
    tools.set(who, version=version)
    with pytest.raises(ToolError, match=message) as caught:
        SystemEngine().prelink(asked(library(tmp_path, "arm64"), "arm64"))
    assert f"(from {who.upper()})" in caught.value.what


@pytest.mark.parametrize("project", ["ld-1053.12", "dyld-1015.7", "ld64-951.9"])
def test_apples_own_linkers_are_known(tools: Tools, project: str) -> None:
    tools.set("ld", version=f"@(#)PROGRAM:ld  PROJECT:{project}\nBUILD 15:37:27\n")
    assert str(apple.choose("ld", DARWIN).version) == project.rpartition("-")[2]


# What the verifier finds by names -----------------------------------------------------------------


def _symbol(data: bytearray, name: bytes) -> int:
    """Where the record of a symbol is."""
    at = 32
    while struct.unpack_from("<I", data, at)[0] != 2:
        at += struct.unpack_from("<I", data, at + 4)[0]
    table, count, strings, _ = struct.unpack_from("<4I", data, at + 8)
    for i in range(count):
        row = table + 16 * i
        text = strings + struct.unpack_from("<I", data, row)[0]
        if data[text : data.index(0, text)] == name:
            return row
    raise KeyError(name)


def _section(data: bytearray, name: bytes) -> int:
    """Where the header of a section is."""
    return data.index(name.ljust(16, b"\0"))


def _contents(data: bytearray, name: bytes) -> int:
    return int(struct.unpack_from("<I", data, _section(data, name) + 48)[0])


def _break_code(data: bytearray) -> None:
    value = struct.unpack_from("<Q", data, _symbol(data, b"_leaked") + 8)[0]
    data[_contents(data, b"__text") + value] ^= 1


def _swap_targets(data: bytearray) -> None:
    """`_helper` and `_leaked` trade places."""
    rows = [_symbol(data, n) for n in (b"_helper", b"_leaked")]
    values = [bytes(data[r + 8 : r + 16]) for r in rows]
    for row, value in zip(rows, reversed(values), strict=True):
        data[row + 8 : row + 16] = value


def _drop_relocations(data: bytearray) -> None:
    struct.pack_into("<I", data, _section(data, b"__text") + 60, 0)


def _another_undefined(data: bytearray) -> None:
    at = data.index(b"_outside\0")
    data[at : at + 8] = b"_Outside"


@pytest.mark.parametrize("arch", kit.ARCHES)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_break_code, "contents: of _leaked"),
        (_swap_targets, "of _"),
        (_drop_relocations, "is not as it was"),
        (_another_undefined, "undefined, and it was not before: `_Outside`"),
    ],
)
def test_names_tell_what_is_broken(
    tmp_path: Path,
    tools: Tools,
    arch: str,
    damage: Callable[[bytearray], None],
    words: str,
) -> None:
    data = bytearray(recorded(arch, Strip.DEBUGINFO).read_bytes())
    damage(data)
    bad = tmp_path / "bad.o"
    bad.write_bytes(data)
    tools.set("ld", output=str(bad))
    request = asked(library(tmp_path, arch), arch)
    SystemEngine().prelink(request)
    with pytest.raises(VerifyError) as caught:
        checked(request)
    assert words in "\n".join(caught.value.findings)


@pytest.mark.parametrize("arch", kit.ARCHES)
def test_lost_unwinding_is_found(arch: str) -> None:
    folder = record.FOLDER / arch
    members = {
        n: second.read(memoryview((folder / name).read_bytes()))
        for n, name in enumerate(("a.o", "b.o"))
    }
    after = second.read(memoryview(recorded(arch, Strip.DEBUGINFO).read_bytes()))
    good = unwind.records(after)
    findings = Findings()
    assert check_by_names(members, after, good, findings)[0] >= 6
    assert not findings
    address = next(s.value for s in after.symbols if s.name == b"_api")

    def only(which: npt.NDArray[np.bool_]) -> unwind.Records:
        return dataclasses.replace(good, rows=good.rows[which])

    check_by_names(members, after, only(good.rows["function"] != address), findings)
    assert findings.texts() == ("unwind: the function _api cannot be unwound",)
    findings = Findings()
    bare = good.rows.copy()
    bare["personality"] = -1
    check_by_names(members, after, dataclasses.replace(good, rows=bare), findings)
    assert findings.texts() == ("unwind: the function _api has lost its LSDA or personality",)


def test_a_small_change_is_all_that_is_done() -> None:
    data = bytearray(recorded("arm64", Strip.DEBUGINFO).read_bytes())
    before = bytes(data)
    nlist.show(data, [b"_nowhere", b"_api"])
    assert data == before
    nlist.finish(data, [b"_rust_eh_personality"], macho.MARKER)
    shown = bytearray(data)
    nlist.show(shown, [b"_rust_eh_personality"])
    row = _symbol(shown, b"_rust_eh_personality")
    assert (data[row + 4], shown[row + 4]) == (0x1F, 0x0F)
    with pytest.raises(ObjectError):
        nlist.finish(bytearray(b"nothing"), [], macho.MARKER)
