//! What a bad prelink breaks on Darwin, without dependencies; see `apple.h`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{catch_unwind, panic_any};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

#[no_mangle]
pub static apl_version: u32 = 0x0001_0203;

#[no_mangle]
pub static apl_counter: AtomicU32 = AtomicU32::new(41);

static DROPS: AtomicI32 = AtomicI32::new(0);
static CONSTRUCTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn construct() {
    CONSTRUCTED.fetch_add(7, Ordering::SeqCst);
}

#[used]
#[link_section = "__DATA,__mod_init_func,mod_init_funcs"]
static CONSTRUCTOR: extern "C" fn() = construct;

#[no_mangle]
pub extern "C" fn apl_constructed() -> i32 {
    CONSTRUCTED.load(Ordering::SeqCst)
}

fn payload(outcome: std::thread::Result<i32>) -> i32 {
    match outcome {
        Ok(_) => -1,
        Err(payload) => payload.downcast_ref::<i32>().copied().unwrap_or(-2),
    }
}

#[no_mangle]
pub extern "C" fn apl_panic_code(code: i32) -> i32 {
    payload(catch_unwind(|| panic_any(code)))
}

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
pub extern "C" fn apl_panic_drops(depth: i32) -> i32 {
    DROPS.store(0, Ordering::SeqCst);
    let code = payload(catch_unwind(|| descend(depth)));
    DROPS.load(Ordering::SeqCst) * 100 + code
}

#[no_mangle]
pub extern "C" fn apl_panic_index(index: u64) -> i32 {
    let values = std::hint::black_box([10, 11, 12, 13]);
    match catch_unwind(|| values[index as usize]) {
        Ok(value) => value,
        Err(payload) => match payload.downcast_ref::<String>() {
            Some(text) if text.contains("the len is 4 but the index is") => -1,
            _ => -2,
        },
    }
}

thread_local! {
    static SEEN: RefCell<BTreeMap<i32, String>> = const { RefCell::new(BTreeMap::new()) };
    static GUARD: Counted = Counted(std::hint::black_box(3));
    static PLAIN: Cell<i32> = const { Cell::new(5) };
}

#[no_mangle]
pub extern "C" fn apl_threads(count: i32) -> i64 {
    let threads: Vec<_> = (0..count)
        .map(|number| {
            std::thread::spawn(move || {
                PLAIN.set(PLAIN.get() + number);
                SEEN.with_borrow_mut(|seen| {
                    seen.insert(number, format!("{number}"));
                    seen.values().map(String::len).sum::<usize>() as i64 + i64::from(PLAIN.get())
                })
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap_or(-1000)).sum()
}

#[no_mangle]
pub extern "C" fn apl_thread_local_drops(value: i32) -> i32 {
    DROPS.store(0, Ordering::SeqCst);
    let joined = std::thread::spawn(move || GUARD.with(|guard| guard.0 + value)).join();
    joined.unwrap_or(-1000) * 100 + DROPS.load(Ordering::SeqCst)
}

/// # Safety
/// `buffer` holds `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn apl_format(value: i32, buffer: *mut u8, size: u64) -> u64 {
    let text = format!("value {value:>5} {:?}", Some(f64::from(value) / 4.0));
    let part = &text.as_bytes()[..text.len().min(size as usize)];
    std::ptr::copy_nonoverlapping(part.as_ptr(), buffer, part.len());
    text.len() as u64
}

#[no_mangle]
pub extern "C" fn apl_float(value: f64) -> f64 {
    value.mul_add(1.25, 0.062_5).sin()
}

#[no_mangle]
pub extern "C" fn apl_unused(size: u64) -> u64 {
    let mut words: Vec<String> = (0..size).map(|n| format!("{n:x}")).collect();
    words.sort();
    words.concat().bytes().map(u64::from).sum()
}
