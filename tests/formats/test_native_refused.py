"""Input that is refused or damaged: an error that names the member, and nothing else."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from cargo_strip_hook.core.errors import InputError, LinkError, StripHookError
from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import native_kit as kit

ONE = {"one.c": "int two(void); int api(void) { return two(); }"}
TWO = {"two.c": "int two(void) { return 2; }"}


def mixed(folder: Path, *flags: str, compiler: str | None = None) -> Path:
    """A library whose second member is compiled otherwise."""
    objects = kit.build(folder, ONE) + kit.build(folder, TWO, *flags, compiler=compiler)
    kit.archive(folder / "libt.a", objects)
    return folder / "libt.a"


def test_bitcode(tmp_path: Path) -> None:
    library = mixed(tmp_path, "-flto", compiler="clang-22")
    with pytest.raises(InputError, match=r"two\.o.*bitcode") as caught:
        kit.strip(library, ("api",))
    assert "lto" in caught.value.help[0]


@pytest.mark.parametrize("flags", [("-flto", "-fno-fat-lto-objects")])
def test_slim_objects_of_gcc(flags: tuple[str, ...], tmp_path: Path) -> None:
    library = mixed(tmp_path, *flags)
    with pytest.raises(StripHookError, match=r"two\.o.*(LTO|lto|intermediate)"):
        kit.strip(library, ("api",))


def test_fat_objects_of_gcc(tmp_path: Path) -> None:
    library = mixed(tmp_path, "-flto", "-ffat-lto-objects")
    stripped, _ = kit.strip(library, ("api",))
    assert ".gnu.lto" not in kit.tool(["readelf", "-SW", stripped])
    (main,) = kit.build(tmp_path, {"m.c": "int api(void); int main(void) { return api() - 2; }"})
    kit.output(kit.link(tmp_path / "p", [main, stripped]))


def test_foreign_architecture(tmp_path: Path) -> None:
    library = mixed(tmp_path, compiler="aarch64-linux-gnu-gcc")
    with pytest.raises(InputError, match=r"one\.o.*two\.o"):
        kit.strip(library, ("api",))


def test_relocations_without_addends(tmp_path: Path) -> None:
    objects = kit.build(tmp_path, ONE | TWO, "-m32", "-fno-pic")
    library = kit.archive(tmp_path / "libt.a", objects)
    try:
        stripped, _ = kit.strip(library, ("api",), triple="i686-unknown-linux-gnu")
    except InputError as e:
        assert "one.o" in str(e) or "two.o" in str(e)
    else:  # once the architecture is there it has to link
        main = kit.build(
            tmp_path, {"m.c": "int api(void); int main(void) { return api() - 2; }"}, "-m32"
        )
        kit.link(tmp_path / "p.o", [*main, stripped], "bfd", "-m32", "-r", "-nostdlib")


def test_frames_in_the_64_bit_form(tmp_path: Path) -> None:
    source = """
 .section .text.api,"ax",@progbits
 .globl api
api: ret
 .section .eh_frame,"a",@unwind
c: .long 0xffffffff
 .quad 2f-1f
1: .quad 0
 .byte 1
 .asciz "zR"
 .uleb128 1
 .sleb128 -8
 .byte 16
 .uleb128 1
 .byte 0x1b
 .byte 0x0c, 7, 8, 0x90, 1
 .balign 8
2: .long 0xffffffff
 .quad 4f-3f
3: .quad 3b-1b
 .long api-.
 .long 1
 .uleb128 0
 .balign 8
4: .section .note.GNU-stack,"",@progbits
"""
    library = kit.library(tmp_path, {"wide.s": source})
    try:
        stripped, _ = kit.strip(library, ("api",))
    except InputError as e:
        assert "wide.o" in str(e) and "64-bit" in str(e)
    else:
        assert "FDE" in kit.tool(["readelf", "-wf", stripped])


def test_two_strong_definitions_name_both_members(tmp_path: Path) -> None:
    sources = {
        "first.c": """int helper(void); int twice(void) { return 1; }
