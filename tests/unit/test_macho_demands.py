"""What ld64 and ld64.lld demand, on objects that a broken engine could have written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho import constraints
from cargo_strip_hook.verify.macho.read import SECTION, SYMBOL, Object, Symbol
from cargo_strip_hook.verify.macho.unwind import RECORD, Records

TEXT = 0x80000400
WEAK_DEF = 0x80


def _object(*symbols: Symbol, sections: int = 1) -> Object:
    table = np.zeros(sections, SECTION)
    table["segment"], table["name"] = b"__TEXT", b"__text"
    table["address"], table["size"] = 16 * np.arange(sections), 16
    table["align"], table["flags"], table["loaded"] = 2, TEXT, True
    text, rows = b"", []
    for s in symbols:
        rows.append((len(text), *s[1:]))
        text += s.name + b"\0"
    entries = np.array(rows, SYMBOL)
    none = np.zeros(0, np.uint8)
    return Object(none, cpu=0x0100000C, flags=0x2000, table=table, entries=entries, text=text)


def _records(
    personalities: Sequence[int] = (-1,), address: int = -1, compact: bool = True
) -> Records:
    rows = np.zeros(len(personalities), RECORD)
    rows["compact"], rows["lsda"] = compact, -1
    rows["personality"], rows["personality_address"] = personalities, address
    return Records(rows)


FUNCTION = Symbol(b"_f", 0xE, 1, 0, 0)
COALESCING = Symbol(b"_rust_eh_personality", 0x1F, 1, WEAK_DEF, 4)
UNDEFINED = Symbol(b"___gxx_personality_v0", 0x1, 0, 0, 0)


def _personalities(*symbols: Symbol, compact: bool = True) -> tuple[set[bytes], list[str]]:
    findings = Findings()
    o = _object(FUNCTION, *symbols)
    rows = _records(range(1, len(symbols) + 1), compact=compact)
    return constraints.check_personalities(o, rows, findings), list(findings.texts())


@pytest.mark.parametrize("compact", [True, False])
def test_three_personalities_are_fine(compact: bool) -> None:
    third = UNDEFINED._replace(name=b"___gcc_personality_v0")
    allowed, findings = _personalities(COALESCING, UNDEFINED, third, compact=compact)
    assert (allowed, findings) == ({b"_rust_eh_personality"}, [])


def test_a_fourth_personality_is_one_too_many() -> None:
    more = [UNDEFINED._replace(name=b"_p%d" % n) for n in range(3)]
    _, findings = _personalities(COALESCING, *more)
    assert findings == ["personality: 4 routines, more than one image can have"]


@pytest.mark.parametrize("compact", [True, False])
def test_a_local_personality_is_found(compact: bool) -> None:
    allowed, findings = _personalities(COALESCING._replace(type=0xE), compact=compact)
    assert findings == ["personality: _rust_eh_personality is local, but ld64 binds it by name"]
    assert not allowed


def test_a_strong_personality_is_found() -> None:
    _, findings = _personalities(COALESCING._replace(desc=0))
    assert "_rust_eh_personality does not coalesce" in findings[0]


def test_a_personality_that_programs_would_export_is_not_allowed() -> None:
    """So that it is found as a symbol that nobody asked for."""
    allowed, _ = _personalities(COALESCING._replace(type=0xF))
    assert not allowed


def test_a_personality_without_a_name_is_found() -> None:
    findings = Findings()
    constraints.check_personalities(_object(FUNCTION), _records(address=4), findings)
    assert "without a name" in findings.texts()[0]


@pytest.mark.parametrize(("count", "said"), [(255, False), (256, True)])
def test_sections_are_255_at_most(count: int, said: bool) -> None:
    findings = Findings()
    constraints.check_structure(_object(sections=count), findings)
    assert bool(findings) == said
    if said:
        assert findings.texts() == ("structure: 256 sections, more than 255",)


@pytest.mark.parametrize("stab", [0x66, 0x64, 0x24, 0x20])  # N_OSO, N_SO, N_FUN, N_GSYM
def test_a_debug_map_is_found(stab: int) -> None:
    findings = Findings()
    constraints.check_structure(_object(Symbol(b"/tmp/gone.o", stab, 0, 0, 0)), findings)
    assert findings.texts() == ("structure: /tmp/gone.o is a symbol of a debug map",)


def test_a_function_without_a_symbol_at_its_address_is_found() -> None:
    findings = Findings()
    constraints.check_unwound(_object(FUNCTION._replace(value=4)), _records(), findings)
    assert findings.texts() == ("unwind: no symbol at the function 0x0",)
