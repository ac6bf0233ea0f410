"""The job for a library that rustc has just written: settings, and what is public."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.cargo.capi import load_capi, shipped_headers
from cargo_strip_hook.cargo.cbindgen import active_defines, load_defines
from cargo_strip_hook.cargo.cfg import feature_cfg
from cargo_strip_hook.cargo.config import load_config
from cargo_strip_hook.cargo.metadata import Package
from cargo_strip_hook.cargo.paths import HEADER_SUFFIXES
from cargo_strip_hook.cargo.profile import default_strip
from cargo_strip_hook.cargo.rustc import Rustc, cfg_of
from cargo_strip_hook.cargo.settings import Settings, settings_of
from cargo_strip_hook.cargo.wrapper.invocation import Invocation, profile_of
from cargo_strip_hook.cargo.wrapper.package import Origin, workspace_metadata
from cargo_strip_hook.core.requests import Compression, Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.exports.included import included_files
from cargo_strip_hook.exports.sources import named_files
from cargo_strip_hook.pipeline.strip import Job


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the package asks for. `profile` is None where the output folder does not say it.

    `headers` are public where the settings name nothing else. Headers are read with the macros
    `defines`. `inputs` are the files that decided this.
    """

    settings: Settings
    target: Target
    profile: str | None
    headers: tuple[Path, ...]
    defines: tuple[str, ...]
    inputs: tuple[Path, ...]

    @property
    def active(self) -> bool:
        """Whether libraries of this profile are stripped; by default, those of all but dev."""
        if self.profile is None:
            return True
        if self.settings.profiles is not None:
            return self.profile in self.settings.profiles
        return self.profile != "dev"


def read_wanted(invocation: Invocation, origin: Origin, target: Target, program: str) -> Wanted:
    """Read the settings. `program` is rustc. Raises `UsageError` and `DiscoveryError`."""
    package = origin.package
    rustc = Rustc(program, "", "")
    settings = settings_of(
        package, workspace_metadata(origin), origin.root, target, lambda: cfg_of(target, rustc)
    )
    headers = _source_headers(settings, origin)
    read = settings.header or headers
    defines = _defines(invocation, package, target, rustc) if read else ()
    files = [*origin.manifests, *named_files(settings.named)]
    for header in read:
        files += included_files(header, target=target, defines=defines)
    if read:
        files.append(package.root / "cbindgen.toml")
    if settings.baseline is not None:
        files.append(settings.baseline)
    # a file that does not exist would have cargo build again each time
    inputs = tuple(dict.fromkeys(f.absolute() for f in files if f.is_file()))
    return Wanted(settings, target, profile_of(invocation.out_dir), headers, defines, inputs)


def _source_headers(settings: Settings, origin: Origin) -> tuple[Path, ...]:
    """The headers that are source files: cbindgen has not written its header yet."""
    if settings.header is not None or any(settings.named.values()):
        return ()
    capi = load_capi(origin.package)
    if not capi.header_enabled or capi.header_generation:
        return ()
    return tuple(
        dict.fromkeys(
            source
            for files in capi.include
            if not files.generated
            for source, _ in shipped_headers(files, origin.package.root)
            if source.suffix.lower() in HEADER_SUFFIXES
        )
    )


def job_of(invocation: Invocation, origin: Origin, library: Path, wanted: Wanted) -> Job:
    """The job. What is public is decided, in this order, by the settings, a header that is a source
    file, the shared library of the same compilation, or what such a library would export.
    """
    settings, target = wanted.settings, wanted.target
    headers = settings.header or wanted.headers
    cdylib = library.parent / target.shared_library(invocation.file_stem)
    has_cdylib = "cdylib" in invocation.crate_types and cdylib.is_file()
    request = ExportRequest(
        target,
        headers=headers,
        defines=wanted.defines,
        cdylib=cdylib if has_cdylib else None,
        named=settings.named,
        keep=settings.keep or (),
        crate_name=invocation.crate_name,
        every_crate=True,
        allow_missing=bool(settings.allow_missing),
        headers_explicit=settings.header is not None,
    )
    return Job(
        library,
        target,
        request,
        settings.strip or _strip_of(invocation, wanted, origin),
        settings.granularity or Granularity.CLASS,
        settings.engine or "native",
        twin=settings.debug_twin,
        compress_debug=settings.compress_debug or Compression.NONE,
        name=invocation.crate_name,
    )


def _strip_of(invocation: Invocation, wanted: Wanted, origin: Origin) -> Strip:
    if invocation.strip is not None:
        return Strip(invocation.strip)
    if wanted.profile is None:
        return Strip.DEBUGINFO
    return default_strip(wanted.profile, origin.root_table, load_config())


def _defines(
    invocation: Invocation, package: Package, target: Target, rustc: Rustc
) -> tuple[str, ...]:
    """The macros that stand for enabled features, by cbindgen.toml."""
    known: Mapping[str, str] = load_defines(package.root)
    if not known:
        return ()
    options = cfg_of(target, rustc) | feature_cfg(invocation.features)
    return active_defines(known, options)[0]


__all__ = ["Wanted", "job_of", "read_wanted"]
