"""`share` for xcframeworks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.cli import options
from cargo_strip_hook.cli.console import Console
from cargo_strip_hook.core.errors import UsageError

if TYPE_CHECKING:
    from cargo_strip_hook.archive.xcframework import Variant
    from cargo_strip_hook.pipeline.strip import Job


def share(args: argparse.Namespace, console: Console) -> int:
    """`share XCFRAMEWORK… --common XCFRAMEWORK`."""
    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.cli.progress import progress
    from cargo_strip_hook.pipeline.frameworks import share_frameworks

    for library in args.library:
        if not options.is_xcframework(library):
            raise UsageError(
                f"{library} is no xcframework, and other libraries of the set are",
                help="share xcframeworks with one another, and libraries with one another",
            )
    if args.common.suffix != ".xcframework":
        raise UsageError(
            f"the common library {args.common} of xcframeworks has to be one",
            help="give it a name that ends with .xcframework",
        )
    if args.output is not None:
        raise UsageError(
            "--output takes the results for libraries, not for xcframeworks",
            help="copy the xcframeworks, and share the copies",
        )

    def job_of(folder: Path, variant: Variant) -> Job:
        subject = options.Subject(variant.library, variant.headers, folder)
        target = target_of(variant.library, args.target)
        return options.job_of_variant(args, subject, target)

    with progress(console, "Sharing", args.library[0]):
        outcomes = share_frameworks(args.library, args.common, job_of, dry=args.dry_run)
    for outcome in outcomes:
        console.shared(outcome, dry=args.dry_run)
    return 0
