//! The halves in other languages: what they need of Rust, and what must stay reachable of them.

use std::hint::black_box;

type Callee = extern "C-unwind" fn(i32) -> i32;

extern "C-unwind" {
    pub fn bhv_frame_c(callee: Callee, value: i32) -> i32;
    pub fn bhv_frame_assembly(callee: Callee, value: i32) -> i32;
}

#[no_mangle]
pub extern "system" fn bhv_std(a: i32, b: i32) -> i32 {
    // Referred to, as lld drops what has no reference but by the pointers that it makes itself.
    let private: extern "C" fn(i32) -> i32 = black_box(bhv_private);
    a - b + private(black_box(&bhv_private_data).wrapping_neg()) + 36
}

// On other architectures there is one calling convention.
#[cfg(target_arch = "x86")]
#[no_mangle]
pub extern "fastcall" fn bhv_fast(a: i32, b: i32) -> i32 {
    a * b
}

#[cfg(not(target_arch = "x86"))]
#[no_mangle]
pub extern "C" fn bhv_fast(a: i32, b: i32) -> i32 {
    a * b
}

/// Called by C as if it were another module's.
#[no_mangle]
pub extern "C" fn bhv_private(a: i32) -> i32 {
    a + 3
}

#[no_mangle]
pub static bhv_private_data: i32 = 39;
