"""Each check of an ELF result: it passes on a sound one and fires on one damaged in that way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cargo_strip_hook.core.errors import ObjectError, VerifyError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.verify import Expectation, verify
from tests.formats import native_kit as kit
from tests.formats.prelinked import (
    A_C,
    B_CC,
    C_S,
    EXPORTS,
    Case,
    Editor,
    Tools,
    build,
    compile_sources,
    run,
)
from tests.tools import need

SOURCES = {"a.c": A_C, "b.cc": B_CC, "c.s": C_S}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return build(tmp_path_factory.mktemp("built"), SOURCES, EXPORTS)


@pytest.fixture
def case(built: Case, tmp_path: Path) -> Case:
    return Case(tmp_path, built.original, built.object, built.expectation, built.tools)


@pytest.fixture
def edit(case: Case) -> Editor:
    return Editor(case.object)


def findings(case: Case, data: bytes | bytearray | None = None, *, index: bool = True) -> str:
    """All findings of a result that must not pass."""
    path = case.write(None if data is None else bytes(data), index=index)
    with pytest.raises(VerifyError) as caught:
        verify(case.original, path, case.expectation)
    return "\n".join(caught.value.findings)


def test_sound_result_passes(case: Case) -> None:
    done = verify(case.original, case.write(), case.expectation)
    assert done.exports == tuple(sorted(EXPORTS))
    assert done.undefined == tuple(sorted(done.undefined))
    assert {"puts", "tuned", "__gxx_personality_v0"} <= set(done.undefined)
    assert done.pieces == len(case.expectation.link_map)
    # api_add, helper, api_say, early, late, other, api_try, Local's destructor is inline
    assert done.functions >= 10
    assert done.resolved == 0


# ---- contents


@pytest.mark.parametrize(
    "section",
    [".text.api_add", ".rodata.api_say.str1.1", ".data.shared_count", ".gcc_except_table.api_try"],
)
def test_flipped_byte(case: Case, edit: Editor, section: str) -> None:
    if section not in edit.names:
        section = next(n for n in edit.names if n.startswith(section.rsplit(".", 1)[0]))
    edit.flip(section, 0)
    assert "other bytes" in findings(case, edit.data)


def test_byte_beside_a_relocated_field(case: Case, edit: Editor) -> None:
    offset = edit.relocations(".text.api_add")[0][0]
    edit.flip(".text.api_add", offset - 1)
    assert "other bytes" in findings(case, edit.data)


def test_field_of_a_kept_relocation(case: Case, edit: Editor) -> None:
    edit.flip(".text.api_add", edit.relocations(".text.api_add")[0][0])
    assert "other bytes" in findings(case, edit.data)


def test_contents_that_no_input_explains(case: Case, tmp_path: Path) -> None:
    more = compile_sources(tmp_path, {"more.s": ".data\n.fill 64, 1, 0x41\n"}, case.tools)
    extra = build(tmp_path, SOURCES, EXPORTS, extra=more)
    text = findings(extra)
    assert "bytes that no input explains: 64 in .data" in text


# ---- layout


def test_lost_alignment(case: Case, edit: Editor) -> None:
    edit.set_section(".bss.zeros", align=1)
    assert "a piece lost its alignment: a.o(.bss.zeros" in findings(case, edit.data)


def test_alignment_no_power_of_two(case: Case, edit: Editor) -> None:
    edit.set_section(".data.shared_count", align=3)
    assert "no power of two" in findings(case, edit.data)


def test_unaligned_in_the_file(case: Case, edit: Editor) -> None:
    edit.set_section(".data.shared_count", align=1 << 20)
    assert "not aligned in the file: .data.shared_count" in findings(case, edit.data)


@pytest.mark.parametrize("flag", [0x1, 0x4, 0x400])
def test_other_kind_of_section(case: Case, edit: Editor, flag: int) -> None:
    flags = edit.section(".kept")["flags"]
    edit.set_section(".kept", flags=flags ^ flag)
    assert "in a section of another kind: c.o(.kept" in findings(case, edit.data)


def test_contents_became_zeros(case: Case, edit: Editor) -> None:
    edit.set_section(".kept", type=8)
    assert "contents became zeros: c.o(.kept" in findings(case, edit.data)


def test_merged_in_another_way(case: Case, edit: Editor) -> None:
    name = next(n for n in edit.names if n.startswith(".rodata") and ".str1.1" in n)
    edit.set_section(name, entsize=2)
    assert "merge in another way" in findings(case, edit.data)


def test_retained_section_may_be_dropped(case: Case, edit: Editor) -> None:
    edit.set_section(".kept", flags=edit.section(".kept")["flags"] & ~0x200000)
    assert "a retained piece may be dropped: c.o(.kept" in findings(case, edit.data)


def test_linked_to_another_section(case: Case, edit: Editor) -> None:
    edit.set_section(".ordered", link=edit.number(".kept"))
    assert "linked to another section: c.o(.ordered" in findings(case, edit.data)


def test_overlapping_pieces(case: Case) -> None:
    rows = case.expectation.link_map.copy()
    big = int(np.argmax(rows["size"]))
    other = next(i for i in range(len(rows)) if i != big and rows["size"][i] and i != big)
    rows["out_section"][other], rows["out_offset"][other] = rows["out_section"][big], 0
    assert "pieces overlap" in findings(case.claiming(link_map=rows))


def test_placement_outside_its_section(case: Case) -> None:
    rows = case.expectation.link_map.copy()
    rows["out_offset"][0] = 1 << 30
    assert "outside its section" in findings(case.claiming(link_map=rows))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("member", 99, "names a member"),
        ("section", 999, "names no section"),
        ("out_section", 999, "names no section"),
        ("size", 1, "cannot come in these pieces"),
    ],
)
def test_nonsense_placement(case: Case, column: str, value: int, text: str) -> None:
    rows = case.expectation.link_map.copy()
    rows[column][0] = value
    assert text in findings(case.claiming(link_map=rows))


def test_section_placed_twice(case: Case) -> None:
    rows = np.concatenate([case.expectation.link_map, case.expectation.link_map[:1]])
    assert "placed twice" in findings(case.claiming(link_map=rows))


# ---- constructors and retained sections


def _without(case: Case, name: str) -> Case:
    """The claim without the piece that is in the result's section `name`."""
    number = Editor(case.object).number(name)
    rows = case.expectation.link_map
    return case.claiming(link_map=rows[rows["out_section"] != number])


@pytest.mark.parametrize("name", [".init_array.00101", ".fini_array"])
def test_missing_constructor(case: Case, name: str) -> None:
    assert f"a constructor is missing: a.o({name}" in findings(_without(case, name))


