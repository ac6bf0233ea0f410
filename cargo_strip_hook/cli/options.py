"""Turning parsed options into requests and jobs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.requests import Compression, Granularity, Strip
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.exports.sources import SOURCES, Values
from cargo_strip_hook.pipeline.strip import Job

if TYPE_CHECKING:
    from cargo_strip_hook.cargo.discover import Artefact
    from cargo_strip_hook.cargo.selection import Selection


@dataclass(frozen=True, slots=True)
class Subject:
    """A library that was named, with the headers of its variant if it is in an xcframework.

    `root` is that xcframework; a symbolic link may not lead out of it.
    """

    library: Path
    headers: tuple[Path, ...] = ()
    root: Path | None = None


def subjects(args: argparse.Namespace) -> list[Subject]:
    """The libraries that were named; of an xcframework, those of its variants.

    Raises `InputError` for a damaged xcframework.
    """
    named: list[Subject] = []
    for path in args.library:
        if not is_xcframework(path):
            named.append(Subject(path))
            continue
        from cargo_strip_hook.archive.xcframework import variants

        named += [Subject(v.library, v.headers, path) for v in variants(path)]
    return named


def is_xcframework(path: Path) -> bool:
    """Whether a path names an xcframework. (Loads the reader for folders only.)"""
    if not path.is_dir():
        return False
    from cargo_strip_hook.archive.xcframework import is_xcframework as really

    return really(path)


def request_for_file(args: argparse.Namespace, subject: Subject, target: Target) -> ExportRequest:
    """What is public in a file that belongs to no package."""
    return ExportRequest(
        target,
        headers=_many(args.header) or subject.headers,
        include_dirs=_many(args.include_dir),
        defines=_many(args.define),
        cdylib=args.cdylib,
        named=named_of(args),
        keep=_many(args.keep),
        crate_name=args.crate_name,
        allow_missing=bool(args.allow_missing),
        headers_explicit=bool(args.header),
        cdylib_explicit=args.cdylib is not None,
    )


def request_for_artefact(args: argparse.Namespace, artefact: Artefact) -> ExportRequest:
    """What is public in a package's library: options go over settings, those over defaults."""
    settings = artefact.settings
    headers = _first(args.header, settings.header)
    allow_missing = args.allow_missing
    return ExportRequest(
        artefact.target,
        headers=artefact.headers if headers is None else headers,
        include_dirs=_many(args.include_dir),
        defines=(*artefact.active_defines, *_many(args.define)),
        cdylib=artefact.cdylib if args.cdylib is None else args.cdylib,
        named={**settings.named, **named_of(args)},
        keep=_first(args.keep, settings.keep) or (),
        crate_name=args.crate_name or artefact.crate_name,
        allow_missing=bool(settings.allow_missing if allow_missing is None else allow_missing),
        headers_explicit=headers is not None,
        cdylib_explicit=args.cdylib is not None,
    )


def job_for_file(args: argparse.Namespace, subject: Subject, target: Target) -> Job:
    """The job of `strip LIB`."""
    return Job(
        subject.library,
        target,
        request_for_file(args, subject, target),
        Strip(args.strip or Strip.DEBUGINFO.value),
        Granularity(args.granularity or Granularity.CLASS.value),
        args.engine or "native",
        output=args.output,
        root=subject.root,
        link_check=args.link_check,
        link_args=_many(args.link_arg),
        twin=args.debug_twin,
        compress_debug=Compression(args.compress_debug or Compression.NONE.value),
        bundle=subject.root,
        allow_signed=args.allow_signed,
    )


def job_of_set(
    args: argparse.Namespace, subject: Subject, target: Target, output: Path | None
) -> Job:
    """One library of `share LIB…` or `join LIB…`."""
    return Job(
        subject.library,
        target,
        request_for_file(args, subject, target),
        Strip(args.strip or Strip.DEBUGINFO.value),
        Granularity(args.granularity or Granularity.CLASS.value),
        output=output,
        link_check=args.link_check,
        link_args=_many(args.link_arg),
    )


def job_of_variant(args: argparse.Namespace, subject: Subject, target: Target) -> Job:
    """The library of one variant of an xcframework of a set."""
    job = job_of_set(args, subject, target, None)
    return replace(job, root=subject.root, bundle=subject.root)


def job_for_artefact(args: argparse.Namespace, artefact: Artefact) -> Job:
    """The job of a package's library; the profile decides where options and settings do not."""
    settings = artefact.settings
    strip = Strip(args.strip) if args.strip else settings.strip or artefact.strip_default
    granularity = settings.granularity or Granularity.CLASS
    if args.granularity:
        granularity = Granularity(args.granularity)
    compression = settings.compress_debug or Compression.NONE
    if args.compress_debug:
        compression = Compression(args.compress_debug)
    return Job(
        artefact.library,
        artefact.target,
        request_for_artefact(args, artefact),
        strip,
        granularity,
        args.engine or settings.engine or "native",
        link_check=args.link_check,
        link_args=_many(args.link_arg),
        twin=args.debug_twin or settings.debug_twin,
        twin_required=args.debug_twin is not None,
        compress_debug=compression,
        allow_signed=args.allow_signed,
    )


def selection_of(args: argparse.Namespace) -> Selection:
    """The packages that were asked for. Raises `UsageError` for options that exclude each other."""
    from cargo_strip_hook.cargo.selection import Selection

    chosen = {"--release": args.release, "--debug": args.debug, "--profile": bool(args.profile)}
    given = [name for name, is_given in chosen.items() if is_given]
    # cargo takes --release with --profile release, too
    if len(given) > 1 and not (given == ["--release", "--profile"] and args.profile == "release"):
        raise UsageError(f"{' and '.join(given)} cannot be used together")
    if not args.installed:
        for name in ("destdir", "prefix", "libdir", "includedir", "pkgconfigdir"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} can only be used together with --installed")
    profile = "release" if args.release else "dev" if args.debug else args.profile
    return Selection(
        packages=_many(args.package),
        workspace=args.workspace,
        exclude=_many(args.exclude),
        manifest_path=_manifest(args.manifest_path),
        target=args.target,
        target_dir=args.target_dir,
        profile=profile,
        config=_many(args.config),
        unstable=_many(args.unstable),
        locked=args.locked,
        offline=args.offline,
        frozen=args.frozen,
        features=_many(args.features),
        all_features=args.all_features,
        no_default_features=args.no_default_features,
        meson_paths=args.meson_paths,
        installed=args.installed,
        destdir=args.destdir,
        prefix=args.prefix,
        libdir=args.libdir,
        includedir=args.includedir,
        pkgconfigdir=args.pkgconfigdir,
    )


def _manifest(path: Path | None) -> Path | None:
    if path is None:
        return None
    from cargo_strip_hook.cargo.metadata import manifest_file

    return manifest_file(path)


def named_of(args: argparse.Namespace) -> Values:
    """What is named by hand, by the source's name; only those that were given."""
    given = {s.name: _many(getattr(args, s.name.replace("-", "_"))) for s in SOURCES}
    return {name: values for name, values in given.items() if values}


def _many(values: list[Any] | None) -> tuple[Any, ...]:
    return tuple(values or ())


def _first(given: list[Any] | None, setting: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    return tuple(given) if given else setting
