"""Demangled names against other demanglers, of what rustc mangles."""

from __future__ import annotations

import re
import subprocess

import pytest

from cargo_strip_hook.demangle import crate_of, demangle
from tests.fixtures import library, rustc
from tests.formats.native_kit import tool
from tests.tools import need

# what the grammar has: traits, generics, closures, constants, pointers, functions, lifetimes
SOURCE = """
pub struct Pair<A, B>(A, B);
pub trait Tell { fn tell(&self) -> u32; fn usual(&self) -> u32 { 7 } }
impl<A, B> Tell for Pair<A, B> { fn tell(&self) -> u32 { 1 } }
impl<const N: usize> Tell for [u8; N] { fn tell(&self) -> u32 { N as u32 } }
impl Tell for &'static str { fn tell(&self) -> u32 { 2 } }
impl Tell for (i128,) { fn tell(&self) -> u32 { 3 } }
impl Tell for extern "C" fn(u8, *const f64) -> bool { fn tell(&self) -> u32 { 4 } }
impl Tell for unsafe fn(&mut [char]) { fn tell(&self) -> u32 { 5 } }
impl Tell for *mut dyn Fn(&u8, &u16) -> () { fn tell(&self) -> u32 { 6 } }
impl<'a> Tell for Box<dyn Iterator<Item = &'a str> + Send + 'a> { fn tell(&self) -> u32 { 8 } }
pub struct Flags<const B: bool, const C: char, const I: i64, const U: u64>;
impl<const B: bool, const C: char, const I: i64, const U: u64> Flags<B, C, I, U> {
    #[inline(never)] pub fn all(&self) -> u64 { U + C as u64 + I as u64 + B as u64 }
}
pub mod größe { #[inline(never)] pub fn naïve_東京() -> u32 { 42 } }
#[inline(never)] pub fn apply<F: Fn(u32) -> u32>(f: F) -> u32 { f(std::hint::black_box(3)) }
pub fn main_of() -> u32 {
    let told: [&dyn Tell; 8] = [
        &Pair(1u8, "x"), &[0u8; 33], &"text", &(1i128,),
        &(cb as extern "C" fn(u8, *const f64) -> bool), &(un as unsafe fn(&mut [char])),
        &Pair(Some(1.5f32), [(); 2]), &Pair((), Pair(0usize, Box::new(0i8))),
    ];
    let boxed: Box<dyn Iterator<Item = &str> + Send> = Box::new("a b".split(' '));
    let y = std::hint::black_box(5);
    told.iter().map(|t| t.tell() + t.usual()).sum::<u32>()
        + boxed.tell()
        + apply(|x| x + y) + apply(|x| apply(|z| z * x)) + größe::naïve_東京()
        + Flags::<true, 'x', -5, 255>.all() as u32
        + Flags::<false, '\\'', { i64::MIN }, { u64::MAX }>.all() as u32
        + Flags::<true, '\\u{202e}', 0, 0>.all() as u32
}
extern "C" fn cb(_: u8, _: *const f64) -> bool { true }
unsafe fn un(_: &mut [char]) {}
"""


def _witnessed(names: list[str]) -> list[str]:
    """What another demangler makes of names: binutils' of legacy ones, LLVM's of v0."""
    is_legacy = names[0].startswith("_ZN")
    program = need("c++filt") if is_legacy else need("llvm-cxxfilt-22")
    text = "\n".join(names) + "\n"
    done = subprocess.run([program], input=text, capture_output=True, encoding="utf-8", check=True)
    # c++filt shows the hash of legacy names
    return [re.sub(r"::h[0-9a-f]{16}$", "", line) for line in done.stdout.splitlines()]


def _names(nm: str, kind: str) -> list[str]:
    found = {line.split()[-1] for line in nm.splitlines() if line.strip()}
    return sorted(n for n in found if n.startswith(kind))


@pytest.fixture(scope="module", params=["legacy", "v0"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("names")
    (folder / "shapes.rs").write_text(SOURCE)
    # rustc takes the choice of the mangling for a promise only in nightlies
    tool(
        [
            "env", "RUSTC_BOOTSTRAP=1", rustc(), "--edition=2021", "--crate-type=lib",
            "-Zunstable-options", "-Ccodegen-units=1",
            f"-Csymbol-mangling-version={request.param}", "--emit=obj",
            "-o", folder / "shapes.o", folder / "shapes.rs",
        ]
    )  # fmt: skip
    names = _names(
        tool([need("nm"), folder / "shapes.o"]), {"legacy": "_ZN", "v0": "_R"}[request.param]
    )
    assert len(names) > 40
    return names


def test_what_rustc_mangles(compiled: list[str]) -> None:
    texts = [demangle(n) for n in compiled]
    # c++filt leaves escapes of legacy names that are not ASCII; what they are is told below
    both = zip(texts, _witnessed(compiled), strict=True)
    assert [b for b in both if b[0] != b[1] and "größe" not in b[0]] == []
    assert "shapes::größe::naïve_東京" in texts
    assert {crate_of(n) for n in compiled} >= {"shapes", "core", "alloc"}
    # of an `impl` for a type of the language only v0 says where it stands
    [own] = [n for n, text in zip(compiled, texts, strict=True) if "(i128,)" in text][:1]
    assert crate_of(own) == "shapes"


def test_every_name_of_a_library() -> None:
    built = library("imagequant-sys", "release").library
    nm = tool([need("llvm-nm-22"), "--no-demangle", built])
    for kind in ("_ZN", "_R"):
        names = [n for n in _names(nm, kind) if "." not in n.replace("..", "")]
        assert len(names) > 150
        assert [demangle(n) for n in names] == _witnessed(names)
        assert all(crate_of(n) for n in names if demangle(n) != n)
