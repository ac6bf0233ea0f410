//! The crate `behaviour` for Windows: its Rust is shared, what depends on the format is not.

mod constructors;
mod native;
#[path = "../../behaviour/src/panics.rs"]
mod panics;
#[path = "../../behaviour/src/state.rs"]
mod state;
#[path = "../../behaviour/src/threads.rs"]
mod threads;

use std::ffi::c_char;

/// Copies text and a final zero to the caller's buffer; the full length comes back.
///
/// # Safety
/// `buffer` holds `size` bytes.
pub(crate) unsafe fn give(text: &str, buffer: *mut c_char, size: usize) -> usize {
    if size > 0 {
        let part = &text.as_bytes()[..text.len().min(size - 1)];
        std::ptr::copy_nonoverlapping(part.as_ptr(), buffer.cast(), part.len());
        *buffer.add(part.len()) = 0;
    }
    text.len()
}
