//! What `alpha`, `beta` and `gamma` have in common. Each of them must end up with its own copy.

use std::ffi::c_char;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

pub use linkme;

static BUMPS: AtomicU32 = AtomicU32::new(0);

/// How often this was called, in all libraries that share this copy of the crate.
#[inline(never)]
pub fn bump() -> u32 {
    BUMPS.fetch_add(1, Ordering::SeqCst) + 1
}

/// Panics and catches; the code comes back, with the work of a dependency in between.
#[inline(never)]
pub fn panic_code(code: u32) -> u32 {
    let parts: smallvec::SmallVec<[u32; 4]> = (1..=8).map(|n| n * code).collect();
    let outcome = catch_unwind(|| {
        std::panic::panic_any(parts.iter().sum::<u32>() / 36);
    });
    match outcome {
        Ok(()) => 0,
        Err(payload) => payload.downcast_ref::<u32>().copied().unwrap_or(1),
    }
}

/// A panic inside std's own compiled code: its location tells which std that was.
#[inline(never)]
pub fn panic_in_std() -> bool {
    catch_unwind(|| SystemTime::now() + Duration::MAX).is_err()
}

/// Copies text and a final zero to the caller's buffer.
///
/// # Safety
/// `buffer` holds `size` bytes.
pub unsafe fn give(text: &str, buffer: *mut c_char, size: usize) {
    let length = text.len().min(size.saturating_sub(1));
    std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), length);
    *buffer.add(length) = 0;
}

/// The C API of one of the three libraries. The hook and the set are its own, by the same names.
#[macro_export]
macro_rules! library {
    ($name:literal, $start:ident, $panic:ident, $hooked:ident, $bump:ident, $items:ident, $std:ident) => {
        use std::ffi::c_char;
        use std::sync::atomic::{AtomicU32, Ordering};
        use std::sync::Mutex;

        static HOOKED: AtomicU32 = AtomicU32::new(0);
        static WHERE: Mutex<String> = Mutex::new(String::new());

        #[$crate::linkme::distributed_slice]
        #[linkme(crate = $crate::linkme)]
        static ITEMS: [&'static str];

        #[$crate::linkme::distributed_slice(ITEMS)]
        #[linkme(crate = $crate::linkme)]
        static ITEM: &str = $name;

        /// Sets this library's panic hook.
        #[no_mangle]
        pub extern "C" fn $start() {
            std::panic::set_hook(Box::new(|info| {
                HOOKED.fetch_add(1, Ordering::SeqCst);
                if let (Some(place), Ok(mut last)) = (info.location(), WHERE.lock()) {
                    *last = place.file().to_owned();
                }
            }));
        }

        #[no_mangle]
        pub extern "C" fn $panic(code: u32) -> u32 {
            $crate::panic_code(code)
        }

        /// How often this library's hook ran.
        #[no_mangle]
        pub extern "C" fn $hooked() -> u32 {
            HOOKED.load(Ordering::SeqCst)
        }

        #[no_mangle]
        pub extern "C" fn $bump() -> u32 {
            $crate::bump()
        }

        /// How many elements this library's linker set has.
        #[no_mangle]
        pub extern "C" fn $items() -> u32 {
            ITEMS.len() as u32
        }

        /// The file in std where a panic of std was seen by this library's hook.
        ///
        /// # Safety
        /// `buffer` holds `size` bytes.
        #[no_mangle]
        pub unsafe extern "C" fn $std(buffer: *mut c_char, size: usize) {
            $crate::panic_in_std();
            let last = WHERE.lock().map(|l| l.clone()).unwrap_or_default();
            $crate::give(&last, buffer, size);
        }
    };
}