def test_missing_retained_section(case: Case) -> None:
    assert "a retained piece is missing: c.o(.kept" in findings(_without(case, ".kept"))


def test_constructor_with_another_priority(case: Case) -> None:
    changed = case.objcopy("--rename-section=.init_array.00101=.init_array.00102")
    assert "another priority: a.o(.init_array.00101" in findings(changed)


def test_constructor_array_of_another_type(case: Case, edit: Editor) -> None:
    edit.set_section(".fini_array", type=1)
    assert "in a section of another type: a.o(.fini_array" in findings(case, edit.data)


# ---- relocations


def _to(name: str) -> Callable[[list[int]], None]:
    def change(fields: list[int]) -> None:
        fields[2] = NUMBERS[name]

    return change


NUMBERS: dict[str, int] = {}


def test_relocation_with_another_addend(case: Case, edit: Editor) -> None:
    def change(fields: list[int]) -> None:
        fields[3] += 4

    edit.change_relocation(".text.api_add", change)
    assert "a relocation has another target: a.o(.text.api_add" in findings(case, edit.data)


def test_relocation_with_another_symbol(case: Case, edit: Editor) -> None:
    NUMBERS["puts"] = edit.find_symbol("puts")
    edit.change_relocation(".data.rel.ro.words", _to("puts"))
    assert "a relocation has another target: c.o(.data.rel.ro.words" in findings(case, edit.data)


def test_relocation_with_another_type(case: Case, edit: Editor) -> None:
    def change(fields: list[int]) -> None:
        fields[1] = 24  # R_X86_64_PC64 for R_X86_64_64

    edit.change_relocation(".data.rel.ro.words", change)
    assert "a relocation has another type: c.o(.data.rel.ro.words" in findings(case, edit.data)


def test_relocation_at_another_place(case: Case, edit: Editor) -> None:
    def change(fields: list[int]) -> None:
        fields[0] += 1

    edit.change_relocation(".text.api_add", change)
    text = findings(case, edit.data)
    assert "a relocation is missing: a.o(.text.api_add" in text
    assert "a relocation that the original has not: .text.api_add" in text


def test_relocation_removed(case: Case, edit: Editor) -> None:
    edit.set_relocation(".data.rel.ro.words", 0, [0, 0, 0, 0])
    assert "a relocation is missing: c.o(.data.rel.ro.words" in findings(case, edit.data)


def test_relocation_outside_its_section(case: Case, edit: Editor) -> None:
    def change(fields: list[int]) -> None:
        fields[0] = edit.section(".data.rel.ro.words")["size"] - 7

    edit.change_relocation(".data.rel.ro.words", change)
    text = findings(case, edit.data)
    assert "a relocation lies outside its section: .data.rel.ro.words" in text


def test_relocation_with_a_symbol_that_is_not_there(case: Case, edit: Editor) -> None:
    def change(fields: list[int]) -> None:
        fields[2] = 100_000

    edit.change_relocation(".text.api_add", change)
    assert "a symbol that is not there: .text.api_add" in findings(case, edit.data)


def test_string_addressed_beside_another_symbol(case: Case, edit: Editor) -> None:
    """In a section that linkers merge, another symbol plus an addend is another string."""
    changed = list(edit.relocations(".text.api_say"))
    strings = [n for n in edit.names if ".str1.1" in n and "api_say" in n]
    if not strings:
        strings = [n for n in edit.names if ".str1.1" in n]
    numbers = {edit.number(n) for n in strings}
    for i, (offset, kind, symbol, addend) in enumerate(changed):
        fields = edit.symbol(symbol)
        if fields[3] in numbers and fields[1] & 15 != 3:
            # another local symbol two bytes further, and the addend two less: the same sum
            spare = edit.find_symbol("early")
            moved = edit.symbol(spare)
            moved[3], moved[4], moved[5], moved[1] = fields[3], fields[4] + 2, 0, 0
            edit.set_symbol(spare, moved)
            edit.set_relocation(".text.api_say", i, [offset, kind, spare, addend - 2])
            break
    else:
        pytest.skip("this compiler names no string by a symbol")
    assert "a relocation has another target: a.o(.text.api_say" in findings(case, edit.data)


# ---- relocations that were settled


def _at(edit: Editor, section: str, name: str, kind: int) -> tuple[int, list[int]]:
    """The first relocation of a type to a symbol."""
    names = edit.symbol_names()
    for i, fields in enumerate(edit.relocations(section)):
        if names[fields[2]] == name and fields[1] == kind:
            return i, fields
    raise AssertionError(f"{section} has no relocation of type {kind} to {name}")


def _patch(edit: Editor, section: str, offset: int, data: bytes) -> None:
    at = edit.section(section)["offset"] + offset
    edit.data[at : at + len(data)] = data


@pytest.mark.parametrize(("error", "good"), [(0, True), (1, False), (-4, False)])
def test_settled_call(case: Case, edit: Editor, error: int, good: bool) -> None:
    place, (offset, _, symbol, addend) = _at(edit, ".text.inner", "nearby", 4)
    value = edit.symbol(symbol)[4] + addend - offset + error
    _patch(edit, ".text.inner", offset, value.to_bytes(4, "little", signed=True))
    edit.set_relocation(".text.inner", place, [0, 0, 0, 0])
    if good:
        done = verify(case.original, case.write(bytes(edit.data)), case.expectation)
        assert done.resolved == 1
    else:
        assert "a settled relocation has a wrong value" in findings(case, edit.data)


def test_settled_across_sections(case: Case, edit: Editor) -> None:
    """The distance between two sections is not known before the final link."""
    edit.set_relocation(".text.api_add", 0, [0, 0, 0, 0])
    assert "a relocation is missing: a.o(.text.api_add" in findings(case, edit.data)


def _relax(edit: Editor, opcode: bytes, new: bytes, back: int, tail: bytes) -> None:
    """Rewrite the instruction with a GOTPCREL* field that begins with `opcode`."""
    text = edit.contents(".text")
    for i, (offset, kind, symbol, addend) in enumerate(edit.relocations(".text")):
        if kind in (9, 41, 42) and text[offset - 2 : offset] == opcode:
            _patch(edit, ".text", offset - 2, new)
            if tail:
                _patch(edit, ".text", offset + 3, tail)
            edit.set_relocation(".text", i, [offset - back, 2, symbol, addend])
            return
    raise AssertionError("no such instruction")