int api(void) { return helper(); }""",
        "second.c": "int twice(void) { return 2; } int helper(void) { return twice(); }",
    }
    with pytest.raises(LinkError, match=r"twice.*first\.o.*second\.o"):
        kit.strip(kit.library(tmp_path, sources), ("api",))
    # the second member is not needed: no linker would load it
    sources["third.c"] = "int alone(void) { return 3; }"
    assert kit.strip(kit.library(tmp_path, sources), ("alone",))[1].undefined == ()


def test_missing_exports_are_all_named(tmp_path: Path) -> None:
    library = kit.library(tmp_path, ONE | TWO)
    with pytest.raises(LinkError) as caught:
        kit.strip(library, ("api", "gone", "away"))
    assert "gone" in str(caught.value) and "away" in str(caught.value)


# ---- damage

RICH = {
    "a.cc": """
struct S { virtual ~S() {} virtual int f(int x) { if (x > 9) throw x; return x; } };
static thread_local int t = 4;
inline int shared(S *s, int x) { static int n; try { return s->f(x) + ++n; } catch (int y) {
  return -y; } }
extern "C" int api(int x) { S s; switch (x) { case 0: return 4; case 1: return 9; case 2: return 1;
  case 3: return 77; case 4: return 8; } return shared(&s, x) + t; }
extern const int __start_numbers[], __stop_numbers[];
__attribute__((section("numbers"), used)) static const int number = 3;
extern "C" int count() { return __stop_numbers - __start_numbers; }
""",
    "b.c": """
int common; extern int api(int);
__attribute__((constructor(200))) static void start(void) { common = api(1); }
int b(void) { return common; } const char *text(int i) {
  static const char *const all[] = {"one", "two", "three"}; return all[i % 3]; }
