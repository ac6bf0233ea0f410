"""Names of Rust: examples worked out by hand from the grammars, and any number of made-up ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.demangle import crate_of, demangle

HASH = "17h0123456789abcdefE"

# The examples of the rustc book ("v0 Symbol Format") among them; each is (name, text, crate).
EXAMPLES = [
    ("_RNvC4utf88__example", "utf8::_example", "utf8"),
    ("_RNvCs1234_7mycrate3foo", "mycrate::foo", "mycrate"),
    ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar", "mycrate"),
    ("_RNCNvCs15kBYyAo9fc_7mycrate7example0", "mycrate::example::{closure#0}", "mycrate"),
    ("_RNvC7mycrateu8gdel_5qa", "mycrate::gödel", "mycrate"),
    ("_RINvCs7QiuI8RKDDM_7mycrate7examplelEB2_", "mycrate::example::<i32>", "mycrate"),
    ("_RNvMs_Cs4Cv8Wi1oAIB_7mycrateNtB4_7Example3foo", "<mycrate::Example>::foo", "mycrate"),
    (
        "_RNvXCs15kBYyAo9fc_7mycrateNtB2_7ExampleNtB2_5Trait3foo",
        "<mycrate::Example as mycrate::Trait>::foo",
        "mycrate",
    ),
    # an impl of `one` for a type of the language: it is `one`'s code
    ("_RNvXC3oneeNtC4core5Trait3foo", "<str as core::Trait>::foo", "one"),
    ("_RNvYeNtC4core5Trait3foo", "<str as core::Trait>::foo", "core"),
    ("_RNvYRNtC3own1TNtC4core5Trait3foo", "<&own::T as core::Trait>::foo", "own"),
    ("_RINvC1c1fRL_hQL_tE", "c::f::<&u8, &mut u16>", "c"),
    ("_RINvC1c1fPaOsAhj10_SmE", "c::f::<*const i8, *mut i16, [u8; 16], [u32]>", "c"),
    ("_RINvC1c1fTlETlmETEE", "c::f::<(i32,), (i32, u32), ()>", "c"),
    ("_RINvC1c1fFUKCdEuFKu0_zEE", None, None),  # an ABI whose punycode is nothing
    ("_RINvC1c1fFUKCdEuE", 'c::f::<unsafe extern "C" fn(f64)>', "c"),
    ("_RINvC1c1fFG_RL0_hEbE", "c::f::<for<'a> fn(&'a u8) -> bool>", "c"),
    ("_RINvC1c1fDNtC1d2TrEL_E", "c::f::<dyn d::Tr>", "c"),
    (
        "_RINvC1c1fDINtC1d2FnTEEp6OutputhNtC1d4SendEL_E",
        "c::f::<dyn d::Fn<(), Output = u8> + d::Send>",
        "c",
    ),
    ("_RINvC1c1fKb1_Kb0_Kc27_Kan5_KpE", "c::f::<true, false, '\\'', -5, _>", "c"),
    ("_RINvC1c1fKRe616263_KVNtC1c1PTh1_h2_EE", 'c::f::<"abc", {c::P(1, 2)}>', "c"),
    ("_RINvC1c1fKo123456789abcdef01_E", "c::f::<0x123456789abcdef01>", "c"),
    ("_RNSNvC1c1f6vtable0", None, None),
    ("_RNSNvC1c1fs_6vtable", "c::f::{shim:vtable#1}", "c"),
    ("_RNvC1c1f.llvm.1234", "c::f", "c"),
    ("_RNvC1c1f.cold", "c::f.cold", "c"),
    ("__RNvC1c1f", "c::f", "c"),
    ("_RNvC1c1f@12", "c::f@12", "c"),
    # legacy
    (f"_ZN3foo3bar{HASH}", "foo::bar", "foo"),
    (f"__ZN3foo3bar{HASH}", "foo::bar", "foo"),
    (f"_ZN3foo3bar{HASH}.llvm.123ABC", "foo::bar", "foo"),
    (f"_ZN3foo28_$u7b$$u7b$closure$u7d$$u7d${HASH}", "foo::{{closure}}", "foo"),
    (f"_ZN38_$LT$a..B$u20$as$u20$c..D$LT$T$GT$$GT$1f{HASH}", "<a::B as c::D<T>>::f", "a"),
    (f"_ZN36_$LT$$u5b$T$u5d$$u20$as$u20$c..D$GT$1f{HASH}", "<[T] as c::D>::f", "c"),
    (f"_ZN41_$LT$$RF$mut$u20$a..B$u20$as$u20$c..D$GT$1f{HASH}", "<&mut a::B as c::D>::f", "a"),
    (f"_ZN4core3fmt9A.b..c$C$d{HASH}", None, None),  # the length is not that of the part
    (f"_ZN4core3fmt10A.b..c$C$d{HASH}", "core::fmt::A.b::c,d", "core"),
    # neither: C++, C, and what only begins like one
    ("_ZN3foo3barEv", None, None),
    ("_ZNSt6vectorIiE4pushEi", None, None),
    ("_Z3foov", None, None),
    ("_ReadFile@20", None, None),
    ("_RNvC1c1f_", None, None),
    ("_R", None, None),
    ("main", None, None),
    ("", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "crate"), EXAMPLES)
def test_examples(name: str, text: str | None, crate: str | None) -> None:
    assert demangle(name) == (name if text is None else text)
    if text is not None:
        assert crate_of(name) == crate


# Made-up names: each strategy gives the mangled form and the text, written side by side --------

Both = tuple[str, str]
_IDENTIFIERS = st.one_of(
    st.from_regex(r"\A[a-z_][a-z0-9_]{0,8}\Z"), st.sampled_from(["größe", "東京", "naïve_1"])
)


def _identifier(name: str) -> str:
    if name.isascii():
        # an underscore parts the length from a name that begins with a digit or one
        return f"{len(name)}{'_' if name[0] in '0123456789_' else ''}{name}"
    coded = name.encode("punycode").decode().replace("-", "_")
    # without a plain part Python writes no delimiter, as the mangling
    return f"u{len(coded)}{'_' if coded[0] in '0123456789_' else ''}{coded}"


def _base62(number: int) -> str:
    if number == 0:
        return "_"
    number -= 1
    digits = ""
    while True:
        digits = (
            "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[number % 62] + digits
        )
        number //= 62
        if not number:
            return digits + "_"


def _pair(left: Both, right: Both) -> Both:
    return f"T{left[0]}{right[0]}E", f"({left[1]}, {right[1]})"


_CRATES = st.tuples(_IDENTIFIERS, st.integers(0, 1 << 60)).map(
    lambda v: (f"Cs{_base62(v[1])}{_identifier(v[0])}", v[0])
)
_PATHS = st.tuples(_CRATES, st.lists(_IDENTIFIERS, min_size=1, max_size=3)).map(
    lambda v: (
        "Nt" * len(v[1]) + v[0][0] + "".join(map(_identifier, v[1])),
        "::".join([v[0][1], *v[1]]),
    )
)
_BASIC = st.sampled_from([("h", "u8"), ("e", "str"), ("u", "()"), ("z", "!"), ("p", "_")])
_TYPES = st.recursive(
    _BASIC | _PATHS,
    lambda inner: st.one_of(
        inner.map(lambda v: (f"R{v[0]}", f"&{v[1]}")),
        inner.map(lambda v: (f"O{v[0]}", f"*mut {v[1]}")),
        inner.map(lambda v: (f"T{v[0]}E", f"({v[1]},)")),
        st.tuples(inner, st.integers(0, 1 << 64 - 1)).map(
            lambda v: (f"A{v[0][0]}j{v[1]:x}_", f"[{v[0][1]}; {v[1]}]")
        ),
        st.tuples(inner, inner).map(lambda v: _pair(*v)),
        st.tuples(_PATHS, st.lists(inner, min_size=1, max_size=2)).map(
            lambda v: (
                f"I{v[0][0]}{''.join(a for a, _ in v[1])}E",
                f"{v[0][1]}<{', '.join(b for _, b in v[1])}>",
            )
        ),
    ),
    max_leaves=8,
)


@given(_CRATES, _TYPES, _PATHS, _IDENTIFIERS)
def test_made_up_names(crate: Both, of: Both, trait: Both, name: str) -> None:
    mangled = f"_RNvX{crate[0]}{of[0]}{trait[0]}{_identifier(name)}"
    assert demangle(mangled) == f"<{of[1]} as {trait[1]}>::{name}"
    assert crate_of(mangled) == crate[1]
    # the same through a back reference to the type
    at = len("NvX") + len(crate[0])
    again = f"_RINvX{crate[0]}{of[0]}{trait[0]}{_identifier(name)}B{_base62(at + 1)}E"
    assert demangle(again) == f"<{of[1]} as {trait[1]}>::{name}::<{of[1]}>"


@given(st.lists(_IDENTIFIERS.filter(str.isascii), min_size=1, max_size=4))
def test_made_up_legacy_names(parts: list[str]) -> None:
    body = "".join(f"{len(p)}{p}" for p in parts)
    assert demangle(f"_ZN{body}{HASH}") == "::".join(parts)
    assert crate_of(f"_ZN{body}{HASH}") == parts[0]


@given(st.text(alphabet="CNMXYIBvtsTEKL_0123abchjRQuDFGp$.é", max_size=60))
def test_anything_is_read_or_left(text: str) -> None:
    for prefix in ("_R", "_ZN", "_RNv", "_RNvC1c1f", "_RINvC1c1f"):
        assert demangle(prefix + text)
        crate_of(prefix + text)


def test_names_that_would_grow_or_nest_without_end() -> None:
    # each tuple refers twice to the one before it: 2 to the 40th
    body, positions = "INvC1c1f", []
    for _ in range(40):
        before = f"B{_base62(positions[-1])}" if positions else "h"
        positions.append(len(body))
        body += f"T{before}{before}E"
    deep = "_RINvC1c1f" + "R" * 10_000 + "hE"
    begin = time.process_time()
    for name in (f"_R{body}E", deep, "_R" + "N" * 10_000, "_RNvB_1f", "_ZN" + "1a" * 10_000 + "E"):
        assert demangle(name) == name
        crate_of(name)
    assert time.process_time() - begin < 2
