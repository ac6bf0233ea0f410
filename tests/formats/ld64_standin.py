"""Stands in for Apple's `ld` and `libtool`: does what was recorded, and notes how it was called.

Copied beside a `plan.json` under either name. What it says and how it ends was recorded with ld64
951.9 and cctools 1010.6; an object that it "links" was made by that linker (see `ld64_record`).
"""

import json
import os
import struct
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHO = Path(sys.argv[0]).name
PLAN = json.loads((HERE / "plan.json").read_text()).get(WHO, {})
WORDS = sys.argv[1:]
LD_VERSION = """@(#)PROGRAM:ld  PROJECT:ld64-951.9
configured to support archs: armv6 armv7 armv7s arm64 arm64e arm64_32 i386 x86_64 x86_64h
"""


def note() -> None:
    with (HERE / "calls.jsonl").open("a") as file:
        entry = {
            "who": WHO,
            "words": WORDS,
            "zero": os.environ.get("ZERO_AR_DATE"),
            "files": {w: Path(w).read_bytes().hex() for w in WORDS if Path(w).is_file()},
        }
        file.write(json.dumps(entry) + "\n")


def version() -> None:
    if WHO == "ld" and WORDS[-1:] == ["-v"]:
        sys.stderr.write(PLAN.get("version", LD_VERSION))
        sys.exit(0)
    if WHO == "libtool" and WORDS[-1:] == ["-V"]:
        print(PLAN.get("version", "Apple Inc. version cctools-1010.6"))
        sys.exit(0)


def header(name: bytes, size: int) -> bytes:
    """As libtool writes it where nothing says that times and owners are to be left out."""
    now, owner = (0, 0) if "ZERO_AR_DATE" in os.environ else (int(time.time()), 501)
    name += bytes(-(len(name) + 4) % 8)
    fields = (b"#1/%d" % len(name), now, owner, 20 if owner else 0, b"100644", size + len(name))
    return b"%-16b%-12d%-6d%-6d%-8b%-10d`\n" % fields + name


def archive(name: str, data: bytes) -> bytes:
    """One member, and a sorted table of its external definitions, private ones included."""
    symbols = {}
    at = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command == 2:
            table, count, strings, _ = struct.unpack_from("<4I", data, at + 8)
            for i in range(count):
                strx, kind, _, _, _ = struct.unpack_from("<IBBHQ", data, table + 16 * i)
                text = data[strings + strx : data.index(b"\0", strings + strx)]
                if kind & 0xE1 == 1 and kind & 0xE:
                    symbols[text] = 0
        at += size
    texts = b"".join(n + b"\0" for n in sorted(symbols))
    texts += bytes(-len(texts) % 8)
    size = 8 + 8 * len(symbols) + len(texts)
    first = header(b"__.SYMDEF SORTED", size)
    place = 8 + len(first) + size
    rows, at = b"", 0
    for text in sorted(symbols):
        rows += struct.pack("<II", at, place)
        at += len(text) + 1
    body = struct.pack("<I", len(rows)) + rows + struct.pack("<I", len(texts)) + texts
    data += b"\n" * (-len(data) % 8)
    return b"!<arch>\n" + first + body + header(name.encode(), len(data)) + data


def main() -> None:
    version()
    note()
    sys.stderr.write(PLAN.get("says", ""))
    if PLAN.get("exit"):
        sys.exit(PLAN["exit"])
    out = WORDS[WORDS.index("-o") + 1]
    if PLAN.get("output"):
        Path(out).write_bytes(Path(PLAN["output"]).read_bytes())
    elif WHO == "libtool":
        member = WORDS[-1]
        Path(out).write_bytes(archive(Path(member).name, Path(member).read_bytes()))


main()
