//! Roman numerals, for C: `roman.h`.

use common::{calls, guarded, text};
use std::ffi::c_char;

fn digit(letter: char) -> i32 {
    match letter {
        'I' => 1,
        'V' => 5,
        'X' => 10,
        'L' => 50,
        'C' => 100,
        'D' => 500,
        'M' => 1000,
        other => panic!("`{other}` is no Roman digit"),
    }
}

/// # Safety
/// `numeral` ends in zero.
#[no_mangle]
pub unsafe extern "C" fn roman_value(numeral: *const c_char) -> i32 {
    guarded(|| {
        let digits: Vec<i32> = text(numeral).chars().map(digit).collect();
        let following = digits.iter().skip(1).chain(&[0]);
        let signed = digits.iter().zip(following).map(|(&d, &next)| if d < next { -d } else { d });
        signed.sum()
    })
}

#[no_mangle]
pub extern "C" fn roman_calls() -> u32 {
    calls()
}