@pytest.mark.parametrize(
    ("opcode", "new", "back", "tail", "good"),
    [
        (b"\x8b\x05", b"\x8d\x05", 0, b"", True),  # mov -> lea
        (b"\x8b\x05", b"\x8b\x05", 0, b"", False),  # the load of the address stays a load
        (b"\x8b\x05", b"\x8d\x0d", 0, b"", False),  # into another register
        (b"\xff\x15", b"\x67\xe8", 0, b"", True),  # call -> addr32 call
        (b"\xff\x15", b"\x66\xe8", 0, b"", False),
        (b"\xff\x15", b"\xff\x15", 0, b"", False),
        (b"\xff\x25", b"\xe9", 1, b"\x90", True),  # jmp -> jmp; nop
        (b"\xff\x25", b"\xe8", 1, b"\x90", False),
        (b"\xff\x25", b"\xe9", 1, b"\xcc", False),
    ],
)
def test_direct_instead_of_through_the_got(
    case: Case, edit: Editor, opcode: bytes, new: bytes, back: int, tail: bytes, good: bool
) -> None:
    _relax(edit, opcode, new, back, tail)
    if good:
        verify(case.original, case.write(bytes(edit.data)), case.expectation)
    else:
        text = findings(case, edit.data)
        assert "an instruction was changed in a wrong way: c.o(.text" in text


def test_undefined_symbol_not_through_the_got(tmp_path: Path) -> None:
    source = "    .text\n    .globl f\nf:\n    movq outside@GOTPCREL(%rip), %rax\n    ret\n"
    source += '    .section .note.GNU-stack,"",%progbits\n'
    case = build(tmp_path, {"f.s": source}, ["f"])
    edit = Editor(case.object)
    _relax(edit, b"\x8b\x05", b"\x8d\x05", 0, b"")
    assert "a relocation has another target: f.o(.text" in findings(case, edit.data)


def test_export_addressed_in_place(case: Case, edit: Editor) -> None:
    """A reference to an export stays one by name: the application may define it itself."""
    for section in (".text.early", ".text.api_add"):
        if f".rela{section}" not in edit.names:
            continue
        names = edit.symbol_names()
        for i, (offset, kind, symbol, addend) in enumerate(edit.relocations(section)):
            if names[symbol] == "shared_count":
                own = next(
                    n
                    for n in range(1, edit.section(".symtab")["info"])
                    if edit.symbol(n)[1] == 3
                    and edit.symbol(n)[3] == edit.number(".data.shared_count")
                )
                edit.set_relocation(section, i, [offset, kind, own, addend])
                assert "another target" in findings(case, edit.data)
                return
    raise AssertionError("nothing refers to shared_count")


# ---- unwind tables


def _frame(edit: Editor, kind: str, augmented: bool = True) -> int:
    """The offset of a CIE or FDE in .eh_frame (of those with personality, if `augmented`)."""
    data, at = edit.contents(".eh_frame"), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        pointer = int.from_bytes(data[at + 4 : at + 8], "little")
        cie = at if not pointer else at + 4 - pointer
        if (pointer == 0) == (kind == "cie") and (b"zPLR\0" in data[cie : cie + 16]) == augmented:
            return at
        at += 4 + length
    raise AssertionError("no such record")


def _frame_relocation(edit: Editor, offset: int) -> int:
    for i, fields in enumerate(edit.relocations(".eh_frame")):
        if fields[0] == offset:
            return i
    raise AssertionError("no such relocation")


def test_unwind_entry_lost(case: Case, edit: Editor) -> None:
    at = _frame(edit, "fde")
    edit.set_relocation(".eh_frame", _frame_relocation(edit, at + 8), [at + 8, 0, 0, 0])
    text = findings(case, edit.data)
    assert "a function lost its unwind entry: .text.api_try" in text
    assert f"an unwind entry without a function: .eh_frame+{at:#x}" in text


def test_unwind_entry_for_another_function(case: Case, edit: Editor) -> None:
    at = _frame(edit, "fde", augmented=False)
    place = _frame_relocation(edit, at + 8)
    offset, kind, symbol, addend = edit.relocations(".eh_frame")[place]
    edit.set_relocation(".eh_frame", place, [offset, kind, symbol, addend + 1])
    text = findings(case, edit.data)
    assert "a function lost its unwind entry" in text
    assert "an unwind entry that the original has not" in text


@pytest.mark.parametrize("offset", [12, 24])
def test_unwind_entry_differs(case: Case, edit: Editor, offset: int) -> None:
    """Byte 12 is the length of the function, 24 in the instructions."""
    edit.flip(".eh_frame", _frame(edit, "fde") + offset)
    assert "an unwind entry differs: b.o(.eh_frame" in findings(case, edit.data)


def test_unwind_entry_with_another_cie(case: Case, edit: Editor) -> None:
    edit.flip(".eh_frame", _frame(edit, "cie", augmented=False) + 13)  # alignment factors
    assert "an unwind entry has another CIE" in findings(case, edit.data)


def test_unwind_entry_with_wrong_lsda(case: Case, edit: Editor) -> None:
    at = _frame(edit, "fde")
    place = _frame_relocation(edit, at + 17)
    offset, kind, symbol, addend = edit.relocations(".eh_frame")[place]
    edit.set_relocation(".eh_frame", place, [offset, kind, symbol, addend + 4])
    text = findings(case, edit.data)
    assert "a function has other language-specific data: b.o(.eh_frame" in text


def test_unwind_entry_without_lsda(case: Case, edit: Editor) -> None:
    place = _frame_relocation(edit, _frame(edit, "fde") + 17)
    edit.set_relocation(".eh_frame", place, [0, 0, 0, 0])
    assert "a function has other language-specific data" in findings(case, edit.data)


def test_another_personality(case: Case, edit: Editor) -> None:
    at = _frame(edit, "cie")
    for i, fields in enumerate(edit.relocations(".eh_frame")):
        if at < fields[0] < at + 32:
            fields[2] = edit.find_symbol("puts")
            edit.set_relocation(".eh_frame", i, fields)
            break
    assert "a function has another personality: b.o(.eh_frame" in findings(case, edit.data)


def test_damaged_unwind_table(case: Case, edit: Editor) -> None:
    start = edit.section(".eh_frame")["offset"]
    edit.data[start : start + 4] = b"\xf0\xff\xff\x00"
    assert "the unwind table is damaged" in findings(case, edit.data)


def test_whole_unwind_table_gone(case: Case) -> None:
    changed = case.objcopy("--remove-section=.eh_frame", "--remove-section=.rela.eh_frame")
    # section numbers moved: claim them anew
    old, new = Editor(case.object), Editor(changed.object)
    rows = case.expectation.link_map.copy()
    rows["out_section"] = [new.number(old.names[i]) for i in rows["out_section"].tolist()]
    text = findings(changed.claiming(link_map=rows))
    assert "a function lost its unwind entry" in text


