//! Functions that run before main and when threads begin, and sets that the linker gathers.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering};

use linkme::distributed_slice;

use crate::give;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LETTERS: [AtomicU8; 32] = [const { AtomicU8::new(0) }; 32];

#[no_mangle]
pub extern "C" fn bhv_constructor_note(letter: c_char) {
    let place = COUNT.fetch_add(1, Ordering::SeqCst);
    if let Some(slot) = LETTERS.get(place) {
        slot.store(letter as u8, Ordering::SeqCst);
    }
}

/// # Safety
/// `buffer` holds `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn bhv_constructors(buffer: *mut c_char, size: usize) -> usize {
    let letters = LETTERS
        .iter()
        .map(|l| l.load(Ordering::SeqCst))
        .take_while(|l| *l != 0);
    give(&letters.map(char::from).collect::<String>(), buffer, size)
}

extern "C" fn plain() {
    bhv_constructor_note(b'r' as c_char);
}

extern "C" fn priority_low() {
    bhv_constructor_note(b'2' as c_char);
}

extern "C" fn priority_high() {
    bhv_constructor_note(b'1' as c_char);
}

extern "C" fn initialiser() -> c_int {
    bhv_constructor_note(b'i' as c_char);
    0
}

// The C runtime calls what lies between .CRT$XCA and .CRT$XCZ, in the order of the suffixes.
#[used]
#[link_section = ".CRT$XCU"]
static PLAIN: extern "C" fn() = plain;

#[used]
#[link_section = ".CRT$XCA00200"]
static LOW: extern "C" fn() = priority_low;

#[used]
#[link_section = ".CRT$XCA00099"]
static HIGH: extern "C" fn() = priority_high;

#[used]
#[link_section = ".CRT$XIU"]
static INITIALISER: extern "C" fn() -> c_int = initialiser;

static STARTS: AtomicI32 = AtomicI32::new(0);

extern "system" fn on_thread(_: *mut c_void, reason: u32, _: *mut c_void) {
    if reason == 2 {
        STARTS.fetch_add(1, Ordering::SeqCst); // DLL_THREAD_ATTACH
    }
}

#[used]
#[link_section = ".CRT$XLD"]
static ON_THREAD: extern "system" fn(*mut c_void, u32, *mut c_void) = on_thread;

#[no_mangle]
pub extern "C" fn bhv_thread_starts() -> i32 {
    STARTS.load(Ordering::SeqCst)
}

#[distributed_slice]
static NUMBERS: [fn() -> i32];

#[distributed_slice(NUMBERS)]
static ONE: fn() -> i32 = || 1;

#[distributed_slice(NUMBERS)]
static FORTY: fn() -> i32 = || 40;

#[no_mangle]
pub extern "C" fn bhv_set_rust() -> i32 {
    NUMBERS.iter().map(|number| number()).sum::<i32>() + 1000 * NUMBERS.len() as i32
}
