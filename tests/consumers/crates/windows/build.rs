//! Compiles the C, C++ and assembly halves of the library.

fn main() {
    println!("cargo:rerun-if-changed=native");
    let msvc = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|name| name == "msvc");
    cc::Build::new()
        // A global without an initialiser becomes a common symbol; a panic may cross these frames.
        .flag("-fcommon")
        .flag("-fexceptions")
        .flag("-ffunction-sections")
        .file("native/c.c")
        .file("native/strong.c")
        .file("native/frames.S")
        .compile("windows_c");
    let mut cxx = cc::Build::new();
    cxx.cpp(true)
        .std("c++17")
        .cpp_link_stdlib(None) // the program brings it
        .flag("-ffunction-sections")
        .file("native/one.cpp")
        .file("native/two.cpp");
    if msvc {
        // no headers and no runtime of Microsoft's are needed for what these do
        cxx.flag("-fcxx-exceptions").flag("-fno-threadsafe-statics");
    }
    cxx.compile("windows_cxx");
}
