"""The paths where cargo-c and cargo put a library and what belongs to it.

Source of the rules: cargo-c 0.10.24, `src/build.rs` (`cbuild`: the folder is always
``<target dir>/<triple>/<profile>``), `src/build_targets.rs` (`FileNames`), `src/install.rs`
(`InstallPaths`, `UnixLibNames`) and `src/target.rs` (`default_libdir` and the like).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.cargo.capi import Capi, shipped_headers
from cargo_strip_hook.cargo.cfg import target_arch, target_os
from cargo_strip_hook.cargo.metadata import Package, Workspace
from cargo_strip_hook.cargo.profile import profile_folder
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.core.errors import ToolError
from cargo_strip_hook.core.run import run
from cargo_strip_hook.core.target import Target

HEADER_SUFFIXES = frozenset({".h", ".hh", ".hpp", ".hxx", ".h++"})


@dataclass(frozen=True, slots=True)
class LibraryNames:
    """File names of a library. `import_library` is that of a DLL, else None.

    The `installed_` names differ from those in the target directory only on Windows.
    """

    static: str
    shared: str
    import_library: str | None
    installed_static: str
    installed_shared: str


def library_names(target: Target, name: str, *, meson_paths: bool = False) -> LibraryNames:
    """cargo-c's file names for a library called `name` (`src/build_targets.rs`, `FileNames`).

    `--meson-paths` changes the names of import libraries, and installed names; the static library
    in the target directory keeps its name, so that with MSVC both are ``<name>.lib``.
    """
    system = target_os(target)
    if system not in {"windows", "cygwin"}:
        shared = target.shared_library(name)
        return LibraryNames(f"lib{name}.a", shared, None, f"lib{name}.a", shared)
    shared = f"{name}.dll"
    if target.is_msvc:
        static = f"{name}.lib"
        import_library = static if meson_paths else f"{name}.dll.lib"
    else:
        static = f"lib{name}.a"
        lib_prefix = "lib" if meson_paths or system == "cygwin" else ""
        import_library = f"{lib_prefix}{name}.dll.a"
    installed_shared = shared
    if system == "cygwin":
        installed_shared = f"cyg{name}.dll"
    elif meson_paths and target.environment.startswith("gnu"):
        installed_shared = f"lib{name}.dll"
    installed_static = f"lib{name}.a" if meson_paths else static
    return LibraryNames(static, shared, import_library, installed_static, installed_shared)


@dataclass(frozen=True, slots=True)
class BuildTree:
    """The folders of a build. `triple` is that of the target; `explicit`: `--target` or the
    configuration asks for it. `host` is rustc's own triple."""

    target_dir: Path
    build_dir: Path
    triple: str
    host: str
    explicit: bool
    profile: str

    @property
    def output(self) -> Path:
        """The folder of cargo-c's files: always with the triple, also for the host."""
        return self.target_dir / self.triple / profile_folder(self.profile)

    @property
    def plain_outputs(self) -> tuple[Path, ...]:
        """The folders of plain cargo's files: with a triple only where one was asked for."""
        if self.explicit:
            return (self.output,)
        return (self.target_dir / profile_folder(self.profile), self.output)

    @property
    def header_outputs(self) -> tuple[Path, ...]:
        """The folders where cargo-c's header may be.

        For it, cargo-c overlooks CARGO_BUILD_TARGET and `build.target` of configuration files, and
        takes the host's folder (`src/build.rs`, `cbuild`).
        """
        by_host = self.target_dir / self.host / profile_folder(self.profile)
        return (self.output,) if by_host == self.output else (self.output, by_host)

    @property
    def deps(self) -> Path:
        """cargo's own folder; its library is a hard link to the one in `output`."""
        return self.build_dir / self.triple / profile_folder(self.profile) / "deps"

    @property
    def scripts(self) -> tuple[Path, ...]:
        """The folders with the OUT_DIRs of build scripts."""
        folder = profile_folder(self.profile)
        return (
            self.build_dir / self.triple / folder / "build",
            self.build_dir / folder / "build",
        )


def build_tree(
    workspace: Workspace, selection: Selection, triple: str, host: str, *, explicit: bool
) -> BuildTree:
    """The folders of the build that is selected."""
    return BuildTree(
        workspace.target_dir,
        workspace.build_dir,
        triple,
        host,
        explicit,
        selection.profile_name,
    )


@dataclass(frozen=True, slots=True)
class InstallTree:
    """The folders that `cargo cinstall` installs to, destdir included."""

    libdir: Path
    includedir: Path
    bindir: Path
    pkgconfigdir: Path