""",
}
EXPORTS = ("api", "b", "count", "text")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("rich")
    flags = ("-O1", "-fPIC", "-fcommon", "-ffunction-sections", "-fdata-sections", "-g")
    return kit.library(folder, RICH, *flags).read_bytes()


def attempt(folder: Path, data: bytes, strip: Strip, granularity: Granularity) -> bool:
    """Strip an archive of these bytes; True where it went well. Anything but our errors escapes."""
    file = folder / "libt.a"
    file.write_bytes(data)
    try:
        kit.strip(file, EXPORTS, strip, granularity, output=folder / "out.a")
    except StripHookError as e:
        assert e.what
        return False
    return True


def offsets_of_interest(data: bytes) -> list[tuple[int, int]]:
    """(offset, width) of header fields, section headers, symbols, groups and relocations.

    Alignments have a test of their own: large ones are legal, and make large files.
    """
    found: list[tuple[int, int]] = []
    for match in re.finditer(rb"\x7fELF\x02\x01\x01", data):
        base = match.start()
        found += [(base + o, w) for o, w in ((4, 1), (5, 1), (16, 2), (18, 2), (40, 8))]
        found += [(base + o, 2) for o in (52, 58, 60, 62)]
        (shoff,) = struct.unpack_from("<Q", data, base + 40)
        (count,) = struct.unpack_from("<H", data, base + 60)
        for i in range(count):
            at = base + shoff + 64 * i
            fields = ((0, 4), (4, 4), (8, 8), (24, 8), (32, 8), (40, 4), (44, 4), (56, 8))
            found += [(at + o, w) for o, w in fields]
            kind, offset, size = (
                struct.unpack_from("<I", data, at + 4)[0],
                *struct.unpack_from("<QQ", data, at + 24),
            )
            if kind == 2:
                rows = [(o, w) for o, w in ((0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8))]
                found += [(base + offset + r + o, w) for r in range(0, size, 24) for o, w in rows]
            elif kind == 4:
                rows = [(0, 8), (8, 4), (12, 4), (16, 8)]
                found += [(base + offset + r + o, w) for r in range(0, size, 24) for o, w in rows]
            elif kind == 17:
                found += [(base + offset + r, 4) for r in range(0, size, 4)]
    return found


VALUES = (0, 1, 2, 3, 5, 7, 0x10, 0x7F, 0x80, 0xFF, 0xFFF1, 0xFFF2, 0xFF00, 0xFFFF, 1 << 31)
WIDE = (1 << 20, 1 << 32, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1, (1 << 64) - 8)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_fields(seed: int, rich: bytes, tmp_path: Path) -> None:
    """One field of a header, section, symbol, relocation or group has another value."""
    pick = random.Random(seed)
    places = offsets_of_interest(rich)
    fine = 0
    for _ in range(60):
        data = bytearray(rich)
        where, width = pick.choice(places)
        value = pick.choice(VALUES + WIDE) & ((1 << 8 * width) - 1)
        data[where : where + width] = value.to_bytes(width, "little")
        strip, granularity = pick.choice(list(Strip)), pick.choice(list(Granularity))
        try:
            fine += attempt(tmp_path, bytes(data), strip, granularity)
        except Exception as e:
            raise AssertionError(f"{where:#x} ({width} bytes) = {value:#x}, {strip}") from e
    assert fine < 60, "no damage was noticed"


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes(seed: int, rich: bytes, tmp_path: Path) -> None:
    """Bytes anywhere, in the index and the member headers too."""
    pick = random.Random(100 + seed)
    for _ in range(60):
        data = bytearray(rich)
        for _ in range(pick.choice((1, 1, 2, 8))):
            data[pick.randrange(8, len(data))] = pick.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20))
        strip, granularity = pick.choice(list(Strip)), pick.choice(list(Granularity))
        attempt(tmp_path, bytes(data), strip, granularity)


@pytest.mark.parametrize("seed", range(2))
def test_truncated_members(seed: int, rich: bytes, tmp_path: Path) -> None:
    """A member ends too early: the archive is sound."""
    pick = random.Random(200 + seed)
    starts = [m.start() for m in re.finditer(rb"\x7fELF", rich)]
    for start, end in zip(starts, [*(s - 60 for s in starts[1:]), len(rich)], strict=True):
        for _ in range(25):
            size = pick.randrange(0, end - start)
            head = bytearray(rich[start - 60 : start])
            head[48:58] = f"{size:<10}".encode()
            body = rich[start : start + size] + b"\n" * (size % 2)
            tail = rich[end:]
            good = attempt(
                tmp_path, rich[: start - 60] + head + body + tail, Strip.NONE, Granularity.CLASS
            )
            assert not good, f"a member of {size} instead of {end - start} bytes was taken"


def edited(folder: Path, change: Callable[[bytearray, ELFFile], None], text: str) -> Path:
    """A library of one member whose bytes `change` has edited."""
    (object_,) = kit.build(folder, {"bad.s": text})
    data = bytearray(object_.read_bytes())
    with object_.open("rb") as f:
        change(data, ELFFile(f))
    object_.write_bytes(data)
    return kit.archive(folder / "libt.a", [object_])


CALL = ' .section .text.api,"ax"\n .globl api\napi: call f\n ret\n .section .text.f,"ax"\nf: ret\n'


@pytest.mark.parametrize("past", [0, 1, 3])
def test_a_field_that_sticks_out_of_its_section(past: int, tmp_path: Path) -> None:
    """A 4-byte field at the last bytes of a section would be stored into the next one."""

    def change(data: bytearray, elf: ELFFile) -> None:
        rela: Any = elf.get_section_by_name(".rela.text.api")
        text: Any = elf.get_section_by_name(".text.api")
        size = text["sh_size"]
        struct.pack_into("<Q", data, rela["sh_offset"], size - past)

    with pytest.raises(InputError, match=r"bad\.o.*relocation"):
        kit.strip(edited(tmp_path, change, CALL), ("api",))


@pytest.mark.parametrize("alignment", [3, 1 << 48, 1 << 62])
@pytest.mark.parametrize("name", [".text.f", ".debug_x"])
def test_an_alignment_that_no_file_has(name: str, alignment: int, tmp_path: Path) -> None:
    text = CALL + ' .section .debug_x,"",@progbits\n .long 1\n .section .debug_x2,"",@progbits\n'

    def change(data: bytearray, elf: ELFFile) -> None:
        number: Any = elf.get_section_index(name)
        at = elf["e_shoff"] + 64 * number + 48
        struct.pack_into("<Q", data, at, alignment)

    library = edited(tmp_path, change, text)
    for granularity in Granularity:
        if name == ".debug_x" and alignment == 3:
            continue
        with pytest.raises(InputError, match=r"bad\.o"):
            kit.strip(library, ("api",), Strip.NONE, granularity)
