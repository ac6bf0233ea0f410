//! Data, arguments, allocation, backtraces and function pointers.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void, CStr};

use crate::give;

/// Written by the program too.
#[no_mangle]
pub static mut bhv_counter: i32 = 5;

#[no_mangle]
pub static bhv_version: [u8; 4] = *b"1.0\0";

#[no_mangle]
pub extern "C" fn bhv_add(a: i32, b: i32) -> i32 {
    a.wrapping_add(b)
}

#[no_mangle]
pub extern "C" fn bhv_bump(by: i32) -> i32 {
    // SAFETY: the tests call this from one thread.
    unsafe {
        bhv_counter += by;
        bhv_counter
    }
}

#[no_mangle]
pub extern "C" fn bhv_argument_count() -> i32 {
    std::env::args().count() as i32
}

/// The words of a text with how often each occurs, sorted.
///
/// # Safety
/// `text` ends in zero, `buffer` holds `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn bhv_words(text: *const c_char, buffer: *mut c_char, size: usize) -> usize {
    let text = CStr::from_ptr(text).to_string_lossy();
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_insert(0u32) += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(w, n)| format!("{w}={n}")).collect();
    give(&parts.join(","), buffer, size)
}

/// # Safety
/// `buffer` holds `size` bytes.
#[no_mangle]
#[inline(never)]
pub unsafe extern "C" fn bhv_backtrace(buffer: *mut c_char, size: usize) -> usize {
    give(&Backtrace::force_capture().to_string(), buffer, size)
}

type Operation = extern "C" fn(i32, *mut c_void) -> i32;

/// # Safety
/// `values` holds `count` numbers.
#[no_mangle]
pub unsafe extern "C" fn bhv_map(
    values: *mut i32,
    count: usize,
    operation: Operation,
    context: *mut c_void,
) -> i32 {
    let values = std::slice::from_raw_parts_mut(values, count);
    values.iter_mut().for_each(|v| *v = operation(*v, context));
    values.iter().sum()
}

extern "C" fn double(value: i32, _: *mut c_void) -> i32 {
    value * 2
}

extern "C" fn negate(value: i32, _: *mut c_void) -> i32 {
    -value
}

static OPERATIONS: [(&CStr, Operation); 2] = [(c"double", double), (c"negate", negate)];

/// # Safety
/// `name` ends in zero.
#[no_mangle]
pub unsafe extern "C" fn bhv_operation_named(name: *const c_char) -> Option<Operation> {
    let name = CStr::from_ptr(name);
    OPERATIONS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, operation)| *operation)
}