# ---- symbols


def test_extra_global(case: Case) -> None:
    text = findings(case.claiming(exports=tuple(n for n in EXPORTS if n != "api_say")))
    assert "a global symbol that is no export: `api_say`" in text


def test_missing_export(case: Case) -> None:
    text = findings(case.claiming(exports=(*EXPORTS, "other")))
    assert "an export is missing: `other`" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [(1, 0x22), (1, 0x11), (2, 2), (5, 1)],
    ids=["weak", "data", "hidden", "size"],
)
def test_export_changed(case: Case, edit: Editor, field: int, value: int) -> None:
    number = edit.find_symbol("api_say")
    symbol = edit.symbol(number)
    symbol[field] = value
    edit.set_symbol(number, symbol)
    assert "an export changed: `api_say`" in findings(case, edit.data)


def test_export_at_another_place(case: Case, edit: Editor) -> None:
    number = edit.find_symbol("shared_count")
    symbol = edit.symbol(number)
    symbol[3] = edit.number(".kept")
    edit.set_symbol(number, symbol)
    text = findings(case, edit.data)
    assert "an export is at another place: `shared_count`" in text


def test_new_undefined_symbol(tmp_path: Path) -> None:
    case = build(tmp_path, SOURCES, EXPORTS, link=["-u", "from_nowhere"])
    assert "undefined, and it was not before: `from_nowhere`" in findings(case)


def test_undefined_although_a_member_defines_it(tmp_path: Path) -> None:
    """A member that is needed and was not loaded."""
    source = "int missing(void); int f(void) { return missing() + 1; }"
    case = build(tmp_path, {"f.c": source}, ["f"])
    more = compile_sources(tmp_path, {"g.c": "int missing(void) { return 1; }"}, case.tools)
    run("ar", "rcDs", case.original, tmp_path / "f.o", *more)
    assert "undefined, although the original defines it: `missing`" in findings(case)
    allowed = case.claiming(allowed_extra=("missing",))
    verify(allowed.original, allowed.write(), allowed.expectation)
    # the same without an index of the original
    run("ar", "rcDS", tmp_path / "plain.a", tmp_path / "f.o", *more)
    with pytest.raises(VerifyError):
        verify(tmp_path / "plain.a", case.write(), case.expectation)


@pytest.mark.parametrize(
    ("name", "text"), [("puts", "became weak: `puts`"), ("tuned", "no longer weak: `tuned`")]
)
def test_undefined_symbol_changed_its_binding(
    case: Case, edit: Editor, name: str, text: str
) -> None:
    number = edit.find_symbol(name)
    symbol = edit.symbol(number)
    symbol[1] ^= 0x30  # STB_GLOBAL 1 <-> STB_WEAK 2
    edit.set_symbol(number, symbol)
    assert text in findings(case, edit.data)


@pytest.mark.parametrize(
    ("step", "text"),
    [(1, "a global symbol among the local ones"), (-1, "a local symbol among the global ones")],
)
def test_border_of_local_symbols(case: Case, edit: Editor, step: int, text: str) -> None:
    edit.set_section(".symtab", info=edit.section(".symtab")["info"] + step)
    assert text in findings(case, edit.data)


def test_symbol_in_no_section(case: Case, edit: Editor) -> None:
    symbol = edit.symbol(1)
    symbol[3] = 4000
    edit.set_symbol(1, symbol)
    assert "a symbol in no section" in findings(case, edit.data)


def test_symbol_outside_its_section(case: Case, edit: Editor) -> None:
    number = edit.find_symbol("helper")
    symbol = edit.symbol(number)
    symbol[4] += 1 << 20
    edit.set_symbol(number, symbol)
    assert "a symbol lies outside its section: `helper`" in findings(case, edit.data)


def test_symbol_in_a_section_that_is_gone(case: Case, edit: Editor) -> None:
    edit.set_section(".ordered", type=0)
    assert "a symbol in a section that is gone" in findings(case, edit.data)


def test_thread_local_symbol_elsewhere(case: Case, edit: Editor) -> None:
    number = edit.find_symbol("per_thread")
    symbol = edit.symbol(number)
    symbol[1] = symbol[1] & 0xF0 | 1
    edit.set_symbol(number, symbol)
    assert "disagree about thread-local storage: `per_thread`" in findings(case, edit.data)


# ---- sections of the object


@pytest.mark.parametrize(
    ("section", "fields", "text"),
    [
        (".rela.text.api_add", {"link": 1}, "relocations without symbols"),
        (".rela.text.api_add", {"link": 5000}, "a section is linked to none"),
        (".rela.text.api_add", {"info": 0}, "relocations for no section"),
        (".rela.text.api_add", {"info": 5000}, "relocations for no section"),
        (".symtab", {"link": 5000}, "no names for the symbols"),
        (".text.api_add", {"flags": 0x206}, "member of a group that is not there"),
        (".text.api_add", {"offset": 1 << 40}, "lies outside the file"),
        (".text.api_add", {"offset": 0x40, "align": 1}, "sections overlap"),
        (".text.api_add", {"name": 1 << 30}, "section name is not there"),
        (".symtab", {"entsize": 23}, "symbols of odd size"),
        (".rela.text.api_add", {"entsize": 16}, "records of another size"),
    ],
)
def test_section_header(
    case: Case, edit: Editor, section: str, fields: dict[str, int], text: str
) -> None:
    if fields == {"offset": 0x40, "align": 1}:
        # the first section's own place, wherever the linker began
        first = min(
            edit.section(i)["offset"]
            for i in range(1, edit.count)
            if edit.section(i)["size"] and edit.names[i] != section
        )
        fields = {"offset": first, "align": 1}
    edit.set_section(section, **fields)
    assert text in findings(case, edit.data)


def test_two_relocation_tables_for_a_section(case: Case, edit: Editor) -> None:
    edit.set_section(".rela.text.api_say", info=edit.number(".text.api_add"))
    assert "two relocation tables for a section" in findings(case, edit.data)


def test_executable_stack(case: Case, edit: Editor) -> None:
    edit.set_section(".note.GNU-stack", flags=4)
    assert "an executable stack that no input asks for" in findings(case, edit.data)


def test_missing_stack_note(case: Case) -> None:
    changed = case.objcopy("--remove-section=.note.GNU-stack")
    old, new = Editor(case.object), Editor(changed.object)
    rows = case.expectation.link_map.copy()
    rows["out_section"] = [new.number(old.names[i]) for i in rows["out_section"].tolist()]
    assert ".note.GNU-stack is missing" in findings(changed.claiming(link_map=rows))


