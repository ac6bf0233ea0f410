//! The halves in other languages: what they need of Rust, and what must stay reachable of them.

type Callee = extern "C-unwind" fn(i32) -> i32;

extern "C-unwind" {
    pub fn bhv_frame_c(callee: Callee, value: i32) -> i32;
    pub fn bhv_frame_assembly(callee: Callee, value: i32) -> i32;
}
