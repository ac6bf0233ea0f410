//! Panics that are caught inside the library.

use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::native::{bhv_frame_assembly, bhv_frame_c};

fn payload(outcome: std::thread::Result<i32>) -> i32 {
    match outcome {
        Ok(_) => -1,
        Err(payload) => payload.downcast_ref::<i32>().copied().unwrap_or(-2),
    }
}

#[no_mangle]
pub extern "C" fn bhv_panic_code(code: i32) -> i32 {
    payload(catch_unwind(|| panic_any(code)))
}

static DROPS: AtomicI32 = AtomicI32::new(0);

struct Counted(i32);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPS.fetch_add(self.0, Ordering::SeqCst);
    }
}

#[inline(never)]
fn descend(depth: i32) -> i32 {
    let guard = Counted(1);
    if depth <= 1 {
        panic_any(depth);
    }
    let below = descend(std::hint::black_box(depth - 1));
    below + guard.0
}

#[no_mangle]
pub extern "C" fn bhv_panic_drops(depth: i32) -> i32 {
    DROPS.store(0, Ordering::SeqCst);
    let code = payload(catch_unwind(|| descend(depth)));
    DROPS.load(Ordering::SeqCst) * 100 + code
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        // A second panic while the first unwinds, caught before it leaves the destructor.
        DROPS.fetch_add(bhv_panic_code(7), Ordering::SeqCst);
    }
}

#[no_mangle]
pub extern "C" fn bhv_panic_nested() -> i32 {
    DROPS.store(0, Ordering::SeqCst);
    let code = payload(catch_unwind(|| {
        let _guard = PanicsInDrop;
        panic_any(30)
    }));
    DROPS.load(Ordering::SeqCst) + code
}

/// A panic that the compiler makes: the index is out of bounds from 4 on.
#[no_mangle]
pub extern "C" fn bhv_panic_index(index: usize) -> i32 {
    let values = std::hint::black_box([10, 11, 12, 13]);
    match catch_unwind(|| values[index]) {
        Ok(value) => value,
        Err(payload) => match payload.downcast_ref::<String>() {
            Some(text) if text.contains("the len is 4 but the index is") => -1,
            _ => -2,
        },
    }
}

extern "C-unwind" fn throws(code: i32) -> i32 {
    let _guard = Counted(1);
    panic_any(code)
}

fn through(
    frame: unsafe extern "C-unwind" fn(extern "C-unwind" fn(i32) -> i32, i32) -> i32,
    code: i32,
) -> i32 {
    DROPS.store(0, Ordering::SeqCst);
    let result = payload(catch_unwind(AssertUnwindSafe(|| unsafe {
        frame(throws, code)
    })));
    DROPS.load(Ordering::SeqCst) * 100 + result
}

#[no_mangle]
pub extern "C" fn bhv_panic_through_c(code: i32) -> i32 {
    through(bhv_frame_c, code)
}

#[no_mangle]
pub extern "C" fn bhv_panic_through_assembly(code: i32) -> i32 {
    through(bhv_frame_assembly, code)
}
