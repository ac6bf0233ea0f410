//! Functions that run before main, and sets that the linker gathers.

use std::ffi::c_char;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

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

#[used]
#[link_section = ".init_array"]
static PLAIN: extern "C" fn() = plain;

#[used]
#[link_section = ".init_array.00200"]
static LOW: extern "C" fn() = priority_low;

#[used]
#[link_section = ".init_array.00099"]
static HIGH: extern "C" fn() = priority_high;

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
