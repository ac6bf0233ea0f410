"""The commands as functions, for programs in Python.

The guarantees are those of the command line: a library is replaced atomically by a verified one, or
stays unchanged. Nothing is printed, and every failure is a `StripHookError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, TypeVar

from cargo_strip_hook.core.errors import StripHookError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cargo_strip_hook.analysis.check import Inspection
    from cargo_strip_hook.analysis.sizes import Sizes
    from cargo_strip_hook.analysis.why import Reason
    from cargo_strip_hook.core.target import Target
    from cargo_strip_hook.exports.decide import ExportRequest
    from cargo_strip_hook.pipeline.sharing import SetJob, SetOutcome
    from cargo_strip_hook.pipeline.strip import Observe, Outcome

File: TypeAlias = "str | PathLike[str]"
Files: TypeAlias = "File | Sequence[File]"
Names: TypeAlias = "str | Sequence[str]"
_Choice = TypeVar("_Choice", bound=Enum)


class Public(TypedDict, total=False):
    """What is public in a library: the options of the command line, by their names.

    Without any of them: what the library's own crate defines under a name that is not mangled. In
    a library that was stripped before: what is public in it.
    """

    headers: Files  # all that C or C++ headers declare
    exports: Names  # names, shell patterns, `/regular expressions/`
    exports_files: Files  # lists, .def files, version scripts
    presets: Names  # "gst", "jni", "uniffi"
    keep: Names  # patterns of symbols that stay global although they are no API
    cdylib: File | None  # all that a shared library exports
    crate_name: str | None  # the crate whose own symbols are public
    defines: Names  # macros for the headers, `NAME=VALUE`
    include_dirs: Files  # where headers find others
    allow_missing: bool  # declared symbols may be undefined
    target: str | None  # the triple; None: the objects say it


def strip(  # noqa: PLR0913 - a parameter for each option of the command
    library: File,
    *,
    output: File | None = None,
    strip: Literal["none", "debuginfo", "symbols"] = "debuginfo",
    granularity: Literal["class", "section", "whole"] = "class",
    engine: Literal["native", "system"] = "native",
    link_check: bool = False,
    link_args: Names = (),
    debug_twin: File | None = None,
    compress_debug: Literal["none", "zlib", "zstd"] = "none",
    allow_signed: bool = False,
    observe: Observe | None = None,
    **public: Unpack[Public],
) -> Outcome:
    """Make one static library small and self-contained, as `cargo strip-hook strip` does.

    The parameters are that command's options, with `Public` for what is public. Without `output`
    the library itself is replaced. A library that is done already is left alone (`Outcome.fresh`).
    `observe` is called with each `Phase` (`pipeline.outcomes`) when it begins.

    Raises a `StripHookError` of the phase that failed; then the library is unchanged. An
    xcframework is a folder of libraries: `archive.xcframework.variants` lists them.
    """
    from cargo_strip_hook.core.requests import Compression, Granularity, Strip
    from cargo_strip_hook.pipeline.strip import Job, strip_library

    request = _request(Path(library), **public)
    return strip_library(
        Job(
            Path(library),
            request.target,
            request,
            _choice(Strip, "strip", strip),
            _choice(Granularity, "granularity", granularity),
            engine,
            output=_path(output),
            link_check=link_check,
            link_args=_names(link_args),
            twin=_path(debug_twin),
            compress_debug=_choice(Compression, "compress_debug", compress_debug),
            allow_signed=allow_signed,
        ),
        observe=observe,
    )


def share(  # noqa: PLR0913 - a parameter for each option of the command
    libraries: Sequence[File],
    *,
    common: File,
    output: File | None = None,
    strip: Literal["none", "debuginfo", "symbols"] = "debuginfo",
    granularity: Literal["class", "section", "whole"] = "class",
    link_check: bool = False,
    link_args: Names = (),
    dry_run: bool = False,
    **public: Unpack[Public],
) -> SetOutcome:
    """Put what several libraries have in common into one more, as `cargo strip-hook share` does.

    The parameters are that command's options, with `Public` for what is public in all of them:
    what it names may speak of some only. Without the folder `output` the libraries themselves are
    replaced. A set that is done already is left alone (`SetOutcome.fresh`). In the order of
    `libraries`, `SetOutcome.parts` has for each what it shares with how many others, and by crate
    what not and why; with `dry_run` it only says that.

    Raises a `StripHookError` of the phase that failed; then all files are as they were.
    """
    from cargo_strip_hook.pipeline.sharing import share_libraries

    options = _Options(strip, granularity, link_check, link_args)
    job = _set(libraries, Path(common), _path(output), options, public)
    return share_libraries(job, dry=dry_run)


def join(
    libraries: Sequence[File],
    *,
    output: File,
    strip: Literal["none", "debuginfo", "symbols"] = "debuginfo",
    granularity: Literal["class", "section", "whole"] = "class",
    link_check: bool = False,
    link_args: Names = (),
    dry_run: bool = False,
    **public: Unpack[Public],
) -> SetOutcome:
    """Make one library of several, with what they have in common once, as `cargo strip-hook join`.

    The parameters are that command's options, and as for `share`. `SetOutcome.common` is the size
    of the library `output`.

    Raises a `StripHookError` of the phase that failed, `LinkError` for two definitions of one
    public name; then nothing is written.
    """
    from cargo_strip_hook.pipeline.sharing import join_libraries

    options = _Options(strip, granularity, link_check, link_args)
    return join_libraries(_set(libraries, Path(output), None, options, public), dry=dry_run)


def check(
    library: File, *, against: Files = (), **public: Unpack[Public]
) -> tuple[Inspection, ...]:
    """What is wrong with a library that others link against. Changes nothing.

    `against` are libraries for the same program. A universal library has an inspection for each
    slice, any other library has one. Raises a `StripHookError` for what cannot be read, and where
    the public symbols cannot be decided.
    """
    from dataclasses import replace

    from cargo_strip_hook.analysis.check import decide_or_remember, inspect
    from cargo_strip_hook.archive import open_archive
    from cargo_strip_hook.formats.slices import about, slices_of

    request = _request(Path(library), **public)
    inspections = []
    for slice_, target in slices_of(Path(library), request.target):
        with about(slice_), open_archive(slice_) as archive:
            decided = decide_or_remember(archive, replace(request, target=target))
            inspections.append(inspect(slice_, target, decided, _paths(against)))
    return tuple(inspections)


def report(library: File, *, target: str | None = None) -> tuple[Sizes, ...]:
    """How large a library is, by kind of contents, by crate and by member. Changes nothing.

    A universal library has an entry for each slice, any other library has one.
    `analysis.sizes.compare` compares two. Raises a `StripHookError` for what cannot be read.
    """
    from cargo_strip_hook.analysis.sizes import measure_library

    return measure_library(Path(library), target_of(Path(library), target))


def why(
    library: File,
    what: str,
    *,
    all_roots: bool = False,
    crate: bool = False,
    **public: Unpack[Public],
) -> tuple[Reason, ...]:
    """Why a symbol or a crate is in a library: the shortest chain that needs it, and its cost.

    `what` is a symbol by its name in the object files, a crate, or a symbol as Rust writes it,
    from any `::` on; with `crate` never a symbol. `all_roots` also finds the exports that would
    all have to go for it to go. `Public` says what is public, as for `strip`. There is one reason
    for each slice of a universal library, else one. Raises a `StripHookError` for what cannot be
    read, `InputError` where the library has no such thing, and where the public symbols cannot be
    decided.
    """
    from cargo_strip_hook.analysis.why import explain_library

    request = _request(Path(library), **public)
    return explain_library(Path(library), what, request, all_roots=all_roots, crate=crate)


def target_of(library: Path, triple: str | None) -> Target:
    """The target that `triple` names, else that of the objects in the library, or its first slice.

    Raises `UsageError` for what is no triple, `DiscoveryError` for a library that does not exist,
    and `InputError` for a damaged one.
    """
    if triple:
        from cargo_strip_hook.core.targetspec import named_target

        return named_target(triple)
    from cargo_strip_hook.archive import open_archive, read_slices
    from cargo_strip_hook.formats.detect import deduce_target
    from cargo_strip_hook.pipeline.strip import must_exist

    must_exist(library)
    with open_archive(read_slices(library)[0]) as archive:
        return deduce_target(archive)


@dataclass(frozen=True, slots=True)
class _Options:
    """What is asked of all libraries of a set."""

    strip: str
    granularity: str
    link_check: bool
    link_args: Names


def _set(
    libraries: Sequence[File], common: Path, folder: Path | None, options: _Options, public: Public
) -> SetJob:
    from cargo_strip_hook.core.requests import Granularity, Strip
    from cargo_strip_hook.pipeline.sharing import SetJob
    from cargo_strip_hook.pipeline.strip import Job

    jobs = []
    for library in _paths(libraries):
        request = _request(library, **public)
        jobs.append(
            Job(
                library,
                request.target,
                request,
                _choice(Strip, "strip", options.strip),
                _choice(Granularity, "granularity", options.granularity),
                output=None if folder is None else folder / library.name,
                link_check=options.link_check,
                link_args=_names(options.link_args),
            )
        )
    return SetJob(tuple(jobs), common)


def _request(  # noqa: PLR0913 - a parameter for each way to say what is public
    library: Path,
    *,
    headers: Files = (),
    keep: Names = (),
    cdylib: File | None = None,
    crate_name: str | None = None,
    defines: Names = (),
    include_dirs: Files = (),
    allow_missing: bool = False,
    target: str | None = None,
    **named: Names | Files,
) -> ExportRequest:
    from cargo_strip_hook.exports.decide import ExportRequest
    from cargo_strip_hook.exports.sources import SOURCES

    sources = {s.keyword: s for s in SOURCES}
    for keyword in named.keys() - sources:
        raise TypeError(f"there is no parameter `{keyword}`")
    header_paths = _paths(headers)
    return ExportRequest(
        target_of(library, target),
        headers=header_paths,
        include_dirs=_paths(include_dirs),
        defines=_names(defines),
        cdylib=_path(cdylib),
        named={
            sources[k].name: tuple(sources[k].kind(v) for v in _many(given))
            for k, given in named.items()
        },
        keep=_names(keep),
        crate_name=crate_name,
        allow_missing=allow_missing,
        headers_explicit=bool(header_paths),
        cdylib_explicit=cdylib is not None,
    )


def _choice(kind: type[_Choice], name: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(c.value) for c in kind)
        raise UsageError(f"{name} is `{value}`", help=f"it must be one of {choices}") from None


def _path(file: File | None) -> Path | None:
    return None if file is None else Path(file)


def _paths(files: Files) -> tuple[Path, ...]:
    return tuple(map(Path, _many(files)))


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _many(values: Names | Files) -> Sequence[File]:
    return (values,) if isinstance(values, str | PathLike) else values


__all__ = [
    "File",
    "Files",
    "Names",
    "Public",
    "StripHookError",
    "check",
    "join",
    "report",
    "share",
    "strip",
    "target_of",
    "why",
]
