"""A valid input and a number give a damaged one: always the same."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Mapping

from tests.campaigns.records import Place, Places, archive_members

_WIDE = {1: "B", 2: "H", 4: "I", 8: "Q"}
_TOKENS = re.compile(rb"\w+|\s+|.", re.DOTALL)
_INSERTED = (
    *(b"##", b"#", b"(", b")", b"{", b"}", b"...", b"\\\n", b"/*", b"*/", b'"', b"'", b'R"x('),
    *(b"\n#if 1/0\n", b"\n#endif\n", b"\n#else\n", b'\n#include "api.h"\n', b"\n#define api_call"),
    *(b"\n#if 1 << 999999999\n", b"99999999999999999999999", b"0x", b"1e9999", b"\0", b"\r"),
    *(b"\xff\xfe", b"\xe2\x80\xae", b"template <", b"::", b"operator", b"extern", b"__VA_ARGS__"),
    *(b"@", b"=", b",", b";", b"[", b"]", b"]]", b"!", b"/(a+)+$/", b"*", b"?", b"[!", b"\\"),
    *(b"defined", b"_Pragma(", b"__attribute__((", b"__declspec(", b"<", b"?:", b"9" * 5000),
    *(b"(" * 3000, b"[" * 300, b"{" * 3000, b"a" * 70000, b"!" * 3000, b"-" * 3000, b"*" * 3000),
)
_HEADER_TEXTS = (
    *(b"/", b"//", b"/0", b"/999", b"/0:8", b"#1/", b"#1/99", b"#1/20", b"__.SYMDEF", b"/SYM64/"),
    *(b"`\n", b"\n", b" ", b"\0", b"9", b"-1", b"9999999999", b"0", b"1", b"x.o/", b"../../x/"),
    *(b"4294967296", b"\xff\xff\xff\xff", b"/<ECSYMBOLS>/", b"\x1b[31m"),
)


def text(chance: random.Random, data: bytes) -> bytes:
    """Tokens deleted, doubled, swapped, replaced and put in; bytes changed; the end cut off."""
    tokens = _TOKENS.findall(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not tokens:
            break
        at = chance.randrange(len(tokens))
        how = chance.randrange(9)
        if how == 0:
            del tokens[at : at + chance.choice((1, 1, 3, 20))]
        elif how == 1:
            part = tokens[at : at + chance.choice((1, 3, 20))]
            tokens[at:at] = part * chance.choice((1, 2, 50, 2000 if len(part) < 4 else 3))
        elif how == 2:
            other = chance.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif how == 3:
            tokens[at] = chance.choice(tokens)
        elif how in (4, 5):
            tokens[at:at] = [chance.choice(_INSERTED)]
        elif how == 6:
            tokens[at] = chance.choice(_INSERTED)
        elif how == 7:
            raw = bytearray(tokens[at])
            raw[chance.randrange(len(raw))] = chance.randrange(256)
            tokens[at] = bytes(raw)
        else:
            del tokens[at + 1 :]
    return b"".join(tokens)


def binary(chance: random.Random, data: bytes, places: Places) -> tuple[bytes, str]:
    """A damaged file and in a word what was done to it."""
    out = bytearray(data)
    how = chance.random()
    if how < 0.62 and places:
        done = [_field(chance, out, places) for _ in range(chance.choice((1, 1, 1, 1, 2, 3)))]
        return bytes(out), "+".join(sorted(set(done)))
    if how < 0.74:
        for _ in range(chance.choice((1, 1, 2, 8))):
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
        return bytes(out), "bits"
    if how < 0.84:
        for _ in range(chance.choice((1, 2, 4))):
            width = chance.choice((1, 2, 4, 8))
            at = chance.randrange(max(1, len(out) - width))
            value = _value(chance, 0, width, len(out))
            out[at : at + width] = value.to_bytes(width, chance.choice(("little", "big")))
        return bytes(out[: len(data)]), "words"
    if how < 0.90:
        del out[chance.randrange(len(out)) :]
        return bytes(out), "cut"
    if how < 0.95 and data[:8] in (b"!<arch>\n", b"!<thin>\n"):
        return _members(chance, data), "members"
    start, to = chance.randrange(len(out)), chance.randrange(len(out))
    size = chance.choice((1, 4, 8, 40, 64, 500))
    if chance.random() < 0.5:
        out[to : to + size] = out[start : start + size]
        return bytes(out[: len(data)]), "copied"
    out[to:to] = out[start : start + size]
    return bytes(out), "shifted"


def _field(chance: random.Random, out: bytearray, places: Places) -> str:
    """Change one field of a record; its kind."""
    kinds = [k for k in places if not k.startswith("contents of")]
    contents = [k for k in places if k.startswith("contents of")]
    kind = chance.choice(contents if contents and chance.random() < 0.25 else kinds or contents)
    place = chance.choice(places[kind])
    at, width, order = place
    if order == "text":
        new = chance.choice(_HEADER_TEXTS)[:width].ljust(width)
        out[at : at + width] = new
        return kind
    if at + width > len(out):
        return kind
    value = _value(chance, _read(out, place), width, len(out))
    if chance.random() < 0.2:  # what another field of its kind has
        value = _read(out, chance.choice([p for p in places[kind] if p[2] != "text"]))
    struct.pack_into(_form(place), out, at, value & ((1 << 8 * width) - 1))
    return "contents" if kind in contents else kind


def _form(place: Place) -> str:
    return place[2] + _WIDE[place[1]]


def _read(data: bytes | bytearray, place: Place) -> int:
    if place[0] + place[1] > len(data):
        return 0
    return int(struct.unpack_from(_form(place), data, place[0])[0])


def _value(chance: random.Random, old: int, width: int, size: int) -> int:
    """A number that readers may not expect, as an unsigned one of so many bytes."""
    bits = 8 * width
    value = chance.choice(
        (
            *(0, 1, 2, 3, -1, -2, -16, 1 << bits - 1, (1 << bits - 1) - 1, (1 << bits - 1) - 8),
            *(old + 1, old - 1, old * 2, old + 8, old - 8, old ^ 0x10, old // 2, old + 4096),
            *(size, size - 1, size + 1, size // 2, size * 2, 1 << 16, 1 << 20, 1 << 24, 1 << 28),
            *(0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF, 1 << 30, 1 << 40, 1 << 62, 23, 255),
            *(
                old ^ (1 << chance.randrange(bits)),
                chance.randrange(1 << bits),
                1 << chance.randrange(bits),
            ),
        )
    )
    return value & ((1 << bits) - 1)


def _members(chance: random.Random, data: bytes) -> bytes:
    """Members left out, doubled, swapped, or the contents of one under the header of another."""
    parts = [data[at : start + size + (size & 1)] for at, start, size in archive_members(data)]
    one, other = chance.randrange(len(parts)), chance.randrange(len(parts))
    how = chance.randrange(5)
    if how == 0:
        del parts[one]
    elif how == 1:
        parts.insert(other, parts[one])
    elif how == 2:
        parts[one], parts[other] = parts[other], parts[one]
    elif how == 3:
        parts[one] = parts[one] * chance.choice((2, 40))
    else:
        contents = parts[other][60:]
        header = bytearray(parts[one][:60])
        header[48:58] = b"%-10d" % len(contents)
        parts[one] = bytes(header) + contents
    return data[:8] + b"".join(parts)


def count_kinds(outcomes: Mapping[str, int]) -> str:
    """Numbers of outcomes as a table's cell."""
    return ", ".join(f"{n} {name}" for name, n in sorted(outcomes.items(), key=lambda x: -x[1]))
