//! A letter for a letter, for C: `rot13.h`.

use common::{calls, guarded, text};
use std::ffi::{c_char, CString};
use std::panic::AssertUnwindSafe;
use std::ptr;

fn turned(letter: char) -> char {
    let first = match letter {
        'a'..='z' => b'a',
        'A'..='Z' => b'A',
        _ => return letter,
    };
    char::from((letter as u8 - first + 13) % 26 + first)
}

/// # Safety
/// `plain` ends in zero.
#[no_mangle]
pub unsafe extern "C" fn rot13_text(plain: *const c_char) -> *mut c_char {
    let mut result = ptr::null_mut();
    guarded(AssertUnwindSafe(|| {
        let turned: String = text(plain).chars().map(turned).collect();
        result = CString::new(turned).expect("no zero inside").into_raw();
        0
    }));
    result
}

/// # Safety
/// `text` comes from `rot13_text` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn rot13_free(text: *mut c_char) {
    if !text.is_null() {
        drop(CString::from_raw(text));
    }
}

#[no_mangle]
pub extern "C" fn rot13_calls() -> u32 {
    calls()
}
