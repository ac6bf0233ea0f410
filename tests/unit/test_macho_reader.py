"""The Mach-O reader on objects made by hand: what becomes an atom, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.core.errors import LinkError, ObjectError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho import reader, versions
from cargo_strip_hook.link.model import AtomFlag, Binding, Input, Reach, SpecialIndex, Unit
from tests.unit.macho_objects import TEXT, X86_64, Section, build, plain


def read(data: bytes) -> Unit:
    [unit] = reader.read([Input(0, "m.o", memoryview(data))])
    return unit


def atoms(unit: Unit) -> list[tuple[int, int, int]]:
    """(section, offset, size) of each atom."""
    return [(int(a["section"]), int(a["offset"]), int(a["size"])) for a in unit.atoms]


def test_symbols_begin_atoms() -> None:
    unit = read(plain())
    assert atoms(unit) == [(0, 0, 4), (0, 4, 12), (1, 0, 16)]
    assert list(unit.names) == [b"_api", b"_outside"]
    found = unit.symbols[unit.first_global :]
    assert found["atom"].tolist() == [1, SpecialIndex.UNDEFINED]
    assert found["binding"].tolist() == [Binding.GLOBAL, Binding.GLOBAL]


def test_addends_are_those_of_the_symbol() -> None:
    rows = read(plain()).relocations
    pointer = rows[rows["atom"] == 2]
    assert pointer["addend"].tolist() == [4]
    assert rows["offset"][rows["atom"] == 1].tolist() == [4, 0]


def test_labels_aliases_and_ends() -> None:
    text = Section(b"__TEXT", b"__text", bytes(20), TEXT, 2)
    symbols = [
        (b"Lnothing", 0x0E, 1, 0, 4),
        (b"lborder", 0x0E, 1, 0, 8),
        (b"_alias", 0x0F, 1, 0, 8),
        (b"_inner", 0x0F, 1, mo.N_ALT_ENTRY, 12),
        (b"_end", 0x0F, 1, 0, 20),
    ]
    unit = read(build([text], symbols))
    assert atoms(unit) == [(0, 0, 8), (0, 8, 12), (0, 20, 0)]
    by_name = dict(zip(unit.names, unit.symbols[unit.first_global :], strict=True))
    assert (by_name[b"_alias"]["atom"], by_name[b"_alias"]["value"]) == (1, 0)
    assert (by_name[b"_inner"]["atom"], by_name[b"_inner"]["value"]) == (1, 4)
    assert by_name[b"_end"]["atom"] == 2


def test_an_object_without_subsections_is_one_group() -> None:
    sections = [
        Section(b"__TEXT", b"__text", bytes(8), TEXT, 2),
        Section(b"__DATA", b"__data", bytes(8)),
    ]
    unit = read(build(sections, [(b"_a", 0x0F, 1, 0, 4)], flags=0))
    assert atoms(unit) == [(0, 0, 8), (1, 0, 8)]
    assert [g.atoms for g in unit.groups] == [(0, 1)]


@pytest.mark.parametrize(
    ("kind", "contents", "expected"),
    [
        (mo.S_CSTRING_LITERALS, b"ab\0\0cde\0", [(0, 3), (3, 1), (4, 4)]),
        (mo.S_CSTRING_LITERALS, b"ab\0cd", [(0, 3), (3, 2)]),
        (mo.S_4BYTE_LITERALS, bytes(12), [(0, 4), (4, 4), (8, 4)]),
        (mo.S_8BYTE_LITERALS, bytes(16), [(0, 8), (8, 8)]),
        (mo.S_16BYTE_LITERALS, bytes(32), [(0, 16), (16, 16)]),
    ],
)
def test_literals_are_atoms_one_by_one(
    kind: int, contents: bytes, expected: list[tuple[int, int]]
) -> None:
    section = Section(b"__TEXT", b"__literals", contents, kind, 4)
    # a symbol in the middle of an element makes no border
    unit = read(build([section], [(b"l_x", 0x0E, 1, 0, 1)]))
    assert [(o, s) for _, o, s in atoms(unit)] == expected
    assert (unit.atoms["flags"] == AtomFlag.MERGEABLE).all()


def test_roots() -> None:
    sections = [
        Section(b"__DATA", b"__mod_init_func", bytes(16), mo.S_MOD_INIT_FUNC_POINTERS, 3),
        Section(b"__DATA", b"__keep", bytes(8), mo.S_ATTR_NO_DEAD_STRIP, 3),
        Section(b"__DATA", b"__data", bytes(16), 0, 3),
    ]
    symbols = [(b"_a", 0x0E, 3, 0, 24), (b"_b", 0x0E, 3, mo.N_NO_DEAD_STRIP, 32)]
    unit = read(build(sections, symbols))
    assert (unit.atoms["flags"] & AtomFlag.ROOT != 0).tolist() == [True, True, False, True]


def test_what_swift_looks_for_is_a_root() -> None:
    sections = [
        Section(b"__TEXT", b"__swift5_protos", bytes(4), 0, 2),
        Section(b"__TEXT", b"__swift5_types", bytes(4), mo.S_ATTR_LIVE_SUPPORT, 2),
        Section(b"__TEXT", b"__const", bytes(4), 0, 2),
    ]
    unit = read(build(sections))
    assert (unit.atoms["flags"] & AtomFlag.ROOT != 0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("size", "relocations", "refused"), [(8, 0, True), (8, 1, True), (8, 2, False), (0, 0, False)]
)
def test_offsets_of_initialisers(size: int, relocations: int, refused: bool) -> None:
    """Only relocations say what an offset in an image that is not there yet means."""
    text = Section(b"__TEXT", b"__text", bytes(8), TEXT, 2)
    rows = [(4 * n, 1, 0, 2, 0, 0) for n in range(relocations)]
    offsets = Section(b"__TEXT", b"__init_offsets", bytes(size), mo.S_INIT_FUNC_OFFSETS, 2, rows)
    data = build([text, offsets])
    if refused:
        with pytest.raises(ObjectError, match="__init_offsets holds offsets"):
            read(data)
    else:
        assert read(data).atoms["flags"].tolist()[1:] == [AtomFlag.ROOT]


def test_weak_hidden_and_common_symbols() -> None:
    section = Section(b"__TEXT", b"__text", bytes(8), TEXT, 2)
    symbols = [
        (b"_weak", 0x0F, 1, mo.N_WEAK_DEF, 0),
        (b"_hidden", 0x1F, 1, 0, 4),
        (b"_common", 0x01, 0, 3 << 8, 24),
        (b"_maybe", 0x01, 0, mo.N_WEAK_REF, 0),
        (b"_stab", 0x24, 1, 0, 0),
        (b"_absolute", 0x03, 0, 0, 99),
    ]
    unit = read(build([section], symbols))
    by_name = dict(zip(unit.names, unit.symbols[unit.first_global :], strict=True))
    assert b"_stab" not in by_name
    assert by_name[b"_weak"]["binding"] == Binding.WEAK
    assert by_name[b"_hidden"]["visibility"] == reader.HIDDEN
    common = by_name[b"_common"]
    assert (common["atom"], common["size"], common["value"]) == (SpecialIndex.COMMON, 24, 8)
    assert by_name[b"_maybe"]["native"] == reader.WEAK_REFERENCE
    assert by_name[b"_maybe"]["binding"] == Binding.GLOBAL, "it loads a member all the same"
    assert (by_name[b"_absolute"]["atom"], by_name[b"_absolute"]["value"]) == (
        SpecialIndex.ABSOLUTE,
        99,
    )


def test_places_named_by_address_become_atoms() -> None:
    """x86-64: SIGNED_1 to a label without a symbol, 6 bytes into the second of two atoms."""
    text = Section(b"__TEXT", b"__text", bytes(8), TEXT)
    data = Section(b"__DATA", b"__data", bytes(24), 0, 3)
    label = 8 + 8 + 6
    field = struct.pack("<i", label - (2 + 4 + 1))
    text.contents = b"\xc6\x05" + field + b"\x12\xc3"
    text.relocations = [(2, 2, 1, 2, 0, 6)]
    unit = read(build([text, data], [(b"_d", 0x0E, 2, 0, 16)], cpu=X86_64))
    (row,) = unit.relocations
    assert unit.symbols["atom"][row["symbol"]] == 2
    assert row["addend"] == 6 - 1, "as an entry with the symbol would have it in its field"


def test_arm64_addends_come_from_their_pair() -> None:
    text = Section(b"__TEXT", b"__text", bytes(8), TEXT, 2)
    text.relocations = [(4, 0xFFFFF8, 0, 2, 0, 10), (4, 1, 0, 2, 1, 4)]
    unit = read(build([text], [(b"_a", 0x0F, 1, 0, 0), (b"_b", 0x01, 0, 0, 0)]))
    assert unit.relocations["addend"].tolist() == [-8]


def test_live_support_works_both_ways() -> None:
    text = Section(b"__TEXT", b"__text", bytes(8), TEXT, 2)
    table = Section(b"__DATA", b"__support", bytes(8), mo.S_ATTR_LIVE_SUPPORT, 3)
    table.relocations = [(0, 0, 0, 3, 1, 0)]
    unit = read(build([text, table], [(b"_a", 0x0F, 1, 0, 0)]))
    assert unit.relocations["reach"].tolist() == [Reach.BOTH]


def test_compact_unwind_lives_with_its_function() -> None:
    text = Section(b"__TEXT", b"__text", bytes(16), TEXT, 2)
    unwind = Section(b"__LD", b"__compact_unwind", struct.pack("<QIIQQ", 8, 8, 1, 0, 0), 1 << 25, 3)
    unwind.relocations = [(0, 1, 0, 3, 0, 0)]
    unit = read(build([text, unwind], [(b"_a", 0x0F, 1, 0, 0), (b"_b", 0x0F, 1, 0, 8)]))
    (row,) = unit.relocations
    assert row["reach"] == Reach.REVERSE
    assert (row["symbol"], row["addend"]) == (1, 0), "the anchor of the second function"


REFUSED = [
    (lambda _: b"", "too short"),
    (lambda d: b"\xce" + d[1:], "32-bit"),
    (lambda d: d[:4] + struct.pack("<I", 12) + d[8:], "arm are not supported"),
    (lambda d: d[:8] + struct.pack("<I", 2) + d[12:], "arm64e"),
    (lambda d: d[:4] + struct.pack("<I", 0x0200000C) + d[8:], "arm64_32"),
    (lambda d: d[:12] + struct.pack("<I", 2) + d[16:], "no relocatable object"),
    (lambda d: d[:20] + struct.pack("<I", 1 << 20) + d[24:], "load commands reach beyond"),
    (lambda d: d[:16] + struct.pack("<I", 99) + d[20:], "load command"),
    (lambda d: d[:36] + struct.pack("<I", 4) + d[40:], "impossible size"),
    (lambda d: d[:96] + struct.pack("<I", 200) + d[100:], "section headers are cut short"),
    (
        lambda d: d[: 104 + 40] + struct.pack("<Q", 1 << 20) + d[104 + 48 :],
        "reaches beyond the end",
    ),
    (lambda d: d[: 104 + 52] + struct.pack("<I", 40) + d[104 + 56 :], "alignment"),
    (lambda d: d[: 104 + 56] + struct.pack("<I", 1 << 20) + d[104 + 60 :], "are cut short"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSED)
def test_damage_is_told(damage: object, message: str) -> None:
    with pytest.raises(ObjectError, match=message) as caught:
        read(damage(plain()))  # type: ignore[operator]
    assert caught.value.member == "m.o"
    assert caught.value.offset is not None


def _command(kind: int, *words: int) -> bytes:
    return struct.pack(f"<{2 + len(words)}I", kind, 8 + 4 * len(words), *words)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (_command(mo.LC_SYMTAB, 0, 0, 0, 0), "twice"),
        (_command(mo.LC_BUILD_VERSION, 1), "too short"),
        (_command(mo.LC_VERSION_MIN_MACOSX), "too short"),
        (_command(mo.LC_LINKER_OPTION), "too short"),
        (_command(mo.LC_LINKER_OPTION, 3, 0x6161), "linker option is cut short"),
        (_command(mo.LC_DATA_IN_CODE), "too short"),
        (_command(mo.LC_DATA_IN_CODE, 1 << 24, 8), "data in code reaches beyond"),
    ],
)
def test_damaged_commands_are_told(command: bytes, message: str) -> None:
    text = Section(b"__TEXT", b"__text", bytes(8), TEXT, 2)
    with pytest.raises(ObjectError, match=message):
        read(build([text], extra=command, extra_count=1))


@pytest.mark.parametrize(
    ("relocation", "message"),
    [
        ((-8, 0, 0, 2, 1, 2), "scattered"),
        ((4, 0, 0, 3, 1, 0), "lies outside"),
        ((0, 9, 1, 2, 1, 2), "has no symbol"),
        ((0, 9, 0, 3, 0, 0), "names no section"),
        ((0, 1, 1, 2, 0, 3), "must name a symbol"),
        ((0, 1, 0, 2, 0, 10), "ADDEND without its pair"),
        ((0, 0, 0, 3, 1, 1), "SUBTRACTOR without its pair"),
        ((0, 0, 0, 2, 1, 15), "unknown type"),
        ((0, 1, 0, 3, 1, 0), "debug map"),
    ],
)
def test_damaged_relocations_are_told(
    relocation: tuple[int, int, int, int, int, int], message: str
) -> None:
    text = Section(b"__TEXT", b"__text", bytes(8), TEXT, 2, [relocation])
    with pytest.raises(ObjectError, match=message):
        read(build([text], [(b"_a", 0x0F, 1, 0, 0), (b"stab", 0x24, 1, 0, 0)]))


@given(st.data())
def test_any_damage_ends_in_one_kind_of_error(data: st.DataObject) -> None:
    raw = bytearray(plain())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        try:
            read(damaged)
        except ObjectError as e:
            assert e.member == "m.o"


def _version(platform: int, minimum: int, sdk: int = 0) -> versions.Version:
    return versions.Version(platform, minimum << 16, sdk << 16)


def test_the_highest_minimum_counts() -> None:
    units = [("a.o", (_version(1, 11, 14),)), ("b.o", ()), ("c.o", (_version(1, 13, 12),))]
    assert versions.merge(units) == (_version(1, 13, 14),)


def test_old_and_new_statements_agree() -> None:
    old = versions.Version(1, 10 << 16, 0, mo.LC_VERSION_MIN_MACOSX)
    assert versions.merge([("a.o", (old,)), ("b.o", (_version(1, 9),))]) == (_version(1, 10),)
    assert versions.merge([("a.o", (old,)), ("b.o", (old,))]) == (old,)
    assert old.encode() == struct.pack("<4I", 0x24, 16, 10 << 16, 0)


@pytest.mark.parametrize(
    ("platform", "cpu", "triple"),
    [
        (1, mo.CPU_TYPE_ARM64, "aarch64-apple-darwin"),
        (1, mo.CPU_TYPE_X86_64, "x86_64-apple-darwin"),
        (2, mo.CPU_TYPE_ARM64, "aarch64-apple-ios"),
        (7, mo.CPU_TYPE_ARM64, "aarch64-apple-ios-sim"),
        (7, mo.CPU_TYPE_X86_64, "x86_64-apple-ios"),
        (6, mo.CPU_TYPE_ARM64, "aarch64-apple-ios-macabi"),
        (6, mo.CPU_TYPE_X86_64, "x86_64-apple-ios-macabi"),
        (3, mo.CPU_TYPE_ARM64, "aarch64-apple-tvos"),
        (8, mo.CPU_TYPE_ARM64, "aarch64-apple-tvos-sim"),
        (11, mo.CPU_TYPE_ARM64, "aarch64-apple-visionos"),
        (12, mo.CPU_TYPE_ARM64, "aarch64-apple-visionos-sim"),
    ],
)
def test_a_platform_fits_its_target_and_no_other(platform: int, cpu: int, triple: str) -> None:
    versions.check_target((_version(platform, 13),), cpu, Target.parse(triple))
    with pytest.raises(LinkError, match="the objects are for"):
        versions.check_target((_version(4, 13),), cpu, Target.parse(triple))
