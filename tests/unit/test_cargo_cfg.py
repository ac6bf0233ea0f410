"""cfg expressions: truth against Python's own operators, and what is no expression."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cargo_strip_hook.cargo.cfg import (
    builtin_cfg,
    feature_cfg,
    holds,
    parse_cfg,
    parse_platform,
    parse_rustc_cfg,
)
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.target import Target

SET = frozenset({("unix", None), ("target_os", "linux"), ("target_feature", "sse2")})
ATOMS = {
    "unix": True,
    "windows": False,
    'target_os = "linux"': True,
    'target_os="macos"': False,
    "target_os = linux": True,
    'target_feature = "sse2"': True,
    "r#unix": True,
    "true": True,
    "false": False,
}


def _combine(inner: st.SearchStrategy[tuple[str, bool]]) -> st.SearchStrategy[tuple[str, bool]]:
    parts = st.lists(inner, max_size=3)
    end = st.sampled_from(["", ",", " , "])
    return st.one_of(
        inner.map(lambda p: (f"not({p[0]})", not p[1])),
        st.tuples(parts, end).map(
            lambda x: (
                "all(" + ",".join(p[0] for p in x[0]) + (x[1] if x[0] else "") + ")",
                all(p[1] for p in x[0]),
            )
        ),
        st.tuples(parts, end).map(
            lambda x: (
                "any( " + " , ".join(p[0] for p in x[0]) + (x[1] if x[0] else "") + ")",
                any(p[1] for p in x[0]),
            )
        ),
    )


@given(st.recursive(st.sampled_from(sorted(ATOMS.items())), _combine, max_leaves=12))
def test_truth(case: tuple[str, bool]) -> None:
    text, expected = case
    assert holds(parse_cfg(text), SET) is expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ends too early"),
        ("all(unix", "expected `,` or `)`"),
        ("all(unix windows)", "expected `,` or `)`"),
        ("not(unix, windows)", "`not` takes one argument"),
        ("not()", "`not` takes one argument"),
        ("unix)", "more than one expression"),
        ("unix windows", "more than one expression"),
        ('target_os = "linux', "the string does not end"),
        ("target_os =", "expected a value"),
        ("all(,)", "expected a name"),
        ("un§ix", "unexpected character"),
        ('"unix"', "expected a name"),
    ],
)
def test_no_expression(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cfg(text)
    assert said in caught.value.what


def test_a_name_before_a_parenthesis_must_be_an_operator() -> None:
    with pytest.raises(UsageError):
        parse_cfg("some(unix)")


def test_platform_is_an_expression_or_a_triple() -> None:
    assert parse_platform("x86_64-unknown-linux-gnu") == "x86_64-unknown-linux-gnu"
    assert parse_platform("cfg(unix)") == parse_cfg("unix")
    with pytest.raises(UsageError, match="neither a target triple nor cfg"):
        parse_platform("cfg(unix")


def test_what_rustc_prints() -> None:
    assert parse_rustc_cfg('unix\ntarget_os="linux"\ntarget_env=""\n\n') == {
        ("unix", None),
        ("target_os", "linux"),
        ("target_env", ""),
    }


def test_features_are_options() -> None:
    cfg = feature_cfg(["serde-json"]) | builtin_cfg(Target.parse("x86_64-pc-windows-msvc"))
    assert holds(parse_cfg('all(feature = "serde-json", windows, target_env = "msvc")'), cfg)
    assert holds(parse_cfg("feature = serde-json"), cfg)
    assert not holds(parse_cfg("any(unix, feature = serde)"), cfg)
