"""From a call of rustc to its exit code: the order of the steps, and how errors are reported."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.cargo.wrapper.diagnostics import Level, lines_of, tell
from cargo_strip_hook.cargo.wrapper.invocation import Invocation, parse, profile_of
from cargo_strip_hook.cargo.wrapper.rustc import end_as, run_rustc
from cargo_strip_hook.core import lifetime
from cargo_strip_hook.core.errors import DiscoveryError, StripHookError, of_system
from cargo_strip_hook.present.plain import plain

if TYPE_CHECKING:
    from cargo_strip_hook.cargo.wrapper.job import Wanted
    from cargo_strip_hook.cargo.wrapper.package import Origin
    from cargo_strip_hook.core.target import Target
    from cargo_strip_hook.replace import Identity

SWITCH = "STRIP_HOOK"  # `0` turns the hook off for one build


def main(argv: Sequence[str]) -> int:
    """Run ``RUSTC ARGS…``, and strip the static library that it makes, if any. The exit code."""
    if not argv:
        sys.stderr.write(
            "error: cargo-strip-hook-rustc is called by cargo, with rustc and its arguments\n"
        )
        return 2
    try:
        invocation = parse(argv[1:])
    except (OSError, UnicodeDecodeError):
        invocation = None  # an @file that cannot be read: rustc will say so
    if invocation is None:
        return end_as(_run(argv, lambda: None))
    parent = os.getppid()
    environ = dict(os.environ)
    likely = environ.get(SWITCH) != "0" and profile_of(invocation.out_dir) != "dev"
    code = _run(argv, _load if likely else _load_little)
    if code != 0:
        return end_as(code)
    # without its cargo this has no purpose, and another cargo may be working here
    with lifetime.endings_raise():
        try:
            lifetime.end_with(parent)
            if os.getppid() != parent:
                return 1
            return _after(invocation, argv[0], environ)
        except KeyboardInterrupt as e:
            return lifetime.ending_of(e)[1]


def _run(argv: Sequence[str], meanwhile: Callable[[], None]) -> int:
    try:
        return run_rustc(argv, meanwhile)
    except OSError as e:
        sys.stderr.write(f"error: `{argv[0]}` cannot be started: {e.strerror or e}\n")
        return 127


def _load_little() -> None:
    """Load what is needed to find out whether there is anything to do."""
    import cargo_strip_hook.cargo.wrapper.job  # noqa: F401


def _load() -> None:
    """Load what will be needed, while rustc works."""
    import gc

    gc.disable()  # as in `__main__`: a run is short
    # numpy would start a thread for each processor, for algebra that is not used; rustc has been
    # started already, with an unchanged environment
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    _load_little()


def _after(invocation: Invocation, rustc: str, environ: Mapping[str, str]) -> int:
    """Strip the library of a rustc that succeeded, and report all errors."""
    from cargo_strip_hook.cargo.wrapper.job import read_wanted
    from cargo_strip_hook.cargo.wrapper.package import find_package
    from cargo_strip_hook.replace import Identity

    inputs: tuple[Path, ...] = ()
    level: Level = "error"
    exit_code = 0
    try:
        library = find_library(invocation, rustc)
        written = Identity.of(library)
        target = _target(invocation, library)
        origin = find_package(environ, invocation.crate_name)
        inputs = origin.manifests
        wanted = read_wanted(invocation, origin, target, rustc)
        inputs = wanted.inputs
        # what shares code is made of libraries as rustc writes them, when all of them are there
        if environ.get(SWITCH) != "0" and wanted.active and not wanted.settings.share:
            if wanted.settings.on_error == "warn":
                level = "warning"
            _strip(_Built(invocation, origin, library, written), wanted, environ)
    except StripHookError as e:
        exit_code = _failed(invocation, e, level)
    except OSError as e:
        exit_code = _failed(invocation, of_system(e), level)
    except MemoryError:
        exit_code = _failed(invocation, StripHookError("there is not enough memory"), level)
    _note_inputs(invocation, inputs, environ)
    return exit_code


@dataclass(frozen=True, slots=True)
class _Built:
    """The library of an invocation, as rustc has `written` it, and its package."""

    invocation: Invocation
    origin: Origin
    library: Path
    written: Identity


def _strip(built: _Built, wanted: Wanted, environ: Mapping[str, str]) -> None:
    from cargo_strip_hook.cargo.config import load_config
    from cargo_strip_hook.cargo.wrapper.job import job_of
    from cargo_strip_hook.cargo.wrapper.jobserver import token
    from cargo_strip_hook.pipeline.strip import strip_library

    invocation, library = built.invocation, built.library
    job = job_of(invocation, built.origin, library, wanted)
    with token(environ) as second:
        outcome = strip_library(job, processes=2 if second else 1, expected=built.written)
    for warning in outcome.warnings:
        _tell(invocation, "warning", warning)
    if wanted.settings.verbose or load_config().get("term", "verbose") in (True, "true"):
        _tell(invocation, "note", f"{library.name} shows nothing else: {outcome.exports.source}")
    settings = wanted.settings
    if settings.max_size is not None or settings.max_growth is not None:
        from cargo_strip_hook.analysis.budget import Budget, check_budget

        budget = Budget(settings.max_size, settings.max_growth, settings.baseline)
        check_budget(library, job.target, budget)


def find_library(invocation: Invocation, rustc: str) -> Path:
    """The static library that rustc wrote. Raises `DiscoveryError` where it is not found.

    Its usual names are tried first, then those that rustc prints.
    """
    candidates = [
        path
        for prefix, suffix in (("lib", ".a"), ("", ".lib"))
        for path in invocation.library_paths(f"{prefix}{invocation.file_stem}{suffix}")
    ]
    for path in candidates:
        if path.is_file():
            return path
    from cargo_strip_hook.core.run import run

    done = run([rustc, *invocation.words, "--print", "file-names"], accept=())
    for name in done.stdout.split("\n"):
        for path in invocation.library_paths(name) if name.endswith((".a", ".lib")) else ():
            if path.is_file():
                return path
    raise DiscoveryError(
        f"rustc built a static library of `{invocation.crate_name}`, but it was not found",
        lines=[f"looked at {path}" for path in dict.fromkeys(candidates)],
        help=f"strip it with `cargo strip-hook strip LIB`, and turn this off with {SWITCH}=0",
    )


def _target(invocation: Invocation, library: Path) -> Target:
    """The target that cargo named; that of the objects for the host and for JSON files."""
    from cargo_strip_hook.api import target_of

    named = invocation.target
    return target_of(library, None if named is None or named.endswith(".json") else named)


def _failed(invocation: Invocation, error: StripHookError, level: Level) -> int:
    tell(
        sys.stderr,
        level,
        lines_of(error),
        error.help,
        as_json=invocation.json,
        colour=invocation.ansi,
    )
    return 0 if level == "warning" else 1


def _tell(invocation: Invocation, level: Level, what: str) -> None:
    tell(sys.stderr, level, plain(what), as_json=invocation.json, colour=invocation.ansi)


def _note_inputs(
    invocation: Invocation, inputs: Sequence[Path], environ: Mapping[str, str]
) -> None:
    """Have cargo build again when one of the `inputs`, or the switch, changes."""
    from cargo_strip_hook.cargo.wrapper.depinfo import with_inputs

    path = invocation.dep_info
    if path is None or not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    dep_info = with_inputs(text, inputs, {SWITCH: environ.get(SWITCH)})
    new = path.with_name(f"{path.name}.strip-hook")  # never half a file
    new.write_text(dep_info, encoding="utf-8", errors="surrogateescape")
    new.replace(path)


__all__ = ["find_library", "main"]
