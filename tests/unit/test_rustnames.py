"""Shorter names of Rust functions. The expected ones are written by hand from the grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.demangle.shorten import shorten


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the hash of a crate, the number and path of an impl, the crate that instantiated it
        ("_RNvCs4xmZRA9Tzc3_4core3abs", "_RNvC4core3abs"),
        ("_RNvMs4_CsaB_3fooNtB5_3Bar3new", "_RNvMC0NtC3foo3Bar3new"),
        ("_RNvXs_NtCs1_3foo3barNtB4_3BazNtB6_5Trait3new", "_RNvYNtNtC3foo3bar3BazNtB6_5Trait3new"),
        ("_RNvYNtCs1_3foo3BarNtB4_5Trait3new", "_RNvYNtC3foo3BarNtB4_5Trait3new"),
        ("_RINvCs1_3foo3barlECs2_4main", "_RINvC3foo3barlE"),
        ("_RINvCs1_3foo3barlEB2_", "_RINvC3foo3barlE"),
        # references count from the start of what is shorter now
        (
            "_RINvNtCs4xmZRA9Tzc3_4core3mem20abcdefghijklmnopqrstTNtCs7_1a1bBO_EE",
            "_RINvNtC4core3mem20abcdefghijklmnopqrstTNtC1a1bBB_EE",
        ),
        # of closures and shims the number is shown
        ("_RNCNvCs1_3foo3bars_0B3_", "_RNCNvC3foo3bars_0"),
        ("_RNvNvCs1_3foo3bars3_3baz", "_RNvNvC3foo3bar3baz"),
        # a name may look like a hash, and `s` is a type, too
        ("_RNvCs1_3foo7Cs1_3ab", "_RNvC3foo7Cs1_3ab"),
        ("_RINvCs1_3foo3barsssEB2_", "_RINvC3foo3barsssE"),
        ("_RNvCs1_3foou4_3bar", "_RNvC3foou4_3bar"),
        ("_RNvCs1_3foou3bar", "_RNvC3foou3bar"),
        # types: arrays, pointers, functions, traits, lifetimes, constants
        ("_RINvCs1_3foo3barAhj1f_RL0_eFG_UKCRL0_hEuE", "_RINvC3foo3barAhj1f_RL0_eFG_UKCRL0_hEuE"),
        (
            "_RINvCs1_3foo3barDG_NtCs2_4core2Fnp6OutputuEL_Kj2a_KpKln5_E",
            "_RINvC3foo3barDG_NtC4core2Fnp6OutputuEL_Kj2a_KpKln5_E",
        ),
        # what ThinLTO puts behind goes, what anybody else did stays
        ("_RNvCs1_3foo3bar.llvm.123", "_RNvC3foo3bar"),
        ("_RNvCs1_3foo3bar.cold.1", "_RNvC3foo3bar.cold.1"),
    ],
)
def test_what_is_never_shown_goes(name: str, expected: str) -> None:
    assert shorten(name.encode()) == expected.encode()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "_R",
        "_R1NvCs1_3foo3bar",  # another version of the grammar
        "_RNvCs1_3foo9bar",
        "_RNvCs1_3foo3barZ",
        "_RINvCs1_3foo3barBz_E",  # a reference to what is not there
        "_RINvNtCs4xmZRA9Tzc3_4core3ptr4dropNtB6_3BoxE",  # and to the middle of a name
        "_RINvCs1_3foo3barKV_E",
        "_RINvMCs1_3fooNtB5_3Bar1fBf_E",  # a reference to itself
        "_RINvCs1_3foo3bar" + "S" * 5000 + "uE",
        "_ZN4core3ptr17h0123456789abcdefE",
        "memcpy",
        "?f@@YAXXZ",
    ],
)
def test_other_names_stay(name: str) -> None:
    assert shorten(name.encode()) == name.encode()


@given(st.binary(max_size=40))
def test_damaged_names_stay_or_get_shorter(text: bytes) -> None:
    for start in (b"_R", b"_RNvCs1_3foo", b"_RINvCs1_3foo3bar"):
        found = shorten(start + text)
        assert len(found) <= len(start + text)
        assert shorten(found) == found
