//! Everything a static library can do that a bad prelink breaks; see `behaviour.h`.

mod constructors;
mod native;
mod panics;
mod state;
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
