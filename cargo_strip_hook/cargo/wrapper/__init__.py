"""The hook that cargo runs by itself: `build.rustc-workspace-wrapper`.

cargo calls ``cargo-strip-hook-rustc RUSTC ARGS…`` instead of ``RUSTC ARGS…``. What makes no static
library is handed to rustc at once, by the few lines of shell in `cargo-strip-hook-rustc`; the rest
comes here: rustc runs, then the library that it wrote is stripped, then this process ends.

invocation -> rustc -> settings and what is public -> strip -> dep-info
"""
