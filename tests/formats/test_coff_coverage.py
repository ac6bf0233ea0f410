"""Tables of clang's coverage: a program from a result has those of one from the original."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import windows_objects as kit
from tests.formats.test_coff_engine import SECTIONS

_INLINE = "static inline int inl(int a) { return a > 3 ? a : 2; } "
SOURCES = {
    "a.c": _INLINE + "int other(int); int dead(int a) { return inl(a) + 1; } "
    "int api(int a) { return other(a) + inl(a); }",
    "b.c": _INLINE + "int other(int a) { if (a) return inl(a); return 7; } "
    "int dead_too(int a) { return a ? 1 : 2; } static int unused(int a) { return a; }",
}
FLAGS = ("-O1", "-fprofile-instr-generate", "-fcoverage-mapping")
# what is no address: names, mappings, zeros
WHOLE = (b".lprfn", b".lcovmap", b".lcovfun", b".lprfc")
# the part of clang's runtime that programs refer to
RUNTIME = "int __llvm_profile_runtime;"
HASHES = 16  # bytes of a function's record of data before its addresses


def _tables(dll: Path, record: int) -> dict[bytes, object]:
    """The sections that coverage has in a DLL; of a record of data the hashes."""
    raw = dll.read_bytes()
    pe = struct.unpack_from("<I", raw, 0x3C)[0]
    count, optional = struct.unpack_from("<H12xH", raw, pe + 6)
    found: dict[bytes, object] = {}
    for n in range(count):
        name, size, _, stored, at = struct.unpack_from("<8sIIII", raw, pe + 24 + optional + 40 * n)
        name, contents = name.rstrip(b"\0"), raw[at : at + min(size, stored)]
        if name in WHOLE:
            found[name] = size, contents
        elif name == b".lprfd":
            found[name] = [contents[k : k + HASHES] for k in range(0, size, record)]
    return found


@pytest.mark.parametrize("target", [t for t in kit.TARGETS if t.endswith("msvc")])
@pytest.mark.parametrize("sections", [(), SECTIONS], ids=["plain", "sections"])
def test_tables_of_coverage(tmp_path: Path, target: str, sections: tuple[str, ...]) -> None:
    original = kit.library(tmp_path, target, SOURCES, *FLAGS, *sections)
    runtime = kit.compile(tmp_path, target, {"runtime.c": RUNTIME})
    dll, record = tmp_path / "x.dll", 48 if target.startswith("i686") else 64

    def tables(library: Path) -> dict[bytes, object]:
        kit.link_dll(dll, target, [library, *runtime], ["api"], "/opt:ref,noicf")
        return _tables(dll, record)

    wanted = tables(original)
    assert wanted.keys() == {*WHOLE, b".lprfd"}
    for strip, granularity in zip(Strip, Granularity, strict=True):
        out, made = kit.strip(original, target, ("api",), strip, granularity)
        kit.check(original, out, target, made, strip)
        assert tables(out) == wanted