@pytest.mark.parametrize("name", [".llvmbc", ".llvmcmd", ".debug_info"])
def test_section_that_should_be_gone(case: Case, name: str) -> None:
    changed = case.objcopy(f"--add-section={name}={case.original}")
    assert f"a section that should be gone: {name}" in findings(changed)
    if name == ".debug_info":
        kept = changed.claiming(strip=Strip.NONE)
        assert "bytes that no input explains: .debug_info" in findings(kept)


def test_promised_feature(tmp_path: Path) -> None:
    """`.note.gnu.property`: IBT and SHSTK hold only if all objects have them."""
    flags = ("-fcf-protection=full",)
    plain = {"p.c": "int q(void); int p(void) { return q(); }"}
    case = build(tmp_path, plain, ["p"], Tools(flags=flags))
    verify(case.original, case.write(), case.expectation)
    without = compile_sources(tmp_path, plain, Tools(flags=("-fcf-protection=none",)))
    edit = Editor(case.object)
    # the same code bytes, without the note: as if a member had not promised it
    with_note = Editor((tmp_path / "p.o").read_bytes())
    assert ".note.gnu.property" not in with_note.names
    del without
    run(
        "gcc",
        "-c",
        "-O1",
        "-fPIC",
        "-ffunction-sections",
        *flags,
        tmp_path / "p.c",
        "-o",
        tmp_path / "p.o",
    )
    run("objcopy", "--remove-section=.note.gnu.property", tmp_path / "p.o")
    run("ar", "rcDs", case.original, tmp_path / "p.o")
    old = Editor((tmp_path / "p.o").read_bytes())
    rows = case.expectation.link_map.copy()
    keep = [old.number(edit.names[i]) for i in rows["out_section"].tolist()]
    rows["section"] = keep
    text = findings(case.claiming(link_map=rows))
    assert ".note.gnu.property: promises 0x3, the members only 0x0" in text


# ---- marker, index, archive


def test_marker(case: Case, edit: Editor) -> None:
    assert "the marker" in findings(case.claiming(marker=b"another"))
    edit.set_section(".cargo-strip-hook", flags=2)
    assert "the marker" in findings(case, edit.data)


def test_missing_index(case: Case) -> None:
    assert "the archive's index: is missing" in findings(case, index=False)


def _verify_bytes(case: Case, data: bytes) -> str:
    path = case.folder / "changed.a"
    path.write_bytes(data)
    with pytest.raises(VerifyError) as caught:
        verify(case.original, path, case.expectation)
    return "\n".join(caught.value.findings)


def test_broken_index(case: Case) -> None:
    data = case.write().read_bytes()
    text = _verify_bytes(case, data.replace(b"api_say\0", b"api_sax\0", 1))
    assert "lacks `api_say`" in text
    assert "has `api_sax`, which is not defined" in text
    place = 68 + 4  # behind magic, member header and count
    moved = data[:place] + b"\0\0\0\x09" + data[place + 4 :]
    assert re.search("points `.*` at no member", _verify_bytes(case, moved))
    twice = data.replace(b"api_say\0", b"api_add\0", 1)
    assert "has a name twice" in _verify_bytes(case, twice)


def test_archive_of_two_members(case: Case) -> None:
    path = case.write()
    (case.folder / "readme").write_text("hello")
    run("ar", "rD", path, case.folder / "readme")
    with pytest.raises(VerifyError, match="not what it should be") as caught:
        verify(case.original, path, case.expectation)
    assert caught.value.findings == ("the archive has 2 members, not one",)


