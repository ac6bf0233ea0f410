"""Static libraries to test on: built on demand, once, in a cache outside the checkout.

The cache is `~/.cache/cargo-strip-hook-tests`, or the folder in `STRIP_HOOK_CACHE`. What is in it
is shared by tests, benchmarks and parallel test processes: copy a library before you change it.

``python -m tests.fixtures NAME PROFILE [TARGET [TOOLCHAIN]]`` builds one and prints where it is.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from tests.targets import build_environment
from tests.tools import missing

Toolchain = Literal["rustup", "debian"]

HERE = Path(__file__).resolve().parent
CRATES = HERE / "consumers" / "crates"
CACHE = Path(
    os.environ.get("STRIP_HOOK_CACHE") or Path.home() / ".cache" / "cargo-strip-hook-tests"
)

# Published crates that are tested as they are, with the lock file they were published with.
PUBLISHED = {
    "imagequant-sys": "4.1.0",
    "dolby_vision": "3.4.0",
    "gst-plugin-fallbackswitch": "0.15.4",
    "rav1e": "0.8.1",
}
# Our own crates below `consumers/crates`; the values are cargo features.
OWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "behaviour": ("behaviour", ()),
    "behaviour-minimal": ("behaviour", ("--no-default-features",)),
    "alpha": ("alpha", ()),
    "beta": ("beta", ()),
    "gamma": ("gamma", ()),
    "windows": ("windows", ()),
    "apple": ("apple", ()),
    "mixed": ("mixed", ()),
}
# Folders whose sources a crate uses besides.
BESIDES = {"windows": ("shared", "behaviour")}
NAMES = (*PUBLISHED, *OWN)


@dataclass(frozen=True, slots=True)
class Built:
    """One library of the cache. `native_libs` is what rustc says a C program must link besides."""

    name: str
    library: Path
    header: Path | None
    cdylib: Path | None
    native_libs: tuple[str, ...]
    target: str

    def copy_to(self, folder: Path) -> Path:
        """A copy of the library that a test may change."""
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(self.library, folder / self.library.name))


def _output(
    argv: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end: all it said, or an error with that."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        words = " ".join(map(str, argv))
        raise RuntimeError(f"`{words}` ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def environment(toolchain: Toolchain) -> dict[str, str]:
    """The environment for cargo: nothing of the developer's own settings for its output."""
    drop = re.compile(r"CARGO_(TARGET|BUILD|PROFILE|TERM|ENCODED)|RUSTFLAGS|RUST_BACKTRACE|RUSTC$")
    env = {k: v for k, v in os.environ.items() if not drop.match(k)}
    env["CARGO_TERM_COLOR"] = "never"
    if toolchain == "debian":
        env["RUSTC"] = "/usr/bin/rustc"
    return env


def rustc(toolchain: Toolchain = "rustup") -> Path:
    """The compiler of a toolchain: `rustup` is the one on PATH, `debian` the distribution's."""
    found = Path("/usr/bin/rustc") if toolchain == "debian" else shutil.which("rustc")
    if not found or not Path(found).exists():
        missing(f"rustc ({toolchain})")
    return Path(str(found))


def cargo(toolchain: Toolchain = "rustup") -> Path:
    """The cargo that belongs to `rustc(toolchain)`."""
    return rustc(toolchain).with_name("cargo")


@functools.cache
def _version(toolchain: Toolchain) -> str:
    return _output([rustc(toolchain), "-vV"])


@functools.cache
def host() -> str:
    """The triple of the machine the tests run on."""
    found = re.search(r"^host: (\S+)$", _version("rustup"), re.M)
    assert found, "rustc -vV names no host"
    return found[1]


