//! Check digits by Luhn's rule, for C: `luhn.h`.

use common::{calls, guarded, text};
use std::ffi::c_char;

fn sum(digits: &str) -> u32 {
    let digits = digits.chars().rev().map(|c| c.to_digit(10).expect("a decimal digit"));
    let doubled = |(i, d): (usize, u32)| if i % 2 == 1 { d * 2 / 10 + d * 2 % 10 } else { d };
    digits.enumerate().map(doubled).sum()
}

/// # Safety
/// `digits` ends in zero.
#[no_mangle]
pub unsafe extern "C" fn luhn_valid(digits: *const c_char) -> i32 {
    guarded(|| i32::from(sum(text(digits)) % 10 == 0))
}

#[no_mangle]
pub extern "C" fn luhn_calls() -> u32 {
    calls()
}