def test_truncated_archive_at_every_class_of_offset(case: Case) -> None:
    data = case.write().read_bytes()
    for size in (9, 60, 100, 400, len(data) // 2, len(data) - 100, len(data) - 2):
        assert _verify_bytes(case, data[:size])


def test_no_object(case: Case) -> None:
    assert "format that cannot be verified" in findings(case, b"just text, no object at all")
    assert "not a relocatable object" in findings(case, case.object[:16] + b"\2" + case.object[17:])


def test_damaged_original(case: Case, tmp_path: Path) -> None:
    data = case.original.read_bytes()
    at = data.index(b"\x7fELF")
    broken = tmp_path / "broken.a"
    broken.write_bytes(data[: at + 16] + b"\2" + data[at + 17 :])
    with pytest.raises(ObjectError, match=r"a\.o"):
        verify(broken, case.write(), case.expectation)


# ---- more kinds of input


def test_thin_original(case: Case, built: Case) -> None:
    thin = built.folder / "thin.a"
    thin.unlink(missing_ok=True)
    objects = [built.folder / name for name in ("a.o", "b.o", "c.o")]
    run("ar", "rcDsT", thin, *objects)
    done = verify(thin, case.write(), case.expectation)
    assert done.pieces == len(case.expectation.link_map)


SET_C = """
extern int *__start_myset[], *__stop_myset[];
static int one = 1;
__attribute__((section("myset"), used)) static int *first = &one;
long count(void) { return __stop_myset - __start_myset; }
"""


def test_linker_made_set(tmp_path: Path) -> None:
    ends = {
        f"{end}.s": f"""
            .section .note.GNU-stack,"",%progbits
            .section myset,"aw"
            .globl __{end}_myset
            .hidden __{end}_myset
            __{end}_myset:
        """
        for end in ("start", "stop")
    }
    start, stop = compile_sources(tmp_path, ends, Tools())
    private = build(tmp_path, {"set.c": SET_C}, ["count"], link=[str(start)], extra=[stop])
    done = verify(private.original, private.write(), private.expectation)
    assert "__start_myset" not in done.undefined
    # the ends in the wrong order
    wrong = build(tmp_path, {"set.c": SET_C}, ["count"], link=[str(stop)], extra=[start])
    assert "a relocation has another target" in findings(wrong)
    # left to the final link, where another library's set of that name would come in
    shared = build(tmp_path, {"set.c": SET_C}, ["count"])
    assert "a relocation has another target" in findings(shared)


COMMON_C = "int pool[8]; int *f(void) { return pool + 2; }"


def test_common_symbol(tmp_path: Path) -> None:
    case = build(tmp_path, {"common.c": COMMON_C}, ["f"], Tools(flags=("-fcommon",)))
    verify(case.original, case.write(), case.expectation)
    edit = Editor(case.object)
    number = edit.find_symbol("pool")
    symbol = edit.symbol(number)
    symbol[3], symbol[4], symbol[5] = edit.number(".text.f"), 0, 0
    edit.set_symbol(number, symbol)
    assert "a common symbol has no room: `pool` at .text.f" in findings(case, edit.data)


def test_weak_definitions(tmp_path: Path) -> None:
    """The strong definition wins, wherever it stands."""
    sources = {
        "w.c": "__attribute__((weak)) int v(void) { return 1; } int f(void) { return v(); }",
        "s.c": "int v(void) { return 2; } int g(void) { return 3; }",
    }
    case = build(tmp_path, sources, ["f", "g"])
    verify(case.original, case.write(), case.expectation)
    edit = Editor(case.object)
    place, fields = _at(edit, ".text.f", "v", 4)
    own = next(
        n
        for n in range(1, edit.section(".symtab")["info"])
        if edit.symbol(n)[3] == edit.number(".text.v") and edit.symbol(n)[1] == 3
    )
    edit.set_relocation(".text.f", place, [fields[0], fields[1], own, fields[3]])
    assert "a relocation has another target: w.o(.text.f" in findings(case, edit.data)


def test_without_placement(case: Case, edit: Editor) -> None:
    """Pieces are found by the names of functions and data."""
    free = case.claiming(link_map=None)
    done = verify(free.original, free.write(), free.expectation)
    assert 5 <= done.pieces < len(case.expectation.link_map)
    assert done.functions >= 5
    edit.flip(".text.api_add", 0)
    assert "other bytes" in findings(free, edit.data)


def test_without_placement_unwind(case: Case, edit: Editor) -> None:
    free = case.claiming(link_map=None)
    at = _frame(edit, "fde")
    edit.flip(".eh_frame", at + 24)
    assert "an unwind entry differs" in findings(free, edit.data)


AARCH64 = Tools(
    cc="aarch64-linux-gnu-gcc",
    ld="aarch64-linux-gnu-ld",
    objcopy="aarch64-linux-gnu-objcopy",
    ar="aarch64-linux-gnu-ar",
    triple="aarch64-unknown-linux-gnu",
)
I386 = Tools(flags=("-m32",), ld_flags=("-m", "elf_i386"), triple="i686-unknown-linux-gnu")
CALLS_C = """
__attribute__((noinline)) static int inner(int a) { return a + 1; }
int outer(int a) { return inner(a) + inner(a + 1); }
"""


def test_other_processor(tmp_path: Path) -> None:
    need("aarch64-linux-gnu-g++")
    case = build(tmp_path, {"a.c": A_C, "b.cc": B_CC}, EXPORTS[:1] + EXPORTS[2:], AARCH64)
    done = verify(case.original, case.write(), case.expectation)
    assert done.functions >= 7
    edit = Editor(case.object)
    edit.flip(".text.api_add", edit.relocations(".text.api_add")[0][0] + 3)
    assert "other bytes" in findings(case, edit.data)


@pytest.mark.parametrize(("error", "good"), [(0, True), (1, False), (1 << 26, False)])
def test_settled_branch_of_aarch64(tmp_path: Path, error: int, good: bool) -> None:
    source = (
        "    .text\n    .globl f\nf:\n    bl g\n    ret\n    .globl g\n    .hidden g\ng:\n    ret\n"
    )
    source += '    .section .note.GNU-stack,"",%progbits\n'
    case = build(tmp_path, {"f.s": source}, ["f"], AARCH64)
    edit = Editor(case.object)
    verify(case.original, case.write(), case.expectation)
    assert edit.relocations(".text")[0][:2] == [0, 283]
    word = (0x94000000 | 2) + error
    _patch(edit, ".text", 0, word.to_bytes(4, "little"))
    edit.set_relocation(".text", 0, [0, 0, 0, 0])
    if good:
        assert verify(case.original, case.write(bytes(edit.data)), case.expectation).resolved == 1
    else:
        assert "a settled relocation has a wrong value" in findings(case, edit.data)


def test_32_bits_without_addends(tmp_path: Path) -> None:
    case = build(tmp_path, {"calls.c": CALLS_C}, ["outer"], I386)
    done = verify(case.original, case.write(), case.expectation)
    assert done.functions >= 2


# ---- fields with one right value


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [
        (6, 2, "is of an unknown version"),
        (20, 2, "is of an unknown version"),
        (9, 1, "is of an unknown version"),
        (8, 1, "is for operating system "),
        (7, 97, "is for operating system 97"),
        (7, 9, "is for operating system 9"),
        (24, 1, "has an entry point or program headers"),
        (32, 1, "has an entry point or program headers"),
        (48, 5, "has flags 0x5, not 0x0"),
        (52, 63, "says that it has 63 bytes"),
    ],
)
def test_file_header(case: Case, edit: Editor, offset: int, value: int, text: str) -> None:
    edit.data[offset] = value
    assert f"the file header: {text}" in findings(case, edit.data)


@pytest.mark.parametrize(
    ("section", "fields", "text"),
    [
        (0, {"info": 1}, "section 0: is not empty"),
        (".data.shared_count", {"address": 16}, "a section has an address"),
        (".data.shared_count", {"link": 1}, "contents are linked to something"),
        (".data.shared_count", {"info": 1}, "contents are linked to something"),
        (".data.shared_count", {"entsize": 4}, "in a section of another entry size: a.o(.data"),
        (".data.shared_count", {"type": 0x70000001}, "in a section of another type: a.o(.data"),
        (".data.shared_count", {"flags": 0x10000003}, "in a section of other flags: a.o(.data"),
        (".rela.text.api_add", {"flags": 2}, "a table has flags that it cannot have"),
        (".strtab", {"flags": 1}, "a table has flags that it cannot have"),
        (".shstrtab", {"type": 1}, "section names of another type"),
        (".symtab", {"link": 1}, "a symbol name is not there"),
        (".ordered", {"link": 0}, "a section is linked to none"),
    ],
)
def test_section_header_field(
    case: Case, edit: Editor, section: str | int, fields: dict[str, int], text: str
) -> None:
    edit.set_section(section, **fields)
    assert text in findings(case, edit.data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".text.api_add", ".data.api_add"),
        (".text.api_add", ".text.unlikely.add"),
        (".data.rel.ro.words", ".data.words"),
        (".kept", ".keep"),
    ],
)
def test_section_with_another_name(case: Case, old: str, new: str) -> None:
    changed = case.objcopy(f"--rename-section={old}={new}")
    assert "a piece is in a section of another name" in findings(changed)


def test_symbol_zero(case: Case, edit: Editor) -> None:
    edit.set_symbol(0, [0, 0, 0, 0, 1, 0])
    assert "symbol 0: is not empty" in findings(case, edit.data)


