"""The hook, which cargo runs by itself: `build.rustc-workspace-wrapper`.

cargo calls ``cargo-strip-hook-rustc RUSTC ARGS…`` instead of ``RUSTC ARGS…``. That
script, a few lines of shell, runs rustc directly where it makes no static library. Otherwise it
runs this: rustc runs, then the library that it wrote is stripped, then this process ends.

invocation -> rustc -> settings and what is public -> strip -> dep-info
"""
