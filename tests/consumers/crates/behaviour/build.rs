//! Compiles the C, C++ and assembly halves of the library.

fn main() {
    println!("cargo:rerun-if-changed=native");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut c = cc::Build::new();
    let late = ["riscv64", "loongarch64"].contains(&&*variable("CARGO_CFG_TARGET_ARCH"));
    if variable("CARGO_CFG_TARGET_ENV") != "gnu" || late {
        c.define("WITHOUT_IFUNC", None);
    }
    c
        // A global without an initialiser becomes a common symbol; a panic may cross these frames.
        .flag("-fcommon")
        .flag("-fexceptions")
        .flag("-ffunction-sections")
        .file("native/c.c")
        .file("native/strong.c")
        .file("native/frames.S")
        .compile("behaviour_c");
    if std::env::var_os("CARGO_FEATURE_CXX").is_some() {
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .file("native/one.cpp")
            .file("native/two.cpp")
            .compile("behaviour_cxx");
    }
}