def test_undefined_symbol_with_a_value(case: Case, edit: Editor) -> None:
    number = edit.find_symbol("puts")
    symbol = edit.symbol(number)
    symbol[4] = 8
    edit.set_symbol(number, symbol)
    assert "an undefined symbol has a value: `puts`" in findings(case, edit.data)


@pytest.mark.parametrize(("field", "value"), [(1, 1), (2, 0x80), (5, 2)])
def test_local_symbol_changed(case: Case, edit: Editor, field: int, value: int) -> None:
    number = edit.find_symbol("early")
    symbol = edit.symbol(number)
    symbol[field] = value
    edit.set_symbol(number, symbol)
    assert "a local symbol that the original has not: `early`" in findings(case, edit.data)


def test_local_symbol_of_another_visibility(case: Case, edit: Editor) -> None:
    """It means nothing for a local symbol: GNU ld leaves there what a reference asked for."""
    number = edit.find_symbol("early")
    symbol = edit.symbol(number)
    symbol[2] = 2
    edit.set_symbol(number, symbol)
    verify(case.original, case.write(bytes(edit.data)), case.expectation)


def test_local_symbol_with_another_name(case: Case, edit: Editor) -> None:
    number = edit.find_symbol("early")
    symbol = edit.symbol(number)
    symbol[0] = edit.symbol(edit.find_symbol("late"))[0]
    edit.set_symbol(number, symbol)
    assert "a local symbol that the original has not: `late`" in findings(case, edit.data)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (8, "an unwind entry has a relocation of another type"),
        (17, "language-specific data of another relocation type"),
    ],
)
def test_unwind_relocation_of_another_type(case: Case, edit: Editor, field: int, text: str) -> None:
    place = _frame_relocation(edit, _frame(edit, "fde") + field)
    fields = edit.relocations(".eh_frame")[place]
    fields[1] = 24  # R_X86_64_PC64
    edit.set_relocation(".eh_frame", place, fields)
    assert text in findings(case, edit.data)


def test_personality_relocation_of_another_type(case: Case, edit: Editor) -> None:
    at = _frame(edit, "cie")
    for i, fields in enumerate(edit.relocations(".eh_frame")):
        if at < fields[0] < at + 32:
            fields[1] = 1
            edit.set_relocation(".eh_frame", i, fields)
    text = findings(case, edit.data)
    assert "a personality has a relocation of another type" in text


def test_unwind_relocation_at_no_pointer(case: Case, edit: Editor) -> None:
    at = _frame(edit, "fde")
    place = _frame_relocation(edit, at + 17)
    fields = edit.relocations(".eh_frame")[place]
    edit.set_relocation(".eh_frame", place, [fields[0] + 3, *fields[1:]])
    assert "a relocation that no unwind entry has" in findings(case, edit.data)


def test_group_member_that_is_no_section(case: Case, edit: Editor) -> None:
    """`.kept` becomes a group whose contents are no section numbers."""
    edit.set_section(".kept", type=17, flags=0)
    assert "a group has a member that is no section: .kept" in findings(case, edit.data)


def test_stale_address_significance_table(case: Case, edit: Editor) -> None:
    edit.set_section(".cargo-strip-hook", type=0x6FFF4C03, link=edit.number(".symtab"))
    start = edit.section(".cargo-strip-hook")["offset"]
    edit.data[start : start + 7] = b"\x01\x02\xff\xff\x7f\x01\x01"
    assert "stale: .cargo-strip-hook" in findings(case.claiming(marker=b""), edit.data)


def test_relocations_for_zeros(case: Case, edit: Editor) -> None:
    edit.set_section(".data.rel.ro.words", type=8)
    assert "a relocation for zeros: .data.rel.ro.words" in findings(case, edit.data)


def test_symbol_defined_twice(case: Case, edit: Editor) -> None:
    number = edit.find_symbol("api_say")
    symbol = edit.symbol(number)
    symbol[0] = edit.symbol(edit.find_symbol("api_try"))[0]
    edit.set_symbol(number, symbol)
    assert "defined twice: `api_try`" in findings(case, edit.data)


def test_retained_section_not_in_a_used_member(case: Case) -> None:
    """A placement that leaves a member out is incomplete only if something refers to it."""
    rows = case.expectation.link_map
    text = findings(case.claiming(link_map=rows[rows["member"] != 1]))
    assert "bytes that no input explains" in text


def test_archive_with_a_time(case: Case) -> None:
    path = case.write()
    run("ar", "rcUs", path, case.folder / "candidate.o")
    with pytest.raises(VerifyError) as caught:
        verify(case.original, path, case.expectation)
    assert "the archive: tells a time or an owner" in caught.value.findings[0]


def test_symbols_of_one_section_moved_apart(tmp_path: Path) -> None:
    source = "int x[4] = {1}, y[4] = {2}; int *f(void) { return x; }"
    case = build(tmp_path, {"m.c": source}, ["f"], Tools(flags=("-fno-data-sections",)))
    edit = Editor(case.object)
    number = edit.find_symbol("y")
    symbol = edit.symbol(number)
    symbol[4] ^= 32
    edit.set_symbol(number, symbol)
    text = findings(case.claiming(link_map=None), edit.data)
    assert "symbols of one section moved apart: y" in text or "outside its section" in text


def test_undefined_symbol_with_another_visibility(case: Case, edit: Editor) -> None:
    number = edit.find_symbol("puts")
    symbol = edit.symbol(number)
    symbol[2] = 2
    edit.set_symbol(number, symbol)
    text = findings(case, edit.data)
    assert "an undefined symbol changed its visibility: `puts`" in text


def test_personality_field(case: Case, edit: Editor) -> None:
    """With addends in the relocation the field itself is as it was."""
    at = _frame(edit, "cie")
    place = next(f[0] for f in edit.relocations(".eh_frame") if at < f[0] < at + 32)
    edit.flip(".eh_frame", place)
    assert "an unwind entry has another CIE" in findings(case, edit.data)


def test_unwind_table_of_another_kind(case: Case, edit: Editor) -> None:
    edit.set_section(".eh_frame", flags=3)
    assert "an unwind table is in a section of another kind" in findings(case, edit.data)


# ---- rarer damage


