//! A library whose archive holds objects of C, C++ and assembly as well, for Darwin; see `mixed.h`.

use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::sync::atomic::{AtomicI32, Ordering};

type Callee = extern "C-unwind" fn(i32) -> i32;
type Frame = unsafe extern "C-unwind" fn(Callee, i32) -> i32;

extern "C-unwind" {
    fn mix_frame_c(callee: Callee, value: i32) -> i32;
    fn mix_frame_cleanup(callee: Callee, value: i32) -> i32;
    fn mix_frame_assembly(callee: Callee, value: i32) -> i32;
    fn mix_frame_dwarf(callee: Callee, value: i32) -> i32;
}

static DROPS: AtomicI32 = AtomicI32::new(0);

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::SeqCst);
    }
}

/// Called by the C frame that cleans up.
#[no_mangle]
extern "C" fn mix_note_drop() {
    DROPS.fetch_add(10, Ordering::SeqCst);
}

extern "C-unwind" fn throws(code: i32) -> i32 {
    let _guard = Counted;
    if code == 0 {
        return 5;
    }
    panic_any(code)
}

/// What the panic carried and how much was dropped on its way; without one, what the frame returns.
fn through(frame: Frame, code: i32) -> i32 {
    DROPS.store(0, Ordering::SeqCst);
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { frame(throws, code) }));
    let value = match outcome {
        Ok(value) => value,
        Err(payload) => payload.downcast_ref::<i32>().copied().unwrap_or(-2),
    };
    DROPS.load(Ordering::SeqCst) * 1000 + value
}

#[no_mangle]
pub extern "C" fn mix_panic_through_c(code: i32) -> i32 {
    through(mix_frame_c, code)
}

#[no_mangle]
pub extern "C" fn mix_panic_through_cleanup(code: i32) -> i32 {
    through(mix_frame_cleanup, code)
}

#[no_mangle]
pub extern "C" fn mix_panic_through_assembly(code: i32) -> i32 {
    through(mix_frame_assembly, code)
}

#[no_mangle]
pub extern "C" fn mix_panic_through_dwarf(code: i32) -> i32 {
    through(mix_frame_dwarf, code)
}
