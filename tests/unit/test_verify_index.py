"""The checker's own reading of archives, and how findings are told."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify.expectation import MAX_SHOWN, Findings
from cargo_strip_hook.verify.index import read_listing
from cargo_strip_hook.verify.linkcheck import _unresolved, default_libs, probe


def member(name: bytes, data: bytes, date: bytes = b"0") -> bytes:
    head = name.ljust(16) + date.ljust(12) + b"0     0     644     "
    return head + b"%-10d`\n" % len(data) + data + b"\n" * (len(data) & 1)


def test_gnu() -> None:
    table = struct.pack(">III", 2, 100, 200) + b"one\0two\0"
    data = b"!<arch>\n" + member(b"/", table) + member(b"//", b"long/\n") + member(b"/0", b"abc")
    found = read_listing(data)
    header = data.index(b"/0   ")
    assert found.members == ((header, header + 60, 3),)
    assert found.index == ((b"one", 100), (b"two", 200))
    assert found.anonymous


def test_gnu_of_64_bits() -> None:
    table = struct.pack(">QQ", 1, 1 << 33) + b"far\0"
    found = read_listing(b"!<arch>\n" + member(b"/SYM64/", table))
    assert found.index == ((b"far", 1 << 33),)


def test_bsd() -> None:
    table = struct.pack("<IIIII", 16, 4, 72, 0, 144) + struct.pack("<I", 8) + b"two\0one\0"
    data = b"!<arch>\n" + member(b"#1/20", b"__.SYMDEF SORTED".ljust(20, b"\0") + table)
    data += member(b"#1/4", b"x.o\0abc")
    found = read_listing(data)
    assert found.index == ((b"one", 72), (b"two", 144))
    assert found.members[0][2] == 3


def test_no_index() -> None:
    assert read_listing(b"!<arch>\n" + member(b"x/", b"")).index is None


def test_time() -> None:
    assert not read_listing(b"!<arch>\n" + member(b"x/", b"", b"1700000000")).anonymous


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"!<thin>\n",
        b"!<arch>\n" + member(b"x/", b"abc")[:-2],
        b"!<arch>\n" + member(b"x/", b"abc")[:30],
        b"!<arch>\n" + member(b"x/", b"abc").replace(b"`\n", b"``"),
        b"!<arch>\n" + member(b"/", b"\0\0\0\x09"),
        b"!<arch>\n" + member(b"/", struct.pack(">II", 1, 8)),
        b"!<arch>\n" + member(b"/", b""),
        b"!<arch>\n" + member(b"__.SYMDEF", b"\x08\0\0\0"),
    ],
)
def test_damage(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_listing(data)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for start in (b"", b"!<arch>\n", b"!<arch>\n" + member(b"/", data)[:100]):
        with contextlib.suppress(ValueError):
            read_listing(start + data)


def test_findings_are_counted_after_the_first_few() -> None:
    findings = Findings()
    assert not findings
    for i in range(MAX_SHOWN + 3):
        findings.add("bad", f"thing {i}")
    findings.more("bad", 4)
    findings.more("good", 0)
    findings.more("good", -5)
    findings.add("worse", "other")
    assert findings
    assert findings.texts() == (
        *(f"bad: thing {i}" for i in range(MAX_SHOWN)),
        "bad: and 7 more",
        "worse: other",
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("x.c:(.text+0x1): undefined reference to `demo_one'", ("undefined: demo_one",)),
        ("ld.lld: error: undefined symbol: demo_one\n>>> referenced", ("undefined: demo_one",)),
        ('Undefined symbols for architecture arm64:\n  "_f", referenced from:', ("undefined: _f",)),
        ("a.o: multiple definition of `f'; b.o: first defined", ("defined twice: f",)),
        ("ld.lld: error: duplicate symbol: f\n", ("defined twice: f",)),
        ("ld: cannot find -lfoo", ()),
    ],
)
def test_what_linkers_say(said: str, expected: tuple[str, ...]) -> None:
    assert _unresolved(said) == expected


def test_default_libraries() -> None:
    assert "-lgcc_s" in default_libs(Target.parse("x86_64-unknown-linux-gnu"))
    assert default_libs(Target.parse("x86_64-unknown-linux-musl")) == ("-lc",)
    assert "-llog" in default_libs(Target.parse("aarch64-linux-android"))
    assert "-lSystem" in default_libs(Target.parse("aarch64-apple-darwin"))


def test_probe_names_symbols_of_any_spelling() -> None:
    text = probe(['_ZN1a"b', "$x"])
    assert '__asm__("_ZN1a\\"b")' in text
    assert '__asm__("$x")' in text
