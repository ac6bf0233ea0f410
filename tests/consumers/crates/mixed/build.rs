//! Compiles the halves of the library in C, C++ and assembly.

fn main() {
    println!("cargo:rerun-if-changed=native");
    let mut c = cc::Build::new();
    c.flag("-fcommon").flag("-fexceptions");
    c.file("native/c.c").file("native/weak.c").file("native/frames.S");
    c.compile("mixed_c");
    let mut cxx = cc::Build::new();
    cxx.cpp(true).cpp_link_stdlib(None).std("c++17").flag("-fno-threadsafe-statics");
    cxx.file("native/one.cpp").file("native/two.cpp");
    cxx.compile("mixed_cxx");
}