def _tree_hash(folder: Path) -> str:
    """A hash of the names and contents below a folder."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix().encode()
        content = file.read_bytes()
        digest.update(b"%d %d " % (len(name), len(content)) + name + content)
    return digest.hexdigest()


def _published_source(name: str, env: Mapping[str, str]) -> Path:
    """The unpacked source of a published crate, fetched by cargo itself."""
    version = PUBLISHED[name]
    source = CACHE / "src" / f"{name}-{version}"
    if source.is_dir():
        return source
    fetch = CACHE / "fetch" / f"{name}-{version}"
    (fetch / "src").mkdir(parents=True, exist_ok=True)
    (fetch / "src" / "lib.rs").write_text("")
    (fetch / "Cargo.toml").write_text(
        '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n'
        f'[dependencies]\n{name} = {{ version = "={version}", default-features = false }}\n'
    )
    argv: list[str | Path] = [cargo(), "metadata", "--format-version=1"]
    done = subprocess.run(
        argv, cwd=fetch, env=env, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        missing(f"the source of {name} {version} ({done.stderr.decode(errors='replace')[-300:]})")
    packages = json.loads(done.stdout)["packages"]
    manifest = next(p["manifest_path"] for p in packages if p["name"] == name)
    part = source.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    # Outside any workspace, and without the marker that makes cargo take it for a registry copy.
    shutil.copytree(Path(manifest).parent, part, ignore=shutil.ignore_patterns(".cargo-ok"))
    part.rename(source)
    return source


def source(name: str) -> Path:
    """The unpacked source of a published crate. Copy it before you change it."""
    return _published_source(name, environment("rustup"))


def _capi_build(
    source: Path, target_dir: Path, profile: str, env: dict[str, str]
) -> tuple[str, ...]:
    """`cargo cbuild`; the native libraries are those of the pkg-config file it wrote."""
    if shutil.which("cargo-cbuild") is None:
        missing("cargo-c")
    argv = ["cargo-cbuild", "cbuild", "--profile", profile, "--target-dir", str(target_dir)]
    argv += ["--locked"] if (source / "Cargo.lock").exists() else []
    _output(argv, cwd=source, env=env)
    folder = target_dir / host() / _folder(profile)
    pc_files = sorted(p for p in folder.glob("*.pc") if not p.name.endswith("-uninstalled.pc"))
    libs: list[str] = []
    for line in pc_files[0].read_text().splitlines():
        if line.startswith("Libs.private:"):
            libs += line.partition(":")[2].split()
    return tuple(libs)


def _plain_build(
    source: Path,
    target_dir: Path,
    profile: str,
    target: str,
    flags: Sequence[str],
    toolchain: Toolchain,
    env: dict[str, str],
) -> tuple[str, ...]:
    """`cargo rustc --crate-type staticlib`, with std built from source for a foreign target."""
    argv: list[str | Path] = [cargo(toolchain), "rustc", "--profile", profile, "--lib"]
    argv += ["--crate-type", "staticlib", "--target-dir", str(target_dir), *flags]
    argv += ["--locked", "--target", target]
    if target != host():
        argv += ["-Zbuild-std=std,panic_unwind"]
        env["RUSTC_BOOTSTRAP"] = "1"
        env.update(build_environment(target))
    said = _output([*argv, "--", "--print", "native-static-libs"], cwd=source, env=env)
    found = re.search(r"native-static-libs: (.*)", said)
    return tuple(found[1].split()) if found else ()


def _folder(profile: str) -> str:
    return "debug" if profile == "dev" else profile


def library(
    name: str,
    profile: str = "release",
    target: str | None = None,
    toolchain: Toolchain = "rustup",
) -> Built:
    """The library called `name`, built if the cache has none of these sources and this compiler.

    `target` is a triple, the host's where it is None. With the host's target the library is
    built by cargo-c; for others by cargo, with std from source. Skips the test where a tool is
    missing.
    """
    target = target or host()
    env = environment(toolchain)
    key, flags = _key(name, target, toolchain)
    CACHE.mkdir(parents=True, exist_ok=True)
    out = _place(key, profile, target)
    if not (out / "built.json").exists():
        with FileLock(CACHE / f"{key}.lock"):
            if not (out / "built.json").exists():
                _build(name, profile, target, toolchain, flags, env, key, out)
    return _load(out, name, target)


def is_built(name: str, profile: str, target: str, toolchain: Toolchain) -> bool:
    """Whether the cache has what `library` would return."""
    key, _ = _key(name, target, toolchain)
    return (_place(key, profile, target) / "built.json").exists()


def _place(key: str, profile: str, target: str) -> Path:
    return CACHE / "built" / key / f"{profile}-{target}"


def _key(name: str, target: str, toolchain: Toolchain) -> tuple[str, tuple[str, ...]]:
    """(what the library is made of, as the name of a folder; cargo's flags for it)."""
    flags: tuple[str, ...]
    if name in PUBLISHED:
        identity = PUBLISHED[name]
        flags = () if target == host() else ("--features", "capi")
    else:
        folder, flags = OWN[name]
        identity = "".join(_tree_hash(CRATES / f) for f in (folder, *_besides(name)))
    key_text = "\n".join([name, identity, _version(toolchain), target, *flags])
    return f"{name}-{hashlib.sha256(key_text.encode()).hexdigest()[:12]}", flags


def _besides(name: str) -> tuple[str, ...]:
    return BESIDES.get(name, ("shared",))


def _load(out: Path, name: str, target: str) -> Built:
    facts = json.loads((out / "built.json").read_text())

    def path(what: str) -> Path | None:
        return out / facts[what] if facts[what] else None

    built_library = path("library")
    assert built_library
    libs = tuple(facts["native_libs"])
    return Built(name, built_library, path("header"), path("cdylib"), libs, target)


def _build(
    name: str,
    profile: str,
    target: str,
    toolchain: Toolchain,
    flags: Sequence[str],
    env: dict[str, str],
    key: str,
    out: Path,
) -> None:
    if name in PUBLISHED:
        source = _published_source(name, env)
    else:
        # Copied: cargo writes Cargo.lock and cargo-c its cache beside the sources.
        source = CACHE / "src" / key / OWN[name][0]
        shutil.copytree(CRATES / OWN[name][0], source, dirs_exist_ok=True)
        for other in _besides(name):
            shutil.copytree(CRATES / other, source.parent / other, dirs_exist_ok=True)
    # Foreign targets share a folder, so that the std of each is built once.
    shared = target != host()
    target_dir = CACHE / "target" / (std_key(toolchain) if shared else key)
    folder = target_dir / target / _folder(profile)
    with FileLock(CACHE / f"{target_dir.name}-{target}.lock") if shared else nullcontext():
        if shared:  # cargo puts the library of this crate there again, fresh or not
            _remove_libraries(folder)
        if target == host() and toolchain == "rustup" and not flags:
            libs = _capi_build(source, target_dir, profile, env)
        else:
            libs = _plain_build(source, target_dir, profile, target, flags, toolchain, env)
        _collect(source, folder, libs, out)


def std_key(toolchain: Toolchain) -> str:
    return f"std-{hashlib.sha256(_version(toolchain).encode()).hexdigest()[:12]}"


def std_folder(target: str, toolchain: Toolchain) -> Path:
    """Where the std is that libraries for a foreign target were built with."""
    return CACHE / "target" / std_key(toolchain) / target / "release" / "deps"


def _remove_libraries(folder: Path) -> None:
    for file in [*folder.glob("*.a"), *folder.glob("*.lib"), *folder.glob("*.so")]:
        file.unlink()


def _collect(source: Path, folder: Path, libs: Sequence[str], out: Path) -> None:
    """Copy what was built to its place in the cache, whole or not at all."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    found: dict[str, object] = {"native_libs": libs, "header": None, "cdylib": None}
    archives = sorted([*folder.glob("*.a"), *folder.glob("*.lib")])
    assert len(archives) == 1, f"{len(archives)} static libraries in {folder}"
    headers = sorted({*folder.glob("*.h"), *folder.glob("include/**/*.h")})
    headers = headers or sorted(source.glob("*.h"))
    cdylibs = sorted(p for p in folder.glob("*.so") if p.is_file())
    for what, files in (("library", archives), ("header", headers), ("cdylib", cdylibs)):
        if files:
            shutil.copyfile(files[0], part / files[0].name)
            found[what] = files[0].name
    (part / "built.json").write_text(json.dumps(found, indent=1) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def main(argv: Sequence[str]) -> None:
    """Build one library and print where its files are."""
    name, profile, *rest = argv
    toolchain: Toolchain = "debian" if rest[1:] == ["debian"] else "rustup"
    built = library(name, profile, rest[0] if rest else None, toolchain)
    print(name, profile, built.library, built.header, built.cdylib, *built.native_libs)


if __name__ == "__main__":
    main(sys.argv[1:])
