#!/usr/bin/env bash
# The crate for each ABI of Android, stripped, laid out as a Prefab module for an AAR.
#
# build.sh OUT: writes OUT/prefab, which Gradle packs (see build.gradle.kts).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
out="${1:?where to}"
crate=../demo
api="${ANDROID_API:-24}"
ndk="${NDK_MAJOR:-27}"

declare -A triples=(
    [arm64-v8a]=aarch64-linux-android
    [armeabi-v7a]=armv7-linux-androideabi
    [x86_64]=x86_64-linux-android
)
module="$out/prefab/modules/demo"
mkdir -p "$module/include"
cp "$crate/demo.h" "$module/include/"
cat >"$out/prefab/prefab.json" <<JSON
{"name": "demo", "schema_version": 2, "dependencies": [], "version": "0.1.0"}
JSON
cat >"$module/module.json" <<JSON
{"export_libraries": ["-ldl", "-lm"], "android": {"library_name": "libdemo"}}
JSON

for abi in "${!triples[@]}"; do
    cargo ndk --target "$abi" --platform "$api" --manifest-path "$crate/Cargo.toml" \
        build --release --lib --target-dir target
    folder="$module/libs/android.$abi"
    mkdir -p "$folder"
    cargo strip-hook strip "target/${triples[$abi]}/release/libdemo.a" \
        --header "$crate/demo.h" -o "$folder/libdemo.a"
    cat >"$folder/abi.json" <<JSON
{"abi": "$abi", "api": $api, "ndk": $ndk, "stl": "none", "static": true}
JSON
done