def install_tree(
    selection: Selection,
    target: Target,
    host: Target,
    *,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> InstallTree:
    """Where the files of `selection` are installed (`src/install.rs`, `InstallPaths`).

    cargo-c has `--destdir`, but no DESTDIR variable. The default libdir depends on files in `etc`
    and `usr` below `root`.
    """
    environ = os.environ if environ is None else environ
    prefix = selection.prefix or default_prefix(target)
    libdir = selection.libdir or default_libdir(
        target, host, overridden=selection.target is not None, environ=environ, root=root
    )
    includedir = selection.includedir or default_includedir(target)
    bindir = selection.bindir or Path("bin")
    pkgconfigdir = selection.pkgconfigdir or libdir / "pkgconfig"
    return InstallTree(
        under_destdir(selection.destdir, prefix / libdir),
        under_destdir(selection.destdir, prefix / includedir),
        under_destdir(selection.destdir, prefix / bindir),
        under_destdir(selection.destdir, prefix / pkgconfigdir),
    )


def under_destdir(destdir: Path | None, path: Path) -> Path:
    """`path`, without its root, below `destdir` (`src/install.rs`, `append_to_destdir`)."""
    if destdir is None:
        return path.absolute()
    # `c:/` is a plain folder name for a cargo-c that does not run on Windows
    return (destdir / path.relative_to(path.anchor)).absolute()


def default_prefix(target: Target) -> Path:
    """cargo-c's default `--prefix`."""
    system = target_os(target)
    if system == "windows":
        return Path("c:/")
    return Path("/boot/system/non-packaged" if system == "haiku" else "/usr/local")


def default_includedir(target: Target) -> Path:
    """cargo-c's default `--includedir`, relative to the prefix."""
    return Path("develop/headers" if target_os(target) == "haiku" else "include")


def default_libdir(
    target: Target,
    host: Target,
    *,
    overridden: bool,
    environ: Mapping[str, str],
    root: Path = Path("/"),
) -> Path:
    """cargo-c's default `--libdir`, relative to the prefix (`src/target.rs`, `default_libdir`).

    On Debian ``lib/<multiarch>`` by dpkg-architecture; with `--target` only where
    DEB_HOST_RUST_TYPE names the same. Elsewhere ``lib64`` for the host, if `/usr/lib64` exists and
    is no link.
    """
    if target_os(target) == "freebsd":
        return Path("lib")
    if (root / "etc/debian_version").exists():
        if overridden and environ.get("DEB_HOST_RUST_TYPE") != target.triple:
            return Path("lib")
        try:
            done = run(["dpkg-architecture", "-qDEB_HOST_MULTIARCH"])
        except ToolError:
            pass
        else:
            return Path("lib") / done.stdout.strip()
    if overridden:
        return Path("lib")
    native = (target_arch(target), target_os(target)) == (target_arch(host), target_os(host))
    lib64 = root / "usr/lib64"
    if native and lib64.exists() and not lib64.is_symlink():
        return Path("lib64")
    return Path("lib")


def shared_version(capi: Capi) -> str:
    """``major.minor.patch``, the end of an installed shared library's full name."""
    return capi.library_version.partition("+")[0].partition("-")[0]


def installed_shared(tree: InstallTree, capi: Capi, target: Target, names: LibraryNames) -> Path:
    """The shared library that `cargo cinstall` installed (`src/install.rs`, `UnixLibNames`).

    The link without version, where it exists; else the file with the full version.
    """
    folder = tree.libdir / capi.install_subdir if capi.install_subdir else tree.libdir
    if names.import_library is not None:
        # with a subdirectory it is a plugin, which stays with the libraries
        return (folder if capi.install_subdir else tree.bindir) / names.installed_shared
    plain = folder / names.installed_shared
    if plain.exists() or not capi.versioning or target_os(target) == "android":
        return plain
    name, version = capi.library_name, shared_version(capi)
    if target.object_format == "macho":
        return folder / f"lib{name}.{version}.dylib"
    return folder / f"{names.shared}.{version}"


def header_paths(
    capi: Capi, package: Package, tree: BuildTree, *, generated: bool = True
) -> list[tuple[Path, Path]]:
    """Every header of the package: its file, and its path in an include directory.

    First the one that cbindgen writes, whether it exists or not (only if `generated`: plain cargo
    writes none); then those that patterns find (`src/build_targets.rs`, `extra_targets`). Empty
    where `header.enabled` is false.
    """
    if not capi.header_enabled:
        return []
    sources: dict[Path, Path] = {}
    if generated and capi.header_generation:
        outputs = [folder / capi.header_file for folder in tree.header_outputs]
        source = next((p for p in outputs if p.exists()), outputs[0])
        sources[Path(capi.header_subdirectory) / capi.header_file] = source
    for files in capi.include:
        roots = _out_dirs(package, tree) if files.generated else [package.root]
        for root in roots:
            for source, to in shipped_headers(files, root):
                if source.suffix.lower() in HEADER_SUFFIXES:
                    sources.setdefault(Path(to), source)
    return [(source, to) for to, source in sources.items()]


def _out_dirs(package: Package, tree: BuildTree) -> list[Path]:
    """The newest OUT_DIR of the package's build script, ``<name>-<hash>/out``."""
    out_dirs = [
        out
        for scripts in tree.scripts
        for out in scripts.glob(f"{package.name}-*/out")
        # another package's name may begin with ours and a dash
        if len(out.parent.name) == len(package.name) + 17
    ]
    return sorted(out_dirs, key=lambda out: out.stat().st_mtime, reverse=True)[:1]


def built_headers(
    capi: Capi, package: Package, tree: BuildTree, *, by_cargo_c: bool
) -> tuple[Path, ...]:
    """The headers of a build: cargo-c's copies in ``include``, else their sources."""
    headers: list[Path] = []
    for source, to in header_paths(capi, package, tree, generated=by_cargo_c):
        copies = [folder / "include" / to for folder in tree.header_outputs] if by_cargo_c else []
        # a copy that is older than its source is from an earlier build
        since = source.stat().st_mtime_ns if source.exists() else 0
        fresh = (p for p in copies if p.is_file() and p.stat().st_mtime_ns >= since)
        header = next(fresh, source)
        if header.is_file():
            headers.append(header)
    return tuple(headers)


def installed_headers(
    capi: Capi, package: Package, tree: BuildTree, installed: InstallTree
) -> tuple[Path, ...]:
    """The headers that were installed."""
    paths = [installed.includedir / to for _, to in header_paths(capi, package, tree)]
    return tuple(p for p in paths if p.is_file())
