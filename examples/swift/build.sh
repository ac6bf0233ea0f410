#!/usr/bin/env bash
# Demo.xcframework for macOS and iOS, stripped. On a Mac with Xcode and the targets of rustup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# What Swift imports: the header and a module map, beside each library.
mkdir -p build/include
cp ../demo/demo.h build/include/
printf 'module CDemo {\n    header "demo.h"\n    export *\n}\n' >build/include/module.modulemap

library() { # TRIPLE
    cargo rustc --release --lib --crate-type staticlib --target "$1" \
        --manifest-path ../demo/Cargo.toml --target-dir build/cargo
}
for triple in {aarch64,x86_64}-apple-darwin aarch64-apple-ios aarch64-apple-ios-sim; do
    library "$triple"
done
mkdir -p build/macos
lipo -create build/cargo/{aarch64,x86_64}-apple-darwin/release/libdemo.a -output build/macos/libdemo.a

rm -rf Demo.xcframework
xcodebuild -create-xcframework \
    -library build/macos/libdemo.a -headers build/include \
    -library build/cargo/aarch64-apple-ios/release/libdemo.a -headers build/include \
    -library build/cargo/aarch64-apple-ios-sim/release/libdemo.a -headers build/include \
    -output Demo.xcframework

# Each variant, and each slice of the universal one; public is what the headers beside them declare.
cargo strip-hook strip Demo.xcframework
