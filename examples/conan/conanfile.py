"""A Conan 2 recipe: a crate with a C API as a package with one small static library."""

from pathlib import Path

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import cross_building
from conan.tools.files import copy

TRIPLES = {
    ("Linux", "x86_64"): "x86_64-unknown-linux-gnu",
    ("Linux", "armv8"): "aarch64-unknown-linux-gnu",
    ("Macos", "x86_64"): "x86_64-apple-darwin",
    ("Macos", "armv8"): "aarch64-apple-darwin",
    ("Android", "armv8"): "aarch64-linux-android",
}


class DemoRecipe(ConanFile):
    name = "demo"
    version = "0.1.0"
    package_type = "static-library"
    description = "Counts the words of a text"
    license = "MIT OR Apache-2.0"
    settings = "os", "arch", "compiler", "build_type"

    def export_sources(self):
        crate = Path(self.recipe_folder).parent / "demo"
        copy(self, "*", str(crate), self.export_sources_folder, excludes="target/*")

    def configure(self):
        self.settings.rm_safe("compiler.libcxx")
        self.settings.rm_safe("compiler.cppstd")

    def validate(self):
        if cross_building(self) and self._platform not in TRIPLES:
            raise ConanInvalidConfiguration(f"no Rust target is known for {self._platform}")

    def package_id(self):
        # One object, in which nothing of the C compiler is left.
        del self.info.settings.compiler

    @property
    def _platform(self):
        return str(self.settings.os), str(self.settings.arch)

    def _cargo_c(self, hook, command, *options):
        where = f'--manifest-path "{self.source_folder}/Cargo.toml" --target-dir cargo'
        profile = "dev" if self.settings.build_type == "Debug" else "release"
        kind = f"--locked --profile {profile} --library-type staticlib"
        target = f"--target {TRIPLES[self._platform]}" if cross_building(self) else ""
        self.run(" ".join([hook, command, where, kind, target, *options]))

    def build(self):
        self._cargo_c("cargo", "cbuild")

    def package(self):
        places = {"prefix": "", "libdir": "/lib", "includedir": "/include"}
        options = [f'--{name} "{self.package_folder}{below}"' for name, below in places.items()]
        self._cargo_c("cargo strip-hook", "cinstall", *options)

    def package_info(self):
        self.cpp_info.libs = ["demo"]
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread", "dl", "m", "rt", "util"]
