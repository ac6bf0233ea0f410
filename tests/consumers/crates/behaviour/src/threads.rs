//! Threads, and values that belong to one.

use std::cell::Cell;
use std::panic::panic_any;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

#[no_mangle]
pub extern "C" fn bhv_threads(count: i32) -> i32 {
    let handles: Vec<_> = (1..=count).map(|n| thread::spawn(move || n * n)).collect();
    handles.into_iter().map(|h| h.join().unwrap_or(-1000)).sum()
}

#[no_mangle]
pub extern "C" fn bhv_thread_panic(code: i32) -> i32 {
    match thread::spawn(move || panic_any(code)).join() {
        Ok(()) => -1,
        Err(payload) => payload.downcast_ref::<i32>().copied().unwrap_or(-2),
    }
}

static DROPPED: AtomicI32 = AtomicI32::new(0);

struct Local(Cell<i32>);

impl Drop for Local {
    fn drop(&mut self) {
        DROPPED.fetch_add(self.0.get(), Ordering::SeqCst);
    }
}

thread_local! {
    static LOCAL: Local = const { Local(Cell::new(1)) };
    static LAZY: String = "lazy".repeat(2);
}

/// Each thread adds its number to its own 1, and the destructors add that up.
#[no_mangle]
pub extern "C" fn bhv_thread_local_drops(count: i32) -> i32 {
    DROPPED.store(0, Ordering::SeqCst);
    for n in 1..=count {
        let handle = thread::spawn(move || {
            LOCAL.with(|l| l.0.set(l.0.get() + n));
            LAZY.with(|text| text.len())
        });
        if handle.join().unwrap_or(0) != 8 {
            return -1;
        }
    }
    DROPPED.load(Ordering::SeqCst)
}