@pytest.mark.parametrize(
    ("offset", "data", "text"),
    [
        (18, b"\xb7", "made for another processor than the original"),
        (40, bytes(8), "no section table"),
        (40, b"\xff\xff\xff\x7f", "no section table"),
        (58, b"\x3f", "section headers of odd size"),
        (60, b"\xf0\xff", "section table cut"),
        (62, b"\xf0\xfe", "no section names"),
        (4, b"\1", "damaged"),
        (5, b"\2", "damaged"),
    ],
)
def test_damaged_file_header(case: Case, offset: int, data: bytes, text: str) -> None:
    whole = bytearray(case.write().read_bytes())
    start = whole.index(b"\x7fELF") + offset
    whole[start : start + len(data)] = data
    assert text in _verify_bytes(case, bytes(whole))


def test_two_symbol_tables(case: Case, edit: Editor) -> None:
    edit.set_section(".cargo-strip-hook", type=2)
    assert "damaged: two symbol tables" in findings(case, edit.data)


def test_no_symbol_table(case: Case, edit: Editor) -> None:
    edit.set_section(".symtab", type=1)
    assert "damaged: there is no symbol table" in findings(case, edit.data)


def test_symbols_without_names(case: Case, edit: Editor) -> None:
    edit.set_section(".strtab", type=1)
    assert "symbols without names: .symtab" in findings(case, edit.data)


def test_section_symbol_not_at_the_beginning(case: Case, edit: Editor) -> None:
    number = next(n for n in range(1, 100) if edit.symbol(n)[1] == 3)
    symbol = edit.symbol(number)
    symbol[4] = 1
    edit.set_symbol(number, symbol)
    assert "a section's symbol is not at its beginning" in findings(case, edit.data)


def test_empty_placement(case: Case) -> None:
    text = findings(case.claiming(link_map=case.expectation.link_map[:0]))
    assert "a constructor is missing" in text


def test_unwind_entry_of_another_length(tmp_path: Path) -> None:
    """The result has one more instruction than the original."""
    source = """
        .section .note.GNU-stack,"",%progbits
        .text
        .globl f
    f:  .cfi_startproc
        push %rbp
        .cfi_def_cfa_offset 16
        CFI
        ret
        .cfi_endproc
    """
    case = build(tmp_path, {"f.s": source.replace("CFI", ".cfi_offset 6, -16\n" * 5)}, ["f"])
    short = compile_sources(tmp_path, {"f.s": source.replace("CFI", "")}, case.tools)
    run("ar", "rcDs", case.original, *short)
    assert "an unwind entry has another length: f.o(.eh_frame" in findings(case)


def test_undefined_and_nothing_needs_it(tmp_path: Path) -> None:
    """Dropped code leaves no names behind."""
    case = build(tmp_path, {"f.c": "void f(void) {}"}, ["f"], link=["-u", "gone"])
    old = Editor((tmp_path / "f.o").read_bytes())
    dead = "void f(void) {} extern void gone(void); void g(void) { gone(); }"
    objects = compile_sources(tmp_path, {"f.c": dead}, case.tools)
    run("ar", "rcDs", case.original, *objects)
    new = Editor(objects[0].read_bytes())
    rows = case.expectation.link_map.copy()
    rows["section"] = [new.number(old.names[i]) for i in rows["section"].tolist()]
    text = findings(case.claiming(link_map=rows))
    assert text == "undefined, and nothing needs it: `gone`"


def test_export_that_no_used_member_defines(tmp_path: Path) -> None:
    note = '.section .note.GNU-stack,"",%progbits\n'
    sources = {"f.c": "int f(void) { return 1; }", "g.s": note + ".globl g\n.set g, 5\n"}
    case = build(tmp_path, sources, ["f", "g"])
    verify(case.original, case.write(), case.expectation)
    rows = case.expectation.link_map
    text = findings(case.claiming(link_map=rows[rows["member"] == 0]))
    assert text == "an export that no used member defines: `g`"


def test_two_strong_definitions_in_used_members(tmp_path: Path) -> None:
    sources = {"f.c": "int same(void) { return 1; }", "g.c": "int also(void) { return 1; }"}
    case = build(tmp_path, sources, ["same"])
    (tmp_path / "again").mkdir()
    renamed = {"g.c": sources["g.c"].replace("also", "same")}
    more = compile_sources(tmp_path / "again", renamed, case.tools)
    run("ar", "rcDs", case.original, *more)
    assert "two strong definitions: `same` in f.o, g.o" in findings(case)


def test_lost_element_of_a_set(tmp_path: Path) -> None:
    second = 'static int two; __attribute__((section("myset"), used)) static int *p = &two;'
    sources = {"set.c": SET_C, "more.c": second + " int in_more(void) { return two; }"}
    case = build(tmp_path, sources, ["count", "in_more"])
    rows = case.expectation.link_map
    number = Editor(case.object).number("myset")
    lost = (rows["member"] == 1) & (rows["out_section"] == number)
    text = findings(case.claiming(link_map=rows[~lost]))
    assert "bytes that no input explains: 8 in myset" in text


def test_damaged_unwind_table_of_the_original(case: Case, tmp_path: Path) -> None:
    data = bytearray(case.original.read_bytes())
    member = data.index(b"\x7fELF")
    first = Editor(bytes(data[member:]))
    at = member + first.section(".eh_frame")["offset"]
    data[at : at + 4] = b"\xf1\xff\xff\0"
    broken = tmp_path / "broken.a"
    broken.write_bytes(data)
    with pytest.raises(ObjectError, match=r"broken\.a\(a\.o\) at offset 0x.*\.eh_frame.* not fit"):
        verify(broken, case.write(), case.expectation)


def test_second_reader_disagrees(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyelftools is asked too: what it cannot read, or reads otherwise, is a finding."""
    path = case.write()

    def broken(*_: object) -> None:
        raise ValueError("cannot parse")

    monkeypatch.setattr("cargo_strip_hook.verify.elf.structure.struct_parse", broken)
    with pytest.raises(VerifyError) as caught:
        verify(case.original, path, case.expectation)
    assert caught.value.findings == ("pyelftools cannot read it: cannot parse",)


def test_many_symbols_at_one_place_take_no_time(tmp_path: Path) -> None:
    """Time that grows with the square of their number would be minutes here."""
    labels = "".join(f" .type f{i},@function\nf{i}:\n" for i in range(40_000))
    text = f" .text\n{labels} .globl t\n .type t,@function\nt: ret\n .size t,1\n"
    library = kit.library(tmp_path, {"a.s": text + ' .section .note.GNU-stack,""\n'})
    out, made = kit.strip(library, ["t"])
    expectation = Expectation(
        Target.parse(kit.TRIPLE), ("t",), Strip.DEBUGINFO, made.link_map, b"marker"
    )
    begin = time.process_time()
    verify(library, out, expectation)
    assert time.process_time() - begin < 20
