//! Each example is a library.
