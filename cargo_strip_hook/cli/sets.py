"""Commands about libraries that share code: those that are named, and those of packages."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.cli import options
from cargo_strip_hook.cli.console import Console
from cargo_strip_hook.core.errors import StripHookError, UsageError

if TYPE_CHECKING:
    from cargo_strip_hook.cargo.sharing import ArtefactSet
    from cargo_strip_hook.pipeline.outputs import File
    from cargo_strip_hook.pipeline.sharing import SetJob, SetPart
    from cargo_strip_hook.pipeline.strip import Job


def share(args: argparse.Namespace, console: Console) -> int:
    """`share LIB… --common FILE`."""
    if any(map(options.is_xcframework, args.library)):
        from cargo_strip_hook.cli import frameworks

        return frameworks.share(args, console)
    _run(_set_of(args, args.common, args.output), args, console)
    return 0


def join(args: argparse.Namespace, console: Console) -> int:
    """`join LIB… -o FILE`."""
    from cargo_strip_hook.cli.progress import progress
    from cargo_strip_hook.pipeline.sharing import join_libraries

    job = _set_of(args, args.output, None)
    with progress(console, "Joining", args.library[0]):
        outcome = join_libraries(job, dry=args.dry_run, processes=_processes(args))
    if args.dry_run:
        console.shared(outcome, dry=True)
    else:
        console.joined(outcome)
    return 0


def _run(job: SetJob, args: argparse.Namespace, console: Console) -> None:
    from cargo_strip_hook.cli.progress import progress
    from cargo_strip_hook.pipeline.sharing import share_libraries

    with progress(console, "Sharing", job.jobs[0].library):
        outcome = share_libraries(job, dry=args.dry_run, processes=_processes(args))
    console.shared(outcome, dry=args.dry_run)


def _processes(args: argparse.Namespace) -> int:
    """How many libraries are verified at a time."""
    # numpy would start a thread for each processor when it is loaded, for algebra that is not used
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return args.jobs or os.cpu_count() or 1


def _set_of(args: argparse.Namespace, common: Path, folder: Path | None) -> SetJob:
    """The libraries of a set; results go to a folder, where there is one."""
    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.pipeline.sharing import SetJob

    jobs = []
    for library in args.library:
        if options.is_xcframework(library):
            raise UsageError(
                f"{library} is an xcframework, and those cannot be joined",
                help="share what they have in common, or join the libraries in them",
            )
        target = target_of(library, args.target)
        output = folder / library.name if folder is not None else None
        jobs.append(options.job_of_set(args, options.Subject(library), target, output))
    return SetJob(tuple(jobs), common)


def survey(args: argparse.Namespace) -> SetPart:
    """What of the library of `report` others of a set need, too. Nothing is written."""
    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.pipeline.sharing import SetJob, share_libraries
    from cargo_strip_hook.pipeline.strip import Job

    jobs = []
    for library in (args.library, *args.share_with):
        target = target_of(library, args.target)
        request = options.request_for_file(args, options.Subject(library), target)
        jobs.append(Job(library, target, request))
    nowhere = args.library.with_name(f".{args.library.name}.common")
    return share_libraries(SetJob(tuple(jobs), nowhere), dry=True).parts[0]


def share_artefacts(
    args: argparse.Namespace,
    sets: Sequence[ArtefactSet],
    console: Console,
    inputs: Sequence[File],
) -> int:
    """Share what the packages of each set have in common. Returns the exit code.

    The failure of a set does not stop the others. `inputs` are files that are read besides.
    """
    from cargo_strip_hook.engines.worker import dismiss
    from cargo_strip_hook.pipeline.outputs import File, must_differ, read, written

    dismiss()  # what was started ahead, for a single library
    prepared = [_of_artefacts(args, one) for one in sets]
    jobs = [job for one in prepared for job in one.jobs]
    results = [*written(jobs), *(File(one.common, "the common library") for one in prepared)]
    must_differ(results, [*read(jobs), *inputs])
    exit_code = 0
    for one in prepared:
        try:
            _run(one, args, console)
        except StripHookError as e:
            console.problem(e)
            exit_code = max(exit_code, e.exit_code)
    return exit_code


def _of_artefacts(args: argparse.Namespace, chosen: ArtefactSet) -> SetJob:
    """The job of a set of packages. Raises `UsageError` for what a set cannot be asked for."""
    from cargo_strip_hook.cargo.sharing import how_to_build_again
    from cargo_strip_hook.pipeline.sharing import SetJob

    jobs = [options.job_for_artefact(args, artefact) for artefact in chosen.artefacts]
    for job, artefact in zip(jobs, chosen.artefacts, strict=True):
        _must_be_for_sets(job, artefact.package, chosen.name)
        for name in ("strip", "granularity"):
            mine, first = getattr(job, name).value, getattr(jobs[0], name).value
            if mine != first:
                raise UsageError(
                    f"package `{chosen.artefacts[0].package}` asks for {name} `{first}`, "
                    f"`{artefact.package}` for `{mine}`, and they are of one set",
                    help=f"say it for all, under [workspace.metadata.strip-hook] or with --{name}",
                )
    again = how_to_build_again(chosen)
    return SetJob(tuple(jobs), chosen.common, True, chosen.pkg_config, again)


def _must_be_for_sets(job: Job, package: str, name: str) -> None:
    asked = {
        "engine": job.engine != "native",
        "debug-twin": job.twin is not None,
        "compress-debug": job.compress_debug.value != "none",
    }
    for option, given in asked.items():
        if given:
            raise UsageError(
                f"`{option}` is not for libraries that share code, and package `{package}` is in "
                f"the set `{name}`",
                help=f"leave `{option}` out, or take the package out of the set: `share = false`",
            )
