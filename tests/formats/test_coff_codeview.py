"""CodeView that is kept: right results are not refused, and both sides know the same records."""

from __future__ import annotations

import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import StripHookError, VerifyError
from cargo_strip_hook.core.requests import Granularity, Strip
from cargo_strip_hook.formats.coff import cvsymbols, cvtypes
from cargo_strip_hook.verify.coff import cvrecords
from tests.formats import windows_objects as kit
from tests.formats.test_coff_engine import SECTIONS

HEADER = """
extern "C" int outside(int);
struct Base { virtual int get(int) const; int n = 3; };
template <class T> struct Box { T value; template <class U> T mix(U u) const {
  static T kept = value; return kept += outside((int)u) + (T)u; } };
struct Local : virtual Base { int get(int a) const override { return a + outside(n); }
  int Base::*member = nullptr; union { float f; unsigned u : 5; }; };
inline int counted(int a) { static int counter = outside(1); return counter += a; }
inline __attribute__((always_inline)) int tiny(int a) {
#line 30 "tiny.inc"
  return a > 10 ? outside(a) : a; }
"""
PARTS = {
    "a.cpp": """#include "h.h"
int Base::get(int a) const { return n + a; }
int block[9];
extern "C" int unused(int a) { return tiny(a) + Box<char>{1}.mix(a); }
extern "C" int api(int a) {
  auto f = [&](int q) { return q + Box<int>{a}.mix(a) + counted(q); };
  switch (a) { case 1: return outside(8); case 2: return f(3); case 3: return tiny(a);
    case 4: return 5 * block[2]; case 5: return outside(77) - 9; case 6: return block[1]; }
  return f(a) + tiny(a);
}
""",
    "b.cpp": """#include "h.h"
extern int block[9];
__attribute__((weak)) int maybe(int a) { return outside(a) - 1; }
static int state = 12;
extern "C" int second(int a) {
  Local local;
  for (int k = 0; k < a; k++) { int more = tiny(k); state += more; }
  return local.get(a) + Box<int>{2}.mix(2L) + counted(a) + maybe(a) + state + block[a];
}
static struct Init { Init() { state = outside(4); } } init;
""",
    "c.cpp": """#include "h.h"
int maybe(int a) { return a + 77; }
extern "C" int third(int a) { return maybe(a) + Box<int>{a}.mix(3L); }
""",
    "d.c": """int common[5], unused_common; static int zeros[30];
struct s; typedef struct s *p; struct s { p next; int bits : 3; };
int fourth(p s, int i) { static int own = 8; while (s) s = s->next, own++;
  return own + common[i] + zeros[3]; }
""",
}


@pytest.mark.parametrize("target", kit.TARGETS)
@pytest.mark.parametrize("flags", [("-O0",), ("-O1", *SECTIONS)])
def test_right_codeview_is_not_refused(target: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """COMDATs of several members, weak functions, commons, scopes, inlined functions."""
    (tmp_path / "h.h").write_text(HEADER)
    more = ("-ffreestanding", "-fcommon", "-g", "-gcodeview", "-fno-exceptions")
    objects = kit.compile(tmp_path, target, PARTS, *flags, *more, "-Wno-everything")
    original = kit.archive(tmp_path / "t.a", target, objects)
    for granularity in Granularity:
        for names in (["api", "second", "third", "fourth"], ["third"], ["second", "fourth"]):
            out, made = kit.strip(original, target, names, Strip.NONE, granularity)
            assert not [text for text in made.warnings if "CodeView" in text]
            kit.check(original, out, target, made, Strip.NONE)


def test_the_same_records_are_known_on_both_sides() -> None:
    """A member with another one goes without CodeView, and the verifier expects that."""
    for kind in range(0x2000):
        record = struct.pack("<HHI", 58, kind, 0) + bytes(52)
        places: list[object] = []
        for read in (cvtypes.indices, cvrecords._type_offsets):
            try:
                places.append(list(read(record)))
            except (cvtypes.UnknownError, cvrecords.UnreadableError):
                places.append(None)
        assert places[0] == places[1], hex(kind)
        by_engine = cvsymbols._TYPES.get(kind, (8,) if kind in cvsymbols._LISTS else None)
        here = cvrecords._OF_SYMBOL.get(kind, () if kind in cvrecords._PLAIN else None)
        assert by_engine == ((8,) if kind in cvrecords._COUNTED else here), hex(kind)


def test_codeview_that_is_left_out_is_expected_to_be(tmp_path: Path) -> None:
    """Of a damaged original: what the engine keeps and leaves out is what the verifier expects."""
    target = kit.TARGETS[0]
    (tmp_path / "h.h").write_text(HEADER)
    flags = ("-O1", "-g", "-gcodeview", "-Wno-everything", *SECTIONS)
    objects = kit.compile(tmp_path, target, PARTS, *flags)
    chance = random.Random(1)
    ended = Counter[str]()
    for _ in range(60):
        victim = chance.choice(objects)
        whole = victim.read_bytes()
        parts = kit.Parts(whole)
        headers = range(20, 20 + 40 * parts.count, 40)
        tables = [h for h in headers if parts.name(h) in (b".debug$S", b".debug$T")]
        size, start = struct.unpack_from("<II", parts.raw, chance.choice(tables) + 16)
        parts.raw[start + chance.randrange(size)] = chance.choice((0, 0xFF))
        victim.write_bytes(parts.raw)
        (tmp_path / "t.a").unlink(missing_ok=True)
        original = kit.archive(tmp_path / "t.a", target, objects)
        try:
            out, made = kit.strip(original, target, ["api", "second", "third"], Strip.NONE)
            kit.check(original, out, target, made, Strip.NONE)
        except VerifyError:
            raise
        except StripHookError:
            ended["damaged"] += 1
        else:
            ended["left out" if any("CodeView" in w for w in made.warnings) else "kept"] += 1
        victim.write_bytes(whole)
    assert ended["left out"] > 2, ended
    assert ended["kept"] > 20, ended
