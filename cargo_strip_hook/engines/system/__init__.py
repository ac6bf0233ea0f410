"""The system engine: the same result by the platform's own linker and objcopy.

Each platform has a module for its steps (`elf`, `macho`) and one that finds its programs and checks
them (`tools`, `apple`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cargo_strip_hook.core.errors import LinkError, UsageError
from cargo_strip_hook.core.requests import Compression, PrelinkRequest, PrelinkResult


class SystemEngine:
    """`Engine` over the programs of the platform."""

    name = "system"

    def prelink(
        self,
        request: PrelinkRequest,
        loaded: Callable[[Sequence[int]], None] | None = None,  # noqa: ARG002
    ) -> PrelinkResult:
        """Write `request.output`; a linker does not say what it has loaded.

        Raises `UsageError` for a target without such a pipeline, `ToolError` where a program is
        missing or fails, `LinkError` and `InputError`.
        """
        if not request.exports:
            raise LinkError(
                "there is nothing to export: every symbol of the library would be dropped",
                help="name the public symbols with `--header`, `--export` or `--cdylib`",
            )
        if request.twin is not None:
            raise UsageError(
                "the system engine cannot make a debug twin",
                help="use `--engine native`, or leave `--debug-twin` out",
            )
        if request.compress_debug is not Compression.NONE:
            raise UsageError(
                "the system engine does not compress debug sections",
                help="use `--engine native`, or leave `--compress-debug` out",
            )
        target = request.target
        if target.object_format == "elf":
            from cargo_strip_hook.engines.system import elf

            return elf.prelink(request)
        if target.object_format == "macho":
            from cargo_strip_hook.engines.system import macho

            return macho.prelink(request)
        raise UsageError(
            f"the system engine does not know {target.triple} (format {target.object_format})",
            help="use `--engine native`",
        )


__all__ = ["SystemEngine"]
