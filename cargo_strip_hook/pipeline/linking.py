"""The link check: a C program that needs every export is linked before anything is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.pipeline.outcomes import Job


def linked(
    job: Job,
    target: Target,
    candidate: Path,
    exports: Sequence[str],
    folder: Path,
    others: Sequence[Path] = (),
) -> None:
    """Link a program that needs all `exports`, with a result and the `others` behind it.

    `folder` is for files on the way. Raises `VerifyError` for what does not resolve, `ToolError`
    where there is no compiler.
    """
    import os
    import shlex

    from cargo_strip_hook.formats.detect import host_target
    from cargo_strip_hook.verify.linkcheck import compiler, default_libs, link_check

    here = host_target()
    native = (target.arch, target.system) == (here.arch, here.system)
    chosen = shlex.split(os.environ.get("CC", "")) if native else []
    cc = tuple(chosen) or compiler(target, host=native)
    libs = (*map(str, others), *job.link_args, *default_libs(target))
    link_check(candidate, exports, target, cc, libs, folder=folder)


def set_linked(
    jobs: Sequence[Job],
    small: Sequence[Path],
    exports: Sequence[tuple[str, ...]],
    common: Path,
    folder: Path,
) -> None:
    """The same for each small library of a set with the common one, and for all of them together.

    Raises what `linked` raises.
    """
    target = jobs[0].target
    for job, candidate, names in zip(jobs, small, exports, strict=True):
        linked(job, target, candidate, names, folder, [common])
    everything = tuple(dict.fromkeys(name for names in exports for name in names))
    linked(jobs[0], target, small[0], everything, folder, [*small[1:], common])


__all__ = ["linked", "set_linked"]
