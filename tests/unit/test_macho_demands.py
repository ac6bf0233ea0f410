"""What ld64 and ld64.lld demand, on objects that a broken engine could have written."""

from __future__ import annotations

import pytest

from cargo_strip_hook.verify.claim import Findings
from cargo_strip_hook.verify.macho import demands
from cargo_strip_hook.verify.macho.read import Object, Section, Symbol
from cargo_strip_hook.verify.macho.unwind import Record

TEXT = 0x80000400
WEAK_DEF = 0x80


def _section(address: int = 0, name: bytes = b"__text") -> Section:
    return Section(b"__TEXT", name, address, 16, 0, 2, TEXT, 0, 0)


def _object(*symbols: Symbol, sections: int = 1) -> Object:
    homes = [_section(16 * n) for n in range(sections)]
    return Object(memoryview(b""), flags=0x2000, sections=homes, symbols=list(symbols))


def _record(personality: int = -1, address: int = -1, compact: bool = True) -> Record:
    return Record(compact, 0, -1, personality, address, ())


FUNCTION = Symbol(b"_f", 0xE, 1, 0, 0)
COALESCING = Symbol(b"_rust_eh_personality", 0x1F, 1, WEAK_DEF, 4)
UNDEFINED = Symbol(b"___gxx_personality_v0", 0x1, 0, 0, 0)


def _personalities(*symbols: Symbol, **record: int | bool) -> tuple[set[bytes], list[str]]:
    findings = Findings()
    o = _object(FUNCTION, *symbols)
    rows = [_record(n, **record) for n in range(1, len(symbols) + 1)]  # type: ignore[arg-type]
    return demands.check_personalities(o, rows, findings), list(findings.texts())


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
    demands.check_personalities(_object(FUNCTION), [_record(address=4)], findings)
    assert "without a name" in findings.texts()[0]


@pytest.mark.parametrize(("count", "said"), [(255, False), (256, True)])
def test_sections_are_255_at_most(count: int, said: bool) -> None:
    findings = Findings()
    demands.check_structure(_object(sections=count), findings)
    assert bool(findings) == said
    if said:
        assert findings.texts() == ("structure: 256 sections, more than 255",)


@pytest.mark.parametrize("stab", [0x66, 0x64, 0x24, 0x20])  # N_OSO, N_SO, N_FUN, N_GSYM
def test_a_debug_map_is_found(stab: int) -> None:
    findings = Findings()
    demands.check_structure(_object(Symbol(b"/tmp/gone.o", stab, 0, 0, 0)), findings)
    assert findings.texts() == ("structure: /tmp/gone.o is a symbol of a debug map",)


def test_a_function_without_a_symbol_at_its_address_is_found() -> None:
    findings = Findings()
    demands.check_unwound(_object(FUNCTION._replace(value=4)), [_record()], findings)
    assert findings.texts() == ("unwind: no symbol at the function 0x0",)
