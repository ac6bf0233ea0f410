//! What the three libraries share. Each gets a private copy: none of it is public in any.

use std::ffi::{c_char, CStr};
use std::panic::{catch_unwind, UnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};

static CALLS: AtomicU32 = AtomicU32::new(0);

/// Runs `body`; -1 where it panics, since no panic may leave a function that C calls.
pub fn guarded(body: impl FnOnce() -> i32 + UnwindSafe) -> i32 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    catch_unwind(body).unwrap_or(-1)
}

/// How many calls of `guarded` this copy has seen.
pub fn calls() -> u32 {
    CALLS.load(Ordering::Relaxed)
}

/// # Safety
/// `text` ends in zero and outlives the result.
pub unsafe fn text<'a>(text: *const c_char) -> &'a str {
    CStr::from_ptr(text).to_str().expect("the text is UTF-8")
}
