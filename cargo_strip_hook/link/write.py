"""Write: the last phases of every object, whatever its format."""

from __future__ import annotations

from cargo_strip_hook.core.requests import PrelinkRequest
from cargo_strip_hook.link.link_map import statistics
from cargo_strip_hook.link.model import Bool, Format, Image, Layout, Program
from cargo_strip_hook.link.warnings import private_cxx


def write(
    program: Program, live: Bool, layout: Layout, format: Format, request: PrelinkRequest
) -> Image:
    """Make the object of what lives (bool, by atom). Raises `LinkError`."""
    output = format.output(program, live, layout, request)
    size, chunks = output.encode()
    defined = output.symbols.defined
    return Image(
        size,
        chunks,
        defined,
        output.symbols.undefined,
        output.link_map,
        statistics(program, live, output.counted, len(defined)),
        output.warnings + private_cxx(program, live, output.placed.kept, format.cxx),
    )


__all__ = ["write"]
