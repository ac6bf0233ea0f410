//! The published plugin as a static library.

pub use gstregex::*;
